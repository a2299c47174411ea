package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// A Queue records entries of many callers together: whoever comes while a transaction
// is on its way waits for the next one, so that the cost of a commit is shared. Each
// caller has its own answer. It is for entries that are a business transaction by
// themselves, such as journal uploads; one that belongs to a change of state uses Append.
type Queue struct {
	books   *Books
	db      *pgxpool.Pool
	wait    chan *waiting
	since   atomic.Int64 // entries since somebody looked at the backlog
	again   atomic.Bool  // somebody has just asked again under a key that is there
	behind  atomic.Bool  // the poster was far behind when somebody last looked
	looking chan struct{}
}

type waiting struct {
	entry  Entry
	row    row  // of the entry,
	known  bool // if the database need not be asked
	answer chan Result
}

const (
	queueBatch   = 500    // entries in a transaction, at most
	queueWorkers = 2      // transactions on their way, at most
	queueBacklog = 50_000 // entries not posted yet beyond which appends wait
	queueTries   = 5      // of a transaction that met a deadlock
	queueLook    = 5_000  // entries between two looks at the backlog
	queuePause   = 50 * time.Millisecond
)

// NewQueue returns a queue; Run works it off. Appends wait while the poster is far
// behind, so that reads stay fast.
func NewQueue(books *Books, db *pgxpool.Pool) *Queue {
	return &Queue{books: books, db: db, wait: make(chan *waiting, queueBatch), looking: make(chan struct{}, 1)}
}

// Append records one entry in a transaction shared with other callers, and returns
// when it is committed. The errors are as with Books.Append. When ctx ends first, the entry
// may be recorded all the same: ask again with the same key.
func (q *Queue) Append(ctx context.Context, e Entry) (Result, error) {
	w := &waiting{entry: e, answer: make(chan Result, 1)}
	err := e.plain()
	if err == nil {
		w.row, w.known, err = q.books.known(e)
	}
	if err != nil {
		return Result{}, fmt.Errorf("append %s: %w", e.Key, err)
	}
	select {
	case q.wait <- w:
	case <-ctx.Done():
		return Result{}, fmt.Errorf("append %s: %w", e.Key, ctx.Err())
	}
	select {
	case r := <-w.answer:
		return r, r.Err
	case <-ctx.Done():
		return Result{}, fmt.Errorf("append %s: %w", e.Key, ctx.Err())
	}
}

// Run works the queue off until ctx ends, and answers everybody it has taken.
func (q *Queue) Run(ctx context.Context) error {
	var workers sync.WaitGroup
	for range queueWorkers {
		workers.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case w := <-q.wait:
					q.record(ctx, q.gather(w))
				}
			}
		})
	}
	workers.Wait()
	return nil
}

// gather takes whoever else is waiting at this moment.
func (q *Queue) gather(first *waiting) []*waiting {
	batch := []*waiting{first}
	for len(batch) < queueBatch {
		select {
		case w := <-q.wait:
			batch = append(batch, w)
		default:
			return batch
		}
	}
	return batch
}

// record commits a batch and tells everybody. A transaction that was begun is brought
// to its end also when the service stops.
func (q *Queue) record(ctx context.Context, batch []*waiting) {
	results, err := q.commit(ctx, batch)
	for i, w := range batch {
		if err != nil {
			w.answer <- Result{Err: err}
			continue
		}
		w.answer <- results[i]
	}
}

// commit takes the short way, which nearly always goes through. What it refuses or
// loses goes the long way: that finds out whose fault it is, and when the answer to
// COMMIT was all that was lost, the keys know.
func (q *Queue) commit(ctx context.Context, batch []*waiting) ([]Result, error) {
	if err := q.backlog(ctx, len(batch)); err != nil {
		return nil, err
	}
	ctx = context.WithoutCancel(ctx)
	if results := q.short(ctx, batch); results != nil {
		return results, nil
	}
	return q.long(ctx, batch)
}

// short records a batch that the database need not be asked about, or returns nil. While
// callers ask again under keys that are there, it would fail each time.
func (q *Queue) short(ctx context.Context, batch []*waiting) []Result {
	if len(batch) == 1 || q.again.Load() {
		return nil
	}
	rows, results := make([]*row, len(batch)), make([]Result, len(batch))
	for i, w := range batch {
		if !w.known {
			return nil
		}
		rows[i], results[i] = &w.row, w.row.result()
	}
	if err := copyFresh(ctx, q.db, rows); err != nil {
		return nil
	}
	return results
}

func (q *Queue) long(ctx context.Context, batch []*waiting) ([]Result, error) {
	entries := make([]Entry, len(batch))
	for i, w := range batch {
		entries[i] = w.entry
	}
	if len(entries) > 1 {
		for range queueTries {
			var results []Result
			err := pgx.BeginFunc(ctx, q.db, func(tx pgx.Tx) (err error) {
				results, err = q.books.AppendEach(ctx, tx, entries)
				return err
			})
			if err == nil {
				q.again.Store(slices.ContainsFunc(results, func(r Result) bool { return r.Replayed || errors.Is(r.Err, ErrConflict) }))
				return results, nil
			}
			if !transient(err) {
				break
			}
		}
	}
	// One caller takes the plain statement. So does each of a batch whose transaction ended in
	// trouble: the answer to COMMIT may be all that was lost, and the keys know. What the
	// database says of one entry, expected or not, is that caller's answer and no other's.
	results := make([]Result, len(entries))
	for i, e := range entries {
		r, err := q.alone(ctx, e)
		if err != nil && !isRefusal(err) {
			r, err = q.alone(ctx, e)
		}
		var answer *pgconn.PgError
		if err != nil && !isRefusal(err) && !errors.As(err, &answer) {
			return nil, err // the database is away: the callers ask again
		}
		if err != nil {
			r = Result{Err: err}
		}
		results[i] = r
	}
	return results, nil
}

func (q *Queue) alone(ctx context.Context, e Entry) (r Result, err error) {
	err = pgx.BeginFunc(ctx, q.db, func(tx pgx.Tx) error {
		r, err = q.books.alone(ctx, tx, e)
		return err
	})
	return r, err
}

// backlog waits while the poster is far behind. Somebody looks now and then, for the
// count is not free; once the poster was found behind, nobody passes until it has caught up.
func (q *Queue) backlog(ctx context.Context, more int) error {
	if q.since.Add(int64(more)) < queueLook && !q.behind.Load() {
		return nil
	}
	select {
	case q.looking <- struct{}{}: // one at a time
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-q.looking }()
	q.since.Store(0)
	for {
		var behind bool
		err := q.db.QueryRow(ctx, `select count(*) > $1 from (select from ledger.unposted limit $1 + 1) u`, queueBacklog).Scan(&behind)
		if err != nil {
			return err
		}
		if q.behind.Store(behind); !behind {
			return nil
		}
		pause := time.NewTimer(queuePause)
		select {
		case <-ctx.Done():
			pause.Stop()
			return ctx.Err()
		case <-pause.C:
		}
	}
}
