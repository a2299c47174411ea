package ledger

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
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
	holds   []*modelHold
	state   map[string]State
	lowest  map[string]money.Amount // on the debit side of an asset
	months  [2]PeriodState
	first   [2]clock.Date
	known   []moment
}

// A moment is what the log held at the end of a second.
type moment struct {
	at   time.Time
	size int64
}

type modelEntry struct {
	Entry
	sealed int64 // the size of the log that first held it, zero before
	month  int
	taken  []money.Amount // taken back of each line, with its sign
}

type modelHold struct {
	Entry
	left    []money.Amount // still held of each line
	open    bool
	state   HoldState
	expires time.Time
}

func (h *modelHold) remaining() (lines []Line) {
	for i, l := range h.Lines {
		if l.Amount = h.left[i]; l.Amount != 0 {
			lines = append(lines, l)
		}
	}
	return lines
}

func (m *model) balance(path string, until clock.Date) (sum money.Amount) {
	return m.balanceOf(path, until, func(*modelEntry) bool { return true })
}

func (m *model) balanceOf(path string, until clock.Date, counts func(*modelEntry) bool) (sum money.Amount) {
	for _, e := range m.entries {
		for _, l := range e.Lines {
			if l.Account == path && !e.EffectiveOn.After(until) && counts(e) {
				sum += l.Amount
			}
		}
	}
	return sum
}

// against is what is held against an asset.
func (m *model) against(path string) (sum money.Amount) {
	for _, h := range m.holds {
		for i, l := range h.Lines {
			if l.Account == path && l.Amount < 0 {
				sum -= h.left[i]
			}
		}
	}
	return sum
}

// holding reports whether anything is held on an account.
func (m *model) holding(path string) bool {
	for _, h := range m.holds {
		for i, l := range h.Lines {
			if l.Account == path && h.left[i] != 0 {
				return true
			}
		}
	}
	return false
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

// takes reports whether a month still takes an entry.
func (m *model) takes(month int, kind string) bool {
	return m.months[1] != PeriodClosed && m.months[month] != PeriodClosed && (m.months[month] != PeriodClosing || kind == "adjustment")
}

// verdict is what Append, or Hold, must answer to an entry with a new key.
func (m *model) verdict(e *modelEntry) error {
	if e.month >= 0 && !m.takes(e.month, e.Kind) {
		return ErrPeriodClosed
	}
	for _, l := range e.Lines {
		if m.state[l.Account] != Open {
			return ErrAccountClosed
		}
	}
	for path, lowest := range m.lowest {
		lowers, after := false, m.balance(path, endOfTime)-m.against(path)
		for _, l := range e.Lines {
			if l.Account == path && (l.Amount < 0 || !e.Held) { // what is held in favour is not there yet
				lowers, after = lowers || l.Amount < 0, after+l.Amount
			}
		}
		if lowers && after < lowest {
			return ErrLimit
		}
	}
	return nil
}

// verdictAll is what AppendAll must answer: limits count after the whole.
func (m *model) verdictAll(list []*modelEntry) error {
	whole := &modelEntry{month: -1}
	for _, e := range list {
		if !m.takes(e.month, e.Kind) {
			return ErrPeriodClosed
		}
		whole.Lines = append(whole.Lines, e.Lines...)
	}
	return m.verdict(whole)
}

// begun reports whether something of an entry was taken back.
func (e *modelEntry) begun() bool {
	return slices.ContainsFunc(e.taken, func(a money.Amount) bool { return a != 0 })
}

// late is where an entry goes that may be late: its own date, or the first day of
// the next month that takes it; month 2 is after both.
func (m *model) late(e *modelEntry) {
	month := e.month
	for month < 2 && !m.takes(month, e.Kind) {
		month++
	}
	switch {
	case month == e.month:
	case month < 2:
		e.EffectiveOn, e.AskedOn, e.month = m.first[month], e.EffectiveOn, month
	default:
		e.EffectiveOn, e.AskedOn, e.month = clock.FromTime(m.first[1].Time().AddDate(0, 1, 0)), e.EffectiveOn, -1
	}
}

// seal notes which entries the log has taken in since it was last looked at.
func (m *model) seal(t *testing.T, h house) {
	t.Helper()
	h.clock.t = h.clock.t.Add(2 * time.Second)
	k := moment{h.clock.t, int64(count(t, h.db, `select size from ledger.log_head`))}
	var from int64
	if n := len(m.known); n > 0 {
		from = m.known[n-1].size
	}
	rows, err := h.db.Query(t.Context(), `select entry_id::text from ledger.posting where line = 1 and log_pos >= $1 and log_pos < $2`, from, k.size)
	if err != nil {
		t.Fatal(err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range m.entries {
		if e.sealed == 0 && slices.Contains(ids, e.ID) {
			e.sealed = k.size
		}
	}
	m.known = append(m.known, k)
}

// asOf asks the books for what accounts held by a date, as it was known at a moment, in
// every form, and wants the model's answer. counts are the entries known then.
func (m *model) asOf(t *testing.T, rt *rapid.T, books house, paths []string, at AsOf, counts func(*modelEntry) bool) {
	t.Helper()
	day := at.On
	if day == (clock.Date{}) {
		day = endOfTime
	}
	trial, err := books.TrialBalanceAsOf(t.Context(), books.db, at)
	if err != nil {
		rt.Fatal(err)
	}
	for _, path := range paths {
		want := m.balanceOf(path, day, counts)
		if got, err := books.BalanceAsOf(t.Context(), books.db, path, at); err != nil || got != want {
			rt.Fatalf("balance of %s at %+v: got %s, %v; want %s", path, at, got, err, want)
		}
		var got money.Amount
		if i := slices.IndexFunc(trial, func(l TrialLine) bool { return l.Account.Path == path }); i >= 0 {
			got = trial[i].Balance
		}
		if got != want {
			rt.Fatalf("trial balance of %s at %+v: got %s, want %s", path, at, got, want)
		}
		from := day.AddDays(-rapid.IntRange(0, 40).Draw(rt, "days"))
		opening := m.balanceOf(path, from.AddDays(-1), counts)
		s, err := books.StatementBetween(t.Context(), books.db, StatementQuery{Path: path, From: from, To: at.On, KnownAt: at.KnownAt, Limit: 1000})
		if err != nil || s.Opening != opening || s.Closing != want || len(s.Lines) > 0 && s.Lines[len(s.Lines)-1].Balance != want {
			rt.Fatalf("statement of %s from %s at %+v: %s to %s over %d lines, %v; want %s to %s", path, from, at, s.Opening, s.Closing, len(s.Lines), err, opening, want)
		}
	}
}

// ledgerIDs are the accounts as postings know them: booked, and both sides held.
func ledgerIDs(t *testing.T, h house, paths []string) []int64 {
	t.Helper()
	rows, err := h.db.Query(t.Context(), `select unnest(array[id, -2 * id, -2 * id - 1]) from ledger.account where path = any($1)`, paths)
	if err != nil {
		t.Fatal(err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// chains counts the postings of accounts that are out of number, or whose balance is not
// the sum so far.
const chains = `
select count(*) from (
	select seq, balance_after, row_number() over w as place, sum(amount) over w as total
	from ledger.posting where account_id = any($1) window w as (partition by account_id order by seq)) p
where seq <> place or balance_after <> total`

// Random business against the model: appends, batches, replays, conflicts, holds,
// captures, voids, expiry, reversals whole and in parts, corrections, imports, back dates,
// late postings, freezing and closing, months, limits that change, two instances in turn
// and at once, restarts. After every step the sums are zero, the balances those of the postings
// and of the model, the chains whole; any question about the past has the model's answer. Each
// run has accounts and two months of its own in one database; the whole is verified at the end.
func TestModel(t *testing.T) {
	t.Parallel()
	h := open(t)
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		first := clock.FromTime(time.Date(1900, time.Month(1+3*run), 1, 0, 0, 0, 0, time.UTC))
		second := clock.FromTime(first.Time().AddDate(0, 1, 0))
		if second.Year > 2190 {
			rt.Skip("no months left")
		}
		var paths []string
		m := &model{
			state: map[string]State{}, lowest: map[string]money.Amount{}, months: [2]PeriodState{PeriodOpen, PeriodOpen},
			first: [2]clock.Date{first, second},
		}
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
		ids := ledgerIDs(t, h, paths)
		books := h
		instances := [2]*Books{books.Books, New(h.clock.Now)}
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
				e.ID, e.taken = got, make([]money.Amount, len(e.Lines))
				m.entries = append(m.entries, e)
			}
		}
		// draw makes the lines of an entry.
		draw := func(rt *rapid.T) (lines []Line) {
			var sum money.Amount
			for range rapid.IntRange(1, 4).Draw(rt, "lines") {
				a := money.Amount(rapid.IntRange(1, 300).Draw(rt, "amount"))
				if rapid.Bool().Draw(rt, "credit") {
					a = -a
				}
				sum += a
				lines = append(lines, Line{
					rapid.SampledFrom(paths).Draw(rt, "account"), a,
					Dimensions{Fund: rapid.SampledFrom([]string{"", "a", "b"}).Draw(rt, "fund")},
				})
			}
			if sum == 0 {
				sum = 1
				lines[0].Amount++
			}
			if lines[0].Amount == 0 {
				rt.Skip("a zero line")
			}
			return append(lines, Line{rapid.SampledFrom(paths).Draw(rt, "account"), -sum, Dimensions{}})
		}
		n := 0
		fresh := func(what string) string { n++; return fmt.Sprint(run, "/", what, "/", n) }
		check := func(rt *rapid.T, what string, err, want error) {
			if !errors.Is(err, want) || (err == nil) != (want == nil) {
				rt.Fatalf("%s: got %v, want %v", what, err, want)
			}
		}
		alike := func(a, b Line) bool {
			return a.Account == b.Account && a.Dimensions == b.Dimensions && (a.Amount > 0) == (b.Amount > 0)
		}
		rt.Repeat(map[string]func(*rapid.T){
			"append": func(rt *rapid.T) {
				e := &modelEntry{Entry: Entry{
					Key:  fmt.Sprint(run, "/", rapid.IntRange(0, 30).Draw(rt, "key")),
					Kind: rapid.SampledFrom([]string{"payment", "adjustment"}).Draw(rt, "kind"),
				}}
				e.EffectiveOn, e.month = date(rt)
				e.Lines = draw(rt)
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
			"late": func(rt *rapid.T) {
				e := &modelEntry{Entry: Entry{Key: fresh("late"), Kind: rapid.SampledFrom([]string{"payment", "adjustment"}).Draw(rt, "kind"), Lines: draw(rt), OrNextOpen: true}}
				e.EffectiveOn, e.month = date(rt)
				got, err := books.post(t.Context(), e.Entry)
				m.late(e)
				outcome(rt, e, got, err, m.verdict(e))
				if err == nil {
					have, err := books.Entry(t.Context(), h.db, got)
					if err != nil || have.EffectiveOn != e.EffectiveOn || have.AskedOn != e.AskedOn {
						rt.Fatalf("late: booked on %s, asked on %s, %v; want %s and %s", have.EffectiveOn, have.AskedOn, err, e.EffectiveOn, e.AskedOn)
					}
				}
			},
			"batch": func(rt *rapid.T) {
				var list []*modelEntry
				var batch []Entry
				for range rapid.IntRange(1, 4).Draw(rt, "entries") {
					e := &modelEntry{Entry: Entry{Key: fresh("batch"), Kind: "payment", Lines: draw(rt)}}
					e.EffectiveOn, e.month = date(rt)
					if len(list) > 0 && rapid.IntRange(0, 4).Draw(rt, "again") == 0 {
						e.Entry, e.month = batch[0], list[0].month // the same entry twice in a batch
					}
					list, batch = append(list, e), append(batch, e.Entry)
				}
				results, err := in(t, books, func(ctx context.Context, tx pgx.Tx) ([]Result, error) { return books.AppendEach(ctx, tx, batch) })
				if err != nil {
					rt.Fatal(err)
				}
				// A limit is checked after each part of the batch that stood together: that
				// what was taken is right is all the model can say, one by one.
				for i, e := range list {
					if old := m.find(e.Key); old != nil {
						if results[i].Err != nil || results[i].ID != old.ID || !results[i].Replayed {
							rt.Fatalf("twice in a batch: %+v, want %s", results[i], old.ID)
						}
						continue
					}
					want := m.verdict(e)
					if errors.Is(want, ErrLimit) || errors.Is(results[i].Err, ErrLimit) {
						want = results[i].Err
					}
					outcome(rt, e, results[i].ID, results[i].Err, want)
				}
				for path, lowest := range m.lowest {
					if m.balance(path, endOfTime)-m.against(path) < lowest && !slices.ContainsFunc(results, func(r Result) bool { return r.Err != nil }) {
						lowered := false
						for _, e := range list {
							for _, l := range e.Lines {
								lowered = lowered || l.Account == path && l.Amount < 0
							}
						}
						if lowered {
							rt.Fatalf("a batch broke the limit of %s", path)
						}
					}
				}
			},
			"all or nothing": func(rt *rapid.T) {
				var list []*modelEntry
				var batch []Entry
				for range rapid.IntRange(1, 4).Draw(rt, "entries") {
					e := &modelEntry{Entry: Entry{Key: fresh("all"), Kind: rapid.SampledFrom([]string{"payment", "adjustment"}).Draw(rt, "kind"), Lines: draw(rt)}}
					e.EffectiveOn, e.month = date(rt)
					list, batch = append(list, e), append(batch, e.Entry)
				}
				results, err := in(t, books, func(ctx context.Context, tx pgx.Tx) ([]Result, error) { return books.AppendAll(ctx, tx, batch) })
				want := m.verdictAll(list)
				check(rt, "all or nothing", err, want)
				for i, e := range list {
					if err == nil {
						outcome(rt, e, results[i].ID, nil, nil)
					} else if _, err := books.EntryByKey(t.Context(), h.db, e.Key); !errors.Is(err, ErrNotFound) {
						rt.Fatalf("a part of a refused batch: got %v, want ErrNotFound", err)
					}
				}
			},
			"import": func(rt *rapid.T) {
				var list []*modelEntry
				im := Migration{Name: fresh("import"), Kind: "history"}
				file := "entry,effective_on,account,debit,credit\n"
				for i := range rapid.IntRange(1, 3).Draw(rt, "entries") {
					a := money.Amount(rapid.IntRange(1, 300).Draw(rt, "amount"))
					e := &modelEntry{Entry: Entry{Kind: im.Kind, Lines: []Line{
						{Account: rapid.SampledFrom(paths).Draw(rt, "account"), Amount: a},
						{Account: rapid.SampledFrom(paths).Draw(rt, "account"), Amount: -a},
					}}}
					e.EffectiveOn, e.month = date(rt)
					file += fmt.Sprintf("%[1]d,%[2]s,%[3]s,%[4]s,\n%[1]d,%[2]s,%[5]s,,%[4]s\n", i, e.EffectiveOn, e.Lines[0].Account, a, e.Lines[1].Account)
					im.Entries, im.Debits = im.Entries+1, im.Debits+a
					list = append(list, e)
				}
				bring := func(file string) error {
					return books.try(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
						_, err := books.Import(ctx, tx, im, strings.NewReader(file))
						return err
					})
				}
				err := bring(file)
				check(rt, "import", err, m.verdictAll(list))
				if err != nil {
					return
				}
				check(rt, "the same file again", bring(file), nil)
				check(rt, "another file under the name", bring(file+"\n"), ErrConflict)
				there, err := books.EntriesBySource(t.Context(), h.db, migrated, im.Name, "", 10)
				if err != nil || len(there) != len(list) {
					rt.Fatalf("%d entries imported, %v; want %d", len(there), err, len(list))
				}
				for i, e := range list {
					of := there[slices.IndexFunc(there, func(have Entry) bool { return have.Metadata["entry"] == fmt.Sprint(i) })]
					if of.EffectiveOn != e.EffectiveOn || !reflect.DeepEqual(of.Lines, e.Lines) {
						rt.Fatalf("imported %+v, want %+v", of, e.Entry)
					}
					e.Entry = of
					outcome(rt, e, of.ID, nil, nil)
				}
			},
			"correct": func(rt *rapid.T) {
				if len(m.entries) == 0 {
					rt.Skip()
				}
				of := rapid.SampledFrom(m.entries).Draw(rt, "entry")
				e := &modelEntry{Entry: Entry{Key: fresh("correction"), Kind: "payment", Lines: draw(rt)}}
				e.EffectiveOn, e.month = date(rt)
				back := &modelEntry{Entry: Entry{
					Key: e.Key + "/reversal", Kind: "reversal", EffectiveOn: e.EffectiveOn, Lines: opposite(of.Lines), Reverses: of.ID,
				}, month: e.month}
				got, err := in(t, books, func(ctx context.Context, tx pgx.Tx) (string, error) { return books.Correct(ctx, tx, of.ID, e.Entry) })
				want := m.verdict(back)
				if of.begun() && (want == nil || errors.Is(want, ErrLimit)) {
					want = ErrReversed
				}
				if want == nil {
					m.entries = append(m.entries, back)
					if want = m.verdict(e); want != nil {
						m.entries = m.entries[:len(m.entries)-1] // both or none
					}
				}
				e.Corrects = of.ID
				outcome(rt, e, got, err, want)
				if err != nil {
					return
				}
				reversal, err := books.EntryByKey(t.Context(), h.db, back.Key)
				if err != nil || reversal.Reverses != of.ID {
					rt.Fatalf("the reversal of a correction: %+v, %v", reversal, err)
				}
				back.ID, back.taken = reversal.ID, make([]money.Amount, len(back.Lines))
				for i, l := range of.Lines {
					of.taken[i] = max(l.Amount, -l.Amount)
				}
			},
			"hold": func(rt *rapid.T) {
				e := &modelEntry{Entry: Entry{Key: fresh("hold"), Kind: "hold", Lines: draw(rt), Held: true}}
				e.EffectiveOn, e.month = date(rt)
				var expires time.Time
				if rapid.Bool().Draw(rt, "expires") {
					expires = h.clock.t.Add(time.Duration(rapid.IntRange(0, 20).Draw(rt, "seconds")) * time.Second)
				}
				asked := e.Entry
				asked.Held = false
				got, err := in(t, books, func(ctx context.Context, tx pgx.Tx) (string, error) { return books.Hold(ctx, tx, asked, expires) })
				check(rt, "hold", err, m.verdict(e))
				if err == nil {
					hold := &modelHold{Entry: e.Entry, open: true, state: HoldOpen, expires: expires}
					hold.ID = got
					for _, l := range e.Lines {
						hold.left = append(hold.left, l.Amount)
					}
					m.holds = append(m.holds, hold)
				}
			},
			"capture": func(rt *rapid.T) {
				if len(m.holds) == 0 {
					rt.Skip()
				}
				hold := rapid.SampledFrom(m.holds).Draw(rt, "hold")
				e := &modelEntry{Entry: Entry{Key: fresh("capture"), Kind: "payment", Hold: hold.ID}}
				e.EffectiveOn, e.month = date(rt)
				rest := rapid.SampledFrom([]Rest{ReleaseRest, KeepRest}).Draw(rt, "rest")
				remaining := hold.remaining()
				part := []Line(nil)
				if len(remaining) == 2 && rapid.Bool().Draw(rt, "part") {
					a := money.Amount(rapid.IntRange(1, 300).Draw(rt, "amount"))
					part = slices.Clone(remaining)
					for i := range part {
						part[i].Amount = a * part[i].Amount / max(part[i].Amount, -part[i].Amount)
					}
				}
				asked := e.Entry
				asked.Hold, asked.Lines = "", part
				got, err := in(t, books, func(ctx context.Context, tx pgx.Tx) (string, error) {
					return books.Capture(ctx, tx, hold.ID, asked, rest)
				})
				var want error
				before := slices.Clone(hold.left)
				if e.Lines = part; part == nil {
					e.Lines = remaining
				}
				switch {
				case !hold.open:
					want = ErrHold
				case part != nil && max(part[0].Amount, -part[0].Amount) > max(remaining[0].Amount, -remaining[0].Amount):
					want = ErrHold
				default:
					for i := range hold.left {
						free := hold.left[i]
						if rest == KeepRest && part != nil && free != 0 {
							free = part[0].Amount
							if (free > 0) != (hold.left[i] > 0) {
								free = -free
							}
						}
						hold.left[i] -= free
					}
					want = m.verdict(e)
				}
				if !errors.Is(err, want) || (err == nil) != (want == nil) {
					rt.Fatalf("capture of %v out of %v: got %v, want %v", e.Lines, remaining, err, want)
				}
				if err != nil {
					hold.left = before
					return
				}
				if len(hold.remaining()) == 0 {
					hold.open, hold.state = false, HoldCaptured
				}
				e.ID, e.taken = got, make([]money.Amount, len(e.Lines))
				m.entries = append(m.entries, e)
			},
			"void": func(rt *rapid.T) {
				if len(m.holds) == 0 {
					rt.Skip()
				}
				hold := rapid.SampledFrom(m.holds).Draw(rt, "hold")
				key := fresh("void")
				err := books.try(t.Context(), func(ctx context.Context, tx pgx.Tx) error { return books.Void(ctx, tx, hold.ID, Entry{Key: key}) })
				var want error
				if !hold.open && hold.state != HoldVoided {
					want = ErrHold
				}
				check(rt, "void", err, want)
				if hold.open {
					hold.open, hold.state = false, HoldVoided
					clear(hold.left)
				}
			},
			"expire": func(rt *rapid.T) {
				if _, err := in(t, books, func(ctx context.Context, tx pgx.Tx) (int, error) { return books.ExpireHolds(ctx, tx, 1000) }); err != nil {
					rt.Fatal(err)
				}
				for _, hold := range m.holds {
					if hold.open && !hold.expires.IsZero() && !hold.expires.After(h.clock.t) {
						hold.open, hold.state = false, HoldExpired
						clear(hold.left)
					}
				}
			},
			"take back a part": func(rt *rapid.T) {
				var whole []*modelEntry // of two lines, so that a part balances
				for _, e := range m.entries {
					if len(e.Lines) == 2 && !alike(e.Lines[0], e.Lines[1]) {
						whole = append(whole, e)
					}
				}
				if len(whole) == 0 {
					rt.Skip()
				}
				of := rapid.SampledFrom(whole).Draw(rt, "entry")
				a := money.Amount(rapid.IntRange(1, 300).Draw(rt, "amount"))
				e := &modelEntry{Entry: Entry{Key: fresh("part"), Kind: "reversal", Reverses: of.ID}}
				e.EffectiveOn, e.month = date(rt)
				var part []Line
				enough := true
				for i, l := range of.Lines {
					enough = enough && max(l.Amount, -l.Amount)-of.taken[i] >= a
					if l.Amount = min(a, max(l.Amount, a)); of.Lines[i].Amount < 0 {
						l.Amount = -a
					}
					part = append(part, l)
					l.Amount = -l.Amount
					e.Lines = append(e.Lines, l)
				}
				got, err := in(t, books, func(ctx context.Context, tx pgx.Tx) (string, error) {
					return books.ReverseLines(ctx, tx, of.ID, part, Entry{Key: e.Key, EffectiveOn: e.EffectiveOn})
				})
				want := m.verdict(e)
				if !enough && (want == nil || errors.Is(want, ErrLimit)) {
					want = ErrReversed
				}
				outcome(rt, e, got, err, want)
				if err == nil {
					for i := range of.taken {
						of.taken[i] += a
					}
				}
			},
			"limit": func(rt *rapid.T) {
				lowest := money.Amount(rapid.IntRange(-300, 50).Draw(rt, "lowest"))
				err := books.try(t.Context(), func(ctx context.Context, tx pgx.Tx) error { return books.SetLimit(ctx, tx, paths[0], &lowest) })
				var want error
				switch {
				case m.state[paths[0]] == Closed:
					want = ErrAccountClosed
				case m.balance(paths[0], endOfTime)-m.against(paths[0]) < lowest:
					want = ErrLimit
				}
				check(rt, "limit", err, want)
				if err == nil {
					m.lowest[paths[0]] = lowest
				}
			},
			"replay": func(rt *rapid.T) {
				if len(m.entries) == 0 {
					rt.Skip()
				}
				e := rapid.SampledFrom(m.entries).Draw(rt, "entry")
				if e.Reverses != "" || e.Hold != "" || e.Corrects != "" || e.AskedOn != (clock.Date{}) {
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
				e := &modelEntry{Entry: Entry{Key: fresh("reversal"), Kind: "reversal", Reverses: of.ID}}
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
				if of.begun() && (want == nil || errors.Is(want, ErrLimit)) {
					want = ErrReversed
				}
				outcome(rt, e, got, err, want)
				if err == nil {
					for i, l := range of.Lines {
						of.taken[i] = max(l.Amount, -l.Amount)
					}
				}
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
				case to == Closed && (m.balance(path, endOfTime) != 0 || m.holding(path)):
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
				m.seal(t, h)
			},
			"both post at once, one appends": func(rt *rapid.T) {
				e := &modelEntry{Entry: Entry{Key: fresh("beside"), Kind: "payment", Lines: draw(rt)}}
				e.EffectiveOn, e.month = date(rt)
				var wg sync.WaitGroup
				var failed [2]error
				for i, p := range posters {
					wg.Go(func() { _, failed[i] = p.take(t.Context(), false) })
				}
				got, err := books.post(t.Context(), e.Entry)
				wg.Wait()
				for i, err := range failed {
					if err != nil && !errors.Is(err, errStandby) {
						rt.Fatalf("poster %d: %v", i, err)
					}
				}
				outcome(rt, e, got, err, m.verdict(e))
				m.seal(t, h)
			},
			"another instance": func(rt *rapid.T) { books.Books = instances[rapid.IntRange(0, 1).Draw(rt, "instance")] },
			"restart": func(rt *rapid.T) {
				i := rapid.IntRange(0, 1).Draw(rt, "instance")
				instances[i], posters[i] = New(h.clock.Now), h.poster(PosterOptions{Batch: 3})
				books.Books = instances[i]
			},
			"as of and as known at": func(rt *rapid.T) {
				at := AsOf{}
				if rapid.Bool().Draw(rt, "dated") {
					at.On, _ = date(rt)
				}
				counts := func(*modelEntry) bool { return true }
				if len(m.known) > 0 && rapid.Bool().Draw(rt, "known") {
					k := rapid.SampledFrom(m.known).Draw(rt, "moment")
					at.KnownAt = k.at
					counts = func(e *modelEntry) bool { return e.sealed > 0 && e.sealed <= k.size }
				}
				m.asOf(t, rt, books, paths, at, counts)
			},
			"": func(rt *rapid.T) {
				if broken := count(t, h.db, chains, ids); broken != 0 {
					rt.Fatalf("%d postings out of number or with another balance than their sum", broken)
				}
				if sum := count(t, h.db, `select coalesce(sum(ledger.balance_now(id)), 0) from unnest($1::bigint[]) id where id > 0`, ids); sum != 0 {
					rt.Fatalf("all balances sum to %d", sum)
				}
				for _, path := range paths {
					if got, err := books.Balance(t.Context(), h.db, path); err != nil || got != m.balance(path, endOfTime) {
						rt.Fatalf("balance of %s: got %s, %v; want %s", path, got, err, m.balance(path, endOfTime))
					}
					if got, err := books.Available(t.Context(), h.db, path); err != nil || got != m.balance(path, endOfTime)-m.against(path) {
						rt.Fatalf("available on %s: got %s, %v; want %s", path, got, err, m.balance(path, endOfTime)-m.against(path))
					}
				}
			},
		})

		for _, hold := range m.holds {
			have, err := books.HoldOf(t.Context(), h.db, hold.ID)
			if err != nil || have.State != hold.state || (len(have.Remaining) > 0) != hold.open {
				rt.Fatalf("hold %v: got %s with %v, %v; want %s", hold.Lines, have.State, have.Remaining, err, hold.state)
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
