package migrations_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"guichet/internal/id"
	"guichet/internal/testdb"
	"guichet/migrations"
)

func TestInstancesThatStartTogetherMigrateOnce(t *testing.T) {
	t.Parallel()
	url := testdb.Empty(t)
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		wg.Go(func() { errs[i] = migrations.Up(t.Context(), url) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if err := migrations.Up(t.Context(), url); err != nil {
		t.Errorf("migrating again: %v", err)
	}
}

func TestDatabasesOfOneServerMigrateTogether(t *testing.T) {
	t.Parallel()
	urls := []string{testdb.Empty(t), testdb.Empty(t), testdb.Empty(t)}
	var wg sync.WaitGroup
	errs := make([]error, len(urls))
	for i, url := range urls {
		wg.Go(func() { errs[i] = migrations.Up(t.Context(), url) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestCheckFindsADatabaseThatIsBehind(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	if err := migrations.Check(t.Context(), db); err != nil {
		t.Errorf("a migrated database: %v", err)
	}
	if _, err := testdb.Owner(t, db).Exec(t.Context(),
		"delete from ops.migration where version_id = (select max(version_id) from ops.migration)"); err != nil {
		t.Fatal(err)
	}
	if err := migrations.Check(t.Context(), db); !errors.Is(err, migrations.ErrBehind) {
		t.Errorf("one migration short: %v, want ErrBehind", err)
	}
}

// insert fills one row of each append-only table.
var insert = map[string]string{
	"ops.audit":      `insert into ops.audit (at, action, object_type, object_id, actor, actor_kind) values ('2026-11-24', 'a', 'b', 'c', 'd', 'system')`,
	"ops.attachment": `insert into ops.attachment (id, owner_type, owner_id, name, media_type, size, sha256, bytes, created_at) values ('019ab000-0000-7000-8000-000000000001', 'a', 'b', 'c', 'd', 1, decode(repeat('00', 32), 'hex'), '\x00', '2026-11-24')`,
	"ops.mail_bounce": `with m as (insert into ops.mail (id, key, recipient, lang, template, data, return_token, created_at)
		values ('019ab000-0000-7000-8000-000000000002', 'k', 'r', 'en', 't', '\x00', repeat('a', 26), '2026-11-24') returning id)
		insert into ops.mail_bounce select id, 'failed', '5.1.1', '2026-11-24' from m`,
}

// change is one forbidden statement per table and kind. Attachments may be
// deleted by the owner, when their retention ends.
var change = map[string][]string{
	"ops.audit":       {"update ops.audit set action = 'x'", "delete from ops.audit", "truncate ops.audit cascade"},
	"ops.attachment":  {"update ops.attachment set name = 'x'", "truncate ops.attachment cascade"},
	"ops.mail_bounce": {"update ops.mail_bounce set status = '5.0.0'", "delete from ops.mail_bounce", "truncate ops.mail_bounce"},
	"ops.approval":    {"delete from ops.approval", "truncate ops.approval cascade"},
	"ops.clock":       {"delete from ops.clock", "truncate ops.clock"},
}

func TestAppendOnlyTablesRefuseTheServiceByGrantAndTheOwnerByTrigger(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	owner := testdb.Owner(t, db)
	for table, sql := range insert {
		if _, err := db.Exec(t.Context(), sql); err != nil {
			t.Fatalf("insert into %s: %v", table, err)
		}
	}
	for table, list := range change {
		for _, sql := range list {
			if code := codeOf(exec(t.Context(), db, sql)); code != "42501" {
				t.Errorf("%s as the service: %s %q, want 42501 (no privilege)", table, sql, code)
			}
			if code := codeOf(exec(t.Context(), owner, sql)); code != "23001" {
				t.Errorf("%s as the owner: %s %q, want 23001 (trigger)", table, sql, code)
			}
		}
	}
}

func TestApprovalRules(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	request := func() string {
		rowID := id.New()
		_, err := db.Exec(t.Context(), `
insert into ops.approval (id, kind, object_id, payload_hash, requested_by, requested_at)
values ($1::uuid, 'key.live', $1::uuid::text, decode(repeat('00', 32), 'hex'), 'ann', '2026-11-24')`, rowID)
		if err != nil {
			t.Fatal(err)
		}
		return rowID
	}
	const decide = "update ops.approval set decision = 'approved', decided_by = $2, decided_at = $3::timestamptz where id = $1"
	tests := []struct {
		name, by, at, want string
	}{
		{"the requester cannot decide", "ann", "2026-11-24", "23514"},
		{"a decision before the request is refused", "ben", "2026-11-23", "23514"},
		{"a second person decides", "ben", "2026-11-24", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := db.Exec(t.Context(), decide, request(), tt.by, tt.at)
			if codeOf(err) != tt.want {
				t.Errorf("got %v, want SQLSTATE %q", err, tt.want)
			}
		})
	}
	decided := request()
	if _, err := db.Exec(t.Context(), decide, decided, "ben", "2026-11-24"); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(t.Context(), decide, decided, "cid", "2026-11-25"); codeOf(err) != "23001" {
		t.Errorf("a decided row is decided again: %v", err)
	}
	owner := testdb.Owner(t, db)
	if _, err := owner.Exec(t.Context(), "update ops.approval set requested_by = 'dan' where id = $1", request()); codeOf(err) != "23001" {
		t.Errorf("the requester is changed: %v", err)
	}
	if _, err := db.Exec(t.Context(), `
insert into ops.approval (id, kind, object_id, payload_hash, requested_by, requested_at, decision, decided_by, decided_at)
values ($1, 'k', 'o', decode(repeat('00', 32), 'hex'), 'ann', '2026-11-24', 'approved', 'ben', '2026-11-24')`, id.New()); codeOf(err) != "23001" {
		t.Errorf("a request is born approved: %v", err)
	}
}

func TestClockGoesForwardOnly(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	if err := exec(t.Context(), db, "insert into ops.clock (ahead_us) values (100)"); err != nil {
		t.Fatal(err)
	}
	if err := exec(t.Context(), db, "update ops.clock set ahead_us = 200"); err != nil {
		t.Errorf("forward: %v", err)
	}
	for _, sql := range []string{"update ops.clock set ahead_us = 199", "insert into ops.clock (ahead_us) values (300)"} {
		if err := exec(t.Context(), db, sql); err == nil {
			t.Errorf("%s: no error", sql)
		}
	}
}

// TestNoTableIsLeftOpen walks the catalogue: the service may never truncate,
// and no table grants anything to everybody.
func TestNoTableIsLeftOpen(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	rows, err := db.Query(t.Context(), `
select n.nspname || '.' || c.relname, has_table_privilege('guichet_app', c.oid, 'truncate') or has_table_privilege('guichet_app', c.oid, 'trigger'),
	exists (select from aclexplode(c.relacl) where grantee = 0)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p') and n.nspname not in ('pg_catalog', 'information_schema')
order by 1 limit 1000`)
	if err != nil {
		t.Fatal(err)
	}
	type table struct {
		Name           string
		Truncate, Open bool
	}
	tables, err := pgx.CollectRows(rows, pgx.RowToStructByPos[table])
	if err != nil || len(tables) < 8 {
		t.Fatalf("%d tables, %v", len(tables), err)
	}
	for _, x := range tables {
		if x.Truncate || x.Open {
			t.Errorf("%s: the service may truncate or alter: %v, open to everybody: %v", x.Name, x.Truncate, x.Open)
		}
	}
}

func exec(ctx context.Context, db *pgxpool.Pool, sql string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if _, err := db.Exec(ctx, sql); err != nil {
		return fmt.Errorf("%s: %w", strings.SplitN(sql, "\n", 2)[0], err)
	}
	return nil
}

func codeOf(err error) string {
	if pgErr := new(pgconn.PgError); errors.As(err, &pgErr) {
		return pgErr.Code
	}
	if err != nil {
		return err.Error()
	}
	return ""
}
