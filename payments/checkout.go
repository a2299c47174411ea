package payments

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/audit"
	"guichet/internal/clock"
	"guichet/internal/id"
	"guichet/internal/money"
	"guichet/payments/bill"
)

// A Checkout is one wish to pay some bills, with as many attempts as it takes.
type Checkout struct {
	ID           string
	State        string // open, paid, expired, cancelled
	Channel      string
	DepartmentID string
	ResidentID   string
	ContactID    string
	Lang         string
	ReturnURL    string // where a department wants the payer back; empty for our own pages
	CreatedAt    time.Time
	ExpiresAt    time.Time
	Bills        []DueBill
	Total        money.Amount // due now, all bills
	Payment      *Payment     // the latest attempt; nil: none yet
	Receipt      *Receipt     // once the payment is numbered
}

// A DueBill is a bill with what is due of it today.
type DueBill struct {
	bill.Bill
	Quote bill.Quote
}

// A NewCheckout asks for a checkout of bills that the caller has proved the payer
// may see: the resident's own, a guest's with its second factor, or the department's.
type NewCheckout struct {
	BillIDs        []string
	Channel        string
	DepartmentID   string // set when a department opens it: its bills only
	IdempotencyKey string // with DepartmentID
	Viewer         Viewer
	Lang           string
	ReturnURL      string
}

// Open creates a checkout and returns its id and the secret of its link, which
// lets whoever holds it pay. Errors: bill.ErrNotFound, ErrConflict, ErrEmpty, *LimitError.
// Paid or reserved bills are told when paying, not here.
func (s *Service) Open(ctx context.Context, n NewCheckout) (checkoutID, token string, err error) {
	checkoutID, token, _, err = s.OpenOnce(ctx, n)
	return checkoutID, token, err
}

// OpenOnce is Open, and reports whether the department's idempotency key had been
// used before, for the same.
func (s *Service) OpenOnce(ctx context.Context, n NewCheckout) (checkoutID, token string, replayed bool, err error) {
	if len(n.BillIDs) == 0 || len(n.BillIDs) > 50 {
		return "", "", false, fmt.Errorf("open checkout: %d bills, want 1 to 50: %w", len(n.BillIDs), ErrEmpty)
	}
	for _, b := range n.BillIDs {
		if !id.Valid(b) {
			return "", "", false, fmt.Errorf("open checkout: %w", bill.ErrNotFound)
		}
	}
	err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		checkoutID, replayed, err = s.open(ctx, tx, n)
		return err
	})
	if err != nil {
		return "", "", false, fmt.Errorf("open checkout: %w", err)
	}
	return checkoutID, s.linkToken(checkoutID), replayed, nil
}

func (s *Service) open(ctx context.Context, tx pgx.Tx, n NewCheckout) (checkoutID string, replayed bool, err error) {
	bills, err := bill.Load(ctx, tx, n.BillIDs)
	if err != nil {
		return "", false, err
	}
	if len(bills) != len(n.BillIDs) {
		return "", false, fmt.Errorf("a bill is named twice: %w", bill.ErrInvalid)
	}
	for _, b := range bills {
		if n.DepartmentID != "" && b.DepartmentID != n.DepartmentID {
			return "", false, bill.ErrNotFound
		}
	}
	now := s.now()
	if n.Viewer.Mandate != nil {
		var c Checkout
		c.due(bills, n.BillIDs, clock.DateOf(now))
		if err := n.Viewer.Mandate.allow(ctx, tx, c.Total, now); err != nil {
			return "", false, err
		}
	}
	text, err := json.Marshal([]any{n.BillIDs, n.Lang, n.ReturnURL})
	if err != nil {
		return "", false, err
	}
	checkoutID = id.New()
	resident := n.Viewer.ResidentID
	if n.DepartmentID != "" {
		resident = sharedOwner(bills)
	}
	var stored string
	var hash []byte
	err = tx.QueryRow(ctx, `
		insert into payments.checkout (id, state, channel, department_id, idempotency_key, body_hash, token_hash, resident_id, lang, return_url,
			created_at, updated_at, expires_at)
		values ($1, 'open', $2, nullif($3, '')::uuid, nullif($4, ''), $5, $6, nullif($7, '')::uuid, $8, $9, $10, $10, $11)
		on conflict (department_id, idempotency_key) do update set updated_at = checkout.updated_at
		returning id, body_hash`,
		checkoutID, n.Channel, n.DepartmentID, n.IdempotencyKey, hashOf(text), id.Hash(s.linkToken(checkoutID)),
		resident, n.Lang, n.ReturnURL, now, now.Add(checkoutLife)).Scan(&stored, &hash)
	if err != nil {
		return "", false, fmt.Errorf("store checkout: %w", err)
	}
	if stored != checkoutID {
		if !bytes.Equal(hash, hashOf(text)) {
			return "", false, ErrConflict
		}
		return stored, true, nil
	}
	_, err = tx.Exec(ctx, `
		insert into payments.checkout_bill (checkout_id, position, bill_id)
		select $1, o, b from unnest($2::uuid[]) with ordinality t (b, o)`, checkoutID, n.BillIDs)
	if err != nil {
		return "", false, fmt.Errorf("store checkout's bills: %w", err)
	}
	// A resident's checkout is seen after signing in, and not by the next person at a
	// shared computer, or whoever left a cookie there.
	if n.Viewer.ResidentID == "" {
		if err := grant(ctx, tx, n.Viewer.GuestHash, checkoutID); err != nil {
			return "", false, err
		}
	}
	return checkoutID, false, audit.Record(ctx, tx, audit.Event{
		Action: "checkout.opened", ObjectType: "checkout", ObjectID: checkoutID,
		Subject: resident, At: now, Details: map[string]any{"bills": len(bills)},
	})
}

// sharedOwner is the owner that all bills have, or none.
func sharedOwner(bills []bill.Bill) string {
	owner := bills[0].ResidentID
	for _, b := range bills {
		if b.ResidentID != owner {
			return ""
		}
	}
	return owner
}

func grant(ctx context.Context, tx pgx.Tx, guestHash []byte, checkoutID string) error {
	if len(guestHash) == 0 {
		return nil
	}
	_, err := tx.Exec(ctx, `
		insert into payments.guest_access (guest_hash, checkout_id) values ($1, $2) on conflict do nothing`, guestHash, checkoutID)
	if err != nil {
		return fmt.Errorf("grant access to checkout: %w", err)
	}
	return nil
}

// Enter lets a guest's browser see the checkout whose link it followed. Doing it
// again changes nothing. An unknown token, or one of an expired checkout that was
// never paid, is ErrNotFound.
func (s *Service) Enter(ctx context.Context, token string, guestHash []byte) (checkoutID string, err error) {
	err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, `
			select id from payments.checkout where token_hash = $1 and (expires_at > $2 or state = 'paid')`,
			id.Hash(token), s.now()).Scan(&checkoutID)
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrNotFound
		}
		if err != nil {
			return err
		}
		return grant(ctx, tx, guestHash, checkoutID)
	})
	if err != nil {
		return "", fmt.Errorf("enter checkout: %w", err)
	}
	return checkoutID, nil
}

// CheckoutURL is the address of a checkout's link: for the department that
// opened it to send its payer to.
func (s *Service) CheckoutURL(token string) string { return s.cfg.BaseURL + "/c/" + token }

// Checkout reads a checkout as the viewer may see it, with amounts due at this moment.
func (s *Service) Checkout(ctx context.Context, v Viewer, checkoutID string) (Checkout, error) {
	return s.checkout(ctx, s.db, v, checkoutID)
}

// ForDepartment reads a checkout that a department opened, or ErrNotFound.
func (s *Service) ForDepartment(ctx context.Context, departmentID, checkoutID string) (Checkout, error) {
	if !id.Valid(checkoutID) {
		return Checkout{}, ErrNotFound
	}
	c, err := s.read(ctx, s.db, `c.id = $1 and c.department_id = $2`, checkoutID, departmentID)
	if err != nil {
		return Checkout{}, fmt.Errorf("read checkout: %w", err)
	}
	return c, nil
}

func (s *Service) checkout(ctx context.Context, q Querier, v Viewer, checkoutID string) (Checkout, error) {
	if !id.Valid(checkoutID) {
		return Checkout{}, ErrNotFound
	}
	c, err := s.read(ctx, q, `c.id = $1 and (c.resident_id = nullif($2, '')::uuid
		or exists (select 1 from payments.guest_access g where g.checkout_id = c.id and g.guest_hash = $3))`,
		checkoutID, v.ResidentID, v.GuestHash)
	if err != nil {
		return Checkout{}, fmt.Errorf("read checkout: %w", err)
	}
	return c, nil
}

func (s *Service) read(ctx context.Context, q Querier, condition string, args ...any) (Checkout, error) {
	var c Checkout
	var billIDs []string
	err := q.QueryRow(ctx, `
		select c.id, c.state, c.channel, coalesce(c.department_id::text, ''), coalesce(c.resident_id::text, ''),
			coalesce(c.contact_id::text, ''), c.lang, c.return_url, c.created_at, c.expires_at,
			array(select bill_id::text from payments.checkout_bill where checkout_id = c.id order by position)
		from payments.checkout c where `+condition, args...).
		Scan(&c.ID, &c.State, &c.Channel, &c.DepartmentID, &c.ResidentID,
			&c.ContactID, &c.Lang, &c.ReturnURL, &c.CreatedAt, &c.ExpiresAt, &billIDs)
	if errors.Is(err, pgx.ErrNoRows) {
		return Checkout{}, ErrNotFound
	}
	if err != nil {
		return Checkout{}, err
	}
	bills, err := bill.Load(ctx, q, billIDs)
	if err != nil {
		return Checkout{}, err
	}
	c.due(bills, billIDs, clock.DateOf(s.now()))
	p, err := onePayment(ctx, q, `p.id = (select id from payments.payment where checkout_id = $1
		order by (state = 'succeeded') desc, id desc limit 1)`, c.ID)
	switch {
	case errors.Is(err, ErrNotFound):
	case err != nil:
		return Checkout{}, err
	default:
		c.Payment = &p
	}
	if c.State == "paid" && c.Payment != nil {
		r, err := oneReceipt(ctx, q, `r.payment_id = $1`, c.Payment.ID)
		switch {
		case errors.Is(err, ErrNotFound): // not numbered yet
		case err != nil:
			return Checkout{}, err
		default:
			c.Receipt = &r
		}
	}
	if c.State == "open" && !c.ExpiresAt.After(s.now()) && (c.Payment == nil || !c.Payment.State.Live()) {
		c.State = "expired"
	}
	return c, nil
}

// due puts bills in the checkout's order with what is due of each.
func (c *Checkout) due(bills []bill.Bill, order []string, on clock.Date) {
	at := make(map[string]bill.Bill, len(bills))
	for _, b := range bills {
		at[b.ID] = b
	}
	c.Bills, c.Total = nil, 0
	for _, billID := range order {
		b := at[billID]
		q := b.Quote(on)
		c.Bills = append(c.Bills, DueBill{Bill: b, Quote: q})
		c.Total += q.Due
	}
}
