package oidc_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"guichet/api/oidc"
	"guichet/api/session"
	"guichet/api/web"
	"guichet/department"
	"guichet/identity"
	"guichet/identity/delegation"
	"guichet/identity/provider"
	"guichet/identity/staff"
	"guichet/internal/id"
	"guichet/internal/jobs"
	"guichet/internal/mail"
	"guichet/internal/seal"
	"guichet/internal/testdb"
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

func (m *mailbox) all() []mail.Message {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]mail.Message(nil), m.sent...)
}

// world is the identity side of the service behind real HTTP, on a real database.
type world struct {
	t        *testing.T
	url      string // of the server, and the issuer
	db       *pgxpool.Pool
	mail     *mailbox
	provider *provider.Service
	people   *identity.Service
	acting   *delegation.Service
	staff    *staff.Service
	depts    *department.Service
	queue    *jobs.Queue
	log      *lockedBuffer

	mu  sync.Mutex
	now time.Time
}

type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
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

// newWorld starts it. Nobody's rate limits but those under test should be met: they are wide.
func newWorld(t *testing.T, options ...func(*identity.Config, *oidc.Options)) *world {
	t.Helper()
	return newWorldOn(t, testdb.New(t), options...)
}

// newWorldOn starts it on a database that was opened in another way.
func newWorldOn(t *testing.T, db *pgxpool.Pool, options ...func(*identity.Config, *oidc.Options)) *world {
	t.Helper()
	w := &world{t: t, db: db, mail: &mailbox{}, log: &lockedBuffer{}, now: time.Now().UTC().Truncate(time.Second)}
	var handler http.Handler
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { handler.ServeHTTP(rw, r) }))
	t.Cleanup(srv.Close)
	w.url = strings.Replace(srv.URL, "127.0.0.1", "localhost", 1) // no browser makes passkeys for a number
	log := slog.New(slog.NewTextHandler(w.log, nil))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of the service:\n%s", w.log)
		}
	})

	raw := make([]byte, 32)
	rand.Read(raw)
	master, err := seal.New(raw)
	must(t, err)
	wide := identity.Limit{Burst: 1000, Per: time.Minute}
	people := identity.Config{Now: w.clock, BaseURL: w.url, Master: master, Mail: w.mail, Limits: identity.Limits{
		CodeAgain: wide, CodeAddress: wide, CodeTotal: wide, CodeNetwork: wide, TryAddress: wide, TryNetwork: wide,
	}}
	o := oidc.Options{Issuer: w.url, Now: w.clock, Log: log}
	for _, option := range options {
		option(&people, &o)
	}
	w.queue, err = jobs.New(w.db, log)
	must(t, err)
	w.people, err = identity.New(t.Context(), w.db, people)
	must(t, err)
	w.acting, err = delegation.New(t.Context(), w.db, delegation.Config{People: w.people, Mail: &mailbox{}, Master: master, Now: w.clock, BaseURL: w.url})
	must(t, err)
	w.provider, err = provider.New(t.Context(), w.db, w.people, provider.Config{Issuer: w.url, Now: w.clock, Master: master, Queue: w.queue, Acting: w.acting, Development: true})
	must(t, err)
	must(t, w.provider.TendKeys(t.Context()))
	w.staff = staff.New(w.db, staff.Config{Now: w.clock, Alarm: []string{"duty@city.example"}, Mail: w.mail, People: w.people, Suggest: map[string][]staff.Suggestion{
		"guichet-finance-clerk":      {{Role: staff.FinanceClerk}},
		"guichet-department-parking": {{Role: staff.Department, DepartmentCode: "parking"}},
	}})
	site := web.New(web.Options{BaseURL: w.url, Dev: true, Log: log, Viewer: session.Viewer})
	sessions, err := session.New(session.Options{BaseURL: w.url, Residents: w.people, Staff: w.staff, Acting: w.acting, Site: site, Log: log})
	must(t, err)
	w.depts = department.New(w.db, master, nil, w.clock) // without a queue: nobody is told of anything here
	o.Departments = w.depts
	o.Provider, o.People, o.Staff, o.Sessions, o.Site = w.provider, w.people, w.staff, sessions, site
	h, err := oidc.New(o)
	must(t, err)

	r := chi.NewRouter()
	h.Routes(r)
	r.Handle("/static/*", site.Static())
	r.Group(func(r chi.Router) {
		r.Use(sessions.Load)
		r.Get("/", func(rw http.ResponseWriter, r *http.Request) {
			p, _ := session.Resident(r.Context())
			fmt.Fprintf(rw, "hello %s", p.Name)
		})
		r.With(session.RequireResident).Get("/bills", func(rw http.ResponseWriter, r *http.Request) {
			p, _ := session.Resident(r.Context())
			fmt.Fprintf(rw, "bills of %s", p.Name)
		})
		r.With(sessions.RequireStaff(staff.FinanceClerk)).Get("/desk", func(rw http.ResponseWriter, r *http.Request) {
			m, _ := session.Staff(r.Context())
			fmt.Fprintf(rw, "desk of %s", m.Name)
		})
		r.With(sessions.RequireStaff(staff.Roles()...), session.RequireFresh).HandleFunc("/desk/approve", func(rw http.ResponseWriter, r *http.Request) {
			fmt.Fprint(rw, "approved")
		})
	})
	protection := http.NewCrossOriginProtection()
	for _, pattern := range oidc.CrossSite() {
		protection.AddInsecureBypassPattern(pattern)
	}
	handler = protection.Handler(r)
	return w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// in runs f in a transaction.
func (w *world) in(f func(tx pgx.Tx) error) {
	w.t.Helper()
	must(w.t, pgx.BeginFunc(w.t.Context(), w.db, f))
}

// department makes a department and returns its id.
func (w *world) department(code, name string) string {
	w.t.Helper()
	departmentID := id.New()
	_, err := w.db.Exec(w.t.Context(), `
		insert into department.department (id, code, name_en, name_fr, created_at) values ($1, $2, $3, $3, $4)`,
		departmentID, code, name, w.clock())
	must(w.t, err)
	return departmentID
}

// app is a department's application, as it sees the provider.
type app struct {
	w                    *world
	id, secret, redirect string
	verifier             string
}

// app registers a client. The zero NewClient gets what is missing.
func (w *world) app(clientID, departmentID string, n provider.NewClient) *app {
	w.t.Helper()
	n.ID, n.DepartmentID = clientID, departmentID
	if n.Name.EN == "" {
		n.Name = provider.Words{EN: "App " + clientID, FR: "Appli " + clientID}
	}
	if n.RedirectURIs == nil {
		n.RedirectURIs = []string{"https://" + clientID + ".example/callback"}
	}
	if n.PostLogout == nil {
		n.PostLogout = []string{"https://" + clientID + ".example/bye"}
	}
	a := &app{w: w, id: clientID, redirect: n.RedirectURIs[0], verifier: id.Secret()}
	err := pgx.BeginFunc(w.t.Context(), w.db, func(tx pgx.Tx) error {
		created, err := w.provider.CreateClient(w.t.Context(), tx, n)
		a.secret = created.Secret
		return err
	})
	must(w.t, err)
	return a
}

// parking is the usual application: first-party, of a department of its own.
func (w *world) parking() *app {
	w.t.Helper()
	return w.app("parking-portal", w.department("parking", "Parking"), provider.NewClient{
		Name: provider.Words{EN: "Parking Portal", FR: "Portail du stationnement"}, FirstParty: true,
	})
}

func challenge(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// request is a correct authorize request; tests then break it.
func (a *app) request() url.Values {
	return url.Values{
		"client_id": {a.id}, "redirect_uri": {a.redirect}, "response_type": {"code"}, "scope": {"openid profile email"},
		"state": {"st-1"}, "nonce": {"n-1"}, "code_challenge": {challenge(a.verifier)}, "code_challenge_method": {"S256"},
	}
}

func (a *app) authorizeURL(v url.Values) string { return a.w.url + "/oidc/authorize?" + v.Encode() }

// tokenForm is a correct token request.
func (a *app) tokenForm(code string) url.Values {
	return url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {a.redirect}, "code_verifier": {a.verifier}}
}

// tokens is a token answer, good or bad.
type tokens struct {
	status       int
	header       http.Header
	body         string
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
	IDToken      string `json:"id_token"`
	TokenType    string `json:"token_type"`
	Scope        string `json:"scope"`
	ExpiresIn    int    `json:"expires_in"`
	Error        string `json:"error"`
	RequestURI   string `json:"request_uri"` // of a pushed request
	Active       bool   `json:"active"`      // of introspection
}

func (a *app) post(form url.Values, change ...func(*http.Request)) tokens {
	a.w.t.Helper()
	return a.call("/oidc/token", form, change...)
}

// call posts a form of the application's server to an endpoint for clients.
func (a *app) call(path string, form url.Values, change ...func(*http.Request)) tokens {
	a.w.t.Helper()
	r, err := http.NewRequest(http.MethodPost, a.w.url+path, strings.NewReader(form.Encode()))
	must(a.w.t, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if a.secret != "" {
		r.SetBasicAuth(url.QueryEscape(a.id), url.QueryEscape(a.secret))
	}
	for _, c := range change {
		c(r)
	}
	resp, err := http.DefaultClient.Do(r)
	must(a.w.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(a.w.t, err)
	t := tokens{status: resp.StatusCode, header: resp.Header, body: string(body)}
	if err := json.Unmarshal(body, &t); err != nil && len(body) > 0 {
		a.w.t.Errorf("token answer %d is not JSON: %s", resp.StatusCode, body)
	}
	if resp.Header.Get("Cache-Control") != "no-store" {
		a.w.t.Errorf("token answer may be cached: %q", resp.Header.Get("Cache-Control"))
	}
	return t
}

func (a *app) redeem(code string) tokens {
	a.w.t.Helper()
	return a.post(a.tokenForm(code))
}

func (w *world) userinfo(token string) (int, map[string]any) {
	w.t.Helper()
	r, err := http.NewRequest(http.MethodGet, w.url+"/oidc/userinfo", nil)
	must(w.t, err)
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(r)
	must(w.t, err)
	defer resp.Body.Close()
	var claims map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&claims); err != nil {
		w.t.Errorf("userinfo %d is not JSON: %v", resp.StatusCode, err)
	}
	return resp.StatusCode, claims
}

// refresh presents a refresh token.
func (a *app) refresh(token string, change ...func(*http.Request)) tokens {
	a.w.t.Helper()
	return a.post(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}}, change...)
}

// introspect asks what a token is worth.
func (a *app) introspect(token string) tokens {
	a.w.t.Helper()
	return a.call("/oidc/introspect", url.Values{"token": {token}})
}

// with returns a copy of v with changes: name, value, name, value.
func with(v url.Values, pairs ...string) url.Values {
	for i := 0; i < len(pairs); i += 2 {
		v.Set(pairs[i], pairs[i+1])
	}
	return v
}

// events counts the audit rows of an action.
func (w *world) events(action string) (n int) {
	w.t.Helper()
	must(w.t, w.db.QueryRow(w.t.Context(), `select count(*) from ops.audit where action = $1`, action).Scan(&n))
	return n
}

// browser is a person's browser: it keeps cookies and shows where a redirect leads
// without following it.
type browser struct {
	w      *world
	client *http.Client
}

// answer is what a browser got.
type answer struct {
	status   int
	location string
	body     string
	header   http.Header
}

func (w *world) browser() *browser {
	w.t.Helper()
	jar, err := cookiejar.New(nil)
	must(w.t, err)
	return &browser{w, &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

func (b *browser) do(r *http.Request) answer {
	b.w.t.Helper()
	resp, err := b.client.Do(r)
	must(b.w.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(b.w.t, err)
	if resp.StatusCode >= 500 {
		b.w.t.Errorf("%s %s: status %d", r.Method, r.URL.Path, resp.StatusCode)
	}
	return answer{resp.StatusCode, resp.Header.Get("Location"), string(body), resp.Header}
}

func (b *browser) abs(u string) string {
	if strings.HasPrefix(u, "/") {
		return b.w.url + u
	}
	return u
}

func (b *browser) get(u string) answer {
	b.w.t.Helper()
	r, err := http.NewRequest(http.MethodGet, b.abs(u), nil)
	must(b.w.t, err)
	return b.do(r)
}

// post sends a form as a page of ours would, unless change says otherwise.
func (b *browser) post(u string, form url.Values, change ...func(*http.Request)) answer {
	b.w.t.Helper()
	r, err := http.NewRequest(http.MethodPost, b.abs(u), strings.NewReader(form.Encode()))
	must(b.w.t, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	for _, c := range change {
		c(r)
	}
	return b.do(r)
}

// follow goes on from an answer while it stays on the service.
func (b *browser) follow(a answer) answer {
	b.w.t.Helper()
	for range 10 {
		to := b.abs(a.location)
		if a.location == "" || !strings.HasPrefix(to, b.w.url+"/") {
			return a
		}
		a = b.get(to)
	}
	b.w.t.Fatal("redirects without end")
	return a
}

// text is what of a page a person reads.
func (a answer) text() string {
	_, main, ok := strings.Cut(a.body, "<main")
	if !ok {
		main = a.body
	}
	plain := html.UnescapeString(regexp.MustCompile(`<[^>]*>`).ReplaceAllString("<main"+main, " "))
	return strings.Join(strings.Fields(plain), " ")
}

func (a answer) query() url.Values {
	u, err := url.Parse(a.location)
	if err != nil {
		return nil
	}
	return u.Query()
}

// startSignIn opens the authorize address and returns the path of the sign-in.
func (b *browser) startSignIn(authorize string) string {
	b.w.t.Helper()
	a := b.get(authorize)
	if a.status != http.StatusSeeOther || !strings.HasPrefix(a.location, "/signin/") {
		b.w.t.Fatalf("authorize: status %d, location %q, %s", a.status, a.location, a.text())
	}
	path, _, _ := strings.Cut(a.location, "?")
	return path
}

// askCode types an address and returns the code that was mailed.
func (b *browser) askCode(path, email string) string {
	b.w.t.Helper()
	a := b.post(path, url.Values{"do": {"email"}, "email": {email}})
	if a.status != http.StatusSeeOther {
		b.w.t.Fatalf("ask for a code: status %d, %s", a.status, a.text())
	}
	sent := b.w.mail.all()
	return sent[len(sent)-1].Data["code"]
}

// prove types address and code, and the name when asked, and returns where that leads.
func (b *browser) prove(path, email string) answer {
	b.w.t.Helper()
	code := b.askCode(path, email)
	a := b.post(path, url.Values{"do": {"code"}, "code": {code}})
	if a.status != http.StatusSeeOther {
		b.w.t.Fatalf("type the code: status %d, %s", a.status, a.text())
	}
	if a.location != path {
		return a
	}
	page := b.get(path)
	if !strings.Contains(page.body, `value="profile"`) {
		return page
	}
	a = b.post(path, url.Values{"do": {"profile"}, "name": {"Demo Resident"}, "language": {"en"}})
	if a.status != http.StatusSeeOther {
		b.w.t.Fatalf("type the name: status %d, %s", a.status, a.text())
	}
	return a
}

// signIn goes the whole way from an authorize request to the answer at the client.
func (b *browser) signIn(authorize, email string) answer {
	b.w.t.Helper()
	path := b.startSignIn(authorize)
	return b.agree(path, b.follow(b.prove(path, email)))
}

// agree answers the notice if there is one.
func (b *browser) agree(path string, a answer) answer {
	b.w.t.Helper()
	if a.status == http.StatusOK && strings.Contains(a.body, `value="agree"`) {
		return b.post(path, url.Values{"do": {"agree"}, "scope": {"profile", "email"}})
	}
	return a
}

// code signs in and returns the code.
func (b *browser) code(a *app, email string) string {
	b.w.t.Helper()
	got := b.signIn(a.authorizeURL(a.request()), email)
	code := got.query().Get("code")
	if got.status != http.StatusSeeOther || code == "" {
		b.w.t.Fatalf("no code: status %d, location %q, %s", got.status, got.location, got.text())
	}
	return code
}

// again authorizes in a browser that is signed in, and returns the code.
func (b *browser) again(a *app) string {
	b.w.t.Helper()
	got := b.get(a.authorizeURL(a.request()))
	code := got.query().Get("code")
	if code == "" {
		b.w.t.Fatalf("no code: status %d, location %q, %s", got.status, got.location, got.text())
	}
	return code
}

func (b *browser) site() *url.URL {
	u, err := url.Parse(b.w.url)
	must(b.w.t, err)
	return u
}

func (b *browser) cookie(name string) string {
	for _, c := range b.client.Jar.Cookies(b.site()) {
		if c.Name == name {
			return c.Value
		}
	}
	return ""
}

func (b *browser) setCookie(name, value string) {
	b.client.Jar.SetCookies(b.site(), []*http.Cookie{{Name: name, Value: value, Path: "/"}})
}

// claimsOf reads an ID token without verifying it: go-oidc does that in its own test.
func claimsOf(t *testing.T, token string) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("no JWT: %q", token)
	}
	body, err := base64.RawURLEncoding.DecodeString(parts[1])
	must(t, err)
	var claims map[string]any
	must(t, json.Unmarshal(body, &claims))
	return claims
}
