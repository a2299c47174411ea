package reconcile

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/audit"
	"guichet/internal/clock"
	"guichet/internal/id"
	"guichet/internal/money"
	"guichet/ledger"
)

// A Kind says what kind of trouble an exception is.
type Kind string

const (
	Unexplained      Kind = "transaction-unexplained" // a payout's line that no payment explains: in suspense
	LineUnmatched    Kind = "bank-line-unmatched"     // a bank line that no payout explains
	Tie              Kind = "match-tie"               // a payout that fits several bank lines, or one of several that fit
	PayoutSum        Kind = "payout-sum"              // its lines do not add up to it
	PayoutManual     Kind = "payout-manual"           // the processor does not itemise it
	PayoutMissing    Kind = "payout-missing"          // paid out, but not at the bank
	PayoutFailed     Kind = "payout-failed"           // failed after we had matched it
	PayoutUnposted   Kind = "payout-unposted"         // the books do not take what it should become
	StatementRefused Kind = "statement-refused"
	StatementGap     Kind = "statement-gap" // does not open with what the one before closed with
	Unmapped         Kind = "sap-unmapped"  // an account that the mapping to SAP does not know
	DocumentInvalid  Kind = "sap-document"  // what settled makes no document that SAP could take
	DeliveryTrouble  Kind = "sap-delivery"  // a file that did not arrive, or nobody knows
	Rejected         Kind = "sap-rejected"  // a document that SAP did not post
	AnswerForeign    Kind = "sap-answer-foreign"
	AnswerRefused    Kind = "sap-answer-refused"
	PayerCredit      Kind = "payer-credit" // money whose bill no longer needed it: the payer owns it
)

// An Exception is what a person has to look at.
type Exception struct {
	ID            string
	Kind          Kind
	ObjectType    string
	ObjectID      string
	Owner         string
	Amount        money.Amount
	Currency      string
	SuspenseEntry string // the journal entry that put Amount into suspense; empty: none
	OpenedOn      clock.Date
	OpenedAt      time.Time
	ClosedAt      time.Time // zero: open
	Resolution    string
}

// A Note is one line of an exception's history.
type Note struct {
	Seq   int
	Kind  string // opened, note, assigned, resolved, reopened
	Text  string
	Actor string
	At    time.Time
}

// open records an exception once per kind and object. One that is there, open or
// closed, stays as it is: what a person has settled does not come back by itself.
func (n *Nightly) open(ctx context.Context, tx pgx.Tx, e Exception, text string) error {
	e.ID = id.New()
	if e.Currency == "" {
		e.Currency = money.CAD
	}
	tag, err := tx.Exec(ctx, `
		insert into reconcile.exception (id, type, object_type, object_id, owner, amount_cents, currency, suspense_entry, opened_on, opened_at)
		values ($1, $2, $3, $4, $5, $6, $7, nullif($8, '')::uuid, $9, $10)
		on conflict on constraint exception_once do nothing`,
		e.ID, string(e.Kind), e.ObjectType, e.ObjectID, n.cfg.Owner, e.Amount, e.Currency, e.SuspenseEntry,
		clock.DateOf(n.now()).Time(), n.now())
	if err != nil {
		return fmt.Errorf("open exception %s of %s %s: %w", e.Kind, e.ObjectType, e.ObjectID, err)
	}
	if tag.RowsAffected() == 0 {
		return nil
	}
	n.log.WarnContext(ctx, "exception opened", "kind", string(e.Kind), "object_type", e.ObjectType, "object", e.ObjectID, "text", text)
	return n.note(ctx, tx, e.ID, "opened", text)
}

// reopen is open for trouble that may come back: a closed exception is opened
// again, and an open one is told the news.
func (n *Nightly) reopen(ctx context.Context, tx pgx.Tx, e Exception, text string) error {
	var exceptionID, last string
	var closed bool
	err := tx.QueryRow(ctx, `
		select e.id, e.closed_at is not null,
			(select text from reconcile.exception_note where exception_id = e.id order by seq desc limit 1)
		from reconcile.exception e where e.type = $1 and e.object_type = $2 and e.object_id = $3 for update of e`,
		string(e.Kind), e.ObjectType, e.ObjectID).Scan(&exceptionID, &closed, &last)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return n.open(ctx, tx, e, text)
	case err != nil:
		return fmt.Errorf("look for exception %s of %s %s: %w", e.Kind, e.ObjectType, e.ObjectID, err)
	case !closed && last == text:
		return nil // no news
	case !closed:
		return n.note(ctx, tx, exceptionID, "note", text)
	}
	if _, err := tx.Exec(ctx, `update reconcile.exception set closed_at = null, resolution = '' where id = $1`, exceptionID); err != nil {
		return fmt.Errorf("reopen exception %s: %w", exceptionID, err)
	}
	return n.note(ctx, tx, exceptionID, "reopened", text)
}

// settled closes the open exception of a kind and object, if there is one: the
// run itself has found the explanation.
func (n *Nightly) settled(ctx context.Context, tx pgx.Tx, kind Kind, objectType, objectID, resolution string) error {
	var exceptionID string
	err := tx.QueryRow(ctx, `
		update reconcile.exception set closed_at = $4, resolution = $5
		where type = $1 and object_type = $2 and object_id = $3 and closed_at is null returning id`,
		string(kind), objectType, objectID, n.now(), resolution).Scan(&exceptionID)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("close exception %s of %s %s: %w", kind, objectType, objectID, err)
	}
	return n.note(ctx, tx, exceptionID, "resolved", resolution)
}

// note adds a line to the history of an exception whose row the caller has locked
// or just written.
func (n *Nightly) note(ctx context.Context, tx pgx.Tx, exceptionID, kind, text string) error {
	_, err := tx.Exec(ctx, `
		insert into reconcile.exception_note (exception_id, seq, kind, text, actor, at)
		select $1, coalesce(max(seq), 0) + 1, $2, $3, $4, $5 from reconcile.exception_note where exception_id = $1`,
		exceptionID, kind, text, audit.From(ctx).Actor, n.now())
	if err != nil {
		return fmt.Errorf("note on exception %s: %w", exceptionID, err)
	}
	return nil
}

// AddNote adds a person's words to an exception.
func (n *Nightly) AddNote(ctx context.Context, exceptionID, text string) error {
	return n.change(ctx, exceptionID, "exception.noted", text, func(tx pgx.Tx, _ Exception) error {
		return n.note(ctx, tx, exceptionID, "note", text)
	})
}

// Assign gives an exception to another owner.
func (n *Nightly) Assign(ctx context.Context, exceptionID, owner string) error {
	return n.change(ctx, exceptionID, "exception.assigned", owner, func(tx pgx.Tx, _ Exception) error {
		if _, err := tx.Exec(ctx, `update reconcile.exception set owner = $2 where id = $1`, exceptionID, owner); err != nil {
			return err
		}
		return n.note(ctx, tx, exceptionID, "assigned", owner)
	})
}

// ErrInSuspense: the exception's money waits in suspense; it leaves by a posting.
var ErrInSuspense = errors.New("the amount is in suspense: transfer it to an account")

// ErrResolved: somebody was faster.
var ErrResolved = errors.New("the exception is resolved already")

// Resolve closes an exception with a reason. One whose amount is in suspense is
// ErrInSuspense: it needs Transfer.
func (n *Nightly) Resolve(ctx context.Context, exceptionID, reason string) error {
	return n.change(ctx, exceptionID, "exception.resolved", reason, func(tx pgx.Tx, e Exception) error {
		if e.SuspenseEntry != "" {
			return ErrInSuspense
		}
		return n.close(ctx, tx, e, reason)
	})
}

// Transfer moves an exception's amount from suspense to an account, effective
// today, and closes the exception. The posting is exported to SAP with the
// department's next document.
func (n *Nightly) Transfer(ctx context.Context, exceptionID, account string, d ledger.Dimensions, reason string) error {
	return n.change(ctx, exceptionID, "exception.transferred", reason, func(tx pgx.Tx, e Exception) error {
		if e.SuspenseEntry == "" {
			return fmt.Errorf("nothing of it is in suspense")
		}
		if d.Department == "" {
			d.Department = central
		}
		_, err := n.post(ctx, tx, posting{
			key: "exception/" + e.ID + "/transfer", kind: "transfer", department: d.Department, on: clock.DateOf(n.now()),
			source: "exception", sourceID: e.ID, description: "Transfer from suspense",
			lines: []postingLine{
				{Line: ledger.Line{Account: suspenseAccount, Amount: e.Amount, Dimensions: ledger.Dimensions{Department: central}}},
				{Line: ledger.Line{Account: account, Amount: -e.Amount, Dimensions: d}},
			},
		})
		if err != nil {
			return err
		}
		return n.close(ctx, tx, e, "transferred to "+account+": "+reason)
	})
}

func (n *Nightly) close(ctx context.Context, tx pgx.Tx, e Exception, resolution string) error {
	if _, err := tx.Exec(ctx, `update reconcile.exception set closed_at = $2, resolution = $3 where id = $1`, e.ID, n.now(), resolution); err != nil {
		return err
	}
	return n.note(ctx, tx, e.ID, "resolved", resolution)
}

// change runs one person's deed on an open exception, audited.
func (n *Nightly) change(ctx context.Context, exceptionID, action, text string, do func(tx pgx.Tx, e Exception) error) error {
	err := pgx.BeginFunc(ctx, n.db, func(tx pgx.Tx) error {
		if text == "" {
			return errors.New("a text is needed")
		}
		if !id.Valid(exceptionID) {
			return ErrNotFound
		}
		list, err := exceptions(ctx, tx, `where id = $1 for update`, exceptionID)
		if err != nil {
			return err
		}
		if len(list) == 0 {
			return ErrNotFound
		}
		if !list[0].ClosedAt.IsZero() {
			return ErrResolved
		}
		if err := do(tx, list[0]); err != nil {
			return err
		}
		return audit.Record(ctx, tx, audit.Event{Action: action, ObjectType: "exception", ObjectID: exceptionID, At: n.now()})
	})
	if err != nil {
		return fmt.Errorf("exception %s: %w", exceptionID, err)
	}
	return nil
}

func exceptions(ctx context.Context, q Querier, where string, args ...any) ([]Exception, error) {
	rows, err := q.Query(ctx, `
		select id, type, object_type, object_id, owner, amount_cents, currency, coalesce(suspense_entry::text, ''),
			opened_on, opened_at, closed_at, resolution
		from reconcile.exception `+where, args...)
	if err != nil {
		return nil, fmt.Errorf("read exceptions: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e Exception, err error) {
		var on time.Time
		var closed *time.Time
		err = row.Scan(&e.ID, &e.Kind, &e.ObjectType, &e.ObjectID, &e.Owner, &e.Amount, &e.Currency, &e.SuspenseEntry,
			&on, &e.OpenedAt, &closed, &e.Resolution)
		if e.OpenedOn = clock.FromTime(on); closed != nil {
			e.ClosedAt = *closed
		}
		return e, err
	})
	if err != nil {
		return nil, fmt.Errorf("read exceptions: %w", err)
	}
	return list, nil
}

// OpenExceptions lists what waits for a person, oldest first.
func OpenExceptions(ctx context.Context, q Querier, limit int) ([]Exception, error) {
	return exceptions(ctx, q, `where closed_at is null order by opened_at, id limit $1`, limit)
}

// ExceptionByID reads one exception with its history, or ErrNotFound.
func ExceptionByID(ctx context.Context, q Querier, exceptionID string) (Exception, []Note, error) {
	if !id.Valid(exceptionID) {
		return Exception{}, nil, ErrNotFound
	}
	list, err := exceptions(ctx, q, `where id = $1`, exceptionID)
	if err != nil {
		return Exception{}, nil, err
	}
	if len(list) == 0 {
		return Exception{}, nil, ErrNotFound
	}
	rows, err := q.Query(ctx, `
		select seq, kind, text, actor, at from reconcile.exception_note where exception_id = $1 order by seq limit 1000`, exceptionID)
	if err != nil {
		return Exception{}, nil, fmt.Errorf("read history of exception %s: %w", exceptionID, err)
	}
	notes, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Note])
	if err != nil {
		return Exception{}, nil, fmt.Errorf("read history of exception %s: %w", exceptionID, err)
	}
	return list[0], notes, nil
}
