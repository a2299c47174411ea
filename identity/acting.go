package identity

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"guichet/internal/id"
	"guichet/internal/seal"
)

// NewKey makes the key of something that is sealed like a person: a business, an estate.
func (s *Service) NewKey(ctx context.Context, tx pgx.Tx, ownerID string) (*seal.Key, error) {
	return s.newKey(ctx, tx, ownerID)
}

// OpenKey opens the stored key of a person, or of what is sealed like one. It returns
// ErrForgotten when the key has been destroyed.
func (s *Service) OpenKey(ownerID string, box []byte) (*seal.Key, error) {
	return s.openKey(ownerID, box)
}

// ResidentIn is Resident inside the caller's transaction, which must not wait for a
// second connection.
func (s *Service) ResidentIn(ctx context.Context, q Querier, residentID string) (Resident, error) {
	return s.resident(ctx, q, residentID)
}

// FindByEmail returns the active resident who has proved an address, or ErrNotFound. For
// staff: whoever asks it learns who has an account.
func (s *Service) FindByEmail(ctx context.Context, tx pgx.Tx, typed string) (string, error) {
	email, err := ParseEmail(typed)
	if err != nil {
		return "", err
	}
	residentID, state, err := s.residentByEmail(ctx, tx, s.emailLookup(email))
	if err == nil && state != Active {
		err = ErrNotFound
	}
	return residentID, err
}

// SetActing makes the session act under a right (an identity.delegation), or for the
// person alone when actingID is empty, and gives it a new token: what an old one may
// do never grows. It returns ErrNoSession for a token that has been replaced. Whether the
// right is the person's and alive, identity/delegation has asked.
func (s *Service) SetActing(ctx context.Context, tx pgx.Tx, p Person, token, actingID string) (fresh string, err error) {
	fresh = id.Secret()
	var sessionID string
	err = tx.QueryRow(ctx, `
		update identity.session set token_hash = $3, acting_id = nullif($4, '')::uuid
		where id = $1 and token_hash = $2 and ended_at is null
		returning id`, p.SessionID, id.Hash(token), id.Hash(fresh), actingID).Scan(&sessionID)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", ErrNoSession
	}
	if err != nil {
		return "", fmt.Errorf("switch session %s: %w", p.SessionID, err)
	}
	return fresh, nil
}
