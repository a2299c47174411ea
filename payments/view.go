package payments

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/id"
	"guichet/internal/money"
)

// What staff look at. None of it asks who may see the payment: the caller does,
// and writes down who looked.

// ByReference reads the payment whose reference somebody typed, or ErrNotFound.
func ByReference(ctx context.Context, q Querier, typed string) (Payment, error) {
	reference, ok := id.Normalize(typed)
	if !ok {
		return Payment{}, ErrNotFound
	}
	return onePayment(ctx, q, `p.reference = $1`, reference)
}

// ByReceiptNumber reads the payment that a receipt is for, or ErrNotFound.
func ByReceiptNumber(ctx context.Context, q Querier, number int64) (Payment, error) {
	return onePayment(ctx, q, `p.id = (select payment_id from payments.receipt where number = $1)`, number)
}

// ReceiptOf reads a payment's receipt, or ErrNotFound while it has none.
func ReceiptOf(ctx context.Context, q Querier, paymentID string) (Receipt, error) {
	if !id.Valid(paymentID) {
		return Receipt{}, ErrNotFound
	}
	return oneReceipt(ctx, q, `r.payment_id = $1`, paymentID)
}

// Credited returns what a payment brought that its bills no longer needed, by bill.
func Credited(ctx context.Context, q Querier, paymentID string) (map[string]money.Amount, error) {
	if !id.Valid(paymentID) {
		return nil, ErrNotFound
	}
	return creditsOf(ctx, q, paymentID)
}

// A StateEvent is one step in the life of a payment.
type StateEvent struct {
	Seq      int64
	From, To State // From is empty for its beginning
	Cause    string
	At       time.Time
}

// History lists what happened to a payment, oldest first.
func History(ctx context.Context, q Querier, paymentID string) ([]StateEvent, error) {
	rows, err := q.Query(ctx, `
		select seq, from_state, to_state, cause, at from payments.payment_event
		where payment_id = $1 order by seq limit 1000`, paymentID)
	if err != nil {
		return nil, fmt.Errorf("read history of payment: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[StateEvent])
	if err != nil {
		return nil, fmt.Errorf("read history of payment: %w", err)
	}
	return list, nil
}

// A Part is what one payment is for one bill.
type Part struct {
	PaymentID   string
	Reference   string
	State       State
	Tender      string
	Channel     string
	Amount      money.Amount // of this bill
	Credit      bool         // the bill no longer needed it: the payer owns it
	Receipt     int64        // number; 0: none
	CreatedAt   time.Time
	SucceededAt time.Time // zero unless it succeeded
}

// OfBill lists the payments that were for a bill, attempts included, the newest first.
func OfBill(ctx context.Context, q Querier, billID string) ([]Part, error) {
	rows, err := q.Query(ctx, `
		select p.id, p.reference, p.state, p.tender, p.channel, a.amount,
			exists (select from payments.credit c where c.payment_id = p.id and c.bill_id = $1),
			coalesce((select number from payments.receipt r where r.payment_id = p.id), 0), p.created_at, p.succeeded_at
		from (
			select payment_id, sum(net_cents + step_cents + tax_cents)::bigint as amount
			from payments.allocation where bill_id = $1 group by payment_id) a
		join payments.payment p on p.id = a.payment_id
		order by p.id desc limit 200`, billID)
	if err != nil {
		return nil, fmt.Errorf("list payments of bill: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (p Part, err error) {
		var succeeded *time.Time
		err = row.Scan(&p.PaymentID, &p.Reference, &p.State, &p.Tender, &p.Channel, &p.Amount, &p.Credit, &p.Receipt, &p.CreatedAt, &succeeded)
		if succeeded != nil {
			p.SucceededAt = *succeeded
		}
		return p, err
	})
	if err != nil {
		return nil, fmt.Errorf("list payments of bill: %w", err)
	}
	return list, nil
}

// A Brief is a payment in a list: what people read, and which bills it was for.
type Brief struct {
	ID, Reference string
	Receipt       int64 // number; 0: none
	Bills         []BriefBill
}

// A BriefBill is one bill of a Brief.
type BriefBill struct{ ID, Notice, Department string }

// Briefs reads payments for a list, by id. Unknown ids are left out.
func Briefs(ctx context.Context, q Querier, ids []string) (map[string]Brief, error) {
	rows, err := q.Query(ctx, `
		select p.id, p.reference, coalesce(r.number, 0), b.id, b.notice_number, d.code
		from payments.payment p
		left join payments.receipt r on r.payment_id = p.id
		join lateral (select distinct bill_id from payments.allocation where payment_id = p.id) a on true
		join payments.bill b on b.id = a.bill_id join department.department d on d.id = b.department_id
		where p.id = any($1::uuid[]) order by p.id, b.id`, ids)
	if err != nil {
		return nil, fmt.Errorf("read payments: %w", err)
	}
	list := map[string]Brief{}
	var p Brief
	var b BriefBill
	_, err = pgx.ForEachRow(rows, []any{&p.ID, &p.Reference, &p.Receipt, &b.ID, &b.Notice, &b.Department}, func() error {
		p.Bills = append(list[p.ID].Bills, b)
		list[p.ID] = p
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read payments: %w", err)
	}
	return list, nil
}
