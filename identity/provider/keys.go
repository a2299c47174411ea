package provider

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
	"github.com/jackc/pgx/v5"

	"guichet/internal/audit"
)

// The algorithms of ID tokens. ES256 is the default; RS256 is there for libraries
// that know nothing else.
const (
	ES256 = "ES256"
	RS256 = "RS256"
)

// Algs lists the algorithms, the default first.
func Algs() []string { return []string{ES256, RS256} }

const (
	keyLife     = 90 * 24 * time.Hour // then the next one takes over
	keyAhead    = 24 * time.Hour      // published at least this long before it signs
	keyRetiring = 7 * 24 * time.Hour  // still verifies, far longer than a token lives or a client caches
	keysFresh   = time.Minute         // how long an instance trusts what it read
)

// A signingKey is a key as an instance holds it. private is nil unless it may sign.
type signingKey struct {
	state   string
	public  jose.JSONWebKey
	private any
}

// keyring is what an instance last read of the keys. Instances may differ by keysFresh: the
// next key is published long before, and the retiring one verifies long after.
type keyring struct {
	mu     sync.Mutex
	readAt time.Time
	keys   []signingKey
}

// JWKS returns the public keys that verify, or soon will.
func (s *Service) JWKS(ctx context.Context) (jose.JSONWebKeySet, error) {
	keys, err := s.signingKeys(ctx)
	if err != nil {
		return jose.JSONWebKeySet{}, err
	}
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, k := range keys {
		set.Keys = append(set.Keys, k.public)
	}
	return set, nil
}

func (s *Service) signingKeys(ctx context.Context) ([]signingKey, error) {
	s.keys.mu.Lock()
	defer s.keys.mu.Unlock()
	if now := s.now(); s.keys.keys == nil || now.Sub(s.keys.readAt) >= keysFresh || now.Before(s.keys.readAt) {
		keys, err := s.readKeys(ctx)
		if err != nil {
			return nil, err
		}
		s.keys.keys, s.keys.readAt = keys, now
	}
	return s.keys.keys, nil
}

func (s *Service) readKeys(ctx context.Context) ([]signingKey, error) {
	rows, err := s.db.Query(ctx, `
		select kid, alg, state, public, private from identity.signing_key where state <> 'gone'
		order by alg, created_at, kid limit 20`)
	if err != nil {
		return nil, fmt.Errorf("read signing keys: %w", err)
	}
	keys, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (signingKey, error) {
		var kid, alg string
		var public, box []byte
		var k signingKey
		if err := row.Scan(&kid, &alg, &k.state, &public, &box); err != nil {
			return k, err
		}
		if err := json.Unmarshal(public, &k.public); err != nil {
			return k, fmt.Errorf("key %s: %w", kid, err)
		}
		if k.state != "active" {
			return k, nil
		}
		der, err := s.master.Open(box, []byte("signing:"+kid))
		if err != nil {
			return k, fmt.Errorf("open key %s: %w", kid, err)
		}
		if k.private, err = x509.ParsePKCS8PrivateKey(der); err != nil {
			return k, fmt.Errorf("key %s: %w", kid, err)
		}
		return k, nil
	})
	if err != nil {
		return nil, fmt.Errorf("read signing keys: %w", err)
	}
	return keys, nil
}

// A jwtType is how a JWT is made: its algorithm, its typ, and the id of the key that
// the database calls active, "" for the one we know.
type jwtType struct{ alg, typ, kid string }

// sign makes a compact JWT of the claims with the active key.
func (s *Service) sign(ctx context.Context, t jwtType, claims any) (string, error) {
	signing, err := s.signer(ctx, t)
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	body, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	signer, err := jose.NewSigner(signing, (&jose.SignerOptions{}).WithType(jose.ContentType(t.typ)))
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	jws, err := signer.Sign(body)
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	return jws.CompactSerialize()
}

// signer returns the active key. When another instance has changed it since we read the
// keys, they are read again: nobody signs with a key that was withdrawn.
func (s *Service) signer(ctx context.Context, t jwtType) (jose.SigningKey, error) {
	for range 2 {
		keys, err := s.signingKeys(ctx)
		if err != nil {
			return jose.SigningKey{}, err
		}
		for _, k := range keys {
			if k.private != nil && k.public.Algorithm == t.alg && (t.kid == "" || t.kid == k.public.KeyID) {
				return jose.SigningKey{Algorithm: jose.SignatureAlgorithm(t.alg), Key: jose.JSONWebKey{Key: k.private, KeyID: k.public.KeyID}}, nil
			}
		}
		s.forgetKeys()
	}
	return jose.SigningKey{}, fmt.Errorf("no active %s key: TendKeys has not run", t.alg)
}

// forgetKeys has them read again at the next use.
func (s *Service) forgetKeys() {
	s.keys.mu.Lock()
	defer s.keys.mu.Unlock()
	s.keys.keys = nil
}

// ErrHint says that a token is no ID token of ours: forged, unsigned, of another
// issuer, or signed by a key long gone.
var ErrHint = errors.New("not an ID token of this provider")

// A hint is what an ID token says that comes back to us. Its age does not matter.
type hint struct{ sub, clientID string }

// hint verifies an ID token given as id_token_hint.
func (s *Service) hint(ctx context.Context, token string) (hint, error) {
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256, jose.RS256})
	if err != nil {
		return hint{}, ErrHint
	}
	keys, err := s.signingKeys(ctx)
	if err != nil {
		return hint{}, err
	}
	header := jws.Signatures[0].Protected
	i := slices.IndexFunc(keys, func(k signingKey) bool {
		return k.public.KeyID == header.KeyID && k.public.Algorithm == header.Algorithm
	})
	if i < 0 {
		return hint{}, ErrHint
	}
	body, err := jws.Verify(keys[i].public.Key)
	if err != nil {
		return hint{}, ErrHint
	}
	var c struct {
		Iss string `json:"iss"`
		Sub string `json:"sub"`
		Aud string `json:"aud"`
	}
	if err := json.Unmarshal(body, &c); err != nil || c.Iss != s.issuer || c.Sub == "" || c.Aud == "" {
		return hint{}, ErrHint
	}
	return hint{sub: c.Sub, clientID: c.Aud}, nil
}

// TendKeys makes what is missing and moves what is due: the first keys, a next one
// for each algorithm, the change of keys every 90 days, the end of retired ones. It
// runs at start and daily; running it again changes nothing, and instances may meet in it.
func (s *Service) TendKeys(ctx context.Context) error {
	for _, alg := range Algs() {
		if err := s.tend(ctx, alg); err != nil {
			return fmt.Errorf("tend %s keys: %w", alg, err)
		}
	}
	s.forgetKeys()
	return nil
}

func (s *Service) tend(ctx context.Context, alg string) error {
	for _, state := range []string{"active", "next"} {
		if err := s.ensureKey(ctx, alg, state); err != nil {
			return err
		}
	}
	rotated, err := s.rotate(ctx, alg)
	if err != nil || !rotated {
		return err
	}
	return s.ensureKey(ctx, alg, "next")
}

// ensureKey makes a key in a state if there is none. The slow part, making the key, is
// outside any transaction; of two instances one insert wins (unique index).
func (s *Service) ensureKey(ctx context.Context, alg, state string) error {
	var have bool
	err := s.db.QueryRow(ctx, `select exists (select from identity.signing_key where alg = $1 and state = $2)`, alg, state).Scan(&have)
	if err != nil || have {
		return err
	}
	k, err := newKey(alg)
	if err != nil {
		return err
	}
	now := s.now()
	var activated *time.Time
	if state == "active" {
		activated = &now
	}
	return pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `
			insert into identity.signing_key (kid, alg, state, public, private, created_at, activated_at)
			values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing`,
			k.kid, alg, state, k.public, s.master.Seal(k.private, []byte("signing:"+k.kid)), now, activated)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		return s.auditKey(ctx, tx, "key.created", k.kid, alg, state)
	})
}

// rotate lets the next key take over when the active one is old enough and the next
// one has been published long enough, and drops keys that have retired for long.
func (s *Service) rotate(ctx context.Context, alg string) (rotated bool, err error) {
	now := s.now()
	err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `
			update identity.signing_key set state = 'gone' where alg = $1 and state = 'retiring' and retired_at < $2`,
			alg, now.Add(-keyRetiring))
		if err != nil {
			return err
		}
		var old string
		err = tx.QueryRow(ctx, `
			update identity.signing_key set state = 'retiring', private = null, retired_at = $2
			where alg = $1 and state = 'active' and activated_at <= $3
				and exists (select from identity.signing_key n where n.alg = $1 and n.state = 'next' and n.created_at <= $4)
			returning kid`, alg, now, now.Add(-keyLife), now.Add(-keyAhead)).Scan(&old)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		var kid string
		err = tx.QueryRow(ctx, `
			update identity.signing_key set state = 'active', activated_at = $2 where alg = $1 and state = 'next'
			returning kid`, alg, now).Scan(&kid)
		if err != nil {
			return err
		}
		rotated = true
		return s.auditKey(ctx, tx, "key.rotated", kid, alg, "active")
	})
	return rotated, err
}

func (s *Service) auditKey(ctx context.Context, tx pgx.Tx, action, kid, alg, state string) error {
	return audit.Record(ctx, tx, audit.Event{
		Action: action, ObjectType: "signing-key", ObjectID: kid, At: s.now(),
		Details: map[string]any{"alg": alg, "state": state},
	})
}

type freshKey struct {
	kid             string
	public, private []byte
}

// newKey makes a key pair; its kid is the thumbprint of RFC 7638.
func newKey(alg string) (freshKey, error) {
	var private crypto.Signer
	var err error
	if alg == RS256 {
		private, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		return freshKey{}, fmt.Errorf("make key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return freshKey{}, fmt.Errorf("write key: %w", err)
	}
	jwk := jose.JSONWebKey{Key: private.Public(), Algorithm: alg, Use: "sig"}
	thumb, err := jwk.Thumbprint(crypto.SHA256)
	if err != nil {
		return freshKey{}, fmt.Errorf("thumbprint of key: %w", err)
	}
	jwk.KeyID = base64.RawURLEncoding.EncodeToString(thumb)
	public, err := jwk.MarshalJSON()
	return freshKey{jwk.KeyID, public, der}, err
}
