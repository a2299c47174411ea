package provider

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Resident returns the resident that a department knows by a pairwise subject, or
// false when it knows nobody by that name: another department's subject is as
// unknown as one that does not exist.
func (s *Service) Resident(ctx context.Context, departmentID, subject string) (residentID string, ok bool, err error) {
	err = s.db.QueryRow(ctx, `select resident_id from identity.pairwise where sub = $1 and department_id = $2`, subject, departmentID).Scan(&residentID)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("find resident by subject: %w", err)
	}
	return residentID, true, nil
}
