package ledger

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/clock"
	"guichet/internal/id"
	"guichet/internal/money"
	"guichet/internal/testdb"
)

func TestSearchEntries(t *testing.T) {
	t.Parallel()
	h := open(t)
	start := h.clock.t
	old := move("old", 999, clearing, fines)
	old.EffectiveOn = today.AddDays(-200)
	h.clock.t = start.AddDate(0, 0, -200)
	h.mustPost(t, old)
	h.clock.t = start
	first := h.mustPost(t, move("first", 1000, clearing, fines))
	h.drain(t)
	h.clock.t = start.Add(time.Minute)
	second := move("second", 2500, clearing, receivable)
	second.Kind, second.Channel, second.Actor, second.Description = "adjustment", "counter", "staff:7", "Towed car, appeal WON"
	second.Lines[1].Dimensions.Department = "parking"
	second.EffectiveOn = today.AddDays(-40)
	secondID := h.mustPost(t, second)
	h.clock.t = start.Add(2 * time.Minute)
	holdID := h.hold(t, move("held", 3000, clearing, fines), time.Time{})
	find := func(s EntrySearch) []string {
		t.Helper()
		if s.Limit == 0 {
			s.Limit = 10
		}
		found, err := h.SearchEntries(t.Context(), h.db, s)
		if err != nil {
			t.Fatalf("%+v: %v", s, err)
		}
		keys := []string{}
		for _, e := range found.Entries {
			keys = append(keys, e.Key)
		}
		return keys
	}
	for _, tt := range []struct {
		name string
		s    EntrySearch
		want string
	}{
		{"the last 31 days, newest first", EntrySearch{}, "held second first"},
		{"by id, whenever", EntrySearch{ID: first}, "first"},
		{"by key, whenever", EntrySearch{Key: "old"}, "old"},
		{"by source, whenever", EntrySearch{SourceType: "payment", SourceID: "p-old"}, "old"},
		{"by source and what it was not", EntrySearch{SourceType: "payment", SourceID: "p-old", Kind: "adjustment"}, ""},
		{"by kind", EntrySearch{Kind: "adjustment"}, "second"},
		{"by actor and channel", EntrySearch{Actor: "staff:7", Channel: "counter"}, "second"},
		{"by words, in any order and case", EntrySearch{Words: "won TOWED"}, "second"},
		{"all words must be there", EntrySearch{Words: "won lost"}, ""},
		{"a word is not a pattern", EntrySearch{Words: "%"}, ""},
		{"by department", EntrySearch{Department: "parking"}, "second"},
		{"by account, booked and held", EntrySearch{Account: fines}, "held first"},
		{"by account and accounting date", EntrySearch{Account: clearing, EffectiveFrom: today.AddDays(-300), EffectiveTo: today.AddDays(-30)}, "second old"},
		{"by accounting date of all", EntrySearch{EffectiveFrom: today.AddDays(-41), EffectiveTo: today.AddDays(-39)}, "second"},
		{"exact amount", EntrySearch{AmountFrom: 2500}, "second"},
		{"range of amounts", EntrySearch{AmountFrom: 1000, AmountTo: 2500}, "second first"},
		{"amount on an account", EntrySearch{AmountFrom: 2500, Account: fines}, ""},
		{"held amount on an account", EntrySearch{AmountFrom: 3000, Account: fines}, "held"},
		{"recorded then", EntrySearch{RecordedTo: today.AddDays(-190)}, "old"},
		{"an open end is today", EntrySearch{RecordedFrom: today}, "held second first"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := strings.Join(find(tt.s), " "); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	t.Run("what reads too much is refused", func(t *testing.T) {
		for _, s := range []EntrySearch{
			{RecordedFrom: today.AddDays(-92), RecordedTo: today},
			{EffectiveFrom: today.AddDays(-92), EffectiveTo: today},
			{Account: clearing, EffectiveFrom: today.AddDays(-366), EffectiveTo: today},
			{Account: clearing, RecordedFrom: today.AddDays(-92), RecordedTo: today},
			{SourceID: "p-first", RecordedFrom: today.AddDays(-92)},
		} {
			s.Limit = 1
			if _, err := h.SearchEntries(t.Context(), h.db, s); !errors.Is(err, ErrTooWide) {
				t.Errorf("%+v: got %v, want ErrTooWide", s, err)
			}
		}
		for _, s := range []EntrySearch{{Limit: 0}, {Limit: 1, ID: "x"}, {Limit: 1, AmountFrom: 2, AmountTo: 1}, {Limit: 1, AmountFrom: -1}, {Limit: 1, Words: "a b c d e f g h i"}} {
			if _, err := h.SearchEntries(t.Context(), h.db, s); !errors.Is(err, ErrInvalid) {
				t.Errorf("%+v: got %v, want ErrInvalid", s, err)
			}
		}
		if _, err := h.SearchEntries(t.Context(), h.db, EntrySearch{Account: "assets:none", Limit: 1}); !errors.Is(err, ErrUnknownAccount) {
			t.Errorf("an account that is not there: %v", err)
		}
	})
	t.Run("pages follow each other", func(t *testing.T) {
		var got []string
		s := EntrySearch{Limit: 1}
		for range 10 {
			found, err := h.SearchEntries(t.Context(), h.db, s)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, found.Entries[0].Key)
			if s.After = found.Next; s.After == (EntryPlace{}) {
				break
			}
		}
		if strings.Join(got, " ") != "held second first" {
			t.Errorf("pages %q", got)
		}
	})
	t.Run("the dates that were filled in are told", func(t *testing.T) {
		found, err := h.SearchEntries(t.Context(), h.db, EntrySearch{Limit: 1})
		if err != nil || found.Asked.RecordedFrom != today.AddDays(-30) || found.Asked.RecordedTo != today {
			t.Errorf("asked %+v, %v", found.Asked, err)
		}
	})
	t.Run("links lead back", func(t *testing.T) {
		h.do(t, func(ctx context.Context, tx pgx.Tx) error {
			_, err := h.Reverse(ctx, tx, secondID, Entry{Key: "undo", Kind: "reversal"})
			return err
		})
		if _, err := h.capture(t, holdID, Entry{Key: "capture"}, ReleaseRest); err != nil {
			t.Fatal(err)
		}
		for entryID, want := range map[string]string{secondID: "[reversed]", holdID: "[released captured]", first: "[]"} {
			links, err := h.LinksTo(t.Context(), h.db, entryID)
			if err != nil {
				t.Fatal(err)
			}
			relations := []string{}
			for _, l := range links {
				relations = append(relations, l.Relation)
			}
			if fmt.Sprint(relations) != want {
				t.Errorf("%s: %v, want %s", entryID, relations, want)
			}
		}
	})
}

// No search may read the whole journal: among entries of two years each form of it
// goes over an index, and touches only the days it asks for.
func TestSearchDoesNotReadTheJournal(t *testing.T) {
	t.Parallel()
	h := open(t)
	const entries, days = 30_000, 730
	owner := testdb.Owner(t, h.db)
	begin := today.AddDays(-days).Start()
	for _, sql := range []string{
		`alter table ledger.journal_entry disable trigger check_entries`,
		fmt.Sprintf(`insert into ledger.journal_entry (id, key, kind, effective_on, recorded_at, currency, accounts, amounts, dimensions,
				source_type, source_id, actor, channel, description, metadata, body_hash, leaf)
			select gen_random_uuid(), 'key/' || i, 'payment', ('%[1]s'::timestamptz + i * interval '%[2]f s')::date, '%[1]s'::timestamptz + i * interval '%[2]f s',
				'CAD', array[1, 3], array[100 + i %% 500, -(100 + i %% 500)], array[1, 1], 'payment', i::text, 'system', 'web', 'a payment ' || i, '{}', sha256('b'), sha256('l')
			from generate_series(1, %[3]d) i`, begin.Format(time.RFC3339), float64(days)*86400/entries, entries),
		`insert into ledger.posting (account_id, seq, entry_id, line, amount, balance_after, effective_on, log_pos)
			select 1, row_number() over (order by recorded_at), id, 1, amounts[1], 0, effective_on, 0 from ledger.journal_entry`,
		`vacuum analyze ledger.journal_entry`,
		`vacuum analyze ledger.posting`,
	} {
		if _, err := owner.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	for name, s := range map[string]EntrySearch{
		"no narrowing":             {},
		"amount":                   {AmountFrom: 150},
		"words":                    {Words: "payment 29999"},
		"account":                  {Account: clearing},
		"account by date":          {Account: clearing, EffectiveFrom: today.AddDays(-365), EffectiveTo: today.AddDays(-340), AmountFrom: 100, AmountTo: 200},
		"accounting dates":         {EffectiveFrom: today.AddDays(-400), EffectiveTo: today.AddDays(-370)},
		"recorded a year ago":      {RecordedFrom: today.AddDays(-400), RecordedTo: today.AddDays(-370), Kind: "none"},
		"id":                       {ID: id.New()},
		"key":                      {Key: "key/77"},
		"source":                   {SourceType: "payment", SourceID: "77"},
		"the second page of a day": {RecordedFrom: today.AddDays(-3), After: EntryPlace{today.Start(), id.New()}},
	} {
		t.Run(name, func(t *testing.T) {
			s.Limit = 50
			s, err := s.bound(today)
			if err != nil {
				t.Fatal(err)
			}
			c, err := h.conditions(t.Context(), h.db, s)
			if err != nil {
				t.Fatal(err)
			}
			rows, err := owner.Query(t.Context(), `explain (analyze, costs off, timing off) select `+entryColumns+` from ledger.journal_entry e `+c.where(50), c.args...)
			if err != nil {
				t.Fatal(err)
			}
			plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				t.Fatal(err)
			}
			text := strings.Join(plan, "\n")
			if strings.Contains(text, "Seq Scan on journal_entry") || strings.Contains(text, "Seq Scan on posting") || !strings.Contains(text, "Index") {
				t.Errorf("reads without an index:\n%s", text)
			}
			for _, line := range plan {
				var removed int
				for _, mark := range []string{"Rows Removed by Index Recheck: ", "Rows Removed by Filter: "} {
					if _, n, ok := strings.Cut(line, mark); ok {
						fmt.Sscan(n, &removed)
					}
				}
				if removed > entries/5 {
					t.Errorf("looks at %d entries in vain:\n%s", removed, text)
				}
			}
		})
	}
	if found, err := h.SearchEntries(t.Context(), h.db, EntrySearch{Words: "29999", Limit: 5}); err != nil || len(found.Entries) != 1 || found.Entries[0].Lines[0].Amount != money.Amount(100+29999%500) {
		t.Errorf("found %+v, %v", found.Entries, err)
	}
	if clock.DateOf(h.moment()) != today {
		t.Fatal("the search is not about today")
	}
}
