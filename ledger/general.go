package ledger

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/clock"
	"guichet/internal/money"
)

// ErrBroken: what was read twice, in two ways, was not the same.
var ErrBroken = errors.New("the books contradict themselves")

// A GeneralQuery asks for the general ledger between two accounting dates. It is answered
// from what the log holds at one position, which never changes: a long report needs
// no long snapshot, and can be asked for again.
type GeneralQuery struct {
	Account    string     // only this one
	Under      string     // only accounts at or below this path
	Department string     // only accounts of this department
	From       clock.Date // zero: from the first entry
	To         clock.Date // zero: to the last
	KnownAt    time.Time  // zero: now
}

// A General is the general ledger without its lines, which GeneralLines reads.
type General struct {
	GeneralQuery
	Accounts []GeneralAccount // that hold something or moved, in order of path
	Sealed   int64            // the answer is what the first so many entries of the log say
	Waiting  int64            // entries recorded by now that are not in the log yet, and so not in the answer
}

// A GeneralAccount is an account between the two dates; amounts are debit positive but Credits.
type GeneralAccount struct {
	Account Account
	Opening money.Amount
	Debits  money.Amount
	Credits money.Amount
	Closing money.Amount
}

// Moved reports whether the account has a line between the dates.
func (a GeneralAccount) Moved() bool { return a.Debits != 0 || a.Credits != 0 }

// A GeneralTotal sums up the accounts of a currency.
type GeneralTotal struct {
	Currency                          string
	Opening, Debits, Credits, Closing money.Amount
}

// Totals are the sums per currency, in order of their first account.
func (g General) Totals() []GeneralTotal {
	var list []GeneralTotal
	for _, a := range g.Accounts {
		i := 0
		for i < len(list) && list[i].Currency != a.Account.Currency {
			i++
		}
		if i == len(list) {
			list = append(list, GeneralTotal{Currency: a.Account.Currency})
		}
		t := &list[i]
		t.Opening += a.Opening
		t.Debits += a.Debits
		t.Credits += a.Credits
		t.Closing += a.Closing
	}
	return list
}

// Whole reports whether every account was asked for: then debits and credits must be
// the same, and the balances nothing in sum.
func (q GeneralQuery) Whole() bool { return q.Account == "" && q.Under == "" && q.Department == "" }

// includes reports whether an account was asked for.
func (q GeneralQuery) includes(a Account) bool {
	return (q.Account == "" || a.Path == q.Account) && (q.Department == "" || a.Department == q.Department) &&
		(q.Under == "" || a.Path == q.Under || strings.HasPrefix(a.Path, q.Under+":"))
}

// General returns the accounts of the general ledger with what they opened and closed
// with. Its cost does not grow with the number of lines. A single account that was
// asked for is there even when it is empty, or ErrUnknownAccount.
func (b *Books) General(ctx context.Context, db Beginner, q GeneralQuery) (General, error) {
	g := General{GeneralQuery: q}
	g.From, g.To = span(q.From, q.To)
	err := pgx.BeginTxFunc(ctx, db, snapshot, func(tx pgx.Tx) error { return b.general(ctx, tx, &g) })
	if err != nil {
		return General{}, fmt.Errorf("read the general ledger: %w", err)
	}
	return g, nil
}

func (b *Books) general(ctx context.Context, tx pgx.Tx, g *General) (err error) {
	if g.KnownAt.IsZero() {
		err = tx.QueryRow(ctx, `select size, (select count(*) from ledger.unposted) from ledger.log_head`).Scan(&g.Sealed, &g.Waiting)
	} else {
		g.Sealed, err = b.SizeAt(ctx, tx, g.KnownAt)
	}
	if err != nil {
		return err
	}
	opening, err := b.AccountTotals(ctx, tx, AsOf{On: g.From.AddDays(-1), Sealed: &g.Sealed})
	if err != nil {
		return err
	}
	closing, err := b.AccountTotals(ctx, tx, AsOf{On: g.To, Sealed: &g.Sealed})
	if err != nil {
		return err
	}
	for i, c := range closing { // the same accounts in the same order: it is one snapshot
		o := opening[i]
		a := GeneralAccount{Account: c.Account, Opening: o.Balance, Debits: c.Debits - o.Debits, Credits: c.Credits - o.Credits, Closing: c.Balance}
		if g.includes(a.Account) && (a.Moved() || a.Opening != 0 || g.Account != "") {
			g.Accounts = append(g.Accounts, a)
		}
	}
	if g.Account != "" && len(g.Accounts) == 0 {
		return fmt.Errorf("account %q: %w", g.Account, ErrUnknownAccount)
	}
	if total := g.Totals(); g.Whole() {
		for _, t := range total {
			if t.Debits != t.Credits || t.Opening != 0 || t.Closing != 0 {
				return fmt.Errorf("debits of %s and credits of %s %s: %w", t.Debits, t.Credits, t.Currency, ErrBroken)
			}
		}
	}
	return nil
}

// linesRead is how many lines are read at once.
const linesRead = 5000

// GeneralLines reads the lines of one account of a general ledger by accounting date, page
// by page. In the end they must add up to what the account moved: otherwise the
// last thing it says is ErrBroken.
func (b *Books) GeneralLines(ctx context.Context, q Querier, g General, a GeneralAccount) iter.Seq2[StatementLine, error] {
	return func(yield func(StatementLine, error) bool) {
		var debits, credits money.Amount
		after := Place{On: g.From} // numbers begin with 1
		for more := a.Moved(); more; {
			page, err := sealedLines(ctx, q, a.Account.Path, g, after)
			if err != nil {
				yield(StatementLine{}, fmt.Errorf("read lines of %s: %w", a.Account.Path, err))
				return
			}
			for _, l := range page {
				debits += max(l.Amount, 0)
				credits += max(-l.Amount, 0)
				l.Balance = a.Opening + debits - credits
				if !yield(l, nil) {
					return
				}
				after = Place{l.EffectiveOn, l.Seq}
			}
			more = len(page) == linesRead
		}
		if debits != a.Debits || credits != a.Credits {
			yield(StatementLine{}, fmt.Errorf("lines of %s are %s and %s, its days say %s and %s: %w",
				a.Account.Path, debits, credits, a.Debits, a.Credits, ErrBroken))
		}
	}
}

func sealedLines(ctx context.Context, q Querier, path string, g General, after Place) ([]StatementLine, error) {
	rows, err := q.Query(ctx, datedLines, path, g.Sealed, after.On.Time(), after.Seq, g.To.Time(), linesRead)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scanDated)
}
