package provider

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Resident returns the resident that a department knows by a pairwise subject, or
// false when it knows nobody by that name: another department's subject is as
// unknown as one that does not exist. The id may be that of a party for whom somebody
// acts. Of an account that was merged, both subjects lead to the account that goes on.
func (s *Service) Resident(ctx context.Context, departmentID, subject string) (residentID string, ok bool, err error) {
	err = s.db.QueryRow(ctx, `
		select coalesce(r.merged_into, p.resident_id) from identity.pairwise p left join identity.resident r on r.id = p.resident_id
		where p.sub = $1 and p.department_id = $2`, subject, departmentID).Scan(&residentID)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("find resident by subject: %w", err)
	}
	return residentID, true, nil
}
