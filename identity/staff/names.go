package staff

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"guichet/internal/id"
)

// Names returns the names of members by id, for pages that say who did something.
// What is no member's id is left out.
func (s *Service) Names(ctx context.Context, ids []string) (map[string]string, error) {
	names := map[string]string{}
	var known []string
	for _, v := range ids {
		if id.Valid(v) {
			known = append(known, v)
		}
	}
	if len(known) == 0 {
		return names, nil
	}
	rows, err := s.db.Query(ctx, `select id, name from identity.staff_member where id = any($1::uuid[]) order by id`, known)
	if err != nil {
		return nil, fmt.Errorf("read staff names: %w", err)
	}
	var memberID, name string
	_, err = pgx.ForEachRow(rows, []any{&memberID, &name}, func() error {
		names[memberID] = name
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read staff names: %w", err)
	}
	return names, nil
}
