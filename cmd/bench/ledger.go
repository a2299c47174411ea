package main

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"guichet/internal/clock"
	"guichet/internal/database"
	"guichet/internal/id"
	"guichet/internal/money"
	"guichet/ledger"
)

// ledgerBench compares the transaction of a payment (lock and update the payment, queue
// a job, record the entry: five round trips) in three forms:
//
//	hot           every entry is on one clearing account, as card payments are
//	spread        entries are over a thousand pairs of accounts
//	balance_rows  like hot, but the transaction updates a balance row per account and
//	              writes the postings itself: the usual design, and the baseline
//
// The journal's clock stops when its poster has carried everything into the accounts.
// compareBooks adds the books by themselves, compareHTTP the way to them from outside.
func ledgerBench(ctx context.Context, l *lab) error {
	b := &ledgerLab{books: ledger.New(new(clock.Clock).Now)}
	if err := b.prepare(ctx, l); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	defer b.db.Close()
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- b.poster.Run(running) }()
	for _, callers := range l.Callers {
		suffix := ""
		if callers != slices.Max(l.Callers) {
			suffix = fmt.Sprintf("_%d", callers)
		}
		err := l.compare(ctx, callers, suffix, [][2]string{{"hot", "spread"}, {"hot", "balance_rows"}},
			contender{"hot", b.journal(hot)}, contender{"spread", b.journal(spread)}, contender{"balance_rows", b.balanceRows})
		if err != nil {
			stop()
			return err
		}
	}
	stop()
	if err := <-ended; err != nil {
		return err
	}
	if err := b.compareBooks(ctx, l); err != nil {
		return err
	}
	if err := b.compareHTTP(ctx, l); err != nil {
		return err
	}
	findings, err := ledger.Verify(ctx, b.db)
	if err != nil {
		return err
	}
	if len(findings) > 0 {
		return fmt.Errorf("the books are wrong after the run: %v", findings)
	}
	return nil
}

const (
	accounts = 1000
	payments = 50_000
)

type ledgerLab struct {
	db     *pgxpool.Pool
	books  *ledger.Books
	poster *ledger.Poster
	next   atomic.Int64 // payments are taken in turn, each by one caller
}

func (b *ledgerLab) prepare(ctx context.Context, l *lab) (err error) {
	owner, err := pgx.Connect(ctx, l.url)
	if err != nil {
		return err
	}
	defer owner.Close(ctx)
	if _, err := owner.Exec(ctx, ledgerTables); err != nil {
		return err
	}
	if b.db, err = database.Open(ctx, l.url, database.Options{MaxConns: int32(slices.Max(l.Callers)) + 4}); err != nil {
		return err
	}
	b.poster = ledger.NewPoster(b.db, new(clock.Clock).Now, ledger.PosterOptions{})
	err = pgx.BeginFunc(ctx, b.db, func(tx pgx.Tx) error {
		for i := range accounts {
			for _, path := range []string{clearing(i), receivable(i)} {
				if err := b.books.OpenAccount(ctx, tx, ledger.Account{Path: path, NameEN: path, NameFR: path}); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if _, err := owner.Exec(ctx, `insert into bench.balance (account_id, balance) select id, 0 from ledger.account`); err != nil {
		return err
	}
	if _, err := owner.Exec(ctx, `
		insert into bench.payment (n, state, amount_cents)
		select n, 'pending', 1000 + n % 5000 from generate_series(0, $1::bigint - 1) n`, payments); err != nil {
		return err
	}
	// Statements prepared on tables that nobody has counted keep bad plans.
	_, err = owner.Exec(ctx, `analyze`)
	return err
}

const ledgerTables = `
create schema bench;
create table bench.payment (n bigint primary key, state text not null, amount_cents bigint not null, entry_id uuid, times integer not null default 0);
create table bench.job (id bigint generated always as identity primary key, kind text not null, args jsonb not null);
create table bench.balance (account_id bigint primary key, balance bigint not null) with (fillfactor = 50);
create table bench.entry (id uuid primary key, key text not null unique, kind text not null, effective_on date not null, recorded_at timestamptz not null,
	currency text not null, source_type text not null, source_id text not null, actor text not null, channel text not null, description text not null,
	metadata jsonb not null);
create table bench.posting (account_id bigint not null, entry_id uuid not null references bench.entry, amount bigint not null, balance_after bigint not null,
	primary key (entry_id, account_id));
create index on bench.posting (account_id, entry_id);
grant usage on schema bench to guichet_app;
grant select, insert, update on all tables in schema bench to guichet_app`

func clearing(i int) string   { return fmt.Sprintf("assets:clearing:%d", i) }
func receivable(i int) string { return fmt.Sprintf("assets:receivable:%d", i) }

// hot puts every payment on one clearing account, spread on one of a thousand.
func hot(n int64) (debit, credit string) { return clearing(0), receivable(int(n % accounts)) }

func spread(n int64) (debit, credit string) {
	return clearing(int(n % accounts)), receivable(int(n % accounts))
}

// pay is the part that all forms share. record writes the entry.
func (b *ledgerLab) pay(ctx context.Context, record func(ctx context.Context, tx pgx.Tx, n, cents int64, key string) error) error {
	n := b.next.Add(1) % payments
	return pgx.BeginFunc(ctx, b.db, func(tx pgx.Tx) error {
		var cents int64
		var times int
		if err := tx.QueryRow(ctx, `select amount_cents, times from bench.payment where n = $1 for update`, n).Scan(&cents, &times); err != nil {
			return err
		}
		var batch pgx.Batch
		batch.Queue(`update bench.payment set state = 'succeeded', times = times + 1 where n = $1`, n)
		batch.Queue(`insert into bench.job (kind, args) values ('receipt', $1)`, map[string]int64{"payment": n})
		if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
			return err
		}
		return record(ctx, tx, n, cents, fmt.Sprintf("payment/%d/%d", n, times))
	})
}

func (b *ledgerLab) journal(pair func(int64) (string, string)) func(context.Context, int, time.Duration) (sample, error) {
	return func(ctx context.Context, callers int, d time.Duration) (sample, error) {
		began := time.Now()
		s, err := load(ctx, callers, d, func(ctx context.Context, _, _ int) error {
			return b.pay(ctx, func(ctx context.Context, tx pgx.Tx, n, cents int64, key string) error {
				debit, credit := pair(n)
				dims := ledger.Dimensions{Department: "parking", Channel: "web", Tender: "card"}
				_, err := b.books.Append(ctx, tx, ledger.Entry{
					Key: key, Kind: "payment", SourceType: "payment", SourceID: fmt.Sprint(n),
					Actor: "system", Channel: "web", Description: "Payment", Lines: []ledger.Line{
						{Account: debit, Amount: money.Amount(cents), Dimensions: dims}, {Account: credit, Amount: -money.Amount(cents), Dimensions: dims},
					},
				})
				return err
			})
		})
		if err != nil {
			return s, err
		}
		left, err := b.poster.Stats(ctx)
		if err != nil {
			return s, err
		}
		if err := b.poster.Drain(ctx); err != nil {
			return s, err
		}
		s.elapsed = time.Since(began)
		s.note = fmt.Sprintf("at the end %d unposted, the oldest for %s", left.Backlog, left.Lag.Round(time.Millisecond))
		return s, nil
	}
}

func (b *ledgerLab) balanceRows(ctx context.Context, callers int, d time.Duration) (sample, error) {
	return load(ctx, callers, d, func(ctx context.Context, _, _ int) error {
		return b.pay(ctx, func(ctx context.Context, tx pgx.Tx, n, cents int64, key string) error {
			debit, credit := hot(n)
			now := time.Now().UTC()
			_, err := tx.Exec(ctx, balanceRows, id.New(), key, now, fmt.Sprint(n), []string{debit, credit}, []int64{cents, -cents})
			return err
		})
	})
}

// balanceRows locks in order of id, moves the balances and writes entry and postings.
const balanceRows = `
with line as (
	select a.id, l.amount from unnest($5::text[], $6::bigint[]) as l(path, amount) join ledger.account a on a.path = l.path
), locked as (
	select b.account_id from bench.balance b where b.account_id in (select id from line) order by b.account_id for update
), moved as (
	update bench.balance b set balance = b.balance + line.amount
	from line, locked where b.account_id = line.id and locked.account_id = line.id
	returning b.account_id, line.amount, b.balance
), entry as (
	insert into bench.entry (id, key, kind, effective_on, recorded_at, currency, source_type, source_id, actor, channel, description, metadata)
	values ($1, $2, 'payment', $3::timestamptz::date, $3, 'CAD', 'payment', $4, 'system', 'web', 'Payment', '{}')
)
insert into bench.posting (account_id, entry_id, amount, balance_after)
select account_id, $1, amount, balance from moved`
