package oidc_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"guichet/api/oidc"
	"guichet/identity"
	"guichet/internal/authenticator"
)

// passkey adds a passkey to the account that a browser is signed in to.
func (b *browser) passkey() *authenticator.Passkey {
	b.w.t.Helper()
	ctx := b.w.t.Context()
	p, err := b.w.people.Session(ctx, b.cookie("guichet"))
	must(b.w.t, err)
	options, err := b.w.people.NewPasskeyOptions(ctx, p)
	must(b.w.t, err)
	key, response, err := authenticator.Create(options, b.w.url)
	must(b.w.t, err)
	token, err := b.w.people.AddPasskey(ctx, p, identity.NewPasskey{Name: "Phone", Response: response, Token: b.cookie("guichet")})
	must(b.w.t, err)
	b.setCookie("guichet", token)
	return key
}

// options asks, as the script does, what to ask the device.
func (b *browser) options(path string) json.RawMessage {
	b.w.t.Helper()
	got := b.post(path+"/passkey", nil)
	if got.status != http.StatusOK || !json.Valid([]byte(got.body)) {
		b.w.t.Fatalf("options: %d %s", got.status, got.body)
	}
	return json.RawMessage(got.body)
}

// answer posts what a device says.
func (b *browser) answer(path string, key *authenticator.Passkey, options json.RawMessage) answer {
	b.w.t.Helper()
	response, err := key.Answer(options)
	must(b.w.t, err)
	return b.post(path, url.Values{"do": {"passkey"}, "response": {string(response)}})
}

func TestAttacksOnPasskeys(t *testing.T) {
	w := newWorld(t)
	a := w.parking()
	owner := w.browser()
	owner.code(a, "owner@example.com")
	key := owner.passkey()
	other := w.browser()
	other.code(a, "other@example.com")
	otherKey := other.passkey()

	refused := func(t *testing.T, b *browser, got answer) {
		t.Helper()
		if got.status != http.StatusUnprocessableEntity || b.cookie("guichet") != "" {
			t.Errorf("%d %s", got.status, got.text())
		}
	}
	t.Run("a passkey signs in", func(t *testing.T) {
		b := w.browser()
		path := b.startSignIn(a.authorizeURL(with(a.request(), "acr_values", "urn:guichet:acr:2")))
		got := b.follow(b.answer(path, key, b.options(path)))
		if tok := a.redeem(got.query().Get("code")); claimsOf(t, tok.IDToken)["acr"] != "urn:guichet:acr:2" {
			t.Errorf("%d %s %s", got.status, got.location, tok.body)
		}
	})
	t.Run("69 assertion replayed, challenge reused", func(t *testing.T) {
		b, thief := w.browser(), w.browser()
		path := b.startSignIn(a.authorizeURL(a.request()))
		options := b.options(path)
		response, err := key.Answer(options)
		must(t, err)
		form := url.Values{"do": {"passkey"}, "response": {string(response)}}
		elsewhere := thief.startSignIn(a.authorizeURL(a.request()))
		refused(t, thief, thief.post(elsewhere, form))
		if got := b.post(path, form); got.status != http.StatusSeeOther {
			t.Errorf("in its own browser: %d %s", got.status, got.text())
		}
		b2 := w.browser()
		again := b2.startSignIn(a.authorizeURL(a.request()))
		refused(t, b2, b2.post(again, form))
		refused(t, b2, b2.answer(again, key, options))
	})
	for name, wrong := range map[string]func(k *authenticator.Passkey){
		"70 another origin":                   func(k *authenticator.Passkey) { k.Origin = "https://evil.example" },
		"70 another RP ID":                    func(k *authenticator.Passkey) { k.RPID = "evil.example" },
		"70 no user verification":             func(k *authenticator.Passkey) { k.Unverified = true },
		"71 user handle of another person":    func(k *authenticator.Passkey) { k.Handle = otherKey.Handle },
		"71 credential id of another person":  func(k *authenticator.Passkey) { k.ID = otherKey.ID },
		"71 both, signed with one's own key":  func(k *authenticator.Passkey) { k.ID, k.Handle = otherKey.ID, otherKey.Handle },
		"69 challenge of nobody's making":     nil,
		"23 options without the sign-in page": nil,
	} {
		t.Run(name, func(t *testing.T) {
			b := w.browser()
			path := b.startSignIn(a.authorizeURL(a.request()))
			switch {
			case strings.HasPrefix(name, "69"):
				refused(t, b, b.answer(path, key, json.RawMessage(`{"challenge":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`)))
			case wrong == nil:
				if got := w.browser().post(path+"/passkey", nil); got.status != http.StatusBadRequest || strings.Contains(got.body, "challenge") {
					t.Errorf("%d %s", got.status, got.body)
				}
			default:
				bad := *key
				wrong(&bad)
				refused(t, b, b.answer(path, &bad, b.options(path)))
			}
		})
	}
}

func TestAttack63And64Guessing(t *testing.T) {
	w := newWorld(t, func(c *identity.Config, _ *oidc.Options) {
		d := identity.DefaultLimits()
		c.Limits.TryAddress, c.Limits.TryNetwork = d.TryAddress, d.TryNetwork
	})
	a := w.parking()
	owner := w.browser()
	owner.code(a, "owner@example.com")
	key := owner.passkey()
	w.later(time.Hour)

	guess := func(b *browser, path, email string) answer {
		return b.post(path, url.Values{"do": {"code"}, "code": {other(b.askCode(path, email), 0)}})
	}
	tried := 0
	b := w.browser()
	path := b.startSignIn(a.authorizeURL(a.request()))
	for range 1000 {
		got := guess(b, path, "owner@example.com")
		if got.status == http.StatusTooManyRequests {
			if got.header.Get("Retry-After") == "" {
				t.Error("429 without Retry-After")
			}
			break
		}
		tried++
	}
	if tried != 10 {
		t.Errorf("63: %d codes could be tried against one account, want 10", tried)
	}
	mine := w.browser()
	path = mine.startSignIn(a.authorizeURL(a.request()))
	if got := mine.answer(path, key, mine.options(path)); got.status != http.StatusSeeOther {
		t.Errorf("63: the owner's passkey: %d %s", got.status, got.text())
	}

	// One guess at each of many accounts: the network's bucket, of which ten tries are gone.
	b = w.browser()
	path = b.startSignIn(a.authorizeURL(a.request()))
	tried = 0
	for i := range 1000 {
		if got := guess(b, path, fmt.Sprintf("resident%d@example.com", i)); got.status == http.StatusTooManyRequests {
			break
		}
		tried++
	}
	if tried < 80 || tried > 100 {
		t.Errorf("64: %d accounts could be tried from one network, want about 90", tried)
	}
	var noted int
	must(t, w.db.QueryRow(t.Context(), `select count(*) from ops.audit where action = 'signin.limited'`).Scan(&noted))
	if noted == 0 {
		t.Error("64: no trace in the audit")
	}
}
