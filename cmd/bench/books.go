package main

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/id"
	"guichet/internal/money"
	"guichet/ledger"
)

// compareBooks compares the books by themselves with the least that could be done:
//
//	batched  callers append to one hot account through the queue, with every check,
//	         idempotency, trigger and the tree; the clock stops when all is posted
//	poster   the poster alone drains what has been appended
//	copy     COPY of the same journal and posting rows, with the same keys and checks
func (b *ledgerLab) compareBooks(ctx context.Context, l *lab) error {
	running, stop := context.WithCancel(ctx)
	defer stop()
	queue := ledger.NewQueue(b.books, b.db)
	ended := make(chan error, 1)
	go func() { ended <- queue.Run(running) }()
	owner, err := pgx.Connect(ctx, l.url)
	if err != nil {
		return err
	}
	defer owner.Close(ctx)
	if _, err := owner.Exec(ctx, `
		create table bench.copy_entry (like ledger.journal_entry including all);
		create table bench.copy_posting (like ledger.posting including all)`); err != nil {
		return err
	}
	c := copier{conn: owner}
	err = l.compare(ctx, slices.Max(l.Callers), "", [][2]string{{"batched", "copy"}, {"poster", "copy"}},
		contender{"batched", b.batched(queue)}, contender{"poster", b.drained}, contender{"copy", c.run})
	stop()
	if err != nil {
		return err
	}
	return <-ended
}

// numbered keeps keys apart over all runs.
var numbered atomic.Int64

func hotEntry() ledger.Entry {
	n := numbered.Add(1)
	debit, credit := hot(n)
	dims := ledger.Dimensions{Department: "parking", Channel: "web", Tender: "card"}
	return ledger.Entry{
		Key: fmt.Sprint("books/", n), Kind: "payment", SourceType: "payment", SourceID: fmt.Sprint(n), Actor: "system", Channel: "web",
		Description: "Payment", Lines: []ledger.Line{
			{Account: debit, Amount: money.Amount(1000 + n%5000), Dimensions: dims}, {Account: credit, Amount: -money.Amount(1000 + n%5000), Dimensions: dims},
		},
	}
}

func (b *ledgerLab) batched(queue *ledger.Queue) func(context.Context, int, time.Duration) (sample, error) {
	return func(ctx context.Context, callers int, d time.Duration) (sample, error) {
		running, stop := context.WithCancel(ctx)
		defer stop()
		ended := make(chan error, 1)
		go func() { ended <- b.poster.Run(running) }()
		began := time.Now()
		s, err := load(ctx, callers, d, func(ctx context.Context, _, _ int) error {
			_, err := queue.Append(ctx, hotEntry())
			return err
		})
		if err != nil {
			return s, err
		}
		left, err := b.poster.Stats(ctx)
		if err != nil {
			return s, err
		}
		if err := b.poster.Drain(ctx); err != nil {
			return s, err
		}
		s.elapsed = time.Since(began)
		s.note = fmt.Sprintf("at the end %d unposted, the oldest for %s", left.Backlog, left.Lag.Round(time.Millisecond))
		stop()
		return s, <-ended
	}
}

// drained times the poster alone on what a while of copying would be.
func (b *ledgerLab) drained(ctx context.Context, _ int, d time.Duration) (sample, error) {
	n := max(1000, int(d.Seconds()*20_000))
	for from := 0; from < n; from += 1000 {
		batch := make([]ledger.Entry, 1000)
		for i := range batch {
			batch[i] = hotEntry()
		}
		if err := pgx.BeginFunc(ctx, b.db, func(tx pgx.Tx) error { _, err := b.books.AppendAll(ctx, tx, batch); return err }); err != nil {
			return sample{}, err
		}
	}
	left, err := b.poster.Stats(ctx)
	if err != nil {
		return sample{}, err
	}
	began := time.Now()
	if err := b.poster.Drain(ctx); err != nil {
		return sample{}, err
	}
	return sample{done: int(left.Backlog), elapsed: time.Since(began)}, nil
}

// A copier writes rows as the books do, without thinking.
type copier struct {
	conn *pgx.Conn
	seq  int64
}

const copyBatch = 10_000

func (c *copier) run(ctx context.Context, _ int, d time.Duration) (sample, error) {
	s := sample{}
	today := time.Now().UTC().Truncate(24 * time.Hour)
	hash := make([]byte, 32)
	for began := time.Now(); s.elapsed < d; s.elapsed = time.Since(began) {
		entries, postings := make([][]any, 0, copyBatch), make([][]any, 0, 2*copyBatch)
		for range copyBatch {
			c.seq++
			entryID, amount, other := id.New(), 1000+c.seq%5000, 2+c.seq%accounts
			entries = append(entries, []any{
				entryID, fmt.Sprint("copy/", c.seq), "payment", today, time.Now(), money.CAD,
				[]int64{1, other},
				[]int64{amount, -amount},
				[]int64{1, 1},
				"payment", fmt.Sprint(c.seq), "system", "web", "Payment",
				map[string]string{},
				hash, hash,
			})
			postings = append(postings, []any{int64(1), c.seq, entryID, 1, amount, amount, today, c.seq}, []any{other, c.seq, entryID, 2, -amount, -amount, today, c.seq})
		}
		err := pgx.BeginFunc(ctx, c.conn, func(tx pgx.Tx) error {
			if _, err := tx.CopyFrom(ctx, pgx.Identifier{"bench", "copy_entry"}, []string{
				"id", "key", "kind", "effective_on", "recorded_at", "currency", "accounts", "amounts", "dimensions",
				"source_type", "source_id", "actor", "channel", "description", "metadata", "body_hash", "leaf",
			}, pgx.CopyFromRows(entries)); err != nil {
				return err
			}
			_, err := tx.CopyFrom(ctx, pgx.Identifier{"bench", "copy_posting"}, []string{
				"account_id", "seq", "entry_id", "line", "amount", "balance_after", "effective_on", "log_pos",
			}, pgx.CopyFromRows(postings))
			return err
		})
		if err != nil {
			return s, err
		}
		s.done += copyBatch
	}
	return s, nil
}
