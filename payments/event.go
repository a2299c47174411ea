package payments

import (
	"context"
	"errors"
	"fmt"
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
	if _, err := s.keep(ctx, e, "webhook"); err != nil {
		return fmt.Errorf("receive webhook %s: %w", e.ID, err)
	}
	return nil
}

// keep stores an event once, with the job that handles it.
func (s *Service) keep(ctx context.Context, e Event, source string) (fresh bool, err error) {
	err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `
			insert into payments.processor_event (id, type, object_id, payload, source, created_at, received_at)
			values ($1, $2, $3, $4, $5, $6, $7) on conflict (id) do nothing`,
			e.ID, e.Type, e.ObjectID, e.Payload, source, e.CreatedAt, s.now())
		if err != nil {
			return err
		}
		if fresh = tag.RowsAffected() == 1; !fresh {
			return nil
		}
		return s.queue.Insert(ctx, tx, EventArgs{EventID: e.ID}, nil)
	})
	return fresh, err
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
		if outcome, err = s.handleSession(ctx, objectID); err != nil {
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

// Sweep is the poller: it asks about live payments that have not moved for a
// while, and reads the processor's list of events for what webhooks dropped.
// Running it twice at once changes nothing.
func (s *Service) Sweep(ctx context.Context) error {
	rows, err := s.db.Query(ctx, `
		select id::text from payments.payment
		where state in ('created', 'unknown', 'pending', 'processing') and updated_at < $1
		order by updated_at limit 200`, s.now().Add(-pollAfter))
	if err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	var failed []error
	for _, p := range ids {
		if _, err := s.Sync(ctx, p); err != nil {
			failed = append(failed, err) // one payment's trouble is not the others'
		}
	}
	if err := s.readEvents(ctx); err != nil {
		failed = append(failed, err)
	}
	if len(failed) > 0 {
		return fmt.Errorf("sweep: %w", errors.Join(failed...))
	}
	return nil
}

// eventOverlap is read again each time: events are not listed in the order they
// become visible.
const eventOverlap = 10 * time.Minute

func (s *Service) readEvents(ctx context.Context) error {
	since := s.now().Add(-24 * time.Hour)
	err := s.db.QueryRow(ctx, `select since from payments.processor_cursor where name = 'events'`).Scan(&since)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("read cursor: %w", err)
	}
	started, cursor := s.now(), ""
	for range 1000 { // pages
		events, next, err := s.processor.Events(ctx, since.Add(-eventOverlap), cursor)
		if err != nil {
			return fmt.Errorf("list events: %w", err)
		}
		for _, e := range events {
			if _, err := s.keep(ctx, e, "poll"); err != nil {
				return fmt.Errorf("keep event %s: %w", e.ID, err)
			}
		}
		if next == "" {
			_, err := s.db.Exec(ctx, `
				insert into payments.processor_cursor (name, since) values ('events', $1)
				on conflict (name) do update set since = greatest(processor_cursor.since, excluded.since)`, started)
			return err
		}
		cursor = next
	}
	return errors.New("list events: more pages than expected")
}
