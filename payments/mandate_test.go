package payments_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"guichet/internal/clock"
	"guichet/internal/id"
	"guichet/internal/money"
	"guichet/payments"
	"guichet/payments/bill"
)

// mandated is a viewer that acts for a payer within limits.
func mandated(payer string, limits ...payments.SpendLimit) payments.Viewer {
	return payments.Viewer{ResidentID: payer, Mandate: &payments.Mandate{ActorID: id.New(), Limits: limits}}
}

// water issues a bill of an amount to an owner.
func (w *world) water(t *testing.T, owner string, amount money.Amount) bill.Bill {
	t.Helper()
	n := w.Bill("water", "water-consumption", amount)
	n.ResidentID = owner
	return w.Issue(t, n)
}

func (w *world) checkoutFor(t *testing.T, v payments.Viewer, bills ...bill.Bill) (string, error) {
	t.Helper()
	n := payments.NewCheckout{Channel: "web", Viewer: v, Lang: "en"}
	for _, b := range bills {
		n.BillIDs = append(n.BillIDs, b.ID)
	}
	checkoutID, _, err := w.pay.Open(t.Context(), n)
	return checkoutID, err
}

func limited(t *testing.T, err error, perMonth bool) {
	t.Helper()
	var over *payments.LimitError
	if !errors.As(err, &over) || over.PerMonth != perMonth {
		t.Fatalf("got %v, want a limit (a month: %v)", err, perMonth)
	}
}

func TestMandateBoundsOnePaymentAndTheMonth(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	payer := id.New()
	v := mandated(payer, payments.SpendLimit{ID: id.New(), PerPayment: 5000, PerMonth: 8000})
	_, err := w.checkoutFor(t, v, w.water(t, payer, 5001))
	limited(t, err, false)
	first, err := w.checkoutFor(t, v, w.water(t, payer, 5000))
	if err != nil {
		t.Fatal(err)
	}
	second, err := w.checkoutFor(t, v, w.water(t, payer, 3001))
	if err != nil {
		t.Fatal(err) // nothing is paid yet
	}
	if _, err := w.pay.Pay(t.Context(), v, first, ""); err != nil {
		t.Fatal(err)
	}
	_, err = w.pay.Pay(t.Context(), v, second, "")
	limited(t, err, true)
	_, err = w.checkoutFor(t, v, w.water(t, payer, 3001))
	limited(t, err, true)
	if _, err := w.checkoutFor(t, v, w.water(t, payer, 3000)); err != nil {
		t.Errorf("to the last cent: %v", err)
	}
	if err := w.pay.Cancel(t.Context(), v, first); err != nil {
		t.Fatal(err)
	}
	if _, err := w.pay.Pay(t.Context(), v, second, ""); err != nil {
		t.Errorf("a payment that did not happen still counts: %v", err)
	}
	c, err := w.pay.Checkout(t.Context(), v, second)
	if err != nil || c.Payment.ActorID != v.Mandate.ActorID || c.Payment.ResidentID != payer || len(c.Payment.Mandate) != 1 {
		t.Errorf("the payment names %+v, %v", c.Payment, err)
	}
}

func TestAnotherActorDoesNotContinueAnAttempt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	payer := id.New()
	clerk, owner := mandated(payer, payments.SpendLimit{ID: id.New()}), payments.Viewer{ResidentID: payer}
	checkout, err := w.checkoutFor(t, clerk, w.water(t, payer, 5000))
	if err != nil {
		t.Fatal(err)
	}
	first, err := w.pay.Pay(t.Context(), clerk, checkout, "")
	if err != nil {
		t.Fatal(err)
	}
	second, err := w.pay.Pay(t.Context(), owner, checkout, "")
	if err != nil || second == first {
		t.Errorf("the owner goes on with the clerk's page %s: %v", second, err)
	}
	c, err := w.pay.Checkout(t.Context(), owner, checkout)
	if err != nil || c.Payment.ActorID != "" {
		t.Errorf("the attempt of the owner names %+v, %v", c.Payment, err)
	}
}

// Random payments by two people whose rights come from one, against a model that
// adds up in memory: same answer each time, and at the end no right has been overspent in any month.
func TestMandatesAgainstAModel(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const seed = 20261124
	r := rand.New(rand.NewPCG(seed, 1))
	payer := id.New()
	source := payments.SpendLimit{ID: id.New(), PerPayment: 900, PerMonth: 2500}
	var viewers []payments.Viewer
	viewers = append(viewers, mandated(payer, source))
	for range 2 {
		viewers = append(viewers, mandated(payer, payments.SpendLimit{ID: id.New(), PerPayment: 600, PerMonth: 1200}, source))
	}
	type key struct{ right, month string }
	spent := map[key]money.Amount{}
	refused, paid := 0, 0
	for i := range 60 {
		if i == 30 {
			next := clock.DateOf(w.Clock.Now())
			next.Day = 1
			if err := w.Clock.SetOffset(time.Until(next.Time().AddDate(0, 1, 0)) + 12*time.Hour); err != nil {
				t.Fatal(err)
			}
		}
		v, amount := viewers[r.IntN(len(viewers))], money.Amount(r.IntN(950)+50) // the processor takes nothing below
		month := w.Today().String()[:7]
		allowed := true
		for _, l := range v.Mandate.Limits {
			allowed = allowed && amount <= l.PerPayment && spent[key{l.ID, month}]+amount <= l.PerMonth
		}
		checkout, err := w.checkoutFor(t, v, w.water(t, payer, amount))
		if err == nil {
			_, err = w.pay.Pay(t.Context(), v, checkout, "")
		}
		if over := new(payments.LimitError); err != nil && !errors.As(err, &over) {
			t.Fatal(err)
		}
		if allowed != (err == nil) {
			t.Fatalf("seed %d, step %d: %s of %+v: allowed %v, got %v", seed, i, amount, v.Mandate.Limits, allowed, err)
		}
		if err != nil {
			refused++
			continue
		}
		paid++
		for _, l := range v.Mandate.Limits {
			spent[key{l.ID, month}] += amount
		}
	}
	if refused < 5 || paid < 5 {
		t.Errorf("%d refused, %d paid: the test tests nothing", refused, paid)
	}
}

func TestTwoAtOnceCannotBothBeTheLastOfTheMonth(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	payer := id.New()
	source := payments.SpendLimit{ID: id.New(), PerMonth: 1000}
	var wg sync.WaitGroup
	errs := make([]error, 6)
	var pay []func() error
	for range errs {
		v := mandated(payer, payments.SpendLimit{ID: id.New()}, source)
		checkout, err := w.checkoutFor(t, v, w.water(t, payer, 400))
		if err != nil {
			t.Fatal(err)
		}
		pay = append(pay, func() error {
			_, err := w.pay.Pay(t.Context(), v, checkout, "")
			return err
		})
	}
	for i := range pay {
		wg.Go(func() { errs[i] = pay[i]() })
	}
	wg.Wait()
	paid := 0
	for _, err := range errs {
		if err == nil {
			paid++
		} else {
			limited(t, err, true)
		}
	}
	if paid != 2 {
		t.Errorf("%d of 4.00 each within 10.00, want 2: %s", paid, fmt.Sprint(errs))
	}
}
