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

// A Device is a live session, as its owner sees it.
type Device struct {
	SessionID, Name, Network string
	SignedInAt, SeenAt       time.Time
	Current                  bool
	ACR, Departments         int // Departments: applications that were signed in to with it
}

// Devices lists a person's live sessions, the last seen first.
func (s *Service) Devices(ctx context.Context, p Person) ([]Device, error) {
	now := s.now()
	rows, err := s.db.Query(ctx, `
		select id, device, network, signed_in_at, seen_at, id = $2, acr,
			(select count(*) from identity.session_client c where c.session_id = s.id)
		from identity.session s
		where resident_id = $1 and ended_at is null and expires_at > $3 and seen_at > $4
		order by seen_at desc, id limit 100`, p.ID, p.SessionID, now, now.Add(-sessionIdle))
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	devices, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Device])
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	return devices, nil
}

// EndDevice ends one of the person's sessions. Another's is ErrNotFound, wrapped.
func (s *Service) EndDevice(ctx context.Context, p Person, sessionID string) error {
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		if !id.Valid(sessionID) {
			return ErrNotFound
		}
		n, err := s.endSessions(ctx, tx, `resident_id = $3 and id = $4`, "ended by its owner", p.ID, sessionID)
		if err == nil && n == 0 {
			err = ErrNotFound
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("end a session: %w", err)
	}
	return nil
}

// EndOtherDevices ends every session of the person but the one they use.
func (s *Service) EndOtherDevices(ctx context.Context, p Person) error {
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		_, err := s.endSessions(ctx, tx, `resident_id = $3 and id <> $4`, "ended by its owner", p.ID, p.SessionID)
		return err
	})
	if err != nil {
		return fmt.Errorf("end the other sessions: %w", err)
	}
	return nil
}

// endSessions ends the live sessions that a condition selects, for the clients that
// were told of them, too. The condition's parameters begin at $3.
func (s *Service) endSessions(ctx context.Context, tx pgx.Tx, condition, why string, args ...any) (int, error) {
	rows, err := tx.Query(ctx, `
		update identity.session set ended_at = $1, ended_why = $2 where ended_at is null and `+condition+` returning id, resident_id`,
		append([]any{s.now(), why}, args...)...)
	if err != nil {
		return 0, fmt.Errorf("end sessions: %w", err)
	}
	type ended struct{ ID, ResidentID string }
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[ended])
	if err != nil {
		return 0, fmt.Errorf("end sessions: %w", err)
	}
	for _, e := range all {
		if err := s.sessionEnds(ctx, tx, e.ID); err != nil {
			return 0, err
		}
		err := audit.Record(ctx, tx, audit.Event{
			Action: "session.revoked", ObjectType: "session", ObjectID: e.ID, Subject: e.ResidentID, At: s.now(), Details: map[string]any{"why": why},
		})
		if err != nil {
			return 0, err
		}
	}
	return len(all), nil
}

// endEverything ends all sessions of a person and takes back what departments' applications hold.
func (s *Service) endEverything(ctx context.Context, tx pgx.Tx, residentID, why string) error {
	if _, err := s.endSessions(ctx, tx, `resident_id = $3`, why, residentID); err != nil {
		return err
	}
	return s.revokes(ctx, tx, Revocation{ResidentID: residentID, Why: why})
}

// A Visit is one line of the sign-in history.
type Visit struct {
	ID           string
	At           time.Time
	Way, Outcome string
	Service      string // client id, empty for Guichet itself
	Network      string
	Device       string
	Disavowable  bool // it opened a session, and was not disavowed yet
}

// historyFor is how long the sign-in history is kept.
const historyFor = 396 * 24 * time.Hour // 13 months

// visitsShown is how many lines of the history one page holds.
const visitsShown = 50

// History lists a resident's sign-ins before a moment, the newest first; more reports
// that there are older ones.
func (s *Service) History(ctx context.Context, residentID string, before time.Time) (visits []Visit, more bool, err error) {
	rows, err := s.db.Query(ctx, `
		select g.id, g.at, g.way, g.outcome, g.service, g.network, g.device,
			g.outcome = 'ok' and g.session_id is not null and not exists (
				select from identity.alert a where a.resident_id = g.resident_id and a.kind = 'disavowed' and a.ref = g.id)
		from identity.signin g where resident_id = $1 and at < $2 order by at desc, id limit $3`, residentID, before, visitsShown+1)
	if err != nil {
		return nil, false, fmt.Errorf("read sign-in history: %w", err)
	}
	visits, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Visit])
	if err != nil {
		return nil, false, fmt.Errorf("read sign-in history: %w", err)
	}
	if len(visits) > visitsShown {
		return visits[:visitsShown], true, nil
	}
	return visits, false, nil
}

// Disavow says, for a signed-in person, that a sign-in was not theirs. It returns
// ErrNotFound, wrapped, for another person's.
func (s *Service) Disavow(ctx context.Context, p Person, visitID string, v Visitor) error {
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		if !id.Valid(visitID) {
			return ErrNotFound
		}
		return s.disavow(ctx, tx, p.ID, visitID, v)
	})
	if err != nil {
		return fmt.Errorf("disavow a sign-in: %w", err)
	}
	return nil
}

// disavow ends the session of a sign-in and what was given through it, asks for a
// second factor from now on, and tells the 311 centre. Again, it changes nothing.
func (s *Service) disavow(ctx context.Context, tx pgx.Tx, residentID, visitID string, v Visitor) error {
	var sessionID *string
	err := tx.QueryRow(ctx, `
		select session_id from identity.signin where id = $1 and resident_id = $2 and outcome = 'ok'`, visitID, residentID).Scan(&sessionID)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && sessionID == nil {
		return ErrNotFound
	}
	if err != nil {
		return err
	}
	now := s.now()
	tag, err := tx.Exec(ctx, `
		insert into identity.alert (id, resident_id, kind, ref, at)
		select $1, $2, 'disavowed', $3, $4
		where not exists (select from identity.alert where resident_id = $2 and kind = 'disavowed' and ref = $3)`, id.New(), residentID, visitID, now)
	if err != nil || tag.RowsAffected() == 0 {
		return err
	}
	if _, err := s.endSessions(ctx, tx, `id = $3`, "disavowed", *sessionID); err != nil {
		return err
	}
	if err := s.revokes(ctx, tx, Revocation{ResidentID: residentID, SessionID: *sessionID, Why: "disavowed"}); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `update identity.resident set disavowed_at = $2 where id = $1`, residentID, now); err != nil {
		return err
	}
	return audit.Record(ctx, tx, audit.Event{
		Action: "signin.disavowed", ObjectType: "session", ObjectID: *sessionID, Subject: residentID, At: now,
		Details: map[string]any{"signin": visitID, "network": v.Network, "device": v.Device},
	})
}

// An Alert is something that the 311 centre should look at.
type Alert struct {
	ID, ResidentID, Kind string
	At                   time.Time
}

// Alerts lists what the 311 centre should look at, the newest first.
func (s *Service) Alerts(ctx context.Context, limit int) ([]Alert, error) {
	rows, err := s.db.Query(ctx, `select id, resident_id, kind, at from identity.alert order by at desc, id limit $1`, limit)
	if err != nil {
		return nil, fmt.Errorf("list alerts: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Alert])
}

// warnOfDevice mails about a sign-in from a device and network that the person never
// came from before, with the link by which they can say that it was not them.
func (s *Service) warnOfDevice(ctx context.Context, tx pgx.Tx, residentID, visitID string, v Visitor) error {
	var quiet, first, known bool
	err := tx.QueryRow(ctx, `
		select coalesce((r.settings->>'quiet_devices')::boolean, false),
			not exists (select from identity.signin g where g.resident_id = r.id and g.outcome = 'ok' and g.id <> $2),
			exists (select from identity.signin g where g.resident_id = r.id and g.outcome = 'ok' and g.id <> $2 and g.device = $3 and g.network = $4)
		from identity.resident r where r.id = $1`, residentID, visitID, v.Device, v.Network).Scan(&quiet, &first, &known)
	if err != nil {
		return fmt.Errorf("look for a known device: %w", err)
	}
	if quiet || first || known {
		return nil
	}
	link, err := s.newLink(ctx, tx, Link{Purpose: LinkDisavow, residentID: residentID, ref: visitID, expiresAt: s.now().Add(30 * 24 * time.Hour)})
	if err != nil {
		return err
	}
	return s.notify(ctx, tx, notice{resident: residentID, template: "new-device", key: visitID, data: map[string]string{
		"link": link, "device": v.Device, "network": v.Network, "at": s.now().UTC().Format("2006-01-02 15:04 UTC"),
	}})
}
