package identity

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/id"
)

// A Step is where a sign-in in progress stands.
type Step string

const (
	StepEmail    Step = "email"     // which address?
	StepCode     Step = "code"      // a code is on its way
	StepFactor   Step = "factor"    // one factor is proved, a second one is missing
	StepProfile  Step = "profile"   // the address is proved and new here: who are you?
	StepSignedIn Step = "signed-in" // proved; the department's application is still to be answered
	StepDone     Step = "done"      // answered: a tombstone
)

// nextSteps is the state machine of a pending sign-in. A new address or a new code
// goes back to StepCode.
var nextSteps = map[Step][]Step{
	StepEmail:    {StepCode, StepFactor, StepSignedIn, StepDone},
	StepCode:     {StepCode, StepFactor, StepProfile, StepSignedIn, StepDone},
	StepFactor:   {StepFactor, StepSignedIn, StepDone},
	StepProfile:  {StepFactor, StepSignedIn, StepDone},
	StepSignedIn: {StepDone},
}

// pendingLife is how long a step may take; pendingMax how long all of them together.
const (
	pendingLife = 10 * time.Minute
	pendingMax  = time.Hour
)

// ErrNoPending says that there is no such sign-in, that it ended, or that it belongs
// to another browser. The caller cannot tell which: that is the point.
var ErrNoPending = errors.New("no such sign-in in this browser")

// ErrWrongStep says that a sign-in stands elsewhere than the caller believes.
var ErrWrongStep = errors.New("the sign-in is at another step")

// A Pending is a sign-in in progress, bound to the browser that began it.
type Pending struct {
	ID         string
	Step       Step
	Request    []byte // the authorize request, opaque here; nil for Guichet itself
	Service    string // the client that asked; empty for Guichet itself
	ReturnPath string // where to go when there is no request
	Email      string // as typed, or as the client suggested
	ResidentID string // from StepFactor on
	WantACR    int    // the level the person must reach; 0: any
	CreatedAt  time.Time
	proved     proofs
	mergeInto  string
	expiresAt  time.Time
	lookup     []byte
	codeID     *string
}

// NewPending is what a sign-in begins with. ResidentID is set when the person is
// signed in already, and only the department's question is open or, with StepUp, only a
// second factor is missing.
type NewPending struct {
	Request    []byte
	Service    string
	ReturnPath string
	EmailHint  string // pre-fills the form; ignored when it is no address
	ResidentID string
	StepUp     bool
	MergeInto  string // the person proves a second account, to make it part of this one
	WantACR    int
	Visitor    Visitor
}

// Begin starts a sign-in for the browser that holds the given secret ("" for none)
// and returns the secret to keep in its cookie: the same one while another sign-in of
// that browser is open, so that two tabs do not disturb each other, else a new one. How
// many sign-ins one network begins is limited: each is a row that nobody has paid for yet
// with a proof. It returns a *LimitedError then, wrapped.
func (s *Service) Begin(ctx context.Context, n NewPending, browser string) (Pending, string, error) {
	now := s.now()
	p := Pending{
		ID: id.New(), Step: StepEmail, Request: n.Request, Service: n.Service, ReturnPath: n.ReturnPath,
		ResidentID: n.ResidentID, WantACR: n.WantACR, CreatedAt: now, expiresAt: now.Add(pendingLife),
	}
	var residentID *string
	if n.ResidentID != "" {
		p.Step, residentID = StepSignedIn, &n.ResidentID
		if n.StepUp {
			p.Step = StepFactor
		}
	}
	var box []byte
	if email, err := ParseEmail(n.EmailHint); err == nil {
		p.Email = email
		box = s.master.Seal([]byte(email), []byte("pending:"+p.ID))
	}
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		if err := s.Take(ctx, tx, "signin-network", n.Visitor.Network, s.limits.SignInNetwork); err != nil {
			return err
		}
		var known bool
		err := tx.QueryRow(ctx, `
			select exists (select from identity.pending where browser = $1 and expires_at > $2 and step <> 'done')`,
			id.Hash(browser), now).Scan(&known)
		if err != nil {
			return err
		}
		if !known {
			browser = id.Secret()
		}
		_, err = tx.Exec(ctx, `
			insert into identity.pending
				(id, browser, step, request, service, return_path, email, resident_id, want_acr, merge_into, created_at, expires_at)
			values ($1, $2, $3, $4, $5, $6, $7, $8, $9, nullif($10, '')::uuid, $11, $12)`,
			p.ID, id.Hash(browser), p.Step, p.Request, p.Service, p.ReturnPath, box, residentID, p.WantACR, n.MergeInto, now, p.expiresAt)
		return err
	})
	if err != nil {
		return Pending{}, "", fmt.Errorf("begin sign-in: %w", err)
	}
	return p, browser, nil
}

// Pending reads the sign-in with this id if this browser began it.
func (s *Service) Pending(ctx context.Context, pendingID, browser string) (Pending, error) {
	return s.pending(ctx, s.db, pendingSQL, pendingID, browser)
}

// lock reads the sign-in like Pending and holds its row until the transaction ends:
// two clicks take turns.
func (s *Service) lock(ctx context.Context, tx pgx.Tx, pendingID, browser string) (Pending, error) {
	return s.pending(ctx, tx, lockPendingSQL, pendingID, browser)
}

func (s *Service) pending(ctx context.Context, q Querier, sql, pendingID, browser string) (Pending, error) {
	if !id.Valid(pendingID) || browser == "" {
		return Pending{}, ErrNoPending
	}
	p := Pending{ID: pendingID}
	var box []byte
	var residentID *string
	err := q.QueryRow(ctx, sql, pendingID, id.Hash(browser), s.now()).
		Scan(&p.Step, &p.Request, &p.Service, &p.ReturnPath, &box, &p.lookup, &p.codeID, &residentID,
			&p.WantACR, &p.proved, &p.mergeInto, &p.CreatedAt, &p.expiresAt)
	if errors.Is(err, pgx.ErrNoRows) {
		return Pending{}, ErrNoPending
	}
	if err != nil {
		return Pending{}, fmt.Errorf("read sign-in %s: %w", pendingID, err)
	}
	if residentID != nil {
		p.ResidentID = *residentID
	}
	if box != nil {
		email, err := s.master.Open(box, []byte("pending:"+p.ID))
		if err != nil {
			return Pending{}, fmt.Errorf("open address of sign-in %s: %w", pendingID, err)
		}
		p.Email = string(email)
	}
	return p, nil
}

const (
	pendingSQL = `
select step, request, service, return_path, email, email_lookup, code_id, resident_id, want_acr, proved, coalesce(merge_into::text, ''), created_at, expires_at
from identity.pending
where id = $1 and browser = $2 and expires_at > $3 and step <> 'done'`
	lockPendingSQL = pendingSQL + " for update"
)

// move writes p with its new step, which gets the time of a step again.
func (s *Service) move(ctx context.Context, tx pgx.Tx, p *Pending, to Step) error {
	if !slices.Contains(nextSteps[p.Step], to) {
		return fmt.Errorf("sign-in %s from %s to %s: %w", p.ID, p.Step, to, ErrWrongStep)
	}
	p.Step, p.expiresAt = to, s.now().Add(pendingLife)
	if end := p.CreatedAt.Add(pendingMax); p.expiresAt.After(end) {
		p.expiresAt = end
	}
	var box []byte
	if p.Email != "" && to != StepDone {
		box = s.master.Seal([]byte(p.Email), []byte("pending:"+p.ID))
	}
	var residentID *string
	if p.ResidentID != "" {
		residentID = &p.ResidentID
	}
	_, err := tx.Exec(ctx, `
		update identity.pending
		set step = $2, email = $3, email_lookup = $4, code_id = $5, resident_id = $6, proved = $7, expires_at = $8, return_path = $9
		where id = $1`, p.ID, p.Step, box, p.lookup, p.codeID, residentID, orEmpty(p.proved), p.expiresAt, p.ReturnPath)
	if err != nil {
		return fmt.Errorf("move sign-in %s to %s: %w", p.ID, to, err)
	}
	return nil
}

// Finish ends a sign-in in the caller's transaction and returns it as it stood. Only
// one caller gets it: the row stays as a tombstone.
func (s *Service) Finish(ctx context.Context, tx pgx.Tx, pendingID, browser string) (Pending, error) {
	p, err := s.lock(ctx, tx, pendingID, browser)
	if err != nil {
		return Pending{}, err
	}
	was := p
	if err := s.move(ctx, tx, &p, StepDone); err != nil {
		return Pending{}, err
	}
	return was, nil
}
