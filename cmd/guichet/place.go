package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/jackc/pgx/v5"

	"guichet/internal/postgres"
	"guichet/simulators/control"
)

// A place is the directory of a stack. One process works in it at a time, and the
// lock's file says whose it is: a directory without one is never emptied.
type place struct {
	dir  string
	lock *os.File
	kept
}

// kept is what a start must know of the start before.
type kept struct {
	For string `json:"for"` // the command: what dev stored is not the demo's to empty
	// Where the listeners were: the demo applications are registered at these addresses.
	Ports []int `json:"ports"`
	// The given database that holds this stack's data; empty: one of its own.
	Database string `json:"database,omitempty"`
}

const lockName = "guichet.lock"

func (p *place) keptPath() string { return filepath.Join(p.dir, "stack.json") }

// used reports whether a stack has stored anything here.
func (k kept) used() bool { return len(k.Ports) > 0 }

// claim takes a directory for this process and its command, making it when it is
// missing.
func claim(dir, command string) (*place, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	lock := filepath.Join(dir, lockName)
	if _, err := os.Stat(lock); errors.Is(err, fs.ErrNotExist) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, fmt.Errorf("data directory: %w", err)
		}
		if len(entries) > 0 {
			return nil, fmt.Errorf("%s is not empty and was not made by guichet: empty it, or choose another directory with --dir", dir)
		}
	}
	f, err := os.OpenFile(lock, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	p := &place{dir: dir, lock: f}
	err = p.take()
	if err == nil && p.used() && p.For != command {
		err = fmt.Errorf("%s holds the data of guichet %s: choose another directory with --dir", dir, p.For)
	}
	if err != nil {
		f.Close() //nolint:errcheck // err says more
		return nil, err
	}
	p.For = command
	return p, nil
}

// take locks the directory, which the kernel frees when this process ends, and
// reads what was kept.
func (p *place) take() error {
	if err := syscall.Flock(int(p.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		pid, _ := os.ReadFile(p.lock.Name()) // only to name it in the message
		return fmt.Errorf("%s is in use by process %s: stop it, or choose another directory with --dir", p.dir, bytes.TrimSpace(pid))
	}
	if err := p.lock.Truncate(0); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	if _, err := p.lock.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	text, err := os.ReadFile(p.keptPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	if err := json.Unmarshal(text, &p.kept); err != nil {
		return fmt.Errorf("read %s: %w", p.keptPath(), err)
	}
	return nil
}

// release lets other processes in.
func (p *place) release() error { return p.lock.Close() }

// keep remembers where this start listens and in which given database it writes.
func (p *place) keep(ports []int, database string) error {
	p.Ports, p.Database = ports, database
	text, err := json.Marshal(p.kept)
	if err != nil {
		return err
	}
	return control.WriteFile(p.keptPath(), text, 0o600)
}

// empty removes everything but the lock, and first ends the database that a killed
// process may have left running here.
func (p *place) empty() error {
	if err := postgres.Sweep(filepath.Join(p.dir, "postgres")); err != nil {
		return err
	}
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == lockName {
			continue
		}
		if err := os.RemoveAll(filepath.Join(p.dir, e.Name())); err != nil {
			return err
		}
	}
	p.kept = kept{For: p.For}
	return nil
}

// remove empties the directory and removes it, the lock last.
func (p *place) remove() error {
	if err := p.empty(); err != nil {
		return err
	}
	return errors.Join(os.Remove(p.lock.Name()), os.Remove(p.dir))
}

// numbers are the ports to listen on: those of the start before, or from base on;
// 0 is any free one.
func (p *place) numbers(base int) ([]int, error) {
	if p.used() && base != 0 && base != p.Ports[portPortal] {
		return nil, fmt.Errorf("the data in %s belongs to port %d: start with --port %d, choose another --dir, or start over with --reset",
			p.dir, p.Ports[portPortal], p.Ports[portPortal])
	}
	numbers := make([]int, portCount)
	for n := range numbers {
		switch {
		case n < len(p.Ports):
			numbers[n] = p.Ports[n]
		case base != 0:
			numbers[n] = base + n
		}
	}
	return numbers, nil
}

// checkDatabase refuses a given database that holds the data of another deployment,
// and a database other than the one that holds this place's data.
func (p *place) checkDatabase(ctx context.Context, databaseURL string) error {
	name, err := databaseName(databaseURL)
	if err != nil {
		return err
	}
	switch {
	case p.used() && p.Database == name:
		return nil
	case p.used() && p.Database == "":
		return fmt.Errorf("DATABASE_URL: the data in %s is in a database of its own: unset DATABASE_URL, or choose another --dir", p.dir)
	case p.used() && name == "":
		return fmt.Errorf("the data in %s is in the database %s: set DATABASE_URL to it, or choose another --dir", p.dir, p.Database)
	case p.used():
		return fmt.Errorf("DATABASE_URL: the data in %s is in the database %s: give that one, or choose another --dir", p.dir, p.Database)
	case name == "":
		return nil
	}
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return fmt.Errorf("DATABASE_URL: %w", err)
	}
	defer conn.Close(ctx) //nolint:errcheck // nothing is left to say
	var taken bool
	if err := conn.QueryRow(ctx, `select exists (select from pg_namespace where nspname = any($1))`, schemas).Scan(&taken); err != nil {
		return fmt.Errorf("DATABASE_URL: %w", err)
	}
	if taken {
		return errors.New("DATABASE_URL: this database holds the data of another deployment: give an empty one")
	}
	return nil
}

// databaseName names a given database, without its user; "" stays "".
func databaseName(databaseURL string) (string, error) {
	if databaseURL == "" {
		return "", nil
	}
	cfg, err := pgx.ParseConfig(databaseURL)
	if err != nil {
		return "", fmt.Errorf("DATABASE_URL: %w", err)
	}
	return net.JoinHostPort(cfg.Host, strconv.Itoa(int(cfg.Port))) + "/" + cfg.Database, nil
}
