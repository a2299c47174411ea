package desk_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/api/web"
	"guichet/api/web/webtest"
	"guichet/identity/staff"
	"guichet/internal/browser"
	"guichet/internal/clock"
	"guichet/internal/testdb"
	"guichet/ledger"
)

// wantPage gets a page in both languages and looks for words in it.
func (w *world) wantPage(path string, en, fr []string) {
	w.t.Helper()
	sep := "?"
	if strings.Contains(path, "?") {
		sep = "&"
	}
	for lang, words := range map[string][]string{"en": en, "fr": fr} {
		page := w.page(staff.Auditor, path+sep+"lang="+lang)
		for _, fault := range webtest.Faults(page) {
			w.t.Error(fault)
		}
		for _, word := range words {
			if !strings.Contains(readable(page), word) {
				w.t.Errorf("%s in %s does not say %q", path, lang, word)
			}
		}
	}
}

// A closed month says so, with its hash and that its days still give it; what came late
// says what it was asked for; a hold says what became of it.
func TestMonthsAndWhatComesLate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	w.Issue(t, w.Bill("water", "water-consumption", 1_000)) // opens the accounts
	last := w.Today()
	last.Day = 1
	last = last.AddDays(-1)
	lines := []ledger.Line{{Account: "assets:receivable:water", Amount: 4_200}, {Account: "liabilities:billed-not-collected:water", Amount: -4_200}}
	entry := func(key string) ledger.Entry {
		return ledger.Entry{Key: key, Kind: "adjustment", EffectiveOn: last, SourceType: "test", SourceID: key, Lines: lines}
	}
	var late, first, held, captured string
	w.Do(t, func(tx pgx.Tx) (err error) {
		first, err = w.Books.Append(ctx, tx, entry("first"))
		return err
	})
	w.wantPage("/desk/ledger?on="+last.String(), []string{"Open", "The month takes entries."}, []string{"Ouvert"})
	w.Do(t, func(tx pgx.Tx) error { return w.Books.SetPeriod(ctx, tx, last, ledger.PeriodClosing) })
	w.wantPage("/desk/ledger?on="+last.String(), []string{"it takes adjustments only"}, []string{"En fermeture"})
	w.Do(t, func(tx pgx.Tx) error { return w.Books.SetPeriod(ctx, tx, last, ledger.PeriodClosed) })
	w.wantPage("/desk/ledger?on="+last.String(), []string{"Its days still give, to the cent"}, []string{"donnent toujours, au cent près"})
	w.wantPage("/desk/ledger?on="+last.AddDays(-1).String(), []string{"closed for good", "See the trial balance that was frozen"}, []string{"fermé pour de bon"})
	before := clock.FromTime(time.Date(last.Year, last.Month-1, 1, 0, 0, 0, 0, time.UTC))
	w.wantPage("/desk/ledger?on="+before.String(), []string{"closed for good"}, []string{"Fermé"})

	w.Do(t, func(tx pgx.Tx) (err error) {
		e := entry("late")
		e.OrNextOpen = true
		if late, err = w.Books.Append(ctx, tx, e); err != nil {
			return err
		}
		reversed := ledger.Entry{Key: "undo", Kind: "reversal", EffectiveOn: w.Today()}
		if _, err = w.Books.Reverse(ctx, tx, first, reversed); err != nil {
			return err
		}
		e = entry("held")
		e.EffectiveOn = w.Today()
		if held, err = w.Books.Hold(ctx, tx, e, time.Time{}); err != nil {
			return err
		}
		captured, err = w.Books.Capture(ctx, tx, held, ledger.Entry{Key: "captured"}, ledger.ReleaseRest)
		return err
	})
	w.post()
	w.wantPage("/desk/ledger/entries/"+late, []string{"Late posting: asked for", "took no more entries"}, []string{"Inscription tardive"})
	w.wantPage("/desk/ledger/entries/"+first, []string{"Reversed by", "Closed"}, []string{"Contrepassée par"})
	w.wantPage("/desk/ledger/entries/"+held, []string{"Held, not booked", "Captured by", "Released by", "Captured"}, []string{"Saisie par"})
	w.wantPage("/desk/ledger/entries/"+captured, []string{"Captures the hold"}, []string{"Saisit la retenue"})
	w.wantPage("/desk/ledger/journal", []string{"Late", "Held, not booked"}, []string{"Tardive"})

	owner := testdb.Owner(t, w.DB)
	if _, err := owner.Exec(ctx, `update ledger.account_day set credits = credits + 1 where effective_on = $1 and credits > 0`, last.Time()); err != nil {
		t.Fatal(err)
	}
	w.wantPage("/desk/ledger?on="+last.String(), []string{"no longer give the trial balance that was frozen"}, []string{"ne donnent plus"})
}

// The search works with the keyboard alone, and says what is wrong beside its fields.
func TestAnAuditorSearchesInBrowser(t *testing.T) {
	b := browser.New(t)
	s := tell(t)
	page := browser.Open(t, b, "about:blank", browser.Phone)
	s.signIn(page, staff.Auditor)
	browser.Go(t, page, s.url+"/desk/ledger")
	browser.Click(t, page, `a[href="/desk/ledger/journal"]`)
	browser.Fill(t, page, "#amount_from", "ten")
	browser.Click(t, page, ".search .button")
	browser.Axe(t, page)
	browser.NoSideways(t, page)
	browser.Shot(t, page, "desk-journal-fault-en-phone")
	if text := browser.Text(t, page, ".error-summary"); !strings.Contains(text, "not an amount above zero") {
		t.Errorf("the summary says %q", text)
	}
	browser.Fill(t, page, "#amount_from", "42.00")
	browser.Fill(t, page, "#account", "liabilities:suspense:unexplained")
	browser.Click(t, page, ".search .button")
	if text := browser.Text(t, page, "main"); !strings.Contains(text, "Unexplained, into suspense") {
		t.Errorf("the page says %q", text)
	}
	browser.Click(t, page, `.table-cards th a`)
	if text := browser.Text(t, page, "main"); !strings.Contains(text, "$42.00") {
		t.Errorf("the entry says %q", text)
	}
	for _, lang := range web.Languages {
		if a := s.do(http.MethodGet, staff.Auditor, "/desk/ledger/journal?amount_from=ten&lang="+lang, nil); a.status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d", lang, a.status)
		}
	}
}
