package payments_test

import (
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/ledger"
	"guichet/payments"
	"guichet/payments/bill"
)

// handled waits until every event that was kept has been handled or given up.
func (w *world) handled(t *testing.T) {
	t.Helper()
	if err := w.sim.Settle(t.Context()); err != nil { // sends the webhooks
		t.Fatal(err)
	}
	eventually(t, "all events are handled", func() bool {
		var kept, open int
		if err := w.DB.QueryRow(t.Context(), `
			select count(*), count(*) filter (where state not in ('completed', 'cancelled')) from river.river_job where kind = 'payments.event'`).
			Scan(&kept, &open); err != nil {
			t.Fatal(err)
		}
		return kept > 0 && open == 0
	})
}

func (w *world) payment(t *testing.T, checkoutID string) payments.Payment {
	t.Helper()
	c, err := w.pay.Checkout(t.Context(), guest, checkoutID)
	if err != nil {
		t.Fatal(err)
	}
	return *c.Payment
}

func TestAnotherPageOfThePaymentEndsOnlyItself(t *testing.T) {
	w := newWorld(t)
	w.work(t)
	checkoutID := w.checkout(t, w.Issue(t, w.Bill("water", "water-consumption", 1000)))
	page := w.start(t, checkoutID)
	p := w.payment(t, checkoutID)
	// The page whose address never arrived, before a second key was used.
	lost, err := w.processor.OpenSession(t.Context(), payments.SessionRequest{
		Key: "lost", CheckoutID: checkoutID, PaymentID: p.ID, Lang: "en",
		Lines: []payments.SessionLine{{Name: "Water", Amount: 1000}}, SuccessURL: "http://localhost:1/", CancelURL: "http://localhost:1/", ExpiresAt: p.ExpiresAt,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.processor.ExpireSession(t.Context(), lost.ID); err != nil {
		t.Fatal(err)
	}
	w.handled(t)
	if got := w.payment(t, checkoutID); got.State != payments.Pending || got.SessionID != p.SessionID {
		t.Errorf("the payment is %s with session %s, want pending with %s", got.State, got.SessionID, p.SessionID)
	}
	card(t, page, good)
	if got := w.sync(t, checkoutID); got.State != payments.Succeeded {
		t.Errorf("after paying it is %s", got.State)
	}
}

// liar lets the processor lie about every session.
func (w *world) liar(t *testing.T, says func(*payments.Session)) {
	t.Helper()
	w.pay = w.service(t, &listener{Processor: w.processor, answer: func(s payments.Session, err error) (payments.Session, error) {
		says(&s)
		return s, err
	}})
}

func TestASessionThatDoesNotFitIsNotBooked(t *testing.T) {
	for name, lie := range map[string]func(*payments.Session){
		"a cent less":       func(s *payments.Session) { s.Amount-- },
		"a cent more":       func(s *payments.Session) { s.Amount++ },
		"another currency":  func(s *payments.Session) { s.Currency = "USD" },
		"another payment's": func(s *payments.Session) { s.PaymentID = s.CheckoutID },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			checkoutID := w.checkout(t, w.Issue(t, w.Bill("water", "water-consumption", 1000)))
			card(t, w.start(t, checkoutID), good)
			w.liar(t, lie)
			if _, err := w.pay.Sync(t.Context(), w.payment(t, checkoutID).ID); !errors.Is(err, payments.ErrMismatch) {
				t.Errorf("sync: %v, want ErrMismatch", err)
			}
			if p := w.payment(t, checkoutID); p.State != payments.Pending {
				t.Errorf("the payment is %s, want pending", p.State)
			}
			if got := w.Balance(t, payments.Clearing); got != 0 {
				t.Errorf("clearing holds %s, want nothing", got)
			}
		})
	}
}

func TestAnEventThatCannotBeAppliedIsParkedAtOnce(t *testing.T) {
	w := newWorld(t)
	checkoutID := w.checkout(t, w.Issue(t, w.Bill("water", "water-consumption", 1000)))
	card(t, w.start(t, checkoutID), good)
	w.liar(t, func(s *payments.Session) { s.Amount++ })
	w.work(t)
	w.handled(t)
	var parked, handled int
	if err := w.DB.QueryRow(t.Context(), `
		select (select count(*) from river.river_job where kind = 'payments.event' and state = 'cancelled'),
			(select count(*) from payments.processor_event where handled_at is not null and type = 'checkout.session.completed')`).Scan(&parked, &handled); err != nil {
		t.Fatal(err)
	}
	if parked != 1 || handled != 0 {
		t.Errorf("%d jobs parked, %d events called handled; want 1 and 0", parked, handled)
	}
}

func TestABillIsHeldWhileItsDebitIsOnTheWay(t *testing.T) {
	w := newWorld(t)
	b := w.Issue(t, w.Bill("water", "water-consumption", 1000))
	first := w.checkout(t, b)
	w.start(t, first)
	state := payments.SessionProcessing
	w.liar(t, func(s *payments.Session) { s.State = state })
	if p := w.sync(t, first); p.State != payments.Processing {
		t.Fatalf("the payment is %s, want processing", p.State)
	}
	w.later(t, 5*24*time.Hour)
	fresh := w.checkout(t, b)
	if _, err := w.pay.Pay(t.Context(), guest, fresh, ""); !errors.Is(err, payments.ErrTaken) {
		t.Errorf("pay elsewhere after five days: %v, want ErrTaken", err)
	}
	if _, err := w.Bills.Cancel(t.Context(), b.DepartmentID, b.ID, "mistake"); !errors.Is(err, bill.ErrBeingPaid) {
		t.Errorf("withdraw it: %v, want ErrBeingPaid", err)
	}
	state = payments.SessionFailed
	if p := w.sync(t, first); p.State != payments.Failed {
		t.Fatalf("the payment is %s, want failed", p.State)
	}
	w.start(t, fresh) // and it may be paid otherwise
}

func TestTheProcessorsClockMayDifferByMinutes(t *testing.T) {
	for _, ahead := range []time.Duration{-4 * time.Minute, 4 * time.Minute} {
		t.Run(ahead.String(), func(t *testing.T) {
			w := newWorld(t)
			w.ahead.Store(int64(ahead))
			w.work(t)
			checkoutID := w.checkout(t, w.Issue(t, w.Bill("water", "water-consumption", 1000)))
			card(t, w.start(t, checkoutID), good)
			w.handled(t)
			if p := w.payment(t, checkoutID); p.State != payments.Succeeded {
				t.Errorf("the payment is %s, want succeeded", p.State)
			}
		})
	}
}

func TestAReceiptIsOfTheMomentThatTheMoneyWasTaken(t *testing.T) {
	for name, tt := range map[string]struct {
		says func(*payments.Session)
		want func(attempt, paid, heard time.Time) (from, to time.Time)
	}{
		"heard of two days later": {func(*payments.Session) {}, func(attempt, paid, _ time.Time) (time.Time, time.Time) { return attempt, paid }},
		"a time before the attempt": {
			func(s *payments.Session) { s.PaidAt = s.PaidAt.Add(-time.Hour) },
			func(attempt, _, _ time.Time) (time.Time, time.Time) { return attempt, attempt },
		},
		"a time to come": {
			func(s *payments.Session) { s.PaidAt = s.PaidAt.Add(100 * time.Hour) },
			func(_, _, heard time.Time) (time.Time, time.Time) { return heard, heard.Add(time.Hour) },
		},
		"no time": {
			func(s *payments.Session) { s.PaidAt = time.Time{} },
			func(_, _, heard time.Time) (time.Time, time.Time) { return heard, heard.Add(time.Hour) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			checkoutID := w.checkout(t, w.Issue(t, w.Bill("water", "water-consumption", 1000)))
			card(t, w.start(t, checkoutID), good)
			w.liar(t, tt.says)
			paid := w.Clock.Now()
			w.later(t, 48*time.Hour)
			heard := w.Clock.Now().Truncate(time.Microsecond)
			p := w.sync(t, checkoutID)
			if from, to := tt.want(p.CreatedAt, paid, heard); p.SucceededAt.Before(from) || p.SucceededAt.After(to) {
				t.Errorf("paid at %s, want %s to %s", p.SucceededAt, from, to)
			}
			w.work(t)
			eventually(t, "a receipt", func() bool {
				r, err := payments.ReceiptOf(t.Context(), w.DB, p.ID)
				if err == nil && !r.Document.PaidAt.Equal(w.payment(t, checkoutID).SucceededAt) {
					t.Errorf("the receipt is of %s", r.Document.PaidAt)
				}
				return err == nil
			})
		})
	}
}

func TestVerifyMissesAReceiptThatNeverCame(t *testing.T) {
	w := newWorld(t)
	checkoutID := w.checkout(t, w.Issue(t, w.Bill("water", "water-consumption", 1000)))
	card(t, w.start(t, checkoutID), good)
	p := w.sync(t, checkoutID) // and no job runs
	for _, days := range []int{0, 2} {
		w.later(t, time.Duration(days)*24*time.Hour)
		var found []ledger.Finding
		w.Do(t, func(tx pgx.Tx) error {
			for _, check := range w.pay.Checks() {
				list, err := check(t.Context(), tx)
				if err != nil {
					return err
				}
				found = append(found, list...)
			}
			return nil
		})
		if late := days > 0; (len(found) == 1 && found[0].Object == p.ID) != late || !late && len(found) > 0 {
			t.Errorf("after %d days: %v", days, found)
		}
	}
}

func TestAChargeDecidesWhosePaymentItIs(t *testing.T) {
	w := newWorld(t)
	var paid []payments.Payment
	for range 2 {
		checkoutID := w.checkout(t, w.Issue(t, w.Bill("water", "water-consumption", 1000)))
		card(t, w.start(t, checkoutID), good)
		paid = append(paid, w.sync(t, checkoutID))
	}
	for name, tt := range map[string]struct {
		charge, intent string
		want           string
	}{
		"both of one":            {paid[0].ChargeID, paid[0].IntentID, paid[0].ID},
		"the intent alone":       {"", paid[1].IntentID, paid[1].ID},
		"the charge alone":       {paid[1].ChargeID, "", paid[1].ID},
		"an unknown charge":      {"ch_unknown", paid[0].IntentID, paid[0].ID},
		"another one's intent":   {paid[0].ChargeID, paid[1].IntentID, paid[0].ID},
		"another one's charge":   {paid[1].ChargeID, paid[0].IntentID, paid[1].ID},
		"neither is one of ours": {"ch_unknown", "pi_unknown", ""},
		"nothing":                {"", "", ""},
	} {
		p, err := w.pay.ByProcessorRef(t.Context(), w.DB, tt.charge, tt.intent)
		if p.ID != tt.want || (tt.want == "") != errors.Is(err, payments.ErrNotFound) {
			t.Errorf("%s: %s, %v; want %q", name, p.ID, err, tt.want)
		}
	}
}
