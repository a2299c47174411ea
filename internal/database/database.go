// Package database opens the pool the service works with and says, before
// anything else runs, what a given DATABASE_URL lacks.
//
//	DATABASE_URL (the owner) ──CheckOwner, migrations.Up──▶ schema
//	                         ──Open, as role guichet_app──▶ pool of the service
//
// It also keeps how far the business clock was moved. It knows no table of any room.
package database

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Role is what the service runs as. It may change rows and never tables.
const Role = "guichet_app"

// oldest is the first server version the migrations are written for.
const oldest = 150000

// Options of a pool. The zero value is right for the service.
type Options struct {
	Application string // shown in pg_stat_activity; default "guichet"
	MaxConns    int32  // default 20
}

// Open returns a pool whose sessions run as Role. It reaches the server once, so
// that a wrong URL is found at the start. The role must exist: migrate first.
func Open(ctx context.Context, url string, o Options) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("DATABASE_URL: %w", err) // pgx hides the password
	}
	if o.Application == "" {
		o.Application = "guichet"
	}
	cfg.MaxConns = 20
	if o.MaxConns > 0 {
		cfg.MaxConns = o.MaxConns
	}
	cfg.MaxConnIdleTime = 5 * time.Minute
	cfg.ConnConfig.ConnectTimeout = 10 * time.Second
	params := cfg.ConnConfig.RuntimeParams
	params["role"] = Role
	params["application_name"] = o.Application
	params["timezone"] = "UTC"
	// A session that hangs between two statements would hold its row locks for ever.
	params["idle_in_transaction_session_timeout"] = "30s"
	params["lock_timeout"] = "15s"
	params["statement_timeout"] = "120s" // long work is done in pieces
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, fmt.Errorf("open database: %w", explain(err))
	}
	return pool, nil
}

// TimedOut reports that a statement took longer than it may.
func TimedOut(err error) bool {
	pgErr := new(pgconn.PgError)
	return errors.As(err, &pgErr) && pgErr.Code == "57014" // query_canceled
}

// explain says what to do about the usual faults of a first start.
func explain(err error) error {
	pgErr := new(pgconn.PgError)
	if !errors.As(err, &pgErr) {
		return err
	}
	switch {
	case pgErr.Code == "22023" || pgErr.Code == "42704": // role does not exist
		return fmt.Errorf("role %s is missing, run `guichet migrate`: %w", Role, err)
	case pgErr.Code == "42501": // insufficient privilege
		return fmt.Errorf("the user of DATABASE_URL may not take role %s, run `guichet migrate` as that user or `grant %s to …`: %w", Role, Role, err)
	}
	return err
}

// CheckOwner reports in one line what keeps url from being used as the owner:
// unreachable, too old, or not allowed to create roles and schemas. It changes nothing.
func CheckOwner(ctx context.Context, url string) error {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return fmt.Errorf("DATABASE_URL: %w", err)
	}
	cfg.ConnectTimeout = 10 * time.Second
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return &unreachableError{err}
	}
	defer conn.Close(ctx)
	var version int
	var user, name string
	var mayRole, maySchema, member bool
	err = conn.QueryRow(ctx, ownerRights, Role).Scan(&version, &user, &name, &mayRole, &maySchema, &member)
	switch {
	case err != nil:
		return fmt.Errorf("DATABASE_URL: %w", err)
	case version < oldest:
		return fmt.Errorf("DATABASE_URL: the server is PostgreSQL %d, Guichet needs 15 or newer", version/10000)
	case !maySchema:
		return fmt.Errorf("DATABASE_URL: user %s may not create schemas: grant create on database %s to %s", user, name, user)
	case !mayRole && !member:
		return fmt.Errorf("DATABASE_URL: user %s may not create roles: alter role %s createrole, or create role %s and grant it to %s", user, user, Role, user)
	}
	return nil
}

// An unreachableError says in one line what pgx says in a line for each attempt:
// every address, with TLS and without.
type unreachableError struct{ err error }

func (e *unreachableError) Unwrap() error { return e.err }

func (e *unreachableError) Error() string {
	lines := strings.Split(e.err.Error(), "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return "DATABASE_URL: " + strings.Join(slices.Compact(lines), " ")
}

// A user that is already a member of the role needs no right to create it.
const ownerRights = `
select current_setting('server_version_num')::int, current_user, current_database(), rolsuper or rolcreaterole,
	has_database_privilege(current_database(), 'create'),
	coalesce((select pg_has_role(current_user, oid, 'member') from pg_roles where rolname = $1), false)
from pg_roles where rolname = current_user`

// Named returns a URL with the name of the database replaced.
func Named(databaseURL, name string) (string, error) {
	u, err := url.Parse(databaseURL)
	if err != nil || u.Scheme == "" {
		return "", errors.New("DATABASE_URL: want postgres://user@host:port/name")
	}
	u.Path = "/" + name
	return u.String(), nil
}
