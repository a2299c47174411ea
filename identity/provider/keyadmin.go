package provider

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/audit"
)

// What rotating a key by hand may be refused for.
var (
	ErrAlg     = errors.New("no such algorithm")
	ErrTooSoon = errors.New("the next key has not been published for a day yet")
)

// A Key is a signing key as administrators see it.
type Key struct {
	Kid         string     `json:"kid"`
	Alg         string     `json:"alg"`
	State       string     `json:"state"` // next, active, retiring, gone
	CreatedAt   time.Time  `json:"created_at"`
	ActivatedAt *time.Time `json:"activated_at"`
	RetiredAt   *time.Time `json:"retired_at"`
}

// ChangesAt is when the key's state changes by itself; zero when it does not.
func (k Key) ChangesAt() time.Time {
	switch {
	case k.State == "active" && k.ActivatedAt != nil:
		return k.ActivatedAt.Add(keyLife)
	case k.State == "retiring" && k.RetiredAt != nil:
		return k.RetiredAt.Add(keyRetiring)
	}
	return time.Time{}
}

// Keys lists the signing keys by algorithm, the newest first, at most 100.
func (s *Service) Keys(ctx context.Context) ([]Key, error) {
	rows, err := s.db.Query(ctx, `
		select kid, alg, state, created_at, activated_at, retired_at from identity.signing_key order by alg, created_at desc, kid limit 100`)
	if err != nil {
		return nil, fmt.Errorf("list signing keys: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[Key])
	if err != nil {
		return nil, fmt.Errorf("list signing keys: %w", err)
	}
	return list, nil
}

// RotateKey lets the next key of an algorithm sign from now on; the one before verifies for
// a while. It returns ErrAlg or ErrTooSoon, wrapped: clients keep the list of keys for up to a day.
func (s *Service) RotateKey(ctx context.Context, alg, by string) error {
	return s.replaceKey(ctx, alg, by, "retiring", s.now().Add(-keyAhead))
}

// WithdrawKey is RotateKey for a key that has leaked: it verifies nothing from now on, not
// even what it signed rightly, and the next key signs however new it is.
func (s *Service) WithdrawKey(ctx context.Context, alg, by string) error {
	return s.replaceKey(ctx, alg, by, "gone", s.now())
}

func (s *Service) replaceKey(ctx context.Context, alg, by, becomes string, publishedBefore time.Time) error {
	if !slices.Contains(Algs(), alg) {
		return fmt.Errorf("rotate %q key: %w", alg, ErrAlg)
	}
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		now := s.now()
		var next string
		err := tx.QueryRow(ctx, `
			select kid from identity.signing_key where alg = $1 and state = 'next' and created_at <= $2 for update`, alg, publishedBefore).Scan(&next)
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrTooSoon
		}
		if err != nil {
			return err
		}
		var old string
		err = tx.QueryRow(ctx, `
			update identity.signing_key set state = $2, private = null, retired_at = $3 where alg = $1 and state = 'active'
			returning kid`, alg, becomes, now).Scan(&old)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `update identity.signing_key set state = 'active', activated_at = $2 where kid = $1`, next, now); err != nil {
			return err
		}
		return audit.Record(ctx, tx, audit.Event{
			Action: "key.rotated", ObjectType: "signing-key", ObjectID: next, At: now,
			Details: map[string]any{"alg": alg, "by": by, "before": old, "before_is": becomes},
		})
	})
	if err != nil {
		return fmt.Errorf("rotate %s key: %w", alg, err)
	}
	return s.TendKeys(ctx) // the next one after this, and what this instance remembers
}
