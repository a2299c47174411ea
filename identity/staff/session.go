package staff

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/identity"
	"guichet/internal/id"
)

const (
	sessionIdle = 30 * time.Minute
	sessionMax  = 12 * time.Hour
	seenEvery   = time.Minute // how exactly idleness is measured
	pendingLife = 10 * time.Minute
)

// ErrNoPending says that an answer of the directory belongs to no sign-in of this
// browser, or to one that was answered already.
var ErrNoPending = errors.New("no such staff sign-in in this browser")

// FreshFor is how long a proof at the directory opens what matters: approvals, refunds.
const FreshFor = 5 * time.Minute

// A Wanted is a sign-in that somebody begins.
type Wanted struct {
	ReturnPath string
	Fresh      bool // the directory must ask again, and say so
}

// A Pending is a sign-in that is at the directory.
type Pending struct {
	Wanted
	State, Nonce, Verifier string // Verifier: PKCE
	Browser                string // to be kept in a cookie until the answer comes
}

// Begin starts a sign-in at the directory.
func (s *Service) Begin(ctx context.Context, wanted Wanted) (Pending, error) {
	p := Pending{Wanted: wanted, State: id.Secret(), Nonce: id.Secret(), Verifier: id.Secret(), Browser: id.Secret()}
	now := s.now()
	_, err := s.db.Exec(ctx, `
		insert into identity.staff_pending (state_hash, browser, nonce, verifier, return_path, fresh, created_at, expires_at)
		values ($1, $2, $3, $4, $5, $6, $7, $8)`,
		id.Hash(p.State), id.Hash(p.Browser), p.Nonce, p.Verifier, p.ReturnPath, p.Fresh, now, now.Add(pendingLife))
	if err != nil {
		return Pending{}, fmt.Errorf("begin staff sign-in: %w", err)
	}
	return p, nil
}

// Take returns the sign-in that a state belongs to, once, and only to the browser that
// began it; else ErrNoPending.
func (s *Service) Take(ctx context.Context, state, browser string) (Pending, error) {
	p := Pending{State: state, Browser: browser}
	now := s.now()
	err := s.db.QueryRow(ctx, `
		update identity.staff_pending set used_at = $3
		where state_hash = $1 and browser = $2 and used_at is null and expires_at > $3
		returning nonce, verifier, return_path, fresh`, id.Hash(state), id.Hash(browser), now).
		Scan(&p.Nonce, &p.Verifier, &p.ReturnPath, &p.Fresh)
	if errors.Is(err, pgx.ErrNoRows) {
		return Pending{}, ErrNoPending
	}
	if err != nil {
		return Pending{}, fmt.Errorf("take staff sign-in: %w", err)
	}
	return p, nil
}

// A proof is how a session begins.
type proof struct {
	oldToken   string // of the session that the browser held: it ends
	provedAt   *time.Time
	sid        string // of the directory's session
	breakGlass *string
	life       time.Duration
}

func (s *Service) openSession(ctx context.Context, tx pgx.Tx, memberID string, p proof, v identity.Visitor) (string, error) {
	now, token, sessionID := s.now(), id.Secret(), id.New()
	_, err := tx.Exec(ctx, `
		update identity.staff_session set ended_at = $2, ended_why = 'another sign-in' where token_hash = $1 and ended_at is null`,
		id.Hash(p.oldToken), now)
	if err != nil {
		return "", fmt.Errorf("end the browser's other session: %w", err)
	}
	_, err = tx.Exec(ctx, `
		insert into identity.staff_session (id, token_hash, member_id, signed_in_at, created_at, seen_at, expires_at, network, device,
			proved_at, directory_sid, break_glass_id)
		values ($1, $2, $3, $4, $4, $4, $5, $6, $7, $8, $9, $10)`,
		sessionID, id.Hash(token), memberID, now, now.Add(p.life), v.Network, v.Device, p.provedAt, p.sid, p.breakGlass)
	if err != nil {
		return "", fmt.Errorf("open staff session: %w", err)
	}
	return token, record(ctx, tx, now, memberID, "staff.signin.ok", map[string]any{"session": sessionID, "network": v.Network, "device": v.Device})
}

// Session returns the member a staff session belongs to, with the roles in force now,
// or ErrNoSession.
func (s *Service) Session(ctx context.Context, token string) (Member, error) {
	if len(token) != 43 { // id.Secret's length: anything else is no token of ours
		return Member{}, ErrNoSession
	}
	var m Member
	var roles []byte
	var seen time.Time
	var proved *time.Time
	now := s.now()
	err := s.db.QueryRow(ctx, sessionSQL, id.Hash(token), now, now.Add(-sessionIdle)).
		Scan(&m.SessionID, &m.SignedInAt, &seen, &proved, &m.BreakGlass, &m.Alarm, &m.ID, &m.Name, &m.Email, &roles)
	if errors.Is(err, pgx.ErrNoRows) {
		return Member{}, ErrNoSession
	}
	if err != nil {
		return Member{}, fmt.Errorf("read staff session: %w", err)
	}
	if err := json.Unmarshal(roles, &m.Roles); err != nil {
		return Member{}, fmt.Errorf("read roles of %s: %w", m.ID, err)
	}
	m.Fresh = m.BreakGlass || proved != nil && now.Sub(*proved) <= FreshFor
	if now.Sub(seen) >= seenEvery {
		if _, err := s.db.Exec(ctx, `update identity.staff_session set seen_at = $2 where id = $1 and seen_at < $2`, m.SessionID, now); err != nil {
			return Member{}, fmt.Errorf("note staff session %s: %w", m.SessionID, err)
		}
	}
	return m, nil
}

const sessionSQL = `
select s.id, s.signed_in_at, s.seen_at, s.proved_at, s.break_glass_id is not null,
	exists (select from identity.staff_session b where b.break_glass_id is not null and b.ended_at is null and b.expires_at > $2),
	m.id, m.name, m.email,` + rolesOfMember + `
from identity.staff_session s join identity.staff_member m on m.id = s.member_id and m.state = 'active'
where s.token_hash = $1 and s.ended_at is null and s.expires_at > $2 and s.seen_at > $3`

// EndSession signs a member out. Ending it again changes nothing.
func (s *Service) EndSession(ctx context.Context, m Member) error {
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		now := s.now()
		tag, err := tx.Exec(ctx, `
			update identity.staff_session set ended_at = $2, ended_why = 'signed out' where id = $1 and ended_at is null`, m.SessionID, now)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		return record(ctx, tx, now, m.ID, "staff.signout", map[string]any{"session": m.SessionID})
	})
	if err != nil {
		return fmt.Errorf("end staff session %s: %w", m.SessionID, err)
	}
	return nil
}

// Sweep deletes sign-ins nobody finished and sessions that ended 30 days ago.
func (s *Service) Sweep(ctx context.Context) (int64, error) {
	now := s.now()
	return identity.RunSweeps(ctx, s.db, []identity.Sweep{
		{Name: "staff sign-ins", SQL: `
			delete from identity.staff_pending where state_hash in (
				select state_hash from identity.staff_pending where expires_at < $1 order by expires_at limit 500 for update skip locked)`, Before: now},
		{Name: "staff sessions", SQL: `
			delete from identity.staff_session where id in (
				select id from identity.staff_session where expires_at < $1 order by expires_at limit 500 for update skip locked)`, Before: now.Add(-30 * 24 * time.Hour)},
	})
}
