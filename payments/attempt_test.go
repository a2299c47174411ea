package payments_test

import (
	"context"
	"errors"
	"testing"

	"guichet/payments"
)

// A meddler is the processor, and something happens meanwhile.
type meddler struct {
	payments.Processor
	opened func()                // after a page was opened, before its answer arrives
	expire func(id string) error // instead of closing a page
}

func (m *meddler) OpenSession(ctx context.Context, r payments.SessionRequest) (payments.Session, error) {
	s, err := m.Processor.OpenSession(ctx, r)
	if opened := m.opened; opened != nil {
		m.opened = nil
		opened()
	}
	return s, err
}

func (m *meddler) ExpireSession(ctx context.Context, id string) (payments.Session, error) {
	if m.expire != nil {
		return payments.Session{}, m.expire(id)
	}
	return m.Processor.ExpireSession(ctx, id)
}

func TestAPageThatStaysOpenIsNotCalledCancelled(t *testing.T) {
	w := newWorld(t)
	w.pay = w.service(t, &meddler{Processor: w.processor, expire: func(string) error {
		return &payments.RefusedError{Code: "session_in_use"}
	}})
	checkoutID := w.checkout(t, w.Issue(t, w.Bill("water", "water-consumption", 1000)))
	page := w.start(t, checkoutID)
	if err := w.pay.Cancel(t.Context(), guest, checkoutID); !errors.Is(err, payments.ErrUnknownOutcome) {
		t.Errorf("cancel: %v, want ErrUnknownOutcome: the page may still be paid", err)
	}
	card(t, page, good)
	if err := w.pay.Cancel(t.Context(), guest, checkoutID); !errors.Is(err, payments.ErrAlreadyPaid) {
		t.Errorf("cancel after paying: %v, want ErrAlreadyPaid", err)
	}
}

func TestAPageThatWasCancelledMeanwhileIsNotCalledPaid(t *testing.T) {
	w := newWorld(t)
	checkoutID := w.checkout(t, w.Issue(t, w.Bill("water", "water-consumption", 1000)))
	other := w.pay // the same payer's other tab
	w.pay = w.service(t, &meddler{Processor: w.processor, opened: func() {
		for range 2 { // and a second click there
			if err := other.Cancel(t.Context(), guest, checkoutID); err != nil {
				t.Errorf("cancel: %v", err)
			}
		}
	}})
	if _, err := w.pay.Pay(t.Context(), guest, checkoutID, ""); !errors.Is(err, payments.ErrClosed) {
		t.Errorf("pay: %v, want ErrClosed", err)
	}
	w.start(t, checkoutID) // and the payer may try again
}
