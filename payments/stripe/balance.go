package stripe

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	stripego "github.com/stripe/stripe-go/v76"

	"guichet/internal/money"
	"guichet/payments"
)

// window is a list of what was created since a moment. Stripe lists the newest
// first; its cursor only goes back, so a window is read whole and turned around.
func window(ctx context.Context, since time.Time) (stripego.ListParams, *stripego.RangeQueryParams) {
	return stripego.ListParams{Context: ctx, Limit: stripego.Int64(pageSize)}, &stripego.RangeQueryParams{GreaterThanOrEqual: since.Unix()}
}

// iter is what the library's iterators have in common.
type iter interface {
	Next() bool
	Err() error
	Meta() *stripego.ListMeta
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
	// Every list of Stripe's names its URL. Without this an answer that is no list
	// would read as an empty one, and the poller would move on.
	return out, whole(it.Meta().URL)
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
		if err := whole(payout.ID); err != nil {
			return nil, "", fmt.Errorf("read payout: %w", err)
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
