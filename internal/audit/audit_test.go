package audit_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/audit"
	"guichet/internal/testdb"
)

var at = time.Date(2026, time.November, 24, 12, 0, 0, 0, time.UTC)

func TestRecordKeepsWhoWhatAndWhere(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	ctx := audit.With(t.Context(), audit.Origin{Actor: "r1", ActorKind: audit.Resident, Network: "203.0.113.7", RequestID: "q1", Channel: "web", OnBehalfOf: "p1"})
	record := func(ctx context.Context, e audit.Event) error {
		return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error { return audit.Record(ctx, tx, e) })
	}
	if err := record(ctx, audit.Event{
		Action: "bill.viewed", ObjectType: "bill", ObjectID: "b1", Subject: "r1", At: at,
		Details: map[string]any{"lines": 3},
	}); err != nil {
		t.Fatal(err)
	}
	if err := record(t.Context(), audit.Event{Action: "run.started", ObjectType: "run", ObjectID: "n1", At: at}); err != nil {
		t.Fatal(err)
	}
	rows, err := db.Query(t.Context(), `
select concat_ws(' ', action, object_type, object_id, subject, actor, actor_kind, channel, network, request_id, on_behalf_of, details::text, (at = $1)::text)
from ops.audit order by seq limit 10`, at)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`bill.viewed bill b1 r1 r1 resident web 203.0.113.7 q1 p1 {"lines": 3} true`,
		`run.started run n1  system system     {} true`,
	}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("rows %q, want %q", got, want)
	}
	for name, e := range map[string]audit.Event{
		"no action": {ObjectType: "bill", At: at},
		"no object": {Action: "x", At: at},
		"no time":   {Action: "x", ObjectType: "bill"},
		"no JSON":   {Action: "x", ObjectType: "bill", At: at, Details: map[string]any{"f": func() {}}},
	} {
		if err := record(t.Context(), e); err == nil {
			t.Errorf("%s: recorded", name)
		}
	}
}

func TestRecordGoesWithItsTransaction(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	stop := errors.New("the deed fails after its audit row")
	err := pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error {
		if err := audit.Record(t.Context(), tx, audit.Event{Action: "x.done", ObjectType: "x", At: at}); err != nil {
			return err
		}
		return stop
	})
	if !errors.Is(err, stop) {
		t.Fatal(err)
	}
	var n int
	if err := db.QueryRow(t.Context(), "select count(*) from ops.audit").Scan(&n); err != nil || n != 0 {
		t.Errorf("%d rows of a deed that did not happen, %v", n, err)
	}
}

func TestDeedsOfAnObjectAreRead(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	for i, o := range []audit.Origin{{Actor: "r1", ActorKind: audit.Resident, Channel: "web"}, {Actor: "m1", ActorKind: audit.Staff}, {Actor: "m2", ActorKind: audit.Staff}} {
		err := pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error {
			return audit.Record(audit.With(t.Context(), o), tx, audit.Event{Action: "bill.seen", ObjectType: "bill", ObjectID: []string{"b1", "b1", "b2"}[i], Subject: "r1", At: at})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	got, err := audit.Of(t.Context(), db, 10, audit.Object{Type: "bill", ID: "b1"}, audit.Object{Type: "entry", ID: "b2"})
	if err != nil || len(got) != 2 || got[0].Actor != "m1" || got[1].Actor != "" || got[1].ActorKind != audit.Resident || !got[1].At.Equal(at) {
		t.Errorf("rows %+v, %v", got, err)
	}
	if got, err = audit.Of(t.Context(), db, 1, audit.Object{Type: "bill", ID: "b1"}); err != nil || len(got) != 1 || got[0].Actor != "m1" {
		t.Errorf("the last row is %+v, %v", got, err)
	}
}
