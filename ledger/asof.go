package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/clock"
	"guichet/internal/money"
)

// AsOf asks what accounts hold by an effective date, as it was known at a moment. Known
// is what the poster had sealed by the end of that second: the answer for a
// moment that has passed never changes.
type AsOf struct {
	On      clock.Date // zero: whatever the date
	KnownAt time.Time  // zero: now, with what is not posted yet
	Sealed  *int64     // instead of KnownAt: what the first so many entries of the log say
}

// forever is past every effective date.
var forever = clock.Date{Year: 2199, Month: time.December, Day: 31}

// arguments of the statements below: the date, and the size of the log by which things
// are known (null: now).
func (b *Books) arguments(ctx context.Context, q Querier, at AsOf) (on time.Time, size *int64, err error) {
	if at.On == (clock.Date{}) {
		at.On = forever
	}
	if at.Sealed != nil || at.KnownAt.IsZero() {
		return at.On.Time(), at.Sealed, nil
	}
	n, err := b.SizeAt(ctx, q, at.KnownAt)
	return at.On.Time(), &n, err
}

// SizeAt returns how many entries the log held at a moment: the head of that size,
// where it was saved, is the witness of what was known.
func (b *Books) SizeAt(ctx context.Context, q Querier, at time.Time) (int64, error) {
	var n int64
	err := q.QueryRow(ctx, `select coalesce((select size from ledger.log_moment where at <= $1 order by at desc limit 1), 0)`, at.UTC()).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("read what was known at %s: %w", at.Format(time.RFC3339), err)
	}
	return n, nil
}

// BalanceAsOf returns what an account held, debit positive. Its cost does not grow
// with the number of postings: it reads the last frozen trial balance, the day buckets since,
// and for a moment in the past what was recorded on the account since that moment.
func (b *Books) BalanceAsOf(ctx context.Context, q Querier, path string, at AsOf) (money.Amount, error) {
	on, size, err := b.arguments(ctx, q, at)
	if err != nil {
		return 0, err
	}
	var balance money.Amount
	err = q.QueryRow(ctx, `select coalesce(debits - credits, 0)::bigint from (`+totals+` where a.path = $3) t`, on, size, path).Scan(&balance)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, &UnknownAccountError{path}
	}
	if err != nil {
		return 0, fmt.Errorf("read balance of %s as of %s: %w", path, at.On, err)
	}
	return balance, nil
}

// TrialBalanceAsOf returns every account with movement, in order of path. The
// balances sum to zero per currency. It costs no more than BalanceAsOf does per account.
func (b *Books) TrialBalanceAsOf(ctx context.Context, q Querier, at AsOf) ([]TrialLine, error) {
	on, size, err := b.arguments(ctx, q, at)
	if err != nil {
		return nil, err
	}
	return readTrial(ctx, q, at.On, `select `+accountColumns+`, debits, credits from (`+totals+`) t where debits <> 0 or credits <> 0 order by path`, on, size)
}

// AccountTotals returns every account, moved or not, in order of path, with what it
// holds as of then.
func (b *Books) AccountTotals(ctx context.Context, q Querier, at AsOf) ([]TrialLine, error) {
	on, size, err := b.arguments(ctx, q, at)
	if err != nil {
		return nil, err
	}
	return readTrial(ctx, q, at.On, `select `+accountColumns+`, debits, credits from (`+totals+`) t order by path`, on, size)
}

func readTrial(ctx context.Context, q Querier, on clock.Date, sql string, args ...any) ([]TrialLine, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("read trial balance of %s: %w", on, err)
	}
	list, err := pgx.CollectRows(rows, scanTrial)
	if err != nil {
		return nil, fmt.Errorf("read trial balance of %s: %w", on, err)
	}
	return list, nil
}

func scanTrial(row pgx.CollectableRow) (TrialLine, error) {
	var t TrialLine
	a := &t.Account
	err := row.Scan(&a.Path, &a.Type, &a.Normal, &a.Currency, &a.NameEN, &a.NameFR, &a.Department, &a.Lowest, &a.State, &a.OpenedAt,
		&t.Debits, &t.Credits)
	a.OpenedAt, t.Balance = a.OpenedAt.UTC(), t.Debits-t.Credits
	return t, err
}

// totals adds up, per account: the newest frozen trial balance at or before the date; the
// day buckets since; and what waits to be posted, when the question is about now.
// Otherwise it takes back what was posted since the moment, and what the frozen
// balance counted that still waits.
const totals = `
select a.*, t.debits, t.credits
from ledger.account a
left join (
	select l.id,
		coalesce(sum(greatest(l.amount, 0)) filter (where $2::bigint is null and u.effective_on > f.day and u.effective_on <= $1), 0)
			- coalesce(sum(greatest(l.amount, 0)) filter (where $2::bigint is not null and u.effective_on <= f.day), 0) as debits,
		coalesce(sum(greatest(-l.amount, 0)) filter (where $2::bigint is null and u.effective_on > f.day and u.effective_on <= $1), 0)
			- coalesce(sum(greatest(-l.amount, 0)) filter (where $2::bigint is not null and u.effective_on <= f.day), 0) as credits
	from ledger.unposted u cross join lateral unnest(u.accounts, u.amounts) as l(id, amount)
	cross join (select coalesce((select max(last_day) from ledger.period where state = 'closed' and last_day <= $1), '-infinity') as day) f
	group by l.id
) w on w.id = a.id
cross join lateral (
	select coalesce(sum(x.debits), 0)::bigint as debits, coalesce(sum(x.credits), 0)::bigint as credits from (
		select p.debits, p.credits from ledger.period_balance p
		where p.account_id = a.id and p.month = (select max(month) from ledger.period where state = 'closed' and last_day <= $1)
		union all
		select d.debits, d.credits from ledger.account_day d
		where d.account_id = a.id and d.effective_on <= $1
			and d.effective_on > coalesce((select max(last_day) from ledger.period where state = 'closed' and last_day <= $1), '-infinity')
		union all
		select w.debits, w.credits
		union all
		select -greatest(p.amount, 0), -greatest(-p.amount, 0) from ledger.posting p
		where $2::bigint is not null and p.account_id = a.id and p.seq > ledger.seq_at(a.id, $2) and p.effective_on <= $1
	) x
) t`
