package ledger_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/mod/sumdb/note"

	"guichet/internal/clock"
	"guichet/internal/money"
	"guichet/internal/testdb"
	"guichet/ledger"
)

// A town is what the examples share: books with four accounts on a database of their own.
// The clock stands still, so that dates are the same each time.
type town struct {
	*ledger.Books
	db   *pgxpool.Pool
	drop func()
}

var noon = time.Date(2026, time.March, 9, 16, 0, 0, 0, time.UTC)

func open() town {
	db, drop := testdb.Example()
	t := town{ledger.New(func() time.Time { return noon }), db, drop}
	none := money.Amount(0)
	t.do(func(tx pgx.Tx) error {
		for _, a := range []ledger.Account{
			{Path: "assets:bank", NameEN: "Bank", NameFR: "Banque"},
			{Path: "assets:receivable:water", NameEN: "Water receivable", NameFR: "Eau à recevoir", Department: "water"},
			{Path: "liabilities:deposits", NameEN: "Deposits", NameFR: "Dépôts", Lowest: &none},
			{Path: "revenue:water", NameEN: "Water", NameFR: "Eau", Department: "water"},
		} {
			if err := t.OpenAccount(ctx, tx, a); err != nil {
				return err
			}
		}
		return nil
	})
	return t
}

var ctx = context.Background()

// do runs f in a transaction: entries commit with the business that causes them.
func (t town) do(f func(tx pgx.Tx) error) {
	if err := pgx.BeginFunc(ctx, t.db, f); err != nil {
		panic(err)
	}
}

func entry(key, debit, credit string, amount money.Amount) ledger.Entry {
	return ledger.Entry{
		Key: key, Kind: "example", Description: key,
		Lines: []ledger.Line{{Account: debit, Amount: amount}, {Account: credit, Amount: -amount}},
	}
}

func deposit(key string, amount money.Amount) ledger.Entry {
	return entry(key, "assets:bank", "liabilities:deposits", amount)
}

// An account belongs to one of five roots and is opened once.
func ExampleBooks_OpenAccount() {
	books := open()
	defer books.drop()
	books.do(func(tx pgx.Tx) error {
		return books.OpenAccount(ctx, tx, ledger.Account{Path: "expenses:card-fees", NameEN: "Card fees", NameFR: "Frais de carte"})
	})
	a, err := books.Account(ctx, books.db, "expenses:card-fees")
	fmt.Println(a.Type, a.Currency, a.State, err)
	// Output: expense CAD open <nil>
}

// Append is part of the caller's transaction. The balance is exact at once; the same key
// again changes nothing.
func ExampleBooks_Append() {
	books := open()
	defer books.drop()
	bill := entry("bill/4711", "assets:receivable:water", "revenue:water", 125_00)
	books.do(func(tx pgx.Tx) error {
		first, err := books.Append(ctx, tx, bill)
		if err != nil {
			return err
		}
		again, err := books.Append(ctx, tx, bill)
		fmt.Println("the same entry:", first == again)
		return err
	})
	balance, err := books.Balance(ctx, books.db, "assets:receivable:water")
	fmt.Println(balance, err)
	// Output:
	// the same entry: true
	// 125.00 <nil>
}

// Errors tell a caller what to do: each has its type, and the fields that go with it.
func ExampleBooks_Append_errors() {
	books := open()
	defer books.drop()
	books.do(func(tx pgx.Tx) error {
		_, err := books.Append(ctx, tx, deposit("deposit/1", 50_00))
		return err
	})
	crooked := deposit("crooked", 10_00)
	crooked.Lines[0].Amount++
	nowhere := deposit("nowhere", 10_00)
	nowhere.Lines[0].Account = "assets:bnak"
	for _, e := range []ledger.Entry{
		crooked, nowhere, deposit("deposit/1", 51_00), entry("too-much", "liabilities:deposits", "assets:bank", 80_00),
	} {
		err := pgx.BeginFunc(ctx, books.db, func(tx pgx.Tx) error {
			_, err := books.Append(ctx, tx, e)
			return err
		})
		var (
			unbalanced *ledger.UnbalancedError
			unknown    *ledger.UnknownAccountError
			conflict   *ledger.ConflictError
			limit      *ledger.LimitError
		)
		switch {
		case errors.As(err, &unbalanced):
			fmt.Println("off by", unbalanced.Sum)
		case errors.As(err, &unknown):
			fmt.Println("no account", unknown.Path)
		case errors.As(err, &conflict):
			fmt.Println("another entry has the key", conflict.Key)
		case errors.As(err, &limit):
			fmt.Println(limit.Account, "would have", limit.Available, "and must have", limit.Lowest)
		}
	}
	// Output:
	// off by 0.01
	// no account assets:bnak
	// another entry has the key deposit/1
	// liabilities:deposits would have -30.00 and must have 0.00
}

// A hold sets money aside without booking it; a capture books all of it, or a part.
func ExampleBooks_Hold() {
	books := open()
	defer books.drop()
	var hold string
	books.do(func(tx pgx.Tx) (err error) {
		if _, err = books.Append(ctx, tx, deposit("deposit/1", 50_00)); err != nil {
			return err
		}
		hold, err = books.Hold(ctx, tx, entry("hold/1", "liabilities:deposits", "assets:bank", 30_00), noon.Add(24*time.Hour))
		return err
	})
	show := func(when string) {
		balance, err := books.Balance(ctx, books.db, "liabilities:deposits")
		if err != nil {
			panic(err)
		}
		available, err := books.Available(ctx, books.db, "liabilities:deposits")
		fmt.Println(when, "balance", balance, "available", available, err)
	}
	show("held:")
	books.do(func(tx pgx.Tx) error {
		_, err := books.Capture(ctx, tx, hold, ledger.Entry{Key: "hold/1/capture", Lines: []ledger.Line{
			{Account: "liabilities:deposits", Amount: 20_00}, {Account: "assets:bank", Amount: -20_00},
		}}, ledger.ReleaseRest)
		return err
	})
	show("captured:")
	// Output:
	// held: balance -50.00 available 20.00 <nil>
	// captured: balance -30.00 available 30.00 <nil>
}

// A mistake is taken back by an entry that names it; nothing is changed.
func ExampleBooks_Reverse() {
	books := open()
	defer books.drop()
	books.do(func(tx pgx.Tx) error {
		wrong, err := books.Append(ctx, tx, deposit("deposit/1", 50_00))
		if err != nil {
			return err
		}
		back, err := books.Reverse(ctx, tx, wrong, ledger.Entry{Key: "deposit/1/reversal"})
		if err != nil {
			return err
		}
		reversal, err := books.Entry(ctx, tx, back)
		fmt.Println(reversal.Kind, reversal.Reverses == wrong)
		return err
	})
	balance, err := books.Balance(ctx, books.db, "assets:bank")
	fmt.Println(balance, err)
	// Output:
	// reversal true
	// 0.00 <nil>
}

// A statement by accounting date, with the balance running.
func ExampleBooks_StatementBetween() {
	books := open()
	defer books.drop()
	books.do(func(tx pgx.Tx) error {
		for i, day := range []int{2, 9, 5} {
			e := deposit(fmt.Sprint("deposit/", i), money.Amount(10_00*(i+1)))
			e.EffectiveOn = clock.Date{Year: 2026, Month: time.March, Day: day}
			if _, err := books.Append(ctx, tx, e); err != nil {
				return err
			}
		}
		return nil
	})
	if err := ledger.NewPoster(books.db, func() time.Time { return noon }, ledger.PosterOptions{}).Drain(ctx); err != nil {
		panic(err)
	}
	s, err := books.StatementBetween(ctx, books.db, ledger.StatementQuery{
		Path: "assets:bank", From: clock.Date{Year: 2026, Month: time.March, Day: 3}, Limit: 100,
	})
	fmt.Println("opening", s.Opening, err)
	for _, l := range s.Lines {
		fmt.Println(l.EffectiveOn, l.Description, l.Amount, l.Balance)
	}
	fmt.Println("closing", s.Closing)
	// Output:
	// opening 10.00 <nil>
	// 2026-03-05 deposit/2 30.00 40.00
	// 2026-03-09 deposit/1 20.00 60.00
	// closing 60.00
}

// AppendEach records what it can, and says of every entry what became of it.
func ExampleBooks_AppendEach() {
	books := open()
	defer books.drop()
	books.do(func(tx pgx.Tx) error {
		results, err := books.AppendEach(ctx, tx, []ledger.Entry{
			deposit("a", 50_00),
			entry("b", "liabilities:deposits", "assets:bank", 80_00), // more than there is
			deposit("a", 50_00), // the same again
		})
		for _, r := range results {
			fmt.Println(r.ID != "", r.Replayed, errors.Is(r.Err, ledger.ErrLimit))
		}
		return err
	})
	// Output:
	// true false false
	// false false true
	// true true false
}

// A month that is closed takes nothing more. What comes late goes to the next month that is
// open, and says so.
func ExampleBooks_SetPeriod() {
	books := open()
	defer books.drop()
	february := clock.Date{Year: 2026, Month: time.February, Day: 27}
	for _, state := range []ledger.PeriodState{ledger.PeriodClosing, ledger.PeriodClosed} {
		books.do(func(tx pgx.Tx) error { return books.SetPeriod(ctx, tx, february, state) })
	}
	late := deposit("late", 50_00)
	late.EffectiveOn = february
	err := pgx.BeginFunc(ctx, books.db, func(tx pgx.Tx) error {
		_, err := books.Append(ctx, tx, late)
		return err
	})
	var period *ledger.PeriodError
	if errors.As(err, &period) {
		fmt.Println(period)
	}
	late.OrNextOpen = true
	books.do(func(tx pgx.Tx) error {
		id, err := books.Append(ctx, tx, late)
		if err != nil {
			return err
		}
		e, err := books.Entry(ctx, tx, id)
		fmt.Println("booked on", e.EffectiveOn, "asked for", e.AskedOn)
		return err
	})
	// Output:
	// period 2026-02 is closed
	// booked on 2026-03-01 asked for 2026-02-27
}

// A proof shows that an entry is in the books under a signed head; whoever holds it needs
// the log's public key only.
func ExampleVerifyProof() {
	books := open()
	defer books.drop()
	private, public, err := note.GenerateKey(rand.Reader, "books.example")
	if err != nil {
		panic(err)
	}
	signer, err := note.NewSigner(private)
	if err != nil {
		panic(err)
	}
	var id string
	books.do(func(tx pgx.Tx) (err error) {
		id, err = books.Append(ctx, tx, deposit("deposit/1", 50_00))
		return err
	})
	poster := ledger.NewPoster(books.db, func() time.Time { return noon }, ledger.PosterOptions{Signer: signer})
	if err := poster.Drain(ctx); err != nil {
		panic(err)
	}
	proof, err := books.Proof(ctx, books.db, id)
	if err != nil {
		panic(err)
	}
	log, err := ledger.ReadVerifier(public)
	if err != nil {
		panic(err)
	}
	fmt.Println("proof:", ledger.VerifyProof(proof, log))
	proof.Form[len(proof.Form)-2] ^= 1 // a forged amount, date or account looks like this
	fmt.Println("forged:", errors.Is(ledger.VerifyProof(proof, log), ledger.ErrProof))
	// Output:
	// proof: <nil>
	// forged: true
}

// Verify reads the books as a whole and names what is wrong; an export proves itself
// without the database.
func ExampleVerify() {
	books := open()
	defer books.drop()
	private, public, err := note.GenerateKey(rand.Reader, "books.example")
	if err != nil {
		panic(err)
	}
	signer, err := note.NewSigner(private)
	if err != nil {
		panic(err)
	}
	books.do(func(tx pgx.Tx) error {
		_, err := books.Append(ctx, tx, deposit("deposit/1", 50_00))
		return err
	})
	if err := ledger.NewPoster(books.db, func() time.Time { return noon }, ledger.PosterOptions{Signer: signer}).Drain(ctx); err != nil {
		panic(err)
	}
	findings, err := ledger.Verify(ctx, books.db)
	fmt.Println(len(findings), "findings", err)

	var export strings.Builder
	if err := ledger.ExportJSONL(ctx, books.db, &export); err != nil {
		panic(err)
	}
	log, err := ledger.ReadVerifier(public)
	if err != nil {
		panic(err)
	}
	forged := strings.Replace(export.String(), `"amount":5000`, `"amount":5001`, 1)
	for _, text := range []string{export.String(), forged} {
		sum, found, err := ledger.VerifyExport(strings.NewReader(text), ledger.Known{Log: log})
		fmt.Println(sum.Entries, "entries,", len(found), "findings", err)
		for _, f := range found {
			fmt.Println(f.Kind)
		}
	}
	// Output:
	// 0 findings <nil>
	// 1 entries, 0 findings <nil>
	// 1 entries, 5 findings <nil>
	// entry
	// unbalanced
	// balance
	// head
	// signature
}
