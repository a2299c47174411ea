package desk_test

import (
	"encoding/csv"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"guichet/identity/staff"
	"guichet/internal/money"
	"guichet/payments"
	"guichet/reconcile"
)

// rows reads a CSV answer, without the mark at its beginning.
func (w *world) rows(path string) [][]string {
	w.t.Helper()
	a := w.do(http.MethodGet, staff.Auditor, path, nil)
	if a.status != http.StatusOK || a.header.Get("Content-Type") != "text/csv; charset=utf-8" || a.header.Get("X-Content-Type-Options") != "nosniff" ||
		!regexp.MustCompile(`^attachment; filename="[a-zA-Z0-9_.-]+\.csv"$`).MatchString(a.header.Get("Content-Disposition")) {
		w.t.Fatalf("%s: %d, %v", path, a.status, a.header)
	}
	text, marked := strings.CutPrefix(a.body, "\ufeff")
	if !marked {
		w.t.Errorf("%s has no mark of UTF-8", path)
	}
	rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	must(w.t, err)
	return rows
}

// column adds up an amount column, and leaves out empty cells.
func column(t *testing.T, rows [][]string, heading string) (sum money.Amount) {
	t.Helper()
	for i, h := range rows[0] {
		if h != heading {
			continue
		}
		for _, r := range rows[1:] {
			if r[i] == "" {
				continue
			}
			a, err := money.Parse(r[i])
			must(t, err)
			sum += a
		}
		return sum
	}
	t.Fatalf("no column %q in %q", heading, rows[0])
	return 0
}

func TestEveryTableCanBeHad(t *testing.T) {
	t.Parallel()
	s := tell(t)
	for path, want := range map[string]int{ // rows without the heading
		"/desk/today/receivables.csv": 3, "/desk/payouts.csv": 3, "/desk/payouts.csv?state=settled": 2, "/desk/payouts.csv?on=" + s.good.String(): 1,
		"/desk/payouts/" + s.payout.ID + "/lines.csv": 4, // one payment of three bills, one of one
		"/desk/bank.csv": 2, "/desk/bank/lines.csv": 3, "/desk/bank/lines.csv?state=unexplained": 1,
		"/desk/sap.csv": 7, "/desk/sap.csv?state=waiting": 1, "/desk/sap/documents/" + s.posted.ID + "/items.csv": 2,
		"/desk/exceptions.csv": 4, "/desk/exceptions.csv?state=closed": 0, "/desk/exceptions.csv?kind=sap-rejected": 1, "/desk/exceptions.csv?age=older": 0,
		"/desk/ledger.csv": 14, "/desk/ledger/accounts/assets:receivable:water/lines.csv": 6,
	} {
		if rows := s.rows(path); len(rows)-1 != want {
			t.Errorf("%s has %d rows, want %d", path, len(rows)-1, want)
		}
	}
	t.Run("columns add up", func(t *testing.T) {
		lines := s.rows("/desk/payouts/" + s.payout.ID + "/lines.csv")
		if net := column(t, lines, "Net"); net != s.payout.Amount {
			t.Errorf("the lines' net is %s, the payout %s", net, s.payout.Amount)
		}
		if items := column(t, s.rows("/desk/sap/documents/"+s.posted.ID+"/items.csv"), "Amount"); items != 0 {
			t.Errorf("the items sum to %s", items)
		}
		if balance := column(t, s.rows("/desk/ledger.csv"), "Balance"); balance != 0 {
			t.Errorf("the balances sum to %s", balance)
		}
	})
	t.Run("headings are in the reader's language", func(t *testing.T) {
		if rows := s.rows("/desk/payouts.csv?lang=fr"); rows[0][0] != "Versement" {
			t.Errorf("heading %q", rows[0])
		}
	})
}

// What the bank writes into a line must not run in finance's spreadsheet.
func TestTextIsNoFormula(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.statement(bankEntry{-100, "=HYPERLINK(1)", "+1 then"}, bankEntry{200, "@SUM(A1)", "-2+3"}, bankEntry{300, "plain", " =1+1"})
	w.runNight()
	rows := w.rows("/desk/bank/lines.csv")
	var cells []string
	for _, r := range rows[1:] {
		cells = append(cells, r...)
		for _, c := range r {
			if amount := regexp.MustCompile(`^-?\d+\.\d\d$`); c != "" && strings.ContainsRune("=+-@", rune(strings.TrimSpace(c)[0])) && !amount.MatchString(c) {
				t.Errorf("cell %q would run", c)
			}
		}
	}
	for _, want := range []string{"'+1 then", "'-2+3", "'=1+1", "-1.00"} {
		if !slices.Contains(cells, want) {
			t.Errorf("no cell %q in %q", want, cells)
		}
	}
}

// The file and its manifest come out of the desk as they went to SAP, byte for byte.
func TestTheFrozenFileIsTheFileSent(t *testing.T) {
	t.Parallel()
	s := tell(t)
	file, err := reconcile.BatchFile(t.Context(), s.DB, s.posted.BatchID)
	must(t, err)
	for path, want := range map[string][]byte{"file": file.Data, "manifest": file.Manifest} {
		a := s.do(http.MethodGet, staff.Auditor, "/desk/sap/batches/"+s.posted.BatchID+"/"+path, nil)
		if a.status != http.StatusOK || a.body != string(want) || !strings.HasPrefix(a.header.Get("Content-Disposition"), `attachment; filename="GUICHET_`) {
			t.Errorf("%s: %d, %d bytes, want %d; %v", path, a.status, len(a.body), len(want), a.header)
		}
	}
	if file.Name == "" || s.payout.State == "" || s.first.State != payments.Succeeded {
		t.Error("the story has no file")
	}
}
