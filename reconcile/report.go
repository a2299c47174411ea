package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/clock"
	"guichet/internal/money"
)

// A Report is what the nightly run of one date ended with. Amounts are in the
// city's currency.
type Report struct {
	Date        string            `json:"date"`
	BankLines   Total             `json:"bank_lines"`      // booked on the date
	Unmatched   Total             `json:"unmatched_lines"` // of them, without an explanation
	Payouts     Total             `json:"payouts"`         // of these lines, in the books: what they moved there
	Fees        money.Amount      `json:"fees"`
	Unexplained Total             `json:"unexplained"` // lines of payouts in suspense, as of the end of the run
	Departments []DepartmentTotal `json:"departments"` // gross of these payouts
	Documents   Total             `json:"documents"`   // for SAP, with this posting date
	Waiting     int               `json:"waiting"`     // entries up to the date that SAP has not been sent
	Exceptions  int               `json:"exceptions"`  // open
	Difference  money.Amount      `json:"difference"`  // bank lines − unmatched − payouts in the books: zero
}

// A Total is a number of things and their sum.
type Total struct {
	Count  int          `json:"count"`
	Amount money.Amount `json:"amount"`
}

// A DepartmentTotal is what settled for one department.
type DepartmentTotal struct {
	Department string       `json:"department"`
	Gross      money.Amount `json:"gross"`
}

// report adds up a date. The ledger is read by its tables: these are sums over
// entries that this package itself has appended.
func report(ctx context.Context, tx pgx.Tx, date clock.Date) (Report, error) {
	r := Report{Date: date.String(), Departments: []DepartmentTotal{}}
	err := tx.QueryRow(ctx, reportTotals, date.Time(), bankAccount, string(Unexplained)).Scan(
		&r.BankLines.Count, &r.BankLines.Amount, &r.Unmatched.Count, &r.Unmatched.Amount, &r.Payouts.Count, &r.Payouts.Amount,
		&r.Fees, &r.Unexplained.Count, &r.Unexplained.Amount, &r.Documents.Count, &r.Documents.Amount, &r.Waiting, &r.Exceptions)
	if err != nil {
		return Report{}, fmt.Errorf("add up: %w", err)
	}
	r.Difference = r.BankLines.Amount - r.Unmatched.Amount - r.Payouts.Amount
	rows, err := tx.Query(ctx, `
		select s.department, sum(l.amount)::bigint
		from reconcile.bank_line b join reconcile.payout_match m on m.bank_line_id = b.id
		join reconcile.settlement s on s.payout_id = m.payout_id join ledger.journal_entry e on e.id = s.entry_id
		cross join lateral unnest(e.accounts, e.amounts) as l(account, amount)
		where b.booked_on = $1 and s.kind = 'department' and l.account = (select id from ledger.account where path = $2)
		group by s.department order by s.department limit 1000`, date.Time(), bankAccount)
	if err != nil {
		return Report{}, fmt.Errorf("add up departments: %w", err)
	}
	departments, err := pgx.CollectRows(rows, pgx.RowToStructByPos[DepartmentTotal])
	if err != nil {
		return Report{}, fmt.Errorf("add up departments: %w", err)
	}
	r.Departments = append(r.Departments, departments...)
	return r, nil
}

const reportTotals = `
with lines as (
	select l.amount_cents, m.payout_id, p.state from reconcile.bank_line l
	left join reconcile.payout_match m on m.bank_line_id = l.id
	left join reconcile.payout p on p.id = m.payout_id
	where l.booked_on = $1),
postings as (
	select s.kind, l.amount from reconcile.bank_line b join reconcile.payout_match m on m.bank_line_id = b.id
	join reconcile.settlement s on s.payout_id = m.payout_id join ledger.journal_entry e on e.id = s.entry_id
	cross join lateral unnest(e.accounts, e.amounts) as l(account, amount)
	where b.booked_on = $1 and l.account = (select id from ledger.account where path = $2))
select
	(select count(*) from lines), (select coalesce(sum(amount_cents), 0)::bigint from lines),
	(select count(*) from lines where state is null or state not in ('settled', 'returned')),
	(select coalesce(sum(amount_cents), 0)::bigint from lines where state is null or state not in ('settled', 'returned')),
	(select count(*) from lines where state in ('settled', 'returned')),
	(select coalesce(sum(amount), 0)::bigint from postings),
	(select coalesce(-sum(amount), 0)::bigint from postings where kind = 'fees'),
	(select count(*) from reconcile.exception where type = $3 and closed_at is null),
	(select coalesce(sum(amount_cents), 0)::bigint from reconcile.exception where type = $3 and closed_at is null),
	(select count(*) from reconcile.sap_document where posting_on = $1 and state <> 'replaced'),
	(select coalesce(sum(debits_cents), 0)::bigint from reconcile.sap_document where posting_on = $1 and state <> 'replaced'),
	(select count(*) from reconcile.settlement s where s.effective_on <= $1
		and not exists (select from reconcile.sap_export x where x.entry_id = s.entry_id and x.live)),
	(select count(*) from reconcile.exception where closed_at is null)`

// ReportOf returns the report of a date whose run has ended, or ErrNotFound.
func ReportOf(ctx context.Context, q Querier, date clock.Date) (r Report, err error) {
	var text []byte
	err = q.QueryRow(ctx, `select report from reconcile.run where business_date = $1 and state = 'done'`, date.Time()).Scan(&text)
	if errors.Is(err, pgx.ErrNoRows) {
		return r, ErrNotFound
	}
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		return r, fmt.Errorf("read report of %s: %w", date, err)
	}
	return r, nil
}

// A RunState is how far the run of a date is.
type RunState struct {
	Date       clock.Date
	State      string // running or done
	StartedAt  time.Time
	FinishedAt time.Time // zero: not yet
	Steps      []StepState
}

// A StepState is how far one step is.
type StepState struct {
	Name     string
	State    string // running, done or failed
	Attempts int
	Error    string
	Result   string // JSON
}

// Runs lists the nightly runs, the latest date first, with their steps in order.
func Runs(ctx context.Context, q Querier, limit int) ([]RunState, error) {
	rows, err := q.Query(ctx, `
		select business_date, state, started_at, finished_at from reconcile.run order by business_date desc limit $1`, limit)
	if err != nil {
		return nil, fmt.Errorf("list nightly runs: %w", err)
	}
	runs, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r RunState, err error) {
		var on time.Time
		var finished *time.Time
		err = row.Scan(&on, &r.State, &r.StartedAt, &finished)
		if r.Date = clock.FromTime(on); finished != nil {
			r.FinishedAt = *finished
		}
		return r, err
	})
	if err != nil {
		return nil, fmt.Errorf("list nightly runs: %w", err)
	}
	for i, r := range runs {
		rows, err := q.Query(ctx, `
			select name, state, attempts, error, result::text from reconcile.step where business_date = $1 order by started_at, name limit 100`, r.Date.Time())
		if err != nil {
			return nil, fmt.Errorf("list steps of %s: %w", r.Date, err)
		}
		if runs[i].Steps, err = pgx.CollectRows(rows, pgx.RowToStructByPos[StepState]); err != nil {
			return nil, fmt.Errorf("list steps of %s: %w", r.Date, err)
		}
	}
	return runs, nil
}

// Payouts lists the processor's payouts, the latest first.
func Payouts(ctx context.Context, q Querier, limit int) ([]Payout, error) {
	return payoutsWhere(ctx, q, `order by created_at desc, id desc limit $1`, limit)
}

// A PayoutMatch says which bank line a payout is, and why.
type PayoutMatch struct {
	Line     BankLine
	Rule     string
	Evidence map[string]string
	By       string
	At       time.Time
}

// PayoutByID reads one payout with its match, or ErrNotFound. A payout without a
// match has a zero one.
func PayoutByID(ctx context.Context, q Querier, payoutID string) (Payout, PayoutMatch, error) {
	list, err := payoutsWhere(ctx, q, `where id = $1`, payoutID)
	if err != nil {
		return Payout{}, PayoutMatch{}, err
	}
	if len(list) == 0 {
		return Payout{}, PayoutMatch{}, ErrNotFound
	}
	lines, err := bankLines(ctx, q, `where m.payout_id = $1`, payoutID)
	if err != nil || len(lines) == 0 {
		return list[0], PayoutMatch{}, err
	}
	m := PayoutMatch{Line: lines[0]}
	err = q.QueryRow(ctx, `select rule, evidence, matched_by, matched_at from reconcile.payout_match where payout_id = $1`, payoutID).
		Scan(&m.Rule, &m.Evidence, &m.By, &m.At)
	if err != nil {
		return Payout{}, PayoutMatch{}, fmt.Errorf("read match of payout %s: %w", payoutID, err)
	}
	return list[0], m, nil
}
