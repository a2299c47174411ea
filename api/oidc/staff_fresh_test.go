package oidc_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/jackc/pgx/v5"

	"guichet/api/oidc"
	"guichet/identity"
	"guichet/identity/staff"
	"guichet/internal/id"
)

// comeBack answers a sign-in at the directory with claims.
func (b *browser) comeBack(d *directory, q url.Values, claims map[string]any) answer {
	b.w.t.Helper()
	d.mu.Lock()
	d.claims = map[string]any{"nonce": q.Get("nonce")}
	maps.Copy(d.claims, claims)
	d.mu.Unlock()
	return b.get("/staff/callback?" + url.Values{"code": {"c"}, "state": {q.Get("state")}, "iss": {d.URL}}.Encode())
}

// A screen that was left open approves nothing: the directory must ask again, and say
// that it did.
func TestStepUpAsksTheDirectoryAgain(t *testing.T) {
	d := newDirectory(t)
	w := newWorld(t, func(_ *identity.Config, o *oidc.Options) {
		o.Directory = oidc.Directory{Issuer: d.URL, ClientID: "guichet", ClientSecret: "secret", FreshACR: "phr"}
	})
	d.now = w.clock
	b := w.browser()
	if a := b.comeBack(d, b.toDirectory("/desk"), map[string]any{"auth_time": w.clock().Add(-time.Hour).Unix()}); a.location != "/desk" {
		t.Fatalf("sign-in: %d %s", a.status, a.text())
	}
	a := b.post("/desk/approve", url.Values{"do": {"approve"}})
	if a.status != http.StatusSeeOther || a.location != "/staff/signin?fresh=1&return=%2Fdesk%2Fapprove" {
		t.Fatalf("approving with an old proof: %d to %q", a.status, a.location)
	}
	q := b.get(a.location).query()
	if q.Get("prompt") != "login" || q.Get("max_age") != "0" || q.Get("acr_values") != "phr" {
		t.Errorf("the directory is asked %v", q)
	}
	for name, claims := range map[string]map[string]any{
		"no auth_time":           {"acr": "phr"},
		"an old auth_time":       {"acr": "phr", "auth_time": w.clock().Add(-6 * time.Minute).Unix()},
		"an auth_time to come":   {"acr": "phr", "auth_time": w.clock().Add(time.Hour).Unix()},
		"another kind of proof":  {"acr": "pwd", "auth_time": w.clock().Unix()},
		"no word about its kind": {"auth_time": w.clock().Unix()},
	} {
		q := b.get("/staff/signin?fresh=1&return=%2Fdesk%2Fapprove").query()
		d.mu.Lock()
		d.claims = map[string]any{"nonce": q.Get("nonce")}
		maps.Copy(d.claims, claims)
		d.mu.Unlock()
		resp, err := b.client.Get(w.url + "/staff/callback?" + url.Values{"code": {"c"}, "state": {q.Get("state")}, "iss": {d.URL}}.Encode())
		must(t, err)
		resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden && resp.StatusCode != http.StatusBadGateway {
			t.Errorf("%s: %d", name, resp.StatusCode)
		}
		if a := b.get("/desk/approve"); a.body == "approved" {
			t.Errorf("%s approves", name)
		}
	}
	q = b.get("/staff/signin?fresh=1&return=%2Fdesk%2Fapprove").query()
	if a := b.comeBack(d, q, map[string]any{"acr": "phr", "auth_time": w.clock().Unix()}); a.location != "/desk/approve" {
		t.Fatalf("a fresh proof: %d %s", a.status, a.text())
	}
	if a := b.post("/desk/approve", nil); a.body != "approved" {
		t.Errorf("with a fresh proof: %d to %q", a.status, a.location)
	}
	w.later(6 * time.Minute)
	if a := b.post("/desk/approve", nil); a.status != http.StatusSeeOther {
		t.Errorf("six minutes later: %d", a.status)
	}
}

// logoutToken is a correct one; change breaks it.
func (d *directory) logoutToken(t *testing.T, typ string, change map[string]any) string {
	t.Helper()
	claims := map[string]any{
		"iss": d.URL, "aud": "guichet", "sub": "staff-1", "iat": d.now().Unix(), "exp": d.now().Add(time.Minute).Unix(), "jti": id.New(),
		"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}},
	}
	for name, value := range change {
		if value == nil {
			delete(claims, name)
			continue
		}
		claims[name] = value
	}
	options := &jose.SignerOptions{}
	if typ != "" {
		options = options.WithType(jose.ContentType(typ))
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: d.signer, KeyID: d.kid}}, options)
	must(t, err)
	body, err := json.Marshal(claims)
	must(t, err)
	jws, err := signer.Sign(body)
	must(t, err)
	token, err := jws.CompactSerialize()
	must(t, err)
	return token
}

func TestTheDirectoryEndsStaffSessions(t *testing.T) {
	w, d := staffWorld(t)
	b := w.browser()
	signIn := func() {
		t.Helper()
		if a := b.comeBack(d, b.toDirectory("/desk"), map[string]any{"sid": "s1"}); a.status != http.StatusSeeOther {
			t.Fatalf("sign-in: %d %s", a.status, a.text())
		}
	}
	signedIn := func() bool { return b.get("/desk").status == http.StatusOK }
	post := func(token string) int {
		t.Helper()
		resp, err := http.PostForm(w.url+"/staff/backchannel-logout", url.Values{"logout_token": {token}})
		must(t, err)
		resp.Body.Close()
		if resp.Header.Get("Cache-Control") != "no-store" {
			t.Error("the answer may be cached")
		}
		return resp.StatusCode
	}
	signIn()
	other := newDirectory(t)
	other.now = d.now
	forged := &directory{Server: d.Server, now: d.now, signer: other.key, kid: d.kid}
	for name, token := range map[string]string{
		"nothing":             "",
		"no JWT":              "x.y.z",
		"another signature":   forged.logoutToken(t, "logout+jwt", nil),
		"another audience":    d.logoutToken(t, "logout+jwt", map[string]any{"aud": "another"}),
		"another issuer":      d.logoutToken(t, "logout+jwt", map[string]any{"iss": "https://evil.example"}),
		"a nonce":             d.logoutToken(t, "logout+jwt", map[string]any{"nonce": "n"}),
		"no event":            d.logoutToken(t, "logout+jwt", map[string]any{"events": nil}),
		"another event":       d.logoutToken(t, "logout+jwt", map[string]any{"events": map[string]any{"https://e.example": map[string]any{}}}),
		"an event of null":    d.logoutToken(t, "logout+jwt", map[string]any{"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": nil}}),
		"nobody":              d.logoutToken(t, "logout+jwt", map[string]any{"sub": nil}),
		"no jti":              d.logoutToken(t, "logout+jwt", map[string]any{"jti": nil}),
		"an old one":          d.logoutToken(t, "logout+jwt", map[string]any{"iat": d.now().Add(-3 * time.Minute).Unix()}),
		"one of the future":   d.logoutToken(t, "logout+jwt", map[string]any{"iat": d.now().Add(5 * time.Minute).Unix()}),
		"an expired one":      d.logoutToken(t, "logout+jwt", map[string]any{"exp": d.now().Unix()}),
		"an access token":     d.logoutToken(t, "at+jwt", nil),
		"an ID token, signed": d.logoutToken(t, "JWT", map[string]any{"events": nil, "nonce": "n", "jti": nil}),
	} {
		if status := post(token); status != http.StatusBadRequest || !signedIn() {
			t.Errorf("%s: %d, signed in %v", name, status, signedIn())
		}
	}
	if status := post(d.logoutToken(t, "logout+jwt", map[string]any{"sid": "s2"})); status != http.StatusOK || !signedIn() {
		t.Errorf("another session's sign-out: %d, signed in %v", status, signedIn())
	}
	for _, typ := range []string{"logout+jwt", "JWT", ""} {
		w.later(2 * time.Second)
		signIn()
		if status := post(d.logoutToken(t, typ, map[string]any{"sid": "s1", "exp": nil})); status != http.StatusOK || signedIn() {
			t.Errorf("type %q: %d, signed in %v", typ, status, signedIn())
		}
	}
}

func TestBreakGlassPage(t *testing.T) {
	w := newWorld(t)
	var code string
	must(t, pgx.BeginFunc(t.Context(), w.db, func(tx pgx.Tx) (err error) {
		_, code, err = w.staff.MakeBreakGlass(t.Context(), tx, "admin")
		return err
	}))
	b := w.browser()
	if a := b.get("/staff/break-glass"); a.status != http.StatusOK || !strings.Contains(a.text(), "sets off an alarm") {
		t.Errorf("%d %s", a.status, a.text())
	}
	a := b.post("/staff/break-glass", url.Values{"code": {code}, "name": {""}, "why": {"down"}})
	if a.status != http.StatusUnprocessableEntity || strings.Contains(a.body, code) {
		t.Errorf("without a name: %d", a.status)
	}
	a = b.post("/staff/break-glass", url.Values{"code": {"1234"}, "name": {"Demo Duty"}, "why": {"down"}})
	if a.status != http.StatusUnprocessableEntity || !strings.Contains(a.text(), "opens nothing") {
		t.Errorf("a wrong code: %d %s", a.status, a.text())
	}
	a = b.post("/staff/break-glass", url.Values{"code": {code}, "name": {"Demo Duty"}, "why": {"down"}})
	if a.status != http.StatusSeeOther || a.location != "/desk" {
		t.Fatalf("the right code: %d %s", a.status, a.text())
	}
	m, err := w.staff.Session(t.Context(), b.cookie("guichet-staff"))
	if err != nil || !m.BreakGlass || !m.Has(staff.Administrator, "") {
		t.Errorf("%+v, %v", m, err)
	}
	if sent := w.mail.all(); len(sent) != 1 || sent[0].Template != "break-glass" {
		t.Errorf("mail %+v", sent)
	}
	if a := b.get("/desk"); !strings.Contains(a.body, `class="alarm"`) {
		t.Errorf("the desk does not show the alarm: %s", a.body)
	}
	for range 12 {
		a = b.post("/staff/break-glass", url.Values{"code": {"1234"}, "name": {"x"}, "why": {"y"}})
	}
	if a.status != http.StatusTooManyRequests || a.header.Get("Retry-After") == "" {
		t.Errorf("guessing: %d", a.status)
	}
}
