package stripe_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	api "github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/webhook"
)

func contains(s, part string) bool { return strings.Contains(s, part) }
func reader(s string) io.Reader    { return strings.NewReader(s) }

func TestWebhooksPassStripesOwnCheck(t *testing.T) {
	w := newWorld(t)
	w.now = time.Now() // Stripe's library compares with the machine's clock
	s := w.paid(1000, "4242424242424242")
	hooks := w.settle()
	if len(hooks) != 4 {
		t.Fatalf("%d webhooks, want 4", len(hooks))
	}
	for _, h := range hooks {
		e, err := webhook.ConstructEvent(h.body, h.signature, secret)
		if err != nil {
			t.Fatalf("%s: %v", h.event.Type, err)
		}
		eq(t, "version", e.APIVersion, "2023-10-16")
		eq(t, "pending", e.PendingWebhooks, 1)
		if _, err := webhook.ConstructEvent(h.body, h.signature, "whsec_other"); err == nil {
			t.Error("another secret fits too")
		}
		if _, err := webhook.ConstructEvent(append(h.body, ' '), h.signature, secret); err == nil {
			t.Error("a changed body passes")
		}
	}
	last := hooks[3].event
	eq(t, "type", last.Type, api.EventTypeCheckoutSessionCompleted)
	eq(t, "about", last.GetObjectValue("id"), s.ID)
	eq(t, "state then", last.GetObjectValue("payment_status"), "paid")
	got, err := w.client.Events.Get(last.ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	eq(t, "pending after delivery", got.PendingWebhooks, 0)
}

func TestEventsNameTheRequestThatCausedThem(t *testing.T) {
	w := newWorld(t)
	s := w.paid(1000, "4242424242424242")
	w.settle()
	p := &api.RefundParams{PaymentIntent: &s.PaymentIntent.ID}
	p.SetIdempotencyKey("refund/9")
	r, err := w.client.Refunds.New(p)
	if err != nil {
		t.Fatal(err)
	}
	e := w.settle()[0].event
	eq(t, "key", e.Request.IdempotencyKey, "refund/9")
	eq(t, "request", e.Request.ID, r.LastResponse.RequestID)
}

func TestEventList(t *testing.T) {
	w := newWorld(t)
	w.status = 500
	w.paid(1000, "4242424242424242")
	w.settle()
	names := func(p *api.EventListParams) string {
		t.Helper()
		var out []string
		it := w.client.Events.List(p)
		for it.Next() {
			out = append(out, string(it.Event().Type))
		}
		if it.Err() != nil {
			t.Fatal(it.Err())
		}
		return joined(out)
	}
	eq(t, "by type", names(&api.EventListParams{Type: api.String("charge.succeeded")}), "charge.succeeded")
	eq(t, "by group", names(&api.EventListParams{Type: api.String("payment_intent.*")}), "payment_intent.succeeded payment_intent.created")
	eq(t, "by types", names(&api.EventListParams{Types: api.StringSlice([]string{"charge.succeeded", "checkout.session.completed"})}), "checkout.session.completed charge.succeeded")
	eq(t, "delivered", names(&api.EventListParams{DeliverySuccess: api.Bool(true)}), "")
	eq(t, "since later", names(&api.EventListParams{CreatedRange: &api.RangeQueryParams{GreaterThan: monday.Unix()}}), "")
	if it := w.client.Events.List(&api.EventListParams{Type: api.String("a"), Types: api.StringSlice([]string{"b"})}); it.Err() == nil {
		t.Error("type and types together were accepted")
	}
}

func TestWebhookIsRetried(t *testing.T) {
	w := newWorld(t)
	w.status = 500
	s := w.session(1000)
	if _, err := w.client.CheckoutSessions.Expire(s.ID, nil); err != nil {
		t.Fatal(err)
	}
	attempts := len(w.settle())
	for _, pause := range []time.Duration{5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute} {
		w.move(pause - time.Second)
		eq(t, "before its time", len(w.settle()), 0)
		w.move(time.Second)
		attempts += len(w.settle())
	}
	eq(t, "attempts", attempts, 5)
	w.status = 200
	w.move(time.Hour)
	h := w.settle()
	eq(t, "delivered in the end", len(h), 1)
	if want := "t=" + itoa(w.clock().Unix()) + ",v1="; !strings.HasPrefix(h[0].signature, want) {
		t.Errorf("signature %q, want a fresh time %s", h[0].signature, want)
	}
	w.move(72 * time.Hour)
	eq(t, "afterwards", len(w.settle()), 0)
}

func TestWebhookIsGivenUpAfterThreeDays(t *testing.T) {
	w := newWorld(t)
	w.status = 302 // a redirect is no delivery
	if _, err := w.client.CheckoutSessions.Expire(w.session(1000).ID, nil); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		w.settle()
		w.move(12 * time.Hour)
	}
	w.status = 200
	eq(t, "after ten days", len(w.settle()), 0)
	it := w.client.Events.List(&api.EventListParams{DeliverySuccess: api.Bool(false)})
	eq(t, "known as undelivered", it.Next(), true)
	w.lever("/_control/events/"+it.Event().ID+"/resend", map[string]any{})
	eq(t, "sent again by hand", len(w.settle()), 1)
}

func TestFaultsOfWebhooks(t *testing.T) {
	expire := func(t *testing.T, w *world) {
		t.Helper()
		if _, err := w.client.CheckoutSessions.Expire(w.session(1000).ID, nil); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("duplicate sends one more copy for each planted", func(t *testing.T) {
		w := newWorld(t)
		w.plant("webhook-duplicate", "checkout.session.expired", 1)
		w.plant("webhook-duplicate", "", 2)
		w.plant("webhook-duplicate", "charge.succeeded", -1)
		expire(t, w)
		h := w.settle()
		eq(t, "copies", len(h), 3)
		eq(t, "same event", h[0].event.ID, h[2].event.ID)
		expire(t, w)
		eq(t, "copies of the next", len(w.settle()), 2)
		expire(t, w)
		eq(t, "copies of the last", len(w.settle()), 1)
	})
	t.Run("drop never sends, and the event list knows", func(t *testing.T) {
		w := newWorld(t)
		w.plant("webhook-drop", "checkout.session.expired", 1)
		expire(t, w)
		w.move(100 * time.Hour)
		eq(t, "sent", len(w.settle()), 0)
		eq(t, "listed", w.client.Events.List(&api.EventListParams{}).Next(), true)
		expire(t, w)
		eq(t, "the next is sent", len(w.settle()), 1)
	})
	t.Run("delay sends later", func(t *testing.T) {
		w := newWorld(t)
		w.lever("/_control/faults", map[string]any{"kind": "webhook-delay", "delay": "1h"})
		expire(t, w)
		w.move(time.Hour - time.Second)
		eq(t, "before", len(w.settle()), 0)
		w.move(time.Second)
		eq(t, "then", len(w.settle()), 1)
	})
	t.Run("hold keeps, and releases in an order that the seed decides", func(t *testing.T) {
		orders := map[string]bool{}
		for seed := range 8 {
			w := newWorld(t)
			w.plant("webhook-hold", "", -1)
			w.paid(1000, "4242424242424242")
			eq(t, "sent while held", len(w.settle()), 0)
			w.lever("/_control/webhooks/release", map[string]any{"seed": seed % 4})
			w.mu.Lock()
			order := joined(types(w.hooks))
			w.mu.Unlock()
			eq(t, "sent", len(strings.Fields(order)), 4)
			orders[order] = true
			eq(t, "sent twice", len(w.settle()), 4) // what arrived by the release, and nothing more
		}
		if len(orders) < 2 || len(orders) > 4 {
			t.Errorf("4 seeds made %d orders", len(orders))
		}
	})
	t.Run("forged webhooks fail the check", func(t *testing.T) {
		w := newWorld(t)
		w.now = time.Now()
		expire(t, w)
		event := w.settle()[0].event.ID
		for how, want := range map[string]string{"signature": webhook.ErrNoValidSignature.Error(), "old": webhook.ErrTooOld.Error(), "unsigned": webhook.ErrNotSigned.Error(), "future": ""} {
			out := w.lever("/_control/events/"+event+"/forge", map[string]any{"how": how})
			eq(t, "answer", out["answers"].([]any)[0].(map[string]any)["status"], any(200.0))
			h := w.settle()[0]
			_, err := webhook.ConstructEvent(h.body, h.signature, secret)
			got := ""
			if err != nil {
				got = err.Error()
			}
			eq(t, how, got, want) // Stripe's library lets the future pass
		}
	})
}

func TestDeclineFault(t *testing.T) {
	w := newWorld(t)
	w.plant("decline", "insufficient_funds", 1)
	s := w.session(1000)
	page := w.post(s.URL, card("4242424242424242"))
	eq(t, "status", page.status, http.StatusUnprocessableEntity)
	eq(t, "code", string(w.read(s.ID).PaymentIntent.LastPaymentError.DeclineCode), "insufficient_funds")
	eq(t, "then", w.post(s.URL, card("4242424242424242")).status, http.StatusSeeOther)
	w.plant("decline", "", 1)
	eq(t, "without a code", w.post(w.session(1000).URL, card("4242424242424242")).status, http.StatusUnprocessableEntity)
}
