package journal_test

import (
	"strings"
	"testing"

	"github.com/go-rod/rod"
	"github.com/go-rod/rod/lib/proto"

	"guichet/internal/browser"
)

// wear gives a page somebody's session.
func (w *world) wear(page *rod.Page, who string) {
	w.t.Helper()
	must(w.t, page.SetCookies([]*proto.NetworkCookieParam{{Name: "guichet-staff", Value: w.as(who), URL: w.url, HTTPOnly: true}}))
}

// Two people at two windows: one writes an entry, makes a mistake, mends it and submits; the other
// looks, approves, and finds it posted. Each page is checked with axe, on a desktop and a phone.
func TestTwoPeoplePostAnEntryInBrowser(t *testing.T) {
	b := browser.New(t)
	w := newWorld(t)
	page := browser.Open(t, b, "about:blank", browser.Desktop)
	look := func(name string) {
		t.Helper()
		for size, v := range map[string]browser.Viewport{"desktop": browser.Desktop, "phone": browser.Phone} {
			browser.Resize(t, page, v)
			browser.NoSideways(t, page)
			browser.Axe(t, page)
			browser.Shot(t, page, "journal-"+name+"-"+size)
		}
		browser.Resize(t, page, browser.Desktop)
	}
	w.wear(page, clerk)
	browser.Go(t, page, w.url+"/desk/journal")
	browser.Click(t, page, `a[href="/desk/journal/new"]`)
	browser.Fill(t, page, "#description", "Rent of offices, May")
	browser.Fill(t, page, "#explanation", "The landlord bills May in June; lease in the file")
	must(t, page.MustElement("#reason").Select([]string{`[value="accrual"]`}, true, rod.SelectorTypeCSSSector))
	browser.Fill(t, page, "#account-1", "rent")
	browser.Fill(t, page, "#debit-1", "1,200.50")
	browser.Fill(t, page, "#account-2", "accrued")
	browser.Fill(t, page, "#credit-2", "1 200,00")
	browser.Click(t, page, ".actions button")
	look("form-faults-en")
	if text := browser.Text(t, page, ".error-summary"); !strings.Contains(text, "2 accounts fit") {
		t.Errorf("the summary says %q", text)
	}
	browser.Fill(t, page, "#account-1", "expenses:rent")
	browser.Click(t, page, ".actions button")
	look("draft-out-en")
	if text := browser.Text(t, page, "main"); !strings.Contains(text, "Out of balance: $0.50 too much on the debit side") {
		t.Errorf("the draft says %q", text)
	}
	browser.Click(t, page, ".pagehead a.button")
	browser.Fill(t, page, "#credit-2", "1 200,50")
	browser.Click(t, page, ".actions button")
	look("draft-en")
	browser.Click(t, page, `form[action$="/submit"] button`)
	draft := strings.TrimPrefix(page.MustInfo().URL, w.url)

	other := browser.Open(t, b, "about:blank", browser.Desktop)
	page, first := other, page
	w.wear(page, approver)
	browser.Go(t, page, w.url+"/desk/journal?list=submitted&lang=fr")
	look("list-fr")
	browser.Click(t, page, `th a[href="`+draft+`"]`)
	browser.Click(t, page, `a[href="`+draft+`/decide"]`)
	look("decide-fr")
	browser.Click(t, page, `button[value="refuse"]`)
	look("decide-faults-fr")
	browser.Click(t, page, `button[value="approve"]`)
	look("posted-fr")
	if text := browser.Text(t, page, "main"); !strings.Contains(text, "Approuvée par Demo approver et comptabilisée.") {
		t.Errorf("the page says %q", text)
	}
	// Back, and again: the entry is posted once, and nothing is wrong.
	must(t, page.NavigateBack())
	browser.Go(t, page, w.url+draft+"/decide?lang=fr")
	if text := browser.Text(t, page, "main"); !strings.Contains(text, "comptabilisée") || strings.Contains(text, "Approuver et") {
		t.Errorf("after going back the page says %q", text)
	}
	page = first
	_, err := page.Activate() // a window behind another one paints no picture
	must(t, err)
	browser.Go(t, page, w.url+draft)
	look("posted-en")
	browser.Go(t, page, w.url+"/desk/journal/new?lang=fr")
	look("form-fr")
	browser.Dark(t, page)
	browser.Axe(t, page)
	browser.Shot(t, page, "journal-form-fr-dark")
}
