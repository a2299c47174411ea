package staff

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"guichet/internal/audit"
	"guichet/internal/id"
)

// A Hint is a role that a group of the directory suggests for its members.
type Hint struct {
	ID           string
	Group        string `db:"group_name"`
	Role         string
	DepartmentID string // "": the whole city
}

// AddHint lets a group suggest a role. Adding it again changes nothing.
func (s *Service) AddHint(ctx context.Context, tx pgx.Tx, h Hint, by string) error {
	if !slices.Contains(Roles(), h.Role) {
		return fmt.Errorf("suggest %q: %w", h.Role, ErrBadRole)
	}
	if h.Group == "" || h.DepartmentID != "" && !id.Valid(h.DepartmentID) {
		return errors.New("suggest a role: want a group of the directory, and a department's id or none")
	}
	h.ID = id.New()
	tag, err := tx.Exec(ctx, `
		insert into identity.staff_hint (id, group_name, role, department_id, made_by, made_at)
		values ($1, $2, $3, nullif($4, '')::uuid, $5, $6) on conflict do nothing`, h.ID, h.Group, h.Role, h.DepartmentID, by, s.now())
	if err != nil {
		return fmt.Errorf("suggest %s for %s: %w", h.Role, h.Group, err)
	}
	if tag.RowsAffected() == 0 {
		return nil
	}
	return s.recordHint(ctx, tx, h.ID, "staff.hint.added", map[string]any{"group": h.Group, "role": h.Role, "department": h.DepartmentID, "by": by})
}

// RemoveHint ends a suggestion; what was granted because of it stays.
func (s *Service) RemoveHint(ctx context.Context, tx pgx.Tx, hintID, by string) error {
	if !id.Valid(hintID) {
		return nil
	}
	tag, err := tx.Exec(ctx, `delete from identity.staff_hint where id = $1`, hintID)
	if err != nil {
		return fmt.Errorf("remove suggestion %s: %w", hintID, err)
	}
	if tag.RowsAffected() == 0 {
		return nil
	}
	return s.recordHint(ctx, tx, hintID, "staff.hint.removed", map[string]any{"by": by})
}

// Hints lists what groups suggest, by group and role, at most 500.
func (s *Service) Hints(ctx context.Context) ([]Hint, error) {
	rows, err := s.db.Query(ctx, `
		select id, group_name, role, coalesce(department_id::text, '') as department_id from identity.staff_hint
		order by group_name, role, id limit 500`)
	if err != nil {
		return nil, fmt.Errorf("list suggestions: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[Hint])
	if err != nil {
		return nil, fmt.Errorf("list suggestions: %w", err)
	}
	return list, nil
}

// A Suggested is a role that a group suggests for a member who does not hold it.
type Suggested struct {
	Hint
	MemberID string
	Name     string
	Email    string
}

// Suggested lists what waits to be granted or refused, by name, at most 200. A group that
// the directory takes away from somebody suggests nothing any more.
func (s *Service) Suggested(ctx context.Context) ([]Suggested, error) {
	rows, err := s.db.Query(ctx, `
		select h.id, h.group_name, h.role, coalesce(h.department_id::text, '') as department_id, m.id as member_id, m.name, m.email
		from identity.staff_hint h join identity.staff_member m on h.group_name = any (m.groups) and m.state = 'active'
		where not exists (select from identity.staff_role r where r.member_id = m.id and r.role = h.role and r.ended_at is null
				and (r.department_id is null or r.department_id = h.department_id))
			and not exists (select from identity.staff_hint_refused n where n.member_id = m.id and n.hint_id = h.id)
		order by m.name, m.id, h.role, h.id limit 200`)
	if err != nil {
		return nil, fmt.Errorf("list suggested roles: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[Suggested])
	if err != nil {
		return nil, fmt.Errorf("list suggested roles: %w", err)
	}
	return list, nil
}

// RefuseHint says no to a suggestion for a member, for good. Saying it again changes nothing.
func (s *Service) RefuseHint(ctx context.Context, tx pgx.Tx, memberID, hintID, by string) error {
	if !id.Valid(memberID) || !id.Valid(hintID) {
		return fmt.Errorf("refuse suggestion: %w", ErrNotFound)
	}
	tag, err := tx.Exec(ctx, `
		insert into identity.staff_hint_refused (member_id, hint_id, refused_by, refused_at)
		select m.id, h.id, $3, $4 from identity.staff_member m, identity.staff_hint h where m.id = $1 and h.id = $2
		on conflict do nothing`, memberID, hintID, by, s.now())
	if err != nil {
		return fmt.Errorf("refuse suggestion %s: %w", hintID, err)
	}
	if tag.RowsAffected() == 0 {
		return nil
	}
	return record(ctx, tx, s.now(), memberID, "staff.hint.refused", map[string]any{"hint": hintID, "by": by})
}

func (s *Service) recordHint(ctx context.Context, tx pgx.Tx, hintID, action string, details map[string]any) error {
	return audit.Record(ctx, tx, audit.Event{Action: action, ObjectType: "staff-hint", ObjectID: hintID, At: s.now(), Details: details})
}
