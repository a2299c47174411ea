package stripe_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
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

	"github.com/stripe/stripe-go/v76/webhook"

	"guichet/internal/money"
	"guichet/payments"
	"guichet/payments/stripe"
	sim "guichet/simulators/stripe"
)

const (
	key    = "sk_test_guichet0123456789"
	secret = "whsec_guichet0123456789"
)

// A world is the adapter against the simulator, over HTTP, with a clock that only
// the test moves.
type world struct {
	t   *testing.T
	sim *sim.Simulator
	url string
	*stripe.Client

	mu    sync.Mutex
	now   time.Time
	hooks []hook
}

type hook struct {
	body      []byte
	signature string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, now: time.Date(2026, 3, 2, 20, 0, 0, 0, time.UTC)} // a Monday
	merchant := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.hooks = append(w.hooks, hook{body, r.Header.Get("Stripe-Signature")})
	}))
	t.Cleanup(merchant.Close)
	var handler http.Handler
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { handler.ServeHTTP(rw, r) }))
	t.Cleanup(server.Close)
	var err error
	w.sim, err = sim.New(sim.Options{
		Now: w.clock, Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler), APIKey: key, PublicURL: server.URL,
		WebhookEndpoints: []sim.Endpoint{{URL: merchant.URL, Secret: secret}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.sim.Close() })
	handler, w.url = w.sim.Handler(), server.URL
	w.Client = connect(t, server.URL)
	return w
}

func connect(t *testing.T, base string) *stripe.Client {
	t.Helper()
	c, err := stripe.New(stripe.Config{SecretKey: key, WebhookSecrets: []string{"whsec_next0123456789", secret}, URL: base})
	if err != nil {
		t.Fatal(err)
	}
	return c
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

// settle lets the simulator do what is due, and returns the webhooks that came.
func (w *world) settle() []hook {
	w.t.Helper()
	if err := w.sim.Settle(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	got := w.hooks
	w.hooks = nil
	return got
}

// lever uses the simulator's control API.
func (w *world) lever(path string, in map[string]any) map[string]any {
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
		w.t.Fatalf("%s answered %d %v %v", path, r.StatusCode, out, err)
	}
	return out
}

func (w *world) plant(kind, route string) {
	w.t.Helper()
	w.lever("/_control/faults", map[string]any{"kind": kind, "target": route})
}

func (w *world) request(n string, cents money.Amount) payments.SessionRequest {
	return payments.SessionRequest{
		Key: "payment/" + n + "/session", CheckoutID: "checkout-" + n, PaymentID: "payment-" + n, Lang: "fr",
		Lines:      []payments.SessionLine{{Name: "Parking · 7K3M-92QX-D", Amount: cents - 100}, {Name: "Water · 1234", Amount: 100}},
		SuccessURL: "https://guichet.example/return", CancelURL: "https://guichet.example/back", ExpiresAt: w.clock().Add(time.Hour),
	}
}

func (w *world) open(n string, cents money.Amount) payments.Session {
	w.t.Helper()
	s, err := w.OpenSession(w.t.Context(), w.request(n, cents))
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// pay is the payer at the hosted page.
func (w *world) pay(s payments.Session, form url.Values) {
	w.t.Helper()
	browser := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	r, err := browser.PostForm(s.URL, form)
	if err != nil {
		w.t.Fatal(err)
	}
	r.Body.Close()
}

func card(number string) url.Values {
	return url.Values{"method": {"card"}, "name": {"Demo Payer"}, "email": {"payer@demo.example"}, "number": {number}, "expiry": {"04/29"}, "cvc": {"123"}}
}

func debit(account string) url.Values {
	return url.Values{"method": {"acss_debit"}, "name": {"Demo Payer"}, "email": {"payer@demo.example"}, "institution": {"000"}, "transit": {"11000"}, "account": {account}}
}

func (w *world) read(id string) payments.Session {
	w.t.Helper()
	s, err := w.Session(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *world) paid(n string, cents money.Amount, number string) payments.Session {
	w.t.Helper()
	s := w.open(n, cents)
	w.pay(s, card(number))
	return w.read(s.ID)
}

// struck makes a call that a planted fault hits, and gives it up as soon as the fault
// has struck: a call that hangs is not waited for.
func (w *world) struck(hangs bool, call func(context.Context) error) error {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	defer cancel()
	answer := make(chan error, 1)
	go func() { answer <- call(ctx) }()
	for deadline := time.Now().Add(time.Minute); ; {
		r, err := http.Get(w.url + "/_control/faults")
		if err != nil {
			w.t.Fatal(err)
		}
		var state struct{ Planted []any }
		err = json.NewDecoder(r.Body).Decode(&state)
		r.Body.Close()
		if err != nil || time.Now().After(deadline) {
			w.t.Fatalf("the fault never struck: %v", err)
		}
		if len(state.Planted) == 0 {
			break
		}
	}
	if hangs {
		cancel()
	}
	return <-answer
}

func eq[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s = %v, want %v", what, got, want)
	}
}

// verdict names the three kinds of answer.
func verdict(err error) string {
	var refused *payments.RefusedError
	switch {
	case err == nil:
		return "done"
	case errors.As(err, &refused) && errors.Is(err, payments.ErrUnknownOutcome):
		return "both"
	case errors.As(err, &refused):
		return "refused"
	case errors.Is(err, payments.ErrUnknownOutcome):
		return "unknown"
	}
	return fmt.Sprintf("neither: %v", err)
}

func TestASecretThatAnybodyKnowsIsRefused(t *testing.T) {
	for _, secrets := range [][]string{nil, {""}, {secret, ""}, {"whsec_"}, {secret, " " + secret}, {"0123456789abcdef0123"}} {
		if _, err := stripe.New(stripe.Config{SecretKey: key, WebhookSecrets: secrets}); err == nil {
			t.Errorf("webhook secrets %q are accepted", secrets)
		}
	}
	if _, err := stripe.New(stripe.Config{SecretKey: key, WebhookSecrets: []string{secret}}); err != nil {
		t.Error(err)
	}
}

func TestSession(t *testing.T) {
	w := newWorld(t)
	s := w.open("1", 7500)
	eq(t, "state", s.State, payments.SessionOpen)
	eq(t, "amount", s.Amount, 7500)
	eq(t, "currency", s.Currency, "CAD")
	eq(t, "our ids", s.CheckoutID+" "+s.PaymentID, "checkout-1 payment-1")
	eq(t, "intent", s.IntentID, "")
	if !strings.HasPrefix(s.URL, w.url+"/c/pay/cs_test_") {
		t.Errorf("url = %s", s.URL)
	}
	again, err := w.OpenSession(t.Context(), w.request("1", 7500))
	if err != nil || again != s {
		t.Errorf("the same key gave %+v %v, want %+v", again, err, s)
	}

	w.pay(s, card("4000000000009995"))
	declined := w.read(s.ID)
	eq(t, "after a decline", declined.State, payments.SessionOpen)
	eq(t, "no charge after a decline", declined.ChargeID, "")
	eq(t, "no card after a decline", declined.Card, payments.Card{})

	w.move(time.Minute)
	w.pay(s, card("5105105105105100"))
	got := w.read(s.ID)
	eq(t, "state", got.State, payments.SessionPaid)
	eq(t, "url", got.URL, "")
	eq(t, "card", got.Card, payments.Card{Brand: "mastercard", Last4: "5100", Funding: "prepaid"})
	eq(t, "paid at", got.PaidAt, w.clock())
	if !strings.HasPrefix(got.IntentID, "pi_") || !strings.HasPrefix(got.ChargeID, "ch_") {
		t.Errorf("intent %q, charge %q", got.IntentID, got.ChargeID)
	}
	_, err = w.ExpireSession(t.Context(), s.ID)
	eq(t, "expiring what was paid", verdict(err), "refused")

	open := w.open("2", 7500)
	expired, err := w.ExpireSession(t.Context(), open.ID)
	if err != nil {
		t.Fatal(err)
	}
	eq(t, "expired", expired.State, payments.SessionExpired)
	_, err = w.Session(t.Context(), "cs_test_none")
	eq(t, "an unknown session", verdict(err), "refused")
}

func TestDelayedMethod(t *testing.T) {
	w := newWorld(t)
	for account, want := range map[string]payments.SessionState{"900123456789": payments.SessionPaid, "900222222227": payments.SessionFailed} {
		r := w.request(account, 7500)
		r.Tender = "pre_authorised_debit"
		s, err := w.OpenSession(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		w.pay(s, debit(account))
		eq(t, account+" at first", w.read(s.ID).State, payments.SessionProcessing)
		w.move(3 * time.Minute)
		got := w.read(s.ID)
		eq(t, account+" later", got.State, want)
		eq(t, account+" has a charge", got.ChargeID != "", want == payments.SessionPaid)
	}
}

func TestRefund(t *testing.T) {
	w := newWorld(t)
	s := w.paid("1", 7500, "4242424242424242")
	r := payments.RefundRequest{Key: "refund/1", RefundID: "refund-1", IntentID: s.IntentID, Amount: 2500}
	first, err := w.Refund(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	eq(t, "state", first.State, "succeeded")
	eq(t, "amount", first.Amount, 2500)
	eq(t, "charge", first.ChargeID, s.ChargeID)
	again, err := w.Refund(t.Context(), r)
	if err != nil || again != first {
		t.Errorf("the same key gave %+v %v, want %+v", again, err, first)
	}
	for name, bad := range map[string]payments.RefundRequest{
		"more than is left":      {Key: "refund/2", RefundID: "refund-2", IntentID: s.IntentID, Amount: 5001},
		"of an unknown intent":   {Key: "refund/3", RefundID: "refund-3", IntentID: "pi_none", Amount: 1},
		"of nothing":             {Key: "refund/4", RefundID: "refund-4", IntentID: s.IntentID, Amount: 0},
		"of an intent not there": {Key: "refund/5", RefundID: "refund-5", Amount: 1},
	} {
		_, err := w.Refund(t.Context(), bad)
		eq(t, name, verdict(err), "refused")
	}
}

// A key that was used with other parameters says no to this request, but the first
// may have been done: only looking tells.
func TestRefundKeyUsedOtherwise(t *testing.T) {
	w := newWorld(t)
	s := w.paid("1", 7500, "4242424242424242")
	r := payments.RefundRequest{Key: "refund/1", RefundID: "refund-1", IntentID: s.IntentID, Amount: 2500}
	first, err := w.Refund(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	changed := r
	changed.Amount = 2600
	found, err := w.Refund(t.Context(), changed)
	if err != nil || found != first {
		t.Errorf("found %+v %v, want the first %+v", found, err, first)
	}
	other := r
	other.RefundID = "refund-9"
	_, err = w.Refund(t.Context(), other)
	eq(t, "another refund under the key", verdict(err), "unknown")
}

func TestUnknownOutcomesOfASession(t *testing.T) {
	const route = "POST /v1/checkout/sessions"
	for _, kind := range []string{"bad-gateway", "bad-gateway-after", "hang", "hang-after", "cut-after", "rate-limit", "error-500", "error-500-after"} {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t)
			w.plant(kind, route)
			err := w.struck(strings.HasPrefix(kind, "hang"), func(ctx context.Context) error {
				_, err := w.OpenSession(ctx, w.request("1", 7500))
				return err
			})
			if kind == "cut-after" && err == nil {
				return // Go's own client asked again: the key makes that safe
			}
			eq(t, "first", verdict(err), "unknown")
			s, err := w.OpenSession(t.Context(), w.request("1", 7500))
			if err != nil {
				t.Fatalf("asking again by the same key: %v", err)
			}
			again, err := w.OpenSession(t.Context(), w.request("1", 7500))
			if err != nil || again.ID != s.ID {
				t.Errorf("a third time: %s %v, want %s", again.ID, err, s.ID)
			}
			w.pay(s, card("4242424242424242"))
			eq(t, "it can be paid", w.read(s.ID).State, payments.SessionPaid)
		})
	}
}

func TestUnknownOutcomesOfARefund(t *testing.T) {
	const route = "POST /v1/refunds"
	for _, kind := range []string{"bad-gateway", "bad-gateway-after", "hang", "hang-after", "rate-limit", "error-500", "error-500-after"} {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t)
			s := w.paid("1", 7500, "4242424242424242")
			w.plant(kind, route)
			r := payments.RefundRequest{Key: "refund/1", RefundID: "refund-1", IntentID: s.IntentID, Amount: 2500}
			err := w.struck(strings.HasPrefix(kind, "hang"), func(ctx context.Context) error {
				_, err := w.Refund(ctx, r)
				return err
			})
			eq(t, "first", verdict(err), "unknown")
			first, err := w.Refund(t.Context(), r)
			if err != nil {
				t.Fatalf("asking again by the same key: %v", err)
			}
			again, err := w.Refund(t.Context(), r)
			if err != nil || again.ID != first.ID {
				t.Errorf("a third time: %s %v, want %s", again.ID, err, first.ID)
			}
			lines, _, err := w.BalanceTransactions(t.Context(), w.clock(), "")
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, l := range lines {
				if l.Category == "refund" {
					n++
				}
			}
			eq(t, "refunds on the balance", n, 1)
		})
	}
	t.Run("a refund that cannot be looked up stays unknown", func(t *testing.T) {
		w := newWorld(t)
		s := w.paid("1", 7500, "4242424242424242")
		w.plant("error-500-after", route)
		r := payments.RefundRequest{Key: "refund/1", RefundID: "refund-1", IntentID: s.IntentID, Amount: 2500}
		for range 2 {
			w.plant("bad-gateway", "GET /v1/refunds")
			_, err := w.Refund(t.Context(), r)
			eq(t, "outcome", verdict(err), "unknown")
		}
	})
}

// What is not Stripe's own answer is unknown, whatever its status says.
func TestForeignAnswersAreUnknown(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"an empty object":               func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{}`) },
		"a page":                        func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `<html>sign in to the network</html>`) },
		"nothing":                       func(w http.ResponseWriter, r *http.Request) {},
		"a redirect":                    func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) },
		"a proxy's 404":                 func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) },
		"a 400 in the shape, not by it": func(w http.ResponseWriter, r *http.Request) { http.Error(w, `{"error":{"message":"blocked"}}`, 400) },
		"a 401 of Stripe's": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Request-Id", "req_1")
			http.Error(w, `{"error":{"type":"invalid_request_error","message":"Invalid API Key"}}`, http.StatusUnauthorized)
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(answer)
			t.Cleanup(server.Close)
			c, ctx := connect(t, server.URL), t.Context()
			_, err := c.OpenSession(ctx, payments.SessionRequest{Key: "k", SuccessURL: "https://x.example"})
			eq(t, "open", verdict(err), "unknown")
			_, err = c.Session(ctx, "cs_1")
			eq(t, "session", verdict(err), "unknown")
			_, err = c.ExpireSession(ctx, "cs_1")
			eq(t, "expire", verdict(err), "unknown")
			_, err = c.Refund(ctx, payments.RefundRequest{Key: "k", IntentID: "pi_1"})
			eq(t, "refund", verdict(err), "unknown")
			_, _, err = c.Events(ctx, time.Now(), "")
			eq(t, "events", verdict(err), "unknown")
			_, _, err = c.Payouts(ctx, time.Now(), "")
			eq(t, "payouts", verdict(err), "unknown")
			_, _, err = c.PayoutTransactions(ctx, "po_1", "")
			eq(t, "payout transactions", verdict(err), "unknown")
			_, _, err = c.BalanceTransactions(ctx, time.Now(), "")
			eq(t, "balance transactions", verdict(err), "unknown")
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		server := httptest.NewServer(nil)
		server.Close()
		_, err := connect(t, server.URL).Session(t.Context(), "cs_1")
		eq(t, "session", verdict(err), "unknown")
	})
}

func TestAnEndlessAnswerIsCutOff(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		blanks := bytes.Repeat([]byte(" "), 1<<20)
		for n := range 64 {
			if _, err := w.Write(blanks); err != nil {
				return
			}
			if n == 63 {
				t.Error("64 MB were taken")
			}
		}
	}))
	t.Cleanup(server.Close)
	_, err := connect(t, server.URL).Session(t.Context(), "cs_1")
	eq(t, "session", verdict(err), "unknown")
}

func TestTheKeyDoesNotFollowARedirect(t *testing.T) {
	stranger := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("a stranger was asked, with %q", r.Header.Get("Authorization"))
	}))
	t.Cleanup(stranger.Close)
	server := httptest.NewServer(http.RedirectHandler(stranger.URL, http.StatusTemporaryRedirect))
	t.Cleanup(server.Close)
	_, err := connect(t, server.URL).Session(t.Context(), "cs_1")
	eq(t, "session", verdict(err), "unknown")
}

func TestParseEvent(t *testing.T) {
	w := newWorld(t)
	s := w.paid("1", 7500, "4242424242424242")
	var e payments.Event
	var h hook
	for _, h = range w.settle() {
		var err error
		if e, err = w.ParseEvent(h.body, h.signature, w.clock()); err != nil {
			t.Fatal(err)
		}
		if e.Type == "checkout.session.completed" {
			break
		}
	}
	eq(t, "type", e.Type, "checkout.session.completed")
	eq(t, "about", e.ObjectID, s.ID)
	eq(t, "created", e.CreatedAt, w.clock())
	eq(t, "live", e.Live, false)
	if !strings.HasPrefix(e.ID, "evt_") {
		t.Errorf("id = %q", e.ID)
	}
	if !bytes.Contains(h.body, []byte("payer@demo.example")) || bytes.Contains(e.Payload, []byte("@example.ca")) || !bytes.Contains(e.Payload, []byte(s.ID)) {
		t.Errorf("kept for the record: %s", e.Payload)
	}

	now := w.clock()
	stamp := func(at time.Time, body, with string) string {
		return webhook.GenerateTestSignedPayload(&webhook.UnsignedPayload{Payload: []byte(body), Secret: with, Timestamp: at}).Header
	}
	body := string(h.body)
	good := stamp(now, body, secret)
	_, sum, _ := strings.Cut(good, ",")
	old := stamp(now.Add(-time.Hour), body, secret)
	tests := []struct {
		name, body, header string
		want               error
	}{
		{"good", body, good, nil},
		{"the next secret", body, stamp(now, body, "whsec_next0123456789"), nil},
		{"several signatures", body, good + ",v1=00ff,v0=aa", nil},
		{"five minutes old", body, stamp(now.Add(-5*time.Minute), body, secret), nil},
		{"older", body, stamp(now.Add(-5*time.Minute-time.Second), body, secret), payments.ErrStale},
		{"five minutes ahead", body, stamp(now.Add(5*time.Minute), body, secret), nil},
		{"further ahead", body, stamp(now.Add(5*time.Minute+time.Second), body, secret), payments.ErrFuture},
		{"another secret", body, stamp(now, body, "whsec_other"), payments.ErrSignature},
		{"no header", body, "", payments.ErrSignature},
		{"no signature", body, fmt.Sprintf("t=%d", now.Unix()), payments.ErrSignature},
		{"no time", body, sum, payments.ErrSignature},
		{"a fresh time before the old one", body, fmt.Sprintf("t=%d,%s", now.Unix(), old), payments.ErrSignature},
		{"a fresh time after the old one", body, fmt.Sprintf("%s,t=%d", old, now.Unix()), payments.ErrSignature},
		{"a fresh time with a space", body, fmt.Sprintf("%s, t=%d", old, now.Unix()), payments.ErrStale},
		{"an old scheme", body, strings.Replace(good, "v1=", "v0=", 1), payments.ErrSignature},
		{"a changed body", body + " ", good, payments.ErrSignature},
		{"no JSON", "nonsense", stamp(now, "nonsense", secret), payments.ErrMalformed},
		{"another shape", `{"id":1}`, stamp(now, `{"id":1}`, secret), payments.ErrMalformed},
		{"no object", `{"id":"evt_1","type":"x","data":{}}`, stamp(now, `{"id":"evt_1","type":"x","data":{}}`, secret), payments.ErrMalformed},
		{"an object without id", `{"id":"evt_1","type":"x","data":{"object":{}}}`, stamp(now, `{"id":"evt_1","type":"x","data":{"object":{}}}`, secret), payments.ErrMalformed},
		{"null", `null`, stamp(now, `null`, secret), payments.ErrMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := w.ParseEvent([]byte(tt.body), tt.header, now); !errors.Is(err, tt.want) {
				t.Errorf("error = %v, want %v", err, tt.want)
			}
		})
	}
	t.Run("another API version", func(t *testing.T) {
		other := strings.Replace(body, "2023-10-16", "2025-01-27.acacia", 1)
		got, err := w.ParseEvent([]byte(other), stamp(now, other, secret), now)
		if err != nil || got.ObjectID != s.ID {
			t.Errorf("%+v %v", got, err)
		}
	})
}

func FuzzParseEvent(f *testing.F) {
	c, err := stripe.New(stripe.Config{SecretKey: key, WebhookSecrets: []string{secret}, URL: "http://127.0.0.1:1"})
	if err != nil {
		f.Fatal(err)
	}
	now := time.Date(2026, 3, 2, 20, 0, 0, 0, time.UTC)
	f.Add([]byte(`{"id":"evt_1","type":"x","data":{"object":{"id":"cs_1"}}}`), "")
	f.Add([]byte(`{"id":"evt_1","data":{"object":null}}`), "t=1772481600,v1=00")
	f.Add([]byte(`{"data":1}`), ",,t=,v1==,")
	f.Fuzz(func(t *testing.T, body []byte, header string) {
		if e, err := c.ParseEvent(body, header, now); err == nil {
			t.Errorf("a stranger's header %q passed as %+v", header, e)
		}
		signed := webhook.GenerateTestSignedPayload(&webhook.UnsignedPayload{Payload: body, Secret: secret, Timestamp: now})
		e, err := c.ParseEvent(body, signed.Header, now)
		if err == nil && (e.ID == "" || e.Type == "" || e.ObjectID == "") {
			t.Errorf("%q is read as %+v", body, e)
		}
		if err != nil && !errors.Is(err, payments.ErrMalformed) {
			t.Errorf("%q: %v", body, err)
		}
	})
}

func TestEventsFillGaps(t *testing.T) {
	w := newWorld(t)
	w.lever("/_control/faults", map[string]any{"kind": "webhook-drop", "times": -1})
	before := w.clock()
	var want []string
	for n := range 60 { // 120 events that count, over several pages, and many that do not
		s := w.paid(fmt.Sprint(n), 7500, "4242424242424242")
		o := w.open(fmt.Sprint("x", n), 7500)
		if _, err := w.ExpireSession(t.Context(), o.ID); err != nil {
			t.Fatal(err)
		}
		want = append(want, "checkout.session.completed "+s.ID, "checkout.session.expired "+o.ID)
		w.move(time.Second)
	}
	eq(t, "webhooks", len(w.settle()), 0)
	read := func(since time.Time) []string {
		t.Helper()
		var got []string
		events, next, err := w.Events(t.Context(), since, "")
		if err != nil || next != "" {
			t.Fatal(next, err)
		}
		for _, e := range events {
			got = append(got, e.Type+" "+e.ObjectID)
			if bytes.Contains(e.Payload, []byte("@example.ca")) {
				t.Errorf("kept for the record: %s", e.Payload)
			}
		}
		return got
	}
	if got := read(before); !slices.Equal(got, want) {
		t.Errorf("events =\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if got := read(before.Add(50 * time.Second)); !slices.Equal(got, want[100:]) {
		t.Errorf("%d events since the 50th second, want %d", len(got), len(want[100:]))
	}
}

func TestPayouts(t *testing.T) {
	w := newWorld(t)
	before := w.clock()
	byIntent := map[string]money.Amount{}
	for n := range 55 { // more lines than one page holds
		s := w.paid(fmt.Sprint(n), money.Amount(1000+n), "4242424242424242")
		r, err := w.Refund(t.Context(), payments.RefundRequest{Key: fmt.Sprint("refund/", n), RefundID: fmt.Sprint("refund-", n), IntentID: s.IntentID, Amount: 100})
		if err != nil || r.State != "succeeded" {
			t.Fatal(r, err)
		}
		byIntent[s.IntentID] = money.Amount(1000+n) - 100
	}
	disputed := w.paid("disputed", 9000, "4000000000000259")
	w.settle()
	byIntent[disputed.IntentID] = 0
	w.lever("/_control/stray", map[string]any{"amount_cents": -1234, "description": "Reserve"})
	w.move(48 * time.Hour)
	out := w.lever("/_control/payouts/run", map[string]any{"until": "pending"})
	id := out["payout"].(map[string]any)["id"].(string)

	one := func() payments.Payout {
		t.Helper()
		all, next, err := w.Payouts(t.Context(), before, "")
		if err != nil || next != "" || len(all) != 1 {
			t.Fatal(all, next, err)
		}
		return all[0]
	}
	p := one()
	eq(t, "state", p.State, "pending")
	eq(t, "itemised", p.Itemised, false)
	eq(t, "trace", p.TraceID, "")
	_, _, err := w.PayoutTransactions(t.Context(), id, "")
	eq(t, "lines before it is itemised", verdict(err), "refused")

	w.lever("/_control/payouts/"+id, map[string]any{"status": "paid"})
	p = one()
	eq(t, "state", p.State, "paid")
	eq(t, "itemised", p.Itemised, true)
	eq(t, "automatic", p.Automatic, true)
	eq(t, "currency", p.Currency, "CAD")
	eq(t, "arrives", p.ArrivalOn, time.Date(2026, 3, 4, 0, 0, 0, 0, time.UTC))
	eq(t, "created", p.CreatedAt, w.clock())
	eq(t, "traced", strings.HasPrefix(p.TraceID, "TR"), true)

	lines, next, err := w.PayoutTransactions(t.Context(), id, "")
	if err != nil || next != "" {
		t.Fatal(next, err)
	}
	eq(t, "lines", len(lines), 55*2+2+1)
	var sum money.Amount
	for _, l := range lines {
		sum += l.Net
		eq(t, "net", l.Net, l.Amount-l.Fee)
		eq(t, "currency", l.Currency, "CAD")
		byIntent[l.IntentID] -= l.Amount
	}
	eq(t, "sum of nets", sum, p.Amount)
	for intent, left := range byIntent {
		want := money.Amount(0)
		if intent == "" {
			want = 1234 // the stray line
		}
		eq(t, "left of "+intent, left, want)
	}
	stray := lines[len(lines)-1]
	eq(t, "stray", stray.Category+" "+stray.Description+" "+stray.SourceID, "other_adjustment Reserve ")
	eq(t, "oldest first", lines[0].Category, "charge")

	whole, _, err := w.BalanceTransactions(t.Context(), before, "")
	if err != nil {
		t.Fatal(err)
	}
	eq(t, "all movements", len(whole), len(lines)+1)
	own := whole[len(whole)-1]
	eq(t, "the payout's own line", own.Category+" "+own.SourceID, "payout "+id)
	eq(t, "available on", whole[0].AvailableOn, time.Date(2026, 3, 4, 0, 0, 0, 0, time.UTC))

	w.lever("/_control/payouts/"+id, map[string]any{"status": "failed", "failure_code": "account_closed"})
	p = one()
	eq(t, "state", p.State+" "+p.Failure, "failed account_closed")
	w.lever("/_control/payouts/run", map[string]any{})
	all, _, err := w.Payouts(t.Context(), before, "")
	if err != nil || len(all) != 2 || all[0].ID != id {
		t.Fatalf("oldest first: %+v %v", all, err)
	}
	lines, _, err = w.PayoutTransactions(t.Context(), all[1].ID, "")
	if err != nil || len(lines) != 1 || lines[0].Category != "payout_reversal" || lines[0].Net != all[1].Amount {
		t.Errorf("lines of the second payout: %+v %v", lines, err)
	}
}

func TestNewNeedsItsKeys(t *testing.T) {
	for _, c := range []stripe.Config{{}, {SecretKey: key}, {WebhookSecrets: []string{secret}}} {
		if _, err := stripe.New(c); err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
}
