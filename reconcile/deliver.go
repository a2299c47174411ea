package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/audit"
	"guichet/internal/clock"
	"guichet/internal/id"
	"guichet/internal/money"
	"guichet/reconcile/sap"
)

// A BatchState is where a file for SAP is.
type BatchState string

const (
	Ready     BatchState = "ready"     // in the outbox
	Sending   BatchState = "sending"   // being handed over; found so after a crash it is as good as unknown
	Unknown   BatchState = "unknown"   // it may have arrived: nothing goes out again without evidence
	Delivered BatchState = "delivered" // SAP has it
)

// nextBatch is the whole state machine.
var nextBatch = map[BatchState][]BatchState{
	Ready:   {Sending, Delivered}, // delivered: SAP has answered, whatever we remember
	Sending: {Ready, Unknown, Delivered},
	Unknown: {Ready, Delivered}, // ready: evidence, or a person, says that it did not arrive
}

// A Batch is one file for SAP. Its bytes never change.
type Batch struct {
	ID           string
	Number       int64
	BusinessDate clock.Date
	Currency     string
	FileName     string
	Documents    int
	Debits       money.Amount
	State        BatchState
	CreatedAt    time.Time
	UpdatedAt    time.Time

	seq int64
}

func batches(ctx context.Context, q Querier, where string, args ...any) ([]Batch, error) {
	rows, err := q.Query(ctx, `
		select id, number, business_date, currency, file_name, documents, debits_cents, state, created_at, updated_at, seq
		from reconcile.sap_batch `+where, args...)
	if err != nil {
		return nil, fmt.Errorf("read SAP batches: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (b Batch, err error) {
		var on time.Time
		err = row.Scan(&b.ID, &b.Number, &on, &b.Currency, &b.FileName, &b.Documents, &b.Debits, &b.State, &b.CreatedAt, &b.UpdatedAt, &b.seq)
		b.BusinessDate = clock.FromTime(on)
		return b, err
	})
	if err != nil {
		return nil, fmt.Errorf("read SAP batches: %w", err)
	}
	return list, nil
}

func lockBatch(ctx context.Context, tx pgx.Tx, batchID string) (Batch, error) {
	if !id.Valid(batchID) {
		return Batch{}, ErrNotFound
	}
	list, err := batches(ctx, tx, `where id = $1 for update`, batchID)
	if err != nil {
		return Batch{}, err
	}
	if len(list) == 0 {
		return Batch{}, ErrNotFound
	}
	return list[0], nil
}

// Batches lists the files for SAP, the newest first.
func Batches(ctx context.Context, q Querier, limit int) ([]Batch, error) {
	return batches(ctx, q, `order by number desc limit $1`, limit)
}

// BatchFile returns the frozen bytes of a batch, or ErrNotFound.
func BatchFile(ctx context.Context, q Querier, batchID string) (sap.File, error) {
	if !id.Valid(batchID) {
		return sap.File{}, ErrNotFound
	}
	var f sap.File
	err := q.QueryRow(ctx, `select file_name, data, manifest from reconcile.sap_batch where id = $1`, batchID).Scan(&f.Name, &f.Data, &f.Manifest)
	if errors.Is(err, pgx.ErrNoRows) {
		return sap.File{}, ErrNotFound
	}
	if err != nil {
		return sap.File{}, fmt.Errorf("read SAP file: %w", err)
	}
	return f, nil
}

// move changes the state of a locked batch and records the event with its evidence.
func (b *Batch) move(ctx context.Context, tx pgx.Tx, to BatchState, cause string, evidence any, now time.Time) error {
	if !slices.Contains(nextBatch[b.State], to) {
		return &TransitionError{"SAP batch " + b.FileName, string(b.State), string(to)}
	}
	text, err := json.Marshal(evidence)
	if err != nil {
		return err
	}
	if evidence == nil {
		text = []byte("{}")
	}
	from := b.State
	b.State = to
	b.seq++
	batch := new(pgx.Batch)
	batch.Queue(`update reconcile.sap_batch set state = $2, seq = $3, updated_at = $4 where id = $1`, b.ID, string(to), b.seq, now)
	batch.Queue(`
		insert into reconcile.sap_batch_event (batch_id, seq, from_state, to_state, cause, evidence, actor, at) values ($1, $2, $3, $4, $5, $6, $7, $8)`,
		b.ID, b.seq, string(from), string(to), cause, text, audit.From(ctx).Actor, now)
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("move SAP batch %s to %s: %w", b.FileName, to, err)
	}
	return nil
}

// A DeliveryResult says what one call of Deliver did.
type DeliveryResult struct {
	Delivered int  `json:"delivered"`
	Waiting   int  `json:"waiting"` // not arrived, or not known: the exceptions say why
	Busy      bool `json:"busy,omitempty"`
}

// Deliver hands over what waits for SAP, oldest first. A file whose fate is not
// known is looked for first, and only evidence that it did not arrive lets the
// same bytes go out again. Trouble with one file is an exception, not an error.
func (n *Nightly) Deliver(ctx context.Context) (DeliveryResult, error) {
	var did DeliveryResult
	if n.handover.Place == nil {
		return did, nil
	}
	release, err := n.lock(ctx, handoverLock)
	if errors.Is(err, ErrBusy) {
		return DeliveryResult{Busy: true}, nil
	}
	if err != nil {
		return did, fmt.Errorf("deliver to SAP: %w", err)
	}
	defer release()
	list, err := batches(ctx, n.db, `where state <> 'delivered' order by number limit 1000`)
	if err != nil {
		return did, err
	}
	for _, b := range list {
		state, err := n.deliverOne(ctx, b.ID)
		if err != nil {
			return did, fmt.Errorf("deliver %s: %w", b.FileName, err)
		}
		if state == Delivered {
			did.Delivered++
		} else {
			did.Waiting++
		}
	}
	return did, nil
}

// deliverOne brings one batch as far as it goes.
func (n *Nightly) deliverOne(ctx context.Context, batchID string) (BatchState, error) {
	file, err := BatchFile(ctx, n.db, batchID)
	if err != nil {
		return "", err
	}
	// Somebody may have seen to it since the list was read: the row decides.
	b, err := n.claim(ctx, batchID)
	if err != nil {
		return "", err
	}
	if b.State == Unknown {
		if b, err = n.look(ctx, b, file); err != nil || b.State != Ready {
			return b.State, err
		}
		if b, err = n.claim(ctx, batchID); err != nil {
			return "", err
		}
	}
	if b.State != Sending {
		return b.State, nil
	}
	// The row says sending, and no transaction is open while the network is used.
	failure := n.handover.Send(ctx, file)
	switch {
	case failure == nil:
		b, err = n.moved(ctx, b.ID, Delivered, "handed over", nil, "")
	case errors.Is(failure, sap.ErrUnknown), errors.Is(failure, context.Canceled), errors.Is(failure, context.DeadlineExceeded):
		b, err = n.moved(ctx, b.ID, Unknown, "no answer", nil, failure.Error())
	default:
		b, err = n.moved(ctx, b.ID, Ready, "not handed over", nil, failure.Error())
	}
	return b.State, err
}

// claim marks a ready batch as being sent. One that is found being sent was left by
// a crash, for Deliver runs once at a time: its fate is unknown.
func (n *Nightly) claim(ctx context.Context, batchID string) (b Batch, err error) {
	err = pgx.BeginFunc(ctx, n.db, func(tx pgx.Tx) error {
		if b, err = lockBatch(ctx, tx, batchID); err != nil {
			return err
		}
		switch b.State {
		case Ready:
			return b.move(ctx, tx, Sending, "claimed", nil, n.now())
		case Sending:
			return b.move(ctx, tx, Unknown, "found half sent", nil, n.now())
		}
		return nil
	})
	return b, err
}

// look searches SAP's folders for a file of unknown fate.
func (n *Nightly) look(ctx context.Context, b Batch, file sap.File) (Batch, error) {
	found, failure := n.handover.Look(ctx, file)
	switch {
	case failure != nil:
		return b, n.trouble(ctx, b, failure.Error())
	case found.Evidence == sap.Arrived:
		return n.moved(ctx, b.ID, Delivered, "found at SAP", found, "")
	case found.Evidence == sap.Missing:
		return n.moved(ctx, b.ID, Ready, "not at SAP", found, "")
	}
	return b, n.trouble(ctx, b, "SAP's folders show neither that the file arrived nor that it did not: a person has to attest")
}

// moved changes a batch's state after the network was used, with its documents and
// its exception. trouble is why it did not get further; empty: it did.
func (n *Nightly) moved(ctx context.Context, batchID string, to BatchState, cause string, evidence any, trouble string) (b Batch, err error) {
	// What has happened is written down even when the caller's time is over.
	ctx = context.WithoutCancel(ctx)
	err = pgx.BeginFunc(ctx, n.db, func(tx pgx.Tx) error {
		if b, err = lockBatch(ctx, tx, batchID); err != nil {
			return err
		}
		if b.State == Delivered { // an answer of SAP was faster
			return nil
		}
		if err := b.move(ctx, tx, to, cause, evidence, n.now()); err != nil {
			return err
		}
		if to == Delivered {
			return n.arrived(ctx, tx, b)
		}
		if trouble == "" {
			return nil
		}
		return n.reopen(ctx, tx, deliveryException(b), trouble)
	})
	if err != nil {
		return b, fmt.Errorf("%s: %w", cause, err)
	}
	return b, nil
}

func (n *Nightly) trouble(ctx context.Context, b Batch, text string) error {
	return pgx.BeginFunc(context.WithoutCancel(ctx), n.db, func(tx pgx.Tx) error {
		return n.reopen(ctx, tx, deliveryException(b), text)
	})
}

func deliveryException(b Batch) Exception {
	return Exception{Kind: DeliveryTrouble, ObjectType: "sap-batch", ObjectID: b.ID, Amount: b.Debits, Currency: b.Currency}
}

// arrived marks the documents of a delivered batch as sent. The batch's row is
// held: everywhere it is locked before its documents.
func (n *Nightly) arrived(ctx context.Context, tx pgx.Tx, b Batch) error {
	list, err := documents(ctx, tx, `where d.batch_id = $1 and d.state = 'created' order by d.docnum for update of d`, b.ID)
	if err != nil {
		return err
	}
	for _, d := range list {
		if err := d.move(ctx, tx, Sent, "file "+b.FileName, n.now()); err != nil {
			return err
		}
	}
	return n.settled(ctx, tx, DeliveryTrouble, "sap-batch", b.ID, "delivered")
}

// Attest records a person's word on a batch of unknown fate: that it arrived, or
// that it did not and the same bytes may go out again.
func (n *Nightly) Attest(ctx context.Context, batchID string, didArrive bool, reason string) error {
	err := pgx.BeginFunc(ctx, n.db, func(tx pgx.Tx) error {
		if reason == "" {
			return errors.New("a reason is needed")
		}
		b, err := lockBatch(ctx, tx, batchID)
		if err != nil {
			return err
		}
		if b.State != Unknown {
			return &TransitionError{"SAP batch " + b.FileName, string(b.State), "an attested state"}
		}
		evidence := map[string]string{"attested": reason}
		if didArrive {
			if err := b.move(ctx, tx, Delivered, "attested: arrived", evidence, n.now()); err != nil {
				return err
			}
			if err := n.arrived(ctx, tx, b); err != nil {
				return err
			}
		} else if err := b.move(ctx, tx, Ready, "attested: did not arrive", evidence, n.now()); err != nil {
			return err
		}
		return audit.Record(ctx, tx, audit.Event{
			Action: "sap-batch.attested", ObjectType: "sap-batch", ObjectID: b.ID, At: n.now(),
			Details: map[string]any{"arrived": didArrive, "reason": reason},
		})
	})
	if err != nil {
		return fmt.Errorf("attest SAP batch %s: %w", batchID, err)
	}
	return nil
}
