// Package postgres runs a private PostgreSQL server out of the binaries installed
// on the machine, for development, the demo and the tests. Production gives a
// DATABASE_URL and never comes here.
//
//	Find ─▶ initdb (once) ─▶ postgres on 127.0.0.1, any free port ─▶ URL
//	                             └─ dies with this process, however that ends
//
// The data lives in Options.Dir in a folder named by major version, behind a lock
// held by this process; what a killed predecessor left running is stopped first.
// PostgreSQL refuses to run as root, so root runs it as an unprivileged user.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/id"
)

// owner is the user everything is created as: it may make roles and databases,
// as the owner of a production database may, and is no superuser.
const owner = "guichet"

// stopWithin is how long a server may take to write everything down and end.
const stopWithin = 30 * time.Second

// Options say where a server keeps its data and how much that data matters.
type Options struct {
	Dir     string // created if missing; one server per directory
	Durable bool   // false: no fsync, for data that may be lost with the machine
}

// A Server is a running PostgreSQL.
type Server struct {
	opts     Options
	bin      Binary
	user     *account // nil: the user of this process
	lock     *os.File
	password string
	port     int
	freePort func() (int, error)
	stop     chan syscall.Signal
	ended    chan struct{} // closed when the process is gone
}

// Start runs a server on opts.Dir and returns when it answers. The caller calls
// Stop. The errors are for the person who typed the command: one line, and what to do.
func Start(ctx context.Context, opts Options) (*Server, error) {
	bin, err := Find()
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(opts.Dir)
	if err != nil {
		return nil, fmt.Errorf("database directory: %w", err)
	}
	opts.Dir = dir
	return run(ctx, &Server{opts: opts, bin: bin, freePort: freePort})
}

func run(ctx context.Context, s *Server) (*Server, error) {
	if err := s.prepare(); err != nil {
		return nil, err
	}
	if err := s.start(ctx); err != nil {
		s.unlock()
		return nil, err
	}
	return s, nil
}

// URL connects to the named database as the owner of everything Guichet makes.
func (s *Server) URL(database string) string { return s.url(owner, database) }

// SuperURL connects as the superuser: for tests that must get past the grants.
func (s *Server) SuperURL(database string) string { return s.url("postgres", database) }

func (s *Server) url(user, database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(user, s.password),
		Host:     net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Database makes sure a database of that name exists and returns its URL.
func (s *Server) Database(ctx context.Context, name string) (string, error) {
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return "", fmt.Errorf("create database %s: %w", name, err)
	}
	defer conn.Close(ctx)
	var exists bool
	if err := conn.QueryRow(ctx, "select exists (select from pg_database where datname = $1)", name).Scan(&exists); err != nil {
		return "", fmt.Errorf("look for database %s: %w", name, err)
	}
	if !exists {
		if _, err := conn.Exec(ctx, "create database "+pgx.Identifier{name}.Sanitize()); err != nil {
			return "", fmt.Errorf("create database %s: %w", name, err)
		}
	}
	return s.URL(name), nil
}

// Ended is closed when the server process is gone, wanted or not.
func (s *Server) Ended() <-chan struct{} { return s.ended }

// Stop ends the server and frees the directory. A durable one gets the time to
// write everything down. Stopping twice is safe.
func (s *Server) Stop() error {
	defer s.unlock()
	sig := syscall.SIGINT // "fast": ends sessions, writes a checkpoint
	if !s.opts.Durable {
		sig = syscall.SIGQUIT // "immediate"
	}
	for _, sig := range []syscall.Signal{sig, syscall.SIGQUIT, syscall.SIGKILL} {
		select {
		case s.stop <- sig:
		case <-s.ended:
			return nil
		}
		select {
		case <-s.ended:
			return nil
		case <-time.After(stopWithin):
		}
	}
	return fmt.Errorf("PostgreSQL in %s does not stop", s.opts.Dir)
}

func (s *Server) data() string {
	return filepath.Join(s.opts.Dir, "postgres-"+strconv.Itoa(s.bin.Major))
}
func (s *Server) log() string { return filepath.Join(s.opts.Dir, "postgres.log") }

// prepare takes the directory, stops what a predecessor left there and makes a
// new cluster when there is none.
func (s *Server) prepare() (err error) {
	if err := os.MkdirAll(s.opts.Dir, 0o755); err != nil {
		return fmt.Errorf("database directory: %w", err)
	}
	if s.lock, err = takeLock(s.opts.Dir); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			s.unlock()
		}
	}()
	if s.user, err = unprivileged(s.data()); err != nil {
		return err
	}
	if s.user != nil {
		// That user must get through, whatever root's umask is; what is inside has its
		// own mode. Parents are not ours to open.
		if err := os.Chmod(s.opts.Dir, 0o755); err != nil {
			return fmt.Errorf("database directory: %w", err)
		}
	}
	if err := reachable(s.opts.Dir, s.user); err != nil {
		return err
	}
	if err := endLeftover(s.data()); err != nil {
		return err
	}
	if s.password, err = secret(filepath.Join(s.opts.Dir, "postgres-password"), s.user); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(s.data(), "PG_VERSION")); err == nil {
		return nil
	}
	return s.initdb()
}

// initdb makes the cluster beside its final name: a half-made one is never taken
// for a whole one.
func (s *Server) initdb() error {
	half := s.data() + ".new"
	if err := os.RemoveAll(half); err != nil {
		return fmt.Errorf("clear %s: %w", half, err)
	}
	if err := os.Mkdir(half, 0o700); err != nil {
		return fmt.Errorf("database directory: %w", err)
	}
	if err := s.user.own(half); err != nil {
		return err
	}
	locale := "C.UTF-8" // sorts by code point and knows accents, the same on every machine
	if runtime.GOOS == "darwin" {
		locale = "en_US.UTF-8"
	}
	args := []string{
		"--pgdata", half, "--username", "postgres", "--auth", "scram-sha-256", "--encoding", "UTF8",
		"--locale", locale, "--pwfile", filepath.Join(s.opts.Dir, "postgres-password"),
	}
	if !s.opts.Durable {
		args = append(args, "--no-sync")
	}
	cmd := s.command("initdb", args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb in %s: %w: %s", half, err, lastLine(string(out)))
	}
	if err := os.Rename(half, s.data()); err != nil {
		return fmt.Errorf("finish initdb: %w", err)
	}
	return nil
}

func (s *Server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin.Dir, name), args...)
	cmd.Dir = "/" // the unprivileged user may not be allowed into ours
	cmd.Env = []string{"LC_ALL=C", "TZ=UTC", "PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if s.user != nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: s.user.uid, Gid: s.user.gid}
	}
	return cmd
}

// start tries ports until one is free: between our look and PostgreSQL's bind
// another process may take it.
func (s *Server) start(ctx context.Context) error {
	const tries = 8
	for range tries {
		if err := s.launch(); err != nil {
			return err
		}
		err := s.ready(ctx)
		if err == nil {
			return nil
		}
		stopErr := s.Stop()
		if !errors.Is(err, errPortTaken) {
			return errors.Join(err, stopErr)
		}
		if s.lock, err = takeLock(s.opts.Dir); err != nil {
			return err
		}
	}
	return fmt.Errorf("PostgreSQL found no free port on 127.0.0.1 in %d tries: see %s", tries, s.log())
}

func (s *Server) launch() error {
	port, err := s.freePort()
	if err != nil {
		return fmt.Errorf("find a free port for PostgreSQL: %w", err)
	}
	s.port = port
	log, err := os.OpenFile(s.log(), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("log of PostgreSQL: %w", err)
	}
	defer log.Close()
	cmd := s.command("postgres", append([]string{"-D", s.data()}, s.settings()...)...)
	cmd.Stdout, cmd.Stderr = log, log
	// A group of its own: Ctrl-C in the terminal is for us, and we stop the database last.
	cmd.SysProcAttr.Setpgid = true
	diesWithParent(cmd.SysProcAttr, s.opts.Durable)

	s.stop, s.ended = make(chan syscall.Signal), make(chan struct{})
	started := make(chan error, 1)
	go supervise(cmd, started, s.stop, s.ended)
	if err := <-started; err != nil {
		return fmt.Errorf("start PostgreSQL from %s: %w", s.bin.Dir, err)
	}
	return nil
}

// freePort returns a port of 127.0.0.1 that was free a moment ago.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

// supervise starts cmd and stays with it until it ends. The kernel sends the
// parent-death signal when the starting thread ends, not the process, so this goroutine
// keeps its thread for itself.
func supervise(cmd *exec.Cmd, started chan<- error, stop <-chan syscall.Signal, ended chan<- struct{}) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(ended)
	err := cmd.Start()
	started <- err
	if err != nil {
		return
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_ = cmd.Wait() // how it ended is in its log
	}()
	for {
		select {
		case sig := <-stop:
			_ = cmd.Process.Signal(sig) // it may have ended by itself
		case <-gone:
			return
		}
	}
}

func (s *Server) settings() []string {
	settings := []string{
		"listen_addresses=127.0.0.1",
		"port=" + strconv.Itoa(s.port),
		"unix_socket_directories=", // their paths end at 107 bytes
		"max_connections=300",
		"timezone=UTC",
		"log_timezone=UTC",
		"autovacuum_naptime=10s", // statistics soon after the first rows
		"log_min_messages=warning",
		"log_min_error_statement=panic", // statements and details may hold what no log should
		"log_error_verbosity=terse",
	}
	if !s.opts.Durable {
		settings = append(settings, "fsync=off", "synchronous_commit=off", "full_page_writes=off", "wal_level=minimal", "max_wal_senders=0")
	}
	var args []string
	for _, setting := range settings {
		args = append(args, "-c", setting)
	}
	return args
}

var errPortTaken = errors.New("port taken")

// ready waits until the server answers and the owner's role is there.
func (s *Server) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute) // recovery after a crash takes its time
	defer cancel()
	go func() {
		// Whoever took the port may accept a connection and never answer.
		select {
		case <-s.ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := pgx.Connect(ctx, s.SuperURL("postgres"))
		if err == nil {
			defer conn.Close(ctx)
			return s.makeOwner(ctx, conn)
		}
		select {
		case <-tick.C:
			continue
		case <-ctx.Done():
		}
		select {
		case <-s.ended:
			return s.whyEnded()
		default:
			return fmt.Errorf("PostgreSQL does not answer: %w (see %s)", err, s.log())
		}
	}
}

func (s *Server) whyEnded() error {
	out, err := os.ReadFile(s.log())
	if err != nil {
		return fmt.Errorf("PostgreSQL ended at once: %w", err)
	}
	if strings.Contains(string(out), "could not bind") {
		return errPortTaken
	}
	return fmt.Errorf("PostgreSQL ended at once: %s (see %s)", lastLine(string(out)), s.log())
}

func (s *Server) makeOwner(ctx context.Context, conn *pgx.Conn) error {
	var exists bool
	if err := conn.QueryRow(ctx, "select exists (select from pg_roles where rolname = $1)", owner).Scan(&exists); err != nil {
		return fmt.Errorf("look for role %s: %w", owner, err)
	}
	if exists {
		return nil
	}
	// CREATE ROLE takes no parameters; the password is base64url, without a quote.
	if _, err := conn.Exec(ctx, "create role "+owner+" login createrole createdb password '"+s.password+"'"); err != nil {
		return fmt.Errorf("create role %s: %w", owner, err)
	}
	return nil
}

// secret returns the cluster's password, made on first use.
func secret(path string, user *account) (string, error) {
	b, err := os.ReadFile(path)
	if err == nil && len(b) > 0 {
		return strings.TrimSpace(string(b)), nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("password of the database: %w", err)
	}
	password := id.Secret()
	if err := os.WriteFile(path, []byte(password+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("password of the database: %w", err)
	}
	return password, user.own(path) // initdb reads it as that user
}

// lastLine returns the last line that says something.
func lastLine(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if line := strings.TrimSpace(lines[i]); strings.Contains(line, "FATAL") || strings.Contains(line, "error") {
			return line
		}
	}
	return lines[len(lines)-1]
}
