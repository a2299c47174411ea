package journal_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"guichet/api/desk"
	"guichet/api/journal"
	"guichet/api/session"
	"guichet/api/web"
	"guichet/identity"
	"guichet/identity/staff"
	"guichet/internal/mail"
	"guichet/internal/money"
	"guichet/internal/seal"
	"guichet/internal/testdb"
	"guichet/ledger"
	"guichet/ledger/manual"
)

// A world is the pages over a real database, with people who sign in by the directory.
type world struct {
	t      *testing.T
	db     *pgxpool.Pool
	books  *ledger.Books
	manual *manual.Service
	staff  *staff.Service
	router *chi.Mux
	url    string
	now    time.Time
	tokens map[string]string
}

type noMail struct{}

func (noMail) Enqueue(context.Context, pgx.Tx, mail.Message) error { return nil }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, db: testdb.New(t), now: time.Date(2026, 6, 1, 14, 0, 0, 0, time.UTC), tokens: map[string]string{}}
	now := func() time.Time { return w.now }
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))
	key, err := seal.New(make([]byte, seal.Size))
	must(t, err)
	people, err := identity.New(t.Context(), w.db, identity.Config{Now: now, Master: key, Mail: noMail{}, BaseURL: "http://localhost"})
	must(t, err)
	w.staff = staff.New(w.db, staff.Config{Now: now, Mail: noMail{}, People: people})
	w.books = ledger.New(now)
	w.accounts()
	w.manual = manual.New(manual.Options{DB: w.db, Books: w.books, Now: now, Owned: []string{"assets:receivable"}})
	var handler http.Handler
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { handler.ServeHTTP(rw, r) }))
	t.Cleanup(srv.Close)
	w.url = srv.URL
	site := web.New(web.Options{BaseURL: srv.URL, Dev: true, Log: log, Viewer: desk.Viewer})
	sessions, err := session.New(session.Options{BaseURL: srv.URL, Residents: people, Staff: w.staff, Site: site, Log: log})
	must(t, err)
	desk.New(desk.Options{Site: site}) // its words are the navigation's
	h := journal.New(journal.Options{DB: w.db, Books: w.books, Manual: w.manual, Staff: w.staff, Sessions: sessions, Site: site, Now: now, Log: log})
	w.router = chi.NewRouter()
	h.Routes(w.router)
	w.router.Handle("/static/*", site.Static())
	handler = http.NewCrossOriginProtection().Handler(w.router)
	return w
}

func (w *world) accounts() {
	w.t.Helper()
	zero := money.Amount(0)
	w.in(func(tx pgx.Tx) error {
		for _, a := range []ledger.Account{
			{Path: "expenses:rent", NameEN: "Rent of offices", NameFR: "Loyer des bureaux"},
			{Path: "expenses:rentals", NameEN: "Rentals", NameFR: "Locations"},
			{Path: "liabilities:accrued", NameEN: "Accrued liabilities", NameFR: "Charges à payer"},
			{Path: "assets:receivable:water", NameEN: "Water receivable", NameFR: "Eau à recevoir"},
			{Path: "assets:float", NameEN: "Float", NameFR: "Fonds de caisse", Lowest: &zero},
		} {
			if err := w.books.OpenAccount(w.t.Context(), tx, a); err != nil {
				return err
			}
		}
		return nil
	})
}

func (w *world) in(f func(tx pgx.Tx) error) {
	w.t.Helper()
	must(w.t, pgx.BeginFunc(w.t.Context(), w.db, f))
}

// People of these tests.
const (
	clerk    = "clerk"
	approver = "approver"
	second   = "second-approver"
	auditor  = "auditor"
)

func roleOf(who string) staff.Role {
	switch who {
	case clerk:
		return staff.Role{Name: staff.FinanceClerk}
	case approver, second:
		return staff.Role{Name: staff.FinanceApprover}
	}
	return staff.Role{Name: who}
}

var here = identity.Visitor{Network: "203.0.113.0/24", Device: "Firefox, Linux"}

// signIn is the session of somebody who proved who they are at a time.
func (w *world) signIn(who string, proved time.Time) string {
	w.t.Helper()
	up := staff.Upstream{Issuer: "https://directory.example", Subject: who, Name: "Demo " + who, Email: who + "@city.example", ProvedAt: proved}
	token, err := w.staff.SignedIn(w.t.Context(), up, "", here)
	if err == nil {
		return token
	}
	w.in(func(tx pgx.Tx) error { return w.staff.Grant(w.t.Context(), tx, w.id(who), roleOf(who), "test") })
	token, err = w.staff.SignedIn(w.t.Context(), up, "", here)
	must(w.t, err)
	return token
}

func (w *world) as(who string) string {
	w.t.Helper()
	if w.tokens[who] == "" {
		w.tokens[who] = w.signIn(who, w.now)
	}
	return w.tokens[who]
}

func (w *world) id(who string) (memberID string) {
	w.t.Helper()
	must(w.t, w.db.QueryRow(w.t.Context(), `select id from identity.staff_member where subject = $1`, who).Scan(&memberID))
	return memberID
}

// An answer is what the pages said.
type answer struct {
	status int
	header http.Header
	body   string
}

var browserLike = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

func (w *world) send(method, who, path, mediaType string, body io.Reader) answer {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, body)
	must(w.t, err)
	if mediaType != "" {
		r.Header.Set("Content-Type", mediaType)
	}
	if who != "" {
		r.AddCookie(&http.Cookie{Name: "guichet-staff", Value: w.as(who)})
	}
	res, err := browserLike.Do(r)
	must(w.t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	must(w.t, err)
	return answer{res.StatusCode, res.Header, string(text)}
}

func (w *world) get(who, path string) answer {
	w.t.Helper()
	return w.send(http.MethodGet, who, path, "", nil)
}

func (w *world) post(who, path string, form url.Values) answer {
	w.t.Helper()
	return w.send(http.MethodPost, who, path, "application/x-www-form-urlencoded", strings.NewReader(form.Encode()))
}

// page is a page that must be there.
func (w *world) page(who, path string) string {
	w.t.Helper()
	a := w.get(who, path)
	if a.status != http.StatusOK {
		w.t.Fatalf("GET %s as %s: %d\n%s", path, who, a.status, a.body)
	}
	return a.body
}

// upload attaches a file.
func (w *world) upload(who, draftID, version, name string, content []byte) answer {
	w.t.Helper()
	var b bytes.Buffer
	form := multipart.NewWriter(&b)
	must(w.t, form.WriteField("version", version))
	part, err := form.CreateFormFile("upload", name)
	must(w.t, err)
	_, err = part.Write(content)
	must(w.t, err)
	must(w.t, form.Close())
	return w.send(http.MethodPost, who, "/desk/journal/"+draftID+"/files", form.FormDataContentType(), &b)
}
