// Package paymentstest sets up a small city for tests: a database, books, three
// departments and their fees. Only tests import it.
package paymentstest

import (
	"bytes"
	"log/slog"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"guichet/department"
	"guichet/internal/clock"
	"guichet/internal/id"
	"guichet/internal/jobs"
	"guichet/internal/keyed"
	"guichet/internal/money"
	"guichet/internal/seal"
	"guichet/internal/testdb"
	"guichet/ledger"
	"guichet/payments"
	"guichet/payments/bill"
	"guichet/payments/fee"
)

// A City is what tests of the money side stand on.
type City struct {
	DB     *pgxpool.Pool
	Clock  *clock.Clock
	Key    *seal.Key
	Queue  *jobs.Queue
	Books  *ledger.Books
	Depts  *department.Service
	Bills  *bill.Service
	Depart map[string]department.Department // by code: parking, permits, water
}

// New makes a city in a database of its own.
func New(t testing.TB) *City {
	t.Helper()
	c := &City{DB: testdb.New(t), Clock: new(clock.Clock), Depart: map[string]department.Department{}}
	var err error
	if c.Key, err = seal.New(bytes.Repeat([]byte{1}, seal.Size)); err != nil {
		t.Fatal(err)
	}
	if c.Queue, err = jobs.New(c.DB, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	guest, err := keyed.Load(t.Context(), c.DB, c.Key, bill.GuestKeys)
	if err != nil {
		t.Fatal(err)
	}
	c.Books = ledger.New(c.Clock.Now)
	c.Depts = department.New(c.DB, c.Key, c.Queue, c.Clock.Now)
	c.Bills = bill.New(c.DB, c.Books, c.Depts, guest, c.Clock.Now)
	c.Do(t, func(tx pgx.Tx) error { return payments.OpenAccounts(t.Context(), tx, c.Books) })
	c.open(t, "assets:bank:main", "liabilities:hst", "liabilities:suspense:unexplained", "expenses:processor-fees")
	c.add(t, "parking", "revenue:parking:fines",
		fee.Version{Code: "parking-wrong-way", Kind: "flat", Amount: 7500, Early: 5500, EarlyDays: 15, Tax: fee.None},
		fee.Version{Code: "parking-accessible", Kind: "flat", Amount: 45000, Tax: fee.None})
	c.add(t, "permits", "revenue:permits:permits",
		fee.Version{Code: "building-permit", Kind: "variable", Tax: fee.Exempt},
		fee.Version{Code: "inspection-extra", Kind: "flat", Amount: 16300, Tax: fee.HST})
	c.add(t, "water", "revenue:water:water",
		fee.Version{Code: "water-consumption", Kind: "variable", Tax: fee.Exempt})
	return c
}

func (c *City) add(t testing.TB, code, revenue string, fees ...fee.Version) {
	t.Helper()
	c.open(t, revenue)
	c.Do(t, func(tx pgx.Tx) error {
		d, err := c.Depts.Create(t.Context(), tx, department.Department{Code: code, NameEN: "Test " + code, NameFR: "Essai " + code, HSTNumber: "00000 0000 RT0001"})
		if err != nil {
			return err
		}
		c.Depart[code] = d
		if err := bill.OpenAccounts(t.Context(), tx, c.Books, d); err != nil {
			return err
		}
		for _, v := range fees {
			v.NameEN, v.NameFR, v.Revenue, v.EffectiveFrom = "Fee "+v.Code, "Frais "+v.Code, revenue, clock.Date{Year: 2020, Month: 1, Day: 1}
			if err := fee.Add(t.Context(), tx, c.Books, d.ID, v, c.Clock.Now()); err != nil {
				return err
			}
		}
		return nil
	})
}

func (c *City) open(t testing.TB, paths ...string) {
	t.Helper()
	c.Do(t, func(tx pgx.Tx) error {
		for _, p := range paths {
			if err := c.Books.OpenAccount(t.Context(), tx, ledger.Account{Path: p, NameEN: p, NameFR: p}); err != nil {
				return err
			}
		}
		return nil
	})
}

// Do runs f in a transaction that must succeed.
func (c *City) Do(t testing.TB, f func(pgx.Tx) error) {
	t.Helper()
	if err := pgx.BeginFunc(t.Context(), c.DB, f); err != nil {
		t.Fatal(err)
	}
}

// Today is the city's date.
func (c *City) Today() clock.Date { return clock.DateOf(c.Clock.Now()) }

// Bill is the request for a bill of one line, issued today, for a guest.
func (c *City) Bill(department, feeCode string, amount money.Amount) bill.NewBill {
	return bill.NewBill{
		DepartmentID: c.Depart[department].ID, IdempotencyKey: id.New(), Type: "test", Reference: id.New(), GuestKey: "TEST 123",
		IssuedOn: c.Today(), DueOn: c.Today().AddDays(15), Lines: []bill.NewLine{{Fee: feeCode, Amount: amount}},
	}
}

// Issue issues a bill that must be accepted.
func (c *City) Issue(t testing.TB, n bill.NewBill) bill.Bill {
	t.Helper()
	b, _, err := c.Bills.Issue(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Balance is what an account holds.
func (c *City) Balance(t testing.TB, path string) money.Amount {
	t.Helper()
	a, err := c.Books.Balance(t.Context(), c.DB, path)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
