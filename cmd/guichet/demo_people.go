package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"guichet/internal/id"
	"guichet/internal/money"
)

// The demonstration's people. Nobody of that name exists.
const (
	residentMail = "resident@demo.example"
	residentName = "Demo Resident"
	guestMail    = "guest@demo.example"
)

// Test cards of the processor, as its documentation lists them.
const (
	cardGood     = "4242 4242 4242 4242"
	cardDeclined = "4000 0000 0000 0002"
)

var eightDigits = regexp.MustCompile(`\b\d{4}[  ]?\d{4}\b`)

// signIn is step 2: authorization code with PKCE, as a department's relying party
// does it, with Go's usual client libraries.
func (st *story) signIn(ctx context.Context) ([]fact, error) {
	st.resident, st.subject = newBrowser(), map[string]string{}
	var facts []fact
	for _, d := range []string{"permits", "parking", "water"} {
		sub, name, err := st.relyingParty(ctx, d)
		if err != nil {
			return facts, fmt.Errorf("sign in at %s: %w", d, err)
		}
		st.subject[d] = sub
		facts = append(facts, fact{"known to " + d + " as", sub + " (" + name + ")"})
	}
	if st.subject["permits"] == st.subject["water"] {
		return facts, errors.New("two departments know the resident by the same name")
	}
	return facts, nil
}

// relyingParty signs the resident in at one department's client and returns what
// the ID token and the userinfo endpoint say.
func (st *story) relyingParty(ctx context.Context, department string) (subject, name string, err error) {
	provider, err := oidc.NewProvider(ctx, st.ports.url(portPortal))
	if err != nil {
		return "", "", err
	}
	clientID, home := department+"-app", st.ports.url(portApp)+"/"+department+"/callback"
	cfg := oauth2.Config{
		ClientID: clientID, ClientSecret: st.secrets.Departments[department].ClientSecret, Endpoint: provider.Endpoint(),
		RedirectURL: home, Scopes: []string{oidc.ScopeOpenID, "profile", "email"},
	}
	state, nonce, verifier := id.Secret(), id.Secret(), oauth2.GenerateVerifier()
	st.resident.home = home
	defer func() { st.resident.home = "" }()
	if err := st.resident.open(ctx, cfg.AuthCodeURL(state, oidc.Nonce(nonce), oauth2.S256ChallengeOption(verifier))); err != nil {
		return "", "", err
	}
	if st.resident.sent == nil && !st.signedUp {
		if err := st.signUp(ctx); err != nil {
			return "", "", err
		}
		st.signedUp = true
	}
	if st.resident.sent == nil { // the first time, a notice says what the department will see
		if err := st.resident.press(ctx, "agree", nil); err != nil {
			return "", "", err
		}
	}
	answer := st.resident.sent
	if answer == nil || answer.Query().Get("state") != state || answer.Query().Get("iss") != st.ports.url(portPortal) {
		return "", "", fmt.Errorf("the provider did not come back with our state and its issuer (%q)", st.resident.heading())
	}
	token, err := cfg.Exchange(ctx, answer.Query().Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		return "", "", err
	}
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return "", "", errors.New("the token answer holds no ID token")
	}
	idToken, err := provider.Verifier(&oidc.Config{ClientID: clientID, Now: st.clock.Now}).Verify(ctx, raw)
	if err != nil {
		return "", "", err
	}
	if idToken.Nonce != nonce {
		return "", "", errors.New("the ID token has another nonce")
	}
	info, err := provider.UserInfo(ctx, cfg.TokenSource(ctx, token))
	if err != nil {
		return "", "", err
	}
	var claims struct {
		Name string `json:"name"`
	}
	if err := info.Claims(&claims); err != nil {
		return "", "", err
	}
	return idToken.Subject, claims.Name, nil
}

// signUp goes through the pages of a first sign-in: address, code, name.
func (st *story) signUp(ctx context.Context) error {
	if err := st.resident.press(ctx, "email", map[string]string{"email": residentMail}); err != nil {
		return err
	}
	m, err := st.mail(ctx, residentMail, "")
	if err != nil {
		return err
	}
	code := strings.NewReplacer(" ", "", " ", "").Replace(eightDigits.FindString(m.Text))
	if strings.Contains(m.Subject, code) || code == "" {
		return fmt.Errorf("the mail %q holds no code, or shows it in its subject", m.Subject)
	}
	if err := st.resident.press(ctx, "code", map[string]string{"code": code}); err != nil {
		return err
	}
	return st.resident.press(ctx, "profile", map[string]string{"name": residentName, "language": "fr"})
}

// raise is step 3.
func (st *story) raise(ctx context.Context) (facts []fact, err error) {
	if st.bills, err = st.raiseBills(ctx, func(string) bool { return true }, st.subject); err != nil {
		return nil, err
	}
	for _, b := range st.bills {
		facts = append(facts, fact{b.Department + " bill " + b.Notice, b.due().Format("en") + " due now, for the " + b.Payer})
	}
	return facts, nil
}

// pay is step 4. The webhooks are held back meanwhile: payers must not need them.
func (st *story) pay(ctx context.Context) ([]fact, error) {
	processor := st.ports.url(portProcessor)
	for _, fault := range []map[string]any{{"kind": "webhook-duplicate", "times": -1}, {"kind": "webhook-hold", "times": -1}} {
		if err := post(ctx, processor+"/_control/faults", fault, nil, nil); err != nil {
			return nil, err
		}
	}
	st.receipts = map[string]string{}
	facts, err := st.payResident(ctx)
	if err != nil {
		return facts, fmt.Errorf("the resident: %w", err)
	}
	more, err := st.payGuest(ctx)
	if err != nil {
		return facts, fmt.Errorf("the guest: %w", err)
	}
	return append(facts, more...), nil
}

// payResident pays one bill of each department.
func (st *story) payResident(ctx context.Context) ([]fact, error) {
	b := st.resident
	if err := b.open(ctx, st.ports.url(portPortal)+"/"); err != nil {
		return nil, err
	}
	var chosen []string
	var total money.Amount
	for _, reference := range []string{"DEMO-T-1001", "DEMO-P-2001", "DEMO-W-3001"} {
		i := slices.IndexFunc(st.bills, func(b raised) bool { return b.Reference == reference })
		chosen = append(chosen, st.bills[i].ID)
		total += st.bills[i].due()
	}
	if err := b.choose(ctx, "/checkout", "bill", chosen); err != nil {
		return nil, err
	}
	if err := b.press(ctx, "/pay", nil); err != nil {
		return nil, err
	}
	if err := st.card(ctx, b, residentMail); err != nil {
		return nil, err
	}
	facts, err := st.paid(ctx, b, "resident")
	return append([]fact{{"three departments at once", total.Format("en")}}, facts...), err
}

// payGuest pays one fine with the notice number and the plate.
func (st *story) payGuest(ctx context.Context) ([]fact, error) {
	st.guest = newBrowser()
	b := st.guest
	i := slices.IndexFunc(st.bills, func(b raised) bool { return b.Reference == "DEMO-T-1002" })
	fine := st.bills[i]
	if err := b.open(ctx, st.ports.url(portPortal)+"/pay?lang=en"); err != nil {
		return nil, err
	}
	if err := b.press(ctx, "/pay", map[string]string{"notice": fine.Notice, "key": "WRONG 1"}); err == nil || b.page.status == http.StatusOK {
		return nil, errors.New("a wrong plate opened the notice")
	}
	if err := b.press(ctx, "/pay", map[string]string{"notice": fine.Notice, "key": fine.GuestKey}); err != nil {
		return nil, err
	}
	if err := b.press(ctx, "/pay", map[string]string{"email": guestMail}); err != nil {
		return nil, err
	}
	if err := st.card(ctx, b, guestMail); err != nil {
		return nil, err
	}
	facts, err := st.paid(ctx, b, "guest")
	return append([]fact{{"guest, notice " + fine.Notice, fine.due().Format("en")}}, facts...), err
}

// card fills in the processor's page: first with a card that is declined.
func (st *story) card(ctx context.Context, b *browser, email string) error {
	fill := map[string]string{"email": email, "expiry": "12/34", "cvc": "123", "name": residentName, "number": cardDeclined}
	page := b.page.url.Path
	if !strings.HasPrefix(b.page.url.String(), st.ports.url(portProcessor)) {
		return fmt.Errorf("the pay button led to %s (%q), not to the processor", page, b.heading())
	}
	if err := b.press(ctx, page, fill); err != nil && b.page.url.Path != page {
		return err
	}
	if b.page.url.Path != page {
		return errors.New("a declined card led on")
	}
	fill["number"] = cardGood
	return b.press(ctx, page, fill)
}

// paid follows the page the payer came back to until it shows the receipt.
func (st *story) paid(ctx context.Context, b *browser, payer string) ([]fact, error) {
	back := b.page.url.String()
	err := until(ctx, "the receipt on the page", func(ctx context.Context) (bool, error) {
		if err := b.open(ctx, back); err != nil {
			return false, err
		}
		st.receipts[payer] = b.link("/receipt/")
		return st.receipts[payer] != "", fmt.Errorf("the page says %q", b.heading())
	})
	if err != nil {
		return nil, err
	}
	return []fact{{"declined first, then paid", b.heading()}, {"receipt of the " + payer, st.receipts[payer]}}, nil
}
