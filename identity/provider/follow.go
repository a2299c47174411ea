package provider

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"guichet/identity"
)

// revoke takes back what clients were given in a person's name: grants, and with them
// the tokens. identity calls it in the transaction of its cause.
func (s *Service) revoke(ctx context.Context, tx pgx.Tx, r identity.Revocation) error {
	_, err := tx.Exec(ctx, `
		update identity.client_grant set revoked_at = $1, revoked_why = $2
		where resident_id = $3 and ($4 = '' or session_id::text = $4) and revoked_at is null`,
		s.now(), r.Why, r.ResidentID, r.SessionID)
	if err != nil {
		return fmt.Errorf("revoke grants of %s: %w", r.ResidentID, err)
	}
	return nil
}
