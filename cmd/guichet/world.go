package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"golang.org/x/mod/sumdb/note"

	"guichet/api/desk"
	"guichet/api/document"
	"guichet/api/web"
	"guichet/department"
	"guichet/identity"
	"guichet/identity/delegation"
	"guichet/identity/provider"
	"guichet/identity/staff"
	"guichet/internal/audit"
	"guichet/internal/clock"
	"guichet/internal/config"
	"guichet/internal/database"
	"guichet/internal/jobs"
	"guichet/internal/keyed"
	"guichet/internal/mail"
	"guichet/internal/seal"
	"guichet/internal/server"
	"guichet/ledger"
	"guichet/ledger/manual"
	"guichet/payments"
	"guichet/payments/bill"
	"guichet/payments/stripe"
	"guichet/reconcile"
	"guichet/reconcile/sap"
)

// A world is every room of the service, wired over one database: what serve,
// nightly, verify and the administration commands work with.
type world struct {
	cfg       config.Config
	log       *slog.Logger
	clock     *clock.Clock
	db        *pgxpool.Pool
	key       *seal.Key
	queue     *jobs.Queue
	outbox    *mail.Outbox
	books     *ledger.Books
	journal   *ledger.Queue // entries of finance systems
	manual    *manual.Service
	depts     *department.Service
	bills     *bill.Service
	payments  *payments.Service
	processor payments.Processor
	people    *identity.Service
	acting    *delegation.Service
	provider  *provider.Service
	staff     *staff.Service
	nightly   *reconcile.Nightly
	signer    note.Signer // of the log's heads, once the poster is made
	site      *web.Site
	documents *document.Printer
}

// openWorld reads the configuration and opens everything it names.
func openWorld(ctx context.Context, e env) (*world, error) {
	cfg, err := config.Read(e.get)
	if err != nil {
		return nil, err
	}
	return newWorld(ctx, cfg, newLog(e.err, cfg))
}

func newWorld(ctx context.Context, cfg config.Config, log *slog.Logger) (_ *world, err error) {
	w := &world{cfg: cfg, log: log, clock: new(clock.Clock)}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if w.key, err = seal.Load(cfg.KeyFile); err != nil {
		return nil, err
	}
	if w.db, err = database.Open(ctx, cfg.DatabaseURL.Reveal(), database.Options{}); err != nil {
		return nil, err
	}
	if err := w.setClock(ctx); err != nil {
		return nil, err
	}
	if w.queue, err = jobs.New(w.db, log); err != nil {
		return nil, err
	}
	if err := w.openRooms(ctx); errors.Is(err, seal.ErrBroken) {
		return nil, fmt.Errorf("GUICHET_KEY_FILE: %s is not the key that this database was sealed with: %w", cfg.KeyFile, err)
	} else if err != nil {
		return nil, err
	}
	return w, w.openAccounts(ctx)
}

func (w *world) openRooms(ctx context.Context) error {
	templates, err := mail.NewTemplates(payments.MailTemplates, identity.MailTemplates, delegation.MailTemplates, staff.MailTemplates)
	if err != nil {
		return err
	}
	w.outbox = mail.New(w.db, w.queue, templates, w.key, w.clock.Now)
	w.books = ledger.New(w.clock.Now)
	w.journal = ledger.NewQueue(w.books, w.db)
	w.manual = manual.New(manual.Options{DB: w.db, Books: w.books, Now: w.clock.Now, Owned: ownedAccounts})
	w.depts = department.New(w.db, w.key, w.queue, w.clock.Now)
	guest, err := keyed.Load(ctx, w.db, w.key, bill.GuestKeys)
	if err != nil {
		return err
	}
	links, err := keyed.Load(ctx, w.db, w.key, payments.CheckoutLinks)
	if err != nil {
		return err
	}
	w.bills = bill.New(w.db, w.books, w.depts, guest, w.clock.Now)
	if w.processor, err = stripe.New(stripe.Config{
		SecretKey:      w.cfg.StripeSecretKey.Reveal(),
		WebhookSecrets: strings.Split(w.cfg.StripeWebhookSecret.Reveal(), ","), URL: w.cfg.StripeAPIURL,
	}); err != nil {
		return err
	}
	w.site = web.New(web.Options{
		BaseURL: w.cfg.BaseURL, Dev: w.cfg.Env != config.Production, Log: w.log, Viewer: desk.Viewer,
		RequestID: server.RequestID, FormHosts: formHosts(w.cfg),
	})
	if w.documents, err = document.New(w.site, w.cfg.BaseURL); err != nil {
		return err
	}
	w.payments = payments.New(payments.Parts{
		DB: w.db, Books: w.books, Bills: w.bills, Departments: w.depts, Processor: w.processor,
		Queue: w.queue, Outbox: w.outbox, Links: links, Render: w.documents.Receipt, Now: w.clock.Now, Log: w.log,
	}, payments.Config{BaseURL: w.cfg.BaseURL})
	if w.people, err = identity.New(ctx, w.db, identity.Config{Now: w.clock.Now, BaseURL: w.cfg.BaseURL, Master: w.key, Mail: w.outbox}); err != nil {
		return err
	}
	if w.acting, err = delegation.New(ctx, w.db, delegation.Config{People: w.people, Mail: w.outbox, Master: w.key, Now: w.clock.Now, BaseURL: w.cfg.BaseURL}); err != nil {
		return err
	}
	w.provider, err = provider.New(ctx, w.db, w.people, provider.Config{
		Issuer: w.cfg.BaseURL, Now: w.clock.Now, Master: w.key, Queue: w.queue, Acting: w.acting,
		Development: w.cfg.Env != config.Production,
	})
	if err != nil {
		return err
	}
	w.staff = staff.New(w.db, staff.Config{
		Now: w.clock.Now, Suggest: suggestions(w.cfg), Alarm: w.cfg.AlarmAddresses(), Mail: w.outbox, People: w.people,
	})
	return w.openNightly()
}

func (w *world) openNightly() error {
	writer, err := sap.NewWriter(sap.Settings{
		IDocType: w.cfg.SAPIDocType, Client: w.cfg.SAPClient, Release: w.cfg.SAPRelease, SenderPort: w.cfg.SAPSenderPort, SenderSystem: w.cfg.SAPSender,
		ReceiverPort: w.cfg.SAPReceiverPort, ReceiverSystem: w.cfg.SAPReceiver, User: w.cfg.SAPUser, SegmentVersion: w.cfg.SAPSegments,
		TaxCondition: w.cfg.SAPTaxCondition, TaxKey: w.cfg.SAPTaxKey,
	})
	if err != nil {
		return err
	}
	place, err := sapPlace(w.cfg)
	if err != nil {
		return err
	}
	w.nightly, err = reconcile.New(reconcile.Parts{
		DB: w.db, Books: w.books, Payments: w.payments, Processor: w.processor, Queue: w.queue, Writer: writer,
		Handover: sap.Handover{Place: place, Inbox: "inbound", Archive: "archive", Answers: "outbound"}, Now: w.clock.Now, Log: w.log,
	}, reconcile.Config{BankAccount: w.cfg.BankAccount, Inbox: w.cfg.BankInbox, CompanyCode: w.cfg.SAPCompanyCode, DocumentType: w.cfg.SAPDocumentType})
	return err
}

// sapPlace is where files change hands with SAP; nil: nowhere yet.
func sapPlace(cfg config.Config) (sap.Place, error) {
	if dir, ok := strings.CutPrefix(cfg.SAPDelivery, "dir:"); ok {
		return sap.Local{Dir: dir}, nil
	}
	if cfg.SAPDelivery == "" {
		return nil, nil
	}
	u, err := url.Parse(cfg.SAPDelivery)
	if err != nil {
		return nil, fmt.Errorf("SAP_DELIVERY: %w", err)
	}
	key, err := os.ReadFile(cfg.SAPSFTPKeyFile)
	if err != nil {
		return nil, fmt.Errorf("SAP_SFTP_KEY_FILE: %w", err)
	}
	address := u.Host
	if u.Port() == "" {
		address = net.JoinHostPort(u.Hostname(), "22")
	}
	return sap.NewSFTP(sap.SFTPSettings{Address: address, User: u.User.Username(), PrivateKey: key, HostKey: cfg.SAPSFTPHostKey, Dir: u.Path})
}

// suggestions are the roles that the demo directory's groups bring along. Outside
// development only an administrator grants.
func suggestions(cfg config.Config) map[string][]staff.Suggestion {
	if cfg.Env != config.Development {
		return nil
	}
	return demoRoles()
}

// formHosts are where a form of ours may lead: the processor's page above all.
func formHosts(cfg config.Config) []string {
	hosts := []string{"https://checkout.stripe.com"}
	if cfg.StripeAPIURL != "" {
		hosts = []string{cfg.StripeAPIURL}
	}
	if cfg.StaffIssuer != "" {
		hosts = append(hosts, provider.Origin(cfg.StaffIssuer))
	}
	return hosts
}

// openAccounts opens the accounts every city has. Doing it again changes nothing.
func (w *world) openAccounts(ctx context.Context) error {
	return pgx.BeginFunc(ctx, w.db, func(tx pgx.Tx) error {
		if err := payments.OpenAccounts(ctx, tx, w.books); err != nil {
			return err
		}
		return reconcile.OpenAccounts(ctx, tx, w.books)
	})
}

// ownedAccounts are what bills, payments and the nightly run keep equal to objects of theirs:
// whoever books on them by hand must say that it is meant.
var ownedAccounts = []string{
	"assets:receivable", payments.Clearing, reconcile.BankAccount, reconcile.Suspense, "liabilities:billed-not-collected", "liabilities:credit",
}

// setClock takes over how far this deployment's clock was moved. Production's never is.
func (w *world) setClock(ctx context.Context) error {
	if w.cfg.Env == config.Production {
		return nil
	}
	ahead, err := database.Ahead(ctx, w.db)
	if err != nil {
		return err
	}
	return w.clock.SetOffset(ahead)
}

// followClock keeps up with a clock that another process moves.
func (w *world) followClock(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := w.setClock(ctx); err != nil && ctx.Err() == nil {
				w.log.WarnContext(ctx, "follow clock", "error", err)
			}
		}
	}
}

// workers registers what every room does in the background.
func (w *world) workers() (*river.Workers, error) {
	all := river.NewWorkers()
	w.depts.AddWorkers(all)
	w.provider.AddWorkers(all)
	river.AddWorker(all, river.WorkFunc(func(ctx context.Context, _ *river.Job[housekeepingArgs]) error { return w.housekeep(ctx) }))
	river.AddWorker(all, river.WorkFunc(func(ctx context.Context, _ *river.Job[expireHoldsArgs]) error { return w.expireHolds(ctx) }))
	w.payments.AddWorkers(all)
	reconcile.AddWorkers(all, w.nightly)
	err := w.outbox.AddWorkers(all, mail.SMTP{
		Addr: w.cfg.SMTPAddr, Security: w.cfg.SMTPSecurity, User: w.cfg.SMTPUser,
		Password: w.cfg.SMTPPassword.Reveal(), From: mail.Address{Email: w.cfg.MailFrom, Name: "Guichet"}, ReturnPath: w.cfg.MailReturnPath,
	}, recipients{w.people, w.cfg.AlarmAddresses()}, w.people)
	if err != nil {
		return nil, fmt.Errorf("mail: %w", err)
	}
	return all, nil
}

// recipients resolves residents by identity, and the city's own people by the settings.
type recipients struct {
	people *identity.Service
	alarm  []string
}

// Address is mail.Resolver's.
func (r recipients) Address(ctx context.Context, to string) (mail.Address, error) {
	for n, email := range r.alarm {
		if to == staff.AlarmRecipient(n) {
			return mail.Address{Email: email}, nil
		}
	}
	return r.people.Address(ctx, to)
}

func (w *world) close() {
	if w.db != nil {
		w.db.Close()
	}
}

// asAdmin marks what a command of an operator does.
func asAdmin(ctx context.Context) context.Context {
	return audit.With(ctx, audit.Origin{Actor: "system:admin", ActorKind: "system", Channel: "batch"})
}
