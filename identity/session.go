package identity

import (
	"context"
	"errors"
	"fmt"
	"maps"
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

// A Person is a signed-in resident.
type Person struct {
	ID         string
	Name       string
	Email      string
	Lang       string
	ACR        int       // 1: a code by e-mail; 2: two factors; 3: and identity proved
	AMR        []string  // RFC 8176
	SignedInAt time.Time // the last proof of any kind: auth_time
	StrongAt   time.Time // the last proof of level 2, zero below it
	Proofed    bool      // identity proved at a counter or by a partner: level 3 can be reached
	SessionID  string
	ActingID   string // the right under which they act for somebody else; alive or not: identity/delegation knows
}

// A proof is a factor that a person has just proved in a sign-in.
type proof struct {
	pending  Pending
	resident string
	factor   Factor
	session  string // the token that the browser holds, if any
	visitor  Visitor
}

// advance goes on with a sign-in after a proof, in the caller's transaction. It opens a
// session, unless the person has an authenticator app, whose code is then still to
// come: whoever sets one up wants it asked for. When the level wanted is not reached yet, the
// sign-in stays at StepFactor.
func (s *Service) advance(ctx context.Context, tx pgx.Tx, pr proof) (SignedIn, error) {
	p, now := pr.pending, s.now()
	stepUp := p.Step == StepFactor
	if p.proved == nil {
		p.proved = proofs{}
	}
	p.ResidentID, p.proved[pr.factor] = pr.resident, now
	all := maps.Clone(p.proved)
	if stepUp && p.mergeInto == "" { // what the session was proved with before counts, with its own time
		held, err := s.held(ctx, tx, pr.session, pr.resident)
		if err != nil {
			return SignedIn{}, err
		}
		for f, at := range held {
			if all[f].IsZero() {
				all[f] = at
			}
		}
	}
	has, err := s.factors(ctx, tx, pr.resident)
	if err != nil {
		return SignedIn{}, err
	}
	if p.mergeInto != "" {
		pr.pending = p
		return s.provedOther(ctx, tx, pr, all, has)
	}
	disavowed, err := s.settle(ctx, tx, pr.resident, all)
	if err != nil {
		return SignedIn{}, err
	}
	missing := all.level() < 2 && (has.App || p.WantACR >= 2 || disavowed)
	if missing && (has.App || disavowed && has.Strong()) {
		err := s.move(ctx, tx, &p, StepFactor)
		return SignedIn{ResidentID: pr.resident, Pending: p}, err
	}
	o := session{resident: pr.resident, old: pr.session, fresh: id.Secret(), visitor: pr.visitor, proofs: all}
	sessionID, renewed, err := s.openSession(ctx, tx, o)
	if err != nil {
		return SignedIn{}, err
	}
	to := StepDone
	if p.Request != nil {
		to = StepSignedIn
	}
	if missing {
		to = StepFactor
	}
	if err := s.move(ctx, tx, &p, to); err != nil {
		return SignedIn{}, err
	}
	in := SignedIn{Token: o.fresh, ResidentID: pr.resident, Pending: p}
	if stepUp && renewed {
		return in, s.recordFactor(ctx, tx, "factor.used", pr.resident, map[string]any{"factor": pr.factor, "session": sessionID, "acr": all.level(), "network": pr.visitor.Network, "device": pr.visitor.Device})
	}
	return in, s.signedIn(ctx, tx, p, sessionID, all, pr.visitor)
}

// settle does what a proof of level 2 ends: an open recovery, for the owner is back, and
// the wait for a second factor after a sign-in was disavowed. It reports whether that wait goes on.
func (s *Service) settle(ctx context.Context, tx pgx.Tx, residentID string, by proofs) (disavowed bool, err error) {
	if by.level() < 2 {
		err = tx.QueryRow(ctx, `select disavowed_at is not null from identity.resident where id = $1`, residentID).Scan(&disavowed)
		if err != nil {
			return false, fmt.Errorf("read disavowal of %s: %w", residentID, err)
		}
		return disavowed, nil
	}
	if _, err := tx.Exec(ctx, `update identity.resident set disavowed_at = null where id = $1 and disavowed_at is not null`, residentID); err != nil {
		return false, fmt.Errorf("end disavowal of %s: %w", residentID, err)
	}
	var open string
	err = tx.QueryRow(ctx, `select id from identity.recovery where resident_id = $1 and state = 'open'`, residentID).Scan(&open)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("find open recovery: %w", err)
	}
	return false, s.cancelRecovery(ctx, tx, residentID, open, "sign-in")
}

// signedIn writes the history and the audit of a sign-in.
func (s *Service) signedIn(ctx context.Context, tx pgx.Tx, p Pending, sessionID string, by proofs, v Visitor) error {
	visit := signin{id: id.New(), resident: p.ResidentID, way: by.way(), outcome: "ok", service: p.Service, session: &sessionID, visitor: v}
	if err := s.remember(ctx, tx, visit); err != nil {
		return err
	}
	if err := s.warnOfDevice(ctx, tx, p.ResidentID, visit.id, v); err != nil {
		return err
	}
	return audit.Record(ctx, tx, audit.Event{
		Action: "signin.ok", ObjectType: "session", ObjectID: sessionID, Subject: p.ResidentID, At: s.now(),
		Details: map[string]any{"way": by.way(), "acr": by.level(), "client": p.Service, "network": v.Network, "device": v.Device},
	})
}

// refuse ends the pending sign-in of a person who may not sign in, and says so in
// the history. The proof is spent.
func (s *Service) refuse(ctx context.Context, tx pgx.Tx, pr proof) error {
	p, way := pr.pending, string(pr.factor)
	if err := s.move(ctx, tx, &p, StepDone); err != nil {
		return err
	}
	if err := s.remember(ctx, tx, signin{resident: pr.resident, way: way, outcome: "refused", service: p.Service, visitor: pr.visitor}); err != nil {
		return err
	}
	return audit.Record(ctx, tx, audit.Event{
		Action: "signin.failed", ObjectType: "sign-in", ObjectID: p.ID, Subject: pr.resident, At: s.now(),
		Details: map[string]any{"way": way, "reason": "suspended", "network": pr.visitor.Network, "device": pr.visitor.Device},
	})
}

func (s *Service) recordFactor(ctx context.Context, tx pgx.Tx, action, residentID string, details map[string]any) error {
	return audit.Record(ctx, tx, audit.Event{
		Action: action, ObjectType: "resident", ObjectID: residentID, Subject: residentID, At: s.now(), Details: details,
	})
}

// held returns what the live session of a token was proved with, if it is this resident's.
func (s *Service) held(ctx context.Context, tx pgx.Tx, token, residentID string) (proofs, error) {
	var p proofs
	now := s.now()
	err := tx.QueryRow(ctx, `
		select factors from identity.session
		where token_hash = $1 and resident_id = $2 and ended_at is null and expires_at > $3 and seen_at > $4`,
		id.Hash(token), residentID, now, now.Add(-sessionIdle)).Scan(&p)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read factors of session: %w", err)
	}
	return p, nil
}

type session struct {
	resident   string
	old, fresh string // tokens
	visitor    Visitor
	proofs     proofs
}

// openSession gives the browser a session with a new token. The same person proving
// themselves again keeps the session, so that departments see the same sid; anybody else's session
// in this browser ends.
func (s *Service) openSession(ctx context.Context, tx pgx.Tx, o session) (sessionID string, renewed bool, err error) {
	now, acr := s.now(), o.proofs.level()
	if acr == 2 {
		err := tx.QueryRow(ctx, `select case when proofed_at is null then 2 else 3 end from identity.resident where id = $1`, o.resident).Scan(&acr)
		if err != nil {
			return "", false, fmt.Errorf("read proof of identity: %w", err)
		}
	}
	err = tx.QueryRow(ctx, `
		update identity.session
		set token_hash = $3, acr = $4, amr = $5, factors = $6, signed_in_at = $7, seen_at = $7, expires_at = $8, network = $9, device = $10
		where token_hash = $1 and resident_id = $2 and ended_at is null and expires_at > $7 and seen_at > $11
		returning id`,
		id.Hash(o.old), o.resident, id.Hash(o.fresh), acr, o.proofs.amr(), o.proofs, now, now.Add(sessionMax),
		o.visitor.Network, o.visitor.Device, now.Add(-sessionIdle)).Scan(&sessionID)
	if err == nil {
		return sessionID, true, nil
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return "", false, fmt.Errorf("renew session: %w", err)
	}
	err = tx.QueryRow(ctx, `
		update identity.session set ended_at = $2, ended_why = 'another sign-in' where token_hash = $1 and ended_at is null
		returning id`, id.Hash(o.old), now).Scan(&sessionID)
	if err == nil {
		err = s.sessionEnds(ctx, tx, sessionID)
	}
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return "", false, fmt.Errorf("end the browser's other session: %w", err)
	}
	sessionID = id.New()
	_, err = tx.Exec(ctx, `
		insert into identity.session
			(id, token_hash, resident_id, acr, amr, factors, signed_in_at, created_at, seen_at, expires_at, network, device)
		values ($1, $2, $3, $4, $5, $6, $7, $7, $7, $8, $9, $10)`,
		sessionID, id.Hash(o.fresh), o.resident, acr, o.proofs.amr(), o.proofs, now, now.Add(sessionMax),
		o.visitor.Network, o.visitor.Device)
	if err != nil {
		return "", false, fmt.Errorf("open session: %w", err)
	}
	return sessionID, false, nil
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
	var by proofs
	now := s.now()
	err := s.db.QueryRow(ctx, sessionSQL, id.Hash(token), now, now.Add(-sessionIdle)).
		Scan(&p.SessionID, &p.ACR, &p.AMR, &by, &p.SignedInAt, &seen, &p.ActingID, &p.Proofed,
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
	p.ID, p.Name, p.Email, p.Lang, p.StrongAt = r.ID, r.Name, r.Email, r.Lang, by.strongAt()
	if now.Sub(seen) >= seenEvery {
		if _, err := s.db.Exec(ctx, `update identity.session set seen_at = $2 where id = $1 and seen_at < $2`, p.SessionID, now); err != nil {
			return Person{}, fmt.Errorf("note session %s: %w", p.SessionID, err)
		}
	}
	return p, nil
}

const sessionSQL = `
select s.id, s.acr, s.amr, s.factors, s.signed_in_at, s.seen_at, coalesce(s.acting_id::text, ''), r.proofed_at is not null,
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
	id, resident, way, outcome, service string // without an id it gets one
	session                             *string
	visitor                             Visitor
}

// remember writes one line of the sign-in history.
func (s *Service) remember(ctx context.Context, tx pgx.Tx, l signin) error {
	if l.id == "" {
		l.id = id.New()
	}
	_, err := tx.Exec(ctx, `
		insert into identity.signin (id, resident_id, at, way, outcome, service, session_id, network, device)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		l.id, l.resident, s.now(), l.way, l.outcome, l.service, l.session, l.visitor.Network, l.visitor.Device)
	if err != nil {
		return fmt.Errorf("write sign-in history: %w", err)
	}
	return nil
}
