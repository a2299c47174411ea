package provider

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"guichet/internal/id"
)

// subject returns the name by which a department knows a resident: a keyed hash,
// stored at first use. What is stored counts, so it outlives the key.
func (s *Service) subject(ctx context.Context, tx pgx.Tx, departmentID, residentID string) (string, error) {
	sub := base64.RawURLEncoding.EncodeToString(s.pairwise.Sum(departmentID + "\x00" + residentID))
	_, err := tx.Exec(ctx, `
		insert into identity.pairwise (sub, department_id, resident_id, created_at) values ($1, $2, $3, $4)
		on conflict (department_id, resident_id) do nothing`,
		sub, departmentID, residentID, s.now())
	if err != nil {
		return "", fmt.Errorf("store subject: %w", err)
	}
	err = tx.QueryRow(ctx, `select sub from identity.pairwise where department_id = $1 and resident_id = $2`,
		departmentID, residentID).Scan(&sub)
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

// sid returns the name of a session for one client.
func (s *Service) sid(ctx context.Context, tx pgx.Tx, sessionID, clientID string) (string, error) {
	_, err := tx.Exec(ctx, `
		insert into identity.session_client (session_id, client_id, sid, first_at) values ($1, $2, $3, $4)
		on conflict (session_id, client_id) do nothing`, sessionID, clientID, id.Secret(), s.now())
	if err != nil {
		return "", fmt.Errorf("store sid: %w", err)
	}
	var sid string
	err = tx.QueryRow(ctx, `select sid from identity.session_client where session_id = $1 and client_id = $2`,
		sessionID, clientID).Scan(&sid)
	if err != nil {
		return "", fmt.Errorf("read sid: %w", err)
	}
	return sid, nil
}
