package reconcile

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"guichet/internal/clock"
)

// dueHour is when, in Toronto, a business date that has ended is due: by then
// the bank has written its statement.
const dueHour = 3

// NightlyArgs is the job of one business date. There is one per date.
type NightlyArgs struct {
	Date string `json:"date"`
}

// Kind implements river.JobArgs.
func (NightlyArgs) Kind() string { return "reconcile.nightly" }

// InsertOpts implements river.JobArgsWithInsertOpts.
func (NightlyArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{UniqueOpts: river.UniqueOpts{ByArgs: true}}
}

// TickArgs is the periodic job: it queues the dates that are due, hands over what
// waits for SAP and reads SAP's answers.
type TickArgs struct{}

// Kind implements river.JobArgs.
func (TickArgs) Kind() string { return "reconcile.tick" }

// AddWorkers registers the jobs of this package.
func AddWorkers(w *river.Workers, n *Nightly) {
	river.AddWorker(w, &nightlyWorker{n: n})
	river.AddWorker(w, &tickWorker{n: n})
}

// Periodic is the tick, to be given to the job queue.
func Periodic() *river.PeriodicJob {
	return river.NewPeriodicJob(river.PeriodicInterval(5*time.Minute), func() (river.JobArgs, *river.InsertOpts) {
		return TickArgs{}, &river.InsertOpts{MaxAttempts: 1} // the next tick is the next try
	}, &river.PeriodicJobOpts{RunOnStart: true})
}

type nightlyWorker struct {
	river.WorkerDefaults[NightlyArgs]
	n *Nightly
}

// Timeout is longer than other jobs have: a run of a large day takes its time.
func (*nightlyWorker) Timeout(*river.Job[NightlyArgs]) time.Duration { return 2 * time.Hour }

// Work runs the date of the job, and before it every earlier one that was missed,
// oldest first: a later date would settle what an earlier one has not seen.
func (w *nightlyWorker) Work(ctx context.Context, job *river.Job[NightlyArgs]) error {
	date, err := clock.ParseDate(job.Args.Date)
	if err != nil {
		return river.JobCancel(err)
	}
	err = w.n.CatchUp(ctx, date)
	if errors.Is(err, ErrBusy) {
		return river.JobSnooze(time.Minute)
	}
	return err
}

type tickWorker struct {
	river.WorkerDefaults[TickArgs]
	n *Nightly
}

func (w *tickWorker) Work(ctx context.Context, _ *river.Job[TickArgs]) error {
	errs := []error{w.n.queueDue(ctx)}
	if _, err := w.n.Deliver(ctx); err != nil {
		errs = append(errs, err)
	}
	if _, err := w.n.ReadAnswers(ctx); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// queueDue queues the job of the last date that is due, unless its run has ended.
func (n *Nightly) queueDue(ctx context.Context) error {
	due := lastDue(n.now())
	missing, err := n.Missing(ctx, due)
	if err != nil || len(missing) == 0 {
		return err
	}
	return pgx.BeginFunc(ctx, n.db, func(tx pgx.Tx) error {
		return n.queue.Insert(ctx, tx, NightlyArgs{Date: due.String()}, nil)
	})
}

// CatchUp runs every date up to and including the given one that has not been
// run to its end, oldest first.
func (n *Nightly) CatchUp(ctx context.Context, through clock.Date) error {
	missing, err := n.Missing(ctx, through)
	if err != nil {
		return err
	}
	for _, date := range missing {
		if _, err := n.Run(ctx, date); err != nil {
			return err
		}
	}
	return nil
}

// maxCatchUp bounds how many dates one call catches up.
const maxCatchUp = 400

// Missing returns the dates up to and including the given one whose run has not
// ended, oldest first. The first run ever decides where the calendar begins;
// before it only the given date is missing.
func (n *Nightly) Missing(ctx context.Context, through clock.Date) ([]clock.Date, error) {
	// Days are counted as timestamps without a zone: with one, a day may have 23 hours.
	rows, err := n.db.Query(ctx, `
		select d::date from generate_series(coalesce((select min(business_date) from reconcile.run), $1::date)::timestamp,
			$1::date::timestamp, interval '1 day') as d
		where not exists (select from reconcile.run r where r.business_date = d::date and r.state = 'done')
		order by d limit $2`, through.Time(), maxCatchUp)
	if err != nil {
		return nil, fmt.Errorf("look for missed nightly runs: %w", err)
	}
	days, err := pgx.CollectRows(rows, pgx.RowTo[time.Time])
	if err != nil {
		return nil, fmt.Errorf("look for missed nightly runs: %w", err)
	}
	dates := make([]clock.Date, len(days))
	for i, d := range days {
		dates[i] = clock.FromTime(d)
	}
	return dates, nil
}

// lastDue is the last business date that has ended and is due at t.
func lastDue(t time.Time) clock.Date {
	today := clock.DateOf(t)
	if t.In(clock.Toronto).Hour() < dueHour {
		return today.AddDays(-2)
	}
	return today.AddDays(-1)
}
