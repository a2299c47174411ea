package provider

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// newSubject is the name by which a department would know a resident from now on: a
// keyed hash. What is stored counts, so a name outlives the key.
func (s *Service) newSubject(departmentID, residentID string) string {
	return base64.RawURLEncoding.EncodeToString(s.pairwise.Sum(departmentID + "\x00" + residentID))
}

// subjectSQL yields the department's name for the resident, stored at first use. It
// yields nothing when another transaction stores it at this moment.
const subjectSQL = `
old_subject as (select sub from identity.pairwise where department_id = @department and resident_id = @resident),
new_subject as (
	insert into identity.pairwise (sub, department_id, resident_id, created_at)
	select @new_sub, @department, @resident, @now where not exists (select from old_subject)
	on conflict (department_id, resident_id) do nothing
	returning sub),
subject as (select sub from old_subject union all select sub from new_subject)`

// sidSQL does the same for the name of a session with one client.
const sidSQL = `
old_sid as (select sid from identity.session_client where session_id = @session and client_id = @client),
new_sid as (
	insert into identity.session_client (session_id, client_id, sid, first_at)
	select @session, @client, @new_sid, @now where not exists (select from old_sid)
	on conflict (session_id, client_id) do nothing
	returning sid),
named_session as (select sid from old_sid union all select sid from new_sid)`

// subject returns the department's name for the resident.
func (s *Service) subject(ctx context.Context, q querier, departmentID, residentID string) (sub string, err error) {
	for range 3 {
		err = q.QueryRow(ctx, "with "+subjectSQL+" select sub from subject", pgx.NamedArgs{
			"now": s.now(), "new_sub": s.newSubject(departmentID, residentID), "department": departmentID, "resident": residentID,
		}).Scan(&sub)
		if !isNone(err) {
			break
		}
	}
	if err != nil {
		return "", fmt.Errorf("read subject: %w", err)
	}
	return sub, nil
}

// isSubject reports whether sub is the client's name for the resident.
func (s *Service) isSubject(ctx context.Context, c Client, sub, residentID string) (bool, error) {
	var same bool
	err := s.db.QueryRow(ctx, `
		select resident_id = $3 from identity.pairwise where sub = $1 and department_id = $2`,
		sub, c.DepartmentID, residentID).Scan(&same)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return false, fmt.Errorf("read subject: %w", err)
	}
	return same, nil
}
