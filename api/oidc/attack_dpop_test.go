package oidc_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"guichet/identity/provider"
	"guichet/internal/id"
)

// A holder proves possession of a key, rightly unless told otherwise.
type holder struct {
	w   *world
	alg jose.SignatureAlgorithm
	key crypto.Signer
}

func (w *world) holder() *holder {
	w.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(w.t, err)
	return &holder{w, jose.ES256, key}
}

func (h *holder) jkt() string {
	jwk := jose.JSONWebKey{Key: h.key.Public()}
	sum, err := jwk.Thumbprint(crypto.SHA256)
	must(h.w.t, err)
	return base64.RawURLEncoding.EncodeToString(sum)
}

// proof makes a proof; change breaks its claims or header.
func (h *holder) proof(method, path string, change ...func(header, claims map[string]any)) string {
	h.w.t.Helper()
	public, err := json.Marshal(jose.JSONWebKey{Key: h.key.Public()})
	must(h.w.t, err)
	var jwk any
	must(h.w.t, json.Unmarshal(public, &jwk))
	header := map[string]any{"typ": "dpop+jwt", "alg": string(h.alg), "jwk": jwk}
	claims := map[string]any{"jti": id.Secret(), "htm": method, "htu": h.w.url + path, "iat": h.w.clock().Unix()}
	for _, c := range change {
		c(header, claims)
	}
	return h.sign(header, claims)
}

// sign makes a JWT byte by byte: libraries refuse to make wrong ones.
func (h *holder) sign(header, claims map[string]any) string {
	part := func(v any) string {
		b, err := json.Marshal(v)
		must(h.w.t, err)
		return base64.RawURLEncoding.EncodeToString(b)
	}
	text := part(header) + "." + part(claims)
	sum := sha256.Sum256([]byte(text))
	var signature []byte
	switch k := h.key.(type) {
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, k, sum[:])
		must(h.w.t, err)
		signature = append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	case ed25519.PrivateKey:
		signature = ed25519.Sign(k, []byte(text))
	case *rsa.PrivateKey:
		var err error
		signature, err = rsa.SignPKCS1v15(rand.Reader, k, crypto.SHA256, sum[:])
		must(h.w.t, err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func dpop(proofs ...string) func(*http.Request) {
	return func(r *http.Request) {
		for _, p := range proofs {
			r.Header.Add("DPoP", p)
		}
	}
}

// bound redeems a code with the holder's key.
func (h *holder) bound(a *app, code string) tokens {
	h.w.t.Helper()
	tok := a.post(a.tokenForm(code), dpop(h.proof("POST", "/oidc/token")))
	if tok.status != http.StatusOK || tok.TokenType != "DPoP" {
		h.w.t.Fatalf("bound token: %d %s", tok.status, tok.body)
	}
	return tok
}

// ath names the access token in a proof.
func ath(token string) func(header, claims map[string]any) {
	sum := sha256.Sum256([]byte(token))
	return func(_, claims map[string]any) { claims["ath"] = base64.RawURLEncoding.EncodeToString(sum[:]) }
}

// show presents a token at userinfo.
func (w *world) show(scheme, token string, proofs ...string) (int, string, http.Header) {
	w.t.Helper()
	r, err := http.NewRequest(http.MethodGet, w.url+"/oidc/userinfo", nil)
	must(w.t, err)
	r.Header.Set("Authorization", scheme+" "+token)
	dpop(proofs...)(r)
	resp, err := http.DefaultClient.Do(r)
	must(w.t, err)
	resp.Body.Close()
	return resp.StatusCode, resp.Header.Get("WWW-Authenticate"), resp.Header
}

func claim(name string, value any) func(header, claims map[string]any) {
	return func(_, claims map[string]any) { claims[name] = value }
}

func head(name string, value any) func(header, claims map[string]any) {
	return func(header, _ map[string]any) { header[name] = value }
}

func TestAttacksOnProofs(t *testing.T) {
	w := newWorld(t)
	dept := w.department("parking", "Parking")
	a := w.offline("parking-portal", dept, provider.NewClient{})
	strict := w.offline("strict-portal", dept, provider.NewClient{Policy: provider.Policy{DPoP: provider.DPoPRequired}})
	nonce := w.offline("nonce-portal", dept, provider.NewClient{Policy: provider.Policy{DPoP: provider.DPoPNonce}})
	b := w.browser()
	b.code(a, "demo@example.com")
	me, thief := w.holder(), w.holder()
	refused := func(t *testing.T, name string, tok tokens) {
		t.Helper()
		if tok.status != http.StatusBadRequest || tok.Error != "invalid_dpop_proof" || tok.AccessToken != "" {
			t.Errorf("%s: %d %s, want invalid_dpop_proof", name, tok.status, tok.body)
		}
	}

	t.Run("53 wrong method, address, time or a jti again", func(t *testing.T) {
		code := b.again(a)
		try := func(change ...func(header, claims map[string]any)) tokens {
			return a.post(a.tokenForm(code), dpop(me.proof("POST", "/oidc/token", change...)))
		}
		for name, change := range map[string]func(header, claims map[string]any){
			"htm": claim("htm", "GET"), "htm in small": claim("htm", "post"), "htu": claim("htu", w.url+"/oidc/userinfo"), "htu of another host": claim("htu", "https://evil.example/oidc/token"),
			"no htu": claim("htu", ""), "old": claim("iat", w.clock().Add(-61*time.Second).Unix()), "of tomorrow": claim("iat", w.clock().Add(61*time.Second).Unix()),
			"no iat": claim("iat", nil), "no jti": claim("jti", ""), "huge jti": claim("jti", strings.Repeat("j", 1000)), "ath where there is no token": ath("x"),
		} {
			refused(t, name, try(change))
		}
		proof := me.proof("POST", "/oidc/token", claim("htu", w.url+"/oidc/token?x=1#y"))
		if tok := a.post(a.tokenForm(code), dpop(proof)); tok.status != http.StatusOK {
			t.Fatalf("query and fragment count: %d %s", tok.status, tok.body)
		}
		refused(t, "replayed", a.post(a.tokenForm(b.again(a)), dpop(proof)))
	})
	t.Run("54 private key, alg none, two headers, foreign signature", func(t *testing.T) {
		code := b.again(a)
		private, err := json.Marshal(jose.JSONWebKey{Key: me.key})
		must(t, err)
		var jwk any
		must(t, json.Unmarshal(private, &jwk))
		big, err := rsa.GenerateKey(rand.Reader, 2048)
		must(t, err)
		good := me.proof("POST", "/oidc/token")
		parts := strings.Split(good, ".")
		foreign := strings.Split(thief.proof("POST", "/oidc/token"), ".")
		for name, proofs := range map[string][]string{
			"private jwk": {me.proof("POST", "/oidc/token", head("jwk", jwk))}, "alg none": {me.proof("POST", "/oidc/token", head("alg", "none"))},
			"HS256": {me.proof("POST", "/oidc/token", head("alg", "HS256"))}, "RS256": {(&holder{w, jose.RS256, big}).proof("POST", "/oidc/token")},
			"another typ": {me.proof("POST", "/oidc/token", head("typ", "JWT"))}, "no jwk": {me.proof("POST", "/oidc/token", head("jwk", nil))},
			"two": {good, me.proof("POST", "/oidc/token")}, "foreign signature": {parts[0] + "." + parts[1] + "." + foreign[2]}, "unsigned": {parts[0] + "." + parts[1] + "."}, "nonsense": {"x"}, "empty": {""},
		} {
			refused(t, name, a.post(a.tokenForm(code), dpop(proofs...)))
		}
		_, key, err := ed25519.GenerateKey(rand.Reader)
		must(t, err)
		(&holder{w, jose.EdDSA, key}).bound(a, code) // the other algorithm, and the code is unharmed
	})
	t.Run("55 bound token as Bearer, wrong ath, another key", func(t *testing.T) {
		tok := me.bound(a, b.again(a))
		for name, c := range map[string]struct {
			scheme, token string
			proofs        []string
		}{
			"Bearer":            {"Bearer", tok.AccessToken, nil},
			"Bearer with proof": {"Bearer", tok.AccessToken, []string{me.proof("GET", "/oidc/userinfo", ath(tok.AccessToken))}},
			"no proof":          {"DPoP", tok.AccessToken, nil},
			"no ath":            {"DPoP", tok.AccessToken, []string{me.proof("GET", "/oidc/userinfo")}},
			"wrong ath":         {"DPoP", tok.AccessToken, []string{me.proof("GET", "/oidc/userinfo", ath("x"))}},
			"another key":       {"DPoP", tok.AccessToken, []string{thief.proof("GET", "/oidc/userinfo", ath(tok.AccessToken))}},
			"another method":    {"DPoP", tok.AccessToken, []string{me.proof("POST", "/oidc/userinfo", ath(tok.AccessToken))}},
		} {
			if status, challenge, _ := w.show(c.scheme, c.token, c.proofs...); status != http.StatusUnauthorized || !strings.Contains(challenge, "error=") {
				t.Errorf("%s: %d %s", name, status, challenge)
			}
		}
		proof := me.proof("GET", "/oidc/userinfo", ath(tok.AccessToken))
		if status, challenge, _ := w.show("DPoP", tok.AccessToken, proof); status != http.StatusOK {
			t.Errorf("rightly: %d %s", status, challenge)
		}
		if status, _, _ := w.show("DPoP", tok.AccessToken, proof); status != http.StatusUnauthorized {
			t.Errorf("the same proof again: %d", status)
		}
		plain := a.redeem(b.again(a))
		if status, _, _ := w.show("DPoP", plain.AccessToken, me.proof("GET", "/oidc/userinfo", ath(plain.AccessToken))); status != http.StatusUnauthorized {
			t.Errorf("an unbound token as DPoP: %d", status)
		}
		if got := a.introspect(tok.AccessToken); !strings.Contains(got.body, `"cnf":{"jkt":"`+me.jkt()+`"}`) || got.TokenType != "DPoP" {
			t.Errorf("introspection: %s", got.body)
		}
	})
	t.Run("56 dpop_jkt of another key, or the proof left out", func(t *testing.T) {
		code := func() string {
			return b.get(a.authorizeURL(with(a.request(), "dpop_jkt", me.jkt()))).query().Get("code")
		}
		c := code()
		dead(t, "left out", a.redeem(c), "invalid_grant")
		dead(t, "another key", a.post(a.tokenForm(c), dpop(thief.proof("POST", "/oidc/token"))), "invalid_grant")
		me.bound(a, c)
		if got := b.get(a.authorizeURL(with(a.request(), "dpop_jkt", "short"))); got.query().Get("error") != "invalid_request" {
			t.Errorf("no thumbprint: %s", got.location)
		}
		pushed := a.call("/oidc/par", a.request(), dpop(me.proof("POST", "/oidc/par")))
		c = b.get(a.authorizeURL(url.Values{"client_id": {a.id}, "request_uri": {pushed.RequestURI}})).query().Get("code")
		dead(t, "pushed with a proof, redeemed without", a.redeem(c), "invalid_grant")
		me.bound(a, c)
		refused(t, "pushed with two keys", a.call("/oidc/par", with(a.request(), "dpop_jkt", thief.jkt()), dpop(me.proof("POST", "/oidc/par"))))
		refused(t, "a client that must", strict.redeem(b.again(strict)))
		me.bound(strict, b.again(strict))
	})
	t.Run("a refresh token of a client without a secret stays with its key", func(t *testing.T) {
		native := w.offline("parking-mobile", dept, provider.NewClient{Type: provider.Native, RedirectURIs: []string{"http://127.0.0.1/callback"}})
		native.redirect = "http://127.0.0.1:5000/callback"
		code := b.get(native.authorizeURL(with(native.request(), "scope", "openid offline_access"))).query().Get("code")
		form := with(native.tokenForm(code), "client_id", native.id)
		tok := native.post(form, dpop(me.proof("POST", "/oidc/token")))
		if tok.status != http.StatusOK || tok.RefreshToken == "" {
			t.Fatalf("%d %s", tok.status, tok.body)
		}
		again := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {tok.RefreshToken}, "client_id": {native.id}}
		dead(t, "no proof", native.post(again), "invalid_grant")
		dead(t, "another key", native.post(again, dpop(thief.proof("POST", "/oidc/token"))), "invalid_grant")
		if tok := native.post(again, dpop(me.proof("POST", "/oidc/token"))); tok.status != http.StatusOK || tok.TokenType != "DPoP" {
			t.Errorf("its key: %d %s", tok.status, tok.body)
		}
	})
	t.Run("a client that needs our nonce", func(t *testing.T) {
		code := b.again(nonce)
		first := nonce.post(nonce.tokenForm(code), dpop(me.proof("POST", "/oidc/token")))
		value := first.header.Get("DPoP-Nonce")
		if first.status != http.StatusBadRequest || first.Error != "use_dpop_nonce" || value == "" {
			t.Fatalf("%d %s %v", first.status, first.body, first.header)
		}
		dead(t, "a nonce of its own", nonce.post(nonce.tokenForm(code), dpop(me.proof("POST", "/oidc/token", claim("nonce", "x")))), "use_dpop_nonce")
		tok := nonce.post(nonce.tokenForm(code), dpop(me.proof("POST", "/oidc/token", claim("nonce", value))))
		if tok.status != http.StatusOK {
			t.Fatalf("%d %s", tok.status, tok.body)
		}
		status, challenge, header := w.show("DPoP", tok.AccessToken, me.proof("GET", "/oidc/userinfo", ath(tok.AccessToken)))
		if status != http.StatusUnauthorized || !strings.Contains(challenge, "use_dpop_nonce") || header.Get("DPoP-Nonce") == "" {
			t.Errorf("userinfo without: %d %s", status, challenge)
		}
		if status, challenge, _ := w.show("DPoP", tok.AccessToken, me.proof("GET", "/oidc/userinfo", ath(tok.AccessToken), claim("nonce", value))); status != http.StatusOK {
			t.Errorf("userinfo with: %d %s", status, challenge)
		}
		w.later(10 * time.Minute)
		dead(t, "an old nonce", nonce.post(nonce.tokenForm(b.again(nonce)), dpop(me.proof("POST", "/oidc/token", claim("nonce", value)))), "use_dpop_nonce")
	})
}

func TestAttack36ClientAssertions(t *testing.T) {
	w := newWorld(t)
	me, thief := w.holder(), w.holder()
	keys := &jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: me.key.Public(), KeyID: "k1", Use: "sig", Algorithm: "ES256"}}}
	dept := w.department("parking", "Parking")
	a := w.app("parking-portal", dept, provider.NewClient{FirstParty: true, AuthMethod: provider.PrivateKey, Policy: provider.Policy{Keys: keys, AssertionAlg: "ES256"}})
	fapi := w.app("fapi-portal", dept, provider.NewClient{FirstParty: true, AuthMethod: provider.PrivateKey, Policy: provider.Policy{
		Keys: keys, AssertionAlg: "ES256", FAPI2: true, DPoP: provider.DPoPRequired,
	}})
	poster := w.app("post-portal", dept, provider.NewClient{FirstParty: true})
	if a.secret != "" {
		t.Fatal("a client with a key got a secret, too")
	}
	assertion := func(c *app, h *holder, change ...func(header, claims map[string]any)) string {
		header := map[string]any{"alg": "ES256", "kid": "k1"}
		claims := map[string]any{"iss": c.id, "sub": c.id, "aud": w.url, "jti": id.Secret(), "exp": w.clock().Add(time.Minute).Unix(), "iat": w.clock().Unix()}
		for _, f := range change {
			f(header, claims)
		}
		return h.sign(header, claims)
	}
	b := w.browser()
	b.code(poster, "demo@example.com")
	try := func(c *app, text, code string) tokens {
		form := with(c.tokenForm(code), "client_assertion", text, "client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		return c.post(form)
	}
	unknown := poster.post(poster.tokenForm("x"), func(r *http.Request) { r.Header.Del("Authorization") })
	code := b.again(a)
	public, err := json.Marshal(keys.Keys[0])
	must(t, err)
	hmac := func(key []byte) string { // what a library would sign that takes the public key for a secret
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: key}, nil)
		must(t, err)
		body, err := json.Marshal(map[string]any{"iss": a.id, "sub": a.id, "aud": w.url, "jti": "h", "exp": w.clock().Add(time.Minute).Unix()})
		must(t, err)
		jws, err := signer.Sign(body)
		must(t, err)
		text, err := jws.CompactSerialize()
		must(t, err)
		return text
	}
	good := assertion(a, me)
	for name, text := range map[string]string{
		"alg none": assertion(a, me, head("alg", "none")), "HS256 with the public key": hmac(public), "another key": assertion(a, thief), "foreign aud": assertion(a, me, claim("aud", "https://other.example")),
		"no aud": assertion(a, me, claim("aud", nil)), "another iss": assertion(a, me, claim("iss", poster.id)), "another sub": assertion(a, me, claim("sub", poster.id)),
		"expired": assertion(a, me, claim("exp", w.clock().Add(-2*time.Minute).Unix())), "of far": assertion(a, me, claim("exp", w.clock().Add(time.Hour).Unix())), "no exp": assertion(a, me, claim("exp", nil)),
		"not yet": assertion(a, me, claim("nbf", w.clock().Add(time.Hour).Unix())), "no jti": assertion(a, me, claim("jti", "")), "unknown kid": assertion(a, me, head("kid", "k2")), "another alg": assertion(a, me, head("alg", "PS256")),
		"names in capitals": assertion(a, me, claim("exp", nil), claim("EXP", w.clock().Add(time.Minute).Unix())), "nonsense": "x", "empty": "",
	} {
		if tok := try(a, text, code); tok.status != http.StatusUnauthorized || tok.Error != "invalid_client" || tok.body != unknown.body {
			t.Errorf("%s: %d %s", name, tok.status, tok.body)
		}
	}
	if tok := try(a, good, code); tok.status != http.StatusOK {
		t.Fatalf("a good one: %d %s", tok.status, tok.body)
	}
	if tok := try(a, good, b.again(a)); tok.status != http.StatusUnauthorized {
		t.Errorf("a jti again: %d %s", tok.status, tok.body)
	}
	if tok := try(a, assertion(a, me, claim("aud", []string{w.url + "/oidc/token", "https://x.example"})), b.again(a)); tok.status != http.StatusOK {
		t.Errorf("the token endpoint as aud: %d %s", tok.status, tok.body)
	}
	if tok := a.post(with(a.tokenForm(b.again(a)), "client_assertion", assertion(a, me), "client_assertion_type", "x")); tok.Error != "invalid_client" {
		t.Errorf("another type: %s", tok.body)
	}
	both := with(a.tokenForm("x"), "client_assertion", assertion(a, me), "client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer", "client_secret", "x")
	if tok := a.post(both); tok.status != http.StatusBadRequest || tok.Error != "invalid_request" {
		t.Errorf("two ways: %d %s", tok.status, tok.body)
	}
	if tok := try(poster, assertion(a, me, claim("iss", poster.id), claim("sub", poster.id)), b.again(poster)); tok.status == http.StatusOK {
		t.Errorf("a way that is not registered: %d %s", tok.status, tok.body)
	}

	t.Run("FAPI 2.0: the issuer alone, pushed, with a proof", func(t *testing.T) {
		if got := b.get(fapi.authorizeURL(fapi.request())); got.query().Get("error") != "invalid_request" {
			t.Errorf("not pushed: %d %s", got.status, got.location)
		}
		push := func(text string) tokens {
			return fapi.call("/oidc/par", with(fapi.request(), "client_assertion", text, "client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"), dpop(me.proof("POST", "/oidc/par")))
		}
		for name, aud := range map[string]any{"token endpoint": w.url + "/oidc/token", "both": []string{w.url, w.url + "/oidc/token"}} {
			if got := push(assertion(fapi, me, claim("aud", aud))); got.Error != "invalid_client" {
				t.Errorf("%s: %s", name, got.body)
			}
		}
		got := push(assertion(fapi, me))
		code := b.get(fapi.authorizeURL(url.Values{"client_id": {fapi.id}, "request_uri": {got.RequestURI}})).query().Get("code")
		form := with(fapi.tokenForm(code), "client_assertion", assertion(fapi, me), "client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		if tok := fapi.post(form, dpop(me.proof("POST", "/oidc/token"))); tok.status != http.StatusOK {
			t.Errorf("%d %s", tok.status, tok.body)
		}
	})
}
