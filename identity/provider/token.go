package provider

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/audit"
	"guichet/internal/id"
)

const (
	accessLife  = 10 * time.Minute
	idTokenLife = 10 * time.Minute
)

// An Exchange is a code on its way to become tokens.
type Exchange struct {
	Code, RedirectURI, Verifier string
	Resources                   []string // RFC 8707: some of those granted; empty for all
	JKT                         string   // the key that was proved (Proof); "" for none
	Network                     string
}

// Tokens is what a code, a refresh token or a device becomes.
type Tokens struct {
	Access    string
	Refresh   string // "" when the client gets none
	ID        string
	Bound     bool // to the key that was proved
	ExpiresIn time.Duration
	Scopes    []string
}

// Redeem exchanges a code for tokens. It returns an *Error for everything the client
// did wrong; a code that was used before also takes its tokens with it.
func (s *Service) Redeem(ctx context.Context, c Client, x Exchange) (Tokens, error) {
	switch {
	case x.Code == "":
		return Tokens{}, invalidRequest("code is missing")
	case x.RedirectURI == "":
		return Tokens{}, invalidRequest("redirect_uri is missing")
	case x.Verifier == "" && !c.NonceForPKCE:
		return Tokens{}, invalidRequest("code_verifier is missing")
	case x.Verifier != "" && !validVerifier(x.Verifier):
		return Tokens{}, invalidGrant()
	}
	t := s.newTokens(c, x.JKT)
	first := ""
	if c.refreshes(x.JKT) {
		first = id.Secret()
	}
	args := t.args(ctx, c)
	args["code"], args["redirect"], args["challenge"] = id.Hash(x.Code), x.RedirectURI, challengeOf(x.Verifier)
	args["resources"], args["issuer"], args["network"] = list(x.Resources), s.issuer, x.Network
	args["refresh"], args["refreshes"] = id.Hash(first), first != ""
	args["refresh_jkt"], args["idle"], args["ends"] = c.refreshKey(x.JKT), t.now.Add(refreshIdle), t.now.Add(refreshMax)
	g, err := scanIssued(s.db.QueryRow(ctx, redeemSQL, args))
	if isNone(err) {
		if err = s.refusedCode(ctx, c, x); err == nil {
			err = invalidGrant()
		}
		return Tokens{}, err
	}
	if err != nil {
		return Tokens{}, fmt.Errorf("redeem code of %s: %w", c.ID, err)
	}
	if slices.Contains(g.scopes, ScopeOffline) {
		t.Refresh = first
	}
	return s.finish(ctx, c, t, g)
}

// redeemSQL consumes a code and stores what it becomes, in one statement: of any number
// of simultaneous uses one gets a row.
var redeemSQL = `
with g as (
	update identity.client_grant g set code_used_at = @now,
		ends_at = case when @refreshes and 'offline_access' = any (g.scopes) then @ends else g.ends_at end,
		scopes = case when @refreshes then g.scopes else array_remove(g.scopes, 'offline_access') end
	where code_hash = @code and client_id = @client and redirect_uri = @redirect and challenge is not distinct from nullif(@challenge, '')
		and (g.jkt is null or g.jkt = @jkt) and @resources::text[] <@ g.resources
		and code_used_at is null and code_expires_at > @now and revoked_at is null and ` + grantLive("@now") + `
		and exists (select from identity.resident r where r.id = g.resident_id and r.state = 'active')
	returning *),
first as (
	insert into identity.refresh_token (hash, grant_id, generation, jkt, network, created_at, expires_at)
	select @refresh, g.id, 1, nullif(@refresh_jkt, ''), @network, @now, @idle from g where 'offline_access' = any (g.scopes)),
` + issueTokenSQL

// issueTokenSQL ends a statement whose first part names the grant g: it stores an access
// token and the audit row, and returns what the answer is made of, with the key that signs now.
const issueTokenSQL = `
token as (
	insert into identity.access_token (hash, grant_id, scopes, audience, jkt, created_at, expires_at)
	select @access, g.id, g.scopes,
		case when cardinality(@resources::text[]) > 0 then @resources when cardinality(g.resources) > 0 then g.resources else array[@issuer::text] end,
		nullif(@jkt, ''), @now, @expires
	from g
	returning audience),
noted as (
	insert into ops.audit (at, action, object_type, object_id, subject, actor, actor_kind, channel, network, request_id, on_behalf_of, details)
	select @now, @action, 'grant', g.id::text, g.resident_id::text, @actor, @actor_kind, @channel, @from, @request_id,
		coalesce((select d.party_id::text from identity.delegation d where d.id = g.acting_id), ''),
		jsonb_build_object('client', g.client_id, 'scopes', g.scopes, 'audience', token.audience, 'acr', g.acr)
	from g, token)
select g.id, g.resident_id, g.sid, g.sub, g.nonce, g.scopes, g.acr, g.amr, g.signed_in_at, g.id_claims, coalesce(k.kid, '')
from g left join identity.signing_key k on k.alg = @alg and k.state = 'active'`

// issued is the grant behind tokens that were just stored.
type issued struct {
	grantID, residentID, sid, sub string
	nonce                         *string
	scopes, amr, idClaims         []string
	acr                           int
	signedInAt                    time.Time
	kid                           string
}

func scanIssued(row pgx.Row) (g issued, err error) {
	err = row.Scan(&g.grantID, &g.residentID, &g.sid, &g.sub, &g.nonce, &g.scopes, &g.acr, &g.amr, &g.signedInAt, &g.idClaims, &g.kid)
	return g, err
}

// newTokens is an answer in the making.
type newTokens struct {
	Tokens
	action string
	jkt    string
	now    time.Time
}

func (s *Service) newTokens(c Client, jkt string) newTokens {
	return newTokens{
		Tokens: Tokens{Access: id.Secret(), ExpiresIn: accessLife, Bound: jkt != ""},
		action: "token.issued", jkt: jkt, now: s.now(),
	}
}

// args are the arguments of issueTokenSQL.
func (t newTokens) args(ctx context.Context, c Client) pgx.NamedArgs {
	o := audit.From(ctx)
	return pgx.NamedArgs{
		"client": c.ID, "alg": c.Alg, "now": t.now, "access": id.Hash(t.Access), "expires": t.now.Add(accessLife), "jkt": t.jkt,
		"action": t.action, "actor": o.Actor, "actor_kind": o.ActorKind, "channel": o.Channel, "from": o.Network, "request_id": o.RequestID,
	}
}

// finish signs the ID token that goes with the stored tokens.
func (s *Service) finish(ctx context.Context, c Client, t newTokens, g issued) (Tokens, error) {
	claims, err := s.idToken(ctx, c, g, t.Access)
	if err != nil {
		return Tokens{}, err
	}
	t.Scopes = g.scopes
	t.ID, err = s.sign(ctx, jwtType{c.Alg, "JWT", g.kid}, claims)
	return t.Tokens, err
}

// idToken are the claims of OpenID Connect Core, section 2. Names and addresses are
// among them only when the client asked for them here.
func (s *Service) idToken(ctx context.Context, c Client, g issued, access string) (map[string]any, error) {
	claims := map[string]any{}
	if len(g.idClaims) > 0 {
		r, err := s.people.Resident(ctx, g.residentID)
		if err != nil {
			return nil, err
		}
		claims = someClaims(r, nil, g.idClaims)
	}
	now := s.now()
	claims["iss"], claims["sub"], claims["aud"] = s.issuer, g.sub, c.ID
	claims["iat"], claims["exp"], claims["auth_time"] = now.Unix(), now.Add(idTokenLife).Unix(), g.signedInAt.Unix()
	claims["acr"], claims["amr"], claims["sid"] = ACR(g.acr), g.amr, g.sid
	if g.nonce != nil {
		claims["nonce"] = *g.nonce
	}
	sum := sha256.Sum256([]byte(access)) // both algorithms hash with SHA-256: its left half
	claims["at_hash"] = base64.RawURLEncoding.EncodeToString(sum[:16])
	return claims, nil
}

// refusedCode finds out why a code gave nothing. When the same client presents a used one
// again, somebody else may have had it: what it gave is revoked (RFC 6749, section 4.1.2).
func (s *Service) refusedCode(ctx context.Context, c Client, x Exchange) error {
	now := s.now()
	return pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		var grantID, residentID string
		err := tx.QueryRow(ctx, `
			update identity.client_grant set revoked_at = $1, revoked_why = 'code replayed'
			where code_hash = $2 and client_id = $3 and code_used_at is not null and revoked_at is null
			returning id, resident_id`, now, id.Hash(x.Code), c.ID).Scan(&grantID, &residentID)
		if isNone(err) {
			return s.ungranted(ctx, tx, c, x)
		}
		if err != nil {
			return fmt.Errorf("revoke replayed code: %w", err)
		}
		return audit.Record(ctx, tx, audit.Event{
			Action: "code.replayed", ObjectType: "grant", ObjectID: grantID, Subject: residentID, At: now,
			Details: map[string]any{"client": c.ID},
		})
	})
}

// ungranted returns invalid_target when nothing but the resources kept a live code from
// being redeemed: the client may try again without them.
func (s *Service) ungranted(ctx context.Context, tx pgx.Tx, c Client, x Exchange) error {
	var outside bool
	err := tx.QueryRow(ctx, `
		select not $4::text[] <@ resources from identity.client_grant
		where code_hash = $1 and client_id = $2 and code_used_at is null and code_expires_at > $3 and revoked_at is null
			and challenge is not distinct from nullif($5, '')`,
		id.Hash(x.Code), c.ID, s.now(), list(x.Resources), challengeOf(x.Verifier)).Scan(&outside)
	if err != nil && !isNone(err) {
		return fmt.Errorf("read code: %w", err)
	}
	if outside {
		return invalidTarget()
	}
	return nil
}

func invalidTarget() *Error { return &Error{"invalid_target", "a resource was not granted"} }

// challengeOf is the S256 transformation of RFC 7636; "" for no verifier.
func challengeOf(verifier string) string {
	if verifier == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// validVerifier checks the form of RFC 7636, section 4.1.
func validVerifier(v string) bool {
	return len(v) >= 43 && len(v) <= 128 && strings.IndexFunc(v, func(r rune) bool {
		return notBase64URL(r) && r != '.' && r != '~'
	}) < 0
}
