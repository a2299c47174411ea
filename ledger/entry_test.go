package ledger

import (
	"context"
	"errors"
	"maps"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/clock"
	"guichet/internal/id"
	"guichet/internal/money"
	"guichet/internal/testdb"
)

func TestAppend(t *testing.T) {
	t.Parallel()
	h := open(t)
	with := func(change func(*Entry)) Entry {
		e := move("a", 500, clearing, receivable)
		e.Metadata = map[string]string{"a": "1"}
		change(&e)
		return e
	}
	same := with(func(e *Entry) {})
	tests := []struct {
		name string
		in   []Entry
		want error // of the last one
		rows int
	}{
		{"a balanced entry is stored once", []Entry{same}, nil, 1},
		{"same key and content is stored once", []Entry{same, same}, nil, 1},
		{"another actor and channel is the same content", []Entry{same, with(func(e *Entry) { e.Actor, e.Channel = "poller", "batch" })}, nil, 1},
		{"same key with another amount is refused", []Entry{same, move("a", 501, clearing, receivable)}, ErrConflict, 1},
		{"same key with another date is refused", []Entry{same, with(func(e *Entry) { e.EffectiveOn = today.AddDays(-1) })}, ErrConflict, 1},
		{"same key with another description is refused", []Entry{same, with(func(e *Entry) { e.Description = "x" })}, ErrConflict, 1},
		{"same key with other metadata is refused", []Entry{same, with(func(e *Entry) { e.Metadata = nil })}, ErrConflict, 1},
		{"same key with other dimensions is refused", []Entry{same, with(func(e *Entry) { e.Lines[0].Dimensions.Fund = "010" })}, ErrConflict, 1},
		{"one cent off is refused", []Entry{with(func(e *Entry) { e.Lines[1].Amount++ })}, ErrUnbalanced, 0},
		{"one line is refused", []Entry{with(func(e *Entry) { e.Lines = e.Lines[:1] })}, ErrInvalid, 0},
		{"a zero line is refused", []Entry{with(func(e *Entry) { e.Lines = append(e.Lines, Line{Account: fines}) })}, ErrInvalid, 0},
		{"an amount beyond a trillion dollars is refused", []Entry{move("a", maxAmount+1, clearing, receivable)}, ErrInvalid, 0},
		{"an unknown account is refused", []Entry{move("a", 5, clearing, "assets:nowhere")}, ErrUnknownAccount, 0},
		{"a path with a NUL is an unknown account", []Entry{move("a", 5, clearing, "assets:\x00")}, ErrUnknownAccount, 0},
		{"foreign currency is refused", []Entry{with(func(e *Entry) { e.Currency = "USD" })}, ErrCurrency, 0},
		{"an empty key is refused", []Entry{with(func(e *Entry) { e.Key = "" })}, ErrInvalid, 0},
		{"a NUL in text is refused", []Entry{with(func(e *Entry) { e.Description = "a\x00b" })}, ErrInvalid, 0},
		{"text that is not UTF-8 is refused", []Entry{with(func(e *Entry) { e.Metadata["a"] = "\xff" })}, ErrInvalid, 0},
		{"long text is refused", []Entry{with(func(e *Entry) { e.Description = strings.Repeat("x", maxText+1) })}, ErrInvalid, 0},
		{"a year before any books is refused", []Entry{with(func(e *Entry) { e.EffectiveOn.Year = 1899 })}, ErrInvalid, 0},
		{"a reversal does not come through Append", []Entry{with(func(e *Entry) { e.Reverses = id.New() })}, ErrInvalid, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			// Keys are one per case: the cases share a database.
			prefix := id.New()
			var first string
			for i, e := range tt.in {
				if e.Key != "" {
					e.Key = prefix + e.Key
				}
				e.Metadata = maps.Clone(e.Metadata)
				entryID, err := h.post(t.Context(), e)
				switch {
				case i < len(tt.in)-1:
					if err != nil {
						t.Fatal(err)
					}
					first = entryID
				case !errors.Is(err, tt.want):
					t.Fatalf("got %v, want %v", err, tt.want)
				case err == nil && first != "" && entryID != first:
					t.Errorf("replay returned %s, want the first id %s", entryID, first)
				}
			}
			if n := count(t, h.db, `select count(*) from ledger.journal_entry where key like $1 || '%'`, prefix); n != tt.rows {
				t.Errorf("%d entries stored, want %d", n, tt.rows)
			}
		})
	}
}

func TestAppendKeepsEveryField(t *testing.T) {
	t.Parallel()
	h := open(t)
	h.clock.t = time.Date(2026, time.July, 1, 3, 30, 0, 123456789, time.UTC) // still 30 June in Toronto
	want := Entry{
		Key: "bill/é/1", Kind: "bill", SourceType: "bill", SourceID: "b1", Actor: "staff:7", Channel: "counter",
		Description: "two\nlines, \"quoted\"; tab\t", Metadata: map[string]string{"notice": "7K3M", "é": ""},
		Lines: []Line{
			{receivable, 1000, Dimensions{Department: "parking", Fund: "f", CostCentre: "cc", Order: "o", WBS: "w", Channel: "web", Tender: "card"}},
			{fines, -700, Dimensions{Department: "parking"}},
			{fines, -300, Dimensions{}},
		},
	}
	entryID := h.mustPost(t, want)
	want.ID, want.Currency = entryID, money.CAD
	want.EffectiveOn = clock.Date{Year: 2026, Month: time.June, Day: 30}
	want.RecordedAt = h.clock.t.Truncate(time.Microsecond)
	for name, read := range map[string]func() (Entry, error){
		"by id":  func() (Entry, error) { return h.Entry(t.Context(), h.db, entryID) },
		"by key": func() (Entry, error) { return h.EntryByKey(t.Context(), h.db, want.Key) },
		"by source": func() (Entry, error) {
			list, err := h.EntriesBySource(t.Context(), h.db, "bill", "b1", "", 10)
			return append(list, Entry{})[0], err
		},
	} {
		got, err := read()
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v\nwant %+v", name, got, err, want)
		}
	}
	if _, err := h.Entry(t.Context(), h.db, id.New()); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown id: got %v, want ErrNotFound", err)
	}
	if _, err := h.Entry(t.Context(), h.db, "'; drop"); !errors.Is(err, ErrNotFound) {
		t.Errorf("an id that is none: got %v, want ErrNotFound", err)
	}
	if _, err := h.EntryByKey(t.Context(), h.db, "no"); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown key: got %v, want ErrNotFound", err)
	}
}

func TestAppendWithoutADateIsReplayedAfterMidnight(t *testing.T) {
	t.Parallel()
	h := open(t)
	e := move("a", 5, clearing, receivable)
	e.EffectiveOn = clock.Date{}
	first := h.mustPost(t, e)
	h.clock.t = h.clock.t.AddDate(0, 0, 1)
	if again := h.mustPost(t, e); again != first {
		t.Errorf("got entry %s, want the first one %s", again, first)
	}
}

func TestAppendInTheSameTransaction(t *testing.T) {
	t.Parallel()
	h := open(t)
	var first, second string
	h.do(t, func(ctx context.Context, tx pgx.Tx) (err error) {
		if first, err = h.Append(ctx, tx, move("a", 5, clearing, receivable)); err != nil {
			return err
		}
		second, err = h.Append(ctx, tx, move("a", 5, clearing, receivable))
		return err
	})
	if first != second {
		t.Errorf("got %s and %s, want one entry", first, second)
	}
	h.wantBalance(t, clearing, 5)
}

// A refusal found in Go leaves the caller's transaction usable.
func TestRefusalsThatLeaveTheTransactionUsable(t *testing.T) {
	t.Parallel()
	h := open(t)
	h.do(t, func(ctx context.Context, tx pgx.Tx) error {
		for _, e := range []Entry{move("a", 0, clearing, receivable), move("a", 1, "assets:none", receivable)} {
			if _, err := h.Append(ctx, tx, e); err == nil {
				t.Errorf("%+v was taken", e)
			}
		}
		if _, err := h.Append(ctx, tx, move("a", 1, clearing, receivable)); err != nil {
			return err
		}
		_, err := h.Append(ctx, tx, move("a", 2, clearing, receivable))
		if !errors.Is(err, ErrConflict) {
			t.Errorf("got %v, want ErrConflict", err)
		}
		return nil
	})
	h.wantBalance(t, clearing, 1)
}

func TestAppendWantsReadCommitted(t *testing.T) {
	t.Parallel()
	h := open(t)
	err := pgx.BeginTxFunc(t.Context(), h.db, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) error {
		_, err := h.Append(t.Context(), tx, move("a", 1, clearing, receivable))
		return err
	})
	if !errors.Is(err, ErrInvalid) {
		t.Errorf("got %v, want ErrInvalid", err)
	}
}

func TestReverse(t *testing.T) {
	t.Parallel()
	h := open(t)
	e := move("a", 500, clearing, receivable)
	e.Lines[0].Dimensions = Dimensions{Department: "parking", Tender: "card"}
	entryID := h.mustPost(t, e)
	reverse := func(of string, r Entry) (reversal string, err error) {
		err = h.try(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
			reversal, err = h.Reverse(ctx, tx, of, r)
			return err
		})
		return reversal, err
	}
	how := Entry{Key: "a/reversed", EffectiveOn: today.AddDays(1), Actor: "staff:1", Description: "paid twice"}
	reversal, err := reverse(entryID, how)
	if err != nil {
		t.Fatal(err)
	}
	got, err := h.Entry(t.Context(), h.db, reversal)
	if err != nil {
		t.Fatal(err)
	}
	want := []Line{{clearing, -500, e.Lines[0].Dimensions}, {receivable, 500, Dimensions{}}}
	if got.Reverses != entryID || got.Kind != "reversal" || got.SourceID != e.SourceID || !reflect.DeepEqual(got.Lines, want) {
		t.Errorf("got %+v", got)
	}
	h.wantBalance(t, clearing, 0)
	if again, err := reverse(entryID, how); err != nil || again != reversal {
		t.Errorf("replay: got %s, %v; want %s", again, err, reversal)
	}
	if _, err := reverse(entryID, Entry{Key: "another"}); !errors.Is(err, ErrReversed) {
		t.Errorf("second reversal: got %v, want ErrReversed", err)
	}
	if _, err := reverse(id.New(), Entry{Key: "unknown"}); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown entry: got %v, want ErrNotFound", err)
	}
}

// The database refuses by itself what Go refuses first.
func TestJournalRefusesBySQL(t *testing.T) {
	t.Parallel()
	h := open(t)
	h.mustPost(t, move("a", 5, clearing, receivable))
	owner := testdb.Owner(t, h.db)
	insert := func(accounts, amounts, dimensions string) error {
		_, err := owner.Exec(t.Context(), `insert into ledger.journal_entry (id, key, kind, effective_on, recorded_at, currency, accounts, amounts, dimensions,
			source_type, source_id, actor, channel, description, metadata, body_hash, leaf)
			select gen_random_uuid(), gen_random_uuid()::text, kind, effective_on, recorded_at, currency, $1::text::bigint[], $2::text::bigint[], $3::text::bigint[],
			source_type, source_id, actor, channel, description, metadata, body_hash, leaf from ledger.journal_entry limit 1`, accounts, amounts, dimensions)
		return refused(err)
	}
	if err := insert("{1,2}", "{5,-5}", "{1,1}"); err != nil {
		t.Fatalf("a balanced entry: %v", err)
	}
	for _, tt := range []struct {
		name, accounts, amounts, dimensions string
		want                                error
	}{
		{"one cent off", "{1,2}", "{5,-4}", "{1,1}", ErrUnbalanced},
		{"a zero", "{1,2,3}", "{5,-5,0}", "{1,1,1}", ErrUnbalanced},
		{"a null amount", "{1,2,3}", "{5,-5,null}", "{1,1,1}", ErrUnbalanced},
		{"a null account", "{1,null}", "{5,-5}", "{1,1}", ErrUnknownAccount},
		{"no lines", "{}", "{}", "{}", ErrUnbalanced},
		{"fewer accounts", "{1}", "{5,-5}", "{1,1}", ErrUnbalanced},
		{"fewer dimensions", "{1,2}", "{5,-5}", "{1}", ErrUnbalanced},
		{"two dimensions of array", "{{1,2},{1,2}}", "{{5,-5},{5,-5}}", "{{1,1},{1,1}}", ErrUnbalanced},
		{"an array from zero", "[0:1]={1,2}", "[0:1]={5,-5}", "[0:1]={1,1}", ErrUnbalanced},
		{"a sum that leaves 64 bits", "{1,2}", "{9223372036854775807,9223372036854775807}", "{1,1}", ErrUnbalanced},
		{"an unknown account", "{1,99}", "{5,-5}", "{1,1}", ErrUnknownAccount},
		{"an unknown dimension", "{1,2}", "{5,-5}", "{1,99}", ErrUnknownAccount},
	} {
		if err := insert(tt.accounts, tt.amounts, tt.dimensions); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
}

// What a rolled-back transaction made must not stay in the memory of the books.
func TestCacheForgetsWhatWasRolledBack(t *testing.T) {
	t.Parallel()
	h := open(t)
	again := errors.New("roll back")
	account := Account{Path: "assets:new", NameEN: "New", NameFR: "Nouveau"}
	e := move("a", 5, "assets:new", receivable)
	e.Lines[0].Dimensions.Fund = "new"
	for name, begin := range map[string]func(func(context.Context, pgx.Tx) error) error{
		"transaction": func(f func(context.Context, pgx.Tx) error) error { return h.try(t.Context(), f) },
		"savepoint": func(f func(context.Context, pgx.Tx) error) error {
			return h.try(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
				return pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error { return f(ctx, tx) })
			})
		},
	} {
		err := begin(func(ctx context.Context, tx pgx.Tx) error {
			if err := h.OpenAccount(ctx, tx, account); err != nil {
				return err
			}
			if _, err := h.Append(ctx, tx, e); err != nil {
				return err
			}
			return again
		})
		if !errors.Is(err, again) {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := h.post(t.Context(), e); !errors.Is(err, ErrUnknownAccount) {
			t.Errorf("%s: append after rollback: got %v, want ErrUnknownAccount", name, err)
		}
	}
	h.do(t, func(ctx context.Context, tx pgx.Tx) error { return h.OpenAccount(ctx, tx, account) })
	h.mustPost(t, e)
	h.wantBalance(t, "assets:new", 5)
	if _, ok := h.dimensions[e.Lines[0].Dimensions]; ok {
		t.Error("the dimension made by our own transaction is in the cache")
	}
	h.mustPost(t, e)
	if h.accounts["assets:new"] == 0 || h.dimensions[e.Lines[0].Dimensions] == 0 {
		t.Error("committed ids are not in the cache")
	}
}

func TestOpenAccount(t *testing.T) {
	t.Parallel()
	h := open(t)
	limit := money.Amount(-500)
	till := Account{Path: "assets:till:1", NameEN: "Till 1", NameFR: "Caisse 1", Lowest: &limit}
	for _, tt := range []struct {
		name   string
		change func(*Account)
		want   error
	}{
		{"new", func(*Account) {}, nil},
		{"again with the same content", func(a *Account) { l := *a.Lowest; a.Lowest, a.Type, a.Currency = &l, Asset, money.CAD }, nil},
		{"another name", func(a *Account) { a.NameFR = "x" }, ErrConflict},
		{"another limit", func(a *Account) { l := money.Amount(0); a.Lowest = &l }, ErrConflict},
		{"no limit", func(a *Account) { a.Lowest = nil }, ErrConflict},
		{"another side", func(a *Account) { a.Normal = Credit }, ErrConflict},
		{"a type against its root", func(a *Account) { a.Type = Expense }, ErrInvalid},
		{"an upper-case path", func(a *Account) { a.Path = "assets:Till" }, ErrInvalid},
		{"a root alone", func(a *Account) { a.Path = "assets" }, ErrInvalid},
		{"an unknown root", func(a *Account) { a.Path = "cash:1" }, ErrInvalid},
		{"a part that starts with a dash", func(a *Account) { a.Path = "assets:-1" }, ErrInvalid},
		{"no French name", func(a *Account) { a.Path, a.NameFR = "assets:x", "" }, ErrInvalid},
		{"born closed", func(a *Account) { a.Path, a.State = "assets:x", Closed }, ErrInvalid},
	} {
		a := till
		tt.change(&a)
		if err := h.try(t.Context(), func(ctx context.Context, tx pgx.Tx) error { return h.OpenAccount(ctx, tx, a) }); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
	got, err := h.Accounts(t.Context(), h.db, "assets:receivable:parking", 2)
	if err != nil || len(got) != 2 || got[0].Path != "assets:till:1" || got[0].Normal != Debit || got[1].Path != credits || got[1].Type != Liability {
		t.Errorf("list: got %+v, %v", got, err)
	}
}
