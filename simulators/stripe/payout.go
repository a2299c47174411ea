package stripe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"guichet/internal/clock"
)

// The states of a payout.
const (
	payoutPending   = "pending"
	payoutInTransit = "in_transit"
	payoutPaid      = "paid"
	payoutFailed    = "failed"
)

// duePayout makes the automatic payout of a currency: everything available that
// went out with none yet. It returns nil when nothing is due. A balance below
// zero is collected from the bank only when no money under way will cover it.
func (t *tx) duePayout(currency string, arrives clock.Date) (*payout, error) {
	var lines []*balanceTransaction
	var sum, coming int64
	for _, b := range all[balanceTransaction](t) {
		switch {
		case b.Currency != currency || b.Sim.Payout != "":
		case !t.available(b):
			coming += b.Net
		default:
			sum += b.Net
			lines = append(lines, b)
		}
	}
	if sum == 0 || sum < 0 && sum+coming >= 0 {
		return nil, nil
	}
	p := &payout{
		ID: newID("payout"), Object: "payout", Amount: sum, ArrivalDate: arrives.Time().Unix(), Automatic: true, Created: t.now.Unix(),
		Currency: currency, Metadata: map[string]string{}, ReconciliationStatus: "in_progress", Status: payoutPending, TraceID: trace{Status: "pending"},
	}
	own := t.balance(movement{kind: "payout", category: "payout", amount: -sum, currency: currency, source: p.ID, description: "STRIPE PAYOUT", available: arrives})
	p.BalanceTransaction = text(own.ID)
	for _, b := range append(lines, own) {
		b.Sim.Payout = p.ID
		t.put(b)
	}
	t.put(p)
	return p, t.emit("payout.created", p, nil)
}

// depart sends a payout on its way.
func (t *tx) depart(p *payout) error {
	if p.Status != payoutPending {
		return badState("", "Payout %s is %s", p.ID, p.Status)
	}
	p.Status = payoutInTransit
	t.put(p)
	return t.emit("payout.updated", p, object{"status": payoutPending})
}

// arrive pays a payout: the bank is told, and the breakdown is complete.
func (t *tx) arrive(p *payout) error {
	if p.Status == payoutPending {
		if err := t.depart(p); err != nil {
			return err
		}
	}
	if p.Status != payoutInTransit {
		return badState("", "Payout %s is %s", p.ID, p.Status)
	}
	p.Status = payoutPaid
	p.TraceID = trace{Status: "supported", Value: text("TR" + random(12, base32))}
	t.put(p)
	t.credit(p, string(p.TraceID.Value), p.Amount, "STRIPE PAYOUT")
	if err := t.emit("payout.paid", p, nil); err != nil {
		return err
	}
	return t.reconcile(p)
}

// reconcile completes the breakdown of a payout.
func (t *tx) reconcile(p *payout) error {
	if p.ReconciliationStatus == "completed" {
		return nil
	}
	p.ReconciliationStatus = "completed"
	t.put(p)
	return t.emit("payout.reconciliation_completed", p, nil)
}

var payoutFailures = []string{
	"account_closed", "account_frozen", "bank_account_restricted", "could_not_process", "debit_not_authorized", "declined",
	"incorrect_account_holder_name", "invalid_account_number", "invalid_currency", "no_account",
}

// failPayout returns a payout, even days after it was paid. The money is on our
// balance again and goes out with the next one.
func (t *tx) failPayout(p *payout, code string) error {
	if p.Status == payoutFailed || !slices.Contains(payoutFailures, code) {
		return badState("", "Payout %s is %s; failure_code: one of %s", p.ID, p.Status, strings.Join(payoutFailures, ", "))
	}
	if p.Status == payoutPaid { // the bank sends back what it had credited
		t.credit(p, "R"+string(p.TraceID.Value), -p.Amount, "STRIPE PAYOUT RETURNED "+strings.ToUpper(code))
	}
	b := t.balance(movement{kind: "payout_failure", category: "payout_reversal", amount: p.Amount, currency: p.Currency, source: p.ID, description: "STRIPE PAYOUT FAILURE", available: businessDays(t.now, 0)})
	p.Status, p.FailureCode, p.FailureBalanceTransaction = payoutFailed, text(code), text(b.ID)
	p.FailureMessage = text("The bank returned the payout: " + strings.ReplaceAll(code, "_", " "))
	t.put(p)
	return t.emit("payout.failed", p, nil)
}

func listPayouts(c *call) (any, error) {
	status, created, arrival := c.text("status", 20), c.created("created"), c.created("arrival_date")
	return page[payout](c, func(p *payout) bool { return is(status, p.Status) && created(p.Created) && arrival(p.ArrivalDate) })
}

func listEvents(c *call) (any, error) {
	kind, kinds, created := c.text("type", 100), c.texts("types"), c.created("created")
	delivered, asked := c.flag("delivery_success")
	if kind != "" && len(kinds) > 0 {
		return nil, badParam("parameters_exclusive", "types", "You may pass either type or types, but not both.")
	}
	if kind != "" {
		kinds = []string{kind}
	}
	return page[event](c, func(e *event) bool {
		named := len(kinds) == 0 || slices.ContainsFunc(kinds, func(k string) bool {
			group, all := strings.CutSuffix(k, "*")
			return k == e.Type || all && strings.HasPrefix(e.Type, group)
		})
		return named && created(e.Created) && (!asked || delivered == (c.sim.pending[e.ID] == 0))
	})
}

// A credit is a message to the bank simulator: our money arrives, or is taken.
type credit struct {
	ID        string `json:"id"`
	At        int64  `json:"at"` // milliseconds: when to tell it
	Attempt   int    `json:"attempt"`
	Amount    int64  `json:"amount"`
	Currency  string `json:"currency"`
	Reference string `json:"reference"`
	Text      string `json:"text"`
	ValueDate string `json:"value_date"`
}

func (*credit) kind() string    { return "credit" }
func (c *credit) rowID() string { return c.ID }
func (c *credit) dueAt() int64  { return c.At }

func (t *tx) credit(p *payout, reference string, amount int64, words string) {
	if t.sim.opt.BankURL == "" {
		return
	}
	on := clock.FromTime(unix(p.ArrivalDate))
	if today := clock.DateOf(t.now); today.After(on) {
		on = today
	}
	t.put(&credit{ID: "credit:" + reference, At: t.now.UnixMilli(), Amount: amount, Currency: strings.ToUpper(p.Currency), Reference: reference, Text: words, ValueDate: on.String()})
}

// tellBank makes one attempt; the bank knows a message it had before by its
// reference. The error is for what prevents an attempt.
func (s *Simulator) tellBank(ctx context.Context, c *credit) error {
	err := s.postCredit(ctx, c)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		s.opt.Log.WarnContext(ctx, "bank was not told of payout", "reference", c.Reference, "attempt", c.Attempt+1, "error", err)
	}
	return s.update(eventRequest{}, func(t *tx) error {
		if err == nil {
			t.drop(c.ID)
			return nil
		}
		next := *c
		next.Attempt++
		next.At = t.now.Add(backoff[min(c.Attempt, len(backoff)-1)]).UnixMilli()
		t.put(&next)
		return nil
	})
}

func (s *Simulator) postCredit(ctx context.Context, c *credit) error {
	body, err := json.Marshal(object{"amount_cents": c.Amount, "currency": c.Currency, "reference": c.Reference, "text": c.Text, "value_date": c.ValueDate})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, s.opt.BankURL+"/_control/credits", bytes.NewReader(body))
	if err != nil {
		return err
	}
	q.Header.Set("Content-Type", "application/json")
	r, err := s.http.Do(q)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if r.StatusCode < 200 || r.StatusCode > 299 {
		said, err := io.ReadAll(io.LimitReader(r.Body, 500))
		return errors.Join(err, fmt.Errorf("bank answered %d: %s", r.StatusCode, said))
	}
	return nil
}
