package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/clock"
	"guichet/internal/money"
	"guichet/ledger"
)

// balancesBench asks the same questions of an account with ten thousand postings and of one
// with --postings, in one database that the poster has filled:
//
//	now_large, now_small      the balance now
//	asof_large, asof_small    the balance on a date in the middle
//	page_large, page_small    the newest page of the statement
//	dated_large, dated_small  the first page of a month's statement by accounting date
//	known_N                   a balance on a date as it was known N postings ago
//
// The known ones may cost what was recorded since, and no more.
func balancesBench(ctx context.Context, l *lab) error {
	b := &ledgerLab{books: ledger.New(time.Now)}
	if err := b.prepare(ctx, l); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	defer b.db.Close()
	const small = 10_000
	fill := filler{lab: b, l: l}
	large := max(l.Postings, small)
	if err := errors.Join(fill.account(ctx, 0, large), fill.account(ctx, 1, small)); err != nil {
		return err
	}
	l.Counts["postings_large"], l.Counts["postings_small"] = large, small
	middle := fill.day(daysFilled / 2)
	ask := func(path string, at ledger.AsOf) contenderRun {
		return repeat(func(ctx context.Context) error { _, err := b.books.BalanceAsOf(ctx, b.db, path, at); return err })
	}
	now := func(path string) contenderRun {
		return repeat(func(ctx context.Context) error { _, err := b.books.Balance(ctx, b.db, path); return err })
	}
	page := func(path string) contenderRun {
		return repeat(func(ctx context.Context) error { _, err := b.books.Statement(ctx, b.db, path, 0, 50); return err })
	}
	dated := func(path string) contenderRun {
		return repeat(func(ctx context.Context) error {
			_, err := b.books.StatementBetween(ctx, b.db, ledger.StatementQuery{Path: path, From: middle, To: middle.AddDays(30), Limit: 50})
			return err
		})
	}
	contenders := []contender{
		{"now_large", now(clearing(0))},
		{"now_small", now(clearing(1))},
		{"asof_large", ask(clearing(0), ledger.AsOf{On: middle})},
		{"asof_small", ask(clearing(1), ledger.AsOf{On: middle})},
		{"page_large", page(clearing(0))},
		{"page_small", page(clearing(1))},
		{"dated_large", dated(clearing(0))},
		{"dated_small", dated(clearing(1))},
	}
	for _, since := range []int{1_000, 10_000, 100_000} {
		size := fill.sealed - int64(since/linesFilled) - small/linesFilled // the small account came last
		if size <= 0 {
			break
		}
		contenders = append(contenders, contender{fmt.Sprintf("known_%d", since), ask(clearing(0), ledger.AsOf{On: middle, Sealed: &size})})
	}
	return l.compare(ctx, 1, "", [][2]string{{"now_large", "now_small"}, {"asof_large", "asof_small"}, {"page_large", "page_small"}, {"dated_large", "dated_small"}}, contenders...)
}

type contenderRun = func(ctx context.Context, callers int, d time.Duration) (sample, error)

func repeat(ask func(ctx context.Context) error) contenderRun {
	return func(ctx context.Context, callers int, d time.Duration) (sample, error) {
		return load(ctx, callers, d, func(ctx context.Context, _, _ int) error { return ask(ctx) })
	}
}

const (
	linesFilled = 500 // on the account, in an entry
	daysFilled  = 365
)

// A filler writes entries of many lines, so that an account has its postings soon. They
// come in through the books and the poster, like all others.
type filler struct {
	lab    *ledgerLab
	l      *lab
	sealed int64
}

func (f *filler) day(n int) clock.Date {
	return clock.FromTime(time.Now()).AddDays(n - daysFilled)
}

func (f *filler) account(ctx context.Context, n, postings int) error {
	const batch = 20
	dims := ledger.Dimensions{Department: "parking", Channel: "web", Tender: "card"}
	for from := 0; from < postings; from += batch * linesFilled {
		var entries []ledger.Entry
		for at := from; at < min(postings, from+batch*linesFilled); at += linesFilled {
			e := ledger.Entry{
				Key: fmt.Sprintf("fill/%d/%d", n, at), Kind: "payment", EffectiveOn: f.day(at / linesFilled % daysFilled), SourceType: "payment",
				SourceID: fmt.Sprint(at), Actor: "system", Channel: "web", Description: "Payments of a day",
			}
			var sum money.Amount
			for i := range min(linesFilled, postings-at) {
				amount := money.Amount(1000 + (at+i)%5000)
				sum += amount
				e.Lines = append(e.Lines, ledger.Line{Account: clearing(n), Amount: amount, Dimensions: dims})
			}
			e.Lines = append(e.Lines, ledger.Line{Account: receivable(n), Amount: -sum, Dimensions: dims})
			entries = append(entries, e)
		}
		if err := pgx.BeginFunc(ctx, f.lab.db, func(tx pgx.Tx) error { _, err := f.lab.books.AppendAll(ctx, tx, entries); return err }); err != nil {
			return err
		}
		if err := f.lab.poster.Drain(ctx); err != nil {
			return err
		}
		if from%1_000_000 == 0 {
			fmt.Fprintf(f.l.out, "  %d of %d postings\n", from, postings)
		}
	}
	s, err := f.lab.poster.Stats(ctx)
	f.sealed = s.Sealed
	if err != nil {
		return err
	}
	owner, err := pgx.Connect(ctx, f.l.url)
	if err != nil {
		return err
	}
	defer owner.Close(ctx)
	_, err = owner.Exec(ctx, `vacuum analyze`)
	return err
}
