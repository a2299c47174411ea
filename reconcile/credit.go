package reconcile

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"guichet/internal/clock"
	"guichet/internal/id"
	"guichet/internal/money"
)

// A creditsResult counts what the step found.
type creditsResult struct {
	Credits int `json:"credits"`
}

// tellCredits opens an exception for each credit of a payer that finance has not
// been told of: money that came twice, or for a bill that had been withdrawn. It
// belongs to the payer and is never given back without being asked for.
func (n *Nightly) tellCredits(ctx context.Context, _ clock.Date) (any, error) {
	var did creditsResult
	err := pgx.BeginFunc(ctx, n.db, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `
			select c.id, c.amount_cents, c.reason, p.reference, b.notice_number
			from payments.credit c
			join payments.payment p on p.id = c.payment_id
			join payments.bill b on b.id = c.bill_id
			where not exists (select 1 from reconcile.exception e
				where e.type = $1 and e.object_type = 'credit' and e.object_id = c.id::text)
			order by c.id limit 10000`, string(PayerCredit))
		if err != nil {
			return err
		}
		type credit struct {
			ID                        string
			Amount                    money.Amount
			Reason, Reference, Notice string
		}
		credits, err := pgx.CollectRows(rows, pgx.RowToStructByPos[credit])
		if err != nil {
			return err
		}
		for _, c := range credits {
			text := "payment " + id.Group(c.Reference) + " came for bill " + id.Group(c.Notice) + ", which was paid already"
			if c.Reason == "bill_closed" {
				text = "payment " + id.Group(c.Reference) + " came for bill " + id.Group(c.Notice) + ", which could not be paid any more"
			}
			e := Exception{Kind: PayerCredit, ObjectType: "credit", ObjectID: c.ID, Amount: c.Amount}
			if err := n.open(ctx, tx, e, text); err != nil {
				return err
			}
		}
		did.Credits = len(credits)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("tell finance of credits: %w", err)
	}
	return did, nil
}
