// Package jobs queues work in the transaction that causes it and does the work
// afterwards, on River in the schema "river".
//
//	service method ──Insert(tx)──▶ river_job ──any instance──▶ worker
//	                                  └ tries used up, or a panic: parked, for a person
//
// A job runs at least once: workers check what is already done. Arguments, and
// the errors workers return, are stored and logged, so they hold ids and never personal data.
package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivertype"

	"guichet/migrations"
)

// MaxAttempts is how often a job is tried unless it says otherwise. River waits
// attempt⁴ seconds in between: ten tries reach over half a day.
const MaxAttempts = 12

// Queues of jobs that wait for servers outside, apart so that a slow one delays
// others of its kind and never what the house does by itself. Such jobs name
// theirs in their InsertOpts.
const (
	Webhooks = "webhooks"
	Mail     = "mail"
)

// keepParked is how long a job that was given up stays to be looked at.
const keepParked = 90 * 24 * time.Hour

// A Queue inserts jobs; after Work it also does them. It may be used by many
// goroutines at once.
type Queue struct {
	db     *pgxpool.Pool
	log    *slog.Logger
	insert *river.Client[pgx.Tx]
	worker *river.Client[pgx.Tx]
}

// New returns a queue that only inserts, until Work is called.
func New(db *pgxpool.Pool, log *slog.Logger) (*Queue, error) {
	c, err := river.NewClient(riverpgxv5.New(db), &river.Config{
		Schema: migrations.River, MaxAttempts: MaxAttempts, Logger: quiet(log),
	})
	if err != nil {
		return nil, fmt.Errorf("job queue: %w", err)
	}
	return &Queue{db: db, log: log, insert: c}, nil
}

// Insert queues a job in the caller's transaction: no commit, no job. opts may be
// nil. A job whose arguments ask for uniqueness and that is queued already is not queued
// again; that is no error. opts.ScheduledAt is on the wall clock, not the business clock.
func (q *Queue) Insert(ctx context.Context, tx pgx.Tx, args river.JobArgs, opts *river.InsertOpts) error {
	if _, err := q.insert.InsertTx(ctx, tx, args, opts); err != nil {
		return fmt.Errorf("queue job %s: %w", args.Kind(), err)
	}
	return nil
}

// Options of working.
type Options struct {
	Workers  *river.Workers
	Periodic []*river.PeriodicJob // run by one instance at a time
	Parallel int                  // jobs at once in each queue of this process, webhooks four times as many; default 10
}

// Work starts doing jobs in the background until Stop. ctx is only for starting.
func (q *Queue) Work(ctx context.Context, o Options) error {
	if o.Parallel == 0 {
		o.Parallel = 10
	}
	c, err := river.NewClient(riverpgxv5.New(q.db), &river.Config{
		Schema:                      migrations.River,
		Workers:                     o.Workers,
		PeriodicJobs:                o.Periodic,
		Queues:                      map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: o.Parallel}, Webhooks: {MaxWorkers: 4 * o.Parallel}, Mail: {MaxWorkers: o.Parallel}},
		FetchCooldown:               10 * time.Millisecond, // River's own 100 ms would cap each queue at ten batches a second
		FetchOnlyKnownKinds:         true,                  // during a rollout the newer program takes the newer kinds
		MaxAttempts:                 MaxAttempts,
		JobTimeout:                  5 * time.Minute,
		RescueStuckJobsAfter:        15 * time.Minute, // of an instance that was killed
		SoftStopTimeout:             20 * time.Second,
		DiscardedJobRetentionPeriod: keepParked,
		CancelledJobRetentionPeriod: keepParked,
		ReindexerIndexNames:         []string{}, // needs the owner of the tables, which the service is not
		Middleware:                  []rivertype.Middleware{&guard{log: q.log}},
		Logger:                      quiet(q.log),
	})
	if err != nil {
		return fmt.Errorf("job queue: %w", err)
	}
	// River stops when the context of Start ends; we stop it ourselves, in order.
	if err := c.Start(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("start job queue: %w", err)
	}
	q.worker = c
	return nil
}

// Stop takes no new jobs, lets those at work finish for a while, and then cancels
// them: they are tried again later. Without Work it does nothing.
func (q *Queue) Stop(ctx context.Context) error {
	if q.worker == nil {
		return nil
	}
	if err := q.worker.Stop(ctx); err != nil {
		return fmt.Errorf("stop job queue: %w", err)
	}
	return nil
}

// Parked counts by kind the jobs that were given up and wait for a person.
func (q *Queue) Parked(ctx context.Context) (map[string]int, error) {
	return q.count(ctx, `
select kind, count(*) from river.river_job where state in ('discarded', 'cancelled')
group by kind order by kind limit 1000`)
}

// Waiting counts by kind the jobs that are to run now or later.
func (q *Queue) Waiting(ctx context.Context) (map[string]int, error) {
	return q.count(ctx, `
select kind, count(*) from river.river_job where state in ('available', 'scheduled', 'retryable', 'running')
group by kind order by kind limit 1000`)
}

func (q *Queue) count(ctx context.Context, sql string) (map[string]int, error) {
	rows, err := q.db.Query(ctx, sql)
	if err != nil {
		return nil, fmt.Errorf("count jobs: %w", err)
	}
	n := make(map[string]int)
	var kind string
	var count int
	if _, err := pgx.ForEachRow(rows, []any{&kind, &count}, func() error { n[kind] = count; return nil }); err != nil {
		return nil, fmt.Errorf("count jobs: %w", err)
	}
	return n, nil
}

// quiet keeps River's own talk out of the log: how a job ended is told by guard.
func quiet(log *slog.Logger) *slog.Logger { return slog.New(&atLeast{log.Handler(), slog.LevelWarn}) }

type atLeast struct {
	slog.Handler
	level slog.Level
}

func (h *atLeast) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= h.level && h.Handler.Enabled(ctx, l)
}

// A guard stands around every worker. It tells the log how a job failed, by kind
// and number and never by arguments, and keeps panics away from River, which would store their values.
type guard struct {
	river.MiddlewareDefaults
	log *slog.Logger
}

func (g *guard) Work(ctx context.Context, job *rivertype.JobRow, work func(context.Context) error) (err error) {
	log := g.log.With("kind", job.Kind, "job", job.ID, "attempt", job.Attempt, "of", job.MaxAttempts)
	defer func() {
		if v := recover(); v != nil {
			// What a programmer broke does not mend by trying again.
			log.ErrorContext(ctx, "job parked: panic", "value", fmt.Sprintf("%T", v), "stack", string(debug.Stack()))
			err = river.JobCancel(fmt.Errorf("panic with a %T", v))
		}
	}()
	err = work(ctx)
	switch {
	case err == nil, errors.As(err, new(*river.JobSnoozeError)):
	case errors.As(err, new(*river.JobCancelError)):
		log.ErrorContext(ctx, "job parked: trying again cannot help", "error", err)
	case job.Attempt >= job.MaxAttempts:
		log.ErrorContext(ctx, "job parked: no tries left", "error", err)
	default:
		log.WarnContext(ctx, "job failed, will be tried again", "error", err)
	}
	return err
}
