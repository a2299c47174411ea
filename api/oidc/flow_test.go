package oidc_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	rp "github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"guichet/identity/provider"
)

// oidcc-basic: a department's application with the libraries of a Go department.
func TestGoOIDCClientSignsIn(t *testing.T) {
	w := newWorld(t)
	a := w.parking()
	for _, alg := range []string{provider.ES256, provider.RS256} {
		t.Run(alg, func(t *testing.T) {
			_, err := w.db.Exec(t.Context(), `update identity.client set id_token_alg = $1`, alg)
			must(t, err)
			ctx := t.Context()
			p, err := rp.NewProvider(ctx, w.url)
			must(t, err)
			conf := oauth2.Config{
				ClientID: a.id, ClientSecret: a.secret, Endpoint: p.Endpoint(), RedirectURL: a.redirect,
				Scopes: []string{rp.ScopeOpenID, "profile", "email"},
			}
			verifier := oauth2.GenerateVerifier()
			b := w.browser()
			got := b.signIn(conf.AuthCodeURL("state-1", rp.Nonce("nonce-1"), oauth2.S256ChallengeOption(verifier)), "demo.resident@example.com")
			if got.query().Get("state") != "state-1" || got.query().Get("iss") != w.url || !strings.HasPrefix(got.location, a.redirect+"?") {
				t.Fatalf("answer: %d %s", got.status, got.location)
			}
			tok, err := conf.Exchange(ctx, got.query().Get("code"), oauth2.VerifierOption(verifier))
			must(t, err)
			raw, _ := tok.Extra("id_token").(string)
			idt, err := p.Verifier(&rp.Config{ClientID: a.id, Now: w.clock}).Verify(ctx, raw)
			must(t, err)
			must(t, idt.VerifyAccessToken(tok.AccessToken))
			var claims struct {
				AuthTime int64    `json:"auth_time"`
				ACR      string   `json:"acr"`
				AMR      []string `json:"amr"`
				Sid      string   `json:"sid"`
				Name     *string  `json:"name"`
			}
			must(t, idt.Claims(&claims))
			if idt.Nonce != "nonce-1" || claims.ACR != "urn:guichet:acr:1" || !slices.Equal(claims.AMR, []string{"otp"}) ||
				claims.AuthTime != w.clock().Unix() || claims.Sid == "" || claims.Name != nil || idt.Expiry.Sub(idt.IssuedAt) > 10*time.Minute {
				t.Errorf("ID token: %+v %+v", idt, claims)
			}
			info, err := p.UserInfo(ctx, oauth2.StaticTokenSource(tok))
			must(t, err)
			if info.Subject != idt.Subject || info.Email != "demo.resident@example.com" || !info.EmailVerified {
				t.Errorf("userinfo: %+v", info)
			}
		})
	}
}

func TestDiscovery(t *testing.T) {
	w := newWorld(t)
	var bodies []string
	for _, path := range []string{"/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"} {
		resp, err := http.Get(w.url + path)
		must(t, err)
		body, err := io.ReadAll(resp.Body)
		must(t, err)
		resp.Body.Close()
		bodies = append(bodies, string(body))
		if resp.Header.Get("Access-Control-Allow-Origin") != "*" || resp.Header.Get("Cache-Control") != "public, max-age=3600" || resp.Header.Get("ETag") == "" {
			t.Errorf("%s: headers %v", path, resp.Header)
		}
		again, err := http.NewRequest(http.MethodGet, w.url+path, nil)
		must(t, err)
		again.Header.Set("If-None-Match", resp.Header.Get("ETag"))
		if resp, err = http.DefaultClient.Do(again); err != nil || resp.StatusCode != http.StatusNotModified {
			t.Errorf("%s with its ETag: %v, %v", path, resp.StatusCode, err)
		}
		resp.Body.Close()
	}
	if bodies[0] != bodies[1] {
		t.Error("the two addresses of the configuration differ")
	}
	var conf map[string]any
	must(t, json.Unmarshal([]byte(bodies[0]), &conf))
	for name, v := range conf {
		if u, ok := v.(string); ok && !strings.HasPrefix(u, w.url) {
			t.Errorf("%s = %s is not on the issuer", name, u)
		}
	}
	if conf["issuer"] != w.url {
		t.Errorf("issuer %v, want %s", conf["issuer"], w.url)
	}
	for _, absent := range []string{"registration_endpoint"} {
		if _, ok := conf[absent]; ok {
			t.Errorf("%s is advertised and does not work yet", absent)
		}
	}
}

func TestJWKSHoldsPublicPartsOnly(t *testing.T) {
	w := newWorld(t)
	resp, err := http.Get(w.url + "/oidc/jwks")
	must(t, err)
	defer resp.Body.Close()
	var set struct{ Keys []map[string]any }
	must(t, json.NewDecoder(resp.Body).Decode(&set))
	if len(set.Keys) != 4 { // active and next, of both algorithms
		t.Errorf("%d keys, want 4", len(set.Keys))
	}
	for _, k := range set.Keys {
		if k["use"] != "sig" || k["kid"] == "" || k["alg"] == "" {
			t.Errorf("key %v", k)
		}
		for _, private := range []string{"d", "p", "q", "dp", "dq", "qi", "k"} {
			if _, ok := k[private]; ok {
				t.Errorf("key %v shows %s", k["kid"], private)
			}
		}
	}
}

func TestPortalSignIn(t *testing.T) {
	w := newWorld(t)
	b := w.browser()
	a := b.get("/bills?open=1")
	if a.status != http.StatusSeeOther || a.location != "/signin?return=%2Fbills%3Fopen%3D1" {
		t.Fatalf("/bills when signed out: %d %s", a.status, a.location)
	}
	a = b.get(a.location)
	path := a.location
	a = b.prove(path, "demo@example.com")
	if a.location != "/bills?open=1" {
		t.Fatalf("after sign-in: %d %s", a.status, a.location)
	}
	if got := b.get(a.location); got.body != "bills of Demo Resident" {
		t.Errorf("bills: %s", got.body)
	}
	if a := b.get("/signin?return=/bills"); a.location != "/bills" {
		t.Errorf("sign-in when signed in leads to %q", a.location)
	}
	old := b.cookie("guichet")
	if a := b.post("/signout", nil); a.location != "/signed-out" {
		t.Errorf("sign-out: %d %s", a.status, a.location)
	}
	if a := b.get("/bills"); a.status != http.StatusSeeOther {
		t.Errorf("bills after sign-out: %d", a.status)
	}
	b.setCookie("guichet", old)
	if a := b.get("/bills"); a.status != http.StatusSeeOther {
		t.Errorf("the old cookie still opens the session: %d", a.status)
	}
}

func TestReturnPathStaysHere(t *testing.T) {
	w := newWorld(t)
	for _, bad := range []string{"https://evil.example/", "//evil.example", `/\evil.example`, "/\t/evil.example", "javascript:alert(1)", "bills", "/%0d%0aX:1/\r\nX: 1", ""} {
		b := w.browser()
		path := b.get("/signin?return=" + url.QueryEscape(bad)).location
		if a := b.prove(path, "demo@example.com"); strings.Contains(a.location, "evil") || !strings.HasPrefix(a.location, "/") || strings.HasPrefix(a.location, "//") {
			t.Errorf("return=%q leads to %q", bad, a.location)
		}
	}
}

func TestNoticeComesOncePerDepartment(t *testing.T) {
	w := newWorld(t)
	dept := w.department("parking", "Parking")
	first := w.app("parking-one", dept, provider.NewClient{FirstParty: true})
	second := w.app("parking-two", dept, provider.NewClient{FirstParty: true})
	other := w.app("water", w.department("water", "Water"), provider.NewClient{FirstParty: true})
	b := w.browser()
	path := b.startSignIn(first.authorizeURL(first.request()))
	page := b.follow(b.prove(path, "demo@example.com"))
	if page.status != http.StatusOK || !strings.Contains(page.text(), "Parking will see") || !strings.Contains(page.text(), "your e-mail address") {
		t.Fatalf("notice: %d %s", page.status, page.text())
	}
	silent := first.request()
	silent.Set("prompt", "none")
	if a := b.get(first.authorizeURL(silent)); a.query().Get("error") != "consent_required" {
		t.Errorf("prompt=none before the notice: %s", a.location)
	}
	if a := b.post(path, url.Values{"do": {"agree"}}); a.query().Get("code") == "" {
		t.Fatalf("after the notice: %d %s", a.status, a.location)
	}
	b.again(first)
	b.again(second)
	if a := b.follow(b.get(other.authorizeURL(other.request()))); !strings.Contains(a.text(), "Water will see") {
		t.Errorf("another department: %d %s", a.status, a.location)
	}
	ask := first.request()
	ask.Set("prompt", "consent")
	if a := b.follow(b.get(first.authorizeURL(ask))); !strings.Contains(a.text(), "Parking will see") {
		t.Errorf("prompt=consent: %d %s", a.status, a.location)
	}
}

func TestConsentOfAThirdParty(t *testing.T) {
	w := newWorld(t)
	a := w.app("museum", w.department("culture", "Culture"), provider.NewClient{})
	b := w.browser()
	path := b.startSignIn(a.authorizeURL(a.request()))
	page := b.follow(b.prove(path, "demo@example.com"))
	if !strings.Contains(page.body, `type="checkbox" name="scope" value="email"`) {
		t.Fatalf("consent: %d %s", page.status, page.text())
	}
	got := b.post(path, url.Values{"do": {"agree"}, "scope": {"profile", "admin"}}) // e-mail unticked, something invented
	tok := a.redeem(got.query().Get("code"))
	if tok.Scope != "openid profile" {
		t.Errorf("granted %q, want openid profile", tok.Scope)
	}
	_, claims := w.userinfo(tok.AccessToken)
	if claims["email"] != nil || claims["name"] != "Demo Resident" || claims["locale"] != "en-CA" {
		t.Errorf("claims %v", claims)
	}
	narrow := a.request()
	narrow.Set("scope", "openid profile")
	if got := b.get(a.authorizeURL(narrow)); got.query().Get("code") == "" {
		t.Errorf("what was agreed to is asked again: %s", got.location)
	}
	if got := b.get(a.authorizeURL(a.request())); got.query().Get("code") != "" {
		t.Error("e-mail was never agreed to")
	}
}

func TestGoingBackTellsTheClient(t *testing.T) {
	w := newWorld(t)
	a := w.parking()
	b := w.browser()
	path := b.startSignIn(a.authorizeURL(a.request()))
	got := b.post(path, url.Values{"do": {"cancel"}})
	if q := got.query(); q.Get("error") != "access_denied" || q.Get("state") != "st-1" || q.Get("iss") != w.url {
		t.Errorf("cancel: %d %s", got.status, got.location)
	}
	if got := b.get(path); got.status != http.StatusBadRequest {
		t.Errorf("the sign-in goes on after it was cancelled: %d", got.status)
	}
}

func TestPromptLoginAsksAgainAndKeepsTheSession(t *testing.T) {
	w := newWorld(t)
	a := w.parking()
	b := w.browser()
	first := claimsOf(t, a.redeem(b.code(a, "demo@example.com")).IDToken)
	w.later(5 * time.Minute)
	v := a.request()
	v.Set("prompt", "login")
	got := b.signIn(a.authorizeURL(v), "demo@example.com")
	second := claimsOf(t, a.redeem(got.query().Get("code")).IDToken)
	if second["sid"] != first["sid"] || second["sub"] != first["sub"] {
		t.Errorf("another session or person: %v, %v", first, second)
	}
	if second["auth_time"].(float64)-first["auth_time"].(float64) != 300 {
		t.Errorf("auth_time %v then %v, want 300 s apart", first["auth_time"], second["auth_time"])
	}
}

// oidcc-max-age-1, oidcc-max-age-10000
func TestMaxAge(t *testing.T) {
	w := newWorld(t)
	a := w.parking()
	b := w.browser()
	b.code(a, "demo@example.com")
	w.later(10 * time.Minute)
	for age, silent := range map[string]bool{"601": true, "600": true, "599": false, "1": false, "0": false} {
		v := a.request()
		v.Set("max_age", age)
		v.Set("prompt", "none")
		got := b.get(a.authorizeURL(v))
		if ok := got.query().Get("code") != ""; ok != silent || !ok && got.query().Get("error") != "login_required" {
			t.Errorf("max_age=%s after 600 s: %s", age, got.location)
		}
	}
	v := a.request()
	v.Set("max_age", "1")
	if tok := a.redeem(b.signIn(a.authorizeURL(v), "demo@example.com").query().Get("code")); claimsOf(t, tok.IDToken)["auth_time"] != float64(w.clock().Unix()) {
		t.Error("auth_time is not the new sign-in")
	}
}

// oidcc-id-token-hint
func TestIDTokenHint(t *testing.T) {
	w := newWorld(t)
	a := w.parking()
	b := w.browser()
	hint := a.redeem(b.code(a, "demo@example.com")).IDToken
	silent := func(hint string) answer {
		v := a.request()
		v.Set("prompt", "none")
		v.Set("id_token_hint", hint)
		return b.get(a.authorizeURL(v))
	}
	if got := silent(hint); got.query().Get("code") == "" {
		t.Errorf("own hint: %s", got.location)
	}
	stranger := w.browser()
	other := a.redeem(stranger.code(a, "other@example.com")).IDToken
	if got := silent(other); got.query().Get("error") != "login_required" {
		t.Errorf("another person's hint: %s", got.location)
	}
	v := a.request()
	v.Set("id_token_hint", other)
	if got := b.signIn(a.authorizeURL(v), "demo@example.com"); got.query().Get("error") != "login_required" {
		t.Errorf("signed in as somebody else than asked for: %s", got.location)
	}
	w.later(20 * time.Minute)
	if got := silent(hint); got.query().Get("code") == "" {
		t.Errorf("expired hint with a good signature: %s", got.location)
	}
}

func TestTwoTabsBothSignIn(t *testing.T) {
	w := newWorld(t)
	a := w.parking()
	b := w.browser()
	one := b.startSignIn(a.authorizeURL(a.request()))
	two := b.startSignIn(a.authorizeURL(a.request()))
	for _, path := range []string{two, one} {
		if got := b.agree(path, b.follow(b.prove(path, "demo@example.com"))); got.query().Get("code") == "" {
			t.Errorf("%s: %d %s", path, got.status, got.location)
		}
	}
}

func TestLanguageOfThePages(t *testing.T) {
	w := newWorld(t)
	a := w.parking()
	v := a.request()
	v.Set("ui_locales", "de fr-CA en")
	v.Set("login_hint", "demo@example.com")
	b := w.browser()
	page := b.follow(b.get(a.authorizeURL(v)))
	if !strings.Contains(page.text(), "Connectez-vous pour continuer vers Portail du stationnement") || !strings.Contains(page.body, `value="demo@example.com"`) {
		t.Errorf("page: %s", page.text())
	}
	path := b.startSignIn(a.authorizeURL(v))
	b.askCode(path, "demo@example.com")
	if m := w.mail.all(); m[0].Lang != "fr" || m[0].Data["service"] != "Portail du stationnement" {
		t.Errorf("mail %+v", m[0])
	}
}

func TestEightFlowsOfOnePersonAtOnce(t *testing.T) {
	w := newWorld(t)
	a := w.parking()
	b := w.browser()
	b.code(a, "demo@example.com")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 3 {
				tok := a.redeem(b.get(a.authorizeURL(a.request())).query().Get("code"))
				if tok.status != http.StatusOK {
					t.Errorf("token: %d %s", tok.status, tok.body)
				}
				if status, _ := w.userinfo(tok.AccessToken); status != http.StatusOK {
					t.Errorf("userinfo: %d", status)
				}
			}
		})
	}
	wg.Wait()
}

func TestWhatExpiredIsSwept(t *testing.T) {
	w := newWorld(t)
	a := w.parking()
	b := w.browser()
	a.redeem(b.code(a, "demo@example.com"))
	b.again(a)
	for name, sweep := range map[string]func(context.Context) (int64, error){"provider": w.provider.Sweep, "people": w.people.Sweep} {
		if n, err := sweep(t.Context()); n != 0 || err != nil {
			t.Errorf("%s at once: %d rows, %v", name, n, err)
		}
	}
	w.later(40 * 24 * time.Hour)
	if n, err := w.provider.Sweep(t.Context()); n != 3 || err != nil { // a token and two grants
		t.Errorf("provider: %d rows, %v", n, err)
	}
	if n, err := w.people.Sweep(t.Context()); n < 3 || err != nil { // pending, code, session, buckets
		t.Errorf("people: %d rows, %v", n, err)
	}
	var left int
	must(t, w.db.QueryRow(t.Context(), `
		select (select count(*) from identity.session) + (select count(*) from identity.session_client) + (select count(*) from identity.client_grant)`).Scan(&left))
	if left != 0 {
		t.Errorf("%d rows are left", left)
	}
	if err := w.db.QueryRow(t.Context(), `select count(*) from identity.signin`).Scan(&left); err != nil || left == 0 {
		t.Errorf("sign-in history after 40 days: %d rows, %v; it is kept 13 months", left, err)
	}
}
