package reconcile

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"guichet/internal/clock"
	"guichet/internal/money"
	"guichet/payments"
)

// How far back the processor is asked again. Its lists are by time of creation;
// what shows up late, or changes after it was created, is met by asking again.
const (
	firstLook          = 35 * 24 * time.Hour
	transactionOverlap = 3 * 24 * time.Hour
	payoutOverlap      = 14 * 24 * time.Hour // a paid payout may fail within about five business days
	maxPages           = 100_000
)

type pulled struct {
	Transactions int `json:"transactions"`
	Payouts      int `json:"payouts"`
	Itemised     int `json:"itemised"`
}

// pull copies the processor's balance transactions and payouts, and the lines of
// payouts whose list is whole.
func (n *Nightly) pull(ctx context.Context, _ clock.Date) (any, error) {
	var did pulled
	var err error
	if did.Transactions, err = n.pullTransactions(ctx); err != nil {
		return nil, err
	}
	if did.Payouts, err = n.pullPayouts(ctx); err != nil {
		return nil, err
	}
	did.Itemised, err = n.pullLines(ctx)
	return did, err
}

func (n *Nightly) pullTransactions(ctx context.Context) (count int, err error) {
	since, err := n.since(ctx, "balance_transaction", transactionOverlap)
	if err != nil {
		return 0, err
	}
	newest, err := pages(ctx, n.db, func(cursor string) ([]payments.BalanceTransaction, string, error) {
		return n.processor.BalanceTransactions(ctx, since, cursor)
	}, func(tx pgx.Tx, page []payments.BalanceTransaction) (newest time.Time, err error) {
		for _, t := range page {
			if t.CreatedAt.After(newest) {
				newest = t.CreatedAt
			}
		}
		added, err := n.keepTransactions(ctx, tx, page)
		count += added
		return newest, err
	})
	if err != nil {
		return 0, fmt.Errorf("pull balance transactions: %w", err)
	}
	return count, n.seen(ctx, "balance_transaction", newest)
}

func (n *Nightly) pullPayouts(ctx context.Context) (count int, err error) {
	since, err := n.since(ctx, "payout", payoutOverlap)
	if err != nil {
		return 0, err
	}
	// A payout that is still open is asked for again however old it is. Manual ones
	// stay open here: a person explains them.
	var oldest *time.Time
	if err := n.db.QueryRow(ctx, `
		select min(created_at) from reconcile.payout where automatic and state in ('announced', 'itemised', 'matched')`).Scan(&oldest); err != nil {
		return 0, fmt.Errorf("look for open payouts: %w", err)
	}
	if oldest != nil && oldest.Before(since) {
		since = *oldest
	}
	newest, err := pages(ctx, n.db, func(cursor string) ([]payments.Payout, string, error) {
		return n.processor.Payouts(ctx, since, cursor)
	}, func(tx pgx.Tx, page []payments.Payout) (newest time.Time, err error) {
		for _, p := range page {
			if p.CreatedAt.After(newest) {
				newest = p.CreatedAt
			}
			if err := n.take(ctx, tx, p); err != nil {
				return newest, err
			}
		}
		count += len(page)
		return newest, nil
	})
	if err != nil {
		return 0, fmt.Errorf("pull payouts: %w", err)
	}
	return count, n.seen(ctx, "payout", newest)
}

// pullLines reads the lines of payouts that are whole at the processor, checks
// that they add up, and marks them itemised.
func (n *Nightly) pullLines(ctx context.Context) (count int, err error) {
	list, err := payoutsWhere(ctx, n.db, `
		where state = 'announced' and automatic and itemised order by created_at, id limit 10000`)
	if err != nil {
		return 0, err
	}
	for _, p := range list {
		_, err := pages(ctx, n.db, func(cursor string) ([]payments.BalanceTransaction, string, error) {
			return n.processor.PayoutTransactions(ctx, p.ID, cursor)
		}, func(tx pgx.Tx, page []payments.BalanceTransaction) (time.Time, error) {
			return time.Time{}, n.keepLines(ctx, tx, p.ID, page)
		})
		if err != nil {
			return count, fmt.Errorf("pull lines of payout %s: %w", p.ID, err)
		}
		ok, err := n.itemise(ctx, p.ID)
		if err != nil {
			return count, err
		}
		if ok {
			count++
		}
	}
	return count, nil
}

// itemise checks a payout against its lines and moves it on, or opens an
// exception.
func (n *Nightly) itemise(ctx context.Context, payoutID string) (ok bool, err error) {
	err = pgx.BeginFunc(ctx, n.db, func(tx pgx.Tx) error {
		p, err := lockPayout(ctx, tx, payoutID)
		if err != nil || p.State != Announced {
			return err
		}
		var sum money.Amount
		var foreign int
		if err := tx.QueryRow(ctx, `
			select coalesce(sum(t.net_cents), 0)::bigint, count(*) filter (where t.currency <> $2)
			from reconcile.payout_line l join reconcile.balance_transaction t on t.id = l.transaction_id where l.payout_id = $1`,
			p.ID, p.Currency).Scan(&sum, &foreign); err != nil {
			return fmt.Errorf("add up payout %s: %w", p.ID, err)
		}
		if sum != p.Amount || foreign > 0 {
			return n.reopen(ctx, tx, Exception{Kind: PayoutSum, ObjectType: "payout", ObjectID: p.ID, Amount: p.Amount - sum},
				fmt.Sprintf("the payout is %s and its lines sum to %s; %d of them in another currency", p.Amount, sum, foreign))
		}
		ok = true
		if err := p.move(ctx, tx, Itemised, "lines are whole and add up", n.now()); err != nil {
			return err
		}
		return n.settled(ctx, tx, PayoutSum, "payout", p.ID, "the lines add up now")
	})
	return ok, err
}

// keepTransactions copies balance transactions. They never change: one that comes
// again with other amounts is an error.
func (n *Nightly) keepTransactions(ctx context.Context, tx pgx.Tx, page []payments.BalanceTransaction) (added int, err error) {
	batch := new(pgx.Batch)
	for _, t := range page {
		batch.Queue(`
			insert into reconcile.balance_transaction (id, category, source_id, intent_id, amount_cents, fee_cents, net_cents, currency,
				created_at, available_at, pulled_at)
			values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) on conflict (id) do nothing`,
			t.ID, t.Category, t.SourceID, t.IntentID, t.Amount, t.Fee, t.Net, t.Currency, t.CreatedAt, t.AvailableOn, n.now()).Exec(func(tag pgconn.CommandTag) error {
			added += int(tag.RowsAffected())
			return nil
		})
		batch.Queue(`select amount_cents = $2 and fee_cents = $3 and currency = $4 from reconcile.balance_transaction where id = $1`,
			t.ID, t.Amount, t.Fee, t.Currency).QueryRow(func(row pgx.Row) error {
			var same bool
			if err := row.Scan(&same); err != nil {
				return err
			}
			if !same {
				return fmt.Errorf("balance transaction %s has other amounts than before", t.ID)
			}
			return nil
		})
	}
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return 0, fmt.Errorf("copy balance transactions: %w", err)
	}
	return added, nil
}

func (n *Nightly) keepLines(ctx context.Context, tx pgx.Tx, payoutID string, page []payments.BalanceTransaction) error {
	if _, err := n.keepTransactions(ctx, tx, page); err != nil {
		return err
	}
	batch := new(pgx.Batch)
	for _, t := range page {
		batch.Queue(`insert into reconcile.payout_line (transaction_id, payout_id) values ($1, $2) on conflict do nothing`, t.ID, payoutID)
	}
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("copy lines of payout %s: %w", payoutID, err)
	}
	return nil
}

// pages reads a list of the processor page by page, each kept in a transaction of
// its own: nothing is open while the processor is asked.
func pages[T any](ctx context.Context, db *pgxpool.Pool, next func(cursor string) ([]T, string, error),
	keep func(tx pgx.Tx, page []T) (time.Time, error),
) (newest time.Time, err error) {
	cursor := ""
	for range maxPages {
		page, following, err := next(cursor)
		if err != nil {
			return newest, err
		}
		if err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
			at, err := keep(tx, page)
			if at.After(newest) {
				newest = at
			}
			return err
		}); err != nil {
			return newest, err
		}
		if following == "" {
			return newest, nil
		}
		cursor = following
	}
	return newest, errors.New("the list has no end")
}

// since is the moment from which a list is read: a while before the newest entry
// that was seen.
func (n *Nightly) since(ctx context.Context, name string, overlap time.Duration) (time.Time, error) {
	var at time.Time
	err := n.db.QueryRow(ctx, `select since from reconcile.cursor where name = $1`, name).Scan(&at)
	if errors.Is(err, pgx.ErrNoRows) {
		return n.now().Add(-firstLook), nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("read cursor %s: %w", name, err)
	}
	return at.Add(-overlap), nil
}

// seen moves the cursor of a list forward.
func (n *Nightly) seen(ctx context.Context, name string, newest time.Time) error {
	if newest.IsZero() {
		return nil
	}
	_, err := n.db.Exec(ctx, `
		insert into reconcile.cursor as c (name, since) values ($1, $2)
		on conflict (name) do update set since = greatest(c.since, excluded.since)`, name, newest)
	if err != nil {
		return fmt.Errorf("move cursor %s: %w", name, err)
	}
	return nil
}
