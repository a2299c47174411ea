// Package stripe is the adapter between payments and Stripe: it implements
// payments.Processor with stripe-go v76 (API version 2023-10-16) and nothing else
// of the product knows Stripe.
//
//	payments ──Processor──▶ Client ──HTTPS──▶ api.stripe.com, or a simulator
//
// Every call has a deadline and is made once: retrying is the caller's, who has
// the idempotency key. Of the answers only Stripe's own 4xx is a no; a timeout, a
// 5xx, a proxy's page or a lost connection is payments.ErrUnknownOutcome.
//
// # With a real account
//
// STRIPE_SECRET_KEY takes a restricted key (rk_…) with write access to Checkout
// Sessions and Refunds and read access to Payment Intents, Charges, Balance
// Transactions, Payouts and Events. STRIPE_WEBHOOK_SECRET is that of an endpoint
// <GUICHET_BASE_URL>/hooks/processor of API version 2023-10-16 that listens to
// checkout.session.* and payout.*. STRIPE_API_URL stays empty. Payouts must be automatic.
package stripe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	stripego "github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/client"
	"github.com/stripe/stripe-go/v76/webhook"

	"guichet/internal/money"
	"guichet/payments"
)

// Config is what a Client needs.
type Config struct {
	SecretKey      string
	WebhookSecrets []string // more than one while one is being replaced
	URL            string   // empty: Stripe itself
}

const (
	callTimeout = 20 * time.Second
	// Tolerance is how far a webhook's timestamp may be from our clock.
	Tolerance = 5 * time.Minute
	pageSize  = 100
	maxPages  = 10_000
)

// A Client talks to Stripe. It may be used by many goroutines at once.
type Client struct {
	api     *client.API
	secrets []string
}

var _ payments.Processor = (*Client)(nil)

// New returns a client. It does not connect.
func New(c Config) (*Client, error) {
	if c.SecretKey == "" || len(c.WebhookSecrets) == 0 {
		return nil, errors.New("stripe: a secret key and a webhook secret are needed")
	}
	cfg := &stripego.BackendConfig{
		HTTPClient: &http.Client{
			Timeout:       callTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		LeveledLogger:     &stripego.LeveledLogger{Level: stripego.LevelNull},
		MaxNetworkRetries: stripego.Int64(0), // its back-off ignores the context
		EnableTelemetry:   stripego.Bool(false),
	}
	if c.URL != "" {
		cfg.URL = stripego.String(c.URL)
	}
	// All three, or some calls would escape to the default host.
	backends := &stripego.Backends{
		API:     stripego.GetBackendWithConfig(stripego.APIBackend, cfg),
		Connect: stripego.GetBackendWithConfig(stripego.ConnectBackend, cfg),
		Uploads: stripego.GetBackendWithConfig(stripego.UploadsBackend, cfg),
	}
	return &Client{api: client.New(c.SecretKey, backends), secrets: c.WebhookSecrets}, nil
}

// outcome tells Stripe's definite no from everything else.
func outcome(err error) error {
	var se *stripego.Error
	if !errors.As(err, &se) {
		return fmt.Errorf("%w: %w", payments.ErrUnknownOutcome, err)
	}
	switch se.HTTPStatusCode {
	case http.StatusBadRequest, http.StatusPaymentRequired, http.StatusNotFound:
		return &payments.RefusedError{Code: string(se.Code), Message: se.Msg}
	}
	// 401 and 403 are our own misconfiguration, 409 is the same key at work at this
	// moment, 429 asks for patience: nothing was refused for good. 5xx may have been done.
	return fmt.Errorf("%w: status %d, %s", payments.ErrUnknownOutcome, se.HTTPStatusCode, se.Type)
}

// replayed500 reports an answer that Stripe stored under the key and will give for
// a day: asking again with the same key cannot help.
func replayed500(err error) bool {
	var se *stripego.Error
	return errors.As(err, &se) && se.HTTPStatusCode >= 500 && se.LastResponse != nil &&
		se.LastResponse.Header.Get("Idempotent-Replayed") == "true"
}

// OpenSession implements payments.Processor. When Stripe keeps repeating a stored
// failure, a second key is used: nobody can have been sent to a page whose address
// never arrived.
func (c *Client) OpenSession(ctx context.Context, r payments.SessionRequest) (payments.Session, error) {
	s, err := c.api.CheckoutSessions.New(sessionParams(ctx, r, r.Key))
	if replayed500(err) {
		s, err = c.api.CheckoutSessions.New(sessionParams(ctx, r, r.Key+"/again"))
	}
	if err != nil {
		return payments.Session{}, fmt.Errorf("open session: %w", outcome(err))
	}
	return sessionOf(s), nil
}

func sessionParams(ctx context.Context, r payments.SessionRequest, key string) *stripego.CheckoutSessionParams {
	locale := "en"
	if r.Lang == "fr" {
		locale = "fr-CA"
	}
	metadata := map[string]string{"payment": r.PaymentID, "checkout": r.CheckoutID}
	p := &stripego.CheckoutSessionParams{
		Mode:              stripego.String(string(stripego.CheckoutSessionModePayment)),
		ClientReferenceID: stripego.String(r.PaymentID),
		Locale:            stripego.String(locale),
		SuccessURL:        stripego.String(r.SuccessURL),
		CancelURL:         stripego.String(r.CancelURL),
		ExpiresAt:         stripego.Int64(r.ExpiresAt.Unix()),
		PaymentIntentData: &stripego.CheckoutSessionPaymentIntentDataParams{Metadata: metadata},
	}
	p.Context, p.Metadata = ctx, metadata
	p.SetIdempotencyKey(key)
	if r.Email != "" {
		p.CustomerEmail = stripego.String(r.Email)
	}
	for _, l := range r.Lines {
		p.LineItems = append(p.LineItems, &stripego.CheckoutSessionLineItemParams{
			Quantity: stripego.Int64(1),
			PriceData: &stripego.CheckoutSessionLineItemPriceDataParams{
				Currency:    stripego.String("cad"),
				UnitAmount:  stripego.Int64(int64(l.Amount)),
				ProductData: &stripego.CheckoutSessionLineItemPriceDataProductDataParams{Name: stripego.String(l.Name)},
			},
		})
	}
	return p
}

// Session implements payments.Processor.
func (c *Client) Session(ctx context.Context, sessionID string) (payments.Session, error) {
	p := &stripego.CheckoutSessionParams{}
	p.Context = ctx
	p.AddExpand("payment_intent.latest_charge")
	s, err := c.api.CheckoutSessions.Get(sessionID, p)
	if err != nil {
		return payments.Session{}, fmt.Errorf("read session: %w", outcome(err))
	}
	return sessionOf(s), nil
}

// ExpireSession implements payments.Processor.
func (c *Client) ExpireSession(ctx context.Context, sessionID string) (payments.Session, error) {
	p := &stripego.CheckoutSessionExpireParams{}
	p.Context = ctx
	s, err := c.api.CheckoutSessions.Expire(sessionID, p)
	if err != nil {
		return payments.Session{}, fmt.Errorf("expire session: %w", outcome(err))
	}
	return sessionOf(s), nil
}

func sessionOf(s *stripego.CheckoutSession) payments.Session {
	out := payments.Session{ID: s.ID, URL: s.URL, State: payments.SessionOpen, PaymentID: s.Metadata["payment"], CheckoutID: s.Metadata["checkout"],
		Amount: money.Amount(s.AmountTotal), Currency: strings.ToUpper(string(s.Currency))}
	intent := s.PaymentIntent
	if intent != nil {
		out.IntentID = intent.ID
	}
	switch {
	case s.Status == stripego.CheckoutSessionStatusExpired:
		out.State = payments.SessionExpired
	case s.Status != stripego.CheckoutSessionStatusComplete:
	case s.PaymentStatus == stripego.CheckoutSessionPaymentStatusPaid:
		out.State = payments.SessionPaid
	case intent != nil && (intent.Status == stripego.PaymentIntentStatusRequiresPaymentMethod || intent.Status == stripego.PaymentIntentStatusCanceled):
		out.State = payments.SessionFailed
	default:
		out.State = payments.SessionProcessing
	}
	if out.State == payments.SessionPaid && intent != nil && intent.LatestCharge != nil {
		charge := intent.LatestCharge
		out.ChargeID, out.PaidAt = charge.ID, time.Unix(charge.Created, 0).UTC()
		if d := charge.PaymentMethodDetails; d != nil && d.Card != nil {
			out.Card = payments.Card{Brand: string(d.Card.Brand), Last4: d.Card.Last4, Funding: string(d.Card.Funding)}
		}
	}
	return out
}

// Refund implements payments.Processor.
func (c *Client) Refund(ctx context.Context, r payments.RefundRequest) (payments.Refund, error) {
	p := &stripego.RefundParams{PaymentIntent: stripego.String(r.IntentID), Amount: stripego.Int64(int64(r.Amount))}
	p.Context = ctx
	p.AddMetadata("refund", r.RefundID)
	p.SetIdempotencyKey(r.Key)
	out, err := c.api.Refunds.New(p)
	if err != nil {
		return payments.Refund{}, fmt.Errorf("refund: %w", outcome(err))
	}
	refund := payments.Refund{ID: out.ID, State: string(out.Status), FailureReason: string(out.FailureReason), Amount: money.Amount(out.Amount)}
	if out.Charge != nil {
		refund.ChargeID = out.Charge.ID
	}
	return refund, nil
}

// ParseEvent implements payments.Processor. The library's own check of the age
// goes by the wall clock and takes events of the future, so both ends are checked here.
func (c *Client) ParseEvent(payload []byte, signature string, now time.Time) (payments.Event, error) {
	for _, secret := range c.secrets {
		e, err := webhook.ConstructEventWithOptions(payload, signature, secret,
			webhook.ConstructEventOptions{IgnoreTolerance: true, IgnoreAPIVersionMismatch: true})
		if errors.Is(err, webhook.ErrNoValidSignature) || errors.Is(err, webhook.ErrNotSigned) || errors.Is(err, webhook.ErrInvalidHeader) {
			continue
		}
		if err != nil {
			return payments.Event{}, fmt.Errorf("%w: %w", payments.ErrMalformed, err)
		}
		switch age := now.Sub(signedAt(signature)); {
		case age > Tolerance:
			return payments.Event{}, payments.ErrStale
		case age < -Tolerance:
			return payments.Event{}, payments.ErrFuture
		}
		out := eventOf(&e)
		if out.ID == "" || out.ObjectID == "" {
			return payments.Event{}, payments.ErrMalformed
		}
		out.Payload = payload
		return out, nil
	}
	return payments.Event{}, payments.ErrSignature
}

// signedAt is the time of a signature header that has been verified.
func signedAt(header string) time.Time {
	for part := range strings.SplitSeq(header, ",") {
		if v, ok := strings.CutPrefix(strings.TrimSpace(part), "t="); ok {
			sec, err := strconv.ParseInt(v, 10, 64)
			if err == nil {
				return time.Unix(sec, 0)
			}
		}
	}
	return time.Time{}
}

func eventOf(e *stripego.Event) payments.Event {
	out := payments.Event{ID: e.ID, Type: string(e.Type), CreatedAt: time.Unix(e.Created, 0).UTC(), Live: e.Livemode}
	if e.Data != nil {
		if objectID, ok := e.Data.Object["id"].(string); ok {
			out.ObjectID = objectID
		}
		out.Payload = e.Data.Raw
	}
	return out
}

// window is a list of what was created since a moment. Stripe lists the newest
// first; its cursor only goes back, so a window is read whole and turned around.
func window(ctx context.Context, since time.Time) (stripego.ListParams, *stripego.RangeQueryParams) {
	return stripego.ListParams{Context: ctx, Limit: stripego.Int64(pageSize)}, &stripego.RangeQueryParams{GreaterThanOrEqual: since.Unix()}
}

// iter is what the library's iterators have in common.
type iter interface {
	Next() bool
	Err() error
}

// read walks an iterator to its end, within bounds.
func read[T any](it iter, current func() T) ([]T, error) {
	var out []T
	for it.Next() {
		if len(out) == pageSize*maxPages {
			return nil, fmt.Errorf("%w: more than %d objects", payments.ErrUnknownOutcome, len(out))
		}
		out = append(out, current())
	}
	if err := it.Err(); err != nil {
		return nil, outcome(err)
	}
	return out, nil
}

// Events implements payments.Processor: one page holds all.
func (c *Client) Events(ctx context.Context, since time.Time, _ string) ([]payments.Event, string, error) {
	p := &stripego.EventListParams{}
	p.ListParams, p.CreatedRange = window(ctx, since)
	it := c.api.Events.List(p)
	events, err := read(it, func() payments.Event { return eventOf(it.Event()) })
	if err != nil {
		return nil, "", fmt.Errorf("list events: %w", err)
	}
	slices.Reverse(events)
	return events, "", nil
}

// Payouts implements payments.Processor: one page holds all.
func (c *Client) Payouts(ctx context.Context, since time.Time, _ string) ([]payments.Payout, string, error) {
	p := &stripego.PayoutListParams{}
	p.ListParams, p.CreatedRange = window(ctx, since)
	it := c.api.Payouts.List(p)
	listed, err := read(it, func() string { return it.Payout().ID })
	if err != nil {
		return nil, "", fmt.Errorf("list payouts: %w", err)
	}
	payouts := make([]payments.Payout, 0, len(listed))
	for _, payoutID := range slices.Backward(listed) { // a few a day
		p := &stripego.PayoutParams{}
		p.Context = ctx
		payout, err := c.api.Payouts.Get(payoutID, p)
		if err != nil {
			return nil, "", fmt.Errorf("read payout: %w", outcome(err))
		}
		payouts = append(payouts, payoutOf(payout))
	}
	return payouts, "", nil
}

func payoutOf(p *stripego.Payout) payments.Payout {
	out := payments.Payout{
		ID: p.ID, Amount: money.Amount(p.Amount), Currency: strings.ToUpper(string(p.Currency)), State: string(p.Status), Automatic: p.Automatic,
		Itemised:  p.ReconciliationStatus == stripego.PayoutReconciliationStatusCompleted,
		ArrivalOn: time.Unix(p.ArrivalDate, 0).UTC(), CreatedAt: time.Unix(p.Created, 0).UTC(), Failure: string(p.FailureCode),
	}
	// This version of the library has no field for the trace: read the answer itself.
	var raw struct {
		TraceID struct {
			Value string `json:"value"`
		} `json:"trace_id"`
	}
	if p.LastResponse != nil && json.Unmarshal(p.LastResponse.RawJSON, &raw) == nil {
		out.TraceID = raw.TraceID.Value
	}
	return out
}

// PayoutTransactions implements payments.Processor.
func (c *Client) PayoutTransactions(ctx context.Context, payoutID, _ string) ([]payments.BalanceTransaction, string, error) {
	p := &stripego.BalanceTransactionListParams{Payout: stripego.String(payoutID)}
	p.ListParams = stripego.ListParams{Context: ctx, Limit: stripego.Int64(pageSize)}
	lines, err := c.transactions(p)
	if err != nil {
		return nil, "", fmt.Errorf("list transactions of payout: %w", err)
	}
	return slices.DeleteFunc(lines, func(l payments.BalanceTransaction) bool { return l.SourceID == payoutID }), "", nil
}

// BalanceTransactions implements payments.Processor: one page holds all.
func (c *Client) BalanceTransactions(ctx context.Context, since time.Time, _ string) ([]payments.BalanceTransaction, string, error) {
	p := &stripego.BalanceTransactionListParams{}
	p.ListParams, p.CreatedRange = window(ctx, since)
	lines, err := c.transactions(p)
	if err != nil {
		return nil, "", fmt.Errorf("list balance transactions: %w", err)
	}
	return lines, "", nil
}

func (c *Client) transactions(p *stripego.BalanceTransactionListParams) ([]payments.BalanceTransaction, error) {
	p.AddExpand("data.source")
	it := c.api.BalanceTransactions.List(p)
	lines, err := read(it, func() payments.BalanceTransaction { return transactionOf(it.BalanceTransaction()) })
	slices.Reverse(lines)
	return lines, err
}

func transactionOf(t *stripego.BalanceTransaction) payments.BalanceTransaction {
	out := payments.BalanceTransaction{
		ID: t.ID, Category: string(t.ReportingCategory), Amount: money.Amount(t.Amount), Fee: money.Amount(t.Fee), Net: money.Amount(t.Net),
		Currency: strings.ToUpper(string(t.Currency)), Description: t.Description,
		CreatedAt: time.Unix(t.Created, 0).UTC(), AvailableOn: time.Unix(t.AvailableOn, 0).UTC(),
	}
	if s := t.Source; s != nil {
		out.SourceID = s.ID
		switch {
		case s.Charge != nil && s.Charge.PaymentIntent != nil:
			out.IntentID = s.Charge.PaymentIntent.ID
		case s.Refund != nil && s.Refund.PaymentIntent != nil:
			out.IntentID = s.Refund.PaymentIntent.ID
		case s.Dispute != nil && s.Dispute.PaymentIntent != nil:
			out.IntentID = s.Dispute.PaymentIntent.ID
		}
	}
	return out
}
