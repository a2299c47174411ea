package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"
	"github.com/jackc/pgx/v5"

	"guichet/internal/audit"
	"guichet/internal/id"
)

const (
	challengeLife = 5 * time.Minute
	maxPasskeys   = 20
)

// The purposes of a challenge.
const (
	purposeLogin    = "sign-in"
	purposeRegister = "register"
)

// ErrPasskey says that a passkey was not accepted: unknown here, for another site or
// another challenge, not signed as it must be. Which, the caller cannot tell.
var ErrPasskey = errors.New("the passkey was not accepted")

// ErrLastWay says that removing a factor would leave only the code by e-mail.
var ErrLastWay = errors.New("the last way in beside the code by e-mail")

// newPasskeys binds passkeys to the host of the service (WebAuthn calls it the RP ID)
// and takes them from pages of exactly its origin.
func newPasskeys(baseURL string) (*webauthn.WebAuthn, error) {
	u, err := url.Parse(baseURL)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("passkeys: base URL %q is no address", baseURL)
	}
	host := u.Hostname()
	if addr, err := netip.ParseAddr(host); err == nil && addr.IsLoopback() {
		host = "localhost" // no browser makes passkeys for a number
	}
	return webauthn.New(&webauthn.Config{
		RPID: host, RPDisplayName: "Guichet", RPOrigins: []string{u.Scheme + "://" + u.Host},
		AttestationPreference: protocol.PreferNoAttestation,
		AuthenticatorSelection: protocol.AuthenticatorSelection{
			ResidentKey: protocol.ResidentKeyRequirementRequired, UserVerification: protocol.VerificationRequired,
		},
		Timeouts: webauthn.TimeoutsConfig{
			Login:        webauthn.TimeoutConfig{Timeout: challengeLife},
			Registration: webauthn.TimeoutConfig{Timeout: challengeLife},
		},
		// Password managers add outputs that nobody asked for.
		ExtensionsUnsolicitedOutputPolicy: protocol.UnsolicitedOutputPolicyIgnore,
	})
}

// A Passkey is one, as its owner sees it.
type Passkey struct {
	ID        string
	Name      string
	Synced    bool // its owner's devices may share it
	CreatedAt time.Time
	UsedAt    *time.Time
	WarnedAt  *time.Time // its counter went back: it may have been copied
}

// owner is a resident in the eyes of the WebAuthn library.
type owner struct {
	handle      []byte
	name, email string
	credentials []webauthn.Credential
}

func (o owner) WebAuthnID() []byte                         { return o.handle }
func (o owner) WebAuthnName() string                       { return o.email }
func (o owner) WebAuthnDisplayName() string                { return o.name }
func (o owner) WebAuthnCredentials() []webauthn.Credential { return o.credentials }

// PasskeyOptions begins a sign-in by passkey: what the browser hands to
// navigator.credentials.get. Which person it will be is not known yet.
func (s *Service) PasskeyOptions(ctx context.Context, pendingID, browser string) (json.RawMessage, error) {
	if _, err := s.Pending(ctx, pendingID, browser); err != nil {
		return nil, err
	}
	options, ceremony, err := s.passkeys.BeginDiscoverableLogin()
	if err != nil {
		return nil, fmt.Errorf("begin a passkey sign-in: %w", err)
	}
	if err := s.keepChallenge(ctx, purposeLogin, pendingID+browser, ceremony); err != nil {
		return nil, fmt.Errorf("begin a passkey sign-in: %w", err)
	}
	return json.Marshal(options.Response)
}

// keepChallenge stores a ceremony for whoever holds the secret.
func (s *Service) keepChallenge(ctx context.Context, purpose, secret string, c *webauthn.SessionData) error {
	now := s.now()
	_, err := s.db.Exec(ctx, `
		insert into identity.challenge (hash, purpose, bound, ceremony, created_at, expires_at) values ($1, $2, $3, $4, $5, $6)`,
		id.Hash(c.Challenge), purpose, id.Hash(secret), c, now, now.Add(challengeLife))
	return err
}

// useChallenge spends a challenge, whatever comes of the ceremony.
func (s *Service) useChallenge(ctx context.Context, purpose, secret, challenge string) (webauthn.SessionData, error) {
	var c webauthn.SessionData
	err := s.db.QueryRow(ctx, `
		update identity.challenge set used_at = $4
		where hash = $1 and purpose = $2 and bound = $3 and used_at is null and expires_at > $4
		returning ceremony`, id.Hash(challenge), purpose, id.Hash(secret), s.now()).Scan(&c)
	if errors.Is(err, pgx.ErrNoRows) {
		return c, ErrPasskey
	}
	if err != nil {
		return c, fmt.Errorf("use challenge: %w", err)
	}
	return c, nil
}

// A PasskeyTry is the browser's answer to PasskeyOptions.
type PasskeyTry struct {
	Pending, Browser string
	Response         []byte // JSON of the PublicKeyCredential
	Session          string // the session token the browser holds, if any
	Visitor          Visitor
}

// TryPasskey signs in the owner of a passkey, at level 2. It returns ErrPasskey,
// ErrNoPending, ErrWrongStep or ErrSuspended, wrapped. No limit stands before it: nobody can
// lock an owner out.
func (s *Service) TryPasskey(ctx context.Context, t PasskeyTry) (SignedIn, error) {
	in, err := s.tryPasskey(ctx, t)
	if errors.Is(err, ErrPasskey) {
		s.NoteLimited(ctx, audit.Event{Action: "signin.failed", ObjectType: "sign-in", ObjectID: t.Pending}, t.Visitor)
	}
	if err != nil {
		return SignedIn{}, fmt.Errorf("try a passkey: %w", err)
	}
	return in, nil
}

func (s *Service) tryPasskey(ctx context.Context, t PasskeyTry) (SignedIn, error) {
	answer, err := protocol.ParseCredentialRequestResponseBytes(t.Response)
	if err != nil {
		return SignedIn{}, ErrPasskey
	}
	ceremony, err := s.useChallenge(ctx, purposeLogin, t.Pending+t.Browser, answer.Response.CollectedClientData.Challenge)
	if err != nil {
		return SignedIn{}, err
	}
	var in SignedIn
	var refused error // committed with its trace
	err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		p, err := s.lock(ctx, tx, t.Pending, t.Browser)
		if err != nil {
			return err
		}
		used, err := s.verify(ctx, tx, ceremony, answer)
		if err != nil {
			return err
		}
		if p.Step == StepFactor && p.ResidentID != used.resident || p.Step == StepProfile || p.Step == StepSignedIn {
			return ErrWrongStep
		}
		pr := proof{pending: p, resident: used.resident, factor: used.factor, session: t.Session, visitor: t.Visitor}
		if used.state != Active {
			refused = ErrSuspended
			return s.refuse(ctx, tx, pr)
		}
		in, err = s.advance(ctx, tx, pr)
		return err
	})
	if err == nil {
		err = refused
	}
	return in, err
}

// usedPasskey is whose passkey signed.
type usedPasskey struct {
	resident string
	state    State
	factor   Factor
}

// verify checks an assertion against the passkey it names, and notes its use.
func (s *Service) verify(ctx context.Context, tx pgx.Tx, ceremony webauthn.SessionData, answer *protocol.ParsedCredentialAssertionData) (usedPasskey, error) {
	var u usedPasskey
	var passkeyID string
	var o owner
	var c webauthn.Credential
	var count int64
	err := tx.QueryRow(ctx, `
		select k.id, k.handle, k.credential_id, k.public_key, k.sign_count, k.backup_eligible, r.id, r.state
		from identity.passkey k join identity.resident r on r.id = k.resident_id
		where k.credential_id = $1 for update of k`, answer.RawID).
		Scan(&passkeyID, &o.handle, &c.ID, &c.PublicKey, &count, &c.Flags.BackupEligible, &u.resident, &u.state)
	if errors.Is(err, pgx.ErrNoRows) {
		return u, ErrPasskey
	}
	if err != nil {
		return u, fmt.Errorf("read passkey: %w", err)
	}
	// Credentials that start to be synced change this flag. The library would refuse; we accept and note it.
	eligible := answer.Response.AuthenticatorData.Flags.HasBackupEligible()
	flipped := eligible != c.Flags.BackupEligible
	c.Flags.BackupEligible, c.Authenticator.SignCount = eligible, uint32(count)
	o.credentials = []webauthn.Credential{c}
	find := func(_, _ []byte) (webauthn.User, error) { return o, nil } // the library compares the handle
	_, done, err := s.passkeys.ValidatePasskeyLogin(find, ceremony, answer)
	if err != nil {
		return u, ErrPasskey
	}
	u.factor = FactorKey
	if eligible {
		u.factor = FactorPasskey
	}
	now := s.now()
	_, err = tx.Exec(ctx, `
		update identity.passkey set sign_count = $2, backup_eligible = $3, backed_up = $4, used_at = $5,
			warned_at = case when $6 then $5 else warned_at end
		where id = $1`, passkeyID, int64(done.Authenticator.SignCount), eligible, done.Flags.BackupState, now, done.Authenticator.CloneWarning)
	if err != nil {
		return u, fmt.Errorf("note use of passkey: %w", err)
	}
	if flipped {
		if err := s.recordFactor(ctx, tx, "factor.changed", u.resident, map[string]any{"factor": u.factor, "passkey": passkeyID, "backup_eligible": eligible}); err != nil {
			return u, err
		}
	}
	if done.Authenticator.CloneWarning {
		return u, s.warnOfClone(ctx, tx, u.resident, passkeyID)
	}
	return u, nil
}

// warnOfClone tells owner and audit that a passkey's counter went back. It still signs
// in: some authenticators count badly, and the owner must not be locked out.
func (s *Service) warnOfClone(ctx context.Context, tx pgx.Tx, residentID, passkeyID string) error {
	if err := s.recordFactor(ctx, tx, "passkey.clone_warning", residentID, map[string]any{"passkey": passkeyID}); err != nil {
		return err
	}
	return s.notify(ctx, tx, notice{resident: residentID, template: "passkey-warning", key: passkeyID})
}

// NewPasskeyOptions begins adding a passkey to a signed-in person's account: what the
// browser hands to navigator.credentials.create. It returns ErrStepUp unless they have proved enough.
func (s *Service) NewPasskeyOptions(ctx context.Context, p Person) (json.RawMessage, error) {
	if err := s.mayAddFactor(ctx, s.db, p); err != nil {
		return nil, err
	}
	o := owner{handle: s.keyed("passkey-handle", p.ID), name: p.Name, email: p.Email}
	var err error
	if o.credentials, err = s.credentials(ctx, p.ID); err != nil {
		return nil, err
	}
	options, ceremony, err := s.passkeys.BeginRegistration(o, webauthn.WithExclusions(webauthn.Credentials(o.credentials).CredentialDescriptors()))
	if err != nil {
		return nil, fmt.Errorf("begin adding a passkey: %w", err)
	}
	if err := s.keepChallenge(ctx, purposeRegister, p.SessionID, ceremony); err != nil {
		return nil, fmt.Errorf("begin adding a passkey: %w", err)
	}
	return json.Marshal(options.Response)
}

func (s *Service) credentials(ctx context.Context, residentID string) ([]webauthn.Credential, error) {
	rows, err := s.db.Query(ctx, `
		select credential_id, transports from identity.passkey where resident_id = $1 order by created_at, id limit $2`, residentID, maxPasskeys)
	if err != nil {
		return nil, fmt.Errorf("list passkeys: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (webauthn.Credential, error) {
		var c webauthn.Credential
		err := row.Scan(&c.ID, &c.Transport)
		return c, err
	})
}

// A NewPasskey is the browser's answer to NewPasskeyOptions.
type NewPasskey struct {
	Name     string // as typed; empty: the device
	Response []byte
	Token    string // of the session
	Visitor  Visitor
}

// AddPasskey keeps a passkey. Making it was a proof of level 2, so the session gets a
// new token, which is returned. It returns ErrPasskey, ErrStepUp or ErrBadName, wrapped.
func (s *Service) AddPasskey(ctx context.Context, p Person, n NewPasskey) (token string, err error) {
	name, err := ParseName(n.Name)
	if strings.TrimSpace(n.Name) == "" {
		name, err = n.Visitor.Device, nil
	}
	if err != nil {
		return "", fmt.Errorf("add a passkey: %w", err)
	}
	answer, err := protocol.ParseCredentialCreationResponseBytes(n.Response)
	if err != nil {
		return "", fmt.Errorf("add a passkey: %w", ErrPasskey)
	}
	ceremony, err := s.useChallenge(ctx, purposeRegister, p.SessionID, answer.Response.CollectedClientData.Challenge)
	if err != nil {
		return "", fmt.Errorf("add a passkey: %w", err)
	}
	handle := s.keyed("passkey-handle", p.ID)
	made, err := s.passkeys.CreateCredential(owner{handle: handle}, ceremony, answer)
	if err != nil {
		return "", fmt.Errorf("add a passkey: %w", ErrPasskey)
	}
	err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		if err := s.mayAddFactor(ctx, tx, p); err != nil {
			return err
		}
		passkeyID := id.New()
		if err := s.keepPasskey(ctx, tx, passkeyID, p.ID, handle, name, made); err != nil {
			return err
		}
		factor := FactorKey
		if made.Flags.BackupEligible {
			factor = FactorPasskey
		}
		token, err = s.strengthen(ctx, tx, p, n.Token, factor, n.Visitor)
		if err != nil {
			return err
		}
		return s.factorAdded(ctx, tx, p, factor, passkeyID, n.Visitor)
	})
	if err != nil {
		return "", fmt.Errorf("add a passkey: %w", err)
	}
	return token, nil
}

func (s *Service) keepPasskey(ctx context.Context, tx pgx.Tx, passkeyID, residentID string, handle []byte, name string, c *webauthn.Credential) error {
	key, err := s.keyOf(ctx, tx, residentID)
	if err != nil {
		return err
	}
	transports := []string{}
	for _, t := range c.Transport {
		transports = append(transports, string(t))
	}
	tag, err := tx.Exec(ctx, `
		insert into identity.passkey (id, resident_id, handle, credential_id, public_key, sign_count, backup_eligible, backed_up, transports, name, created_at)
		select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11
		where (select count(*) from identity.passkey where resident_id = $2) < $12
		on conflict (credential_id) do nothing`,
		passkeyID, residentID, handle, c.ID, c.PublicKey, int64(c.Authenticator.SignCount), c.Flags.BackupEligible, c.Flags.BackupState,
		transports, key.Seal([]byte(name), []byte("passkey:"+passkeyID)), s.now(), maxPasskeys)
	if err != nil {
		return fmt.Errorf("store passkey: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return ErrPasskey
	}
	return nil
}

// Passkeys lists a resident's passkeys, the oldest first.
func (s *Service) Passkeys(ctx context.Context, residentID string) ([]Passkey, error) {
	key, err := s.keyOf(ctx, s.db, residentID)
	if err != nil {
		return nil, fmt.Errorf("list passkeys: %w", err)
	}
	rows, err := s.db.Query(ctx, `
		select id, name, backup_eligible, created_at, used_at, warned_at from identity.passkey
		where resident_id = $1 order by created_at, id limit $2`, residentID, maxPasskeys)
	if err != nil {
		return nil, fmt.Errorf("list passkeys: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (Passkey, error) {
		var k Passkey
		var box []byte
		if err := row.Scan(&k.ID, &box, &k.Synced, &k.CreatedAt, &k.UsedAt, &k.WarnedAt); err != nil {
			return k, err
		}
		name, err := key.Open(box, []byte("passkey:"+k.ID))
		k.Name = string(name)
		return k, err
	})
}

// RenamePasskey gives a passkey of the person another name. It returns ErrBadName or
// ErrNotFound, wrapped.
func (s *Service) RenamePasskey(ctx context.Context, p Person, passkeyID, name string) error {
	name, err := ParseName(name)
	if err == nil && !id.Valid(passkeyID) {
		err = ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("rename a passkey: %w", err)
	}
	return pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		key, err := s.keyOf(ctx, tx, p.ID)
		if err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, `update identity.passkey set name = $3 where id = $1 and resident_id = $2`,
			passkeyID, p.ID, key.Seal([]byte(name), []byte("passkey:"+passkeyID)))
		if err == nil && tag.RowsAffected() == 0 {
			err = ErrNotFound
		}
		if err != nil {
			return fmt.Errorf("rename a passkey: %w", err)
		}
		return nil
	})
}

// RemovePasskey takes a passkey away. When nothing but the code by e-mail would remain
// it returns ErrLastWay, unless the person has said that they know. It returns ErrStepUp unless level 2 is fresh.
func (s *Service) RemovePasskey(ctx context.Context, p Person, passkeyID string, knowing bool, v Visitor) error {
	return s.removeFactor(ctx, p, knowing, v, FactorPasskey, func(tx pgx.Tx) (bool, error) {
		if !id.Valid(passkeyID) {
			return false, nil
		}
		tag, err := tx.Exec(ctx, `delete from identity.passkey where id = $1 and resident_id = $2`, passkeyID, p.ID)
		return tag.RowsAffected() == 1, err
	})
}

// ErrStepUp says that a deed needs a more recent or a stronger proof.
var ErrStepUp = errors.New("a stronger or more recent proof is needed")

// mayAddFactor lets a person add a factor: with a fresh proof of level 2, or for the
// first one with any recent proof. Otherwise an unattended browser would be enough to
// take an account over for good.
func (s *Service) mayAddFactor(ctx context.Context, q Querier, p Person) error {
	has, err := s.factors(ctx, q, p.ID)
	if err != nil {
		return err
	}
	if has.Strong() && !p.Fresh(s.now()) || !p.ProvedRecently(s.now()) {
		return ErrStepUp
	}
	return nil
}

// MayAddFactor reports whether the person has proved enough to add a factor.
func (s *Service) MayAddFactor(ctx context.Context, p Person) (bool, error) {
	err := s.mayAddFactor(ctx, s.db, p)
	if errors.Is(err, ErrStepUp) {
		return false, nil
	}
	return err == nil, err
}

// strengthen adds a factor just proved to the session of a token, which is replaced.
func (s *Service) strengthen(ctx context.Context, tx pgx.Tx, p Person, token string, f Factor, v Visitor) (string, error) {
	by, err := s.held(ctx, tx, token, p.ID)
	if err != nil {
		return "", err
	}
	if by == nil {
		return "", ErrNoSession
	}
	by[f] = s.now()
	fresh := id.Secret()
	_, _, err = s.openSession(ctx, tx, session{resident: p.ID, old: token, fresh: fresh, visitor: v, proofs: by})
	return fresh, err
}

// factorAdded writes the audit and tells the person.
func (s *Service) factorAdded(ctx context.Context, tx pgx.Tx, p Person, f Factor, key string, v Visitor) error {
	if err := s.recordFactor(ctx, tx, "factor.added", p.ID, map[string]any{"factor": f, "session": p.SessionID, "network": v.Network, "device": v.Device}); err != nil {
		return err
	}
	return s.notify(ctx, tx, notice{resident: p.ID, template: "factor-added", key: key, data: map[string]string{"factor": factorWord(f), "device": v.Device}})
}

// removeFactor takes a factor away with del, which reports whether it was there.
func (s *Service) removeFactor(ctx context.Context, p Person, knowing bool, v Visitor, f Factor, del func(pgx.Tx) (bool, error)) error {
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		if !p.Fresh(s.now()) {
			return ErrStepUp
		}
		// Two removals at once must not each believe that the other factor stays.
		if _, err := tx.Exec(ctx, `select from identity.resident where id = $1 for update`, p.ID); err != nil {
			return err
		}
		found, err := del(tx)
		if err != nil {
			return err
		}
		if !found {
			return ErrNotFound
		}
		left, err := s.factors(ctx, tx, p.ID)
		if err != nil {
			return err
		}
		if !left.Strong() && !knowing {
			return ErrLastWay
		}
		if err := s.recordFactor(ctx, tx, "factor.removed", p.ID, map[string]any{"factor": f, "session": p.SessionID, "network": v.Network, "device": v.Device}); err != nil {
			return err
		}
		return s.notify(ctx, tx, notice{resident: p.ID, template: "factor-removed", key: id.New(), data: map[string]string{"factor": factorWord(f), "device": v.Device}})
	})
	if err != nil {
		return fmt.Errorf("remove %s: %w", f, err)
	}
	return nil
}

// factorWord is the word by which mail templates tell factors apart.
func factorWord(f Factor) string {
	if slices.Contains([]Factor{FactorPasskey, FactorKey}, f) {
		return "passkey"
	}
	return "app"
}
