package identity

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-webauthn/webauthn/webauthn"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"guichet/internal/keyed"
	"guichet/internal/mail"
	"guichet/internal/seal"
)

// A Mailer queues a message in the caller's transaction: internal/mail's outbox.
type Mailer interface {
	Enqueue(ctx context.Context, tx pgx.Tx, m mail.Message) error
}

// Config is what a Service needs. Limits left zero take the values of DefaultLimits.
type Config struct {
	Now     func() time.Time
	BaseURL string    // of the service: passkeys are bound to its host, mails link to it
	Master  *seal.Key // seals personal keys; kept outside the database
	Mail    Mailer
	Limits  Limits
}

// A Service keeps residents, contacts, pending sign-ins and sessions. It may be
// used by many goroutines and by many instances at once.
type Service struct {
	db       *pgxpool.Pool
	now      func() time.Time
	baseURL  string
	master   *seal.Key
	mail     Mailer
	limits   Limits
	lookup   *keyed.Hasher // addresses and networks are found by its hashes
	passkeys *webauthn.WebAuthn

	sessionEnds func(ctx context.Context, tx pgx.Tx, sessionID string) error
	revokes     func(ctx context.Context, tx pgx.Tx, r Revocation) error
	departs     func(ctx context.Context, tx pgx.Tx, d Departure) error
}

// New opens the service on a migrated database.
func New(ctx context.Context, db *pgxpool.Pool, c Config) (*Service, error) {
	s := &Service{db: db, now: c.Now, baseURL: c.BaseURL, master: c.Master, mail: c.Mail, limits: c.Limits.orDefault()}
	s.sessionEnds = func(context.Context, pgx.Tx, string) error { return nil }
	s.revokes = func(context.Context, pgx.Tx, Revocation) error { return nil }
	s.departs = func(context.Context, pgx.Tx, Departure) error { return nil }
	var err error
	if s.passkeys, err = newPasskeys(c.BaseURL); err != nil {
		return nil, fmt.Errorf("open identity: %w", err)
	}
	if s.lookup, err = keyed.Load(ctx, db, c.Master, "identity.lookup"); err != nil {
		return nil, fmt.Errorf("open identity: %w", err)
	}
	return s, nil
}

// OnSessionEnd has f called in the transaction that ends a session, whoever ends it
// and why. It is set once, before the service is used.
func (s *Service) OnSessionEnd(f func(ctx context.Context, tx pgx.Tx, sessionID string) error) {
	s.sessionEnds = f
}

// A Revocation takes back what was given to departments' applications in a person's name.
type Revocation struct {
	ResidentID string
	SessionID  string // empty: of every session
	Why        string
}

// OnRevoke has f called in the transaction that takes grants and tokens back: a sign-in
// disavowed, a recovery, an account that closes. It is set once, before the service is used.
func (s *Service) OnRevoke(f func(ctx context.Context, tx pgx.Tx, r Revocation) error) { s.revokes = f }

// A Departure is the end of an account, for the departments that know it.
type Departure struct {
	ResidentID string
	Into       string // the account that goes on; empty: the person has left
	Undone     bool   // a merge that was taken back
}

// OnDeparture has f called in the transaction that merges or closes an account. It is
// set once, before the service is used.
func (s *Service) OnDeparture(f func(ctx context.Context, tx pgx.Tx, d Departure) error) {
	s.departs = f
}

var (
	ErrNotFound  = errors.New("person not found")
	ErrForgotten = errors.New("the person's data has been destroyed")
	ErrSuspended = errors.New("the account is suspended")
)

// A Visitor is where a browser comes from, as coarsely as we may keep it.
type Visitor struct {
	Network string // "203.0.113.0/24" or "2001:db8:0:1::/64"
	Device  string // "Firefox, Linux"
}

// keyed returns the hash that value is found by. kind keeps equal text of two kinds apart.
func (s *Service) keyed(kind, value string) []byte { return s.lookup.Sum(kind + "\x00" + value) }

// A Querier is a pool or a transaction.
type Querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}
