package stripe

import (
	"context"
	"crypto/hmac"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	stripego "github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/webhook"

	"guichet/payments"
)

// ParseEvent implements payments.Processor. The library's own check goes by the
// wall clock, takes events of the future, and reads a header with two times; this
// one has one time and both ends.
func (c *Client) ParseEvent(payload []byte, signature string, now time.Time) (payments.Event, error) {
	signed, err := c.verify(payload, signature)
	if err != nil {
		return payments.Event{}, err
	}
	switch age := now.Sub(signed); {
	case age > Tolerance:
		return payments.Event{}, payments.ErrStale
	case age < -Tolerance:
		return payments.Event{}, payments.ErrFuture
	}
	// The event may be of another API version: only ids are read, which have not changed.
	var e stripego.Event
	if err := json.Unmarshal(payload, &e); err != nil {
		return payments.Event{}, fmt.Errorf("%w: %w", payments.ErrMalformed, err)
	}
	return eventOf(&e)
}

// verify checks the header Stripe-Signature, "t=<unix>,v1=<hex>,…", against every
// secret, and returns the time in it. Several v1 are there while a secret is replaced.
func (c *Client) verify(payload []byte, header string) (time.Time, error) {
	var signed time.Time
	var sums [][]byte
	for part := range strings.SplitSeq(header, ",") {
		name, value, _ := strings.Cut(part, "=")
		switch name {
		case "t":
			seconds, err := strconv.ParseInt(value, 10, 64)
			if err != nil || !signed.IsZero() {
				return time.Time{}, payments.ErrSignature
			}
			signed = time.Unix(seconds, 0)
		case "v1":
			if sum, err := hex.DecodeString(value); err == nil {
				sums = append(sums, sum)
			}
		}
	}
	if signed.IsZero() {
		return time.Time{}, payments.ErrSignature
	}
	for _, secret := range c.secrets {
		want := webhook.ComputeSignature(signed, payload, secret)
		if slices.ContainsFunc(sums, func(sum []byte) bool { return hmac.Equal(sum, want) }) {
			return signed, nil
		}
	}
	return time.Time{}, payments.ErrSignature
}

// A record is what is kept of an event. The payer's name and e-mail, which Stripe
// sends along, must not be kept outside identity.
type record struct {
	ID         string `json:"id"`
	Type       string `json:"type"`
	APIVersion string `json:"api_version"`
	Created    int64  `json:"created"`
	Livemode   bool   `json:"livemode"`
	Object     struct {
		ID            string `json:"id"`
		Object        string `json:"object"`
		Status        string `json:"status,omitempty"`
		PaymentStatus string `json:"payment_status,omitempty"`
	} `json:"object"`
}

// eventOf reads an event as sent or listed, or returns ErrMalformed.
func eventOf(e *stripego.Event) (payments.Event, error) {
	kept := record{ID: e.ID, Type: string(e.Type), APIVersion: e.APIVersion, Created: e.Created, Livemode: e.Livemode}
	if e.Data != nil {
		if err := json.Unmarshal(e.Data.Raw, &kept.Object); err != nil {
			return payments.Event{}, fmt.Errorf("%w: %w", payments.ErrMalformed, err)
		}
	}
	if kept.ID == "" || kept.Type == "" || kept.Object.ID == "" {
		return payments.Event{}, fmt.Errorf("%w: no id, no type or no object", payments.ErrMalformed)
	}
	payload, err := json.Marshal(kept)
	if err != nil {
		return payments.Event{}, fmt.Errorf("record event: %w", err)
	}
	return payments.Event{ID: kept.ID, Type: kept.Type, ObjectID: kept.Object.ID, CreatedAt: time.Unix(e.Created, 0).UTC(), Live: e.Livemode, Payload: payload}, nil
}

// EventTypes are the types that a webhook endpoint must listen to, and that the
// poller reads. Stripe has several others for each of them.
var EventTypes = []string{
	"checkout.session.completed", "checkout.session.async_payment_succeeded", "checkout.session.async_payment_failed", "checkout.session.expired",
	"charge.refund.updated", "charge.dispute.created", "charge.dispute.closed",
	"payout.paid", "payout.failed", "payout.reconciliation_completed",
}

// Events implements payments.Processor: one page holds all.
func (c *Client) Events(ctx context.Context, since time.Time, _ string) ([]payments.Event, string, error) {
	p := &stripego.EventListParams{Types: stripego.StringSlice(EventTypes)}
	p.ListParams, p.CreatedRange = window(ctx, since)
	it := c.api.Events.List(p)
	listed, err := read(it, it.Event)
	if err != nil {
		return nil, "", fmt.Errorf("list events: %w", err)
	}
	events := make([]payments.Event, 0, len(listed))
	for _, e := range slices.Backward(listed) {
		event, err := eventOf(e)
		if err != nil {
			return nil, "", fmt.Errorf("list events: %w", err)
		}
		events = append(events, event)
	}
	return events, "", nil
}
