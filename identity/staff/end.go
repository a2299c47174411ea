package staff

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/id"
)

// An OpenSession is a session as administrators see it.
type OpenSession struct {
	ID         string
	MemberID   string
	Name       string
	SignedInAt time.Time
	SeenAt     time.Time
	ExpiresAt  time.Time
	Network    string
	Device     string
	BreakGlass bool
}

// OpenSessions lists the sessions in use now, of one member or, for "", of all, the last
// used first, at most 200.
func (s *Service) OpenSessions(ctx context.Context, memberID string) ([]OpenSession, error) {
	if memberID != "" && !id.Valid(memberID) {
		return nil, ErrNotFound
	}
	now := s.now()
	rows, err := s.db.Query(ctx, `
		select s.id, s.member_id, m.name, s.signed_in_at, s.seen_at, s.expires_at, s.network, s.device, s.break_glass_id is not null as break_glass
		from identity.staff_session s join identity.staff_member m on m.id = s.member_id
		where s.ended_at is null and s.expires_at > $1 and s.seen_at > $2 and ($3 = '' or s.member_id = nullif($3, '')::uuid)
		order by s.seen_at desc, s.id limit 200`, now, now.Add(-sessionIdle), memberID)
	if err != nil {
		return nil, fmt.Errorf("list staff sessions: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[OpenSession])
	if err != nil {
		return nil, fmt.Errorf("list staff sessions: %w", err)
	}
	return list, nil
}

// EndOther ends a session of somebody, with a reason. Ending it again changes nothing.
func (s *Service) EndOther(ctx context.Context, tx pgx.Tx, sessionID, by, why string) error {
	if !id.Valid(sessionID) {
		return fmt.Errorf("end staff session: %w", ErrNoSession)
	}
	_, err := s.endSessions(ctx, tx, ending{sessionID: sessionID, why: why, by: by})
	return err
}

// A Logout is what the directory says when somebody has signed out of it (OpenID Connect
// Back-Channel Logout 1.0): who, or which session, and when it said so.
type Logout struct {
	Issuer, Subject, Sid string
	IssuedAt             time.Time
}

// LoggedOut ends what the directory has ended: the session of a sid, or every one of the
// subject, that began before it said so. Told again it ends nothing more: a sign-in since then
// is another one.
func (s *Service) LoggedOut(ctx context.Context, l Logout) (ended int, err error) {
	err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		ended, err = s.endSessions(ctx, tx, ending{
			issuer: l.Issuer, subject: l.Subject, sid: l.Sid, before: &l.IssuedAt, why: "signed out at the directory", by: "directory",
		})
		return err
	})
	return ended, err
}

// An ending says which sessions end: those that fit everything that is set.
type ending struct {
	sessionID, memberID  string
	issuer, subject, sid string
	before               *time.Time
	why, by              string
}

func (s *Service) endSessions(ctx context.Context, tx pgx.Tx, e ending) (int, error) {
	now := s.now()
	// iat counts whole seconds: a session that began in the same second is meant.
	rows, err := tx.Query(ctx, `
		update identity.staff_session s set ended_at = $1, ended_why = $2
		from identity.staff_member m
		where m.id = s.member_id and s.ended_at is null
			and ($3 = '' or s.id = nullif($3, '')::uuid) and ($4 = '' or m.id = nullif($4, '')::uuid)
			and ($5 = '' or m.issuer = $5) and ($6 = '' or m.subject = $6) and ($7 = '' or s.directory_sid = $7)
			and ($8::timestamptz is null or s.created_at < $8::timestamptz + interval '1 second')
		returning s.id::text, m.id::text`,
		now, e.why, e.sessionID, e.memberID, e.issuer, e.subject, e.sid, e.before)
	if err != nil {
		return 0, fmt.Errorf("end staff sessions: %w", err)
	}
	ended, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct{ Session, Member string }])
	if err != nil {
		return 0, fmt.Errorf("end staff sessions: %w", err)
	}
	for _, x := range ended {
		if err := record(ctx, tx, now, x.Member, "staff.session.revoked", map[string]any{"session": x.Session, "why": e.why, "by": e.by}); err != nil {
			return 0, err
		}
	}
	return len(ended), nil
}

// Suspend lets a member in no more and ends their sessions; Resume lets them in again.
// Doing either again changes nothing.
func (s *Service) Suspend(ctx context.Context, tx pgx.Tx, memberID, by, why string) error {
	if err := s.turn(ctx, tx, memberID, "suspended", by, why); err != nil {
		return err
	}
	_, err := s.endSessions(ctx, tx, ending{memberID: memberID, why: "suspended", by: by})
	return err
}

// Resume undoes Suspend.
func (s *Service) Resume(ctx context.Context, tx pgx.Tx, memberID, by, why string) error {
	return s.turn(ctx, tx, memberID, "active", by, why)
}

func (s *Service) turn(ctx context.Context, tx pgx.Tx, memberID, state, by, why string) error {
	if !id.Valid(memberID) {
		return fmt.Errorf("turn member %s: %w", state, ErrNotFound)
	}
	tag, err := tx.Exec(ctx, `update identity.staff_member set state = $2 where id = $1 and state <> $2`, memberID, state)
	if err != nil {
		return fmt.Errorf("turn member %s %s: %w", memberID, state, err)
	}
	if tag.RowsAffected() == 0 {
		return nil
	}
	return record(ctx, tx, s.now(), memberID, "staff."+state, map[string]any{"by": by, "why": why})
}
