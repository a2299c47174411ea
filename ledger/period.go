package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/clock"
)

// A PeriodState says what an accounting month still takes.
type PeriodState string

const (
	PeriodOpen    PeriodState = "open"    // also every month that was never touched
	PeriodClosing PeriodState = "closing" // takes entries of kind "adjustment" only; may be opened again
	PeriodClosed  PeriodState = "closed"  // takes nothing, nor does any month before it; for good
)

// A Period is an accounting month that is or was about to be closed.
type Period struct {
	Month     clock.Date // its first day
	State     PeriodState
	ChangedAt time.Time
}

// SetPeriod moves the month of a date to a state: open and closing either way, closed
// from closing only. It waits for every append in flight, so call it first in a
// transaction of its own.
func (b *Books) SetPeriod(ctx context.Context, tx pgx.Tx, month clock.Date, to PeriodState) error {
	month.Day = 1
	name := month.String()[:len("2006-01")]
	if err := lockAppends(ctx, tx); err != nil {
		return err
	}
	state := PeriodOpen
	err := tx.QueryRow(ctx, `select state from ledger.period where month = $1`, month.Time()).Scan(&state)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("read period %s: %w", name, err)
	}
	switch {
	case state == to:
		return nil
	case state == PeriodClosed:
		return fmt.Errorf("period %s to %s: %w", name, to, ErrPeriodClosed)
	case to == PeriodClosed && state != PeriodClosing:
		return fmt.Errorf("period %s is %s, want closing before closed: %w", name, state, ErrInvalid)
	}
	if _, err := tx.Exec(ctx, `
		insert into ledger.period (month, state, changed_at) values ($1, $2, $3)
		on conflict (month) do update set state = excluded.state, changed_at = excluded.changed_at`,
		month.Time(), to, b.moment()); err != nil {
		return fmt.Errorf("set period %s to %s: %w", name, to, err)
	}
	return nil
}

// Periods returns up to limit months that were ever touched, newest first.
func (b *Books) Periods(ctx context.Context, q Querier, limit int) ([]Period, error) {
	rows, err := q.Query(ctx, `select month, state, changed_at from ledger.period order by month desc limit $1`, limit)
	if err != nil {
		return nil, fmt.Errorf("list periods: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Period, error) {
		var (
			p     Period
			month time.Time
		)
		err := row.Scan(&month, &p.State, &p.ChangedAt)
		p.Month, p.ChangedAt = clock.FromTime(month), p.ChangedAt.UTC()
		return p, err
	})
	if err != nil {
		return nil, fmt.Errorf("list periods: %w", err)
	}
	return list, nil
}
