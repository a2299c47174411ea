package payments_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"guichet/payments"
)

// A listener is the processor, and counts what it is asked.
type listener struct {
	payments.Processor
	asked  map[string]int // by session
	events int
	answer func(session payments.Session, err error) (payments.Session, error)
}

func (l *listener) Session(ctx context.Context, id string) (payments.Session, error) {
	if l.asked == nil {
		l.asked = map[string]int{}
	}
	l.asked[id]++
	s, err := l.Processor.Session(ctx, id)
	if l.answer != nil {
		return l.answer(s, err)
	}
	return s, err
}

func (l *listener) Events(ctx context.Context, since time.Time, cursor string) ([]payments.Event, string, error) {
	l.events++
	return l.Processor.Events(ctx, since, cursor)
}

// later moves the clock on.
func (w *world) later(t *testing.T, d time.Duration) {
	t.Helper()
	if err := w.Clock.SetOffset(w.Clock.Offset() + d); err != nil {
		t.Fatal(err)
	}
}

func (w *world) sweep(t *testing.T) {
	t.Helper()
	if err := w.pay.Sweep(t.Context()); err != nil {
		t.Errorf("sweep: %v", err)
	}
}

func TestPaymentsThatDoNotMoveDoNotKeepThePollerFromOthers(t *testing.T) {
	w := newWorld(t)
	l := &listener{Processor: w.processor}
	w.pay = w.service(t, l)
	checkoutID := w.checkout(t, w.Issue(t, w.Bill("water", "water-consumption", 1000)))
	w.start(t, checkoutID)
	// 300 debits that take days, all older than the next payer's attempt.
	if _, err := w.DB.Exec(t.Context(), `
		with c as (
			insert into payments.checkout (id, state, channel, token_hash, lang, created_at, updated_at, expires_at)
			select gen_random_uuid(), 'open', 'web', uuid_send(gen_random_uuid()), 'en', created_at, created_at, expires_at
			from payments.checkout, generate_series(1, 300) returning id)
		insert into payments.payment (id, checkout_id, reference, state, tender, channel, amount_cents, quoted_on, lang, session_id, created_at, updated_at, expires_at)
		select gen_random_uuid(), c.id, c.id::text, 'processing', 'card', 'web', 1000, p.quoted_on, 'en', c.id::text, p.created_at - interval '1 day',
			p.updated_at - interval '1 day', p.expires_at - interval '1 day' from payments.payment p, c`); err != nil {
		t.Fatal(err)
	}
	second := w.checkout(t, w.Issue(t, w.Bill("water", "water-consumption", 1000)))
	w.fault(t, "webhook-drop", "checkout.session.completed")
	card(t, w.start(t, second), good)
	l.answer = func(s payments.Session, err error) (payments.Session, error) {
		if err != nil { // the debits
			return payments.Session{}, errors.New("not now")
		}
		return s, nil
	}
	w.later(t, time.Minute)
	w.sweep(t)
	w.sweep(t)
	c, err := w.pay.Checkout(t.Context(), guest, second)
	if err != nil || c.State != "paid" {
		t.Errorf("the checkout is %s, %v; want paid", c.State, err)
	}
}

func TestThePollerAsksLessAndLessOften(t *testing.T) {
	w := newWorld(t)
	l := &listener{Processor: w.processor}
	w.pay = w.service(t, l)
	w.start(t, w.checkout(t, w.Issue(t, w.Bill("water", "water-consumption", 1000))))
	for range 90 { // half an hour, while the payer looks for the card
		w.later(t, 20*time.Second)
		w.sweep(t)
	}
	for _, n := range l.asked {
		if n < 10 || n > 30 {
			t.Errorf("a page that was open for half an hour was asked about %d times, want 10 to 30", n)
		}
	}
	if len(l.asked) != 1 || l.events < 25 || l.events > 31 {
		t.Errorf("%d pages; the events were listed %d times, want once a minute", len(l.asked), l.events)
	}
}

func TestAProcessorThatIsDownIsNotAskedAboutEverything(t *testing.T) {
	w := newWorld(t)
	for range 12 {
		w.start(t, w.checkout(t, w.Issue(t, w.Bill("water", "water-consumption", 1000))))
	}
	l := &listener{Processor: w.processor, answer: func(payments.Session, error) (payments.Session, error) {
		return payments.Session{}, payments.ErrUnknownOutcome
	}}
	w.pay = w.service(t, l)
	w.later(t, time.Minute)
	w.sweep(t)
	if len(l.asked) == 0 || len(l.asked) > 5 {
		t.Errorf("asked %d times, want up to 5", len(l.asked))
	}
}

func TestEveryEventIsKeptOnceHoweverItArrives(t *testing.T) {
	w := newWorld(t)
	for range 3 {
		card(t, w.start(t, w.checkout(t, w.Issue(t, w.Bill("water", "water-consumption", 1000)))), good)
	}
	if err := w.sim.Settle(t.Context()); err != nil { // webhooks
		t.Fatal(err)
	}
	w.later(t, 2*time.Minute)
	w.sweep(t)
	w.later(t, 2*time.Minute)
	w.sweep(t)
	var events, jobs int
	if err := w.DB.QueryRow(t.Context(), `select (select count(*) from payments.processor_event),
		(select count(*) from river.river_job where kind = 'payments.event')`).Scan(&events, &jobs); err != nil {
		t.Fatal(err)
	}
	if events < 3 || jobs != events {
		t.Errorf("%d events kept, %d jobs for them", events, jobs)
	}
}
