package reconcile

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"guichet/internal/money"
)

// A Finding is a rule that does not hold.
type Finding struct {
	Kind   string // clearing, suspense, export, payout
	Object string
	Detail string
}

// String is the finding in one line.
func (f Finding) String() string { return fmt.Sprintf("%s: %s: %s", f.Kind, f.Object, f.Detail) }

// Verify proves what reconciliation promises: clearing holds exactly the payments
// that have not settled, suspense exactly what open exceptions say, a payout's
// entries move the bank by the payout, and SAP was told exactly what settled. Each
// check is one statement, so payments may go on meanwhile. It reads the tables of
// the ledger and of payments itself: a proof does not take the word of the code it
// checks.
func Verify(ctx context.Context, q Querier) ([]Finding, error) {
	var findings []Finding
	for _, check := range checks {
		rows, err := q.Query(ctx, check.sql)
		if err != nil {
			return nil, fmt.Errorf("verify %s: %w", check.kind, err)
		}
		var object string
		var want, have money.Amount
		if _, err := pgx.ForEachRow(rows, []any{&object, &want, &have}, func() error {
			findings = append(findings, Finding{check.kind, object, fmt.Sprintf(check.detail, want, have)})
			return nil
		}); err != nil {
			return nil, fmt.Errorf("verify %s: %w", check.kind, err)
		}
	}
	return findings, nil
}

// checks return a row per broken rule: the object, and two amounts that differ.
var checks = []struct{ kind, detail, sql string }{
	{"clearing", "payments that have not settled are %s, the account holds %s", `
		select a.path, p.amount, ledger.balance_now(a.id)
		from ledger.account a cross join lateral (
			select coalesce(sum(p.amount_cents), 0)::bigint as amount from payments.payment p
			where p.state = 'succeeded' and p.tender = 'card'
				and not exists (select from reconcile.payment_match m where m.payment_id = p.id)) p
		where a.path = 'assets:processor-clearing' and p.amount <> ledger.balance_now(a.id)`},
	{"suspense", "open exceptions are %s, the account holds %s", `
		select a.path, e.amount, -ledger.balance_now(a.id)
		from ledger.account a cross join lateral (
			select coalesce(sum(amount_cents), 0)::bigint as amount from reconcile.exception
			where closed_at is null and suspense_entry is not null) e
		where a.path = 'liabilities:suspense:unexplained' and e.amount <> -ledger.balance_now(a.id)`},
	{"payout", "the payout is %s, its entries move the bank by %s", `
		select p.id, p.amount_cents, coalesce(b.amount, 0)
		from reconcile.payout p left join (
			select s.payout_id, sum(l.amount)::bigint as amount
			from reconcile.settlement s join ledger.journal_entry e on e.id = s.entry_id
			cross join lateral unnest(e.accounts, e.amounts) as l(account, amount)
			where l.account = (select id from ledger.account where path = 'assets:bank:main')
			group by s.payout_id) b on b.payout_id = p.id
		where p.state in ('settled', 'returned') and coalesce(b.amount, 0) <> p.amount_cents
		order by p.id limit 1000`},
	{"export", "the item is %s, the lines in it sum to %s", `
		select d.docnum || ' item ' || i.item, i.amount_cents, coalesce(s.amount, 0)
		from reconcile.sap_item i join reconcile.sap_document d on d.id = i.document_id left join (
			select s.document_id, s.item, sum(e.amounts[s.line])::bigint as amount
			from reconcile.sap_source s join ledger.journal_entry e on e.id = s.entry_id
			where s.item is not null group by s.document_id, s.item) s on s.document_id = i.document_id and s.item = i.item
		where coalesce(s.amount, 0) <> i.amount_cents order by d.docnum, i.item limit 1000`},
	{"export", "lines that are in no item should sum to %s and sum to %s", `
		select d.docnum, 0::bigint, sum(e.amounts[s.line])::bigint
		from reconcile.sap_source s join ledger.journal_entry e on e.id = s.entry_id join reconcile.sap_document d on d.id = s.document_id
		where s.item is null group by d.docnum having sum(e.amounts[s.line]) <> 0 order by d.docnum limit 1000`},
	{"export", "the entry's debits are %s, those of its lines in the document %s", `
		select x.entry_id::text, e.debits, coalesce(s.debits, 0)
		from reconcile.sap_export x
		cross join lateral (select sum(greatest(a, 0))::bigint as debits, cardinality(j.amounts) as lines
			from ledger.journal_entry j cross join lateral unnest(j.amounts) as a where j.id = x.entry_id group by j.amounts) e
		left join lateral (select sum(greatest(j.amounts[s.line], 0))::bigint as debits, count(*) as lines
			from reconcile.sap_source s join ledger.journal_entry j on j.id = s.entry_id
			where s.document_id = x.document_id and s.entry_id = x.entry_id) s on true
		where e.debits is distinct from s.debits or e.lines is distinct from s.lines
		order by x.entry_id limit 1000`},
	{"export", "debits of the document are %s, of its items %s", `
		select d.docnum, d.debits_cents, i.debits from reconcile.sap_document d
		cross join lateral (select coalesce(sum(greatest(amount_cents, 0)), 0)::bigint as debits, coalesce(sum(amount_cents), 0) as rest
			from reconcile.sap_item where document_id = d.id) i
		where i.debits <> d.debits_cents or i.rest <> 0 order by d.docnum limit 1000`},
	// Settled up to the last finished run, and neither sent nor held back for a
	// reason that somebody can read.
	{"export", "%s settled, %s exported, and no exception says why", `
		select s.entry_id::text, e.debits, 0::bigint
		from reconcile.settlement s cross join lateral (select sum(greatest(a, 0))::bigint as debits
			from ledger.journal_entry j cross join lateral unnest(j.amounts) as a where j.id = s.entry_id) e
		where s.recorded_at < (select max(started_at) from reconcile.run where state = 'done')
			and s.effective_on <= (select max(business_date) from reconcile.run where state = 'done')
			and not exists (select from reconcile.sap_export x where x.entry_id = s.entry_id)
			and not exists (select from reconcile.exception where closed_at is null
				and (type = 'sap-unmapped' or type = 'sap-document' and object_id = s.entry_id::text))
		order by s.entry_id limit 1000`},
}
