package ledger

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"guichet/internal/clock"
	"guichet/internal/money"
)

// A model is the books in plain Go: what the real ones must say after every step.
type model struct {
	entries []*modelEntry
	state   map[string]State
	lowest  map[string]money.Amount // on the debit side of an asset
	months  [2]PeriodState
}

type modelEntry struct {
	Entry
	month    int
	reversed bool
}

func (m *model) balance(path string, until clock.Date) (sum money.Amount) {
	for _, e := range m.entries {
		for _, l := range e.Lines {
			if l.Account == path && !e.EffectiveOn.After(until) {
				sum += l.Amount
			}
		}
	}
	return sum
}

func (m *model) find(key string) *modelEntry {
	for _, e := range m.entries {
		if e.Key == key {
			return e
		}
	}
	return nil
}

var endOfTime = clock.Date{Year: 2199, Month: time.December, Day: 31}

// verdict is what Append must answer to an entry with a new key.
func (m *model) verdict(e *modelEntry) error {
	switch {
	case m.months[1] == PeriodClosed, m.months[e.month] == PeriodClosed,
		m.months[e.month] == PeriodClosing && e.Kind != "adjustment":
		return ErrPeriodClosed
	}
	for _, l := range e.Lines {
		if m.state[l.Account] != Open {
			return ErrAccountClosed
		}
	}
	for path, lowest := range m.lowest {
		lowers, after := false, m.balance(path, endOfTime)
		for _, l := range e.Lines {
			if l.Account == path {
				lowers, after = lowers || l.Amount < 0, after+l.Amount
			}
		}
		if lowers && after < lowest {
			return ErrLimit
		}
	}
	return nil
}

// Random business against the model: appends, replays, conflicts, reversals, back
// dates, freezing and closing, months, limits, two posters in turn, restarts. Each
// run has accounts and two months of its own in one database; the whole is
// verified at the end.
func TestModel(t *testing.T) {
	t.Parallel()
	h := open(t)
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		first := clock.FromTime(time.Date(1900, time.Month(1+2*run), 1, 0, 0, 0, 0, time.UTC))
		second := clock.FromTime(first.Time().AddDate(0, 1, 0))
		if second.Year > 2190 {
			rt.Skip("no months left")
		}
		var paths []string
		m := &model{state: map[string]State{}, lowest: map[string]money.Amount{}, months: [2]PeriodState{PeriodOpen, PeriodOpen}}
		floor := money.Amount(-200)
		for i := range 4 {
			a := Account{Path: fmt.Sprintf("assets:run-%d:%d", run, i), NameEN: "Model", NameFR: "Modèle"}
			if i == 0 {
				a.Lowest, m.lowest[a.Path] = &floor, floor
			}
			paths, m.state[a.Path] = append(paths, a.Path), Open
			if err := h.try(t.Context(), func(ctx context.Context, tx pgx.Tx) error { return h.OpenAccount(ctx, tx, a) }); err != nil {
				rt.Fatal(err)
			}
		}
		books := h
		posters := [2]*Poster{h.poster(PosterOptions{Batch: 3}), h.poster(PosterOptions{Batch: 3})}

		date := func(rt *rapid.T) (clock.Date, int) {
			month := rapid.IntRange(0, 1).Draw(rt, "month")
			return [2]clock.Date{first, second}[month].AddDays(rapid.IntRange(0, 27).Draw(rt, "day")), month
		}
		// outcome compares the answer to a new entry with the model's and records it there.
		outcome := func(rt *rapid.T, e *modelEntry, got string, err, want error) {
			if !errors.Is(err, want) || (err == nil) != (want == nil) {
				rt.Fatalf("append %+v: got %v, want %v", e.Entry, err, want)
			}
			if err == nil {
				e.ID = got
				m.entries = append(m.entries, e)
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"append": func(rt *rapid.T) {
				e := &modelEntry{Entry: Entry{
					Key:  fmt.Sprint(run, "/", rapid.IntRange(0, 30).Draw(rt, "key")),
					Kind: rapid.SampledFrom([]string{"payment", "adjustment"}).Draw(rt, "kind"),
				}}
				e.EffectiveOn, e.month = date(rt)
				var sum money.Amount
				for range rapid.IntRange(1, 4).Draw(rt, "lines") {
					a := money.Amount(rapid.IntRange(1, 300).Draw(rt, "amount"))
					if rapid.Bool().Draw(rt, "credit") {
						a = -a
					}
					sum += a
					e.Lines = append(e.Lines, Line{
						rapid.SampledFrom(paths).Draw(rt, "account"), a,
						Dimensions{Fund: rapid.SampledFrom([]string{"", "a", "b"}).Draw(rt, "fund")},
					})
				}
				if sum == 0 {
					sum = 1
					e.Lines[0].Amount++
				}
				if e.Lines[0].Amount == 0 {
					rt.Skip("a zero line")
				}
				e.Lines = append(e.Lines, Line{rapid.SampledFrom(paths).Draw(rt, "account"), -sum, Dimensions{}})
				got, err := books.post(t.Context(), e.Entry)
				if old := m.find(e.Key); old != nil {
					same := old.Kind == e.Kind && old.EffectiveOn == e.EffectiveOn && reflect.DeepEqual(old.Lines, e.Lines)
					if same && (err != nil || got != old.ID) || !same && !errors.Is(err, ErrConflict) {
						rt.Fatalf("replay (same: %v): got %s, %v", same, got, err)
					}
					return
				}
				outcome(rt, e, got, err, m.verdict(e))
			},
			"replay": func(rt *rapid.T) {
				if len(m.entries) == 0 {
					rt.Skip()
				}
				e := rapid.SampledFrom(m.entries).Draw(rt, "entry")
				if e.Reverses != "" {
					rt.Skip()
				}
				again := e.Entry
				if got, err := books.post(t.Context(), again); err != nil || got != e.ID {
					rt.Fatalf("replay: got %s, %v; want %s", got, err, e.ID)
				}
				again.Description = "other"
				if _, err := books.post(t.Context(), again); !errors.Is(err, ErrConflict) {
					rt.Fatalf("replay with other content: got %v, want ErrConflict", err)
				}
			},
			"reverse": func(rt *rapid.T) {
				if len(m.entries) == 0 {
					rt.Skip()
				}
				of := rapid.SampledFrom(m.entries).Draw(rt, "entry")
				e := &modelEntry{Entry: Entry{Key: fmt.Sprint(run, "/reversal/", len(m.entries)), Kind: "reversal", Reverses: of.ID}}
				e.EffectiveOn, e.month = date(rt)
				for _, l := range of.Lines {
					e.Lines = append(e.Lines, Line{l.Account, -l.Amount, l.Dimensions})
				}
				var got string
				err := books.try(t.Context(), func(ctx context.Context, tx pgx.Tx) (err error) {
					got, err = books.Reverse(ctx, tx, of.ID, Entry{Key: e.Key, EffectiveOn: e.EffectiveOn})
					return err
				})
				want := m.verdict(e)
				if of.reversed && (want == nil || errors.Is(want, ErrLimit)) {
					want = ErrReversed
				}
				outcome(rt, e, got, err, want)
				of.reversed = of.reversed || err == nil
			},
			"account": func(rt *rapid.T) {
				path := rapid.SampledFrom(paths).Draw(rt, "account")
				to := rapid.SampledFrom([]State{Open, Open, Frozen, Closed}).Draw(rt, "state")
				err := books.try(t.Context(), func(ctx context.Context, tx pgx.Tx) error { return books.SetAccountState(ctx, tx, path, to) })
				var want error
				switch {
				case m.state[path] == to:
				case m.state[path] == Closed:
					want = ErrAccountClosed
				case to == Closed && m.balance(path, endOfTime) != 0:
					want = ErrInvalid
				}
				if !errors.Is(err, want) || (err == nil) != (want == nil) {
					rt.Fatalf("%s from %s to %s: got %v, want %v", path, m.state[path], to, err, want)
				}
				if err == nil {
					m.state[path] = to
				}
			},
			"period": func(rt *rapid.T) {
				i := rapid.IntRange(0, 1).Draw(rt, "month")
				to := rapid.SampledFrom([]PeriodState{PeriodOpen, PeriodOpen, PeriodClosing, PeriodClosed}).Draw(rt, "state")
				err := books.try(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
					return books.SetPeriod(ctx, tx, [2]clock.Date{first, second}[i], to)
				})
				var want error
				switch {
				case m.months[i] == to:
				case m.months[i] == PeriodClosed:
					want = ErrPeriodClosed
				case to == PeriodClosed && m.months[i] != PeriodClosing:
					want = ErrInvalid
				}
				if !errors.Is(err, want) || (err == nil) != (want == nil) {
					rt.Fatalf("month %d from %s to %s: got %v, want %v", i, m.months[i], to, err, want)
				}
				if err == nil {
					m.months[i] = to
				}
			},
			"post": func(rt *rapid.T) {
				p := posters[rapid.IntRange(0, 1).Draw(rt, "poster")]
				if _, err := p.take(t.Context(), false); err != nil {
					rt.Fatal(err)
				}
			},
			"restart": func(rt *rapid.T) {
				books.Books = New(h.clock.Now)
				posters[rapid.IntRange(0, 1).Draw(rt, "poster")] = h.poster(PosterOptions{Batch: 3})
			},
			"": func(rt *rapid.T) {
				for _, path := range paths {
					if got, err := books.Balance(t.Context(), h.db, path); err != nil || got != m.balance(path, endOfTime) {
						rt.Fatalf("balance of %s: got %s, %v; want %s", path, got, err, m.balance(path, endOfTime))
					}
				}
			},
		})

		asOf, _ := date(rt)
		for _, day := range []clock.Date{asOf, endOfTime} {
			trial, err := books.TrialBalance(t.Context(), h.db, day)
			if err != nil {
				rt.Fatal(err)
			}
			for _, path := range paths {
				var got money.Amount
				if i := slices.IndexFunc(trial, func(l TrialLine) bool { return l.Account.Path == path }); i >= 0 {
					got = trial[i].Balance
				}
				if want := m.balance(path, day); got != want {
					rt.Fatalf("trial balance of %s as of %s: got %s, want %s", path, day, got, want)
				}
			}
		}
		for _, path := range paths {
			s, err := books.Statement(t.Context(), h.db, path, 0, 1000)
			if err != nil {
				rt.Fatal(err)
			}
			var sum money.Amount
			for i := range s.Lines {
				l := s.Lines[len(s.Lines)-1-i]
				if sum += l.Amount; l.Balance != sum {
					rt.Fatalf("statement of %s: balance %s after lines of %s", path, l.Balance, sum)
				}
			}
			if want := m.balance(path, endOfTime); sum != want {
				rt.Fatalf("statement of %s: sums to %s, want %s", path, sum, want)
			}
		}
	})
	h.wantSound(t)
	h.drain(t)
	h.wantSound(t)
}
