package identity

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"embed"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/crypto/argon2"

	"guichet/internal/audit"
	"guichet/internal/id"
	"guichet/internal/mail"
)

const (
	codeLife  = 10 * time.Minute
	codeTries = 5
)

// The purposes of codes. One lives per browser or session and purpose.
const (
	purposeSignIn   = "signin"
	purposeNewEmail = "new-email" // to an address that a signed-in person adds
	purposeOldEmail = "old-email" // to the main address, before another takes its place
)

// MailTemplates holds this package's mails for internal/mail.
//
//go:embed mailtext/*.txt
var MailTemplates embed.FS

// ErrCodeDead says that no code of this sign-in is alive: used, too old, replaced, or
// tried too often. A new one helps.
var ErrCodeDead = errors.New("the code is no longer valid")

// A WrongCodeError says how many tries the code has left.
type WrongCodeError struct{ Left int }

func (e *WrongCodeError) Error() string { return "wrong code, tries left: " + strconv.Itoa(e.Left) }

// A CodeRequest asks for a code by e-mail.
type CodeRequest struct {
	Pending, Browser string
	Email            string // as typed
	Lang             string // of the mail
	Service          string // named in the mail, in its language
	Visitor          Visitor
}

// AskCode mails a code for the sign-in, whether or not the address has an account: the
// statements, the mail and the answer are the same. It returns ErrBadEmail,
// ErrNoPending, ErrWrongStep or a *LimitedError, wrapped.
func (s *Service) AskCode(ctx context.Context, r CodeRequest) error {
	email, err := ParseEmail(r.Email)
	if err != nil {
		return fmt.Errorf("ask for a code: %w", err)
	}
	err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		p, err := s.lock(ctx, tx, r.Pending, r.Browser)
		if err != nil {
			return err
		}
		lookup := s.emailLookup(email)
		if err := s.takeForCode(ctx, tx, lookup, r.Visitor); err != nil {
			return err
		}
		subject, _, err := s.residentByEmail(ctx, tx, lookup)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		codeID, code, err := s.putCode(ctx, tx, purposeSignIn, r.Browser, email)
		if err != nil {
			return err
		}
		p.Email, p.lookup, p.codeID = email, lookup, &codeID
		if err := s.move(ctx, tx, &p, StepCode); err != nil {
			return err
		}
		if err := s.sendCode(ctx, tx, r, codeID, code); err != nil {
			return err
		}
		return audit.Record(ctx, tx, audit.Event{
			Action: "code.sent", ObjectType: "sign-in", ObjectID: p.ID, Subject: subject, At: s.now(),
			Details: map[string]any{"purpose": purposeSignIn, "client": p.Service, "network": r.Visitor.Network, "device": r.Visitor.Device},
		})
	})
	if err != nil {
		if errors.As(err, new(*LimitedError)) {
			s.NoteLimited(ctx, audit.Event{Action: "code.limited", ObjectType: "sign-in", ObjectID: r.Pending}, r.Visitor)
		}
		return fmt.Errorf("ask for a code: %w", err)
	}
	return nil
}

// putCode stores a new code to an address, in the place of the one before. It is bound to
// whoever holds a secret: the browser of a sign-in, or a session.
func (s *Service) putCode(ctx context.Context, tx pgx.Tx, purpose, secret, email string) (codeID, code string, err error) {
	// The hash is slow on purpose: it comes after the limits, so that nobody can have it
	// computed for nothing, and there are never more of them at once than connections.
	code, salt := newCode()
	hash := hashCode(code, salt)
	codeID, now := id.New(), s.now()
	// One live code per browser and purpose, not per address: a stranger who asks for
	// codes to an address must not kill the one its owner is typing.
	_, err = tx.Exec(ctx, `
		update identity.email_code set replaced_at = $3
		where browser = $1 and purpose = $2 and used_at is null and replaced_at is null`,
		id.Hash(secret), purpose, now)
	if err != nil {
		return "", "", fmt.Errorf("replace code: %w", err)
	}
	_, err = tx.Exec(ctx, `
		insert into identity.email_code (id, purpose, browser, lookup, email, salt, hash, created_at, expires_at)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		codeID, purpose, id.Hash(secret), s.emailLookup(email), s.master.Seal([]byte(email), []byte("code:"+codeID)),
		salt, hash, now, now.Add(codeLife))
	if err != nil {
		return "", "", fmt.Errorf("store code: %w", err)
	}
	return codeID, code, nil
}

// takeForCode always locks buckets in this order: network, address from the network,
// address, address again.
func (s *Service) takeForCode(ctx context.Context, tx pgx.Tx, lookup []byte, v Visitor) error {
	if err := s.Take(ctx, tx, "code-network", v.Network, s.limits.CodeNetwork); err != nil {
		return err
	}
	if err := s.Take(ctx, tx, "code-address", v.Network+"\x00"+string(lookup), s.limits.CodeAddress); err != nil {
		return err
	}
	if err := s.Take(ctx, tx, "code-total", string(lookup), s.limits.CodeTotal); err != nil {
		return err
	}
	return s.Take(ctx, tx, "code-again", string(lookup), s.limits.CodeAgain)
}

func (s *Service) sendCode(ctx context.Context, tx pgx.Tx, r CodeRequest, codeID, code string) error {
	err := s.mail.Enqueue(ctx, tx, mail.Message{
		Key: "signin-code/" + codeID, To: "code:" + codeID, Lang: r.Lang, Template: "signin-code",
		Data: map[string]string{
			"code": code[:4] + " " + code[4:], "minutes": strconv.Itoa(int(codeLife.Minutes())),
			"service": r.Service, "device": r.Visitor.Device,
		},
	})
	if err != nil {
		return fmt.Errorf("queue the mail: %w", err)
	}
	return nil
}

// codeEmail returns the address a code goes to while the code is alive: mail that
// was held up longer than that is of no use to anybody.
func (s *Service) codeEmail(ctx context.Context, codeID string) (string, error) {
	var box []byte
	err := s.db.QueryRow(ctx, `
		select email from identity.email_code
		where id = $1 and used_at is null and replaced_at is null and expires_at > $2`, codeID, s.now()).Scan(&box)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", ErrNotFound
	}
	if err != nil {
		return "", err
	}
	email, err := s.master.Open(box, []byte("code:"+codeID))
	return string(email), err
}

// A CodeTry is a code as typed.
type CodeTry struct {
	Pending, Browser string
	Code             string
	Session          string // the session token the browser holds, if any
	Visitor          Visitor
}

// SignedIn is the outcome of a proof. Token is empty when the person is new and has
// to say who they are first (Register), or when a code of their authenticator app is
// still to come.
type SignedIn struct {
	Token      string
	ResidentID string
	Pending    Pending
}

// TryCode compares a code, and signs the person in when it is right. It returns
// ErrNoPending, ErrWrongStep, ErrCodeDead, ErrSuspended, a *WrongCodeError or a *LimitedError, wrapped.
func (s *Service) TryCode(ctx context.Context, t CodeTry) (SignedIn, error) {
	in, err := s.tryCode(ctx, t)
	if err != nil {
		return SignedIn{}, fmt.Errorf("try a code: %w", err)
	}
	return in, nil
}

func (s *Service) tryCode(ctx context.Context, t CodeTry) (SignedIn, error) {
	try, err := s.takeTry(ctx, t)
	if errors.As(err, new(*LimitedError)) {
		s.NoteLimited(ctx, audit.Event{Action: "signin.limited", ObjectType: "sign-in", ObjectID: t.Pending}, t.Visitor)
	}
	if err != nil {
		return SignedIn{}, err
	}
	typed := digits(t.Code)
	factor := FactorEmail
	if subtle.ConstantTimeCompare(hashCode(typed, try.salt), try.hash) != 1 {
		factor = FactorCounter // or wrong
	}
	var fromCounter bool
	if factor == FactorCounter {
		err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) (err error) {
			fromCounter, err = s.useCounterCode(ctx, tx, try.lookup, t.Code)
			return err
		})
		if err != nil {
			return SignedIn{}, err
		}
	}
	if factor == FactorCounter && !fromCounter {
		if err := s.codeFailed(ctx, t, try); err != nil {
			return SignedIn{}, err
		}
		return SignedIn{}, &WrongCodeError{Left: codeTries - try.tries}
	}
	var in SignedIn
	var refused error // committed with its trace
	err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		p, err := s.lock(ctx, tx, t.Pending, t.Browser)
		if err != nil {
			return err
		}
		if err := s.consume(ctx, tx, try.codeID); err != nil {
			return err
		}
		residentID, state, err := s.residentByEmail(ctx, tx, p.lookup)
		if errors.Is(err, ErrNotFound) {
			in.Pending = p
			return s.move(ctx, tx, &in.Pending, StepProfile)
		}
		if err != nil {
			return err
		}
		pr := proof{pending: p, resident: residentID, factor: factor, session: t.Session, visitor: t.Visitor}
		if state != Active {
			refused = ErrSuspended
			return s.refuse(ctx, tx, pr)
		}
		// The code arrived, whatever came back before.
		if _, err := tx.Exec(ctx, `update identity.email set bounced = '' where lookup = $1 and bounced <> ''`, p.lookup); err != nil {
			return err
		}
		in, err = s.advance(ctx, tx, pr)
		return err
	})
	if err == nil {
		err = refused
	}
	if err != nil {
		return SignedIn{}, err
	}
	return in, nil
}

// aTry is one of the five tries of a code, already counted.
type aTry struct {
	codeID, subject string
	salt, hash      []byte
	lookup          []byte
	tries           int
}

// takeTry counts the try before the code is compared: guesses made at the same
// moment cannot share one.
func (s *Service) takeTry(ctx context.Context, t CodeTry) (aTry, error) {
	var try aTry
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		p, err := s.lock(ctx, tx, t.Pending, t.Browser)
		if err != nil {
			return err
		}
		if p.Step != StepCode || p.codeID == nil {
			return ErrWrongStep
		}
		if err := s.Take(ctx, tx, "try-network", t.Visitor.Network, s.limits.TryNetwork); err != nil {
			return err
		}
		if err := s.Take(ctx, tx, "try-address", t.Visitor.Network+"\x00"+string(p.lookup), s.limits.TryAddress); err != nil {
			return err
		}
		try.codeID, try.lookup = *p.codeID, p.lookup
		try.subject, _, err = s.residentByEmail(ctx, tx, p.lookup)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		err = tx.QueryRow(ctx, `
			update identity.email_code set tries = tries + 1
			where id = $1 and browser = $2 and lookup = $3 and tries < $4
				and used_at is null and replaced_at is null and expires_at > $5
			returning salt, hash, tries`,
			try.codeID, id.Hash(t.Browser), p.lookup, codeTries, s.now()).Scan(&try.salt, &try.hash, &try.tries)
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrCodeDead
		}
		return err
	})
	return try, err
}

// consume uses the code up; of two right tries at the same moment one gets it.
func (s *Service) consume(ctx context.Context, tx pgx.Tx, codeID string) error {
	var used string
	err := tx.QueryRow(ctx, `
		update identity.email_code set used_at = $2
		where id = $1 and used_at is null and replaced_at is null and expires_at > $2
		returning id`, codeID, s.now()).Scan(&used)
	if errors.Is(err, pgx.ErrNoRows) {
		return ErrCodeDead
	}
	return err
}

func (s *Service) codeFailed(ctx context.Context, t CodeTry, try aTry) error {
	return pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		if try.subject != "" {
			if err := s.remember(ctx, tx, signin{resident: try.subject, way: string(FactorEmail), outcome: "failed", visitor: t.Visitor}); err != nil {
				return err
			}
		}
		return audit.Record(ctx, tx, audit.Event{
			Action: "signin.failed", ObjectType: "sign-in", ObjectID: t.Pending, Subject: try.subject, At: s.now(),
			Details: map[string]any{"way": FactorEmail, "try": try.tries, "network": t.Visitor.Network, "device": t.Visitor.Device},
		})
	})
}

// A Registration is what a new person says about themselves.
type Registration struct {
	Pending, Browser string
	Name             string // as typed
	Lang             string
	Session          string // the session token the browser holds, if any
	Visitor          Visitor
}

// Register makes the account of the person who has just proved an address, and signs
// them in. If the address got an account meanwhile (a second tab), that one is signed
// in: the proof is the same. It returns ErrBadName, ErrNoPending, ErrWrongStep or ErrSuspended, wrapped.
func (s *Service) Register(ctx context.Context, r Registration) (SignedIn, error) {
	name, err := ParseName(r.Name)
	if err != nil {
		return SignedIn{}, fmt.Errorf("register: %w", err)
	}
	if r.Lang != "fr" {
		r.Lang = "en"
	}
	var in SignedIn
	var refused error
	err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		p, err := s.lock(ctx, tx, r.Pending, r.Browser)
		if err != nil {
			return err
		}
		if p.Step != StepProfile {
			return ErrWrongStep
		}
		// Two browsers with the same new address take turns here: the lock is the address.
		if _, err := tx.Exec(ctx, `select pg_advisory_xact_lock(hashtextextended(encode($1, 'hex'), 6))`, p.lookup); err != nil {
			return err
		}
		residentID, state, err := s.residentByEmail(ctx, tx, p.lookup)
		if errors.Is(err, ErrNotFound) {
			state = Active
			residentID, err = s.create(ctx, tx, name, r.Lang, p.Email)
			if err == nil {
				err = audit.Record(ctx, tx, audit.Event{
					Action: "account.created", ObjectType: "resident", ObjectID: residentID, Subject: residentID, At: s.now(),
				})
			}
		}
		if err != nil {
			return err
		}
		pr := proof{pending: p, resident: residentID, factor: FactorEmail, session: r.Session, visitor: r.Visitor}
		if state != Active {
			refused = ErrSuspended
			return s.refuse(ctx, tx, pr)
		}
		in, err = s.advance(ctx, tx, pr)
		return err
	})
	if err == nil {
		err = refused
	}
	if err != nil {
		return SignedIn{}, fmt.Errorf("register: %w", err)
	}
	return in, nil
}

// newCode returns 8 digits, not letters: they are read off one screen and typed on another.
func newCode() (code string, salt []byte) {
	n, err := rand.Int(rand.Reader, big.NewInt(100_000_000))
	if err != nil {
		panic(fmt.Sprintf("crypto/rand: %v", err)) // documented never to happen
	}
	salt = make([]byte, 16)
	rand.Read(salt)
	return fmt.Sprintf("%08d", n), salt
}

// hashCode is Argon2id with OWASP's second recommendation (19 MiB, 2 passes): 10^8 codes
// would fall to a fast hash in a second.
func hashCode(code string, salt []byte) []byte {
	return argon2.IDKey([]byte(code), salt, 2, 19*1024, 1, 32)
}
