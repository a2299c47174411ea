package staff_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/identity/staff"
)

// at signs a clerk in through the directory's session sid, proved at a time.
func (w *world) at(t *testing.T, subject, sid string, proved time.Time) string {
	t.Helper()
	token, err := w.SignedIn(t.Context(), staff.Upstream{
		Issuer: "https://directory.example", Subject: subject, Name: subject, Email: subject + "@staff.example", Groups: []string{"clerks"}, ProvedAt: proved, Sid: sid,
	}, "", here)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func (w *world) open(t *testing.T, token string) bool {
	t.Helper()
	_, err := w.Session(t.Context(), token)
	if err != nil && !errors.Is(err, staff.ErrNoSession) {
		t.Fatal(err)
	}
	return err == nil
}

func TestAProofIsFreshForFiveMinutes(t *testing.T) {
	w := newWorld(t)
	fresh := func(token string) bool {
		t.Helper()
		m, err := w.Session(t.Context(), token)
		if err != nil {
			t.Fatal(err)
		}
		return m.Fresh
	}
	unsaid, old, now := w.at(t, "a", "", time.Time{}), w.at(t, "b", "", w.now.Add(-6*time.Minute)), w.at(t, "c", "", w.now)
	if fresh(unsaid) || fresh(old) || !fresh(now) {
		t.Error("only who has just proved who they are is fresh")
	}
	w.now = w.now.Add(staff.FreshFor)
	if !fresh(now) {
		t.Error("not fresh at five minutes")
	}
	w.now = w.now.Add(time.Second)
	if fresh(now) {
		t.Error("fresh after five minutes")
	}
}

func TestTheDirectorysSignOutEndsItsSessions(t *testing.T) {
	w := newWorld(t)
	one, two, other := w.at(t, "ann", "s1", w.now), w.at(t, "ann", "s2", w.now), w.at(t, "ben", "s3", w.now)
	out := func(l staff.Logout) int {
		t.Helper()
		l.IssuedAt = w.now
		n, err := w.LoggedOut(t.Context(), l)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := out(staff.Logout{Issuer: "https://evil.example", Subject: "ann"}); n != 0 {
		t.Errorf("another issuer ended %d", n)
	}
	if n := out(staff.Logout{Issuer: "https://directory.example", Subject: "ben", Sid: "s1"}); n != 0 {
		t.Errorf("a sid of somebody else ended %d", n)
	}
	if n := out(staff.Logout{Issuer: "https://directory.example", Sid: "s1"}); n != 1 || w.open(t, one) || !w.open(t, two) || !w.open(t, other) {
		t.Errorf("s1: %d ended, open %v %v %v", n, w.open(t, one), w.open(t, two), w.open(t, other))
	}
	said := w.now
	if n := out(staff.Logout{Issuer: "https://directory.example", Subject: "ann"}); n != 1 || w.open(t, two) || !w.open(t, other) {
		t.Errorf("ann: %d ended", n)
	}
	w.now = w.now.Add(2 * time.Second)
	again := w.at(t, "ann", "s4", w.now)
	if n, err := w.LoggedOut(t.Context(), staff.Logout{Issuer: "https://directory.example", Subject: "ann", IssuedAt: said}); err != nil || n != 0 || !w.open(t, again) {
		t.Errorf("a logout told again ended a later sign-in: %d, %v", n, err)
	}
	var reasons []string
	rows, err := w.db.Query(t.Context(), `select details->>'why' from ops.audit where action = 'staff.session.revoked' order by seq`)
	if err == nil {
		reasons, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	if err != nil || len(reasons) != 2 || reasons[0] != "signed out at the directory" {
		t.Errorf("audit %v, %v", reasons, err)
	}
}

func TestAdministratorsEndSessionsAndSuspend(t *testing.T) {
	w := newWorld(t)
	one, two := w.at(t, "ann", "s1", w.now), w.at(t, "ann", "s2", w.now)
	m, err := w.Session(t.Context(), one)
	if err != nil {
		t.Fatal(err)
	}
	list, err := w.OpenSessions(t.Context(), m.ID)
	if err != nil || len(list) != 2 || list[0].Name != "ann" || list[0].Network != here.Network {
		t.Fatalf("%+v, %v", list, err)
	}
	for range 2 { // again changes nothing
		w.in(t, func(tx pgx.Tx) error {
			return w.EndOther(t.Context(), tx, m.SessionID, "admin", "left the screen open")
		})
	}
	if w.open(t, one) || !w.open(t, two) {
		t.Error("not exactly the one session ended")
	}
	w.in(t, func(tx pgx.Tx) error { return w.Suspend(t.Context(), tx, m.ID, "admin", "on leave") })
	if w.open(t, two) {
		t.Error("a suspended member's session is open")
	}
	w.in(t, func(tx pgx.Tx) error { return w.Resume(t.Context(), tx, m.ID, "admin", "back") })
	if w.open(t, two) {
		t.Error("an ended session comes back")
	}
	if token := w.at(t, "ann", "s3", w.now); !w.open(t, token) {
		t.Error("a resumed member cannot sign in")
	}
	var actions []string
	rows, err := w.db.Query(t.Context(), `select action from ops.audit where object_id = $1 and action not like 'staff.signin%' and action not like 'staff.role%' order by seq`, m.ID)
	if err == nil {
		actions, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	if want := []string{"staff.session.revoked", "staff.suspended", "staff.session.revoked", "staff.active"}; err != nil || !slices.Equal(actions, want) {
		t.Errorf("audit %v, want %v, %v", actions, want, err)
	}
}

func TestGroupsOnlySuggestUntilAnAdministratorDecides(t *testing.T) {
	w := newWorld(t)
	w.in(t, func(tx pgx.Tx) error {
		for range 2 {
			if err := w.AddHint(t.Context(), tx, staff.Hint{Group: "desk-311", Role: staff.Agent311}, "admin"); err != nil {
				return err
			}
		}
		return w.AddHint(t.Context(), tx, staff.Hint{Group: "desk-311", Role: staff.CounterClerk, DepartmentID: w.parking}, "admin")
	})
	if _, err := w.signIn(t, "dora", "desk-311"); !errors.Is(err, staff.ErrNoRole) {
		t.Fatalf("a group let somebody in: %v", err)
	}
	suggested := func() []staff.Suggested {
		t.Helper()
		list, err := w.Suggested(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	list := suggested()
	if len(list) != 2 || list[0].Role != staff.Agent311 || list[1].DepartmentID != w.parking || list[0].Email != "dora@staff.example" {
		t.Fatalf("suggested %+v", list)
	}
	w.in(t, func(tx pgx.Tx) error {
		if err := w.RefuseHint(t.Context(), tx, list[1].MemberID, list[1].ID, "admin"); err != nil {
			return err
		}
		return w.Grant(t.Context(), tx, list[0].MemberID, staff.Role{Name: list[0].Role}, "admin")
	})
	if left := suggested(); len(left) != 0 {
		t.Errorf("still suggested: %+v", left)
	}
	if _, err := w.signIn(t, "dora", "desk-311"); err != nil {
		t.Errorf("after the grant: %v", err)
	}
	if _, err := w.signIn(t, "emil", "desk-311"); !errors.Is(err, staff.ErrNoRole) {
		t.Fatal(err)
	}
	if got := suggested(); len(got) != 2 {
		t.Errorf("for emil: %+v", got)
	}
	if _, err := w.signIn(t, "emil"); !errors.Is(err, staff.ErrNoRole) { // the directory took the group away
		t.Fatal(err)
	}
	if got := suggested(); len(got) != 0 {
		t.Errorf("without the group: %+v", got)
	}
}
