// Package stripe is the adapter between payments and Stripe: it implements
// payments.Processor with stripe-go v76 (API version 2023-10-16) and nothing else
// of the product knows Stripe.
//
//	payments ──Processor──▶ Client ──HTTPS──▶ api.stripe.com, or a simulator
//
// Every call has a deadline and is made once: retrying is the caller's, who has
// the idempotency key. Of the answers only Stripe's own 4xx is a no; a timeout, a
// 5xx, a proxy's page, a redirect or a lost connection is
// payments.ErrUnknownOutcome. What Stripe stored under a key for a day, such as a
// 500, is resolved by looking, not by guessing.
//
// Dates of Stripe (AvailableOn, ArrivalOn) are midnight UTC of the date.
//
// # With a real account
//
// STRIPE_SECRET_KEY takes a restricted key (rk_…) with write access to Checkout
// Sessions and Refunds and read access to Payment Intents, Charges, Disputes, Balance
// Transactions, Payouts and Events. STRIPE_WEBHOOK_SECRET is that of an endpoint
// <GUICHET_BASE_URL>/hooks/processor of API version 2023-10-16 that listens to
// EventTypes. STRIPE_API_URL stays empty. Payouts must be automatic.
package stripe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	stripego "github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/client"

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
	maxAnswer = 16 << 20
	minSecret = 16
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
	// An empty one, left by a comma too many, would let anybody sign.
	if slices.ContainsFunc(c.WebhookSecrets, func(s string) bool { return !strings.HasPrefix(s, "whsec_") || len(s) < minSecret }) {
		return nil, fmt.Errorf("stripe: a webhook secret is whsec_ and more, at least %d characters", minSecret)
	}
	cfg := &stripego.BackendConfig{
		HTTPClient: &http.Client{
			Timeout: callTimeout,
			// Stripe does not redirect. Followed, the secret key would go along; taken
			// as the answer, an empty object would read as success.
			CheckRedirect: func(*http.Request, []*http.Request) error { return errRedirect },
			Transport:     bounded{},
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

var errRedirect = errors.New("the processor's address answered with a redirect")

// bounded cuts off an answer that is longer than any of Stripe's: what is left does
// not parse, and so is an unknown outcome.
type bounded struct{}

func (bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxAnswer), resp.Body}
	}
	return resp, err
}

// outcome tells Stripe's definite no from everything else. An error in Stripe's
// shape that has no request id was not written by Stripe.
func outcome(err error) error {
	var se *stripego.Error
	if !errors.As(err, &se) || se.RequestID == "" {
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

// whole says that an answer without what every object of its kind has, its id or a
// list's URL, is none.
func whole(mark string) error {
	if mark == "" {
		return fmt.Errorf("%w: the answer is not an object of the processor", payments.ErrUnknownOutcome)
	}
	return nil
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
	return sessionOf(s), whole(s.ID)
}

func sessionParams(ctx context.Context, r payments.SessionRequest, key string) *stripego.CheckoutSessionParams {
	locale := "en"
	if r.Lang == "fr" {
		locale = "fr-CA"
	}
	metadata := map[string]string{"payment": r.PaymentID, "checkout": r.CheckoutID}
	p := &stripego.CheckoutSessionParams{
		Mode:               stripego.String(string(stripego.CheckoutSessionModePayment)),
		ClientReferenceID:  stripego.String(r.PaymentID),
		Locale:             stripego.String(locale),
		PaymentMethodTypes: methods(r.Tender),
		SuccessURL:         stripego.String(r.SuccessURL),
		CancelURL:          stripego.String(r.CancelURL),
		ExpiresAt:          stripego.Int64(r.ExpiresAt.Unix()),
		PaymentIntentData:  &stripego.CheckoutSessionPaymentIntentDataParams{Metadata: metadata},
	}
	p.Context, p.Metadata = ctx, metadata
	p.SetIdempotencyKey(key)
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

// methods are Stripe's names of a tender: whatever else the account has enabled
// is not offered, because receipts and books would call it by the wrong name.
func methods(tender string) []*string {
	switch tender {
	case "pre_authorised_debit":
		return stripego.StringSlice([]string{"acss_debit"})
	default: // wallets carry cards
		return stripego.StringSlice([]string{"card"})
	}
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
	return sessionOf(s), whole(s.ID)
}

// ExpireSession implements payments.Processor.
func (c *Client) ExpireSession(ctx context.Context, sessionID string) (payments.Session, error) {
	p := &stripego.CheckoutSessionExpireParams{}
	p.Context = ctx
	s, err := c.api.CheckoutSessions.Expire(sessionID, p)
	if err != nil {
		return payments.Session{}, fmt.Errorf("expire session: %w", outcome(err))
	}
	return sessionOf(s), whole(s.ID)
}

func sessionOf(s *stripego.CheckoutSession) payments.Session {
	out := payments.Session{
		ID: s.ID, URL: s.URL, State: payments.SessionOpen, PaymentID: s.Metadata["payment"], CheckoutID: s.Metadata["checkout"],
		Amount: money.Amount(s.AmountTotal), Currency: strings.ToUpper(string(s.Currency)),
	}
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

// Refund implements payments.Processor. When Stripe keeps repeating a stored
// failure, or says that the key was used otherwise, the refunds of the intent tell
// whether it was done: the first request is long over, so what is not there by then
// will not come.
func (c *Client) Refund(ctx context.Context, r payments.RefundRequest) (payments.Refund, error) {
	out, err := c.api.Refunds.New(refundParams(ctx, r, r.Key))
	stuck := replayed500(err)
	if stuck || otherUse(err) {
		done, findErr := c.findRefund(ctx, r)
		switch {
		case findErr != nil:
			return payments.Refund{}, fmt.Errorf("find refund: %w", findErr)
		case done != nil:
			return refundOf(done), nil
		case !stuck:
			return payments.Refund{}, fmt.Errorf("refund: %w: %w", payments.ErrUnknownOutcome, err)
		}
		out, err = c.api.Refunds.New(refundParams(ctx, r, r.Key+"/again"))
	}
	if err != nil {
		return payments.Refund{}, fmt.Errorf("refund: %w", outcome(err))
	}
	return refundOf(out), whole(out.ID)
}

func refundParams(ctx context.Context, r payments.RefundRequest, key string) *stripego.RefundParams {
	p := &stripego.RefundParams{PaymentIntent: stripego.String(r.IntentID), Amount: stripego.Int64(int64(r.Amount))}
	p.Context = ctx
	p.AddMetadata("refund", r.RefundID)
	p.SetIdempotencyKey(key)
	return p
}

// otherUse reports that the key was used before with other parameters. That is a no
// to this request, and says nothing of the first one.
func otherUse(err error) bool {
	var se *stripego.Error
	return errors.As(err, &se) && se.Type == stripego.ErrorTypeIdempotency && se.HTTPStatusCode == http.StatusBadRequest
}

// findRefund looks for a refund by our own id; nil when there is none.
func (c *Client) findRefund(ctx context.Context, r payments.RefundRequest) (*stripego.Refund, error) {
	p := &stripego.RefundListParams{PaymentIntent: stripego.String(r.IntentID)}
	p.ListParams = stripego.ListParams{Context: ctx, Limit: stripego.Int64(pageSize)}
	it := c.api.Refunds.List(p)
	listed, err := read(it, it.Refund)
	if err != nil {
		return nil, err
	}
	for _, found := range listed {
		if found.Metadata["refund"] == r.RefundID {
			return found, nil
		}
	}
	return nil, nil
}

func refundOf(r *stripego.Refund) payments.Refund {
	out := payments.Refund{ID: r.ID, State: string(r.Status), FailureReason: string(r.FailureReason), Amount: money.Amount(r.Amount)}
	if r.Charge != nil {
		out.ChargeID = r.Charge.ID
	}
	return out
}
