package report_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"guichet/internal/clock"
	"guichet/internal/testdb"
	"guichet/ledger"
	"guichet/ledger/report"
)

var now = time.Date(2026, time.March, 9, 15, 0, 0, 0, time.UTC)

const clearing, fines = "assets:clearing", "revenue:fines"

// open returns reports of books with two accounts, and what the database is asked.
func open(t *testing.T) (report.Reports, *listening) {
	t.Helper()
	db := &listening{Pool: testdb.New(t)}
	books := ledger.New(func() time.Time { return now })
	err := pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error {
		for _, path := range []string{clearing, fines} {
			if err := books.OpenAccount(t.Context(), tx, ledger.Account{Path: path, NameEN: path, NameFR: path}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return report.Reports{Books: books, DB: db, Now: func() time.Time { return now }, Lang: "en"}, db
}

// listening keeps what is asked.
type listening struct {
	*pgxpool.Pool
	asked []string
}

func (l *listening) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	l.asked = append(l.asked, sql)
	return l.Pool.Query(ctx, sql, args...)
}

// A file of a search has every entry once, the last recorded first, and goes over the days once
// however many entries it finds.
func TestASearchIsMadeOnce(t *testing.T) {
	t.Parallel()
	r, db := open(t)
	const n = 2500
	entries := make([]ledger.Entry, n)
	for i := range entries {
		entries[i] = ledger.Entry{Key: fmt.Sprint("k", i), Kind: "payment", EffectiveOn: clock.DateOf(now), Lines: []ledger.Line{{Account: clearing, Amount: 5}, {Account: fines, Amount: -5}}}
	}
	if err := pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error {
		_, err := r.Books.AppendAll(t.Context(), tx, entries)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	table, err := r.Search(t.Context(), ledger.EntrySearch{Kind: "payment"})
	if err != nil {
		t.Fatal(err)
	}
	key, last := -1, ""
	for i, c := range table.Columns {
		if c.Key == "entry" {
			key = i
		}
	}
	found := 0
	for row, err := range table.Rows {
		if err != nil {
			t.Fatal(err)
		}
		entry := row[key].(string)
		if last != "" && entry >= last {
			t.Fatalf("%s after %s", entry, last)
		}
		last = entry
		found++
	}
	searches := 0
	for _, sql := range db.asked {
		if strings.Contains(sql, "recorded_at >=") {
			searches++
		}
	}
	if found != n || searches != 1 {
		t.Errorf("found %d entries in %d searches, want %d in one", found, searches, n)
	}
}

// A report of too many groups is refused: one without some of them would not add up.
func TestActivityIsNeverCut(t *testing.T) {
	t.Parallel()
	r, db := open(t)
	owner := testdb.Owner(t, db.Pool)
	fill := func(from, to int) {
		t.Helper()
		if _, err := owner.Exec(t.Context(), `
			with made as (
				insert into ledger.dimension (department, fund, cost_centre, order_code, wbs, channel, tender)
				select '', '', i::text, '', '', '', '' from generate_series($1::int, $2) i returning id
			)
			insert into ledger.account_day (account_id, effective_on, dimension_id, debits, credits)
			select (select id from ledger.account where path = $3), '2026-03-09', id, 1, 0 from made`, from, to, clearing); err != nil {
			t.Fatal(err)
		}
	}
	const most = 100_000
	fill(1, most)
	table, err := r.Activity(t.Context(), ledger.ActivityQuery{By: []string{"cost_centre"}})
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for range table.Rows {
		rows++
	}
	if rows != most {
		t.Errorf("%d rows, want %d", rows, most)
	}
	fill(most+1, most+1)
	if _, err := r.Activity(t.Context(), ledger.ActivityQuery{By: []string{"cost_centre"}}); !errors.Is(err, report.ErrTooMany) {
		t.Errorf("one too many: got %v", err)
	}
}
