// Package jobs queues work in the transaction that causes it, and works it off.
// It is a thin frame around River.
//
//	room ──Insert(tx)──▶ river.river_job ──Runner──▶ the room's worker
//
// A job is committed with the change it follows from, or not at all. It may run
// more than once: every worker tolerates that. Arguments hold ids, never names,
// addresses or secrets. Any number of instances may run.
package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivertype"

	"guichet/migrations"
)

// A Queue takes jobs. It may be used by many goroutines at once.
type Queue struct {
	client *river.Client[pgx.Tx]
}

// New returns a queue that only takes jobs; a Runner works them off.
func New(db *pgxpool.Pool) (*Queue, error) {
	client, err := river.NewClient(riverpgxv5.New(db), &river.Config{Schema: migrations.River, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, fmt.Errorf("open job queue: %w", err)
	}
	return &Queue{client: client}, nil
}

// Insert queues a job in the caller's transaction. opts may be nil.
func (q *Queue) Insert(ctx context.Context, tx pgx.Tx, args river.JobArgs, opts *river.InsertOpts) error {
	if _, err := q.client.InsertTx(ctx, tx, args, opts); err != nil {
		return fmt.Errorf("queue %s: %w", args.Kind(), err)
	}
	return nil
}

// Options say how jobs are worked off.
type Options struct {
	MaxWorkers int // at once, in this process; zero: 8
	Periodic   []Periodic
	Log        *slog.Logger
}

// A Periodic job is queued again and again by whichever instance leads.
type Periodic struct {
	Every time.Duration
	Args  func() river.JobArgs
}

// A Runner works jobs off until it is stopped.
type Runner struct {
	client *river.Client[pgx.Tx]
}

const (
	jobTimeout = time.Minute
	// A job whose process was killed is taken up again after this long.
	rescueAfter = 2 * time.Minute
)

// Start begins to work off jobs with the given workers. Stop it before the pool closes.
func Start(ctx context.Context, db *pgxpool.Pool, workers *river.Workers, o Options) (*Runner, error) {
	if o.MaxWorkers == 0 {
		o.MaxWorkers = 8
	}
	var periodic []*river.PeriodicJob
	for _, p := range o.Periodic {
		periodic = append(periodic, river.NewPeriodicJob(river.PeriodicInterval(p.Every),
			func() (river.JobArgs, *river.InsertOpts) {
				// One of its kind at a time: a slow run is not joined by the next.
				return p.Args(), &river.InsertOpts{MaxAttempts: 1, UniqueOpts: river.UniqueOpts{ByArgs: true, ByState: []rivertype.JobState{
					rivertype.JobStateAvailable, rivertype.JobStatePending, rivertype.JobStateRunning,
					rivertype.JobStateRetryable, rivertype.JobStateScheduled,
				}}}
			}, &river.PeriodicJobOpts{RunOnStart: true}))
	}
	client, err := river.NewClient(riverpgxv5.New(db), &river.Config{
		Schema: migrations.River, Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: o.MaxWorkers}},
		Workers: workers, PeriodicJobs: periodic, ErrorHandler: &reporter{log: o.Log}, Logger: slog.New(warnings{o.Log.Handler()}),
		JobTimeout: jobTimeout, RescueStuckJobsAfter: rescueAfter, FetchPollInterval: 500 * time.Millisecond, FetchCooldown: 20 * time.Millisecond,
	})
	if err != nil {
		return nil, fmt.Errorf("start jobs: %w", err)
	}
	if err := client.Start(ctx); err != nil {
		return nil, fmt.Errorf("start jobs: %w", err)
	}
	return &Runner{client: client}, nil
}

// Stop lets running jobs finish until ctx ends, then cancels them; a cancelled job
// runs again later.
func (r *Runner) Stop(ctx context.Context) error {
	err := r.client.Stop(ctx)
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		hard, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		err = r.client.StopAndCancel(hard)
	}
	if err != nil {
		return fmt.Errorf("stop jobs: %w", err)
	}
	return nil
}

// A reporter logs what failed: the job's kind and id, never its arguments.
type reporter struct{ log *slog.Logger }

func (r *reporter) HandleError(ctx context.Context, job *rivertype.JobRow, err error) *river.ErrorHandlerResult {
	level := slog.LevelWarn
	if job.Attempt >= job.MaxAttempts {
		level = slog.LevelError // parked: a person has to look
	}
	r.log.Log(ctx, level, "job failed", "kind", job.Kind, "job", job.ID, "attempt", job.Attempt, "of", job.MaxAttempts, "error", err)
	return nil
}

func (r *reporter) HandlePanic(ctx context.Context, job *rivertype.JobRow, value any, trace string) *river.ErrorHandlerResult {
	r.log.ErrorContext(ctx, "job panicked", "kind", job.Kind, "job", job.ID, "attempt", job.Attempt, "panic", value, "trace", trace)
	return nil
}

// warnings drops what River tells below a warning.
type warnings struct{ slog.Handler }

func (w warnings) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && w.Handler.Enabled(ctx, l)
}

func (w warnings) WithAttrs(a []slog.Attr) slog.Handler { return warnings{w.Handler.WithAttrs(a)} }
func (w warnings) WithGroup(name string) slog.Handler   { return warnings{w.Handler.WithGroup(name)} }
