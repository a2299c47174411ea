package payments

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// A State is where a payment stands.
type State string

const (
	Created    State = "created"    // ours alone: the processor has not been asked, or has not answered yet
	Unknown    State = "unknown"    // the processor was asked and its answer is not known: ask again
	Pending    State = "pending"    // the hosted page is open
	Processing State = "processing" // a delayed method was used: money comes, or not, in days
	Succeeded  State = "succeeded"
	Failed     State = "failed"
	Expired    State = "expired"
)

// next is the whole state machine. Who gives up lets the processor's page expire. Expired
// may still succeed: the processor's word that it took the money wins over ours that
// nobody would pay.
var next = map[State][]State{
	Created:    {Unknown, Pending, Succeeded, Failed, Expired},
	Unknown:    {Pending, Processing, Succeeded, Failed, Expired},
	Pending:    {Processing, Succeeded, Failed, Expired},
	Processing: {Succeeded, Failed},
	Failed:     {Succeeded},
	Expired:    {Processing, Succeeded},
}

// Live reports whether money may still come by itself.
func (s State) Live() bool {
	return s == Created || s == Unknown || s == Pending || s == Processing
}

// A TransitionError reports a step that the state machine does not allow.
type TransitionError struct{ From, To State }

func (e *TransitionError) Error() string {
	return fmt.Sprintf("payment cannot go from %s to %s", e.From, e.To)
}

// move changes the state of a locked payment together with what the processor
// said of it, and records the event.
func (p *Payment) move(ctx context.Context, tx pgx.Tx, to State, cause string, now time.Time) error {
	if !slices.Contains(next[p.State], to) {
		return &TransitionError{From: p.State, To: to}
	}
	from := p.State
	p.State, p.UpdatedAt = to, now
	p.seq++
	var succeeded *time.Time
	if to == Succeeded {
		succeeded = &p.SucceededAt
	}
	batch := new(pgx.Batch)
	batch.Queue(`
		update payments.payment set state = $2, session_id = nullif($3, ''), session_url = $4, intent_id = nullif($5, ''),
			charge_id = nullif($6, ''), card_brand = $7, card_last4 = $8, card_funding = $9, entry_id = nullif($10, '')::uuid,
			seq = $11, updated_at = $12, succeeded_at = $13
		where id = $1`,
		p.ID, string(to), p.SessionID, p.SessionURL, p.IntentID,
		p.ChargeID, p.Card.Brand, p.Card.Last4, p.Card.Funding, p.EntryID,
		p.seq, now, succeeded)
	batch.Queue(`
		insert into payments.payment_event (payment_id, seq, from_state, to_state, cause, at) values ($1, $2, $3, $4, $5, $6)`,
		p.ID, p.seq, string(from), string(to), cause, now)
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("move payment %s to %s: %w", p.Reference, to, err)
	}
	return nil
}
