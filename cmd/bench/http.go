package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/jackc/pgx/v5"

	"guichet/api/departments"
	"guichet/department"
	"guichet/internal/approval"
	"guichet/internal/clock"
	"guichet/internal/jobs"
	"guichet/internal/money"
	"guichet/internal/seal"
	frame "guichet/internal/server"
	"guichet/ledger"
)

// compareHTTP compares single entries that come over HTTP with the same entries
// handed to the queue in this process:
//
//	http     the journal upload behind the service's own frame: request id, log, metrics, limits,
//	         key, validation, idempotency; the client is in this process as well, and costs it
//	process  the baseline: Queue.Append
//
// In both, the clock stops when the poster has carried everything into the accounts.
// The ratio of the 99th percentiles is between all callers and one.
func (b *ledgerLab) compareHTTP(ctx context.Context, l *lab) error {
	running, stop := context.WithCancel(ctx)
	defer stop()
	queue := ledger.NewQueue(b.books, b.db)
	ended := make(chan error, 2)
	go func() { ended <- queue.Run(running) }()
	go func() { ended <- b.poster.Run(running) }()
	callers := slices.Max(l.Callers)
	u, err := b.newUpload(ctx, queue, callers)
	if err != nil {
		return fmt.Errorf("serve the journal upload: %w", err)
	}
	defer u.close()
	times := map[int][]time.Duration{}
	timed := func(run func(context.Context, int, time.Duration) (sample, error)) func(context.Context, int, time.Duration) (sample, error) {
		return func(ctx context.Context, callers int, d time.Duration) (sample, error) {
			s, err := run(ctx, callers, d)
			times[callers] = append(times[callers], s.times...)
			return s, err
		}
	}
	if err := l.compare(ctx, callers, "", [][2]string{{"http", "process"}}, contender{"http", timed(b.posted(u.send))}, contender{"process", b.posted(u.inProcess(queue))}); err != nil {
		return err
	}
	if err := l.compare(ctx, 1, "_alone", [][2]string{{"http", "process"}}, contender{"http", timed(b.posted(u.send))}, contender{"process", b.posted(u.inProcess(queue))}); err != nil {
		return err
	}
	for _, t := range times {
		slices.Sort(t)
	}
	l.Ratios[fmt.Sprintf("http_p99_%d_over_1", callers)] = float64(quantile(times[callers], 0.99)) / float64(quantile(times[1], 0.99))
	stop()
	return errors.Join(<-ended, <-ended)
}

// posted runs an operation from many callers until all that it recorded is in the
// accounts.
func (b *ledgerLab) posted(op func(ctx context.Context, caller, n int) error) func(context.Context, int, time.Duration) (sample, error) {
	return func(ctx context.Context, callers int, d time.Duration) (sample, error) {
		began := time.Now()
		s, err := load(ctx, callers, d, op)
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
		return s, nil
	}
}

// An upload is the endpoint with a finance system that has a key to it.
type upload struct {
	key   string
	addr  string
	srv   *http.Server
	conns []*uploadConn // of callers
	next  atomic.Int64
	log   *os.File
}

func (b *ledgerLab) newUpload(ctx context.Context, queue *ledger.Queue, callers int) (_ *upload, err error) {
	u := &upload{conns: make([]*uploadConn, callers)}
	if u.log, err = os.OpenFile(os.DevNull, os.O_WRONLY, 0); err != nil {
		return nil, err
	}
	log := slog.New(frame.LogRequests(slog.NewJSONHandler(u.log, nil)))
	depts, err := b.financeSystem(ctx, u)
	if err != nil {
		return nil, err
	}
	routes := chi.NewRouter()
	departments.New(routes, departments.Parts{
		Departments: depts, Books: b.books, Journal: queue, DB: b.db, BaseURL: "https://pay.example.ca", Log: log,
	})
	front := frame.New(frame.Options{
		BaseURL: "https://pay.example.ca", Now: new(clock.Clock).Now, Log: log, Metrics: frame.NewMetrics(),
		Fail: func(w http.ResponseWriter, _ *http.Request, status int) { w.WriteHeader(status) },
	}, routes)
	front.CrossSite(departments.Prefix + "/")
	listener, err := frame.Listen("bench", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	u.addr = listener.Addr().String()
	u.srv = &http.Server{Handler: front.Handler(), ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
	go func() { _ = u.srv.Serve(listener) }() // ends with close
	return u, nil
}

// financeSystem makes a department with a journal key for the accounts of the benchmark.
func (b *ledgerLab) financeSystem(ctx context.Context, u *upload) (*department.Service, error) {
	key, err := seal.New(bytes.Repeat([]byte{1}, seal.Size))
	if err != nil {
		return nil, err
	}
	jobQueue, err := jobs.New(b.db, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	now := new(clock.Clock).Now
	depts := department.New(b.db, key, jobQueue, now)
	return depts, pgx.BeginFunc(ctx, b.db, func(tx pgx.Tx) error {
		d, err := depts.Create(ctx, tx, department.Department{Code: "finance", NameEN: "Finance", NameFR: "Finances"})
		if err != nil {
			return err
		}
		var waits string
		u.key, waits, err = depts.ProposeJournalKey(ctx, tx, department.JournalKey{
			DepartmentID: d.ID, Name: "bench", Env: "test", Accounts: []string{"assets:clearing", "assets:receivable"}, By: "first",
		})
		if err != nil {
			return err
		}
		return depts.DecideKey(ctx, tx, approval.Decision{ID: waits, By: "second", At: now()}, approval.Approved)
	})
}

func (u *upload) close() {
	_ = u.srv.Close() // and the connections with it: nobody is calling any more
	_ = u.log.Close()
}

// inProcess hands the same entries to the queue.
func (u *upload) inProcess(queue *ledger.Queue) func(context.Context, int, int) error {
	return func(ctx context.Context, _, _ int) error {
		n := u.next.Add(1)
		debit, credit := hot(n)
		amount, dims := money.Amount(1000+n%5000), ledger.Dimensions{Department: "parking", Channel: "web", Tender: "card"}
		_, err := queue.Append(ctx, ledger.Entry{
			Key: "upload/finance/process-" + strconv.FormatInt(n, 10), Kind: "journal", SourceType: "journal-upload", SourceID: "BENCH", Actor: "api_key:" + u.key[:20], Channel: "api",
			Description: "Payment", Lines: []ledger.Line{{Account: debit, Amount: amount, Dimensions: dims}, {Account: credit, Amount: -amount, Dimensions: dims}},
		})
		return err
	}
}

// An uploadConn is one caller's connection. It writes and reads HTTP by itself: net/http's
// client would cost as much as the server that is measured.
type uploadConn struct {
	net.Conn
	in  *bufio.Reader
	out []byte
}

// send posts one entry and expects 201.
func (u *upload) send(ctx context.Context, caller, _ int) error {
	c, err := u.conn(ctx, caller)
	if err != nil {
		return err
	}
	n := u.next.Add(1)
	debit, credit := hot(n)
	amount := 1000 + n%5000
	const dims = `"dimensions":{"department":"parking","channel":"web","tender":"card"}`
	body := fmt.Appendf(nil, `{"reference":"BENCH","description":"Payment","lines":[{"account":%q,"amount_cents":%d,%s},{"account":%q,"amount_cents":%d,%s}]}`,
		debit, amount, dims, credit, -amount, dims)
	c.out = fmt.Appendf(c.out[:0], "POST %s/journal-entries HTTP/1.1\r\nHost: pay.example.ca\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nIdempotency-Key: http-%d\r\nContent-Length: %d\r\n\r\n%s",
		departments.Prefix, u.key, n, len(body), body)
	if _, err := c.Write(c.out); err != nil {
		return err
	}
	return c.created()
}

// conn is the connection of a caller, who alone uses it.
func (u *upload) conn(ctx context.Context, caller int) (*uploadConn, error) {
	if c := u.conns[caller]; c != nil {
		return c, nil
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", u.addr)
	if err != nil {
		return nil, err
	}
	u.conns[caller] = &uploadConn{Conn: conn, in: bufio.NewReader(conn)}
	return u.conns[caller], nil
}

// created reads an answer, which must be 201.
func (c *uploadConn) created() error {
	status, err := c.in.ReadSlice('\n')
	if err != nil {
		return err
	}
	ok := bytes.HasPrefix(status, []byte("HTTP/1.1 201 "))
	said := string(status)
	length := -1
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		if value, found := bytes.CutPrefix(line, []byte("Content-Length: ")); found {
			if length, err = strconv.Atoi(string(value)); err != nil {
				return err
			}
		}
	}
	if !ok || length < 0 {
		return fmt.Errorf("answered %q with %d bytes", said, length)
	}
	_, err = c.in.Discard(length)
	return err
}
