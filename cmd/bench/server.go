package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"

	"guichet/internal/database"
	"guichet/internal/id"
	"guichet/internal/postgres"
	"guichet/migrations"
)

// A server is where the databases of the benchmarks are made.
type server struct {
	admin   string // URL of a database of a user who may create others
	private *postgres.Server
	dir     string
}

// newServer starts a PostgreSQL with fsync on, unless given names one.
func newServer(ctx context.Context, dir, given string) (*server, error) {
	if given != "" {
		if err := database.CheckOwner(ctx, given); err != nil {
			return nil, err
		}
		return &server{admin: given}, nil
	}
	if dir == "" {
		dir = os.TempDir()
	}
	if err := postgres.Sweep(filepath.Join(dir, "guichet-bench-*")); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(dir, "guichet-bench-")
	if err != nil {
		return nil, fmt.Errorf("database directory: %w", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { // root's server runs as another user
		return nil, fmt.Errorf("database directory: %w", err)
	}
	s, err := postgres.Start(ctx, postgres.Options{Dir: dir, Durable: true})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &server{admin: s.URL("postgres"), private: s, dir: dir}, nil
}

func (s *server) stop() error {
	if s.private == nil {
		return nil
	}
	return errors.Join(s.private.Stop(), os.RemoveAll(s.dir))
}

// database makes a migrated database and returns its owner's URL and how to drop it.
func (s *server) database(ctx context.Context) (string, func() error, error) {
	u, err := url.Parse(s.admin)
	if err != nil {
		return "", nil, errors.New("DATABASE_URL is not a URL") // without quoting it: it holds a password
	}
	name := "guichet_bench_" + strings.ReplaceAll(id.New(), "-", "")
	if err := s.exec(ctx, "create database "+name); err != nil {
		return "", nil, err
	}
	drop := func() error {
		return s.exec(context.WithoutCancel(ctx), "drop database if exists "+name)
	}
	u.Path = "/" + name
	if err := migrations.Up(ctx, u.String()); err != nil {
		return "", nil, errors.Join(err, drop())
	}
	return u.String(), drop, nil
}

func (s *server) exec(ctx context.Context, sql string) error {
	conn, err := pgx.Connect(ctx, s.admin)
	if err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, sql); err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return nil
}
