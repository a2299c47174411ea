package oidc_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/riverqueue/river"

	"guichet/identity/provider"
	"guichet/internal/jobs"
)

// A listener is where an application takes logout tokens.
type listener struct {
	*httptest.Server
	got    chan string
	status int
}

func newListener(t *testing.T, status int) *listener {
	l := &listener{got: make(chan string, 10), status: status}
	l.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" || r.Method != http.MethodPost {
			t.Errorf("%s %s", r.Method, r.Header.Get("Content-Type"))
		}
		l.got <- r.PostFormValue("logout_token")
		if l.status == http.StatusFound {
			w.Header().Set("Location", "http://127.0.0.1:1/")
		}
		w.WriteHeader(l.status)
	}))
	t.Cleanup(l.Close)
	return l
}

func (l *listener) wait(t *testing.T) string {
	t.Helper()
	select {
	case token := <-l.got:
		return token
	case <-time.After(30 * time.Second):
		t.Fatal("no logout token arrived")
		return ""
	}
}

// work starts the job queue.
func (w *world) work() {
	w.t.Helper()
	workers := river.NewWorkers()
	w.provider.AddWorkers(workers)
	must(w.t, w.queue.Work(w.t.Context(), jobs.Options{Workers: workers}))
	w.t.Cleanup(func() { _ = w.queue.Stop(context.Background()) })
}

// verified checks a signature against the published keys, and returns header and claims.
func (w *world) verified(token string) (typ string, claims map[string]any, err error) {
	w.t.Helper()
	resp, err := http.Get(w.url + "/oidc/jwks")
	must(w.t, err)
	defer resp.Body.Close()
	var set jose.JSONWebKeySet
	must(w.t, json.NewDecoder(resp.Body).Decode(&set))
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256, jose.RS256})
	if err != nil {
		return "", nil, err
	}
	body, err := jws.Verify(set)
	if err != nil {
		return "", nil, err
	}
	must(w.t, json.Unmarshal(body, &claims))
	typ, _ = jws.Signatures[0].Protected.ExtraHeaders[jose.HeaderType].(string)
	return typ, claims, nil
}

// oidcc-backchannel-rp-initiated-logout
func TestBackChannelLogout(t *testing.T) {
	w := newWorld(t)
	w.work()
	one, two, foreign := newListener(t, 200), newListener(t, 204), newListener(t, 200)
	listen := func(name string, l *listener) *app {
		return w.app(name, w.department(strings.ReplaceAll(name, "-", ""), name), provider.NewClient{
			FirstParty: true, Policy: provider.Policy{LogoutURI: l.URL + "/logout", LogoutPrivate: true},
		})
	}
	a, b, never := listen("parking-portal", one), listen("water-portal", two), listen("permit-portal", foreign)
	me, other := w.browser(), w.browser()
	other.code(never, "other@example.com")
	first := a.redeem(me.code(a, "demo@example.com"))
	got := me.get(b.authorizeURL(with(b.request(), "scope", "openid")))
	second := b.redeem(got.query().Get("code"))
	me.get("/oidc/logout?" + url.Values{"id_token_hint": {first.IDToken}}.Encode())
	for _, c := range []struct {
		l  *listener
		a  *app
		id string
	}{{one, a, first.IDToken}, {two, b, second.IDToken}} {
		typ, claims, err := w.verified(c.l.wait(t))
		must(t, err)
		own := claimsOf(t, c.id)
		if typ != "logout+jwt" || claims["iss"] != w.url || claims["aud"] != c.a.id || claims["sub"] != own["sub"] || claims["sid"] != own["sid"] || claims["jti"] == nil {
			t.Errorf("%s: typ %s, %v; the ID token said %v", c.a.id, typ, claims, own)
		}
		if claims["exp"].(float64)-claims["iat"].(float64) > 120 {
			t.Errorf("%s: lives too long: %v", c.a.id, claims)
		}
		if events, _ := claims["events"].(map[string]any); len(events) != 1 || events["http://schemas.openid.net/event/backchannel-logout"] == nil {
			t.Errorf("%s: events %v", c.a.id, claims["events"])
		}
		for _, absent := range []string{"nonce", "email", "name"} {
			if _, ok := claims[absent]; ok {
				t.Errorf("%s: %s does not belong there", c.a.id, absent)
			}
		}
	}
	select {
	case <-foreign.got:
		t.Error("a client of another session was told")
	default:
	}
	deadline := time.After(30 * time.Second)
	for w.events("logout.backchannel.sent") < 2 {
		select {
		case <-deadline:
			t.Fatalf("%d audit rows, want 2", w.events("logout.backchannel.sent"))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func TestAttack60ForgedLogoutTokens(t *testing.T) {
	w := newWorld(t)
	l := newListener(t, 200)
	a := w.app("parking-portal", w.department("parking", "Parking"), provider.NewClient{
		FirstParty: true, Policy: provider.Policy{LogoutURI: l.URL, LogoutPrivate: true},
	})
	idToken := a.redeem(w.browser().code(a, "demo@example.com")).IDToken
	args := w.noticeOf(a)
	must(t, w.provider.SendLogout(t.Context(), args, false))
	token := <-l.got
	if typ, _, err := w.verified(token); err != nil || typ != "logout+jwt" {
		t.Fatalf("typ %s, %v", typ, err)
	}
	// What a library checks: signature, then the type and the event. An ID token has neither,
	// and a logout token cannot be taken for one: its typ differs and it has no nonce.
	if typ, claims, err := w.verified(idToken); err != nil || typ == "logout+jwt" || claims["events"] != nil {
		t.Errorf("an ID token passes for a logout token: %s %v", typ, claims)
	}
	parts := strings.Split(token, ".")
	thief := w.holder()
	for name, forged := range map[string]string{
		"unsigned": "eyJhbGciOiJub25lIn0." + parts[1] + ".", "another body": parts[0] + "." + strings.Split(idToken, ".")[1] + "." + parts[2],
		"another key": thief.sign(map[string]any{"alg": "ES256", "typ": "logout+jwt"}, claimsOf(t, token)),
	} {
		if _, _, err := w.verified(forged); err == nil {
			t.Errorf("%s: the published keys verify it", name)
		}
	}
}

// noticeOf is the job about the one session that was used with a client.
func (w *world) noticeOf(a *app) provider.LogoutArgs {
	w.t.Helper()
	args := provider.LogoutArgs{ClientID: a.id}
	must(w.t, w.db.QueryRow(w.t.Context(), `select session_id from identity.session_client where client_id = $1`, a.id).Scan(&args.SessionID))
	return args
}

func TestLogoutNoticesStayOutsideAndEnd(t *testing.T) {
	w := newWorld(t)
	dept := w.department("parking", "Parking")
	inside, moved, broken := newListener(t, 200), newListener(t, http.StatusFound), newListener(t, 500)
	// Registered as https on a public name, the name then resolves to this machine: as after
	// a change of DNS, the connection has to notice.
	sly := w.app("sly-portal", dept, provider.NewClient{FirstParty: true, Policy: provider.Policy{LogoutURI: "https://localhost:" + strings.Split(inside.URL, ":")[2]}})
	redirecting := w.app("moved-portal", dept, provider.NewClient{FirstParty: true, Policy: provider.Policy{LogoutURI: moved.URL, LogoutPrivate: true}})
	failing := w.app("broken-portal", dept, provider.NewClient{FirstParty: true, Policy: provider.Policy{LogoutURI: broken.URL, LogoutPrivate: true}})
	b := w.browser()
	b.code(sly, "demo@example.com")
	b.again(redirecting)
	b.again(failing)
	for _, a := range []*app{sly, redirecting, failing} {
		err := w.provider.SendLogout(t.Context(), w.noticeOf(a), false)
		if err == nil {
			t.Errorf("%s: taken for delivered", a.id)
		} else if strings.Contains(err.Error(), "logout_token") || strings.Contains(err.Error(), "eyJ") {
			t.Errorf("%s: the error shows the token: %v", a.id, err)
		}
		must(t, w.provider.SendLogout(t.Context(), w.noticeOf(a), true)) // the last try is recorded, not parked
	}
	if len(inside.got) != 0 || w.events("logout.backchannel.failed") != 3 {
		t.Errorf("%d reached the inside, %d failures recorded", len(inside.got), w.events("logout.backchannel.failed"))
	}
	var pauses []time.Duration
	at := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	for attempt := 1; attempt < (provider.LogoutArgs{}).InsertOpts().MaxAttempts; attempt++ {
		pauses = append(pauses, provider.NextLogoutTry(attempt, at).Sub(at))
	}
	if want := []time.Duration{time.Minute, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour}; !slices.Equal(pauses, want) {
		t.Errorf("pauses %v, want %v", pauses, want)
	}
}
