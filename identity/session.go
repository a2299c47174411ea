package identity

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/audit"
	"guichet/internal/id"
)

const (
	sessionIdle = 30 * time.Minute
	sessionMax  = 12 * time.Hour
	// seenEvery is how exactly idleness is measured: a page view should not cost a write.
	seenEvery = time.Minute
)

// ErrNoSession says that a token opens no session: unknown, idle for too long, too
// old, ended, or of a person who may no longer sign in.
var ErrNoSession = errors.New("no session")

// wayEmailCode is the way of signing in by a code by e-mail; its level and its method
// in the words of RFC 8176.
const (
	wayEmailCode = "email-code"
	acrEmailCode = 1
)

var amrEmailCode = []string{"otp"}

// Levels lists the levels that the ways of signing in can reach, lowest first.
func Levels() []int { return []int{acrEmailCode} }

// A Person is a signed-in resident.
type Person struct {
	ID         string
	Name       string
	Email      string
	Lang       string
	ACR        int      // 1: a code by e-mail; 2: two factors; 3: and identity proved
	AMR        []string // RFC 8176
	SignedInAt time.Time
	SessionID  string
	ActingID   string // the right under which they act for somebody else; alive or not: identity/delegation knows
}

// signIn opens a session for a resident who has just proved to be one, moves the
// pending sign-in and writes the history, all in the caller's transaction.
func (s *Service) signIn(ctx context.Context, tx pgx.Tx, p Pending, residentID, token string, v Visitor) (SignedIn, error) {
	fresh := id.Secret()
	sessionID, err := s.openSession(ctx, tx, session{resident: residentID, old: token, fresh: fresh, visitor: v})
	if err != nil {
		return SignedIn{}, err
	}
	p.ResidentID = residentID
	to := StepDone
	if p.Request != nil {
		to = StepSignedIn
	}
	if err := s.move(ctx, tx, &p, to); err != nil {
		return SignedIn{}, err
	}
	err = s.remember(ctx, tx, signin{resident: residentID, outcome: "ok", service: p.Service, session: &sessionID, visitor: v})
	if err != nil {
		return SignedIn{}, err
	}
	err = audit.Record(ctx, tx, audit.Event{
		Action: "signin.ok", ObjectType: "session", ObjectID: sessionID, Subject: residentID, At: s.now(),
		Details: map[string]any{"way": wayEmailCode, "acr": acrEmailCode, "client": p.Service, "network": v.Network, "device": v.Device},
	})
	if err != nil {
		return SignedIn{}, err
	}
	return SignedIn{Token: fresh, ResidentID: residentID, Pending: p}, nil
}

// refuse ends the pending sign-in of a person who may not sign in, and says so in
// the history. The proof is spent.
func (s *Service) refuse(ctx context.Context, tx pgx.Tx, p Pending, residentID string, v Visitor) error {
	if err := s.move(ctx, tx, &p, StepDone); err != nil {
		return err
	}
	if err := s.remember(ctx, tx, signin{resident: residentID, outcome: "refused", service: p.Service, visitor: v}); err != nil {
		return err
	}
	return audit.Record(ctx, tx, audit.Event{
		Action: "signin.failed", ObjectType: "sign-in", ObjectID: p.ID, Subject: residentID, At: s.now(),
		Details: map[string]any{"way": wayEmailCode, "reason": "suspended", "network": v.Network, "device": v.Device},
	})
}

type session struct {
	resident   string
	old, fresh string // tokens
	visitor    Visitor
}

// openSession gives the browser a session with a new token. The same person proving
// themselves again keeps the session, so that departments see the same sid; anybody else's session
// in this browser ends.
func (s *Service) openSession(ctx context.Context, tx pgx.Tx, o session) (sessionID string, err error) {
	now := s.now()
	err = tx.QueryRow(ctx, `
		update identity.session
		set token_hash = $3, acr = $4, amr = $5, signed_in_at = $6, seen_at = $6, expires_at = $7, network = $8, device = $9
		where token_hash = $1 and resident_id = $2 and ended_at is null and expires_at > $6 and seen_at > $10
		returning id`,
		id.Hash(o.old), o.resident, id.Hash(o.fresh), acrEmailCode, amrEmailCode, now, now.Add(sessionMax),
		o.visitor.Network, o.visitor.Device, now.Add(-sessionIdle)).Scan(&sessionID)
	if err == nil {
		return sessionID, nil
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return "", fmt.Errorf("renew session: %w", err)
	}
	err = tx.QueryRow(ctx, `
		update identity.session set ended_at = $2, ended_why = 'another sign-in' where token_hash = $1 and ended_at is null
		returning id`, id.Hash(o.old), now).Scan(&sessionID)
	if err == nil {
		err = s.sessionEnds(ctx, tx, sessionID)
	}
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return "", fmt.Errorf("end the browser's other session: %w", err)
	}
	sessionID = id.New()
	_, err = tx.Exec(ctx, `
		insert into identity.session
			(id, token_hash, resident_id, acr, amr, signed_in_at, created_at, seen_at, expires_at, network, device)
		values ($1, $2, $3, $4, $5, $6, $6, $6, $7, $8, $9)`,
		sessionID, id.Hash(o.fresh), o.resident, acrEmailCode, amrEmailCode, now, now.Add(sessionMax),
		o.visitor.Network, o.visitor.Device)
	if err != nil {
		return "", fmt.Errorf("open session: %w", err)
	}
	return sessionID, nil
}

// Session returns the person a session token belongs to, or ErrNoSession, and notes
// that they were here.
func (s *Service) Session(ctx context.Context, token string) (Person, error) {
	if len(token) != 43 { // id.Secret's length: anything else is no token of ours
		return Person{}, ErrNoSession
	}
	var p Person
	var row sealedResident
	var seen time.Time
	now := s.now()
	err := s.db.QueryRow(ctx, sessionSQL, id.Hash(token), now, now.Add(-sessionIdle)).
		Scan(&p.SessionID, &p.ACR, &p.AMR, &p.SignedInAt, &seen, &p.ActingID,
			&row.id, &row.state, &row.lang, &row.profile, &row.updatedAt, &row.key, &row.emailID, &row.email)
	if errors.Is(err, pgx.ErrNoRows) {
		return Person{}, ErrNoSession
	}
	if err != nil {
		return Person{}, fmt.Errorf("read session: %w", err)
	}
	r, err := s.open(row)
	if err != nil {
		return Person{}, fmt.Errorf("read session %s: %w", p.SessionID, err)
	}
	p.ID, p.Name, p.Email, p.Lang = r.ID, r.Name, r.Email, r.Lang
	if now.Sub(seen) >= seenEvery {
		if _, err := s.db.Exec(ctx, `update identity.session set seen_at = $2 where id = $1 and seen_at < $2`, p.SessionID, now); err != nil {
			return Person{}, fmt.Errorf("note session %s: %w", p.SessionID, err)
		}
	}
	return p, nil
}

const sessionSQL = `
select s.id, s.acr, s.amr, s.signed_in_at, s.seen_at, coalesce(s.acting_id::text, ''),
	r.id, r.state, r.lang, r.profile, r.updated_at, k.box, e.id, e.box
from identity.session s
join identity.resident r on r.id = s.resident_id and r.state = 'active'
join identity.person_key k on k.id = r.id
left join identity.email e on e.resident_id = r.id and e.main
where s.token_hash = $1 and s.ended_at is null and s.expires_at > $2 and s.seen_at > $3`

// EndSession signs a session out. Ending it again changes nothing.
func (s *Service) EndSession(ctx context.Context, p Person, why string) error {
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `
			update identity.session set ended_at = $2, ended_why = $3 where id = $1 and ended_at is null`,
			p.SessionID, s.now(), why)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		if err := s.sessionEnds(ctx, tx, p.SessionID); err != nil {
			return err
		}
		return audit.Record(ctx, tx, audit.Event{
			Action: "signout", ObjectType: "session", ObjectID: p.SessionID, Subject: p.ID, At: s.now(),
			Details: map[string]any{"why": why},
		})
	})
	if err != nil {
		return fmt.Errorf("end session %s: %w", p.SessionID, err)
	}
	return nil
}

type signin struct {
	resident, outcome, service string
	session                    *string
	visitor                    Visitor
}

// remember writes one line of the sign-in history.
func (s *Service) remember(ctx context.Context, tx pgx.Tx, l signin) error {
	_, err := tx.Exec(ctx, `
		insert into identity.signin (id, resident_id, at, way, outcome, service, session_id, network, device)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		id.New(), l.resident, s.now(), wayEmailCode, l.outcome, l.service, l.session, l.visitor.Network, l.visitor.Device)
	if err != nil {
		return fmt.Errorf("write sign-in history: %w", err)
	}
	return nil
}
