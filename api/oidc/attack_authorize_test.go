package oidc_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"guichet/identity/provider"
)

// The numbers are those of the table of eighty attacks. These are the ones at the
// authorization endpoint; one world serves them all, since each is refused.
func TestAttacksOnAuthorize(t *testing.T) {
	w := newWorld(t)
	a := w.parking()
	native := w.app("parking-mobile", w.department("mobile", "Mobile"), provider.NewClient{
		Type: provider.Native, FirstParty: true, RedirectURIs: []string{"http://127.0.0.1/callback"},
	})
	b := w.browser()

	// page expects the answer while nobody but the person can be told.
	page := func(t *testing.T, name string, v url.Values) {
		t.Helper()
		got := b.get(a.authorizeURL(v))
		if got.status < 400 || got.status >= 500 || got.location != "" {
			t.Errorf("%s: status %d, location %q; want a 4xx page", name, got.status, got.location)
		}
	}
	// refused expects a redirect to the client with the error, its state and our name.
	refused := func(t *testing.T, name string, v url.Values, code ...string) {
		t.Helper()
		got := b.get(a.authorizeURL(v))
		q := got.query()
		ok := false
		for _, c := range code {
			ok = ok || q.Get("error") == c
		}
		if !ok || got.status != http.StatusSeeOther || !strings.HasPrefix(got.location, a.redirect+"?") || q.Get("iss") != w.url || q.Has("code") {
			t.Errorf("%s: status %d, location %q; want %v at the client", name, got.status, got.location, code)
		}
		if len(v["state"]) == 1 && q.Get("state") != v.Get("state") {
			t.Errorf("%s: state %q, want %q", name, q.Get("state"), v.Get("state"))
		}
	}
	with := func(pairs ...string) url.Values {
		v := a.request()
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i+1] == "" {
				v.Del(pairs[i])
			} else {
				v.Set(pairs[i], pairs[i+1])
			}
		}
		return v
	}

	t.Run("01 unknown client_id", func(t *testing.T) {
		for _, name := range []string{"nobody", "parking-portal ", "PARKING-PORTAL", "parking-portal\x00", "\xff\xfe", "'; drop table identity.client; --", ""} {
			page(t, name, with("client_id", name))
		}
	})
	// oidcc-ensure-registered-redirect-uri
	t.Run("02 redirect_uri unregistered", func(t *testing.T) { page(t, "", with("redirect_uri", "https://evil.example/callback")) })
	t.Run("03 redirect_uri with something appended", func(t *testing.T) {
		for _, more := range []string{"/x", "?x=1", "?", "#x", "#", "/../evil", "%2f", "\r\nX: 1"} {
			page(t, more, with("redirect_uri", a.redirect+more))
		}
	})
	t.Run("04 redirect_uri in another spelling", func(t *testing.T) {
		for _, uri := range []string{
			"https://parking-portal.example/CALLBACK", "HTTPS://parking-portal.example/callback", "https://PARKING-portal.example/callback",
			"https://parking-portal.example/callback/", "https://parking-portal.example/c%61llback", "https://parking-portal.example:443/callback",
			"https://parking-portal.example/./callback", "http://parking-portal.example/callback", " " + a.redirect, a.redirect + " ",
		} {
			page(t, uri, with("redirect_uri", uri))
		}
	})
	t.Run("05 redirect_uri that looks alike", func(t *testing.T) {
		for _, uri := range []string{
			"https://user@parking-portal.example/callback", "https://parking-portal.example@evil.example/callback", "https://parking-portal.example.evil.example/callback",
			`https://parking-portal.example\@evil.example/callback`, `https://evil.example\parking-portal.example/callback`, "//parking-portal.example/callback", "javascript:alert(1)",
		} {
			page(t, uri, with("redirect_uri", uri))
		}
	})
	t.Run("05 a native client's port is free, nothing else is", func(t *testing.T) {
		for uri, ok := range map[string]bool{
			"http://127.0.0.1:51234/callback": true, "http://127.0.0.1/callback": true, "http://127.0.0.1:51234/other": false, "http://localhost:51234/callback": false,
			"http://127.0.0.1:51234@evil.example/callback": false, "http://127.0.0.1.evil.example/callback": false, "http://127.0.0.1:/callback": false,
			"http://127.0.0.1:123456/callback": false, "https://127.0.0.1:51234/callback": false, "http://[::1]:51234/callback": false, "http://127.0.0.1:51234/callback?x": false,
		} {
			v := native.request()
			v.Set("redirect_uri", uri)
			v.Set("prompt", "none")
			got := b.get(native.authorizeURL(v))
			if ok && !strings.HasPrefix(got.location, uri+"?error=login_required") || !ok && got.status != http.StatusBadRequest {
				t.Errorf("%s: %d %s, want accepted %v", uri, got.status, got.location, ok)
			}
		}
	})
	t.Run("06 redirect_uri left out", func(t *testing.T) { page(t, "", with("redirect_uri", "")) })
	t.Run("07 response_type other than code", func(t *testing.T) {
		for _, kind := range []string{"token", "id_token", "id_token token", "code token", "code id_token", "code id_token token", "none", "code code", "CODE"} {
			refused(t, kind, with("response_type", kind), "unsupported_response_type")
		}
		refused(t, "left out", with("response_type", ""), "invalid_request") // oidcc-response-type-missing
	})
	t.Run("08 no code_challenge", func(t *testing.T) { refused(t, "", with("code_challenge", ""), "invalid_request") })
	t.Run("09 code_challenge_method plain or absent", func(t *testing.T) {
		refused(t, "plain", with("code_challenge_method", "plain"), "invalid_request")
		refused(t, "absent", with("code_challenge_method", ""), "invalid_request")
		refused(t, "lower case", with("code_challenge_method", "s256"), "invalid_request")
	})
	t.Run("10 challenge of wrong length or alphabet", func(t *testing.T) {
		good := challenge(a.verifier)
		for _, c := range []string{good[:42], good + "A", good[:42] + "=", good[:42] + "+", good[:42] + "/", good[:41] + "é", strings.Repeat("A", 128)} {
			refused(t, c, with("code_challenge", c), "invalid_request")
		}
	})
	// oidcc-prompt-none-not-logged-in
	t.Run("11 prompt=none unsigned", func(t *testing.T) { refused(t, "", with("prompt", "none"), "login_required") })
	t.Run("12 prompt none beside another", func(t *testing.T) {
		for _, p := range []string{"none login", "login none", "none consent", "none create", "none select_account", "NONE"} {
			refused(t, p, with("prompt", p), "invalid_request")
		}
	})
	t.Run("13 request object with alg none", func(t *testing.T) {
		refused(t, "", with("request", "eyJhbGciOiJub25lIn0.eyJyZWRpcmVjdF91cmkiOiJodHRwczovL2V2aWwuZXhhbXBsZSJ9."), "request_not_supported")
	})
	t.Run("14 request_uri on a foreign host is not fetched", func(t *testing.T) {
		var calls atomic.Int32
		inner := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { calls.Add(1) }))
		defer inner.Close()
		refused(t, "", with("request_uri", inner.URL+"/request.jwt"), "request_uri_not_supported")
		if calls.Load() != 0 {
			t.Error("the provider fetched a request_uri")
		}
	})
	t.Run("15 repeated parameters", func(t *testing.T) {
		for name := range a.request() {
			v := a.request()
			v.Add(name, v.Get(name))
			if name == "client_id" || name == "redirect_uri" {
				page(t, name, v)
			} else {
				refused(t, name, v, "invalid_request")
			}
		}
		v := a.request()
		v["unheard-of"] = []string{"1", "2"}
		refused(t, "a parameter nobody knows", v, "invalid_request")
	})
	t.Run("16 unknown response_mode", func(t *testing.T) {
		for _, mode := range []string{"fragment", "form_post", "query.jwt", "web_message", "x"} {
			refused(t, mode, with("response_mode", mode), "invalid_request")
		}
	})
	t.Run("17 max_age that is no age", func(t *testing.T) {
		for _, age := range []string{"abc", "-1", "+1", "1.5", "1e3", " 1", "99999999999999999999"} {
			refused(t, age, with("max_age", age), "invalid_request")
		}
	})
	t.Run("18 forged id_token_hint with prompt=none", func(t *testing.T) {
		for _, hint := range []string{
			"eyJhbGciOiJub25lIn0.eyJpc3MiOiJodHRwczovL2V4YW1wbGUifQ.", "x", "a.b.c", strings.Repeat("e", 4000),
		} {
			refused(t, hint, with("prompt", "none", "id_token_hint", hint), "invalid_request", "login_required")
		}
	})
	t.Run("19 script is never reflected unescaped", func(t *testing.T) {
		const script = `"><script>alert(1)</script>`
		for _, name := range []string{"state", "login_hint", "ui_locales", "client_id", "redirect_uri", "nonce", "scope", "prompt", "lang"} {
			got := b.follow(b.get(a.authorizeURL(with(name, script))))
			if strings.Contains(got.body, "<script>alert") {
				t.Errorf("%s is reflected", name)
			}
			if got.location != "" && strings.Contains(got.query().Get("error_description"), "script") {
				t.Errorf("%s is in the description: %s", name, got.location)
			}
		}
		path := b.startSignIn(a.authorizeURL(a.request()))
		got := b.post(path, url.Values{"do": {"email"}, "email": {script}})
		if got.status != http.StatusUnprocessableEntity || strings.Contains(got.body, "<script>alert") {
			t.Errorf("address: status %d", got.status)
		}
	})
	t.Run("20 huge, NUL and ill-formed values", func(t *testing.T) {
		for _, bad := range []string{strings.Repeat("s", 6000), "a\x00b", "\xff\xfe\xfa", "é\u2028\u202e"} {
			for _, name := range []string{"state", "nonce", "login_hint", "scope", "ui_locales", "client_id", "redirect_uri", "code_challenge", "prompt", "max_age", "id_token_hint", "resource"} {
				b.follow(b.get(a.authorizeURL(with(name, bad)))) // the browser fails the test on 5xx
			}
			got := b.get(a.authorizeURL(with("state", bad, "prompt", "none")))
			if got.query().Get("state") != bad {
				t.Errorf("state of %d bytes comes back changed", len(bad))
			}
			stranger := w.browser()
			if got := stranger.signIn(a.authorizeURL(with("state", bad)), "demo20@example.com"); got.query().Get("state") != bad || got.query().Get("code") == "" {
				t.Errorf("state of %d bytes does not survive a sign-in: %d", len(bad), got.status)
			}
		}
		for _, raw := range []string{"%zz", "client_id=%", ";", "client_id=parking-portal&client_id"} {
			if got := b.get("/oidc/authorize?" + raw); got.status != http.StatusBadRequest {
				t.Errorf("?%s: status %d", raw, got.status)
			}
		}
	})
	t.Run("scope without openid", func(t *testing.T) {
		refused(t, "none", with("scope", ""), "invalid_scope")
		refused(t, "others", with("scope", "profile email"), "invalid_scope")
	})
	t.Run("resource that is not registered", func(t *testing.T) {
		refused(t, "", with("resource", "https://api.example"), "invalid_target")
	})
	t.Run("POST means the same as GET", func(t *testing.T) {
		foreign := func(r *http.Request) {
			r.Header.Set("Sec-Fetch-Site", "cross-site")
			r.Header.Set("Origin", "https://parking-portal.example")
		}
		got := b.post("/oidc/authorize", a.request(), foreign)
		if got.status != http.StatusSeeOther || !strings.HasPrefix(got.location, "/oidc/authorize?") {
			t.Fatalf("good request: %d %s", got.status, got.location)
		}
		if got = b.get(got.location); !strings.HasPrefix(got.location, "/signin/") {
			t.Errorf("then: %d %s", got.status, got.location)
		}
		if got := b.post("/oidc/authorize", with("code_challenge", ""), foreign); got.query().Get("error") != "invalid_request" {
			t.Errorf("bad request: %d %s", got.status, got.location)
		}
		if got := b.post("/oidc/authorize", with("client_id", "nobody"), foreign); got.status != http.StatusBadRequest {
			t.Errorf("unknown client: %d %s", got.status, got.location)
		}
		if got := b.post("/oidc/authorize?prompt=none", a.request(), foreign); got.status != http.StatusBadRequest {
			t.Errorf("parameters in two places: %d %s", got.status, got.location)
		}
	})
}
