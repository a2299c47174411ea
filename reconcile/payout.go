package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/clock"
	"guichet/internal/money"
	"guichet/payments"
)

// A PayoutState is how far we have explained a payout.
type PayoutState string

const (
	Announced PayoutState = "announced" // the processor has told of it
	Itemised  PayoutState = "itemised"  // its lines are here and add up
	Matched   PayoutState = "matched"   // the bank line is known
	Settled   PayoutState = "settled"   // in the books
	Failed    PayoutState = "failed"    // the bank never had it
	Returned  PayoutState = "returned"  // failed after it was in the books: a person corrects
)

// nextPayout is the whole state machine.
var nextPayout = map[PayoutState][]PayoutState{
	Announced: {Itemised, Failed},
	Itemised:  {Matched, Failed},
	Matched:   {Settled, Failed},
	Settled:   {Returned},
}

// A TransitionError reports a step that a state machine does not allow.
type TransitionError struct{ Object, From, To string }

func (e *TransitionError) Error() string {
	return fmt.Sprintf("%s cannot go from %s to %s", e.Object, e.From, e.To)
}

// A Payout is a transfer of the processor to the city's bank, with our view of it.
type Payout struct {
	ID             string
	Amount         money.Amount // negative: the processor collected
	Currency       string
	Automatic      bool
	ArrivalOn      clock.Date
	TraceID        string
	ProcessorState string
	Failure        string
	Itemised       bool // the processor's list of lines is whole
	State          PayoutState
	CreatedAt      time.Time

	seq int64
}

func payoutsWhere(ctx context.Context, q Querier, where string, args ...any) ([]Payout, error) {
	rows, err := q.Query(ctx, `
		select id, amount_cents, currency, automatic, arrival_on, trace_id, processor_state, failure, itemised, state, created_at, seq
		from reconcile.payout `+where, args...)
	if err != nil {
		return nil, fmt.Errorf("read payouts: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (p Payout, err error) {
		var on time.Time
		err = row.Scan(&p.ID, &p.Amount, &p.Currency, &p.Automatic, &on, &p.TraceID, &p.ProcessorState, &p.Failure,
			&p.Itemised, &p.State, &p.CreatedAt, &p.seq)
		p.ArrivalOn = clock.FromTime(on)
		return p, err
	})
	if err != nil {
		return nil, fmt.Errorf("read payouts: %w", err)
	}
	return list, nil
}

// lockPayout reads a payout and holds its row, or returns ErrNotFound.
func lockPayout(ctx context.Context, tx pgx.Tx, payoutID string) (Payout, error) {
	list, err := payoutsWhere(ctx, tx, `where id = $1 for update`, payoutID)
	if err != nil {
		return Payout{}, err
	}
	if len(list) == 0 {
		return Payout{}, fmt.Errorf("payout %s: %w", payoutID, ErrNotFound)
	}
	return list[0], nil
}

// move changes the state of a locked payout and records the event.
func (p *Payout) move(ctx context.Context, tx pgx.Tx, to PayoutState, cause string, now time.Time) error {
	if !slices.Contains(nextPayout[p.State], to) {
		return &TransitionError{"payout " + p.ID, string(p.State), string(to)}
	}
	from := p.State
	p.State = to
	p.seq++
	batch := new(pgx.Batch)
	batch.Queue(`update reconcile.payout set state = $2, seq = $3, updated_at = $4 where id = $1`, p.ID, string(to), p.seq, now)
	batch.Queue(`
		insert into reconcile.payout_event (payout_id, seq, from_state, to_state, cause, at) values ($1, $2, $3, $4, $5, $6)`,
		p.ID, p.seq, string(from), string(to), cause, now)
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("move payout %s to %s: %w", p.ID, to, err)
	}
	return nil
}

// take copies what the processor says of a payout now.
func (n *Nightly) take(ctx context.Context, tx pgx.Tx, from payments.Payout) error {
	_, err := tx.Exec(ctx, `
		insert into reconcile.payout (id, amount_cents, currency, automatic, arrival_on, trace_id, processor_state, failure,
			itemised, state, created_at, updated_at)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'announced', $10, $11)
		on conflict (id) do update set arrival_on = excluded.arrival_on, trace_id = excluded.trace_id,
			processor_state = excluded.processor_state, failure = excluded.failure, itemised = excluded.itemised, updated_at = excluded.updated_at
			where (payout.arrival_on, payout.trace_id, payout.processor_state, payout.failure, payout.itemised)
				is distinct from (excluded.arrival_on, excluded.trace_id, excluded.processor_state, excluded.failure, excluded.itemised)`,
		from.ID, from.Amount, from.Currency, from.Automatic, clock.FromTime(from.ArrivalOn.UTC()).Time(), from.TraceID, from.State, from.Failure,
		from.Itemised, from.CreatedAt, n.now())
	if err != nil {
		return fmt.Errorf("copy payout %s: %w", from.ID, err)
	}
	p, err := lockPayout(ctx, tx, from.ID)
	if err != nil {
		return err
	}
	if p.Amount != from.Amount || p.Currency != from.Currency {
		return fmt.Errorf("payout %s was %s %s and is now %s %s", p.ID, p.Amount, p.Currency, from.Amount, from.Currency)
	}
	if from.State == "failed" || from.State == "canceled" {
		return n.fail(ctx, tx, &p)
	}
	if !p.Automatic {
		return n.open(ctx, tx, Exception{Kind: PayoutManual, ObjectType: "payout", ObjectID: p.ID, Amount: p.Amount},
			"the processor does not say which payments are in a manual payout")
	}
	return nil
}

// fail follows the processor's word that a payout did not arrive. One that is in
// the books by then is a person's: the bank shows how the money went back.
func (n *Nightly) fail(ctx context.Context, tx pgx.Tx, p *Payout) error {
	cause := "processor: " + p.ProcessorState + " " + p.Failure
	was := p.State
	switch was {
	case Failed, Returned:
		return nil
	case Settled:
		if err := p.move(ctx, tx, Returned, cause, n.now()); err != nil {
			return err
		}
	default:
		if err := p.move(ctx, tx, Failed, cause, n.now()); err != nil {
			return err
		}
	}
	if was == Settled || was == Matched {
		return n.open(ctx, tx, Exception{Kind: PayoutFailed, ObjectType: "payout", ObjectID: p.ID, Amount: p.Amount},
			fmt.Sprintf("the payout failed after it was %s: %s", was, p.Failure))
	}
	return nil
}

// A Transaction is one movement of our balance at the processor.
type Transaction struct {
	ID, Category, SourceID, IntentID string
	Amount, Fee, Net                 money.Amount
	PaymentID                        string // the payment that explains it; empty: none
}

// TransactionsOf lists the lines of a payout, in order of id.
func TransactionsOf(ctx context.Context, q Querier, payoutID string) ([]Transaction, error) {
	rows, err := q.Query(ctx, `
		select t.id, t.category, t.source_id, t.intent_id, t.amount_cents, t.fee_cents, t.net_cents, coalesce(m.payment_id::text, '')
		from reconcile.payout_line l join reconcile.balance_transaction t on t.id = l.transaction_id
		left join reconcile.payment_match m on m.transaction_id = t.id
		where l.payout_id = $1 order by t.id limit $2`, payoutID, maxPayoutLines+1)
	if err != nil {
		return nil, fmt.Errorf("read lines of payout %s: %w", payoutID, err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Transaction])
	if err == nil && len(list) > maxPayoutLines {
		err = errors.New("too many")
	}
	if err != nil {
		return nil, fmt.Errorf("read lines of payout %s: %w", payoutID, err)
	}
	return list, nil
}

// maxPayoutLines bounds the lines of one payout that are held in memory.
const maxPayoutLines = 2_000_000
