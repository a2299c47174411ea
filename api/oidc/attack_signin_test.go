package oidc_test

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"guichet/api/oidc"
	"guichet/identity"
)

func TestAttacksOnSignIn(t *testing.T) {
	w := newWorld(t)
	a := w.parking()
	w.browser().code(a, "known@example.com")

	t.Run("21 sign-in page in a frame", func(t *testing.T) {
		b := w.browser()
		path := b.startSignIn(a.authorizeURL(a.request()))
		for _, got := range []answer{b.get(path), b.get("/oidc/authorize?client_id=nobody"), b.get("/signed-out")} {
			h := got.header
			csp := h.Get("Content-Security-Policy")
			if !strings.Contains(csp, "frame-ancestors 'none'") || h.Get("Referrer-Policy") != "same-origin" || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Cache-Control") != "no-store" {
				t.Errorf("headers: %v", h)
			}
		}
		if csp := b.get(path).header.Get("Content-Security-Policy"); !strings.Contains(csp, "form-action 'self' https://parking-portal.example") {
			t.Errorf("form-action does not name the client: %s", csp)
		}
	})
	t.Run("22 sign-in opened in another browser", func(t *testing.T) {
		victim, attacker := w.browser(), w.browser()
		path := attacker.startSignIn(a.authorizeURL(a.request()))
		victim.startSignIn(a.authorizeURL(a.request())) // a cookie of its own does not help
		for name, b := range map[string]*browser{"with a sign-in of its own": victim, "without any": w.browser()} {
			if got := b.get(path); got.status != http.StatusBadRequest || strings.Contains(got.body, `name="email"`) {
				t.Errorf("%s: %d %s", name, got.status, got.text())
			}
		}
		// Session swap: the attacker signs in and sends the victim the last address.
		code := attacker.askCode(path, "known@example.com")
		if got := victim.post(path, url.Values{"do": {"code"}, "code": {code}}); got.status != http.StatusBadRequest {
			t.Errorf("code typed by the victim: %d", got.status)
		}
		attacker.post(path, url.Values{"do": {"code"}, "code": {code}})
		if got := victim.get(path); got.status != http.StatusBadRequest || victim.cookie("guichet") != "" {
			t.Errorf("finished by the victim: %d", got.status)
		}
	})
	t.Run("23 credentials posted without the pending cookie", func(t *testing.T) {
		b := w.browser()
		path := b.startSignIn(a.authorizeURL(a.request()))
		before := len(w.mail.all())
		stranger := w.browser()
		for _, form := range []url.Values{{"do": {"email"}, "email": {"known@example.com"}}, {"do": {"code"}, "code": {"12345678"}}, {"do": {"profile"}, "name": {"X"}}, {"do": {"agree"}}, {"do": {"cancel"}}} {
			if got := stranger.post(path, form); got.status != http.StatusBadRequest || got.location != "" {
				t.Errorf("%v: %d %s", form, got.status, got.location)
			}
		}
		if n := len(w.mail.all()) - before; n != 0 {
			t.Errorf("%d codes were mailed", n)
		}
	})
	t.Run("24 form posted cross-site", func(t *testing.T) {
		b := w.browser()
		path := b.startSignIn(a.authorizeURL(a.request()))
		for _, site := range []string{"cross-site", "same-site"} {
			for _, to := range []string{path, "/signout", "/staff/signout"} {
				got := b.post(to, url.Values{"do": {"email"}, "email": {"known@example.com"}}, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", site) })
				if got.status != http.StatusForbidden {
					t.Errorf("%s to %s: %d, want 403", site, to, got.status)
				}
			}
		}
		got := b.post(path, url.Values{"do": {"email"}, "email": {"known@example.com"}}, func(r *http.Request) {
			r.Header.Del("Sec-Fetch-Site")
			r.Header.Set("Origin", "https://evil.example")
		})
		if got.status != http.StatusForbidden {
			t.Errorf("old browser, foreign Origin: %d, want 403", got.status)
		}
	})
	t.Run("25 session cookie set beforehand", func(t *testing.T) {
		b := w.browser()
		planted := strings.Repeat("A", 43)
		b.setCookie("guichet", planted)
		b.code(a, "known@example.com")
		if got := b.cookie("guichet"); got == planted || got == "" {
			t.Errorf("the session took the planted value")
		}
		attacker := w.browser()
		attacker.setCookie("guichet", planted)
		if got := attacker.get("/"); got.body != "hello " {
			t.Errorf("the planted value opens %q", got.body)
		}
		// Signing in again gives a new value, and the old one is dead.
		old := b.cookie("guichet")
		v := a.request()
		v.Set("prompt", "login")
		b.signIn(a.authorizeURL(v), "known@example.com")
		attacker.setCookie("guichet", old)
		if got := attacker.get("/"); got.body != "hello " || b.cookie("guichet") == old {
			t.Errorf("the value before the second sign-in opens %q", got.body)
		}
	})
	t.Run("26 every answer names its issuer", func(t *testing.T) {
		b := w.browser()
		if got := b.signIn(a.authorizeURL(a.request()), "known@example.com"); got.query().Get("iss") != w.url {
			t.Errorf("answer without our name: %s", got.location)
		}
	})
	t.Run("62 does this address have an account?", func(t *testing.T) {
		see := func(email string) string {
			b := w.browser()
			path := b.startSignIn(a.authorizeURL(a.request()))
			before := len(w.mail.all())
			got := b.post(path, url.Values{"do": {"email"}, "email": {email}})
			page := b.get(path)
			wrong := b.post(path, url.Values{"do": {"code"}, "code": {"not it"}})
			all := fmt.Sprint(got.status, got.header, page.status, page.header, page.body, wrong.status, wrong.header, wrong.body, len(w.mail.all())-before, w.mail.all()[before].Template)
			for _, own := range []string{strings.TrimPrefix(path, "/signin/"), email, b.cookie("guichet-signin")} {
				all = strings.ReplaceAll(all, own, "*")
			}
			return regexp.MustCompile(`Date:\[[^]]*\]`).ReplaceAllString(all, "")
		}
		if known, unknown := see("known@example.com"), see("nobody@example.com"); known != unknown {
			t.Errorf("a known address shows:\n%s\nan unknown one:\n%s", known, unknown)
		}
	})
	t.Run("62 both ways run the same statements", func(t *testing.T) {
		count := func(email string) (n int64) {
			b := w.browser()
			path := b.startSignIn(a.authorizeURL(a.request()))
			before := w.db.Stat().AcquireCount()
			b.post(path, url.Values{"do": {"email"}, "email": {email}})
			return w.db.Stat().AcquireCount() - before
		}
		if known, unknown := count("known@example.com"), count("somebody@example.com"); known != unknown {
			t.Errorf("%d round trips for a known address, %d for an unknown one", known, unknown)
		}
	})
	t.Run("65 code guessing", func(t *testing.T) {
		b := w.browser()
		path := b.startSignIn(a.authorizeURL(a.request()))
		code := b.askCode(path, "known@example.com")
		for i := range 5 {
			got := b.post(path, url.Values{"do": {"code"}, "code": {other(code, i)}})
			if got.status != http.StatusUnprocessableEntity {
				t.Errorf("guess %d: %d", i+1, got.status)
			}
		}
		if got := b.post(path, url.Values{"do": {"code"}, "code": {code}}); got.status != http.StatusUnprocessableEntity || b.cookie("guichet") != "" {
			t.Errorf("the right code after five guesses: %d", got.status)
		}
		code = b.askCode(path, "known@example.com")
		if got := b.post(path, url.Values{"do": {"code"}, "code": {code}}); got.status != http.StatusSeeOther {
			t.Errorf("a new code: %d", got.status)
		}
	})
	t.Run("66 code used in another browser", func(t *testing.T) {
		victim, attacker := w.browser(), w.browser()
		code := victim.askCode(victim.startSignIn(a.authorizeURL(a.request())), "known@example.com")
		path := attacker.startSignIn(a.authorizeURL(a.request()))
		if got := attacker.post(path, url.Values{"do": {"code"}, "code": {code}}); got.location != path || attacker.cookie("guichet") != "" {
			t.Errorf("before asking for one: %d %s", got.status, got.location)
		}
		attacker.askCode(path, "known@example.com")
		if got := attacker.post(path, url.Values{"do": {"code"}, "code": {code}}); got.status != http.StatusUnprocessableEntity || attacker.cookie("guichet") != "" {
			t.Errorf("after asking for one: %d", got.status)
		}
	})
	t.Run("68 scanner opens all links", func(t *testing.T) {
		b := w.browser()
		path := b.startSignIn(a.authorizeURL(a.request()))
		b.askCode(path, "known@example.com")
		mail := w.mail.all()
		for name, value := range mail[len(mail)-1].Data {
			if strings.Contains(value, "http") {
				t.Errorf("the mail holds a link: %s=%s", name, value)
			}
		}
		code := mail[len(mail)-1].Data["code"]
		for _, link := range []string{path, path + "?do=code&code=" + url.QueryEscape(code), "/signout", "/oidc/logout", path + "?do=cancel"} {
			b.get(link)
		}
		if got := b.post(path, url.Values{"do": {"code"}, "code": {code}}); got.status != http.StatusSeeOther {
			t.Errorf("the code after the scanner: %d", got.status)
		}
	})
}

// other is a code that is wrong for certain.
func other(code string, i int) string {
	digits := []byte(strings.ReplaceAll(code, " ", ""))
	digits[i] = '0' + (digits[i]-'0'+1)%10
	return string(digits)
}

func TestAttack67EmailBombing(t *testing.T) {
	w := newWorld(t, func(c *identity.Config, _ *oidc.Options) {
		d := identity.DefaultLimits()
		c.Limits.CodeAddress, c.Limits.CodeAgain = d.CodeAddress, d.CodeAgain
	})
	a := w.parking()
	sent, refused := 0, answer{}
	for range 12 { // from twelve browsers: the limit is the address's
		b := w.browser()
		path := b.startSignIn(a.authorizeURL(a.request()))
		if got := b.post(path, url.Values{"do": {"email"}, "email": {"victim@example.com"}}); got.status == http.StatusSeeOther {
			sent++
		} else {
			refused = got
		}
		w.later(31 * time.Second)
	}
	if sent != 5 || refused.status != http.StatusTooManyRequests || refused.header.Get("Retry-After") == "" {
		t.Errorf("%d mails, then %d with Retry-After %q; want 5, then 429", sent, refused.status, refused.header.Get("Retry-After"))
	}
	b := w.browser()
	path := b.startSignIn(a.authorizeURL(a.request()))
	b.askCode(path, "somebody.else@example.com")
	again := b.post(path, url.Values{"do": {"again"}})
	if again.status != http.StatusTooManyRequests || again.header.Get("Retry-After") != "30" || !strings.Contains(again.body, `value="code"`) {
		t.Errorf("resend at once: %d, Retry-After %q", again.status, again.header.Get("Retry-After"))
	}
	w.later(30 * time.Second)
	if got := b.post(path, url.Values{"do": {"again"}}); got.status != http.StatusSeeOther {
		t.Errorf("resend after 30 seconds: %d", got.status)
	}
}

func TestAttack61ForgedHost(t *testing.T) {
	w := newWorld(t)
	a := w.parking()
	forge := func(r *http.Request) {
		r.Host = "evil.example"
		r.Header.Set("X-Forwarded-Host", "evil.example")
		r.Header.Set("X-Forwarded-Proto", "https")
		r.Header.Set("Forwarded", "host=evil.example")
	}
	b := w.browser()
	for _, path := range []string{"/.well-known/openid-configuration", "/oidc/jwks", "/oidc/authorize?" + a.request().Encode(), "/signin", "/bills", "/oidc/logout", "/oidc/authorize?client_id=nobody"} {
		r, err := http.NewRequest(http.MethodGet, w.url+path, nil)
		must(t, err)
		forge(r)
		got := b.do(r)
		if strings.Contains(got.body+fmt.Sprint(got.header), "evil.example") {
			t.Errorf("%s repeats the forged host: %v", path, got.header)
		}
	}
	tok := a.post(a.tokenForm(w.browser().code(a, "demo@example.com")), forge)
	if claims := claimsOf(t, tok.IDToken); claims["iss"] != w.url {
		t.Errorf("iss = %v, want %s", claims["iss"], w.url)
	}
	for _, m := range w.mail.all() {
		if strings.Contains(fmt.Sprint(m), "evil") {
			t.Errorf("mail %+v", m)
		}
	}
}
