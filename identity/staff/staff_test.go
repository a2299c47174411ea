package staff_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"guichet/identity"
	"guichet/identity/staff"
	"guichet/internal/id"
	"guichet/internal/mail"
	"guichet/internal/seal"
	"guichet/internal/testdb"
)

type world struct {
	*staff.Service
	db      *pgxpool.Pool
	now     time.Time
	parking string
	mail    mailbox
}

// A mailbox keeps what was queued.
type mailbox struct{ sent []mail.Message }

func (b *mailbox) Enqueue(_ context.Context, _ pgx.Tx, m mail.Message) error {
	b.sent = append(b.sent, m)
	return nil
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{db: testdb.New(t), now: time.Date(2026, 6, 1, 14, 0, 0, 0, time.UTC), parking: id.New()}
	now := func() time.Time { return w.now }
	master, err := seal.New(make([]byte, seal.Size))
	if err != nil {
		t.Fatal(err)
	}
	people, err := identity.New(t.Context(), w.db, identity.Config{Now: now, BaseURL: "https://guichet.example", Master: master, Mail: &w.mail})
	if err != nil {
		t.Fatal(err)
	}
	w.Service = staff.New(w.db, staff.Config{Now: now, Alarm: []string{"duty@city.example", "ciso@city.example"}, Mail: &w.mail, People: people, Suggest: map[string][]staff.Suggestion{
		"clerks":  {{Role: staff.FinanceClerk}},
		"parking": {{Role: staff.Department, DepartmentCode: "parking"}, {Role: staff.Department, DepartmentCode: "nowhere"}},
	}})
	_, err = w.db.Exec(t.Context(), `
		insert into department.department (id, code, name_en, name_fr, created_at) values ($1, 'parking', 'Parking', 'Stationnement', $2)`, w.parking, w.now)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

var here = identity.Visitor{Network: "203.0.113.0/24"}

func (w *world) signIn(t *testing.T, subject string, groups ...string) (string, error) {
	t.Helper()
	return w.SignedIn(t.Context(), staff.Upstream{Issuer: "https://directory.example", Subject: subject, Name: "Demo " + subject, Email: subject + "@staff.example", Groups: groups}, "", here)
}

func (w *world) in(t *testing.T, f func(tx pgx.Tx) error) {
	t.Helper()
	if err := pgx.BeginFunc(t.Context(), w.db, f); err != nil {
		t.Fatal(err)
	}
}

func TestGroupsSuggestTheFirstRolesOnly(t *testing.T) {
	w := newWorld(t)
	token, err := w.signIn(t, "clerk", "clerks", "parking", "unheard-of")
	if err != nil {
		t.Fatal(err)
	}
	m, err := w.Session(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Roles) != 2 || !m.Has(staff.FinanceClerk, "") || !m.Has(staff.Department, w.parking) || m.Has(staff.Department, id.New()) || m.Has(staff.Department, "") {
		t.Errorf("roles %+v", m.Roles)
	}
	w.in(t, func(tx pgx.Tx) error {
		for _, r := range m.Roles {
			if err := w.Revoke(t.Context(), tx, m.ID, r, "admin"); err != nil {
				return err
			}
		}
		return nil
	})
	if m, err = w.Session(t.Context(), token); !errors.Is(err, staff.ErrNoSession) {
		t.Errorf("the session outlives its roles: %+v, %v", m.Roles, err)
	}
	if _, err := w.signIn(t, "clerk", "clerks"); !errors.Is(err, staff.ErrNoRole) {
		t.Errorf("what was taken away comes back by itself: %v", err)
	}
}

func TestWithoutARoleNobodySignsInUntilOneIsGranted(t *testing.T) {
	w := newWorld(t)
	if _, err := w.signIn(t, "newcomer"); !errors.Is(err, staff.ErrNoRole) {
		t.Fatalf("without a role: %v", err)
	}
	found, err := w.MembersByEmail(t.Context(), "Newcomer@STAFF.example")
	if err != nil || len(found) != 1 {
		t.Fatalf("found %+v, %v", found, err)
	}
	role := staff.Role{Name: staff.CounterClerk, Department: w.parking, Channel: "counter"}
	w.in(t, func(tx pgx.Tx) error {
		if err := w.Grant(t.Context(), tx, found[0].ID, role, "admin"); err != nil {
			return err
		}
		return w.Grant(t.Context(), tx, found[0].ID, role, "admin") // again: nothing
	})
	token, err := w.signIn(t, "newcomer")
	if err != nil {
		t.Fatal(err)
	}
	m, err := w.Session(t.Context(), token)
	if err != nil || len(m.Roles) != 1 || m.Roles[0] != role {
		t.Errorf("member %+v, %v", m, err)
	}
	var events int
	if err := w.db.QueryRow(t.Context(), `select count(*) from ops.audit where action = 'staff.role.granted'`).Scan(&events); err != nil || events != 1 {
		t.Errorf("%d audit rows of one grant, %v", events, err)
	}
	err = pgx.BeginFunc(t.Context(), w.db, func(tx pgx.Tx) error { return w.Grant(t.Context(), tx, m.ID, staff.Role{Name: "root"}, "admin") })
	if !errors.Is(err, staff.ErrBadRole) {
		t.Errorf("an invented role: %v", err)
	}
}

func TestAMemberIsIssuerAndSubjectTogether(t *testing.T) {
	w := newWorld(t)
	if _, err := w.signIn(t, "clerk", "clerks"); err != nil {
		t.Fatal(err)
	}
	_, err := w.SignedIn(t.Context(), staff.Upstream{Issuer: "https://other.example", Subject: "clerk", Name: "Other", Email: "clerk@staff.example"}, "", here)
	if !errors.Is(err, staff.ErrNoRole) {
		t.Errorf("another issuer with the same subject and address: %v", err)
	}
}

func TestSuspensionAndSignOutEndSessions(t *testing.T) {
	w := newWorld(t)
	token, err := w.signIn(t, "clerk", "clerks")
	if err != nil {
		t.Fatal(err)
	}
	m, err := w.Session(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.EndSession(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Session(t.Context(), token); !errors.Is(err, staff.ErrNoSession) {
		t.Errorf("after sign-out: %v", err)
	}
	if token, err = w.signIn(t, "clerk"); err != nil {
		t.Fatal(err)
	}
	w.now = w.now.Add(30 * time.Minute)
	if _, err := w.Session(t.Context(), token); !errors.Is(err, staff.ErrNoSession) {
		t.Errorf("after 30 idle minutes: %v", err)
	}
	if token, err = w.signIn(t, "clerk"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.db.Exec(t.Context(), `update identity.staff_member set state = 'suspended'`); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Session(t.Context(), token); !errors.Is(err, staff.ErrNoSession) {
		t.Errorf("suspended: %v", err)
	}
	if _, err := w.signIn(t, "clerk"); !errors.Is(err, staff.ErrSuspended) {
		t.Errorf("suspended, again: %v", err)
	}
}

func TestTheDirectorysAnswerIsTakenOnceByItsBrowser(t *testing.T) {
	w := newWorld(t)
	p, err := w.Begin(t.Context(), staff.Wanted{ReturnPath: "/desk", Fresh: true})
	if err != nil {
		t.Fatal(err)
	}
	for name, try := range map[string][2]string{"another browser": {p.State, id.Secret()}, "another state": {id.Secret(), p.Browser}, "nothing": {"", ""}} {
		if _, err := w.Take(t.Context(), try[0], try[1]); !errors.Is(err, staff.ErrNoPending) {
			t.Errorf("%s: %v", name, err)
		}
	}
	got, err := w.Take(t.Context(), p.State, p.Browser)
	if err != nil || got != p {
		t.Errorf("took %+v, %v; want %+v", got, err, p)
	}
	if _, err := w.Take(t.Context(), p.State, p.Browser); !errors.Is(err, staff.ErrNoPending) {
		t.Errorf("a second time: %v", err)
	}
	if p, err = w.Begin(t.Context(), staff.Wanted{ReturnPath: "/desk", Fresh: true}); err != nil {
		t.Fatal(err)
	}
	w.now = w.now.Add(10 * time.Minute)
	if _, err := w.Take(t.Context(), p.State, p.Browser); !errors.Is(err, staff.ErrNoPending) {
		t.Errorf("after ten minutes: %v", err)
	}
}
