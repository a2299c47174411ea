package desk_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/go-rod/rod"
	"github.com/go-rod/rod/lib/proto"

	"guichet/api/web"
	"guichet/identity/staff"
	"guichet/internal/browser"
	"guichet/reconcile"
)

// signIn gives a page the session of a role.
func (w *world) signIn(page *rod.Page, role string) {
	w.t.Helper()
	must(w.t, page.SetCookies([]*proto.NetworkCookieParam{{Name: "guichet-staff", Value: w.as(role), URL: w.url, HTTPOnly: true}}))
}

// Sizes of windows in which no page may be wider than its window; those with a
// picture are checked with axe too.
var sizes = []struct {
	name    string
	size    browser.Viewport
	picture bool
}{
	{"desktop", browser.Desktop, true},
	{"tablet", browser.Viewport{Width: 800, Height: 1100}, false},
	{"phone", browser.Phone, true},
	{"narrow", browser.Viewport{Width: 320, Height: 640, Phone: true}, false},
}

// coloured are the pages whose colours are the desk's own.
var coloured = []string{"today-agrees", "today", "sap", "document", "document-rejected", "entry", "exception-suspense"}

// Every page on a desktop and a phone, in both languages, checked with axe.
func TestPagesInBrowser(t *testing.T) {
	b := browser.New(t)
	s := tell(t)
	page := browser.Open(t, b, "about:blank", browser.Desktop)
	for _, p := range s.pages() {
		s.signIn(page, p.role)
		for _, lang := range web.Languages {
			t.Run(p.name+"/"+lang, func(t *testing.T) {
				sep := "?"
				if strings.Contains(p.path, "?") {
					sep = "&"
				}
				browser.Resize(t, page, browser.Desktop)
				browser.Go(t, page, s.url+p.path+sep+"lang="+lang)
				for _, v := range sizes {
					browser.Resize(t, page, v.size)
					browser.NoSideways(t, page)
					if v.picture {
						browser.Axe(t, page)
						browser.Shot(t, page, fmt.Sprintf("desk-%s-%s-%s", p.name, lang, v.name))
					}
				}
				if lang == "en" && slices.Contains(coloured, p.name) {
					browser.Resize(t, page, browser.Desktop)
					browser.Dark(t, page)
					browser.Axe(t, page)
					browser.Shot(t, page, fmt.Sprintf("desk-%s-%s-dark", p.name, lang))
					browser.Light(t, page)
				}
			})
		}
	}
}

// A clerk takes an exception, moves its money out of suspense and sees it closed, with
// a keyboard and a mouse and no script.
func TestAClerkResolvesInBrowser(t *testing.T) {
	b := browser.New(t)
	s := tell(t)
	e := s.openException(reconcile.Unexplained)
	page := browser.Open(t, b, "about:blank", browser.Desktop)
	s.signIn(page, staff.FinanceClerk)
	browser.Go(t, page, s.url+"/desk")
	browser.Click(t, page, `a[href="/desk/exceptions"]`)
	browser.Click(t, page, `a[href="/desk/exceptions/`+e.ID+`"]`)
	browser.Click(t, page, `form[action$="/assign"] button`)
	browser.Click(t, page, `form[action$="/transfer"] button`)
	browser.Axe(t, page)
	browser.Shot(t, page, "desk-exception-faults-en-desktop")
	if text := browser.Text(t, page, ".error-summary"); !strings.Contains(text, "Write a few words") {
		t.Errorf("the summary says %q", text)
	}
	must(t, page.MustElement("#account").Select([]string{`[value="revenue:parking:fines"]`}, true, rod.SelectorTypeCSSSector))
	browser.Fill(t, page, "#why", "Terminal 14, batch 993411: counter payment keyed at the processor")
	browser.Click(t, page, `form[action$="/transfer"] button`)
	browser.Axe(t, page)
	browser.Shot(t, page, "desk-exception-closed-en-desktop")
	if text := browser.Text(t, page, "main"); !strings.Contains(text, "This exception is closed.") {
		t.Errorf("the page says %q", text)
	}
	if a := s.do(http.MethodGet, staff.FinanceClerk, "/desk/exceptions/"+e.ID+"/transfer?lang=fr", nil); a.header.Get("Location") != "/desk/exceptions/"+e.ID+"?lang=fr" {
		t.Errorf("the form's address opened leads to %q", a.header.Get("Location"))
	}
}
