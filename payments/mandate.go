package payments

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/clock"
	"guichet/internal/money"
)

// A Mandate is by what right somebody pays for the viewer: who that is, and how much
// may be paid. Who may give one, and whether it is in force, its giver knows.
type Mandate struct {
	ActorID string       // the resident who acts; the receipt goes to them
	Limits  []SpendLimit // of the right itself, then of those it was passed on from, their source first
}

// A SpendLimit bounds what is paid under one right, and all that was passed on from
// it, together. 0: no limit.
type SpendLimit struct {
	ID                   string // opaque
	PerPayment, PerMonth money.Amount
}

// A LimitError says which limit of a mandate a payment would pass.
type LimitError struct {
	Limit    money.Amount
	PerMonth bool
	Spent    money.Amount // this month, when PerMonth
}

func (e *LimitError) Error() string {
	if e.PerMonth {
		return fmt.Sprintf("above the limit of %s a month, of which %s are spent", e.Limit, e.Spent)
	}
	return fmt.Sprintf("above the limit of %s a payment", e.Limit)
}

// ids are the rights that a payment under the mandate counts towards; nil without one.
func (m *Mandate) ids() []string {
	if m == nil {
		return nil
	}
	ids := make([]string, len(m.Limits))
	for i, l := range m.Limits {
		ids[i] = l.ID
	}
	return ids
}

// actor is who acts, or "" when the payer does.
func (m *Mandate) actor() string {
	if m == nil {
		return ""
	}
	return m.ActorID
}

// allow refuses an amount above a limit. What is being paid counts as paid. Payments under
// rights with a common source take turns, so that two at the same moment cannot both be
// the last one within the month's limit.
func (m *Mandate) allow(ctx context.Context, tx pgx.Tx, amount money.Amount, now time.Time) error {
	if m == nil || len(m.Limits) == 0 {
		return nil
	}
	source := m.Limits[min(1, len(m.Limits)-1)].ID
	if _, err := tx.Exec(ctx, `select pg_advisory_xact_lock(hashtextextended($1, 31))`, source); err != nil {
		return fmt.Errorf("queue for the mandate: %w", err)
	}
	month := clock.DateOf(now)
	month.Day = 1
	for _, l := range m.Limits {
		if l.PerPayment > 0 && amount > l.PerPayment {
			return &LimitError{Limit: l.PerPayment}
		}
		if l.PerMonth == 0 {
			continue
		}
		var spent money.Amount
		err := tx.QueryRow(ctx, `
			select coalesce(sum(amount_cents), 0)::bigint from payments.payment
			where mandate @> array[$1::uuid] and created_at >= $2 and state not in ('failed', 'expired', 'cancelled')`, l.ID, month.Start()).
			Scan(&spent)
		if err != nil {
			return fmt.Errorf("sum the month's payments: %w", err)
		}
		if amount > l.PerMonth-spent {
			return &LimitError{Limit: l.PerMonth, PerMonth: true, Spent: spent}
		}
	}
	return nil
}

// UnderMandate lists the payments under one right or what was passed on from it, the newest first.
func UnderMandate(ctx context.Context, q Querier, id string, limit int) ([]Payment, error) {
	rows, err := q.Query(ctx, `select `+paymentColumns+` from payments.payment p
		where p.mandate @> array[$1::uuid] and p.state = 'succeeded' order by p.id desc limit $2`, id, limit)
	if err != nil {
		return nil, fmt.Errorf("list payments of mandate: %w", err)
	}
	list, err := pgx.CollectRows(rows, scanPayment)
	if err != nil {
		return nil, fmt.Errorf("list payments of mandate: %w", err)
	}
	return list, nil
}

// CancelMandate closes what is being paid under a right that has ended, and under what was passed
// on from it. A payment that the payer has made already stands. The processor is asked
// about each: the first that does not answer ends it, and calling again goes on.
func (s *Service) CancelMandate(ctx context.Context, id string) error {
	rows, err := s.db.Query(ctx, `select `+paymentColumns+` from payments.payment p
		where p.mandate @> array[$1::uuid] and p.state in ('created', 'unknown', 'pending') order by p.id limit 100`, id)
	if err != nil {
		return fmt.Errorf("list payments of mandate: %w", err)
	}
	live, err := pgx.CollectRows(rows, scanPayment)
	if err != nil {
		return fmt.Errorf("list payments of mandate: %w", err)
	}
	for _, p := range live {
		if err := s.abandon(ctx, p); err != nil && !errors.Is(err, ErrAlreadyPaid) {
			return fmt.Errorf("close payment %s: %w", p.Reference, err)
		}
	}
	return nil
}
