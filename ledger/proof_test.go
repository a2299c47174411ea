package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/note"

	"guichet/internal/testdb"
)

func TestConsistencyAndWitness(t *testing.T) {
	t.Parallel()
	h := open(t)
	s, v := signer(t)
	p := h.poster(PosterOptions{Signer: s})
	ws, wv := signer(t)
	w := Witness{Log: v, Signer: ws, Dir: t.TempDir()}
	if _, err := h.Consistency(t.Context(), h.db, 0); !errors.Is(err, ErrNotSealed) {
		t.Errorf("before the first head: got %v, want ErrNotSealed", err)
	}
	var heads []string
	n := 0
	for _, size := range []int{1, 2, 7, 255, 256, 257, 600} {
		for ; n < size; n++ {
			h.mustPost(t, move(key(n), 5, clearing, receivable))
		}
		if err := p.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		head, err := h.Head(t.Context(), h.db)
		if err != nil {
			t.Fatal(err)
		}
		heads = append(heads, head)
		_, last, err := w.Last()
		if err != nil {
			t.Fatal(err)
		}
		c, err := h.Consistency(t.Context(), h.db, last)
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(c) // as it travels
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &c); err != nil {
			t.Fatal(err)
		}
		signed, err := w.See(c)
		if err != nil {
			t.Fatalf("size %d: %v", size, err)
		}
		if names, err := Witnessed(signed, v, wv); err != nil || len(names) != 1 || names[0] != ws.Name() {
			t.Errorf("witnessed by %v, %v", names, err)
		}
		if names, err := Witnessed(head, v, wv); err != nil || len(names) != 0 {
			t.Errorf("a head nobody has seen: witnessed by %v, %v", names, err)
		}
	}
	for i, older := range heads {
		was, err := openHead(older, v)
		if err != nil {
			t.Fatal(err)
		}
		c, err := h.Consistency(t.Context(), h.db, was.N)
		if err != nil {
			t.Fatal(err)
		}
		if err := VerifyConsistency(older, c, v); err != nil {
			t.Errorf("from head %d: %v", i, err)
		}
		if len(c.Path) > 0 {
			c.Path = c.Path[1:]
			if err := VerifyConsistency(older, c, v); !errors.Is(err, ErrLog) {
				t.Errorf("from head %d with a step less: got %v, want ErrLog", i, err)
			}
		}
	}
	for _, from := range []int64{-1, 601} {
		if _, err := h.Consistency(t.Context(), h.db, from); !errors.Is(err, ErrInvalid) {
			t.Errorf("from %d: got %v, want ErrInvalid", from, err)
		}
	}
	// Another history under the same key: what the witness does not sign.
	other := open(t)
	q := other.poster(PosterOptions{Signer: s})
	for i := range 700 {
		other.mustPost(t, move(key(i), 6, clearing, receivable))
	}
	if err := q.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	c, err := other.Consistency(t.Context(), other.db, 600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.See(c); !errors.Is(err, ErrLog) {
		t.Errorf("another history: got %v, want ErrLog", err)
	}
	if _, err := w.See(Consistency{From: 600, Head: heads[2]}); !errors.Is(err, ErrLog) {
		t.Errorf("an older head: got %v, want ErrLog", err)
	}
	_, stranger := signer(t)
	if err := VerifyConsistency(heads[0], c, stranger); !errors.Is(err, ErrProof) {
		t.Errorf("another key: got %v, want ErrProof", err)
	}
}

// city is books with one of everything in them: what exports and tampering are tried on.
func city(t *testing.T) (h house, v note.Verifier, early string) {
	h = open(t)
	s, v := signer(t)
	p := h.poster(PosterOptions{Signer: s})
	drain := func() string {
		if err := p.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		head, err := h.Head(t.Context(), h.db)
		if err != nil {
			t.Fatal(err)
		}
		h.clock.t = h.clock.t.Add(time.Minute)
		return head
	}
	h.do(t, func(ctx context.Context, tx pgx.Tx) error {
		_, err := h.Import(ctx, tx, Migration{Name: "old", Kind: "history", Entries: 2, Debits: 1001}, strings.NewReader(oldBooks))
		return err
	})
	h.mustPost(t, move("in", 1000, clearing, credits))
	early = drain()
	part := h.mustPost(t, move("part", 500, clearing, receivable))
	h.do(t, func(ctx context.Context, tx pgx.Tx) error {
		_, err := h.ReverseLines(ctx, tx, part, []Line{{Account: clearing, Amount: 200}, {Account: receivable, Amount: -200}}, Entry{Key: "part/r"})
		return err
	})
	h.hold(t, move("held", 100, credits, clearing), time.Time{})
	captured := h.hold(t, move("captured", 300, credits, clearing), time.Time{})
	if _, err := h.capture(t, captured, Entry{Key: "capture"}, ReleaseRest); err != nil {
		t.Fatal(err)
	}
	h.do(t, func(ctx context.Context, tx pgx.Tx) error {
		_, err := h.Correct(ctx, tx, h.mustPost(t, move("wrong", 7, clearing, receivable)), move("right", 8, clearing, receivable))
		return err
	})
	for _, to := range []PeriodState{PeriodClosing, PeriodClosed} {
		h.do(t, func(ctx context.Context, tx pgx.Tx) error { return h.SetPeriod(ctx, tx, today.AddDays(-20), to) })
	}
	late := move("late", 9, clearing, receivable)
	late.EffectiveOn, late.OrNextOpen = today.AddDays(-20), true
	h.mustPost(t, late)
	drain()
	h.mustPost(t, move("waits", 3, clearing, receivable))
	h.wantSound(t)
	return h, v, early
}

// An export is proved on a machine that has nothing else, and each change to it is
// found and named.
func TestVerifyExport(t *testing.T) {
	t.Parallel()
	h, v, early := city(t)
	text, err := os.ReadFile(export(t, h, "books.jsonl", exportWithPapers))
	if err != nil {
		t.Fatal(err)
	}
	newest, err := h.Head(t.Context(), h.db)
	if err != nil {
		t.Fatal(err)
	}
	sum, found, err := VerifyExport(bytes.NewReader(text), Known{Log: v, Heads: []string{early, newest}, Series: []string{"papers"}})
	if err != nil || len(found) > 0 || sum.Heads != 2 || sum.Waiting != 1 || sum.Entries != 13 || sum.Accounts != 4 {
		t.Fatalf("got %+v, %v, %v", sum, found, err)
	}
	_, stranger := signer(t)
	if _, found, err := VerifyExport(bytes.NewReader(text), Known{Log: stranger, Heads: []string{early}}); err != nil || kinds(found) != "saved head, signature" {
		t.Errorf("another key: got %v, %v", found, err)
	}
	lines := strings.SplitAfter(string(text), "\n")
	at := func(part string) int {
		i := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, part) })
		if i < 0 {
			t.Fatalf("no line with %s", part)
		}
		return i
	}
	replace := func(line, old, with string) func([]string) []string {
		return func(lines []string) []string {
			i := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, line) })
			if changed := strings.Replace(lines[i], old, with, 1); changed != lines[i] {
				lines[i] = changed
			} else {
				t.Errorf("line %s has no %s", line, old)
			}
			return lines
		}
	}
	tests := []struct {
		name   string
		change func([]string) []string
		want   string
	}{
		{"an amount", replace(`"key":"part"`, `"amount":500`, `"amount":501`), "entry, unbalanced, balance, head, signature"},
		{"the side of two lines", func(l []string) []string {
			l = replace(`"key":"part"`, `"amount":500`, `"amount":5000`)(l)
			return replace(`"key":"part"`, `"amount":-500`, `"amount":-5000`)(l)
		}, "entry, balance, head, signature"},
		{"a date", replace(`"key":"part"`, `"effective_on":"2026-03-09"`, `"effective_on":"2026-03-10"`), "entry, head, signature"},
		{"a date into a closed month", replace(`"key":"part"`, `"effective_on":"2026-03-09"`, `"effective_on":"2026-02-09"`), "entry, period, head, signature"},
		{"a description", replace(`"key":"in"`, `a payment`, `a gift`), "entry, saved head, head, signature"},
		{"the leaf too", replace(`"key":"part"`, `"leaf_hash":"`, `"leaf_hash":"A`), "broken"},
		{"an entry left out", func(l []string) []string { return slices.Delete(l, at(`"key":"part"`), at(`"key":"part"`)+1) }, "position, balance, head, signature, reversal"},
		{"two entries swapped", func(l []string) []string {
			i := at(`"key":"part"`)
			l[i], l[i+1] = l[i+1], l[i]
			return l
		}, "position, head, signature"},
		{"an entry twice", func(l []string) []string { i := at(`"key":"part"`); return slices.Insert(l, i, l[i]) }, "key, position, balance, head, signature"},
		{"what is taken back", func(l []string) []string {
			l = replace(`"key":"part/r"`, `"amount":-200`, `"amount":-501`)(l)
			return replace(`"key":"part/r"`, `"amount":200`, `"amount":501`)(l)
		}, "entry, balance, head, signature, reversal"},
		{"a hold made a booking", replace(`"key":"held"`, `,"held":true`, ``), "entry, balance, hold, head, signature"},
		{"a balance", replace(`"type":"balance"`, `"debits":`, `"debits":1`), "balance"},
		{"a balance left out", func(l []string) []string { i := at(`"type":"balance"`); return slices.Delete(l, i, i+1) }, "balance"},
		{"a frozen trial balance", replace(`"type":"period"`, `"debits":1001`, `"debits":1002`), "period, period hash"},
		{"an account of it left out", replace(`"type":"period"`, `{"account":"assets:processor-clearing","debits":1001,"credits":0},`, ``), "period, period hash"},
		{"the hash of a month", replace(`"type":"period"`, `"trial_hash":"`, `"trial_hash":"AAAA`), "period hash"},
		{"the totals of an import", replace(`"type":"import"`, `"entries":2`, `"entries":3`), "import"},
		{"the path of an account", replace(`"path":"assets:processor-clearing"`, `assets:processor-clearing`, `assets:elsewhere`), "account, period hash"},
		{"the root", replace(`"type":"head"`, `"root":"`, `"root":"AAAA`), "broken"},
		{"the size", replace(`"type":"head"`, `"size":13`, `"size":12`), "head"},
		{"the signature left out", replace(`"type":"head"`, `"signed"`, `"unsigned"`), "signature"},
		{"the signed head of another size", func(l []string) []string {
			quoted, err := json.Marshal(early)
			if err != nil {
				t.Fatal(err)
			}
			i := at(`"type":"head"`)
			l[i] = l[i][:strings.Index(l[i], `,"signed"`)] + `,"signed":` + string(quoted) + "}\n"
			return l
		}, "signature"},
		{"the end left out", func(l []string) []string { return l[:at(`"type":"head"`)] }, "head"},
		{"a line cut", func(l []string) []string { i := at(`"type":"head"`); l[i] = l[i][:40]; return l[:i+1] }, "broken"},
		{"a hold's state", replace(`"type":"hold"`, `"state":"open"`, `"state":"voided"`), "hold"},
		{"a hold left out", func(l []string) []string { i := at(`"type":"hold"`); return slices.Delete(l, i, i+1) }, "hold"},
		{"a hold twice", func(l []string) []string { i := at(`"type":"hold"`); return slices.Insert(l, i, l[i]) }, "hold"},
		{"a limit above what is there", replace(`"path":"liabilities:credit:payer"`, `"lowest":0`, `"lowest":100000`), "limit"},
		{"a limit that only the hold breaks", replace(`"path":"liabilities:credit:payer"`, `"lowest":0`, `"lowest":601`), "limit"},
		{"an account closed over its balance", replace(`"path":"assets:processor-clearing"`, `"state":"open"`, `"state":"closed"`), "limit"},
		{"a document left out", func(l []string) []string { i := at(`"type":"document"`); return slices.Delete(l, i, i+1) }, "series, document"},
		{"the last document left out", func(l []string) []string { i := at(`"type":"series"`); return slices.Delete(l, i-1, i) }, "series, document"},
		{"the last document, and its number given back", func(l []string) []string {
			i := at(`"type":"series"`)
			l[i] = strings.Replace(l[i], `"last":2`, `"last":1`, 1)
			return slices.Delete(l, i-1, i)
		}, "document"},
		{"a number twice", replace(`"type":"document"`, `"number":1`, `"number":2`), "series"},
		{"two documents swapped", func(l []string) []string {
			i := at(`"type":"document"`)
			l[i], l[i+1] = l[i+1], l[i]
			return l
		}, "series"},
		{"a document's amount", replace(`"type":"document"`, `"amount":1000`, `"amount":1001`), "document"},
		{"a document of another entry", replace(`"type":"document"`, `"entry":"`, `"entry":"0`), "document"},
		{"two documents of one entry", func(l []string) []string {
			i := at(`"type":"document"`)
			l[i+1] = strings.Replace(l[i], `"number":1`, `"number":2`, 1)
			return l
		}, "document"},
		{"the series left out", func(l []string) []string { i := at(`"type":"document"`); return slices.Delete(l, i, i+3) }, "series"},
		{"everything after the saved head left out", func(l []string) []string { return append(l[:at(`"key":"part"`)], l[at(`"type":"balance"`):]...) }, "balance, hold, head, signature, saved head"},
	}
	var rows [][2]string
	for _, tt := range tests {
		rows = append(rows, [2]string{tt.name, tt.want})
	}
	inDocs(t, rows)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			changed := strings.Join(tt.change(slices.Clone(lines)), "")
			_, found, err := VerifyExport(strings.NewReader(changed), Known{v, []string{early, newest}, []string{"papers"}})
			got := kinds(found)
			if err != nil {
				got = "broken"
			}
			// The saved heads of both sizes see what the entries of the log have become.
			got = strings.ReplaceAll(got, "saved head, ", "")
			if want := strings.ReplaceAll(tt.want, "saved head, ", ""); got != want {
				t.Errorf("found %q, %v, want %q\n%v", got, err, tt.want, found)
			}
		})
	}
}

// exportWithPapers numbers two of the city's entries, as another room does with receipts.
func exportWithPapers(ctx context.Context, db Beginner, w io.Writer) error {
	return ExportJSONL(ctx, db, w, Series{Name: "papers", Kind: "history", Due: 0, Each: func(ctx context.Context, tx pgx.Tx, f func(Document) error) (int64, error) {
		var books Books
		list, err := books.EntriesBySource(ctx, tx, migrated, "old", "", 10)
		if err != nil {
			return 0, err
		}
		for i, e := range list {
			d := Document{Number: int64(i + 1), EntryID: e.ID, Hash: []byte("what it says")}
			for _, l := range e.Lines {
				d.Amount += max(0, l.Amount)
			}
			if err := f(d); err != nil {
				return 0, err
			}
		}
		return int64(len(list)), nil
	}})
}

func kinds(found []Finding) string {
	var list []string
	for _, f := range found {
		list = append(list, f.Kind)
	}
	return strings.Join(list, ", ")
}

func FuzzVerifyExport(f *testing.F) {
	f.Add([]byte(`{"type":"account","path":"assets:a","currency":"CAD"}` + "\n" + `{"type":"head","size":0}` + "\n"))
	f.Add([]byte(`{"type":"entry","effective_on":"2026-01-01","lines":[{"account":"a","amount":1}],"position":0,"reverses":"x"}` + "\n"))
	f.Add([]byte(`{"type":"period","month":"2026-01"}` + "\n"))
	_, public, err := note.GenerateKey(nil, "books.example")
	if err != nil {
		f.Fatal(err)
	}
	v, err := note.NewVerifier(public)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if _, found, err := VerifyExport(bytes.NewReader(text), Known{Log: v}); err == nil && len(found) == 0 {
			t.Errorf("accepted %q", text)
		}
	})
}

// The second half of the tampering table: what holds, periods, imports and moments add.
func TestTamperingWithTheSecondLayer(t *testing.T) {
	t.Parallel()
	h, v, early := city(t)
	owner := testdb.Owner(t, h.db)
	id := func(key string) string { return "(select id from ledger.journal_entry where key = '" + key + "')" }
	tests := []struct{ name, sql, want string }{
		{"a hold ended", `update ledger.hold set state = 'voided' where entry_id = ` + id("held"), "hold"},
		{"a hold opened again", `update ledger.hold set state = 'open' where entry_id = ` + id("captured"), "hold"},
		{"a hold forgotten", `delete from ledger.hold where entry_id = ` + id("held"), "hold"},
		{"a held amount", `update ledger.journal_entry set amounts = '{101,-101}' where key = 'held'`, "posting, entry, sealed, tile, head"},
		{"a hold made a booking", `update ledger.journal_entry set accounts = array[-accounts[1] / 2, -accounts[2] / 2] where key = 'held'`, "posting, hold, entry, sealed, tile, head"},
		{"a release of more than was held", `update ledger.journal_entry set amounts = '{-301,301}' where key = 'capture/release'`, "posting, hold, released, entry, sealed, tile, head"},
		{"a part taken back of more than there was", `update ledger.journal_entry set amounts = '{-501,501}' where key = 'part/r'`, "posting, reversal, entry, sealed, tile, head"},
		{"a correction of a hold", `update ledger.journal_entry set corrects = ` + id("held") + ` where key = 'right'`, "link, entry, sealed, tile, head"},
		{"the link of a correction", `update ledger.journal_entry set corrects = null where key = 'right'`, "entry, sealed, tile, head"},
		{"the date that was asked for", `update ledger.journal_entry set asked_on = asked_on - 1 where key = 'late'`, "entry, sealed, tile, head"},
		{"an import's totals", `update ledger.import set debits = debits + 1`, "import"},
		{"an import forgotten, its entries kept", `delete from ledger.import`, "import"},
		{"an imported entry moved to another import", `update ledger.journal_entry set source_id = 'x' where source_type = 'import' and metadata ->> 'entry' = '17'`, "import, entry, sealed, tile, head"},
		{"a frozen amount", `update ledger.period_balance set debits = debits + 1 where account_id = (select min(account_id) from ledger.period_balance)`, "period, period hash"},
		{"a frozen account left out", `delete from ledger.period_balance where account_id = (select min(account_id) from ledger.period_balance)`, "period, period hash"},
		{"a frozen month hashed anew", `update ledger.period set trial_hash = sha256('x')`, "period hash"},
		{"a closed month opened", `update ledger.period set state = 'open'`, "period"},
		{"an entry slipped into a closed month", `update ledger.journal_entry set effective_on = '2026-02-01' where key = 'part'`, "posting, entry, sealed, tile, head"},
		{"what was known when", `update ledger.log_moment set size = size + 1 where at = (select min(at) from ledger.log_moment)`, "moment"},
		{"when it was known", `delete from ledger.log_moment where at = (select max(at) from ledger.log_moment)`, "moment"},
		{"a limit above what is available", `update ledger.account set lowest = 601 where path = '` + credits + `'`, "limit"},
	}
	var rows [][2]string
	for _, tt := range tests {
		rows = append(rows, [2]string{tt.name, tt.want})
	}
	inDocs(t, rows)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := pgx.BeginFunc(t.Context(), owner, func(tx pgx.Tx) error {
				if _, err := tx.Conn().PgConn().Exec(t.Context(), guards("disable")+tt.sql+"; "+guards("enable")).ReadAll(); err != nil {
					t.Fatalf("%s: %v", tt.sql, err)
				}
				found, err := Verify(t.Context(), inside{tx})
				if err != nil || kinds(found) != tt.want {
					t.Errorf("found %q, %v, want %q\n%v", kinds(found), err, tt.want, found)
				}
				return errBack
			})
			if !errors.Is(err, errBack) {
				t.Fatal(err)
			}
		})
	}
	h.wantSound(t)
	if err := VerifyHead(t.Context(), h.db, early, v); err != nil {
		t.Error(err)
	}
}

// guards switches the triggers off that stop the owner, or on.
func guards(how string) string {
	var b strings.Builder
	for _, t := range []string{
		"journal_entry trigger append_only", "posting trigger append_only", "account trigger fixed", "hold trigger append_only", "hold trigger fixed",
		"hold trigger final", "period trigger append_only", "period trigger final", "period_balance trigger append_only", "import trigger append_only",
		"log_moment trigger append_only", "log_moment trigger grows",
	} {
		table, trigger, _ := strings.Cut(t, " ")
		_, _ = io.WriteString(&b, "alter table ledger."+table+" "+how+" "+trigger+"; ")
	}
	return b.String()
}
