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

// Balance returns what an account holds now, debit positive: posted and unposted
// lines in one snapshot. In a transaction it includes what that transaction appended.
func (b *Books) Balance(ctx context.Context, q Querier, path string) (money.Amount, error) {
	var balance money.Amount
	err := q.QueryRow(ctx, `select ledger.balance_now(id) from ledger.account where path = $1`, path).Scan(&balance)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, &UnknownAccountError{path}
	}
	if err != nil {
		return 0, fmt.Errorf("read balance of %s: %w", path, err)
	}
	return balance, nil
}

// A StatementLine is one line of an entry in its account.
type StatementLine struct {
	Seq         int64 // number in the account, from 1; 0 while it is not posted
	EntryID     string
	Kind        string
	EffectiveOn clock.Date
	RecordedAt  time.Time
	Description string
	SourceType  string
	SourceID    string
	Amount      money.Amount
	Balance     money.Amount // after this line
}

// A Statement is a page of an account, newest first.
type Statement struct {
	Account Account
	Lines   []StatementLine // in recorded order, newest first: on the newest page the first Balance is that of now
	Next    int64           // give it as before for the older page; 0: there is none
}

// Statement returns a page of up to limit posted lines numbered below before (0: the
// newest). The newest page starts with the lines that are not posted yet, the newest
// 1,000 of them. All are read in one snapshot.
func (b *Books) Statement(ctx context.Context, q Querier, path string, before int64, limit int) (Statement, error) {
	account, err := b.Account(ctx, q, path)
	if err != nil {
		return Statement{}, err
	}
	s := Statement{Account: account}
	rows, err := q.Query(ctx, statement, path, before, limit)
	if err != nil {
		return s, fmt.Errorf("read statement of %s: %w", path, err)
	}
	s.Lines, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (StatementLine, error) {
		var (
			l         StatementLine
			effective time.Time
		)
		err := row.Scan(&l.Seq, &l.EntryID, &l.Kind, &effective, &l.RecordedAt, &l.Description,
			&l.SourceType, &l.SourceID, &l.Amount, &l.Balance)
		l.EffectiveOn, l.RecordedAt = clock.FromTime(effective), l.RecordedAt.UTC()
		return l, err
	})
	if err != nil {
		return s, fmt.Errorf("read statement of %s: %w", path, err)
	}
	if n := len(s.Lines); n > 0 && s.Lines[n-1].Seq > 1 {
		s.Next = s.Lines[n-1].Seq
	}
	return s, nil
}

const statement = `
with account as materialized (
	select id, ledger.balance_now(id) as balance from ledger.account where path = $1
), posted as (
	-- The id as a value and the bound as one number: the newest rows come from the end
	-- of the index, however many there are.
	select p.seq, p.entry_id, p.line, p.amount, p.balance_after from ledger.posting p
	where p.account_id = (select id from account) and p.seq < coalesce(nullif($2::bigint, 0), 9223372036854775807)
	order by p.seq desc limit $3
), waiting as (
	select u.entry_id, l.line, l.amount from account, ledger.unposted u
	cross join lateral unnest(u.accounts, u.amounts) with ordinality as l(id, amount, line)
	where $2 = 0 and u.accounts @> array[account.id] and l.id = account.id
	order by u.entry_id desc, l.line desc limit 1000
), lines as (
	select 0 as seq, entry_id, line, amount,
		(select balance from account) - coalesce(sum(amount) over (order by entry_id desc, line desc
			rows between unbounded preceding and 1 preceding), 0)::bigint as balance_after
	from waiting
	union all
	select seq, entry_id, line, amount, balance_after from posted
)
select l.seq, e.id, e.kind, e.effective_on, e.recorded_at, e.description,
	e.source_type, e.source_id, l.amount, l.balance_after
from lines l join ledger.journal_entry e on e.id = l.entry_id
order by l.seq = 0 desc, l.seq desc, e.id desc, l.line desc`

// A TrialLine is an account's row of the trial balance.
type TrialLine struct {
	Account Account
	Debits  money.Amount // all that was debited up to the date
	Credits money.Amount
	Balance money.Amount // debits less credits
}

// TrialBalance returns every account with movement on or before an effective date,
// in order of path, counting what is recorded until now. The balances sum to zero
// per currency.
func (b *Books) TrialBalance(ctx context.Context, q Querier, on clock.Date) ([]TrialLine, error) {
	return b.TrialBalanceAsOf(ctx, q, AsOf{On: on})
}
