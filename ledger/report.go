package ledger

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/clock"
	"guichet/internal/money"
)

// A StatementQuery asks for an account by accounting date.
type StatementQuery struct {
	Path    string
	From    clock.Date // zero: from the first entry
	To      clock.Date // zero: to the last
	KnownAt time.Time  // zero: now, with what is not posted yet; see AsOf
	After   Place      // zero: the first page
	Limit   int
}

// A Place is where a page of a statement ends.
type Place struct {
	On  clock.Date
	Seq int64
}

// A DatedStatement is a page of an account by accounting date, oldest first. Within a
// day lines are in the order in which they were posted.
type DatedStatement struct {
	Account Account
	Opening money.Amount    // before From
	Closing money.Amount    // after To
	Lines   []StatementLine // Balance is after the line, by accounting date
	Next    Place           // give it as After for the next page; zero: there is none
}

// StatementBetween returns a page of a statement, in one snapshot of its own.
func (b *Books) StatementBetween(ctx context.Context, db Beginner, s StatementQuery) (DatedStatement, error) {
	var out DatedStatement
	err := pgx.BeginTxFunc(ctx, db, snapshot, func(tx pgx.Tx) (err error) {
		out, err = b.statementBetween(ctx, tx, s)
		return err
	})
	if err != nil {
		return DatedStatement{}, fmt.Errorf("read statement of %s: %w", s.Path, err)
	}
	return out, nil
}

func (b *Books) statementBetween(ctx context.Context, tx pgx.Tx, s StatementQuery) (out DatedStatement, err error) {
	if s.Limit < 1 {
		return out, fmt.Errorf("pages of %d lines: %w", s.Limit, ErrInvalid)
	}
	s.From, s.To = span(s.From, s.To)
	if out.Account, err = b.Account(ctx, tx, s.Path); err != nil {
		return out, err
	}
	if out.Opening, err = b.BalanceAsOf(ctx, tx, s.Path, AsOf{On: s.From.AddDays(-1), KnownAt: s.KnownAt}); err != nil {
		return out, err
	}
	if out.Closing, err = b.BalanceAsOf(ctx, tx, s.Path, AsOf{On: s.To, KnownAt: s.KnownAt}); err != nil {
		return out, err
	}
	balance := out.Opening
	if s.After == (Place{}) {
		s.After.On = s.From // numbers begin with 1
	} else if balance, err = b.BalanceAsOf(ctx, tx, s.Path, AsOf{On: s.After.On.AddDays(-1), KnownAt: s.KnownAt}); err != nil {
		return out, err
	}
	_, size, err := b.arguments(ctx, tx, AsOf{On: s.To, KnownAt: s.KnownAt})
	if err != nil {
		return out, err
	}
	var before money.Amount // lines of the page's first day that came on the page before
	if err := tx.QueryRow(ctx, linesBefore, s.Path, size, s.After.On.Time(), s.After.Seq).Scan(&before); err != nil {
		return out, err
	}
	balance += before
	rows, err := tx.Query(ctx, datedLines, s.Path, size, s.After.On.Time(), s.After.Seq, s.To.Time(), s.Limit+1)
	if err != nil {
		return out, err
	}
	if out.Lines, err = pgx.CollectRows(rows, scanDated); err != nil {
		return out, err
	}
	if len(out.Lines) > s.Limit {
		out.Lines = out.Lines[:s.Limit]
		last := out.Lines[s.Limit-1]
		out.Next = Place{last.EffectiveOn, last.Seq}
	}
	for i := range out.Lines {
		l := &out.Lines[i]
		balance += l.Amount
		l.Balance = balance
		if l.Seq >= waitingSeq {
			l.Seq = 0
		}
	}
	return out, nil
}

// span fills in what is open of two dates.
func span(from, to clock.Date) (clock.Date, clock.Date) {
	if from == (clock.Date{}) {
		from = clock.Date{Year: 1900, Month: time.January, Day: 1}
	}
	if to == (clock.Date{}) {
		to = forever
	}
	return from, to
}

func scanDated(row pgx.CollectableRow) (StatementLine, error) {
	var (
		l         StatementLine
		effective time.Time
	)
	err := row.Scan(&l.Seq, &l.EntryID, &l.Kind, &effective, &l.RecordedAt, &l.Description, &l.SourceType, &l.SourceID, &l.Amount)
	l.EffectiveOn, l.RecordedAt = clock.FromTime(effective), l.RecordedAt.UTC()
	return l, err
}

// waitingSeq is where the places of lines begin that have no number yet.
const waitingSeq = 1 << 62

// datedAccount is account $1 with the number of its last line known by size $2 (null: now),
// and the lines that wait when asked about now.
var datedAccount = fmt.Sprintf(`
with account as materialized (
	select id, case when $2::bigint is null then %[1]d else ledger.seq_at(id, $2) end as known from ledger.account where path = $1
), waiting as (
	select u.effective_on, %[1]d + row_number() over (order by u.entry_id, l.line) as seq, u.entry_id, l.amount
	from account a, ledger.unposted u cross join lateral unnest(u.accounts, u.amounts) with ordinality as l(id, amount, line)
	where $2::bigint is null and u.accounts @> array[a.id] and l.id = a.id
)`, int64(waitingSeq))

// datedLines are up to $6 lines after place ($3, $4) up to date $5. Those posted are
// taken off their index: however many there are, a page reads no more than a page.
var datedLines = datedAccount + `
, posted as (
	select p.effective_on, p.seq, p.entry_id, p.amount from ledger.posting p
	where p.account_id = (select id from account) and (p.effective_on, p.seq) > ($3::date, $4::bigint)
		and p.effective_on <= $5::date and p.seq <= (select known from account)
	order by p.effective_on, p.seq limit $6
), page as (
	select * from posted
	union all
	select * from waiting where (effective_on, seq) > ($3::date, $4::bigint) and effective_on <= $5::date
	order by effective_on, seq limit $6
)
select p.seq, e.id, e.kind, e.effective_on, e.recorded_at, e.description, e.source_type, e.source_id, p.amount
from page p join ledger.journal_entry e on e.id = p.entry_id order by p.effective_on, p.seq`

// linesBefore sums up the lines of day $3 up to place $4.
var linesBefore = datedAccount + `
select coalesce(sum(amount), 0)::bigint from (
	select p.amount from ledger.posting p
	where p.account_id = (select id from account) and p.effective_on = $3::date and p.seq <= least($4::bigint, (select known from account))
	union all
	select amount from waiting where effective_on = $3::date and seq <= $4::bigint
) before`

// An ActivityQuery asks for totals by any of the dimensions.
type ActivityQuery struct {
	By    []string   // department, fund, cost_centre, order, wbs, channel, tender, and account
	Under string     // only accounts at or below this path; empty: all
	From  clock.Date // zero: from the first entry
	To    clock.Date // zero: to the last
	Limit int        // groups, at most
}

// An ActivityLine is what moved in a group.
type ActivityLine struct {
	Account    string // empty unless asked for
	Dimensions Dimensions
	Currency   string
	Debits     money.Amount
	Credits    money.Amount
}

// Groupings are the names that an ActivityQuery may ask for, in their order.
func Groupings() []string {
	names := make([]string, len(activityColumns))
	for i, c := range activityColumns {
		names[i] = c.name
	}
	return names
}

// Value is what a group has in common under one of the names.
func (l ActivityLine) Value(by string) string {
	if by == "account" {
		return l.Account
	}
	for i, c := range activityColumns[1:] {
		if c.name == by {
			return l.Dimensions.fields()[i]
		}
	}
	return ""
}

// activityColumns are the names an ActivityQuery may ask for, with their columns.
var activityColumns = []struct{ name, column string }{
	{"account", "a.path"},
	{"department", "d.department"},
	{"fund", "d.fund"},
	{"cost_centre", "d.cost_centre"},
	{"order", "d.order_code"},
	{"wbs", "d.wbs"},
	{"channel", "d.channel"},
	{"tender", "d.tender"},
}

// Activity returns what moved between two dates, by group in order, out of the day
// buckets and what waits to be posted: postings are not read.
func (b *Books) Activity(ctx context.Context, q Querier, a ActivityQuery) ([]ActivityLine, error) {
	a.From, a.To = span(a.From, a.To)
	columns := make([]string, len(activityColumns))
	known := 0
	for i, c := range activityColumns {
		columns[i] = "''::text"
		if slices.Contains(a.By, c.name) {
			columns[i] = c.column
			known++
		}
	}
	if known != len(a.By) || a.Limit < 1 {
		return nil, fmt.Errorf("activity by %s, %d groups: %w", strings.Join(a.By, ", "), a.Limit, ErrInvalid)
	}
	rows, err := q.Query(ctx, `
		select `+strings.Join(columns, ", ")+`, a.currency, sum(x.debits)::bigint, sum(x.credits)::bigint
		from (
			select account_id, dimension_id, debits, credits from ledger.account_day where effective_on between $1 and $2
			union all
			select l.account, l.dimension, greatest(l.amount, 0), greatest(-l.amount, 0)
			from ledger.unposted u cross join lateral unnest(u.accounts, u.amounts, u.dimensions) as l(account, amount, dimension)
			where u.effective_on between $1 and $2
		) x
		join ledger.account a on a.id = x.account_id
		join ledger.dimension d on d.id = x.dimension_id
		where $3 = '' or a.path = $3 or starts_with(a.path, $3 || ':')
		group by 1, 2, 3, 4, 5, 6, 7, 8, 9 order by 1, 2, 3, 4, 5, 6, 7, 8, 9 limit $4`, a.From.Time(), a.To.Time(), a.Under, a.Limit)
	if err != nil {
		return nil, fmt.Errorf("read activity: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (ActivityLine, error) {
		var l ActivityLine
		d := &l.Dimensions
		err := row.Scan(&l.Account, &d.Department, &d.Fund, &d.CostCentre, &d.Order, &d.WBS, &d.Channel, &d.Tender, &l.Currency, &l.Debits, &l.Credits)
		return l, err
	})
	if err != nil {
		return nil, fmt.Errorf("read activity: %w", err)
	}
	return list, nil
}
