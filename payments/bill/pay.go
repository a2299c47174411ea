package bill

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/department"
	"guichet/internal/audit"
	"guichet/internal/clock"
	"guichet/internal/id"
	"guichet/internal/money"
	"guichet/ledger"
)

// Reserve marks locked bills as being paid until a moment: everybody else is told.
// A bill that another payment holds is ErrBeingPaid. A reservation whose time is
// over is free to take.
func Reserve(ctx context.Context, tx pgx.Tx, billIDs []string, paymentID string, now, until time.Time) error {
	tag, err := tx.Exec(ctx, `
		insert into payments.reservation (bill_id, payment_id, until)
		select b, $2, $4 from unnest($1::uuid[]) b order by b
		on conflict (bill_id) do update set payment_id = excluded.payment_id, until = excluded.until
			where reservation.until <= $3 or reservation.payment_id = excluded.payment_id`,
		billIDs, paymentID, now, until)
	if err != nil {
		return fmt.Errorf("reserve bills: %w", err)
	}
	if int(tag.RowsAffected()) != len(billIDs) {
		return ErrBeingPaid
	}
	return nil
}

// Release frees what a payment reserved. Releasing again changes nothing. It takes
// the rows in the order of Reserve, which may be taking them over.
func Release(ctx context.Context, tx pgx.Tx, paymentID string) error {
	if _, err := tx.Exec(ctx, `
		delete from payments.reservation where bill_id = any(array(
			select bill_id from payments.reservation where payment_id = $1 order by bill_id for update)) and payment_id = $1`, paymentID); err != nil {
		return fmt.Errorf("release bills: %w", err)
	}
	return nil
}

// A Payment is money that arrived for one bill, as pinned when the payer agreed.
type Payment struct {
	ID        string
	Reference string
	On        clock.Date // the date its amounts were worked out for
	Lines     []QuoteLine
}

// Total is the sum of the payment's lines.
func (p Payment) Total() money.Amount {
	var t money.Amount
	for _, l := range p.Lines {
		t += l.Total()
	}
	return t
}

// Apply counts a payment towards a locked bill, in the caller's transaction: a
// step that the payer paid is crystallised into the books, the state moves, the
// department is told. It reports false, and changes nothing, when the bill no
// longer needs the money: the caller makes it a credit. The payment's own entry
// is the caller's.
func (s *Service) Apply(ctx context.Context, tx pgx.Tx, b *Bill, p Payment) (bool, error) {
	due := b.Quote(p.On)
	if !fits(due, p) {
		return false, nil
	}
	for _, l := range p.Lines {
		if line := &b.Lines[l.Line-1]; l.Step > 0 && !line.Crystallised {
			if err := s.crystallise(ctx, tx, b, line); err != nil {
				return false, err
			}
		}
		line := &b.Lines[l.Line-1]
		line.PaidNet += l.Net
		line.PaidStep += l.Step
		line.PaidTax += l.Tax
	}
	b.Paid += p.Total()
	to := Paid
	if p.Total() < due.Due {
		to = PartPaid
	}
	if err := s.move(ctx, tx, b, to, "payment "+p.Reference); err != nil {
		return false, err
	}
	event := "bill.paid"
	if to == PartPaid {
		event = "bill.part_paid"
	}
	return true, s.emit(ctx, tx, *b, event)
}

func fits(due Quote, p Payment) bool {
	if len(due.Lines) == 0 || len(p.Lines) == 0 {
		return false
	}
	for _, l := range p.Lines {
		d := due.Lines[l.Line-1]
		if l.Net > d.Net || l.Step > d.Step || l.Tax > d.Tax {
			return false
		}
	}
	return true
}

// crystallise puts a line's step into the books, once.
func (s *Service) crystallise(ctx context.Context, tx pgx.Tx, b *Bill, l *Line) error {
	dims := ledger.Dimensions{Department: b.Department}
	entryID, err := s.books.Append(ctx, tx, ledger.Entry{
		Key: "bill/" + b.ID + "/" + strconv.Itoa(l.Line) + "/early-lapsed", Kind: "bill.adjusted",
		EffectiveOn: clock.DateOf(s.now()), RecordedAt: s.now(), Currency: money.CAD,
		Lines: []ledger.Line{
			{Account: Receivable(b.Department), Amount: l.Step, Dimensions: dims},
			{Account: Uncollected(b.Department), Amount: -l.Step, Dimensions: dims},
		},
		SourceType: "bill", SourceID: b.ID, Actor: audit.From(ctx).Actor, Channel: audit.From(ctx).Channel,
		Description: "Early amount lapsed, bill " + id.Group(b.Notice),
	})
	if err != nil {
		return fmt.Errorf("crystallise line %d: %w", l.Line, err)
	}
	_, err = tx.Exec(ctx, `
		insert into payments.bill_adjustment (bill_id, line, kind, amount_cents, entry_id, created_at)
		values ($1, $2, 'early_lapsed', $3, $4, $5)`, b.ID, l.Line, l.Step, entryID, s.now())
	if err != nil {
		return fmt.Errorf("crystallise line %d: %w", l.Line, err)
	}
	b.Billed += l.Step
	l.Crystallised = true
	return nil
}

// Cancel withdraws a bill that nobody has paid or is paying, reverses it in the
// books and tells the department. Cancelling again changes nothing. Errors:
// ErrNotFound, ErrBeingPaid, *TransitionError.
func (s *Service) Cancel(ctx context.Context, departmentID, billID, reason string) (Bill, error) {
	b, _, err := s.CancelOnce(ctx, Cancellation{DepartmentID: departmentID, BillID: billID, Reason: reason})
	return b, err
}

// A Cancellation asks to withdraw a bill.
type Cancellation struct {
	DepartmentID   string
	BillID         string
	Reason         string
	IdempotencyKey string // empty: none
}

// CancelOnce is Cancel with an idempotency key of the department: the key used
// before for the same bill and reason reports replayed and changes nothing; for
// another, it is ErrConflict.
func (s *Service) CancelOnce(ctx context.Context, c Cancellation) (b Bill, replayed bool, err error) {
	err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		if !id.Valid(c.BillID) {
			return ErrNotFound
		}
		bills, err := Lock(ctx, tx, []string{c.BillID})
		if err != nil {
			return err
		}
		if b = bills[0]; b.DepartmentID != c.DepartmentID {
			return ErrNotFound
		}
		if replayed, err = s.useKey(ctx, tx, c); err != nil || replayed {
			return err
		}
		if b.State == Cancelled {
			return nil
		}
		if b.BeingPaidUntil.After(s.now()) {
			return ErrBeingPaid
		}
		if b.Paid > 0 {
			return &TransitionError{From: b.State, To: Cancelled}
		}
		return s.cancel(ctx, tx, &b, c.Reason)
	})
	if err != nil {
		return Bill{}, false, fmt.Errorf("cancel bill: %w", err)
	}
	return b, replayed, nil
}

// useKey keeps the idempotency key of a cancellation, or finds that it was used.
func (s *Service) useKey(ctx context.Context, tx pgx.Tx, c Cancellation) (used bool, err error) {
	if c.IdempotencyKey == "" {
		return false, nil
	}
	tag, err := tx.Exec(ctx, `
		insert into payments.bill_cancel_key (department_id, idempotency_key, bill_id, reason, used_at)
		values ($1, $2, $3, $4, $5) on conflict (department_id, idempotency_key) do nothing`,
		c.DepartmentID, c.IdempotencyKey, c.BillID, c.Reason, s.now())
	if err != nil {
		return false, fmt.Errorf("keep idempotency key: %w", err)
	}
	if tag.RowsAffected() == 1 {
		return false, nil
	}
	var same bool
	err = tx.QueryRow(ctx, `
		select bill_id = $3 and reason = $4 from payments.bill_cancel_key where department_id = $1 and idempotency_key = $2`,
		c.DepartmentID, c.IdempotencyKey, c.BillID, c.Reason).Scan(&same)
	if err != nil {
		return false, fmt.Errorf("look for idempotency key: %w", err)
	}
	if !same {
		return false, ErrConflict
	}
	return true, nil
}

func (s *Service) cancel(ctx context.Context, tx pgx.Tx, b *Bill, reason string) error {
	if reason == "" {
		return errors.Join(ErrInvalid, errors.New("a reason is needed"))
	}
	dims := ledger.Dimensions{Department: b.Department}
	_, err := s.books.Append(ctx, tx, ledger.Entry{
		Key: "bill/" + b.ID + "/cancelled", Kind: "bill.cancelled",
		EffectiveOn: clock.DateOf(s.now()), RecordedAt: s.now(), Currency: money.CAD,
		Lines: []ledger.Line{
			{Account: Uncollected(b.Department), Amount: b.Billed, Dimensions: dims},
			{Account: Receivable(b.Department), Amount: -b.Billed, Dimensions: dims},
		},
		SourceType: "bill", SourceID: b.ID, Actor: audit.From(ctx).Actor, Channel: audit.From(ctx).Channel,
		Description: "Cancelled, bill " + id.Group(b.Notice),
	})
	if err != nil {
		return err
	}
	if err := s.move(ctx, tx, b, Cancelled, "cancelled"); err != nil {
		return err
	}
	if err := audit.Record(ctx, tx, audit.Event{
		Action: "bill.cancelled", ObjectType: "bill", ObjectID: b.ID, Subject: b.ResidentID,
		At: s.now(), Details: map[string]any{"reason": reason},
	}); err != nil {
		return err
	}
	return s.emit(ctx, tx, *b, "bill.cancelled")
}

// told is what a department hears of its bill: no personal data.
type told struct {
	ID           string `json:"id"`
	Reference    string `json:"reference"`
	NoticeNumber string `json:"notice_number"`
	Type         string `json:"type"`
	State        State  `json:"state"`
	BilledCents  int64  `json:"billed_cents"`
	PaidCents    int64  `json:"paid_cents"`
	Currency     string `json:"currency"`
}

func (s *Service) emit(ctx context.Context, tx pgx.Tx, b Bill, event string) error {
	return s.depts.Emit(ctx, tx, department.Event{
		DepartmentID: b.DepartmentID, Type: event, ObjectType: "bill", ObjectID: b.ID, Sequence: b.Version,
		Data: told{
			ID: b.ID, Reference: b.Reference, NoticeNumber: id.Group(b.Notice), Type: b.Type, State: b.State,
			BilledCents: int64(b.Billed), PaidCents: int64(b.Paid), Currency: money.CAD,
		},
	})
}
