package payments

import (
	"context"
	"errors"
	"fmt"
	"time"

	"guichet/internal/money"
)

// Processor is the seam to the card processor: hosted sessions, refunds, events
// and the money it owes us. payments/stripe implements it over Stripe's HTTP API,
// and so over the simulator that speaks the same.
//
// Every answer is one of three: done, refused (a *RefusedError: definitely not
// done), or unknown (ErrUnknownOutcome: it may have been done; ask again with the
// same key, or by id). No method may be called while a transaction is open.
type Processor interface {
	// OpenSession creates the hosted payment page. Calling again with the same Key
	// returns the same session.
	OpenSession(ctx context.Context, r SessionRequest) (Session, error)
	// Session reads a session as the processor sees it now.
	Session(ctx context.Context, id string) (Session, error)
	// ExpireSession closes a session that nobody has paid. A session that was paid
	// or had expired before is a *RefusedError: read it with Session.
	ExpireSession(ctx context.Context, id string) (Session, error)

	// Refund gives money back. Calling again with the same Key returns the same refund.
	Refund(ctx context.Context, r RefundRequest) (Refund, error)

	// ParseEvent checks the signature and the age of a webhook and returns its
	// ids. Nothing else in the payload is to be trusted: fetch the object.
	// Errors: ErrSignature, ErrStale, ErrFuture, ErrMalformed.
	ParseEvent(payload []byte, signature string, now time.Time) (Event, error)
	// Events lists events created since a moment, oldest first, a page at a time:
	// what webhooks dropped. An empty next cursor is the end.
	Events(ctx context.Context, since time.Time, cursor string) (events []Event, next string, err error)

	// Payouts lists payouts created since a moment, oldest first.
	Payouts(ctx context.Context, since time.Time, cursor string) (payouts []Payout, next string, err error)
	// PayoutTransactions lists the balance transactions that make up an automatic
	// payout, the payout's own line excluded. Complete once Payout.Itemised is true.
	PayoutTransactions(ctx context.Context, payoutID, cursor string) (lines []BalanceTransaction, next string, err error)
	// BalanceTransactions lists what moved our balance since a moment, oldest first.
	BalanceTransactions(ctx context.Context, since time.Time, cursor string) (lines []BalanceTransaction, next string, err error)
}

var (
	// ErrUnknownOutcome: the processor did not answer, or answered with something
	// that is not its own: a timeout, a 5xx, a proxy's page. Never guess.
	ErrUnknownOutcome = errors.New("the processor's answer is unknown")

	ErrSignature = errors.New("webhook signature does not match")
	ErrStale     = errors.New("webhook timestamp is too old")
	ErrFuture    = errors.New("webhook timestamp is in the future")
	ErrMalformed = errors.New("webhook body is malformed")
)

// A RefusedError is the processor's definite no: nothing was done.
type RefusedError struct {
	Code    string // the processor's own code, such as "resource_missing"
	Message string // the processor's text: for the log, not for a page
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("the processor refused (%s): %s", e.Code, e.Message)
}

// A SessionRequest asks for a hosted payment page.
type SessionRequest struct {
	Key        string // idempotency key, from our own row
	CheckoutID string // comes back in Session.CheckoutID
	PaymentID  string // kept as metadata on session and payment intent
	Lines      []SessionLine
	Tender     string // the one way to pay that the page offers: "card", "pre_authorised_debit"
	Lang       string // "en" or "fr"
	SuccessURL string // where the payer's browser goes; proves nothing
	CancelURL  string
	ExpiresAt  time.Time // the processor wants at least 30 minutes from now
}

// A SessionLine is one line of the hosted page: a bill, with its amount due.
type SessionLine struct {
	Name   string
	Amount money.Amount
}

// A SessionState is what the processor says of a session.
type SessionState string

const (
	SessionOpen       SessionState = "open"
	SessionPaid       SessionState = "paid"       // money is taken
	SessionProcessing SessionState = "processing" // a delayed method: completed, money pending
	SessionFailed     SessionState = "failed"     // a delayed method failed after completion
	SessionExpired    SessionState = "expired"
)

// A Session is a hosted payment page and what became of it.
type Session struct {
	ID         string
	URL        string // empty once it is no longer open
	State      SessionState
	CheckoutID string
	PaymentID  string
	Amount     money.Amount
	Currency   string
	IntentID   string // payment intent, once there is one
	ChargeID   string // the charge that succeeded
	Card       Card
	PaidAt     time.Time
}

// A Card is what a receipt may say of a card. Never more.
type Card struct {
	Brand, Last4, Funding string
}

// A RefundRequest asks to give back a part or all of a charge.
type RefundRequest struct {
	Key      string
	RefundID string // our own id, kept as metadata
	IntentID string
	Amount   money.Amount
}

// A Refund is the processor's refund. State is pending, succeeded, failed or canceled.
type Refund struct {
	ID, ChargeID, State, FailureReason string
	Amount                             money.Amount
}

// An Event is a webhook or a polled event: only its ids and type.
type Event struct {
	ID        string
	Type      string // "checkout.session.completed", …
	ObjectID  string // id of the object the event is about
	CreatedAt time.Time
	Live      bool
	Payload   []byte // for the record: ids, type and states; never the payer's name or address
}

// A Payout is a transfer of our balance to the city's bank account; negative when
// the processor collects from it.
type Payout struct {
	ID        string
	Amount    money.Amount
	Currency  string
	State     string // pending, in_transit, paid, failed, canceled
	Automatic bool
	Itemised  bool // reconciliation completed: PayoutTransactions is whole
	ArrivalOn time.Time
	CreatedAt time.Time
	TraceID   string // what the bank's line carries, when the processor tells
	Failure   string
}

// A BalanceTransaction is one movement of our balance at the processor. Positive
// raises the balance; Net = Amount − Fee.
type BalanceTransaction struct {
	ID          string
	Category    string // reporting_category: charge, refund, dispute, fee, payout, …
	SourceID    string // charge, refund, payout … it belongs to
	IntentID    string // payment intent of the source, when there is one
	Amount      money.Amount
	Fee         money.Amount
	Net         money.Amount
	Currency    string
	Description string
	CreatedAt   time.Time
	AvailableOn time.Time
}
