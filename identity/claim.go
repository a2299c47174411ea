package identity

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"guichet/internal/audit"
)

// Receipts is the money side, as far as a claim needs it: who a guest's receipt was sent to.
type Receipts interface {
	// GuestReceipt returns the receipt of a number and the contact it went to, or
	// ErrNotFound, wrapped, also for one that a resident paid.
	GuestReceipt(ctx context.Context, number string) (receiptID, contactID string, err error)
}

// ErrClaim says that a receipt cannot be claimed: unknown, not paid by a guest, sent to an
// address that the person has not proved, or claimed already. Which, nobody is told: receipt numbers can be guessed.
var ErrClaim = errors.New("the receipt cannot be claimed")

// Claim takes a guest's payment into the account of the person who has proved the
// address its receipt was sent to. Both the address and the account are told. It returns
// ErrClaim or a *LimitedError, wrapped.
func (s *Service) Claim(ctx context.Context, books Receipts, p Person, number string, v Visitor) error {
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		return s.Take(ctx, tx, "claim", p.ID, s.limits.Claim)
	})
	if err != nil {
		return fmt.Errorf("claim a receipt: %w", err)
	}
	receiptID, contactID, err := books.GuestReceipt(ctx, number)
	if errors.Is(err, ErrNotFound) {
		return fmt.Errorf("claim a receipt: %w", ErrClaim)
	}
	if err != nil {
		return fmt.Errorf("claim a receipt: %w", err)
	}
	err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		// The keyed hash of an address is the same for a guest and for an account.
		var same bool
		err := tx.QueryRow(ctx, `
			select exists (select from identity.contact c join identity.email e on e.lookup = c.lookup where c.id = $1 and e.resident_id = $2)`,
			contactID, p.ID).Scan(&same)
		if err != nil {
			return err
		}
		if !same {
			return ErrClaim
		}
		tag, err := tx.Exec(ctx, `
			insert into identity.claim (receipt, resident_id, contact_id, claimed_at) values ($1, $2, $3, $4) on conflict (receipt) do nothing`,
			receiptID, p.ID, contactID, s.now())
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return ErrClaim
		}
		err = audit.Record(ctx, tx, audit.Event{
			Action: "guest.claimed", ObjectType: "receipt", ObjectID: receiptID, Subject: p.ID, At: s.now(),
			Details: map[string]any{"contact": contactID, "network": v.Network, "device": v.Device},
		})
		if err != nil {
			return err
		}
		n := notice{resident: p.ID, template: "claimed", key: receiptID, data: map[string]string{"number": number}}
		if err := s.notify(ctx, tx, n); err != nil {
			return err
		}
		return s.notifyAt(ctx, tx, n, "contact:"+contactID)
	})
	if err != nil {
		return fmt.Errorf("claim a receipt: %w", err)
	}
	return nil
}

// Claimed lists the receipts that a resident has claimed, the newest first.
func (s *Service) Claimed(ctx context.Context, residentID string, limit int) ([]string, error) {
	rows, err := s.db.Query(ctx, `
		select receipt from identity.claim where resident_id = $1 order by claimed_at desc, receipt limit $2`, residentID, limit)
	if err != nil {
		return nil, fmt.Errorf("list claimed receipts: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}
