package identity_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"guichet/identity"
	"guichet/internal/jobs"
	"guichet/internal/mail"
	"guichet/internal/seal"
	"guichet/internal/testdb"
)

// mailbox keeps what was queued. Mail of a transaction that rolled back is in it
// too, so tests look at the newest.
type mailbox struct {
	mu   sync.Mutex
	sent []mail.Message
}

func (m *mailbox) Enqueue(_ context.Context, _ pgx.Tx, msg mail.Message) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sent = append(m.sent, msg)
	return nil
}

func (m *mailbox) last() mail.Message {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sent[len(m.sent)-1]
}

func (m *mailbox) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.sent)
}

type world struct {
	*identity.Service
	db   *pgxpool.Pool
	mail *mailbox
	now  time.Time
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{db: testdb.New(t), mail: &mailbox{}, now: time.Date(2026, 6, 1, 14, 0, 0, 0, time.UTC)}
	var err error
	w.Service, err = identity.New(t.Context(), w.db, identity.Config{Now: func() time.Time { return w.now }, BaseURL: "https://guichet.example", Master: masterKey(t), Mail: w.mail})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func masterKey(t *testing.T) *seal.Key {
	t.Helper()
	raw := make([]byte, 32)
	rand.Read(raw)
	key, err := seal.New(raw)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

var here = identity.Visitor{Network: "203.0.113.0/24", Device: "Firefox, Linux"}

func (w *world) begin(t *testing.T) (pending, browser string) {
	t.Helper()
	p, browser, err := w.Begin(t.Context(), identity.NewPending{ReturnPath: "/bills"}, "")
	if err != nil {
		t.Fatal(err)
	}
	return p.ID, browser
}

// ask begins a sign-in and asks for a code, which it returns.
func (w *world) ask(t *testing.T, email string) (pending, browser, code string) {
	t.Helper()
	pending, browser = w.begin(t)
	err := w.AskCode(t.Context(), identity.CodeRequest{Pending: pending, Browser: browser, Email: email, Lang: "en", Service: "Guichet", Visitor: here})
	if err != nil {
		t.Fatal(err)
	}
	return pending, browser, w.mail.last().Data["code"]
}

func (w *world) try(t *testing.T, pending, browser, code string) (identity.SignedIn, error) {
	t.Helper()
	return w.TryCode(t.Context(), identity.CodeTry{Pending: pending, Browser: browser, Code: code, Visitor: here})
}

// signUp makes an account and returns its session token.
func (w *world) signUp(t *testing.T, email, name string) identity.SignedIn {
	t.Helper()
	pending, browser, code := w.ask(t, email)
	in, err := w.try(t, pending, browser, code)
	if err != nil {
		t.Fatal(err)
	}
	if in.Token != "" {
		t.Fatalf("%s is signed in before saying who they are", email)
	}
	in, err = w.Register(t.Context(), identity.Registration{Pending: pending, Browser: browser, Name: name, Lang: "fr", Visitor: here})
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func (w *world) later(d time.Duration) { w.now = w.now.Add(d) }

func TestSignUpThenSignIn(t *testing.T) {
	w := newWorld(t)
	first := w.signUp(t, "demo.resident@example.com", "  Demo   Resident ")
	p, err := w.Session(t.Context(), first.Token)
	if err != nil {
		t.Fatal(err)
	}
	if p.Name != "Demo Resident" || p.Email != "demo.resident@example.com" || p.Lang != "fr" || p.ACR != 1 {
		t.Errorf("person = %+v", p)
	}
	w.later(time.Hour)
	pending, browser, code := w.ask(t, "Demo.Resident@EXAMPLE.com")
	again, err := w.try(t, pending, browser, strings.ReplaceAll(code, " ", "-"))
	if err != nil {
		t.Fatal(err)
	}
	if again.ResidentID != first.ResidentID || again.Token == "" || again.Token == first.Token || again.Pending.ReturnPath != "/bills" {
		t.Errorf("second sign-in = %+v", again)
	}
}

func TestACodeWorksOnce(t *testing.T) {
	w := newWorld(t)
	w.signUp(t, "demo@example.com", "Demo")
	w.later(time.Hour)
	pending, browser, code := w.ask(t, "demo@example.com")
	if _, err := w.try(t, pending, browser, code); err != nil {
		t.Fatal(err)
	}
	if _, err := w.try(t, pending, browser, code); !errors.Is(err, identity.ErrNoPending) {
		t.Errorf("second use: %v", err)
	}
}

func TestOfManyRightTriesAtOnceOneSignsIn(t *testing.T) {
	w := newWorld(t)
	w.signUp(t, "demo@example.com", "Demo")
	w.later(time.Hour)
	pending, browser, code := w.ask(t, "demo@example.com")
	var wg sync.WaitGroup
	var mu sync.Mutex
	ok := 0
	for range 5 {
		wg.Go(func() {
			_, err := w.TryCode(context.Background(), identity.CodeTry{Pending: pending, Browser: browser, Code: code, Visitor: here})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				ok++
			case !errors.Is(err, identity.ErrNoPending) && !errors.Is(err, identity.ErrCodeDead) && !errors.Is(err, identity.ErrWrongStep):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if ok != 1 {
		t.Errorf("%d tries signed in, want 1", ok)
	}
}

func TestTwoTabsThatRegisterTheSameAddressMakeOneAccount(t *testing.T) {
	w := newWorld(t)
	p1, b1, code := w.ask(t, "demo@example.com")
	if _, err := w.try(t, p1, b1, code); err != nil {
		t.Fatal(err)
	}
	w.later(time.Minute)
	p2, b2, code := w.ask(t, "demo@example.com")
	if _, err := w.try(t, p2, b2, code); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var ids [2]string
	for i, p := range [][2]string{{p1, b1}, {p2, b2}} {
		wg.Go(func() {
			in, err := w.Register(context.Background(), identity.Registration{Pending: p[0], Browser: p[1], Name: "Demo", Visitor: here})
			if err != nil {
				t.Error(err)
			}
			ids[i] = in.ResidentID
		})
	}
	wg.Wait()
	if ids[0] != ids[1] || ids[0] == "" {
		t.Errorf("accounts %v, want the same", ids)
	}
}

func TestCodeExpires(t *testing.T) {
	w := newWorld(t)
	pending, browser, code := w.ask(t, "demo@example.com")
	w.later(10 * time.Minute)
	if _, err := w.try(t, pending, browser, code); !errors.Is(err, identity.ErrNoPending) && !errors.Is(err, identity.ErrCodeDead) {
		t.Errorf("after 10 minutes: %v", err)
	}
	if _, err := w.Address(t.Context(), w.mail.last().To); !errors.Is(err, mail.ErrGone) {
		t.Errorf("a dead code still has an address: %v", err)
	}
}

func TestANewCodeReplacesTheOneBefore(t *testing.T) {
	w := newWorld(t)
	pending, browser, old := w.ask(t, "demo@example.com")
	oldTo := w.mail.last().To
	w.later(31 * time.Second)
	if err := w.AskCode(t.Context(), identity.CodeRequest{Pending: pending, Browser: browser, Email: "demo@example.com", Lang: "en", Visitor: here}); err != nil {
		t.Fatal(err)
	}
	if old == w.mail.last().Data["code"] {
		t.Skip("the same code twice: one in a hundred million")
	}
	var wrong *identity.WrongCodeError
	if _, err := w.try(t, pending, browser, old); !errors.As(err, &wrong) || wrong.Left != 4 {
		t.Errorf("old code: %v, want wrong with 4 tries left", err)
	}
	if _, err := w.Address(t.Context(), oldTo); !errors.Is(err, mail.ErrGone) {
		t.Errorf("the replaced code still has an address: %v", err)
	}
	if _, err := w.try(t, pending, browser, w.mail.last().Data["code"]); err != nil {
		t.Errorf("new code: %v", err)
	}
}

func TestMailOfACode(t *testing.T) {
	w := newWorld(t)
	w.ask(t, "demo@example.com")
	m := w.mail.last()
	if m.Template != "signin-code" || m.Lang != "en" || !strings.HasPrefix(m.To, "code:") || strings.Contains(fmt.Sprint(m.Key, m.To), "demo") {
		t.Errorf("message = %+v", m)
	}
	a, err := w.Address(t.Context(), m.To)
	if err != nil || a.Email != "demo@example.com" {
		t.Errorf("Address = %+v, %v", a, err)
	}
}

// The words, the outbox and this package fit together, in both languages, and the code is
// not in a subject, where it would show on a locked screen.
func TestCodeGoesThroughTheOutbox(t *testing.T) {
	w := newWorld(t)
	templates, err := mail.NewTemplates(identity.MailTemplates)
	if err != nil {
		t.Fatal(err)
	}
	queue, err := jobs.New(w.db, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	outbox := mail.New(w.db, queue, templates, masterKey(t), func() time.Time { return w.now })
	for _, lang := range []string{"en", "fr"} {
		w.ask(t, lang+"@example.com")
		m := w.mail.last()
		m.Lang = lang
		if err := pgx.BeginFunc(t.Context(), w.db, func(tx pgx.Tx) error { return outbox.Enqueue(t.Context(), tx, m) }); err != nil {
			t.Errorf("%s: %v", lang, err)
		}
		text, err := identity.MailTemplates.ReadFile("mailtext/signin-code." + lang + ".txt")
		if err != nil {
			t.Fatal(err)
		}
		if subject, _, _ := strings.Cut(string(text), "\n"); strings.Contains(subject, "{{") {
			t.Errorf("%s: the subject holds a value: %s", lang, subject)
		}
	}
}

func TestAccountStates(t *testing.T) {
	w := newWorld(t)
	in := w.signUp(t, "demo@example.com", "Demo")
	if _, err := w.db.Exec(t.Context(), `update identity.resident set state = 'suspended'`); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Session(t.Context(), in.Token); !errors.Is(err, identity.ErrNoSession) {
		t.Errorf("session of a suspended account: %v", err)
	}
	w.later(time.Hour)
	pending, browser, code := w.ask(t, "demo@example.com")
	if _, err := w.try(t, pending, browser, code); !errors.Is(err, identity.ErrSuspended) {
		t.Errorf("sign-in to a suspended account: %v", err)
	}
	if _, err := w.try(t, pending, browser, code); !errors.Is(err, identity.ErrNoPending) {
		t.Errorf("the proof was not spent: %v", err)
	}
	var history string
	err := w.db.QueryRow(t.Context(), `select string_agg(outcome, ' ' order by at) from identity.signin`).Scan(&history)
	if err != nil || history != "ok refused" {
		t.Errorf("history %q, %v", history, err)
	}
}

func TestSessionEnds(t *testing.T) {
	tests := []struct {
		name string
		do   func(w *world, t *testing.T, p identity.Person, token string)
		ok   bool
	}{
		{"not before it has been idle for 30 minutes", func(w *world, _ *testing.T, _ identity.Person, _ string) { w.later(29 * time.Minute) }, true},
		{"when idle for 30 minutes", func(w *world, _ *testing.T, _ identity.Person, _ string) { w.later(30 * time.Minute) }, false},
		{"12 hours after sign-in however busy", func(w *world, t *testing.T, _ identity.Person, token string) {
			for range 12 * 3 {
				w.later(20 * time.Minute)
				w.Session(t.Context(), token) // ends at the last one
			}
		}, false},
		{"by sign-out", func(w *world, t *testing.T, p identity.Person, _ string) {
			if err := w.EndSession(t.Context(), p, "signed out"); err != nil {
				t.Fatal(err)
			}
		}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			in := w.signUp(t, "demo@example.com", "Demo")
			p, err := w.Session(t.Context(), in.Token)
			if err != nil {
				t.Fatal(err)
			}
			tt.do(w, t, p, in.Token)
			if _, err := w.Session(t.Context(), in.Token); (err == nil) != tt.ok || err != nil && !errors.Is(err, identity.ErrNoSession) {
				t.Errorf("session: %v, want open %v", err, tt.ok)
			}
		})
	}
}

func TestProvingAgainKeepsTheSessionUnderANewToken(t *testing.T) {
	w := newWorld(t)
	in := w.signUp(t, "demo@example.com", "Demo")
	before, err := w.Session(t.Context(), in.Token)
	if err != nil {
		t.Fatal(err)
	}
	w.later(10 * time.Minute)
	pending, browser, code := w.ask(t, "demo@example.com")
	again, err := w.TryCode(t.Context(), identity.CodeTry{Pending: pending, Browser: browser, Code: code, Session: in.Token, Visitor: here})
	if err != nil {
		t.Fatal(err)
	}
	after, err := w.Session(t.Context(), again.Token)
	if err != nil {
		t.Fatal(err)
	}
	if after.SessionID != before.SessionID || !after.SignedInAt.After(before.SignedInAt) {
		t.Errorf("before %+v, after %+v", before, after)
	}
	if _, err := w.Session(t.Context(), in.Token); !errors.Is(err, identity.ErrNoSession) {
		t.Errorf("the old token still opens the session: %v", err)
	}
	w.later(time.Minute)
	pending, browser, code = w.ask(t, "other@example.com")
	if _, err := w.TryCode(t.Context(), identity.CodeTry{Pending: pending, Browser: browser, Code: code, Session: again.Token, Visitor: here}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Register(t.Context(), identity.Registration{Pending: pending, Browser: browser, Name: "Other", Session: again.Token, Visitor: here}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Session(t.Context(), again.Token); !errors.Is(err, identity.ErrNoSession) {
		t.Errorf("another person signed in here, and the first session is still open: %v", err)
	}
}

func TestLimits(t *testing.T) {
	ask := func(w *world, email string, v identity.Visitor) error {
		pending, browser := w.begin(t)
		return w.AskCode(t.Context(), identity.CodeRequest{Pending: pending, Browser: browser, Email: email, Lang: "en", Visitor: v})
	}
	var limited *identity.LimitedError
	t.Run("a second code waits 30 seconds", func(t *testing.T) {
		w := newWorld(t)
		if err := ask(w, "demo@example.com", here); err != nil {
			t.Fatal(err)
		}
		if err := ask(w, "DEMO@example.com", here); !errors.As(err, &limited) || limited.After != 30*time.Second {
			t.Fatalf("at once: %v, %+v", err, limited)
		}
		w.later(30 * time.Second)
		if err := ask(w, "demo@example.com", here); err != nil {
			t.Errorf("after 30 seconds: %v", err)
		}
	})
	t.Run("five codes an hour go to an address, known or not", func(t *testing.T) {
		w := newWorld(t)
		w.signUp(t, "known@example.com", "Known")
		w.later(2 * time.Hour)
		for _, email := range []string{"known@example.com", "unknown@example.com"} {
			sent := w.mail.count()
			var refused error
			for range 7 {
				w.later(31 * time.Second)
				if err := ask(w, email, here); err != nil {
					refused = err
				}
			}
			if n := w.mail.count() - sent; n != 5 || !errors.As(refused, &limited) {
				t.Errorf("%s: %d codes, %v", email, n, refused)
			}
		}
	})
	t.Run("twenty codes an hour go to one network", func(t *testing.T) {
		w := newWorld(t)
		sent := 0
		for i := range 25 {
			if ask(w, fmt.Sprintf("demo%d@example.com", i), here) == nil {
				sent++
			}
		}
		if sent != 20 {
			t.Errorf("%d codes, want 20", sent)
		}
		if err := ask(w, "elsewhere@example.com", identity.Visitor{Network: "198.51.100.0/24"}); err != nil {
			t.Errorf("another network: %v", err)
		}
	})
	t.Run("ten codes an hour go to an address from everywhere", func(t *testing.T) {
		w := newWorld(t)
		sent := 0
		for i := range 15 {
			w.later(31 * time.Second)
			if ask(w, "demo@example.com", identity.Visitor{Network: fmt.Sprintf("198.51.%d.0/24", i)}) == nil {
				sent++
			}
		}
		if sent != 11 { // seven minutes bring one back
			t.Errorf("%d codes, want 11", sent)
		}
	})
	t.Run("a stranger exhausts an address only for himself", func(t *testing.T) {
		w := newWorld(t)
		w.signUp(t, "known@example.com", "Known")
		w.later(2 * time.Hour)
		stranger := identity.Visitor{Network: "198.51.100.0/24"}
		pending, browser := w.begin(t)
		for range 7 {
			w.later(31 * time.Second)
			if err := w.AskCode(t.Context(), identity.CodeRequest{Pending: pending, Browser: browser, Email: "known@example.com", Lang: "en", Visitor: stranger}); err != nil {
				break
			}
			for range 5 {
				_, err := w.TryCode(t.Context(), identity.CodeTry{Pending: pending, Browser: browser, Code: "not a code", Visitor: stranger})
				if err == nil {
					t.Fatal("a wrong code signed in")
				}
			}
		}
		w.later(31 * time.Second)
		if err := ask(w, "known@example.com", stranger); !errors.As(err, &limited) {
			t.Errorf("the stranger may go on: %v", err)
		}
		pending, browser, code := w.ask(t, "known@example.com")
		if in, err := w.try(t, pending, browser, code); err != nil || in.Token == "" {
			t.Errorf("the owner is locked out: %v", err)
		}
	})
	t.Run("refusals leave ten traces an hour of a network", func(t *testing.T) {
		w := newWorld(t)
		noted := func(network string) (n int) {
			err := w.db.QueryRow(t.Context(), `
				select count(*) from ops.audit where action = 'code.limited' and details ->> 'network' = $1`, network).Scan(&n)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		elsewhere := identity.Visitor{Network: "198.51.100.0/24"}
		for i := range 40 {
			_ = ask(w, fmt.Sprintf("demo%d@example.com", i), here)
			_ = ask(w, "one@example.com", elsewhere)
		}
		if a, b := noted(here.Network), noted(elsewhere.Network); a != 10 || b != 10 {
			t.Errorf("%d and %d traces, want 10 and 10", a, b)
		}
	})
	t.Run("ten tries in a quarter of an hour for an address", func(t *testing.T) {
		w := newWorld(t)
		wrong, refused := 0, false
		for range 3 {
			pending, browser, _ := w.ask(t, "demo@example.com")
			for range 5 {
				_, err := w.try(t, pending, browser, "not a code")
				var bad *identity.WrongCodeError
				switch {
				case errors.As(err, &bad):
					wrong++
				case errors.As(err, &limited):
					refused = true
				default:
					t.Fatal(err)
				}
			}
			w.later(31 * time.Second)
		}
		if wrong != 10 || !refused {
			t.Errorf("%d tries compared, refused %v; want 10, true", wrong, refused)
		}
	})
}

func TestABouncedAddressIsMarkedUntilItIsProvedAgain(t *testing.T) {
	w := newWorld(t)
	var _ mail.Marker = w.Service
	in := w.signUp(t, "demo@example.com", "Demo")
	bounced := func() string {
		t.Helper()
		r, err := w.Resident(t.Context(), in.ResidentID)
		if err != nil {
			t.Fatal(err)
		}
		return r.Bounced
	}
	err := pgx.BeginFunc(t.Context(), w.db, func(tx pgx.Tx) error {
		for _, to := range []string{"resident:" + in.ResidentID, "code:" + in.ResidentID, "resident:nobody"} {
			if err := w.Bounced(t.Context(), tx, to, "5.1.1"); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || bounced() != "5.1.1" {
		t.Fatalf("marked %q, %v", bounced(), err)
	}
	w.later(time.Hour)
	pending, browser, code := w.ask(t, "demo@example.com")
	if _, err := w.try(t, pending, browser, code); err != nil || bounced() != "" {
		t.Errorf("after a code arrived: marked %q, %v", bounced(), err)
	}
}

func TestContactIsOnePerAddress(t *testing.T) {
	w := newWorld(t)
	contact := func(email string) (id string) {
		err := pgx.BeginFunc(t.Context(), w.db, func(tx pgx.Tx) (err error) {
			id, err = w.Contact(t.Context(), tx, email)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	first := contact("Guest@example.com")
	if contact("guest@EXAMPLE.com") != first || contact("other@example.com") == first {
		t.Error("contacts are not one per address")
	}
	a, err := w.Address(t.Context(), "contact:"+first)
	if err != nil || a.Email != "Guest@example.com" {
		t.Errorf("Address = %+v, %v", a, err)
	}
	for _, to := range []string{"contact:x", "resident:" + first, "person:" + first, "", "contact:" + strings.ToUpper(first[:8]) + "-0000-7000-8000-000000000000"} {
		if _, err := w.Address(t.Context(), to); !errors.Is(err, mail.ErrGone) {
			t.Errorf("Address(%q): %v, want ErrGone", to, err)
		}
	}
}

// Everything that names the person must be unreadable at rest, and stay so for ever once
// the personal key is gone.
func TestDestroyingThePersonalKeyForgetsThePerson(t *testing.T) {
	w := newWorld(t)
	in := w.signUp(t, "zebulon@example.com", "Zebulon Quist")
	w.later(3 * time.Hour)
	if _, err := w.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	rows, err := testdb.Owner(t, w.db).Query(t.Context(), `
		select table_schema || '.' || table_name from information_schema.tables
		where table_schema in ('identity', 'ops') and table_type = 'BASE TABLE' order by 1 limit 100`)
	if err != nil {
		t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(tables) < 20 {
		t.Fatalf("%d tables, %v", len(tables), err)
	}
	owner := testdb.Owner(t, w.db)
	for _, table := range tables {
		var dump *string
		if err := owner.QueryRow(t.Context(), "select string_agg(lower(t::text), ' ') from "+table+" t").Scan(&dump); err != nil {
			t.Fatal(err)
		}
		for _, word := range []string{"zebulon", "quist", fmt.Sprintf("%x", "zebulon"), fmt.Sprintf("%x", "Zebulon")} {
			if dump != nil && strings.Contains(*dump, word) {
				t.Errorf("%s shows %q", table, word)
			}
		}
	}
	_, err = w.db.Exec(t.Context(), `update identity.person_key set box = null, destroyed_at = $2 where id = $1`, in.ResidentID, w.now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Resident(t.Context(), in.ResidentID); !errors.Is(err, identity.ErrForgotten) {
		t.Errorf("Resident: %v", err)
	}
	if _, err := w.Address(t.Context(), "resident:"+in.ResidentID); !errors.Is(err, mail.ErrGone) {
		t.Errorf("Address: %v", err)
	}
}

func TestAnotherMasterKeyOpensNothing(t *testing.T) {
	w := newWorld(t)
	_, err := identity.New(t.Context(), w.db, identity.Config{Now: func() time.Time { return w.now }, BaseURL: "https://guichet.example", Master: masterKey(t), Mail: w.mail})
	if !errors.Is(err, seal.ErrBroken) {
		t.Errorf("New with a wrong master key: %v", err)
	}
}

func TestPendingBelongsToItsBrowser(t *testing.T) {
	w := newWorld(t)
	pending, browser, code := w.ask(t, "demo@example.com")
	_, other := w.begin(t)
	for name, stranger := range map[string]string{"another browser": other, "no cookie": "", "an invented cookie": "x"} {
		if _, err := w.Pending(t.Context(), pending, stranger); !errors.Is(err, identity.ErrNoPending) {
			t.Errorf("%s: Pending: %v", name, err)
		}
		if _, err := w.try(t, pending, stranger, code); !errors.Is(err, identity.ErrNoPending) {
			t.Errorf("%s: TryCode: %v", name, err)
		}
	}
	if _, err := w.try(t, pending, browser, code); err != nil {
		t.Errorf("the browser itself: %v", err)
	}
}

func TestTwoTabsShareTheBrowserSecret(t *testing.T) {
	w := newWorld(t)
	_, first, err := w.Begin(t.Context(), identity.NewPending{}, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, second, err := w.Begin(t.Context(), identity.NewPending{}, first); err != nil || second != first {
		t.Errorf("second tab: %v, same secret %v", err, second == first)
	}
	if _, planted, err := w.Begin(t.Context(), identity.NewPending{}, "planted-by-somebody"); err != nil || planted == "planted-by-somebody" {
		t.Errorf("a secret nobody was given is taken over: %v", err)
	}
}

func TestStepsCannotBeSkipped(t *testing.T) {
	w := newWorld(t)
	pending, browser := w.begin(t)
	if _, err := w.try(t, pending, browser, "12345678"); !errors.Is(err, identity.ErrWrongStep) {
		t.Errorf("code before address: %v", err)
	}
	register := func() error {
		_, err := w.Register(t.Context(), identity.Registration{Pending: pending, Browser: browser, Name: "Demo", Visitor: here})
		return err
	}
	if err := register(); !errors.Is(err, identity.ErrWrongStep) {
		t.Errorf("profile before address: %v", err)
	}
	pending, browser, _ = w.ask(t, "demo@example.com")
	if err := register(); !errors.Is(err, identity.ErrWrongStep) {
		t.Errorf("profile before code: %v", err)
	}
}

func TestSweepLeavesWhatLives(t *testing.T) {
	w := newWorld(t)
	in := w.signUp(t, "demo@example.com", "Demo")
	if n, err := w.Sweep(t.Context()); err != nil || n != 0 {
		t.Errorf("at once: %d rows, %v", n, err)
	}
	if _, err := w.Session(t.Context(), in.Token); err != nil {
		t.Errorf("session after a sweep: %v", err)
	}
	w.later(50 * 24 * time.Hour)
	if n, err := w.Sweep(t.Context()); err != nil || n < 4 { // pending, code, session, buckets
		t.Errorf("after 50 days: %d rows, %v", n, err)
	}
	if r, err := w.Resident(t.Context(), in.ResidentID); err != nil || r.State != identity.Active {
		t.Errorf("the resident after a sweep: %+v, %v", r, err)
	}
}

func TestAuditOfASignIn(t *testing.T) {
	w := newWorld(t)
	in := w.signUp(t, "demo@example.com", "Demo")
	rows, err := w.db.Query(t.Context(), `select action || ' ' || (subject = $1)::text from ops.audit order by seq limit 20`, in.ResidentID)
	if err != nil {
		t.Fatal(err)
	}
	actions, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(actions, ", "), "code.sent false, account.created true, signin.ok true"; got != want {
		t.Errorf("audit: %s, want %s", got, want)
	}
}
