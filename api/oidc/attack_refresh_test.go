package oidc_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"guichet/identity/provider"
)

// offline is an application whose tokens can be refreshed.
func (w *world) offline(clientID, departmentID string, n provider.NewClient) *app {
	w.t.Helper()
	n.FirstParty = true
	n.Scopes = []string{"openid", "profile", "email", "offline_access"}
	return w.app(clientID, departmentID, n)
}

// long authorizes, in a browser that may be signed in, for refresh tokens.
func (b *browser) long(a *app) tokens {
	b.w.t.Helper()
	v := with(a.request(), "scope", "openid profile email offline_access")
	got := b.get(a.authorizeURL(v))
	if got.query().Get("code") == "" {
		got = b.signIn(a.authorizeURL(v), "demo@example.com")
	}
	t := a.redeem(got.query().Get("code"))
	if t.status != http.StatusOK || t.RefreshToken == "" {
		b.w.t.Fatalf("no refresh token: %d %s", t.status, t.body)
	}
	return t
}

func dead(t *testing.T, name string, got tokens, want string) {
	t.Helper()
	if got.status != http.StatusBadRequest || got.Error != want || got.AccessToken != "" {
		t.Errorf("%s: %d %s, want 400 %s", name, got.status, got.body, want)
	}
}

func TestAttacksOnRefreshTokens(t *testing.T) {
	w := newWorld(t)
	dept := w.department("parking", "Parking")
	a := w.offline("parking-portal", dept, provider.NewClient{Resources: []string{"https://pay.example/api"}})
	water := w.offline("water-portal", w.department("water", "Water"), provider.NewClient{})
	b := w.browser()
	alive := func(t *testing.T, name string, tok tokens) {
		t.Helper()
		if status, _ := w.userinfo(tok.AccessToken); tok.status != http.StatusOK || status != http.StatusOK {
			t.Errorf("%s: %d %s, userinfo %d", name, tok.status, tok.body, status)
		}
	}

	// oidcc-refresh-token
	t.Run("a refresh token rotates, and the ID token keeps its person and time", func(t *testing.T) {
		first := b.long(a)
		before := claimsOf(t, first.IDToken)
		w.later(time.Minute)
		second := a.refresh(first.RefreshToken)
		alive(t, "second", second)
		if second.RefreshToken == first.RefreshToken || second.RefreshToken == "" {
			t.Error("the refresh token did not rotate")
		}
		after := claimsOf(t, second.IDToken)
		for _, name := range []string{"iss", "sub", "aud", "auth_time", "sid", "acr"} {
			if before[name] != after[name] {
				t.Errorf("%s: %v became %v", name, before[name], after[name])
			}
		}
		if after["nonce"] != nil || after["iat"] == before["iat"] {
			t.Errorf("ID token of a refresh: %v", after)
		}
		if second.Scope != "openid profile email offline_access" {
			t.Errorf("scope %q", second.Scope)
		}
	})
	t.Run("39 reuse after the grace kills the family", func(t *testing.T) {
		other := b.long(a) // the same person at the same client, another tab
		first := b.long(a)
		second := a.refresh(first.RefreshToken)
		third := a.refresh(second.RefreshToken)
		w.later(11 * time.Second)
		dead(t, "the first again", a.refresh(first.RefreshToken), "invalid_grant")
		for name, tok := range map[string]tokens{"first": first, "second": second, "third": third} {
			if status, _ := w.userinfo(tok.AccessToken); status != http.StatusUnauthorized {
				t.Errorf("the %s access token lives: %d", name, status)
			}
		}
		dead(t, "the newest", a.refresh(third.RefreshToken), "invalid_grant")
		if w.events("token.reuse_detected") != 1 {
			t.Errorf("%d audit rows", w.events("token.reuse_detected"))
		}
		alive(t, "the other family", a.refresh(other.RefreshToken))
		for _, m := range w.mail.all() {
			if m.Template == "token-reused" {
				t.Error("a mail about another network, though it was the same one")
			}
		}
	})
	t.Run("39 reuse from another network is told by mail", func(t *testing.T) {
		first := b.long(a)
		a.refresh(first.RefreshToken)
		_, err := w.db.Exec(t.Context(), `update identity.refresh_token set network = '203.0.113.0/24'`)
		must(t, err)
		w.later(11 * time.Second)
		dead(t, "again", a.refresh(first.RefreshToken), "invalid_grant")
		sent := w.mail.all()
		if last := sent[len(sent)-1]; last.Template != "token-reused" || last.Data["service"] != "App parking-portal" {
			t.Errorf("last mail: %+v", last)
		}
	})
	t.Run("40 refresh token by another client", func(t *testing.T) {
		tok := b.long(a)
		dead(t, "stolen", water.refresh(tok.RefreshToken), "invalid_grant")
		w.later(11 * time.Second)
		dead(t, "stolen again", water.refresh(tok.RefreshToken), "invalid_grant")
		alive(t, "its owner", a.refresh(tok.RefreshToken))
	})
	t.Run("41 refresh with a wider scope", func(t *testing.T) {
		got := b.get(a.authorizeURL(with(a.request(), "scope", "openid email offline_access")))
		tok := a.redeem(got.query().Get("code"))
		form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {tok.RefreshToken}, "scope": {"openid profile email"}}
		dead(t, "wider", a.post(form), "invalid_scope")
		form.Set("scope", "openid")
		narrow := a.post(form)
		if _, claims := w.userinfo(narrow.AccessToken); narrow.Scope != "openid" || claims["email"] != nil {
			t.Errorf("narrower: %s, userinfo %v", narrow.body, claims)
		}
		if again := a.refresh(narrow.RefreshToken); again.Scope != "openid email offline_access" {
			t.Errorf("the whole again: %s", again.body)
		}
		form.Set("refresh_token", b.long(a).RefreshToken)
		dead(t, "a resource that was not granted", a.post(with(form, "resource", "https://pay.example/api")), "invalid_target")
	})
	t.Run("42 six refreshes at once", func(t *testing.T) {
		tok := b.long(a)
		var mu sync.Mutex
		var wg sync.WaitGroup
		next := map[string]bool{}
		for range 6 {
			wg.Go(func() {
				got := a.refresh(tok.RefreshToken)
				mu.Lock()
				defer mu.Unlock()
				if got.status != http.StatusOK {
					t.Errorf("%d %s", got.status, got.body)
				}
				next[got.RefreshToken] = true
			})
		}
		wg.Wait()
		if len(next) != 1 {
			t.Errorf("%d lines of descent, want 1", len(next))
		}
	})
	t.Run("43 two tabs within the grace", func(t *testing.T) {
		tok := b.long(a)
		one := a.refresh(tok.RefreshToken)
		w.later(9 * time.Second)
		two := a.refresh(tok.RefreshToken)
		alive(t, "first tab", one)
		alive(t, "second tab", two)
		if one.RefreshToken != two.RefreshToken {
			t.Error("the tabs are of two lines of descent")
		}
		next := a.refresh(two.RefreshToken)
		alive(t, "then", next)
		dead(t, "one that is not the last but one", a.refresh(tok.RefreshToken), "invalid_grant")
		alive(t, "it harmed nobody within the grace", a.refresh(next.RefreshToken))
	})
	t.Run("no grace for a client that wants none", func(t *testing.T) {
		zero := 0
		strict := w.offline("strict-portal", dept, provider.NewClient{Policy: provider.Policy{GraceSeconds: &zero}})
		tok := b.long(strict)
		alive(t, "once", strict.refresh(tok.RefreshToken))
		dead(t, "twice", strict.refresh(tok.RefreshToken), "invalid_grant")
		if w.events("token.reuse_detected") < 2 {
			t.Error("no audit row")
		}
	})
	t.Run("code replay revokes the refresh token", func(t *testing.T) {
		v := with(a.request(), "scope", "openid offline_access")
		code := b.get(a.authorizeURL(v)).query().Get("code")
		tok := a.redeem(code)
		w.later(30 * time.Second)
		dead(t, "code again", a.redeem(code), "invalid_grant")
		dead(t, "its refresh token", a.refresh(tok.RefreshToken), "invalid_grant")
	})
	t.Run("without offline_access there is none", func(t *testing.T) {
		if tok := a.redeem(b.again(a)); tok.RefreshToken != "" || tok.status != http.StatusOK {
			t.Errorf("%s", tok.body)
		}
		plain := w.app("plain-portal", dept, provider.NewClient{FirstParty: true})
		got := b.get(plain.authorizeURL(with(plain.request(), "scope", "openid offline_access")))
		if tok := plain.redeem(got.query().Get("code")); tok.RefreshToken != "" || tok.Scope != "openid" {
			t.Errorf("a client that may not: %s", tok.body)
		}
		dead(t, "its grant", plain.refresh(b.long(a).RefreshToken), "unauthorized_client")
	})
	t.Run("a client without a secret gets none, unless bound to a key", func(t *testing.T) {
		native := w.offline("parking-mobile", dept, provider.NewClient{Type: provider.Native, RedirectURIs: []string{"http://127.0.0.1/callback"}})
		native.redirect = "http://127.0.0.1:5000/callback"
		v := with(native.request(), "scope", "openid offline_access")
		form := with(native.tokenForm(b.get(native.authorizeURL(v)).query().Get("code")), "client_id", native.id)
		if tok := native.post(form); tok.status != http.StatusOK || tok.RefreshToken != "" || tok.Scope != "openid" {
			t.Errorf("%d %s", tok.status, tok.body)
		}
	})
	t.Run("idle for 30 days, 180 days in all", func(t *testing.T) {
		b, tok := w.browser(), tokens{}
		tok = b.long(a)
		idle := b.long(a)
		for range 6 {
			w.later(29 * 24 * time.Hour)
			tok = a.refresh(tok.RefreshToken)
			alive(t, "in use", tok)
		}
		dead(t, "idle", a.refresh(idle.RefreshToken), "invalid_grant")
		w.later(6 * 24 * time.Hour)
		dead(t, "after 180 days", a.refresh(tok.RefreshToken), "invalid_grant")
	})
	t.Run("malformed", func(t *testing.T) {
		for name, token := range map[string]string{"unknown": challenge("x"), "short": "x", "NUL": "\x00", "an access token": b.long(a).AccessToken} {
			dead(t, name, a.refresh(token), "invalid_grant")
		}
		dead(t, "none", a.refresh(""), "invalid_request")
	})
	t.Run("of a suspended account", func(t *testing.T) {
		tok := w.browser().long(a)
		_, err := w.db.Exec(t.Context(), `update identity.resident set state = 'suspended'`)
		must(t, err)
		dead(t, "", a.refresh(tok.RefreshToken), "invalid_grant")
	})
}

func TestAttacksOnIntrospectionAndRevocation(t *testing.T) {
	w := newWorld(t)
	const api = "https://pay.example/api"
	dept := w.department("parking", "Parking")
	a := w.offline("parking-portal", dept, provider.NewClient{Resources: []string{api}})
	water := w.offline("water-portal", w.department("water", "Water"), provider.NewClient{})
	server := w.app("pay-api", w.department("finance", "Finance"), provider.NewClient{Policy: provider.Policy{Serves: []string{api}}})
	native := w.app("parking-mobile", dept, provider.NewClient{Type: provider.Native, RedirectURIs: []string{"http://127.0.0.1/callback"}})
	b := w.browser()

	t.Run("48 introspection by others", func(t *testing.T) {
		tok := b.long(a)
		for name, token := range map[string]string{"access": tok.AccessToken, "refresh": tok.RefreshToken} {
			if got := a.introspect(token); !got.Active || got.status != http.StatusOK {
				t.Errorf("%s, its own: %s", name, got.body)
			}
			for _, who := range []*app{water, server} {
				if got := who.introspect(token); got.body != "{\"active\":false}" {
					t.Errorf("%s by %s: %s", name, who.id, got.body)
				}
			}
		}
		for name, token := range map[string]string{"ID token": tok.IDToken, "code": b.again(a), "nonsense": "x", "NUL": "\x00"} {
			if got := a.introspect(token); got.body != "{\"active\":false}" {
				t.Errorf("%s: %s", name, got.body)
			}
		}
		bare := func(r *http.Request) { r.Header.Del("Authorization") }
		if got := a.call("/oidc/introspect", url.Values{"token": {tok.AccessToken}}, bare); got.status != http.StatusUnauthorized {
			t.Errorf("nobody: %d %s", got.status, got.body)
		}
		if got := native.call("/oidc/introspect", url.Values{"token": {tok.AccessToken}, "client_id": {native.id}}); got.status != http.StatusUnauthorized {
			t.Errorf("a client without a secret: %d %s", got.status, got.body)
		}
	})
	t.Run("a resource server sees the tokens meant for it, by its own name for the person", func(t *testing.T) {
		code := b.get(a.authorizeURL(with(a.request(), "resource", api))).query().Get("code")
		tok := a.redeem(code)
		got := server.introspect(tok.AccessToken)
		var answer map[string]any
		must(t, json.Unmarshal([]byte(got.body), &answer))
		if !got.Active || answer["client_id"] != a.id || answer["acr"] != "urn:guichet:acr:1" {
			t.Fatalf("%s", got.body)
		}
		if answer["sub"] == claimsOf(t, tok.IDToken)["sub"] || answer["sub"] == "" {
			t.Errorf("sub %v is the other department's", answer["sub"])
		}
		if aud, _ := answer["aud"].([]any); len(aud) != 1 || aud[0] != api {
			t.Errorf("aud %v", answer["aud"])
		}
		w.later(10 * time.Minute)
		if got := server.introspect(tok.AccessToken); got.Active {
			t.Error("an expired token is active")
		}
	})
	t.Run("49 revocation of another client's token", func(t *testing.T) {
		tok := b.long(a)
		for _, token := range []string{tok.AccessToken, tok.RefreshToken} {
			if got := water.call("/oidc/revoke", url.Values{"token": {token}}); got.status != http.StatusOK {
				t.Errorf("%d %s", got.status, got.body)
			}
		}
		if status, _ := w.userinfo(tok.AccessToken); status != http.StatusOK || a.refresh(tok.RefreshToken).status != http.StatusOK {
			t.Error("a stranger revoked a token")
		}
	})
	t.Run("revocation of the client's own", func(t *testing.T) {
		tok := b.long(a)
		got := a.call("/oidc/revoke", url.Values{"token": {tok.AccessToken}, "token_type_hint": {"refresh_token"}})
		if status, _ := w.userinfo(tok.AccessToken); got.status != http.StatusOK || status != http.StatusUnauthorized {
			t.Errorf("access token with a wrong hint: %d, userinfo %d", got.status, status)
		}
		next := a.refresh(tok.RefreshToken)
		a.call("/oidc/revoke", url.Values{"token": {next.RefreshToken}})
		if status, _ := w.userinfo(next.AccessToken); status != http.StatusUnauthorized {
			t.Errorf("the access token of a revoked refresh token: %d", status)
		}
		dead(t, "the refresh token", a.refresh(next.RefreshToken), "invalid_grant")
		if w.events("token.revoked") != 2 {
			t.Errorf("%d audit rows", w.events("token.revoked"))
		}
		if got := a.call("/oidc/revoke", url.Values{"token": {"unknown"}}); got.status != http.StatusOK {
			t.Errorf("unknown: %d", got.status)
		}
		if got := a.call("/oidc/revoke", url.Values{}); got.Error != "invalid_request" {
			t.Errorf("none: %s", got.body)
		}
	})
}
