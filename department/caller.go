package department

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/audit"
	"guichet/internal/id"
)

// A Caller is the department whose key was shown, and what the key opens.
type Caller struct {
	Department
	KeyID    string
	Journal  bool     // a journal key: it opens the journal and nothing else
	Accounts []string // of a journal key: what it may book on
}

// Actor is how the key is named as the one who did something.
func (c Caller) Actor() string { return "api_key:" + c.KeyID }

// MayBook reports whether a journal key may book on an account.
func (c Caller) MayBook(path string) bool {
	return slices.ContainsFunc(c.Accounts, func(root string) bool {
		rest, ok := strings.CutPrefix(path, root)
		return ok && (rest == "" || rest[0] == ':')
	})
}

// Authenticate returns whom a key belongs to, or ErrKey. The key is compared by its
// SHA-256: nothing about a wrong key is learnt from time. What was true less than half
// a second ago is not asked for again.
func (s *Service) Authenticate(ctx context.Context, key string) (Caller, error) {
	hash := keyHash(id.Hash(key))
	now := s.now()
	c, ok := s.known.find(hash, now)
	if !ok {
		var err error
		if c, err = s.lookUpKey(ctx, hash, now); err != nil {
			return Caller{}, err
		}
		s.known.keep(hash, c, now)
	}
	return c, s.noteUse(ctx, c, now)
}

func (s *Service) lookUpKey(ctx context.Context, hash keyHash, now time.Time) (Caller, error) {
	var c Caller
	var lastUsed *time.Time
	err := s.db.QueryRow(ctx, `
		select d.id, d.code, d.name_en, d.name_fr, d.basis, d.hst_number, k.id, k.last_used_on,
			g.key_id is not null, case when a.decision = 'approved' then g.accounts end
		from department.api_key k join department.department d on d.id = k.department_id
		left join department.journal_grant g on g.key_id = k.id
		left join ops.approval a on a.id = k.approval_id and a.kind = $2 and a.object_id = k.id::text
		where k.hash = $1 and k.revoked_at is null and k.state = 'active'`, hash[:], ApproveKey).
		Scan(&c.ID, &c.Code, &c.NameEN, &c.NameFR, &c.Basis, &c.HSTNumber, &c.KeyID, &lastUsed, &c.Journal, &c.Accounts)
	if errors.Is(err, pgx.ErrNoRows) {
		return Caller{}, ErrKey
	}
	if err != nil {
		return Caller{}, fmt.Errorf("authenticate key: %w", err)
	}
	// The date is enough, and writes the row once a day instead of at every call.
	today := now.UTC().Truncate(24 * time.Hour)
	if lastUsed == nil || lastUsed.Before(today) {
		if _, err := s.db.Exec(ctx, `update department.api_key set last_used_on = $2 where id = $1`, c.KeyID, today); err != nil {
			return Caller{}, fmt.Errorf("note use of key: %w", err)
		}
	}
	return c, nil
}

// noteUse leaves one audit row a day for each network from which a journal key is
// used, and process that meets it. The entries themselves name the key and the moment.
func (s *Service) noteUse(ctx context.Context, c Caller, now time.Time) error {
	o := audit.From(ctx)
	what := c.KeyID + " " + o.Network
	if !c.Journal || !s.known.first(what, now) {
		return nil
	}
	o.Actor, o.ActorKind, o.Channel = c.Actor(), audit.Department, "api"
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		return audit.Record(audit.With(ctx, o), tx, audit.Event{Action: "api_key.used", ObjectType: "api_key", ObjectID: c.KeyID, At: now})
	})
	if err != nil {
		s.known.again(what)
		return fmt.Errorf("note use of key: %w", err)
	}
	return nil
}

type keyHash [sha256.Size]byte

// callers remembers whom keys belong to, for as long as a revocation may take to be
// noticed, and from where they were used today. Only keys that are good are in it.
type callers struct {
	mu   sync.RWMutex
	keys map[keyHash]knownCaller
	day  time.Time
	seen map[string]bool // a key and a network
}

type knownCaller struct {
	Caller
	read time.Time
}

const (
	callerLife = 500 * time.Millisecond
	// callerLimit bounds each map: beyond it the map starts again empty.
	callerLimit = 10_000
)

func newCallers() callers {
	return callers{keys: map[keyHash]knownCaller{}, seen: map[string]bool{}}
}

func (k *callers) find(hash keyHash, now time.Time) (Caller, bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	c, ok := k.keys[hash]
	age := now.Sub(c.read) // below zero when the machine's clock was put back
	return c.Caller, ok && age >= 0 && age < callerLife
}

// keep remembers what was read after the moment now.
func (k *callers) keep(hash keyHash, c Caller, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.keys) >= callerLimit {
		clear(k.keys)
	}
	k.keys[hash] = knownCaller{c, now}
}

func (k *callers) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.keys)
}

// first reports whether this is the first time today that something is seen.
func (k *callers) first(what string, now time.Time) bool {
	day := now.UTC().Truncate(24 * time.Hour)
	k.mu.RLock()
	known := k.seen[what] && k.day.Equal(day)
	k.mu.RUnlock()
	if known {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.day.Equal(day) || len(k.seen) >= callerLimit {
		clear(k.seen)
		k.day = day
	}
	if k.seen[what] {
		return false
	}
	k.seen[what] = true
	return true
}

// again makes the next time the first one.
func (k *callers) again(what string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.seen, what)
}
