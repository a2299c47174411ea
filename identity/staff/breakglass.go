package staff

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/identity"
	"guichet/internal/audit"
	"guichet/internal/clock"
	"guichet/internal/id"
	"guichet/internal/mail"
)

// The break-glass account is for the day on which the directory is down or has locked
// everybody out. A credential is made ahead and lies in a sealed envelope; it opens one
// short session of an administrator, and whoever uses it sets off every alarm there is.
const (
	breakGlassSession = 15 * time.Minute
	breakGlassLife    = 400 * 24 * time.Hour // envelopes are renewed once a year
	breakGlassDigits  = 27                   // 135 bits and a check character: typed from paper
	breakGlassIssuer  = "guichet:break-glass"
)

// breakGlassTries is how many codes a network may try: guessing is hopeless, and noisy.
var breakGlassTries = identity.Limit{Burst: 10, Per: time.Hour}

// ErrBreakGlass says that a code opens nothing: unknown, used, revoked or expired.
var ErrBreakGlass = errors.New("the break-glass code opens nothing")

// ErrNoAlarm says that nobody would be told of a use, so no credential is made.
var ErrNoAlarm = errors.New("nobody is set to be told when the break-glass account is used")

// ErrUnsaid says that somebody did not write who they are and why.
var ErrUnsaid = errors.New("name and reason are needed")

// MailTemplates holds this package's mails for internal/mail.
//
//go:embed mailtext/*.txt
var MailTemplates embed.FS

// AlarmRecipient is the opaque recipient of an alarm for the nth address of Config.Alarm.
func AlarmRecipient(n int) string { return "alarm:" + strconv.Itoa(n) }

// MakeBreakGlass makes a credential and returns its id and its code; the code is seen here
// and never again. It returns ErrNoAlarm, wrapped, when no use of it could be reported.
func (s *Service) MakeBreakGlass(ctx context.Context, tx pgx.Tx, by string) (credentialID, code string, err error) {
	if len(s.alarm) == 0 {
		return "", "", fmt.Errorf("make break-glass credential: %w", ErrNoAlarm)
	}
	credentialID, code = id.New(), id.Code(breakGlassDigits)
	now := s.now()
	_, err = tx.Exec(ctx, `insert into identity.break_glass (id, hash, made_by, made_at, expires_at) values ($1, $2, $3, $4, $5)`,
		credentialID, id.Hash(code), by, now, now.Add(breakGlassLife))
	if err != nil {
		return "", "", fmt.Errorf("make break-glass credential: %w", err)
	}
	return credentialID, id.Group(code), s.recordGlass(ctx, tx, credentialID, "staff.break_glass.made", map[string]any{"by": by})
}

// RevokeBreakGlass makes a credential useless. Revoking again changes nothing.
func (s *Service) RevokeBreakGlass(ctx context.Context, tx pgx.Tx, credentialID, by string) error {
	if !id.Valid(credentialID) {
		return fmt.Errorf("revoke break-glass credential: %w", ErrNotFound)
	}
	tag, err := tx.Exec(ctx, `
		update identity.break_glass set revoked_at = $2, revoked_by = $3 where id = $1 and revoked_at is null and used_at is null`, credentialID, s.now(), by)
	if err != nil {
		return fmt.Errorf("revoke break-glass credential %s: %w", credentialID, err)
	}
	if tag.RowsAffected() == 0 {
		return nil
	}
	return s.recordGlass(ctx, tx, credentialID, "staff.break_glass.revoked", map[string]any{"by": by})
}

// A BreakGlass is a credential as administrators see it.
type BreakGlass struct {
	ID          string
	MadeBy      string
	MadeAt      time.Time
	ExpiresAt   time.Time
	UsedAt      *time.Time
	UsedBy      string
	UsedWhy     string
	UsedNetwork string
	RevokedAt   *time.Time
}

// BreakGlasses lists the credentials, newest first, at most 50.
func (s *Service) BreakGlasses(ctx context.Context) ([]BreakGlass, error) {
	rows, err := s.db.Query(ctx, `
		select id, made_by, made_at, expires_at, used_at, used_by, used_why, used_network, revoked_at
		from identity.break_glass order by made_at desc, id desc limit 50`)
	if err != nil {
		return nil, fmt.Errorf("list break-glass credentials: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[BreakGlass])
	if err != nil {
		return nil, fmt.Errorf("list break-glass credentials: %w", err)
	}
	return list, nil
}

// A Breaking is somebody who opens the envelope.
type Breaking struct {
	Code, Name, Why string
	OldToken        string // of the staff session that the browser held: it ends
}

// BreakGlass opens a short administrator's session with a code, once, and raises the alarm
// in the same transaction: mail to everybody of Config.Alarm and an audit row. It returns the token
// for the cookie, or ErrUnsaid, ErrBreakGlass or an *identity.LimitedError, wrapped.
func (s *Service) BreakGlass(ctx context.Context, b Breaking, v identity.Visitor) (token string, err error) {
	if b.Name = strings.TrimSpace(b.Name); b.Name == "" || strings.TrimSpace(b.Why) == "" {
		return "", fmt.Errorf("break glass: %w", ErrUnsaid)
	}
	err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		return s.people.Take(ctx, tx, "break-glass", v.Network, breakGlassTries)
	})
	if err != nil {
		return "", fmt.Errorf("break glass: %w", err)
	}
	code, _ := id.Normalize(b.Code)
	err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		now := s.now()
		var credentialID string
		err := tx.QueryRow(ctx, `
			update identity.break_glass set used_at = $2, used_by = $3, used_why = $4, used_network = $5
			where hash = $1 and used_at is null and revoked_at is null and expires_at > $2
			returning id`, id.Hash(code), now, b.Name, b.Why, v.Network).Scan(&credentialID)
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrBreakGlass
		}
		if err != nil {
			return fmt.Errorf("use credential: %w", err)
		}
		memberID, _, err := s.known(ctx, tx, Upstream{Issuer: breakGlassIssuer, Subject: credentialID, Name: "Break-glass: " + b.Name})
		if err != nil {
			return err
		}
		if err := s.Grant(ctx, tx, memberID, Role{Name: Administrator}, "break-glass:"+credentialID); err != nil {
			return err
		}
		token, err = s.openSession(ctx, tx, memberID, proof{oldToken: b.OldToken, breakGlass: &credentialID, life: breakGlassSession}, v)
		if err != nil {
			return err
		}
		if err := s.raise(ctx, tx, credentialID, b, v); err != nil {
			return err
		}
		// The name that was typed is in the credential's row: audit rows hold ids.
		return s.recordGlass(ctx, tx, credentialID, "staff.break_glass.used", map[string]any{"member": memberID, "network": v.Network})
	})
	if errors.Is(err, ErrBreakGlass) {
		s.people.NoteLimited(ctx, audit.Event{Action: "staff.break_glass.failed", ObjectType: "break-glass"}, v)
	}
	if err != nil {
		return "", fmt.Errorf("break glass: %w", err)
	}
	return token, nil
}

// raise tells everybody who is to be told.
func (s *Service) raise(ctx context.Context, tx pgx.Tx, credentialID string, b Breaking, v identity.Visitor) error {
	for n := range s.alarm {
		err := s.mail.Enqueue(ctx, tx, mail.Message{
			Key: "break-glass/" + credentialID + "/" + strconv.Itoa(n), To: AlarmRecipient(n), Lang: "en", Template: "break-glass",
			Data: map[string]string{
				"at": s.now().In(clock.Toronto).Format("2006-01-02 15:04"), "by": b.Name, "why": b.Why, "network": v.Network,
				"minutes": strconv.Itoa(int(breakGlassSession.Minutes())),
			},
		})
		if err != nil {
			return fmt.Errorf("raise alarm: %w", err)
		}
	}
	return nil
}

// BreakGlassUse returns how many credentials were ever used, and how many sessions are open
// now: what an alert watches.
func (s *Service) BreakGlassUse(ctx context.Context) (used, open int, err error) {
	err = s.db.QueryRow(ctx, `
		select (select count(*) from identity.break_glass where used_at is not null),
			(select count(*) from identity.staff_session where break_glass_id is not null and ended_at is null and expires_at > $1)`, s.now()).
		Scan(&used, &open)
	if err != nil {
		return 0, 0, fmt.Errorf("count uses of break-glass credentials: %w", err)
	}
	return used, open, nil
}

func (s *Service) recordGlass(ctx context.Context, tx pgx.Tx, credentialID, action string, details map[string]any) error {
	return audit.Record(ctx, tx, audit.Event{Action: action, ObjectType: "break-glass", ObjectID: credentialID, At: s.now(), Details: details})
}
