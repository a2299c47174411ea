package payments_test

import (
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/note"

	"guichet/internal/doctable"
	"guichet/internal/testdb"
	"guichet/ledger"
	"guichet/payments"
)

// Whoever owns the database changes bills, payments, credits and receipts. Each change
// is found, and named, by what the other tables and the books say.
func TestTamperingWithBillsAndReceiptsIsFound(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.work(t)
	var ids []string
	for range 3 {
		checkoutID := w.checkout(t, w.Issue(t, w.Bill("water", "water-consumption", 1000)))
		card(t, w.start(t, checkoutID), good)
		p := w.sync(t, checkoutID)
		eventually(t, "a receipt", func() bool {
			_, err := payments.ReceiptOf(t.Context(), w.DB, p.ID)
			return err == nil
		})
		ids = append(ids, p.ID)
	}
	w.Issue(t, w.Bill("water", "water-consumption", 700))
	w.later(t, 48*time.Hour) // every receipt is due
	owner := testdb.Owner(t, w.DB)

	check := func(tx pgx.Tx) []string {
		t.Helper()
		var kinds []string
		for _, check := range w.pay.Checks() {
			found, err := check(t.Context(), tx)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range found {
				if f.Object == "" || f.Detail == "" {
					t.Errorf("empty words in %q", f)
				}
				if !slices.Contains(kinds, f.Kind) {
					kinds = append(kinds, f.Kind)
				}
			}
		}
		return kinds
	}
	w.Do(t, func(tx pgx.Tx) error {
		if found := check(tx); len(found) > 0 {
			t.Fatalf("before any change: %v", found)
		}
		return nil
	})
	back := errors.New("roll back")
	tests := []struct{ name, sql, want string }{
		{"a receipt deleted", `delete from payments.receipt where number = 2`, "receipt series, receipt"},
		{"the last receipt deleted, and its number given back", `delete from payments.receipt where number = 3; update payments.receipt_series set last = 2`, "receipt"},
		{"a receipt number left out", `update payments.receipt set number = 4 where number = 3; update payments.receipt_series set last = 4`, "receipt series, receipt"},
		{"a receipt number used again", `alter table payments.receipt drop constraint receipt_pkey; update payments.receipt set number = 2 where number = 3`, "receipt series, receipt"},
		{"two receipt numbers swapped", `update payments.receipt set number = 9 where number = 1; update payments.receipt set number = 1 where number = 2;
			update payments.receipt set number = 2 where number = 9`, "receipt"},
		{"the series set forward", `update payments.receipt_series set last = 7`, "receipt series"},
		{"the series deleted", `delete from payments.receipt_series`, "receipt series"},
		{"a receipt of another amount", `update payments.receipt set document = jsonb_set(document, '{amount_cents}', '1') where number = 2`, "receipt"},
		{"a line of a receipt", `update payments.receipt set document = jsonb_set(document, '{departments,0,lines,0,net_cents}', '1') where number = 2`, "receipt"},
		{"a department of a receipt left out", `update payments.receipt set document = document - 'departments' where number = 2`, "receipt"},
		{"a receipt of another entry", `update payments.receipt set entry_id = id where number = 2`, "receipt"},
		{"a receipt of another payment", `delete from payments.receipt where number = 3; update payments.receipt_series set last = 2;
			update payments.receipt set payment_id = '$c' where number = 2`, "receipt"},
		{"a payment's amount", `update payments.payment set amount_cents = amount_cents + 1 where id = '$a'`, "payment, receipt"},
		{"a payment's entry", `update payments.payment set entry_id = (select entry_id from payments.payment where id = '$b') where id = '$a'`, "payment, receipt"},
		{"a payment undone", `update payments.payment set state = 'failed', succeeded_at = null where id = '$a'`, "bill, payment, receipt"},
		{"what a payment was for", `update payments.allocation set net_cents = net_cents + 1 where payment_id = '$a'`, "bill, payment"},
		{"an allocation deleted", `delete from payments.allocation where payment_id = '$a'`, "bill, payment"},
		{"what a bill calls paid", `update payments.bill set paid_cents = paid_cents + 1 where state = 'open'`, "receivable, bill"},
		{"what a bill is over", `update payments.bill set billed_cents = billed_cents + 1 where state = 'open'`, "receivable"},
		{"a bill called paid", `update payments.bill set state = 'paid' where state = 'open'`, "receivable"},
		{"a bill called cancelled", `update payments.bill set state = 'cancelled' where state = 'open'`, "receivable"},
		{"a credit forged", `insert into payments.credit (id, payment_id, bill_id, amount_cents, reason, created_at)
			select md5('x')::uuid, '$a', bill_id, 5, 'bill_closed', '2026-03-01' from payments.allocation where payment_id = '$a'`, "credits, bill"},
		{"the audit of a receipt", `delete from ops.audit where object_type = 'receipt'`, "receipt"},
		{"a guard of the receipts switched off", `alter table payments.receipt disable trigger receipt_append_only`, "guard"},
		{"a guard of the audit dropped", `drop trigger append_only on ops.audit`, "guard"},
	}
	rows := [][]string{{"changed", "named"}}
	for _, tt := range tests {
		rows = append(rows, []string{tt.name, "`" + strings.ReplaceAll(tt.want, ", ", "`, `") + "`"})
	}
	doctable.Check(t, "../docs/ledger-proof.md", t.Name(), rows)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := pgx.BeginFunc(t.Context(), owner, func(tx pgx.Tx) error {
				sql := strings.NewReplacer("$a", ids[0], "$b", ids[1], "$c", ids[2]).Replace(tt.sql)
				if !strings.Contains(sql, "trigger") {
					sql = triggers("disable") + sql + "; " + triggers("enable")
				}
				if _, err := tx.Conn().PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
					t.Fatalf("%s: %v", sql, err)
				}
				if found := strings.Join(check(tx), ", "); found != tt.want {
					t.Errorf("found %q, want %q", found, tt.want)
				}
				return back
			})
			if !errors.Is(err, back) {
				t.Fatal(err)
			}
		})
	}
}

// triggers switches off what stops the owner, or on.
func triggers(how string) string {
	var b strings.Builder
	for _, table := range []string{
		"payments.receipt", "payments.receipt_series", "payments.payment", "payments.bill", "payments.allocation", "payments.credit", "ops.audit",
	} {
		b.WriteString("alter table " + table + " " + how + " trigger user; ")
	}
	return b.String()
}

// The export carries the receipts, so that whoever has it alone can prove their series.
func TestReceiptsTravelWithTheExport(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.work(t)
	for range 2 {
		checkoutID := w.checkout(t, w.Issue(t, w.Bill("water", "water-consumption", 1000)))
		card(t, w.start(t, checkoutID), good)
		p := w.sync(t, checkoutID)
		eventually(t, "a receipt", func() bool {
			_, err := payments.ReceiptOf(t.Context(), w.DB, p.ID)
			return err == nil
		})
	}
	var out strings.Builder
	if err := ledger.ExportJSONL(t.Context(), w.DB, &out, payments.Receipts()); err != nil {
		t.Fatal(err)
	}
	known := ledger.Known{Log: logKey(t), Series: []string{payments.Receipts().Name}}
	found := func(export string) string {
		t.Helper()
		_, list, err := ledger.VerifyExport(strings.NewReader(export), known)
		if err != nil {
			t.Fatal(err)
		}
		var kinds []string
		for _, f := range list {
			if f.Kind != "signature" { // nobody has signed here
				kinds = append(kinds, f.Kind)
			}
		}
		return strings.Join(kinds, ", ")
	}
	if got := found(out.String()); got != "" {
		t.Errorf("unchanged: %s", got)
	}
	var documents []string
	for line := range strings.Lines(out.String()) {
		if strings.HasPrefix(line, `{"type":"document"`) {
			documents = append(documents, line)
		}
	}
	if len(documents) != 2 || !strings.Contains(documents[0], `"hash":"`) {
		t.Fatalf("documents %q, want two", documents)
	}
	if got := found(strings.Replace(out.String(), documents[0], "", 1)); got != "series" {
		t.Errorf("a receipt left out: %q", got)
	}
	if got := found(strings.Replace(out.String(), `"amount":1`, `"amount":2`, 1)); got == "" {
		t.Error("a receipt's amount: not found")
	}
}

func logKey(t *testing.T) note.Verifier {
	t.Helper()
	_, public, err := note.GenerateKey(rand.Reader, "books.example")
	if err != nil {
		t.Fatal(err)
	}
	v, err := note.NewVerifier(public)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
