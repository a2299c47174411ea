package manual

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"guichet/internal/clock"
	"guichet/internal/money"
	"guichet/ledger"
)

// A Review is what a draft would do to the books at this moment.
type Review struct {
	Effects []Effect
	BookedOn,
	UndoOn clock.Date // where the entries would be booked; a closed period passes them on
	Late  bool     // BookedOn is not the date asked for
	Owned []string // accounts that other rooms own
	Err   error    // what the books would refuse, as they say it; nil: nothing
}

// An Effect is what happens to one account, debit positive.
type Effect struct {
	Account       ledger.Account
	Before, After money.Amount
	Owned         bool
}

// errTried takes back what was only tried.
var errTried = errors.New("only tried")

// Review records a draft as Approve would, looks, and takes it back: what it says is
// what the books say. A draft that has faults has no effects.
func (s *Service) Review(ctx context.Context, p Paper) (Review, error) {
	r := Review{Owned: s.owned(p.Content)}
	if len(p.Content.Faults()) > 0 {
		return r, nil
	}
	err := pgx.BeginFunc(ctx, s.DB, func(tx pgx.Tx) (err error) {
		if r.Effects, err = s.before(ctx, tx, p.Content); err != nil {
			return err
		}
		return s.try(ctx, tx, p, func(tx pgx.Tx, entry, undo ledger.Entry) error {
			r.BookedOn, r.UndoOn, r.Late = entry.EffectiveOn, undo.EffectiveOn, entry.AskedOn != clock.Date{}
			for i := range r.Effects {
				var err error
				if r.Effects[i].After, err = s.Books.Balance(ctx, tx, r.Effects[i].Account.Path); err != nil {
					return err
				}
			}
			return nil
		})
	})
	switch {
	case err == nil:
		return r, nil
	case Refusal(err):
		r.Err = err
		for i := range r.Effects {
			r.Effects[i].After = r.Effects[i].Before
		}
		return r, nil
	}
	return r, fmt.Errorf("review draft %s: %w", p.ID, err)
}

// before reads the accounts of a content, in order of their first line.
func (s *Service) before(ctx context.Context, tx pgx.Tx, c Content) ([]Effect, error) {
	lines := c.entryLines()
	if c.Mode == Correction {
		of, err := s.Books.Entry(ctx, tx, c.Of)
		if err != nil {
			return nil, err
		}
		lines = append(lines, of.Lines...)
	}
	var list []Effect
	seen := map[string]bool{}
	for _, l := range lines {
		if seen[l.Account] {
			continue
		}
		seen[l.Account] = true
		a, err := s.Books.Account(ctx, tx, l.Account)
		if err != nil {
			return list, err
		}
		balance, err := s.Books.Balance(ctx, tx, l.Account)
		if err != nil {
			return list, err
		}
		list = append(list, Effect{Account: a, Before: balance, Owned: s.Owns(l.Account)})
	}
	return list, nil
}

// try records a draft, lets somebody look, and takes it back. It returns what the books
// refuse.
func (s *Service) try(ctx context.Context, tx pgx.Tx, p Paper, look func(tx pgx.Tx, entry, undo ledger.Entry) error) error {
	err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
		entryID, undoID, err := s.post(ctx, tx, p, "")
		if err != nil {
			return err
		}
		entry, err := s.Books.Entry(ctx, tx, entryID)
		if err != nil {
			return err
		}
		var undo ledger.Entry
		if undoID != "" {
			if undo, err = s.Books.Entry(ctx, tx, undoID); err != nil {
				return err
			}
		}
		if err := look(tx, entry, undo); err != nil {
			return err
		}
		return errTried
	})
	if errors.Is(err, errTried) {
		return nil
	}
	return err
}

// Refusal reports whether the books refuse an entry, as opposed to trouble with the
// database.
func Refusal(err error) bool {
	for _, refusal := range []error{
		ledger.ErrInvalid, ledger.ErrUnbalanced, ledger.ErrUnknownAccount, ledger.ErrCurrency, ledger.ErrAccountClosed,
		ledger.ErrPeriodClosed, ledger.ErrLimit, ledger.ErrReversed, ledger.ErrNotFound,
	} {
		if errors.Is(err, refusal) {
			return true
		}
	}
	return false
}
