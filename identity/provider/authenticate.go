package provider

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json" // reads names case by case, and no name twice
	"github.com/jackc/pgx/v5"

	"guichet/identity"
	"guichet/internal/id"
)

// Credentials are what a client presented.
type Credentials struct {
	ClientID, Secret string
	Method           string // how: SecretBasic, SecretPost, PrivateKey or NoSecret
	Assertion        string // of PrivateKey; ClientID may be empty then
}

// InvalidClient is the one answer to every failed authentication of a client.
func InvalidClient() *Error {
	return &Error{"invalid_client", "the client is unknown or did not prove to be the one it names"}
}

// Authenticate returns the client that the credentials prove. An unknown client, a
// wrong secret, a bad assertion and a method other than the registered one get the same
// answer after the same work. Failures are counted per network, and per client and network: once there are too many,
// the answer is a *identity.LimitedError. A right secret always works, so that nobody can lock a
// department out.
func (s *Service) Authenticate(ctx context.Context, cr Credentials, v identity.Visitor) (Client, error) {
	if cr.Method == PrivateKey && cr.ClientID == "" {
		cr.ClientID = subjectOf(cr.Assertion)
	}
	c, err := s.Client(ctx, cr.ClientID)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Client{}, err
	}
	known := err == nil && c.AuthMethod == cr.Method
	right := c.secrets.hold(cr.Secret, s.now())
	switch {
	case known && cr.Method == NoSecret:
		return c, nil
	case known && cr.Method == PrivateKey:
		err := s.assertion(ctx, c, cr.Assertion)
		if !errors.Is(err, errAssertion) {
			return c, err
		}
	case known && right:
		return c, nil
	}
	err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		// The network first: names that a stranger makes up must not fill the table of buckets.
		if err := s.people.Take(ctx, tx, "client-network", v.Network, s.people.Limits().ClientNetwork); err != nil {
			return err
		}
		return s.people.Take(ctx, tx, "client", cr.ClientID+"\x00"+v.Network, s.people.Limits().ClientFailures)
	})
	if err != nil {
		return Client{}, fmt.Errorf("authenticate client: %w", err)
	}
	return Client{}, InvalidClient()
}

// assertionAlgs are the algorithms a client may register for its assertions. HMAC is
// not among them: a public key must never be taken for a shared secret.
var assertionAlgs = []jose.SignatureAlgorithm{jose.ES256, jose.PS256, jose.RS256, jose.EdDSA}

// AssertionAlgs lists them for discovery.
func AssertionAlgs() []string { return algNames(assertionAlgs) }

func algNames(algs []jose.SignatureAlgorithm) []string {
	names := make([]string, len(algs))
	for i, a := range algs {
		names[i] = string(a)
	}
	return names
}

const (
	assertionAhead = 5 * time.Minute  // the furthest end of an assertion
	clockSkew      = 60 * time.Second // by which others' clocks may be wrong
)

var errAssertion = errors.New("assertion does not prove the client")

// assertion proves a client by a JWT of its own (RFC 7523; OpenID Connect Core, 9).
func (s *Service) assertion(ctx context.Context, c Client, text string) error {
	body, err := verifyWith(c.Keys, c.AssertionAlg, text)
	if err != nil {
		return errAssertion
	}
	var a struct {
		Iss string   `json:"iss"`
		Sub string   `json:"sub"`
		Aud audience `json:"aud"`
		Exp *float64 `json:"exp"`
		Nbf *float64 `json:"nbf"`
		Jti string   `json:"jti"`
	}
	if err := json.Unmarshal(body, &a); err != nil || a.Exp == nil || a.Jti == "" || len(a.Jti) > 512 {
		return errAssertion
	}
	now := s.now()
	// FAPI 2.0, section 5.3.2.1: the issuer is the one name that no other server shares.
	ours := slices.Contains(a.Aud, s.issuer) || !c.FAPI2 && slices.Contains(a.Aud, s.issuer+"/oidc/token")
	if c.FAPI2 {
		ours = ours && len(a.Aud) == 1
	}
	exp := time.Unix(int64(*a.Exp), 0)
	switch {
	case a.Iss != c.ID, a.Sub != c.ID, !ours:
		return errAssertion
	case !exp.After(now.Add(-clockSkew)), exp.After(now.Add(assertionAhead + clockSkew)):
		return errAssertion
	case a.Nbf != nil && time.Unix(int64(*a.Nbf), 0).After(now.Add(clockSkew)):
		return errAssertion
	}
	fresh, err := s.once(ctx, "assertion", c.ID, a.Jti, exp.Add(clockSkew))
	if err == nil && !fresh {
		return errAssertion
	}
	return err
}

// once reports whether a jti of the owner has not been seen before, and remembers it
// until it would be refused as too old anyway.
func (s *Service) once(ctx context.Context, kind, owner, jti string, until time.Time) (bool, error) {
	tag, err := s.db.Exec(ctx, `insert into identity.seen (hash, expires_at) values ($1, $2) on conflict do nothing`,
		id.Hash(kind+"\x00"+owner+"\x00"+jti), until)
	if err != nil {
		return false, fmt.Errorf("remember %s: %w", kind, err)
	}
	return tag.RowsAffected() == 1, nil
}

// verifyWith returns the claims of a JWT that one of the keys signed with exactly alg.
func verifyWith(keys *jose.JSONWebKeySet, alg, text string) ([]byte, error) {
	jws, err := jose.ParseSignedCompact(text, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(alg)})
	if err != nil {
		return nil, err
	}
	kid := jws.Signatures[0].Protected.KeyID
	for _, k := range keys.Keys {
		if kid != "" && k.KeyID != kid {
			continue
		}
		if body, err := jws.Verify(k); err == nil {
			return body, nil
		}
	}
	return nil, errAssertion
}

// subjectOf reads whom an assertion is about, before anything of it is believed.
func subjectOf(text string) string {
	jws, err := jose.ParseSignedCompact(text, assertionAlgs)
	if err != nil {
		return ""
	}
	var a struct {
		Sub string `json:"sub"`
	}
	_ = json.Unmarshal(jws.UnsafePayloadWithoutVerification(), &a) // whatever it is, it is only looked up
	return a.Sub
}

// An audience is one name or a list of them (RFC 7519, section 4.1.3).
type audience []string

// UnmarshalJSON reads both forms.
func (a *audience) UnmarshalJSON(b []byte) error {
	var one string
	if err := json.Unmarshal(b, &one); err == nil {
		*a = audience{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(a))
}
