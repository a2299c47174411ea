// Package report lays out what the books say as tables, for the desk and for the
// shell alike: each report is one description of its columns, which table writes
// in any format. What the figures are is decided in ledger.
//
//	ledger ──accounts, trial balance, general ledger, activity, entries──▶ table.Table
//
// Short reports are read in one snapshot before they return. The general ledger and the
// search are read while they are written; the general ledger ends with an error
// unless its lines add up.
package report

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"guichet/internal/clock"
	"guichet/internal/money"
	"guichet/internal/table"
	"guichet/ledger"
)

// DB is a pool.
type DB interface {
	ledger.Querier
	ledger.Beginner
}

// Reports are asked for in the language of the reader, which names of accounts are in.
type Reports struct {
	Books *ledger.Books
	DB    DB
	Now   func() time.Time
	Lang  string // en or fr
}

// Name is an account's name in a language.
func Name(a ledger.Account, lang string) string {
	if lang == "fr" {
		return a.NameFR
	}
	return a.NameEN
}

// table is a report with what was asked; facts without a value were not.
func (r Reports) table(name, file string, columns []table.Column, facts ...table.Fact) table.Table {
	t := table.Table{Name: name, File: file, Columns: columns, At: r.Now()}
	for _, f := range facts {
		if f.Value != "" {
			t.Asked = append(t.Asked, f)
		}
	}
	return t
}

func fact(key, value string) table.Fact { return table.Fact{Key: key, Value: value} }

func onDay(key string, d clock.Date) table.Fact {
	if d == (clock.Date{}) {
		return table.Fact{Key: key}
	}
	return fact(key, d.String())
}

func atMoment(key string, t time.Time) table.Fact {
	if t.IsZero() {
		return table.Fact{Key: key}
	}
	return fact(key, t.In(clock.Toronto).Format(time.RFC3339))
}

func amount(key string, a money.Amount) table.Fact {
	if a == 0 {
		return table.Fact{Key: key}
	}
	return fact(key, a.String())
}

// Accounts lays out accounts with what they hold.
func (r Reports) Accounts(list []ledger.TrialLine, facts ...table.Fact) table.Table {
	t := r.table("accounts", "", []table.Column{
		table.Text("account"), table.Text("account_name"), table.Text("type"), table.Text("department"), table.Text("state"), table.Text("normal"),
		table.Text("currency"), table.Amount("limit"), table.Amount("balance"),
	}, facts...)
	t.Rows = table.Of(list, func(l ledger.TrialLine) []any {
		a := l.Account
		var limit any
		if a.Lowest != nil {
			limit = *a.Lowest
		}
		side := "debit"
		if a.Normal == ledger.Credit {
			side = "credit"
		}
		return []any{a.Path, Name(a, r.Lang), string(a.Type), a.Department, string(a.State), side, a.Currency, limit, l.Balance}
	})
	return t
}

// Trial lays out a trial balance.
func (r Reports) Trial(list []ledger.TrialLine, at ledger.AsOf) table.Table {
	file := "trial-balance"
	if at.On != (clock.Date{}) {
		file += "-" + at.On.String()
	}
	t := r.table("trial-balance", file, []table.Column{
		table.Text("account"), table.Text("account_name"), table.Text("type"), table.Text("department"), table.Text("currency"),
		table.Amount("debits"), table.Amount("credits"), table.Amount("balance"),
	}, onDay("on", at.On), atMoment("known_at", at.KnownAt))
	t.Rows = table.Of(list, func(l ledger.TrialLine) []any {
		a := l.Account
		return []any{a.Path, Name(a, r.Lang), string(a.Type), a.Department, a.Currency, l.Debits, l.Credits, l.Balance}
	})
	return t
}

// General reads the general ledger, or with Account a statement by accounting date. For
// each account there is a row "opening", its lines, and a row "closing" with what
// moved; in the end a row "total" per currency.
func (r Reports) General(ctx context.Context, q ledger.GeneralQuery) (table.Table, error) {
	g, err := r.Books.General(ctx, r.DB, q)
	if err != nil {
		return table.Table{}, err
	}
	name, file := "general-ledger", ""
	if q.Account != "" {
		name, file = "statement", "statement-"+q.Account
	}
	t := r.table(name, file, []table.Column{
		table.Text("row"), table.Text("account"), table.Text("account_name"), table.Count("number"), table.Day("effective"), table.Moment("recorded"),
		table.Text("kind"), table.Text("what"), table.Text("source_type"), table.Text("source"),
		table.Amount("debit"), table.Amount("credit"), table.Amount("balance"), table.Text("currency"), table.Text("entry"),
	}, fact("account", q.Account), fact("under", q.Under), fact("department", q.Department), onDay("from", q.From), onDay("to", q.To),
		atMoment("known_at", q.KnownAt), fact("sealed", strconv.FormatInt(g.Sealed, 10)), fact("waiting", strconv.FormatInt(g.Waiting, 10)))
	t.Rows = r.generalRows(ctx, g)
	return t, nil
}

func (r Reports) generalRows(ctx context.Context, g ledger.General) table.Rows {
	return func(yield func([]any, error) bool) {
		for _, a := range g.Accounts {
			path, name, currency := a.Account.Path, Name(a.Account, r.Lang), a.Account.Currency
			sum := func(row string, debits, credits, balance any) []any {
				return []any{row, path, name, nil, nil, nil, nil, nil, nil, nil, debits, credits, balance, currency, nil}
			}
			if !yield(sum("opening", nil, nil, a.Opening), nil) {
				return
			}
			for l, err := range r.Books.GeneralLines(ctx, r.DB, g, a) {
				if err != nil {
					yield(nil, err)
					return
				}
				debit, credit := sides(l.Amount)
				if !yield([]any{
					"line", path, name, l.Seq, l.EffectiveOn, l.RecordedAt, l.Kind, l.Description, l.SourceType, l.SourceID,
					debit, credit, l.Balance, currency, l.EntryID,
				}, nil) {
					return
				}
			}
			if !yield(sum("closing", a.Debits, a.Credits, a.Closing), nil) {
				return
			}
		}
		for _, s := range g.Totals() {
			if !yield([]any{"total", nil, nil, nil, nil, nil, nil, nil, nil, nil, s.Debits, s.Credits, s.Closing, s.Currency, nil}, nil) {
				return
			}
		}
	}
}

// sides puts an amount into the column of its side.
func sides(a money.Amount) (debit, credit any) {
	if a > 0 {
		return a, nil
	}
	return nil, -a
}

// ErrTooMany: the report would have more rows than it may.
var ErrTooMany = errors.New("too many rows for a report")

// maxGroups bounds the rows of an activity report. More are refused, never cut: the
// rest would not add up.
const maxGroups = 100_000

// Activity reads totals by dimensions, or returns ErrTooMany.
func (r Reports) Activity(ctx context.Context, q ledger.ActivityQuery) (table.Table, error) {
	q.Limit = maxGroups + 1
	list, err := r.Books.Activity(ctx, r.DB, q)
	if err != nil {
		return table.Table{}, err
	}
	if len(list) > maxGroups {
		return table.Table{}, fmt.Errorf("activity of more than %d groups: %w", maxGroups, ErrTooMany)
	}
	var columns []table.Column
	for _, by := range q.By {
		columns = append(columns, table.Text(by))
	}
	columns = append(columns, table.Text("currency"), table.Amount("debits"), table.Amount("credits"), table.Amount("balance"))
	t := r.table("activity", "activity-by-"+strings.Join(q.By, "-"), columns,
		fact("by", strings.Join(q.By, ",")), fact("under", q.Under), onDay("from", q.From), onDay("to", q.To))
	t.Rows = table.Of(list, func(l ledger.ActivityLine) []any {
		row := make([]any, 0, len(columns))
		for _, by := range q.By {
			row = append(row, l.Value(by))
		}
		return append(row, l.Currency, l.Debits, l.Credits, l.Debits-l.Credits)
	})
	return t, nil
}

// Search lays out entries that are found, all of them, the last recorded first.
func (r Reports) Search(ctx context.Context, s ledger.EntrySearch) (table.Table, error) {
	found, err := r.Books.FindEntries(ctx, r.DB, s)
	if err != nil {
		return table.Table{}, err
	}
	a := found.Asked
	t := r.table("entries", "", []table.Column{
		table.Moment("recorded"), table.Day("effective"), table.Day("asked_on"), table.Text("kind"), table.Text("what"), table.Text("source_type"), table.Text("source"),
		table.Amount("amount"), table.Text("currency"), table.Text("layer"), table.Text("actor"), table.Text("channel"), table.Text("entry"), table.Text("key"),
		table.Text("reverses"), table.Text("corrects"), table.Text("hold"),
	}, fact("entry", a.ID), fact("key", a.Key), fact("source_type", a.SourceType), fact("source", a.SourceID), fact("kind", a.Kind),
		fact("account", a.Account), fact("department", a.Department), fact("actor", a.Actor), fact("channel", a.Channel), fact("words", a.Words),
		amount("amount_from", a.AmountFrom), amount("amount_to", a.AmountTo), onDay("recorded_from", a.RecordedFrom), onDay("recorded_to", a.RecordedTo),
		onDay("effective_from", a.EffectiveFrom), onDay("effective_to", a.EffectiveTo))
	t.Rows = func(yield func([]any, error) bool) {
		for e, err := range r.Books.EachFound(ctx, r.DB, found) {
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(entryRow(e), nil) {
				return
			}
		}
	}
	return t, nil
}

func entryRow(e ledger.Entry) []any {
	var debits money.Amount
	for _, l := range e.Lines {
		debits += max(l.Amount, 0)
	}
	layer := "booked"
	if e.Held {
		layer = "held"
	}
	return []any{
		e.RecordedAt, e.EffectiveOn, e.AskedOn, e.Kind, e.Description, e.SourceType, e.SourceID, debits, e.Currency, layer,
		e.Actor, e.Channel, e.ID, e.Key, e.Reverses, e.Corrects, e.Hold,
	}
}

// Entry lays out the lines of one entry, with the names of its accounts.
func (r Reports) Entry(ctx context.Context, entryID string) (table.Table, error) {
	e, err := r.Books.Entry(ctx, r.DB, entryID)
	if err != nil {
		return table.Table{}, err
	}
	accounts, err := r.Books.AccountsOf(ctx, r.DB, e)
	if err != nil {
		return table.Table{}, err
	}
	t := r.table("entry", "entry-"+e.ID, []table.Column{
		table.Count("line"), table.Text("account"), table.Text("account_name"), table.Text("department"), table.Text("fund"), table.Text("cost_centre"),
		table.Text("order"), table.Text("wbs"), table.Text("channel"), table.Text("tender"), table.Amount("debit"), table.Amount("credit"), table.Text("currency"),
	}, fact("entry", e.ID), fact("key", e.Key), fact("kind", e.Kind), onDay("effective", e.EffectiveOn), onDay("asked_on", e.AskedOn), atMoment("recorded", e.RecordedAt),
		fact("source_type", e.SourceType), fact("source", e.SourceID), fact("what", e.Description), fact("actor", e.Actor),
		fact("reverses", e.Reverses), fact("corrects", e.Corrects), fact("hold", e.Hold))
	line := 0
	t.Rows = table.Of(e.Lines, func(l ledger.Line) []any {
		line++
		d := l.Dimensions
		debit, credit := sides(l.Amount)
		return []any{
			line, l.Account, Name(accounts[l.Account], r.Lang), d.Department, d.Fund, d.CostCentre, d.Order, d.WBS, d.Channel, d.Tender,
			debit, credit, e.Currency,
		}
	})
	return t, nil
}
