package provider

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/audit"
	"guichet/internal/id"
)

// MaxOverlap is the longest time for which the secret before works on.
const MaxOverlap = 30 * 24 * time.Hour

// What rotating a secret may be refused for.
var (
	ErrNoSecret = errors.New("the client has no secret")
	ErrOverlap  = errors.New("the secret before may work on for 30 days at most")
	ErrRotated  = errors.New("the secret has been replaced since it was looked at")
)

// secrets are what a client may prove itself with: one, or two while one replaces the other.
type secrets struct {
	hash, old []byte
	oldUntil  *time.Time
}

// hold reports whether a secret is one of them, in the same time for every wrong one.
func (s secrets) hold(secret string, now time.Time) bool {
	hash := id.Hash(secret)
	current := subtle.ConstantTimeCompare(hash, s.hash)
	old := subtle.ConstantTimeCompare(hash, s.old)
	if s.oldUntil == nil || !now.Before(*s.oldUntil) {
		old = 0
	}
	return current|old == 1
}

// A Rotation replaces a client's secret.
type Rotation struct {
	Client  string
	By      string
	Overlap time.Duration // how long the secret before works on; 0: not at all
	// Seen is when the secret was made that the caller means to replace, as Registered
	// says it. Nil: whichever there is. It keeps a form that is sent twice from
	// throwing out the secret that the department is just taking into use.
	Seen *time.Time
}

// RotateSecret gives a client a new secret and returns it; it is seen here and never
// again. It returns ErrNotFound, ErrNoSecret, ErrOverlap or ErrRotated, wrapped.
func (s *Service) RotateSecret(ctx context.Context, tx pgx.Tx, r Rotation) (string, error) {
	if r.Overlap < 0 || r.Overlap > MaxOverlap {
		return "", fmt.Errorf("rotate secret of %s: %w", r.Client, ErrOverlap)
	}
	var have []byte
	var made time.Time
	err := tx.QueryRow(ctx, `
		select secret_hash, coalesce(secret_made_at, created_at) from identity.client where id = $1 for update`, r.Client).
		Scan(&have, &made)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		err = ErrNotFound
	case err == nil && have == nil:
		err = ErrNoSecret
	case err == nil && r.Seen != nil && !r.Seen.Equal(made):
		err = ErrRotated
	}
	if err != nil {
		return "", fmt.Errorf("rotate secret of %s: %w", r.Client, err)
	}
	secret, now := id.Secret(), s.now()
	var old []byte
	var until *time.Time
	if r.Overlap > 0 {
		end := now.Add(r.Overlap)
		old, until = have, &end
	}
	_, err = tx.Exec(ctx, `
		update identity.client set secret_hash = $2, secret_made_at = $3, old_secret_hash = $4, old_secret_until = $5
		where id = $1`, r.Client, id.Hash(secret), now, old, until)
	if err != nil {
		return "", fmt.Errorf("rotate secret of %s: %w", r.Client, err)
	}
	return secret, audit.Record(ctx, tx, audit.Event{
		Action: "client.secret_rotated", ObjectType: "client", ObjectID: r.Client, At: now,
		Details: map[string]any{"by": r.By, "old_until": until},
	})
}

// RevokeOldSecret ends the secret that works on after a rotation, at once. Without one
// it changes nothing.
func (s *Service) RevokeOldSecret(ctx context.Context, tx pgx.Tx, name, by string) error {
	tag, err := tx.Exec(ctx, `
		update identity.client set old_secret_hash = null, old_secret_until = null
		where id = $1 and old_secret_hash is not null`, name)
	if err != nil {
		return fmt.Errorf("revoke old secret of %s: %w", name, err)
	}
	if tag.RowsAffected() == 0 {
		return nil
	}
	return s.changed(ctx, tx, name, map[string]any{"by": by, "revoked": "old secret"})
}
