package ledger

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"guichet/internal/money"
)

// A cutter stands between the service and its database, and cuts the next connection that
// commits: before the server has heard of it, or after it has done so and before the answer.
type cutter struct {
	listener net.Listener
	server   string
	when     atomic.Int32
	cuts     atomic.Int32
}

const (
	never = iota
	before
	after
)

// throughCutter returns a pool that reaches the database of h through a cutter.
func throughCutter(t *testing.T, h house) (house, *cutter) {
	t.Helper()
	cfg := h.db.Config()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{listener: l, server: net.JoinHostPort(cfg.ConnConfig.Host, fmt.Sprint(cfg.ConnConfig.Port))}
	var open sync.WaitGroup
	open.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() { c.serve(client) })
		}
	})
	cfg.ConnConfig.TLSConfig, cfg.ConnConfig.Fallbacks = nil, nil
	cfg.ConnConfig.Host, cfg.ConnConfig.Port = "127.0.0.1", uint16(l.Addr().(*net.TCPAddr).Port)
	db, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		db.Close()
		_ = l.Close()
		open.Wait()
	})
	h.db = db
	return h, c
}

func (c *cutter) serve(client net.Conn) {
	server, err := net.Dial("tcp", c.server)
	if err != nil {
		_ = client.Close()
		return
	}
	shut := func() { _, _ = client.Close(), server.Close() }
	defer shut()
	var committed atomic.Bool // the server's next word is swallowed
	go func() {
		defer shut()
		answer := make([]byte, 64<<10)
		for {
			n, err := server.Read(answer)
			if err != nil || committed.Load() {
				return
			}
			if _, err := client.Write(answer[:n]); err != nil {
				return
			}
		}
	}()
	for first := true; ; first = false {
		m, err := message(client, first)
		if err != nil {
			return
		}
		if m[0] == 'Q' && strings.EqualFold(string(bytes.Trim(m[5:], "\x00; ")), "commit") {
			switch when := c.when.Swap(never); when {
			case before:
				c.cuts.Add(1)
				return
			case after:
				c.cuts.Add(1)
				committed.Store(true)
			}
		}
		if _, err := server.Write(m); err != nil {
			return
		}
	}
}

// message reads one message of the frontend; the first has no type before its length.
func message(r io.Reader, first bool) ([]byte, error) {
	head := make([]byte, 5)
	if first {
		head = head[:4]
	}
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	rest := make([]byte, binary.BigEndian.Uint32(head[len(head)-4:])-4)
	_, err := io.ReadFull(r, rest)
	return append(head, rest...), err
}

// Around every COMMIT there are two moments at which the connection may break. The caller
// cannot tell them apart; doing the same again brings both to the same end, once.
func TestCutAroundEveryCommit(t *testing.T) {
	t.Parallel()
	in := func(h house, f func(context.Context, pgx.Tx) error) error { return h.try(t.Context(), f) }
	month := today.AddDays(-20)
	entry := move("it", 300, clearing, receivable)
	held := func(t *testing.T, h house) string {
		h.mustPost(t, move("in", 1000, clearing, credits))
		return h.hold(t, move("hold", 300, credits, clearing), h.clock.t.Add(time.Minute))
	}
	for _, tt := range []struct {
		name   string
		before func(t *testing.T, h house) string // returns what the operation is about
		do     func(h house, about string) error
		count  string // how often it was done
	}{
		{"append", nil, func(h house, _ string) error {
			_, err := h.post(t.Context(), entry)
			return err
		}, `select count(*) from ledger.journal_entry where key = 'it'`},
		{"all or nothing", nil, func(h house, _ string) error {
			return in(h, func(ctx context.Context, tx pgx.Tx) error {
				_, err := h.AppendAll(ctx, tx, []Entry{entry, move("it/2", 5, clearing, receivable)})
				return err
			})
		}, `select count(*) / 2 from ledger.journal_entry`},
		{"each of a batch", nil, func(h house, _ string) error {
			return in(h, func(ctx context.Context, tx pgx.Tx) error {
				results, err := h.AppendEach(ctx, tx, []Entry{entry, move("it/2", 5, clearing, receivable)})
				for _, r := range results {
					err = errors.Join(err, r.Err)
				}
				return err
			})
		}, `select count(*) / 2 from ledger.journal_entry`},
		{"reversal", func(t *testing.T, h house) string { return h.mustPost(t, entry) }, func(h house, about string) error {
			return in(h, func(ctx context.Context, tx pgx.Tx) error {
				_, err := h.Reverse(ctx, tx, about, Entry{Key: "back"})
				return err
			})
		}, `select count(*) from ledger.journal_entry where reverses is not null`},
		{"correction", func(t *testing.T, h house) string { return h.mustPost(t, entry) }, func(h house, about string) error {
			return in(h, func(ctx context.Context, tx pgx.Tx) error {
				_, err := h.Correct(ctx, tx, about, move("right", 5, clearing, receivable))
				return err
			})
		}, `select count(*) from ledger.journal_entry where corrects is not null`},
		{"hold", func(t *testing.T, h house) string { return h.mustPost(t, move("in", 1000, clearing, credits)) }, func(h house, _ string) error {
			return in(h, func(ctx context.Context, tx pgx.Tx) error {
				_, err := h.Hold(ctx, tx, move("hold", 300, credits, clearing), time.Time{})
				return err
			})
		}, `select count(*) from ledger.hold`},
		{"capture", held, func(h house, about string) error {
			return in(h, func(ctx context.Context, tx pgx.Tx) error {
				_, err := h.Capture(ctx, tx, about, Entry{Key: "capture"}, ReleaseRest)
				return err
			})
		}, `select count(*) from ledger.journal_entry where key = 'capture'`},
		{"void", held, func(h house, about string) error {
			return in(h, func(ctx context.Context, tx pgx.Tx) error { return h.Void(ctx, tx, about, Entry{Key: "void"}) })
		}, `select count(*) from ledger.hold where state = 'voided'`},
		{"expiry", func(t *testing.T, h house) string {
			about := held(t, h)
			h.clock.t = h.clock.t.Add(time.Hour)
			return about
		}, func(h house, _ string) error {
			return in(h, func(ctx context.Context, tx pgx.Tx) error {
				_, err := h.ExpireHolds(ctx, tx, 10)
				return err
			})
		}, `select count(*) from ledger.hold where state = 'expired'`},
		{"import", nil, func(h house, _ string) error {
			return in(h, func(ctx context.Context, tx pgx.Tx) error {
				_, err := h.Import(ctx, tx, Migration{Name: "old", Kind: "history", Entries: 2, Debits: 1001}, strings.NewReader(oldBooks))
				return err
			})
		}, `select count(*) from ledger.import`},
		{"period close", func(t *testing.T, h house) string {
			e := entry
			e.EffectiveOn = month
			h.do(t, func(ctx context.Context, tx pgx.Tx) error { return h.SetPeriod(ctx, tx, month, PeriodClosing) })
			e.Kind = "adjustment"
			return h.mustPost(t, e)
		}, func(h house, _ string) error {
			return in(h, func(ctx context.Context, tx pgx.Tx) error { return h.SetPeriod(ctx, tx, month, PeriodClosed) })
		}, `select count(*) from ops.audit where action = 'period.closed'`},
		{"account close", nil, func(h house, _ string) error {
			return in(h, func(ctx context.Context, tx pgx.Tx) error { return h.SetAccountState(ctx, tx, fines, Closed) })
		}, `select count(*) from ops.audit where action = 'account.changed' and object_id = 'revenue:parking:fines'`},
		{"poster batch", func(t *testing.T, h house) string { return h.mustPost(t, entry) }, func(h house, _ string) error {
			return h.poster(PosterOptions{}).Drain(t.Context())
		}, `select count(*) from ledger.posting where line = 1`},
		{
			"poster batch, by the same poster", func(t *testing.T, h house) string { return h.mustPost(t, entry) }, samePoster(t),
			`select count(*) from ledger.posting where line = 1`,
		},
	} {
		for when, done := range map[int32]int{before: 0, after: 1} {
			t.Run(fmt.Sprint(tt.name, map[int32]string{before: ", cut before COMMIT", after: ", its answer lost"}[when]), func(t *testing.T) {
				t.Parallel()
				h := open(t)
				about := ""
				if tt.before != nil {
					about = tt.before(t, h)
				}
				through, c := throughCutter(t, h)
				c.when.Store(when)
				if err := tt.do(through, about); err == nil || isRefusal(err) || c.cuts.Load() != 1 {
					t.Fatalf("got %v after %d cuts, want the trouble of a connection", err, c.cuts.Load())
				}
				if n := count(t, h.db, tt.count); n != done {
					t.Errorf("done %d times when the connection broke, want %d", n, done)
				}
				for range 2 {
					if err := tt.do(through, about); err != nil {
						t.Fatalf("again: %v", err)
					}
					if n := count(t, h.db, tt.count); n != 1 {
						t.Errorf("done %d times in the end, want once", n)
					}
				}
				h.drain(t)
				h.wantSound(t)
			})
		}
	}
}

// samePoster drains with a poster that lives through the cut: what it remembers of a batch
// whose commit it never heard of must not be believed.
func samePoster(t *testing.T) func(h house, about string) error {
	var mu sync.Mutex
	posters := map[*pgxpool.Pool]*Poster{}
	return func(h house, _ string) error {
		mu.Lock()
		p := posters[h.db]
		if p == nil {
			p = h.poster(PosterOptions{})
			posters[h.db] = p
		}
		mu.Unlock()
		return p.Drain(t.Context())
	}
}

// Whoever appends through the queue is answered as if nothing had happened: the queue asks
// by key before it answers.
func TestQueueResolvesALostCommit(t *testing.T) {
	t.Parallel()
	for _, callers := range []int{1, 40} {
		for _, when := range []int32{before, after} {
			h := open(t)
			through, c := throughCutter(t, h)
			q := NewQueue(h.Books, through.db)
			c.when.Store(when)
			ctx, cancel := context.WithCancel(t.Context())
			var wg, running sync.WaitGroup
			for i := range callers {
				wg.Go(func() {
					if r, err := q.Append(ctx, move(key(i), 5, clearing, receivable)); err != nil || r.ID == "" {
						t.Errorf("%d callers: got %+v, %v", callers, r, err)
					}
				})
			}
			running.Go(func() {
				if err := q.Run(ctx); err != nil {
					t.Error(err)
				}
			})
			wg.Wait()
			cancel()
			running.Wait()
			if c.cuts.Load() != 1 {
				t.Errorf("%d cuts, want 1", c.cuts.Load())
			}
			h.wantBalance(t, clearing, money.Amount(5*callers))
			h.drain(t)
			h.wantSound(t)
		}
	}
}

// Batches that name the same keys, inside and across, in any order and at once: each key
// is recorded once, everybody is told the same id, and who says something else is refused.
func TestTheSameKeysInManyBatches(t *testing.T) {
	t.Parallel()
	h := open(t)
	const keys, batches = 37, 16 // a prime: every step comes to every key
	told := make([]map[string]string, batches)
	var wg sync.WaitGroup
	for n := range batches {
		wg.Go(func() {
			var batch []Entry
			for i := range keys {
				e := move(key((i*(n+1))%keys), 5, clearing, receivable)
				batch = append(batch, e, e)
			}
			if n%4 == 3 {
				batch = append(batch, move(key(n%keys), 6, clearing, receivable)) // another content
			}
			var results []Result
			err := h.try(t.Context(), func(ctx context.Context, tx pgx.Tx) (err error) {
				if n%2 == 0 {
					results, err = h.AppendAll(ctx, tx, batch)
				} else {
					results, err = h.AppendEach(ctx, tx, batch)
				}
				return err
			})
			if err != nil {
				t.Errorf("batch %d: %v", n, err)
				return
			}
			told[n] = map[string]string{}
			for i, r := range results {
				if wrong := batch[i].Lines[0].Amount == 6; wrong != errors.Is(r.Err, ErrConflict) || !wrong && r.Err != nil {
					t.Errorf("batch %d, entry %d: %v", n, i, r.Err)
				} else if !wrong {
					told[n][batch[i].Key] = r.ID
				}
			}
		})
	}
	wg.Wait()
	for i := range keys {
		e, err := h.EntryByKey(t.Context(), h.db, key(i))
		if err != nil {
			t.Fatal(err)
		}
		for n := range told {
			if told[n][e.Key] != e.ID {
				t.Errorf("batch %d was told %s for %s, recorded is %s", n, told[n][e.Key], e.Key, e.ID)
			}
		}
	}
	h.wantBalance(t, clearing, 5*keys)
	h.drain(t)
	h.wantSound(t)
}
