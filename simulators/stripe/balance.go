package stripe

import (
	"fmt"

	"guichet/internal/clock"
	"guichet/internal/money"
)

// A movement is a balance transaction to be.
type movement struct {
	kind, category string // type and reporting_category
	amount, fee    int64
	currency       string
	source         string
	description    text
	available      clock.Date
}

// balance records a movement of our balance.
func (t *tx) balance(m movement) *balanceTransaction {
	b := &balanceTransaction{
		ID: newID("balance_transaction"), Object: "balance_transaction", Amount: m.amount, Fee: m.fee, Net: m.amount - m.fee,
		Currency: m.currency, Created: t.now.Unix(), AvailableOn: m.available.Time().Unix(), Description: m.description,
		ReportingCategory: m.category, Source: text(m.source), Type: m.kind, FeeDetails: []feeDetail{},
	}
	if m.fee != 0 {
		what := "Stripe processing fees"
		if m.category == "dispute" {
			what = "Dispute fee"
		}
		b.FeeDetails = append(b.FeeDetails, feeDetail{Amount: m.fee, Currency: m.currency, Description: what, Type: "stripe_fee"})
	}
	t.put(b)
	return b
}

// cardFee is the price of a card charge: a share, rounded half up, and a fixed part.
func (t *tx) cardFee(amount int64) (int64, error) {
	share, err := money.Percent(money.Amount(amount), t.sim.opt.FeeRateMillionths)
	if err != nil {
		return 0, fmt.Errorf("fee of %d: %w", amount, err)
	}
	return int64(share + t.sim.opt.FeeFixed), nil
}

// debitFee is Stripe's list price in Canada for a pre-authorised debit: 1 % + 40 ¢,
// at most $5.
func debitFee(amount int64) int64 {
	return min((amount+50)/100+40, 500)
}

func getBalance(c *call) (any, error) {
	if err := c.done(); err != nil {
		return nil, err
	}
	available, pending := map[string]int64{}, map[string]int64{}
	for _, b := range all[balanceTransaction](c.tx) {
		if c.available(b) {
			available[b.Currency] += b.Net
		} else {
			pending[b.Currency] += b.Net
		}
		available[b.Currency] += 0 // both lists name every currency
		pending[b.Currency] += 0
	}
	return object{"object": "balance", "livemode": false, "available": amounts(available), "pending": amounts(pending)}, nil
}

func amounts(m map[string]int64) []any {
	if len(m) == 0 {
		m = map[string]int64{"cad": 0}
	}
	out := []any{}
	for currency, sum := range m {
		out = append(out, object{"amount": sum, "currency": currency, "source_types": object{"card": sum}})
	}
	return out
}

func listBalanceTransactions(c *call) (any, error) {
	source, kind, currency, created := c.text("source", 255), c.text("type", 100), c.text("currency", 3), c.created("created")
	payoutID := c.text("payout", 255)
	if payoutID != "" {
		p, ok := get[payout](c.tx, payoutID)
		switch {
		case !ok:
			return nil, missing("payout", payoutID, "payout")
		case p.ReconciliationStatus != "completed":
			return nil, badState("payout_reconciliation_not_ready", "The balance transactions of this payout are not ready yet: its reconciliation_status is %s.", p.ReconciliationStatus)
		}
	}
	return page[balanceTransaction](c, func(b *balanceTransaction) bool {
		return is(source, b.Source) && is(kind, b.Type) && is(currency, b.Currency) && created(b.Created) && is(payoutID, b.Sim.Payout)
	})
}
