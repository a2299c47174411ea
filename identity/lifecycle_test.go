package identity_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/identity"
	"guichet/internal/id"
	"guichet/internal/mail"
)

// of returns the newest mail of a template, and how many of it there are.
func (m *mailbox) of(template string) (last mail.Message, n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, msg := range m.sent {
		if msg.Template == template {
			last, n = msg, n+1
		}
	}
	return last, n
}

func secretOf(t *testing.T, m mail.Message) string {
	t.Helper()
	_, secret, ok := strings.Cut(m.Data["link"], "/link/")
	if !ok {
		t.Fatalf("no link in %+v", m)
	}
	return secret
}

func TestAttack74RecoveryByAThiefOfTheMailbox(t *testing.T) {
	w := newWorld(t)
	key, token := w.addPasskey(t, w.signUp(t, "demo@example.com", "Demo").Token)
	w.addApp(t, token)
	w.later(time.Hour)
	pending, browser := w.halfway(t, "demo@example.com")
	if err := w.RequestRecovery(t.Context(), pending, browser, here); err != nil {
		t.Fatal(err)
	}
	if err := w.RequestRecovery(t.Context(), pending, browser, here); err != nil {
		t.Fatal(err)
	}
	told, n := w.mail.of("recovery-requested")
	if n != 1 || w.audits(t, "recovery.requested") != 1 {
		t.Errorf("asked twice: %d mails", n)
	}
	finish := func() (identity.SignedIn, error) {
		pending, browser := w.halfway(t, "demo@example.com")
		return w.FinishRecovery(t.Context(), identity.CodeTry{Pending: pending, Browser: browser, Visitor: here})
	}
	w.later(71 * time.Hour)
	if in, err := finish(); !errors.Is(err, identity.ErrNotFound) || in.Token != "" {
		t.Errorf("after 71 hours: %+v, %v", in, err)
	}
	// Attack 75: the link works once, for one thing.
	if _, err := w.UseLink(t.Context(), strings.Repeat("A", 43), here); !errors.Is(err, identity.ErrNoLink) {
		t.Errorf("a guessed link: %v", err)
	}
	secret := secretOf(t, told)
	if l, err := w.Link(t.Context(), secret); err != nil || l.Purpose != identity.LinkCancelRecovery {
		t.Errorf("opening the link: %+v, %v", l, err)
	}
	if _, err := w.UseLink(t.Context(), secret, here); err != nil {
		t.Fatal(err)
	}
	if _, err := w.UseLink(t.Context(), secret, here); !errors.Is(err, identity.ErrNoLink) {
		t.Errorf("the link again: %v", err)
	}
	w.later(2 * time.Hour)
	if _, err := finish(); !errors.Is(err, identity.ErrNotFound) {
		t.Errorf("a cancelled recovery: %v", err)
	}
	// A second one, which the owner ends by signing in as always.
	pending, browser = w.halfway(t, "demo@example.com")
	if err := w.RequestRecovery(t.Context(), pending, browser, here); err != nil {
		t.Fatal(err)
	}
	in, err := w.usePasskey(t, key)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := w.Recovery(t.Context(), in.ResidentID); err != nil || r != nil {
		t.Errorf("after signing in by passkey: %+v, %v", r, err)
	}
}

func TestRecoveryThatIsFinishedEndsWhatWasBefore(t *testing.T) {
	w := newWorld(t)
	var revoked []identity.Revocation
	w.OnRevoke(func(_ context.Context, _ pgx.Tx, r identity.Revocation) error {
		revoked = append(revoked, r)
		return nil
	})
	key, token := w.addPasskey(t, w.signUp(t, "demo@example.com", "Demo").Token)
	_, _, token = w.addApp(t, token)
	pending, browser := w.halfway(t, "demo@example.com")
	if err := w.RequestRecovery(t.Context(), pending, browser, here); err != nil {
		t.Fatal(err)
	}
	w.later(72 * time.Hour)
	if n, err := w.TellRecoveries(t.Context()); n != 1 || err != nil {
		t.Errorf("told %d, %v", n, err)
	}
	if n, err := w.TellRecoveries(t.Context()); n != 0 || err != nil {
		t.Errorf("told again: %d, %v", n, err)
	}
	pending, browser = w.halfway(t, "demo@example.com")
	in, err := w.FinishRecovery(t.Context(), identity.CodeTry{Pending: pending, Browser: browser, Visitor: here})
	if err != nil {
		t.Fatal(err)
	}
	p := w.person(t, in.Token)
	if has, err := w.Factors(t.Context(), p.ID); err != nil || has.Strong() || p.ACR != 1 {
		t.Errorf("after the recovery: %+v, %+v, %v", has, p, err)
	}
	if _, err := w.Session(t.Context(), token); !errors.Is(err, identity.ErrNoSession) {
		t.Errorf("a session from before: %v", err)
	}
	if _, err := w.usePasskey(t, key); !errors.Is(err, identity.ErrPasskey) {
		t.Errorf("the lost passkey: %v", err)
	}
	if len(revoked) != 1 || revoked[0].ResidentID != p.ID || revoked[0].SessionID != "" {
		t.Errorf("revoked %+v", revoked)
	}
	_, fresh := w.addPasskey(t, in.Token)
	if err := w.AskNewEmail(t.Context(), w.person(t, fresh), "thief@example.com", here); !errors.Is(err, identity.ErrLimited) {
		t.Errorf("a change of address right after: %v", err)
	}
}

func TestChangeOfTheMainAddressAndItsRevert(t *testing.T) {
	w := newWorld(t)
	_, token := w.addPasskey(t, w.signUp(t, "old@example.com", "Demo").Token)
	w.later(time.Minute)
	p := w.person(t, token)
	if err := w.AskNewEmail(t.Context(), p, "New@Example.com", here); err != nil {
		t.Fatal(err)
	}
	asked, _ := w.mail.of("email-code")
	var wrong *identity.WrongCodeError
	if err := w.AddEmail(t.Context(), p, "00000000", here); !errors.As(err, &wrong) || wrong.Left != 4 {
		t.Errorf("a wrong code: %v", err)
	}
	if err := w.AddEmail(t.Context(), p, asked.Data["code"], here); err != nil {
		t.Fatal(err)
	}
	if err := w.AddEmail(t.Context(), p, asked.Data["code"], here); !errors.Is(err, identity.ErrCodeDead) {
		t.Errorf("the code again: %v", err)
	}
	all, err := w.Emails(t.Context(), p.ID)
	if err != nil || len(all) != 2 || all[1].Address != "New@example.com" {
		t.Fatalf("addresses %+v, %v", all, err)
	}
	w.later(time.Minute)
	// The owner of the old address has to agree.
	if err := w.MakeMain(t.Context(), p, all[1].ID, asked.Data["code"], here); !errors.Is(err, identity.ErrCodeDead) {
		t.Errorf("without the old address's code: %v", err)
	}
	if err := w.AskOldEmail(t.Context(), p, here); err != nil {
		t.Fatal(err)
	}
	agree, _ := w.mail.of("email-code-old")
	if err := w.MakeMain(t.Context(), p, all[1].ID, agree.Data["code"], here); err != nil {
		t.Fatal(err)
	}
	if p = w.person(t, token); p.Email != "New@example.com" {
		t.Errorf("main address %s", p.Email)
	}
	if err := w.RemoveEmail(t.Context(), p, all[1].ID, here); !errors.Is(err, identity.ErrMainEmail) {
		t.Errorf("removing the main one: %v", err)
	}
	revert, _ := w.mail.of("email-revert")
	if to, err := w.Address(t.Context(), revert.To); err != nil || to.Email != "old@example.com" {
		t.Errorf("the revert link goes to %+v, %v", to, err)
	}
	if _, err := w.UseLink(t.Context(), secretOf(t, revert), here); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Session(t.Context(), token); !errors.Is(err, identity.ErrNoSession) {
		t.Errorf("whoever changed it is still signed in: %v", err)
	}
	after, err := w.Emails(t.Context(), p.ID)
	if err != nil || len(after) != 1 || after[0].Address != "old@example.com" || !after[0].Main {
		t.Errorf("after the revert: %+v, %v", after, err)
	}
}

func TestAnAddressOfAnotherAccountShowsOnlyInItsMailbox(t *testing.T) {
	w := newWorld(t)
	w.signUp(t, "taken@example.com", "Other")
	w.later(time.Minute)
	_, token := w.addPasskey(t, w.signUp(t, "demo@example.com", "Demo").Token)
	w.later(time.Minute)
	if err := w.AskNewEmail(t.Context(), w.person(t, token), "taken@example.com", here); err != nil {
		t.Errorf("the answer differs: %v", err)
	}
	m := w.mail.last()
	if m.Template != "email-taken" || m.Data["code"] != "" {
		t.Errorf("mail %+v; want one without a code", m)
	}
}

func TestDisavowedSignInAsksForTheSecondFactor(t *testing.T) {
	w := newWorld(t)
	in := w.signUp(t, "demo@example.com", "Demo")
	key, _ := w.addPasskey(t, in.Token)
	w.later(time.Hour)
	thief := identity.Visitor{Network: "198.51.100.0/24", Device: "Chrome, Windows"}
	pending, browser, code := w.ask(t, "demo@example.com")
	bad, err := w.TryCode(t.Context(), identity.CodeTry{Pending: pending, Browser: browser, Code: code, Visitor: thief})
	if err != nil {
		t.Fatal(err)
	}
	told, n := w.mail.of("new-device")
	if n != 1 || told.Data["device"] != thief.Device {
		t.Fatalf("no mail about the new device: %d", n)
	}
	if _, err := w.UseLink(t.Context(), secretOf(t, told), here); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Session(t.Context(), bad.Token); !errors.Is(err, identity.ErrNoSession) {
		t.Errorf("the disavowed session: %v", err)
	}
	if alerts, err := w.Alerts(t.Context(), 10); err != nil || len(alerts) != 1 || alerts[0].Kind != "disavowed" {
		t.Errorf("alerts %+v, %v", alerts, err)
	}
	w.later(time.Minute)
	pending, browser, code = w.ask(t, "demo@example.com")
	if again, err := w.TryCode(t.Context(), identity.CodeTry{Pending: pending, Browser: browser, Code: code, Visitor: thief}); err != nil || again.Token != "" {
		t.Errorf("the code by e-mail alone after that: %+v, %v", again, err)
	}
	if _, err := w.usePasskey(t, key); err != nil {
		t.Errorf("the owner's passkey: %v", err)
	}
	if err := w.Disavow(t.Context(), w.person(t, w.signUp(t, "other@example.com", "Other").Token), id.New(), here); !errors.Is(err, identity.ErrNotFound) {
		t.Errorf("another's sign-in: %v", err)
	}
}

// other proves a second account for a merge into p, in one browser.
func (w *world) other(t *testing.T, p identity.Person, email string) (pending, browser string, err error) {
	t.Helper()
	w.later(31 * time.Second)
	n, browser, err := w.Begin(t.Context(), identity.NewPending{MergeInto: p.ID}, "")
	if err != nil {
		t.Fatal(err)
	}
	err = w.AskCode(t.Context(), identity.CodeRequest{Pending: n.ID, Browser: browser, Email: email, Lang: "en", Visitor: here})
	if err != nil {
		t.Fatal(err)
	}
	in, err := w.try(t, n.ID, browser, w.mail.last().Data["code"])
	if in.Token != "" {
		t.Error("proving the second account opened a session")
	}
	return n.ID, browser, err
}

func TestMergeAndUndo(t *testing.T) {
	w := newWorld(t)
	var departures []identity.Departure
	w.OnDeparture(func(_ context.Context, _ pgx.Tx, d identity.Departure) error {
		departures = append(departures, d)
		return nil
	})
	second := w.signUp(t, "second@example.com", "Léa Second")
	w.later(time.Minute)
	_, token := w.addPasskey(t, w.signUp(t, "first@example.com", "Léa First").Token)
	p := w.person(t, token)
	pending, browser, err := w.other(t, p, "second@example.com")
	if err != nil {
		t.Fatal(err)
	}
	preview, err := w.PreviewMerge(t.Context(), p, pending, browser)
	if err != nil || preview.Other.Name != "Léa Second" || preview.Emails != 1 {
		t.Fatalf("preview %+v, %v", preview, err)
	}
	if err := w.Merge(t.Context(), p, pending, id.Secret()); !errors.Is(err, identity.ErrNoPending) {
		t.Errorf("from another browser: %v", err)
	}
	if err := w.Merge(t.Context(), p, pending, browser); err != nil {
		t.Fatal(err)
	}
	if err := w.Merge(t.Context(), p, pending, browser); !errors.Is(err, identity.ErrNoPending) {
		t.Errorf("the second click: %v", err)
	}
	if _, err := w.Session(t.Context(), second.Token); !errors.Is(err, identity.ErrNoSession) {
		t.Errorf("the retired account is still signed in: %v", err)
	}
	accounts, err := w.Accounts(t.Context(), p.ID)
	if err != nil || fmt.Sprint(accounts) != fmt.Sprint([]string{p.ID, second.ResidentID}) {
		t.Errorf("accounts %v, %v", accounts, err)
	}
	w.later(31 * time.Second)
	at, b, code := w.ask(t, "second@example.com")
	if in, err := w.try(t, at, b, code); err != nil || in.ResidentID != p.ID {
		t.Errorf("signing in with the other address: %+v, %v", in, err)
	}
	told, n := w.mail.of("merged")
	if n != 2 {
		t.Errorf("%d mails, want both addresses told", n)
	}
	if _, err := w.UseLink(t.Context(), secretOf(t, told), here); err != nil {
		t.Fatal(err)
	}
	w.later(31 * time.Second)
	at, b, code = w.ask(t, "second@example.com")
	in, err := w.try(t, at, b, code)
	if err != nil || in.ResidentID != second.ResidentID || w.person(t, in.Token).Email != "second@example.com" {
		t.Errorf("after the undo: %+v, %v", in, err)
	}
	if len(departures) != 2 || departures[0].Into != p.ID || !departures[1].Undone {
		t.Errorf("departments were told %+v", departures)
	}
}

func TestAttack79MergeOfSomebodyElsesAccount(t *testing.T) {
	w := newWorld(t)
	_, victim := w.addPasskey(t, w.signUp(t, "victim@example.com", "Victim").Token)
	w.later(time.Minute)
	_, token := w.addPasskey(t, w.signUp(t, "attacker@example.com", "Attacker").Token)
	p := w.person(t, token)
	// Knowing the address is nothing; even the mailbox is not enough beside a passkey.
	n, browser, err := w.Begin(t.Context(), identity.NewPending{MergeInto: p.ID}, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Merge(t.Context(), p, n.ID, browser); !errors.Is(err, identity.ErrNoPending) {
		t.Errorf("nothing proved: %v", err)
	}
	pending, browser, err := w.other(t, p, "victim@example.com")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Merge(t.Context(), p, pending, browser); !errors.Is(err, identity.ErrNoPending) {
		t.Errorf("one factor of two: %v", err)
	}
	if _, err := w.Session(t.Context(), victim); err != nil {
		t.Errorf("the victim's session: %v", err)
	}
	if asked, _ := w.mail.of("signin-code"); asked.Data["code"] == "" {
		t.Error("the victim's mailbox was not told")
	}
}

// receipts is the money side of a claim: one guest's receipt.
type receipts struct{ id, contact string }

func (r receipts) GuestReceipt(_ context.Context, number string) (string, string, error) {
	if number != "17" {
		return "", "", identity.ErrNotFound
	}
	return r.id, r.contact, nil
}

func TestClaim(t *testing.T) {
	w := newWorld(t)
	books := receipts{id: id.New()}
	err := pgx.BeginFunc(t.Context(), w.db, func(tx pgx.Tx) (err error) {
		books.contact, err = w.Contact(t.Context(), tx, "Guest@example.com")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	stranger := w.person(t, w.signUp(t, "stranger@example.com", "Stranger").Token)
	w.later(time.Minute)
	guest := w.person(t, w.signUp(t, "guest@example.com", "Guest").Token)
	for name, err := range map[string]error{
		"by somebody who has not proved the address": w.Claim(t.Context(), books, stranger, "17", here),
		"with another number":                        w.Claim(t.Context(), books, guest, "18", here),
	} {
		if !errors.Is(err, identity.ErrClaim) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := w.Claim(t.Context(), books, guest, "17", here); err != nil {
		t.Fatal(err)
	}
	if err := w.Claim(t.Context(), books, guest, "17", here); !errors.Is(err, identity.ErrClaim) {
		t.Errorf("again: %v", err)
	}
	claimed, err := w.Claimed(t.Context(), guest.ID, 10)
	if err != nil || fmt.Sprint(claimed) != fmt.Sprint([]string{books.id}) {
		t.Errorf("claimed %v, %v", claimed, err)
	}
	if _, n := w.mail.of("claimed"); n != 2 || w.audits(t, "guest.claimed") != 1 {
		t.Errorf("%d mails, want both sides told", n)
	}
}

func TestCodeFromACounter(t *testing.T) {
	w := newWorld(t)
	in := w.signUp(t, "demo@example.com", "Demo")
	key, _ := w.addPasskey(t, in.Token)
	code, err := w.IssueCounterCode(t.Context(), identity.CounterCode{ResidentID: in.ResidentID, StaffID: id.New(), Document: "passport", ResetFactors: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.usePasskey(t, key); !errors.Is(err, identity.ErrPasskey) {
		t.Errorf("the lost passkey: %v", err)
	}
	w.later(time.Minute)
	pending, browser, _ := w.ask(t, "somebody.else@example.com")
	var wrong *identity.WrongCodeError
	if _, err := w.try(t, pending, browser, code); !errors.As(err, &wrong) {
		t.Errorf("with another address: %v", err)
	}
	pending, browser, _ = w.ask(t, "demo@example.com")
	got, err := w.try(t, pending, browser, strings.ToLower(code))
	if err != nil || w.person(t, got.Token).ACR != 1 {
		t.Fatalf("with the code: %+v, %v", got, err)
	}
	_, token := w.addPasskey(t, got.Token)
	if p := w.person(t, token); p.ACR != 3 || !p.Proofed {
		t.Errorf("with a proved identity and a passkey: %+v", p)
	}
	w.later(time.Minute)
	pending, browser, _ = w.ask(t, "demo@example.com")
	if _, err := w.try(t, pending, browser, code); !errors.As(err, &wrong) {
		t.Errorf("the code again: %v", err)
	}
}

// After closing, no string of the person is left: not in any table, and what was sealed
// does not open.
func TestAClosedAccountLeavesNoTrace(t *testing.T) {
	w := newWorld(t)
	in := w.signUp(t, "lea.unique@example.com", "Léa Unverwechselbar")
	_, token := w.addPasskey(t, in.Token)
	_, _, token = w.addApp(t, token)
	p := w.person(t, token)
	err := w.UpdateProfile(t.Context(), p, identity.ProfileChange{Name: p.Name, Lang: "fr", Phone: "613-555-0199", Address: identity.PostalAddress{Street: "4711 Einzigweg"}})
	if err != nil {
		t.Fatal(err)
	}
	err = pgx.BeginFunc(t.Context(), w.db, func(tx pgx.Tx) error { _, err := w.Contact(t.Context(), tx, "lea.unique@example.com"); return err })
	if err != nil {
		t.Fatal(err)
	}
	at, err := w.RequestClose(t.Context(), p, here)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := w.CloseDue(t.Context()); n != 0 || err != nil {
		t.Errorf("at once: %d closed, %v", n, err)
	}
	w.now = at
	if n, err := w.CloseDue(t.Context()); n != 1 || err != nil {
		t.Fatalf("%d closed, %v", n, err)
	}
	if n, err := w.CloseDue(t.Context()); n != 0 || err != nil {
		t.Errorf("again: %d closed, %v", n, err)
	}
	if _, err := w.Resident(t.Context(), p.ID); !errors.Is(err, identity.ErrForgotten) {
		t.Errorf("the closed account reads: %v", err)
	}
	rows, err := w.db.Query(t.Context(), `
		select format('%I.%I', table_schema, table_name) from information_schema.tables
		where table_schema in ('identity', 'ops', 'payments', 'department', 'ledger', 'reconcile', 'river') and table_type = 'BASE TABLE' order by 1 limit 500`)
	if err != nil {
		t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(tables) < 30 {
		t.Fatalf("%d tables, %v", len(tables), err)
	}
	for _, table := range tables {
		var text string
		// Both as it reads and byte by byte: a name in a bytea column is hexadecimal in text.
		err := w.db.QueryRow(t.Context(), `select coalesce(string_agg(r::text, e'\n'), '') from `+table+` r`).Scan(&text)
		if err != nil {
			t.Fatalf("%s: %v", table, err)
		}
		for _, trace := range []string{"lea.unique", "Unverwechselbar", "5550199", "Einzigweg", "My phone"} {
			if strings.Contains(text, trace) || strings.Contains(text, fmt.Sprintf("%x", trace)) {
				t.Errorf("%s still holds %q", table, trace)
			}
		}
	}
	for _, m := range w.mail.sent {
		if strings.Contains(fmt.Sprint(m.Key, m.To), "lea.unique") {
			t.Errorf("the queue holds the address: %s %s", m.Key, m.To)
		}
	}
	// The address is free again, and belongs to somebody new.
	w.later(time.Hour)
	if again := w.signUp(t, "lea.unique@example.com", "Somebody"); again.ResidentID == p.ID {
		t.Error("the closed account came back")
	}
}

func TestSignInsOfOneNetworkAreBounded(t *testing.T) {
	w := newWorld(t)
	begin := func(v identity.Visitor) error {
		_, _, err := w.Begin(t.Context(), identity.NewPending{Visitor: v}, "")
		return err
	}
	for i := range 600 {
		if err := begin(here); err != nil {
			t.Fatalf("sign-in %d: %v", i+1, err)
		}
	}
	if err := begin(here); !errors.As(err, new(*identity.LimitedError)) {
		t.Errorf("the 601st: %v", err)
	}
	if err := begin(identity.Visitor{Network: "198.51.100.0/24"}); err != nil {
		t.Errorf("from another network: %v", err)
	}
}
