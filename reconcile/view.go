package reconcile

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/clock"
	"guichet/internal/id"
	"guichet/internal/money"
)

// Accounts that pages point at.
const (
	BankAccount = bankAccount     // where what the processor pays out arrives
	Suspense    = suspenseAccount // where what nobody can explain waits
)

// A Page is a part of a list: Limit rows after the first Offset.
type Page struct{ Limit, Offset int }

// A PayoutFilter narrows the list of payouts; zero fields do not.
type PayoutFilter struct {
	State PayoutState
	On    clock.Date // announced for, or at the bank on
}

// A PayoutRow is a payout with the bank line that it is.
type PayoutRow struct {
	Payout
	BankLine string // empty: none yet
	BookedOn clock.Date
	Rule     string
}

// ListPayouts lists payouts with their matches, the latest first.
func ListPayouts(ctx context.Context, q Querier, f PayoutFilter, p Page) ([]PayoutRow, error) {
	rows, err := q.Query(ctx, `
		select p.id, p.amount_cents, p.currency, p.automatic, p.arrival_on, p.trace_id, p.processor_state, p.failure, p.itemised, p.state,
			p.created_at, coalesce(l.id::text, ''), l.booked_on, coalesce(m.rule, '')
		from reconcile.payout p
		left join reconcile.payout_match m on m.payout_id = p.id
		left join reconcile.bank_line l on l.id = m.bank_line_id
		where ($1 = '' or p.state = $1) and ($2::date is null or p.arrival_on = $2 or l.booked_on = $2)
		order by p.created_at desc, p.id desc limit $3 offset $4`, string(f.State), dateOrNull(f.On), p.Limit, p.Offset)
	if err != nil {
		return nil, fmt.Errorf("list payouts: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r PayoutRow, err error) {
		var arrival time.Time
		var booked *time.Time
		err = row.Scan(&r.ID, &r.Amount, &r.Currency, &r.Automatic, &arrival, &r.TraceID, &r.ProcessorState, &r.Failure, &r.Itemised, &r.State,
			&r.CreatedAt, &r.BankLine, &booked, &r.Rule)
		if r.ArrivalOn = clock.FromTime(arrival); booked != nil {
			r.BookedOn = clock.FromTime(*booked)
		}
		return r, err
	})
	if err != nil {
		return nil, fmt.Errorf("list payouts: %w", err)
	}
	return list, nil
}

// dateOrNull is a date for SQL; the zero date is null.
func dateOrNull(d clock.Date) *time.Time {
	if d == (clock.Date{}) {
		return nil
	}
	t := d.Time()
	return &t
}

// PayoutSums are what a payout's lines come to.
type PayoutSums struct {
	Lines, Payments, Unexplained int
	Gross, Fees, Net             money.Amount // Gross − Fees = Net; a fee of its own is no part of Gross
}

// SumsOf adds up the lines of a payout.
func SumsOf(ctx context.Context, q Querier, payoutID string) (s PayoutSums, err error) {
	err = q.QueryRow(ctx, `
		select count(*), count(m.transaction_id), count(*) filter (where m.transaction_id is null and t.category <> all($2)),
			coalesce(sum(t.amount_cents) filter (where t.category <> all($2)), 0)::bigint,
			coalesce(sum(case when t.category = any($2) then -t.net_cents else t.fee_cents end), 0)::bigint,
			coalesce(sum(t.net_cents), 0)::bigint
		from reconcile.payout_line l join reconcile.balance_transaction t on t.id = l.transaction_id
		left join reconcile.payment_match m on m.transaction_id = t.id
		where l.payout_id = $1`, payoutID, feeCategories).
		Scan(&s.Lines, &s.Payments, &s.Unexplained, &s.Gross, &s.Fees, &s.Net)
	if err != nil {
		return PayoutSums{}, fmt.Errorf("add up payout %s: %w", payoutID, err)
	}
	return s, nil
}

// A PayoutLine is one line of a payout, with what is known of it.
type PayoutLine struct {
	Transaction
	IsFee       bool
	CreatedAt   time.Time
	Rule        string // that named its payment; empty: none
	ExceptionID string // that is or was about it
	Waits       bool   // that exception is open
}

// PayoutLines lists the lines of a payout, those without an explanation first.
func PayoutLines(ctx context.Context, q Querier, payoutID string, p Page) ([]PayoutLine, error) {
	rows, err := q.Query(ctx, `
		select t.id, t.category, t.source_id, t.intent_id, t.amount_cents, t.fee_cents, t.net_cents, coalesce(m.payment_id::text, ''),
			t.category = any($2), t.created_at, coalesce(m.rule, ''), coalesce(e.id::text, ''), e.id is not null and e.closed_at is null
		from reconcile.payout_line l join reconcile.balance_transaction t on t.id = l.transaction_id
		left join reconcile.payment_match m on m.transaction_id = t.id
		left join reconcile.exception e on e.type = $3 and e.object_type = 'transaction' and e.object_id = t.id
		where l.payout_id = $1
		order by m.transaction_id is not null, t.category = any($2), t.created_at, t.id limit $4 offset $5`,
		payoutID, feeCategories, string(Unexplained), p.Limit, p.Offset)
	if err != nil {
		return nil, fmt.Errorf("list lines of payout %s: %w", payoutID, err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (l PayoutLine, err error) {
		err = row.Scan(&l.ID, &l.Category, &l.SourceID, &l.IntentID, &l.Amount, &l.Fee, &l.Net, &l.PaymentID,
			&l.IsFee, &l.CreatedAt, &l.Rule, &l.ExceptionID, &l.Waits)
		return l, err
	})
	if err != nil {
		return nil, fmt.Errorf("list lines of payout %s: %w", payoutID, err)
	}
	return list, nil
}

// A StateEvent is one step of a payout, a batch or a document.
type StateEvent struct {
	Seq             int64
	From, To, Cause string
	Actor           string            // empty for payouts: the run itself
	Evidence        map[string]string // of a batch: what was found at SAP, or attested
	At              time.Time
}

// PayoutHistory lists the steps of a payout, oldest first.
func PayoutHistory(ctx context.Context, q Querier, payoutID string) ([]StateEvent, error) {
	return history(ctx, q, `
		select seq, from_state, to_state, cause, '', null, at from reconcile.payout_event where payout_id = $1 order by seq limit 1000`, payoutID)
}

func history(ctx context.Context, q Querier, sql, objectID string) ([]StateEvent, error) {
	rows, err := q.Query(ctx, sql, objectID)
	if err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e StateEvent, err error) {
		var evidence map[string]any
		if err := row.Scan(&e.Seq, &e.From, &e.To, &e.Cause, &e.Actor, &evidence, &e.At); err != nil {
			return e, err
		}
		e.Evidence = map[string]string{}
		for name, value := range evidence {
			e.Evidence[name] = fmt.Sprint(value)
		}
		return e, nil
	})
	if err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	return list, nil
}

// A Suggestion is a bank line that a payout may be, which no rule dares decide.
type Suggestion struct {
	Line     BankLine
	Rule     string
	Evidence map[string]string
}

// SuggestionsOf lists the bank lines that fit a payout and something else too.
func SuggestionsOf(ctx context.Context, q Querier, payoutID string) ([]Suggestion, error) {
	lines, err := bankLines(ctx, q, `
		where l.id in (select bank_line_id from reconcile.suggestion where payout_id = $1) order by l.booked_on, s.number, l.number limit 100`, payoutID)
	if err != nil {
		return nil, err
	}
	list := make([]Suggestion, len(lines))
	for i, l := range lines {
		list[i].Line = l
		if err := q.QueryRow(ctx, `select rule, evidence from reconcile.suggestion where payout_id = $1 and bank_line_id = $2`, payoutID, l.ID).
			Scan(&list[i].Rule, &list[i].Evidence); err != nil {
			return nil, fmt.Errorf("read suggestions for payout %s: %w", payoutID, err)
		}
	}
	return list, nil
}

// A Statement is a bank statement as kept.
type Statement struct {
	ID                 string
	Account            string
	Number, Sequence   string // the bank's name for it
	OpeningOn          clock.Date
	ClosingOn          clock.Date
	Opening, Closing   money.Amount
	Currency           string
	Format             string
	File               string // name of the file it came in
	ReceivedAt         time.Time
	Lines, Unexplained int
}

// ListStatements lists the statements, the latest first.
func ListStatements(ctx context.Context, q Querier, p Page) ([]Statement, error) {
	return statements(ctx, q, `order by s.closing_on desc, s.id desc limit $1 offset $2`, p.Limit, p.Offset)
}

// StatementByID reads one statement, or ErrNotFound.
func StatementByID(ctx context.Context, q Querier, statementID string) (Statement, error) {
	if !id.Valid(statementID) {
		return Statement{}, ErrNotFound
	}
	list, err := statements(ctx, q, `where s.id = $1`, statementID)
	if err == nil && len(list) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return Statement{}, err
	}
	return list[0], nil
}

func statements(ctx context.Context, q Querier, where string, args ...any) ([]Statement, error) {
	rows, err := q.Query(ctx, `
		select s.id, s.account, s.number, s.sequence, s.opening_on, s.closing_on, s.opening_cents, s.closing_cents, s.currency, s.format,
			f.name, f.received_at, c.lines, c.unexplained
		from reconcile.statement s join reconcile.statement_file f on f.id = s.file_id
		cross join lateral (
			select count(*) as lines, count(*) filter (where m.payout_id is null) as unexplained
			from reconcile.bank_line l left join reconcile.payout_match m on m.bank_line_id = l.id where l.statement_id = s.id) c `+where, args...)
	if err != nil {
		return nil, fmt.Errorf("read statements: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (s Statement, err error) {
		var opening, closing time.Time
		err = row.Scan(&s.ID, &s.Account, &s.Number, &s.Sequence, &opening, &closing, &s.Opening, &s.Closing, &s.Currency, &s.Format,
			&s.File, &s.ReceivedAt, &s.Lines, &s.Unexplained)
		s.OpeningOn, s.ClosingOn = clock.FromTime(opening), clock.FromTime(closing)
		return s, err
	})
	if err != nil {
		return nil, fmt.Errorf("read statements: %w", err)
	}
	return list, nil
}

// A LineFilter narrows the list of bank lines; zero fields do not.
type LineFilter struct {
	On          clock.Date
	StatementID string
	LineID      string
	Unexplained bool
}

// A LineRow is a bank line with where it stands and why.
type LineRow struct {
	BankLine
	StatementID string
	Currency    string
	PayoutState PayoutState // of the payout that explains it
	Rule        string
	ExceptionID string // that is open about it; empty: none
}

// ListBankLines lists bank lines: a statement's in the bank's order, else the
// latest first.
func ListBankLines(ctx context.Context, q Querier, f LineFilter, p Page) ([]LineRow, error) {
	for _, v := range []string{f.StatementID, f.LineID} {
		if v != "" && !id.Valid(v) {
			return nil, ErrNotFound
		}
	}
	rows, err := q.Query(ctx, `
		select l.id, s.number, l.number, l.amount_cents, l.booked_on, l.value_on, l.refs, l.code, l.text, coalesce(m.payout_id, ''),
			l.statement_id, s.currency, coalesce(o.state, ''), coalesce(m.rule, ''), coalesce(e.id::text, '')
		from reconcile.bank_line l join reconcile.statement s on s.id = l.statement_id
		left join reconcile.payout_match m on m.bank_line_id = l.id
		left join reconcile.payout o on o.id = m.payout_id
		left join reconcile.exception e on e.type = $5 and e.object_type = 'bank-line' and e.object_id = l.id::text and e.closed_at is null
		where ($1::date is null or l.booked_on = $1) and ($2 = '' or l.statement_id = nullif($2, '')::uuid)
			and ($3 = '' or l.id = nullif($3, '')::uuid) and (not $4 or m.payout_id is null)
		order by case when $2 = '' then l.booked_on end desc, s.closing_on desc, s.number, l.number, l.id limit $6 offset $7`,
		dateOrNull(f.On), f.StatementID, f.LineID, f.Unexplained, string(LineUnmatched), p.Limit, p.Offset)
	if err != nil {
		return nil, fmt.Errorf("list bank lines: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (l LineRow, err error) {
		var booked, value time.Time
		err = row.Scan(&l.ID, &l.Statement, &l.Number, &l.Amount, &booked, &value, &l.Refs, &l.Code, &l.Text, &l.PayoutID,
			&l.StatementID, &l.Currency, &l.PayoutState, &l.Rule, &l.ExceptionID)
		l.BookedOn, l.ValueOn = clock.FromTime(booked), clock.FromTime(value)
		return l, err
	})
	if err != nil {
		return nil, fmt.Errorf("list bank lines: %w", err)
	}
	return list, nil
}

// A RefusedFile is a statement file that was not taken.
type RefusedFile struct {
	ID, Name, Reason string
	ReceivedAt       time.Time
}

// RefusedFiles lists the statement files that were refused, the latest first.
func RefusedFiles(ctx context.Context, q Querier, limit int) ([]RefusedFile, error) {
	rows, err := q.Query(ctx, `
		select id, name, reason, received_at from reconcile.statement_file where state = 'refused' order by received_at desc, id limit $1`, limit)
	if err != nil {
		return nil, fmt.Errorf("list refused statement files: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[RefusedFile])
	if err != nil {
		return nil, fmt.Errorf("list refused statement files: %w", err)
	}
	return list, nil
}

// Kinds lists every kind of exception.
func Kinds() []Kind {
	return []Kind{
		Unexplained, LineUnmatched, Tie, PayoutSum, PayoutManual, PayoutMissing, PayoutFailed, PayoutUnposted, StatementRefused, StatementGap,
		Unmapped, DocumentInvalid, DeliveryTrouble, Rejected, AnswerForeign, AnswerRefused, PayerCredit,
	}
}

// An Object is what people call the object of an exception. In is what it is a part
// of: the payout of a line, the payment of a credit.
type Object struct{ Name, In string }

// ObjectsOf names the objects of exceptions, by object type and id. What is not
// there is named by its id.
func ObjectsOf(ctx context.Context, q Querier, list []Exception) (map[[2]string]Object, error) {
	var uuids, texts []string
	for _, e := range list {
		if texts = append(texts, e.ObjectID); id.Valid(e.ObjectID) {
			uuids = append(uuids, e.ObjectID)
		}
	}
	rows, err := q.Query(ctx, `
		select 'bank-line', l.id::text, s.number || ' · ' || l.number, s.id::text
		from reconcile.bank_line l join reconcile.statement s on s.id = l.statement_id where l.id = any($1::uuid[])
		union all select 'statement', id::text, number, '' from reconcile.statement where id = any($1::uuid[])
		union all select 'statement-file', id::text, name, '' from reconcile.statement_file where id = any($1::uuid[])
		union all select 'sap-batch', id::text, file_name, '' from reconcile.sap_batch where id = any($1::uuid[])
		union all select 'sap-document', id::text, reference, batch_id::text from reconcile.sap_document where id = any($1::uuid[])
		union all select 'credit', c.id::text, p.reference, p.id::text
			from payments.credit c join payments.payment p on p.id = c.payment_id where c.id = any($1::uuid[])
		union all select 'transaction', transaction_id, transaction_id, payout_id from reconcile.payout_line where transaction_id = any($2)
		order by 1, 2`, uuids, texts)
	if err != nil {
		return nil, fmt.Errorf("name objects of exceptions: %w", err)
	}
	objects := map[[2]string]Object{}
	var key [2]string
	var o Object
	_, err = pgx.ForEachRow(rows, []any{&key[0], &key[1], &o.Name, &o.In}, func() error {
		objects[key] = o
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("name objects of exceptions: %w", err)
	}
	for _, e := range list {
		if key := [2]string{e.ObjectType, e.ObjectID}; objects[key].Name == "" {
			objects[key] = Object{Name: e.ObjectID}
		}
	}
	return objects, nil
}

// An Age is how long an exception has been open, in steps that people work by.
type Age string

const (
	AgeDay   Age = "day"   // since today or yesterday
	AgeWeek  Age = "week"  // 2 to 7 days
	AgeMonth Age = "month" // 8 to 31 days
	AgeOlder Age = "older"
)

// Ages lists the ages, the youngest first.
func Ages() []Age { return []Age{AgeDay, AgeWeek, AgeMonth, AgeOlder} }

// ageSQL is the age of an exception e on date $1.
const ageSQL = `case when $1::date - e.opened_on <= 1 then 'day' when $1::date - e.opened_on <= 7 then 'week'
	when $1::date - e.opened_on <= 31 then 'month' else 'older' end`

// An ExceptionCount is how many exceptions of a kind and an age are open.
type ExceptionCount struct {
	Kind   Kind
	Age    Age
	Count  int
	Amount money.Amount
}

// CountExceptions counts what is open on a date, by kind and age.
func CountExceptions(ctx context.Context, q Querier, on clock.Date) ([]ExceptionCount, error) {
	rows, err := q.Query(ctx, `
		select e.type, `+ageSQL+`, count(*), sum(e.amount_cents)::bigint from reconcile.exception e
		where e.closed_at is null group by 1, 2 order by 1, 2 limit 1000`, on.Time())
	if err != nil {
		return nil, fmt.Errorf("count exceptions: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[ExceptionCount])
	if err != nil {
		return nil, fmt.Errorf("count exceptions: %w", err)
	}
	return list, nil
}

// An ExceptionFilter narrows the list of exceptions; zero fields do not.
type ExceptionFilter struct {
	Today  clock.Date // needed: ages count from it
	Closed bool       // the closed ones, not the open ones
	Kind   Kind
	Age    Age
	Owner  string
}

// ListExceptions lists exceptions: the open ones oldest first, the closed ones
// latest first.
func ListExceptions(ctx context.Context, q Querier, f ExceptionFilter, p Page) ([]Exception, error) {
	return exceptions(ctx, q, `e
		where (e.closed_at is not null) = $2 and ($3 = '' or e.type = $3) and ($4 = '' or `+ageSQL+` = $4) and ($5 = '' or e.owner = $5)
		order by e.closed_at desc nulls last, e.opened_at, e.id limit $6 offset $7`,
		f.Today.Time(), f.Closed, string(f.Kind), string(f.Age), f.Owner, p.Limit, p.Offset)
}

// A Trace is the way of one payment's money, as far as it has come.
type Trace struct {
	TransactionID string
	Payout        Payout
	Match         PayoutMatch // zero: not at the bank yet
	Documents     []Document  // of the departments asked for
}

// TraceOf follows a payment to its payout, the bank and SAP; departments (codes)
// narrow the documents. ErrNotFound: the processor has not paid it out yet.
func TraceOf(ctx context.Context, q Querier, paymentID string, departments []string) (Trace, error) {
	if !id.Valid(paymentID) {
		return Trace{}, ErrNotFound
	}
	var t Trace
	var payoutID string
	err := q.QueryRow(ctx, `
		select l.transaction_id, l.payout_id from reconcile.payment_match m join reconcile.payout_line l on l.transaction_id = m.transaction_id
		where m.payment_id = $1`, paymentID).Scan(&t.TransactionID, &payoutID)
	if errors.Is(err, pgx.ErrNoRows) {
		return Trace{}, ErrNotFound
	}
	if err != nil {
		return Trace{}, fmt.Errorf("trace payment %s: %w", paymentID, err)
	}
	if t.Payout, t.Match, err = PayoutByID(ctx, q, payoutID); err != nil {
		return Trace{}, err
	}
	t.Documents, err = documents(ctx, q, `
		where d.id in (select x.document_id from reconcile.sap_export x join reconcile.settlement s on s.entry_id = x.entry_id
			where s.payout_id = $1 and s.kind in ('department', 'explained') and s.department = any($2) and x.live)
		order by d.docnum limit 100`, payoutID, departments)
	return t, err
}
