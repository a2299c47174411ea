package oidc_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"guichet/identity/provider"
)

// kiosk is an application on a device.
func (w *world) kiosk() *app {
	w.t.Helper()
	return w.app("kiosk-4", w.department("service", "Service Centre"), provider.NewClient{
		Name: provider.Words{EN: "Kiosk 4", FR: "Borne 4"}, FirstParty: true,
		Policy: provider.Policy{Device: true, Place: &provider.Words{EN: "City Hall, ground floor", FR: "Hôtel de ville, rez-de-chaussée"}},
	})
}

type deviceAnswer struct {
	DeviceCode string `json:"device_code"`
	UserCode   string `json:"user_code"`
	Page       string `json:"verification_uri"`
	Link       string `json:"verification_uri_complete"`
	ExpiresIn  int    `json:"expires_in"`
	Interval   int    `json:"interval"`
}

func (a *app) device() (d deviceAnswer) {
	a.w.t.Helper()
	got := a.call("/oidc/device_authorization", url.Values{"scope": {"openid email"}})
	must(a.w.t, json.Unmarshal([]byte(got.body), &d))
	if got.status != http.StatusOK || !regexp.MustCompile(`^[BCDFGHJKLMNPQRSTVWXZ]{4}-[BCDFGHJKLMNPQRSTVWXZ]{4}$`).MatchString(d.UserCode) || len(d.DeviceCode) != 43 {
		a.w.t.Fatalf("device: %d %s", got.status, got.body)
	}
	return d
}

func (a *app) poll(code string) tokens {
	a.w.t.Helper()
	return a.post(url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "device_code": {code}})
}

func TestAttack80DeviceCodePhishing(t *testing.T) {
	w := newWorld(t)
	a := w.kiosk()
	b := w.browser()
	d := a.device()
	if got := b.get(d.Link); got.status != http.StatusSeeOther || !strings.HasPrefix(got.location, "/signin?return=") {
		t.Fatalf("not signed in: %d %s", got.status, got.location)
	}
	b.code(w.parking(), "demo@example.com")
	// The link fills the code in. It shows no device, and lets nothing in.
	page := b.get(d.Link)
	if page.status != http.StatusOK || !strings.Contains(page.body, d.UserCode) || strings.Contains(page.body, `value="let in"`) {
		t.Errorf("the link: %d %s", page.status, page.text())
	}
	dead(t, "after the link", a.poll(d.DeviceCode), "authorization_pending")
	page = b.post("/device", url.Values{"do": {"find"}, "user_code": {strings.ToLower(strings.ReplaceAll(d.UserCode, "-", " "))}})
	for _, want := range []string{"Kiosk 4", "City Hall, ground floor", "must show exactly this code", "your e-mail address", "say no"} {
		if !strings.Contains(page.text(), want) {
			t.Errorf("the page does not say %q: %s", want, page.text())
		}
	}
	w.later(5 * time.Second)
	dead(t, "after the page", a.poll(d.DeviceCode), "authorization_pending")
	if got := b.post("/device", url.Values{"do": {"let in"}, "user_code": {d.UserCode}}, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }); got.status != http.StatusForbidden {
		t.Errorf("posted by another site: %d", got.status)
	}
	if french := b.post("/device?lang=fr", url.Values{"do": {"find"}, "user_code": {d.UserCode}}); !strings.Contains(french.text(), "rez-de-chaussée") {
		t.Errorf("in French: %s", french.text())
	}
	if got := b.post("/device", url.Values{"do": {"let in"}, "user_code": {d.UserCode}}); got.status != http.StatusOK {
		t.Fatalf("%d %s", got.status, got.text())
	}
	_, err := w.db.Exec(t.Context(), `update identity.device_code set acr = 2`) // the highest there is
	must(t, err)
	w.later(5 * time.Second)
	tok := a.poll(d.DeviceCode)
	if tok.status != http.StatusOK || tok.RefreshToken != "" || claimsOf(t, tok.IDToken)["acr"] != "urn:guichet:acr:2" {
		t.Fatalf("%d %s", tok.status, tok.body)
	}
	if _, info := w.userinfo(tok.AccessToken); info["email"] != "demo@example.com" {
		t.Errorf("userinfo %v", info)
	}
	w.later(5 * time.Second)
	dead(t, "again", a.poll(d.DeviceCode), "invalid_grant")
}

func TestDeviceGrant(t *testing.T) {
	w := newWorld(t)
	a := w.kiosk()
	park := w.parking()
	b := w.browser()
	b.code(park, "demo@example.com")
	answer := func(d deviceAnswer, do string) answer {
		return b.post("/device", url.Values{"do": {do}, "user_code": {d.UserCode}})
	}

	t.Run("asked too often it has to slow down, five seconds at a time", func(t *testing.T) {
		d := a.device()
		dead(t, "first", a.poll(d.DeviceCode), "authorization_pending")
		w.later(4 * time.Second)
		dead(t, "after 4 s", a.poll(d.DeviceCode), "slow_down")
		w.later(5 * time.Second)
		dead(t, "after 5 more", a.poll(d.DeviceCode), "slow_down")
		answer(d, "let in")
		w.later(14 * time.Second)
		dead(t, "let in, but too early", a.poll(d.DeviceCode), "slow_down")
		w.later(20 * time.Second)
		if tok := a.poll(d.DeviceCode); tok.status != http.StatusOK {
			t.Errorf("in time: %d %s", tok.status, tok.body)
		}
	})
	t.Run("no is access_denied, silence is expired_token", func(t *testing.T) {
		d := a.device()
		answer(d, "send away")
		dead(t, "no", a.poll(d.DeviceCode), "access_denied")
		if got := answer(d, "let in"); got.status != http.StatusUnprocessableEntity {
			t.Errorf("yes after no: %d", got.status)
		}
		d = a.device()
		w.later(10 * time.Minute)
		dead(t, "silence", a.poll(d.DeviceCode), "expired_token")
		if got := answer(d, "let in"); got.status != http.StatusUnprocessableEntity {
			t.Errorf("yes too late: %d", got.status)
		}
	})
	t.Run("only at the client that asked, and only for devices", func(t *testing.T) {
		d := a.device()
		dead(t, "another client", park.poll(d.DeviceCode), "unauthorized_client")
		other := w.app("kiosk-5", w.department("library", "Library"), provider.NewClient{FirstParty: true, Policy: provider.Policy{Device: true, Place: &provider.Words{EN: "x", FR: "x"}}})
		dead(t, "another device", other.poll(d.DeviceCode), "invalid_grant")
		dead(t, "an application that is none", park.call("/oidc/device_authorization", url.Values{"scope": {"openid"}}), "unauthorized_client")
		dead(t, "no openid", a.call("/oidc/device_authorization", url.Values{"scope": {"email"}}), "invalid_scope")
		dead(t, "no code", a.poll(""), "invalid_request")
		dead(t, "unknown", a.poll("x"), "invalid_grant")
	})
	t.Run("eight polls at once, one answer", func(t *testing.T) {
		d := a.device()
		answer(d, "let in")
		var mu sync.Mutex
		var wg sync.WaitGroup
		won := 0
		for range 8 {
			wg.Go(func() {
				tok := a.poll(d.DeviceCode)
				mu.Lock()
				defer mu.Unlock()
				if tok.status == http.StatusOK {
					won++
				} else if tok.status != http.StatusBadRequest {
					t.Errorf("%d %s", tok.status, tok.body)
				}
			})
		}
		wg.Wait()
		if won != 1 {
			t.Errorf("%d succeeded", won)
		}
	})
	t.Run("ten wrong codes, then no more in this session", func(t *testing.T) {
		d := a.device()
		b := w.browser()
		b.code(park, "demo@example.com")
		again := func(do string) int {
			return b.post("/device", url.Values{"do": {do}, "user_code": {d.UserCode}}).status
		}
		for i := range 10 {
			if got := b.post("/device", url.Values{"do": {"find"}, "user_code": {fmt.Sprintf("BBBB-BBB%c", "BCDFGHJKLM"[i])}}); got.status != http.StatusUnprocessableEntity {
				t.Fatalf("try %d: %d %s", i, got.status, got.text())
			}
		}
		if got := again("find"); got != http.StatusTooManyRequests {
			t.Errorf("the right one after ten wrong ones: %d", got)
		}
		if got := again("let in"); got != http.StatusTooManyRequests {
			t.Errorf("letting in after ten wrong ones: %d", got)
		}
		second := w.browser()
		second.code(park, "demo@example.com")
		if got := second.post("/device", url.Values{"do": {"find"}, "user_code": {d.UserCode}}); got.status != http.StatusOK {
			t.Errorf("another session: %d", got.status)
		}
	})
}
