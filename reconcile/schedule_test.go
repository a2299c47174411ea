package reconcile

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"guichet/internal/jobs"
)

func TestTickQueuesTheDueDateOnce(t *testing.T) {
	t.Parallel()
	c := newTown(t)
	due := lastDue(c.Clock.Now())
	queued := func() (count int, date string) {
		t.Helper()
		if err := c.DB.QueryRow(t.Context(), `
			select count(*), coalesce(min(args->>'date'), '') from river.river_job where kind = 'reconcile.nightly'`).Scan(&count, &date); err != nil {
			t.Fatal(err)
		}
		return count, date
	}
	for range 3 {
		if err := c.night.queueDue(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if count, date := queued(); count != 1 || date != due.String() {
		t.Errorf("%d jobs, the first for %s; want one for %s", count, date, due)
	}
	if _, err := c.night.Run(t.Context(), due); err != nil {
		t.Fatal(err)
	}
	c.nextDay(t)
	for range 2 {
		if err := c.night.queueDue(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if count, _ := queued(); count != 2 {
		t.Errorf("%d jobs after the second day, want 2", count)
	}
}

func TestWorkersRunTheNight(t *testing.T) {
	t.Parallel()
	c := newTown(t)
	c.succeed(t, c.Issue(t, c.Bill("water", "water-consumption", 10_000)))
	_, entry := c.processor.payOut()
	c.statement(t, entry)
	c.nextDay(t)
	due := c.Today().AddDays(-1)
	workers := river.NewWorkers()
	AddWorkers(workers, c.night)
	if err := c.Queue.Work(t.Context(), jobs.Options{Workers: workers, Periodic: []*river.PeriodicJob{Periodic()}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Queue.Stop(context.Background()) })
	if err := pgx.BeginFunc(t.Context(), c.DB, func(tx pgx.Tx) error {
		return c.Queue.Insert(t.Context(), tx, NightlyArgs{Date: due.String()}, nil)
	}); err != nil {
		t.Fatal(err)
	}
	deadline, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		r, err := ReportOf(deadline, c.DB, due)
		if err == nil {
			if r.Payouts.Count != 1 {
				t.Errorf("report %+v", r)
			}
			break
		}
		select {
		case <-tick.C:
		case <-deadline.Done():
			t.Fatalf("no report of %s: %v", due, err)
		}
	}
	c.verify(t)
}

// Two machines at once, without the courtesy of the lock: keys and row locks alone
// must keep every result single.
func TestStepsOnTwoMachinesAtOnceDoTheWorkOnce(t *testing.T) {
	t.Parallel()
	c := newTown(t)
	for range 3 {
		c.succeed(t, c.threeBills(t)...)
		_, entry := c.processor.payOut()
		c.statement(t, entry)
		for _, s := range steps[:2] { // pull and statements: a file is there for one of them only
			if _, err := s.run(c.night, t.Context(), c.Today()); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, s := range steps[2:] {
		var wg sync.WaitGroup
		for i := range 4 {
			n := c.nightly(t, c.night.handover.Place)
			wg.Go(func() {
				if _, err := s.run(n, t.Context(), c.Today()); err != nil {
					t.Errorf("step %s on machine %d: %v", s.name, i, err)
				}
			})
		}
		wg.Wait()
	}
	var entries, batches, exports string
	if err := c.DB.QueryRow(t.Context(), `select (select count(*) from reconcile.settlement)::text, (select count(*) from reconcile.sap_batch)::text,
		(select count(*) from reconcile.sap_export)::text`).Scan(&entries, &batches, &exports); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(entries, " ", batches, " ", exports); got != "12 1 12" {
		t.Errorf("entries, batches, exports: %s; want 12 1 12", got)
	}
	c.sentOnce(t, c.batch(t))
	c.verify(t)
}
