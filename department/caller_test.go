package department

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/approval"
	"guichet/internal/audit"
)

// journalKey asks for a key and returns it with what waits.
func (s *Service) journalKey(t *testing.T, d Department, accounts ...string) (key, waits string) {
	t.Helper()
	s.do(t, func(tx pgx.Tx) (err error) {
		key, waits, err = s.ProposeJournalKey(t.Context(), tx, JournalKey{DepartmentID: d.ID, Name: "feeder", Env: "test", Accounts: accounts, By: "first"})
		return err
	})
	return key, waits
}

func (s *Service) approve(t *testing.T, waits, by string) error {
	t.Helper()
	return pgx.BeginFunc(t.Context(), s.db, func(tx pgx.Tx) error {
		return s.DecideKey(t.Context(), tx, approval.Decision{ID: waits, By: by, At: s.now()}, approval.Approved)
	})
}

func TestAJournalKeyIsGivenByTwo(t *testing.T) {
	s, d := newTown(t)
	key, waits := s.journalKey(t, d, "liabilities:payroll", "expenses:payroll")
	if c, err := s.Authenticate(t.Context(), key); !errors.Is(err, ErrKey) {
		t.Errorf("before: %+v, %v", c, err)
	}
	if err := s.approve(t, waits, "first"); !errors.Is(err, approval.ErrSamePerson) {
		t.Errorf("the one who asked: %v", err)
	}
	// Somebody who writes to the database directly opens the key, and no account.
	if _, err := s.db.Exec(t.Context(), `update department.api_key set state = 'active'`); err != nil {
		t.Fatal(err)
	}
	if c, err := s.Authenticate(t.Context(), key); err != nil || !c.Journal || c.MayBook("expenses:payroll") {
		t.Errorf("made active by hand: %+v, %v", c, err)
	}
	if err := s.approve(t, waits, "second"); err != nil {
		t.Fatal(err)
	}
	c, err := s.Authenticate(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{
		"expenses:payroll": true, "expenses:payroll:overtime": true, "liabilities:payroll": true,
		"expenses:payrolls": false, "expenses": false, "assets:bank:main": false, "": false,
	} {
		if c.MayBook(path) != want {
			t.Errorf("may book on %q: %v", path, !want)
		}
	}
	keys, err := s.Keys(t.Context(), s.db, d.ID)
	if err != nil || len(keys) != 1 || len(keys[0].Accounts) != 2 {
		t.Errorf("listed: %+v, %v", keys, err)
	}
}

// The database itself keeps a grant as it was asked for, and a decision from the one who asked.
func TestTheDatabaseKeepsGrants(t *testing.T) {
	s, d := newTown(t)
	_, waits := s.journalKey(t, d, "expenses:payroll")
	for _, sql := range []string{
		`update department.journal_grant set accounts = '{assets:bank}'`,
		`delete from department.journal_grant`,
		`update department.api_key set approval_id = null`,
		`update ops.approval set decision = 'approved', decided_by = requested_by, decided_at = requested_at where id = '` + waits + `'`,
	} {
		if _, err := s.db.Exec(t.Context(), sql); err == nil {
			t.Errorf("%s: accepted", sql)
		}
	}
}

func TestWhatAJournalKeyMayNotAskFor(t *testing.T) {
	s, d := newTown(t)
	for name, k := range map[string]JournalKey{
		"no account": {By: "first"}, "a whole root": {By: "first", Accounts: []string{"assets"}}, "nobody asks": {Accounts: []string{"assets:bank"}},
		"a pattern": {By: "first", Accounts: []string{"assets:*"}}, "everything": {By: "first", Accounts: []string{""}},
	} {
		k.DepartmentID, k.Name, k.Env = d.ID, "feeder", "test"
		err := pgx.BeginFunc(t.Context(), s.db, func(tx pgx.Tx) error {
			_, _, err := s.ProposeJournalKey(t.Context(), tx, k)
			return err
		})
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// Another process hears of a revocation within a second; the one that revokes, at once.
func TestARevocationIsHeardWithinASecond(t *testing.T) {
	s, d := newTown(t)
	now := time.Date(2026, time.June, 1, 12, 0, 0, 0, time.UTC)
	other := New(s.db, s.key, s.queue, func() time.Time { return now })
	var key string
	s.do(t, func(tx pgx.Tx) (err error) {
		key, err = s.IssueKey(t.Context(), tx, d.ID, "app", "test")
		return err
	})
	for _, each := range []*Service{s, other} {
		if c, err := each.Authenticate(t.Context(), key); err != nil || c.Code != d.Code || c.Journal {
			t.Fatalf("%+v, %v", c, err)
		}
	}
	s.do(t, func(tx pgx.Tx) error {
		keys, err := s.Keys(t.Context(), tx, d.ID)
		if err != nil {
			return err
		}
		return s.RevokeKey(t.Context(), tx, d.ID, keys[0].ID)
	})
	if _, err := s.Authenticate(t.Context(), key); !errors.Is(err, ErrKey) {
		t.Errorf("where it was revoked: %v", err)
	}
	if _, err := other.Authenticate(t.Context(), key); err != nil {
		t.Errorf("elsewhere, at the same moment: %v; is anything remembered?", err)
	}
	now = now.Add(time.Second)
	if _, err := other.Authenticate(t.Context(), key); !errors.Is(err, ErrKey) {
		t.Errorf("elsewhere, a second later: %v", err)
	}
}

func TestUseOfAJournalKeyIsNotedOnceANetworkAndDay(t *testing.T) {
	s, d := newTown(t)
	now := time.Date(2026, time.June, 1, 12, 0, 0, 0, time.UTC)
	s.now = func() time.Time { return now }
	key, waits := s.journalKey(t, d, "expenses:payroll")
	if err := s.approve(t, waits, "second"); err != nil {
		t.Fatal(err)
	}
	from := func(network string) context.Context {
		return audit.With(t.Context(), audit.Origin{Actor: "guest", ActorKind: audit.Guest, Network: network})
	}
	for _, network := range []string{"203.0.113.0/24", "203.0.113.0/24", "198.51.100.0/24"} {
		if _, err := s.Authenticate(from(network), key); err != nil {
			t.Fatal(err)
		}
	}
	now = now.Add(24 * time.Hour)
	if _, err := s.Authenticate(from("203.0.113.0/24"), key); err != nil {
		t.Fatal(err)
	}
	var rows, networks int
	if err := s.db.QueryRow(t.Context(), `
		select count(*), count(distinct network) from ops.audit
		where action = 'api_key.used' and actor like 'api_key:%' and actor_kind = 'department'`).Scan(&rows, &networks); err != nil {
		t.Fatal(err)
	}
	if rows != 3 || networks != 2 {
		t.Errorf("%d rows of %d networks, want 3 of 2", rows, networks)
	}
}
