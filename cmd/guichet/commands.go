package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"guichet/internal/clock"
	"guichet/internal/config"
	"guichet/internal/database"
	"guichet/ledger"
	"guichet/migrations"
	"guichet/payments"
	"guichet/reconcile"
)

type configCmd struct{}

func (*configCmd) Run(e env) error {
	cfg, err := config.Read(e.get)
	if err != nil {
		return err
	}
	return cfg.Print(e.out)
}

type migrateCmd struct{}

func (*migrateCmd) Run(ctx context.Context, e env) error {
	cfg, err := config.Read(e.get)
	if err != nil {
		return err
	}
	if err := database.CheckOwner(ctx, cfg.DatabaseURL.Reveal()); err != nil {
		return err
	}
	if err := migrations.Up(ctx, cfg.DatabaseURL.Reveal()); err != nil {
		return err
	}
	fmt.Fprintln(e.out, "the database is at this build's schema")
	return nil
}

type nightlyCmd struct {
	Date    string `arg:"" optional:"" help:"Business date, YYYY-MM-DD; yesterday's when left out."`
	Answers bool   `help:"Only read what SAP has answered since."`
}

func (c *nightlyCmd) Run(ctx context.Context, e env) error {
	w, err := openWorld(ctx, e)
	if err != nil {
		return err
	}
	defer w.close()
	out := json.NewEncoder(e.out)
	out.SetIndent("", "  ")
	if c.Answers {
		read, err := w.nightly.ReadAnswers(asAdmin(ctx))
		if err != nil {
			return err
		}
		return out.Encode(read)
	}
	date := clock.DateOf(w.clock.Now()).AddDays(-1)
	if c.Date != "" {
		if date, err = clock.ParseDate(c.Date); err != nil {
			return err
		}
	}
	if date.After(clock.DateOf(w.clock.Now())) { // or the dates before it would be run, today's too
		return fmt.Errorf("nightly run of %s: %w", date, reconcile.ErrFuture)
	}
	// What was missed comes first: a later date would settle what an earlier one has not seen.
	if err := w.nightly.CatchUp(asAdmin(ctx), date.AddDays(-1)); err != nil {
		return err
	}
	report, err := w.nightly.Run(asAdmin(ctx), date)
	if err != nil {
		return err
	}
	return out.Encode(report)
}

type clockCmd struct {
	Forward time.Duration `arg:"" help:"How far, such as 48h."`
}

// Run moves the clock of a development or sandbox deployment; its processes notice
// within a second. Time that has been seen stays in the past.
func (c *clockCmd) Run(ctx context.Context, e env) error {
	w, err := openWorld(ctx, e)
	if err != nil {
		return err
	}
	defer w.close()
	if w.cfg.Env == config.Production {
		return errors.New("the clock of production cannot be moved")
	}
	ahead, err := database.Advance(ctx, w.db, c.Forward)
	if err != nil {
		return err
	}
	fmt.Fprintf(e.out, "the business clock is ahead by %s\n", ahead)
	return nil
}

type verifyCmd struct {
	Export string   `help:"Prove this export (jsonl) instead of the database; nothing else is needed." type:"existingfile"`
	LogKey string   `help:"Public key of the log, from 'guichet ledger key'; goes with --export."`
	Head   []string `help:"Head of the log that was saved before; may be given again." type:"existingfile"`
}

func (c *verifyCmd) Run(ctx context.Context, e env) error {
	if c.Export != "" {
		return verifyExport(e, c.Export, c.LogKey, c.Head)
	}
	w, err := openWorld(ctx, e)
	if err != nil {
		return err
	}
	defer w.close()
	lines, err := w.verify(ctx)
	if err != nil {
		return err
	}
	rewritten, err := w.verifyHeads(ctx, c.Head)
	if err != nil {
		return err
	}
	lines = append(lines, rewritten...)
	for _, l := range lines {
		fmt.Fprintln(e.out, l)
	}
	if len(lines) > 0 {
		return errShown
	}
	fmt.Fprintln(e.out, "the books are sound")
	return nil
}

// verifyHeads compares saved heads with the log, and returns those it contradicts.
func (w *world) verifyHeads(ctx context.Context, files []string) (lines []string, err error) {
	if len(files) == 0 {
		return nil, nil
	}
	heads, err := readHeads(files)
	if err != nil {
		return nil, err
	}
	key, err := w.books.LogVerifier(ctx, w.db)
	if err != nil {
		return nil, err
	}
	verifier, err := ledger.ReadVerifier(key)
	if err != nil {
		return nil, err
	}
	for i, head := range heads {
		err := ledger.VerifyHead(ctx, w.db, head, verifier)
		switch {
		case errors.Is(err, ledger.ErrLog), errors.Is(err, ledger.ErrProof):
			lines = append(lines, fmt.Sprintf("saved head: %s: %v", files[i], err))
		case err != nil:
			return nil, err
		}
	}
	return lines, nil
}

// verify proves the books and returns what is wrong, a line each.
func (w *world) verify(ctx context.Context) ([]string, error) {
	var lines []string
	found, err := ledger.Verify(ctx, w.db, append(w.payments.Checks(), reconcile.Check)...)
	if err != nil {
		return nil, err
	}
	for _, f := range found {
		lines = append(lines, f.String())
	}
	return lines, nil
}

type exportCmd struct {
	Format string `default:"hledger" enum:"hledger,beancount,jsonl" help:"hledger, beancount or jsonl."`
}

func (c *exportCmd) Run(ctx context.Context, e env) error {
	w, err := openWorld(ctx, e)
	if err != nil {
		return err
	}
	defer w.close()
	switch c.Format {
	case "beancount":
		return ledger.ExportBeancount(ctx, w.db, e.out)
	case "jsonl":
		return ledger.ExportJSONL(ctx, w.db, e.out, payments.Receipts())
	}
	return ledger.ExportHledger(ctx, w.db, e.out)
}

// pollEvery is how often a command looks whether what it waits for has happened.
const pollEvery = 100 * time.Millisecond
