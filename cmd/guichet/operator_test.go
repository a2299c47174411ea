package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"guichet/internal/seal"
	"guichet/internal/testdb"
	"guichet/reconcile"
)

// What an operator gets wrong is refused before anything is done, in words that say
// what to do.
func TestOperatorsAreToldWhatToDo(t *testing.T) {
	t.Parallel()
	key := func(name, digits string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(strings.Repeat(digits, 32)), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	settings := map[string]string{
		"DATABASE_URL": testdb.URL(t), "GUICHET_KEY_FILE": key("key", "ab"), "STRIPE_SECRET_KEY": "sk_test_0123456789abcdef",
		"STRIPE_WEBHOOK_SECRET": "whsec_0123456789abcdef", "SMTP_ADDR": "127.0.0.1:1", "SMTP_SECURITY": "none", "MAIL_FROM": "no-reply@example.com",
	}
	try := func(args ...string) error {
		var out, errs bytes.Buffer
		return run(t.Context(), args, env{get: func(name string) string { return settings[name] }, out: &out, err: &errs})
	}
	for _, args := range [][]string{
		{"admin", "department", "library", "Library", "Bibliothèque"},
		{"admin", "webhook", "library", "http://localhost:7777/hook", "--private"},
	} {
		if err := try(args...); err != nil {
			t.Fatalf("%q: %v", args, err)
		}
	}
	for _, c := range []struct{ want, args string }{
		{"--private allows plain http", "admin webhook library http://localhost:7777/other"},
		{"has the webhook address http://localhost:7777/hook already", "admin webhook library http://localhost:7777/hook --private"},
		{"have tried to sign in at /desk", "admin staff clerk@demo.example finance-clerk --by me"},
	} {
		if err := try(strings.Fields(c.args)...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("guichet %s: got %v, want %q", c.args, err, c.want)
		}
	}
	// A date that is mistyped must not run today's night on the way.
	if err := try("nightly", "2999-01-01"); !errors.Is(err, reconcile.ErrFuture) || !strings.Contains(err.Error(), "2999-01-01") {
		t.Errorf("the night of a distant date: got %v, want ErrFuture of that date", err)
	}
	settings["GUICHET_KEY_FILE"] = key("other", "cd")
	if err := try("verify"); !errors.Is(err, seal.ErrBroken) || !strings.Contains(err.Error(), "GUICHET_KEY_FILE") {
		t.Errorf("another key: got %v, want ErrBroken that names GUICHET_KEY_FILE", err)
	}
}
