package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/audit"
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
	TrialHash []byte // of a closed one: over its trial balance, see FrozenTrial
}

// month is a period's name: 2026-02.
func month(d clock.Date) string { return d.String()[:len("2006-01")] }

func monthOf(d clock.Date) clock.Date { d.Day = 1; return d }

func nextMonth(first clock.Date) clock.Date { return clock.FromTime(first.Time().AddDate(0, 1, 0)) }

func lastDay(d clock.Date) clock.Date { return nextMonth(monthOf(d)).AddDays(-1) }

// SetPeriod moves the month of a date to a state: open and closing either way, closed
// from closing only. It waits for every append in flight, so call it first in a
// transaction of its own. Closing freezes the month's trial balance, and
// its hash. The checks are the caller's own rules for a close, such as "the
// receivable is the open bills": a finding is ErrNotReady.
func (b *Books) SetPeriod(ctx context.Context, tx pgx.Tx, day clock.Date, to PeriodState, checks ...Check) error {
	first := monthOf(day)
	if err := lockAppends(ctx, tx); err != nil {
		return err
	}
	state := PeriodOpen
	err := tx.QueryRow(ctx, `select state from ledger.period where month = $1`, first.Time()).Scan(&state)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("read period %s: %w", month(first), err)
	}
	switch {
	case state == to:
		return nil
	case state == PeriodClosed:
		return &PeriodError{first, PeriodClosed}
	case to == PeriodClosed && state != PeriodClosing:
		return fmt.Errorf("period %s is %s, want closing before closed: %w", month(first), state, ErrInvalid)
	}
	var hash []byte
	var trial []TrialLine
	if to == PeriodClosed {
		if err := ready(ctx, tx, checks); err != nil {
			return fmt.Errorf("close period %s: %w", month(first), err)
		}
		if trial, err = b.TrialBalance(ctx, tx, lastDay(first)); err != nil {
			return fmt.Errorf("close period %s: %w", month(first), err)
		}
		h := trialHash(first, trial)
		hash = h[:]
	}
	if _, err := tx.Exec(ctx, `
		insert into ledger.period (month, state, changed_at, trial_hash) values ($1, $2, $3, $4)
		on conflict (month) do update set state = excluded.state, changed_at = excluded.changed_at, trial_hash = excluded.trial_hash`,
		first.Time(), to, b.moment(), hash); err != nil {
		return fmt.Errorf("set period %s to %s: %w", month(first), to, err)
	}
	if err := freeze(ctx, tx, first, trial); err != nil {
		return fmt.Errorf("freeze period %s: %w", month(first), err)
	}
	return audit.Record(ctx, tx, audit.Event{
		Action: "period." + string(to), ObjectType: "period", ObjectID: month(first), At: b.moment(),
		Details: map[string]any{"from": state, "trial_hash": hex.EncodeToString(hash)},
	})
}

// ErrNotReady: a rule of the books or of another room does not hold, so the period cannot
// be closed yet.
var ErrNotReady = errors.New("period is not ready to be closed")

// A NotReadyError names what a rule found first. It is ErrNotReady.
type NotReadyError struct{ Finding }

func (e *NotReadyError) Error() string { return e.String() }

func (e *NotReadyError) Is(target error) bool { return target == ErrNotReady }

func ready(ctx context.Context, tx pgx.Tx, checks []Check) error {
	for _, check := range checks {
		found, err := check(ctx, tx)
		if err != nil {
			return err
		}
		if len(found) > 0 {
			return &NotReadyError{found[0]}
		}
	}
	return nil
}

func freeze(ctx context.Context, tx pgx.Tx, first clock.Date, trial []TrialLine) error {
	paths, debits, credits := make([]string, len(trial)), make([]int64, len(trial)), make([]int64, len(trial))
	for i, l := range trial {
		paths[i], debits[i], credits[i] = l.Account.Path, int64(l.Debits), int64(l.Credits)
	}
	_, err := tx.Exec(ctx, `
		insert into ledger.period_balance (month, account_id, debits, credits)
		select $1, a.id, t.debits, t.credits from unnest($2::text[], $3::bigint[], $4::bigint[]) as t(path, debits, credits)
		join ledger.account a on a.path = t.path`, first.Time(), paths, debits, credits)
	return err
}

// trialHash is the hash of a frozen trial balance: netstrings as in an entry's
// canonical form, in order of path.
func trialHash(first clock.Date, trial []TrialLine) [sha256.Size]byte {
	var c canonical
	c.put("guichet/trial-balance/1", month(first))
	for _, l := range trial {
		c.put(l.Account.Path, l.Account.Currency, strconv.FormatInt(int64(l.Debits), 10), strconv.FormatInt(int64(l.Credits), 10))
	}
	return sha256.Sum256(c)
}

// FrozenTrial returns the trial balance of a closed month as it was frozen, with its
// hash. ErrNotFound: the month is not closed.
func (b *Books) FrozenTrial(ctx context.Context, q Querier, day clock.Date) ([]TrialLine, []byte, error) {
	first := monthOf(day)
	var hash []byte
	err := q.QueryRow(ctx, `select trial_hash from ledger.period where month = $1 and state = 'closed'`, first.Time()).Scan(&hash)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil, fmt.Errorf("closed period %s: %w", month(first), ErrNotFound)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read period %s: %w", month(first), err)
	}
	rows, err := q.Query(ctx, `select `+accountColumns+`, t.debits, t.credits
		from ledger.period_balance t join ledger.account a on a.id = t.account_id where t.month = $1 order by path`, first.Time())
	if err != nil {
		return nil, nil, fmt.Errorf("read the trial balance of %s: %w", month(first), err)
	}
	list, err := pgx.CollectRows(rows, scanTrial)
	if err != nil {
		return nil, nil, fmt.Errorf("read the trial balance of %s: %w", month(first), err)
	}
	return list, hash, nil
}

// CheckFrozen returns the hash under which a closed month was frozen, and the hash of
// what its days say now: they are the same for good. ErrNotFound: the month is not closed.
func (b *Books) CheckFrozen(ctx context.Context, q Querier, day clock.Date) (frozen, now []byte, err error) {
	first := monthOf(day)
	if _, frozen, err = b.FrozenTrial(ctx, q, first); err != nil {
		return nil, nil, err
	}
	trial, err := readTrial(ctx, q, lastDay(first), `select `+accountColumns+`, t.debits, t.credits
		from ledger.account a join (
			select x.account_id, sum(x.debits)::bigint as debits, sum(x.credits)::bigint as credits from (
				select account_id, debits, credits from ledger.account_day where effective_on <= $1
				union all
				select l.id, greatest(l.amount, 0), greatest(-l.amount, 0)
				from ledger.unposted u cross join lateral unnest(u.accounts, u.amounts) as l(id, amount) where u.effective_on <= $1
			) x group by 1
		) t on t.account_id = a.id where t.debits <> 0 or t.credits <> 0 order by path`, lastDay(first).Time())
	if err != nil {
		return nil, nil, err
	}
	hash := trialHash(first, trial)
	return frozen, hash[:], nil
}

// PeriodOf returns the month of a date. One that was never touched is open, unless a
// later one is closed.
func (b *Books) PeriodOf(ctx context.Context, q Querier, day clock.Date) (Period, error) {
	p := Period{Month: monthOf(day), State: PeriodOpen}
	var later bool
	err := q.QueryRow(ctx, `
		select coalesce(p.state, 'open'), coalesce(p.changed_at, 'epoch'), p.trial_hash,
			exists (select from ledger.period l where l.month > $1 and l.state = 'closed')
		from (select $1::date as month) m left join ledger.period p using (month)`, p.Month.Time()).Scan(&p.State, &p.ChangedAt, &p.TrialHash, &later)
	if err != nil {
		return p, fmt.Errorf("read period %s: %w", month(p.Month), err)
	}
	if later {
		p.State = PeriodClosed
	}
	p.ChangedAt = p.ChangedAt.UTC()
	return p, nil
}

// Periods returns up to limit months that were ever touched, newest first.
func (b *Books) Periods(ctx context.Context, q Querier, limit int) ([]Period, error) {
	rows, err := q.Query(ctx, `select month, state, changed_at, trial_hash from ledger.period order by month desc limit $1`, limit)
	if err != nil {
		return nil, fmt.Errorf("list periods: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Period, error) {
		var (
			p     Period
			month time.Time
		)
		err := row.Scan(&month, &p.State, &p.ChangedAt, &p.TrialHash)
		p.Month, p.ChangedAt = clock.FromTime(month), p.ChangedAt.UTC()
		return p, err
	})
	if err != nil {
		return nil, fmt.Errorf("list periods: %w", err)
	}
	return list, nil
}
