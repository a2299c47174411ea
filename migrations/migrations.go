// Package migrations brings a database to the schema this build needs: the SQL
// files beside it, in order, and then the job queue's own tables.
//
//	owner URL ──Up──▶ schemas ops, department, ledger, … (goose, list in ops.migration)
//	                  schema river (River's own list)
//
// Up may be called by several instances at once and again at any time; it only
// goes forward. The service itself runs as role guichet_app and cannot call it.
package migrations

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

//go:embed *.sql
var files embed.FS

// River's tables live in their own schema, so that its upgrades never meet ours.
const River = "river"

// lock is the key of the advisory lock that migrating instances queue on.
const lock = 7482051

// ErrBehind says that the database has not seen every migration of this build.
var ErrBehind = errors.New("the database is older than this program: run `guichet migrate`")

// Up runs every migration the database has not seen. ownerURL names a user that
// may create schemas and roles. Calling it again changes nothing.
func Up(ctx context.Context, ownerURL string) error {
	cfg, err := pgxpool.ParseConfig(ownerURL)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	cfg.MaxConns = 4 // one holds the lock while the others work
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	defer pool.Close()
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	defer conn.Release()

	// Two instances that start together: the second waits here, then finds nothing to do.
	if _, err := conn.Exec(ctx, "select pg_advisory_lock($1)", lock); err != nil {
		return fmt.Errorf("wait for another migration: %w", err)
	}
	defer func() {
		// The lock ends with the session, so a connection that fails here loses it all the same.
		_, _ = conn.Exec(context.WithoutCancel(ctx), "select pg_advisory_unlock($1)", lock)
	}()

	if _, err := conn.Exec(ctx, "create schema if not exists ops"); err != nil {
		return fmt.Errorf("create schema ops: %w", err)
	}
	db := stdlib.OpenDBFromPool(pool)
	defer db.Close()
	if err := ours(ctx, db); err != nil {
		return err
	}
	return rivers(ctx, pool)
}

func ours(ctx context.Context, db *sql.DB) error {
	p, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithTableName("ops.migration"), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

func rivers(ctx context.Context, pool *pgxpool.Pool) error {
	if _, err := pool.Exec(ctx, "create schema if not exists "+River); err != nil {
		return fmt.Errorf("create schema %s: %w", River, err)
	}
	m, err := riverMigrator(pool)
	if err != nil {
		return err
	}
	if _, err := m.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return fmt.Errorf("migrate the job queue: %w", err)
	}
	// An upgrade of River may bring new tables: grant on all of them each time.
	if _, err := pool.Exec(ctx, grants); err != nil {
		return fmt.Errorf("grant the job queue: %w", err)
	}
	return nil
}

func riverMigrator(pool *pgxpool.Pool) (*rivermigrate.Migrator[pgx.Tx], error) {
	m, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Schema: River, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, fmt.Errorf("read migrations of the job queue: %w", err)
	}
	return m, nil
}

const grants = `
grant usage on schema river to guichet_app;
grant select, insert, update, delete on all tables in schema river to guichet_app;
grant usage, select on all sequences in schema river to guichet_app;
grant select on ops.migration to guichet_app`

// A Querier is a pool, connection or transaction.
type Querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Check returns nil when the database has seen every migration of this build and
// ErrBehind, wrapped, when not. A database that is ahead is fine: during a rollout the previous
// program runs on the new schema.
func Check(ctx context.Context, db Querier) error {
	want, err := head()
	if err != nil {
		return err
	}
	var have int64
	if err := db.QueryRow(ctx, "select coalesce(max(version_id), 0) from ops.migration where is_applied").Scan(&have); err != nil {
		return fmt.Errorf("read the list of migrations: %w", err)
	}
	if have < want {
		return fmt.Errorf("migration %04d of %04d: %w", have, want, ErrBehind)
	}
	return nil
}

// head returns the number of the newest migration.
func head() (int64, error) {
	names, err := fs.Glob(files, "*.sql")
	if err != nil || len(names) == 0 {
		return 0, fmt.Errorf("read migrations: found %d files: %w", len(names), err)
	}
	number, _, _ := strings.Cut(names[len(names)-1], "_") // Glob sorts; the numbers have four digits
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("migration %s: want a number in front: %w", names[len(names)-1], err)
	}
	return n, nil
}

// Hash names the schema that Up makes: it changes with any of our files, with
// this package's own statements and with River's migrations.
func Hash() (string, error) {
	h := sha256.New()
	names, err := fs.Glob(files, "*.sql")
	if err != nil {
		return "", fmt.Errorf("hash migrations: %w", err)
	}
	for _, name := range names {
		body, err := files.ReadFile(name)
		if err != nil {
			return "", fmt.Errorf("hash migrations: %w", err)
		}
		fmt.Fprintf(h, "%s %d\n%s", name, len(body), body)
	}
	fmt.Fprint(h, grants)
	m, err := riverMigrator(nil)
	if err != nil {
		return "", err
	}
	for _, v := range m.AllVersions() {
		fmt.Fprintf(h, "river %d\n%s", v.Version, v.SQLUp)
	}
	return hex.EncodeToString(h.Sum(nil))[:12], nil
}
