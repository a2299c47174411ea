package testdb_test

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"guichet/internal/testdb"
)

func TestEveryTestHasItsOwnDatabase(t *testing.T) {
	for range 2 {
		t.Run("clone", func(t *testing.T) {
			t.Parallel()
			db := testdb.New(t)
			if _, err := db.Exec(t.Context(), "insert into ops.clock (ahead_us) values (1)"); err != nil {
				t.Errorf("the second row shows up in a database of its own: %v", err)
			}
		})
	}
}

func TestServiceRunsAsGuichetApp(t *testing.T) {
	db := testdb.New(t)
	var user string
	if err := db.QueryRow(t.Context(), "select current_user").Scan(&user); err != nil {
		t.Fatal(err)
	}
	if user != "guichet_app" {
		t.Errorf("current_user = %s, want guichet_app", user)
	}
	_, err := db.Exec(t.Context(), "alter table ops.audit add column x text")
	if pgErr := new(pgconn.PgError); !errors.As(err, &pgErr) || pgErr.Code != "42501" {
		t.Errorf("the service alters a table: %v, want insufficient_privilege", err)
	}
	owner := testdb.Owner(t, db)
	if _, err := owner.Exec(t.Context(), "alter table ops.audit add column x text"); err != nil {
		t.Errorf("the owner cannot alter a table: %v", err)
	}
}
