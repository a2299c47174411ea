package bank

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"guichet/internal/money"
	"guichet/simulators/control"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// world is a bank on a real listener. It is Friday, 27 November 2026.
type world struct {
	*Bank
	url   string
	dir   string
	inbox string
}

func start(t *testing.T, dir string) *world {
	t.Helper()
	now := time.Date(2026, 11, 27, 20, 0, 0, 0, time.UTC)
	w := &world{dir: dir, inbox: filepath.Join(dir, "inbox")}
	b, err := New(Options{
		Now: func() time.Time { return now }, Dir: filepath.Join(dir, "state"), Inbox: w.inbox, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(b.Handler())
	t.Cleanup(srv.Close)
	w.Bank, w.url = b, srv.URL
	return w
}

func (w *world) post(t *testing.T, path, kind, body string) (int, []byte) {
	t.Helper()
	c := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := c.Post(w.url+path, kind, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, b
}

// book books an entry over the wire.
func (w *world) book(t *testing.T, reference string, cents int, date string) entry {
	t.Helper()
	b, _ := json.Marshal(map[string]any{
		"amount_cents": cents, "currency": "CAD", "reference": reference, "text": "PAYOUT <" + reference + ">", "value_date": date,
	})
	status, body := w.post(t, "/_control/credits", "application/json", string(b))
	var e entry
	if err := json.Unmarshal(body, &e); err != nil || status != http.StatusCreated {
		t.Fatalf("book %s: %d %s", reference, status, body)
	}
	return e
}

// close closes a day over the wire.
func (w *world) close(t *testing.T, date string) []statement {
	t.Helper()
	status, body := w.post(t, "/_control/statements", "application/json", `{"date":"`+date+`"}`)
	var out struct{ Data []statement }
	if err := json.Unmarshal(body, &out); err != nil || status != http.StatusCreated {
		t.Fatalf("close %s: %d %s", date, status, body)
	}
	return out.Data
}

func (w *world) plant(t *testing.T, kind string) {
	t.Helper()
	if _, err := w.faults.Plant(control.Fault{Kind: kind}); err != nil {
		t.Fatal(err)
	}
}

func (w *world) files(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(w.inbox)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func (w *world) file(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(w.inbox, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// seen is a statement as a reader that knows nothing of this package sees it.
type seen struct {
	Stmt struct {
		Sequence int    `xml:"ElctrncSeqNb"`
		Currency string `xml:"Acct>Ccy"`
		Bal      []struct {
			Code   string `xml:"Tp>CdOrPrtry>Cd"`
			Amt    string
			Side   string `xml:"CdtDbtInd"`
			Date   string `xml:"Dt>Dt"`
			Ignore string `xml:",innerxml"`
		}
		Summary struct {
			Entries int    `xml:"TtlNtries>NbOfNtries"`
			Credits string `xml:"TtlCdtNtries>Sum"`
			Debits  string `xml:"TtlDbtNtries>Sum"`
		} `xml:"TxsSummry"`
		Ntry []struct {
			Amt struct {
				Currency string `xml:"Ccy,attr"`
				Value    string `xml:",chardata"`
			}
			Side     string `xml:"CdtDbtInd"`
			Reversal bool   `xml:"RvslInd"`
			Status   string `xml:"Sts>Cd"`
			Booked   string `xml:"BookgDt>Dt"`
			EndToEnd string `xml:"NtryDtls>TxDtls>Refs>EndToEndId"`
			Text     string `xml:"NtryDtls>TxDtls>RmtInf>Ustrd"`
		}
	} `xml:"BkToCstmrStmt>Stmt"`
}

func read(t *testing.T, data []byte) seen {
	t.Helper()
	var s seen
	if err := xml.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func cents(t *testing.T, value, side string) money.Amount {
	t.Helper()
	a, err := money.Parse(value)
	if err != nil || a < 0 {
		t.Fatalf("amount %q: %v", value, err)
	}
	if side == "DBIT" {
		return -a
	}
	return a
}

// adds reports whether opening and entries of the file give its closing balance.
func (s seen) adds(t *testing.T) bool {
	t.Helper()
	sum := cents(t, s.Stmt.Bal[0].Amt, s.Stmt.Bal[0].Side)
	for _, n := range s.Stmt.Ntry {
		sum += cents(t, n.Amt.Value, n.Side)
	}
	return sum == cents(t, s.Stmt.Bal[1].Amt, s.Stmt.Bal[1].Side)
}

func TestStatementsChain(t *testing.T) {
	w := start(t, t.TempDir())
	w.book(t, "po_1", 44296, "2026-11-24")
	w.book(t, "po_2", 125000, "2026-11-25")
	w.book(t, "fee_1", -1250, "2026-11-24")
	w.book(t, "po_later", 1, "2026-11-27")

	if got := w.close(t, "2026-11-24"); len(got) != 1 || got[0].Sequence != 1 {
		t.Fatalf("first day: %+v", got)
	}
	late := w.book(t, "po_late", 700, "2026-11-23")
	if late.BookedOn != "2026-11-25" || late.ValueDate != "2026-11-23" {
		t.Errorf("entry for a closed day: booked on %s, value %s; want the first open day", late.BookedOn, late.ValueDate)
	}
	// Thursday is closed without a word of Wednesday: both get a statement.
	if got := w.close(t, "2026-11-26"); len(got) != 2 || got[0].Date != "2026-11-25" || got[1].Date != "2026-11-26" {
		t.Fatalf("two days: %+v", got)
	}

	want := []struct {
		file             string
		opening, closing string
		references       []string
	}{
		{"camt053_00021234567_2026-11-24_00001.xml", "1000000.00", "1000430.46", []string{"po_1", "fee_1"}},
		{"camt053_00021234567_2026-11-25_00002.xml", "1000430.46", "1001687.46", []string{"po_2", "po_late"}},
		{"camt053_00021234567_2026-11-26_00003.xml", "1001687.46", "1001687.46", nil},
	}
	if got := w.files(t); len(got) != len(want) {
		t.Fatalf("inbox holds %v", got)
	}
	for i, x := range want {
		s := read(t, w.file(t, x.file))
		var references []string
		for _, n := range s.Stmt.Ntry {
			references = append(references, n.EndToEnd)
			if n.Booked != s.Stmt.Bal[0].Date || n.Status != "BOOK" || n.Amt.Currency != "CAD" {
				t.Errorf("%s: entry %+v", x.file, n)
			}
		}
		b := s.Stmt.Bal
		if s.Stmt.Sequence != i+1 || b[0].Code != "OPBD" || b[0].Amt != x.opening || b[1].Code != "CLBD" || b[1].Amt != x.closing ||
			!slices.Equal(references, x.references) || s.Stmt.Summary.Entries != len(x.references) || !s.adds(t) {
			t.Errorf("%s: %+v", x.file, s)
		}
	}
	if s := read(t, w.file(t, want[0].file)).Stmt; s.Summary.Credits != "442.96" || s.Summary.Debits != "12.50" || s.Ntry[0].Text != "PAYOUT <po_1>" {
		t.Errorf("summary %+v, text %q", s.Summary, s.Ntry[0].Text)
	}
}

func TestStatementIsWellFormedAndAsTheSamples(t *testing.T) {
	w := start(t, t.TempDir())
	w.book(t, "po_1", 44296, "2026-11-24")
	w.book(t, "po_2", -5, "2026-11-24")
	w.plant(t, correction)
	w.close(t, "2026-11-24")
	name := w.files(t)[0]
	got := w.file(t, name)

	golden := filepath.Join("testdata", "statement.golden.xml")
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("statement differs from %s:\n%s", golden, got)
	}

	sample, err := os.ReadFile("testdata/sample.camt.053.001.08.xml")
	if err != nil {
		t.Fatal(err)
	}
	known := paths(t, sample)
	for _, own := range []string{"FrToDt", "FrToDt/FrDtTm", "FrToDt/ToDtTm"} {
		known["Document/BkToCstmrStmt/Stmt/"+own] = true // in the schema, not in the sample
	}
	mine := paths(t, got)
	for p := range mine {
		if !known[p] {
			t.Errorf("element %s is not in the samples", p)
		}
	}
	if len(mine) < 40 {
		t.Errorf("only %d elements were compared", len(mine))
	}
	if out, err := exec.Command("xmllint", "--noout", filepath.Join(w.inbox, name)).CombinedOutput(); errors.Is(err, exec.ErrNotFound) {
		t.Log("xmllint is not installed; encoding/xml alone has read the file")
	} else if err != nil {
		t.Errorf("xmllint: %v\n%s", err, out)
	}
}

// paths lists the element paths of a document and holds its namespace against
// the standard's.
func paths(t *testing.T, data []byte) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	var at []string
	d := xml.NewDecoder(bytes.NewReader(data))
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			if tok.Name.Space != "urn:iso:std:iso:20022:tech:xsd:camt.053.001.08" {
				t.Fatalf("element %v", tok.Name)
			}
			at = append(at, tok.Name.Local)
			out[strings.Join(at, "/")] = true
		case xml.EndElement:
			at = at[:len(at)-1]
		}
	}
}

func TestFaults(t *testing.T) {
	const day = "2026-11-24"
	const base = "camt053_00021234567_2026-11-24_00001"
	tests := []struct {
		kind  string
		files []string
		check func(t *testing.T, w *world)
	}{
		{wrongTotal, []string{base + ".xml"}, func(t *testing.T, w *world) {
			if s := read(t, w.file(t, base+".xml")); s.adds(t) || s.Stmt.Bal[1].Amt != "1000442.97" {
				t.Errorf("balances %+v", s.Stmt.Bal)
			}
		}},
		{gap, []string{}, func(t *testing.T, w *world) {
			next := w.close(t, "2026-11-25")[0]
			if s := read(t, w.file(t, next.Files[0])); s.Stmt.Sequence != 2 || s.Stmt.Bal[0].Amt != "1000442.96" {
				t.Errorf("next statement %+v", s)
			}
		}},
		{duplicate, []string{base + ".xml", base + "_r1.xml"}, func(t *testing.T, w *world) {
			if !bytes.Equal(w.file(t, base+".xml"), w.file(t, base+"_r1.xml")) {
				t.Error("the two files differ")
			}
		}},
		{malformed, []string{base + ".xml"}, func(t *testing.T, w *world) {
			var s seen
			if err := xml.Unmarshal(w.file(t, base+".xml"), &s); err == nil {
				t.Error("the file can be read")
			}
		}},
		{wrongCurrency, []string{base + ".xml"}, func(t *testing.T, w *world) {
			if s := read(t, w.file(t, base+".xml")); s.Stmt.Currency != "USD" || s.Stmt.Ntry[0].Amt.Currency != "USD" {
				t.Errorf("statement %+v", s)
			}
		}},
		{correction, []string{base + ".xml"}, func(t *testing.T, w *world) {
			s := read(t, w.file(t, base+".xml"))
			if len(s.Stmt.Ntry) != 3 || !s.Stmt.Ntry[1].Reversal || s.Stmt.Ntry[1].Side != "DBIT" || s.Stmt.Ntry[2].Side != "CRDT" ||
				s.Stmt.Bal[1].Amt != "1000442.96" || !s.adds(t) {
				t.Errorf("statement %+v", s)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.kind, func(t *testing.T) {
			w := start(t, t.TempDir())
			w.book(t, "po_1", 44296, day)
			w.plant(t, tt.kind)
			w.close(t, day)
			if got := w.files(t); !slices.Equal(got, tt.files) {
				t.Fatalf("inbox holds %v, want %v", got, tt.files)
			}
			w.close(t, day) // again: nothing new arrives
			if got := w.files(t); !slices.Equal(got, tt.files) {
				t.Fatalf("after closing twice: %v", got)
			}
			tt.check(t, w)

			status, body := w.post(t, "/_control/statements/1/deliver", "application/json", "")
			var s statement
			if err := json.Unmarshal(body, &s); err != nil || status != http.StatusOK {
				t.Fatalf("deliver: %d %s", status, body)
			}
			right := read(t, w.file(t, s.Files[len(s.Files)-1]))
			if slices.Contains(tt.files, s.Files[len(s.Files)-1]) || !right.adds(t) || right.Stmt.Currency != "CAD" {
				t.Errorf("right file %v: %+v", s.Files, right)
			}
		})
	}
}

func TestCreditIsBookedOnce(t *testing.T) {
	w := start(t, t.TempDir())
	const good = `{"amount_cents":100,"currency":"CAD","reference":"po_1","text":"x","value_date":"2026-11-24"}`
	tests := []struct {
		name, body string
		want       int
	}{
		{"first", good, 201},
		{"again", good, 200},
		{"other amount", strings.Replace(good, "100", "101", 1), 409},
		{"other day", strings.Replace(good, "24", "25", 1), 409},
		{"no amount", strings.Replace(good, "100", "0", 1), 422},
		{"beyond range", strings.Replace(good, "100", "100000000000001", 1), 422},
		{"half a cent", strings.Replace(good, "100", "100.5", 1), 400},
		{"other currency", strings.Replace(good, "CAD", "USD", 1), 422},
		{"no reference", strings.Replace(good, "po_1", "", 1), 422},
		{"reference too long", strings.Replace(good, "po_1", strings.Repeat("x", 36), 1), 422},
		{"line end in the text", strings.Replace(good, `"x"`, `"a\nb"`, 1), 422},
		{"no such day", strings.Replace(good, "2026-11-24", "2026-02-30", 1), 422},
		{"misspelled member", strings.Replace(good, "text", "txt", 1), 400},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if status, body := w.post(t, "/_control/credits", "application/json", tt.body); status != tt.want {
				t.Errorf("status %d, want %d: %s", status, tt.want, body)
			}
		})
	}
	if n := len(w.entries); n != 1 {
		t.Errorf("%d entries, want 1", n)
	}
}

func TestCloseRefuses(t *testing.T) {
	w := start(t, t.TempDir())
	w.close(t, "2026-11-25")
	for name, date := range map[string]string{
		"tomorrow": "2026-11-28", "no such day": "2026-11-31", "a day before the first statement": "2026-11-24",
	} {
		if status, body := w.post(t, "/_control/statements", "application/json", `{"date":"`+date+`"}`); status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
	if status, _ := w.post(t, "/_control/statements/2/deliver", "application/json", ""); status != http.StatusNotFound {
		t.Errorf("deliver an unknown statement: %d", status)
	}
	if got := w.files(t); len(got) != 1 {
		t.Errorf("inbox holds %v", got)
	}
}

func TestAccountSurvivesAKill(t *testing.T) {
	dir := t.TempDir()
	first := start(t, dir)
	first.book(t, "po_1", 100, "2026-11-24")
	first.close(t, "2026-11-24")
	want := first.file(t, first.files(t)[0])

	// A kill between closing and writing: the journal knows the statement, not the file.
	journal := filepath.Join(dir, "state", "journal.jsonl")
	b, err := os.ReadFile(journal)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(bytes.TrimSuffix(b, []byte("\n")), []byte("\n"))
	if err := os.WriteFile(journal, bytes.Join(lines[:len(lines)-1], nil), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(first.inbox); err != nil {
		t.Fatal(err)
	}

	second := start(t, dir)
	if got := second.files(t); len(got) != 1 || !bytes.Equal(second.file(t, got[0]), want) {
		t.Errorf("inbox after the kill: %v", got)
	}
	if again := second.book(t, "po_2", 5, "2026-11-24"); again.Number != 2 || again.BookedOn != "2026-11-25" {
		t.Errorf("next entry %+v", again)
	}
	third := start(t, dir)
	if got := third.files(t); len(got) != 1 {
		t.Errorf("written twice: %v", got)
	}
	if got := third.balance(); got != 100_000_105 {
		t.Errorf("balance %v", got)
	}
}

func TestFullInboxIsRepairedByClosingAgain(t *testing.T) {
	w := start(t, t.TempDir())
	if err := os.Remove(w.inbox); err != nil {
		t.Fatal(err)
	}
	if status, body := w.post(t, "/_control/statements", "application/json", `{"date":"2026-11-24"}`); status != http.StatusInternalServerError {
		t.Fatalf("closed without an inbox: %d %s", status, body)
	}
	if err := os.Mkdir(w.inbox, 0o700); err != nil {
		t.Fatal(err)
	}
	if got := w.close(t, "2026-11-24"); len(got) != 1 || got[0].Sequence != 1 || len(w.files(t)) != 1 {
		t.Errorf("closed again: %+v, inbox %v", got, w.files(t))
	}
}

func TestManyAtOnce(t *testing.T) {
	w := start(t, t.TempDir())
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for _, ref := range []string{"a", "b", "c"} {
				w.credit(entry{Reference: ref, Amount: 1, Currency: "CAD", ValueDate: "2026-11-24"})
				w.closeDay("2026-11-24")
			}
		})
	}
	wg.Wait()
	if len(w.entries) != 3 || len(w.statements) != 1 || len(w.files(t)) != 1 {
		t.Errorf("%d entries, %d statements, files %v", len(w.entries), len(w.statements), w.files(t))
	}
}

func TestPage(t *testing.T) {
	w := start(t, t.TempDir())
	if status, body := w.post(t, "/_control/credits", "application/x-www-form-urlencoded", "amount=-12.50&reference=f&text=%3Cb%3E&value_date=2026-11-24"); status != http.StatusSeeOther {
		t.Fatalf("form: %d %s", status, body)
	}
	if status, body := w.post(t, "/_control/statements", "application/x-www-form-urlencoded", "date=2026-11-24"); status != http.StatusSeeOther {
		t.Fatalf("form: %d %s", status, body)
	}
	resp, err := http.Get(w.url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	page, _ := io.ReadAll(resp.Body)
	for _, want := range []string{"$999,987.50", "-$12.50", "&lt;b&gt;", "camt053_00021234567_2026-11-24_00001.xml"} {
		if !bytes.Contains(page, []byte(want)) {
			t.Errorf("page lacks %s:\n%s", want, page)
		}
	}
}
