package payments

import (
	"context"
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
	return []ledger.Check{s.checkReceivables, s.checkCredits, checkBills, checkPayments, s.checkReceipts}
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

// checkPayments: a succeeded payment is for exactly what it is.
func checkPayments(ctx context.Context, tx pgx.Tx) ([]ledger.Finding, error) {
	return findings(ctx, tx, "payment", `
		select p.id::text, format('is over %s cents, for lines of %s', p.amount_cents, coalesce(a.cents, 0))
		from payments.payment p
		left join (
			select payment_id, sum(net_cents + step_cents + tax_cents)::bigint as cents from payments.allocation group by payment_id
		) a on a.payment_id = p.id
		where p.state = 'succeeded' and p.amount_cents is distinct from a.cents
		order by p.id limit 100`)
}

// receiptsWithin is how soon every payment has its receipt, in the worst case.
const receiptsWithin = 24 * time.Hour

// checkReceipts: numbers run from one without gaps to the series' last, each
// receipt names its payment's entry and amount, and no payment was forgotten.
func (s *Service) checkReceipts(ctx context.Context, tx pgx.Tx) ([]ledger.Finding, error) {
	gaps, err := findings(ctx, tx, "receipt series", `
		select 'city', format('last is %s, there are %s receipts up to number %s', s.last, count(r.number), coalesce(max(r.number), 0))
		from payments.receipt_series s left join payments.receipt r on true
		where s.name = 'city'
		group by s.last having s.last <> count(r.number) or s.last <> coalesce(max(r.number), 0)`)
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
	missing, err := findings(ctx, tx, "receipt", `
		select p.id::text, 'this payment has none'
		from payments.payment p
		where p.state = 'succeeded' and p.updated_at < $1 and not exists (select from payments.receipt r where r.payment_id = p.id)
		order by p.id limit 100`, s.now().Add(-receiptsWithin))
	return slices.Concat(gaps, wrong, missing), err
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
