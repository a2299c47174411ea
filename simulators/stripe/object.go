package stripe

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"guichet/internal/clock"
)

// apiVersion is the one version of the API the simulator speaks.
const apiVersion = "2023-10-16"

// A text is a string that is null in JSON when empty, as Stripe's are.
type text string

func (t text) MarshalJSON() ([]byte, error) {
	if t == "" {
		return []byte("null"), nil
	}
	return json.Marshal(string(t))
}

// A stamp is a time in seconds that is null in JSON when zero.
type stamp int64

func (s stamp) MarshalJSON() ([]byte, error) {
	if s == 0 {
		return []byte("null"), nil
	}
	return json.Marshal(int64(s))
}

// The objects below are stored in the shape in which Stripe shows them, plus a
// member "_sim" with what only the simulator knows, which never leaves it.
// References are ids; expand replaces them on request. Members that are always
// the same here are in constants.

type customer struct {
	ID               string            `json:"id"`
	Object           string            `json:"object"`
	Created          int64             `json:"created"`
	Description      text              `json:"description"`
	Email            text              `json:"email"`
	Livemode         bool              `json:"livemode"`
	Metadata         map[string]string `json:"metadata"`
	Name             text              `json:"name"`
	Phone            text              `json:"phone"`
	PreferredLocales []string          `json:"preferred_locales"`
	Sim              struct {
		Deleted bool `json:"deleted,omitempty"`
	} `json:"_sim"`
}

type session struct {
	ID                 string            `json:"id"`
	Object             string            `json:"object"`
	AmountSubtotal     int64             `json:"amount_subtotal"`
	AmountTotal        int64             `json:"amount_total"`
	CancelURL          text              `json:"cancel_url"`
	ClientReferenceID  text              `json:"client_reference_id"`
	Created            int64             `json:"created"`
	Currency           string            `json:"currency"`
	Customer           text              `json:"customer"`
	CustomerCreation   text              `json:"customer_creation"`
	CustomerDetails    *customerDetails  `json:"customer_details"`
	CustomerEmail      text              `json:"customer_email"`
	ExpiresAt          int64             `json:"expires_at"`
	Livemode           bool              `json:"livemode"`
	Locale             text              `json:"locale"`
	Metadata           map[string]string `json:"metadata"`
	Mode               string            `json:"mode"`
	PaymentIntent      text              `json:"payment_intent"`
	PaymentMethodTypes []string          `json:"payment_method_types"`
	PaymentStatus      string            `json:"payment_status"`
	Status             string            `json:"status"`
	SubmitType         text              `json:"submit_type"`
	SuccessURL         string            `json:"success_url"`
	URL                text              `json:"url"`
	Sim                sessionSim        `json:"_sim"`
}

type sessionSim struct {
	Lines             []line            `json:"lines"`
	CaptureMethod     string            `json:"capture_method"`
	IntentDescription text              `json:"intent_description"`
	IntentMetadata    map[string]string `json:"intent_metadata"`
	ReceiptEmail      text              `json:"receipt_email"`
	Challenge         *challenge        `json:"challenge,omitempty"` // 3-D Secure under way
}

// A line is one line item of a session.
type line struct {
	ID          string            `json:"id"`
	Name        string            `json:"name"`
	Description text              `json:"description"`
	Currency    string            `json:"currency"`
	UnitAmount  int64             `json:"unit_amount"`
	Quantity    int64             `json:"quantity"`
	Price       string            `json:"price"`
	Product     string            `json:"product"`
	Metadata    map[string]string `json:"metadata"`
}

type customerDetails struct {
	Address   *struct{} `json:"address"`
	Email     text      `json:"email"`
	Name      text      `json:"name"`
	Phone     text      `json:"phone"`
	TaxExempt string    `json:"tax_exempt"`
	TaxIDs    []string  `json:"tax_ids"`
}

type intent struct {
	ID                 string            `json:"id"`
	Object             string            `json:"object"`
	Amount             int64             `json:"amount"`
	AmountCapturable   int64             `json:"amount_capturable"`
	AmountReceived     int64             `json:"amount_received"`
	CanceledAt         stamp             `json:"canceled_at"`
	CancellationReason text              `json:"cancellation_reason"`
	CaptureMethod      string            `json:"capture_method"`
	ClientSecret       string            `json:"client_secret"`
	Created            int64             `json:"created"`
	Currency           string            `json:"currency"`
	Customer           text              `json:"customer"`
	Description        text              `json:"description"`
	LastPaymentError   *errorBody        `json:"last_payment_error"`
	LatestCharge       text              `json:"latest_charge"`
	Livemode           bool              `json:"livemode"`
	Metadata           map[string]string `json:"metadata"`
	PaymentMethod      text              `json:"payment_method"`
	PaymentMethodTypes []string          `json:"payment_method_types"`
	ReceiptEmail       text              `json:"receipt_email"`
	Status             string            `json:"status"`
	Sim                struct {
		Session string `json:"session,omitempty"`
	} `json:"_sim"`
}

type charge struct {
	ID                        string            `json:"id"`
	Object                    string            `json:"object"`
	Amount                    int64             `json:"amount"`
	AmountCaptured            int64             `json:"amount_captured"`
	AmountRefunded            int64             `json:"amount_refunded"`
	BalanceTransaction        text              `json:"balance_transaction"`
	BillingDetails            billing           `json:"billing_details"`
	Captured                  bool              `json:"captured"`
	Created                   int64             `json:"created"`
	Currency                  string            `json:"currency"`
	Customer                  text              `json:"customer"`
	Description               text              `json:"description"`
	Disputed                  bool              `json:"disputed"`
	FailureBalanceTransaction text              `json:"failure_balance_transaction"`
	FailureCode               text              `json:"failure_code"`
	FailureMessage            text              `json:"failure_message"`
	Livemode                  bool              `json:"livemode"`
	Metadata                  map[string]string `json:"metadata"`
	Outcome                   *outcome          `json:"outcome"`
	Paid                      bool              `json:"paid"`
	PaymentIntent             text              `json:"payment_intent"`
	PaymentMethod             text              `json:"payment_method"`
	PaymentMethodDetails      methodDetails     `json:"payment_method_details"`
	ReceiptEmail              text              `json:"receipt_email"`
	Refunded                  bool              `json:"refunded"`
	Status                    string            `json:"status"`
	Sim                       struct {
		Refunds string `json:"refunds,omitempty"` // how a refund of it goes: refundFails, refundPends
		Instant bool   `json:"instant,omitempty"` // its money is available at once
	} `json:"_sim"`
}

type billing struct {
	Address *struct{} `json:"address"`
	Email   text      `json:"email"`
	Name    text      `json:"name"`
	Phone   text      `json:"phone"`
}

type outcome struct {
	NetworkStatus string `json:"network_status"`
	Reason        text   `json:"reason"`
	RiskLevel     string `json:"risk_level"`
	SellerMessage string `json:"seller_message"`
	Type          string `json:"type"`
}

type methodDetails struct {
	Type      string       `json:"type"`
	Card      *cardDetails `json:"card,omitempty"`
	ACSSDebit *debit       `json:"acss_debit,omitempty"`
}

type cardDetails struct {
	Brand        string        `json:"brand"`
	Country      string        `json:"country"`
	ExpMonth     int           `json:"exp_month"`
	ExpYear      int           `json:"exp_year"`
	Fingerprint  string        `json:"fingerprint"`
	Funding      string        `json:"funding"`
	Last4        string        `json:"last4"`
	Network      string        `json:"network"`
	ThreeDSecure *threeDSecure `json:"three_d_secure"`
}

type threeDSecure struct {
	AuthenticationFlow string `json:"authentication_flow"`
	Result             string `json:"result"`
	Version            string `json:"version"`
}

type debit struct {
	BankName          string `json:"bank_name"`
	Fingerprint       string `json:"fingerprint"`
	InstitutionNumber string `json:"institution_number"`
	Last4             string `json:"last4"`
	TransitNumber     string `json:"transit_number"`
}

type refund struct {
	ID                        string            `json:"id"`
	Object                    string            `json:"object"`
	Amount                    int64             `json:"amount"`
	BalanceTransaction        text              `json:"balance_transaction"`
	Charge                    string            `json:"charge"`
	Created                   int64             `json:"created"`
	Currency                  string            `json:"currency"`
	FailureBalanceTransaction text              `json:"failure_balance_transaction,omitempty"`
	FailureReason             text              `json:"failure_reason,omitempty"`
	InstructionsEmail         text              `json:"instructions_email,omitempty"`
	Metadata                  map[string]string `json:"metadata"`
	PaymentIntent             text              `json:"payment_intent"`
	Reason                    text              `json:"reason"`
	Status                    string            `json:"status"`
}

type dispute struct {
	ID                 string            `json:"id"`
	Object             string            `json:"object"`
	Amount             int64             `json:"amount"`
	Charge             string            `json:"charge"`
	Created            int64             `json:"created"`
	Currency           string            `json:"currency"`
	Evidence           map[string]string `json:"evidence"`
	EvidenceDetails    evidenceDetails   `json:"evidence_details"`
	IsChargeRefundable bool              `json:"is_charge_refundable"`
	Livemode           bool              `json:"livemode"`
	Metadata           map[string]string `json:"metadata"`
	PaymentIntent      text              `json:"payment_intent"`
	Reason             string            `json:"reason"`
	Status             string            `json:"status"`
	Sim                struct {
		BalanceTransactions []string `json:"balance_transactions"`
	} `json:"_sim"`
}

type evidenceDetails struct {
	DueBy           stamp `json:"due_by"`
	HasEvidence     bool  `json:"has_evidence"`
	PastDue         bool  `json:"past_due"`
	SubmissionCount int64 `json:"submission_count"`
}

type balanceTransaction struct {
	ID                string      `json:"id"`
	Object            string      `json:"object"`
	Amount            int64       `json:"amount"`
	AvailableOn       int64       `json:"available_on"`
	Created           int64       `json:"created"`
	Currency          string      `json:"currency"`
	Description       text        `json:"description"`
	Fee               int64       `json:"fee"`
	FeeDetails        []feeDetail `json:"fee_details"`
	Net               int64       `json:"net"`
	ReportingCategory string      `json:"reporting_category"`
	Source            text        `json:"source"`
	Type              string      `json:"type"`
	Sim               struct {
		Payout string `json:"payout,omitempty"` // the payout it went out with
	} `json:"_sim"`
}

type feeDetail struct {
	Amount      int64  `json:"amount"`
	Application text   `json:"application"`
	Currency    string `json:"currency"`
	Description string `json:"description"`
	Type        string `json:"type"`
}

type payout struct {
	ID                        string            `json:"id"`
	Object                    string            `json:"object"`
	Amount                    int64             `json:"amount"`
	ArrivalDate               int64             `json:"arrival_date"`
	Automatic                 bool              `json:"automatic"`
	BalanceTransaction        text              `json:"balance_transaction"`
	Created                   int64             `json:"created"`
	Currency                  string            `json:"currency"`
	FailureBalanceTransaction text              `json:"failure_balance_transaction"`
	FailureCode               text              `json:"failure_code"`
	FailureMessage            text              `json:"failure_message"`
	Livemode                  bool              `json:"livemode"`
	Metadata                  map[string]string `json:"metadata"`
	ReconciliationStatus      string            `json:"reconciliation_status"`
	Status                    string            `json:"status"`
	TraceID                   trace             `json:"trace_id"`
}

// A trace is how the bank's line can be found; it comes some time after the payout.
type trace struct {
	Status string `json:"status"` // pending, supported, unsupported
	Value  text   `json:"value"`
}

type event struct {
	ID         string       `json:"id"`
	Object     string       `json:"object"`
	APIVersion string       `json:"api_version"`
	Created    int64        `json:"created"`
	Data       eventData    `json:"data"`
	Livemode   bool         `json:"livemode"`
	Request    eventRequest `json:"request"`
	Type       string       `json:"type"`
}

type eventData struct {
	Object             json.RawMessage `json:"object"`
	PreviousAttributes json.RawMessage `json:"previous_attributes,omitempty"`
}

type eventRequest struct {
	ID             text `json:"id"`
	IdempotencyKey text `json:"idempotency_key"`
}

func (*balanceTransaction) kind() string { return "balance_transaction" }
func (*charge) kind() string             { return "charge" }
func (*customer) kind() string           { return "customer" }
func (*dispute) kind() string            { return "dispute" }
func (*event) kind() string              { return "event" }
func (*intent) kind() string             { return "payment_intent" }
func (*payout) kind() string             { return "payout" }
func (*refund) kind() string             { return "refund" }
func (*session) kind() string            { return "checkout.session" }

func (o *balanceTransaction) rowID() string { return o.ID }
func (o *charge) rowID() string             { return o.ID }
func (o *customer) rowID() string           { return o.ID }
func (o *dispute) rowID() string            { return o.ID }
func (o *event) rowID() string              { return o.ID }
func (o *intent) rowID() string             { return o.ID }
func (o *payout) rowID() string             { return o.ID }
func (o *refund) rowID() string             { return o.ID }
func (o *session) rowID() string            { return o.ID }

// prefix begins the ids of a kind.
var prefix = map[string]string{
	"balance_transaction": "txn_", "charge": "ch_", "checkout.session": "cs_test_", "customer": "cus_",
	"delivery": "whd_", "dispute": "dp_", "event": "evt_", "line_item": "li_", "payment_intent": "pi_",
	"payment_method": "pm_", "payout": "po_", "price": "price_", "product": "prod_", "refund": "re_", "request": "req_",
}

// newID makes an id as Stripe's look: a prefix and random letters and digits.
func newID(kind string) string {
	n := 24
	if kind == "checkout.session" {
		n = 58
	}
	return prefix[kind] + random(n, base62)
}

const (
	base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	base32 = "0123456789ABCDEFGHJKMNPQRSTVWXYZ" // Crockford's: what banks print and people read
)

// random draws n letters of an alphabet, each as likely as another.
func random(n int, alphabet string) string {
	out := make([]byte, 0, n)
	fair := 256 - 256%len(alphabet)
	for draw := make([]byte, 2*n); len(out) < n; {
		rand.Read(draw) // never fails: crypto/rand crashes the program instead
		for _, b := range draw {
			if int(b) < fair && len(out) < n {
				out = append(out, alphabet[int(b)%len(alphabet)])
			}
		}
	}
	return string(out)
}

// constants are the members that are the same in every object of a kind here.
var constants = map[string]map[string]any{
	"charge": {
		"application": nil, "application_fee": nil, "application_fee_amount": nil, "calculated_statement_descriptor": nil,
		"fraud_details": object{}, "invoice": nil, "on_behalf_of": nil, "receipt_number": nil, "receipt_url": nil, "review": nil,
		"shipping": nil, "source": nil, "source_transfer": nil, "statement_descriptor": nil, "statement_descriptor_suffix": nil,
		"transfer_data": nil, "transfer_group": nil,
	},
	"checkout.session": {
		"after_expiration": nil, "allow_promotion_codes": nil, "automatic_tax": object{"enabled": false, "liability": nil, "status": nil},
		"billing_address_collection": nil, "client_secret": nil, "consent": nil, "consent_collection": nil, "currency_conversion": nil,
		"custom_fields": []any{}, "custom_text": object{"after_submit": nil, "shipping_address": nil, "submit": nil, "terms_of_service_acceptance": nil},
		"invoice": nil, "invoice_creation": nil, "payment_link": nil, "payment_method_collection": "if_required",
		"payment_method_configuration_details": nil, "payment_method_options": object{}, "phone_number_collection": object{"enabled": false},
		"recovered_from": nil, "setup_intent": nil, "shipping_address_collection": nil, "shipping_cost": nil, "shipping_details": nil,
		"shipping_options": []any{}, "subscription": nil, "total_details": object{"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
		"ui_mode": "hosted",
	},
	"customer": {
		"address": nil, "balance": 0, "currency": nil, "default_source": nil, "delinquent": false, "discount": nil,
		"shipping": nil, "tax_exempt": "none", "test_clock": nil,
	},
	"payment_intent": {
		"amount_details": object{"tip": object{}}, "application": nil, "application_fee_amount": nil, "automatic_payment_methods": nil,
		"confirmation_method": "automatic", "invoice": nil, "next_action": nil, "on_behalf_of": nil, "payment_method_options": object{},
		"processing": nil, "review": nil, "setup_future_usage": nil, "shipping": nil, "source": nil, "statement_descriptor": nil,
		"statement_descriptor_suffix": nil, "transfer_data": nil, "transfer_group": nil,
	},
	"payout": {
		"application_fee": nil, "application_fee_amount": nil, "description": "STRIPE PAYOUT", "destination": "ba_guichet_main", "method": "standard",
		"original_payout": nil, "reversed_by": nil, "source_type": "card", "statement_descriptor": nil, "type": "bank_account",
	},
	"refund":              {"receipt_number": nil, "source_transfer_reversal": nil, "transfer_reversal": nil},
	"balance_transaction": {"exchange_rate": nil},
}

// An object is JSON on its way out.
type object = map[string]any

// view shows a row as the API does.
func (t *tx) view(r row) (object, error) {
	raw, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("show %s: %w", r.kind(), err)
	}
	out := object{}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber() // amounts must not become floats
	if err := d.Decode(&out); err != nil {
		return nil, fmt.Errorf("show %s: %w", r.kind(), err)
	}
	delete(out, "_sim")
	for k, v := range constants[r.kind()] {
		out[k] = v
	}
	switch r := r.(type) {
	case *balanceTransaction:
		out["status"] = "pending"
		if t.available(r) {
			out["status"] = "available"
		}
	case *dispute:
		lines := []any{}
		for _, id := range r.Sim.BalanceTransactions {
			v, err := t.viewID(id)
			if err != nil {
				return nil, err
			}
			lines = append(lines, v)
		}
		out["balance_transactions"] = lines
	case *event:
		out["pending_webhooks"] = t.sim.pending[r.ID]
	}
	return out, nil
}

func (t *tx) viewID(id string) (object, error) {
	r, ok := t.row(id)
	if !ok {
		return nil, fmt.Errorf("show %s: not stored", id)
	}
	return t.view(r)
}

// available reports whether the money of a balance transaction may be paid out:
// from the beginning, in Toronto, of the date that available_on names.
func (t *tx) available(b *balanceTransaction) bool {
	on := clock.FromTime(unix(b.AvailableOn))
	return !on.After(clock.DateOf(t.now))
}

// expandable lists the members of a kind that hold ids of other objects, and
// those that appear only when asked for.
var expandable = map[string][]string{
	"balance_transaction": {"source"},
	"charge":              {"balance_transaction", "customer", "failure_balance_transaction", "payment_intent", "refunds"},
	"checkout.session":    {"customer", "line_items", "payment_intent"},
	"dispute":             {"charge", "payment_intent"},
	"payment_intent":      {"customer", "latest_charge"},
	"payout":              {"balance_transaction", "failure_balance_transaction"},
	"refund":              {"balance_transaction", "charge", "failure_balance_transaction", "payment_intent"},
}

// expand follows one path, such as "payment_intent.latest_charge", through out.
func (t *tx) expand(out object, path string) error {
	first, rest, more := strings.Cut(path, ".")
	if data, list := out["data"].([]any); list && first == "data" {
		for _, item := range data {
			if err := t.expand(item.(object), rest); err != nil {
				return err
			}
		}
		return nil
	}
	kind, _ := out["object"].(string)
	if !slices.Contains(expandable[kind], first) {
		return &apiError{Status: 400, Type: invalidRequest, Param: "expand", Message: fmt.Sprintf("This property cannot be expanded (%s).", path)}
	}
	inner, err := t.inner(out, first)
	if err != nil || inner == nil {
		return err
	}
	out[first] = inner
	if !more {
		return nil
	}
	return t.expand(inner, rest)
}

// inner is what a member expands to, or nil when it is null.
func (t *tx) inner(out object, member string) (object, error) {
	id, _ := out["id"].(string)
	switch member {
	case "line_items":
		s, _ := get[session](t, id)
		return s.lineItems(), nil
	case "refunds":
		return t.refundsOf(id)
	}
	switch v := out[member].(type) {
	case object: // expanded by an earlier path
		return v, nil
	case string:
		if _, stored := t.row(v); !stored {
			return nil, nil // the source of an adjustment is an id of nothing we keep
		}
		return t.viewID(v)
	}
	return nil, nil
}
