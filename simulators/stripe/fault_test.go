package stripe_test

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"

	api "github.com/stripe/stripe-go/v76"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// once is a client that uses a connection once: on one used before, Go's client
// would itself repeat a request that has an Idempotency-Key.
func once() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
}

// spent reports whether every planted fault has struck.
func (w *world) spent() bool {
	w.t.Helper()
	r, err := http.Get(w.url + "/_control/faults")
	return strings.Contains(see(w.t, r, err).body, `"planted":[]`)
}

// struck makes a call that a planted fault hits, and gives it up as soon as the fault
// has struck: a call that hangs is not waited for.
func (w *world) struck(hangs bool, call func(context.Context) error) error {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	defer cancel()
	answer := make(chan error, 1)
	go func() { answer <- call(ctx) }()
	w.until("the fault strikes", w.spent)
	if hangs {
		cancel()
	}
	return <-answer
}

func (w *world) refunds() int {
	w.t.Helper()
	n := 0
	it := w.client.Refunds.List(&api.RefundListParams{})
	for it.Next() {
		n++
	}
	if it.Err() != nil {
		w.t.Fatal(it.Err())
	}
	return n
}

func TestFaultsOfTheAPI(t *testing.T) {
	const route = "POST /v1/refunds"
	tests := []struct {
		kind    string
		done    int    // refunds after the faulty answer
		isError bool   // an error in Stripe's shape
		first   string // what the client sees
		second  string // asking again with the same key
	}{
		{"error-500", 0, true, "500 api_error ", "500 api_error "},
		{"error-500-after", 1, true, "500 api_error ", "500 api_error "},
		{"bad-gateway", 0, false, "", "done"},
		{"bad-gateway-after", 1, false, "", "done"},
		{"hang", 0, false, "", "done"},
		{"hang-after", 1, false, "", "done"},
		{"cut", 0, false, "", "done"},
		{"cut-after", 1, false, "", "done"},
		{"rate-limit", 0, true, "429 invalid_request_error rate_limit", "done"},
	}
	for _, tt := range tests {
		t.Run(tt.kind, func(t *testing.T) {
			w := newWorld(t)
			s := w.paid(1000, "4242424242424242")
			w.plant(tt.kind, route, 1)
			p := &api.RefundParams{PaymentIntent: &s.PaymentIntent.ID}
			p.SetIdempotencyKey("refund/1")

			err := w.struck(strings.HasPrefix(tt.kind, "hang"), func(ctx context.Context) error {
				first := *p
				first.Context = ctx
				_, err := connectWith(w.url, key, once()).Refunds.New(&first)
				return err
			})
			var inShape *api.Error
			eq(t, "in Stripe's shape", errors.As(err, &inShape), tt.isError)
			if tt.isError {
				eq(t, "first", code(err), tt.first)
			}
			eq(t, "refunds", w.refunds(), tt.done)

			r, err := w.client.Refunds.New(p)
			if tt.second == "done" {
				if err != nil {
					t.Fatalf("asking again: %v", err)
				}
				eq(t, "asked again", r.Status, api.RefundStatusSucceeded)
				eq(t, "refunds after asking again", w.refunds(), 1)
			} else {
				eq(t, "second", code(err), tt.second)
				eq(t, "refunds after asking again", w.refunds(), tt.done)
			}
		})
	}
	t.Run("another route is spared", func(t *testing.T) {
		w := newWorld(t)
		w.plant("error-500", "GET /v1/charges/{id}", -1)
		w.session(1000)
		_, err := w.client.Charges.Get("ch_1", nil)
		eq(t, "its route", code(err), "500 api_error ")
	})
}

// A second request with the same key does not execute beside the first.
func TestSameKeyAtOnce(t *testing.T) {
	w := newWorld(t)
	w.lever("/_control/faults", map[string]any{"kind": "slow", "target": "POST /v1/checkout/sessions", "delay": "1h"})
	p := w.params(1000)
	p.SetIdempotencyKey("checkout/1")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	first := make(chan error, 1)
	go func() {
		slow := *p
		slow.Context = ctx
		_, err := w.client.CheckoutSessions.New(&slow)
		first <- err
	}()
	// The first one waits, and holds the key, from the moment its fault is used up.
	w.until("the first request waits", w.spent)
	_, err := w.client.CheckoutSessions.New(p)
	eq(t, "second", code(err), "409 idempotency_error idempotency_key_in_use")
	cancel()
	if err := <-first; err == nil {
		t.Error("the first was answered")
	}
}

func TestControlRefusesOtherSites(t *testing.T) {
	w := newWorld(t)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.url+"/_control/payouts/run", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	resp, err := http.DefaultClient.Do(r)
	eq(t, "status", see(t, resp, err).status, http.StatusForbidden)
}

func TestHomePage(t *testing.T) {
	w := newWorld(t)
	s := w.paid(1000, "4000000000000077")
	if _, err := w.client.Refunds.New(&api.RefundParams{PaymentIntent: &s.PaymentIntent.ID, Amount: api.Int64(100)}); err != nil {
		t.Fatal(err)
	}
	w.plant("webhook-hold", "", -1)
	w.post(w.url+"/_control/payouts/run", nil)
	w.post(w.url+"/_control/stray", map[string][]string{"kind": {"charge"}, "amount_cents": {"1234"}, "available": {"true"}})
	page := w.get(w.url)
	eq(t, "status", page.status, 200)
	for _, want := range []string{s.PaymentIntent.LatestCharge.ID, "re_", "po_", "$8.41", "webhook-hold", "payout.paid", "$12.34"} {
		if !strings.Contains(page.body, want) {
			t.Errorf("the home page lacks %q", want)
		}
	}
}
