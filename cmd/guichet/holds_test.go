package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/jobs"
	"guichet/internal/testdb"
	"guichet/ledger"
)

// The service frees holds whose time is over by itself: more than one portion of them,
// and no other.
func TestTheServiceFreesHoldsThatAreOver(t *testing.T) {
	t.Parallel()
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte(strings.Repeat("ab", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	settings := map[string]string{
		"DATABASE_URL": testdb.URL(t), "GUICHET_KEY_FILE": key, "STRIPE_SECRET_KEY": "sk_test_0123456789abcdef",
		"STRIPE_WEBHOOK_SECRET": "whsec_0123456789abcdef", "SMTP_ADDR": "127.0.0.1:1", "SMTP_SECURITY": "none", "MAIL_FROM": "no-reply@example.com",
	}
	w, err := openWorld(t.Context(), env{get: func(name string) string { return settings[name] }, out: new(bytes.Buffer), err: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	const over = 250
	err = pgx.BeginFunc(t.Context(), w.db, func(tx pgx.Tx) error {
		for i := range over + 1 {
			expires := w.clock.Now().Add(-time.Minute)
			if i == over {
				expires = expires.Add(time.Hour)
			}
			if _, err := w.books.Hold(t.Context(), tx, ledger.Entry{Key: "h" + time.Duration(i).String(), Kind: "deposit", Lines: []ledger.Line{
				{Account: "assets:processor-clearing", Amount: 5}, {Account: "assets:bank:main", Amount: -5},
			}}, expires); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	workers, err := w.workers()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.queue.Work(t.Context(), jobs.Options{Workers: workers, Periodic: periodic()}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := w.queue.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	deadline := time.After(time.Minute)
	for {
		var open, expired int
		if err := w.db.QueryRow(t.Context(), `select count(*) filter (where state = 'open'), count(*) filter (where state = 'expired') from ledger.hold`).Scan(&open, &expired); err != nil {
			t.Fatal(err)
		}
		if open == 1 && expired == over {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("%d holds are open and %d expired, want 1 and %d", open, expired, over)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
