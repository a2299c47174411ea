package provider

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/identity"
	"guichet/internal/audit"
	"guichet/internal/id"
)

const (
	refreshIdle = 30 * 24 * time.Hour  // of a refresh token that is not used
	refreshMax  = 180 * 24 * time.Hour // of all of a grant's refresh tokens
)

// refreshes reports whether a client's grants come with refresh tokens. One that keeps no
// secret gets them only when they are bound to its key.
func (c Client) refreshes(jkt string) bool {
	return slices.Contains(c.Scopes, ScopeOffline) && (c.AuthMethod != NoSecret || jkt != "")
}

// refreshKey is the key that a client's refresh tokens are bound to. Those of a client
// that authenticates are bound by that already, and its keys may change (RFC 9449, section 5).
func (c Client) refreshKey(jkt string) string {
	if c.AuthMethod == NoSecret {
		return jkt
	}
	return ""
}

// A Renewal is a refresh token on its way to become new tokens.
type Renewal struct {
	Token     string
	Scopes    []string // narrower than granted; nil for all
	Resources []string
	JKT       string
	Network   string
}

// successor is the refresh token that follows one. It is derived, not drawn, so that
// whoever asks twice with the same token (two tabs, a lost answer) is given the same one,
// and nobody can compute it from the database or from the token alone.
func (s *Service) successor(token string) string {
	return base64.RawURLEncoding.EncodeToString(s.refresh.Sum(token))
}

// Refresh exchanges a refresh token for new tokens. For a short time after its use
// the same token gives the same successor again; later it is a sign of theft,
// and everything of its grant is revoked.
func (s *Service) Refresh(ctx context.Context, c Client, x Renewal) (Tokens, error) {
	switch {
	case x.Token == "":
		return Tokens{}, invalidRequest("refresh_token is missing")
	case !slices.Contains(c.Scopes, ScopeOffline):
		return Tokens{}, unauthorizedClient()
	case len(x.Token) != 43:
		return Tokens{}, invalidGrant()
	}
	t := s.newTokens(c, x.JKT)
	t.action, t.Refresh = "token.refreshed", s.successor(x.Token)
	args := t.args(ctx, c)
	args["hash"], args["next"] = id.Hash(x.Token), id.Hash(t.Refresh)
	args["late"], args["idle"], args["network"] = t.now.Add(-c.grace()), t.now.Add(refreshIdle), x.Network
	args["scopes"], args["resources"], args["issuer"] = list(x.Scopes), list(x.Resources), s.issuer
	g, err := scanIssued(s.db.QueryRow(ctx, refreshSQL, args))
	if isNone(err) {
		return Tokens{}, s.refusedToken(ctx, c, x)
	}
	if err != nil {
		return Tokens{}, fmt.Errorf("refresh token of %s: %w", c.ID, err)
	}
	g.nonce = nil // OpenID Connect Core, section 12.2: the answer to no request
	return s.finish(ctx, c, t, g)
}

// refreshSQL spends a token and stores its successor. Two at once take turns on the
// row of the token; the second finds it spent a moment ago and adds no successor.
var refreshSQL = `
with spent as (
	update identity.refresh_token r set spent_at = coalesce(r.spent_at, @now)
	from identity.client_grant g
	where r.hash = @hash and g.id = r.grant_id and g.client_id = @client and g.revoked_at is null and ` + grantLive("@now") + `
		and r.expires_at > @now and (r.jkt is null or r.jkt = @jkt)
		and (r.spent_at is null or r.spent_at > @late)
		and not exists (
			select from identity.refresh_token n
			where n.grant_id = r.grant_id and n.generation = r.generation + 1 and n.spent_at is not null)
		and @scopes::text[] <@ g.scopes and @resources::text[] <@ g.resources
		and exists (select from identity.resident p where p.id = g.resident_id and p.state = 'active')
	returning r.grant_id, r.generation, r.jkt),
g as (
	select g.id, g.client_id, g.resident_id, g.sid, g.sub, g.nonce, g.acr, g.amr, g.signed_in_at, g.id_claims, g.resources, g.ends_at, g.acting_id,
		case when cardinality(@scopes::text[]) > 0 then @scopes::text[] else g.scopes end as scopes
	from identity.client_grant g join spent on spent.grant_id = g.id),
successor as (
	insert into identity.refresh_token (hash, grant_id, generation, jkt, network, created_at, expires_at)
	select @next, spent.grant_id, spent.generation + 1, spent.jkt, @network, @now, least(@idle, g.ends_at)
	from spent join g on g.id = spent.grant_id
	on conflict do nothing),
` + issueTokenSQL

func unauthorizedClient() *Error {
	return &Error{"unauthorized_client", "the client may not use this grant"}
}

// refusedToken finds out why a refresh token gave nothing, and revokes its grant when it
// was spent longer ago than the grace: the client and a thief both hold it.
func (s *Service) refusedToken(ctx context.Context, c Client, x Renewal) error {
	refused, now := invalidGrant(), s.now()
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		var grantID, residentID, network string
		var wide, outside, reused bool
		err := tx.QueryRow(ctx, `
			select g.id, g.resident_id, r.network, not $3::text[] <@ g.scopes, not $4::text[] <@ g.resources,
				coalesce(r.spent_at <= $5, false)
			from identity.refresh_token r join identity.client_grant g on g.id = r.grant_id and g.revoked_at is null
			where r.hash = $1 and g.client_id = $2 and r.expires_at > $6
			for update of g`,
			id.Hash(x.Token), c.ID, list(x.Scopes), list(x.Resources), now.Add(-c.grace()), now).
			Scan(&grantID, &residentID, &network, &wide, &outside, &reused)
		switch {
		case isNone(err):
			return nil
		case err != nil:
			return err
		case reused:
			return s.reused(ctx, tx, c, identity.ReusedToken{Resident: residentID, Key: grantID}, x.Network != network)
		case wide:
			refused = &Error{"invalid_scope", "the scope is wider than what was granted"}
		case outside:
			refused = invalidTarget()
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("refuse refresh token of %s: %w", c.ID, err)
	}
	return refused
}

// reused revokes the grant (w.Key) whose refresh token came back, and writes to the resident
// when it came from another network than it was given to.
func (s *Service) reused(ctx context.Context, tx pgx.Tx, c Client, w identity.ReusedToken, elsewhere bool) error {
	now := s.now()
	_, err := tx.Exec(ctx, `
		update identity.client_grant set revoked_at = $2, revoked_why = 'refresh token reused' where id = $1`, w.Key, now)
	if err != nil {
		return err
	}
	if elsewhere {
		w.NameEN, w.NameFR = c.Name.EN, c.Name.FR
		if err := s.people.WarnReusedToken(ctx, tx, w); err != nil {
			return err
		}
	}
	return audit.Record(ctx, tx, audit.Event{
		Action: "token.reuse_detected", ObjectType: "grant", ObjectID: w.Key, Subject: w.Resident, At: now,
		Details: map[string]any{"client": c.ID, "elsewhere": elsewhere},
	})
}
