package jobs_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"

	"guichet/internal/jobs"
	"guichet/internal/testdb"
)

// deed is a job that behaves as told.
type deed struct {
	Name string `json:"name"`
}

func (deed) Kind() string { return "test.deed" }

// once is a job of which one is enough.
type once struct {
	Date string `json:"date"`
}

func (once) Kind() string { return "test.once" }

func (once) InsertOpts() river.InsertOpts {
	return river.InsertOpts{UniqueOpts: river.UniqueOpts{ByArgs: true}}
}

type worker struct {
	river.WorkerDefaults[deed]
	done chan string
}

func (w *worker) Work(_ context.Context, job *river.Job[deed]) error {
	switch job.Args.Name {
	case "panic":
		panic("a secret in a panic")
	case "hopeless":
		return river.JobCancel(errors.New("the other side is gone"))
	case "fails":
		return errors.New("not this time")
	}
	w.done <- job.Args.Name
	return nil
}

// logbook is a log that tests may read while it is written.
type logbook struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func newQueue(t *testing.T, db *pgxpool.Pool, log *logbook) *jobs.Queue {
	t.Helper()
	q, err := jobs.New(db, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func work(t *testing.T, q *jobs.Queue) <-chan string {
	t.Helper()
	w := &worker{done: make(chan string, 10)}
	workers := river.NewWorkers()
	river.AddWorker(workers, w)
	if err := q.Work(t.Context(), jobs.Options{Workers: workers}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := q.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return w.done
}

func insert(t *testing.T, db *pgxpool.Pool, q *jobs.Queue, opts *river.InsertOpts, list ...river.JobArgs) {
	t.Helper()
	err := pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error {
		for _, args := range list {
			if err := q.Insert(t.Context(), tx, args, opts); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestJobIsDoneOnlyIfItsTransactionCommits(t *testing.T) {
	t.Parallel()
	db, log := testdb.New(t), &logbook{}
	q := newQueue(t, db, log)
	stop := errors.New("the deed fails")
	err := pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error {
		return errors.Join(q.Insert(t.Context(), tx, deed{"rolled back"}, nil), stop)
	})
	if !errors.Is(err, stop) {
		t.Fatal(err)
	}
	insert(t, db, q, nil, deed{"committed"})
	done := work(t, q)
	if got := <-done; got != "committed" {
		t.Errorf("done: %q, want the committed job", got)
	}
	if n := waitFor(t, q.Waiting, map[string]int{}); len(n) != 0 {
		t.Errorf("waiting: %v, want nothing", n)
	}
}

func TestUniqueJobIsQueuedOnce(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	q := newQueue(t, db, &logbook{})
	insert(t, db, q, nil, once{"2026-11-24"}, once{"2026-11-24"}, once{"2026-11-25"})
	insert(t, db, q, nil, once{"2026-11-24"})
	if n, err := q.Waiting(t.Context()); err != nil || n["test.once"] != 2 {
		t.Errorf("waiting: %v, %v; want one per date", n, err)
	}
}

func TestWhatCannotBeDoneIsParkedAndOthersGoOn(t *testing.T) {
	t.Parallel()
	db, log := testdb.New(t), &logbook{}
	q := newQueue(t, db, log)
	done := work(t, q)
	insert(t, db, q, &river.InsertOpts{MaxAttempts: 1}, deed{"fails"})
	insert(t, db, q, nil, deed{"panic"}, deed{"hopeless"}, deed{"fine"})
	if got := <-done; got != "fine" {
		t.Errorf("done: %q, want fine", got)
	}
	want := map[string]int{"test.deed": 3}
	if got := waitFor(t, q.Parked, want); !maps.Equal(got, want) {
		t.Errorf("parked: %v, want %v", got, want)
	}
	text := log.String()
	for _, want := range []string{"no tries left", "job parked: panic", "cannot help", "kind=test.deed"} {
		if !strings.Contains(text, want) {
			t.Errorf("the log lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "a secret in a panic") {
		t.Errorf("the log holds the panic's value:\n%s", text)
	}
	var stored bool
	if err := db.QueryRow(t.Context(), "select bool_or(errors::text like '%secret%') from river.river_job").Scan(&stored); err != nil || stored {
		t.Errorf("the database holds the panic's value: %v, %v", stored, err)
	}
}

func TestFailedJobIsTriedAgain(t *testing.T) {
	t.Parallel()
	db, log := testdb.New(t), &logbook{}
	q := newQueue(t, db, log)
	insert(t, db, q, nil, deed{"fails"})
	work(t, q)
	deadline := time.After(time.Minute)
	for strings.Count(log.String(), "will be tried again") < 2 {
		select {
		case <-deadline:
			t.Fatalf("no second try:\n%s", log)
		case <-time.After(50 * time.Millisecond):
		}
	}
	if n, err := q.Parked(t.Context()); err != nil || len(n) != 0 {
		t.Errorf("parked: %v, %v; want nothing", n, err)
	}
}

// waitFor asks until the answer is want or a minute is over.
func waitFor(t *testing.T, ask func(context.Context) (map[string]int, error), want map[string]int) map[string]int {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		got, err := ask(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if maps.Equal(got, want) {
			return got
		}
		select {
		case <-deadline:
			return got
		case <-time.After(20 * time.Millisecond):
		}
	}
}
