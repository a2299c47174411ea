package reconcile

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/clock"
	"guichet/internal/money"
)

// A Day is one business date as the four sides see the same money, and what
// explains each difference. Read it in one snapshot: the sides move.
type Day struct {
	Date      clock.Date
	Processor Total // payouts announced for the date
	Bank      Total // lines booked on the date
	Ledger    Total // payouts in the books on the date, by what they moved in the bank account
	SAP       Total // of that, what SAP has posted, by documents
	Suspense  Total // of what is in the books, what waits in suspense for an explanation
	Items     []DayItem
}

// A DayItem is a part of the difference between one side and the side before it.
type DayItem struct {
	Side   string // bank, ledger or sap: the later of the two
	Kind   DayKind
	Object string // payout or document id; empty where Count says how many
	Name   string // what people call it
	Count  int
	Amount money.Amount // what it adds to the later side
}

// A DayKind says why two sides differ.
type DayKind string

const (
	DayNotBooked   DayKind = "not-booked"   // announced for the date, not on the bank's statement of it
	DayOther       DayKind = "other-day"    // booked on the date, announced for another or failed
	DayUnexplained DayKind = "unexplained"  // bank lines that no payout explains
	DayNotInBooks  DayKind = "not-in-books" // booked and matched, not posted
	DayNotExported DayKind = "not-exported" // in the books, in no document
	DayNotPosted   DayKind = "not-posted"   // in a document that SAP has not posted
)

// Difference is how far the last side is from the first.
func (d Day) Difference() money.Amount { return d.SAP.Amount - d.Processor.Amount }

// Gap is how far a side is from the one before it.
func (d Day) Gap(side string) money.Amount {
	switch side {
	case "bank":
		return d.Bank.Amount - d.Processor.Amount
	case "ledger":
		return d.Ledger.Amount - d.Bank.Amount
	}
	return d.SAP.Amount - d.Ledger.Amount
}

// Rest is the part of a side's gap that no item explains: zero.
func (d Day) Rest(side string) money.Amount {
	rest := d.Gap(side)
	for _, i := range d.Items {
		if i.Side == side {
			rest -= i.Amount
		}
	}
	return rest
}

// Agrees reports that all four sides say the same.
func (d Day) Agrees() bool { return len(d.Items) == 0 && d.Difference() == 0 }

// Quiet reports that nothing moved.
func (d Day) Quiet() bool {
	return len(d.Items) == 0 && d.Processor.Count+d.Bank.Count+d.Ledger.Count+d.SAP.Count == 0
}

// DayOf adds up a business date.
func DayOf(ctx context.Context, q Querier, date clock.Date) (Day, error) {
	d := Day{Date: date}
	err := q.QueryRow(ctx, dayParts+`
		select
			(select count(*) from announced), (select coalesce(sum(amount), 0)::bigint from announced),
			(select count(*) from lines), (select coalesce(sum(amount), 0)::bigint from lines),
			(select count(distinct payout_id) from posted), (select coalesce(sum(amount), 0)::bigint from posted),
			(select count(distinct document_id) from exported where state = 'posted'),
			(select coalesce(sum(amount), 0)::bigint from exported where state = 'posted'),
			(select count(*) from suspense), (select coalesce(sum(amount), 0)::bigint from suspense)`, date.Time(), bankAccount).
		Scan(&d.Processor.Count, &d.Processor.Amount, &d.Bank.Count, &d.Bank.Amount, &d.Ledger.Count, &d.Ledger.Amount, &d.SAP.Count, &d.SAP.Amount,
			&d.Suspense.Count, &d.Suspense.Amount)
	if err != nil {
		return Day{}, fmt.Errorf("add up %s: %w", date, err)
	}
	rows, err := q.Query(ctx, dayParts+`
		select 'bank', 'not-booked', id, id, 1, -amount from announced where id not in (select payout_id from lines where payout_id is not null)
		union all
		select 'bank', 'other-day', payout_id, payout_id, 1, amount from lines where payout_id not in (select id from announced)
		union all
		select 'bank', 'unexplained', '', '', count(*), sum(amount)::bigint from lines where payout_id is null having count(*) > 0
		union all
		select 'ledger', 'unexplained', '', '', count(*), -sum(amount)::bigint from lines where payout_id is null having count(*) > 0
		union all
		select 'ledger', 'not-in-books', payout_id, payout_id, 1, coalesce(p.amount, 0) - coalesce(l.amount, 0)
		from (select payout_id, sum(amount)::bigint as amount from lines where payout_id is not null group by payout_id) l
		full join (select payout_id, sum(amount)::bigint as amount from posted group by payout_id) p using (payout_id)
		where coalesce(p.amount, 0) <> coalesce(l.amount, 0)
		union all
		select 'sap', 'not-exported', '', '', count(*), -sum(amount)::bigint from exported where document_id is null having count(*) > 0
		union all
		select 'sap', 'not-posted', document_id::text, reference, 1, -sum(amount)::bigint from exported
		where document_id is not null and state <> 'posted' group by document_id, reference
		order by 1, 2, 4, 3 limit 1000`, date.Time(), bankAccount)
	if err != nil {
		return Day{}, fmt.Errorf("itemise %s: %w", date, err)
	}
	if d.Items, err = pgx.CollectRows(rows, pgx.RowToStructByPos[DayItem]); err != nil {
		return Day{}, fmt.Errorf("itemise %s: %w", date, err)
	}
	return d, nil
}

// dayParts are the four sides of date $1; $2 is the bank account. The ledger is
// read by its tables: these are entries that this package itself has appended.
const dayParts = `
with announced as (
	select id, amount_cents as amount from reconcile.payout where arrival_on = $1 and processor_state not in ('failed', 'canceled')),
lines as (
	select l.amount_cents as amount, m.payout_id from reconcile.bank_line l
	left join reconcile.payout_match m on m.bank_line_id = l.id where l.booked_on = $1),
posted as (
	select s.entry_id, s.payout_id, sum(l.amount)::bigint as amount
	from reconcile.settlement s join ledger.journal_entry e on e.id = s.entry_id
	cross join lateral unnest(e.accounts, e.amounts) as l(account, amount)
	where s.effective_on = $1 and s.payout_id is not null and l.account = (select id from ledger.account where path = $2)
	group by s.entry_id, s.payout_id),
exported as (
	select p.amount, d.id as document_id, d.reference, d.state from posted p
	left join reconcile.sap_export x on x.entry_id = p.entry_id and x.live
	left join reconcile.sap_document d on d.id = x.document_id),
suspense as (
	select e.amount_cents as amount from reconcile.exception e join reconcile.settlement s on s.entry_id = e.suspense_entry
	where s.effective_on = $1 and e.closed_at is null)`

// LastDay is the latest date whose nightly run has ended, or ErrNotFound.
func LastDay(ctx context.Context, q Querier) (clock.Date, error) {
	return oneDay(ctx, q, `select max(business_date) from reconcile.run where state = 'done'`)
}

// LastMovement is the latest date up to the given one on which the bank booked
// something or the processor paid out, or ErrNotFound.
func LastMovement(ctx context.Context, q Querier, through clock.Date) (clock.Date, error) {
	return oneDay(ctx, q, `
		select max(on_date) from (
			select max(booked_on) as on_date from reconcile.bank_line where booked_on <= $1
			union all select max(arrival_on) from reconcile.payout where arrival_on <= $1) d`, through.Time())
}

func oneDay(ctx context.Context, q Querier, sql string, args ...any) (clock.Date, error) {
	var on *time.Time
	if err := q.QueryRow(ctx, sql, args...).Scan(&on); err != nil {
		return clock.Date{}, fmt.Errorf("look for a business date: %w", err)
	}
	if on == nil {
		return clock.Date{}, ErrNotFound
	}
	return clock.FromTime(*on), nil
}
