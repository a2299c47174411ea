package provider

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/identity"
	"guichet/internal/audit"
)

// A Known is an application that may see something of a resident.
type Known struct {
	ClientID     string
	Name         Words
	Department   Words
	DepartmentID string
	Agreed       bool // the resident was asked, not only told
	Scopes       []string
	Since        time.Time
}

// KnownTo lists the applications that may see something of a resident, by department.
func (s *Service) KnownTo(ctx context.Context, residentID string) ([]Known, error) {
	rows, err := s.db.Query(ctx, `
		select k.client_id, c.name_en, c.name_fr, d.name_en, d.name_fr, d.id, k.kind = 'consent', k.scopes, k.given_at
		from identity.consent k join identity.client c on c.id = k.client_id join department.department d on d.id = c.department_id
		where k.resident_id = $1 and k.withdrawn_at is null order by d.name_en, c.name_en, c.id limit 200`, residentID)
	if err != nil {
		return nil, fmt.Errorf("list who knows %s: %w", residentID, err)
	}
	known, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Known, error) {
		var k Known
		err := row.Scan(&k.ClientID, &k.Name.EN, &k.Name.FR, &k.Department.EN, &k.Department.FR, &k.DepartmentID, &k.Agreed, &k.Scopes, &k.Since)
		return k, err
	})
	if err != nil {
		return nil, fmt.Errorf("list who knows %s: %w", residentID, err)
	}
	return known, nil
}

// Withdraw takes back what a resident was told or agreed to about a client, and its
// grants and tokens at once. The client has to ask, or the person be told, again. Of a client that
// sees nothing it returns ErrNotFound, wrapped.
func (s *Service) Withdraw(ctx context.Context, p identity.Person, clientID string) error {
	now := s.now()
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `
			update identity.consent set withdrawn_at = $3 where resident_id = $1 and client_id = $2 and withdrawn_at is null`, p.ID, clientID, now)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return ErrNotFound
		}
		_, err = tx.Exec(ctx, `
			update identity.client_grant set revoked_at = $3, revoked_why = 'consent withdrawn'
			where resident_id = $1 and client_id = $2 and revoked_at is null`, p.ID, clientID, now)
		if err != nil {
			return err
		}
		return audit.Record(ctx, tx, audit.Event{
			Action: "consent.withdrawn", ObjectType: "client", ObjectID: clientID, Subject: p.ID, At: now, Details: map[string]any{"session": p.SessionID},
		})
	})
	if err != nil {
		return fmt.Errorf("withdraw consent: %w", err)
	}
	return nil
}
