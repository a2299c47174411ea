package payments

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/money"
	"guichet/ledger"
	"guichet/payments/bill"
)

// Checks are the rules of this room for ledger.Verify: what bills, payments,
// credits and receipts say must be what the books say, in one snapshot.
func (s *Service) Checks() []ledger.Check {
	return []ledger.Check{s.checkReceivables, s.checkCredits, checkBills, checkPayments, s.checkReceipts, checkGuards}
}

// checkGuards: the triggers that keep what is written of money are there and on.
func checkGuards(ctx context.Context, tx pgx.Tx) ([]ledger.Finding, error) {
	return findings(ctx, tx, "guard", `
		select t.name || ' on ' || t.on_table, 'is missing or switched off'
		from (values ('fixed', 'payments.bill'), ('append_only', 'payments.bill'), ('fixed', 'payments.payment'), ('append_only', 'payments.payment'),
			('final', 'payments.payment'), ('append_only', 'payments.checkout_bill'), ('one_by_one', 'payments.receipt_series'),
			('append_only', 'payments.receipt_series'), ('receipt_append_only', 'payments.receipt'), ('credit_append_only', 'payments.credit'),
			('allocation_append_only', 'payments.allocation'), ('payment_event_append_only', 'payments.payment_event'),
			('bill_line_append_only', 'payments.bill_line'), ('bill_adjustment_append_only', 'payments.bill_adjustment'),
			('bill_event_append_only', 'payments.bill_event'), ('append_only', 'ops.audit')) as t(name, on_table)
		where not exists (select from pg_trigger g where g.tgname = t.name and g.tgrelid = to_regclass(t.on_table) and g.tgenabled in ('O', 'A'))
		order by 1 limit 100`)
}

// checkReceivables: the open part of the bills in the books is each department's
// receivable.
func (s *Service) checkReceivables(ctx context.Context, tx pgx.Tx) ([]ledger.Finding, error) {
	rows, err := tx.Query(ctx, `
		select d.code, coalesce(sum(b.billed_cents - b.paid_cents) filter (where b.state in ('open', 'part_paid')), 0)::bigint
		from department.department d left join payments.bill b on b.department_id = d.id
		group by d.code order by d.code`)
	if err != nil {
		return nil, fmt.Errorf("check receivables: %w", err)
	}
	open, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct {
		Code string
		Open money.Amount
	}])
	if err != nil {
		return nil, fmt.Errorf("check receivables: %w", err)
	}
	var found []ledger.Finding
	for _, d := range open {
		held, err := s.books.Balance(ctx, tx, bill.Receivable(d.Code))
		if err != nil {
			return nil, fmt.Errorf("check receivables: %w", err)
		}
		if held != d.Open {
			found = append(found, ledger.Finding{
				Kind: "receivable", Object: bill.Receivable(d.Code),
				Detail: fmt.Sprintf("holds %s, the open bills sum to %s", held, d.Open),
			})
		}
	}
	return found, nil
}

// checkCredits: what payers own is the liability.
func (s *Service) checkCredits(ctx context.Context, tx pgx.Tx) ([]ledger.Finding, error) {
	var owned money.Amount
	if err := tx.QueryRow(ctx, `select coalesce(sum(amount_cents), 0)::bigint from payments.credit`).Scan(&owned); err != nil {
		return nil, fmt.Errorf("check credits: %w", err)
	}
	var held money.Amount
	for _, path := range []string{Credits, CreditsSettled} {
		balance, err := s.books.Balance(ctx, tx, path)
		if err != nil {
			return nil, fmt.Errorf("check credits: %w", err)
		}
		held -= balance
	}
	if held != owned {
		return []ledger.Finding{{Kind: "credits", Object: Credits, Detail: fmt.Sprintf("the liability is %s, credits sum to %s", held, owned)}}, nil
	}
	return nil, nil
}

// checkBills: what a bill calls paid is what succeeded payments brought it.
func checkBills(ctx context.Context, tx pgx.Tx) ([]ledger.Finding, error) {
	return findings(ctx, tx, "bill", `
		select b.id::text, format('says %s cents are paid, payments brought %s', b.paid_cents, coalesce(p.cents, 0))
		from payments.bill b
		left join (
			select a.bill_id, sum(a.net_cents + a.step_cents + a.tax_cents)::bigint as cents
			from payments.allocation a join payments.payment p on p.id = a.payment_id and p.state = 'succeeded'
			where not exists (select 1 from payments.credit c where c.payment_id = a.payment_id and c.bill_id = a.bill_id)
			group by a.bill_id
		) p on p.bill_id = b.id
		where b.paid_cents <> coalesce(p.cents, 0)
		order by b.id limit 100`)
}

// checkPayments: a succeeded payment is for exactly what it is, and is in the books once.
func checkPayments(ctx context.Context, tx pgx.Tx) ([]ledger.Finding, error) {
	lines, err := findings(ctx, tx, "payment", `
		select p.id::text, format('is over %s cents, for lines of %s', p.amount_cents, coalesce(a.cents, 0))
		from payments.payment p
		left join (
			select payment_id, sum(net_cents + step_cents + tax_cents)::bigint as cents from payments.allocation group by payment_id
		) a on a.payment_id = p.id
		where p.state = 'succeeded' and p.amount_cents is distinct from a.cents
		order by p.id limit 100`)
	if err != nil {
		return nil, err
	}
	booked, err := findings(ctx, tx, "payment", `
		select coalesce(p.id, e.id)::text, case when p.id is null then 'this entry is of no payment that succeeded'
			else format('is over %s cents, its entry %s over %s for %s', p.amount_cents, p.entry_id, e.amounts[1], e.source_id) end
		from (select id, amount_cents, entry_id from payments.payment where state = 'succeeded') p
		full join (select id, source_id, amounts from ledger.journal_entry where kind = $1) e on e.id = p.entry_id
		where (p.id::text, p.amount_cents) is distinct from (e.source_id, e.amounts[1])
		order by 1 limit 100`, succeededKind)
	return slices.Concat(lines, booked), err
}

// receiptsWithin is how soon every payment has its receipt, in the worst case.
const receiptsWithin = 24 * time.Hour

// Receipts is the series of receipts, for the export of the books.
func Receipts() ledger.Series {
	return ledger.Series{Name: "receipts", Kind: succeededKind, Due: receiptsWithin, Each: eachReceipt}
}

func eachReceipt(ctx context.Context, tx pgx.Tx, f func(ledger.Document) error) (last int64, err error) {
	rows, err := tx.Query(ctx, `select `+receiptColumns+` from payments.receipt r order by r.number`)
	if err != nil {
		return 0, fmt.Errorf("read receipts: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		r, err := scanReceipt(rows)
		if err != nil {
			return 0, fmt.Errorf("read receipts: %w", err)
		}
		hash, err := r.hash()
		if err != nil {
			return 0, fmt.Errorf("receipt %d: %w", r.Number, err)
		}
		if err := f(ledger.Document{Number: r.Number, EntryID: r.EntryID, Amount: r.Document.Amount, Hash: hash}); err != nil {
			return 0, err
		}
	}
	if err := rows.Err(); err != nil {
		return 0, fmt.Errorf("read receipts: %w", err)
	}
	if err := tx.QueryRow(ctx, `select last from payments.receipt_series where name = 'city'`).Scan(&last); err != nil {
		return 0, fmt.Errorf("read the last receipt number: %w", err)
	}
	return last, nil
}

// hash is over all that a receipt says.
func (r Receipt) hash() ([]byte, error) {
	text, err := json.Marshal(r.Document)
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	fmt.Fprintf(h, "guichet/receipt/1\n%d\n%s\n%s\n%s\n", r.Number, r.EntryID, r.IssuedAt.UTC().Format(time.RFC3339Nano), text)
	return h.Sum(nil), nil
}

// checkReceipts: numbers run from one without gaps to the series' last, each
// receipt names its payment's entry and amount and comes to it line by line, numbers were
// given out in order, as the audit says, and no payment was forgotten.
func (s *Service) checkReceipts(ctx context.Context, tx pgx.Tx) ([]ledger.Finding, error) {
	gaps, err := findings(ctx, tx, "receipt series", `
		select 'city', format('last is %s, there are %s receipts up to number %s', coalesce(s.last::text, 'not known'), r.receipts, r.highest)
		from (select count(*) as receipts, coalesce(max(number), 0) as highest, count(distinct number) as numbers from payments.receipt) r
		left join payments.receipt_series s on s.name = 'city'
		where (s.last, s.last, s.last) is distinct from (r.receipts, r.highest, r.numbers)`)
	if err != nil {
		return nil, err
	}
	wrong, err := findings(ctx, tx, "receipt", `
		select r.number::text, format('entry %s over %s cents; its payment has entry %s over %s cents', r.entry_id, r.document ->> 'amount_cents', p.entry_id, p.amount_cents)
		from payments.receipt r join payments.payment p on p.id = r.payment_id
		where r.entry_id is distinct from p.entry_id or (r.document ->> 'amount_cents')::bigint <> p.amount_cents or p.state <> 'succeeded'
		order by r.number limit 100`)
	if err != nil {
		return nil, err
	}
	sums, err := findings(ctx, tx, "receipt", `
		select r.number::text, format('is over %s cents, its departments and credits come to %s, their lines to %s', r.document ->> 'amount_cents', s.parts, s.lines)
		from payments.receipt r cross join lateral (
			select coalesce(sum((d ->> 'net_cents')::bigint + (d ->> 'tax_cents')::bigint), 0) + c.cents as parts, coalesce(sum(l.cents), 0) + c.cents as lines
			from (select coalesce(sum((c ->> 'amount_cents')::bigint), 0) as cents from jsonb_array_elements(
				case jsonb_typeof(r.document -> 'credits') when 'array' then r.document -> 'credits' else '[]' end) c) c
			left join lateral jsonb_array_elements(
				case jsonb_typeof(r.document -> 'departments') when 'array' then r.document -> 'departments' else '[]' end) d on true
			left join lateral (select sum((l ->> 'net_cents')::bigint + (l ->> 'tax_cents')::bigint) as cents from jsonb_array_elements(d -> 'lines') l) l on true
			group by c.cents) s
		where s.parts <> (r.document ->> 'amount_cents')::bigint or s.lines <> s.parts
		order by r.number limit 100`)
	if err != nil {
		return nil, err
	}
	audited, err := findings(ctx, tx, "receipt", `
		select r.number::text, case when a.seq is null then 'the audit does not know that it was issued'
			else format('the audit says number %s for payment %s', a.details ->> 'number', a.details ->> 'payment') end
		from payments.receipt r left join ops.audit a on a.object_type = 'receipt' and a.object_id = r.id::text and a.action = 'receipt.issued'
		where (a.details ->> 'number', a.details ->> 'payment') is distinct from (r.number::text, r.payment_id::text)
		order by r.number limit 100`)
	if err != nil {
		return nil, err
	}
	missing, err := findings(ctx, tx, "receipt", `
		select p.id::text, 'this payment has none'
		from payments.payment p
		where p.state = 'succeeded' and p.updated_at < $1 and not exists (select from payments.receipt r where r.payment_id = p.id)
		order by p.id limit 100`, s.now().Add(-receiptsWithin))
	return slices.Concat(gaps, wrong, sums, audited, missing), err
}

func findings(ctx context.Context, tx pgx.Tx, kind, sql string, args ...any) ([]ledger.Finding, error) {
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("check %s: %w", kind, err)
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (ledger.Finding, error) {
		f := ledger.Finding{Kind: kind}
		return f, row.Scan(&f.Object, &f.Detail)
	})
	if err != nil {
		return nil, fmt.Errorf("check %s: %w", kind, err)
	}
	return found, nil
}
