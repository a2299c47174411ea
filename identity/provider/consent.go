package provider

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"guichet/internal/audit"
)

// told reports whether the resident whom the client was read for knows already what it
// will see. The bare sub needs no notice; whether a city department may refresh its
// tokens was decided when it was registered.
func (c Client) told(scopes []string) bool {
	for _, scope := range scopes {
		free := c.FirstParty && (scope == ScopeOpenID || scope == ScopeOffline)
		if !free && !slices.Contains(c.known, scope) {
			return false
		}
	}
	return true
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
