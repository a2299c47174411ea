package ledger

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"guichet/internal/clock"
	"guichet/internal/money"
	"guichet/internal/testdb"
)

const (
	clearing   = "assets:processor-clearing"
	receivable = "assets:receivable:parking"
	fines      = "revenue:parking:fines"
	credits    = "liabilities:credit:payer"
)

var today = clock.Date{Year: 2026, Month: time.March, Day: 9}

// fixed is a business clock that tests move by hand.
type fixed struct{ t time.Time }

func (f *fixed) Now() time.Time { return f.t }

// house is a database with four accounts, and the books over it.
type house struct {
	*Books
	db    *pgxpool.Pool
	clock *fixed
}

func open(t testing.TB) house {
	t.Helper()
	return furnish(t, testdb.New(t))
}

func furnish(t testing.TB, db *pgxpool.Pool) house {
	t.Helper()
	c := &fixed{today.Start().Add(10 * time.Hour)}
	h := house{New(c.Now), db, c}
	zero := money.Amount(0)
	h.do(t, func(ctx context.Context, tx pgx.Tx) error {
		for _, a := range []Account{
			{Path: clearing, NameEN: "Card clearing", NameFR: "Compensation des cartes"},
			{Path: receivable, NameEN: "Parking receivable", NameFR: "Stationnement à recevoir", Department: "parking"},
			{Path: fines, NameEN: "Parking fines", NameFR: "Amendes de stationnement", Department: "parking"},
			{Path: credits, NameEN: "Credits of payers", NameFR: "Crédits des payeurs", Lowest: &zero},
		} {
			if err := h.OpenAccount(ctx, tx, a); err != nil {
				return err
			}
		}
		return nil
	})
	return h
}

func (h house) try(ctx context.Context, f func(context.Context, pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, h.db, func(tx pgx.Tx) error { return f(ctx, tx) })
}

func (h house) do(t testing.TB, f func(context.Context, pgx.Tx) error) {
	t.Helper()
	if err := h.try(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

// post appends an entry in a transaction of its own.
func (h house) post(ctx context.Context, e Entry) (entryID string, err error) {
	err = h.try(ctx, func(ctx context.Context, tx pgx.Tx) error {
		entryID, err = h.Append(ctx, tx, e)
		return err
	})
	return entryID, err
}

func (h house) mustPost(t testing.TB, e Entry) string {
	t.Helper()
	entryID, err := h.post(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	return entryID
}

func (h house) wantBalance(t testing.TB, path string, want money.Amount) {
	t.Helper()
	got, err := h.Balance(t.Context(), h.db, path)
	if err != nil || got != want {
		t.Errorf("balance of %s: got %s, %v; want %s", path, got, err, want)
	}
}

// move is an entry that debits one account and credits another.
func move(key string, amount money.Amount, debit, credit string) Entry {
	return Entry{
		Key: key, Kind: "payment", EffectiveOn: today, SourceType: "payment", SourceID: "p-" + key, Actor: "system", Channel: "web",
		Description: "a payment", Lines: []Line{{Account: debit, Amount: amount}, {Account: credit, Amount: -amount}},
	}
}

func count(t testing.TB, q Querier, sql string, args ...any) int {
	t.Helper()
	var n int
	if err := q.QueryRow(t.Context(), sql, args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func key(i int) string { return fmt.Sprintf("k%06d", i) }
