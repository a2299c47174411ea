package stripe

import "time"

const (
	taskRelease       = "release" // an authorisation nobody captured
	taskDebitSucceeds = "debit succeeds"
	taskDebitFails    = "debit fails"
	taskDispute       = "dispute:" // followed by the reason

	captureWindow = 7 * 24 * time.Hour
)

// The states of an intent.
const (
	needsMethod  = "requires_payment_method"
	needsAction  = "requires_action"
	needsCapture = "requires_capture"
	processing   = "processing"
	succeeded    = "succeeded"
	canceled     = "canceled"
)

// A payer is what the page asks of the person.
type payer struct {
	Name  string `json:"name"`
	Email string `json:"email"`
}

// A challenge is a 3-D Secure step under way: what is paid with once it is passed.
type challenge struct {
	Instrument instrument `json:"instrument"`
	Payer      payer      `json:"payer"`
}

// A result is how an attempt to pay ended, for the page.
type result struct {
	Challenge bool   // go to the 3-D Secure page
	Decline   string // decline code; stay on the page
}

// pay is one attempt to pay an open session. The intent is made with the first.
func (t *tx) pay(s *session, in instrument, who payer) (result, error) {
	pi, err := t.intentOf(s)
	if err != nil {
		return result{}, err
	}
	if in.Method.Card != nil {
		if code, hit := t.sim.declines(); hit {
			in.Decline = code
			return result{Decline: code}, t.decline(s, pi, in, who)
		}
	}
	switch {
	case in.challenged():
		pi.Status = needsAction
		s.Sim.Challenge = &challenge{Instrument: in, Payer: who}
		t.put(pi)
		t.put(s)
		return result{Challenge: true}, t.emit("payment_intent.requires_action", pi, nil)
	case in.Decline != "":
		return result{Decline: in.Decline}, t.decline(s, pi, in, who)
	case in.Debit != "":
		return result{}, t.startDebit(s, pi, in, who)
	}
	return result{}, t.succeed(s, pi, in, who)
}

// intentOf returns the intent of a session, made at the first attempt: since API
// version 2022-08-01 a session has none before.
func (t *tx) intentOf(s *session) (*intent, error) {
	if pi, ok := get[intent](t, string(s.PaymentIntent)); ok {
		return pi, nil
	}
	pi := &intent{
		ID: newID("payment_intent"), Object: "payment_intent", Amount: s.AmountTotal, CaptureMethod: s.Sim.CaptureMethod, Created: t.now.Unix(),
		Currency: s.Currency, Customer: s.Customer, Description: s.Sim.IntentDescription, Metadata: s.Sim.IntentMetadata,
		PaymentMethodTypes: s.PaymentMethodTypes, ReceiptEmail: s.Sim.ReceiptEmail, Status: needsMethod,
	}
	pi.ClientSecret = pi.ID + "_secret_" + random(24, base62)
	pi.Sim.Session = s.ID
	s.PaymentIntent = text(pi.ID)
	t.put(pi)
	t.put(s)
	return pi, t.emit("payment_intent.created", pi, nil)
}

// newCharge is a charge of an intent, before it is known how it ends.
func (t *tx) newCharge(pi *intent, in instrument, who payer) *charge {
	ch := &charge{
		ID: newID("charge"), Object: "charge", Amount: pi.Amount, Created: t.now.Unix(), Currency: pi.Currency, Customer: pi.Customer,
		Description: pi.Description, Metadata: pi.Metadata, PaymentIntent: text(pi.ID), PaymentMethod: text(newID("payment_method")),
		PaymentMethodDetails: in.Method, ReceiptEmail: pi.ReceiptEmail,
		BillingDetails: billing{Email: text(who.Email), Name: text(who.Name)},
	}
	ch.Sim.Refunds, ch.Sim.Instant = in.Refunds, in.Instant
	pi.LatestCharge, pi.PaymentMethod, pi.LastPaymentError = text(ch.ID), ch.PaymentMethod, nil
	return ch
}

// decline records a charge the bank refused. The session stays open.
func (t *tx) decline(s *session, pi *intent, in instrument, who payer) error {
	code, message := declineText(in.Decline)
	s.Sim.Challenge = nil
	t.put(s)
	pi.Status = needsMethod
	failure := &errorBody{Type: cardError, Code: code, Message: message, DocURL: docURL(code)}
	if in.Decline != authenticationFailed { // an unauthenticated card is never charged
		ch := t.newCharge(pi, in, who)
		ch.Status, ch.FailureCode, ch.FailureMessage = "failed", text(code), text(message)
		ch.Outcome = &outcome{NetworkStatus: "declined_by_network", Reason: text(in.Decline), RiskLevel: "normal", SellerMessage: "The bank did not return any further details with this decline.", Type: "issuer_declined"}
		t.put(ch)
		failure.Charge, failure.DeclineCode = ch.ID, in.Decline
		if err := t.emit("charge.failed", ch, nil); err != nil {
			return err
		}
	}
	pi.LastPaymentError, pi.PaymentMethod = failure, ""
	t.put(pi)
	return t.emit("payment_intent.payment_failed", pi, nil)
}

// succeed charges a card.
func (t *tx) succeed(s *session, pi *intent, in instrument, who payer) error {
	if err := t.namePayer(s, pi, who); err != nil {
		return err
	}
	ch := t.newCharge(pi, in, who)
	ch.Status, ch.Paid = succeeded, true
	ch.Outcome = &outcome{NetworkStatus: "approved_by_network", RiskLevel: "normal", SellerMessage: "Payment complete.", Type: "authorized"}
	if pi.CaptureMethod == "manual" {
		return t.authorise(s, pi, ch, who)
	}
	if err := t.collect(pi, ch, pi.Amount); err != nil {
		return err
	}
	if err := t.emit("charge.succeeded", ch, nil); err != nil {
		return err
	}
	if err := t.emit("payment_intent.succeeded", pi, nil); err != nil {
		return err
	}
	if in.Dispute != "" {
		t.after(0, taskDispute+in.Dispute, ch.ID)
	}
	return t.complete(s, who, true)
}

// namePayer keeps the payer as a customer when the session asks for it.
func (t *tx) namePayer(s *session, pi *intent, who payer) error {
	if s.CustomerCreation != "always" {
		return nil
	}
	c := &customer{ID: newID("customer"), Object: "customer", Created: t.now.Unix(), Email: text(who.Email), Name: text(who.Name), Metadata: map[string]string{}}
	s.Customer, pi.Customer = text(c.ID), text(c.ID)
	t.put(c)
	return t.emit("customer.created", c, nil)
}

// collect takes the money of a charge: it is on our balance from now on.
func (t *tx) collect(pi *intent, ch *charge, amount int64) error {
	fee, err := t.cardFee(amount)
	if err != nil {
		return err
	}
	available := businessDays(t.now, 2)
	if ch.Sim.Instant {
		available = businessDays(t.now, 0)
	}
	kind := "charge"
	if ch.PaymentMethodDetails.ACSSDebit != nil {
		kind, fee = "payment", debitFee(amount)
	}
	b := t.balance(movement{kind: kind, category: "charge", amount: amount, fee: fee, currency: ch.Currency, source: ch.ID, description: ch.Description, available: available})
	ch.BalanceTransaction = text(b.ID)
	ch.Captured, ch.AmountCaptured = true, amount
	pi.Status, pi.AmountReceived, pi.AmountCapturable = succeeded, amount, 0
	t.put(ch)
	t.put(pi)
	return nil
}

// authorise holds the money of a card for a later capture.
func (t *tx) authorise(s *session, pi *intent, ch *charge, who payer) error {
	pi.Status, pi.AmountCapturable = needsCapture, pi.Amount
	t.put(ch)
	t.put(pi)
	t.after(captureWindow, taskRelease, pi.ID)
	if err := t.emit("charge.succeeded", ch, nil); err != nil {
		return err
	}
	if err := t.emit("payment_intent.amount_capturable_updated", pi, nil); err != nil {
		return err
	}
	return t.complete(s, who, false)
}

// startDebit begins a pre-authorised debit: days later, here soon, it is known
// whether the payer's bank paid.
func (t *tx) startDebit(s *session, pi *intent, in instrument, who payer) error {
	if err := t.namePayer(s, pi, who); err != nil {
		return err
	}
	ch := t.newCharge(pi, in, who)
	ch.Status = "pending"
	ch.Outcome = &outcome{NetworkStatus: "approved_by_network", RiskLevel: "not_assessed", SellerMessage: "Payment complete.", Type: "authorized"}
	pi.Status = processing
	t.put(ch)
	t.put(pi)
	switch in.Debit {
	case debitSoon:
		t.after(0, taskDebitSucceeds, pi.ID)
	case debitLater:
		t.after(someTime, taskDebitSucceeds, pi.ID)
	case debitFailsSoon:
		t.after(0, taskDebitFails, pi.ID)
	case debitFailLater:
		t.after(someTime, taskDebitFails, pi.ID)
	}
	if err := t.emit("charge.pending", ch, nil); err != nil {
		return err
	}
	if err := t.emit("payment_intent.processing", pi, nil); err != nil {
		return err
	}
	return t.complete(s, who, false)
}

// debitDone ends a pre-authorised debit; failure is "" or the reason of the bank.
func (t *tx) debitDone(intentID, failure string) error {
	pi, ok := get[intent](t, intentID)
	if !ok || pi.Status != processing {
		return nil
	}
	t.drop(taskID(taskDebitSucceeds, pi.ID))
	t.drop(taskID(taskDebitFails, pi.ID))
	ch, _ := get[charge](t, string(pi.LatestCharge))
	s, _ := get[session](t, pi.Sim.Session)
	events := []string{"charge.succeeded", "payment_intent.succeeded", "checkout.session.async_payment_succeeded"}
	if failure == "" {
		ch.Status, ch.Paid = succeeded, true
		if err := t.collect(pi, ch, pi.Amount); err != nil {
			return err
		}
		s.PaymentStatus = "paid"
		t.put(s)
	} else {
		events = []string{"charge.failed", "payment_intent.payment_failed", "checkout.session.async_payment_failed"}
		message := "The customer's account has insufficient funds to cover this payment."
		ch.Status, ch.FailureCode, ch.FailureMessage = "failed", text(failure), text(message)
		pi.Status = needsMethod
		pi.LastPaymentError = &errorBody{Type: invalidRequest, Charge: ch.ID, Code: failure, Message: message, DocURL: docURL(failure)}
		t.put(ch)
		t.put(pi)
	}
	for i, about := range []row{ch, pi, s} {
		if err := t.emit(events[i], about, nil); err != nil {
			return err
		}
	}
	return nil
}

func listIntents(c *call) (any, error) {
	customer, created := c.text("customer", 255), c.created("created")
	return page[intent](c, func(pi *intent) bool { return is(customer, pi.Customer) && created(pi.Created) })
}

// captureIntent is POST /v1/payment_intents/{id}/capture. What is not captured is
// released to the payer.
func captureIntent(c *call) (any, error) {
	pi, err := need[intent](c, "payment_intent")
	if err != nil {
		return nil, err
	}
	amount, given := c.number("amount_to_capture")
	if err := c.done(); err != nil {
		return nil, err
	}
	if pi.Status != needsCapture {
		return nil, badState("payment_intent_unexpected_state", "This PaymentIntent could not be captured because it has a status of %s. Only a PaymentIntent with one of the following statuses may be captured: requires_capture.", pi.Status)
	}
	if !given {
		amount = pi.AmountCapturable
	}
	if amount < 1 || amount > pi.AmountCapturable {
		return nil, badState("amount_too_large", "The requested capture amount is greater than the amount you can capture for this charge.")
	}
	ch, _ := get[charge](c.tx, string(pi.LatestCharge))
	if err := c.collect(pi, ch, amount); err != nil {
		return nil, err
	}
	c.drop(taskID(taskRelease, pi.ID))
	if s, ok := get[session](c.tx, pi.Sim.Session); ok {
		s.PaymentStatus = "paid"
		c.put(s)
	}
	if err := c.emit("charge.captured", ch, nil); err != nil {
		return nil, err
	}
	return pi, c.emit("payment_intent.succeeded", pi, nil)
}

// cancelIntent is POST /v1/payment_intents/{id}/cancel. The intent of an open
// session ends with its session.
func cancelIntent(c *call) (any, error) {
	pi, err := need[intent](c, "payment_intent")
	if err != nil {
		return nil, err
	}
	reason := c.oneOf("cancellation_reason", "", "duplicate", "fraudulent", "requested_by_customer", "abandoned")
	if err := c.done(); err != nil {
		return nil, err
	}
	if s, ok := get[session](c.tx, pi.Sim.Session); ok && s.Status == "open" {
		return nil, badState("payment_intent_unexpected_state", "You cannot cancel this PaymentIntent because it was created by a Checkout Session that is open. Expire the Checkout Session instead.")
	}
	if pi.Status == succeeded || pi.Status == canceled || pi.Status == processing {
		return nil, badState("payment_intent_unexpected_state", "You cannot cancel this PaymentIntent because it has a status of %s.", pi.Status)
	}
	return pi, c.cancel(pi, reason)
}

// releaseDue lets go of an authorisation that nobody captured in time.
func (t *tx) releaseDue(id string) error {
	pi, ok := get[intent](t, id)
	if !ok || pi.Status != needsCapture {
		return nil
	}
	ch, _ := get[charge](t, string(pi.LatestCharge))
	if err := t.emit("charge.expired", ch, nil); err != nil {
		return err
	}
	return t.cancel(pi, "automatic")
}

// cancel ends an intent; money that was held goes back to the payer.
func (t *tx) cancel(pi *intent, reason string) error {
	if ch, ok := get[charge](t, string(pi.LatestCharge)); ok && pi.Status == needsCapture {
		ch.Refunded, ch.AmountRefunded = true, ch.Amount
		t.put(ch)
		t.drop(taskID(taskRelease, pi.ID))
		if err := t.emit("charge.refunded", ch, nil); err != nil {
			return err
		}
	}
	pi.Status, pi.CanceledAt, pi.CancellationReason, pi.AmountCapturable = canceled, stamp(t.now.Unix()), text(reason), 0
	t.put(pi)
	return t.emit("payment_intent.canceled", pi, nil)
}

func listCharges(c *call) (any, error) {
	intent, customer, created := c.text("payment_intent", 255), c.text("customer", 255), c.created("created")
	return page[charge](c, func(ch *charge) bool {
		return is(intent, ch.PaymentIntent) && is(customer, ch.Customer) && created(ch.Created)
	})
}
