package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"guichet/internal/approval"
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
	var out bytes.Buffer
	try := func(args ...string) error {
		var errs bytes.Buffer
		out.Reset()
		return run(t.Context(), args, env{get: func(name string) string { return settings[name] }, out: &out, err: &errs})
	}
	for _, args := range [][]string{
		{"admin", "department", "library", "Library", "Bibliothèque"},
		{"admin", "webhook", "library", "http://localhost:7777/hook", "--private"},
		{"admin", "client", "library", "library-app", "Library", "Bibliothèque", "--redirect-uri=http://localhost:7777/callback"},
		{"admin", "client", "rotate", "library-app", "--by=me"},
		{"admin", "client", "revoke", "library-app", "--by=me"},
		{"admin", "client", "errors", "library-app"},
		{"admin", "client", "list"},
		{"admin", "client", "disable", "library-app", "--by=me", "--why=leaked"},
		{"admin", "client", "change", "library-app", "--by=me", "--enable", "--alg=RS256"},
		{"admin", "key", "library", "my machine"},
		{"admin", "key", "list", "library"},
		{"admin", "webhook", "list", "library"},
		{"admin", "staff", "list"},
		{"admin", "signing-key", "list"},
		{"admin", "break-glass", "list"},
	} {
		if err := try(args...); err != nil {
			t.Fatalf("%q: %v", args, err)
		}
	}
	for _, c := range []struct{ want, args string }{
		{"--private allows plain http", "admin webhook library http://localhost:7777/other"},
		{"has the webhook address http://localhost:7777/hook already", "admin webhook library http://localhost:7777/hook --private"},
		{"there is a client library-app already", "admin client library library-app A B --redirect-uri=http://localhost:7777/other"},
		{"client not found", "admin client rotate nobody --by me"},
		{"client not found", "admin client errors nobody"},
		{"no such API key", "admin key revoke library 0198c0de-0000-7000-8000-000000000000"},
		{"no such webhook endpoint", "admin webhook revoke library x"},
		{"set STAFF_ALARM_MAIL first", "admin break-glass make --by me"},
		{"approval not found", "admin approve 0198c0de-0000-7000-8000-000000000000 --by me"},
		{"have tried to sign in at /desk", "admin staff clerk@demo.example finance-clerk --by me"},
	} {
		if err := try(strings.Fields(c.args)...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("guichet %s: got %v, want %q", c.args, err, c.want)
		}
	}
	// A journal key is given by two persons.
	if err := try("admin", "key", "library", "feeder", "--journal", "expenses:payroll", "--by", "me"); err != nil {
		t.Fatal(err)
	}
	var issued map[string]string
	if err := json.Unmarshal(out.Bytes(), &issued); err != nil {
		t.Fatal(err)
	}
	if err := try("admin", "approve", issued["waits_for_approval"], "--by", "me"); !errors.Is(err, approval.ErrSamePerson) {
		t.Errorf("the one who asked approves: got %v, want ErrSamePerson", err)
	}
	if err := try("admin", "approve", issued["waits_for_approval"], "--by", "another"); err != nil {
		t.Error(err)
	}
	if err := try("admin", "key", "list", "library"); err != nil || !strings.Contains(out.String(), `"journal":["expenses:payroll"]`) {
		t.Errorf("the list of keys: %v: %s", err, &out)
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
