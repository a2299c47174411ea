package stripe

import (
	"slices"
	"time"
)

const (
	disputeFee  = 1500 // cents of CAD, kept whatever the outcome
	evidenceDue = 9 * 24 * time.Hour
)

var disputeReasons = []string{
	"bank_cannot_process", "check_returned", "credit_not_processed", "customer_initiated", "debit_not_authorized", "duplicate", "fraudulent",
	"general", "incorrect_account_details", "insufficient_funds", "product_not_received", "product_unacceptable", "subscription_canceled", "unrecognized",
}

// dispute is a payer's bank taking back the money of a charge; amount 0 is all that
// is left of it.
func (t *tx) dispute(chargeID string, amount int64, reason string) (*dispute, error) {
	ch, ok := get[charge](t, chargeID)
	if !ok {
		return nil, missing("charge", chargeID, "charge")
	}
	left := ch.AmountCaptured - ch.AmountRefunded
	if amount == 0 {
		amount = left
	}
	if ch.Disputed || amount < 1 || amount > left || !slices.Contains(disputeReasons, reason) {
		return nil, badState("", "Charge %s cannot be disputed with %d cents, reason %q: %d cents are left and disputed is %t", ch.ID, amount, clip(reason), left, ch.Disputed)
	}
	d := &dispute{
		ID: newID("dispute"), Object: "dispute", Amount: amount, Charge: ch.ID, Created: t.now.Unix(), Currency: ch.Currency,
		Evidence: map[string]string{}, Metadata: map[string]string{}, PaymentIntent: ch.PaymentIntent, Reason: reason, Status: "needs_response",
	}
	d.EvidenceDetails.DueBy = stamp(t.now.Add(evidenceDue).Unix())
	b := t.balance(movement{kind: "adjustment", category: "dispute", amount: -amount, fee: disputeFee, currency: ch.Currency, source: d.ID, description: text("Chargeback withdrawal for " + ch.ID), available: businessDays(t.now, 0)})
	d.Sim.BalanceTransactions = []string{b.ID}
	ch.Disputed = true
	t.put(ch)
	t.put(d)
	if err := t.emit("charge.dispute.created", d, nil); err != nil {
		return nil, err
	}
	return d, t.emit("charge.dispute.funds_withdrawn", d, nil)
}

// updateDispute is POST /v1/disputes/{id}: evidence, which is submitted unless
// submit is false. Stripe's magic texts decide the outcome of a test dispute.
func updateDispute(c *call) (any, error) {
	d, err := need[dispute](c, "dispute")
	if err != nil {
		return nil, err
	}
	given := map[string]string{}
	for name := range c.child("evidence").kids {
		given[name] = c.child("evidence").text(name, 20_000)
	}
	changed := c.metadata("metadata")
	submit, said := c.flag("submit")
	if err := c.done(); err != nil {
		return nil, err
	}
	if d.Status != "needs_response" {
		return nil, badState("", "This dispute is already %s.", d.Status)
	}
	d.Evidence, d.Metadata = merge(d.Evidence, given), merge(d.Metadata, changed)
	d.EvidenceDetails.HasEvidence = len(d.Evidence) > 0
	if len(given) > 0 && (submit || !said) {
		d.Status = "under_review"
		d.EvidenceDetails.SubmissionCount++
		d.EvidenceDetails.PastDue = c.now.Unix() > int64(d.EvidenceDetails.DueBy)
	}
	c.put(d)
	if err := c.emit("charge.dispute.updated", d, object{"evidence": object{}}); err != nil {
		return nil, err
	}
	switch {
	case d.Status != "under_review":
	case d.Evidence["uncategorized_text"] == "winning_evidence":
		return d, c.decide(d, true)
	case d.Evidence["uncategorized_text"] == "losing_evidence":
		return d, c.decide(d, false)
	}
	return d, nil
}

// closeDispute is POST /v1/disputes/{id}/close: accepting that it is lost.
func closeDispute(c *call) (any, error) {
	d, err := need[dispute](c, "dispute")
	if err != nil {
		return nil, err
	}
	if err := c.done(); err != nil {
		return nil, err
	}
	if d.Status != "needs_response" {
		return nil, badState("", "This dispute is already %s.", d.Status)
	}
	return d, c.decide(d, false)
}

// decide ends a dispute. Won money comes back; the fee does not.
func (t *tx) decide(d *dispute, won bool) error {
	d.Status = "lost"
	if won {
		d.Status = "won"
		b := t.balance(movement{kind: "adjustment", category: "dispute_reversal", amount: d.Amount, currency: d.Currency, source: d.ID, description: text("Chargeback reversal for " + d.Charge), available: businessDays(t.now, 0)})
		d.Sim.BalanceTransactions = append(slices.Clone(d.Sim.BalanceTransactions), b.ID)
	}
	t.put(d)
	if won {
		if err := t.emit("charge.dispute.funds_reinstated", d, nil); err != nil {
			return err
		}
	}
	return t.emit("charge.dispute.closed", d, nil)
}

func listDisputes(c *call) (any, error) {
	chargeID, intentID, created := c.text("charge", 255), c.text("payment_intent", 255), c.created("created")
	return page[dispute](c, func(d *dispute) bool {
		return is(chargeID, d.Charge) && is(intentID, d.PaymentIntent) && created(d.Created)
	})
}
