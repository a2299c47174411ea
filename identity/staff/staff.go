package staff

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"guichet/identity"
	"guichet/internal/audit"
	"guichet/internal/id"
)

// The roles there are. What each may do is said where it is asked for.
const (
	Administrator   = "administrator"    // departments, clients, staff roles
	FinanceClerk    = "finance-clerk"    // matching, exceptions, exports; asks for refunds
	FinanceApprover = "finance-approver" // approves what a clerk asks for
	Agent311        = "agent-311"        // helps residents who call
	CounterClerk    = "counter-clerk"    // takes payments over a counter
	Supervisor      = "supervisor"       // closes tills, corrects what a clerk or an agent did
	Department      = "department"       // looks after one department's bills and settings
	Auditor         = "auditor"          // sees everything, changes nothing
)

// Roles lists the roles.
func Roles() []string {
	return []string{Administrator, FinanceClerk, FinanceApprover, Agent311, CounterClerk, Supervisor, Department, Auditor}
}

// A Role is what a member may do, where and through which channel. An empty
// Department or Channel means every one.
type Role struct {
	Name       string `json:"role"`
	Department string `json:"department"` // id
	Channel    string `json:"channel"`
}

// A Member is somebody who works for the city, with the roles in force.
type Member struct {
	ID         string
	Name       string
	Email      string
	Roles      []Role
	SignedInAt time.Time
	SessionID  string // empty unless signed in
	Fresh      bool   // the directory has seen the person prove who they are within FreshFor
	BreakGlass bool   // the session of a break-glass credential
	Alarm      bool   // some break-glass session is open
}

// Has reports whether the member holds a role for a department (an id, or "" for a
// role that must hold for the whole city).
func (m Member) Has(role, department string) bool {
	return slices.ContainsFunc(m.Roles, func(r Role) bool {
		return r.Name == role && (r.Department == "" || r.Department == department)
	})
}

// Config is what a Service needs.
type Config struct {
	Now func() time.Time
	// Suggest are the roles that a group of the directory brings to a member who has
	// never had any. Only development fills it.
	Suggest map[string][]Suggestion
	// Alarm is who is told by mail that the break-glass account is in use.
	Alarm []string
	Mail  identity.Mailer
	// People counts guesses in its buckets.
	People *identity.Service
}

// A Suggestion is a role for a department named by its code; a code that does not
// exist (yet) suggests nothing. An empty code means the whole city.
type Suggestion struct{ Role, DepartmentCode string }

// A Service keeps members, roles and staff sessions. It may be used by many
// goroutines and by many instances at once.
type Service struct {
	db      *pgxpool.Pool
	now     func() time.Time
	suggest map[string][]Suggestion
	alarm   []string
	mail    identity.Mailer
	people  *identity.Service
}

// New returns the service of a migrated database.
func New(db *pgxpool.Pool, c Config) *Service {
	return &Service{db: db, now: c.Now, suggest: c.Suggest, alarm: c.Alarm, mail: c.Mail, people: c.People}
}

var (
	ErrNotFound  = errors.New("staff member not found")
	ErrSuspended = errors.New("the staff member is suspended")
	ErrNoRole    = errors.New("the staff member has no role")
	ErrNoSession = errors.New("no staff session")
	ErrBadRole   = errors.New("no such role")
	ErrOwnRole   = errors.New("nobody grants a role to themselves")
)

// An Upstream is what the directory said in a verified ID token.
type Upstream struct {
	Issuer, Subject string
	Name, Email     string
	Groups          []string
	ProvedAt        time.Time // auth_time; zero when the directory does not say
	Sid             string    // of its session, for its sign-out; "" when it does not say
}

// SignedIn records what the directory said of somebody, and opens a session. It
// returns the token for the cookie, or ErrSuspended or ErrNoRole; then the member is known, and an
// administrator can grant the first role. oldToken is the session the browser held: it ends.
func (s *Service) SignedIn(ctx context.Context, u Upstream, oldToken string, v identity.Visitor) (token string, err error) {
	var refused error // committed with its trace
	err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		memberID, state, err := s.known(ctx, tx, u)
		if err != nil {
			return err
		}
		if err := s.suggestRoles(ctx, tx, memberID, u.Groups); err != nil {
			return err
		}
		var roles int
		err = tx.QueryRow(ctx, `select count(*) from identity.staff_role where member_id = $1 and ended_at is null`, memberID).Scan(&roles)
		switch {
		case err != nil:
			return fmt.Errorf("count roles: %w", err)
		case state != "active":
			refused = ErrSuspended
		case roles == 0:
			refused = ErrNoRole
		}
		if refused != nil {
			return record(ctx, tx, s.now(), memberID, "staff.signin.failed", map[string]any{"reason": refused.Error(), "network": v.Network})
		}
		begins := proof{oldToken: oldToken, sid: u.Sid, life: sessionMax}
		if !u.ProvedAt.IsZero() {
			begins.provedAt = &u.ProvedAt
		}
		token, err = s.openSession(ctx, tx, memberID, begins, v)
		return err
	})
	if err == nil {
		err = refused
	}
	if err != nil {
		return "", fmt.Errorf("sign in staff: %w", err)
	}
	return token, nil
}

// known returns the member of the directory's issuer and subject, new or brought up to date.
func (s *Service) known(ctx context.Context, tx pgx.Tx, u Upstream) (memberID, state string, err error) {
	if u.Groups == nil {
		u.Groups = []string{}
	}
	err = tx.QueryRow(ctx, `
		insert into identity.staff_member (id, issuer, subject, name, email, groups, created_at, seen_at)
		values ($1, $2, $3, $4, $5, $6, $7, $7)
		on conflict (issuer, subject) do update set name = $4, email = $5, groups = $6, seen_at = $7
		returning id, state`, id.New(), u.Issuer, u.Subject, u.Name, u.Email, u.Groups, s.now()).Scan(&memberID, &state)
	if err != nil {
		return "", "", fmt.Errorf("record member: %w", err)
	}
	return memberID, state, nil
}

// suggestRoles grants what the groups suggest to a member who never had a role: what
// an administrator has taken away must not come back.
func (s *Service) suggestRoles(ctx context.Context, tx pgx.Tx, memberID string, groups []string) error {
	if len(s.suggest) == 0 {
		return nil
	}
	var ever bool
	err := tx.QueryRow(ctx, `select exists (select from identity.staff_role where member_id = $1)`, memberID).Scan(&ever)
	if err != nil || ever {
		return err
	}
	for _, group := range groups {
		for _, hint := range s.suggest[group] {
			role := Role{Name: hint.Role}
			if hint.DepartmentCode != "" {
				err := tx.QueryRow(ctx, `select id from department.department where code = $1`, hint.DepartmentCode).Scan(&role.Department)
				if errors.Is(err, pgx.ErrNoRows) {
					continue
				}
				if err != nil {
					return fmt.Errorf("find department %s: %w", hint.DepartmentCode, err)
				}
			}
			if err := s.Grant(ctx, tx, memberID, role, "directory:"+group); err != nil {
				return err
			}
		}
	}
	return nil
}

// Grant gives a member a role. Granting what is held already changes nothing.
func (s *Service) Grant(ctx context.Context, tx pgx.Tx, memberID string, r Role, by string) error {
	if !slices.Contains(Roles(), r.Name) {
		return fmt.Errorf("grant %q: %w", r.Name, ErrBadRole)
	}
	if !id.Valid(memberID) || r.Department != "" && !id.Valid(r.Department) {
		return fmt.Errorf("grant %s: %w", r.Name, ErrNotFound)
	}
	if by == memberID {
		return fmt.Errorf("grant %s: %w", r.Name, ErrOwnRole)
	}
	now := s.now()
	tag, err := tx.Exec(ctx, `
		insert into identity.staff_role (id, member_id, role, department_id, channel, granted_by, granted_at)
		values ($1, $2, $3, nullif($4, '')::uuid, nullif($5, ''), $6, $7)
		on conflict (member_id, role, department_id, channel) where ended_at is null do nothing`,
		id.New(), memberID, r.Name, r.Department, r.Channel, by, now)
	if err != nil {
		return fmt.Errorf("grant %s to %s: %w", r.Name, memberID, err)
	}
	if tag.RowsAffected() == 0 {
		return nil
	}
	return record(ctx, tx, now, memberID, "staff.role.granted", map[string]any{"role": r.Name, "department": r.Department, "channel": r.Channel, "by": by})
}

// Revoke takes a role away, at once, and ends the member's sessions: whoever has fewer
// rights than a moment ago signs in again to see what is left.
func (s *Service) Revoke(ctx context.Context, tx pgx.Tx, memberID string, r Role, by string) error {
	if !id.Valid(memberID) || r.Department != "" && !id.Valid(r.Department) {
		return fmt.Errorf("revoke %s: %w", r.Name, ErrNotFound)
	}
	now := s.now()
	tag, err := tx.Exec(ctx, `
		update identity.staff_role set ended_at = $5, ended_by = $6
		where member_id = $1 and role = $2 and ended_at is null
			and department_id is not distinct from nullif($3, '')::uuid and channel is not distinct from nullif($4, '')`,
		memberID, r.Name, r.Department, r.Channel, now, by)
	if err != nil {
		return fmt.Errorf("revoke %s of %s: %w", r.Name, memberID, err)
	}
	if tag.RowsAffected() == 0 {
		return nil
	}
	if _, err := s.endSessions(ctx, tx, ending{memberID: memberID, why: "role revoked", by: by}); err != nil {
		return err
	}
	return record(ctx, tx, now, memberID, "staff.role.revoked", map[string]any{"role": r.Name, "department": r.Department, "channel": r.Channel, "by": by})
}

// MembersByEmail returns the members with an address: for an administrator who types
// one. There may be several; the administrator picks by name and issuer.
func (s *Service) MembersByEmail(ctx context.Context, email string) ([]Member, error) {
	rows, err := s.db.Query(ctx, memberSQL+`
		where lower(m.email) = lower($1) order by m.name, m.id limit 20`, email)
	if err != nil {
		return nil, fmt.Errorf("find staff: %w", err)
	}
	members, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Member, error) {
		var m Member
		var roles []byte
		if err := row.Scan(&m.ID, &m.Name, &m.Email, &roles); err != nil {
			return m, err
		}
		return m, json.Unmarshal(roles, &m.Roles)
	})
	if err != nil {
		return nil, fmt.Errorf("find staff: %w", err)
	}
	return members, nil
}

// rolesOfMember is the list of roles in force of member m, as JSON.
const (
	rolesOfMember = `
	coalesce((select json_agg(json_build_object('role', r.role, 'department', coalesce(r.department_id::text, ''),
			'channel', coalesce(r.channel, '')) order by r.role, r.granted_at, r.id)
		from identity.staff_role r where r.member_id = m.id and r.ended_at is null), '[]')`
	memberSQL = `select m.id, m.name, m.email,` + rolesOfMember + ` from identity.staff_member m`
)

func record(ctx context.Context, tx pgx.Tx, at time.Time, memberID, action string, details map[string]any) error {
	return audit.Record(ctx, tx, audit.Event{Action: action, ObjectType: "staff", ObjectID: memberID, At: at, Details: details})
}
