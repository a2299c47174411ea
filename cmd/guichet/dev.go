package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/database"
)

type devCmd struct {
	Dir   string `help:"Where everything is stored; default ${devdir}." default:"${devdir}"`
	Port  int    `default:"8080" help:"Port of the resident portal; the others follow. 0 takes free ports."`
	Reset bool   `help:"Forget everything that was stored, and end."`
	Quiet bool   `help:"Log warnings only."`
}

// stateDir is where dev and demo keep their data by default. A server started by
// root runs as another user, who cannot enter root's home.
func stateDir(get func(string) string) string {
	if os.Geteuid() == 0 {
		return "/var/lib/guichet"
	}
	if dir := get("XDG_STATE_HOME"); dir != "" {
		return filepath.Join(dir, "guichet")
	}
	if home := get("HOME"); home != "" {
		return filepath.Join(home, ".local", "state", "guichet")
	}
	return filepath.Join(os.TempDir(), "guichet-"+fmt.Sprint(os.Geteuid()))
}

func (c *devCmd) Run(ctx context.Context, e env) error {
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return err
	}
	databaseURL := e.get("DATABASE_URL")
	if c.Reset {
		return reset(ctx, dir, databaseURL, e.out)
	}
	if databaseURL != "" {
		if err := database.CheckOwner(ctx, databaseURL); err != nil {
			return err
		}
	}
	place, err := claim(dir, "dev")
	if err != nil {
		return err
	}
	defer place.release() //nolint:errcheck // the process ends
	if err := place.checkDatabase(ctx, databaseURL); err != nil {
		return err
	}
	level := slog.LevelInfo
	if c.Quiet {
		level = slog.LevelWarn
	}
	log, logFile, err := stackLog(dir, level)
	if err != nil {
		return err
	}
	defer logFile.Close()
	started := time.Now()
	s, err := startStack(ctx, stackOptions{Place: place, Port: c.Port, DatabaseURL: databaseURL, Database: "guichet_dev", Durable: true, Log: log})
	if err != nil {
		return early(ctx, err, log, e.out)
	}
	err = s.develop(ctx, e.out, started, logFile.Name())
	return errors.Join(early(ctx, err, log, e.out), s.stop())
}

// early is err, or nil when somebody interrupted a start: what the interrupted step
// says of itself is of no use to them.
func early(ctx context.Context, err error, log *slog.Logger, out io.Writer) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	log.WarnContext(ctx, "stopped before it was ready", "error", err)
	fmt.Fprintln(out, "stopped before everything was up: the next start goes on from there")
	return nil
}

// stackLog is a file beside the data: the terminal is for the links.
func stackLog(dir string, level slog.Level) (*slog.Logger, *os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "guichet.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("log file: %w", err)
	}
	return slog.New(slog.NewTextHandler(f, &slog.HandlerOptions{Level: level})), f, nil
}

// develop seeds a new stack, prints where everything is and waits for the end.
func (s *stack) develop(ctx context.Context, out io.Writer, started time.Time, logFile string) error {
	if err := s.seed(ctx, func(string, map[string]any) {}); err != nil {
		return err
	}
	if err := s.startApp(); err != nil {
		return err
	}
	notices, err := s.demoNotices(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\nGuichet is running (ready in %s). Ctrl-C stops all of it.\n\n", time.Since(started).Round(100*time.Millisecond))
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, l := range s.links() {
		fmt.Fprintf(t, "  %s\t%s\n", l.Name, l.URL)
	}
	t.Flush() //nolint:errcheck // the terminal is gone
	fmt.Fprintf(out, "\nTo pay as a guest (demonstration data):\n")
	for _, n := range notices {
		fmt.Fprintf(out, "  notice %s, plate %s\n", n.Notice, n.GuestKey)
	}
	fmt.Fprintf(out, "Test card 4242 4242 4242 4242, any later date, code, name and address. Codes for signing in arrive in the mail catcher.\nOther commands, in another terminal: set -a; . %s; bin/guichet --help\nLog: %s\n\n", filepath.Join(s.dir, "env"), logFile)
	select {
	case <-ctx.Done():
		fmt.Fprintln(out, "\nstopping")
		return nil
	case <-s.pgEnded():
		return errors.New("the database server has ended: see " + logFile)
	}
}

// pgEnded is closed when the private server is gone; a given database is watched
// by readiness alone.
func (s *stack) pgEnded() <-chan struct{} {
	if s.pg == nil {
		return nil
	}
	return s.pg.Ended()
}

// schemas are what a given database is rid of by a reset.
var schemas = []string{"ops", "department", "ledger", "payments", "identity", "reconcile", "river"}

// reset forgets what a stack stored. It deletes nothing that a stack did not make.
func reset(ctx context.Context, dir, databaseURL string, out io.Writer) error {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintln(out, "nothing is stored in", dir)
		return nil
	}
	place, err := claim(dir, "dev")
	if err != nil {
		return fmt.Errorf("reset: %w", err)
	}
	defer place.release() //nolint:errcheck // the process ends
	if place.Database != "" {
		if err := place.resetDatabase(ctx, databaseURL); err != nil {
			return fmt.Errorf("reset: %w", err)
		}
		fmt.Fprintln(out, "emptied the database", place.Database)
	}
	if err := place.remove(); err != nil {
		return fmt.Errorf("reset: %w", err)
	}
	fmt.Fprintln(out, "removed", dir)
	return nil
}

// resetDatabase empties the given database that holds this place's data, and no other.
func (p *place) resetDatabase(ctx context.Context, databaseURL string) error {
	if name, err := databaseName(databaseURL); err != nil || name != p.Database {
		return errors.Join(err, fmt.Errorf("the data in %s is in the database %s: set DATABASE_URL to it", p.dir, p.Database))
	}
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // nothing is left to say
	for _, schema := range schemas {
		if _, err := conn.Exec(ctx, "drop schema if exists "+pgx.Identifier{schema}.Sanitize()+" cascade"); err != nil {
			return err
		}
	}
	return nil
}
