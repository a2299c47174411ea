// Package bill keeps what is owed: bills with their lines, owners and states, and
// what is due on a date.
//
//	department API ──Issue──▶ bill ──▶ ledger: receivable / billed, not collected
//	payments ──Lock, Apply──▶ bill ──▶ paid, and the department is told
//
// A bill's lines never change; what is added later is an adjustment, each kind
// once, in the books the moment it becomes final. The sum of what open bills have
// in the books equals the receivable account of their department, always.
// Prices come from payments/fee. Who a resident is, identity knows; here an owner
// is an opaque id.
package bill

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"guichet/department"
	"guichet/internal/audit"
	"guichet/internal/clock"
	"guichet/internal/id"
	"guichet/internal/keyed"
	"guichet/internal/money"
	"guichet/ledger"
	"guichet/payments/fee"
)

var (
	ErrNotFound  = errors.New("bill not found") // also when it belongs to another department, or the guest's second factor is wrong
	ErrConflict  = errors.New("the idempotency key was used with other content")
	ErrReference = errors.New("the department has a bill with this reference already")
	ErrInvalid   = errors.New("bill is not valid")
	ErrBeingPaid = errors.New("bill is being paid")
	ErrTooMuch   = fmt.Errorf("the bill comes to more than %s: %w", maxBill, ErrInvalid)
)

// maxBill keeps bills, and sums of the bills of a checkout, far from what the
// books and an Amount can hold: a billion dollars.
const maxBill money.Amount = 1_000_000_000_00

// A LineError says which line of a new bill is refused. It wraps ErrInvalid,
// fee.ErrNotFound or fee.ErrPrice.
type LineError struct {
	Line int // from 1
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }
func (e *LineError) Unwrap() error { return e.Err }

// A Bill is a demand for payment.
type Bill struct {
	ID             string
	DepartmentID   string
	Department     string // code
	DepartmentEN   string
	DepartmentFR   string
	Notice         string // what people read and type; written in groups by id.Group
	Type           string
	State          State
	Stage          string
	Held           bool
	ResidentID     string // owner; empty when nobody has claimed it
	Reference      string // the department's own id
	IssuedOn       clock.Date
	DueOn          clock.Date
	EarlyUntil     clock.Date   // last day of the early amount; zero: none
	Billed         money.Amount // in the books: issued and crystallised
	Paid           money.Amount
	EntryID        string // journal entry of its issue
	Version        int64
	UpdatedAt      time.Time
	Lines          []Line
	BeingPaidUntil time.Time // somebody holds it in a payment until then; zero: free
	BeingPaidBy    string    // that payment
}

// DepartmentName returns the name of the bill's department in "en" or "fr".
func (b Bill) DepartmentName(lang string) string {
	if lang == "fr" {
		return b.DepartmentFR
	}
	return b.DepartmentEN
}

// A Line is one thing charged.
type Line struct {
	Line          int
	Fee           string
	DescriptionEN string
	DescriptionFR string
	Quantity      int
	Net, Tax      money.Amount // as issued
	Step          money.Amount // added when the early days are over
	Crystallised  bool         // the step is in the books
	TaxCode       fee.Tax
	Revenue       string
	Dimensions    ledger.Dimensions
	PaidNet       money.Amount
	PaidStep      money.Amount
	PaidTax       money.Amount
}

// Description returns the line's text in "en" or "fr".
func (l Line) Description(lang string) string {
	if lang == "fr" {
		return l.DescriptionFR
	}
	return l.DescriptionEN
}

// A NewBill is what a department asks to bill.
type NewBill struct {
	DepartmentID   string
	IdempotencyKey string
	Type           string
	Reference      string
	ResidentID     string // opaque owner, or empty
	GuestKey       string // second factor for guests, such as a plate; empty: no guest may open it
	IssuedOn       clock.Date
	DueOn          clock.Date
	Lines          []NewLine
}

// A NewLine asks for one fee. Amount is for variable fees only; empty
// descriptions take the fee's names.
type NewLine struct {
	Fee           string
	Quantity      int
	Amount        money.Amount
	DescriptionEN string
	DescriptionFR string
}

// A Service issues and reads bills. It may be used by many goroutines at once.
type Service struct {
	db    *pgxpool.Pool
	books *ledger.Books
	depts *department.Service
	guest *keyed.Hasher // of second factors
	now   func() time.Time
}

// GuestKeys is the purpose of the keyed hash of guests' second factors.
const GuestKeys = "bill guest key"

// New returns a service over the database. guest hashes for GuestKeys.
func New(db *pgxpool.Pool, books *ledger.Books, depts *department.Service, guest *keyed.Hasher, now func() time.Time) *Service {
	return &Service{db: db, books: books, depts: depts, guest: guest, now: now}
}

// Receivable and Uncollected are the accounts a department's bills meet in.
func Receivable(department string) string { return "assets:receivable:" + department }

func Uncollected(department string) string { return "liabilities:billed-not-collected:" + department }

// OpenAccounts opens the accounts that a department's bills meet in. Doing it
// again changes nothing.
func OpenAccounts(ctx context.Context, tx pgx.Tx, books *ledger.Books, d department.Department) error {
	for _, a := range []ledger.Account{
		{Path: Receivable(d.Code), NameEN: "Receivable: " + d.NameEN, NameFR: "À recevoir : " + d.NameFR, Department: d.Code},
		{Path: Uncollected(d.Code), NameEN: "Billed, not collected: " + d.NameEN, NameFR: "Facturé, non perçu : " + d.NameFR, Department: d.Code},
	} {
		if err := books.OpenAccount(ctx, tx, a); err != nil {
			return fmt.Errorf("open accounts of %s: %w", d.Code, err)
		}
	}
	return nil
}

// Issue records a bill, its entry in the books and the department's event. The
// same key with the same content returns the first bill; with other content,
// ErrConflict. A reference used before is ErrReference; what cannot be billed
// wraps ErrInvalid, fee.ErrNotFound or fee.ErrPrice.
func (s *Service) Issue(ctx context.Context, n NewBill) (b Bill, replayed bool, err error) {
	// Twice is enough: when the same request won at the same moment, its bill is there the second time.
	for range 2 {
		err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
			b, replayed, err = s.issue(ctx, tx, n)
			return err
		})
		if !errors.Is(err, ErrReference) && !errors.Is(err, errRaced) {
			break
		}
	}
	if err != nil {
		return Bill{}, false, fmt.Errorf("issue bill %s: %w", n.Reference, err)
	}
	return b, replayed, nil
}

// errRaced: another transaction has just used the idempotency key.
var errRaced = errors.New("the idempotency key was used at the same moment")

func (s *Service) issue(ctx context.Context, tx pgx.Tx, n NewBill) (Bill, bool, error) {
	if err := n.check(); err != nil {
		return Bill{}, false, err
	}
	hash, err := s.bodyHash(n)
	if err != nil {
		return Bill{}, false, err
	}
	if old, ok, err := s.replay(ctx, tx, n, hash); ok || err != nil {
		return old, ok, err
	}
	dept, err := s.depts.ByID(ctx, tx, n.DepartmentID)
	if err != nil {
		return Bill{}, false, err
	}
	b := Bill{
		ID: id.New(), DepartmentID: dept.ID, Department: dept.Code, DepartmentEN: dept.NameEN, DepartmentFR: dept.NameFR,
		Notice: id.Code(9), Type: n.Type, State: Open, ResidentID: n.ResidentID, Reference: n.Reference,
		IssuedOn: n.IssuedOn, DueOn: n.DueOn, Version: 1, UpdatedAt: s.now(),
	}
	var versions []fee.Version // of the lines' fees
	var most money.Amount      // with all steps; no line alone overflows
	for i, nl := range n.Lines {
		l, v, err := s.price(ctx, tx, n, nl)
		if err != nil {
			return Bill{}, false, &LineError{i + 1, err}
		}
		l.Line = i + 1
		if l.Step > 0 {
			until := n.IssuedOn.AddDays(v.EarlyDays)
			if b.EarlyUntil != (clock.Date{}) && b.EarlyUntil != until {
				return Bill{}, false, &LineError{i + 1, fmt.Errorf("its early amount ends on another day than the lines before: %w", ErrInvalid)}
			}
			b.EarlyUntil = until
		}
		b.Billed += l.Net + l.Tax
		if most += l.Net + l.Tax + l.Step; most > maxBill {
			return Bill{}, false, ErrTooMuch
		}
		b.Lines, versions = append(b.Lines, l), append(versions, v)
	}
	b.EntryID, err = s.books.Append(ctx, tx, ledger.Entry{
		Key: "bill/" + b.ID + "/issued", Kind: "bill.issued", EffectiveOn: b.IssuedOn, RecordedAt: s.now(), Currency: money.CAD,
		Lines: []ledger.Line{
			{Account: Receivable(b.Department), Amount: b.Billed, Dimensions: ledger.Dimensions{Department: b.Department}},
			{Account: Uncollected(b.Department), Amount: -b.Billed, Dimensions: ledger.Dimensions{Department: b.Department}},
		},
		SourceType: "bill", SourceID: b.ID, Actor: audit.From(ctx).Actor, Channel: audit.From(ctx).Channel,
		Description: "Bill " + id.Group(b.Notice),
	})
	if err != nil {
		return Bill{}, false, err
	}
	if err := s.insert(ctx, tx, b, n, hash, versions); err != nil {
		return Bill{}, false, err
	}
	if err := audit.Record(ctx, tx, audit.Event{
		Action: "bill.issued", ObjectType: "bill", ObjectID: b.ID, Subject: b.ResidentID, At: s.now(),
		Details: map[string]any{"department": b.Department, "amount_cents": int64(b.Billed)},
	}); err != nil {
		return Bill{}, false, err
	}
	return b, false, s.emit(ctx, tx, b, "bill.issued")
}

func (n NewBill) check() error {
	switch {
	case n.IdempotencyKey == "" || len(n.IdempotencyKey) > 255:
		return fmt.Errorf("idempotency key: want 1 to 255 characters: %w", ErrInvalid)
	case n.Type == "" || len(n.Type) > 40:
		return fmt.Errorf("type: want 1 to 40 characters: %w", ErrInvalid)
	case n.Reference == "" || len(n.Reference) > 64:
		return fmt.Errorf("reference: want 1 to 64 characters: %w", ErrInvalid)
	case n.DueOn.Before(n.IssuedOn):
		return fmt.Errorf("due on %s, before it is issued on %s: %w", n.DueOn, n.IssuedOn, ErrInvalid)
	case len(n.Lines) == 0 || len(n.Lines) > 100:
		return fmt.Errorf("%d lines: want 1 to 100: %w", len(n.Lines), ErrInvalid)
	case n.ResidentID == "" && n.GuestKey == "":
		return fmt.Errorf("neither an owner nor a guest key: nobody could pay it: %w", ErrInvalid)
	case n.GuestKey != "" && guestKey(n.GuestKey) == "":
		return fmt.Errorf("guest key: want letters or digits: %w", ErrInvalid)
	}
	return nil
}

// bodyHash covers all that was asked, for telling a replay from a conflict. The
// second factor goes in as keyed: beside the bill's other columns, a plain hash
// could be tried with all plates there are.
func (s *Service) bodyHash(n NewBill) ([]byte, error) {
	n.IdempotencyKey = ""
	n.GuestKey = hex.EncodeToString(s.guest.Sum("body\x00" + n.GuestKey))
	text, err := json.Marshal(n)
	if err != nil {
		return nil, fmt.Errorf("hash bill: %w", err)
	}
	h := sha256.Sum256(text)
	return h[:], nil
}

func (s *Service) replay(ctx context.Context, tx pgx.Tx, n NewBill, hash []byte) (Bill, bool, error) {
	var billID string
	var old []byte
	err := tx.QueryRow(ctx, `
		select id, body_hash from payments.bill where department_id = $1 and idempotency_key = $2`,
		n.DepartmentID, n.IdempotencyKey).Scan(&billID, &old)
	if errors.Is(err, pgx.ErrNoRows) {
		return Bill{}, false, nil
	}
	if err != nil {
		return Bill{}, false, fmt.Errorf("look for idempotency key: %w", err)
	}
	if !bytes.Equal(old, hash) {
		return Bill{}, false, ErrConflict
	}
	bills, err := Load(ctx, tx, []string{billID})
	if err != nil {
		return Bill{}, false, err
	}
	return bills[0], true, nil
}

func (s *Service) price(ctx context.Context, tx pgx.Tx, n NewBill, nl NewLine) (Line, fee.Version, error) {
	v, err := fee.On(ctx, tx, n.DepartmentID, nl.Fee, n.IssuedOn)
	if err != nil {
		return Line{}, v, err
	}
	if nl.Quantity == 0 {
		nl.Quantity = 1
	}
	p, err := v.Price(nl.Quantity, nl.Amount)
	if err != nil {
		return Line{}, v, err
	}
	l := Line{
		Fee: v.Code, DescriptionEN: nl.DescriptionEN, DescriptionFR: nl.DescriptionFR, Quantity: nl.Quantity,
		Net: p.Net, Tax: p.Tax, Step: p.Step, TaxCode: v.Tax, Revenue: v.Revenue, Dimensions: v.Dimensions,
	}
	if (l.DescriptionEN == "") != (l.DescriptionFR == "") {
		return Line{}, v, fmt.Errorf("description in one language only: %w", ErrInvalid)
	}
	if l.DescriptionEN == "" {
		l.DescriptionEN, l.DescriptionFR = v.NameEN, v.NameFR
	}
	return l, v, nil
}

func (s *Service) insert(ctx context.Context, tx pgx.Tx, b Bill, n NewBill, hash []byte, versions []fee.Version) error {
	var early any
	if b.EarlyUntil != (clock.Date{}) {
		early = b.EarlyUntil.Time()
	}
	var guest []byte
	if n.GuestKey != "" {
		guest = s.guestHash(b.Notice, n.GuestKey)
	}
	batch := new(pgx.Batch)
	batch.Queue(`
		insert into payments.bill (id, department_id, notice_number, type, state, resident_id, guest_key_hash, reference,
			idempotency_key, body_hash, issued_on, due_on, early_until, billed_cents, entry_id, created_at, updated_at)
		values ($1, $2, $3, $4, $5, nullif($6, '')::uuid, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $16)`,
		b.ID, b.DepartmentID, b.Notice, b.Type, string(b.State), b.ResidentID, guest, b.Reference,
		n.IdempotencyKey, hash, b.IssuedOn.Time(), b.DueOn.Time(), early, b.Billed, b.EntryID, b.UpdatedAt)
	for i, l := range b.Lines {
		d := l.Dimensions
		batch.Queue(`
			insert into payments.bill_line (bill_id, line, fee_id, fee_from, description_en, description_fr, quantity, net_cents,
				tax_code, tax_cents, step_cents, revenue_account, fund, cost_centre, order_no, wbs)
			values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)`,
			b.ID, l.Line, versions[i].FeeID, versions[i].EffectiveFrom.Time(), l.DescriptionEN, l.DescriptionFR, l.Quantity, l.Net,
			string(l.TaxCode), l.Tax, l.Step, l.Revenue, d.Fund, d.CostCentre, d.Order, d.WBS)
	}
	batch.Queue(`insert into payments.bill_event (bill_id, version, from_state, to_state, cause, at) values ($1, 1, '', $2, 'issued', $3)`,
		b.ID, string(b.State), b.UpdatedAt)
	err := tx.SendBatch(ctx, batch).Close()
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch pg.ConstraintName {
		case "bill_department_id_reference_key":
			return ErrReference
		case "bill_department_id_idempotency_key_key":
			return errRaced
		}
	}
	if err != nil {
		return fmt.Errorf("store bill: %w", err)
	}
	return nil
}

// guestKey brings a second factor as typed to one form: upper case letters and digits.
func guestKey(typed string) string {
	return strings.Map(func(r rune) rune {
		if (r >= 'A' && r <= 'Z') || (r >= '0' && r <= '9') {
			return r
		}
		return -1
	}, strings.ToUpper(typed))
}

// guestHash is keyed, because plates and postal codes are few enough to try all.
func (s *Service) guestHash(notice, typed string) []byte {
	return s.guest.Sum(notice + "\x00" + guestKey(typed))
}
