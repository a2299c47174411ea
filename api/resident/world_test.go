package resident_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
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
	"github.com/riverqueue/river"

	"guichet/api/document"
	"guichet/api/oidc"
	"guichet/api/resident"
	"guichet/api/session"
	"guichet/api/web"
	"guichet/identity"
	"guichet/identity/delegation"
	"guichet/identity/provider"
	"guichet/identity/staff"
	"guichet/internal/jobs"
	"guichet/internal/keyed"
	"guichet/internal/mail"
	"guichet/ledger"
	"guichet/payments"
	"guichet/payments/bill"
	"guichet/payments/paymentstest"
	"guichet/payments/stripe"
	sim "guichet/simulators/stripe"
)

// A world is the resident pages with sign-in, over a city, a database and a card
// processor behind HTTP.
type world struct {
	*paymentstest.City
	t      *testing.T
	url    string
	simURL string
	pay    *payments.Service
	people *identity.Service
	acting *delegation.Service
	sim    *sim.Simulator
	codes  *mailbox
	log    *lockedBuffer
}

// mailbox keeps the last sign-in code and the last invitation that were mailed.
type mailbox struct {
	mu   sync.Mutex
	code string
	link string // of the last invitation
}

func (m *mailbox) Enqueue(_ context.Context, _ pgx.Tx, msg mail.Message) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if msg.Template == "acting-invitation" {
		m.link = msg.Data["link"]
		return nil
	}
	if code, ok := msg.Data["code"]; ok {
		m.code = code
	}
	return nil
}

func (m *mailbox) last() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.code
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

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// serve starts a server on localhost whose handler comes later.
func serve(t *testing.T) (address string, set func(http.Handler)) {
	var handler http.Handler
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	t.Cleanup(srv.Close)
	return strings.Replace(srv.URL, "127.0.0.1", "localhost", 1), func(h http.Handler) { handler = h }
}

func newWorld(t *testing.T, options ...func(*resident.Options)) *world {
	t.Helper()
	w := &world{City: paymentstest.New(t), t: t, codes: &mailbox{}, log: &lockedBuffer{}}
	log := slog.New(slog.NewTextHandler(w.log, nil))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of the service:\n%s", w.log)
		}
	})
	var setPages, setSim func(http.Handler)
	w.url, setPages = serve(t)
	w.simURL, setSim = serve(t)

	var err error
	w.sim, err = sim.New(sim.Options{Now: w.Clock.Now, Dir: t.TempDir(), Log: log, APIKey: "sk_test_0123456789abcdef", PublicURL: w.simURL})
	must(t, err)
	t.Cleanup(func() { must(t, w.sim.Close()) })
	setSim(w.sim.Handler())
	processor, err := stripe.New(stripe.Config{SecretKey: "sk_test_0123456789abcdef", WebhookSecrets: []string{"whsec_test0123456789"}, URL: w.simURL})
	must(t, err)

	site := web.New(web.Options{BaseURL: w.url, Dev: true, Log: log, Viewer: session.Viewer, FormHosts: []string{w.simURL}})
	printer, err := document.New(site, w.url)
	must(t, err)
	links, err := keyed.Load(t.Context(), w.DB, w.Key, payments.CheckoutLinks)
	must(t, err)
	templates, err := mail.NewTemplates(payments.MailTemplates)
	must(t, err)
	w.pay = payments.New(payments.Parts{
		DB: w.DB, Books: w.Books, Bills: w.Bills, Departments: w.Depts, Processor: processor, Queue: w.Queue,
		Outbox: mail.New(w.DB, w.Queue, templates, w.Key, w.Clock.Now), Links: links, Render: printer.Receipt, Now: w.Clock.Now, Log: log,
	},
		payments.Config{BaseURL: w.url})

	w.people, err = identity.New(t.Context(), w.DB, identity.Config{Now: w.Clock.Now, BaseURL: w.url, Master: w.Key, Mail: w.codes})
	must(t, err)
	w.acting, err = delegation.New(t.Context(), w.DB, delegation.Config{People: w.people, Mail: w.codes, Master: w.Key, Now: w.Clock.Now, BaseURL: w.url})
	must(t, err)
	idp, err := provider.New(t.Context(), w.DB, w.people, provider.Config{Issuer: w.url, Now: w.Clock.Now, Master: w.Key, Queue: w.Queue, Development: true})
	must(t, err)
	members := staff.New(w.DB, staff.Config{Now: w.Clock.Now})
	sessions, err := session.New(session.Options{BaseURL: w.url, Residents: w.people, Staff: members, Acting: w.acting, Site: site, Log: log})
	must(t, err)
	signIn, err := oidc.New(oidc.Options{Issuer: w.url, Provider: idp, People: w.people, Staff: members, Sessions: sessions, Site: site, Departments: w.Depts, Now: w.Clock.Now, Log: log})
	must(t, err)

	o := resident.Options{
		DB: w.DB, Payments: w.pay, Bills: w.Bills, Books: w.Books, People: w.people, Acting: w.acting, Departments: w.Depts, Sessions: sessions,
		Site: site, Documents: printer, Now: w.Clock.Now, Log: log,
	}
	for _, option := range options {
		option(&o)
	}
	r := chi.NewRouter()
	r.Handle("/static/*", site.Static())
	signIn.Routes(r)
	resident.New(o).Routes(r)
	r.NotFound(site.NotFound)
	r.MethodNotAllowed(site.MethodNotAllowed)
	setPages(http.NewCrossOriginProtection().Handler(r))
	return w
}

// work starts the jobs of payments, until the test ends.
func (w *world) work() {
	w.t.Helper()
	workers := river.NewWorkers()
	w.pay.AddWorkers(workers)
	w.Depts.AddWorkers(workers)
	queue, err := jobs.New(w.DB, slog.New(slog.DiscardHandler))
	must(w.t, err)
	must(w.t, queue.Work(w.t.Context(), jobs.Options{Workers: workers}))
	w.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := queue.Stop(ctx); err != nil {
			w.t.Error(err)
		}
	})
}

// post posts entries of the books and seals them.
func (w *world) seal() {
	w.t.Helper()
	var poster *ledger.Poster
	w.Do(w.t, func(tx pgx.Tx) error {
		signer, _, err := w.Books.LogKey(w.t.Context(), tx, w.Key, "test.example")
		poster = ledger.NewPoster(w.DB, w.Clock.Now, ledger.PosterOptions{Signer: signer, Log: slog.New(slog.DiscardHandler)})
		return err
	})
	must(w.t, poster.Drain(w.t.Context()))
}

// owned issues a bill that belongs to a resident.
func (w *world) owned(residentID string, n bill.NewBill) bill.Bill {
	w.t.Helper()
	n.ResidentID = residentID
	return w.Issue(w.t, n)
}

// A visitor is a person with a browser that keeps cookies and follows no redirect.
type visitor struct {
	w      *world
	client *http.Client
}

// An answer is what a visitor got.
type answer struct {
	status   int
	location string
	header   http.Header
	body     string
}

func (w *world) visitor() *visitor {
	jar, err := cookiejar.New(nil)
	must(w.t, err)
	return &visitor{w, &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// visitorAt is a visitor whose requests come from another address of this machine.
func (w *world) visitorAt(address string) *visitor {
	v := w.visitor()
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	v.client.Transport = &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}
	return v
}

func (v *visitor) do(method, path string, form url.Values) answer {
	v.w.t.Helper()
	address := path
	if strings.HasPrefix(path, "/") {
		address = v.w.url + path
	}
	req, err := http.NewRequestWithContext(v.w.t.Context(), method, address, strings.NewReader(form.Encode()))
	must(v.w.t, err)
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	resp, err := v.client.Do(req)
	must(v.w.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(v.w.t, err)
	return answer{resp.StatusCode, resp.Header.Get("Location"), resp.Header, string(body)}
}

func (v *visitor) get(path string) answer { v.w.t.Helper(); return v.do(http.MethodGet, path, nil) }

func (v *visitor) post(path string, pairs ...string) answer {
	v.w.t.Helper()
	form := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		form.Add(pairs[i], pairs[i+1])
	}
	return v.do(http.MethodPost, path, form)
}

// text is the page's text, without markup and with white space as one blank.
func (a answer) text() string {
	main := a.body
	if i := strings.Index(main, "<main"); i >= 0 {
		main = main[i:]
	}
	text := regexp.MustCompile(`<[^>]*>`).ReplaceAllString(main, " ")
	text = strings.NewReplacer("&#39;", "'", "&amp;", "&", "\u00a0", " ").Replace(text)
	return strings.Join(strings.Fields(text), " ")
}

// expect fails the test unless the answer has the status and says all the words.
func (a answer) expect(t *testing.T, status int, words ...string) answer {
	t.Helper()
	if a.status != status {
		t.Fatalf("status %d (to %q), want %d: %s", a.status, a.location, status, a.text())
	}
	for _, word := range words {
		if !strings.Contains(a.text(), word) {
			t.Errorf("the page does not say %q: %s", word, a.text())
		}
	}
	return a
}

// signIn makes the visitor a resident and returns the resident's id.
func (v *visitor) signIn(email string) string {
	v.w.t.Helper()
	path, _, _ := strings.Cut(v.get("/signin?return=/").location, "?")
	v.post(path, "do", "email", "email", email).expect(v.w.t, http.StatusSeeOther)
	v.post(path, "do", "code", "code", v.w.codes.last()).expect(v.w.t, http.StatusSeeOther)
	v.post(path, "do", "profile", "name", "Demo Résidente", "language", "en").expect(v.w.t, http.StatusSeeOther)
	return v.w.residentID()
}

// residentID is the id of the last resident who signed up.
func (w *world) residentID() (residentID string) {
	w.t.Helper()
	must(w.t, w.DB.QueryRow(w.t.Context(), `select id::text from identity.resident order by id desc limit 1`).Scan(&residentID))
	return residentID
}

// card fills in the processor's page and returns where it leads.
func (v *visitor) card(page, number string) answer {
	v.w.t.Helper()
	return v.post(page, "method", "card", "email", "payer@example.test", "number", number, "expiry", "12/34", "cvc", "123", "name", "Demo Payer")
}

const (
	goodCard     = "4242424242424242"
	declinedCard = "4000000000000002"
)

// find enters a notice as a guest and returns the path of the checkout.
func (v *visitor) find(b bill.Bill) string {
	v.w.t.Helper()
	return v.post("/pay", "notice", b.Notice, "key", "TEST 123").expect(v.w.t, http.StatusSeeOther).location
}

func (w *world) fault(kind, target string) {
	w.t.Helper()
	resp, err := http.Post(w.simURL+"/_control/faults", "application/json", strings.NewReader(fmt.Sprintf(`{"kind":%q,"target":%q,"times":1}`, kind, target)))
	must(w.t, err)
	defer resp.Body.Close()
	if resp.StatusCode > 299 {
		w.t.Fatalf("plant fault %s: %d", kind, resp.StatusCode)
	}
}

// eventually waits for a condition, or fails with what was hoped for.
func eventually(t *testing.T, hope string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if condition() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", hope)
		}
	}
}

// link is the first address on a page that begins with a prefix and is no download.
func link(body, prefix string) string {
	for _, m := range regexp.MustCompile(`href="(`+prefix+`[^"]*)"`).FindAllStringSubmatch(body, -1) {
		if !strings.HasSuffix(m[1], "/pdf") && !strings.HasSuffix(m[1], "/proof") {
			return m[1]
		}
	}
	return ""
}

// values lists what the inputs of a name would send.
func values(body, name string) []string {
	var all []string
	for _, m := range regexp.MustCompile(`<input [^>]*name="`+name+`" value="([^"]*)"`).FindAllStringSubmatch(body, -1) {
		all = append(all, m[1])
	}
	return all
}

// neutral is a page without what its reader typed.
func neutral(body string) string {
	return regexp.MustCompile(`value="[^"]*"`).ReplaceAllString(body, "")
}

// fromDepartment opens a checkout as the department of a bill does.
func (w *world) fromDepartment(b bill.Bill) (checkoutID, token string) {
	w.t.Helper()
	checkoutID, token, err := w.pay.Open(w.t.Context(), payments.NewCheckout{
		BillIDs: []string{b.ID}, Channel: "department", DepartmentID: b.DepartmentID,
		IdempotencyKey: b.ID, Lang: "en", ReturnURL: "https://permits.example.ca/done",
	})
	must(w.t, err)
	return checkoutID, token
}
