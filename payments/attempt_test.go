package payments_test

import (
	"context"
	"errors"
	"testing"

	"guichet/internal/id"
	"guichet/payments"
)

// pays presses the pay button as a viewer with an address for the receipt.
func (w *world) pays(t *testing.T, v payments.Viewer, checkoutID, contactID string) string {
	t.Helper()
	page, err := w.pay.Pay(t.Context(), v, checkoutID, contactID)
	if err != nil {
		t.Fatal(err)
	}
	return page
}

func TestAnAttemptBelongsToWhoStartedIt(t *testing.T) {
	typo, right := id.New(), id.New()
	resident := payments.Viewer{ResidentID: id.New(), GuestHash: guest.GuestHash}
	for name, tt := range map[string]struct {
		second  payments.Viewer
		contact string // the second time
		same    bool
		want    payments.Payment
	}{
		"the same again":                           {guest, typo, true, payments.Payment{ContactID: typo}},
		"without an address the first is kept":     {guest, "", true, payments.Payment{ContactID: typo}},
		"another address is not sent to the first": {guest, right, false, payments.Payment{ContactID: right}},
		"a resident's receipt is the resident's":   {resident, "", false, payments.Payment{ResidentID: resident.ResidentID}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			checkoutID := w.checkout(t, w.Issue(t, w.Bill("water", "water-consumption", 1000)))
			first := w.pays(t, guest, checkoutID, typo)
			second := w.pays(t, tt.second, checkoutID, tt.contact)
			if (first == second) != tt.same {
				t.Errorf("the same page: %v, want %v", first == second, tt.same)
			}
			if !tt.same && card(t, first, good) {
				t.Error("the page before still takes a card")
			}
			card(t, second, good)
			p := w.sync(t, checkoutID)
			if p.State != payments.Succeeded || p.ContactID != tt.want.ContactID || p.ResidentID != tt.want.ResidentID {
				t.Errorf("payment is %s, of resident %q, receipt to contact %q; want %+v", p.State, p.ResidentID, p.ContactID, tt.want)
			}
		})
	}
}

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

func TestACookieDoesNotOpenAResidentsCheckout(t *testing.T) {
	w := newWorld(t)
	n := w.Bill("water", "water-consumption", 1000)
	n.ResidentID = id.New()
	v := payments.Viewer{ResidentID: n.ResidentID, GuestHash: guest.GuestHash}
	checkoutID, _, err := w.pay.Open(t.Context(), payments.NewCheckout{BillIDs: []string{w.Issue(t, n).ID}, Channel: "web", Viewer: v, Lang: "en"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.pay.Checkout(t.Context(), v, checkoutID); err != nil {
		t.Errorf("the resident: %v", err)
	}
	if _, err := w.pay.Checkout(t.Context(), guest, checkoutID); !errors.Is(err, payments.ErrNotFound) {
		t.Errorf("the browser after signing out: %v, want ErrNotFound", err)
	}
}

func TestABillThatWasPaidElsewhereStandsInTheWay(t *testing.T) {
	w := newWorld(t)
	b := w.Issue(t, w.Bill("water", "water-consumption", 1000))
	first, second := w.checkout(t, b), w.checkout(t, b)
	card(t, w.start(t, first), good)
	w.sync(t, first)
	_, err := w.pay.Pay(t.Context(), guest, second, "")
	var stands *payments.BillError
	if !errors.As(err, &stands) || !errors.Is(err, payments.ErrNotPayable) || stands.Bill.ID != b.ID {
		t.Errorf("pay: %v, want ErrNotPayable for the bill", err)
	}
}
