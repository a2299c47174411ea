package oidc_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"guichet/identity/provider"
)

// push pushes a request and returns the address for the browser.
func (a *app) push(v url.Values) (tokens, string) {
	a.w.t.Helper()
	got := a.call("/oidc/par", v)
	return got, a.authorizeURL(url.Values{"client_id": {a.id}, "request_uri": {got.RequestURI}})
}

func TestAttacksOnPushedRequests(t *testing.T) {
	w := newWorld(t)
	a := w.parking()
	water := w.app("water-portal", w.department("water", "Water"), provider.NewClient{FirstParty: true})
	native := w.app("parking-mobile", w.department("mobile", "Mobile"), provider.NewClient{Type: provider.Native, RedirectURIs: []string{"http://127.0.0.1/callback"}})
	b := w.browser()
	b.code(a, "demo@example.com")
	used := func(t *testing.T, name string, got answer) {
		t.Helper()
		if got.status != http.StatusBadRequest || got.location != "" {
			t.Errorf("%s: %d %s, want a 400 page", name, got.status, got.location)
		}
	}

	t.Run("a pushed request is answered like another", func(t *testing.T) {
		got, link := a.push(a.request())
		if got.status != http.StatusCreated || !strings.HasPrefix(got.RequestURI, "urn:ietf:params:oauth:request_uri:") || got.ExpiresIn != 60 {
			t.Fatalf("%d %s", got.status, got.body)
		}
		back := b.get(link)
		if tok := a.redeem(back.query().Get("code")); tok.status != http.StatusOK || back.query().Get("state") != "st-1" {
			t.Errorf("%s, then %d %s", back.location, tok.status, tok.body)
		}
	})
	t.Run("50 what authorize would refuse is refused at push", func(t *testing.T) {
		for name, c := range map[string]struct {
			form url.Values
			want string
		}{
			"request_uri inside":   {with(a.request(), "request_uri", "urn:ietf:params:oauth:request_uri:x"), "invalid_request"},
			"another redirect_uri": {with(a.request(), "redirect_uri", a.redirect+"/"), "invalid_request"},
			"no redirect_uri":      {with(a.request(), "redirect_uri", ""), "invalid_request"},
			"no PKCE":              {with(a.request(), "code_challenge", ""), "invalid_request"},
			"plain PKCE":           {with(a.request(), "code_challenge_method", "plain"), "invalid_request"},
			"request object":       {with(a.request(), "request", "x.y."), "request_not_supported"},
			"implicit":             {with(a.request(), "response_type", "token"), "unsupported_response_type"},
			"another client_id":    {with(a.request(), "client_id", water.id), "invalid_request"},
			"a foreign resource":   {with(a.request(), "resource", "https://x.example"), "invalid_target"},
		} {
			if got, _ := a.push(c.form); got.status != http.StatusBadRequest || got.Error != c.want || got.RequestURI != "" {
				t.Errorf("%s: %d %s, want %s", name, got.status, got.body, c.want)
			}
		}
		bare := func(r *http.Request) { r.Header.Del("Authorization") }
		if got := a.call("/oidc/par", a.request(), bare); got.status != http.StatusUnauthorized {
			t.Errorf("without authentication: %d %s", got.status, got.body)
		}
		if got := native.call("/oidc/par", native.request()); got.status != http.StatusUnauthorized {
			t.Errorf("a client without a secret: %d %s", got.status, got.body)
		}
		if got := a.call("/oidc/par", nil, func(r *http.Request) { r.Method = http.MethodGet }); got.status != http.StatusMethodNotAllowed {
			t.Errorf("GET: %d", got.status)
		}
	})
	t.Run("51 by another client, too late, or after completion", func(t *testing.T) {
		got, link := a.push(a.request())
		used(t, "another client", b.get(water.authorizeURL(url.Values{"client_id": {water.id}, "request_uri": {got.RequestURI}})))
		if b.get(link).query().Get("code") == "" {
			t.Error("another client's try used it up")
		}
		used(t, "after completion", b.get(link))
		_, link = a.push(a.request())
		w.later(60 * time.Second)
		used(t, "after 60 s", b.get(link))
		used(t, "unknown", b.get(a.authorizeURL(url.Values{"client_id": {a.id}, "request_uri": {"urn:ietf:params:oauth:request_uri:x"}})))
	})
	t.Run("51 opened, it is bound to its sign-in and browser", func(t *testing.T) {
		_, link := a.push(a.request())
		mine, thief := w.browser(), w.browser()
		path := mine.startSignIn(link)
		if again := mine.get(link); again.location != path {
			t.Errorf("reload leads to %s, want %s", again.location, path)
		}
		if got := thief.follow(thief.get(link)); got.status != http.StatusBadRequest || strings.Contains(got.body, "<form method") {
			t.Errorf("another browser: %d %s", got.status, got.text())
		}
		w.later(2 * time.Minute) // signing in takes longer than 60 s
		back := mine.agree(path, mine.follow(mine.prove(path, "slow@example.com")))
		if back.query().Get("code") == "" {
			t.Fatalf("%d %s", back.status, back.location)
		}
		if got := mine.follow(mine.get(link)); got.status != http.StatusBadRequest {
			t.Errorf("after completion: %d %s", got.status, got.location)
		}
	})
	t.Run("52 what the browser adds does not count", func(t *testing.T) {
		_, link := a.push(a.request())
		back := b.get(link + "&scope=openid&state=evil&redirect_uri=https%3A%2F%2Fevil.example&response_type=token&prompt=login&nonce=x")
		if back.query().Get("state") != "st-1" || !strings.HasPrefix(back.location, a.redirect) {
			t.Fatalf("%d %s", back.status, back.location)
		}
		if tok := a.redeem(back.query().Get("code")); tok.Scope != "openid profile email" || claimsOf(t, tok.IDToken)["nonce"] != "n-1" {
			t.Errorf("%s", tok.body)
		}
	})
	t.Run("posted, it means the same", func(t *testing.T) {
		got, _ := a.push(a.request())
		back := b.follow(b.post("/oidc/authorize", url.Values{"client_id": {a.id}, "request_uri": {got.RequestURI}}, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }))
		if back.query().Get("code") == "" {
			t.Errorf("%d %s", back.status, back.location)
		}
	})
}
