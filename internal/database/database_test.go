package database_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/database"
	"guichet/internal/id"
	"guichet/internal/testdb"
)

func TestServiceTakesItsRoleAndLimits(t *testing.T) {
	t.Parallel()
	db, err := database.Open(t.Context(), testdb.URL(t), database.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for setting, want := range map[string]string{
		"role": "guichet_app", "application_name": "guichet", "TimeZone": "UTC",
		"idle_in_transaction_session_timeout": "30s", "lock_timeout": "15s", "statement_timeout": "2min",
	} {
		var got string
		if err := db.QueryRow(t.Context(), "select current_setting($1)", setting).Scan(&got); err != nil || got != want {
			t.Errorf("%s = %q, %v; want %q", setting, got, err, want)
		}
	}
}

func TestOpenSaysWhatToDo(t *testing.T) {
	t.Parallel()
	stranger := user(t, testdb.Empty(t), "login")
	_, err := database.Open(t.Context(), stranger, database.Options{})
	if err == nil || !strings.Contains(err.Error(), "guichet migrate") {
		t.Errorf("a user who may not take the role: %v", err)
	}
	_, err = database.Open(t.Context(), "postgres://u:geheim@127.0.0.1:1/x", database.Options{})
	if err == nil || strings.Contains(err.Error(), "geheim") {
		t.Errorf("nothing listens: %v; want an error without the password", err)
	}
}

func TestCheckOwnerSaysInOneLineWhatIsMissing(t *testing.T) {
	t.Parallel()
	empty := testdb.Empty(t)
	if err := database.CheckOwner(t.Context(), empty); err != nil {
		t.Errorf("the owner of the tests: %v", err)
	}
	tests := []struct{ name, attributes, grant, want string }{
		{"no right at all", "login", "", "grant create on database"},
		{"schemas but no roles", "login", "grant create on database %d to %u", "createrole"},
		{"both", "login createrole", "grant create on database %d to %u", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			u := user(t, empty, tt.attributes, tt.grant)
			err := database.CheckOwner(t.Context(), u)
			if tt.want == "" && err == nil {
				return
			}
			if err == nil || tt.want == "" || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("err = %v, want one line with %q", err, tt.want)
			}
		})
	}
}

func TestCheckOwnerSaysInOneLineThatNobodyAnswers(t *testing.T) {
	t.Parallel()
	// Two attempts, with TLS and without, fail alike.
	err := database.CheckOwner(t.Context(), "postgres://somebody@127.0.0.1:1/none")
	if err == nil || strings.Contains(err.Error(), "\n") || strings.Count(err.Error(), "refused") != 1 || !strings.HasPrefix(err.Error(), "DATABASE_URL: ") {
		t.Errorf("err = %v, want one line that says it once", err)
	}
}

// user makes a role of its own for the test and returns the URL with it.
func user(t *testing.T, owner string, attributes string, grants ...string) string {
	t.Helper()
	u, err := url.Parse(owner)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), owner)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	name := "stranger_" + id.New()[24:]
	statements := []string{"create role " + name + " password 'p' " + attributes}
	for _, g := range grants {
		statements = append(statements, strings.NewReplacer("%d", strings.TrimPrefix(u.Path, "/"), "%u", name).Replace(g))
	}
	for _, sql := range statements {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	u.User = url.UserPassword(name, "p")
	return u.String()
}

func TestClockOffsetIsKept(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	if d, err := database.Ahead(t.Context(), db); err != nil || d != 0 {
		t.Errorf("never moved: %s, %v", d, err)
	}
	for _, want := range []time.Duration{48 * time.Hour, 49 * time.Hour} {
		before, err := database.Ahead(t.Context(), db)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := database.Advance(t.Context(), db, want-before); err != nil || got != want {
			t.Errorf("Advance = %s, %v; want %s", got, err, want)
		}
	}
	if d, err := database.Ahead(t.Context(), db); err != nil || d != 49*time.Hour {
		t.Errorf("Ahead = %s, %v; want 49h", d, err)
	}
	if _, err := database.Advance(t.Context(), db, -time.Second); err == nil {
		t.Error("the clock goes back")
	}
}
