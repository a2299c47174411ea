package provider

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"guichet/internal/audit"
)

// told reports whether the resident knows already what the client will see. For a
// city department's client it is enough that the department's other clients were
// told the same; the bare sub needs no notice. Everybody else needs consent to exactly this client.
func (s *Service) told(ctx context.Context, q querier, c Client, residentID string, scopes []string) (bool, error) {
	if c.FirstParty && len(scopes) == 1 { // openid alone
		return true, nil
	}
	var known []string
	err := q.QueryRow(ctx, `
		select coalesce(array_agg(distinct scope), '{}')
		from identity.consent k
		join identity.client c on c.id = k.client_id
		cross join unnest(k.scopes) scope
		where k.resident_id = $1 and k.withdrawn_at is null
			and ((k.client_id = $2 and k.kind = 'consent') or ($3 and c.first_party and c.department_id = $4))`,
		residentID, c.ID, c.FirstParty, c.DepartmentID).Scan(&known)
	if err != nil {
		return false, fmt.Errorf("read consent: %w", err)
	}
	return !slices.ContainsFunc(scopes, func(scope string) bool { return !slices.Contains(known, scope) }), nil
}

// agree records what the resident was told or agreed to, on top of what was before.
func (s *Service) agree(ctx context.Context, tx pgx.Tx, c Client, residentID string, scopes []string) error {
	kind := "consent"
	if c.FirstParty {
		kind = "notice"
	}
	now := s.now()
	_, err := tx.Exec(ctx, `
		insert into identity.consent as k (resident_id, client_id, kind, scopes, given_at) values ($1, $2, $3, $4, $5)
		on conflict (resident_id, client_id) do update set
			kind = $3, given_at = $5, withdrawn_at = null,
			scopes = case when k.withdrawn_at is null and k.kind = $3
				then array(select unnest(k.scopes) union select unnest($4::text[]) order by 1) else $4 end`,
		residentID, c.ID, kind, scopes, now)
	if err != nil {
		return fmt.Errorf("record consent: %w", err)
	}
	return audit.Record(ctx, tx, audit.Event{
		Action: "consent.given", ObjectType: "client", ObjectID: c.ID, Subject: residentID, At: now,
		Details: map[string]any{"kind": kind, "scopes": scopes},
	})
}
