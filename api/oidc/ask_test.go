package oidc_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/identity/provider"
)

// What a client may ask of the person, and what it gets.

func TestAttack73EssentialLevelIsNotReached(t *testing.T) {
	w := newWorld(t)
	a := w.parking()
	b := w.browser()
	essential := func(values string) url.Values {
		return with(a.request(), "claims", `{"id_token":{"acr":{"essential":true,"values":[`+values+`]}}}`)
	}
	const two, three = `"urn:guichet:acr:2"`, `"urn:guichet:acr:3"`
	b.code(a, "demo@example.com")
	for values, browsers := range map[string][]*browser{three: {b}, `"urn:example:gold"`: {b, w.browser()}} { // who is not signed in may reach level 3
		for name, who := range browsers {
			if got := who.get(a.authorizeURL(essential(values))); got.query().Get("error") != "unmet_authentication_requirements" || got.query().Get("state") != "st-1" {
				t.Errorf("%s, browser %d: %d %s", values, name, got.status, got.location)
			}
		}
	}
	got := b.get(a.authorizeURL(essential(two + `,"urn:guichet:acr:1"`)))
	if tok := a.redeem(got.query().Get("code")); claimsOf(t, tok.IDToken)["acr"] != "urn:guichet:acr:1" {
		t.Errorf("a level that was reached: %s", tok.body)
	}
	// The session reached level 2 by another way; the department orders level 1.
	_, err := w.db.Exec(t.Context(), `update identity.session set acr = 2`)
	must(t, err)
	got = b.get(a.authorizeURL(essential(`"urn:guichet:acr:1"`)))
	if tok := a.redeem(got.query().Get("code")); claimsOf(t, tok.IDToken)["acr"] != "urn:guichet:acr:1" {
		t.Errorf("a higher level than ordered: %v", claimsOf(t, tok.IDToken)["acr"])
	}
	got = b.get(a.authorizeURL(essential(two)))
	if tok := a.redeem(got.query().Get("code")); claimsOf(t, tok.IDToken)["acr"] != "urn:guichet:acr:2" {
		t.Errorf("level 2: %s", tok.body)
	}
	// Somebody who has no second factor is asked for one, and declines: the order is not met.
	weak := w.browser()
	weak.code(a, "weak@example.com")
	path := weak.startSignIn(a.authorizeURL(essential(two)))
	if got := weak.get(path); !strings.Contains(got.body, "/account/passkeys/new?return=") {
		t.Errorf("the page does not offer to set a factor up: %s", got.text())
	}
	if got := weak.follow(weak.post(path, url.Values{"do": {"cancel"}})); got.query().Get("error") != "unmet_authentication_requirements" {
		t.Errorf("declined: %d %s", got.status, got.location)
	}
	// Somebody who has to prove more, and does not want to, goes back.
	stranger := w.browser()
	path = stranger.startSignIn(a.authorizeURL(essential(`"urn:guichet:acr:1"`)))
	var want int
	must(t, w.db.QueryRow(t.Context(), `select want_acr from identity.pending where id = $1`, strings.TrimPrefix(path, "/signin/")).Scan(&want))
	if want != 1 {
		t.Errorf("the sign-in wants level %d", want)
	}
	if got := stranger.post(path, url.Values{"do": {"cancel"}}); got.query().Get("error") != "access_denied" {
		t.Errorf("cancelled: %s", got.location)
	}
}

// oidcc-claims-essential, oidcc-claims-parameter
func TestClaimsParameter(t *testing.T) {
	w := newWorld(t)
	a := w.app("parking-portal", w.department("parking", "Parking"), provider.NewClient{FirstParty: true, Scopes: []string{"openid", "email"}})
	b := w.browser()
	v := with(a.request(), "scope", "openid", "claims", `{"id_token":{"email":{"essential":true},"name":null,"auth_time":null,"birthdate":null},"userinfo":{"email":null}}`)
	path := b.startSignIn(a.authorizeURL(v))
	page := b.follow(b.prove(path, "demo@example.com"))
	if !strings.Contains(page.text(), "your e-mail address") {
		t.Errorf("the notice does not name the claim: %s", page.text())
	}
	got := b.agree(path, page)
	tok := a.redeem(got.query().Get("code"))
	claims := claimsOf(t, tok.IDToken)
	if claims["email"] != "demo@example.com" || claims["name"] != nil || claims["birthdate"] != nil || tok.Scope != "openid" {
		t.Errorf("ID token %v, scope %q", claims, tok.Scope)
	}
	if _, info := w.userinfo(tok.AccessToken); info["email"] != "demo@example.com" || info["email_verified"] != nil || info["name"] != nil {
		t.Errorf("userinfo %v", info)
	}
	plain := a.redeem(b.get(a.authorizeURL(with(a.request(), "scope", "openid"))).query().Get("code"))
	if _, info := w.userinfo(plain.AccessToken); len(info) != 1 {
		t.Errorf("without the parameter: %v", info)
	}
	for _, bad := range []string{"x", "[]", `{"id_token":{"acr":{"essential":true,"values":[2]}}}`, `{"id_token":1}`, `{"id_token":{},"id_token":{}}`, `{"userinfo":{"sub":{"value":7}}}`} {
		if got := b.get(a.authorizeURL(with(a.request(), "claims", bad))); got.query().Get("error") != "invalid_request" {
			t.Errorf("%s: %d %s", bad, got.status, got.location)
		}
	}
	sub, _ := claims["sub"].(string)
	mine := with(a.request(), "scope", "openid", "prompt", "none", "claims", `{"id_token":{"sub":{"value":"`+sub+`"}}}`)
	if got := b.get(a.authorizeURL(mine)); got.query().Get("code") == "" {
		t.Errorf("my own sub: %s", got.location)
	}
	if got := b.get(a.authorizeURL(with(mine, "claims", `{"id_token":{"sub":{"value":"another"}}}`))); got.query().Get("error") != "login_required" {
		t.Errorf("another sub: %s", got.location)
	}
}

func TestThirdPartyConsentCoversClaimsAndRefresh(t *testing.T) {
	w := newWorld(t)
	a := w.app("helper", w.department("helper", "Helper"), provider.NewClient{Scopes: []string{"openid", "profile", "email", "offline_access"}})
	b := w.browser()
	v := with(a.request(), "scope", "openid profile offline_access", "claims", `{"id_token":{"email":null}}`)
	path := b.startSignIn(a.authorizeURL(v))
	page := b.follow(b.prove(path, "demo@example.com"))
	for _, scope := range []string{"profile", "email", "offline_access"} {
		if !strings.Contains(page.body, `value="`+scope+`"`) {
			t.Errorf("no box for %s", scope)
		}
	}
	got := b.post(path, url.Values{"do": {"agree"}, "scope": {"profile"}})
	tok := a.redeem(got.query().Get("code"))
	if tok.RefreshToken != "" || claimsOf(t, tok.IDToken)["email"] != nil || tok.Scope != "openid profile" {
		t.Errorf("more than was ticked: %s", tok.body)
	}
	if got := b.get(a.authorizeURL(with(v, "prompt", "none"))); got.query().Get("error") != "consent_required" {
		t.Errorf("what was unticked is asked again: %s", got.location)
	}
}

// oidcc-prompt-login, and the choice of account
func TestPromptSelectAccountAndCreate(t *testing.T) {
	w := newWorld(t)
	a := w.parking()
	b := w.browser()
	b.code(a, "demo@example.com")
	b2 := w.browser()
	b2.code(a, "other@example.com") // both have been told of the client

	link := a.authorizeURL(with(a.request(), "prompt", "select_account"))
	path := b.startSignIn(link)
	page := b.get(path)
	if page.status != http.StatusOK || !strings.Contains(page.text(), "demo@example.com") || !strings.Contains(page.body, `value="other"`) {
		t.Fatalf("%d %s", page.status, page.text())
	}
	if got := w.browser().get(path); got.status != http.StatusBadRequest {
		t.Errorf("the choice in another browser: %d", got.status)
	}
	if got := b.post(path, url.Values{"do": {"keep"}}); got.query().Get("code") == "" {
		t.Errorf("keep: %d %s", got.status, got.location)
	}
	path = b.startSignIn(link)
	other := b.post(path, url.Values{"do": {"other"}})
	if other.location == path || !strings.HasPrefix(other.location, "/signin/") {
		t.Fatalf("other: %d %s", other.status, other.location)
	}
	got := b.follow(b.prove(other.location, "other@example.com"))
	sub := claimsOf(t, a.redeem(got.query().Get("code")).IDToken)["sub"]
	if own := claimsOf(t, a.redeem(b2.again(a)).IDToken)["sub"]; sub != own {
		t.Errorf("sub %v, want the other person's %v", sub, own)
	}
	for _, prompt := range []string{"create", "login", "login select_account"} {
		if path := b.startSignIn(a.authorizeURL(with(a.request(), "prompt", prompt))); !strings.Contains(b.get(path).body, `name="email"`) {
			t.Errorf("prompt=%s does not lead to the sign-in page", prompt)
		}
	}
	path = b.startSignIn(a.authorizeURL(with(a.request(), "acr_values", "urn:guichet:acr:3 urn:guichet:acr:1 x")))
	if got := b.follow(b.post(path, url.Values{"do": {"cancel"}})); got.query().Get("code") == "" {
		t.Errorf("a wish is no order: %s", got.location)
	}
}

// oidcc-max-age-1, oidcc-max-age-10000
func TestMaxAgeAsksAgain(t *testing.T) {
	w := newWorld(t)
	a := w.parking()
	b := w.browser()
	before := claimsOf(t, a.redeem(b.code(a, "demo@example.com")).IDToken)["auth_time"]
	w.later(2 * time.Second)
	if got := b.get(a.authorizeURL(with(a.request(), "max_age", "10000"))); claimsOf(t, a.redeem(got.query().Get("code")).IDToken)["auth_time"] != before {
		t.Error("auth_time changed without a proof")
	}
	got := b.signIn(a.authorizeURL(with(a.request(), "max_age", "1")), "demo@example.com")
	if after := claimsOf(t, a.redeem(got.query().Get("code")).IDToken)["auth_time"]; after == before {
		t.Error("max_age=1 did not ask again")
	}
	w.later(2 * time.Second)
	if got := b.get(a.authorizeURL(with(a.request(), "max_age", "1", "prompt", "none"))); got.query().Get("error") != "login_required" {
		t.Errorf("with prompt=none: %s", got.location)
	}
}

func TestPKCEOptOutWantsANonce(t *testing.T) {
	w := newWorld(t)
	a := w.app("old-portal", w.department("parking", "Parking"), provider.NewClient{FirstParty: true, Policy: provider.Policy{NonceForPKCE: true}})
	b := w.browser()
	bare := func() url.Values {
		v := a.request()
		v.Del("code_challenge")
		v.Del("code_challenge_method")
		return v
	}
	got := b.signIn(a.authorizeURL(bare()), "demo@example.com")
	form := a.tokenForm(got.query().Get("code"))
	dead(t, "a verifier where there was no challenge", a.post(form), "invalid_grant")
	form.Del("code_verifier")
	if tok := a.post(form); tok.status != http.StatusOK {
		t.Errorf("%d %s", tok.status, tok.body)
	}
	v := bare()
	v.Del("nonce")
	if got := b.get(a.authorizeURL(v)); got.query().Get("error") != "invalid_request" {
		t.Errorf("neither: %s", got.location)
	}
	code := b.again(a) // with a challenge after all
	form = a.tokenForm(code)
	form.Del("code_verifier")
	dead(t, "a challenge, and no verifier", a.post(form), "invalid_grant")
}

func TestGrantsAreRevokedByResidentSessionAndClient(t *testing.T) {
	w := newWorld(t)
	dept := w.department("parking", "Parking")
	a := w.offline("parking-portal", dept, provider.NewClient{})
	other := w.offline("permit-portal", dept, provider.NewClient{})
	one, two := w.browser(), w.browser()
	given := map[string]string{"one a": one.long(a).AccessToken, "one other": one.long(other).AccessToken}
	w.later(time.Second)
	given["two a"] = two.long(a).AccessToken
	var resident, session string
	must(t, w.db.QueryRow(t.Context(), `select resident_id, session_id from identity.client_grant order by created_at desc, id desc limit 1`).Scan(&resident, &session))
	alive := func() (names []string) {
		for name, token := range given {
			if status, _ := w.userinfo(token); status == http.StatusOK {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		return names
	}
	for _, step := range []struct {
		what provider.Revocable
		left []string
	}{
		{provider.Revocable{Resident: resident, Client: other.id}, []string{"one a", "two a"}},
		{provider.Revocable{Resident: resident, Session: session}, []string{"one a"}},
		{provider.Revocable{Resident: resident}, nil},
	} {
		w.in(func(tx pgx.Tx) error { return w.provider.RevokeGrants(t.Context(), tx, step.what, "test") })
		if got := alive(); !slices.Equal(got, step.left) {
			t.Errorf("after %+v: %v, want %v", step.what, got, step.left)
		}
	}
}
