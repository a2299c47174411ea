package ledger

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	mathrand "math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/rs/zerolog"

	"guichet/internal/clock"
	"guichet/internal/postgres"
	"guichet/internal/testdb"
	"guichet/migrations"
)

// childVariable tells a copy of this test binary to be the victim, and exportVariable to
// export into that file instead.
const (
	childVariable  = "GUICHET_LEDGER_CHILD"
	exportVariable = "GUICHET_LEDGER_EXPORT"
)

func TestMain(m *testing.M) {
	if child := os.Getenv(childVariable); child != "" {
		work := func() error { return victim(child, os.Getenv("GUICHET_LEDGER_PREFIX")) }
		if path := os.Getenv(exportVariable); path != "" {
			work = func() error { return exportHere(child, path) }
		}
		if err := work(); err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
			os.Exit(1)
		}
		return
	}
	// Sequences of the model: the command line may still say another number.
	checks := "60"
	if os.Getenv("GUICHET_LONG") != "" {
		checks = "1000"
	}
	if err := flag.Set("rapid.checks", checks); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// victim appends, alone and in shared transactions, with a poster beside it, and says of
// each entry that it was told to be recorded. It never ends by itself.
func victim(address, prefix string) error {
	ctx := context.Background()
	db, err := pgxpool.New(ctx, address)
	if err != nil {
		return err
	}
	now := new(clock.Clock).Now
	b := New(now)
	q := NewQueue(b, db)
	go q.Run(ctx)
	go NewPoster(db, now, PosterOptions{Linger: time.Millisecond, Standby: time.Millisecond, Batch: 20}).Run(ctx)
	var mu sync.Mutex
	var callers sync.WaitGroup
	var failed error
	for c := range 8 {
		callers.Go(func() {
			for i := 0; ; i++ {
				k := fmt.Sprint(prefix, "/", c, "/", i)
				_, err := q.Append(ctx, move(k, 100, clearing, receivable))
				mu.Lock()
				if err != nil {
					failed = err
					mu.Unlock()
					return
				}
				fmt.Println(k)
				mu.Unlock()
			}
		})
	}
	callers.Wait()
	return failed
}

// A process that appends is killed again and again: what it was told to be recorded is
// there, once; what it was not told is there once or not at all.
func TestKilledWhileAppending(t *testing.T) {
	t.Parallel()
	h := open(t)
	address := h.db.Config().ConnString()
	acked := map[string]bool{}
	for round := range 6 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), childVariable+"="+address, fmt.Sprint("GUICHET_LEDGER_PREFIX=r", round))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; n < 40+mathrand.IntN(120) && lines.Scan(); n++ {
			acked[lines.Text()] = true
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() { // what it still managed to say
			if strings.HasPrefix(lines.Text(), "r") {
				acked[lines.Text()] = true
			}
		}
		_ = cmd.Wait() // killed
	}
	h.wantRecorded(t, acked)
}

// wantRecorded drains and proves the books, and looks for every key that was acknowledged.
func (h house) wantRecorded(t *testing.T, acked map[string]bool) {
	t.Helper()
	h.drain(t)
	h.wantSound(t)
	rows, err := h.db.Query(t.Context(), `select key from ledger.journal_entry`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	there := map[string]bool{}
	for rows.Next() {
		var k string
		if err := rows.Scan(&k); err != nil {
			t.Fatal(err)
		}
		there[k] = true
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	for k := range acked {
		if !there[k] {
			t.Errorf("%s was acknowledged and is lost", k)
		}
	}
	if len(acked) == 0 {
		t.Error("nothing was acknowledged: the test shows nothing")
	}
	t.Logf("%d acknowledged, %d recorded", len(acked), len(there))
}

// Connections are cut after a few bytes, anywhere: in the request, in the answer, between
// COMMIT and its answer. Whoever asks again with the same key gets one entry.
func TestCutConnections(t *testing.T) {
	t.Parallel()
	h := open(t)
	u, err := url.Parse(h.db.Config().ConnString())
	if err != nil {
		t.Fatal(err)
	}
	proxy := toxiproxy.NewProxy(toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop()), "books", "127.0.0.1:0", u.Host)
	if err := proxy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Stop)
	cfg := h.db.Config()
	_, port, _ := strings.Cut(proxy.Listen, ":")
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	cfg.ConnConfig.Port, cfg.ConnConfig.Host = uint16(n), "127.0.0.1"
	db, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)

	cut := h
	cut.db = db
	q := NewQueue(h.Books, db)
	ctx, cancel := context.WithCancel(t.Context())
	var background sync.WaitGroup
	background.Go(func() { _ = q.Run(ctx) })
	p := NewPoster(db, h.clock.Now, PosterOptions{Linger: time.Millisecond, Standby: time.Millisecond, Batch: 9})
	background.Go(func() { _ = p.Run(ctx) })

	const callers, each = 6, 60
	acked := map[string]bool{}
	cuts := 0
	var mu sync.Mutex
	var wg sync.WaitGroup
	done := make(chan struct{})
	for c := range callers {
		wg.Go(func() {
			for i := range each {
				k := fmt.Sprint(c, "/", i)
				for tries := 0; ; tries++ {
					var err error
					if i%2 == 0 {
						_, err = cut.post(t.Context(), move(k, 100, clearing, receivable))
					} else {
						_, err = q.Append(t.Context(), move(k, 100, clearing, receivable))
					}
					if err == nil {
						break
					}
					mu.Lock()
					cuts++
					mu.Unlock()
					if isRefusal(err) || tries > 500 {
						t.Errorf("%s after %d tries: %v", k, tries, err)
						return
					}
				}
				mu.Lock()
				acked[k] = true
				mu.Unlock()
			}
		})
	}
	go func() { wg.Wait(); close(done) }()
	for cutting := true; cutting; {
		side := []string{"upstream", "downstream"}[mathrand.IntN(2)]
		toxic := fmt.Sprintf(`{"name":"cut","type":"limit_data","stream":"%s","attributes":{"bytes":%d}}`, side, 100+mathrand.IntN(3000))
		if _, err := proxy.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
			t.Fatal(err)
		}
		select {
		case <-done:
			cutting = false
		case <-time.After(time.Duration(50+mathrand.IntN(150)) * time.Millisecond):
		}
		if err := proxy.Toxics.RemoveToxic(t.Context(), "cut"); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	background.Wait()
	if cuts == 0 {
		t.Error("no connection was cut: the test shows nothing")
	}
	t.Logf("%d calls met a cut connection", cuts)
	h.wantRecorded(t, acked)
	h.wantBalance(t, clearing, 100*callers*each)
}

// The database server itself is killed while it commits, and recovers.
func TestKilledServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	// Root's server runs as another user. The directory for all temporary files is everybody's.
	for p := dir; p != os.TempDir() && p != "/"; p = filepath.Dir(p) {
		_ = os.Chmod(p, 0o755)
	}
	start := func() *postgres.Server {
		s, err := postgres.Start(t.Context(), postgres.Options{Dir: dir, Durable: true})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := start()
	t.Cleanup(func() { _ = s.Stop() })
	address, err := s.Database(t.Context(), "books")
	if err != nil {
		t.Fatal(err)
	}
	if err := migrations.Up(t.Context(), address); err != nil {
		t.Fatal(err)
	}
	connect := func() *pgxpool.Pool {
		u, err := url.Parse(s.URL("books"))
		if err != nil {
			t.Fatal(err)
		}
		db, err := pgxpool.New(t.Context(), u.String()+"&role=guichet_app")
		if err != nil {
			t.Fatal(err)
		}
		return db
	}
	db := connect()
	h := furnish(t, db)
	acked := map[string]bool{}
	for round := range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var mu sync.Mutex
		p := h.poster(PosterOptions{Linger: time.Millisecond, Standby: time.Millisecond, Batch: 10})
		wg.Go(func() { _ = p.Run(ctx) })
		enough := make(chan struct{})
		var once sync.Once
		for c := range 6 {
			wg.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					k := fmt.Sprint(round, "/", c, "/", i)
					if _, err := h.post(ctx, move(k, 100, clearing, receivable)); err != nil {
						return // the server is gone
					}
					mu.Lock()
					if acked[k] = true; len(acked) > 60*(round+1) {
						once.Do(func() { close(enough) })
					}
					mu.Unlock()
				}
			})
		}
		select {
		case <-enough:
		case <-time.After(2 * time.Minute):
			t.Error("the callers do not come to their number")
		}
		killServer(t, dir)
		<-s.Ended()
		cancel()
		wg.Wait()
		db.Close()
		_ = s.Stop() // frees the directory; the server is dead
		s = start()
		db = connect()
		h.db = db
	}
	h.wantRecorded(t, acked)
	db.Close()
}

func killServer(t *testing.T, dir string) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "*", "postmaster.pid"))
	if err != nil || len(found) != 1 {
		t.Fatalf("server of %s: %v, %v", dir, found, err)
	}
	text, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// On a new database whose tables nobody has counted, statements prepared at once must not
// keep plans that read whole tables. It looks at what the tables say was read.
func TestPlansOfAFreshDatabase(t *testing.T) {
	t.Parallel()
	h := open(t)
	h.do(t, func(ctx context.Context, tx pgx.Tx) error {
		for i := range 600 {
			if err := h.OpenAccount(ctx, tx, Account{Path: fmt.Sprint("assets:many:", i), NameEN: "Many", NameFR: "Beaucoup"}); err != nil {
				return err
			}
		}
		return nil
	})
	p := h.poster(PosterOptions{Batch: 100})
	for i := range 400 {
		h.mustPost(t, move(key(i), 5, fmt.Sprint("assets:many:", i%600), clearing))
		if i%100 == 99 {
			if err := p.Drain(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 20 {
		h.wantBalance(t, "assets:many:7", 5)
		if _, err := h.BalanceAsOf(t.Context(), h.db, clearing, AsOf{On: today}); err != nil {
			t.Fatal(err)
		}
	}
	// Statistics of a session arrive when it has been idle for a while, or ends.
	h.db.Reset()
	owner := testdb.Owner(t, h.db)
	for _, table := range []string{"journal_entry", "posting", "account", "dimension", "account_day"} {
		n := count(t, owner, `select coalesce(seq_tup_read, 0) from pg_stat_user_tables where schemaname = 'ledger' and relname = $1`, table)
		if limit := 60_000; n > limit {
			t.Errorf("%d rows of %s were read by reading all of it, at most %d expected", n, table, limit)
		}
	}
}
