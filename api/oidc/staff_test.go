package oidc_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"guichet/api/oidc"
	"guichet/identity"
	"guichet/internal/id"
)

// directory is a staff directory that can lie. It answers any code with the claims
// that are set, signed by the key that is set.
type directory struct {
	*httptest.Server
	mu     sync.Mutex
	now    func() time.Time
	claims map[string]any // laid over the true ones
	info   map[string]any
	key    *ecdsa.PrivateKey // published
	signer *ecdsa.PrivateKey // used; the same unless it lies
	kid    string
	verify string // PKCE verifier that came with the code
	moved  bool   // the token endpoint redirects
}

func newDirectory(t *testing.T) *directory {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	d := &directory{key: key, signer: key, kid: "k1"}
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(v); err != nil {
			t.Error(err)
		}
	}
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{
			"issuer": d.URL, "authorization_endpoint": d.URL + "/authorize", "token_endpoint": d.URL + "/token", "jwks_uri": d.URL + "/jwks",
			"userinfo_endpoint": d.URL + "/userinfo", "authorization_response_iss_parameter_supported": true,
			"id_token_signing_alg_values_supported": []string{"ES256"},
		})
	})
	mux.HandleFunc("/jwks", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: d.key.Public(), KeyID: "k1", Algorithm: "ES256", Use: "sig"}}})
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.moved {
			http.Redirect(w, r, d.URL+"/elsewhere", http.StatusTemporaryRedirect)
			return
		}
		d.verify = r.PostFormValue("code_verifier")
		claims := map[string]any{
			"iss": d.URL, "aud": "guichet", "sub": "staff-1", "name": "Demo Clerk", "email": "clerk@staff.example", "groups": []string{"guichet-finance-clerk"},
			"iat": d.now().Unix(), "exp": d.now().Add(time.Hour).Unix(),
		}
		maps.Copy(claims, d.claims)
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: d.signer, KeyID: d.kid}}, nil)
		if err != nil {
			t.Error(err)
			return
		}
		token, err := jwt.Signed(signer).Claims(claims).Serialize()
		if err != nil {
			t.Error(err)
			return
		}
		answer(w, map[string]any{"access_token": "a", "token_type": "Bearer", "id_token": token, "expires_in": 60})
	})
	mux.HandleFunc("/userinfo", func(w http.ResponseWriter, _ *http.Request) { answer(w, d.info) })
	mux.HandleFunc("/elsewhere", func(http.ResponseWriter, *http.Request) { t.Error("a redirect of the token endpoint was followed") })
	d.Server = httptest.NewServer(mux)
	t.Cleanup(d.Close)
	return d
}

func staffWorld(t *testing.T) (*world, *directory) {
	t.Helper()
	d := newDirectory(t)
	w := newWorld(t, func(_ *identity.Config, o *oidc.Options) {
		o.Directory = oidc.Directory{Issuer: d.URL, ClientID: "guichet", ClientSecret: "secret", GroupsScope: "groups"}
	})
	d.now = w.clock
	return w, d
}

// toDirectory begins a staff sign-in and returns what the directory is asked.
func (b *browser) toDirectory(back string) url.Values {
	b.w.t.Helper()
	a := b.get("/staff/signin?return=" + url.QueryEscape(back))
	if a.status != http.StatusSeeOther {
		b.w.t.Fatalf("staff sign-in: %d %s", a.status, a.text())
	}
	return a.query()
}

func TestStaffSignIn(t *testing.T) {
	w, d := staffWorld(t)
	b := w.browser()
	a := b.get("/desk?tab=1")
	if a.location != "/staff/signin?return=%2Fdesk%3Ftab%3D1" {
		t.Fatalf("desk when signed out: %d %s", a.status, a.location)
	}
	q := b.get(a.location).query()
	if q.Get("code_challenge_method") != "S256" || q.Get("nonce") == "" || q.Get("state") == "" || q.Get("scope") != "openid profile email groups" {
		t.Fatalf("the directory is asked %v", q)
	}
	d.claims = map[string]any{"nonce": q.Get("nonce")}
	a = b.get("/staff/callback?" + url.Values{"code": {"c"}, "state": {q.Get("state")}, "iss": {d.URL}}.Encode())
	if a.status != http.StatusSeeOther || a.location != "/desk?tab=1" {
		t.Fatalf("callback: %d %s %s", a.status, a.location, a.text())
	}
	if challenge(d.verify) != q.Get("code_challenge") {
		t.Error("the verifier does not belong to the challenge")
	}
	if got := b.get("/desk"); got.body != "desk of Demo Clerk" {
		t.Errorf("desk: %d %s", got.status, got.body)
	}
	if got := b.get("/"); got.body != "hello " || b.cookie("guichet") != "" {
		t.Error("a member of staff is taken for a resident")
	}
	if got := b.post("/staff/signout", nil); got.location != "/signed-out" {
		t.Errorf("sign-out: %d %s", got.status, got.location)
	}
	if got := b.get("/desk"); got.status != http.StatusSeeOther {
		t.Errorf("desk after sign-out: %d", got.status)
	}
}

func TestAResidentIsNoStaff(t *testing.T) {
	w, _ := staffWorld(t)
	b := w.browser()
	b.code(w.parking(), "demo@example.com")
	b.setCookie("guichet-staff", b.cookie("guichet"))
	if got := b.get("/desk"); got.status != http.StatusSeeOther {
		t.Errorf("a resident's session opens the desk: %d", got.status)
	}
}

func TestADirectoryThatLiesSignsNobodyIn(t *testing.T) {
	w, d := staffWorld(t)
	forger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	tests := map[string]func(q, back url.Values){
		"another nonce":           func(url.Values, url.Values) { d.claims["nonce"] = "n" },
		"no nonce":                func(url.Values, url.Values) { delete(d.claims, "nonce") },
		"another audience":        func(url.Values, url.Values) { d.claims["aud"] = "somebody" },
		"another issuer inside":   func(url.Values, url.Values) { d.claims["iss"] = "https://evil.example" },
		"expired":                 func(url.Values, url.Values) { d.claims["exp"] = w.clock().Add(-time.Minute).Unix() },
		"eleven minutes old":      func(url.Values, url.Values) { d.claims["iat"] = w.clock().Add(-11 * time.Minute).Unix() },
		"from the future":         func(url.Values, url.Values) { d.claims["iat"] = w.clock().Add(5 * time.Minute).Unix() },
		"forged signature":        func(url.Values, url.Values) { d.signer = forger },
		"unknown key":             func(url.Values, url.Values) { d.signer, d.kid = forger, "k2" },
		"another issuer's answer": func(_, back url.Values) { back.Set("iss", "https://evil.example") },
		"no issuer in the answer": func(_, back url.Values) { back.Del("iss") },
		"token endpoint moved":    func(url.Values, url.Values) { d.moved = true },
		"access_denied":           func(_, back url.Values) { back.Set("error", "access_denied") },
		"another state":           func(_, back url.Values) { back.Set("state", id.Secret()) },
		"repeated state":          func(_, back url.Values) { back.Add("state", "x") },
		"userinfo of another": func(url.Values, url.Values) {
			d.claims["name"], d.info = "", map[string]any{"sub": "staff-2", "name": "Somebody Else"}
		},
	}
	for name, lie := range tests {
		t.Run(name, func(t *testing.T) {
			d.signer, d.kid, d.moved, d.info = d.key, "k1", false, nil
			b := w.browser()
			q := b.toDirectory("/desk")
			d.claims = map[string]any{"nonce": q.Get("nonce")}
			back := url.Values{"code": {"c"}, "state": {q.Get("state")}, "iss": {d.URL}}
			lie(q, back)
			r, err := http.NewRequest(http.MethodGet, w.url+"/staff/callback?"+back.Encode(), nil)
			must(t, err)
			resp, err := b.client.Do(r)
			must(t, err)
			resp.Body.Close()
			if resp.StatusCode < 400 || resp.StatusCode == http.StatusInternalServerError || b.cookie("guichet-staff") != "" {
				t.Errorf("status %d, cookie %q", resp.StatusCode, b.cookie("guichet-staff"))
			}
		})
	}
	d.signer, d.kid, d.moved, d.info = d.key, "k1", false, nil
	b := w.browser()
	q := b.toDirectory("/desk")
	d.claims = map[string]any{"nonce": q.Get("nonce")}
	back := "/staff/callback?" + url.Values{"code": {"c"}, "state": {q.Get("state")}, "iss": {d.URL}}.Encode()
	if got := w.browser().get(back); got.status != http.StatusBadRequest {
		t.Errorf("the answer in another browser: %d", got.status)
	}
	if got := b.get(back); got.status != http.StatusSeeOther {
		t.Errorf("the true answer: %d %s", got.status, got.text())
	}
	if got := b.get(back); got.status != http.StatusBadRequest {
		t.Errorf("the answer a second time: %d", got.status)
	}
}

func TestStaffWithoutARoleIsTold(t *testing.T) {
	w, d := staffWorld(t)
	b := w.browser()
	q := b.toDirectory("https://evil.example/")
	d.claims = map[string]any{"nonce": q.Get("nonce"), "sub": "staff-9", "groups": []string{}}
	a := b.get("/staff/callback?" + url.Values{"code": {"c"}, "state": {q.Get("state")}, "iss": {d.URL}}.Encode())
	if a.status != http.StatusForbidden || !strings.Contains(a.text(), "no role") || b.cookie("guichet-staff") != "" {
		t.Errorf("%d %s", a.status, a.text())
	}
}

func TestStaffSignInWithoutADirectory(t *testing.T) {
	w := newWorld(t)
	r, err := http.Get(w.url + "/staff/signin")
	must(t, err)
	r.Body.Close()
	if r.StatusCode != http.StatusServiceUnavailable || r.Header.Get("Retry-After") == "" {
		t.Errorf("%d, Retry-After %q", r.StatusCode, r.Header.Get("Retry-After"))
	}
}
