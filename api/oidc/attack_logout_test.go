package oidc_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestAttacksOnLogout(t *testing.T) {
	w := newWorld(t)
	a := w.parking()
	b := w.browser()
	hint := a.redeem(b.code(a, "demo@example.com")).IDToken
	stranger := w.browser()
	foreign := a.redeem(stranger.code(a, "other@example.com")).IDToken
	bye := a.w.url + "/oidc/logout?"
	in := func() bool { return b.get("/").body == "hello Demo Resident" }
	logout := func(pairs ...string) answer {
		v := url.Values{}
		for i := 0; i < len(pairs); i += 2 {
			v.Set(pairs[i], pairs[i+1])
		}
		return b.get(bye + v.Encode())
	}
	asks := func(t *testing.T, name string, got answer) {
		t.Helper()
		if got.status != http.StatusOK || !strings.Contains(got.body, `action="/signout"`) || !in() {
			t.Errorf("%s: %d %s, signed in %v; want a question", name, got.status, got.location, in())
		}
	}
	const registered = "https://parking-portal.example/bye"

	t.Run("57 bare cross-site link", func(t *testing.T) {
		asks(t, "nothing", logout())
		asks(t, "client_id alone", logout("client_id", a.id, "post_logout_redirect_uri", registered))
		got := b.post("/oidc/logout", nil, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") })
		if got.status != http.StatusSeeOther || !in() {
			t.Errorf("cross-site POST: %d, signed in %v", got.status, in())
		}
	})
	t.Run("58 post_logout_redirect_uri unregistered", func(t *testing.T) {
		for _, uri := range []string{"https://evil.example/", "javascript:alert(1)", "//evil.example", registered + "/", registered + "?x", "https://parking-portal.example/callback", "\x00"} {
			got := logout("id_token_hint", hint, "post_logout_redirect_uri", uri)
			asks(t, uri, got)
			_, main, _ := strings.Cut(got.body, "<main") // above is the language switch: this address, as a query
			if strings.Contains(main, "evil") || strings.Contains(main, "javascript:") {
				t.Errorf("%s is on the page", uri)
			}
			quiet := w.browser()
			for _, form := range []url.Values{{"client_id": {a.id}, "post_logout_redirect_uri": {uri}}, {"post_logout_redirect_uri": {uri}}} {
				if got := quiet.post("/signout", form); got.location != "/signed-out" && got.status != http.StatusBadRequest {
					t.Errorf("after the question %s leads to %s", uri, got.location)
				}
			}
		}
	})
	t.Run("59 forged or foreign id_token_hint", func(t *testing.T) {
		parts := strings.Split(hint, ".")
		for name, forged := range map[string]string{
			"unsigned": "eyJhbGciOiJub25lIn0." + parts[1] + ".", "another body": parts[0] + "." + strings.Split(foreign, ".")[1] + "." + parts[2],
			"cut": parts[0] + "." + parts[1] + "." + parts[2][:10], "nonsense": "x", "HS256": "eyJhbGciOiJIUzI1NiJ9." + parts[1] + "." + parts[2],
		} {
			got := logout("id_token_hint", forged, "post_logout_redirect_uri", registered)
			if got.status != http.StatusBadRequest || !in() {
				t.Errorf("%s: %d %s, signed in %v; want a 400 page", name, got.status, got.location, in())
			}
		}
		asks(t, "another person's", logout("id_token_hint", foreign, "post_logout_redirect_uri", registered))
		if got := logout("id_token_hint", hint, "client_id", "nobody"); got.status != http.StatusBadRequest || !in() {
			t.Errorf("client_id that is not the token's: %d", got.status)
		}
	})
	t.Run("the question, answered", func(t *testing.T) {
		page := logout("client_id", a.id, "post_logout_redirect_uri", registered, "state", `"><b>`)
		if !strings.Contains(page.body, `value="`+registered+`"`) || strings.Contains(page.body, "<b>") {
			t.Fatalf("page: %s", page.body)
		}
		other := w.browser()
		other.code(a, "demo@example.com")
		got := other.post("/signout", url.Values{"client_id": {a.id}, "post_logout_redirect_uri": {registered}, "state": {"s 1"}})
		if got.location != registered+"?state=s+1" || other.get("/").body != "hello " {
			t.Errorf("%d %s, then %s", got.status, got.location, other.get("/").body)
		}
	})
	// oidcc-rp-initiated-logout
	t.Run("a good hint, expired, signs out and goes back with state", func(t *testing.T) {
		w.later(15 * time.Minute)
		old := b.cookie("guichet")
		got := logout("id_token_hint", hint, "post_logout_redirect_uri", registered, "state", "st-9")
		if got.status != http.StatusSeeOther || got.location != registered+"?state=st-9" || in() {
			t.Errorf("%d %s, signed in %v", got.status, got.location, in())
		}
		b.setCookie("guichet", old)
		if in() {
			t.Error("the old cookie still opens the session")
		}
	})
	t.Run("signed out already", func(t *testing.T) {
		if got := logout("id_token_hint", hint, "post_logout_redirect_uri", registered); got.location != registered {
			t.Errorf("with a hint: %d %s", got.status, got.location)
		}
		if got := logout("client_id", a.id, "post_logout_redirect_uri", registered); got.location != "/signed-out" {
			t.Errorf("bare link: %d %s", got.status, got.location)
		}
	})
}
