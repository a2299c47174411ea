package account_test

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-rod/rod"

	"guichet/internal/browser"
)

// appCode is the code that an authenticator app shows for a key as people read it.
func appCode(t testing.TB, key string, at time.Time) string {
	t.Helper()
	secret, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(strings.ReplaceAll(key, " ", ""))
	must(t, err)
	m := hmac.New(sha1.New, secret)
	binary.Write(m, binary.BigEndian, uint64(at.Unix()/30))
	sum := m.Sum(nil)
	o := sum[19] & 15
	return fmt.Sprintf("%06d", (binary.BigEndian.Uint32(sum[o:])&0x7fffffff)%1_000_000)
}

// One person goes through the whole account, in a real browser with a device that keeps
// passkeys: each page is looked at in both languages, on a phone and on a desktop.
func TestTheAccountInARealBrowser(t *testing.T) {
	w := newWorld(t)
	w.client("parking-portal", "https://parking.example/callback")
	chromium := browser.New(t)
	page := browser.Open(t, chromium, w.url+"/signin?return=/account", browser.Phone)
	browser.Passkeys(t, page)
	w.signIn(page, "/signin?return=/account", "lea@demo.example")
	at(t, page, "/account")
	look(t, page, "home-new")

	// A passkey, made where the account page suggests it.
	browser.Go(t, page, w.url+"/account/passkeys/new")
	look(t, page, "passkey")
	browser.Fill(t, page, "#name", "My phone")
	browser.Click(t, page, "form[data-passkey] button")
	at(t, page, "/account/security?done=added")
	if text := browser.Text(t, page, "main"); !strings.Contains(text, "My phone") {
		t.Errorf("the passkey is not listed: %s", text)
	}

	// An authenticator app beside it.
	browser.Go(t, page, w.url+"/account/app")
	look(t, page, "app")
	browser.Fill(t, page, "#code", "000000")
	browser.Click(t, page, "form[action='/account/app'] button")
	see(t, page, "app-wrong-en")
	key := browser.Text(t, page, ".ref-large")
	browser.Fill(t, page, "#code", appCode(t, key, w.clock()))
	browser.Click(t, page, "form[action='/account/app'] button")
	see(t, page, "codes-en")
	browser.Click(t, page, "a.button")
	look(t, page, "security")

	for _, place := range []string{"profile", "emails", "devices", "history", "departments", "settings", "data", "merge"} {
		browser.Go(t, page, w.url+"/account/"+place)
		at(t, page, "/account/"+place)
		look(t, page, place)
	}
	browser.Go(t, page, w.url+"/account/profile")
	browser.Fill(t, page, "#phone", "not a number")
	browser.Click(t, page, "form[action='/account/profile'] button")
	see(t, page, "profile-wrong-en")
	browser.Fill(t, page, "#phone", "613-555-0123")
	browser.Fill(t, page, "#street", "110 Laurier Avenue West")
	page.MustElement("input[value=fr]").MustClick()
	browser.Click(t, page, "form[action='/account/profile'] button")
	if text := browser.Text(t, page, "main"); !strings.Contains(text, "Enregistré") {
		t.Errorf("the language did not change: %s", text)
	}
	page.MustElement("input[value=en]").MustClick()
	browser.Click(t, page, "form[action='/account/profile'] button")

	// Signing in again: the browser offers the passkey with the address field, and this
	// one's owner always takes it.
	browser.Click(t, page, ".tools form button")
	must(t, page.Navigate(w.url+"/signin?return=/account"))
	must(t, page.Timeout(30*time.Second).Wait(rod.Eval("() => location.pathname === '/account' && document.readyState === 'complete'")))
	if text := browser.Text(t, page, "main"); !strings.Contains(text, "Léa Demo") {
		t.Errorf("signed in by passkey: %s", text)
	}

	// Later, something that needs a fresh proof asks for it, and comes back.
	w.later(10 * time.Minute)
	browser.Go(t, page, w.url+"/account/emails")
	at(t, page, "/signin/")
	look(t, page, "stepup")
	browser.Click(t, page, "form[data-passkey] button")
	at(t, page, "/account/emails")

	// By e-mail, on a device without the passkey, the app's code is asked for as well.
	page = browser.Open(t, chromium.MustIncognito(), w.url, browser.Phone)
	w.signIn(page, "/signin?return=/account", "lea@demo.example")
	at(t, page, "/signin/")
	look(t, page, "factor")
	page.MustElement("summary").MustClick()
	browser.Click(t, page, "button[value=recover]")
	look(t, page, "recovery-waiting")
	w.later(30 * time.Second)
	browser.Fill(t, page, "#app", appCode(t, key, w.clock()))
	browser.Click(t, page, "button[value=factor]")
	at(t, page, "/account")
	if w.mail.last("recovery-cancelled").Template == "" {
		t.Error("signing in with the factor did not cancel the recovery")
	}

	browser.Go(t, page, w.mail.last("recovery-requested").Data["link"])
	if text := browser.Text(t, page, "main"); !strings.Contains(text, "404") {
		t.Errorf("a cancelled recovery's link shows: %s", text)
	}
	browser.Go(t, page, w.url+"/recover")
	look(t, page, "recover")
}
