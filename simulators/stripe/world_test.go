package stripe_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	api "github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/client"

	"guichet/simulators/stripe"
)

const (
	key    = "sk_test_guichet0123456789"
	secret = "whsec_guichet0123456789"
)

// A world is a simulator behind HTTP, with Stripe's own client, a merchant that
// takes webhooks, a bank, and a clock that only the test moves.
type world struct {
	t      *testing.T
	sim    *stripe.Simulator
	url    string
	client *client.API
	log    *bytes.Buffer

	mu     sync.Mutex
	now    time.Time
	status int // what the merchant answers
	hooks  []hook
	bank   int // what the bank answers
	told   []map[string]any
}

// A hook is a webhook as it arrived.
type hook struct {
	body      []byte
	signature string
	event     api.Event
}

// monday is a business day, at 15:00 in Toronto.
var monday = time.Date(2026, 3, 2, 20, 0, 0, 0, time.UTC)

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, now: monday, status: 200, bank: 200, log: &bytes.Buffer{}}
	w.open(t.TempDir())
	return w
}

// open starts the simulator over the state in dir.
func (w *world) open(dir string) {
	w.t.Helper()
	merchant := httptest.NewServer(http.HandlerFunc(w.merchant))
	bank := httptest.NewServer(http.HandlerFunc(w.bankServer))
	var handler http.Handler
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { handler.ServeHTTP(rw, r) }))
	sim, err := stripe.New(stripe.Options{
		Now: w.clock, Dir: dir, Log: slog.New(slog.NewTextHandler(&lockedWriter{w: w.log}, nil)), APIKey: key,
		WebhookEndpoints: []stripe.Endpoint{{URL: merchant.URL + "/hooks", Secret: secret}}, BankURL: bank.URL, PublicURL: server.URL,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	handler = sim.Handler()
	w.sim, w.url = sim, server.URL
	w.client = connect(server.URL, key)
	w.t.Cleanup(func() {
		if err := sim.Close(); err != nil {
			w.t.Error(err)
		}
		server.Close()
		merchant.Close()
		bank.Close()
	})
}

type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

func connect(base, key string) *client.API {
	return connectWith(base, key, &http.Client{Timeout: time.Minute})
}

// connectWith makes Stripe's client for a simulator; no call may reach a real host.
func connectWith(base, key string, h *http.Client) *client.API {
	config := &api.BackendConfig{
		URL: api.String(base), MaxNetworkRetries: api.Int64(0), HTTPClient: h,
		LeveledLogger: &api.LeveledLogger{Level: api.LevelNull},
	}
	return client.New(key, &api.Backends{
		API:     api.GetBackendWithConfig(api.APIBackend, config),
		Connect: api.GetBackendWithConfig(api.ConnectBackend, config),
		Uploads: api.GetBackendWithConfig(api.UploadsBackend, config),
	})
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) move(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func (w *world) merchant(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		w.t.Error(err)
	}
	h := hook{body: body, signature: r.Header.Get("Stripe-Signature")}
	if err := json.Unmarshal(body, &h.event); err != nil {
		w.t.Error(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hooks = append(w.hooks, h)
	rw.WriteHeader(w.status)
}

func (w *world) bankServer(rw http.ResponseWriter, r *http.Request) {
	var credit map[string]any
	if err := json.NewDecoder(r.Body).Decode(&credit); err != nil || r.URL.Path != "/_control/credits" {
		w.t.Errorf("bank: %s %v", r.URL.Path, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.bank == 200 {
		w.told = append(w.told, credit)
	}
	rw.WriteHeader(w.bank)
}

// settle lets everything due happen and returns the webhooks that arrived since
// the last time, in the order of the events: they arrive in any.
func (w *world) settle() []hook {
	w.t.Helper()
	if err := w.sim.Settle(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	got := w.hooks
	w.hooks = nil
	w.mu.Unlock()
	place := map[string]int{}
	it := w.client.Events.List(&api.EventListParams{ListParams: api.ListParams{Limit: api.Int64(100)}})
	for it.Next() {
		place[it.Event().ID] = len(place)
	}
	if it.Err() != nil {
		w.t.Fatal(it.Err())
	}
	slices.SortStableFunc(got, func(a, b hook) int { return place[b.event.ID] - place[a.event.ID] })
	return got
}

// until waits for a condition, with a deadline for the broken case.
func (w *world) until(what string, done func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); {
		if time.Now().After(deadline) {
			w.t.Fatalf("never: %s", what)
		}
	}
}

func types(hooks []hook) []string {
	out := []string{}
	for _, h := range hooks {
		out = append(out, string(h.event.Type))
	}
	return out
}

// lever posts JSON to the control API and returns the answer.
func (w *world) lever(path string, in any) map[string]any {
	w.t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		w.t.Fatal(err)
	}
	r, err := http.Post(w.url+path, "application/json", bytes.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	defer r.Body.Close()
	out := map[string]any{}
	if err := json.NewDecoder(r.Body).Decode(&out); err != nil || r.StatusCode > 299 {
		w.t.Fatalf("%s answered %d %v: %v", path, r.StatusCode, out, err)
	}
	return out
}

func (w *world) plant(kind, target string, times int) {
	w.t.Helper()
	w.lever("/_control/faults", map[string]any{"kind": kind, "target": target, "times": times})
}

// params are those of a session over one line.
func (w *world) params(cents int64) *api.CheckoutSessionParams {
	return &api.CheckoutSessionParams{
		Mode: api.String("payment"), SuccessURL: api.String("https://guichet.example/done?s={CHECKOUT_SESSION_ID}"), CancelURL: api.String("https://guichet.example/back"),
		LineItems: []*api.CheckoutSessionLineItemParams{{Quantity: api.Int64(1), PriceData: &api.CheckoutSessionLineItemPriceDataParams{
			Currency: api.String("cad"), UnitAmount: api.Int64(cents),
			ProductData: &api.CheckoutSessionLineItemPriceDataProductDataParams{Name: api.String("Parking fine 26-118204")},
		}}},
		ClientReferenceID: api.String("checkout-1"),
		Metadata:          map[string]string{"payment": "p1"},
		PaymentIntentData: &api.CheckoutSessionPaymentIntentDataParams{Metadata: map[string]string{"payment": "p1"}},
		ExpiresAt:         api.Int64(w.clock().Add(time.Hour).Unix()),
	}
}

func (w *world) session(cents int64) *api.CheckoutSession {
	w.t.Helper()
	s, err := w.client.CheckoutSessions.New(w.params(cents))
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// A shown is a page as a payer's browser sees it.
type shown struct {
	status int
	to     string // where a redirect leads
	body   string
}

var browser = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

func see(t *testing.T, r *http.Response, err error) shown {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return shown{r.StatusCode, r.Header.Get("Location"), string(b)}
}

func (w *world) get(url string) shown {
	w.t.Helper()
	r, err := browser.Get(url)
	return see(w.t, r, err)
}

func (w *world) post(to string, form url.Values) shown {
	w.t.Helper()
	r, err := browser.PostForm(to, form)
	return see(w.t, r, err)
}

func card(number string) url.Values {
	return url.Values{"method": {"card"}, "email": {"payer@demo.example"}, "name": {"Demo Payer"}, "number": {number}, "expiry": {"04/29"}, "cvc": {"123"}}
}

func debit(account string) url.Values {
	return url.Values{"method": {"acss_debit"}, "email": {"payer@demo.example"}, "name": {"Demo Payer"}, "institution": {"000"}, "transit": {"11000"}, "account": {account}}
}

// paid is a session of cents that was paid with the card, read again with its charge.
func (w *world) paid(cents int64, number string) *api.CheckoutSession {
	w.t.Helper()
	s := w.session(cents)
	if p := w.post(s.URL, card(number)); p.status != http.StatusSeeOther {
		w.t.Fatalf("paying with %s answered %d:\n%s", number, p.status, p.body)
	}
	return w.read(s.ID)
}

func (w *world) read(id string) *api.CheckoutSession {
	w.t.Helper()
	p := &api.CheckoutSessionParams{}
	p.AddExpand("payment_intent.latest_charge.balance_transaction")
	s, err := w.client.CheckoutSessions.Get(id, p)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// code is Stripe's code of an error, or what else it is.
func code(err error) string {
	if e, ok := err.(*api.Error); ok {
		return fmt.Sprintf("%d %s %s", e.HTTPStatusCode, e.Type, e.Code)
	}
	return fmt.Sprintf("%T: %v", err, err)
}

func eq[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s = %v, want %v", what, got, want)
	}
}

func joined(s []string) string { return strings.Join(s, " ") }
