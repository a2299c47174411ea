// Package payments takes money for bills, once and only once.
//
//	checkout ──Pay──▶ payment ──▶ processor's hosted page
//	                     ▲                 │
//	      Sync ◀── webhook, poller, return page: whichever is first
//	                     │
//	  one transaction: state · journal entry · bills · events · jobs
//
// The return page and the webhook prove nothing by themselves: the processor is
// asked for the session by id before anything is booked. An answer that did not
// come is a state of its own. Card numbers never come near this package.
//
// Rows are locked in one order: payment, checkout, bills by id, mandate, reservations.
//
// A payer is an opaque resident or contact id; names and addresses are
// identity's. Bills are payments/bill's, the books are ledger's, pages are api's.
package payments

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"guichet/department"
	"guichet/internal/clock"
	"guichet/internal/id"
	"guichet/internal/jobs"
	"guichet/internal/keyed"
	"guichet/internal/mail"
	"guichet/internal/money"
	"guichet/ledger"
	"guichet/payments/bill"
)

var (
	ErrNotFound    = errors.New("not found") // also when the viewer may not see it
	ErrConflict    = errors.New("the idempotency key was used with other content")
	ErrAlreadyPaid = errors.New("checkout is paid already")
	ErrClosed      = errors.New("checkout has expired or was cancelled")
	ErrMismatch    = errors.New("the processor's session does not fit the payment")
	ErrEmpty       = errors.New("nothing to pay")
)

// Accounts that payments meet in.
const (
	Clearing = "assets:processor-clearing"
	// Credits are what payers own. A credit whose money has reached the bank
	// moves to CreditsSettled; the liability is the sum of both.
	Credits        = "liabilities:credit:payer"
	CreditsSettled = "liabilities:credit:settled"
)

// OpenAccounts opens the accounts that payments meet in. Doing it again changes
// nothing.
func OpenAccounts(ctx context.Context, tx pgx.Tx, books *ledger.Books) error {
	for _, a := range []ledger.Account{
		{Path: Clearing, NameEN: "Card processor clearing", NameFR: "Compensation du processeur de cartes"},
		{Path: Credits, NameEN: "Credits owned by payers", NameFR: "Crédits appartenant aux payeurs"},
		{Path: CreditsSettled, NameEN: "Credits owned by payers, settled", NameFR: "Crédits appartenant aux payeurs, réglés"},
	} {
		if err := books.OpenAccount(ctx, tx, a); err != nil {
			return fmt.Errorf("open accounts of payments: %w", err)
		}
	}
	return nil
}

// How long things live.
const (
	checkoutLife = 24 * time.Hour
	// The processor closes its page after sessionLife; it takes no less than 30
	// minutes by its own clock, which may be ahead of ours. The reservation outlives
	// it, so that a payment in the last minute still finds its bills.
	sessionLife     = 35 * time.Minute
	reservationLife = sessionLife + 5*time.Minute
	// A debit is decided within ten business days; until then its bills are held.
	debitLife = 14 * 24 * time.Hour
)

// CheckoutLinks is the purpose of the keyed hash behind the links of checkouts.
const CheckoutLinks = "checkout link"

// Config is what the service is told of the world outside.
type Config struct {
	BaseURL string // public origin of the resident pages, without a slash at the end
}

// A Service takes payments. It may be used by many goroutines at once.
type Service struct {
	db        *pgxpool.Pool
	books     *ledger.Books
	bills     *bill.Service
	depts     *department.Service
	processor Processor
	queue     *jobs.Queue
	outbox    *mail.Outbox
	render    func(Receipt, string) ([]byte, error)
	links     *keyed.Hasher
	now       func() time.Time
	log       *slog.Logger
	cfg       Config
}

// Parts is what a service works with.
type Parts struct {
	DB          *pgxpool.Pool
	Books       *ledger.Books
	Bills       *bill.Service
	Departments *department.Service
	Processor   Processor
	Queue       *jobs.Queue
	Outbox      *mail.Outbox
	Links       *keyed.Hasher // of CheckoutLinks
	Render      func(r Receipt, lang string) (pdf []byte, err error)
	Now         func() time.Time
	Log         *slog.Logger
}

// New returns a service over its parts.
func New(p Parts, cfg Config) *Service {
	return &Service{
		db: p.DB, books: p.Books, bills: p.Bills, depts: p.Departments, processor: p.Processor, queue: p.Queue,
		outbox: p.Outbox, render: p.Render, links: p.Links, now: p.Now, log: p.Log, cfg: cfg,
	}
}

// A Viewer is who asks: a resident, a guest's browser, or both. It sees its own
// checkouts, payments and receipts; everything else is ErrNotFound.
type Viewer struct {
	ResidentID string
	GuestHash  []byte   // id.Hash of the browser's guest cookie
	Mandate    *Mandate // somebody else acts in the resident's name; nil: nobody does
}

// A Payment is money by one tender, with what it is for.
type Payment struct {
	ID          string
	CheckoutID  string
	Reference   string // short, with a check character
	State       State
	Tender      string
	Channel     string
	Amount      money.Amount
	QuotedOn    clock.Date
	ResidentID  string
	ActorID     string   // who paid in the resident's name; empty: the resident
	Mandate     []string // the rights it counts towards, then
	ContactID   string
	Lang        string
	SessionID   string
	SessionURL  string
	IntentID    string
	ChargeID    string
	Card        Card
	EntryID     string
	CreatedAt   time.Time
	UpdatedAt   time.Time
	ExpiresAt   time.Time
	SucceededAt time.Time    // when the processor took the money; we may have heard of it later
	Allocations []Allocation // by bill and line

	seq int64
}

// An Allocation is the part of a payment that is for one bill line.
type Allocation struct {
	BillID         string
	Line           int
	Net, Step, Tax money.Amount
}

// Total is the allocation's sum.
func (a Allocation) Total() money.Amount { return a.Net + a.Step + a.Tax }

// A Querier is a pool or a transaction.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

const paymentColumns = `p.id, p.checkout_id, p.reference, p.state, p.tender, p.channel, p.amount_cents, p.quoted_on,
	coalesce(p.resident_id::text, ''), coalesce(p.actor_id::text, ''), coalesce(p.mandate, '{}')::text[], coalesce(p.contact_id::text, ''), p.lang, coalesce(p.session_id, ''), p.session_url,
	coalesce(p.intent_id, ''), coalesce(p.charge_id, ''), p.card_brand, p.card_last4, p.card_funding, coalesce(p.entry_id::text, ''),
	p.created_at, p.updated_at, p.expires_at, p.succeeded_at, p.seq`

func scanPayment(row pgx.CollectableRow) (Payment, error) {
	var p Payment
	var on time.Time
	var succeeded *time.Time
	err := row.Scan(&p.ID, &p.CheckoutID, &p.Reference, &p.State, &p.Tender, &p.Channel, &p.Amount, &on,
		&p.ResidentID, &p.ActorID, &p.Mandate, &p.ContactID, &p.Lang, &p.SessionID, &p.SessionURL,
		&p.IntentID, &p.ChargeID, &p.Card.Brand, &p.Card.Last4, &p.Card.Funding, &p.EntryID,
		&p.CreatedAt, &p.UpdatedAt, &p.ExpiresAt, &succeeded, &p.seq)
	p.QuotedOn = clock.FromTime(on)
	if succeeded != nil {
		p.SucceededAt = *succeeded
	}
	return p, err
}

// onePayment reads the payment that a condition names, with its allocations.
func onePayment(ctx context.Context, q Querier, condition string, args ...any) (Payment, error) {
	rows, err := q.Query(ctx, `select `+paymentColumns+` from payments.payment p where `+condition, args...)
	if err != nil {
		return Payment{}, fmt.Errorf("read payment: %w", err)
	}
	p, err := pgx.CollectExactlyOneRow(rows, scanPayment)
	if errors.Is(err, pgx.ErrNoRows) {
		return Payment{}, ErrNotFound
	}
	if err != nil {
		return Payment{}, fmt.Errorf("read payment: %w", err)
	}
	rows, err = q.Query(ctx, `
		select bill_id, line, net_cents, step_cents, tax_cents from payments.allocation
		where payment_id = $1 order by bill_id, line`, p.ID)
	if err != nil {
		return Payment{}, fmt.Errorf("read allocations: %w", err)
	}
	p.Allocations, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Allocation])
	if err != nil {
		return Payment{}, fmt.Errorf("read allocations: %w", err)
	}
	return p, nil
}

// Get reads a payment by id, or ErrNotFound.
func Get(ctx context.Context, q Querier, paymentID string) (Payment, error) {
	if !id.Valid(paymentID) {
		return Payment{}, ErrNotFound
	}
	return onePayment(ctx, q, `p.id = $1`, paymentID)
}

// ByProcessorRef finds the payment behind a charge or payment intent of the
// processor, or ErrNotFound. When they are two payments', the charge decides.
func (s *Service) ByProcessorRef(ctx context.Context, q Querier, chargeID, intentID string) (Payment, error) {
	return onePayment(ctx, q, `p.charge_id = nullif($1, '') or p.intent_id = nullif($2, '')
		order by p.charge_id is not distinct from $1 desc limit 1`, chargeID, intentID)
}

// linkToken derives the secret of a checkout's link from its id: the same id gives
// the same secret again, so it needs no storing, and the id alone gives nothing.
func (s *Service) linkToken(checkoutID string) string {
	return base64.RawURLEncoding.EncodeToString(s.links.Sum(checkoutID))
}

func hashOf(text []byte) []byte {
	h := sha256.Sum256(text)
	return h[:]
}
