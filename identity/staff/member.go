package staff

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/id"
)

// A Listed is a member as administrators see them.
type Listed struct {
	Member
	Issuer, Subject string
	Groups          []string
	Suspended       bool
	SeenAt          time.Time // when the directory last vouched for them
}

// A MemberFilter narrows a list of members.
type MemberFilter struct {
	Text string // part of a name or address
	Role string
}

// Members lists members by name, at most 200.
func (s *Service) Members(ctx context.Context, f MemberFilter) ([]Listed, error) {
	return s.listed(ctx, `
		where (m.name ilike $1 or m.email ilike $1)
			and ($2 = '' or exists (select from identity.staff_role r where r.member_id = m.id and r.role = $2 and r.ended_at is null))`,
		"%"+likely.Replace(f.Text)+"%", f.Role)
}

// likely keeps what people type from being a pattern.
var likely = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

// Member reads one member, or returns ErrNotFound.
func (s *Service) Member(ctx context.Context, memberID string) (Listed, error) {
	if !id.Valid(memberID) {
		return Listed{}, ErrNotFound
	}
	list, err := s.listed(ctx, `where m.id = $1`, memberID)
	if err == nil && len(list) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return Listed{}, err
	}
	return list[0], nil
}

func (s *Service) listed(ctx context.Context, where string, args ...any) ([]Listed, error) {
	rows, err := s.db.Query(ctx, `
		select m.id, m.name, m.email, m.issuer, m.subject, m.groups, m.state = 'suspended', m.seen_at,`+rolesOfMember+`
		from identity.staff_member m `+where+` order by m.name, m.id limit 200`, args...)
	if err != nil {
		return nil, fmt.Errorf("list staff: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (l Listed, err error) {
		var roles []byte
		if err = row.Scan(&l.ID, &l.Name, &l.Email, &l.Issuer, &l.Subject, &l.Groups, &l.Suspended, &l.SeenAt, &roles); err != nil {
			return l, err
		}
		return l, json.Unmarshal(roles, &l.Roles)
	})
	if err != nil {
		return nil, fmt.Errorf("list staff: %w", err)
	}
	return list, nil
}

// A Grant is a role that somebody holds or held.
type Grant struct {
	Role       string
	Department string // id; "": the whole city
	Channel    string // "": every one
	GrantedBy  string
	GrantedAt  time.Time
	EndedBy    string
	EndedAt    *time.Time
}

// Grants lists the roles a member holds and held, newest first, at most 100.
func (s *Service) Grants(ctx context.Context, memberID string) ([]Grant, error) {
	if !id.Valid(memberID) {
		return nil, ErrNotFound
	}
	rows, err := s.db.Query(ctx, `
		select role, coalesce(department_id::text, '') as department, coalesce(channel, '') as channel, granted_by, granted_at,
			coalesce(ended_by, '') as ended_by, ended_at
		from identity.staff_role where member_id = $1 order by granted_at desc, id desc limit 100`, memberID)
	if err != nil {
		return nil, fmt.Errorf("list roles of %s: %w", memberID, err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[Grant])
	if err != nil {
		return nil, fmt.Errorf("list roles of %s: %w", memberID, err)
	}
	return list, nil
}
