package provider

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
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

const (
	accessLife  = 10 * time.Minute
	idTokenLife = 10 * time.Minute
)

// An Exchange is a code on its way to become tokens.
type Exchange struct {
	Code, RedirectURI, Verifier string
	Resources                   []string // RFC 8707: some of those granted; empty for all
}

// Tokens is what a code becomes.
type Tokens struct {
	Access    string
	ID        string
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
	case x.Verifier == "":
		return Tokens{}, invalidRequest("code_verifier is missing")
	case !validVerifier(x.Verifier):
		return Tokens{}, invalidGrant()
	}
	access, now := id.Secret(), s.now()
	var g aGrant
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) (err error) {
		if g, err = s.redeem(ctx, tx, c, x); err != nil {
			return err
		}
		audience, err := s.audience(g.resources, x.Resources)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `
			insert into identity.access_token (hash, grant_id, scopes, audience, created_at, expires_at)
			values ($1, $2, $3, $4, $5, $6)`, id.Hash(access), g.id, g.scopes, audience, now, now.Add(accessLife))
		if err != nil {
			return fmt.Errorf("store access token: %w", err)
		}
		return audit.Record(ctx, tx, audit.Event{
			Action: "token.issued", ObjectType: "grant", ObjectID: g.id, Subject: g.residentID, At: now,
			Details: map[string]any{"client": c.ID, "scopes": g.scopes, "audience": audience, "acr": g.acr},
		})
	})
	if bad := (*Error)(nil); errors.As(err, &bad) && bad.Code == "invalid_grant" {
		if err := s.replayed(ctx, c, x.Code); err != nil {
			return Tokens{}, err
		}
		return Tokens{}, bad
	}
	if err != nil {
		return Tokens{}, fmt.Errorf("redeem code of %s: %w", c.ID, err)
	}
	token, err := s.sign(ctx, c.Alg, s.idToken(c, g, access))
	if err != nil {
		return Tokens{}, err
	}
	return Tokens{Access: access, ID: token, ExpiresIn: accessLife, Scopes: g.scopes}, nil
}

// audience is whom the access token is for: the resources granted, or some of them,
// or this provider's userinfo when none was named.
func (s *Service) audience(granted, wish []string) ([]string, error) {
	for _, r := range wish {
		if !slices.Contains(granted, r) {
			return nil, &Error{"invalid_target", "a resource was not granted"}
		}
	}
	switch {
	case len(wish) > 0:
		return wish, nil
	case len(granted) > 0:
		return granted, nil
	}
	return []string{s.issuer}, nil
}

// idToken are the claims of OpenID Connect Core, section 2. Names and addresses are not
// among them: they are asked for at userinfo.
type idToken struct {
	Iss      string   `json:"iss"`
	Sub      string   `json:"sub"`
	Aud      string   `json:"aud"`
	Exp      int64    `json:"exp"`
	Iat      int64    `json:"iat"`
	AuthTime int64    `json:"auth_time"`
	Nonce    *string  `json:"nonce,omitempty"`
	ACR      string   `json:"acr"`
	AMR      []string `json:"amr"`
	Sid      string   `json:"sid"`
	AtHash   string   `json:"at_hash"`
}

func (s *Service) idToken(c Client, g aGrant, access string) idToken {
	now := s.now()
	sum := sha256.Sum256([]byte(access)) // both algorithms hash with SHA-256: its left half
	return idToken{
		Iss: s.issuer, Sub: g.sub, Aud: c.ID, Iat: now.Unix(), Exp: now.Add(idTokenLife).Unix(),
		AuthTime: g.signedInAt.Unix(), Nonce: g.nonce, ACR: ACR(g.acr), AMR: g.amr, Sid: g.sid,
		AtHash: base64.RawURLEncoding.EncodeToString(sum[:16]),
	}
}

// challengeOf is the S256 transformation of RFC 7636.
func challengeOf(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// validVerifier checks the form of RFC 7636, section 4.1.
func validVerifier(v string) bool {
	return len(v) >= 43 && len(v) <= 128 && strings.IndexFunc(v, func(r rune) bool {
		return notBase64URL(r) && r != '.' && r != '~'
	}) < 0
}

// ErrToken says that an access token opens nothing here: unknown, expired, revoked, meant
// for another resource, or of an account that is not active.
var ErrToken = errors.New("invalid access token")

// An Access is what an access token proves.
type Access struct {
	ResidentID string
	ClientID   string
	Sub        string
	Scopes     []string
}

// Access returns what a token proves at the resource named audience (the issuer for
// userinfo), or ErrToken. A token for one resource opens no other.
func (s *Service) Access(ctx context.Context, token, audience string) (Access, error) {
	if len(token) != 43 {
		return Access{}, ErrToken
	}
	var a Access
	err := s.db.QueryRow(ctx, `
		select g.resident_id, g.client_id, g.sub, t.scopes
		from identity.access_token t
		join identity.client_grant g on g.id = t.grant_id and g.revoked_at is null
		join identity.client c on c.id = g.client_id and c.state = 'active'
		join identity.resident r on r.id = g.resident_id and r.state = 'active'
		where t.hash = $1 and t.expires_at > $2 and $3 = any (t.audience)`, id.Hash(token), s.now(), audience).
		Scan(&a.ResidentID, &a.ClientID, &a.Sub, &a.Scopes)
	if errors.Is(err, pgx.ErrNoRows) {
		return Access{}, ErrToken
	}
	if err != nil {
		return Access{}, fmt.Errorf("read access token: %w", err)
	}
	return a, nil
}

// Userinfo returns the claims that the token's scopes allow, or ErrToken. What is not
// known is left out.
func (s *Service) Userinfo(ctx context.Context, token string) (map[string]any, error) {
	a, err := s.Access(ctx, token, s.issuer)
	if err != nil {
		return nil, err
	}
	r, err := s.people.Resident(ctx, a.ResidentID)
	if errors.Is(err, identity.ErrForgotten) {
		return nil, ErrToken
	}
	if err != nil {
		return nil, err
	}
	claims := map[string]any{"sub": a.Sub}
	if slices.Contains(a.Scopes, ScopeProfile) {
		claims["name"] = r.Name
		claims["locale"] = r.Lang + "-CA"
		claims["updated_at"] = r.UpdatedAt.Unix()
	}
	if slices.Contains(a.Scopes, ScopeEmail) && r.Email != "" {
		claims["email"] = r.Email
		claims["email_verified"] = true // an address is kept only once proved
	}
	return claims, nil
}
