package provider

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"guichet/identity"
	"guichet/identity/delegation"
	"guichet/internal/keyed"
	"guichet/internal/seal"
)

// Config is what a Service needs.
type Config struct {
	Issuer string // the configured one, never read from a request
	Now    func() time.Time
	Master *seal.Key
	Acting *delegation.Service // nil: nobody acts for anybody
	Queue  Queue               // of notices to clients; its workers are AddWorkers'
	// Development lets web clients register http addresses on loopback, and lets changes of
	// addresses take effect without a second person.
	Development bool
}

// A Service is the provider. It may be used by many goroutines and by many instances at once.
type Service struct {
	db          *pgxpool.Pool
	people      *identity.Service
	queue       Queue
	issuer      string
	now         func() time.Time
	master      *seal.Key
	development bool
	acting      *delegation.Service
	pairwise    *keyed.Hasher // makes subjects from now on; those made before are stored
	refresh     *keyed.Hasher // makes the successors of refresh tokens
	short       *keyed.Hasher // user codes of devices are found by its hashes; makes nonces for proofs
	keys        keyring
}

// New opens the provider on a migrated database. TendKeys must have run once before
// the first token is signed.
func New(ctx context.Context, db *pgxpool.Pool, people *identity.Service, c Config) (*Service, error) {
	s := &Service{db: db, people: people, queue: c.Queue, issuer: c.Issuer, now: c.Now, master: c.Master, development: c.Development, acting: c.Acting}
	for purpose, hasher := range map[string]**keyed.Hasher{"identity.pairwise": &s.pairwise, "identity.refresh": &s.refresh, "identity.short": &s.short} {
		var err error
		if *hasher, err = keyed.Load(ctx, db, c.Master, purpose); err != nil {
			return nil, fmt.Errorf("open provider: %w", err)
		}
	}
	people.OnRevoke(s.revoke)
	people.OnSessionEnd(s.sessionEnds)
	return s, nil
}

// An Error is an answer in the words of OAuth 2.0 (RFC 6749, sections 4.1.2.1 and
// 5.2) or OpenID Connect Core (3.1.2.6). Description never repeats what was sent.
type Error struct{ Code, Description string }

func (e *Error) Error() string { return e.Code + ": " + e.Description }

func invalidRequest(description string) *Error { return &Error{"invalid_request", description} }

func invalidGrant() *Error {
	return &Error{"invalid_grant", "the code is unknown, used, expired, or was given for another request"}
}

// The scopes a client may be given so far, and what each lets it see.
const (
	ScopeOpenID  = "openid"
	ScopeProfile = "profile"
	ScopeEmail   = "email"
	ScopeOffline = "offline_access" // refresh tokens
	ScopeAct     = "guichet:act"    // for whom the person acts
)

// Scopes lists every scope there is, in the order of discovery.
func Scopes() []string {
	return []string{ScopeOpenID, ScopeProfile, ScopeEmail, ScopeOffline, ScopeAct}
}

// A querier is a pool or a transaction.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// isNone says that a statement found, or changed, no row.
func isNone(err error) bool { return errors.Is(err, pgx.ErrNoRows) }

// Sweep deletes what has expired: tokens, one-time values, and grants a day after they
// and every token of theirs are dead.
func (s *Service) Sweep(ctx context.Context) (int64, error) {
	now := s.now()
	expired := func(table string) identity.Sweep {
		return identity.Sweep{Name: table, Before: now, SQL: `
			delete from identity.` + table + ` where hash in (
				select hash from identity.` + table + ` where expires_at < $1 order by expires_at limit 500 for update skip locked)`}
	}
	return identity.RunSweeps(ctx, s.db, []identity.Sweep{
		expired("access_token"), expired("refresh_token"), expired("pushed_request"), expired("seen"), expired("device_code"),
		{Name: "grants", SQL: `
			delete from identity.client_grant where id in (
				select id from identity.client_grant where coalesce(ends_at, code_expires_at) < $1
				order by coalesce(ends_at, code_expires_at) limit 500 for update skip locked)`, Before: now.Add(-24 * time.Hour)},
	})
}
