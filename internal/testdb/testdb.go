// Package testdb gives every test a database of its own: a clone of a template
// that was migrated once, on a real PostgreSQL.
//
//	server (one per run) ─▶ template, named by the hash of the migrations ─▶ clone per test
//
// GUICHET_TEST_POSTGRES names a server whose user may create roles and databases; `go run
// ./internal/testdb/run -- go test ./...` starts one for all packages. Without it
// each test binary starts its own. No database is a failure, never a skip.
package testdb

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"guichet/internal/id"
	"guichet/internal/postgres"
	"guichet/migrations"
)

// Variable names a running server to test on.
const Variable = "GUICHET_TEST_POSTGRES"

// New returns a migrated database that only this test uses, opened as the
// service opens it: role guichet_app. It is dropped when the test ends.
func New(t testing.TB) *pgxpool.Pool {
	t.Helper()
	return open(t, URL(t), "guichet_app")
}

// Owner opens the database of pool again as its owner, who may get past the
// grants but not past the triggers.
func Owner(t testing.TB, pool *pgxpool.Pool) *pgxpool.Pool {
	t.Helper()
	return open(t, pool.Config().ConnString(), "")
}

// URL returns the owner's URL of a fresh clone, for tests that start the whole service.
func URL(t testing.TB) string {
	t.Helper()
	s, err := server()
	if err != nil {
		t.Fatalf("test database: %v", err)
	}
	name, err := s.clone(t.Context())
	if err != nil {
		t.Fatalf("test database: %v", err)
	}
	t.Cleanup(func() {
		// t.Context() has ended by now.
		if err := s.drop(context.Background(), name); err != nil {
			t.Errorf("drop test database: %v", err)
		}
	})
	return s.url(name)
}

// Example is New for the examples of a package's documentation, which have no testing.TB:
// it panics without a database. drop ends it.
func Example() (pool *pgxpool.Pool, drop func()) {
	s, err := server()
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	name, err := s.clone(ctx)
	if err != nil {
		panic(err)
	}
	if pool, err = connected(ctx, s.url(name), "guichet_app"); err != nil {
		panic(err)
	}
	return pool, func() {
		pool.Close()
		if err := s.drop(ctx, name); err != nil {
			panic(err)
		}
	}
}

// Empty returns the owner's URL of a database without any migration.
func Empty(t testing.TB) string {
	t.Helper()
	s, err := server()
	if err != nil {
		t.Fatalf("test database: %v", err)
	}
	name := newName()
	if err := s.exec(t.Context(), "create database "+name); err != nil {
		t.Fatalf("test database: %v", err)
	}
	t.Cleanup(func() {
		if err := s.drop(context.Background(), name); err != nil {
			t.Errorf("drop test database: %v", err)
		}
	})
	return s.url(name)
}

func open(t testing.TB, url, role string) *pgxpool.Pool {
	t.Helper()
	pool, err := connected(t.Context(), url, role)
	if err != nil {
		t.Fatalf("test database: %v", err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func connected(ctx context.Context, url, role string) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	cfg.MaxConns = 10
	if role != "" {
		cfg.ConnConfig.RuntimeParams["role"] = role
	}
	return pgxpool.NewWithConfig(ctx, cfg)
}

// A host is the server tests run on, with its migrated template.
type host struct {
	own      *Server // kept: a collected one would free its lock, and the next test binary would sweep it
	admin    *url.URL
	pool     *pgxpool.Pool
	template string
}

// server is the host of this process, made by the first test that asks.
var server = sync.OnceValues(func() (*host, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	admin := os.Getenv(Variable)
	var own *Server
	if admin == "" {
		var err error
		if own, err = Start(ctx); err != nil {
			return nil, err
		}
		admin = own.URL("postgres") // nobody stops it: it dies with this process
	}
	h, err := connect(ctx, admin)
	if err != nil {
		return nil, err
	}
	h.own = own
	return h, nil
})

// Start runs a server for tests in a directory of its own, after sweeping what
// killed runs left. It dies with this process; Stop removes its data.
func Start(ctx context.Context) (*Server, error) {
	prefix := filepath.Join(os.TempDir(), "guichet-test-postgres-")
	if err := postgres.Sweep(prefix + "*"); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(filepath.Dir(prefix), filepath.Base(prefix))
	if err != nil {
		return nil, fmt.Errorf("test database: %w", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { // root's server runs as another user
		return nil, fmt.Errorf("test database: %w", err)
	}
	s, err := postgres.Start(ctx, postgres.Options{Dir: dir})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &Server{Server: s, dir: dir}, nil
}

// A Server is a PostgreSQL for one test run.
type Server struct {
	*postgres.Server
	dir string
}

// Stop ends the server and removes its data.
func (s *Server) Stop() error {
	return errors.Join(s.Server.Stop(), os.RemoveAll(s.dir))
}

func connect(ctx context.Context, admin string) (*host, error) {
	u, err := url.Parse(admin)
	if err != nil {
		return nil, fmt.Errorf("%s is not a URL", Variable) // without quoting it: it holds a password
	}
	cfg, err := pgxpool.ParseConfig(admin)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", Variable, err)
	}
	cfg.MaxConns = 4
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", Variable, err)
	}
	var may bool
	err = pool.QueryRow(ctx, "select rolsuper or (rolcreaterole and rolcreatedb) from pg_roles where rolname = current_user").Scan(&may)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", Variable, err)
	}
	if !may {
		return nil, fmt.Errorf("%s: its user must be allowed to create roles and databases (alter role … createrole createdb)", Variable)
	}
	h := &host{admin: u, pool: pool}
	if err := h.migrate(ctx); err != nil {
		return nil, err
	}
	return h, nil
}

// migrate makes the template unless it is there. Packages tested in parallel meet
// here: the first one works, the others wait.
func (h *host) migrate(ctx context.Context) error {
	hash, err := migrations.Hash()
	if err != nil {
		return err
	}
	h.template = "guichet_template_" + hash
	conn, err := h.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("template database: %w", err)
	}
	defer conn.Release()
	const lock = 7482052
	if _, err := conn.Exec(ctx, "select pg_advisory_lock($1)", lock); err != nil {
		return fmt.Errorf("template database: %w", err)
	}
	defer func() {
		_, _ = conn.Exec(ctx, "select pg_advisory_unlock($1)", lock) // ends with the session in any case
	}()
	var exists bool
	if err := conn.QueryRow(ctx, "select exists (select from pg_database where datname = $1)", h.template).Scan(&exists); err != nil {
		return fmt.Errorf("template database: %w", err)
	}
	if exists {
		return nil
	}
	// Under another name until it is whole: a killed run leaves no half template.
	half := h.template + "_half"
	for _, sql := range []string{"drop database if exists " + half + " with (force)", "create database " + half} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("template database: %w", err)
		}
	}
	if err := migrations.Up(ctx, h.url(half)); err != nil {
		return fmt.Errorf("template database: %w", err)
	}
	if _, err := conn.Exec(ctx, "alter database "+half+" rename to "+h.template); err != nil {
		return fmt.Errorf("template database: %w", err)
	}
	return nil
}

func (h *host) clone(ctx context.Context) (string, error) {
	name := newName()
	return name, h.exec(ctx, "create database "+name+" template "+h.template)
}

// drop removes a database with whoever is connected to it. An autovacuum worker belongs
// to the superuser, whom "force" may not end for us (42501); without it the
// server asks the worker to leave.
func (h *host) drop(ctx context.Context, name string) error {
	err := h.exec(ctx, "drop database if exists "+name+" with (force)")
	if pg := new(pgconn.PgError); errors.As(err, &pg) && pg.Code == "42501" {
		err = h.exec(ctx, "drop database if exists "+name)
	}
	return err
}

// newName is a database name that needs no quoting.
func newName() string { return "guichet_test_" + id.New()[24:] }

func (h *host) exec(ctx context.Context, sql string) error {
	if _, err := h.pool.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return nil
}

func (h *host) url(database string) string {
	u := *h.admin
	u.Path = "/" + database
	return u.String()
}
