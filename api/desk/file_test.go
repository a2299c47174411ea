package desk_test

import (
	"bufio"
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/xuri/excelize/v2"

	"guichet/identity/staff"
	"guichet/internal/money"
	"guichet/internal/testdb"
	"guichet/ledger"
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
		"/desk/ledger.csv": 14, "/desk/ledger/accounts/assets:receivable:water/lines.csv": 6, "/desk/ledger/accounts/assets:receivable:water/statement.csv?from=" + s.good.String(): 7,
		"/desk/ledger/accounts.csv?type=asset&department=water": 1, "/desk/ledger/activity.csv?by=tender&from=" + s.good.String(): 2, "/desk/ledger/journal.csv?kind=payment.succeeded": 6,
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

// Every list is the same in every format, row by row.
func TestTheFormatsAgree(t *testing.T) {
	t.Parallel()
	s := tell(t)
	entries, err := s.Books.EntriesBySource(t.Context(), s.DB, "payout", s.payout.ID, "", 1)
	must(t, err)
	fill := strings.NewReplacer("/desk/payouts/{id}", "/desk/payouts/"+s.payout.ID, "/documents/{id}", "/documents/"+s.posted.ID, "/entries/{id}", "/entries/"+entries[0].ID, "{path}", "assets:bank:main")
	for route := range tables {
		t.Run(route, func(t *testing.T) {
			path := fill.Replace(strings.TrimPrefix(route, "GET "))
			query := "?from=" + s.good.String() + "&by=account&by=department"
			rows := s.rows(path + ".csv" + query)
			if len(rows) < 2 {
				t.Fatalf("%s is empty", path)
			}
			if i := slices.IndexFunc(rows[0], func(h string) bool { return strings.Contains(h, "_") || strings.Contains(h, "desk.") }); i >= 0 {
				t.Errorf("heading %q is for programs", rows[0][i])
			}
			a := s.do(http.MethodGet, staff.Auditor, path+".json"+query, nil)
			var body struct {
				Table string
				At    string
				Asked map[string]string
				Rows  []map[string]any
				Count int
			}
			decode(t, a.body, &body)
			if a.header.Get("Content-Type") != "application/json" || body.Table == "" || body.At == "" || body.Count != len(rows)-1 || len(body.Rows) != body.Count {
				t.Errorf("JSON of %q at %q says %d rows, has %d, CSV has %d", body.Table, body.At, body.Count, len(body.Rows), len(rows)-1)
			}
			if len(body.Rows) > 0 && len(body.Rows[0]) != len(rows[0]) {
				t.Errorf("JSON has %d fields, CSV %d columns", len(body.Rows[0]), len(rows[0]))
			}
			a = s.do(http.MethodGet, staff.Auditor, path+".xlsx"+query, nil)
			if a.status != http.StatusOK || a.header.Get("X-Content-Type-Options") != "nosniff" {
				t.Fatalf("XLSX: %d, %v", a.status, a.header)
			}
			book, err := excelize.OpenReader(strings.NewReader(a.body))
			must(t, err)
			defer book.Close()
			sheet, err := book.GetRows(book.GetSheetList()[0], excelize.Options{RawCellValue: true})
			must(t, err)
			if len(sheet) != len(rows) {
				t.Fatalf("XLSX has %d rows, CSV %d", len(sheet), len(rows))
			}
			for i, r := range sheet {
				for j, cell := range r {
					if want := strings.TrimPrefix(rows[i][j], "'"); cell != want && !sameFigure(cell, want) {
						t.Errorf("row %d: XLSX says %q, CSV %q", i, cell, want)
					}
				}
			}
		})
	}
}

// sameFigure reports whether a cell's number is what CSV writes: cents, or a date.
func sameFigure(cell, want string) bool {
	n, err := strconv.ParseFloat(cell, 64)
	if err != nil {
		return false
	}
	if a, err := money.Parse(want); err == nil {
		return math.Round(n*100) == float64(a)
	}
	day, err := excelize.ExcelDateToTime(n, false)
	return err == nil && strings.HasPrefix(want, day.Format("2006-01-02"))
}

// What the general ledger's files say adds up by itself.
func TestTheGeneralLedgerFileProvesItself(t *testing.T) {
	t.Parallel()
	s := tell(t)
	var body struct {
		Asked map[string]string
		Rows  []struct {
			Row     string
			Account string
			Debit   money.Amount `json:"debit_cents"`
			Credit  money.Amount `json:"credit_cents"`
			Balance money.Amount `json:"balance_cents"`
		}
	}
	a := s.do(http.MethodGet, staff.Auditor, "/desk/ledger/general.json?from="+s.bad.String(), nil)
	decode(t, a.body, &body)
	var debits, credits, balance money.Amount
	lines := 0
	for _, r := range body.Rows {
		switch r.Row {
		case "opening":
			balance = r.Balance
		case "line":
			lines++
			debits += r.Debit
			credits += r.Credit
			balance += r.Debit - r.Credit
			if r.Balance != balance {
				t.Errorf("%s: balance %s, want %s", r.Account, r.Balance, balance)
			}
		case "closing":
			if r.Balance != balance {
				t.Errorf("%s closes with %s, its lines give %s", r.Account, r.Balance, balance)
			}
		case "total":
			if r.Debit != debits || r.Credit != credits || debits != credits || r.Balance != 0 {
				t.Errorf("totals %s, %s, %s; the lines give %s and %s", r.Debit, r.Credit, r.Balance, debits, credits)
			}
		}
	}
	if lines < 20 || body.Asked["from"] != s.bad.String() || body.Asked["waiting"] == "0" || body.Asked["sealed"] == "" {
		t.Errorf("%d lines, asked %v", lines, body.Asked)
	}
}

// A file that breaks off on its way does not arrive as if it were whole, over any
// HTTP; one that breaks before is told as a page.
func TestAFileIsWholeOrAnError(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.many(5_200)
	const path = "/desk/ledger/accounts/assets:receivable:water/statement"
	get := func(proto, ending string) (*http.Response, []byte, error) {
		t.Helper()
		conn, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
		must(t, err)
		defer conn.Close()
		fmt.Fprintf(conn, "GET %s.%s HTTP/%s\r\nHost: localhost\r\nCookie: guichet-staff=%s\r\n\r\n", path, ending, proto, w.as(staff.Auditor))
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		must(t, err)
		body, err := io.ReadAll(res.Body)
		return res, body, err
	}
	for _, proto := range []string{"1.1", "1.0"} {
		res, body, err := get(proto, "csv")
		if err != nil || res.StatusCode != http.StatusOK || strings.Count(string(body), "\n") != 5_200+4 {
			t.Fatalf("HTTP/%s: %s, %d lines, %v", proto, res.Status, strings.Count(string(body), "\n"), err)
		}
		if proto == "1.0" && res.ContentLength != int64(len(body)) {
			t.Errorf("HTTP/1.0: length %d, %d bytes", res.ContentLength, len(body))
		}
	}
	// The last line no longer adds up: the reader notices when most has left.
	owner := testdb.Owner(t, w.DB)
	_, err := owner.Exec(t.Context(), `alter table ledger.posting disable trigger append_only`)
	must(t, err)
	_, err = owner.Exec(t.Context(), `update ledger.posting set amount = amount + 1
		where seq = 5200 and account_id = (select id from ledger.account where path = 'assets:receivable:water')`)
	must(t, err)
	for _, ending := range []string{"csv", "json"} {
		if res, body, err := get("1.1", ending); err == nil || res.StatusCode != http.StatusOK || len(body) < 100_000 {
			t.Errorf("%s over HTTP/1.1: %s, %d bytes, %v; want it cut off", ending, res.Status, len(body), err)
		}
		if res, _, err := get("1.0", ending); err != nil || res.StatusCode != http.StatusInternalServerError {
			t.Errorf("%s over HTTP/1.0: %s, %v", ending, res.Status, err)
		}
	}
	if res, _, err := get("1.1", "xlsx"); err != nil || res.StatusCode != http.StatusInternalServerError {
		t.Errorf("xlsx: %s, %v", res.Status, err)
	}
}

// many puts n lines on the water receivable.
func (w *world) many(n int) {
	w.t.Helper()
	w.Issue(w.t, w.Bill("water", "water-consumption", 1_000)) // opens the accounts
	w.Do(w.t, func(tx pgx.Tx) error {
		for i := 1; i < n; i++ {
			if _, err := w.Books.Append(w.t.Context(), tx, ledger.Entry{
				Key: fmt.Sprintf("many/%d", i), Kind: "adjustment", SourceType: "test", SourceID: "many", Description: "one of many", Lines: []ledger.Line{
					{Account: "assets:receivable:water", Amount: 100}, {Account: "liabilities:billed-not-collected:water", Amount: -100},
				},
			}); err != nil {
				return err
			}
		}
		return nil
	})
	w.post()
}

// A list that is read whole has an end, and says so.
func TestATableIsNeverCut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Issue(t, w.Bill("water", "water-consumption", 1_000))
	w.post()
	owner := testdb.Owner(t, w.DB)
	_, err := owner.Exec(t.Context(), `
		insert into ledger.posting (account_id, seq, entry_id, line, amount, balance_after, effective_on, log_pos)
		select p.account_id, i, p.entry_id, i, 0, 0, p.effective_on, p.log_pos from ledger.posting p, generate_series(100, 100099) i
		where p.account_id = (select id from ledger.account where path = 'assets:receivable:water')`)
	must(t, err)
	for _, ending := range []string{".csv", ".xlsx", ".json"} {
		if a := w.do(http.MethodGet, staff.Auditor, "/desk/ledger/accounts/assets:receivable:water/lines"+ending, nil); a.status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d", ending, a.status)
		}
	}
}

func TestASearchIsRecorded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	count := func() (n int) {
		must(t, w.DB.QueryRow(t.Context(), `select count(*) from ops.audit where action = 'journal.searched' and actor = $1
			and details = '{"words": "towed", "kind": "adjustment"}'`, w.member(staff.Auditor).ID).Scan(&n))
		return n
	}
	w.page(staff.Auditor, "/desk/ledger/journal")
	if n := count(); n != 0 {
		t.Errorf("%d rows before anything was looked for", n)
	}
	for i, ending := range []string{"", ".csv"} {
		w.page(staff.Auditor, "/desk/ledger/journal"+ending+"?words=towed&kind=adjustment")
		if n := count(); n != i+1 {
			t.Errorf("%d rows after %d searches", n, i+1)
		}
	}
}
