package payments

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"guichet/internal/audit"
	"guichet/internal/clock"
	"guichet/internal/id"
	"guichet/internal/money"
	"guichet/payments/bill"
)

// A BillError says which bill of a checkout stands in the way. It wraps ErrTaken
// or ErrNotPayable.
type BillError struct {
	Bill bill.Bill
	Err  error
}

func (e *BillError) Error() string { return fmt.Sprintf("bill %s: %v", e.Bill.Notice, e.Err) }
func (e *BillError) Unwrap() error { return e.Err }

var (
	ErrTaken      = errors.New("somebody else is paying this bill right now")
	ErrNotPayable = errors.New("the bill is paid or withdrawn")
)

// Pay returns the address of the processor's page for a checkout: a second click,
// another tab or the back button find the attempt of the first. What is due is
// worked out now and pinned. contactID, when not empty, is where a guest's receipt goes.
//
// Errors: ErrNotFound, ErrAlreadyPaid, ErrClosed, *BillError, *LimitError, and
// ErrUnknownOutcome when the processor did not answer: nothing is charged, and
// calling again asks for the same attempt.
func (s *Service) Pay(ctx context.Context, v Viewer, checkoutID, contactID string) (string, error) {
	// Twice is enough: the first round may only close an attempt whose amounts are out of date.
	for range 2 {
		p, stale, err := s.attempt(ctx, v, checkoutID, contactID)
		if err != nil {
			return "", fmt.Errorf("pay checkout: %w", err)
		}
		if stale {
			if err := s.abandon(ctx, p); err != nil {
				return "", fmt.Errorf("pay checkout: close the attempt before: %w", err)
			}
			continue
		}
		if p, err = s.openSession(ctx, p); err != nil {
			return "", fmt.Errorf("pay checkout: %w", err)
		}
		switch p.State {
		case Pending:
			return p.SessionURL, nil
		case Succeeded, Processing:
			return "", fmt.Errorf("pay checkout: %w", ErrAlreadyPaid)
		}
		return "", fmt.Errorf("pay checkout: %w", ErrClosed) // in another tab, at this moment
	}
	return "", fmt.Errorf("pay checkout: %w", ErrUnknownOutcome)
}

// attempt finds the live attempt of a checkout, or makes one: reserves the bills
// and pins what is due. stale tells that the live one will not do: it asks for other
// amounts than are due today, or the receipt would go to somebody else.
func (s *Service) attempt(ctx context.Context, v Viewer, checkoutID, contactID string) (p Payment, stale bool, err error) {
	err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		if !id.Valid(checkoutID) {
			return ErrNotFound
		}
		// The checkout's row is the queue for double clicks.
		if _, err := tx.Exec(ctx, `select from payments.checkout where id = $1 for no key update`, checkoutID); err != nil {
			return err
		}
		c, err := s.checkout(ctx, tx, v, checkoutID)
		if err != nil {
			return err
		}
		switch c.State {
		case "paid":
			return ErrAlreadyPaid
		case "expired", "cancelled":
			return ErrClosed
		}
		if c.Payment != nil && c.Payment.State.Live() {
			p = *c.Payment
			if p.State == Processing {
				return ErrAlreadyPaid
			}
			stale = !p.ExpiresAt.After(s.now()) || p.Amount != c.Total || p.QuotedOn != clock.DateOf(s.now()) || !p.belongsTo(v, contactID)
			return nil
		}
		p, err = s.create(ctx, tx, v, c, contactID)
		return err
	})
	return p, stale, err
}

// belongsTo reports whether an attempt was started by the viewer, for the same
// address of the receipt. No address this time leaves the first.
func (p Payment) belongsTo(v Viewer, contactID string) bool {
	return p.ResidentID == v.ResidentID && p.ActorID == v.Mandate.actor() && slices.Equal(p.Mandate, v.Mandate.ids()) && (contactID == "" || p.ContactID == contactID)
}

func (s *Service) create(ctx context.Context, tx pgx.Tx, v Viewer, c Checkout, contactID string) (Payment, error) {
	now := s.now()
	ids := make([]string, len(c.Bills))
	for i, b := range c.Bills {
		ids[i] = b.ID
	}
	bills, err := bill.Lock(ctx, tx, ids)
	if err != nil {
		return Payment{}, err
	}
	c.due(bills, ids, clock.DateOf(now)) // they may have changed between reading and locking
	p := Payment{
		ID: id.New(), CheckoutID: c.ID, Reference: id.Code(9), State: Created, Tender: "card", Channel: c.Channel, Amount: c.Total,
		QuotedOn: clock.DateOf(now), ResidentID: v.ResidentID, ActorID: v.Mandate.actor(), Mandate: v.Mandate.ids(), ContactID: contactID, Lang: c.Lang,
		CreatedAt: now, UpdatedAt: now, ExpiresAt: now.Add(sessionLife), seq: 1,
	}
	for _, b := range c.Bills {
		if !b.State.Payable() || b.Quote.Due == 0 {
			return Payment{}, &BillError{Bill: b.Bill, Err: ErrNotPayable}
		}
		if b.BeingPaidUntil.After(now) {
			return Payment{}, &BillError{Bill: b.Bill, Err: ErrTaken}
		}
		for _, l := range b.Quote.Lines {
			if l.Total() > 0 {
				p.Allocations = append(p.Allocations, Allocation{BillID: b.ID, Line: l.Line, Net: l.Net, Step: l.Step, Tax: l.Tax})
			}
		}
	}
	if err := v.Mandate.allow(ctx, tx, p.Amount, now); err != nil {
		return Payment{}, err
	}
	if err := insertPayment(ctx, tx, p); err != nil {
		return Payment{}, err
	}
	if err := bill.Reserve(ctx, tx, ids, p.ID, now, now.Add(reservationLife)); err != nil {
		return Payment{}, err
	}
	return p, audit.Record(ctx, tx, audit.Event{
		Action: "payment.created", ObjectType: "payment", ObjectID: p.ID, Subject: p.ResidentID, At: now,
		Details: map[string]any{"checkout": c.ID, "amount_cents": int64(p.Amount)},
	})
}

func insertPayment(ctx context.Context, tx pgx.Tx, p Payment) error {
	batch := new(pgx.Batch)
	batch.Queue(`
		insert into payments.payment (id, checkout_id, reference, state, tender, channel, amount_cents, quoted_on, resident_id, contact_id, lang,
			created_at, updated_at, expires_at, ask_at, actor_id, mandate)
		values ($1, $2, $3, $4, $5, $6, $7, $8, nullif($9, '')::uuid, nullif($10, '')::uuid, $11, $12, $12, $13, $14, nullif($15, '')::uuid, $16)`,
		p.ID, p.CheckoutID, p.Reference, string(p.State), p.Tender, p.Channel, p.Amount, p.QuotedOn.Time(), p.ResidentID, p.ContactID, p.Lang,
		p.CreatedAt, p.ExpiresAt, p.CreatedAt.Add(askFirst), p.ActorID, p.Mandate)
	for _, a := range p.Allocations {
		batch.Queue(`
			insert into payments.allocation (payment_id, bill_id, line, net_cents, step_cents, tax_cents) values ($1, $2, $3, $4, $5, $6)`,
			p.ID, a.BillID, a.Line, a.Net, a.Step, a.Tax)
	}
	batch.Queue(`
		insert into payments.payment_event (payment_id, seq, from_state, to_state, cause, at) values ($1, 1, '', $2, 'created', $3)`,
		p.ID, string(p.State), p.CreatedAt)
	err := tx.SendBatch(ctx, batch).Close()
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.ConstraintName == "payment_one_live" {
		return ErrTaken
	}
	if err != nil {
		return fmt.Errorf("store payment: %w", err)
	}
	return nil
}

// openSession asks the processor for the page of a payment that has none, and
// returns the payment as it is then: somebody else may have been faster. It may be
// called again at any time: the key makes it the same page.
func (s *Service) openSession(ctx context.Context, p Payment) (Payment, error) {
	if p.State != Created && p.State != Unknown {
		return p, nil
	}
	r, err := s.sessionRequest(ctx, p)
	if err != nil {
		return Payment{}, err
	}
	session, asked := s.processor.OpenSession(ctx, r)
	var refused *RefusedError
	err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		locked, err := lock(ctx, tx, p.ID)
		if err != nil {
			return err
		}
		p = locked
		if p.State != Created && p.State != Unknown {
			asked = nil // what we were told is old news
			return nil
		}
		switch {
		case asked == nil:
			p.SessionID, p.SessionURL = session.ID, session.URL
			return p.move(ctx, tx, Pending, "session opened", s.now())
		case errors.As(asked, &refused):
			if err := p.move(ctx, tx, Failed, "session refused: "+refused.Code, s.now()); err != nil {
				return err
			}
			return bill.Release(ctx, tx, p.ID)
		case p.State == Created:
			return p.move(ctx, tx, Unknown, "session not answered", s.now())
		}
		return nil
	})
	if err != nil {
		return Payment{}, err
	}
	if asked != nil {
		return Payment{}, fmt.Errorf("open session of payment %s: %w", p.Reference, asked)
	}
	return p, nil
}

func (s *Service) sessionRequest(ctx context.Context, p Payment) (SessionRequest, error) {
	due := make(map[string]money.Amount)
	var order []string
	for _, a := range p.Allocations {
		if !slices.Contains(order, a.BillID) {
			order = append(order, a.BillID)
		}
		due[a.BillID] += a.Total()
	}
	bills, err := bill.Load(ctx, s.db, order)
	if err != nil {
		return SessionRequest{}, err
	}
	r := SessionRequest{
		Key: "payment/" + p.ID + "/session", CheckoutID: p.CheckoutID, PaymentID: p.ID, Tender: p.Tender, Lang: p.Lang,
		SuccessURL: s.cfg.BaseURL + "/checkout/" + p.CheckoutID + "/return",
		CancelURL:  s.cfg.BaseURL + "/checkout/" + p.CheckoutID,
		ExpiresAt:  p.ExpiresAt,
	}
	for _, b := range bills {
		r.Lines = append(r.Lines, SessionLine{Name: b.DepartmentName(p.Lang) + " · " + id.Group(b.Notice), Amount: due[b.ID]})
	}
	return r, nil
}

// Cancel ends a checkout's live attempt and frees its bills. If the payer paid
// after all, the payment stands and Cancel returns ErrAlreadyPaid.
func (s *Service) Cancel(ctx context.Context, v Viewer, checkoutID string) error {
	c, err := s.Checkout(ctx, v, checkoutID)
	if err != nil {
		return err
	}
	if c.State == "paid" {
		return ErrAlreadyPaid
	}
	if c.Payment == nil || !c.Payment.State.Live() {
		return nil
	}
	if err := s.abandon(ctx, *c.Payment); err != nil {
		return fmt.Errorf("cancel checkout: %w", err)
	}
	return nil
}

// abandon closes an attempt at the processor, then here. The processor decides:
// when it says the session was paid, the payment succeeds instead, and the result
// is ErrAlreadyPaid; when it keeps the session open, ErrUnknownOutcome.
func (s *Service) abandon(ctx context.Context, p Payment) error {
	// The processor may or may not have a page for it. Ask for it by its key, so
	// that it can be closed; a page nobody was sent to cannot be paid.
	p, err := s.openSession(ctx, p)
	var refused *RefusedError
	if errors.As(err, &refused) {
		return nil
	}
	if err != nil {
		return err
	}
	if p.State == Pending {
		session, err := s.processor.ExpireSession(ctx, p.SessionID)
		if errors.As(err, &refused) { // it was paid, or has expired by itself
			session, err = s.processor.Session(ctx, p.SessionID)
		}
		if err != nil {
			return err
		}
		if p, err = s.apply(ctx, p.ID, session); err != nil {
			return err
		}
	}
	switch p.State {
	case Succeeded, Processing:
		return ErrAlreadyPaid
	case Pending:
		return fmt.Errorf("the session of payment %s is still open: %w", p.Reference, ErrUnknownOutcome)
	}
	return nil
}

// Sync asks the processor what became of a payment and applies its answer. The
// webhook's job, the poller and the return page all come through here, and may
// come at the same moment.
func (s *Service) Sync(ctx context.Context, paymentID string) (Payment, error) {
	p, err := Get(ctx, s.db, paymentID)
	if err != nil {
		return Payment{}, fmt.Errorf("sync payment: %w", err)
	}
	if p.State == Succeeded {
		return p, nil
	}
	if p.State == Created || p.State == Unknown {
		// Keys are remembered by the processor for a day: until then asking again is
		// safe. Past the attempt's life its page could not be used any more.
		if s.now().After(p.ExpiresAt) {
			return s.expire(ctx, p.ID)
		}
		if p, err = s.openSession(ctx, p); err != nil {
			return Payment{}, fmt.Errorf("sync payment: %w", err)
		}
	}
	if p.SessionID == "" {
		return p, nil
	}
	session, err := s.processor.Session(ctx, p.SessionID)
	if err != nil {
		return Payment{}, fmt.Errorf("sync payment %s: %w", p.Reference, err)
	}
	return s.apply(ctx, p.ID, session)
}

// expire ends an attempt for which no page was ever used.
func (s *Service) expire(ctx context.Context, paymentID string) (p Payment, err error) {
	err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		if p, err = lock(ctx, tx, paymentID); err != nil {
			return err
		}
		if p.State != Created && p.State != Unknown {
			return nil
		}
		if err := p.move(ctx, tx, Expired, "no page was opened in time", s.now()); err != nil {
			return err
		}
		return bill.Release(ctx, tx, p.ID)
	})
	if err != nil {
		return Payment{}, fmt.Errorf("expire payment: %w", err)
	}
	return p, nil
}

func lock(ctx context.Context, tx pgx.Tx, paymentID string) (Payment, error) {
	return onePayment(ctx, tx, `p.id = $1 for no key update`, paymentID)
}

// How long after it was started the poller asks about a payment first, and the
// longest it lets go by before it asks again.
const (
	askFirst = 20 * time.Second
	askLast  = time.Hour
)
