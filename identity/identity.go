package identity

import (
	"context"
	"errors"
	"fmt"
	"time"

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
	Now    func() time.Time
	Master *seal.Key // seals personal keys; kept outside the database
	Mail   Mailer
	Limits Limits
}

// A Service keeps residents, contacts, pending sign-ins and sessions. It may be
// used by many goroutines and by many instances at once.
type Service struct {
	db     *pgxpool.Pool
	now    func() time.Time
	master *seal.Key
	mail   Mailer
	limits Limits
	lookup *keyed.Hasher // addresses and networks are found by its hashes

	sessionEnds func(ctx context.Context, tx pgx.Tx, sessionID string) error
}

// New opens the service on a migrated database.
func New(ctx context.Context, db *pgxpool.Pool, c Config) (*Service, error) {
	s := &Service{db: db, now: c.Now, master: c.Master, mail: c.Mail, limits: c.Limits.orDefault()}
	s.sessionEnds = func(context.Context, pgx.Tx, string) error { return nil }
	var err error
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
