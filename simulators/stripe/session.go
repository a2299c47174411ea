package stripe

import (
	"fmt"
	"math"
	"net/url"
	"slices"
	"time"

	"guichet/internal/clock"
)

// The limits of a hosted session, from Stripe's documentation.
const (
	minExpiry  = 30 * time.Minute
	maxExpiry  = 24 * time.Hour
	minAmount  = 50         // cents of CAD
	maxAmount  = 99_999_999 // eight digits
	maxLines   = 100
	maxURL     = 5000
	taskExpire = "expire"
)

// locales of the hosted page that have a text here; others read English.
var locales = []string{"", "auto", "en", "en-GB", "fr", "fr-CA"}

// createSession is POST /v1/checkout/sessions, mode payment, priced lines only.
func createSession(c *call) (any, error) {
	s := &session{
		ID: newID("checkout.session"), Object: "checkout.session", Created: c.now.Unix(),
		Mode:              c.need("mode", 20),
		SuccessURL:        c.need("success_url", maxURL),
		CancelURL:         text(c.text("cancel_url", maxURL)),
		ClientReferenceID: text(c.text("client_reference_id", 200)),
		Customer:          text(c.text("customer", 255)),
		CustomerCreation:  text(c.oneOf("customer_creation", "if_required", "always")),
		CustomerEmail:     text(c.text("customer_email", 800)),
		Locale:            text(c.oneOf("locale", locales...)),
		Metadata:          c.metadata("metadata"),
		SubmitType:        text(c.oneOf("submit_type", "", "auto", "pay")),
		Status:            "open", PaymentStatus: "unpaid",
		PaymentMethodTypes: c.texts("payment_method_types"),
	}
	c.oneOf("ui_mode", "hosted")
	data := c.child("payment_intent_data")
	s.Sim.CaptureMethod = data.oneOf("capture_method", "automatic", "automatic_async", "manual")
	s.Sim.IntentDescription = text(data.text("description", 1000))
	s.Sim.IntentMetadata = data.metadata("metadata")
	s.Sim.ReceiptEmail = text(data.text("receipt_email", 800))
	for i, item := range c.items("line_items") {
		s.Sim.Lines = append(s.Sim.Lines, readLine(item, i))
	}
	expires, given := c.number("expires_at")
	if err := c.done(); err != nil {
		return nil, err
	}
	if !given {
		expires = c.now.Add(maxExpiry).Unix()
	}
	s.ExpiresAt = expires
	if len(s.PaymentMethodTypes) == 0 {
		s.PaymentMethodTypes = []string{"card", "acss_debit"}
	}
	if err := s.check(c); err != nil {
		return nil, err
	}
	s.URL = text(c.sim.opt.PublicURL + "/c/pay/" + s.ID)
	c.put(s)
	c.at(unix(s.ExpiresAt), taskExpire, s.ID)
	return s, nil
}

func readLine(item *param, i int) line {
	data := item.child("price_data")
	product := data.child("product_data")
	l := line{
		ID: newID("line_item"), Price: newID("price"), Product: newID("product"),
		Currency:    data.need("currency", 3),
		UnitAmount:  data.needNumber("unit_amount"),
		Name:        product.need("name", 1500),
		Description: text(product.text("description", 1500)),
		Metadata:    product.metadata("metadata"),
		Quantity:    item.needNumber("quantity"),
	}
	data.oneOf("tax_behavior", "unspecified", "inclusive", "exclusive")
	return l
}

// check validates what single parameters cannot and adds up the lines.
func (s *session) check(c *call) error {
	if s.Mode != "payment" {
		return badParam("", "mode", "The simulator has mode payment only")
	}
	for name, u := range map[string]string{"success_url": s.SuccessURL, "cancel_url": string(s.CancelURL)} {
		if p, err := url.Parse(u); u != "" && (err != nil || p.Host == "" || (p.Scheme != "http" && p.Scheme != "https")) {
			return badParam("url_invalid", name, "Not a valid URL")
		}
	}
	if s.Customer != "" && s.CustomerEmail != "" {
		return badParam("", "customer_email", "You may only specify one of these parameters: customer, customer_email.")
	}
	if s.Customer != "" {
		who, ok := get[customer](c.tx, string(s.Customer))
		if !ok || who.Sim.Deleted {
			return missing("customer", string(s.Customer), "customer")
		}
		s.CustomerCreation = ""
	}
	for _, m := range s.PaymentMethodTypes {
		if m != "card" && m != "acss_debit" {
			return badParam("", "payment_method_types", "The payment method type provided: %s is invalid. The simulator has card and acss_debit.", clip(m))
		}
	}
	if left := unix(s.ExpiresAt).Sub(unix(s.Created)); left < minExpiry || left > maxExpiry {
		return badParam("", "expires_at", "The `expires_at` timestamp must be between 30 minutes and 24 hours from Checkout Session creation.")
	}
	return s.addUp()
}

func (s *session) addUp() error {
	if n := len(s.Sim.Lines); n == 0 || n > maxLines {
		return badParam("parameter_missing", "line_items", "The simulator needs 1 to %d line items", maxLines)
	}
	s.Currency = s.Sim.Lines[0].Currency
	for i, l := range s.Sim.Lines {
		name := fmt.Sprintf("line_items[%d]", i)
		switch {
		case l.Currency != s.Currency:
			return badParam("", name+"[price_data][currency]", "All prices on a Checkout Session must be expressed in the same currency.")
		case l.UnitAmount < 0:
			return badParam("parameter_invalid_integer", name+"[price_data][unit_amount]", "This value must be greater than or equal to 0.")
		case l.Quantity < 1:
			return badParam("parameter_invalid_integer", name+"[quantity]", "This value must be greater than or equal to 1.")
		case l.UnitAmount > math.MaxInt64/l.Quantity || s.AmountTotal+l.UnitAmount*l.Quantity > maxAmount || s.AmountTotal+l.UnitAmount*l.Quantity < 0:
			return badParam("amount_too_large", "line_items", "The Checkout Session's total amount must be no more than $999,999.99")
		}
		s.AmountTotal += l.UnitAmount * l.Quantity
	}
	if s.AmountTotal < minAmount {
		return badParam("amount_too_small", "line_items", "The Checkout Session's total amount due must add up to at least $0.50 %s", s.Currency)
	}
	s.AmountSubtotal = s.AmountTotal
	return nil
}

func (s *session) lineItems() object {
	data := []any{}
	for _, l := range s.Sim.Lines {
		total := l.UnitAmount * l.Quantity
		data = append(data, object{
			"id": l.ID, "object": "item", "amount_discount": 0, "amount_subtotal": total, "amount_tax": 0, "amount_total": total,
			"currency": l.Currency, "description": l.Name, "quantity": l.Quantity,
			"price": object{
				"id": l.Price, "object": "price", "active": false, "billing_scheme": "per_unit", "created": s.Created, "currency": l.Currency,
				"custom_unit_amount": nil, "livemode": false, "lookup_key": nil, "metadata": object{}, "nickname": nil, "product": l.Product,
				"recurring": nil, "tax_behavior": "unspecified", "tiers_mode": nil, "transform_quantity": nil, "type": "one_time",
				"unit_amount": l.UnitAmount, "unit_amount_decimal": fmt.Sprint(l.UnitAmount),
			},
		})
	}
	return object{"object": "list", "url": "/v1/checkout/sessions/" + s.ID + "/line_items", "has_more": false, "data": data}
}

func listSessions(c *call) (any, error) {
	intent, customer, status, created := c.text("payment_intent", 255), c.text("customer", 255), c.text("status", 20), c.created("created")
	return page[session](c, func(s *session) bool {
		return is(intent, s.PaymentIntent) && is(customer, s.Customer) && is(status, s.Status) && created(s.Created)
	})
}

// expireSession is POST /v1/checkout/sessions/{id}/expire.
func expireSession(c *call) (any, error) {
	s, err := need[session](c, "checkout.session")
	if err != nil {
		return nil, err
	}
	if err := c.done(); err != nil {
		return nil, err
	}
	if s.Status != "open" {
		return nil, badState("", "Only Checkout Sessions with a status in [\"open\"] can be expired. This Checkout Session has a status of \"%s\".", s.Status)
	}
	return s, c.expireOpen(s)
}

// expireDue is what happens when expires_at is reached.
func (t *tx) expireDue(id string) error {
	s, ok := get[session](t, id)
	if !ok || s.Status != "open" {
		return nil
	}
	return t.expireOpen(s)
}

// expireOpen closes a session nobody paid, and the intent of a failed attempt.
func (t *tx) expireOpen(s *session) error {
	s.Status, s.URL, s.Sim.Challenge = "expired", "", nil
	t.put(s)
	t.drop(taskID(taskExpire, s.ID))
	if pi, ok := get[intent](t, string(s.PaymentIntent)); ok {
		if err := t.cancel(pi, "automatic"); err != nil {
			return err
		}
	}
	return t.emit("checkout.session.expired", s, nil)
}

// complete closes a session that was confirmed. paid is false while the money of a
// delayed method, or the capture, is to come.
func (t *tx) complete(s *session, who payer, paid bool) error {
	s.Status, s.URL, s.Sim.Challenge = "complete", "", nil
	if paid {
		s.PaymentStatus = "paid"
	}
	s.CustomerDetails = &customerDetails{Email: text(who.Email), Name: text(who.Name), TaxExempt: "none", TaxIDs: []string{}}
	t.put(s)
	t.drop(taskID(taskExpire, s.ID))
	return t.emit("checkout.session.completed", s, nil)
}

// prefilled is the e-mail address that the page shows and does not let change.
func (t *tx) prefilled(s *session) string {
	if who, ok := get[customer](t, string(s.Customer)); ok {
		return string(who.Email)
	}
	return string(s.CustomerEmail)
}

// accepts reports whether the session takes a method.
func (s *session) accepts(method string) bool { return slices.Contains(s.PaymentMethodTypes, method) }

// businessDays adds n banking days to the date of now in Toronto.
func businessDays(now time.Time, n int) clock.Date {
	d := clock.DateOf(now)
	for n > 0 {
		if d = d.AddDays(1); d.BusinessDay() {
			n--
		}
	}
	return d
}
