package identity

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/audit"
)

// A Limit is a token bucket: Burst at once, refilled evenly over Per.
type Limit struct {
	Burst int
	Per   time.Duration
}

// Limits are the brakes on sign-in. What counts by address counts every network for
// itself, so that a stranger who knows somebody's address exhausts it only for himself.
// The one total of an address is higher: a mailbox is not flooded from many networks either.
type Limits struct {
	CodeAgain      Limit // codes sent to one address, from the last one
	CodeAddress    Limit // codes sent to one address, asked for from one network
	CodeTotal      Limit // codes sent to one address; five tries of each bound the guesses at it, too
	CodeNetwork    Limit // codes asked for from one network
	TryAddress     Limit // codes tried for one address, from one network
	TryNetwork     Limit // codes tried from one network
	SignInNetwork  Limit // sign-ins begun from one network
	FactorTry      Limit // codes of an authenticator app and backup codes tried, per account
	FactorNetwork  Limit // the same, from one network
	Claim          Limit // receipts that one person tries to claim
	ClientFailures Limit // wrong client secrets, per client and network
	ClientNetwork  Limit // wrong client secrets from one network, whatever clients it names
}

// DefaultLimits are the limits of production.
func DefaultLimits() Limits {
	return Limits{
		CodeAgain:      Limit{1, 30 * time.Second},
		CodeAddress:    Limit{5, time.Hour},
		CodeTotal:      Limit{10, time.Hour},
		CodeNetwork:    Limit{20, time.Hour},
		TryAddress:     Limit{10, 15 * time.Minute},
		TryNetwork:     Limit{100, 15 * time.Minute},
		SignInNetwork:  Limit{600, 15 * time.Minute},
		FactorTry:      Limit{5, 15 * time.Minute},
		FactorNetwork:  Limit{100, 15 * time.Minute},
		Claim:          Limit{10, time.Hour},
		ClientFailures: Limit{20, 15 * time.Minute},
		ClientNetwork:  Limit{100, 15 * time.Minute},
	}
}

func (l Limits) orDefault() Limits {
	d := DefaultLimits()
	for _, p := range []struct{ have, want *Limit }{
		{&l.CodeAgain, &d.CodeAgain},
		{&l.CodeAddress, &d.CodeAddress},
		{&l.CodeTotal, &d.CodeTotal},
		{&l.CodeNetwork, &d.CodeNetwork},
		{&l.TryAddress, &d.TryAddress},
		{&l.TryNetwork, &d.TryNetwork},
		{&l.SignInNetwork, &d.SignInNetwork},
		{&l.FactorTry, &d.FactorTry},
		{&l.FactorNetwork, &d.FactorNetwork},
		{&l.Claim, &d.Claim},
		{&l.ClientFailures, &d.ClientFailures},
		{&l.ClientNetwork, &d.ClientNetwork},
	} {
		if *p.have == (Limit{}) {
			*p.have = *p.want
		}
	}
	return l
}

// Limits returns the limits in force.
func (s *Service) Limits() Limits { return s.limits }

// A LimitedError says that a bucket is empty and when it next holds a token.
type LimitedError struct{ After time.Duration }

func (e *LimitedError) Error() string {
	return fmt.Sprintf("limited: try again in %s", e.After.Round(time.Second))
}

// Take takes one token from the bucket of key, or returns a *LimitedError. When the
// caller's transaction rolls back, the token is back too: a refusal costs nothing.
func (s *Service) Take(ctx context.Context, tx pgx.Tx, kind, key string, l Limit) error {
	perSecond := float64(l.Burst) / l.Per.Seconds()
	hash, now := s.keyed("bucket:"+kind, key), s.now()
	tag, err := tx.Exec(ctx, takeSQL, kind, hash, now, l.Burst, perSecond)
	if err != nil {
		return fmt.Errorf("take from bucket %s: %w", kind, err)
	}
	if tag.RowsAffected() == 1 {
		return nil
	}
	var level, age float64
	err = tx.QueryRow(ctx, `
		select level, extract(epoch from $3::timestamptz - at)::float8 from identity.bucket where kind = $1 and key = $2`,
		kind, hash, now).Scan(&level, &age)
	if err != nil {
		return fmt.Errorf("read bucket %s: %w", kind, err)
	}
	wait := (1-level)/perSecond - age
	return &LimitedError{After: time.Duration(math.Ceil(max(wait, 1))) * time.Second}
}

// limitedNoted is how many refusals of one kind from one network leave a trace: audit
// rows stay for good, and how many there are must not be a stranger's choice.
var limitedNoted = Limit{10, time.Hour}

// NoteLimited records that a limit was met, after the transaction that met it has been
// rolled back. The refusal stands even if its trace cannot be written.
func (s *Service) NoteLimited(ctx context.Context, e audit.Event, v Visitor) {
	e.At, e.Details = s.now(), map[string]any{"network": v.Network, "device": v.Device}
	_ = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		if err := s.Take(ctx, tx, "limited-noted", e.Action+"\x00"+v.Network, limitedNoted); err != nil {
			return err
		}
		return audit.Record(ctx, tx, e)
	})
}

// The conflict arm locks the row, so replicas take turns. A clock that runs behind
// another replica's refills nothing. The last term forgives the rounding of floats.
const takeSQL = `
insert into identity.bucket as b (kind, key, level, at) values ($1, $2, $4::float8 - 1, $3)
on conflict (kind, key) do update set
	level = least($4, b.level + $5::float8 * greatest(0, extract(epoch from $3 - b.at)::float8)) - 1,
	at = greatest(b.at, $3)
where least($4, b.level + $5 * greatest(0, extract(epoch from $3 - b.at)::float8)) >= 1 - 1e-6`
