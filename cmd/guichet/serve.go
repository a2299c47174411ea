package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"golang.org/x/sync/errgroup"

	"guichet/api"
	"guichet/api/account"
	"guichet/api/admin"
	"guichet/api/departments"
	"guichet/api/desk"
	"guichet/api/journal"
	"guichet/api/oidc"
	"guichet/api/resident"
	"guichet/api/session"
	"guichet/internal/clock"
	"guichet/internal/config"
	"guichet/internal/jobs"
	"guichet/internal/mail"
	"guichet/internal/server"
	"guichet/ledger"
	"guichet/migrations"
	"guichet/payments"
	"guichet/reconcile"
)

// newLog returns the log the configuration asks for.
func newLog(w io.Writer, cfg config.Config) *slog.Logger {
	if cfg.LogFormat == "text" {
		return slog.New(server.LogRequests(slog.NewTextHandler(w, nil)))
	}
	return slog.New(server.LogRequests(slog.NewJSONHandler(w, nil)))
}

type serveCmd struct{}

func (c *serveCmd) Run(ctx context.Context, e env) error {
	w, err := openWorld(ctx, e)
	if err != nil {
		return err
	}
	defer w.close()
	public, err := server.Listen("GUICHET_LISTEN", w.cfg.Listen)
	if err != nil {
		return err
	}
	admin, err := server.Listen("GUICHET_ADMIN_LISTEN", w.cfg.AdminListen)
	if err != nil {
		return err
	}
	var reports net.Listener
	if w.cfg.MailReports != "" {
		if reports, err = server.Listen("MAIL_REPORTS_LISTEN", w.cfg.MailReports); err != nil {
			return err
		}
	}
	return w.serve(ctx, public, admin, reports)
}

// serve runs the service until ctx ends, and then stops it in order: no new
// requests first, then the jobs, then the poster. It closes the listeners;
// reports may be nil.
func (w *world) serve(ctx context.Context, public, admin, reports net.Listener) error {
	if err := migrations.Check(ctx, w.db); err != nil {
		return err
	}
	if err := w.provider.TendKeys(ctx); err != nil {
		return err
	}
	handler, err := w.handler()
	if err != nil {
		return err
	}
	proxies, err := w.cfg.Proxies()
	if err != nil {
		return err
	}
	metrics := server.NewMetrics()
	server.WatchDatabase(metrics, w.db)
	server.WatchJobs(metrics, w.queue)
	s := server.New(server.Options{
		BaseURL: w.cfg.BaseURL, Proxies: proxies, Now: w.clock.Now, Log: w.log, Metrics: metrics, Ready: w.ready, Fail: w.fail, Drain: w.drain(),
	}, handler)
	s.CrossSite(api.CrossSite()...)
	for pattern, n := range api.Bodies() {
		s.AllowBody(pattern, n)
	}

	poster, err := w.poster(ctx)
	if err != nil {
		return err
	}
	watchPoster(metrics, poster)
	watchBreakGlass(metrics, w.staff)
	workers, err := w.workers()
	if err != nil {
		return err
	}
	if err := w.queue.Work(ctx, jobs.Options{Workers: workers, Periodic: periodic()}); err != nil {
		return err
	}
	// The background goes on until the last request and the last job are done.
	back, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var group errgroup.Group
	group.Go(func() error { return orderly(back, poster.Run(back)) })
	group.Go(func() error { return w.journal.Run(back) })
	group.Go(func() error { w.followClock(back); return nil })
	var receiver *mail.Receiver
	if reports != nil {
		receiver = mail.NewReceiver(w.outbox, w.people, w.log)
		group.Go(func() error { return receiver.Serve(reports) })
	}
	w.log.InfoContext(ctx, "serving", "at", w.cfg.BaseURL, "env", w.cfg.Env)
	served := s.Serve(ctx, public, admin)
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 25*time.Second)
	defer cancel()
	stopped := w.queue.Stop(grace)
	if receiver != nil {
		if err := receiver.Shutdown(grace); err != nil {
			w.log.WarnContext(grace, "stop taking mail reports", "error", err)
		}
	}
	stop()
	for _, err := range []error{group.Wait(), stopped, served} {
		if err != nil {
			return err
		}
	}
	return nil
}

// orderly is err, unless ctx was ended on purpose.
func orderly(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// handler puts the rooms together.
func (w *world) handler() (http.Handler, error) {
	sessions, err := session.New(session.Options{BaseURL: w.cfg.BaseURL, Residents: w.people, Staff: w.staff, Acting: w.acting, Site: w.site, Log: w.log})
	if err != nil {
		return nil, err
	}
	vouching, err := oidc.ReadPartners(w.cfg.PartnersFile)
	if err != nil {
		return nil, err
	}
	provider, err := oidc.New(oidc.Options{
		Issuer: w.cfg.BaseURL, Provider: w.provider, People: w.people, Staff: w.staff, Sessions: sessions, Site: w.site, Departments: w.depts, Now: w.clock.Now, Log: w.log,
		Partners:  vouching,
		Directory: oidc.Directory{Issuer: w.cfg.StaffIssuer, ClientID: w.cfg.StaffClientID, ClientSecret: w.cfg.StaffClientSecret.Reveal(), GroupsScope: "groups", FreshACR: w.cfg.StaffFreshACR},
	})
	if err != nil {
		return nil, err
	}
	return api.New(api.Parts{
		Site: w.site, Sessions: sessions, OIDC: provider,
		Account: account.New(account.Options{
			People: w.people, Provider: w.provider, Sessions: sessions, Site: w.site, Now: w.clock.Now, Log: w.log, Receipts: w.payments.ReceiptsOf, Partners: vouching,
		}),
		Resident: resident.New(resident.Options{
			DB: w.db, Payments: w.payments, Bills: w.bills, Books: w.books, People: w.people, Acting: w.acting, Departments: w.depts,
			Sessions: sessions, Site: w.site, Documents: w.documents, Now: w.clock.Now, Log: w.log,
		}),
		Desk: desk.New(desk.Options{
			DB: w.db, Books: w.books, Nightly: w.nightly, Departments: w.depts, People: w.people, Acting: w.acting, Staff: w.staff,
			Sessions: sessions, Site: w.site, Now: w.clock.Now, Log: w.log,
		}),
		Journal: journal.New(journal.Options{
			DB: w.db, Books: w.books, Manual: w.manual, Staff: w.staff, Sessions: sessions, Site: w.site, Now: w.clock.Now, Log: w.log,
		}),
		Admin: admin.New(admin.Options{
			DB: w.db, Provider: w.provider, Departments: w.depts, People: w.people, Staff: w.staff, Sessions: sessions, Site: w.site,
			Live: w.cfg.Env == config.Production, Partners: partners(w.cfg), Now: w.clock.Now, Log: w.log,
		}),
		Departments: departments.Parts{
			Departments: w.depts, Bills: w.bills, Payments: w.payments, Subjects: w.provider, Books: w.books, Journal: w.journal, DB: w.db,
			Today: func() clock.Date { return clock.DateOf(w.clock.Now()) }, BaseURL: w.cfg.BaseURL, Log: w.log,
		},
		Payments: w.payments, DB: w.db, Books: w.books, Log: w.log,
	}), nil
}

// partners are the OpenID Providers whose word signs somebody in.
func partners(cfg config.Config) []string {
	if cfg.StaffIssuer == "" {
		return nil
	}
	return []string{cfg.StaffIssuer}
}

// drain is how long a load balancer in front gets to notice that this instance
// takes no more requests. Nothing stands in front of a development service.
func (w *world) drain() time.Duration {
	if w.cfg.Env == config.Development {
		return 0
	}
	return 5 * time.Second
}

// ready says whether this instance should be sent requests.
func (w *world) ready(ctx context.Context) error {
	if err := w.db.Ping(ctx); err != nil {
		return fmt.Errorf("database: %w", err)
	}
	return migrations.Check(ctx, w.db)
}

func (w *world) fail(rw http.ResponseWriter, r *http.Request, status int) {
	w.site.Fail(rw, r, status, "")
}

// poster carries journal entries into accounts and signs the heads of their log.
func (w *world) poster(ctx context.Context) (*ledger.Poster, error) {
	err := pgx.BeginFunc(ctx, w.db, func(tx pgx.Tx) (err error) {
		w.signer, _, err = w.books.LogKey(ctx, tx, w.key, w.cfg.LogName())
		return err
	})
	if err != nil {
		return nil, err
	}
	return ledger.NewPoster(w.db, w.clock.Now, ledger.PosterOptions{Signer: w.signer, HeadDir: w.cfg.HeadDir, Log: w.log}), nil
}

// periodic is what happens by itself.
func periodic() []*river.PeriodicJob {
	every := func(d time.Duration, args river.JobArgs) *river.PeriodicJob {
		return river.NewPeriodicJob(river.PeriodicInterval(d), func() (river.JobArgs, *river.InsertOpts) {
			return args, &river.InsertOpts{MaxAttempts: 1} // the next time is the next try
		}, &river.PeriodicJobOpts{RunOnStart: true})
	}
	return []*river.PeriodicJob{every(20*time.Second, payments.SweepArgs{}), every(time.Minute, expireHoldsArgs{}), every(time.Hour, housekeepingArgs{}), reconcile.Periodic()}
}

// expireHoldsArgs is the job that frees holds of the ledger whose time is over.
type expireHoldsArgs struct{}

// Kind names the job. It is stored with queued jobs: never change it.
func (expireHoldsArgs) Kind() string { return "ledger.expire_holds" }

// expireHolds frees what is over, some at a time: each transaction is short.
func (w *world) expireHolds(ctx context.Context) error {
	const some = 200
	for {
		var freed int
		err := pgx.BeginFunc(ctx, w.db, func(tx pgx.Tx) (err error) {
			freed, err = w.books.ExpireHolds(ctx, tx, some)
			return err
		})
		if err != nil || freed < some {
			return err
		}
	}
}

// housekeepingArgs is the job that deletes what has expired, tends the keys, and ends
// rights to act that are past their last day.
type housekeepingArgs struct{}

// Kind names the job. It is stored with queued jobs: never change it.
func (housekeepingArgs) Kind() string { return "housekeeping" }

func (w *world) housekeep(ctx context.Context) error {
	if err := w.provider.TendKeys(ctx); err != nil {
		return err
	}
	for what, work := range map[string]func(context.Context) (int64, error){
		"tell of recoveries": w.people.TellRecoveries, "close accounts": w.people.CloseDue,
		"sweep residents": w.people.Sweep, "sweep provider": w.provider.Sweep, "sweep staff": w.staff.Sweep, "tend rights": w.acting.Tend,
	} {
		n, err := work(ctx)
		if err != nil {
			return err
		}
		if n > 0 {
			w.log.InfoContext(ctx, "housekeeping", "what", what, "rows", n)
		}
	}
	return nil
}
