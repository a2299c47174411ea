package provider

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/identity"
	"guichet/internal/audit"
	"guichet/internal/id"
)

// ErrToken says that an access token opens nothing here: unknown, expired, revoked, meant
// for another resource, bound to a key that was not proved, or of an account that is not active.
var ErrToken = errors.New("invalid access token")

// An Access is what an access token proves.
type Access struct {
	ResidentID string
	ClientID   string
	Sub        string
	Scopes     []string
	ACR        int
	SignedInAt time.Time
	JKT        string // the key it is bound to; "" for none
	DPoP       DPoPPolicy
	claims     []string
	department string // id, of the client
	acting     string // the right under which the person acts; "" for none
}

var accessSQL = `
select g.resident_id, g.client_id, c.department_id, coalesce(g.acting_id::text, ''), g.sub, t.scopes, g.acr, g.signed_in_at, coalesce(t.jkt, ''), coalesce(c.policy->>'dpop', ''), g.info_claims
from identity.access_token t
join identity.client_grant g on g.id = t.grant_id and g.revoked_at is null and ` + grantLive("$2") + `
join identity.client c on c.id = g.client_id and c.state = 'active'
join identity.resident r on r.id = g.resident_id and r.state = 'active'
where t.hash = $1 and t.expires_at > $2 and $3 = any (t.audience)`

func (a *Access) scan(row pgx.Row) error {
	return row.Scan(&a.ResidentID, &a.ClientID, &a.department, &a.acting, &a.Sub, &a.Scopes, &a.ACR, &a.SignedInAt, &a.JKT, &a.DPoP, &a.claims)
}

// Access returns what a token proves at the resource named audience (the issuer for
// userinfo), or ErrToken. A token for one resource opens no other. One that is bound to a
// key (JKT) opens nothing until CheckProof has passed.
func (s *Service) Access(ctx context.Context, token, audience string) (Access, error) {
	if len(token) != 43 {
		return Access{}, ErrToken
	}
	var a Access
	err := a.scan(s.db.QueryRow(ctx, accessSQL, id.Hash(token), s.now(), audience))
	if isNone(err) {
		return Access{}, ErrToken
	}
	if err != nil {
		return Access{}, fmt.Errorf("read access token: %w", err)
	}
	return a, nil
}

// Userinfo returns the claims that the token's scopes allow, or ErrToken. What is not
// known is left out.
func (s *Service) Userinfo(ctx context.Context, token string, p Presented) (map[string]any, error) {
	if len(token) != 43 {
		return nil, ErrToken
	}
	var a Access
	var r identity.Resident
	var b pgx.Batch // one round trip: the client waits
	b.Queue(accessSQL, id.Hash(token), s.now(), s.issuer).QueryRow(a.scan)
	s.people.QueueResident(&b, &r, `r.id = (
		select g.resident_id from identity.access_token t join identity.client_grant g on g.id = t.grant_id where t.hash = $1)`, id.Hash(token))
	err := s.db.SendBatch(ctx, &b).Close()
	if isNone(err) || err == nil && r.ID == "" {
		return nil, ErrToken
	}
	if err != nil {
		return nil, fmt.Errorf("read userinfo: %w", err)
	}
	if err := s.CheckProof(ctx, a, token, p); err != nil {
		return nil, err
	}
	claims := someClaims(r, a.Scopes, a.claims)
	claims["sub"] = a.Sub
	if err := s.addActing(ctx, claims, actingClaims{right: a.acting, resident: a.ResidentID, sub: a.Sub, department: a.department, scopes: a.Scopes}); err != nil {
		return nil, err
	}
	return claims, nil
}

// Introspect says what a token is worth (RFC 7662): to the client it was given to and, of
// access tokens, to the servers it is meant for. To everybody else, and of every token that
// opens nothing any more, the answer is the same.
func (s *Service) Introspect(ctx context.Context, c Client, token string) (map[string]any, error) {
	inactive := map[string]any{"active": false}
	if len(token) != 43 {
		return inactive, nil
	}
	var t struct {
		resident, client, department, sub, jkt, acting string
		scopes, audience                               []string
		created, expires, signedIn                     time.Time
		acr                                            int
		access                                         bool
	}
	err := s.db.QueryRow(ctx, introspectSQL, id.Hash(token), s.now(), c.ID, list(c.Serves)).
		Scan(&t.resident, &t.client, &t.department, &t.sub, &t.scopes, &t.audience, &t.acr, &t.signedIn, &t.created, &t.expires, &t.jkt, &t.access, &t.acting)
	if isNone(err) {
		return inactive, nil
	}
	if err != nil {
		return nil, fmt.Errorf("introspect: %w", err)
	}
	if t.department != c.DepartmentID { // the caller's own name for the person, never another department's
		if t.sub, err = s.subject(ctx, s.db, c.DepartmentID, t.resident); err != nil {
			return nil, err
		}
	}
	answer := map[string]any{
		"active": true, "client_id": t.client, "scope": strings.Join(t.scopes, " "), "sub": t.sub, "iss": s.issuer,
		"iat": t.created.Unix(), "exp": t.expires.Unix(), "acr": ACR(t.acr), "auth_time": t.signedIn.Unix(),
	}
	if t.access {
		answer["aud"], answer["token_type"] = t.audience, "Bearer"
	}
	if err := s.addActing(ctx, answer, actingClaims{right: t.acting, resident: t.resident, sub: t.sub, department: c.DepartmentID, scopes: t.scopes}); errors.Is(err, ErrToken) {
		return inactive, nil
	} else if err != nil {
		return nil, err
	}
	if t.jkt != "" {
		answer["cnf"] = map[string]any{"jkt": t.jkt}
		if t.access {
			answer["token_type"] = "DPoP"
		}
	}
	return answer, nil
}

var introspectSQL = `
select g.resident_id, g.client_id, c.department_id, g.sub, coalesce(t.scopes, g.scopes), t.audience, g.acr, g.signed_in_at, t.created_at, t.expires_at, coalesce(t.jkt, ''), t.access, coalesce(g.acting_id::text, '')
from (
	select a.grant_id, a.scopes, a.audience, a.created_at, a.expires_at, a.jkt, true as access
	from identity.access_token a where a.hash = $1
	union all
	select f.grant_id, null::text[], '{}', f.created_at, f.expires_at, f.jkt, false
	from identity.refresh_token f where f.hash = $1 and f.spent_at is null
) t
join identity.client_grant g on g.id = t.grant_id and g.revoked_at is null and ` + grantLive("$2") + `
join identity.client c on c.id = g.client_id and c.state = 'active'
join identity.resident r on r.id = g.resident_id and r.state = 'active'
where t.expires_at > $2 and (g.client_id = $3 or t.access and t.audience && $4)`

// Revoke makes a token of the client's own worthless (RFC 7009). With a refresh token
// goes everything of its grant. Unknown tokens, and other clients', are left as they are.
func (s *Service) Revoke(ctx context.Context, c Client, token string) error {
	now := s.now()
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		var grantID, residentID string
		kind := "refresh token"
		err := tx.QueryRow(ctx, `
			update identity.client_grant g set revoked_at = $3, revoked_why = 'revoked by the client'
			from identity.refresh_token f
			where f.hash = $1 and g.id = f.grant_id and g.client_id = $2 and g.revoked_at is null
			returning g.id, g.resident_id`, id.Hash(token), c.ID, now).Scan(&grantID, &residentID)
		if isNone(err) {
			kind = "access token"
			err = tx.QueryRow(ctx, `
				delete from identity.access_token t using identity.client_grant g
				where t.hash = $1 and g.id = t.grant_id and g.client_id = $2
				returning g.id, g.resident_id`, id.Hash(token), c.ID).Scan(&grantID, &residentID)
		}
		if isNone(err) {
			return nil
		}
		if err != nil {
			return err
		}
		return audit.Record(ctx, tx, audit.Event{
			Action: "token.revoked", ObjectType: "grant", ObjectID: grantID, Subject: residentID, At: now,
			Details: map[string]any{"client": c.ID, "what": kind},
		})
	})
	if err != nil {
		return fmt.Errorf("revoke token of %s: %w", c.ID, err)
	}
	return nil
}

// A Revocable says whose grants RevokeGrants ends; empty fields mean all.
type Revocable struct{ Resident, Session, Client string }

// RevokeGrants ends grants of a resident, and every token of theirs, in the caller's transaction:
// of one session, of one client, or all of them.
func (s *Service) RevokeGrants(ctx context.Context, tx pgx.Tx, r Revocable, why string) error {
	now := s.now()
	rows, err := tx.Query(ctx, `
		update identity.client_grant set revoked_at = $4, revoked_why = $5
		where resident_id = $1 and ($2 = '' or session_id = nullif($2, '')::uuid) and ($3 = '' or client_id = $3) and revoked_at is null
		returning client_id`, r.Resident, r.Session, r.Client, now, why)
	if err != nil {
		return fmt.Errorf("revoke grants: %w", err)
	}
	clients, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(clients) == 0 {
		return err
	}
	slices.Sort(clients)
	return audit.Record(ctx, tx, audit.Event{
		Action: "token.revoked", ObjectType: "resident", ObjectID: r.Resident, Subject: r.Resident, At: now,
		Details: map[string]any{"clients": slices.Compact(clients), "session": r.Session, "why": why},
	})
}
