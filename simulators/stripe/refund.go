package stripe

import "fmt"

const (
	taskRefundFails    = "refund fails"
	taskRefundSucceeds = "refund succeeds"
)

// createRefund is POST /v1/refunds.
func createRefund(c *call) (any, error) {
	chargeID, intentID := c.text("charge", 255), c.text("payment_intent", 255)
	amount, given := c.number("amount")
	reason := c.oneOf("reason", "", "duplicate", "fraudulent", "requested_by_customer")
	r := &refund{
		ID: newID("refund"), Object: "refund", Created: c.now.Unix(), Metadata: c.metadata("metadata"), Reason: text(reason), Status: succeeded,
		InstructionsEmail: text(c.text("instructions_email", 800)),
	}
	if err := c.done(); err != nil {
		return nil, err
	}
	ch, err := c.toRefund(chargeID, intentID)
	if err != nil {
		return nil, err
	}
	left := ch.AmountCaptured - ch.AmountRefunded
	if !given {
		amount = left
	}
	switch {
	case ch.Disputed:
		return nil, badState("charge_disputed", "Charge %s has been charged back; cannot issue a refund.", ch.ID)
	case left == 0:
		return nil, badState("charge_already_refunded", "Charge %s has already been refunded.", ch.ID)
	case amount < 1:
		return nil, badParam("parameter_invalid_integer", "amount", "This value must be greater than or equal to 1.")
	case amount > left:
		return nil, &apiError{
			Status: 400, Type: invalidRequest, Param: "amount", Begun: true,
			Message: fmt.Sprintf("Refund amount (%s) is greater than unrefunded amount on charge (%s)", dollars(amount), dollars(left)),
		}
	}
	r.Amount, r.Currency, r.Charge, r.PaymentIntent = amount, ch.Currency, ch.ID, ch.PaymentIntent
	kind := "refund"
	if ch.PaymentMethodDetails.ACSSDebit != nil {
		kind, r.Status = "payment_refund", "pending"
		c.after(someTime, taskRefundSucceeds, r.ID)
	}
	switch ch.Sim.Refunds {
	case refundFails:
		c.after(someTime, taskRefundFails, r.ID)
	case refundPends:
		r.Status = "pending"
		c.after(someTime, taskRefundSucceeds, r.ID)
	}
	// The fee of the charge is not given back.
	b := c.balance(movement{kind: kind, category: "refund", amount: -amount, currency: ch.Currency, source: r.ID, description: "REFUND FOR CHARGE", available: businessDays(c.now, 0)})
	r.BalanceTransaction = text(b.ID)
	ch.AmountRefunded += amount
	ch.Refunded = ch.AmountRefunded == ch.AmountCaptured
	c.put(ch)
	c.put(r)
	if err := c.emit("refund.created", r, nil); err != nil {
		return nil, err
	}
	return r, c.emit("charge.refunded", ch, nil)
}

func dollars(cents int64) string { return fmt.Sprintf("$%d.%02d", cents/100, cents%100) }

// toRefund finds the charge that took the money.
func (c *call) toRefund(chargeID, intentID string) (*charge, error) {
	if chargeID == "" && intentID == "" {
		return nil, badParam("parameter_missing", "charge", "One of the following params should be provided for this request: payment_intent or charge.")
	}
	if intentID != "" {
		pi, ok := get[intent](c.tx, intentID)
		switch {
		case !ok:
			return nil, missing("payment_intent", intentID, "payment_intent")
		case pi.Status != succeeded:
			return nil, badState("payment_intent_unexpected_state", "This PaymentIntent (%s) does not have a successful charge to refund.", intentID)
		case chargeID != "" && chargeID != string(pi.LatestCharge):
			return nil, badParam("", "charge", "The charge provided does not belong to the PaymentIntent provided.")
		}
		chargeID = string(pi.LatestCharge)
	}
	ch, ok := get[charge](c.tx, chargeID)
	if !ok {
		return nil, missing("charge", chargeID, "charge")
	}
	if !ch.Captured {
		return nil, badState("charge_not_refundable", "Charge %s was not captured; it cannot be refunded.", ch.ID)
	}
	return ch, nil
}

// finishRefund moves a refund on, as the card network reports.
func (t *tx) finishRefund(id, to string) error {
	r, ok := get[refund](t, id)
	if !ok || r.Status == to || r.Status == "failed" || r.Status == canceled {
		return nil
	}
	t.drop(taskID(taskRefundFails, id))
	t.drop(taskID(taskRefundSucceeds, id))
	before := object{"status": r.Status}
	r.Status = to
	if to == "failed" || to == canceled {
		if err := t.takeBack(r, to == "failed"); err != nil {
			return err
		}
		before["failure_balance_transaction"] = nil
	}
	t.put(r)
	// Both names exist for refunds of charges at this API version.
	if err := t.emit("refund.updated", r, before); err != nil {
		return err
	}
	return t.emit("charge.refund.updated", r, before)
}

// takeBack returns the money of a refund to our balance.
func (t *tx) takeBack(r *refund, failed bool) error {
	ch, ok := get[charge](t, r.Charge)
	if !ok {
		return fmt.Errorf("refund %s: no charge %s", r.ID, r.Charge)
	}
	b := t.balance(movement{kind: "adjustment", category: "refund_failure", amount: r.Amount, currency: r.Currency, source: r.ID, description: "REFUND FAILURE", available: businessDays(t.now, 0)})
	r.FailureBalanceTransaction = text(b.ID)
	if failed {
		r.FailureReason = "expired_or_canceled_card"
	}
	ch.AmountRefunded -= r.Amount
	ch.Refunded = false
	t.put(ch)
	return nil
}

func updateRefund(c *call) (any, error) {
	r, err := need[refund](c, "refund")
	if err != nil {
		return nil, err
	}
	changed := c.metadata("metadata")
	if err := c.done(); err != nil {
		return nil, err
	}
	before := object{"metadata": r.Metadata}
	r.Metadata = merge(r.Metadata, changed)
	c.put(r)
	return r, c.emit("refund.updated", r, before)
}

// cancelRefund is POST /v1/refunds/{id}/cancel: only what is pending.
func cancelRefund(c *call) (any, error) {
	r, err := need[refund](c, "refund")
	if err != nil {
		return nil, err
	}
	if err := c.done(); err != nil {
		return nil, err
	}
	if r.Status != "pending" {
		return nil, badState("", "This refund cannot be canceled because its status is %s.", r.Status)
	}
	if err := c.finishRefund(r.ID, canceled); err != nil {
		return nil, err
	}
	r, _ = get[refund](c.tx, r.ID)
	return r, nil
}

func listRefunds(c *call) (any, error) {
	chargeID, intentID, created := c.text("charge", 255), c.text("payment_intent", 255), c.created("created")
	return page[refund](c, func(r *refund) bool {
		return is(chargeID, r.Charge) && is(intentID, r.PaymentIntent) && created(r.Created)
	})
}

// refundsOf is the list a charge expands to.
func (t *tx) refundsOf(chargeID string) (object, error) {
	data := []any{}
	for _, r := range all[refund](t) {
		if r.Charge != chargeID {
			continue
		}
		v, err := t.view(r)
		if err != nil {
			return nil, err
		}
		data = append([]any{v}, data...)
	}
	return object{"object": "list", "url": "/v1/charges/" + chargeID + "/refunds", "has_more": false, "data": data}, nil
}

// merge returns old with the keys of changed set.
func merge(old, changed map[string]string) map[string]string {
	out := map[string]string{}
	for _, m := range []map[string]string{old, changed} {
		for k, v := range m {
			out[k] = v
		}
	}
	return out
}
