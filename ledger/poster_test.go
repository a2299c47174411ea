package ledger

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/mod/sumdb/note"

	"guichet/internal/money"
	"guichet/internal/testdb"
)

func (h house) poster(opts PosterOptions) *Poster { return NewPoster(h.db, h.clock.Now, opts) }

func (h house) drain(t testing.TB) {
	t.Helper()
	if err := h.poster(PosterOptions{}).Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// wantSound is what must hold after everything: no finding, nothing left over.
func (h house) wantSound(t testing.TB) {
	t.Helper()
	findings, err := Verify(t.Context(), h.db)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range findings {
		t.Errorf("finding: %s", f)
	}
}

func signer(t testing.TB) (note.Signer, note.Verifier) {
	t.Helper()
	private, public, err := note.GenerateKey(rand.Reader, "books.example")
	if err != nil {
		t.Fatal(err)
	}
	s, err := note.NewSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	v, err := note.NewVerifier(public)
	if err != nil {
		t.Fatal(err)
	}
	return s, v
}

func TestBalanceIsTheSameBeforeAndAfterPosting(t *testing.T) {
	t.Parallel()
	h := open(t)
	check := func(when string) {
		t.Helper()
		h.wantBalance(t, clearing, 700)
		h.wantBalance(t, receivable, -500)
		h.wantBalance(t, fines, -200)
		s, err := h.Statement(t.Context(), h.db, clearing, 0, 10)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, l := range s.Lines {
			got = append(got, fmt.Sprint(l.SourceID, " ", l.Amount, " ", l.Balance))
		}
		if want := "p-c 3.00 7.00, p-b -1.00 4.00, p-a 5.00 5.00"; strings.Join(got, ", ") != want {
			t.Errorf("%s: statement %s, want %s", when, strings.Join(got, ", "), want)
		}
		trial, err := h.TrialBalance(t.Context(), h.db, today)
		if err != nil || len(trial) != 3 || trial[0].Account.Path != clearing || trial[0].Debits != 800 || trial[0].Credits != 100 || trial[0].Balance != 700 {
			t.Errorf("%s: trial balance %+v, %v", when, trial, err)
		}
		if before, err := h.TrialBalance(t.Context(), h.db, today.AddDays(-1)); err != nil || len(before) != 0 {
			t.Errorf("%s: trial balance of the day before %+v, %v", when, before, err)
		}
	}
	h.mustPost(t, move("a", 500, clearing, receivable))
	h.mustPost(t, move("b", 100, fines, clearing))
	h.mustPost(t, move("c", 300, clearing, fines))
	check("unposted")
	if n := count(t, h.db, `select count(*) from ledger.posting`); n != 0 {
		t.Fatalf("%d postings before the poster", n)
	}
	h.drain(t)
	check("posted")
	if n := count(t, h.db, `select count(*) from ledger.unposted`); n != 0 {
		t.Errorf("%d entries left unposted", n)
	}
	h.wantSound(t)
}

func TestStatementInPages(t *testing.T) {
	t.Parallel()
	h := open(t)
	for i := range 7 {
		h.mustPost(t, move(key(i), 100, clearing, receivable))
	}
	h.drain(t)
	h.mustPost(t, move("last", 100, clearing, receivable))
	var balances []money.Amount
	before := int64(0)
	for range 10 {
		s, err := h.Statement(t.Context(), h.db, clearing, before, 3)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range s.Lines {
			balances = append(balances, l.Balance)
		}
		if before = s.Next; before == 0 {
			break
		}
	}
	if fmt.Sprint(balances) != "[8.00 7.00 6.00 5.00 4.00 3.00 2.00 1.00]" {
		t.Errorf("got %v", balances)
	}
}

// An entry dated before others moves the balance of its own day and no sequence.
func TestBackDatedEntry(t *testing.T) {
	t.Parallel()
	h := open(t)
	h.mustPost(t, move("a", 500, clearing, receivable))
	h.drain(t)
	late := move("b", 100, clearing, receivable)
	late.EffectiveOn = today.AddDays(-30)
	h.mustPost(t, late)
	for _, when := range []string{"unposted", "posted"} {
		trial, err := h.TrialBalance(t.Context(), h.db, today.AddDays(-1))
		if err != nil || len(trial) != 2 || trial[0].Balance != 100 {
			t.Errorf("%s: got %+v, %v", when, trial, err)
		}
		h.drain(t)
	}
	h.wantBalance(t, clearing, 600)
	h.wantSound(t)
}

func TestLimit(t *testing.T) {
	t.Parallel()
	h := open(t)
	if _, err := h.post(t.Context(), move("early", 1, credits, clearing)); !errors.Is(err, ErrLimit) {
		t.Errorf("from an empty credit: got %v, want ErrLimit", err)
	}
	h.mustPost(t, move("in", 1000, clearing, credits))
	// Ten people spend 300 of 1000 at once, partly posted: three succeed.
	for range 2 {
		h.mustPost(t, move("spare/"+fmt.Sprint(count(t, h.db, `select count(*) from ledger.posting`)), 5, clearing, fines))
		h.drain(t)
	}
	var wg sync.WaitGroup
	var spent atomic.Int64
	for i := range 10 {
		wg.Go(func() {
			_, err := h.post(t.Context(), move(key(i), 300, credits, clearing))
			switch {
			case err == nil:
				spent.Add(1)
			case !errors.Is(err, ErrLimit):
				t.Errorf("got %v, want ErrLimit", err)
			}
		})
	}
	wg.Wait()
	if spent.Load() != 3 {
		t.Errorf("%d spent, want 3", spent.Load())
	}
	h.wantBalance(t, credits, -100)
	h.drain(t)
	h.wantSound(t)
}

func TestFrozenAndClosedAccounts(t *testing.T) {
	t.Parallel()
	h := open(t)
	set := func(path string, to State) error {
		return h.try(t.Context(), func(ctx context.Context, tx pgx.Tx) error { return h.SetAccountState(ctx, tx, path, to) })
	}
	h.mustPost(t, move("a", 5, clearing, receivable))
	if err := set(clearing, Closed); !errors.Is(err, ErrInvalid) {
		t.Errorf("close with a balance: got %v, want ErrInvalid", err)
	}
	for _, to := range []State{Frozen, Frozen} {
		if err := set(clearing, to); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.post(t.Context(), move("b", 5, receivable, clearing)); !errors.Is(err, ErrAccountClosed) {
		t.Errorf("frozen: got %v, want ErrAccountClosed", err)
	}
	if err := set(clearing, Open); err != nil {
		t.Fatal(err)
	}
	h.mustPost(t, move("b", 5, receivable, clearing))
	if err := set(clearing, Closed); err != nil {
		t.Fatal(err)
	}
	if _, err := h.post(t.Context(), move("c", 5, clearing, receivable)); !errors.Is(err, ErrAccountClosed) {
		t.Errorf("closed: got %v, want ErrAccountClosed", err)
	}
	if err := set(clearing, Open); !errors.Is(err, ErrAccountClosed) {
		t.Errorf("open a closed account: got %v, want ErrAccountClosed", err)
	}
	if err := set("assets:none", Frozen); !errors.Is(err, ErrUnknownAccount) {
		t.Errorf("unknown account: got %v, want ErrUnknownAccount", err)
	}
	h.drain(t) // what was recorded before the closing is posted after it
	h.wantSound(t)
}

func TestPeriods(t *testing.T) {
	t.Parallel()
	h := open(t)
	set := func(to PeriodState) error {
		return h.try(t.Context(), func(ctx context.Context, tx pgx.Tx) error { return h.SetPeriod(ctx, tx, today.AddDays(-31), to) })
	}
	n := 0
	post := func(days int, kind string) error {
		n++
		e := move(key(n), 5, clearing, receivable)
		e.EffectiveOn, e.Kind = today.AddDays(days), kind
		_, err := h.post(t.Context(), e)
		return err
	}
	february, january := -9, -40 // today is 9 March
	if err := set(PeriodClosed); !errors.Is(err, ErrInvalid) {
		t.Errorf("from open to closed: got %v, want ErrInvalid", err)
	}
	if err := set(PeriodClosing); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		days int
		kind string
		want error
	}{{february, "payment", ErrPeriodClosed}, {february, "adjustment", nil}, {january, "payment", nil}, {-8, "payment", nil}} {
		if err := post(tt.days, tt.kind); !errors.Is(err, tt.want) {
			t.Errorf("closing: %d days, %s: got %v, want %v", tt.days, tt.kind, err, tt.want)
		}
	}
	for _, to := range []PeriodState{PeriodOpen, PeriodClosing, PeriodClosed, PeriodClosed} {
		if err := set(to); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		days int
		kind string
		want error
	}{{february, "payment", ErrPeriodClosed}, {february, "adjustment", ErrPeriodClosed}, {january, "payment", ErrPeriodClosed}, {-8, "payment", nil}} {
		if err := post(tt.days, tt.kind); !errors.Is(err, tt.want) {
			t.Errorf("closed: %d days, %s: got %v, want %v", tt.days, tt.kind, err, tt.want)
		}
	}
	if err := set(PeriodOpen); !errors.Is(err, ErrPeriodClosed) {
		t.Errorf("open a closed period: got %v, want ErrPeriodClosed", err)
	}
	if list, err := h.Periods(t.Context(), h.db, 5); err != nil || len(list) != 1 || list[0].State != PeriodClosed || list[0].Month.String() != "2026-02-01" {
		t.Errorf("list: got %+v, %v", list, err)
	}
	h.drain(t)
	h.wantSound(t)
}

// An append that came first is waited for and seen; one that comes later is refused.
// Whoever wins, a closed account is empty and a closed period takes no more.
func TestClosingRace(t *testing.T) {
	t.Parallel()
	h := open(t)
	rounds := 60
	if os.Getenv("GUICHET_LONG") != "" {
		rounds = 1000
	}
	for round := range rounds {
		path := fmt.Sprintf("assets:race:%d", round)
		h.do(t, func(ctx context.Context, tx pgx.Tx) error {
			return h.OpenAccount(ctx, tx, Account{Path: path, NameEN: "Race", NameFR: "Course"})
		})
		month := today.AddDays(31 * (round + 1)) // later months each time
		month.Day = 1
		h.do(t, func(ctx context.Context, tx pgx.Tx) error { return h.SetPeriod(ctx, tx, month, PeriodClosing) })
		var wg sync.WaitGroup
		var taken atomic.Int64
		for i := range 6 {
			wg.Go(func() {
				e := move(fmt.Sprint(path, i), 5, path, receivable)
				e.EffectiveOn, e.Kind = month, "adjustment"
				n := int64(1)
				err := h.try(t.Context(), func(ctx context.Context, tx pgx.Tx) (err error) {
					switch i % 3 {
					case 0:
						_, err = h.Append(ctx, tx, e)
					case 1:
						f := e
						f.Key += "/2"
						n = 2
						_, err = h.AppendAll(ctx, tx, []Entry{e, f})
					default:
						_, err = h.Hold(ctx, tx, e, time.Time{})
					}
					return err
				})
				switch {
				case err == nil:
					taken.Add(n)
				case !errors.Is(err, ErrAccountClosed) && !errors.Is(err, ErrPeriodClosed):
					t.Errorf("append: %v", err)
				}
			})
		}
		var closed, periodClosed error
		wg.Go(func() {
			closed = h.try(t.Context(), func(ctx context.Context, tx pgx.Tx) error { return h.SetAccountState(ctx, tx, path, Closed) })
		})
		var counted int64
		wg.Go(func() {
			periodClosed = h.try(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
				if err := h.SetPeriod(ctx, tx, month, PeriodClosed); err != nil {
					return err
				}
				return tx.QueryRow(ctx, `select count(*) from ledger.journal_entry where effective_on = $1`, month.Time()).Scan(&counted)
			})
		})
		wg.Wait()
		if periodClosed != nil {
			t.Fatal(periodClosed)
		}
		if closed == nil && taken.Load() > 0 || closed != nil && !errors.Is(closed, ErrInvalid) {
			t.Errorf("round %d: closed with %d entries: %v", round, taken.Load(), closed)
		}
		if counted != taken.Load() {
			t.Errorf("round %d: the closed period counted %d entries, later there are %d", round, counted, taken.Load())
		}
	}
	h.drain(t)
	h.wantSound(t)
}

// Grants stop the service, triggers stop the owner as well.
func TestAppendOnly(t *testing.T) {
	t.Parallel()
	h := open(t)
	h.mustPost(t, move("a", 5, clearing, receivable))
	h.drain(t)
	owner := testdb.Owner(t, h.db)
	for _, sql := range []string{
		`update ledger.journal_entry set description = 'x'`,
		`delete from ledger.journal_entry`,
		`truncate ledger.journal_entry cascade`,
		`update ledger.posting set amount = 1`,
		`delete from ledger.posting`,
		`truncate ledger.posting`,
		`update ledger.dimension set fund = 'x'`,
		`delete from ledger.account`,
		`update ledger.account set path = 'assets:x'`,
		`update ledger.account set department = 'x'`,
		`delete from ledger.hold`,
		`update ledger.hold set expires_at = null`,
		`update ledger.period_balance set debits = 1`,
		`delete from ledger.import`,
		`delete from ledger.log_moment`,
		`delete from ledger.account_day`,
		`delete from ledger.log_tile`,
		`delete from ledger.log_head`,
		`truncate ledger.log_tile`,
		`delete from ledger.period`,
		`update ledger.log_key set verifier = ''`,
		`update ledger.unposted set amounts = '{}'`,
	} {
		for name, db := range map[string]*pgxpool.Pool{"service": h.db, "owner": owner} {
			if _, err := db.Exec(t.Context(), sql); err == nil {
				t.Errorf("%s may %s", name, sql)
			}
		}
	}
	if _, err := h.db.Exec(t.Context(), `insert into ledger.unposted select id, accounts, amounts, dimensions, effective_on, recorded_at, leaf from ledger.journal_entry`); err == nil {
		t.Error("the service may write to unposted")
	}
}

// 32 writers on one hot account, two posters that compete, readers that check
// that no account is ever seen half moved.
func TestConcurrentAppendsAndPosters(t *testing.T) {
	t.Parallel()
	h := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	var background sync.WaitGroup
	for range 2 {
		p := h.poster(PosterOptions{Linger: time.Millisecond, Standby: time.Millisecond, Batch: 7})
		background.Go(func() {
			if err := p.Run(ctx); err != nil {
				t.Errorf("poster: %v", err)
			}
		})
	}
	background.Go(func() {
		for ctx.Err() == nil {
			trial, err := h.TrialBalance(ctx, h.db, today)
			var sum money.Amount
			for _, l := range trial {
				sum += l.Balance
			}
			if ctx.Err() == nil && (err != nil || sum != 0) {
				t.Errorf("trial balance sums to %s, %v", sum, err)
			}
		}
	})
	const writers, each = 32, 12
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				k := fmt.Sprint(w, "/", i)
				if i%4 == 3 {
					k = fmt.Sprint("shared/", i) // the same entry from everyone
				}
				if _, err := h.post(ctx, move(k, money.Amount(100+i), clearing, receivable)); err != nil {
					t.Errorf("append: %v", err)
				}
			}
		})
	}
	wg.Wait()
	cancel()
	background.Wait()
	h.drain(t)
	var want money.Amount
	for i := range each {
		n := writers
		if i%4 == 3 {
			n = 1
		}
		want += money.Amount(n * (100 + i))
	}
	h.wantBalance(t, clearing, want)
	h.wantSound(t)
}

// The connection of the poster is cut at random moments, and its context ended at
// others: nothing is lost, nothing posted twice.
func TestPosterSurvivesBeingKilled(t *testing.T) {
	t.Parallel()
	h := open(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := mathrand.New(mathrand.NewPCG(seed, 0))
	owner := testdb.Owner(t, h.db)
	ctx, cancel := context.WithCancel(t.Context())
	var background sync.WaitGroup
	for range 2 {
		// A pool of its own: writers must not be cut.
		p := NewPoster(clonePool(t, h.db, "victim"), h.clock.Now, PosterOptions{Linger: time.Millisecond, Standby: time.Millisecond, Batch: 5})
		background.Go(func() {
			for ctx.Err() == nil {
				short, stop := context.WithTimeout(ctx, time.Duration(1+mathrand.IntN(30))*time.Millisecond)
				if err := p.Run(short); err != nil {
					t.Errorf("poster: %v", err)
				}
				stop()
			}
		})
	}
	killed := 0
	for i := range 400 {
		h.mustPost(t, move(key(i), money.Amount(i+1), clearing, receivable))
		if random.IntN(4) == 0 {
			killed += count(t, owner, `select count(pg_terminate_backend(pid)) from pg_stat_activity
				where application_name = 'victim' and datname = current_database() and state <> 'idle'`)
		}
	}
	cancel()
	background.Wait()
	t.Logf("%d connections cut", killed)
	h.drain(t)
	h.wantBalance(t, clearing, 400*401/2)
	if n := count(t, h.db, `select size from ledger.log_head`); n != 400 {
		t.Errorf("log holds %d entries, want 400", n)
	}
	h.wantSound(t)
}

func clonePool(t testing.TB, db *pgxpool.Pool, name string) *pgxpool.Pool {
	t.Helper()
	cfg := db.Config()
	cfg.ConnConfig.RuntimeParams["application_name"] = name
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// A second poster works while the first one is away, and the first notices.
func TestPosterStandsBackAndTakesOver(t *testing.T) {
	t.Parallel()
	h := open(t)
	a, b := h.poster(PosterOptions{}), h.poster(PosterOptions{})
	post := func(i int) { h.mustPost(t, move(key(i), 5, clearing, receivable)) }
	want := func(p *Poster, n int, wantErr error) {
		t.Helper()
		got, err := p.take(t.Context(), true)
		if got != n || !errors.Is(err, wantErr) {
			t.Errorf("took %d, %v; want %d, %v", got, err, n, wantErr)
		}
	}
	post(1)
	want(a, 1, nil)
	want(b, 0, nil) // looks for the first time
	post(2)
	want(a, 1, nil)
	post(3)
	want(b, 0, errStandby) // a has posted since
	want(b, 1, nil)        // and not since then
	post(4)
	want(a, 0, errStandby)
	want(a, 1, nil)
	h.wantSound(t)
}

func TestStats(t *testing.T) {
	t.Parallel()
	h := open(t)
	p := h.poster(PosterOptions{})
	h.mustPost(t, move("a", 5, clearing, receivable))
	h.drain(t)
	h.mustPost(t, move("b", 5, clearing, receivable))
	h.clock.t = h.clock.t.Add(time.Minute)
	if got, err := p.Stats(t.Context()); err != nil || got != (Stats{Backlog: 1, Lag: time.Minute, Sealed: 1}) {
		t.Errorf("got %+v, %v", got, err)
	}
	h.drain(t)
	if got, err := p.Stats(t.Context()); err != nil || got != (Stats{Sealed: 2}) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestHeadsGoToFiles(t *testing.T) {
	t.Parallel()
	h := open(t)
	s, v := signer(t)
	dir := filepath.Join(t.TempDir(), "heads")
	p := h.poster(PosterOptions{Signer: s, HeadDir: dir})
	for i := range 3 {
		h.mustPost(t, move(key(i), 5, clearing, receivable))
		if err := p.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	h.clock.t = h.clock.t.Add(time.Minute)
	if err := p.Drain(t.Context()); err != nil { // nothing new, but a minute has passed
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != 2 || filepath.Base(files[0]) != "000000000001.head" || filepath.Base(files[1]) != "000000000003.head" {
		t.Fatalf("files %v, %v; want heads 1 and 3", files, err)
	}
	saved, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := VerifyHead(t.Context(), h.db, string(saved), v); err != nil {
		t.Errorf("saved head: %v", err)
	}
}

// The poster passes over what lies before its last batch, and not for long; whoever drains
// does not.
func TestPosterFindsWhatLiesBefore(t *testing.T) {
	t.Parallel()
	h := open(t)
	waiting := func() int { return count(t, h.db, `select count(*) from ledger.unposted`) }
	appendSome := func(name string, n int) {
		batch := make([]Entry, n)
		for i := range batch {
			batch[i] = move(fmt.Sprint(name, "/", i), 100, clearing, receivable)
		}
		h.do(t, func(ctx context.Context, tx pgx.Tx) error { _, err := h.AppendAll(ctx, tx, batch); return err })
	}
	p := h.poster(PosterOptions{})
	appendSome("first", 300)
	p.from = 4
	for i := 0; waiting() > 0; i++ {
		if i > wholeEvery {
			t.Fatalf("%d entries wait after %d batches", waiting(), i)
		}
		appendSome(fmt.Sprint("more", i), 1)
		if _, err := p.take(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		if i == 0 && waiting() == 0 {
			t.Error("the first batch took what lies before: the test shows nothing")
		}
	}
	appendSome("second", 300)
	p.from, p.narrow = 4, 0
	if err := p.Drain(t.Context()); err != nil || waiting() > 0 {
		t.Errorf("%d entries wait after a drain, %v", waiting(), err)
	}
	appendSome("third", 1)
	p.from, p.narrow = 1_000_000, 0
	if n, err := p.take(t.Context(), true); err != nil || n != 1 {
		t.Errorf("took %d where only what lies before was there, %v", n, err)
	}
	h.wantSound(t)
}
