package ledger

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/clock"
	"guichet/internal/money"
)

// in runs f in a transaction of its own.
func in[T any](t testing.TB, h house, f func(ctx context.Context, tx pgx.Tx) (T, error)) (got T, err error) {
	t.Helper()
	err = h.try(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		got, err = f(ctx, tx)
		return err
	})
	return got, err
}

func (h house) hold(t testing.TB, e Entry, expires time.Time) string {
	t.Helper()
	holdID, err := in(t, h, func(ctx context.Context, tx pgx.Tx) (string, error) { return h.Hold(ctx, tx, e, expires) })
	if err != nil {
		t.Fatal(err)
	}
	return holdID
}

func (h house) capture(t testing.TB, holdID string, e Entry, rest Rest) (string, error) {
	t.Helper()
	return in(t, h, func(ctx context.Context, tx pgx.Tx) (string, error) { return h.Capture(ctx, tx, holdID, e, rest) })
}

func (h house) void(t testing.TB, holdID, key string) error {
	t.Helper()
	return h.try(t.Context(), func(ctx context.Context, tx pgx.Tx) error { return h.Void(ctx, tx, holdID, Entry{Key: key}) })
}

func (h house) wantAvailable(t testing.TB, path string, want money.Amount) {
	t.Helper()
	if got, err := h.Available(t.Context(), h.db, path); err != nil || got != want {
		t.Errorf("available on %s: got %s, %v; want %s", path, got, err, want)
	}
}

func (h house) wantHold(t testing.TB, holdID string, state HoldState, remaining ...money.Amount) {
	t.Helper()
	got, err := h.HoldOf(t.Context(), h.db, holdID)
	var left []money.Amount
	for _, l := range got.Remaining {
		left = append(left, l.Amount)
	}
	if err != nil || got.State != state || !reflect.DeepEqual(left, remaining) {
		t.Errorf("hold: got %s with %v, %v; want %s with %v", got.State, left, err, state, remaining)
	}
}

func TestHold(t *testing.T) {
	t.Parallel()
	h := open(t)
	h.mustPost(t, move("in", 1000, clearing, credits))
	first := h.hold(t, move("h1", 600, credits, clearing), time.Time{})
	h.wantBalance(t, credits, -1000) // in no balance
	h.wantAvailable(t, credits, 400)
	h.wantAvailable(t, clearing, 400) // the credit of the other side is held against it
	if _, err := in(t, h, func(ctx context.Context, tx pgx.Tx) (string, error) {
		return h.Hold(ctx, tx, move("h2", 401, credits, clearing), time.Time{})
	}); !errors.Is(err, ErrLimit) {
		t.Errorf("a hold beyond the limit: got %v, want ErrLimit", err)
	}
	_, err := h.post(t.Context(), move("p", 401, credits, clearing))
	if want := (&LimitError{credits, -1, 0}); !errors.As(err, new(*LimitError)) || !errors.Is(err, ErrLimit) || err.Error() != "append p: "+want.Error() {
		t.Errorf("a payment into what is held: got %v, want %v", err, want)
	}
	// What is held in favour of an account is not there yet.
	h.hold(t, move("h3", 500, clearing, credits), time.Time{})
	h.wantAvailable(t, credits, 400)
	h.drain(t)
	h.wantAvailable(t, credits, 400)

	if again := h.hold(t, move("h1", 600, credits, clearing), time.Time{}); again != first {
		t.Errorf("replay: got %s, want %s", again, first)
	}
	if _, err := in(t, h, func(ctx context.Context, tx pgx.Tx) (string, error) {
		return h.Hold(ctx, tx, move("h1", 600, credits, clearing), h.clock.t.Add(time.Hour))
	}); !errors.Is(err, ErrConflict) {
		t.Errorf("replay with another time: got %v, want ErrConflict", err)
	}
	if _, err := h.post(t.Context(), move("h1", 600, credits, clearing)); !errors.Is(err, ErrConflict) {
		t.Errorf("an entry under the key of a hold: got %v, want ErrConflict", err)
	}

	// Part of it, and the rest stays held.
	part := []Line{{Account: credits, Amount: 250}, {Account: clearing, Amount: -250}}
	captured, err := h.capture(t, first, Entry{Key: "c1", Lines: part}, KeepRest)
	if err != nil {
		t.Fatal(err)
	}
	h.wantHold(t, first, HoldOpen, 350, -350)
	h.wantBalance(t, credits, -750)
	h.wantAvailable(t, credits, 400)
	if again, err := h.capture(t, first, Entry{Key: "c1", Lines: part}, KeepRest); err != nil || again != captured {
		t.Errorf("replay of a capture: got %s, %v; want %s", again, err, captured)
	}
	if _, err := h.capture(t, first, Entry{Key: "c1", Lines: []Line{{Account: credits, Amount: 1}, {Account: clearing, Amount: -1}}}, KeepRest); !errors.Is(err, ErrConflict) {
		t.Errorf("another capture under the key: got %v, want ErrConflict", err)
	}
	for name, lines := range map[string][]Line{
		"more than is held": {{Account: credits, Amount: 351}, {Account: clearing, Amount: -351}},
		"the other side":    {{Account: credits, Amount: -5}, {Account: clearing, Amount: 5}},
		"another account":   {{Account: credits, Amount: 5}, {Account: fines, Amount: -5}},
		"other dimensions":  {{credits, 5, Dimensions{Fund: "x"}}, {Account: clearing, Amount: -5}},
	} {
		if _, err := h.capture(t, first, Entry{Key: "bad", Lines: lines}, KeepRest); !errors.Is(err, ErrHold) {
			t.Errorf("%s: got %v, want ErrHold", name, err)
		}
	}
	// The whole of what remains.
	second, err := h.capture(t, first, Entry{Key: "c2"}, ReleaseRest)
	if err != nil {
		t.Fatal(err)
	}
	h.wantHold(t, first, HoldCaptured)
	h.wantBalance(t, credits, -400)
	if again, err := h.capture(t, first, Entry{Key: "c2"}, ReleaseRest); err != nil || again != second {
		t.Errorf("replay of a capture: got %s, %v; want %s", again, err, second)
	}
	if _, err := h.capture(t, first, Entry{Key: "c3"}, ReleaseRest); !errors.Is(err, ErrHold) {
		t.Errorf("capture of what is captured: got %v, want ErrHold", err)
	}
	if err := h.void(t, first, "v"); !errors.Is(err, ErrHold) {
		t.Errorf("void of what is captured: got %v, want ErrHold", err)
	}
	if e, err := h.Entry(t.Context(), h.db, second); err != nil || e.Hold != first || e.Held || e.Kind != "capture" {
		t.Errorf("captured entry: %+v, %v", e, err)
	}
	if _, err := in(t, h, func(ctx context.Context, tx pgx.Tx) (string, error) {
		return h.Reverse(ctx, tx, first, Entry{Key: "r"})
	}); !errors.Is(err, ErrInvalid) {
		t.Errorf("reversal of a hold: got %v, want ErrInvalid", err)
	}
	h.drain(t)
	h.wantSound(t)
}

func TestVoidAndExpiry(t *testing.T) {
	t.Parallel()
	h := open(t)
	h.mustPost(t, move("in", 1000, clearing, credits))
	voided := h.hold(t, move("a", 600, credits, clearing), time.Time{})
	soon := h.hold(t, move("b", 300, credits, clearing), h.clock.t.Add(time.Minute))
	h.wantAvailable(t, credits, 100)
	for range 2 {
		if err := h.void(t, voided, "a/void"); err != nil {
			t.Fatal(err)
		}
	}
	h.wantHold(t, voided, HoldVoided)
	h.wantAvailable(t, credits, 700)
	expire := func(want int) {
		t.Helper()
		n, err := in(t, h, func(ctx context.Context, tx pgx.Tx) (int, error) { return h.ExpireHolds(ctx, tx, 10) })
		if err != nil || n != want {
			t.Errorf("expired %d, %v; want %d", n, err, want)
		}
	}
	expire(0)
	h.clock.t = h.clock.t.Add(time.Minute)
	expire(1)
	expire(0)
	h.wantHold(t, soon, HoldExpired)
	h.wantAvailable(t, credits, 1000)
	if _, err := h.capture(t, soon, Entry{Key: "late"}, ReleaseRest); !errors.Is(err, ErrHold) {
		t.Errorf("capture of what has expired: got %v, want ErrHold", err)
	}
	// Holds are in no report.
	trial, err := h.TrialBalance(t.Context(), h.db, today)
	if err != nil || len(trial) != 2 {
		t.Errorf("trial balance %+v, %v", trial, err)
	}
	h.drain(t)
	h.wantSound(t)
}

// Twenty people capture and void the same hold: it is booked once or not at all.
func TestCaptureRace(t *testing.T) {
	t.Parallel()
	h := open(t)
	h.mustPost(t, move("in", 1000, clearing, credits))
	for round := range 5 {
		holdID := h.hold(t, move(fmt.Sprint("h", round), 100, credits, clearing), time.Time{})
		var wg sync.WaitGroup
		var captured, voided atomic.Int64
		for i := range 8 {
			wg.Go(func() {
				_, err := h.capture(t, holdID, Entry{Key: fmt.Sprint("c", round, "/", i)}, ReleaseRest)
				switch {
				case err == nil:
					captured.Add(1)
				case !errors.Is(err, ErrHold):
					t.Errorf("capture: %v", err)
				}
			})
			wg.Go(func() {
				err := h.void(t, holdID, fmt.Sprint("v", round, "/", i))
				switch {
				case err == nil:
					voided.Add(1)
				case !errors.Is(err, ErrHold):
					t.Errorf("void: %v", err)
				}
			})
		}
		wg.Wait()
		if captured.Load() > 1 || (captured.Load() == 1) == (voided.Load() > 0) {
			t.Errorf("round %d: captured %d times, voided %d times", round, captured.Load(), voided.Load())
		}
	}
	h.drain(t)
	h.wantSound(t)
}

func TestReverseLines(t *testing.T) {
	t.Parallel()
	h := open(t)
	e := move("a", 0, clearing, receivable)
	dims := Dimensions{Tender: "card"}
	e.Lines = []Line{{clearing, 500, dims}, {receivable, -300, Dimensions{}}, {fines, -200, Dimensions{}}}
	entryID := h.mustPost(t, e)
	take := func(key string, lines ...Line) (string, error) {
		return in(t, h, func(ctx context.Context, tx pgx.Tx) (string, error) {
			return h.ReverseLines(ctx, tx, entryID, lines, Entry{Key: key, EffectiveOn: today})
		})
	}
	first, err := take("r1", Line{clearing, 200, dims}, Line{Account: fines, Amount: -200})
	if err != nil {
		t.Fatal(err)
	}
	if again, err := take("r1", Line{clearing, 200, dims}, Line{Account: fines, Amount: -200}); err != nil || again != first {
		t.Errorf("replay: got %s, %v; want %s", again, err, first)
	}
	h.wantBalance(t, fines, 0)
	h.wantBalance(t, clearing, 300)
	for name, tt := range map[string]struct {
		lines []Line
		want  error
	}{
		"a line that is taken back":  {[]Line{{clearing, 1, dims}, {Account: fines, Amount: -1}}, ErrReversed},
		"one cent more than is left": {[]Line{{clearing, 301, dims}, {Account: receivable, Amount: -301}}, ErrReversed},
		"the other side":             {[]Line{{clearing, -1, dims}, {Account: receivable, Amount: 1}}, ErrReversed},
		"other dimensions":           {[]Line{{Account: clearing, Amount: 1}, {Account: receivable, Amount: -1}}, ErrReversed},
		"lines that do not balance":  {[]Line{{clearing, 2, dims}, {Account: receivable, Amount: -1}}, ErrUnbalanced},
		"no lines":                   {nil, ErrInvalid},
	} {
		if _, err := take("bad", tt.lines...); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", name, err, tt.want)
		}
	}
	if _, err := in(t, h, func(ctx context.Context, tx pgx.Tx) (string, error) {
		return h.Reverse(ctx, tx, entryID, Entry{Key: "whole"})
	}); !errors.Is(err, ErrReversed) {
		t.Errorf("the whole after a part: got %v, want ErrReversed", err)
	}
	if _, err := take("r2", Line{clearing, 300, dims}, Line{Account: receivable, Amount: -300}); err != nil {
		t.Errorf("the rest: %v", err)
	}
	h.wantBalance(t, clearing, 0)
	h.drain(t)
	h.wantSound(t)
}

// Many take back the same cent at once: one gets it.
func TestReversalRace(t *testing.T) {
	t.Parallel()
	h := open(t)
	entryID := h.mustPost(t, move("a", 500, clearing, receivable))
	var wg sync.WaitGroup
	var taken atomic.Int64
	for i := range 12 {
		wg.Go(func() {
			_, err := in(t, h, func(ctx context.Context, tx pgx.Tx) (string, error) {
				return h.ReverseLines(ctx, tx, entryID, []Line{{Account: clearing, Amount: 200}, {Account: receivable, Amount: -200}}, Entry{Key: key(i)})
			})
			switch {
			case err == nil:
				taken.Add(1)
			case !errors.Is(err, ErrReversed):
				t.Errorf("got %v, want ErrReversed", err)
			}
		})
	}
	wg.Wait()
	if taken.Load() != 2 {
		t.Errorf("taken back %d times 200 of 500, want 2", taken.Load())
	}
	h.wantBalance(t, clearing, 100)
	h.wantSound(t)
}

func TestCorrect(t *testing.T) {
	t.Parallel()
	h := open(t)
	wrong := h.mustPost(t, move("a", 500, clearing, receivable))
	var ids []string
	for range 2 { // the second time is a replay
		right, err := in(t, h, func(ctx context.Context, tx pgx.Tx) (string, error) {
			return h.Correct(ctx, tx, wrong, move("a2", 550, clearing, receivable))
		})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, right)
	}
	if e, err := h.Entry(t.Context(), h.db, ids[0]); err != nil || e.Corrects != wrong || ids[1] != ids[0] {
		t.Errorf("correction %v: %+v, %v", ids, e, err)
	}
	h.wantBalance(t, clearing, 550)
	if _, err := in(t, h, func(ctx context.Context, tx pgx.Tx) (string, error) {
		return h.Correct(ctx, tx, wrong, move("a3", 560, clearing, receivable))
	}); !errors.Is(err, ErrReversed) {
		t.Errorf("a second correction: got %v, want ErrReversed", err)
	}
	h.drain(t)
	h.wantSound(t)
}

// What comes late goes to the next open period, and says so.
func TestLatePosting(t *testing.T) {
	t.Parallel()
	h := open(t)
	set := func(month clock.Date, to ...PeriodState) {
		for _, s := range to {
			h.do(t, func(ctx context.Context, tx pgx.Tx) error { return h.SetPeriod(ctx, tx, month, s) })
		}
	}
	day := func(s string) clock.Date {
		d, err := clock.ParseDate(s)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	set(day("2026-01-01"), PeriodClosing, PeriodClosed)
	set(day("2026-02-01"), PeriodClosing)
	for _, tt := range []struct{ kind, asked, want string }{
		{"payment", "2025-12-24", "2026-03-01"},
		{"payment", "2026-01-31", "2026-03-01"},
		{"payment", "2026-02-15", "2026-03-01"},
		{"adjustment", "2026-02-15", "2026-02-15"},
		{"adjustment", "2026-01-15", "2026-02-01"},
		{"payment", "2026-03-05", "2026-03-05"},
	} {
		e := move(tt.kind+tt.asked, 5, clearing, receivable)
		e.Kind, e.EffectiveOn = tt.kind, day(tt.asked)
		if _, err := h.post(t.Context(), e); (tt.asked != tt.want) != errors.Is(err, ErrPeriodClosed) {
			t.Errorf("%s on %s: got %v without the option", tt.kind, tt.asked, err)
		}
		e.OrNextOpen, e.Key = true, e.Key+"/late"
		late := h.mustPost(t, e)
		got, err := h.Entry(t.Context(), h.db, late)
		want := clock.Date{}
		if tt.asked != tt.want {
			want = day(tt.asked)
		}
		if err != nil || got.EffectiveOn != day(tt.want) || got.AskedOn != want {
			t.Errorf("%s on %s: booked on %s, asked on %s, %v; want %s", tt.kind, tt.asked, got.EffectiveOn, got.AskedOn, err, tt.want)
		}
		set(day("2026-02-01"), PeriodOpen, PeriodClosing)
		if again := h.mustPost(t, e); again != late {
			t.Errorf("replay: got %s, want %s", again, late)
		}
	}
	err := func() error {
		_, err := h.post(t.Context(), Entry{Key: "x", Kind: "x", EffectiveOn: day("2026-01-05"), Lines: move("", 5, clearing, receivable).Lines})
		return err
	}()
	var period *PeriodError
	if !errors.As(err, &period) || period.Month != day("2026-01-01") || period.State != PeriodClosed {
		t.Errorf("got %v, want the closed period", err)
	}
	h.drain(t)
	h.wantSound(t)
}

func TestSetLimit(t *testing.T) {
	t.Parallel()
	h := open(t)
	h.mustPost(t, move("in", 1000, clearing, credits))
	h.hold(t, move("h", 100, credits, clearing), time.Time{})
	set := func(lowest *money.Amount) error {
		return h.try(t.Context(), func(ctx context.Context, tx pgx.Tx) error { return h.SetLimit(ctx, tx, credits, lowest) })
	}
	amount := func(a money.Amount) *money.Amount { return &a }
	if err := set(amount(901)); !errors.Is(err, ErrLimit) {
		t.Errorf("a limit above what is available: got %v, want ErrLimit", err)
	}
	if err := set(amount(900)); err != nil {
		t.Fatal(err)
	}
	if _, err := h.post(t.Context(), move("a", 1, credits, clearing)); !errors.Is(err, ErrLimit) {
		t.Errorf("under the new limit: got %v, want ErrLimit", err)
	}
	if err := set(nil); err != nil {
		t.Fatal(err)
	}
	h.mustPost(t, move("b", 5000, credits, clearing))
	if n := count(t, h.db, `select count(*) from ops.audit where action = 'account.changed' and object_id = $1`, credits); n != 2 {
		t.Errorf("%d audit rows, want 2", n)
	}
	h.wantSound(t)
}

func TestBatches(t *testing.T) {
	t.Parallel()
	h := open(t)
	h.mustPost(t, move("in", 1000, clearing, credits))
	there := h.mustPost(t, move("there", 5, clearing, receivable))
	bad := func(e Entry) Entry { e.Lines[1].Account = "assets:nowhere"; return e }
	closed := move("closed", 5, clearing, receivable)
	closed.EffectiveOn = today.AddDays(-40)
	h.do(t, func(ctx context.Context, tx pgx.Tx) error {
		return h.SetPeriod(ctx, tx, closed.EffectiveOn, PeriodClosing)
	})
	batch := []Entry{
		move("a", 100, clearing, receivable),
		move("there", 5, clearing, receivable),
		move("a", 100, clearing, receivable), // the same again
		move("a", 101, clearing, receivable), // the same key, another amount
		move("there", 6, clearing, receivable),
		bad(move("bad", 5, clearing, receivable)),
		closed,
		move("b", 600, credits, clearing),
		move("c", 600, credits, clearing), // more than there is
		move("d", 400, credits, clearing),
		move("e", 1, clearing, receivable),
	}
	want := []error{nil, nil, nil, ErrConflict, ErrConflict, ErrUnknownAccount, ErrPeriodClosed, nil, ErrLimit, nil, nil}
	results, err := in(t, h, func(ctx context.Context, tx pgx.Tx) ([]Result, error) { return h.AppendEach(ctx, tx, batch) })
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		if !errors.Is(r.Err, want[i]) || (r.Err == nil) != (want[i] == nil) || (r.Err == nil) != (r.ID != "") {
			t.Errorf("entry %d (%s): got %s, %v; want %v", i, batch[i].Key, r.ID, r.Err, want[i])
		}
	}
	if results[1].ID != there || !results[1].Replayed || results[2].ID != results[0].ID || !results[2].Replayed || results[0].Replayed {
		t.Errorf("replays: %+v", results[:3])
	}
	h.wantBalance(t, credits, 0)

	for name, tt := range map[string]struct {
		in   []Entry
		want error
	}{
		"one refused entry": {[]Entry{move("x", 5, clearing, receivable), bad(move("y", 5, clearing, receivable))}, ErrUnknownAccount},
		"a conflict inside": {[]Entry{move("x", 5, clearing, receivable), move("x", 6, clearing, receivable)}, ErrConflict},
		"a conflict across": {[]Entry{move("x", 5, clearing, receivable), move("there", 6, clearing, receivable)}, ErrConflict},
		"a closed period":   {[]Entry{move("x", 5, clearing, receivable), closed}, ErrPeriodClosed},
		"a limit":           {[]Entry{move("x", 5, clearing, receivable), move("y", 5, credits, clearing)}, ErrLimit},
	} {
		if _, err := in(t, h, func(ctx context.Context, tx pgx.Tx) ([]Result, error) { return h.AppendAll(ctx, tx, tt.in) }); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", name, err, tt.want)
		}
		if n := count(t, h.db, `select count(*) from ledger.journal_entry where key in ('x', 'y')`); n != 0 {
			t.Errorf("%s: %d entries stored, want none", name, n)
		}
	}
	// A limit counts after the whole.
	all := []Entry{move("m", 50, credits, clearing), move("n", 50, clearing, credits), closed}
	all[2].OrNextOpen = true
	results, err = in(t, h, func(ctx context.Context, tx pgx.Tx) ([]Result, error) { return h.AppendAll(ctx, tx, all) })
	if err != nil || !results[2].Late || results[2].EffectiveOn != today.AddDays(-36) && results[2].EffectiveOn.Day != 1 {
		t.Errorf("got %+v, %v", results, err)
	}
	if e, err := h.Entry(t.Context(), h.db, results[0].ID); err != nil || e.SourceID != "p-m" {
		t.Errorf("entry of a batch: %+v, %v", e, err)
	}
	h.drain(t)
	h.wantSound(t)
}

// 64 callers share transactions; each has its own answer, also the one who is wrong.
func TestQueue(t *testing.T) {
	t.Parallel()
	h := open(t)
	q := NewQueue(h.Books, h.db)
	ctx, cancel := context.WithCancel(t.Context())
	var running, callers sync.WaitGroup
	running.Go(func() {
		if err := q.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	for c := range 64 {
		callers.Go(func() {
			for i := range 6 {
				e := move(fmt.Sprint(c, "/", i), 5, clearing, receivable)
				var want error
				switch i {
				case 3:
					e = move("shared", 5, clearing, receivable)
				case 4:
					e.Lines[0].Account, want = "assets:none", ErrUnknownAccount
				case 5:
					e, want = move("shared", 6, clearing, receivable), ErrConflict
				}
				r, err := q.Append(ctx, e)
				if !errors.Is(err, want) || (err == nil) != (want == nil) || (err == nil) != (r.ID != "") {
					t.Errorf("caller %d entry %d: got %+v, %v; want %v", c, i, r, err, want)
				}
			}
		})
	}
	callers.Wait()
	cancel()
	running.Wait()
	h.wantBalance(t, clearing, 5*(64*3+1))
	h.drain(t)
	h.wantSound(t)
}
