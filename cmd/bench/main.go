// Command bench measures what Guichet promises about speed: each benchmark runs
// ways of doing the same work in turn, on one database, and prints ratios against a
// named baseline. Rates swing with the machine; ratios are what to compare.
//
//	bench                    every benchmark
//	bench ledger --json      one, for machines: {"name": …, "rates": …, "ratios": …}
//
// Rounds are interleaved (A B, then B A, …), so that a machine that slows down slows
// all of them, and the median of the rounds counts. The database is a PostgreSQL of
// its own with fsync on, or a database made for the run on the server of DATABASE_URL;
// it is removed afterwards.
//
// A new benchmark is a file with a function of type func(context.Context, *lab) error
// and a line in the table below.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

// benchmarks by name, in the order in which they run.
var benchmarks = []benchmark{
	{"ledger", []int{16, 128}, "a payment's transaction with its journal entry, over one hot account, over spread accounts, and with balance rows", ledgerBench},
	{"sustain", []int{128}, "appends to one account for --time, the accounts following: rate, lag, checkpoints, autovacuum, bytes an entry", sustainBench},
	{"balances", []int{1}, "balances and statements of an account of ten thousand postings and of one with --postings", balancesBench},
	{"payment", []int{1, 16}, "from the processor's webhook to the committed payment, and the same rows written by one plain transaction", paymentBench},
	{"oidc", []int{1, 8, 32}, "a signed-in person's complete code flow, beside one signature and beside its six round trips", oidcBench},
}

type benchmark struct {
	name    string
	callers []int // unless asked otherwise
	about   string
	run     func(context.Context, *lab) error
}

// options of every benchmark.
type options struct {
	Names    []string      `arg:"" optional:"" help:"Benchmarks to run; none: all."`
	JSON     bool          `help:"Print one JSON object per benchmark and nothing else."`
	Pairs    int           `default:"5" help:"Rounds of each comparison; the median counts."`
	Time     time.Duration `default:"3s" help:"Length of one run."`
	Callers  []int         `help:"Numbers of concurrent callers; none: what the benchmark is about."`
	Picture  string        `help:"Draw rate and lag of sustain into this file, as SVG." type:"path"`
	Postings int           `default:"1000000" help:"Postings of the large account of balances."`
	Dir      string        `help:"Where the private PostgreSQL keeps its data; a disk, not memory." type:"path"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Getenv, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, getenv func(string) string, out io.Writer) (err error) {
	var about strings.Builder
	for _, b := range benchmarks {
		fmt.Fprintf(&about, "%s: %s.\n", b.name, b.about)
	}
	var o options
	parser, err := kong.New(&o, kong.Name("bench"), kong.Description(about.String()))
	if err != nil {
		return err
	}
	if _, err := parser.Parse(args); err != nil {
		return err
	}
	if o.Pairs < 1 || o.Time <= 0 || slices.ContainsFunc(o.Callers, func(n int) bool { return n < 1 }) {
		return errors.New("pairs, time and callers are above zero")
	}
	var chosen []benchmark
	for _, name := range o.Names {
		i := slices.IndexFunc(benchmarks, func(b benchmark) bool { return b.name == name })
		if i < 0 {
			return fmt.Errorf("no benchmark %q; there are:\n%s", name, about.String())
		}
		chosen = append(chosen, benchmarks[i])
	}
	if len(chosen) == 0 {
		chosen = benchmarks
	}
	s, err := newServer(ctx, o.Dir, getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	for _, b := range chosen {
		if err := measure(ctx, s, b, o, out); err != nil {
			return fmt.Errorf("%s: %w", b.name, err)
		}
	}
	return nil
}

// measure runs one benchmark on a database of its own and prints what it found.
func measure(ctx context.Context, s *server, b benchmark, o options, out io.Writer) (err error) {
	url, drop, err := s.database(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, drop()) }()
	if len(o.Callers) == 0 {
		o.Callers = b.callers
	}
	progress := out
	if o.JSON {
		progress = io.Discard
	}
	l := &lab{options: o, url: url, out: progress, result: result{Name: b.name, Rates: map[string]float64{}, Ratios: map[string]float64{}, Counts: map[string]int{}}}
	fmt.Fprintf(progress, "%s: %s\n", b.name, b.about)
	if err := b.run(ctx, l); err != nil {
		return err
	}
	return l.print(out)
}
