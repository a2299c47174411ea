package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"guichet/internal/clock"
	"guichet/internal/money"
	"guichet/internal/table"
	"guichet/ledger"
	"guichet/ledger/report"
)

// A reportFlags says how a report leaves. Every report is the desk's, column for column.
type reportFlags struct {
	Format string `default:"csv" enum:"csv,json,xlsx" help:"csv, json or xlsx."`
	Out    string `type:"path" help:"File to write, whole or not at all; standard output when left out."`
	Lang   string `default:"en" enum:"en,fr" help:"Language of account names: en or fr."`
}

// report opens the deployment, asks for a table and writes it.
func (f reportFlags) report(ctx context.Context, e env, ask func(r report.Reports) (table.Table, error)) (err error) {
	w, err := openWorld(ctx, e)
	if err != nil {
		return err
	}
	defer w.close()
	t, err := ask(report.Reports{Books: w.books, DB: w.db, Now: w.clock.Now, Lang: f.Lang})
	if err != nil {
		return err
	}
	for _, fact := range t.Asked {
		if fact.Key == "waiting" && fact.Value != "0" {
			fmt.Fprintf(e.err, "%s entries recorded by now are not in the log yet, and not in the report\n", fact.Value)
		}
	}
	if f.Out == "" {
		return t.Write(e.out, table.Format(f.Format))
	}
	file, err := os.CreateTemp(filepath.Dir(f.Out), "."+filepath.Base(f.Out)+".*")
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	defer os.Remove(file.Name()) // gone already when it was renamed
	if err := t.Write(file, table.Format(f.Format)); err != nil {
		return errors.Join(fmt.Errorf("write report: %w", err), file.Close())
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	if err := os.Rename(file.Name(), f.Out); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// known is the second side of a question about time.
type known struct {
	KnownAt string `aliases:"known" help:"As it was known at this moment, such as 2026-03-01T09:00:00-05:00; now when left out."`
}

func (k known) at() (at time.Time, err error) {
	if k.KnownAt == "" {
		return at, nil
	}
	return time.Parse(time.RFC3339, k.KnownAt)
}

// span is two accounting dates.
type span struct {
	From string `help:"First accounting date, YYYY-MM-DD."`
	To   string `help:"Last accounting date, YYYY-MM-DD."`
}

func (s span) dates() (from, to clock.Date, err error) {
	if from, err = optionalDate(s.From); err != nil {
		return from, to, err
	}
	to, err = optionalDate(s.To)
	return from, to, err
}

func optionalDate(s string) (clock.Date, error) {
	if s == "" {
		return clock.Date{}, nil
	}
	return clock.ParseDate(s)
}

type accountsCmd struct {
	reportFlags `embed:""`
}

func (c *accountsCmd) Run(ctx context.Context, e env) error {
	return c.report(ctx, e, func(r report.Reports) (table.Table, error) {
		list, err := r.Books.AccountTotals(ctx, r.DB, ledger.AsOf{})
		return r.Accounts(list), err
	})
}

type trialCmd struct {
	reportFlags `embed:""`
	known       `embed:""`
	On          string `help:"Accounting date, YYYY-MM-DD; all when left out."`
	Frozen      string `help:"The frozen one of a closed month, YYYY-MM."`
}

func (c *trialCmd) Run(ctx context.Context, e env) (err error) {
	var at ledger.AsOf
	if at.KnownAt, err = c.at(); err != nil {
		return err
	}
	if at.On, err = optionalDate(c.On); err != nil {
		return err
	}
	var month time.Time
	if c.Frozen != "" {
		if month, err = time.Parse("2006-01", c.Frozen); err != nil {
			return fmt.Errorf("month %q: want YYYY-MM", c.Frozen)
		}
		if at != (ledger.AsOf{}) {
			return errors.New("a frozen trial balance is as it was frozen: --frozen goes without --on and --known-at")
		}
	}
	return c.report(ctx, e, func(r report.Reports) (table.Table, error) {
		if c.Frozen == "" {
			trial, err := r.Books.TrialBalanceAsOf(ctx, r.DB, at)
			return r.Trial(trial, at), err
		}
		trial, _, err := r.Books.FrozenTrial(ctx, r.DB, clock.FromTime(month))
		return r.Trial(trial, ledger.AsOf{On: clock.FromTime(month.AddDate(0, 1, -1))}), err
	})
}

type statementCmd struct {
	reportFlags `embed:""`
	span        `embed:""`
	known       `embed:""`
	Account     string `arg:"" help:"Path of the account."`
}

func (c *statementCmd) Run(ctx context.Context, e env) error {
	return c.general(ctx, e, c.span, c.known, ledger.GeneralQuery{Account: c.Account})
}

type generalCmd struct {
	reportFlags `embed:""`
	span        `embed:""`
	known       `embed:""`
	Under       string `help:"Only accounts at or below this path."`
	Department  string `help:"Only accounts of this department."`
}

func (c *generalCmd) Run(ctx context.Context, e env) error {
	return c.general(ctx, e, c.span, c.known, ledger.GeneralQuery{Under: c.Under, Department: c.Department})
}

func (f reportFlags) general(ctx context.Context, e env, s span, k known, q ledger.GeneralQuery) (err error) {
	if q.From, q.To, err = s.dates(); err != nil {
		return err
	}
	if q.KnownAt, err = k.at(); err != nil {
		return err
	}
	return f.report(ctx, e, func(r report.Reports) (table.Table, error) {
		t, err := r.General(ctx, q)
		for _, fact := range t.Asked {
			if fact.Key == "waiting" && fact.Value != "0" {
				fmt.Fprintf(e.err, "%s entries are recorded and not in the accounts yet: ask again in a moment\n", fact.Value)
			}
		}
		return t, err
	})
}

type activityCmd struct {
	reportFlags `embed:""`
	span        `embed:""`
	By          []string `required:"" help:"account, department, fund, cost_centre, order, wbs, channel or tender; several, comma between."`
	Under       string   `help:"Only accounts at or below this path."`
}

func (c *activityCmd) Run(ctx context.Context, e env) (err error) {
	q := ledger.ActivityQuery{By: c.By, Under: c.Under}
	if q.From, q.To, err = c.dates(); err != nil {
		return err
	}
	return c.report(ctx, e, func(r report.Reports) (table.Table, error) { return r.Activity(ctx, q) })
}

type searchCmd struct {
	reportFlags   `embed:""`
	Key           string `help:"Idempotency key."`
	SourceType    string `help:"What caused it, such as payment; with --source."`
	Source        string `help:"Its id."`
	Kind          string `help:"Kind of entry."`
	Account       string `help:"Path of an account that a line is on."`
	Department    string `help:"Department that a line is of."`
	Actor         string `help:"Who recorded it: an opaque id."`
	Channel       string `help:"Where it came in."`
	Words         string `help:"Words of its description, all of them."`
	AmountFrom    string `help:"A line is this much or more, whichever side, such as 12.50; exactly that much without --amount-to."`
	AmountTo      string `help:"A line is this much or less."`
	RecordedFrom  string `help:"First day on which it was recorded; without any date, 31 days back."`
	RecordedTo    string `help:"Last day on which it was recorded."`
	EffectiveFrom string `help:"First accounting date."`
	EffectiveTo   string `help:"Last accounting date."`
}

func (c *searchCmd) Run(ctx context.Context, e env) (err error) {
	q := ledger.EntrySearch{
		Key: c.Key, SourceType: c.SourceType, SourceID: c.Source, Kind: c.Kind, Account: c.Account,
		Department: c.Department, Actor: c.Actor, Channel: c.Channel, Words: c.Words,
	}
	for _, a := range []struct {
		text string
		into *money.Amount
	}{{c.AmountFrom, &q.AmountFrom}, {c.AmountTo, &q.AmountTo}} {
		if a.text == "" {
			continue
		}
		if *a.into, err = money.Parse(a.text); err != nil {
			return err
		}
	}
	for _, d := range []struct {
		text string
		into *clock.Date
	}{{c.RecordedFrom, &q.RecordedFrom}, {c.RecordedTo, &q.RecordedTo}, {c.EffectiveFrom, &q.EffectiveFrom}, {c.EffectiveTo, &q.EffectiveTo}} {
		if *d.into, err = optionalDate(d.text); err != nil {
			return err
		}
	}
	return c.report(ctx, e, func(r report.Reports) (table.Table, error) { return r.Search(ctx, q) })
}

type entryCmd struct {
	reportFlags `embed:""`
	ID          string `arg:"" help:"Id of the entry."`
}

func (c *entryCmd) Run(ctx context.Context, e env) error {
	return c.report(ctx, e, func(r report.Reports) (table.Table, error) { return r.Entry(ctx, c.ID) })
}
