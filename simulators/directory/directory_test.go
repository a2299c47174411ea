package directory

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"golang.org/x/oauth2"

	"guichet/simulators/control"
)

const (
	redirectURI = "http://desk.example/callback"
	signedOut   = "http://desk.example/signed-out"
)

// world is a directory on a real listener, under a clock that the test moves.
type world struct {
	*Directory
	url string
	now atomic.Pointer[time.Time]
}

func start(t *testing.T, dir string) *world {
	t.Helper()
	w := &world{}
	w.setNow(time.Date(2026, 11, 24, 14, 0, 0, 0, time.UTC))
	var h http.Handler
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { h.ServeHTTP(rw, r) }))
	t.Cleanup(srv.Close)
	d, err := New(Options{
		Now: func() time.Time { return *w.now.Load() }, Dir: dir, Log: slog.New(slog.DiscardHandler), Issuer: srv.URL,
		Clients: []Client{
			{ID: "desk", Secret: "s3cret+/=&", RedirectURIs: []string{redirectURI}, PostLogoutURIs: []string{signedOut}},
			{ID: "old", Secret: "other", RedirectURIs: []string{redirectURI}, Alg: "RS256"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	h = d.Handler()
	w.Directory, w.url = d, srv.URL
	return w
}

func (w *world) setNow(t time.Time) { w.now.Store(&t) }

// party is a relying party as the staff desk is one.
type party struct {
	oauth    oauth2.Config
	verifier *oidc.IDTokenVerifier
	provider *oidc.Provider
	pkce     string
}

func (w *world) party(t *testing.T, client, secret string) *party {
	t.Helper()
	p, err := oidc.NewProvider(t.Context(), w.url)
	if err != nil {
		t.Fatal(err)
	}
	endpoint := p.Endpoint()
	endpoint.AuthStyle = oauth2.AuthStyleInHeader // guessing would ask twice after an error
	return &party{
		provider: p,
		verifier: p.Verifier(&oidc.Config{ClientID: client, Now: func() time.Time { return *w.now.Load() }}),
		pkce:     oauth2.GenerateVerifier(),
		oauth: oauth2.Config{
			ClientID: client, ClientSecret: secret, Endpoint: endpoint, RedirectURL: redirectURI,
			Scopes: []string{"openid", "profile", "email", "groups"},
		},
	}
}

func (p *party) authURL() string {
	return p.oauth.AuthCodeURL("state-1", oidc.Nonce("nonce-1"), oauth2.S256ChallengeOption(p.pkce))
}

// noRedirect answers with the redirect itself.
var noRedirect = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// choose signs in as the person would: it posts the choice with everything the
// authorization request said, and returns where the browser is sent.
func choose(t *testing.T, authURL, subject string) url.Values {
	t.Helper()
	u, err := url.Parse(authURL)
	if err != nil {
		t.Fatal(err)
	}
	form := u.Query()
	form.Set("subject", subject)
	u.RawQuery = ""
	resp, err := noRedirect.PostForm(u.String(), form)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusSeeOther {
		body, _ := io.ReadAll(resp.Body)
		t.Fatalf("choose %s: %s\n%s", subject, resp.Status, body)
	}
	to, err := resp.Location()
	if err != nil {
		t.Fatal(err)
	}
	if got := to.Scheme + "://" + to.Host + to.Path; got != redirectURI {
		t.Fatalf("sent to %s", got)
	}
	return to.Query()
}

func (p *party) exchange(ctx context.Context, code string) (*oauth2.Token, error) {
	return p.oauth.Exchange(ctx, code, oauth2.VerifierOption(p.pkce))
}

func (p *party) idToken(t *testing.T, tok *oauth2.Token) (*oidc.IDToken, error) {
	t.Helper()
	raw, ok := tok.Extra("id_token").(string)
	if !ok {
		t.Fatal("no id_token")
	}
	return p.verifier.Verify(t.Context(), raw)
}

func TestStaffSignInWithAnIndependentRelyingParty(t *testing.T) {
	w := start(t, t.TempDir())
	for _, c := range []struct{ id, secret, alg string }{{"desk", "s3cret+/=&", "ES256"}, {"old", "other", "RS256"}} {
		for _, style := range []oauth2.AuthStyle{oauth2.AuthStyleInHeader, oauth2.AuthStyleInParams} {
			p := w.party(t, c.id, c.secret)
			p.oauth.Endpoint.AuthStyle = style
			back := choose(t, p.authURL(), "staff-1001")
			if back.Get("state") != "state-1" || back.Get("iss") != w.url {
				t.Fatalf("sent back with %v", back)
			}
			tok, err := p.exchange(t.Context(), back.Get("code"))
			if err != nil {
				t.Fatal(err)
			}
			idToken, err := p.idToken(t, tok)
			if err != nil {
				t.Fatal(err)
			}
			if idToken.Nonce != "nonce-1" || idToken.Subject != "staff-1001" {
				t.Errorf("ID token: nonce %q, subject %q", idToken.Nonce, idToken.Subject)
			}
			if err := idToken.VerifyAccessToken(tok.AccessToken); err != nil {
				t.Errorf("at_hash: %v", err)
			}
			var header struct{ Alg string }
			b, _, _ := strings.Cut(tok.Extra("id_token").(string), ".")
			decode(t, b, &header)
			if header.Alg != c.alg {
				t.Errorf("client %s: algorithm %s, want %s", c.id, header.Alg, c.alg)
			}
			info, err := p.provider.UserInfo(t.Context(), oauth2.StaticTokenSource(tok))
			if err != nil {
				t.Fatal(err)
			}
			for name, read := range map[string]func(any) error{"ID token": idToken.Claims, "userinfo": info.Claims} {
				var claims struct {
					Sub, Name, Email string
					Groups           []string
				}
				if err := read(&claims); err != nil {
					t.Fatal(err)
				}
				if claims.Sub != "staff-1001" || claims.Name != "Demo Finance Clerk" || claims.Email != "finance.clerk@staff.example" ||
					!slices.Equal(claims.Groups, []string{"guichet-finance-clerk"}) {
					t.Errorf("%s says %+v", name, claims)
				}
			}
		}
	}
}

func decode(t *testing.T, segment string, v any) {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(segment)
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestScopesDecideTheClaims(t *testing.T) {
	w := start(t, t.TempDir())
	p := w.party(t, "desk", "s3cret+/=&")
	p.oauth.Scopes = []string{"openid"}
	tok, err := p.exchange(t.Context(), choose(t, p.authURL(), "staff-1001").Get("code"))
	if err != nil {
		t.Fatal(err)
	}
	info, err := p.provider.UserInfo(t.Context(), oauth2.StaticTokenSource(tok))
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := info.Claims(&claims); err != nil || len(claims) != 1 {
		t.Errorf("scope openid gives %v, %v", claims, err)
	}
}

func TestFaultsAreCaughtByTheRelyingParty(t *testing.T) {
	for _, kind := range []string{"wrong-nonce", "wrong-audience", "expired", "unknown-kid"} {
		t.Run(kind, func(t *testing.T) {
			w := start(t, t.TempDir())
			if _, err := w.faults.Plant(control.Fault{Kind: kind, Target: "desk"}); err != nil {
				t.Fatal(err)
			}
			for i, struck := range []bool{true, false} {
				p := w.party(t, "desk", "s3cret+/=&")
				tok, err := p.exchange(t.Context(), choose(t, p.authURL(), "staff-1004").Get("code"))
				if err != nil {
					t.Fatal(err)
				}
				idToken, err := p.idToken(t, tok)
				if err == nil && idToken.Nonce != "nonce-1" {
					err = errors.New("wrong nonce") // go-oidc leaves this check to the caller
				}
				if (err != nil) != struck {
					t.Errorf("sign-in %d: err = %v, struck %v", i+1, err, struck)
				}
			}
		})
	}
	t.Run("error", func(t *testing.T) {
		w := start(t, t.TempDir())
		p := w.party(t, "desk", "s3cret+/=&")
		code := choose(t, p.authURL(), "staff-1004").Get("code")
		if _, err := w.faults.Plant(control.Fault{Kind: "error", Target: "token"}); err != nil {
			t.Fatal(err)
		}
		if _, err := p.exchange(t.Context(), code); err == nil {
			t.Fatal("exchanged in spite of the fault")
		}
		if _, err := p.exchange(t.Context(), code); err != nil {
			t.Errorf("the code was lost with the fault: %v", err)
		}
	})
	t.Run("slow", func(t *testing.T) {
		w := start(t, t.TempDir())
		p := w.party(t, "desk", "s3cret+/=&")
		code := choose(t, p.authURL(), "staff-1004").Get("code")
		if _, err := w.faults.Plant(control.Fault{Kind: "slow", Target: "token", Delay: control.Duration(time.Hour)}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := p.exchange(ctx, code)
			done <- err
		}()
		for len(w.faults.Planted()) > 0 { // until it strikes
			select {
			case err := <-done:
				t.Fatalf("answered at once: %v", err)
			case <-time.After(time.Millisecond):
			}
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("err = %v", err)
		}
	})
}

func TestAuthorizeChecks(t *testing.T) {
	w := start(t, t.TempDir())
	p := w.party(t, "desk", "s3cret+/=&")
	tests := []struct {
		name   string
		change func(url.Values)
		want   string // error sent back, or "page" for a refusal without redirect
	}{
		{"unknown client", func(q url.Values) { q.Set("client_id", "nobody") }, "page"},
		{"foreign redirect", func(q url.Values) { q.Set("redirect_uri", "http://evil.example/") }, "page"},
		{"redirect with more behind", func(q url.Values) { q.Set("redirect_uri", redirectURI+"/x") }, "page"},
		{"redirect twice", func(q url.Values) { q.Add("redirect_uri", redirectURI) }, "page"},
		{"state twice", func(q url.Values) { q.Add("state", "x") }, "invalid_request"},
		{"token in the browser", func(q url.Values) { q.Set("response_type", "id_token") }, "unsupported_response_type"},
		{"fragment", func(q url.Values) { q.Set("response_mode", "fragment") }, "invalid_request"},
		{"request object", func(q url.Values) { q.Set("request", "x.y.z") }, "request_not_supported"},
		{"no openid", func(q url.Values) { q.Set("scope", "profile") }, "invalid_scope"},
		{"no PKCE", func(q url.Values) { q.Del("code_challenge") }, "invalid_request"},
		{"plain PKCE", func(q url.Values) { q.Set("code_challenge_method", "plain") }, "invalid_request"},
		{"no page wanted", func(q url.Values) { q.Set("prompt", "none") }, "login_required"},
		{"unknown member", func(q url.Values) { q.Set("subject", "staff-0") }, "access_denied"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			u, _ := url.Parse(p.authURL())
			q := u.Query()
			q.Set("subject", "staff-1001")
			tt.change(q)
			resp, err := noRedirect.PostForm(w.url+"/authorize", q)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if tt.want == "page" {
				if resp.StatusCode != http.StatusBadRequest || resp.Header.Get("Location") != "" {
					t.Errorf("%s, Location %q", resp.Status, resp.Header.Get("Location"))
				}
				return
			}
			to, err := resp.Location()
			if err != nil {
				t.Fatalf("%s: %v", resp.Status, err)
			}
			if got := to.Query(); got.Get("error") != tt.want || got.Get("state") != "state-1" || got.Get("iss") != w.url || got.Has("code") {
				t.Errorf("sent back with %v, want %s", got, tt.want)
			}
		})
	}
}

func TestTokenEndpointChecks(t *testing.T) {
	w := start(t, t.TempDir())
	type call struct {
		form               url.Values
		user, secret       string
		query, contentType string
	}
	tests := []struct {
		name   string
		change func(*call)
		status int
		want   string
	}{
		{"wrong secret", func(c *call) { c.secret = "x" }, 401, "invalid_client"},
		{"unknown client", func(c *call) { c.user = "nobody" }, 401, "invalid_client"},
		{"two ways at once", func(c *call) { c.form.Set("client_secret", "s3cret+/=&") }, 401, "invalid_client"},
		{"another client's code", func(c *call) { c.user, c.secret = "old", "other" }, 400, "invalid_grant"},
		{"unknown code", func(c *call) { c.form.Set("code", "x") }, 400, "invalid_grant"},
		{"wrong verifier", func(c *call) { c.form.Set("code_verifier", oauth2.GenerateVerifier()) }, 400, "invalid_grant"},
		{"no verifier", func(c *call) { c.form.Del("code_verifier") }, 400, "invalid_grant"},
		{"other redirect", func(c *call) { c.form.Set("redirect_uri", redirectURI+"2") }, 400, "invalid_grant"},
		{"code too old", func(*call) { w.setNow(w.now.Load().Add(codeLife + time.Second)) }, 400, "invalid_grant"},
		{"other grant", func(c *call) { c.form.Set("grant_type", "password") }, 400, "unsupported_grant_type"},
		{"code twice in one request", func(c *call) { c.form.Add("code", "x") }, 400, "invalid_request"},
		{"parameters in the URL", func(c *call) { c.query = "?code=x" }, 400, "invalid_request"},
		{"JSON", func(c *call) { c.contentType = "application/json" }, 400, "invalid_request"},
		{"all right", func(*call) {}, 200, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := w.party(t, "desk", "s3cret+/=&")
			code := choose(t, p.authURL(), "staff-1001").Get("code")
			c := call{user: "desk", secret: "s3cret+/=&", contentType: "application/x-www-form-urlencoded", form: url.Values{
				"grant_type": {"authorization_code"}, "code": {code}, "code_verifier": {p.pkce}, "redirect_uri": {redirectURI},
			}}
			tt.change(&c)
			send := func() (int, string) {
				req, err := http.NewRequest(http.MethodPost, w.url+"/token"+c.query, strings.NewReader(c.form.Encode()))
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Content-Type", c.contentType)
				req.SetBasicAuth(url.QueryEscape(c.user), url.QueryEscape(c.secret))
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				if resp.Header.Get("Cache-Control") != "no-store" {
					t.Errorf("Cache-Control %q", resp.Header.Get("Cache-Control"))
				}
				var body struct{ Error string }
				if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
					t.Fatal(err)
				}
				return resp.StatusCode, body.Error
			}
			if status, got := send(); status != tt.status || got != tt.want {
				t.Errorf("answer %d %q, want %d %q", status, got, tt.status, tt.want)
			}
			if tt.status == 200 {
				if status, got := send(); status != 400 || got != "invalid_grant" {
					t.Errorf("the same code again: %d %q", status, got)
				}
			}
		})
	}
}

func TestUserinfoTakesOnlyItsOwnAccessTokens(t *testing.T) {
	w := start(t, t.TempDir())
	p := w.party(t, "desk", "s3cret+/=&")
	tok, err := p.exchange(t.Context(), choose(t, p.authURL(), "staff-1001").Get("code"))
	if err != nil {
		t.Fatal(err)
	}
	ask := func(authorization string) int {
		req, _ := http.NewRequest(http.MethodGet, w.url+"/userinfo", nil)
		req.Header.Set("Authorization", authorization)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	for name, authorization := range map[string]string{
		"nothing": "", "not a token": "Bearer x", "an ID token": "Bearer " + tok.Extra("id_token").(string),
		"a changed token": "Bearer " + tok.AccessToken[:len(tok.AccessToken)-4] + "AAAA",
	} {
		if got := ask(authorization); got != http.StatusUnauthorized {
			t.Errorf("%s: %d, want 401", name, got)
		}
	}
	if got := ask("Bearer " + tok.AccessToken); got != http.StatusOK {
		t.Errorf("its own token: %d", got)
	}
	w.setNow(w.now.Load().Add(tokenLife))
	if got := ask("Bearer " + tok.AccessToken); got != http.StatusUnauthorized {
		t.Errorf("an expired token: %d, want 401", got)
	}
}

func TestKeysOutliveTheProcess(t *testing.T) {
	dir := t.TempDir()
	first := start(t, dir)
	p := first.party(t, "desk", "s3cret+/=&")
	tok, err := p.exchange(t.Context(), choose(t, p.authURL(), "staff-1001").Get("code"))
	if err != nil {
		t.Fatal(err)
	}
	second := start(t, dir)
	if !slices.EqualFunc(first.keys.set.Keys, second.keys.set.Keys, func(a, b jose.JSONWebKey) bool { return a.KeyID == b.KeyID }) {
		t.Error("the second process has other keys")
	}
	var claims map[string]any
	if err := second.keys.verify(tok.Extra("id_token").(string), "JWT", &claims); err != nil {
		t.Errorf("token of the first process: %v", err)
	}
	if info, err := os.Stat(filepath.Join(dir, "keys.json")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("keys.json: %v, %v", info.Mode(), err)
	}
	resp, err := http.Get(second.url + "/jwks")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var set struct{ Keys []map[string]any }
	if err := json.NewDecoder(resp.Body).Decode(&set); err != nil || len(set.Keys) != 2 {
		t.Fatalf("jwks: %v, %v", set, err)
	}
	for _, k := range set.Keys {
		for _, private := range []string{"d", "p", "q", "dp", "dq", "qi"} {
			if _, ok := k[private]; ok {
				t.Errorf("key %v publishes %s", k["kid"], private)
			}
		}
	}
}

func TestEndSession(t *testing.T) {
	w := start(t, t.TempDir())
	p := w.party(t, "desk", "s3cret+/=&")
	tok, err := p.exchange(t.Context(), choose(t, p.authURL(), "staff-1001").Get("code"))
	if err != nil {
		t.Fatal(err)
	}
	hint := tok.Extra("id_token").(string)
	w.setNow(w.now.Load().Add(24 * time.Hour)) // an expired hint is fine
	tests := []struct {
		name   string
		query  url.Values
		status int
		to     string
	}{
		{"page when nothing is asked", url.Values{}, 200, ""},
		{"back with the hint", url.Values{"id_token_hint": {hint}, "post_logout_redirect_uri": {signedOut}, "state": {"s"}}, 303, signedOut + "?state=s"},
		{"back with the client", url.Values{"client_id": {"desk"}, "post_logout_redirect_uri": {signedOut}}, 303, signedOut},
		{"nobody named", url.Values{"post_logout_redirect_uri": {signedOut}}, 400, ""},
		{"address not registered", url.Values{"client_id": {"desk"}, "post_logout_redirect_uri": {redirectURI}}, 400, ""},
		{"hint of another client", url.Values{"id_token_hint": {hint}, "client_id": {"old"}}, 400, ""},
		{"access token as hint", url.Values{"id_token_hint": {tok.AccessToken}}, 400, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			resp, err := noRedirect.Get(w.url + "/end-session?" + tt.query.Encode())
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != tt.status || resp.Header.Get("Location") != tt.to {
				t.Errorf("%s to %q, want %d to %q", resp.Status, resp.Header.Get("Location"), tt.status, tt.to)
			}
		})
	}
}

func TestPages(t *testing.T) {
	w := start(t, t.TempDir())
	p := w.party(t, "desk", "s3cret+/=&")
	for name, page := range map[string]struct{ url, want string }{
		"control page": {w.url + "/", "Demo Parking Supervisor"},
		"choice":       {p.authURL() + "&subject=%22%3E%3Cscript%3E", "Demonstration data."},
		"staff":        {w.url + "/_control/staff", `"groups":["guichet-department-parking","guichet-supervisor"]`},
	} {
		resp, err := http.Get(page.url)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK || !strings.Contains(string(body), page.want) || strings.Contains(string(body), "<script") {
			t.Errorf("%s: %s\n%s", name, resp.Status, body)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	good := Options{Issuer: "http://localhost:1", Now: time.Now, Log: slog.New(slog.DiscardHandler)}
	for name, change := range map[string]func(*Options){
		"issuer with a slash":     func(o *Options) { o.Issuer += "/" },
		"relative issuer":         func(o *Options) { o.Issuer = "/x" },
		"client without a secret": func(o *Options) { o.Clients = []Client{{ID: "a", RedirectURIs: []string{"http://a"}}} },
		"unknown algorithm": func(o *Options) {
			o.Clients = []Client{{ID: "a", Secret: "b", RedirectURIs: []string{"http://a"}, Alg: "HS256"}}
		},
	} {
		o := good
		o.Dir = t.TempDir()
		change(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	broken := good
	broken.Dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(broken.Dir, "keys.json"), []byte(`{"keys":[]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(broken); err == nil {
		t.Error("opened without keys: every relying party would break")
	}
}
