package ledger

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/money"
	"guichet/internal/testdb"
)

func TestChart(t *testing.T) {
	t.Parallel()
	h := open(t)
	const file = "path,name_en,name_fr,department,lowest\n" +
		"assets:till:west,Till,Caisse,,0.00\n" + // new
		"assets:processor-clearing,Card clearing,Compensation des cartes,,\n" + // as it is
		"assets:receivable:parking,Parking owed,Stationnement à recevoir,parking,\n" + // another name
		"liabilities:credit:payer,Credits of payers,Crédits des payeurs,,5.00\n" // another limit
	chart, err := ReadChart(strings.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	h.mustPost(t, move("in", 600, clearing, credits))
	want := `+ assets:till:west; ~ assets:receivable:parking: name_en "Parking receivable" becomes "Parking owed"; ~ liabilities:credit:payer: lowest "0.00" becomes "5.00"`
	diff := func() string {
		changes, err := h.DiffChart(t.Context(), h.db, chart)
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, c := range changes {
			lines = append(lines, c.String())
		}
		return strings.Join(lines, "; ")
	}
	if got := diff(); got != want {
		t.Errorf("diff:\n%s\nwant\n%s", got, want)
	}
	load := func(chart []Account) error {
		return h.try(t.Context(), func(ctx context.Context, tx pgx.Tx) error { _, err := h.LoadChart(ctx, tx, chart); return err })
	}
	if err := load(chart); err != nil {
		t.Fatal(err)
	}
	if got := diff(); got != "" {
		t.Errorf("after loading there is still %s", got)
	}
	if _, err := h.post(t.Context(), move("out", 101, credits, clearing)); !errors.Is(err, ErrLimit) {
		t.Errorf("the new limit: got %v, want ErrLimit", err)
	}
	chart[2].Department = "water"
	if err := load(chart); !errors.Is(err, ErrConflict) {
		t.Errorf("another department: got %v, want ErrConflict", err)
	}
	for name, text := range map[string]string{
		"nothing":          "",
		"a strange column": "path,name_en,name_fr,colour\n",
		"a missing column": "path,name_en\n",
		"a bad path":       "path,name_en,name_fr\nsomewhere,A,B\n",
		"no French name":   "path,name_en,name_fr\nassets:a,A,\n",
		"a path twice":     "path,name_en,name_fr\nassets:a,A,B\nassets:a,A,B\n",
		"a bad limit":      "path,name_en,name_fr,lowest\nassets:a,A,B,1.2\n",
		"a bad side":       "path,name_en,name_fr,normal\nassets:a,A,B,left\n",
		"a short row":      "path,name_en,name_fr\nassets:a,A\n",
	} {
		if _, err := ReadChart(strings.NewReader(text)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
}

func FuzzReadFiles(f *testing.F) {
	f.Add("path,name_en,name_fr\nassets:a,A,B\n")
	f.Add("entry,effective_on,account,debit,credit\n1,2020-01-01,assets:a,1.00,\n1,2020-01-01,assets:b,,1.00\n")
	f.Fuzz(func(t *testing.T, text string) {
		if chart, err := ReadChart(strings.NewReader(text)); err != nil && !errors.Is(err, ErrInvalid) || err == nil && len(chart) > len(text) {
			t.Errorf("%q: %v", text, err)
		}
		if _, err := readEntries(strings.NewReader(text), Migration{Name: "x", Kind: "history"}); err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v", text, err)
		}
	})
}

const oldBooks = "entry,effective_on,account,debit,credit,fund,description\n" +
	"17,2019-12-31,assets:processor-clearing,10.00,,010,carried over\n" +
	"17,2019-12-31,assets:receivable:parking,,7.00,,carried over\n" +
	"17,2019-12-31,revenue:parking:fines,,3.00,,\n" +
	"18,2020-02-29,assets:processor-clearing,0.01,,,\n" +
	"18,2020-02-29,revenue:parking:fines,,0.01,,\n"

func TestImport(t *testing.T) {
	t.Parallel()
	h := open(t)
	m := Migration{Name: "old-books", Kind: "history", Entries: 2, Debits: 1001, Actor: "staff:1"}
	load := func(m Migration, file string) (Import, error) {
		return in(t, h, func(ctx context.Context, tx pgx.Tx) (Import, error) {
			return h.Import(ctx, tx, m, strings.NewReader(file))
		})
	}
	for name, tt := range map[string]struct {
		change func(*Migration)
		file   string
		want   error
	}{
		"an entry less than announced":  {func(m *Migration) { m.Entries = 3 }, oldBooks, ErrInvalid},
		"a cent less than announced":    {func(m *Migration) { m.Debits = 1002 }, oldBooks, ErrInvalid},
		"a kind that is none":           {func(m *Migration) { m.Kind = "x" }, oldBooks, ErrInvalid},
		"an entry that does not sum up": {func(*Migration) {}, strings.Replace(oldBooks, ",7.00", ",6.99", 1), ErrUnbalanced},
		"an unknown account":            {func(*Migration) {}, strings.ReplaceAll(oldBooks, "fines", "none"), ErrUnknownAccount},
		"an entry in two places":        {func(*Migration) {}, oldBooks + "17,2019-12-31,assets:processor-clearing,1.00,,,\n", ErrInvalid},
		"two dates":                     {func(*Migration) {}, strings.Replace(oldBooks, "17,2019-12-31,rev", "17,2019-12-30,rev", 1), ErrInvalid},
		"both sides":                    {func(*Migration) {}, strings.Replace(oldBooks, "10.00,,010", "10.00,10.00,010", 1), ErrInvalid},
	} {
		bad := m
		tt.change(&bad)
		if _, err := load(bad, tt.file); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", name, err, tt.want)
		}
	}
	if n := count(t, h.db, `select count(*) from ledger.journal_entry`); n != 0 {
		t.Fatalf("%d entries after refusals", n)
	}
	first, err := load(m, oldBooks)
	if err != nil || first.Lines != 5 || first.First.String() != "2019-12-31" || first.Last.String() != "2020-02-29" {
		t.Fatalf("got %+v, %v", first, err)
	}
	if again, err := load(m, oldBooks); err != nil || again.ImportedAt != first.ImportedAt {
		t.Errorf("the same file again: got %+v, %v", again, err)
	}
	if _, err := load(m, oldBooks+"19,2020-03-01,assets:processor-clearing,1.00,,,\n19,2020-03-01,revenue:parking:fines,,1.00,,\n"); !errors.Is(err, ErrConflict) {
		t.Errorf("another file: got %v, want ErrConflict", err)
	}
	h.wantBalance(t, clearing, 1001)
	list, err := h.EntriesBySource(t.Context(), h.db, "import", "old-books", "", 10)
	if err != nil || len(list) != 2 || list[0].EffectiveOn.String() != "2019-12-31" || list[0].Metadata["entry"] != "17" || list[0].Kind != "history" || list[0].Lines[0].Dimensions.Fund != "010" {
		t.Errorf("got %+v, %v", list, err)
	}
	// A reversal of an imported entry names the import as its source and is no part of it.
	h.do(t, func(ctx context.Context, tx pgx.Tx) error {
		_, err := h.Reverse(ctx, tx, list[1].ID, Entry{Key: "back"})
		return err
	})
	h.drain(t)
	h.wantSound(t)
	// An entry that slips in under the import's name is found.
	e := move("slip", 5, clearing, fines)
	e.SourceType, e.SourceID = "import", "old-books"
	h.mustPost(t, e)
	if found, err := Verify(t.Context(), h.db); err != nil || len(found) != 1 || found[0].Kind != "import" {
		t.Errorf("got %v, %v; want the import", found, err)
	}
}

// The frozen trial balance is what was there at the close, whatever comes later.
func TestFrozenTrial(t *testing.T) {
	t.Parallel()
	h := open(t)
	february := today.AddDays(-20)
	post := func(key string, amount money.Amount, days int) {
		e := move(key, amount, clearing, receivable)
		e.EffectiveOn = today.AddDays(days)
		h.mustPost(t, e)
	}
	post("a", 500, -50) // January
	post("b", 100, -20)
	h.drain(t)
	post("c", 10, -19) // not posted when the month closes
	post("d", 1, 0)
	set := func(to PeriodState, checks ...Check) error {
		return h.try(t.Context(), func(ctx context.Context, tx pgx.Tx) error { return h.SetPeriod(ctx, tx, february, to, checks...) })
	}
	if err := set(PeriodClosing); err != nil {
		t.Fatal(err)
	}
	if _, _, err := h.FrozenTrial(t.Context(), h.db, february); !errors.Is(err, ErrNotFound) {
		t.Errorf("before the close: got %v, want ErrNotFound", err)
	}
	notYet := func(context.Context, pgx.Tx) ([]Finding, error) { return []Finding{{"receivable", "x", "y"}}, nil }
	if err := set(PeriodClosed, notYet); !errors.Is(err, ErrNotReady) {
		t.Errorf("with a finding: got %v, want ErrNotReady", err)
	}
	if err := set(PeriodClosed, func(context.Context, pgx.Tx) ([]Finding, error) { return nil, nil }); err != nil {
		t.Fatal(err)
	}
	check := func(when string) {
		t.Helper()
		trial, hash, err := h.FrozenTrial(t.Context(), h.db, february)
		if err != nil || len(trial) != 2 || trial[0].Balance != 610 || trial[0].Debits != 610 || len(hash) != 32 {
			t.Errorf("%s: frozen %+v, %v", when, trial, err)
		}
		for days, want := range map[int]money.Amount{-60: 0, -40: 500, -20: 600, -9: 610, 0: 611} {
			if got, err := h.BalanceAsOf(t.Context(), h.db, clearing, AsOf{On: today.AddDays(days)}); err != nil || got != want {
				t.Errorf("%s: balance of day %d: got %s, %v; want %s", when, days, got, err, want)
			}
		}
		h.wantSound(t)
	}
	check("closed")
	h.drain(t)
	check("posted")
	post("e", 1000, 1)
	check("later")
	owner := testdb.Owner(t, h.db)
	for _, sql := range []string{
		`update ledger.period_balance set debits = debits + 1 where account_id = (select id from ledger.account where path = '` + clearing + `')`,
		`delete from ledger.period_balance`,
		`update ledger.period set trial_hash = sha256('x')`,
		`update ledger.period set state = 'open'`,
	} {
		err := pgx.BeginFunc(t.Context(), owner, func(tx pgx.Tx) error {
			if _, err := tx.Exec(t.Context(), `alter table ledger.period_balance disable trigger append_only; alter table ledger.period disable trigger final; `+sql+
				`; alter table ledger.period_balance enable trigger append_only; alter table ledger.period enable trigger final`, pgx.QueryExecModeSimpleProtocol); err != nil {
				return err
			}
			found, err := Verify(t.Context(), inside{tx})
			if err != nil || len(found) == 0 || !strings.HasPrefix(found[0].Kind, "period") {
				t.Errorf("%s: found %v, %v", sql, found, err)
			}
			return errBack
		})
		if !errors.Is(err, errBack) {
			t.Fatal(err)
		}
	}
}

var errBack = errors.New("roll back")

// Any dimension, any days, without a look at the postings.
func TestActivity(t *testing.T) {
	t.Parallel()
	h := open(t)
	for i := range 6 {
		e := move(key(i), 100, clearing, fines)
		e.EffectiveOn = today.AddDays(-i)
		e.Lines[0].Dimensions = Dimensions{Tender: []string{"card", "cash"}[i%2], Fund: "010"}
		e.Lines[1].Dimensions = Dimensions{Department: "parking"}
		h.mustPost(t, e)
		if i == 3 {
			h.drain(t)
		}
	}
	ask := func(a ActivityQuery) string {
		t.Helper()
		list, err := h.Activity(t.Context(), h.db, a)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, l := range list {
			d := l.Dimensions
			out = append(out, strings.TrimSpace(fmt.Sprint(l.Account+" "+d.Department+d.Fund+d.Tender, " ", l.Debits, " ", l.Credits)))
		}
		return strings.Join(out, "; ")
	}
	for _, tt := range []struct {
		query ActivityQuery
		want  string
	}{
		{ActivityQuery{By: []string{"tender"}, Under: "assets"}, "card 3.00 0.00; cash 3.00 0.00"},
		{ActivityQuery{By: []string{"tender"}, Under: "assets", From: today.AddDays(-4), To: today.AddDays(-1)}, "card 2.00 0.00; cash 2.00 0.00"},
		{ActivityQuery{By: []string{"account", "department"}}, clearing + "  6.00 0.00; " + fines + " parking 0.00 6.00"},
		{ActivityQuery{By: []string{"fund"}, To: today.AddDays(-5)}, "0.00 1.00; 010 1.00 0.00"},
		{ActivityQuery{Under: "asset"}, ""},
	} {
		tt.query.Limit = 100
		if got := ask(tt.query); got != tt.want {
			t.Errorf("%+v: got %q, want %q", tt.query, got, tt.want)
		}
	}
	for _, by := range []string{"colour", "a.path", ""} {
		if _, err := h.Activity(t.Context(), h.db, ActivityQuery{By: []string{by}, Limit: 1}); !errors.Is(err, ErrInvalid) {
			t.Errorf("by %q: got %v, want ErrInvalid", by, err)
		}
	}
}

// Both sides at once: by accounting date, and as it was known.
func TestTwoSidedQuestions(t *testing.T) {
	t.Parallel()
	h := open(t)
	type step struct {
		amount money.Amount
		days   int
	}
	start := h.clock.t
	for i, s := range []step{{100, -30}, {20, -1}, {3, -30}, {4000, -40}} { // the last two are back-dated
		e := move(key(i), s.amount, clearing, receivable)
		e.EffectiveOn = today.AddDays(s.days)
		h.mustPost(t, e)
		h.drain(t)
		h.clock.t = h.clock.t.Add(timeStep)
	}
	waits := move("waits", 50000, clearing, receivable)
	waits.EffectiveOn = today.AddDays(-30)
	h.mustPost(t, waits)
	for _, tt := range []struct {
		days  int // effective
		known int // steps known; -1: now
		want  money.Amount
	}{
		{0, -1, 54123},
		{-2, -1, 54103},
		{-30, -1, 54103},
		{-31, -1, 4000},
		{-50, -1, 0},
		{0, 4, 4123},
		{0, 3, 123},
		{0, 2, 120},
		{0, 1, 100},
		{0, 0, 0},
		{-2, 4, 4103},
		{-2, 3, 103},
		{-2, 2, 100},
		{-31, 4, 4000},
		{-31, 3, 0},
	} {
		at := AsOf{On: today.AddDays(tt.days)}
		if tt.known >= 0 {
			at.KnownAt = start.Add(timeStep * timeCount(tt.known)).Add(-timeStep / 2)
		}
		if got, err := h.BalanceAsOf(t.Context(), h.db, clearing, at); err != nil || got != tt.want {
			t.Errorf("day %d known after %d: got %s, %v; want %s", tt.days, tt.known, got, err, tt.want)
		}
		trial, err := h.TrialBalanceAsOf(t.Context(), h.db, at)
		if err != nil || len(trial) != 0 != (tt.want != 0) || len(trial) > 0 && (trial[0].Balance != tt.want || trial[1].Balance != -tt.want) {
			t.Errorf("day %d known after %d: trial balance %+v, %v; want %s", tt.days, tt.known, trial, err, tt.want)
		}
		// The statement comes to the same, in pages of two.
		var sum, last money.Amount
		q := StatementQuery{Path: clearing, To: at.On, KnownAt: at.KnownAt, Limit: 2}
		for range 5 {
			s, err := h.StatementBetween(t.Context(), h.db, q)
			if err != nil || s.Opening != 0 || s.Closing != tt.want {
				t.Fatalf("statement %+v, %v", s, err)
			}
			for _, l := range s.Lines {
				sum += l.Amount
				if last = l.Balance; last != sum {
					t.Errorf("day %d known after %d: balance %s after lines of %s", tt.days, tt.known, last, sum)
				}
			}
			if q.After = s.Next; s.Next == (Place{}) {
				break
			}
		}
		if sum != tt.want {
			t.Errorf("day %d known after %d: lines of %s, want %s", tt.days, tt.known, sum, tt.want)
		}
	}
	if s, err := h.StatementBetween(t.Context(), h.db, StatementQuery{Path: clearing, From: today.AddDays(-30), To: today.AddDays(-2), Limit: 10}); err != nil || s.Opening != 4000 || s.Closing != 54103 || len(s.Lines) != 3 || s.Lines[2].Seq != 0 || s.Lines[2].Balance != 54103 {
		t.Errorf("between: %+v, %v", s, err)
	}
	h.drain(t)
	h.wantSound(t)
}

// timeStep lies between two entries of a test.
const timeStep = 10 * time.Second

func timeCount(n int) time.Duration { return time.Duration(n) }
