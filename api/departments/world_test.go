package departments_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-chi/chi/v5"
	"github.com/jackc/pgx/v5"

	"guichet/api/departments"
	"guichet/department"
	"guichet/internal/approval"
	"guichet/internal/id"
	"guichet/internal/keyed"
	"guichet/internal/mail"
	"guichet/internal/server"
	"guichet/ledger"
	"guichet/payments"
	"guichet/payments/paymentstest"
	"guichet/payments/stripe"
	sim "guichet/simulators/stripe"
)

const baseURL = "https://pay.example.ca"

// A world is the API behind the frame of the service, over a city and a card
// processor behind HTTP.
type world struct {
	*paymentstest.City
	url      string
	doc      *huma.OpenAPI
	routes   chi.Router
	pay      *payments.Service
	sim      *sim.Simulator
	subjects subjects
	keys     map[string]string // by department; "parking journal" is a journal key
	log      *lockedBuffer
}

// subjects are whom departments know, by department id and subject.
type subjects map[[2]string]string

func (s subjects) Resident(_ context.Context, departmentID, subject string) (string, bool, error) {
	r, ok := s[[2]string{departmentID, subject}]
	return r, ok, nil
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

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{City: paymentstest.New(t), subjects: subjects{}, keys: map[string]string{}, log: new(lockedBuffer)}
	log := slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of the service:\n%s", w.log)
		}
	})
	w.wirePayments(t, log)
	for code, d := range w.Depart {
		w.Do(t, func(tx pgx.Tx) (err error) {
			w.keys[code], err = w.Depts.IssueKey(t.Context(), tx, d.ID, "test", "test")
			return err
		})
	}
	for _, path := range []string{"expenses:payroll", "expenses:payroll:overtime", "liabilities:payroll", "expenses:payrolls"} {
		w.Do(t, func(tx pgx.Tx) error {
			return w.Books.OpenAccount(t.Context(), tx, ledger.Account{Path: path, NameEN: path, NameFR: path})
		})
	}
	for _, code := range []string{"parking", "water"} {
		w.keys[code+" journal"] = w.journalKey(t, code, "expenses:payroll", "liabilities:payroll")
	}
	journal := ledger.NewQueue(w.Books, w.DB)
	running, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- journal.Run(running) }()
	t.Cleanup(func() { stop(); must(t, <-ended) })
	w.routes = chi.NewRouter()
	w.doc = departments.New(w.routes, departments.Parts{
		Departments: w.Depts, Bills: w.Bills, Payments: w.pay, Subjects: w.subjects,
		Books: w.Books, Journal: journal, DB: w.DB, Today: w.Today, BaseURL: baseURL, Log: log,
	}).Document()
	frame := server.New(server.Options{
		BaseURL: baseURL, Now: w.Clock.Now, Log: log, Metrics: server.NewMetrics(),
		Fail: func(rw http.ResponseWriter, _ *http.Request, status int) { rw.WriteHeader(status) },
	}, w.routes)
	frame.CrossSite(departments.Prefix + "/")
	frame.AllowBody("POST "+departments.BatchPath, departments.BatchBody)
	srv := httptest.NewServer(frame.Handler())
	t.Cleanup(srv.Close)
	w.url = srv.URL + departments.Prefix
	return w
}

// journalKey issues a journal key and lets a second person approve it.
func (w *world) journalKey(t testing.TB, code string, accounts ...string) string {
	t.Helper()
	var key, waits string
	w.Do(t, func(tx pgx.Tx) (err error) {
		key, waits, err = w.Depts.ProposeJournalKey(t.Context(), tx, department.JournalKey{
			DepartmentID: w.Depart[code].ID, Name: "feeder", Env: "test", Accounts: accounts, By: "first",
		})
		return err
	})
	w.Do(t, func(tx pgx.Tx) error {
		return w.Depts.DecideKey(t.Context(), tx, approval.Decision{ID: waits, By: "second", At: w.Clock.Now()}, approval.Approved)
	})
	return key
}

func (w *world) wirePayments(t testing.TB, log *slog.Logger) {
	t.Helper()
	var handler http.Handler
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { handler.ServeHTTP(rw, r) }))
	t.Cleanup(srv.Close)
	var err error
	w.sim, err = sim.New(sim.Options{Now: w.Clock.Now, Dir: t.TempDir(), Log: log, APIKey: "sk_test_0123456789abcdef", PublicURL: srv.URL})
	must(t, err)
	t.Cleanup(func() { must(t, w.sim.Close()) })
	handler = w.sim.Handler()
	processor, err := stripe.New(stripe.Config{SecretKey: "sk_test_0123456789abcdef", WebhookSecrets: []string{"whsec_test0123456789"}, URL: srv.URL})
	must(t, err)
	links, err := keyed.Load(t.Context(), w.DB, w.Key, payments.CheckoutLinks)
	must(t, err)
	templates, err := mail.NewTemplates(payments.MailTemplates)
	must(t, err)
	w.pay = payments.New(payments.Parts{
		DB: w.DB, Books: w.Books, Bills: w.Bills, Departments: w.Depts, Processor: processor, Queue: w.Queue,
		Outbox: mail.New(w.DB, w.Queue, templates, w.Key, w.Clock.Now), Links: links,
		Render: func(payments.Receipt, string) ([]byte, error) { return []byte("%PDF-test"), nil }, Now: w.Clock.Now, Log: log,
	}, payments.Config{BaseURL: baseURL})
}

// A request to the API. An empty department sends no key.
type request struct {
	method, path string
	department   string
	key          string // Idempotency-Key
	body         any    // text as it is, anything else as JSON; nil: none
	header       http.Header
}

// An answer of the API.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) problem(t testing.TB) departments.Problem {
	t.Helper()
	var p departments.Problem
	in := json.NewDecoder(strings.NewReader(a.body))
	in.DisallowUnknownFields()
	if err := in.Decode(&p); err != nil {
		t.Fatalf("status %d is no problem document: %v: %s", a.status, err, a.body)
	}
	return p
}

func (a answer) locations(t testing.TB) []string {
	t.Helper()
	var list []string
	for _, f := range a.problem(t).Errors {
		list = append(list, f.Location)
	}
	return list
}

// as reads the answer, which must have a status, as a value of a type.
func as[T any](t testing.TB, a answer, status int) T {
	t.Helper()
	var v T
	if a.status != status {
		t.Fatalf("status %d, want %d: %s", a.status, status, a.body)
	}
	must(t, json.Unmarshal([]byte(a.body), &v))
	return v
}

// call sends a request and checks of the answer what holds for all.
func (w *world) call(t testing.TB, r request) answer {
	t.Helper()
	var body io.Reader
	switch b := r.body.(type) {
	case nil:
	case string:
		body = strings.NewReader(b)
	default:
		text, err := json.Marshal(b)
		must(t, err)
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(t.Context(), r.method, w.url+r.path, body)
	must(t, err)
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.department != "" {
		req.Header.Set("Authorization", "Bearer "+w.keys[r.department])
	}
	if r.key != "" {
		req.Header.Set("Idempotency-Key", r.key)
	}
	for name, values := range r.header {
		if req.Header[name] = values; values == nil {
			req.Header.Del(name)
		}
	}
	resp, err := http.DefaultClient.Do(req)
	must(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(t, err)
	a := answer{resp.StatusCode, resp.Header, string(text)}
	w.checkForm(t, r.method+" "+r.path, a)
	w.checkDocument(t, req, a)
	return a
}

// checkForm holds for every answer: what it may be taken for, and the form of
// errors.
func (w *world) checkForm(t testing.TB, what string, a answer) {
	t.Helper()
	for name, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"} {
		if got := a.header.Get(name); got != want {
			t.Errorf("%s: %s is %q, want %q", what, name, got, want)
		}
	}
	if a.status < 400 {
		return
	}
	if got := a.header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("%s: status %d as %q, want a problem document: %s", what, a.status, got, a.body)
		return
	}
	p := a.problem(t)
	if p.Type != "about:blank" || p.Status != a.status || p.Title != http.StatusText(a.status) || p.Detail == "" || p.Code == "" {
		t.Errorf("%s: status %d with %+v", what, a.status, p)
	}
	if got := a.header.Get("WWW-Authenticate"); (a.status == 401) != strings.HasPrefix(got, `Bearer realm="guichet"`) {
		t.Errorf("%s: status %d with WWW-Authenticate %q", what, a.status, got)
	}
}

// operation finds what the document says of a request; nil: nothing.
func (w *world) operation(method, path string) *huma.Operation {
	route := chi.NewRouteContext()
	if !w.routes.Match(route, method, path) {
		return nil
	}
	item := w.doc.Paths[strings.TrimPrefix(route.RoutePattern(), departments.Prefix)]
	if item == nil {
		return nil
	}
	if method == http.MethodPost {
		return item.Post
	}
	return item.Get
}

// checkDocument holds an answer against the document: its status, content type
// and body are described there.
func (w *world) checkDocument(t testing.TB, req *http.Request, a answer) {
	t.Helper()
	op := w.operation(req.Method, req.URL.Path)
	if op == nil {
		return
	}
	r := op.Responses[strconv.Itoa(a.status)]
	if r == nil {
		t.Errorf("%s: the document does not know status %d: %s", op.OperationID, a.status, a.body)
		return
	}
	media := r.Content[a.header.Get("Content-Type")]
	if media == nil {
		t.Errorf("%s, status %d: the document does not know %s", op.OperationID, a.status, a.header.Get("Content-Type"))
		return
	}
	for name := range a.header {
		if strings.HasPrefix(name, "Idempotent-") && r.Headers[name] == nil {
			t.Errorf("%s, status %d: the document does not know the header %s", op.OperationID, a.status, name)
		}
	}
	for _, fault := range w.faults(t, media.Schema, a.body) {
		t.Errorf("%s, status %d: %s: %s", op.OperationID, a.status, fault, a.body)
	}
}

// faults lists where a JSON text is not what a schema of the document says, and
// which members it has that the document leaves out.
func (w *world) faults(t testing.TB, s *huma.Schema, text string) []string {
	t.Helper()
	var v any
	must(t, json.Unmarshal([]byte(text), &v))
	res := new(huma.ValidateResult)
	huma.Validate(w.doc.Components.Schemas, s, huma.NewPathBuffer(nil, 0), huma.ModeReadFromServer, v, res)
	var list []string
	for _, err := range res.Errors {
		list = append(list, err.Error())
	}
	return append(list, w.unknown(s, v, "")...)
}

func (w *world) unknown(s *huma.Schema, v any, at string) (list []string) {
	for s.Ref != "" {
		s = w.doc.Components.Schemas.SchemaFromRef(s.Ref)
	}
	switch v := v.(type) {
	case object:
		for name, member := range v {
			if p := s.Properties[name]; p == nil {
				list = append(list, "the document does not know "+at+name)
			} else {
				list = append(list, w.unknown(p, member, at+name+".")...)
			}
		}
	case []any:
		for _, item := range v {
			list = append(list, w.unknown(s.Items, item, at)...)
		}
	}
	return list
}

// operations lists the document's operations with their paths, in order.
func (w *world) operations() (list []*huma.Operation) {
	for _, item := range w.doc.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Patch, item.Delete, item.Head, item.Options, item.Trace} {
			if op != nil {
				list = append(list, op)
			}
		}
	}
	slices.SortFunc(list, func(a, b *huma.Operation) int { return strings.Compare(a.OperationID, b.OperationID) })
	return list
}

// object is a JSON object to be spoiled.
type object = map[string]any

// fine is a request for a fine, issued today for a guest.
func (w *world) fine() object {
	return object{
		"type": "fine", "reference": "T-" + id.New(), "guest_key": "CKAB 123", "issued_on": w.Today().String(), "due_on": w.Today().AddDays(15).String(),
		"lines": []any{object{"fee": "parking-wrong-way"}},
	}
}

// create creates a fine of the parking department.
func (w *world) create(t testing.TB) departments.Bill {
	t.Helper()
	return as[departments.Bill](t, w.call(t, request{method: "POST", path: "/bills", department: "parking", key: id.New(), body: w.fine()}), 201)
}

// open opens a checkout of the parking department.
func (w *world) open(t testing.TB, bills ...string) departments.Checkout {
	t.Helper()
	return as[departments.Checkout](t, w.call(t, request{
		method: "POST", path: "/checkouts", department: "parking", key: id.New(),
		body: object{"bills": bills},
	}), 201)
}
