package main

import (
	"context"
	"encoding/json"
)

// decideCmd is what a person decides where the nightly run may not guess. Each
// takes a reason, which is kept with who said it.
type decideCmd struct {
	Match   decideMatchCmd   `cmd:"" help:"Say that a payout and a bank line are the same money."`
	Attest  decideAttestCmd  `cmd:"" help:"Say whether a file of unknown fate reached SAP."`
	Replace decideReplaceCmd `cmd:"" help:"Free what is in a document that SAP has closed: it goes out under a new number."`
}

// decide opens the deployment, carries a decision out and says so.
func (e env) decide(ctx context.Context, what string, do func(context.Context, *world) error) error {
	w, err := openWorld(ctx, e)
	if err != nil {
		return err
	}
	defer w.close()
	if err := do(asAdmin(ctx), w); err != nil {
		return err
	}
	return json.NewEncoder(e.out).Encode(map[string]string{"decided": what})
}

type decideMatchCmd struct {
	Payout   string `arg:"" help:"Id of the payout."`
	BankLine string `arg:"" help:"Id of the bank line."`
	Reason   string `required:"" help:"Who says so, and why."`
}

func (c *decideMatchCmd) Run(ctx context.Context, e env) error {
	return e.decide(ctx, "match", func(ctx context.Context, w *world) error {
		return w.nightly.Match(ctx, c.Payout, c.BankLine, c.Reason)
	})
}

type decideAttestCmd struct {
	Batch  string `arg:"" help:"Id of the batch."`
	Fate   string `arg:"" enum:"arrived,lost" help:"arrived, or lost: then the same bytes go out again."`
	Reason string `required:"" help:"Who made sure, and how."`
}

func (c *decideAttestCmd) Run(ctx context.Context, e env) error {
	return e.decide(ctx, "attest "+c.Fate, func(ctx context.Context, w *world) error {
		return w.nightly.Attest(ctx, c.Batch, c.Fate == "arrived", c.Reason)
	})
}

type decideReplaceCmd struct {
	Document string `arg:"" help:"Id of the document."`
	Attested string `help:"Who made sure that SAP closed it, when SAP itself has not said so."`
}

func (c *decideReplaceCmd) Run(ctx context.Context, e env) error {
	return e.decide(ctx, "replace", func(ctx context.Context, w *world) error {
		return w.nightly.Replace(ctx, c.Document, c.Attested)
	})
}
