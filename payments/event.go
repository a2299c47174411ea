package payments

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
)

// Receive stores a webhook of the processor and queues its handling. It answers
// before anything is done: the sender only needs to know that it is kept. The
// same event again changes nothing. Errors: ErrSignature, ErrStale, ErrFuture,
// ErrMalformed.
func (s *Service) Receive(ctx context.Context, payload []byte, signature string) error {
	e, err := s.processor.ParseEvent(payload, signature, s.now())
	if err != nil {
		return fmt.Errorf("receive webhook: %w", err)
	}
	if err := s.keep(ctx, "webhook", e); err != nil {
		return fmt.Errorf("receive webhook %s: %w", e.ID, err)
	}
	return nil
}

// keep stores events, each once, with the jobs that handle them.
func (s *Service) keep(ctx context.Context, source string, events ...Event) error {
	ids, types, objects := make([]string, len(events)), make([]string, len(events)), make([]string, len(events))
	payloads, created := make([][]byte, len(events)), make([]time.Time, len(events))
	for i, e := range events {
		ids[i], types[i], objects[i], payloads[i], created[i] = e.ID, e.Type, e.ObjectID, e.Payload, e.CreatedAt
	}
	return pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `
			insert into payments.processor_event (id, type, object_id, payload, source, created_at, received_at)
			select id, type, object_id, payload, $6, created_at, $7
			from unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::timestamptz[]) as e (id, type, object_id, payload, created_at)
			order by id on conflict (id) do nothing returning id`,
			ids, types, objects, payloads, created, source, s.now())
		if err != nil {
			return err
		}
		fresh, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return err
		}
		for _, eventID := range fresh {
			if err := s.queue.Insert(ctx, tx, EventArgs{EventID: eventID}, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

// EventArgs is the job that handles one stored event of the processor.
type EventArgs struct {
	EventID string `json:"event_id"`
}

// Kind names the job. It is stored with queued jobs: never change it.
func (EventArgs) Kind() string { return "payments.event" }

// SweepArgs is the job that asks the processor about payments that have not
// moved, and reads the events that no webhook brought.
type SweepArgs struct{}

// Kind names the job. It is stored with queued jobs: never change it.
func (SweepArgs) Kind() string { return "payments.sweep" }

// AddWorkers registers the jobs of this package.
func (s *Service) AddWorkers(w *river.Workers) {
	river.AddWorker(w, river.WorkFunc(func(ctx context.Context, job *river.Job[EventArgs]) error {
		return s.Handle(ctx, job.Args.EventID)
	}))
	river.AddWorker(w, river.WorkFunc(func(ctx context.Context, _ *river.Job[SweepArgs]) error {
		return s.Sweep(ctx)
	}))
	river.AddWorker(w, river.WorkFunc(func(ctx context.Context, job *river.Job[ReceiptArgs]) error {
		return s.issueReceipt(ctx, job.Args.PaymentID)
	}))
	river.AddWorker(w, river.WorkFunc(func(ctx context.Context, job *river.Job[ReceiptMailArgs]) error {
		return s.mailReceipt(ctx, job.Args.ReceiptID)
	}))
}

// Handle applies one stored event; the job that Receive queues does. It may be killed
// at any line and run again.
func (s *Service) Handle(ctx context.Context, eventID string) error {
	var kind, objectID string
	var handled *time.Time
	err := s.db.QueryRow(ctx, `select type, object_id, handled_at from payments.processor_event where id = $1`, eventID).
		Scan(&kind, &objectID, &handled)
	if err != nil {
		return fmt.Errorf("handle event %s: %w", eventID, err)
	}
	if handled != nil {
		return nil
	}
	outcome := "ignored"
	if strings.HasPrefix(kind, "checkout.session.") {
		outcome, err = s.handleSession(ctx, objectID)
		if errors.Is(err, ErrMismatch) { // it will not fit tomorrow either: a person has to look now
			err = river.JobCancel(err)
		}
		if err != nil {
			return fmt.Errorf("handle event %s: %w", eventID, err)
		}
	}
	_, err = s.db.Exec(ctx, `
		update payments.processor_event set outcome = $2, handled_at = $3 where id = $1 and handled_at is null`, eventID, outcome, s.now())
	if err != nil {
		return fmt.Errorf("close event %s: %w", eventID, err)
	}
	return nil
}

// handleSession applies what the processor says of a session now: the event is
// only the reason to ask.
func (s *Service) handleSession(ctx context.Context, sessionID string) (outcome string, err error) {
	session, err := s.processor.Session(ctx, sessionID)
	var refused *RefusedError
	if errors.As(err, &refused) {
		return "ignored", nil // the account has no such session
	}
	if err != nil {
		return "", err
	}
	_, err = Get(ctx, s.db, session.PaymentID)
	if errors.Is(err, ErrNotFound) {
		return "ignored", nil // somebody else's use of the same processor account
	}
	if err != nil {
		return "", err
	}
	if _, err := s.apply(ctx, session.PaymentID, session); err != nil {
		return "", err
	}
	return "applied", nil
}

// What the poller asks about at once, and for how long: the next sweep is soon.
const (
	sweepSize = 200
	sweepTime = time.Minute
	// So many questions in a row without an answer, and the sweep is given up: the
	// processor is down, not the payment.
	maxSilence = 5
)

// Sweep is the poller: it asks about live payments that have not moved for a
// while, and reads the processor's list of events for what webhooks dropped.
// Sweeps that run at once share the work. One payment's trouble is told to the log
// and is not the others'.
func (s *Service) Sweep(ctx context.Context) error {
	ids, err := s.askable(ctx)
	if err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	asking, cancel := context.WithTimeout(ctx, sweepTime)
	defer cancel()
	silence := 0
	for _, paymentID := range ids {
		_, err := s.Sync(asking, paymentID)
		if err != nil {
			s.log.WarnContext(ctx, "ask the processor about a payment", "payment", paymentID, "error", err)
		}
		if silence++; !errors.Is(err, ErrUnknownOutcome) {
			silence = 0
		}
		if silence == maxSilence || asking.Err() != nil {
			break
		}
	}
	if err := s.readEvents(ctx); err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	return nil
}

// askable takes the payments that are to be asked about now, longest due first, and
// puts each off for a quarter of its age: a payer takes minutes, a debit takes days,
// and what cannot be resolved must not stand in the way of what can.
func (s *Service) askable(ctx context.Context) ([]string, error) {
	rows, err := s.db.Query(ctx, `
		update payments.payment p
		set ask_at = $1::timestamptz + least(greatest(($1::timestamptz - p.created_at) / 4, $2::interval), $3::interval)
		from (
			select id from payments.payment
			where state in ('created', 'unknown', 'pending', 'processing') and ask_at <= $1
			order by ask_at limit $4 for no key update skip locked) due
		where p.id = due.id returning p.id::text`, s.now(), askFirst, askLast, sweepSize)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

const (
	// eventPause is how long the list of events is left alone after it was read.
	eventPause = time.Minute
	// eventOverlap is read again each time: events are not listed in the order they
	// become visible, and the processor's clock is not ours.
	eventOverlap = 5 * time.Minute
	eventBatch   = 500 // in one transaction
)

func (s *Service) readEvents(ctx context.Context) error {
	started := s.now()
	var since time.Time
	err := s.db.QueryRow(ctx, `
		insert into payments.processor_cursor as c (name, since, read_at) values ('events', $1, $2)
		on conflict (name) do update set read_at = excluded.read_at where c.read_at <= $3
		returning since`, started.Add(-24*time.Hour), started, started.Add(-eventPause)).Scan(&since)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil // read a moment ago
	}
	if err != nil {
		return fmt.Errorf("read cursor: %w", err)
	}
	cursor := ""
	for range 1000 { // pages
		events, next, err := s.processor.Events(ctx, since.Add(-eventOverlap), cursor)
		if err != nil {
			return fmt.Errorf("list events: %w", err)
		}
		for batch := range slices.Chunk(events, eventBatch) {
			if err := s.keep(ctx, "poll", batch...); err != nil {
				return fmt.Errorf("keep events: %w", err)
			}
		}
		if next == "" {
			_, err := s.db.Exec(ctx, `update payments.processor_cursor set since = greatest(since, $1) where name = 'events'`, started)
			return err
		}
		cursor = next
	}
	return errors.New("list events: more pages than expected")
}
