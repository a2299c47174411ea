package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"

	"guichet/internal/clock"
	"guichet/internal/config"
	"guichet/internal/database"
	"guichet/internal/id"
	"guichet/internal/postgres"
	"guichet/internal/seal"
	"guichet/internal/server"
	"guichet/migrations"
	"guichet/simulators/control"
	"guichet/simulators/stripe"
)

// A stack is the whole city on one machine: the database, the simulators of
// everything outside, the demo departments and the service itself, which reaches
// the rest only over the wire.
type stack struct {
	dir      string
	log      *slog.Logger
	clock    *clock.Clock
	pg       *postgres.Server // nil when a database was given
	ports    ports
	secrets  secrets
	settings map[string]string // the service's environment
	group    *errgroup.Group
	closers  []func(context.Context) error // run last first
	world    *world                        // the service
	stripe   *stripe.Simulator
}

// A port is one listener of the stack.
type port int

const (
	portPortal port = iota
	portApp
	portProcessor
	portMail
	portDirectory
	portBank
	portSAP
	portAdmin
	portSMTP
	portSFTP
	portReports
	portCount
)

// ports are the listeners, opened before anything starts: a port in use is said
// before anything is half up.
type ports [portCount]net.Listener

func (p ports) url(n port) string { return "http://localhost:" + strconv.Itoa(p.number(n)) }
func (p ports) number(n port) int { return p[n].Addr().(*net.TCPAddr).Port }
func (p ports) addr(n port) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.number(n)))
}

// listen opens the ports; 0 is a free one.
func listen(numbers []int) (ports, error) {
	var p ports
	for n := range p {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(numbers[n])))
		if err != nil {
			p.close()
			if errors.Is(err, syscall.EADDRINUSE) {
				return ports{}, fmt.Errorf("port %d is in use: stop what uses it, or take other ports with --port (%d in a row are needed; a directory keeps the ports of its first start)", numbers[n], portCount)
			}
			return ports{}, fmt.Errorf("listen: %w", err)
		}
		p[n] = l
	}
	return p, nil
}

// numbers are the ports themselves.
func (p ports) numbers() []int {
	out := make([]int, portCount)
	for n := range p {
		out[n] = p.number(port(n))
	}
	return out
}

func (p ports) close() {
	for _, l := range p {
		if l != nil {
			l.Close() //nolint:errcheck // nothing was served on it
		}
	}
}

// secrets are what the parts of a stack know of each other, kept in its directory.
type secrets struct {
	StripeKey     string                       `json:"stripe_key"`
	StripeWebhook string                       `json:"stripe_webhook"`
	StaffClient   string                       `json:"staff_client"`
	Departments   map[string]departmentSecrets `json:"departments"`
	path          string
}

type departmentSecrets struct {
	ClientSecret  string `json:"client_secret"`
	APIKey        string `json:"api_key"`
	WebhookSecret string `json:"webhook_secret"`
}

func loadSecrets(path string) (secrets, error) {
	s := secrets{path: path}
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s.StripeKey, s.StripeWebhook = "sk_test_"+id.Secret(), "whsec_"+id.Secret()
		s.StaffClient, s.Departments = id.Secret(), map[string]departmentSecrets{}
		return s, s.save()
	case err != nil:
		return secrets{}, err
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return secrets{}, fmt.Errorf("read %s: %w (make dev-reset starts over)", path, err)
	}
	return s, nil
}

func (s secrets) save() error {
	text, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return err
	}
	return control.WriteFile(s.path, text, 0o600)
}

// stackOptions say where a stack lives.
type stackOptions struct {
	Place       *place
	Port        int    // of the portal; the rest follow; 0: free ones
	DatabaseURL string // empty: a private server in Dir
	Database    string // name of the database on the private server
	Durable     bool   // the database survives a power cut
	Log         *slog.Logger
}

// startStack starts everything and returns once it answers. The caller calls stop.
func startStack(ctx context.Context, o stackOptions) (_ *stack, err error) {
	s := &stack{dir: o.Place.dir, log: o.Log, clock: new(clock.Clock), group: new(errgroup.Group)}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	numbers, err := o.Place.numbers(o.Port)
	if err != nil {
		return nil, err
	}
	if s.ports, err = listen(numbers); err != nil {
		return nil, err
	}
	if s.secrets, err = loadSecrets(filepath.Join(s.dir, "secrets.json")); err != nil {
		return nil, err
	}
	databaseURL := o.DatabaseURL
	if databaseURL == "" {
		if databaseURL, err = s.startPostgres(ctx, o); err != nil {
			return nil, err
		}
	}
	name, err := databaseName(o.DatabaseURL)
	if err != nil {
		return nil, err
	}
	if err := o.Place.keep(s.ports.numbers(), name); err != nil {
		return nil, err
	}
	if err := migrations.Up(ctx, databaseURL); err != nil {
		return nil, err
	}
	if err := s.configure(databaseURL); err != nil {
		return nil, err
	}
	if err := s.startSimulators(); err != nil {
		return nil, err
	}
	if err := s.startService(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *stack) startPostgres(ctx context.Context, o stackOptions) (string, error) {
	server, err := postgres.Start(ctx, postgres.Options{Dir: filepath.Join(s.dir, "postgres"), Durable: o.Durable})
	if err != nil {
		return "", err
	}
	s.pg = server
	s.onStop(func(context.Context) error { return server.Stop() })
	return server.Database(ctx, o.Database)
}

// configure writes the service's environment, the same that an operator would write.
func (s *stack) configure(databaseURL string) error {
	keyFile := filepath.Join(s.dir, "master.key")
	if _, err := os.Stat(keyFile); errors.Is(err, fs.ErrNotExist) {
		if err := seal.Create(keyFile); err != nil {
			return err
		}
	}
	sapKey := filepath.Join(s.dir, "sap_client_key")
	if err := makeSSHKey(sapKey); err != nil {
		return fmt.Errorf("key for SAP's SFTP: %w", err)
	}
	s.settings = map[string]string{
		"GUICHET_ENV": "development", "GUICHET_LOG": "text", "GUICHET_BASE_URL": s.ports.url(portPortal),
		"GUICHET_LISTEN": s.ports.addr(portPortal), "GUICHET_ADMIN_LISTEN": s.ports.addr(portAdmin), "GUICHET_KEY_FILE": keyFile,
		"DATABASE_URL":      databaseURL,
		"STRIPE_SECRET_KEY": s.secrets.StripeKey, "STRIPE_WEBHOOK_SECRET": s.secrets.StripeWebhook, "STRIPE_API_URL": s.ports.url(portProcessor),
		"SMTP_ADDR": s.ports.addr(portSMTP), "SMTP_SECURITY": "none", "MAIL_FROM": "guichet@demo.example",
		"MAIL_REPORTS_LISTEN": s.ports.addr(portReports),
		"STAFF_ISSUER":        s.ports.url(portDirectory), "STAFF_CLIENT_ID": "guichet", "STAFF_CLIENT_SECRET": s.secrets.StaffClient,
		"BANK_INBOX": filepath.Join(s.dir, "bank"), "BANK_ACCOUNT": "00021234567",
		"SAP_DELIVERY": "sftp://guichet@" + s.ports.addr(portSFTP) + "/", "SAP_SFTP_KEY_FILE": sapKey,
	}
	return nil
}

// makeSSHKey writes a private key unless it is there.
func makeSSHKey(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return err
	}
	return os.WriteFile(path, pem.EncodeToMemory(block), 0o600)
}

// onStop runs f when the stack stops, before what was registered earlier.
func (s *stack) onStop(f func(context.Context) error) { s.closers = append(s.closers, f) }

// serve serves a handler on a port until the stack stops.
func (s *stack) serve(n port, h http.Handler) {
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn)}
	s.group.Go(func() error {
		if err := server.Serve(s.ports[n]); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	s.onStop(func(ctx context.Context) error {
		if err := server.Shutdown(ctx); err != nil {
			return server.Close() // a webhook or page was still held open by a fault
		}
		return nil
	})
}

// run keeps a background loop going until the stack stops.
func (s *stack) run(name string, loop func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	s.group.Go(func() error {
		defer close(done)
		if err := loop(ctx); err != nil && !errors.Is(err, context.Canceled) {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	})
	s.onStop(func(context.Context) error {
		cancel()
		<-done
		return nil
	})
}

// writeEnv keeps the service's environment in a file that a shell can read, for
// the other commands: set -a; . env; guichet verify.
func (s *stack) writeEnv() error {
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(s.settings)) {
		fmt.Fprintf(&text, "%s='%s'\n", name, strings.ReplaceAll(s.settings[name], "'", `'\''`))
	}
	return control.WriteFile(filepath.Join(s.dir, "env"), []byte(text.String()), 0o600)
}

// startService opens the service as an operator would have configured it, and
// serves it in the background.
func (s *stack) startService(ctx context.Context) error {
	if err := s.writeEnv(); err != nil {
		return err
	}
	cfg, err := config.Read(s.get)
	if err != nil {
		return err
	}
	w, err := newWorld(ctx, cfg, slog.New(server.LogRequests(s.log.Handler())))
	if err != nil {
		return err
	}
	s.world = w
	// The simulators live in the same business time as the service.
	if err := s.clock.SetOffset(w.clock.Offset()); err != nil {
		return err
	}
	s.onStop(func(context.Context) error { w.close(); return nil })
	s.run("service", func(ctx context.Context) error {
		return w.serve(ctx, s.ports[portPortal], s.ports[portAdmin], s.ports[portReports])
	})
	s.run("clock", s.followClock)
	return s.await(ctx, s.ports.url(portAdmin)+"/readyz")
}

// followClock keeps the simulators in the service's time, whoever moves it.
func (s *stack) followClock(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if ahead := s.world.clock.Offset(); ahead > s.clock.Offset() {
				if err := s.clock.SetOffset(ahead); err != nil {
					return err
				}
			}
		}
	}
}

// await waits until an address answers 200, or the stack has failed.
func (s *stack) await(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		if err != nil {
			return err
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			resp.Body.Close() //nolint:errcheck // only its status counts
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", address, ctx.Err())
		case <-time.After(pollEvery):
		}
	}
}

// advance moves the business clock of the whole stack forward.
func (s *stack) advance(ctx context.Context, d time.Duration) error {
	ahead, err := database.Advance(ctx, s.world.db, d)
	if err != nil {
		return err
	}
	if err := s.clock.SetOffset(ahead); err != nil {
		return err
	}
	return s.world.clock.SetOffset(ahead)
}

// get reads the service's environment, as os.Getenv would.
func (s *stack) get(name string) string { return s.settings[name] }

// stop ends everything, the last started first, and returns what failed.
func (s *stack) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var failed []error
	for i := len(s.closers) - 1; i >= 0; i-- {
		failed = append(failed, s.closers[i](ctx))
	}
	s.closers = nil
	s.ports.close()
	return errors.Join(append(failed, s.group.Wait())...)
}
