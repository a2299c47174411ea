package provider

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/id"
)

// A Refusal is a request of a client that was answered with an error, for the people
// who look after the client. Nothing that was sent is part of it.
type Refusal struct {
	At          time.Time
	Endpoint    string // "authorize", "token", …
	Code        string // as OAuth writes it, or BadRedirect
	Description string // ours, as in Error; "" where the code says it all
	Network     string // coarse: where the request came from
}

// BadRedirect is the code of a request whose redirect address is not registered: the
// person saw a page, and the client was told nothing.
const BadRedirect = "redirect_uri"

const (
	keptRefusals    = 50
	refusalsAMinute = 20 // of one client: a stranger who knows its name must not keep the database busy
)

// Refused keeps a refusal among the client's last 50. Those of names that are no client's,
// and those beyond twenty a minute, are dropped.
func (s *Service) Refused(ctx context.Context, name string, r Refusal) error {
	if !clientID.MatchString(name) {
		return nil
	}
	now := s.now()
	_, err := s.db.Exec(ctx, `
		with room as (
			select c.id from identity.client c
			where c.id = $2 and $8 > (select count(*) from identity.client_error e where e.client_id = c.id and e.at > $9)
		), kept as (
			insert into identity.client_error (id, client_id, at, endpoint, code, description, network)
			select $1, room.id, $3, $4, $5, $6, $7 from room
		)
		delete from identity.client_error where id in (
			select e.id from identity.client_error e join room on room.id = e.client_id
			order by e.at desc, e.id desc offset $10)`,
		id.New(), name, now, r.Endpoint, r.Code, r.Description, r.Network,
		refusalsAMinute, now.Add(-time.Minute), keptRefusals-1) // the statement does not see the row it adds
	if err != nil {
		return fmt.Errorf("keep refusal of %s: %w", name, err)
	}
	return nil
}

// Refusals lists a client's last refusals, newest first, at most 50.
func (s *Service) Refusals(ctx context.Context, name string) ([]Refusal, error) {
	rows, err := s.db.Query(ctx, `
		select at, endpoint, code, description, network from identity.client_error
		where client_id = $1 order by at desc, id desc limit $2`, name, keptRefusals)
	if err != nil {
		return nil, fmt.Errorf("list refusals of %s: %w", name, err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[Refusal])
	if err != nil {
		return nil, fmt.Errorf("list refusals of %s: %w", name, err)
	}
	return list, nil
}
