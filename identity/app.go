package identity

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/jackc/pgx/v5"

	"guichet/internal/audit"
	"guichet/internal/id"
)

// RFC 6238 with the values that every authenticator app knows.
const (
	appStep    = 30 // seconds
	appDrift   = 1  // steps before and after
	appDigits  = 1_000_000
	backupSize = 10 // codes in a set
)

// ErrWrongFactor says that the code of an app, or a backup code, is not right.
var ErrWrongFactor = errors.New("not a code that is valid now")

// An App is an authenticator app about to be set up.
type App struct {
	Secret string // base32, in groups, as people type it
	URI    string // otpauth:, as apps read it
}

// NewApp returns the secret of an authenticator app for a person. It counts only once a
// code was typed (ConfirmApp); asking again before that gives the same one. It returns ErrStepUp, wrapped.
func (s *Service) NewApp(ctx context.Context, p Person) (App, error) {
	var secret []byte
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		if err := s.mayAddFactor(ctx, tx, p); err != nil {
			return err
		}
		key, err := s.keyOf(ctx, tx, p.ID)
		if err != nil {
			return err
		}
		fresh := make([]byte, 20)
		rand.Read(fresh)
		var box []byte
		err = tx.QueryRow(ctx, `
			insert into identity.app as a (resident_id, secret, created_at) values ($1, $2, $3)
			on conflict (resident_id) do update set created_at = a.created_at where a.confirmed_at is null
			returning secret`, p.ID, key.Seal(fresh, []byte("app:"+p.ID)), s.now()).Scan(&box)
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrWrongStep // one is set up already
		}
		if err != nil {
			return err
		}
		secret, err = key.Open(box, []byte("app:"+p.ID))
		return err
	})
	if err != nil {
		return App{}, fmt.Errorf("new authenticator app: %w", err)
	}
	text := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(secret)
	uri := url.URL{
		Scheme: "otpauth", Host: "totp", Path: "/Guichet:" + p.Email,
		RawQuery: url.Values{"secret": {text}, "issuer": {"Guichet"}}.Encode(),
	}
	return App{Secret: group(text), URI: uri.String()}, nil
}

func group(text string) string {
	var b strings.Builder
	for i, r := range text {
		if i > 0 && i%4 == 0 {
			b.WriteByte(' ')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// ConfirmApp makes the app count, now that it shows the right code, and returns ten
// backup codes, to be shown once, and the session's new token. It returns ErrWrongFactor, ErrStepUp,
// ErrWrongStep or a *LimitedError, wrapped.
func (s *Service) ConfirmApp(ctx context.Context, p Person, token, code string, v Visitor) (codes []string, fresh string, err error) {
	if err := s.takeFactorTry(ctx, p.ID, v); err != nil {
		return nil, "", fmt.Errorf("confirm authenticator app: %w", err)
	}
	err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		if err := s.mayAddFactor(ctx, tx, p); err != nil {
			return err
		}
		if err := s.useApp(ctx, tx, p.ID, code, false); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, `update identity.app set confirmed_at = $2 where resident_id = $1 and confirmed_at is null`, p.ID, s.now())
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return ErrWrongStep
		}
		if codes, err = s.newBackupCodes(ctx, tx, p.ID); err != nil {
			return err
		}
		if fresh, err = s.strengthen(ctx, tx, p, token, FactorApp, v); err != nil {
			return err
		}
		return s.factorAdded(ctx, tx, p, FactorApp, id.New(), v)
	})
	if err != nil {
		return nil, "", fmt.Errorf("confirm authenticator app: %w", err)
	}
	return codes, fresh, nil
}

// useApp takes a code of the app: one of this moment or a step beside it, and each once.
func (s *Service) useApp(ctx context.Context, tx pgx.Tx, residentID, code string, confirmed bool) error {
	var box []byte
	err := tx.QueryRow(ctx, `
		select secret from identity.app where resident_id = $1 and (confirmed_at is not null) = $2`, residentID, confirmed).Scan(&box)
	if errors.Is(err, pgx.ErrNoRows) {
		return ErrWrongFactor
	}
	if err != nil {
		return fmt.Errorf("read authenticator app: %w", err)
	}
	key, err := s.keyOf(ctx, tx, residentID)
	if err != nil {
		return err
	}
	secret, err := key.Open(box, []byte("app:"+residentID))
	if err != nil {
		return fmt.Errorf("open authenticator app: %w", err)
	}
	now := s.now()
	step := matchApp(secret, digits(code), now.Unix()/appStep)
	tag, err := tx.Exec(ctx, `
		update identity.app set last_step = $2, used_at = $3 where resident_id = $1 and last_step < $2`, residentID, step, now)
	if err != nil {
		return fmt.Errorf("use code of authenticator app: %w", err)
	}
	if tag.RowsAffected() == 0 { // not right, or used before
		return ErrWrongFactor
	}
	return nil
}

// matchApp returns the time step that code belongs to, or 0. It looks at all of them,
// whichever fits.
func matchApp(secret []byte, code string, now int64) int64 {
	var found int64
	for step := now - appDrift; step <= now+appDrift; step++ {
		if subtle.ConstantTimeCompare([]byte(appCode(secret, step)), []byte(code)) == 1 {
			found = step
		}
	}
	return found
}

// appCode is HOTP (RFC 4226) of a time step.
func appCode(secret []byte, step int64) string {
	m := hmac.New(sha1.New, secret)
	binary.Write(m, binary.BigEndian, uint64(step)) // a hash takes every write
	sum := m.Sum(nil)
	at := sum[len(sum)-1] & 0xf
	return fmt.Sprintf("%06d", (binary.BigEndian.Uint32(sum[at:])&0x7fffffff)%appDigits)
}

// digits returns a code as typed without the spaces that people put in.
func digits(typed string) string {
	return strings.NewReplacer(" ", "", "-", "", "\u00a0", "", "\t", "").Replace(typed)
}

// newBackupCodes replaces a resident's backup codes and returns the new ones, as they
// are read.
func (s *Service) newBackupCodes(ctx context.Context, tx pgx.Tx, residentID string) ([]string, error) {
	if _, err := tx.Exec(ctx, `delete from identity.backup_code where resident_id = $1`, residentID); err != nil {
		return nil, fmt.Errorf("replace backup codes: %w", err)
	}
	salt := make([]byte, 16)
	rand.Read(salt)
	var codes []string
	for range backupSize {
		code := id.Code(11) // 55 bits
		_, err := tx.Exec(ctx, `insert into identity.backup_code (resident_id, salt, hash, created_at) values ($1, $2, $3, $4)`,
			residentID, salt, hashCode(code, salt), s.now())
		if err != nil {
			return nil, fmt.Errorf("store backup code: %w", err)
		}
		codes = append(codes, id.Group(code))
	}
	return codes, nil
}

// NewBackupCodes replaces the backup codes of a person with an app, after a fresh
// proof of level 2. It returns ErrStepUp or ErrNotFound, wrapped.
func (s *Service) NewBackupCodes(ctx context.Context, p Person, v Visitor) (codes []string, err error) {
	err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		has, err := s.factors(ctx, tx, p.ID)
		switch {
		case err != nil:
			return err
		case !has.App:
			return ErrNotFound
		case !p.Fresh(s.now()):
			return ErrStepUp
		}
		if codes, err = s.newBackupCodes(ctx, tx, p.ID); err != nil {
			return err
		}
		return s.recordFactor(ctx, tx, "factor.added", p.ID, map[string]any{"factor": FactorBackup, "session": p.SessionID, "network": v.Network, "device": v.Device})
	})
	if err != nil {
		return nil, fmt.Errorf("new backup codes: %w", err)
	}
	return codes, nil
}

func (s *Service) useBackupCode(ctx context.Context, tx pgx.Tx, residentID, typed string) error {
	code, ok := id.Normalize(typed)
	if !ok {
		return ErrWrongFactor
	}
	var salt []byte
	err := tx.QueryRow(ctx, `select salt from identity.backup_code where resident_id = $1 limit 1`, residentID).Scan(&salt)
	if errors.Is(err, pgx.ErrNoRows) {
		return ErrWrongFactor
	}
	if err != nil {
		return fmt.Errorf("read backup codes: %w", err)
	}
	tag, err := tx.Exec(ctx, `
		update identity.backup_code set used_at = $3 where resident_id = $1 and hash = $2 and used_at is null`,
		residentID, hashCode(code, salt), s.now())
	if err != nil {
		return fmt.Errorf("use backup code: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return ErrWrongFactor
	}
	return nil
}

// RemoveApp takes the authenticator app and its backup codes away; see RemovePasskey.
func (s *Service) RemoveApp(ctx context.Context, p Person, knowing bool, v Visitor) error {
	return s.removeFactor(ctx, p, knowing, v, FactorApp, func(tx pgx.Tx) (bool, error) {
		if _, err := tx.Exec(ctx, `delete from identity.backup_code where resident_id = $1`, p.ID); err != nil {
			return false, err
		}
		tag, err := tx.Exec(ctx, `delete from identity.app where resident_id = $1`, p.ID)
		return tag.RowsAffected() == 1, err
	})
}

// TryApp takes a code of the authenticator app, or a backup code, of the person whose
// sign-in waits at StepFactor. It returns ErrNoPending, ErrWrongStep, ErrWrongFactor,
// ErrSuspended or a *LimitedError, wrapped.
func (s *Service) TryApp(ctx context.Context, t CodeTry) (SignedIn, error) {
	in, err := s.tryApp(ctx, t)
	if err != nil {
		return SignedIn{}, fmt.Errorf("try a code of an app: %w", err)
	}
	return in, nil
}

func (s *Service) tryApp(ctx context.Context, t CodeTry) (SignedIn, error) {
	p, err := s.Pending(ctx, t.Pending, t.Browser)
	if err != nil {
		return SignedIn{}, err
	}
	if p.Step != StepFactor {
		return SignedIn{}, ErrWrongStep
	}
	if err := s.takeFactorTry(ctx, p.ResidentID, t.Visitor); err != nil {
		return SignedIn{}, err
	}
	var in SignedIn
	var refused error // committed with its trace
	err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		p, err := s.lock(ctx, tx, t.Pending, t.Browser)
		if err != nil {
			return err
		}
		if p.Step != StepFactor {
			return ErrWrongStep
		}
		pr := proof{pending: p, resident: p.ResidentID, factor: FactorApp, session: t.Session, visitor: t.Visitor}
		// The second factor alone is none: the first must be proved here or be the session's.
		held, err := s.held(ctx, tx, t.Session, p.ResidentID)
		if err != nil {
			return err
		}
		if len(p.proved) == 0 && held == nil {
			return ErrNoPending
		}
		err = s.useApp(ctx, tx, p.ResidentID, t.Code, true)
		if errors.Is(err, ErrWrongFactor) && len(digits(t.Code)) > 6 {
			pr.factor = FactorBackup
			err = s.useBackupCode(ctx, tx, p.ResidentID, t.Code)
		}
		if errors.Is(err, ErrWrongFactor) {
			refused = err
			return s.factorFailed(ctx, tx, pr)
		}
		if err != nil {
			return err
		}
		var state State
		if err := tx.QueryRow(ctx, `select state from identity.resident where id = $1`, p.ResidentID).Scan(&state); err != nil {
			return err
		}
		if state != Active {
			refused = ErrSuspended
			return s.refuse(ctx, tx, pr)
		}
		if pr.factor == FactorBackup {
			if err := s.notify(ctx, tx, notice{resident: p.ResidentID, template: "backup-code-used", key: p.ID, data: map[string]string{"device": t.Visitor.Device}}); err != nil {
				return err
			}
		}
		in, err = s.advance(ctx, tx, pr)
		return err
	})
	if err == nil {
		err = refused
	}
	return in, err
}

// takeFactorTry counts a try in a transaction of its own, before anything is compared.
// Only somebody who has proved the first factor gets here, so no stranger can use the owner's tries up.
func (s *Service) takeFactorTry(ctx context.Context, residentID string, v Visitor) error {
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		if err := s.Take(ctx, tx, "factor-network", v.Network, s.limits.FactorNetwork); err != nil {
			return err
		}
		return s.Take(ctx, tx, "factor-try", residentID, s.limits.FactorTry)
	})
	if errors.As(err, new(*LimitedError)) {
		s.NoteLimited(ctx, audit.Event{Action: "signin.limited", ObjectType: "resident", ObjectID: residentID, Subject: residentID}, v)
	}
	return err
}

func (s *Service) factorFailed(ctx context.Context, tx pgx.Tx, pr proof) error {
	if err := s.remember(ctx, tx, signin{resident: pr.resident, way: string(pr.factor), outcome: "failed", service: pr.pending.Service, visitor: pr.visitor}); err != nil {
		return err
	}
	return audit.Record(ctx, tx, audit.Event{
		Action: "signin.failed", ObjectType: "sign-in", ObjectID: pr.pending.ID, Subject: pr.resident, At: s.now(),
		Details: map[string]any{"way": pr.factor, "network": pr.visitor.Network, "device": pr.visitor.Device},
	})
}

// Decline ends the wait at StepFactor of a signed-in person who will not prove more. What
// asked for more then decides without. It returns ErrWrongStep, wrapped, when nothing waits for the person.
func (s *Service) Decline(ctx context.Context, pendingID, browser string, p Person) error {
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		w, err := s.lock(ctx, tx, pendingID, browser)
		if err != nil {
			return err
		}
		if w.Step != StepFactor || w.ResidentID != p.ID || w.Request == nil {
			return ErrWrongStep
		}
		return s.move(ctx, tx, &w, StepSignedIn)
	})
	if err != nil {
		return fmt.Errorf("decline a factor in sign-in %s: %w", pendingID, err)
	}
	return nil
}

// Reached ends the wait at StepFactor of a person whose session has meanwhile reached the
// level wanted: by setting up the factor that was missing. It returns ErrWrongStep, wrapped,
// when it has not.
func (s *Service) Reached(ctx context.Context, pendingID, browser string, p Person) (Pending, error) {
	var out Pending
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		w, err := s.lock(ctx, tx, pendingID, browser)
		if err != nil {
			return err
		}
		if w.Step != StepFactor || w.ResidentID != p.ID || !p.Fresh(s.now()) {
			return ErrWrongStep
		}
		out = w
		to := StepDone
		if w.Request != nil {
			to = StepSignedIn
		}
		return s.move(ctx, tx, &out, to)
	})
	if err != nil {
		return Pending{}, fmt.Errorf("go on with sign-in %s: %w", pendingID, err)
	}
	return out, nil
}
