package oidc_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"guichet/api/oidc"
	"guichet/identity"
)

func partnerWorld(t *testing.T) (*world, *directory) {
	t.Helper()
	d := newDirectory(t)
	w := newWorld(t, func(_ *identity.Config, o *oidc.Options) {
		o.Partners = []oidc.Partner{{
			Key: "bank", NameEN: "Demo Bank", NameFR: "Banque Démo", Issuer: d.URL, ClientID: "guichet", ClientSecret: "secret",
			Levels: map[string]int{"urn:bank:strong": 2}, Proofed: []string{"urn:bank:strong"},
		}}
	})
	d.now = w.clock
	return w, d
}

// visit answers a partner's question and returns what the service makes of it.
func (b *browser) visit(d *directory, q url.Values, claims map[string]any) answer {
	b.w.t.Helper()
	all := map[string]any{"nonce": q.Get("nonce"), "sub": "bank-1", "email": "owner@example.com", "acr": "urn:bank:strong"}
	for name, value := range claims {
		all[name] = value
	}
	d.mu.Lock()
	d.claims = all
	d.mu.Unlock()
	return b.get("/partner/callback?" + url.Values{"code": {"c"}, "state": {q.Get("state")}, "iss": {d.URL}}.Encode())
}

// toPartner begins a sign-in at the partner and returns what the partner is asked.
func (b *browser) toPartner(path string) url.Values {
	b.w.t.Helper()
	a := b.post(path, url.Values{"do": {"partner"}, "partner": {"bank"}})
	q := a.query()
	if a.status != http.StatusSeeOther || q.Get("code_challenge_method") != "S256" || q.Get("nonce") == "" || q.Get("state") == "" {
		b.w.t.Fatalf("to the partner: %d %s %s", a.status, a.location, a.text())
	}
	return q
}

func TestAttack76PartnerWithAKnownAddressAndAnUnknownSubject(t *testing.T) {
	w, d := partnerWorld(t)
	a := w.parking()
	owner := w.browser()
	owner.code(a, "owner@example.com")

	b := w.browser()
	path := b.startSignIn(a.authorizeURL(a.request()))
	if !strings.Contains(b.get(path).text(), "Sign in with Demo Bank") {
		t.Error("the sign-in page does not offer the partner")
	}
	got := b.visit(d, b.toPartner(path), nil)
	if got.status != http.StatusForbidden || b.cookie("guichet") != "" || !strings.Contains(got.text(), "not linked") {
		t.Errorf("an unknown subject with a known address: %d %s", got.status, got.text())
	}
	// Signed in another way, the owner links; then the subject is enough, whatever address comes with it.
	link := owner.post("/partner/bank/link", nil)
	if got := owner.visit(d, link.query(), nil); got.location != "/account/security?done=added" {
		t.Fatalf("link: %d %s %s", got.status, got.location, got.text())
	}
	b = w.browser()
	path = b.startSignIn(a.authorizeURL(a.request()))
	got = b.follow(b.visit(d, b.toPartner(path), map[string]any{"email": "somebody.else@example.com"}))
	tok := a.redeem(got.query().Get("code"))
	if claims := claimsOf(t, tok.IDToken); claims["acr"] != "urn:guichet:acr:3" { // by the table: two factors, and identity proved
		t.Errorf("acr %v", claims["acr"])
	}
	// Another account cannot take the same subject.
	other := w.browser()
	other.code(a, "other@example.com")
	if got := other.visit(d, other.post("/partner/bank/link", nil).query(), nil); got.status != http.StatusConflict {
		t.Errorf("linked twice: %d %s", got.status, got.text())
	}
	// An acr that the table does not know is level 1.
	b = w.browser()
	path = b.startSignIn(a.authorizeURL(a.request()))
	got = b.follow(b.visit(d, b.toPartner(path), map[string]any{"acr": "urn:guichet:acr:3"}))
	if claims := claimsOf(t, a.redeem(got.query().Get("code")).IDToken); claims["acr"] != "urn:guichet:acr:1" {
		t.Errorf("a foreign acr was taken over: %v", claims["acr"])
	}
}

func TestAPartnerThatLiesSignsNobodyIn(t *testing.T) {
	w, d := partnerWorld(t)
	a := w.parking()
	owner := w.browser()
	owner.code(a, "owner@example.com")
	owner.visit(d, owner.post("/partner/bank/link", nil).query(), nil)
	for name, claims := range map[string]map[string]any{
		"another nonce":    {"nonce": "x"},
		"another audience": {"aud": "somebody"},
		"another issuer":   {"iss": "https://evil.example"},
		"too old":          {"iat": w.clock().Add(-11 * time.Minute).Unix()},
		"expired":          {"exp": w.clock().Add(-time.Minute).Unix()},
	} {
		b := w.browser()
		if got := b.visit(d, b.toPartner(b.startSignIn(a.authorizeURL(a.request()))), claims); got.status != http.StatusForbidden || b.cookie("guichet") != "" {
			t.Errorf("%s: %d %s", name, got.status, got.text())
		}
	}
	b, victim := w.browser(), w.browser()
	q := b.toPartner(b.startSignIn(a.authorizeURL(a.request())))
	victim.startSignIn(a.authorizeURL(a.request()))
	if got := victim.visit(d, q, nil); got.status != http.StatusBadRequest || victim.cookie("guichet") != "" {
		t.Errorf("answer in another browser: %d", got.status)
	}
	d.claims = map[string]any{"nonce": q.Get("nonce"), "sub": "bank-1"}
	if got := b.get("/partner/callback?" + url.Values{"code": {"c"}, "state": {q.Get("state")}, "iss": {"https://evil.example"}}.Encode()); got.status != http.StatusForbidden || b.cookie("guichet") != "" {
		t.Errorf("mix-up: %d %s", got.status, got.text())
	}
	if got := b.visit(d, q, nil); got.status != http.StatusBadRequest {
		t.Errorf("the state again: %d", got.status)
	}
}
