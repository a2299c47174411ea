package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"guichet/department"
	"guichet/internal/clock"
	"guichet/internal/database"
	"guichet/internal/jobs"
	"guichet/internal/money"
	"guichet/internal/seal"
	"guichet/ledger"
	pay "guichet/payments"
	"guichet/payments/bill"
	"guichet/payments/fee"
)

// paymentBench compares the way of a payment from the processor's webhook to the
// commit with the same rows written by one plain transaction:
//
//	payment  Receive keeps the event and queues its job, Handle does the job: it asks
//	         the processor for the session and books what it says
//	plain    the baseline: all those rows in one pipelined transaction, one round
//	         trip, without looking at anything
//	hot      payment again: every payment is for bills of one department
//	spread   the same over a hundred departments
//
// A payment is for one bill of a department with one webhook endpoint. The processor
// is a few lines in this process, so neither its network nor its signature is in
// the figures, nor is the pause until the job queue fetches a job. The poster
// does not run. Afterwards the rules of the room are checked on all of it.
func paymentBench(ctx context.Context, l *lab) error {
	b := &paymentLab{url: l.url, clock: new(clock.Clock), guess: 4000}
	if err := b.prepare(ctx, l); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	defer b.db.Close()
	trips, err := b.watch(ctx)
	if err != nil {
		return fmt.Errorf("compare the two ways: %w", err)
	}
	if err := b.warm(ctx); err != nil {
		return fmt.Errorf("warm up: %w", err)
	}
	payment := func(name string, g *group) contender {
		return contender{name, b.run(g, func(ctx context.Context, d *due) error { return settle(ctx, b.service, d) }, trips[0])}
	}
	plain := contender{"plain", b.run(b.hot, func(ctx context.Context, d *due) error { return b.plain(ctx, b.db, d) }, trips[1])}
	for _, callers := range l.Callers {
		suffix := ""
		if callers != slices.Max(l.Callers) {
			suffix = fmt.Sprintf("_%d", callers)
		}
		if err := l.compare(ctx, callers, suffix, [][2]string{{"payment", "plain"}}, payment("payment", b.hot), plain); err != nil {
			return err
		}
		if err := l.compare(ctx, callers, suffix, [][2]string{{"hot", "spread"}}, payment("hot", b.hot), payment("spread", b.spread)); err != nil {
			return err
		}
	}
	return b.check(ctx)
}

const (
	spreadOver = 100
	dueCents   = 7500
)

// A paymentLab is a city with payments that wait for their money.
type paymentLab struct {
	url         string // owner's
	db          *pgxpool.Pool
	clock       *clock.Clock
	books       *ledger.Books
	service     *pay.Service
	hot, spread *group
	guess       int                                    // payments a second that a run may need
	entry       struct{ accounts, dimensions []int64 } // of a payment to the hot department
}

// A group is departments whose bills are paid in turn.
type group struct {
	departments []debtor
	stock       []*due
	next        atomic.Int64
}

// A debtor is a department with what its rows need.
type debtor struct {
	department.Department
	feeID, endpointID string
}

// A due is a payment whose payer is on the processor's page.
type due struct {
	of                      *debtor
	payment, checkout, bill string
}

func (d *due) session() string { return "cs_" + d.payment }

var errSoldOut = errors.New("no payment is left")

func (g *group) take() (*due, error) {
	n := g.next.Add(1) - 1
	if n >= int64(len(g.stock)) {
		return nil, errSoldOut
	}
	return g.stock[n], nil
}

// paidInFull is a processor that says of every session that its payer has paid.
// The methods that it lacks are not called.
type paidInFull struct{ pay.Processor }

func (paidInFull) ParseEvent(payload []byte, _ string, now time.Time) (pay.Event, error) {
	session := string(payload)
	return pay.Event{ID: "evt_" + session, Type: "checkout.session.completed", ObjectID: session, CreatedAt: now, Payload: payload}, nil
}

func (paidInFull) Session(_ context.Context, session string) (pay.Session, error) {
	payment := session[len("cs_"):]
	return pay.Session{
		ID: session, State: pay.SessionPaid, PaymentID: payment, Amount: dueCents, Currency: money.CAD,
		IntentID: "pi_" + payment, ChargeID: "ch_" + payment, Card: pay.Card{Brand: "visa", Last4: "4242", Funding: "credit"},
	}, nil
}

func (b *paymentLab) prepare(ctx context.Context, l *lab) (err error) {
	if b.db, err = database.Open(ctx, b.url, database.Options{MaxConns: int32(slices.Max(l.Callers)) + 2}); err != nil {
		return err
	}
	b.books = ledger.New(b.clock.Now)
	if b.service, err = b.open(b.db); err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, b.db, func(tx pgx.Tx) error {
		if err := pay.OpenAccounts(ctx, tx, b.books); err != nil {
			return err
		}
		if b.hot, err = b.found(ctx, tx, "hot", 1); err != nil {
			return err
		}
		b.spread, err = b.found(ctx, tx, "spread", spreadOver)
		return err
	})
}

// open puts the service together over a pool, without what only other steps need.
func (b *paymentLab) open(db *pgxpool.Pool) (*pay.Service, error) {
	queue, err := jobs.New(db, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	depts := department.New(db, nil, queue, b.clock.Now)
	return pay.New(pay.Parts{
		DB: db, Books: b.books, Bills: bill.New(db, b.books, depts, nil, b.clock.Now), Departments: depts, Processor: paidInFull{}, Queue: queue, Now: b.clock.Now,
	}, pay.Config{}), nil
}

// settle is what happens when the processor says that a payer has paid.
func settle(ctx context.Context, s *pay.Service, d *due) error {
	if err := s.Receive(ctx, []byte(d.session()), ""); err != nil {
		return err
	}
	return s.Handle(ctx, "evt_"+d.session())
}

// found founds departments, each with a fee and a webhook endpoint.
func (b *paymentLab) found(ctx context.Context, tx pgx.Tx, name string, n int) (*group, error) {
	key, err := seal.New(make([]byte, seal.Size))
	if err != nil {
		return nil, err
	}
	depts := department.New(b.db, key, nil, b.clock.Now)
	g := new(group)
	for i := range n {
		d, err := depts.Create(ctx, tx, department.Department{Code: fmt.Sprintf("%s%03d", name, i), NameEN: "Benchmark", NameFR: "Mesure"})
		if err != nil {
			return nil, err
		}
		if err := bill.OpenAccounts(ctx, tx, b.books, d); err != nil {
			return nil, err
		}
		v := fee.Version{
			Code: "fine", NameEN: "Fine", NameFR: "Amende", Kind: "flat", Amount: dueCents, Tax: fee.None,
			Revenue: bill.Uncollected(d.Code), EffectiveFrom: clock.Date{Year: 2020, Month: 1, Day: 1},
		}
		if err := fee.Add(ctx, tx, b.books, d.ID, v, b.clock.Now()); err != nil {
			return nil, err
		}
		if _, err := depts.AddEndpoint(ctx, tx, d.ID, "https://bench.invalid/hooks", false); err != nil {
			return nil, err
		}
		o := debtor{Department: d}
		err = tx.QueryRow(ctx, `
			select f.id::text, w.id::text from payments.fee f join department.webhook_endpoint w on w.department_id = f.department_id
			where f.department_id = $1`, d.ID).Scan(&o.feeID, &o.endpointID)
		if err != nil {
			return nil, err
		}
		g.departments = append(g.departments, o)
	}
	return g, nil
}

// run has callers take payments of a group for a while.
func (b *paymentLab) run(g *group, one func(context.Context, *due) error, note string) func(context.Context, int, time.Duration) (sample, error) {
	return func(ctx context.Context, callers int, d time.Duration) (sample, error) {
		for {
			if err := b.restock(ctx, g, int(float64(b.guess)*d.Seconds())+10*callers); err != nil {
				return sample{}, err
			}
			s, err := load(ctx, callers, d, func(ctx context.Context, _, _ int) error {
				next, err := g.take()
				if err != nil {
					return err
				}
				return one(ctx, next)
			})
			if errors.Is(err, errSoldOut) { // a faster machine than was thought
				b.guess *= 2
				continue
			}
			s.note = note
			return s, err
		}
	}
}

// warm takes a payment of every department: the first of each makes its dimensions.
func (b *paymentLab) warm(ctx context.Context) error {
	if err := b.restock(ctx, b.spread, spreadOver); err != nil {
		return err
	}
	for range spreadOver {
		d, err := b.spread.take()
		if err != nil {
			return err
		}
		if err := settle(ctx, b.service, d); err != nil {
			return err
		}
	}
	return nil
}

// check holds what both ways wrote against the rules of the room.
func (b *paymentLab) check(ctx context.Context) error {
	if err := ledger.NewPoster(b.db, b.clock.Now, ledger.PosterOptions{}).Drain(ctx); err != nil {
		return err
	}
	return pgx.BeginTxFunc(ctx, b.db, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		for _, rule := range b.service.Checks() {
			found, err := rule(ctx, tx)
			if err != nil {
				return err
			}
			if len(found) > 0 {
				return fmt.Errorf("the rows are wrong after the run: %v", found)
			}
		}
		return nil
	})
}
