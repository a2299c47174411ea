package payments

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"guichet/internal/money"
	"guichet/ledger"
	"guichet/payments/bill"
	"guichet/payments/fee"
)

// A SettlementLine is what one bill line of a payment becomes once its money has
// reached the bank: Net and Tax leave From and arrive in To and the tax account.
type SettlementLine struct {
	Department string // code; empty for a credit, which is the city's
	From       string // account path: billed, not collected; or the payers' credits
	To         string // account path: revenue; or the settled credits
	Net, Tax   money.Amount
	TaxCode    string // fee.Tax
	Dimensions ledger.Dimensions
}

// Settlement says what a succeeded payment becomes when it settles, line by line.
// The lines' sum is the payment's amount.
func (s *Service) Settlement(ctx context.Context, tx pgx.Tx, paymentID string) ([]SettlementLine, error) {
	p, err := Get(ctx, tx, paymentID)
	if err != nil {
		return nil, fmt.Errorf("settlement of payment %s: %w", paymentID, err)
	}
	if p.State != Succeeded {
		return nil, fmt.Errorf("settlement of payment %s: it is %s", p.Reference, p.State)
	}
	bills, err := bill.Load(ctx, tx, p.billIDs())
	if err != nil {
		return nil, fmt.Errorf("settlement of payment %s: %w", p.Reference, err)
	}
	credits, err := creditsOf(ctx, tx, p.ID)
	if err != nil {
		return nil, fmt.Errorf("settlement of payment %s: %w", p.Reference, err)
	}
	var lines []SettlementLine
	for _, b := range bills {
		if amount, ok := credits[b.ID]; ok {
			lines = append(lines, SettlementLine{From: Credits, To: CreditsSettled, Net: amount, TaxCode: string(fee.None)})
			continue
		}
		for _, a := range p.of(b.ID).Lines {
			l := b.Lines[a.Line-1]
			d := l.Dimensions
			d.Channel, d.Tender = p.Channel, p.Tender
			lines = append(lines, SettlementLine{
				Department: b.Department, From: bill.Uncollected(b.Department), To: l.Revenue,
				Net: a.Net + a.Step, Tax: a.Tax, TaxCode: string(l.TaxCode), Dimensions: d,
			})
		}
	}
	return lines, nil
}
