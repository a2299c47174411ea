package approval_test

import (
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"guichet/internal/approval"
	"guichet/internal/id"
	"guichet/internal/testdb"
)

var (
	at      = time.Date(2026, time.November, 24, 12, 0, 0, 0, time.UTC)
	payload = []byte(`{"uri":"https://permits.example/callback"}`)
)

func ask(t *testing.T, db *pgxpool.Pool, object string) (approvalID string, err error) {
	t.Helper()
	err = pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error {
		approvalID, err = approval.Ask(t.Context(), tx, approval.Request{Kind: "client.redirect", Object: object, Payload: payload, By: "ann", At: at})
		return err
	})
	return approvalID, err
}

func approve(t *testing.T, db *pgxpool.Pool, approvalID, by string, what []byte) error {
	t.Helper()
	return pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error {
		_, err := approval.Approve(t.Context(), tx, approval.Decision{ID: approvalID, By: by, At: at.Add(time.Hour)}, what)
		return err
	})
}

func refuse(t *testing.T, db *pgxpool.Pool, approvalID, by string) error {
	t.Helper()
	return pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error {
		_, err := approval.Refuse(t.Context(), tx, approval.Decision{ID: approvalID, By: by, At: at.Add(time.Hour), Reason: "not ours"})
		return err
	})
}

func TestOneAsksAndAnotherDecides(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	first, err := ask(t, db, "c1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ask(t, db, "c1"); !errors.Is(err, approval.ErrPending) {
		t.Errorf("asking twice: %v, want ErrPending", err)
	}
	steps := []struct {
		name string
		err  error
		want error
	}{
		{"the requester approves", approve(t, db, first, "ann", payload), approval.ErrSamePerson},
		{"the requester refuses", refuse(t, db, first, "ann"), approval.ErrSamePerson},
		{"something else is approved", approve(t, db, first, "ben", []byte("other")), approval.ErrChanged},
		{"an unknown request", approve(t, db, id.New(), "ben", payload), approval.ErrNotFound},
		{"no id at all", refuse(t, db, "x", "ben"), approval.ErrNotFound},
		{"a second person approves", approve(t, db, first, "ben", payload), nil},
		{"it is approved again", approve(t, db, first, "cid", payload), approval.ErrDecided},
		{"it is refused after all", refuse(t, db, first, "cid"), approval.ErrDecided},
	}
	for _, s := range steps {
		if !errors.Is(s.err, s.want) {
			t.Errorf("%s: %v, want %v", s.name, s.err, s.want)
		}
	}
	second, err := ask(t, db, "c1")
	if err != nil {
		t.Fatalf("asking again after a decision: %v", err)
	}
	list, err := approval.Pending(t.Context(), db)
	if err != nil || len(list) != 1 || list[0].ID != second || list[0].Decision != "" {
		t.Errorf("pending: %+v, %v; want the second request", list, err)
	}
	if err := refuse(t, db, second, "ben"); err != nil {
		t.Error(err)
	}
	var actions string
	if err := db.QueryRow(t.Context(), "select string_agg(action, ' ' order by seq) from ops.audit").Scan(&actions); err != nil {
		t.Fatal(err)
	}
	if want := "approval.requested approval.approved approval.requested approval.refused"; actions != want {
		t.Errorf("audit: %s, want %s", actions, want)
	}
}

// Only whoever asked takes a request back, and the database knows it too.
func TestTheRequesterTakesItBack(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	approvalID, err := ask(t, db, "c1")
	if err != nil {
		t.Fatal(err)
	}
	withdraw := func(by string) error {
		return pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error {
			_, err := approval.Withdraw(t.Context(), tx, approval.Decision{ID: approvalID, By: by, At: at})
			return err
		})
	}
	if err := withdraw("ben"); !errors.Is(err, approval.ErrOther) {
		t.Errorf("somebody else: %v, want ErrOther", err)
	}
	for decision, by := range map[string]string{"withdrawn": "ben", "approved": "ann"} {
		_, err := db.Exec(t.Context(), `update ops.approval set decision = $1, decided_by = $2, decided_at = requested_at`, decision, by)
		if pg := new(pgconn.PgError); !errors.As(err, &pg) || pg.ConstraintName != "approval_two_persons" {
			t.Errorf("%s by %s in the database: %v", decision, by, err)
		}
	}
	if err := withdraw("ann"); err != nil {
		t.Error(err)
	}
	if err := approve(t, db, approvalID, "ben", payload); !errors.Is(err, approval.ErrDecided) {
		t.Errorf("approved after that: %v, want ErrDecided", err)
	}
}

func TestTwoPersonsDecideAtOnceAndOneWins(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	for range 10 {
		approvalID, err := ask(t, db, id.New())
		if err != nil {
			t.Fatal(err)
		}
		errs := make(chan error)
		go func() { errs <- approve(t, db, approvalID, "ben", payload) }()
		go func() { errs <- refuse(t, db, approvalID, "cid") }()
		one, two := <-errs, <-errs
		if (one == nil) == (two == nil) || !errors.Is(errors.Join(one, two), approval.ErrDecided) {
			t.Errorf("both decided: %v, %v; want one ErrDecided", one, two)
		}
	}
}
