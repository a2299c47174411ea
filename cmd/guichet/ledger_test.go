package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"guichet/internal/testdb"
	"guichet/ledger"
)

// Accounting's whole way through the shell: chart, import, reports, close, export, proof,
// and a witness who refuses a rewritten log.
func TestLedgerCommands(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	settings := map[string]string{
		"DATABASE_URL": testdb.URL(t), "GUICHET_KEY_FILE": file("key", strings.Repeat("ab", 32)), "STRIPE_SECRET_KEY": "sk_test_0123456789abcdef",
		"STRIPE_WEBHOOK_SECRET": "whsec_0123456789abcdef", "SMTP_ADDR": "127.0.0.1:1", "SMTP_SECURITY": "none", "MAIL_FROM": "no-reply@example.com",
		"GUICHET_HEADS": filepath.Join(dir, "heads"),
	}
	get := func(name string) string { return settings[name] }
	try := func(args ...string) (string, error) {
		var out, errs bytes.Buffer
		err := run(t.Context(), args, env{get: get, out: &out, err: &errs})
		return out.String(), err
	}
	must := func(want string, args ...string) string {
		t.Helper()
		out, err := try(args...)
		if err != nil || !strings.Contains(out, want) {
			t.Fatalf("%q: %v, want %q in\n%s", args, err, want, out)
		}
		return out
	}
	chart := file("chart.csv", "path,name_en,name_fr\nassets:bank:old,Old bank,Ancienne banque\nequity:opening,Opening,Ouverture\n")
	must("+ equity:opening", "ledger", "chart", "--dry-run", chart)
	must("2 differences", "ledger", "chart", chart)
	must("0 differences", "ledger", "chart", chart)
	books := file("old.csv", "entry,effective_on,account,debit,credit\n1,2020-01-31,assets:bank:old,12.34,\n1,2020-01-31,equity:opening,,12.34\n")
	if _, err := try("ledger", "import", "old", books, "--entries=1", "--debits=12.35", "--by=staff:1"); !errors.Is(err, ledger.ErrInvalid) {
		t.Errorf("a total that is not announced: got %v, want ErrInvalid", err)
	}
	must(`"lines":2`, "ledger", "import", "old", books, "--kind=opening", "--entries=1", "--debits=12.34", "--by=staff:1")
	must("assets:bank:old,Ancienne banque,asset,,CAD,12.34,0.00,12.34", "ledger", "trial", "--on=2020-01-31", "--lang=fr")
	must("equity:opening,CAD,0.00,12.34,-12.34", "ledger", "activity", "--by=account", "--under=equity")
	must("assets:bank:old,Old bank,asset,,open,debit,CAD,,12.34", "ledger", "accounts")
	must("closing", "ledger", "period", "2020-01", "closing")
	must("trial_hash", "ledger", "period", "2020-01", "closed")
	must("assets:bank:old", "ledger", "trial", "--frozen=2020-01")

	w, err := openWorld(t.Context(), env{get: get, out: io.Discard, err: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	p, err := w.poster(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var early bytes.Buffer
	if err := run(t.Context(), []string{"ledger", "general"}, env{get: get, out: io.Discard, err: &early}); err != nil || !strings.Contains(early.String(), "1 entries are recorded") {
		t.Errorf("the general ledger before all is in the accounts: %v, says %q", err, &early)
	}
	if err := p.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	must("opening,assets:bank:old,Old bank", "ledger", "statement", "assets:bank:old")
	must("line,assets:bank:old,Old bank,1,2020-01-31", "ledger", "statement", "assets:bank:old", "--known-at=2100-01-01T00:00:00Z")
	if out := must("account,", "ledger", "trial", "--known=2019-01-01T00:00:00Z"); strings.Contains(out, "assets:bank:old") {
		t.Errorf("before anything was known there was\n%s", out)
	}
	must("closing,assets:bank:old,Old bank", "ledger", "general", "--under=assets", "--from=2020-01-01", "--to=2020-01-31")
	must("total,,,,,,,,,,12.34,12.34,0.00,CAD,", "ledger", "general")
	var found struct {
		Rows []struct {
			Entry string
			Cents int64 `json:"amount_cents"`
		}
		Count int
	}
	if text := must(`"table":"entries"`, "ledger", "search", "--account=assets:bank:old", "--effective-from=2020-01-01", "--effective-to=2020-01-31", "--format=json"); json.Unmarshal([]byte(text), &found) != nil ||
		found.Count != 1 || found.Rows[0].Cents != 1234 {
		t.Fatalf("search as JSON:\n%s", text)
	}
	must("1,assets:bank:old,Old bank,,,,,,,,12.34,,CAD", "ledger", "entry", found.Rows[0].Entry)
	sheet := filepath.Join(dir, "trial.xlsx")
	must("", "ledger", "trial", "--format=xlsx", "--out="+sheet)
	if text, err := os.ReadFile(sheet); err != nil || !bytes.HasPrefix(text, []byte("PK")) {
		t.Errorf("trial balance as XLSX: %v, begins with %.4q", err, text)
	}
	for _, wrong := range [][]string{
		{"trial", "--on=31/01/2020"},
		{"trial", "--frozen=2020-01", "--on=2020-01-31"},
		{"statement", "assets:bank:nowhere"},
		{"search", "--recorded-from=2000-01-01", "--recorded-to=2026-01-01"},
	} {
		if out, err := try(append([]string{"ledger"}, wrong...)...); err == nil || out != "" {
			t.Errorf("%q: got %v and %q, want an error alone", wrong, err, out)
		}
	}
	key := strings.TrimSpace(must("", "ledger", "key"))
	heads, err := filepath.Glob(filepath.Join(dir, "heads", "*.head"))
	if err != nil || len(heads) != 1 {
		t.Fatalf("heads %v, %v", heads, err)
	}
	must("the books are sound", "verify", "--head="+heads[0])
	export := file("books.jsonl", must("equity:opening", "export", "--format=jsonl"))
	url := settings["DATABASE_URL"]
	settings["DATABASE_URL"] = "" // proved without a database
	must("agrees with 1 saved heads", "verify", "--export="+export, "--log-key="+key, "--head="+heads[0])
	text, err := os.ReadFile(export)
	if err != nil {
		t.Fatal(err)
	}
	forged := file("forged.jsonl", strings.ReplaceAll(string(text), "1234", "1235"))
	if out, err := try("verify", "--export="+forged, "--log-key="+key, "--head="+heads[0]); !errors.Is(err, errShown) || !strings.Contains(out, "entry: ") {
		t.Errorf("a forged export: %v\n%s", err, out)
	}
	settings["DATABASE_URL"] = url

	// The witness asks over the wire.
	handler, err := w.handler()
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler)
	defer server.Close()
	witness := []string{"witness", server.URL, "--key=" + filepath.Join(dir, "witness.key"), "--name=witness.example", "--dir=" + filepath.Join(dir, "seen"), "--log-key=" + key}
	for range 2 {
		if signed := must("witness.example", witness...); strings.Count(signed, "\u2014 ") != 2 {
			t.Errorf("head with other than two signatures:\n%s", signed)
		}
	}
	owner := testdb.Owner(t, w.db)
	if _, err := owner.Exec(t.Context(), `alter table ledger.log_head disable trigger append_only; update ledger.log_head set size = 0, root = sha256('')`, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	if out, err := try(witness...); err == nil || !strings.Contains(err.Error(), "never had that size") {
		t.Errorf("a log that lost its entries: %v\n%s", err, out)
	}
}
