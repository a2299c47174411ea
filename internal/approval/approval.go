// Package approval lets a second person decide about what a first one asks for.
//
//	room ──Ask(tx)──▶ pending ──Approve / Refuse (another person)──▶ decided, for ever
//
// What is decided is bound to the bytes that were asked for: Approve compares them
// again, so nobody can change a proposal between the two looks. The database refuses a decision by
// the requester, who may only take the request back, and any change of a decided row.
package approval

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"guichet/internal/audit"
	"guichet/internal/id"
)

// What a caller may be told.
var (
	ErrNotFound   = errors.New("approval not found")
	ErrPending    = errors.New("a request for this object is waiting already")
	ErrDecided    = errors.New("already decided")
	ErrSamePerson = errors.New("the requester cannot decide")
	ErrOther      = errors.New("only the requester can take it back")
	ErrChanged    = errors.New("what is to be approved is not what was asked for")
)

// Decisions. An empty decision is pending.
const (
	Approved  = "approved"
	Refused   = "refused"
	Withdrawn = "withdrawn" // by whoever asked
)

// A Request asks for a decision.
type Request struct {
	Kind    string // what would be done: "client.redirect", "key.live"
	Object  string // id of what it is done to; one pending request per kind and object
	Payload []byte // exactly what would be done; only its hash is kept here
	By      string // who asks
	At      time.Time
}

// An Approval is a request and, once there is one, its decision.
type Approval struct {
	ID          string
	Kind        string
	Object      string `db:"object_id"`
	PayloadHash []byte
	RequestedBy string
	RequestedAt time.Time
	Decision    string // "", Approved or Refused
	DecidedBy   string
	DecidedAt   *time.Time
	Reason      string
}

// Ask stores a request in the caller's transaction and returns its id. A second
// one for the same kind and object is ErrPending, wrapped.
func Ask(ctx context.Context, tx pgx.Tx, r Request) (string, error) {
	approvalID := id.New()
	hash := sha256.Sum256(r.Payload)
	tag, err := tx.Exec(ctx, `
insert into ops.approval (id, kind, object_id, payload_hash, requested_by, requested_at)
values ($1, $2, $3, $4, $5, $6)
on conflict (kind, object_id) where decision is null do nothing`,
		approvalID, r.Kind, r.Object, hash[:], r.By, r.At)
	if err != nil {
		return "", fmt.Errorf("ask for approval of %s %s: %w", r.Kind, r.Object, err)
	}
	if tag.RowsAffected() == 0 {
		return "", fmt.Errorf("ask for approval of %s %s: %w", r.Kind, r.Object, ErrPending)
	}
	return approvalID, record(ctx, tx, "approval.requested", r.At, Approval{ID: approvalID, Kind: r.Kind, Object: r.Object})
}

// A Decision is one person's yes or no.
type Decision struct {
	ID     string
	By     string
	Reason string
	At     time.Time
}

// Approve says yes to exactly payload and returns what was approved; the caller
// carries it out in the same transaction. It returns ErrNotFound, ErrDecided, ErrSamePerson or
// ErrChanged, wrapped.
func Approve(ctx context.Context, tx pgx.Tx, d Decision, payload []byte) (Approval, error) {
	a, err := lock(ctx, tx, d.ID)
	if err != nil {
		return Approval{}, fmt.Errorf("approve %s: %w", d.ID, err)
	}
	if hash := sha256.Sum256(payload); !bytes.Equal(hash[:], a.PayloadHash) {
		return Approval{}, fmt.Errorf("approve %s: %w", d.ID, ErrChanged)
	}
	if err := decide(ctx, tx, &a, d, Approved); err != nil {
		return Approval{}, fmt.Errorf("approve %s: %w", d.ID, err)
	}
	return a, nil
}

// Refuse says no. It returns ErrNotFound, ErrDecided or ErrSamePerson, wrapped.
func Refuse(ctx context.Context, tx pgx.Tx, d Decision) (Approval, error) {
	a, err := lock(ctx, tx, d.ID)
	if err != nil {
		return Approval{}, fmt.Errorf("refuse %s: %w", d.ID, err)
	}
	if err := decide(ctx, tx, &a, d, Refused); err != nil {
		return Approval{}, fmt.Errorf("refuse %s: %w", d.ID, err)
	}
	return a, nil
}

// Withdraw takes a request back, for whoever asked. It returns ErrNotFound, ErrDecided or, for
// anybody else, ErrOther, wrapped.
func Withdraw(ctx context.Context, tx pgx.Tx, d Decision) (Approval, error) {
	a, err := lock(ctx, tx, d.ID)
	if err == nil && d.By != a.RequestedBy {
		err = ErrOther
	}
	if err == nil {
		err = set(ctx, tx, &a, d, Withdrawn)
	}
	if err != nil {
		return Approval{}, fmt.Errorf("withdraw %s: %w", d.ID, err)
	}
	return a, nil
}

const columns = `id, kind, object_id, payload_hash, requested_by, requested_at,
	coalesce(decision, '') as decision, coalesce(decided_by, '') as decided_by, decided_at, reason`

func lock(ctx context.Context, tx pgx.Tx, approvalID string) (Approval, error) {
	if !id.Valid(approvalID) {
		return Approval{}, ErrNotFound
	}
	rows, err := tx.Query(ctx, "select "+columns+" from ops.approval where id = $1 for update", approvalID)
	if err != nil {
		return Approval{}, err
	}
	a, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[Approval])
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return Approval{}, ErrNotFound
	case err != nil:
		return Approval{}, err
	case a.Decision != "":
		return Approval{}, ErrDecided
	}
	return a, nil
}

func decide(ctx context.Context, tx pgx.Tx, a *Approval, d Decision, decision string) error {
	if d.By == a.RequestedBy {
		return ErrSamePerson // the database would refuse it too, and end the transaction
	}
	return set(ctx, tx, a, d, decision)
}

func set(ctx context.Context, tx pgx.Tx, a *Approval, d Decision, decision string) error {
	_, err := tx.Exec(ctx, `
update ops.approval set decision = $2, decided_by = $3, decided_at = $4, reason = $5 where id = $1`,
		a.ID, decision, d.By, d.At, d.Reason)
	if pgErr := new(pgconn.PgError); errors.As(err, &pgErr) && pgErr.ConstraintName == "approval_two_persons" {
		return ErrSamePerson
	}
	if err != nil {
		return err
	}
	a.Decision, a.DecidedBy, a.DecidedAt, a.Reason = decision, d.By, &d.At, d.Reason
	return record(ctx, tx, "approval."+decision, d.At, *a)
}

func record(ctx context.Context, tx pgx.Tx, action string, at time.Time, a Approval) error {
	return audit.Record(ctx, tx, audit.Event{
		Action: action, ObjectType: "approval", ObjectID: a.ID, At: at,
		Details: map[string]any{"kind": a.Kind, "object": a.Object},
	})
}

// Get reads a request, decided or not, or returns ErrNotFound.
func Get(ctx context.Context, q Querier, approvalID string) (Approval, error) {
	if !id.Valid(approvalID) {
		return Approval{}, ErrNotFound
	}
	rows, err := q.Query(ctx, "select "+columns+" from ops.approval where id = $1", approvalID)
	if err != nil {
		return Approval{}, fmt.Errorf("read approval %s: %w", approvalID, err)
	}
	a, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[Approval])
	if errors.Is(err, pgx.ErrNoRows) {
		return Approval{}, ErrNotFound
	}
	if err != nil {
		return Approval{}, fmt.Errorf("read approval %s: %w", approvalID, err)
	}
	return a, nil
}

// A Querier is a pool, connection or transaction.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Pending lists what waits for a decision, oldest first, at most 200.
func Pending(ctx context.Context, db Querier) ([]Approval, error) {
	rows, err := db.Query(ctx, "select "+columns+" from ops.approval where decision is null order by requested_at, id limit 200")
	if err != nil {
		return nil, fmt.Errorf("list approvals: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[Approval])
	if err != nil {
		return nil, fmt.Errorf("list approvals: %w", err)
	}
	return list, nil
}
