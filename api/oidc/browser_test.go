package oidc_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"guichet/identity/provider"
	chrome "guichet/internal/browser"
)

// A real browser holds form-action against the whole chain of redirects, which a test
// client does not: this one sees that a sign-in ends at another origin.
func TestSignInInARealBrowser(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprintf(w, "<!doctype html><html lang=en><title>app</title><h1>back with code %v</h1>", r.URL.Query().Has("code"))
	}))
	defer app.Close()
	w := newWorld(t)
	a := w.app("parking-portal", w.department("parking", "Parking"), provider.NewClient{
		Name: provider.Words{EN: "Parking Portal", FR: "Portail du stationnement"}, FirstParty: true, RedirectURIs: []string{app.URL + "/callback"},
	})
	chromium := chrome.New(t)
	for _, lang := range []string{"en", "fr"} {
		v := a.request()
		v.Set("ui_locales", lang+"-CA")
		v.Set("prompt", "login consent")
		page := chrome.Open(t, chromium, a.authorizeURL(v), chrome.Phone)
		check := func(name string) {
			chrome.Axe(t, page)
			chrome.NoSideways(t, page)
			chrome.Shot(t, page, "signin-"+name+"-"+lang)
		}
		check("email")
		chrome.Fill(t, page, "#email", "no address")
		chrome.Click(t, page, "button[value=email]")
		check("email-wrong")
		chrome.Fill(t, page, "#email", lang+"@example.com")
		chrome.Click(t, page, "button[value=email]")
		check("code")
		sent := w.mail.all()
		code := sent[len(sent)-1].Data["code"]
		chrome.Fill(t, page, "#code", other(code, 3))
		chrome.Click(t, page, "button[value=code]")
		check("code-wrong")
		chrome.Fill(t, page, "#code", code)
		chrome.Click(t, page, "button[value=code]")
		check("profile")
		chrome.Fill(t, page, "#name", "Demo Resident")
		chrome.Click(t, page, "button[value=profile]")
		check("notice")
		chrome.Click(t, page, "button[value=agree]")
		if got := chrome.Text(t, page, "h1"); got != "back with code true" {
			t.Errorf("%s: the sign-in ends with %q", lang, got)
		}
		// With the notice known, the code page is the last one and leads there directly.
		v.Set("prompt", "login")
		chrome.Go(t, page, a.authorizeURL(v))
		chrome.Fill(t, page, "#email", lang+"@example.com")
		chrome.Click(t, page, "button[value=email]")
		sent = w.mail.all()
		chrome.Fill(t, page, "#code", sent[len(sent)-1].Data["code"])
		chrome.Click(t, page, "button[value=code]")
		if got := chrome.Text(t, page, "h1"); got != "back with code true" {
			t.Errorf("%s: the second sign-in ends with %q", lang, got)
		}
		chrome.Go(t, page, w.url+"/oidc/logout?"+url.Values{"client_id": {a.id}}.Encode())
		check("signout")
		chrome.Click(t, page, "form[action='/signout'] button")
		check("signedout")
		if got := page.MustInfo().URL; !strings.HasSuffix(got, "/signed-out") {
			t.Errorf("%s: sign-out ends at %s", lang, got)
		}
	}
}
