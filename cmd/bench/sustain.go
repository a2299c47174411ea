package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/ledger"
)

// sustainBench appends to one hot account through the queue for as long as --time says,
// with the poster beside it, and looks every quarter of a second at how far behind the
// poster is, and at what the database does meanwhile: checkpoints and autovacuum. It
// prints rate and lag, what an entry takes on disk, and draws --picture.
func sustainBench(ctx context.Context, l *lab) error {
	b := &ledgerLab{books: ledger.New(time.Now)}
	if err := b.prepare(ctx, l); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	defer b.db.Close()
	running, stop := context.WithCancel(ctx)
	defer stop()
	queue := ledger.NewQueue(b.books, b.db)
	ended := make(chan error, 2)
	go func() { ended <- queue.Run(running) }()
	go func() { ended <- b.poster.Run(running) }()
	watch := &watcher{poster: b.poster, begun: time.Now()}
	if err := watch.connect(ctx, l.url); err != nil {
		return err
	}
	defer watch.conn.Close(ctx)

	callers := slices.Max(l.Callers)
	watching, enough := context.WithCancel(ctx)
	defer enough()
	var wg sync.WaitGroup
	var watched error
	wg.Go(func() { watched = watch.run(watching) })
	s, err := load(ctx, callers, l.Time, func(ctx context.Context, _, _ int) error {
		_, err := queue.Append(ctx, hotEntry())
		watch.done.Add(1)
		return err
	})
	enough()
	wg.Wait()
	if err := errors.Join(err, watched); err != nil {
		return err
	}
	if err := b.poster.Drain(ctx); err != nil {
		return err
	}
	s.elapsed = time.Since(watch.begun)
	stop()
	if err := errors.Join(<-ended, <-ended); err != nil {
		return err
	}
	findings, err := ledger.Verify(ctx, b.db)
	if err != nil {
		return err
	}
	if len(findings) > 0 {
		return fmt.Errorf("the books are wrong after the run: %v", findings)
	}
	watch.tell(l, callers, s)
	if err := storage(ctx, b, l, s.done); err != nil {
		return err
	}
	if l.Picture == "" {
		return nil
	}
	title := fmt.Sprintf("Appends to one account, %d callers, %s", callers, l.Time)
	return os.WriteFile(l.Picture, picture(title, watch.looks), 0o644)
}

// A look is what the watcher saw at one moment.
type look struct {
	at          time.Duration // since the beginning
	rate        float64       // entries a second since the look before
	lag         time.Duration // age of the oldest entry that is not in the accounts
	backlog     int64
	checkpoints int64 // so far
	vacuums     int64 // runs of autovacuum so far
}

type watcher struct {
	poster *ledger.Poster
	conn   *pgx.Conn
	begun  time.Time
	done   atomic.Int64
	looks  []look
	sql    string
}

const lookEvery = 250 * time.Millisecond

func (w *watcher) connect(ctx context.Context, url string) (err error) {
	if w.conn, err = pgx.Connect(ctx, url); err != nil {
		return err
	}
	w.sql = `select checkpoints_timed + checkpoints_req, (select sum(autovacuum_count)::bigint from pg_stat_all_tables) from pg_stat_bgwriter`
	if w.conn.PgConn().ParameterStatus("server_version") >= "17" {
		w.sql = `select num_timed + num_requested, (select sum(autovacuum_count)::bigint from pg_stat_all_tables) from pg_stat_checkpointer`
	}
	return nil
}

func (w *watcher) run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var before int64
	last := w.begun
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		s, err := w.poster.Stats(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		now, done := time.Now(), w.done.Load()
		n := look{at: now.Sub(w.begun), rate: float64(done-before) / now.Sub(last).Seconds(), lag: s.Lag, backlog: s.Backlog}
		before, last = done, now
		if err := w.conn.QueryRow(ctx, w.sql).Scan(&n.checkpoints, &n.vacuums); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("read the database's own figures: %w", err)
		}
		w.looks = append(w.looks, n)
	}
}

// tell records rate and lag.
func (w *watcher) tell(l *lab, callers int, s sample) {
	slices.Sort(s.times)
	lags := make([]time.Duration, len(w.looks))
	var most int64
	for i, n := range w.looks {
		lags[i] = n.lag
		most = max(most, n.backlog)
	}
	slices.Sort(lags)
	first, end := w.looks[0], w.looks[len(w.looks)-1]
	l.rows = append(l.rows,
		row{fmt.Sprintf("sustained, %d callers", callers), s.rate(), quantile(s.times, 0.5), quantile(s.times, 0.99), quantile(s.times, 1), ""},
		row{"lag of the accounts", 0, quantile(lags, 0.5), quantile(lags, 0.99), quantile(lags, 1), fmt.Sprintf("at most %d entries behind", most)})
	l.Rates["sustained"] = s.rate()
	l.Counts["entries"] = s.done
	l.Counts["lag_p50_ms"] = int(quantile(lags, 0.5).Milliseconds())
	l.Counts["lag_p99_ms"] = int(quantile(lags, 0.99).Milliseconds())
	l.Counts["lag_max_ms"] = int(quantile(lags, 1).Milliseconds())
	l.Counts["backlog_max"] = int(most)
	l.Counts["checkpoints"] = int(end.checkpoints - first.checkpoints)
	l.Counts["autovacuums"] = int(end.vacuums - first.vacuums)
}

// storage tells what the entries of this run take on disk, indexes and all.
func storage(ctx context.Context, b *ledgerLab, l *lab, entries int) error {
	for _, table := range []string{"journal_entry", "posting", "log_tile", "account_day", "unposted"} {
		var size int64
		if err := b.db.QueryRow(ctx, `select pg_total_relation_size($1::text::regclass)`, "ledger."+table).Scan(&size); err != nil {
			return fmt.Errorf("size of %s: %w", table, err)
		}
		l.Counts["bytes_per_entry_"+table] = int(size / int64(max(entries, 1)))
	}
	return nil
}
