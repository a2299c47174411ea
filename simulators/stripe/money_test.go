package stripe_test

import (
	"net/http"
	"testing"
	"time"

	api "github.com/stripe/stripe-go/v76"
)

// lines are the balance transactions of a list, newest first.
func (w *world) lines(p *api.BalanceTransactionListParams) []*api.BalanceTransaction {
	w.t.Helper()
	var out []*api.BalanceTransaction
	it := w.client.BalanceTransactions.List(p)
	for it.Next() {
		out = append(out, it.BalanceTransaction())
	}
	if it.Err() != nil {
		w.t.Fatal(it.Err())
	}
	return out
}

func (w *world) balance() (available, pending int64) {
	w.t.Helper()
	b, err := w.client.Balance.Get(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return b.Available[0].Amount, b.Pending[0].Amount
}

func (w *world) runPayout() *api.Payout {
	w.t.Helper()
	out := w.lever("/_control/payouts/run", map[string]any{})
	p, due := out["payout"].(map[string]any)
	if !due {
		return nil
	}
	got, err := w.client.Payouts.Get(p["id"].(string), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return got
}

func TestFees(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct{ amount, fee int64 }{
		{7500, 248},  // 2.175 is 2.18, and 30 ¢
		{11300, 358}, // 3.277 is 3.28
		{50, 31},     // 1.45 ¢ is 1 ¢
		{1000, 59},
		{99_999_999, 2_900_030},
	} {
		b := w.paid(tt.amount, "4242424242424242").PaymentIntent.LatestCharge.BalanceTransaction
		eq(t, "fee", b.Fee, tt.fee)
		eq(t, "net", b.Net, tt.amount-tt.fee)
		eq(t, "fee details", b.FeeDetails[0].Amount, tt.fee)
		eq(t, "fee type", b.FeeDetails[0].Type, "stripe_fee")
		eq(t, "category", b.ReportingCategory, api.BalanceTransactionReportingCategoryCharge)
		eq(t, "type", b.Type, api.BalanceTransactionTypeCharge)
	}
}

func TestMoneyIsAvailableTwoBusinessDaysLater(t *testing.T) {
	toronto, err := time.LoadLocation("America/Toronto")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, charged, available string }{
		{"Monday", "2026-03-02 15:00", "2026-03-04"},
		{"Thursday, over the weekend", "2026-03-05 15:00", "2026-03-09"},
		{"Friday late, Saturday in UTC", "2026-03-06 23:30", "2026-03-10"},
		{"Saturday", "2026-03-07 12:00", "2026-03-10"},
		{"over the hour that is lost", "2026-03-06 12:00", "2026-03-10"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			charged, err := time.ParseInLocation("2006-01-02 15:04", tt.charged, toronto)
			if err != nil {
				t.Fatal(err)
			}
			w.now = charged
			b := w.paid(10000, "4242424242424242").PaymentIntent.LatestCharge.BalanceTransaction
			eq(t, "available on", time.Unix(b.AvailableOn, 0).UTC().Format(time.RFC3339), tt.available+"T00:00:00Z")

			day, err := time.ParseInLocation(time.DateOnly, tt.available, toronto)
			if err != nil {
				t.Fatal(err)
			}
			w.now = day.Add(-time.Second)
			available, pending := w.balance()
			eq(t, "available before", available, 0)
			eq(t, "pending before", pending, 9680)
			eq(t, "payout before", w.runPayout() == nil, true)
			w.now = day
			available, pending = w.balance()
			eq(t, "available then", available, 9680)
			eq(t, "pending then", pending, 0)
			eq(t, "status then", w.lines(nil)[0].Status, api.BalanceTransactionStatusAvailable)
		})
	}
}

func TestPayout(t *testing.T) {
	w := newWorld(t)
	var charges []string
	for _, cents := range []int64{7500, 11300} {
		charges = append(charges, w.paid(cents, "4242424242424242").PaymentIntent.LatestCharge.ID)
	}
	r, err := w.client.Refunds.New(&api.RefundParams{Charge: &charges[0], Amount: api.Int64(2500)})
	if err != nil {
		t.Fatal(err)
	}
	w.settle()
	w.move(48 * time.Hour)
	late := w.paid(5000, "4242424242424242") // not available yet
	w.settle()

	w.bank = 503
	p := w.runPayout()
	eq(t, "amount", p.Amount, 7500-248+11300-358-2500)
	eq(t, "status", p.Status, api.PayoutStatusPaid)
	eq(t, "automatic", p.Automatic, true)
	eq(t, "reconciliation", p.ReconciliationStatus, api.PayoutReconciliationStatusCompleted)
	eq(t, "arrival", time.Unix(p.ArrivalDate, 0).UTC().Format(time.RFC3339), "2026-03-04T00:00:00Z")
	eq(t, "events", joined(types(w.settle())), "payout.created payout.updated payout.paid payout.reconciliation_completed")
	eq(t, "second run", w.runPayout() == nil, true)

	t.Run("is explained to the cent", func(t *testing.T) {
		params := &api.BalanceTransactionListParams{Payout: &p.ID}
		params.AddExpand("data.source")
		params.Limit = api.Int64(2) // over several pages
		var sum int64
		seen := map[string]bool{}
		for _, b := range w.lines(params) {
			seen[b.Source.ID] = true
			if b.ReportingCategory == "payout" {
				eq(t, "own line", b.Amount, -p.Amount)
				continue
			}
			sum += b.Net
			switch b.ReportingCategory {
			case "charge":
				eq(t, "intent of a charge", b.Source.Charge.PaymentIntent.ID != "", true)
			case "refund":
				eq(t, "charge of a refund", b.Source.Refund.Charge.ID, charges[0])
				eq(t, "fee of a refund", b.Fee, 0)
			default:
				t.Errorf("line of category %s", b.ReportingCategory)
			}
		}
		eq(t, "sum of nets", sum, p.Amount)
		eq(t, "sources", seen[charges[0]] && seen[charges[1]] && seen[r.ID] && seen[p.ID], true)
		eq(t, "the late charge is not in it", seen[late.PaymentIntent.LatestCharge.ID], false)
	})
	t.Run("is told to the bank once, when it listens", func(t *testing.T) {
		eq(t, "told while it was down", len(w.told), 0)
		w.bank = 200
		w.move(5 * time.Second)
		w.settle()
		w.move(time.Hour)
		w.settle()
		if len(w.told) != 1 {
			t.Fatalf("the bank was told %d times", len(w.told))
		}
		c := w.told[0]
		eq(t, "amount", c["amount_cents"], any(float64(p.Amount)))
		eq(t, "currency", c["currency"], any("CAD"))
		eq(t, "value date", c["value_date"], any("2026-03-04"))
		raw := string(p.LastResponse.RawJSON)
		if ref := c["reference"].(string); len(ref) < 8 || len(ref) > 16 || !contains(raw, `"trace_id":{"status":"supported","value":"`+ref+`"}`) {
			t.Errorf("reference %q is not the trace of the payout %s", ref, raw)
		}
	})
	t.Run("can fail days later, and the money goes out again", func(t *testing.T) {
		w.lever("/_control/payouts/"+p.ID, map[string]any{"status": "failed", "failure_code": "account_closed"})
		got, err := w.client.Payouts.Get(p.ID, nil)
		if err != nil {
			t.Fatal(err)
		}
		eq(t, "status", got.Status, api.PayoutStatusFailed)
		eq(t, "code", got.FailureCode, api.PayoutFailureCodeAccountClosed)
		back, err := w.client.BalanceTransactions.Get(got.FailureBalanceTransaction.ID, nil)
		if err != nil {
			t.Fatal(err)
		}
		eq(t, "category", back.ReportingCategory, api.BalanceTransactionReportingCategoryPayoutReversal)
		eq(t, "amount", back.Amount, p.Amount)
		eq(t, "events", joined(types(w.settle())), "payout.failed")
		eq(t, "the bank sends it back", w.told[1]["amount_cents"], any(float64(-p.Amount)))
		eq(t, "next payout", w.runPayout().Amount, p.Amount)
	})
}

func TestPayoutStepByStep(t *testing.T) {
	w := newWorld(t)
	w.paid(10000, "4000000000000077") // available at once
	out := w.lever("/_control/payouts/run", map[string]any{"until": "pending", "arrival_date": "2026-03-03"})
	id := out["payout"].(map[string]any)["id"].(string)
	eq(t, "nothing told yet", len(w.told), 0)
	it := w.client.BalanceTransactions.List(&api.BalanceTransactionListParams{Payout: &id})
	eq(t, "breakdown before it is complete", code(it.Err()), "400 invalid_request_error payout_reconciliation_not_ready")
	w.lever("/_control/payouts/"+id, map[string]any{"status": "in_transit"})
	p, err := w.client.Payouts.Get(id, nil)
	if err != nil {
		t.Fatal(err)
	}
	eq(t, "status", p.Status, api.PayoutStatusInTransit)
	eq(t, "reconciliation", p.ReconciliationStatus, api.PayoutReconciliationStatusInProgress)
	w.lever("/_control/payouts/"+id, map[string]any{"status": "paid"})
	eq(t, "value date", w.told[0]["value_date"], any("2026-03-03"))
	eq(t, "listed", w.client.Payouts.List(&api.PayoutListParams{Status: api.String("paid")}).Next(), true)
}

func TestNegativeBalance(t *testing.T) {
	w := newWorld(t)
	s := w.paid(10000, "4242424242424242")
	if _, err := w.client.Refunds.New(&api.RefundParams{PaymentIntent: &s.PaymentIntent.ID, Amount: api.Int64(9000)}); err != nil {
		t.Fatal(err)
	}
	eq(t, "payout while pending money covers it", w.runPayout() == nil, true)
	if _, err := w.client.Refunds.New(&api.RefundParams{PaymentIntent: &s.PaymentIntent.ID}); err != nil {
		t.Fatal(err)
	}
	p := w.runPayout()
	eq(t, "collected", p.Amount, -10000)
	eq(t, "told", w.told[0]["amount_cents"], any(float64(-10000)))
}

func TestRefund(t *testing.T) {
	w := newWorld(t)
	s := w.paid(10000, "4242424242424242")
	w.settle()
	refund := func(cents int64) (*api.Refund, error) {
		return w.client.Refunds.New(&api.RefundParams{PaymentIntent: &s.PaymentIntent.ID, Amount: &cents, Metadata: map[string]string{"refund": "r1"}})
	}
	r, err := refund(4000)
	if err != nil {
		t.Fatal(err)
	}
	eq(t, "status", r.Status, api.RefundStatusSucceeded)
	eq(t, "charge", r.Charge.ID, s.PaymentIntent.LatestCharge.ID)
	eq(t, "metadata", r.Metadata["refund"], "r1")
	eq(t, "events", joined(types(w.settle())), "refund.created charge.refunded")
	_, err = refund(6001)
	eq(t, "a cent too much", code(err), "400 invalid_request_error ")
	_, err = refund(0)
	eq(t, "nothing", code(err), "400 invalid_request_error parameter_invalid_integer")
	if _, err = refund(6000); err != nil {
		t.Fatal(err)
	}
	_, err = refund(1)
	eq(t, "beyond all", code(err), "400 invalid_request_error charge_already_refunded")
	p := &api.ChargeParams{}
	p.AddExpand("refunds")
	ch, err := w.client.Charges.Get(s.PaymentIntent.LatestCharge.ID, p)
	if err != nil {
		t.Fatal(err)
	}
	eq(t, "refunded", ch.Refunded, true)
	eq(t, "amount refunded", ch.AmountRefunded, 10000)
	eq(t, "refunds of the charge", len(ch.Refunds.Data), 2)

	t.Run("of what was never paid", func(t *testing.T) {
		open := w.session(1000)
		w.post(open.URL, card("4000000000000002"))
		pi := w.read(open.ID).PaymentIntent.ID
		_, err := w.client.Refunds.New(&api.RefundParams{PaymentIntent: &pi})
		eq(t, "error", code(err), "400 invalid_request_error payment_intent_unexpected_state")
		_, err = w.client.Refunds.New(&api.RefundParams{})
		eq(t, "of nothing", code(err), "400 invalid_request_error parameter_missing")
	})
	t.Run("that fails later gives the money back", func(t *testing.T) {
		s := w.paid(3000, "4000000000005126")
		r, err := w.client.Refunds.New(&api.RefundParams{PaymentIntent: &s.PaymentIntent.ID})
		if err != nil {
			t.Fatal(err)
		}
		eq(t, "at first", r.Status, api.RefundStatusSucceeded)
		w.settle()
		w.move(3 * time.Minute)
		eq(t, "events", joined(types(w.settle())), "refund.updated charge.refund.updated")
		p := &api.RefundParams{}
		p.AddExpand("failure_balance_transaction")
		if r, err = w.client.Refunds.Get(r.ID, p); err != nil {
			t.Fatal(err)
		}
		eq(t, "later", r.Status, api.RefundStatusFailed)
		eq(t, "reason", r.FailureReason, api.RefundFailureReasonExpiredOrCanceledCard)
		eq(t, "category", r.FailureBalanceTransaction.ReportingCategory, api.BalanceTransactionReportingCategoryRefundFailure)
		eq(t, "money back", r.FailureBalanceTransaction.Amount, 3000)
		eq(t, "charge", w.read(s.ID).PaymentIntent.LatestCharge.AmountRefunded, 0)
	})
	t.Run("that pends can be cancelled or succeeds", func(t *testing.T) {
		s := w.paid(3000, "4000000000007726")
		begin := func() *api.Refund {
			t.Helper()
			r, err := w.client.Refunds.New(&api.RefundParams{PaymentIntent: &s.PaymentIntent.ID})
			if err != nil {
				t.Fatal(err)
			}
			eq(t, "at first", r.Status, api.RefundStatusPending)
			return r
		}
		r, err := w.client.Refunds.Cancel(begin().ID, nil)
		if err != nil {
			t.Fatal(err)
		}
		eq(t, "cancelled", r.Status, api.RefundStatusCanceled)
		r = begin()
		w.move(3 * time.Minute)
		w.settle()
		if r, err = w.client.Refunds.Get(r.ID, nil); err != nil {
			t.Fatal(err)
		}
		eq(t, "later", r.Status, api.RefundStatusSucceeded)
		_, err = w.client.Refunds.Cancel(r.ID, nil)
		eq(t, "cancel afterwards", code(err), "400 invalid_request_error ")
	})
}

func TestDispute(t *testing.T) {
	w := newWorld(t)
	disputed := func() (*api.CheckoutSession, *api.Dispute) {
		t.Helper()
		s := w.paid(10000, "4000000000000259")
		got := types(w.settle())
		eq(t, "last events", joined(got[len(got)-2:]), "charge.dispute.created charge.dispute.funds_withdrawn")
		it := w.client.Disputes.List(&api.DisputeListParams{PaymentIntent: &s.PaymentIntent.ID})
		if !it.Next() {
			t.Fatal("no dispute")
		}
		return s, it.Dispute()
	}
	s, d := disputed()
	eq(t, "status", d.Status, api.DisputeStatusNeedsResponse)
	eq(t, "reason", d.Reason, api.DisputeReasonFraudulent)
	eq(t, "due in nine days", d.EvidenceDetails.DueBy, monday.Add(9*24*time.Hour).Unix())
	b := d.BalanceTransactions[0]
	eq(t, "amount", b.Amount, -10000)
	eq(t, "fee", b.Fee, 1500)
	eq(t, "type", b.Type, api.BalanceTransactionTypeAdjustment)
	eq(t, "category", b.ReportingCategory, api.BalanceTransactionReportingCategoryDispute)
	_, err := w.client.Refunds.New(&api.RefundParams{PaymentIntent: &s.PaymentIntent.ID})
	eq(t, "refund", code(err), "400 invalid_request_error charge_disputed")

	d, err = w.client.Disputes.Update(d.ID, &api.DisputeParams{Evidence: &api.DisputeEvidenceParams{UncategorizedText: api.String("winning_evidence")}})
	if err != nil {
		t.Fatal(err)
	}
	eq(t, "won", d.Status, api.DisputeStatusWon)
	eq(t, "money back", d.BalanceTransactions[1].Net, 10000)
	eq(t, "category", d.BalanceTransactions[1].ReportingCategory, api.BalanceTransactionReportingCategoryDisputeReversal)
	eq(t, "events", joined(types(w.settle())), "charge.dispute.updated charge.dispute.funds_reinstated charge.dispute.closed")

	_, d = disputed()
	if d, err = w.client.Disputes.Close(d.ID, nil); err != nil {
		t.Fatal(err)
	}
	eq(t, "accepted", d.Status, api.DisputeStatusLost)
	_, err = w.client.Disputes.Close(d.ID, nil)
	eq(t, "closing twice", code(err), "400 invalid_request_error ")
}

func TestStrayLines(t *testing.T) {
	w := newWorld(t)
	w.lever("/_control/stray", map[string]any{"kind": "adjustment", "amount_cents": -1234, "description": "Rolling reserve", "available": true})
	w.lever("/_control/stray", map[string]any{"kind": "charge", "amount_cents": 5000, "description": "Not from here", "available": true})
	lines := w.lines(nil)
	eq(t, "newest", lines[0].ReportingCategory, api.BalanceTransactionReportingCategoryCharge)
	eq(t, "fee", lines[0].Fee, 175)
	eq(t, "oldest", lines[1].ReportingCategory, api.BalanceTransactionReportingCategoryOtherAdjustment)
	eq(t, "its description", lines[1].Description, "Rolling reserve")
	eq(t, "payout", w.runPayout().Amount, 5000-175-1234)
	eq(t, "events", joined(types(w.settle())[:2]), "charge.succeeded payment_intent.succeeded")
	for _, bad := range []string{`{"amount_cents":0}`, `{"amount_cents":100,"kind":"gift"}`, `{"amount":100}`, `not JSON`} {
		r, err := http.Post(w.url+"/_control/stray", "application/json", reader(bad))
		if got := see(t, r, err); got.status != 400 || !contains(got.body, `"error"`) {
			t.Errorf("%s answered %d %s", bad, got.status, got.body)
		}
	}
}
