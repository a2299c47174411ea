package payments

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/department"
	"guichet/internal/audit"
	"guichet/internal/clock"
	"guichet/internal/id"
	"guichet/internal/money"
	"guichet/ledger"
	"guichet/payments/bill"
)

// apply brings a payment to where the processor's session says it is. Applying
// the same session again changes nothing; an older one cannot undo a newer.
func (s *Service) apply(ctx context.Context, paymentID string, session Session) (p Payment, err error) {
	err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		if p, err = lock(ctx, tx, paymentID); err != nil {
			return err
		}
		if session.PaymentID != p.ID || session.Amount != p.Amount || session.Currency != money.CAD {
			return fmt.Errorf("session %s is for %s %s, payment %s for %s: %w",
				session.ID, session.Amount, session.Currency, p.Reference, p.Amount, ErrMismatch)
		}
		if p.State == Succeeded {
			return nil
		}
		if p.SessionID != "" && p.SessionID != session.ID && session.State != SessionPaid {
			return nil // a page whose address never arrived, before this one: it ends only itself
		}
		p.SessionID = session.ID
		if session.IntentID != "" {
			p.IntentID = session.IntentID
		}
		switch session.State {
		case SessionPaid:
			p.ChargeID, p.Card, p.SessionURL = session.ChargeID, session.Card, ""
			p.SucceededAt = takenAt(session, p, s.now())
			return s.succeed(ctx, tx, &p)
		case SessionProcessing:
			return s.await(ctx, tx, &p)
		case SessionFailed:
			return s.end(ctx, tx, &p, Failed)
		case SessionExpired:
			return s.end(ctx, tx, &p, Expired)
		}
		return nil
	})
	if err != nil {
		return Payment{}, fmt.Errorf("apply session %s: %w", session.ID, err)
	}
	return p, nil
}

// takenAt is when the processor took the money: the receipt's date, by which a
// deadline was kept. Its clock counts between the attempt and now.
func takenAt(session Session, p Payment, now time.Time) time.Time {
	switch at := session.PaidAt; {
	case at.IsZero(), at.After(now):
		return now
	case at.Before(p.CreatedAt):
		return p.CreatedAt
	default:
		return at
	}
}

// end moves a payment to where no money comes any more, and frees its bills.
func (s *Service) end(ctx context.Context, tx pgx.Tx, p *Payment, to State) error {
	moved, err := s.shift(ctx, tx, p, to)
	if err != nil || !moved {
		return err
	}
	return bill.Release(ctx, tx, p.ID)
}

// await moves a payment to where its money is on the way, and holds its bills for
// as long as that takes. Bills that somebody else holds by now are left to them.
func (s *Service) await(ctx context.Context, tx pgx.Tx, p *Payment) error {
	moved, err := s.shift(ctx, tx, p, Processing)
	if err != nil || !moved {
		return err
	}
	if _, err := bill.Lock(ctx, tx, p.billIDs()); err != nil {
		return err
	}
	err = bill.Reserve(ctx, tx, p.billIDs(), p.ID, s.now(), s.now().Add(debitLife))
	if errors.Is(err, bill.ErrBeingPaid) {
		return nil
	}
	return err
}

// shift moves a payment unless it is there or further already.
func (s *Service) shift(ctx context.Context, tx pgx.Tx, p *Payment, to State) (moved bool, err error) {
	if p.State == to {
		return false, nil
	}
	p.SessionURL = ""
	err = p.move(ctx, tx, to, "processor: "+string(to), s.now())
	var bad *TransitionError
	if errors.As(err, &bad) {
		return false, nil // an event that came late
	}
	return err == nil, err
}

// succeededKind is the kind of the entries that receipts are about.
const succeededKind = "payment.succeeded"

// succeed records that the processor took the money: state, books, bills, events
// and the jobs that follow commit together or not at all.
func (s *Service) succeed(ctx context.Context, tx pgx.Tx, p *Payment) error {
	// Before its bills: Pay holds a checkout while it waits for bills.
	if _, err := tx.Exec(ctx, `update payments.checkout set state = 'paid', updated_at = $2 where id = $1`, p.CheckoutID, s.now()); err != nil {
		return fmt.Errorf("close checkout: %w", err)
	}
	bills, err := bill.Lock(ctx, tx, p.billIDs())
	if err != nil {
		return err
	}
	lines := []ledger.Line{{Account: Clearing, Amount: p.Amount, Dimensions: ledger.Dimensions{Channel: p.Channel, Tender: p.Tender}}}
	told := make(map[string]*paid) // by department
	for i := range bills {
		b := &bills[i]
		bp := p.of(b.ID)
		ok, err := s.bills.Apply(ctx, tx, b, bp)
		if err != nil {
			return err
		}
		line := ledger.Line{Account: Credits, Amount: -bp.Total(), Dimensions: ledger.Dimensions{Channel: p.Channel, Tender: p.Tender}}
		if ok {
			line.Account, line.Dimensions.Department = bill.Receivable(b.Department), b.Department
			tell(told, *b, *p, bp.Total())
		} else if err := s.credit(ctx, tx, *p, *b, bp.Total()); err != nil {
			return err
		}
		lines = append(lines, line)
	}
	p.EntryID, err = s.books.Append(ctx, tx, ledger.Entry{
		Key: "payment/" + p.ID + "/succeeded", Kind: succeededKind, EffectiveOn: clock.DateOf(s.now()), RecordedAt: s.now(),
		Currency: money.CAD, Lines: lines, SourceType: "payment", SourceID: p.ID, Actor: audit.From(ctx).Actor, Channel: p.Channel,
		Description: "Payment " + id.Group(p.Reference),
	})
	if err != nil {
		return err
	}
	if err := p.move(ctx, tx, Succeeded, "processor took the money", s.now()); err != nil {
		return err
	}
	return s.afterwards(ctx, tx, *p, told)
}

// afterwards frees the bills, tells the departments and queues the receipt.
func (s *Service) afterwards(ctx context.Context, tx pgx.Tx, p Payment, told map[string]*paid) error {
	if err := bill.Release(ctx, tx, p.ID); err != nil {
		return err
	}
	for departmentID, data := range told {
		if err := s.depts.Emit(ctx, tx, department.Event{
			DepartmentID: departmentID, Type: "payment.succeeded", ObjectType: "payment", ObjectID: p.ID, Sequence: p.seq, Data: data,
		}); err != nil {
			return err
		}
	}
	if err := s.queue.Insert(ctx, tx, ReceiptArgs{PaymentID: p.ID}, nil); err != nil {
		return err
	}
	return audit.Record(ctx, tx, audit.Event{
		Action: "payment.succeeded", ObjectType: "payment", ObjectID: p.ID, Subject: p.ResidentID, At: s.now(),
		Details: map[string]any{"amount_cents": int64(p.Amount), "entry": p.EntryID},
	})
}

// credit keeps money that its bill no longer needs for whoever paid it.
func (s *Service) credit(ctx context.Context, tx pgx.Tx, p Payment, b bill.Bill, amount money.Amount) error {
	reason := "bill_already_paid"
	if b.State != bill.Paid {
		reason = "bill_closed"
	}
	creditID := id.New()
	_, err := tx.Exec(ctx, `
		insert into payments.credit (id, payment_id, bill_id, resident_id, amount_cents, reason, created_at)
		values ($1, $2, $3, nullif($4, '')::uuid, $5, $6, $7)`, creditID, p.ID, b.ID, p.ResidentID, amount, reason, s.now())
	if err != nil {
		return fmt.Errorf("keep credit: %w", err)
	}
	return audit.Record(ctx, tx, audit.Event{
		Action: "credit.created", ObjectType: "credit", ObjectID: creditID, Subject: p.ResidentID, At: s.now(),
		Details: map[string]any{"payment": p.ID, "bill": b.ID, "amount_cents": int64(amount), "reason": reason},
	})
}

// paid is what a department hears of a payment: its own part, no personal data.
type paid struct {
	ID          string     `json:"id"`
	Reference   string     `json:"reference"`
	AmountCents int64      `json:"amount_cents"`
	Currency    string     `json:"currency"`
	Tender      string     `json:"tender"`
	Bills       []paidBill `json:"bills"`
}

type paidBill struct {
	ID          string `json:"id"`
	Reference   string `json:"reference"`
	AmountCents int64  `json:"amount_cents"`
}

func tell(told map[string]*paid, b bill.Bill, p Payment, amount money.Amount) {
	t := told[b.DepartmentID]
	if t == nil {
		t = &paid{ID: p.ID, Reference: p.Reference, Currency: money.CAD, Tender: p.Tender}
		told[b.DepartmentID] = t
	}
	t.AmountCents += int64(amount)
	t.Bills = append(t.Bills, paidBill{ID: b.ID, Reference: b.Reference, AmountCents: int64(amount)})
}

func (p Payment) billIDs() []string {
	var ids []string
	for _, a := range p.Allocations { // ordered by bill
		if len(ids) == 0 || ids[len(ids)-1] != a.BillID {
			ids = append(ids, a.BillID)
		}
	}
	return ids
}

// of is the part of the payment that is for one bill.
func (p Payment) of(billID string) bill.Payment {
	bp := bill.Payment{ID: p.ID, Reference: p.Reference, On: p.QuotedOn}
	for _, a := range p.Allocations {
		if a.BillID == billID {
			bp.Lines = append(bp.Lines, bill.QuoteLine{Line: a.Line, Net: a.Net, Step: a.Step, Tax: a.Tax})
		}
	}
	return bp
}
