package provider

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/identity"
	"guichet/internal/audit"
	"guichet/internal/id"
)

const (
	deviceLife     = 10 * time.Minute
	deviceInterval = 5 // seconds between two questions; each one too early adds as many
	deviceACR      = 2 // whatever the person proved: nobody sees who stands at the kiosk
)

// userTries is how many wrong codes one session may type; then it stops for the day.
var userTries = identity.Limit{Burst: 10, Per: 24 * time.Hour}

// letters make no words and look like no digits (RFC 8628, section 6.1).
const letters = "BCDFGHJKLMNPQRSTVWXZ"

// A Device is a kiosk or a counter that asks for a sign-in on the person's own screen (RFC 8628).
type Device struct {
	Code      string // the device's secret
	UserCode  string // what the person types or compares: "BCDF-GHJK"
	ExpiresIn time.Duration
	Interval  int // seconds
}

// AskDevice begins a sign-in at a device.
func (s *Service) AskDevice(ctx context.Context, c Client, scopes []string) (Device, error) {
	if !c.Device {
		return Device{}, unauthorizedClient()
	}
	granted := c.granted(scopes)
	if !slices.Contains(granted, ScopeOpenID) {
		return Device{}, &Error{"invalid_scope", "the scope must contain openid"}
	}
	d := Device{Code: id.Secret(), ExpiresIn: deviceLife, Interval: deviceInterval}
	now := s.now()
	for range 3 { // 25 billion codes, of which some are taken
		d.UserCode = userCode()
		tag, err := s.db.Exec(ctx, `
			insert into identity.device_code (hash, user_code, client_id, scopes, state, interval_seconds, created_at, expires_at)
			values ($1, $2, $3, $4, 'waiting', $5, $6, $7) on conflict (user_code) do nothing`,
			id.Hash(d.Code), s.userCodeHash(d.UserCode), c.ID, granted, deviceInterval, now, now.Add(deviceLife))
		if err != nil {
			return Device{}, fmt.Errorf("store device code: %w", err)
		}
		if tag.RowsAffected() == 1 {
			return d, nil
		}
	}
	return Device{}, errors.New("store device code: no free user code")
}

func userCode() string {
	var b strings.Builder
	for i := range 8 {
		if i == 4 {
			b.WriteByte('-')
		}
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(letters))))
		if err != nil {
			panic(fmt.Sprintf("crypto/rand: %v", err)) // documented never to happen
		}
		b.WriteByte(letters[n.Int64()])
	}
	return b.String()
}

// userCodeHash takes a code as it was typed: in small letters, with spaces, without a dash.
func (s *Service) userCodeHash(typed string) []byte {
	code := strings.Map(func(r rune) rune {
		if strings.ContainsRune(letters, r) {
			return r
		}
		return -1
	}, strings.ToUpper(typed))
	return s.short.Sum("user-code\x00" + code)
}

// ErrUserCode says that no device waits with this code.
var ErrUserCode = errors.New("no device waits with this code")

// A Waiting is a device that a person may let in.
type Waiting struct {
	Client Client
	Sees   []string
}

// WaitingDevice finds the device that shows the code. Wrong codes are counted by session; after ten of
// them the answer is a *identity.LimitedError, also for a right one.
func (s *Service) WaitingDevice(ctx context.Context, code string, person identity.Person) (Waiting, error) {
	var clientID string
	var scopes []string
	found := errors.New("found")
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		// Taken first and given back with the rollback: a right code costs no try.
		if err := s.people.Take(ctx, tx, "device", person.SessionID, userTries); err != nil {
			return err
		}
		err := tx.QueryRow(ctx, `
			select client_id, scopes from identity.device_code where user_code = $1 and state = 'waiting' and expires_at > $2`,
			s.userCodeHash(code), s.now()).Scan(&clientID, &scopes)
		if isNone(err) {
			return nil
		}
		if err != nil {
			return err
		}
		return found
	})
	if err == nil {
		return Waiting{}, ErrUserCode
	}
	if !errors.Is(err, found) {
		return Waiting{}, fmt.Errorf("find device: %w", err)
	}
	c, err := s.ClientFor(ctx, clientID, person.ID)
	if errors.Is(err, ErrNotFound) {
		return Waiting{}, ErrUserCode
	}
	return Waiting{Client: c, Sees: Request{Scopes: scopes}.Sees(c)}, err
}

// LetDeviceIn answers a waiting device with the person: once, while its code lives.
func (s *Service) LetDeviceIn(ctx context.Context, code string, person identity.Person) error {
	w, err := s.WaitingDevice(ctx, code, person)
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		now := s.now()
		var scopes []string
		err := tx.QueryRow(ctx, `
			with `+subjectSQL+`, `+sidSQL+`
			update identity.device_code d set state = 'approved', resident_id = @resident, session_id = @session,
				sub = subject.sub, sid = named_session.sid, acr = @acr, amr = @amr, signed_in_at = @signed_in
			from subject, named_session
			where d.user_code = @code and d.client_id = @client and d.state = 'waiting' and d.expires_at > @now
			returning d.scopes`,
			pgx.NamedArgs{
				"now": now, "new_sub": s.newSubject(w.Client.DepartmentID, person.ID), "department": w.Client.DepartmentID,
				"resident": person.ID, "session": person.SessionID, "client": w.Client.ID, "new_sid": id.Secret(),
				"acr": min(person.ACR, deviceACR), "amr": person.AMR, "signed_in": person.SignedInAt, "code": s.userCodeHash(code),
			}).Scan(&scopes)
		if isNone(err) {
			return ErrUserCode
		}
		if err != nil {
			return fmt.Errorf("let device in: %w", err)
		}
		if err := s.agree(ctx, tx, w.Client, person.ID, scopes); err != nil {
			return err
		}
		return audit.Record(ctx, tx, audit.Event{
			Action: "device.approved", ObjectType: "client", ObjectID: w.Client.ID, Subject: person.ID, At: now,
		})
	})
}

// SendDeviceAway answers a waiting device with no.
func (s *Service) SendDeviceAway(ctx context.Context, code string, person identity.Person) error {
	if _, err := s.WaitingDevice(ctx, code, person); err != nil {
		return err
	}
	_, err := s.db.Exec(ctx, `
		update identity.device_code set state = 'denied' where user_code = $1 and state = 'waiting' and expires_at > $2`,
		s.userCodeHash(code), s.now())
	if err != nil {
		return fmt.Errorf("send device away: %w", err)
	}
	return nil
}

// Poll is a device's question whether it was let in. It returns its tokens once, or an *Error with
// what to do instead.
func (s *Service) Poll(ctx context.Context, c Client, code, jkt string) (Tokens, error) {
	switch {
	case code == "":
		return Tokens{}, invalidRequest("device_code is missing")
	case !c.Device:
		return Tokens{}, unauthorizedClient()
	}
	t := s.newTokens(c, jkt)
	args := t.args(ctx, c)
	args["code"], args["resources"], args["issuer"], args["grant"] = id.Hash(code), []string{}, s.issuer, id.New()
	var g issued
	var refused *Error
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) (err error) {
		if refused, err = poll(ctx, tx, c, id.Hash(code), t.now); err != nil || refused != nil {
			return err // a refused question is remembered, too: the next one must not come too early
		}
		g, err = scanIssued(tx.QueryRow(ctx, deviceGrantSQL, args))
		return err
	})
	if isNone(err) { // the account was suspended in between
		return Tokens{}, invalidGrant()
	}
	if err != nil {
		return Tokens{}, fmt.Errorf("poll device code of %s: %w", c.ID, err)
	}
	if refused != nil {
		return Tokens{}, refused
	}
	return s.finish(ctx, c, t, g)
}

// poll spends an approved code, or says why not yet, or never.
func poll(ctx context.Context, tx pgx.Tx, c Client, hash []byte, now time.Time) (*Error, error) {
	var state string
	var early, expired bool
	err := tx.QueryRow(ctx, `
		update identity.device_code d set polled_at = $3,
			interval_seconds = case when o.early then d.interval_seconds + $4 else d.interval_seconds end,
			state = case when o.state = 'approved' and not o.early and o.expires_at > $3 then 'used' else d.state end
		from (
			select hash, state, expires_at, coalesce(polled_at + make_interval(secs => interval_seconds) > $3, false) as early
			from identity.device_code where hash = $1 and client_id = $2
			for update) o
		where d.hash = o.hash
		returning o.state, o.early, o.expires_at <= $3`, hash, c.ID, now, deviceInterval).Scan(&state, &early, &expired)
	switch {
	case isNone(err):
		return invalidGrant(), nil
	case err != nil:
		return nil, err
	case state == "used":
		return invalidGrant(), nil
	case expired:
		return &Error{"expired_token", "nobody answered in time"}, nil
	case early:
		return &Error{"slow_down", "ask less often: add five seconds"}, nil
	case state == "denied":
		return &Error{"access_denied", "the person said no"}, nil
	case state == "waiting":
		return &Error{"authorization_pending", "nobody has answered yet"}, nil
	}
	return nil, nil
}

// deviceGrantSQL makes the grant of a code that was just spent. It has no redirect address and no
// challenge, and lives as long as its access token.
const deviceGrantSQL = `
with g as (
	insert into identity.client_grant (id, client_id, resident_id, session_id, sid, sub, scopes, resources,
		acr, amr, signed_in_at, redirect_uri, code_hash, code_expires_at, code_used_at, created_at, ends_at)
	select @grant, d.client_id, d.resident_id, d.session_id, d.sid, d.sub, d.scopes, '{}'::text[],
		d.acr, d.amr, d.signed_in_at, '', d.hash, @now, @now, @now, @expires
	from identity.device_code d join identity.resident r on r.id = d.resident_id and r.state = 'active'
	where d.hash = @code
	returning *),
` + issueTokenSQL
