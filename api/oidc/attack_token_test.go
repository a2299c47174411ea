package oidc_test

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"guichet/api/oidc"
	"guichet/identity"
	"guichet/identity/provider"
	"guichet/internal/id"
)

func TestAttacksOnTheTokenEndpoint(t *testing.T) {
	w := newWorld(t)
	a := w.parking()
	water := w.app("water-portal", w.department("water", "Water"), provider.NewClient{FirstParty: true})
	native := w.app("parking-mobile", w.department("mobile", "Mobile"), provider.NewClient{
		Type: provider.Native, FirstParty: true, RedirectURIs: []string{"http://127.0.0.1/callback"},
	})
	poster := w.app("post-portal", w.department("post", "Post"), provider.NewClient{AuthMethod: provider.SecretPost, FirstParty: true})
	b := w.browser()
	b.code(a, "demo@example.com")

	grant := func(t *testing.T, name string, tok tokens, codes ...string) {
		t.Helper()
		ok := false
		for _, c := range codes {
			ok = ok || tok.Error == c
		}
		if !ok || tok.status != http.StatusBadRequest || tok.AccessToken != "" {
			t.Errorf("%s: %d %s, want 400 %v", name, tok.status, tok.body, codes)
		}
	}

	// oidcc-codereuse, oidcc-codereuse-30seconds
	t.Run("27 code used twice", func(t *testing.T) {
		code := b.again(a)
		first := a.redeem(code)
		if status, _ := w.userinfo(first.AccessToken); status != http.StatusOK {
			t.Fatalf("userinfo: %d", status)
		}
		w.later(30 * time.Second)
		grant(t, "second use", a.redeem(code), "invalid_grant")
		if status, _ := w.userinfo(first.AccessToken); status != http.StatusUnauthorized {
			t.Errorf("the first use's token lives on: %d", status)
		}
		var events int
		must(t, w.db.QueryRow(t.Context(), `select count(*) from ops.audit where action = 'code.replayed'`).Scan(&events))
		if events != 1 {
			t.Errorf("%d audit rows, want 1", events)
		}
	})
	t.Run("28 code by another client", func(t *testing.T) {
		code := b.again(a)
		grant(t, "stolen", water.post(a.tokenForm(code)), "invalid_grant")
		if tok := a.redeem(code); tok.status != http.StatusOK {
			t.Fatalf("the owner was harmed: %d %s", tok.status, tok.body)
		} else {
			grant(t, "stolen after use", water.post(a.tokenForm(code)), "invalid_grant")
			if status, _ := w.userinfo(tok.AccessToken); status != http.StatusOK {
				t.Errorf("the owner's token died: %d", status)
			}
		}
	})
	t.Run("29 code with another redirect_uri or none", func(t *testing.T) {
		form := a.tokenForm(b.again(a))
		form.Set("redirect_uri", a.redirect+"/")
		grant(t, "another", a.post(form), "invalid_grant")
		form.Del("redirect_uri")
		grant(t, "none", a.post(form), "invalid_grant", "invalid_request")
	})
	t.Run("30 wrong verifier", func(t *testing.T) {
		code := b.again(a)
		for name, verifier := range map[string]string{
			"another": id.Secret(), "short": a.verifier[:42], "the challenge": challenge(a.verifier), "long": strings.Repeat("a", 129), "bad alphabet": a.verifier[:42] + "é", "NUL": a.verifier + "\x00",
		} {
			form := a.tokenForm(code)
			form.Set("code_verifier", verifier)
			grant(t, name, a.post(form), "invalid_grant")
		}
		form := a.tokenForm(code)
		form.Del("code_verifier")
		grant(t, "none", a.post(form), "invalid_grant", "invalid_request")
		if tok := a.redeem(code); tok.status != http.StatusOK {
			t.Errorf("the right one afterwards: %d %s", tok.status, tok.body)
		}
	})
	t.Run("31 code after 60 s", func(t *testing.T) {
		code := b.again(a)
		w.later(60 * time.Second)
		grant(t, "", a.redeem(code), "invalid_grant")
		code = b.again(a)
		w.later(59 * time.Second)
		if tok := a.redeem(code); tok.status != http.StatusOK {
			t.Errorf("after 59 s: %d %s", tok.status, tok.body)
		}
		for name, code := range map[string]string{"unknown": id.Secret(), "no code": "", "NUL": "\x00", "huge": strings.Repeat("c", 10000), "ill-formed": "\xff"} {
			grant(t, name, a.redeem(code), "invalid_grant", "invalid_request")
		}
	})
	t.Run("32 eight redemptions at once", func(t *testing.T) {
		code := b.again(a)
		var wg sync.WaitGroup
		var mu sync.Mutex
		won := 0
		for range 8 {
			wg.Go(func() {
				tok := a.redeem(code)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case tok.status == http.StatusOK:
					won++
				case tok.status != http.StatusBadRequest || tok.Error != "invalid_grant":
					t.Errorf("%d %s", tok.status, tok.body)
				}
			})
		}
		wg.Wait()
		if won != 1 {
			t.Errorf("%d succeeded, want 1", won)
		}
	})
	t.Run("33 wrong secret and unknown client look the same", func(t *testing.T) {
		code := b.again(a)
		as := func(name, secret string) tokens {
			return a.post(a.tokenForm(code), func(r *http.Request) { r.SetBasicAuth(name, secret) })
		}
		want := as("nobody", "guess")
		for name, got := range map[string]tokens{
			"wrong secret": as(a.id, "guess"), "another client's secret": as(a.id, water.secret), "no secret": as(a.id, ""), "NUL": as(a.id+"\x00", "x"), "registered for post": as(poster.id, poster.secret), "public": as(native.id, ""),
		} {
			if got.status != http.StatusUnauthorized || got.body != want.body || got.Error != "invalid_client" || !strings.HasPrefix(got.header.Get("WWW-Authenticate"), "Basic ") {
				t.Errorf("%s: %d %s %v", name, got.status, got.body, got.header)
			}
		}
		if got := a.redeem(code); got.status != http.StatusOK {
			t.Errorf("the client itself afterwards: %d %s", got.status, got.body)
		}
	})
	t.Run("34 secret sent by two ways", func(t *testing.T) {
		form := a.tokenForm(b.again(a))
		form.Set("client_secret", a.secret)
		grant(t, "both", a.post(form), "invalid_request")
		form.Del("client_secret")
		form.Set("client_id", water.id)
		grant(t, "another client_id in the body", a.post(form), "invalid_request")
		form.Set("client_id", a.id)
		if tok := a.post(form); tok.status != http.StatusOK {
			t.Errorf("own client_id in the body: %d %s", tok.status, tok.body)
		}
	})
	t.Run("35 confidential client without secret", func(t *testing.T) {
		form := a.tokenForm(b.again(a))
		form.Set("client_id", a.id)
		bare := func(r *http.Request) { r.Header.Del("Authorization") }
		if tok := a.post(form, bare); tok.status != http.StatusUnauthorized || tok.Error != "invalid_client" {
			t.Errorf("%d %s", tok.status, tok.body)
		}
		form.Set("client_secret", a.secret) // right, but not the registered way
		if tok := a.post(form, bare); tok.status != http.StatusUnauthorized || tok.Error != "invalid_client" {
			t.Errorf("another method: %d %s", tok.status, tok.body)
		}
		form.Del("client_secret")
		form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		form.Set("client_assertion", "eyJhbGciOiJub25lIn0.e30.")
		if tok := a.post(form, bare); tok.status != http.StatusUnauthorized || tok.Error != "invalid_client" {
			t.Errorf("assertion: %d %s", tok.status, tok.body)
		}
	})
	t.Run("client_secret_post and public clients", func(t *testing.T) {
		agreed := func(a *app) string {
			path := b.startSignIn(a.authorizeURL(a.request()))
			return b.post(path, url.Values{"do": {"agree"}}).query().Get("code")
		}
		form := poster.tokenForm(agreed(poster))
		form.Set("client_id", poster.id)
		form.Set("client_secret", poster.secret)
		if tok := poster.post(form, func(r *http.Request) { r.Header.Del("Authorization") }); tok.status != http.StatusOK {
			t.Errorf("post: %d %s", tok.status, tok.body)
		}
		native.redirect = "http://127.0.0.1:43210/callback"
		form = native.tokenForm(agreed(native))
		form.Set("client_id", native.id)
		if tok := native.post(form); tok.status != http.StatusOK {
			t.Errorf("public: %d %s", tok.status, tok.body)
		}
	})
	t.Run("37 other grants", func(t *testing.T) {
		for _, kind := range []string{"password", "implicit", "urn:ietf:params:oauth:grant-type:jwt-bearer", "client_credentials", "x"} {
			form := a.tokenForm("x")
			form.Set("grant_type", kind)
			form.Set("username", "demo@example.com")
			form.Set("password", "x")
			grant(t, kind, a.post(form), "unsupported_grant_type")
		}
		form := a.tokenForm("x")
		form.Del("grant_type")
		grant(t, "none", a.post(form), "invalid_request")
	})
	t.Run("38 GET, parameters in the address, JSON", func(t *testing.T) {
		code := b.again(a)
		if tok := a.post(nil, func(r *http.Request) { r.Method, r.Body = http.MethodGet, nil }); tok.status != http.StatusMethodNotAllowed || tok.header.Get("Allow") != "POST" {
			t.Errorf("GET: %d %v", tok.status, tok.header)
		}
		grant(t, "in the address", a.post(nil, func(r *http.Request) { r.URL.RawQuery = a.tokenForm(code).Encode() }), "invalid_request")
		json := fmt.Sprintf(`{"grant_type":"authorization_code","code":%q}`, code)
		tok := a.post(nil, func(r *http.Request) {
			r.Header.Set("Content-Type", "application/json")
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(json)), int64(len(json))
		})
		grant(t, "JSON", tok, "invalid_request")
		for name := range a.tokenForm(code) {
			form := a.tokenForm(code)
			form.Add(name, form.Get(name))
			grant(t, "repeated "+name, a.post(form), "invalid_request")
		}
		if tok := a.redeem(code); tok.status != http.StatusOK {
			t.Errorf("properly, afterwards: %d %s", tok.status, tok.body)
		}
	})
}

func TestAttack33SecretGuessingIsLimited(t *testing.T) {
	w := newWorld(t, func(c *identity.Config, _ *oidc.Options) {
		c.Limits.ClientFailures = identity.Limit{Burst: 3, Per: time.Minute}
	})
	a := w.parking()
	b := w.browser()
	code := b.code(a, "demo@example.com")
	for _, name := range []string{a.id, "nobody"} {
		var last tokens
		for range 4 {
			last = a.post(a.tokenForm(code), func(r *http.Request) { r.SetBasicAuth(name, "guess") })
		}
		if last.status != http.StatusTooManyRequests || last.header.Get("Retry-After") == "" || last.Error != "invalid_client" {
			t.Errorf("%s: fourth guess: %d %s", name, last.status, last.body)
		}
	}
	if tok := a.redeem(code); tok.status != http.StatusOK {
		t.Errorf("the client itself is locked out by a stranger: %d %s", tok.status, tok.body)
	}
}

func TestAttack33NamesThatAreMadeUpShareALimit(t *testing.T) {
	w := newWorld(t, func(c *identity.Config, _ *oidc.Options) {
		c.Limits.ClientNetwork = identity.Limit{Burst: 5, Per: time.Hour}
	})
	a := w.parking()
	code := w.browser().code(a, "demo@example.com")
	guess := func(name string) int {
		return a.post(a.tokenForm(code), func(r *http.Request) { r.SetBasicAuth(name, "guess") }).status
	}
	for i := range 5 {
		if got := guess(fmt.Sprint("nobody-", i)); got != http.StatusUnauthorized {
			t.Errorf("guess %d: %d, want 401", i, got)
		}
	}
	if unknown, known := guess("somebody"), guess(a.id); unknown != http.StatusTooManyRequests || known != unknown {
		t.Errorf("after five guesses: %d for an unknown client, %d for a known one; want 429 for both", unknown, known)
	}
	var rows int
	must(t, w.db.QueryRow(t.Context(), `select count(*) from identity.bucket where kind = 'client'`).Scan(&rows))
	if rows != 5 {
		t.Errorf("%d buckets, want 5", rows)
	}
	if tok := a.redeem(code); tok.status != http.StatusOK {
		t.Errorf("the client itself is locked out by a stranger: %d %s", tok.status, tok.body)
	}
}

func TestAttacksOnUserinfo(t *testing.T) {
	w := newWorld(t)
	const api = "https://pay.example/api"
	a := w.app("parking-portal", w.department("parking", "Parking"), provider.NewClient{FirstParty: true, Resources: []string{api, "https://other.example/api"}})
	b := w.browser()
	tok := a.redeem(b.code(a, "demo@example.com"))
	ask := func(t *testing.T, change func(*http.Request)) (int, string) {
		t.Helper()
		r, err := http.NewRequest(http.MethodGet, w.url+"/oidc/userinfo", nil)
		must(t, err)
		change(r)
		resp, err := http.DefaultClient.Do(r)
		must(t, err)
		resp.Body.Close()
		return resp.StatusCode, resp.Header.Get("WWW-Authenticate")
	}
	bearer := func(token string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
	}
	t.Run("GET and POST answer the same", func(t *testing.T) {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			if status, _ := ask(t, func(r *http.Request) { r.Method = method; bearer(tok.AccessToken)(r) }); status != http.StatusOK {
				t.Errorf("%s: %d", method, status)
			}
		}
		if status, _ := ask(t, func(r *http.Request) { r.Method = http.MethodDelete; bearer(tok.AccessToken)(r) }); status != http.StatusMethodNotAllowed {
			t.Errorf("DELETE: %d", status)
		}
		_, claims := w.userinfo(tok.AccessToken)
		if claims["sub"] != claimsOf(t, tok.IDToken)["sub"] {
			t.Errorf("sub differs from the ID token's: %v", claims)
		}
	})
	t.Run("44 ID token or code as access token", func(t *testing.T) {
		for name, token := range map[string]string{"ID token": tok.IDToken, "code": b.again(a), "nothing": "", "session cookie": b.cookie("guichet")} {
			if status, challenge := ask(t, bearer(token)); status != http.StatusUnauthorized || !strings.Contains(challenge, "invalid_token") {
				t.Errorf("%s: %d %s", name, status, challenge)
			}
		}
		if status, challenge := ask(t, func(*http.Request) {}); status != http.StatusUnauthorized || challenge != `Bearer realm="guichet"` {
			t.Errorf("no token: %d %s", status, challenge)
		}
	})
	t.Run("45 access token in the address or the body", func(t *testing.T) {
		if status, _ := ask(t, func(r *http.Request) { r.URL.RawQuery = "access_token=" + tok.AccessToken }); status != http.StatusBadRequest && status != http.StatusUnauthorized {
			t.Errorf("in the address: %d", status)
		}
		if status, _ := ask(t, func(r *http.Request) { r.URL.RawQuery = "access_token=x"; bearer(tok.AccessToken)(r) }); status == http.StatusOK {
			t.Errorf("in both places: %d", status)
		}
		body := url.Values{"access_token": {tok.AccessToken}}.Encode()
		status, _ := ask(t, func(r *http.Request) {
			r.Method = http.MethodPost
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
		})
		if status != http.StatusUnauthorized {
			t.Errorf("in the body: %d", status)
		}
	})
	t.Run("46 unsigned JWT as access token", func(t *testing.T) {
		if status, _ := ask(t, bearer("eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.")); status != http.StatusUnauthorized {
			t.Errorf("%d", status)
		}
	})
	t.Run("47 token of one resource at another", func(t *testing.T) {
		v := a.request()
		v.Set("resource", api)
		got := b.get(a.authorizeURL(v))
		narrow := a.redeem(got.query().Get("code"))
		if narrow.status != http.StatusOK {
			t.Fatalf("%d %s", narrow.status, narrow.body)
		}
		if status, _ := ask(t, bearer(narrow.AccessToken)); status != http.StatusUnauthorized {
			t.Errorf("the API's token at userinfo: %d", status)
		}
		if _, err := w.provider.Access(t.Context(), narrow.AccessToken, api); err != nil {
			t.Errorf("the API's token at the API: %v", err)
		}
		for _, audience := range []string{"https://other.example/api", w.url} {
			if _, err := w.provider.Access(t.Context(), narrow.AccessToken, audience); err == nil {
				t.Errorf("the API's token at %s is accepted", audience)
			}
		}
		if _, err := w.provider.Access(t.Context(), tok.AccessToken, api); err == nil {
			t.Error("userinfo's token at the API is accepted")
		}
		got = b.get(a.authorizeURL(v))
		form := a.tokenForm(got.query().Get("code"))
		form.Set("resource", "https://other.example/api")
		if tok := a.post(form); tok.Error != "invalid_target" {
			t.Errorf("a resource that was not granted: %d %s", tok.status, tok.body)
		}
	})
	t.Run("token after ten minutes", func(t *testing.T) {
		tok := a.redeem(b.again(a))
		w.later(10 * time.Minute)
		if status, _ := ask(t, bearer(tok.AccessToken)); status != http.StatusUnauthorized {
			t.Errorf("%d", status)
		}
	})
	t.Run("token of a suspended account", func(t *testing.T) {
		tok := a.redeem(b.again(a))
		_, err := w.db.Exec(t.Context(), `update identity.resident set state = 'suspended'`)
		must(t, err)
		if status, _ := ask(t, bearer(tok.AccessToken)); status != http.StatusUnauthorized {
			t.Errorf("%d", status)
		}
	})
}

func TestAttack77DepartmentsCompare(t *testing.T) {
	w := newWorld(t)
	dept := w.department("parking", "Parking")
	one := w.app("parking-one", dept, provider.NewClient{FirstParty: true})
	two := w.app("parking-two", dept, provider.NewClient{FirstParty: true})
	water := w.app("water", w.department("water", "Water"), provider.NewClient{FirstParty: true})
	b := w.browser()
	claims := map[string]map[string]any{}
	for _, a := range []*app{one, two, water} {
		v := a.request()
		v.Set("scope", "openid")
		path := b.get(a.authorizeURL(v))
		if !path.query().Has("code") {
			path = b.follow(b.prove(path.location, "demo@example.com"))
		}
		claims[a.id] = claimsOf(t, a.redeem(path.query().Get("code")).IDToken)
	}
	if claims["parking-one"]["sub"] != claims["parking-two"]["sub"] {
		t.Error("one department knows a person by two names")
	}
	for _, name := range []string{"sub", "sid", "at_hash", "nonce"} {
		if name != "nonce" && claims["parking-one"][name] == claims["water"][name] {
			t.Errorf("two departments share %s", name)
		}
	}
	var residentID string
	must(t, w.db.QueryRow(t.Context(), `select id from identity.resident`).Scan(&residentID))
	if strings.Contains(fmt.Sprint(claims), residentID) {
		t.Error("a department sees the resident's id")
	}
}
