package identity_test

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"guichet/identity"
	"guichet/internal/authenticator"
)

const origin = "https://guichet.example"

// person reads who a token signs in.
func (w *world) person(t *testing.T, token string) identity.Person {
	t.Helper()
	p, err := w.Session(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// addPasskey adds a passkey to the account of a token, and returns the session's new token.
func (w *world) addPasskey(t *testing.T, token string) (*authenticator.Passkey, string) {
	t.Helper()
	p := w.person(t, token)
	options, err := w.NewPasskeyOptions(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	key, response, err := authenticator.Create(options, origin)
	if err != nil {
		t.Fatal(err)
	}
	token, err = w.AddPasskey(t.Context(), p, identity.NewPasskey{Name: "My phone", Response: response, Token: token, Visitor: here})
	if err != nil {
		t.Fatal(err)
	}
	return key, token
}

// usePasskey signs in with a passkey, in a sign-in of its own.
func (w *world) usePasskey(t *testing.T, key *authenticator.Passkey) (identity.SignedIn, error) {
	t.Helper()
	pending, browser := w.begin(t)
	options, err := w.PasskeyOptions(t.Context(), pending, browser)
	if err != nil {
		t.Fatal(err)
	}
	response, err := key.Answer(options)
	if err != nil {
		t.Fatal(err)
	}
	return w.TryPasskey(t.Context(), identity.PasskeyTry{Pending: pending, Browser: browser, Response: response, Visitor: here})
}

func TestPasskeySignsInAtLevelTwo(t *testing.T) {
	w := newWorld(t)
	in := w.signUp(t, "demo@example.com", "Demo")
	key, token := w.addPasskey(t, in.Token)
	if _, err := w.Session(t.Context(), in.Token); !errors.Is(err, identity.ErrNoSession) {
		t.Errorf("the token from before the new factor still works: %v", err)
	}
	if p := w.person(t, token); p.ACR != 2 || !p.Fresh(w.now) {
		t.Errorf("after making a passkey: %+v", p)
	}
	w.later(time.Hour)
	again, err := w.usePasskey(t, key)
	if err != nil {
		t.Fatal(err)
	}
	p := w.person(t, again.Token)
	if p.ID != in.ResidentID || p.ACR != 2 || fmt.Sprint(p.AMR) != "[hwk user mfa]" || again.Pending.ReturnPath != "/bills" {
		t.Errorf("signed in by passkey: %+v, %+v", p, again.Pending)
	}
	if strings.Contains(fmt.Sprintf("%q", w.mail.last()), "My phone") {
		t.Error("the name of the passkey is in a mail")
	}
	keys, err := w.Passkeys(t.Context(), p.ID)
	if err != nil || len(keys) != 1 || keys[0].Name != "My phone" || keys[0].UsedAt == nil {
		t.Errorf("passkeys %+v, %v", keys, err)
	}
}

func TestPasskeyThatIsRefused(t *testing.T) {
	tests := []struct {
		name  string
		wrong func(w *world, k, other *authenticator.Passkey)
	}{
		{"of another site", func(_ *world, k, _ *authenticator.Passkey) { k.RPID = "evil.example" }},
		{"from a page of another origin", func(_ *world, k, _ *authenticator.Passkey) { k.Origin = "https://guichet.example.evil" }},
		{"from the same host, another port", func(_ *world, k, _ *authenticator.Passkey) { k.Origin = "https://guichet.example:444" }},
		{"without the owner's gesture", func(_ *world, k, _ *authenticator.Passkey) { k.Unverified = true }},
		{"with the handle of another person", func(_ *world, k, other *authenticator.Passkey) { k.Handle = other.Handle }},
		{"with the name of another person's passkey", func(_ *world, k, other *authenticator.Passkey) { k.ID, k.Handle = other.ID, other.Handle }},
		{"without a handle", func(_ *world, k, _ *authenticator.Passkey) { k.Handle = nil }},
		{"that was removed", func(w *world, _, _ *authenticator.Passkey) {
			if _, err := w.db.Exec(t.Context(), `delete from identity.passkey`); err != nil {
				t.Fatal(err)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			key, _ := w.addPasskey(t, w.signUp(t, "demo@example.com", "Demo").Token)
			w.later(time.Minute)
			other, _ := w.addPasskey(t, w.signUp(t, "other@example.com", "Other").Token)
			if _, err := w.usePasskey(t, key); err != nil {
				t.Fatalf("the right answer: %v", err)
			}
			tt.wrong(w, key, other)
			if in, err := w.usePasskey(t, key); !errors.Is(err, identity.ErrPasskey) || in.Token != "" {
				t.Errorf("got %+v, %v; want ErrPasskey", in, err)
			}
		})
	}
}

func TestAChallengeWorksOnceInItsOwnSignIn(t *testing.T) {
	w := newWorld(t)
	key, _ := w.addPasskey(t, w.signUp(t, "demo@example.com", "Demo").Token)
	pending, browser := w.begin(t)
	options, err := w.PasskeyOptions(t.Context(), pending, browser)
	if err != nil {
		t.Fatal(err)
	}
	response, err := key.Answer(options)
	if err != nil {
		t.Fatal(err)
	}
	try := func(pending, browser string) error {
		_, err := w.TryPasskey(t.Context(), identity.PasskeyTry{Pending: pending, Browser: browser, Response: response, Visitor: here})
		return err
	}
	other, otherBrowser := w.begin(t)
	if err := try(other, otherBrowser); !errors.Is(err, identity.ErrPasskey) {
		t.Errorf("in another sign-in: %v", err)
	}
	if err := try(pending, browser); err != nil {
		t.Errorf("in its own: %v", err)
	}
	if err := try(pending, browser); !errors.Is(err, identity.ErrPasskey) {
		t.Errorf("again: %v", err)
	}
	// It is spent even when the ceremony fails, and dies after five minutes.
	pending, browser = w.begin(t)
	if options, err = w.PasskeyOptions(t.Context(), pending, browser); err != nil {
		t.Fatal(err)
	}
	key.Unverified = true
	if response, err = key.Answer(options); err != nil {
		t.Fatal(err)
	}
	if err := try(pending, browser); !errors.Is(err, identity.ErrPasskey) {
		t.Errorf("unverified: %v", err)
	}
	key.Unverified = false
	if response, err = key.Answer(options); err != nil {
		t.Fatal(err)
	}
	if err := try(pending, browser); !errors.Is(err, identity.ErrPasskey) {
		t.Errorf("right answer to a spent challenge: %v", err)
	}
	if options, err = w.PasskeyOptions(t.Context(), pending, browser); err != nil {
		t.Fatal(err)
	}
	if response, err = key.Answer(options); err != nil {
		t.Fatal(err)
	}
	w.later(5 * time.Minute)
	if err := try(pending, browser); !errors.Is(err, identity.ErrPasskey) {
		t.Errorf("after five minutes: %v", err)
	}
}

func TestACounterThatGoesBackWarnsAndSignsIn(t *testing.T) {
	w := newWorld(t)
	in := w.signUp(t, "demo@example.com", "Demo")
	key, _ := w.addPasskey(t, in.Token)
	key.Count = 10
	if _, err := w.usePasskey(t, key); err != nil {
		t.Fatal(err)
	}
	key.Count = 3
	if _, err := w.usePasskey(t, key); err != nil {
		t.Errorf("a copy is refused: %v", err)
	}
	keys, err := w.Passkeys(t.Context(), in.ResidentID)
	if err != nil || keys[0].WarnedAt == nil || w.mail.last().Template != "passkey-warning" || w.audits(t, "passkey.clone_warning") != 1 {
		t.Errorf("no warning: %+v, %v, %s", keys, err, w.mail.last().Template)
	}
	key.Synced = true // a device that begins to share it
	if _, err := w.usePasskey(t, key); err != nil || w.audits(t, "factor.changed") != 1 {
		t.Errorf("a passkey that became shared: %v", err)
	}
}

// audits counts the audit rows of an action.
func (w *world) audits(t *testing.T, action string) (n int) {
	t.Helper()
	if err := w.db.QueryRow(t.Context(), `select count(*) from ops.audit where action = $1`, action).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// appCode is the code that an authenticator app shows for a secret as people type it.
func appCode(t *testing.T, secret string, at time.Time) string {
	t.Helper()
	key, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(strings.ReplaceAll(secret, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	m := hmac.New(sha1.New, key)
	binary.Write(m, binary.BigEndian, uint64(at.Unix()/30))
	sum := m.Sum(nil)
	o := sum[19] & 15
	return fmt.Sprintf("%06d", (binary.BigEndian.Uint32(sum[o:])&0x7fffffff)%1_000_000)
}

// addApp sets an authenticator app up and returns its secret, the backup codes and the new token.
func (w *world) addApp(t *testing.T, token string) (secret string, codes []string, fresh string) {
	t.Helper()
	p := w.person(t, token)
	app, err := w.NewApp(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	codes, fresh, err = w.ConfirmApp(t.Context(), p, token, appCode(t, app.Secret, w.now), here)
	if err != nil {
		t.Fatal(err)
	}
	return app.Secret, codes, fresh
}

// halfway signs in with the code by e-mail, of somebody with an app.
func (w *world) halfway(t *testing.T, email string) (pending, browser string) {
	t.Helper()
	w.later(time.Minute)
	pending, browser, code := w.ask(t, email)
	in, err := w.try(t, pending, browser, code)
	if err != nil || in.Token != "" || in.Pending.Step != identity.StepFactor {
		t.Fatalf("the code by e-mail alone: %+v, %v", in, err)
	}
	return pending, browser
}

func TestAppIsAskedForAfterTheCodeByEmail(t *testing.T) {
	w := newWorld(t)
	secret, codes, token := w.addApp(t, w.signUp(t, "demo@example.com", "Demo").Token)
	if p := w.person(t, token); p.ACR != 2 || fmt.Sprint(p.AMR) != "[otp mfa]" {
		t.Errorf("after setting the app up: %+v", p)
	}
	try := func(pending, browser, code string) (identity.SignedIn, error) {
		return w.TryApp(t.Context(), identity.CodeTry{Pending: pending, Browser: browser, Code: code, Visitor: here})
	}
	pending, browser := w.halfway(t, "demo@example.com")
	if _, err := try(pending, browser, appCode(t, secret, w.now.Add(-2*time.Minute))); !errors.Is(err, identity.ErrWrongFactor) {
		t.Errorf("a code of two minutes ago: %v", err)
	}
	code := appCode(t, secret, w.now.Add(-30*time.Second)) // one step of drift
	in, err := try(pending, browser, code)
	if err != nil || in.Token == "" || w.person(t, in.Token).ACR != 2 {
		t.Fatalf("with the app: %+v, %v", in, err)
	}
	pending, browser = w.halfway(t, "demo@example.com")
	w.now = w.now.Add(-time.Minute) // the same code would be valid still
	if _, err := try(pending, browser, code); !errors.Is(err, identity.ErrWrongFactor) {
		t.Errorf("the same code again: %v", err)
	}
	w.later(time.Minute)
	if in, err := try(pending, browser, strings.ToLower(codes[0])); err != nil || in.Token == "" || w.mail.last().Template != "backup-code-used" {
		t.Errorf("a backup code: %+v, %v", in, err)
	}
	w.later(15 * time.Minute)
	pending, browser = w.halfway(t, "demo@example.com")
	if _, err := try(pending, browser, codes[0]); !errors.Is(err, identity.ErrWrongFactor) {
		t.Errorf("the same backup code again: %v", err)
	}
	has, err := w.Factors(t.Context(), in.ResidentID)
	if err != nil || !has.App || has.Backup != 9 {
		t.Errorf("factors %+v, %v", has, err)
	}
}

// Nobody gets to the second factor without the first.
func TestTheAppAloneIsNoProof(t *testing.T) {
	w := newWorld(t)
	secret, _, _ := w.addApp(t, w.signUp(t, "demo@example.com", "Demo").Token)
	var residentID string
	if err := w.db.QueryRow(t.Context(), `select id from identity.resident`).Scan(&residentID); err != nil {
		t.Fatal(err)
	}
	w.later(time.Hour)
	// A step-up of a browser whose session has meanwhile ended.
	p, browser, err := w.Begin(t.Context(), identity.NewPending{ResidentID: residentID, StepUp: true, WantACR: 2, ReturnPath: "/account"}, "")
	if err != nil {
		t.Fatal(err)
	}
	in, err := w.TryApp(t.Context(), identity.CodeTry{Pending: p.ID, Browser: browser, Code: appCode(t, secret, w.now), Visitor: here})
	if !errors.Is(err, identity.ErrNoPending) || in.Token != "" {
		t.Errorf("the app alone: %+v, %v", in, err)
	}
}

func TestStepUpAsksOnlyForWhatIsMissing(t *testing.T) {
	w := newWorld(t)
	in := w.signUp(t, "demo@example.com", "Demo")
	key, token := w.addPasskey(t, in.Token)
	w.later(6 * time.Minute)
	if p := w.person(t, token); p.Fresh(w.now) {
		t.Fatalf("still fresh: %+v", p)
	}
	p, browser, err := w.Begin(t.Context(), identity.NewPending{ResidentID: in.ResidentID, StepUp: true, WantACR: 2, ReturnPath: "/account/data"}, "")
	if err != nil || p.Step != identity.StepFactor {
		t.Fatalf("step-up begins at %s, %v", p.Step, err)
	}
	before := w.person(t, token).SessionID
	options, err := w.PasskeyOptions(t.Context(), p.ID, browser)
	if err != nil {
		t.Fatal(err)
	}
	response, err := key.Answer(options)
	if err != nil {
		t.Fatal(err)
	}
	up, err := w.TryPasskey(t.Context(), identity.PasskeyTry{Pending: p.ID, Browser: browser, Response: response, Session: token, Visitor: here})
	if err != nil || up.Token == token || up.Pending.ReturnPath != "/account/data" {
		t.Fatalf("stepped up: %+v, %v", up, err)
	}
	now := w.person(t, up.Token)
	if !now.Fresh(w.now) || now.SessionID != before || fmt.Sprint(now.AMR) != "[hwk user otp mfa]" {
		t.Errorf("after the step-up: %+v; want the same session, fresh", now)
	}
	if _, err := w.Session(t.Context(), token); !errors.Is(err, identity.ErrNoSession) {
		t.Errorf("the token from before the step-up still works: %v", err)
	}
}

func TestASecondFactorNeedsAFreshProofOfTheFirst(t *testing.T) {
	w := newWorld(t)
	in := w.signUp(t, "demo@example.com", "Demo")
	w.later(11 * time.Minute)
	if _, err := w.NewApp(t.Context(), w.person(t, in.Token)); !errors.Is(err, identity.ErrStepUp) {
		t.Errorf("first factor 11 minutes after the sign-in: %v", err)
	}
	in, err := func() (identity.SignedIn, error) {
		pending, browser, code := w.ask(t, "demo@example.com")
		return w.try(t, pending, browser, code)
	}()
	if err != nil {
		t.Fatal(err)
	}
	key, token := w.addPasskey(t, in.Token)
	w.later(6 * time.Minute)
	for name, do := range map[string]func(p identity.Person) error{
		"another passkey":    func(p identity.Person) error { _, err := w.NewPasskeyOptions(t.Context(), p); return err },
		"an app":             func(p identity.Person) error { _, err := w.NewApp(t.Context(), p); return err },
		"removing a passkey": func(p identity.Person) error { return w.RemovePasskey(t.Context(), p, p.ID, true, here) },
		"a new address":      func(p identity.Person) error { return w.AskNewEmail(t.Context(), p, "x@example.com", here) },
		"closing":            func(p identity.Person) error { _, err := w.RequestClose(t.Context(), p, here); return err },
	} {
		if err := do(w.person(t, token)); !errors.Is(err, identity.ErrStepUp) {
			t.Errorf("%s with a proof of 6 minutes ago: %v", name, err)
		}
	}
	again, err := w.usePasskey(t, key)
	if err != nil {
		t.Fatal(err)
	}
	p := w.person(t, again.Token)
	keys, err := w.Passkeys(t.Context(), p.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.RemovePasskey(t.Context(), p, keys[0].ID, false, here); !errors.Is(err, identity.ErrLastWay) {
		t.Errorf("the last one without a word: %v", err)
	}
	other := w.signUp(t, "other@example.com", "Other")
	_, otherToken := w.addPasskey(t, other.Token)
	if err := w.RemovePasskey(t.Context(), w.person(t, otherToken), keys[0].ID, true, here); !errors.Is(err, identity.ErrNotFound) {
		t.Errorf("another person's passkey: %v", err)
	}
	if err := w.RemovePasskey(t.Context(), p, keys[0].ID, true, here); err != nil {
		t.Errorf("the last one, knowing: %v", err)
	}
	if _, err := w.usePasskey(t, key); !errors.Is(err, identity.ErrPasskey) {
		t.Errorf("the removed passkey: %v", err)
	}
}

func TestGuessingAtTheAppIsLimitedAndThePasskeyStillWorks(t *testing.T) {
	w := newWorld(t)
	key, token := w.addPasskey(t, w.signUp(t, "demo@example.com", "Demo").Token)
	secret, _, _ := w.addApp(t, token)
	w.later(time.Hour)
	pending, browser := w.halfway(t, "demo@example.com")
	var limited *identity.LimitedError
	for i := range 5 {
		_, err := w.TryApp(t.Context(), identity.CodeTry{Pending: pending, Browser: browser, Code: "000000", Visitor: here})
		if !errors.Is(err, identity.ErrWrongFactor) {
			t.Fatalf("guess %d: %v", i+1, err)
		}
	}
	_, err := w.TryApp(t.Context(), identity.CodeTry{Pending: pending, Browser: browser, Code: appCode(t, secret, w.now), Visitor: here})
	if !errors.As(err, &limited) {
		t.Errorf("the right code after five wrong ones: %v", err)
	}
	if _, err := w.usePasskey(t, key); err != nil {
		t.Errorf("the passkey meanwhile: %v", err)
	}
}
