package bill

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

// A State is where a bill stands.
type State string

const (
	Draft       State = "draft"
	Open        State = "open"
	PartPaid    State = "part_paid"
	Paid        State = "paid"
	Cancelled   State = "cancelled"
	Replaced    State = "replaced"
	Transferred State = "transferred"
	WrittenOff  State = "written_off"
)

// next is the whole state machine. A paid bill reopens by refund, return or dispute.
var next = map[State][]State{
	Draft:    {Open, Cancelled},
	Open:     {PartPaid, Paid, Cancelled, Replaced, Transferred, WrittenOff},
	PartPaid: {Paid, Open, Transferred, WrittenOff},
	Paid:     {PartPaid, Open},
}

// Payable reports whether money may be taken for a bill in this state.
func (s State) Payable() bool { return s == Open || s == PartPaid }

// A TransitionError reports a step that the state machine does not allow.
type TransitionError struct{ From, To State }

func (e *TransitionError) Error() string {
	return fmt.Sprintf("bill cannot go from %s to %s", e.From, e.To)
}

// move changes the state of a locked bill, with what is paid and billed, and
// records the event.
func (s *Service) move(ctx context.Context, tx pgx.Tx, b *Bill, to State, cause string) error {
	if b.State != to && !slices.Contains(next[b.State], to) {
		return &TransitionError{From: b.State, To: to}
	}
	from := b.State
	b.State, b.UpdatedAt = to, s.now()
	b.Version++
	batch := new(pgx.Batch)
	batch.Queue(`
		update payments.bill set state = $2, billed_cents = $3, paid_cents = $4, version = $5, updated_at = $6 where id = $1`,
		b.ID, string(to), b.Billed, b.Paid, b.Version, b.UpdatedAt)
	batch.Queue(`
		insert into payments.bill_event (bill_id, version, from_state, to_state, cause, at) values ($1, $2, $3, $4, $5, $6)`,
		b.ID, b.Version, string(from), string(to), cause, b.UpdatedAt)
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("move bill %s to %s: %w", b.ID, to, err)
	}
	return nil
}
