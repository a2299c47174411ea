package reconcile

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"guichet/internal/audit"
	"guichet/internal/clock"
	"guichet/internal/jobs"
	"guichet/ledger"
	"guichet/payments"
	"guichet/reconcile/sap"
)

var (
	// ErrBusy: another instance is at work on the nightly run. Come back later.
	ErrBusy = errors.New("another instance is at work on the nightly run")
	// ErrFuture: the business date has not begun.
	ErrFuture = errors.New("the business date lies in the future")
	// ErrNotFound: no such exception, payout, document or batch.
	ErrNotFound = errors.New("not found")
)

// A Querier is a pool, a connection or a transaction.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Parts are what the nightly run works with.
type Parts struct {
	DB        *pgxpool.Pool
	Books     *ledger.Books
	Payments  *payments.Service
	Processor payments.Processor
	Queue     *jobs.Queue
	Writer    *sap.Writer
	Handover  sap.Handover
	Now       func() time.Time
	Log       *slog.Logger
}

// Config is what a city sets.
type Config struct {
	Inbox        string // directory of bank statements; taken ones move to its folders done and refused. Empty: none are read
	BankAccount  string // the account's number as its statements write it; goes with Inbox
	CompanyCode  string // SAP's, of every document
	DocumentType string // SAP's; empty: SA
	Owner        string // of new exceptions; empty: finance
}

// Nightly is the nightly run and what people do with its results. It may be used
// by many goroutines and instances at once.
type Nightly struct {
	db        *pgxpool.Pool
	books     *ledger.Books
	payments  *payments.Service
	processor payments.Processor
	queue     *jobs.Queue
	writer    *sap.Writer
	handover  sap.Handover
	now       func() time.Time
	log       *slog.Logger
	cfg       Config
}

// New returns the nightly run over its parts. Without a Place in the hand-over,
// documents are built and kept until there is one.
func New(p Parts, cfg Config) (*Nightly, error) {
	cfg.DocumentType = cmp.Or(cfg.DocumentType, "SA")
	cfg.Owner = cmp.Or(cfg.Owner, "finance")
	if cfg.Inbox != "" && cfg.BankAccount == "" {
		return nil, errors.New("nightly run: an inbox of statements needs the number of the bank account")
	}
	if len(cfg.CompanyCode) != 4 {
		return nil, fmt.Errorf("nightly run: company code %q: want 4 characters", cfg.CompanyCode)
	}
	return &Nightly{
		db: p.DB, books: p.Books, payments: p.Payments, processor: p.Processor, queue: p.Queue, writer: p.Writer,
		handover: p.Handover, now: p.Now, log: p.Log, cfg: cfg,
	}, nil
}

// Accounts that reconciliation posts to.
const (
	bankAccount     = "assets:bank:main"
	hstAccount      = "liabilities:hst"
	suspenseAccount = "liabilities:suspense:unexplained"
	feesAccount     = "expenses:processor-fees"
)

// central is the department of what belongs to no single one: the processor's
// fees, suspense, payers' credits.
const central = "central"

// OpenAccounts opens the accounts of reconciliation; clearing is payments' own.
// Calling it again changes nothing.
func OpenAccounts(ctx context.Context, tx pgx.Tx, books *ledger.Books) error {
	for _, a := range []ledger.Account{
		{Path: bankAccount, NameEN: "Bank, main account", NameFR: "Banque, compte principal"},
		{Path: hstAccount, NameEN: "HST collected", NameFR: "TVH perçue"},
		{Path: suspenseAccount, NameEN: "Suspense: unexplained", NameFR: "Compte d’attente : inexpliqué"},
		{Path: feesAccount, NameEN: "Card processor’s fees", NameFR: "Frais du processeur de cartes"},
	} {
		if err := books.OpenAccount(ctx, tx, a); err != nil {
			return err
		}
	}
	return nil
}

// A step of the run. What it returns is kept as its result.
type step struct {
	name string
	run  func(*Nightly, context.Context, clock.Date) (any, error)
}

// steps are the run, in order. Each may be repeated at any time.
var steps = []step{
	{"pull", (*Nightly).pull},
	{"statements", (*Nightly).takeStatements},
	{"match", (*Nightly).match},
	{"settle", (*Nightly).settle},
	{"credits", (*Nightly).tellCredits},
	{"documents", (*Nightly).buildDocuments},
	{"deliver", func(n *Nightly, ctx context.Context, _ clock.Date) (any, error) { return n.Deliver(ctx) }},
	{"answers", func(n *Nightly, ctx context.Context, _ clock.Date) (any, error) { return n.ReadAnswers(ctx) }},
}

// Run does the nightly run of a business date and returns its report. Steps that
// are done are skipped, so it goes on where it was cut; a finished date is
// returned as it ended. Errors: ErrBusy, ErrFuture, or what a step ran into,
// after which Run may be called again.
func (n *Nightly) Run(ctx context.Context, date clock.Date) (Report, error) {
	if date.After(clock.DateOf(n.now())) {
		return Report{}, fmt.Errorf("nightly run of %s: %w", date, ErrFuture)
	}
	release, err := n.lock(ctx, nightlyLock)
	if err != nil {
		return Report{}, fmt.Errorf("nightly run of %s: %w", date, err)
	}
	defer release()
	if _, err := n.db.Exec(ctx, `insert into reconcile.run (business_date, state, started_at) values ($1, 'running', $2) on conflict do nothing`,
		date.Time(), n.now()); err != nil {
		return Report{}, fmt.Errorf("nightly run of %s: %w", date, err)
	}
	done, err := n.finished(ctx, date)
	if err != nil {
		return Report{}, err
	}
	if done != nil {
		return *done, nil
	}
	for _, s := range steps {
		if err := n.do(ctx, date, s); err != nil {
			return Report{}, fmt.Errorf("nightly run of %s: %s: %w", date, s.name, err)
		}
	}
	return n.finish(ctx, date)
}

// Advisory locks of this package.
const (
	nightlyLock  = 7482071
	handoverLock = 7482072
)

// lock keeps two instances from doing the same at once, or returns ErrBusy. It is a
// courtesy, not the safety: each step is safe beside another by keys and row locks.
func (n *Nightly) lock(ctx context.Context, key int64) (release func(), err error) {
	conn, err := n.db.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	var got bool
	if err := conn.QueryRow(ctx, `select pg_try_advisory_lock($1)`, key).Scan(&got); err != nil || !got {
		conn.Release()
		return nil, cmp.Or(err, error(ErrBusy))
	}
	return func() {
		// If it fails the connection is broken, and the lock has gone with it.
		_, _ = conn.Exec(context.WithoutCancel(ctx), `select pg_advisory_unlock($1)`, key)
		conn.Release()
	}, nil
}

// do runs one step unless it is done, and records how it ended.
func (n *Nightly) do(ctx context.Context, date clock.Date, s step) error {
	var state string
	err := n.db.QueryRow(ctx, `
		insert into reconcile.step as s (business_date, name, state, attempts, started_at) values ($1, $2, 'running', 1, $3)
		on conflict (business_date, name) do update
			set state = case s.state when 'done' then 'done' else 'running' end,
				attempts = s.attempts + case s.state when 'done' then 0 else 1 end,
				started_at = case s.state when 'done' then s.started_at else excluded.started_at end
		returning state`, date.Time(), s.name, n.now()).Scan(&state)
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	if state == "done" {
		return nil
	}
	result, failure := s.run(n, ctx, date)
	if failure != nil {
		// The step's own context may have ended; its failure is kept all the same.
		if _, err := n.db.Exec(context.WithoutCancel(ctx), `
			update reconcile.step set state = 'failed', finished_at = $3, error = $4 where business_date = $1 and name = $2`,
			date.Time(), s.name, n.now(), failure.Error()); err != nil {
			return errors.Join(failure, err)
		}
		return failure
	}
	text, err := json.Marshal(result)
	if err != nil {
		return fmt.Errorf("keep result: %w", err)
	}
	if _, err := n.db.Exec(ctx, `
		update reconcile.step set state = 'done', finished_at = $3, error = '', result = $4 where business_date = $1 and name = $2`,
		date.Time(), s.name, n.now(), text); err != nil {
		return fmt.Errorf("end: %w", err)
	}
	n.log.InfoContext(ctx, "nightly step done", "date", date.String(), "step", s.name, "result", string(text))
	return nil
}

// finished returns the report of a date whose run has ended, or nil.
func (n *Nightly) finished(ctx context.Context, date clock.Date) (*Report, error) {
	r, err := ReportOf(ctx, n.db, date)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return &r, err
}

// finish writes the report and ends the run.
func (n *Nightly) finish(ctx context.Context, date clock.Date) (r Report, err error) {
	err = pgx.BeginFunc(ctx, n.db, func(tx pgx.Tx) error {
		if r, err = report(ctx, tx, date); err != nil {
			return err
		}
		text, err := json.Marshal(r)
		if err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, `
			update reconcile.run set state = 'done', finished_at = $2, report = $3 where business_date = $1 and state = 'running'`,
			date.Time(), n.now(), text)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		return audit.Record(ctx, tx, audit.Event{Action: "nightly.finished", ObjectType: "nightly", ObjectID: date.String(), At: n.now()})
	})
	if err != nil {
		return Report{}, fmt.Errorf("report of %s: %w", date, err)
	}
	if r.Difference != 0 {
		n.log.ErrorContext(ctx, "the bank's lines and the books differ", "date", r.Date, "difference", r.Difference.String())
	}
	return r, nil
}
