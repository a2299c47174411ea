// Command guichet is the whole service in one binary, and the tools to run it.
//
//	guichet serve      the service, configured by the environment
//	guichet dev        everything on one machine, with simulators: a place to look around
//	guichet demo       the main job without a hand on the keyboard
//	guichet migrate    bring the database to this build's schema
//	guichet nightly    the nightly run of a business date
//	guichet decide     what a person decides where the night may not guess
//	guichet verify     prove the books
//	guichet export     the ledger, for another accounting program
//	guichet ledger     chart, imports, periods, trial balance, statements
//	guichet witness    sign the heads of somebody else's books
//	guichet admin      departments, fees, keys, clients, staff, the mapping to SAP
//	guichet clock      move the business clock, where no real money moves
//	guichet config     the configuration as read, secrets hidden
//
// Only wiring lives here: rules belong to the rooms.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/alecthomas/kong"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], env{get: os.Getenv, out: os.Stdout, err: os.Stderr})
	if err != nil && !errors.Is(err, errShown) {
		fmt.Fprintln(os.Stderr, "guichet:", err)
	}
	if err != nil {
		os.Exit(1)
	}
}

// errShown ends the program with a non-zero status after the fault was printed.
var errShown = errors.New("shown already")

// An env is what a command may know of its process.
type env struct {
	get      func(string) string
	out, err io.Writer
}

type commands struct {
	Serve   serveCmd   `cmd:"" help:"Run the service, configured by the environment."`
	Dev     devCmd     `cmd:"" help:"Run everything on this machine, with simulators and demo departments."`
	Demo    demoCmd    `cmd:"" help:"Run the main job, from a resident's click to a SAP document, and check it."`
	Migrate migrateCmd `cmd:"" help:"Bring the database to this build's schema."`
	Nightly nightlyCmd `cmd:"" help:"Run the nightly job of a business date, and of the dates missed before it."`
	Decide  decideCmd  `cmd:"" help:"Decide what the nightly run may not guess: a match, a file's fate, a closed document."`
	Verify  verifyCmd  `cmd:"" help:"Prove the books: exit status 1 when something is wrong."`
	Export  exportCmd  `cmd:"" help:"Write the ledger for another accounting program."`
	Ledger  ledgerCmd  `cmd:"" help:"Chart of accounts, imports, periods, trial balance, statements."`
	Witness witnessCmd `cmd:"" help:"Look at the log of a service, and sign its head unless it was rewritten."`
	Admin   adminCmd   `cmd:"" help:"Administer departments, fees, keys, clients, staff and the mapping to SAP."`
	Clock   clockCmd   `cmd:"" help:"Move the business clock of a development or sandbox deployment forward."`
	Config  configCmd  `cmd:"" help:"Print the configuration as read, secrets hidden."`
}

// run is main without the process, so that tests and the demo start the real thing.
func run(ctx context.Context, args []string, e env) error {
	var c commands
	exited := -1
	parser, err := kong.New(&c, kong.Name("guichet"), kong.Description("A city's payments and identity service."),
		kong.Vars{"devdir": filepath.Join(stateDir(e.get), "dev"), "demodir": filepath.Join(stateDir(e.get), "demo")},
		kong.UsageOnError(), kong.Writers(e.out, e.err), kong.Exit(func(code int) { exited = code }))
	if err != nil {
		return fmt.Errorf("command line: %w", err)
	}
	k, err := parser.Parse(args)
	if exited >= 0 { // --help has printed itself
		return nil
	}
	if err != nil {
		return err
	}
	k.BindTo(ctx, (*context.Context)(nil))
	k.Bind(e)
	return k.Run()
}
