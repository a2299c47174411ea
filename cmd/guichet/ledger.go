package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/clock"
	"guichet/internal/money"
	"guichet/ledger"
	"guichet/payments"
	"guichet/reconcile"
)

// ledgerCmd is what accounting does with the books from a shell.
type ledgerCmd struct {
	Chart     chartCmd     `cmd:"" help:"Bring the accounts to a chart in a CSV file; shows what changes."`
	Import    importCmd    `cmd:"" help:"Bring in opening balances or the history of another system from a CSV file."`
	Period    periodCmd    `cmd:"" help:"Move an accounting month to open, closing or closed."`
	Accounts  accountsCmd  `cmd:"" help:"Report the accounts with what they hold."`
	Trial     trialCmd     `cmd:"" help:"Report the trial balance."`
	Statement statementCmd `cmd:"" help:"Report an account's statement by accounting date."`
	General   generalCmd   `cmd:"" help:"Report the general ledger: every account with its lines."`
	Activity  activityCmd  `cmd:"" help:"Report totals by dimensions."`
	Search    searchCmd    `cmd:"" help:"Report the entries that are looked for."`
	Entry     entryCmd     `cmd:"" help:"Report the lines of one entry."`
	Key       logKeyCmd    `cmd:"" help:"Print the public key of the books' log."`
}

type chartCmd struct {
	File   string `arg:"" type:"existingfile" help:"CSV with a header line: path, name_en, name_fr; department, currency, normal, lowest where wanted."`
	DryRun bool   `help:"Only show what would change."`
}

func (c *chartCmd) Run(ctx context.Context, e env) error {
	chart, err := readFile(c.File, ledger.ReadChart)
	if err != nil {
		return err
	}
	w, err := openWorld(ctx, e)
	if err != nil {
		return err
	}
	defer w.close()
	var changes []ledger.ChartChange
	if c.DryRun {
		changes, err = w.books.DiffChart(ctx, w.db, chart)
	} else {
		err = pgx.BeginFunc(asAdmin(ctx), w.db, func(tx pgx.Tx) (err error) {
			changes, err = w.books.LoadChart(asAdmin(ctx), tx, chart)
			return err
		})
	}
	for _, change := range changes {
		fmt.Fprintln(e.out, change)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(e.out, "%d accounts in the chart, %d differences\n", len(chart), len(changes))
	return nil
}

// readFile reads a file with a reader of the books.
func readFile[T any](path string, read func(r io.Reader) (T, error)) (T, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		var none T
		return none, err
	}
	return read(bytes.NewReader(text))
}

type importCmd struct {
	Name    string `arg:"" help:"What the import is called for good."`
	File    string `arg:"" type:"existingfile" help:"CSV with a header line: entry, effective_on, account, debit, credit; description and dimensions where wanted."`
	Kind    string `default:"history" enum:"opening,history" help:"opening or history."`
	Entries int64  `required:"" help:"How many entries the other system says there are."`
	Debits  string `required:"" help:"The sum of their debits, such as 1234.56."`
	By      string `required:"" help:"Who brings them in: an opaque id."`
}

func (c *importCmd) Run(ctx context.Context, e env) error {
	debits, err := money.Parse(c.Debits)
	if err != nil {
		return err
	}
	file, err := os.Open(c.File)
	if err != nil {
		return err
	}
	defer file.Close()
	return e.do(ctx, func(ctx context.Context, w *world, tx pgx.Tx) (any, error) {
		im, err := w.books.Import(ctx, tx, ledger.Migration{Name: c.Name, Kind: c.Kind, Entries: c.Entries, Debits: debits, Actor: c.By}, file)
		return map[string]any{
			"import": im.Name, "kind": im.Kind, "entries": im.Entries, "lines": im.Lines, "debits": im.Debits.String(),
			"first": im.First.String(), "last": im.Last.String(), "file_sha256": hex.EncodeToString(im.FileHash), "imported_at": im.ImportedAt,
		}, err
	})
}

type periodCmd struct {
	Month string `arg:"" help:"Accounting month, YYYY-MM."`
	State string `arg:"" enum:"open,closing,closed" help:"open, closing or closed. Closed is final."`
}

// Run closes only what is proved: the rules of bills, credits, receipts, clearing,
// suspense, payouts and SAP's documents must hold.
func (c *periodCmd) Run(ctx context.Context, e env) error {
	first, err := time.Parse("2006-01", c.Month)
	if err != nil {
		return fmt.Errorf("month %q: want YYYY-MM", c.Month)
	}
	month := clock.FromTime(first)
	return e.do(ctx, func(ctx context.Context, w *world, tx pgx.Tx) (any, error) {
		if err := w.books.SetPeriod(ctx, tx, month, ledger.PeriodState(c.State), append(w.payments.Checks(), reconcile.Check)...); err != nil {
			return nil, err
		}
		result := map[string]any{"month": c.Month, "state": c.State}
		if c.State == string(ledger.PeriodClosed) {
			trial, hash, err := w.books.FrozenTrial(ctx, tx, month)
			if err != nil {
				return nil, err
			}
			result["accounts"], result["trial_hash"] = len(trial), hex.EncodeToString(hash)
		}
		return result, nil
	})
}

type logKeyCmd struct{}

func (*logKeyCmd) Run(ctx context.Context, e env) error {
	w, err := openWorld(ctx, e)
	if err != nil {
		return err
	}
	defer w.close()
	key, err := w.books.LogVerifier(ctx, w.db)
	if err != nil {
		return err
	}
	fmt.Fprintln(e.out, key)
	return nil
}

// verifyExport proves an export without a database.
func verifyExport(e env, export, log string, heads []string) error {
	verifier, err := ledger.ReadVerifier(log)
	if err != nil {
		return err
	}
	saved, err := readHeads(heads)
	if err != nil {
		return err
	}
	file, err := os.Open(export)
	if err != nil {
		return err
	}
	defer file.Close()
	sum, found, err := ledger.VerifyExport(file, ledger.Known{Log: verifier, Heads: saved, Series: []string{payments.Receipts().Name}})
	if err != nil {
		return err
	}
	for _, f := range found {
		fmt.Fprintln(e.out, f)
	}
	if len(found) > 0 {
		return errShown
	}
	fmt.Fprintf(e.out, "the export is sound: %d entries sealed under root %s, %d waiting, debits of %s, %d accounts, receipts 1 to %d; it agrees with %d saved heads\n",
		sum.Entries, sum.Root, sum.Waiting, sum.Debits, sum.Accounts, sum.Series[payments.Receipts().Name], sum.Heads)
	return nil
}

func readHeads(files []string) ([]string, error) {
	var heads []string
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		heads = append(heads, string(text))
	}
	return heads, nil
}

// witnessCmd is run by somebody else, on another machine.
type witnessCmd struct {
	URL    string `arg:"" optional:"" help:"Address of the service; its head and proof are under /ledger."`
	LogKey string `help:"Public key of the log, from 'guichet ledger key', learned once and kept."`
	Key    string `required:"" help:"File with the witness's own key; made when it is not there." type:"path"`
	Name   string `help:"Name of the witness, for a new key."`
	Dir    string `required:"" help:"Where the heads it has signed are kept." type:"path"`
}

// Run looks at the log once: a timer of the machine calls it again.
func (c *witnessCmd) Run(ctx context.Context, e env) error {
	signer, public, err := ledger.WitnessKey(c.Key, c.Name)
	if err != nil {
		return err
	}
	if c.URL == "" {
		fmt.Fprintln(e.out, public)
		return nil
	}
	log, err := ledger.ReadVerifier(c.LogKey)
	if err != nil {
		return err
	}
	w := ledger.Witness{Log: log, Signer: signer, Dir: c.Dir}
	_, size, err := w.Last()
	if err != nil {
		return err
	}
	text, err := fetch(ctx, c.URL+"/ledger/consistency?from="+strconv.FormatInt(size, 10))
	if err != nil {
		return err
	}
	var proof ledger.Consistency
	if err := json.Unmarshal(text, &proof); err != nil {
		return fmt.Errorf("proof of the log: %w", err)
	}
	signed, err := w.See(proof)
	if errors.Is(err, ledger.ErrLog) {
		return fmt.Errorf("THE LOG WAS REWRITTEN since %d entries: %w", size, err)
	}
	if err != nil {
		return err
	}
	fmt.Fprint(e.out, signed)
	return nil
}

// maxProof bounds what a witness reads: a proof has a hash or two per doubling.
const maxProof = 1 << 20

func fetch(ctx context.Context, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxProof))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", url, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s: %.200s", url, resp.Status, text)
	}
	return text, nil
}
