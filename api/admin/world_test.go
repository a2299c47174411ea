package admin_test

import (
	"context"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"guichet/api/admin"
	"guichet/api/desk"
	"guichet/api/session"
	"guichet/api/web"
	"guichet/department"
	"guichet/identity"
	"guichet/identity/provider"
	"guichet/identity/staff"
	"guichet/internal/jobs"
	"guichet/internal/mail"
	"guichet/internal/seal"
	"guichet/internal/testdb"
)

// A world is the administration pages over a real database, as production has them: what
// is proposed waits for a second person.
type world struct {
	t        *testing.T
	db       *pgxpool.Pool
	provider *provider.Service
	depts    *department.Service
	people   *identity.Service
	staff    *staff.Service
	router   *chi.Mux
	url      string
	now      time.Time
	parking  department.Department
	water    department.Department
	tokens   map[string]string
}

var here = identity.Visitor{Network: "203.0.113.0/24", Device: "Firefox, Linux"}

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
	now, log := func() time.Time { return w.now }, slog.New(slog.DiscardHandler)
	key, err := seal.New(make([]byte, seal.Size))
	must(t, err)
	queue, err := jobs.New(w.db, log)
	must(t, err)
	w.people, err = identity.New(t.Context(), w.db, identity.Config{Now: now, BaseURL: "https://guichet.example", Master: key, Mail: noMail{}})
	must(t, err)
	w.provider, err = provider.New(t.Context(), w.db, w.people, provider.Config{Issuer: "https://pay.example", Now: now, Master: key})
	must(t, err)
	must(t, w.provider.TendKeys(t.Context()))
	w.depts = department.New(w.db, key, queue, now)
	w.staff = staff.New(w.db, staff.Config{Now: now, Alarm: []string{"duty@city.example"}, Mail: noMail{}, People: w.people})
	w.in(func(tx pgx.Tx) (err error) {
		if w.parking, err = w.depts.Create(t.Context(), tx, department.Department{Code: "parking", NameEN: "Parking", NameFR: "Stationnement"}); err != nil {
			return err
		}
		w.water, err = w.depts.Create(t.Context(), tx, department.Department{Code: "water", NameEN: "Water", NameFR: "Eau"})
		return err
	})
	var handler http.Handler
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { handler.ServeHTTP(rw, r) }))
	t.Cleanup(srv.Close)
	w.url = srv.URL
	site := web.New(web.Options{BaseURL: srv.URL, Dev: true, Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError})), Viewer: desk.Viewer})
	sessions, err := session.New(session.Options{BaseURL: srv.URL, Residents: w.people, Staff: w.staff, Site: site, Log: log})
	must(t, err)
	desk.New(desk.Options{Site: site}) // its words are the navigation's
	h := admin.New(admin.Options{
		DB: w.db, Provider: w.provider, Departments: w.depts, People: w.people, Staff: w.staff, Sessions: sessions, Site: site,
		Live: true, Partners: []string{"https://directory.example"}, Now: now, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	w.router = chi.NewRouter()
	h.Routes(w.router)
	w.router.Handle("/static/*", site.Static())
	handler = http.NewCrossOriginProtection().Handler(w.router)
	return w
}

func (w *world) in(f func(tx pgx.Tx) error) {
	w.t.Helper()
	must(w.t, pgx.BeginFunc(w.t.Context(), w.db, f))
}

// Who somebody is in these tests: a name, and the roles it holds.
func (w *world) roles(who string) []staff.Role {
	switch who {
	case "chief", "second":
		return []staff.Role{{Name: staff.Administrator}}
	case "parking", "parking-2":
		return []staff.Role{{Name: staff.Department, Department: w.parking.ID}}
	case "parking-admin":
		return []staff.Role{{Name: staff.Administrator, Department: w.parking.ID}}
	case "water":
		return []staff.Role{{Name: staff.Department, Department: w.water.ID}}
	case "parking-auditor":
		return []staff.Role{{Name: staff.Auditor, Department: w.parking.ID}}
	}
	return []staff.Role{{Name: who}}
}

func (w *world) upstream(who string, proved time.Time) staff.Upstream {
	return staff.Upstream{Issuer: "https://directory.example", Subject: who, Name: "Demo " + who, Email: who + "@city.example", ProvedAt: proved}
}

// as is the session of somebody who has just proved who they are.
func (w *world) as(who string) string {
	w.t.Helper()
	if token, ok := w.tokens[who]; ok {
		return token
	}
	ctx := w.t.Context()
	_, err := w.staff.SignedIn(ctx, w.upstream(who, w.now), "", here) // known, without a role yet
	if err == nil {
		w.t.Fatalf("%s had a role", who)
	}
	w.in(func(tx pgx.Tx) error {
		for _, r := range w.roles(who) {
			if err := w.staff.Grant(ctx, tx, w.memberID(who), r, "test"); err != nil {
				return err
			}
		}
		return nil
	})
	w.tokens[who] = w.again(who, w.now)
	return w.tokens[who]
}

// again signs somebody in who proved themselves at a time.
func (w *world) again(who string, proved time.Time) string {
	w.t.Helper()
	token, err := w.staff.SignedIn(w.t.Context(), w.upstream(who, proved), "", here)
	must(w.t, err)
	return token
}

func (w *world) memberID(who string) (memberID string) {
	w.t.Helper()
	must(w.t, w.db.QueryRow(w.t.Context(), `select id from identity.staff_member where subject = $1`, who).Scan(&memberID))
	return memberID
}

type answer struct {
	status int
	header http.Header
	body   string
}

var browserLike = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

func (w *world) send(r *http.Request, who string) answer {
	w.t.Helper()
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

// do sends a request as somebody; "" is nobody.
func (w *world) do(method, who, path string, form url.Values) answer {
	w.t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	r, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, body)
	must(w.t, err)
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return w.send(r, who)
}

func (w *world) get(who, path string) string {
	w.t.Helper()
	a := w.do(http.MethodGet, who, path, nil)
	if a.status != http.StatusOK {
		w.t.Fatalf("GET %s as %s: %d %s", path, who, a.status, a.text())
	}
	return a.text()
}

// post sends a form that must be carried out, and returns the page it leads to.
func (w *world) post(who, path string, form url.Values) string {
	w.t.Helper()
	a := w.do(http.MethodPost, who, path, form)
	switch a.status {
	case http.StatusOK:
		return a.text()
	case http.StatusSeeOther:
		return w.get(who, a.header.Get("Location"))
	}
	w.t.Fatalf("POST %s %v as %s: %d %s", path, form, who, a.status, a.text())
	return ""
}

var (
	tags    = regexp.MustCompile(`<[^>]*>`)
	fillers = regexp.MustCompile(`\s+`)
)

// text is what a person reads of an answer.
func (a answer) text() string {
	_, main, _ := strings.Cut(a.body, "<main")
	plain := strings.ReplaceAll(html.UnescapeString(tags.ReplaceAllString("<main"+main, " ")), "\u00a0", " ")
	return fillers.ReplaceAllString(plain, " ")
}

// waits is the id of the one approval that waits for an object.
func (w *world) waits(kind string) (approvalID string) {
	w.t.Helper()
	must(w.t, w.db.QueryRow(w.t.Context(), `select id from ops.approval where kind = $1 and decision is null`, kind).Scan(&approvalID))
	return approvalID
}

// newClient is a form that proposes parking's client.
func newClient() url.Values {
	return url.Values{
		"department": {"parking"}, "id": {"parking-portal"}, "name_en": {"Parking Portal"}, "name_fr": {"Portail du stationnement"}, "type": {"web"},
		"auth_method": {"client_secret_basic"}, "alg": {"ES256"}, "scope": {"email", "openid", "profile"}, "redirect": {"https://parking.example/callback\r\n"},
	}
}

// client is parking's client, proposed by parking and approved by the chief.
func (w *world) client() {
	w.t.Helper()
	w.post("parking", "/desk/admin/new-client", newClient())
	w.post("chief", "/desk/admin/approvals/"+w.waits(provider.ApproveClient), url.Values{"decision": {"approved"}})
}

var secretForm = regexp.MustCompile(`<code class="ref">([A-Za-z0-9_-]{43})</code>`)

// shownSecret is the secret that a page shows.
func shownSecret(t *testing.T, page string) string {
	t.Helper()
	m := secretForm.FindStringSubmatch(page)
	if m == nil {
		t.Fatalf("the page shows no secret: %s", page)
	}
	return m[1]
}

func (w *world) proves(secret string) bool {
	w.t.Helper()
	_, err := w.provider.Authenticate(w.t.Context(), provider.Credentials{ClientID: "parking-portal", Secret: secret, Method: provider.SecretBasic}, identity.Visitor{})
	return err == nil
}
