package account_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-rod/rod"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"guichet/api/account"
	"guichet/api/oidc"
	"guichet/api/session"
	"guichet/api/web"
	"guichet/identity"
	"guichet/identity/provider"
	"guichet/identity/staff"
	"guichet/internal/browser"
	"guichet/internal/id"
	"guichet/internal/mail"
	"guichet/internal/seal"
	"guichet/internal/testdb"
	"guichet/payments"
)

// mailbox keeps what was queued.
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

// last returns the newest message of a template.
func (m *mailbox) last(template string) mail.Message {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := len(m.sent) - 1; i >= 0; i-- {
		if m.sent[i].Template == template {
			return m.sent[i]
		}
	}
	return mail.Message{}
}

// world is sign-in and account behind real HTTP, on a real database.
type world struct {
	t        *testing.T
	url      string
	db       *pgxpool.Pool
	mail     *mailbox
	people   *identity.Service
	provider *provider.Service

	mu  sync.Mutex
	now time.Time
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) later(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, db: testdb.New(t), mail: &mailbox{}, now: time.Date(2026, 6, 1, 14, 0, 0, 0, time.UTC)}
	var handler http.Handler
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { handler.ServeHTTP(rw, r) }))
	t.Cleanup(srv.Close)
	w.url = strings.Replace(srv.URL, "127.0.0.1", "localhost", 1) // no browser makes passkeys for a number
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))
	raw := make([]byte, seal.Size)
	rand.Read(raw)
	master, err := seal.New(raw)
	must(t, err)
	wide := identity.Limit{Burst: 1000, Per: time.Minute}
	w.people, err = identity.New(t.Context(), w.db, identity.Config{Now: w.clock, BaseURL: w.url, Master: master, Mail: w.mail, Limits: identity.Limits{
		CodeAgain: wide, CodeAddress: wide, CodeTotal: wide, CodeNetwork: wide, TryAddress: wide, TryNetwork: wide,
	}})
	must(t, err)
	w.provider, err = provider.New(t.Context(), w.db, w.people, provider.Config{Issuer: w.url, Now: w.clock, Master: master, Development: true})
	must(t, err)
	must(t, w.provider.TendKeys(t.Context()))
	site := web.New(web.Options{BaseURL: w.url, Dev: true, Log: log, Viewer: session.Viewer})
	members := staff.New(w.db, staff.Config{Now: w.clock})
	sessions, err := session.New(session.Options{BaseURL: w.url, Residents: w.people, Staff: members, Site: site, Log: log})
	must(t, err)
	signIn, err := oidc.New(oidc.Options{Issuer: w.url, Provider: w.provider, People: w.people, Staff: members, Sessions: sessions, Site: site, Now: w.clock, Log: log})
	must(t, err)
	r := chi.NewRouter()
	r.Handle("/static/*", site.Static())
	signIn.Routes(r)
	account.New(account.Options{
		People: w.people, Provider: w.provider, Sessions: sessions, Site: site, Now: w.clock, Log: log,
		Receipts: func(context.Context, string, int) ([]payments.Receipt, error) {
			return []payments.Receipt{{Number: 17, IssuedAt: w.clock()}}, nil
		},
	}).Routes(r)
	handler = http.NewCrossOriginProtection().Handler(r)
	return w
}

// client registers an application of a department of its own.
func (w *world) client(clientID string, redirect string) {
	w.t.Helper()
	departmentID := id.New()
	_, err := w.db.Exec(w.t.Context(), `
		insert into department.department (id, code, name_en, name_fr, created_at) values ($1, 'parking', 'Parking', 'Stationnement', $2)`, departmentID, w.clock())
	must(w.t, err)
	must(w.t, pgx.BeginFunc(w.t.Context(), w.db, func(tx pgx.Tx) error {
		_, err := w.provider.CreateClient(w.t.Context(), tx, provider.NewClient{
			ID: clientID, DepartmentID: departmentID, FirstParty: true, RedirectURIs: []string{redirect},
			Name: provider.Words{EN: "Parking Portal", FR: "Portail du stationnement"},
		})
		return err
	}))
}

// code is the last code that was mailed by a template.
func (w *world) code(template string) string { return w.mail.last(template).Data["code"] }

// signIn signs an address in by the code, from the address that leads to it, and makes
// the account if there is none.
func (w *world) signIn(page *rod.Page, at, email string) {
	w.t.Helper()
	browser.Go(w.t, page, w.url+at)
	browser.Fill(w.t, page, "#email", email)
	browser.Click(w.t, page, "button[value=email]")
	browser.Fill(w.t, page, "#code", w.code("signin-code"))
	browser.Click(w.t, page, "button[value=code]")
	if has, _, err := page.Has("#name[autocomplete=name]"); err == nil && has && strings.Contains(path(w.t, page), "/signin/") {
		browser.Fill(w.t, page, "#name", "Léa Demo")
		browser.Click(w.t, page, "button[value=profile]")
	}
}

func path(t testing.TB, page *rod.Page) string {
	t.Helper()
	info, err := page.Info()
	must(t, err)
	return strings.TrimPrefix(info.URL, strings.Join(strings.SplitN(info.URL, "/", 4)[:3], "/"))
}

// at fails unless the page is at a path.
func at(t testing.TB, page *rod.Page, want string) {
	t.Helper()
	if got := path(t, page); !strings.HasPrefix(got, want) {
		t.Fatalf("the page is %s, want %s: %s", got, want, browser.Text(t, page, "main"))
	}
}

// look checks a page that may be opened again, in both languages and sizes, and keeps pictures.
func look(t testing.TB, page *rod.Page, name string) {
	t.Helper()
	address, _, _ := strings.Cut(page.MustInfo().URL, "?")
	for _, lang := range []string{"fr", "en"} {
		browser.Go(t, page, address+"?lang="+lang)
		see(t, page, name+"-"+lang)
	}
}

// see is look for a page as it stands.
func see(t testing.TB, page *rod.Page, name string) {
	t.Helper()
	for _, v := range []struct {
		name string
		size browser.Viewport
	}{{"phone", browser.Phone}, {"desktop", browser.Desktop}} {
		browser.Resize(t, page, v.size)
		browser.Axe(t, page)
		browser.NoSideways(t, page)
		browser.Shot(t, page, fmt.Sprintf("account-%s-%s", name, v.name))
	}
}
