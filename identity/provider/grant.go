package provider

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/identity"
	"guichet/internal/audit"
	"guichet/internal/id"
)

const codeLife = 60 * time.Second

// ErrOtherPerson says that the person who signed in is not the one in this browser's session any more.
var ErrOtherPerson = errors.New("the sign-in belongs to another session")

// Issue answers a request of a person who is signed in and has been told.
func (s *Service) Issue(ctx context.Context, c Client, r Request, person identity.Person) (Reply, error) {
	var reply Reply
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) (err error) {
		reply, err = s.issue(ctx, tx, c, r, person)
		return err
	})
	if err != nil {
		return Reply{}, fmt.Errorf("issue code for %s: %w", c.ID, err)
	}
	return reply, nil
}

// A Finish is the end of a pending sign-in that a client asked for.
type Finish struct {
	Pending, Browser string
	Person           identity.Person
	// Agreed are the scopes left ticked on the page; nil when there was no page.
	Agreed []string
}

// Finish ends the pending sign-in and answers its request: once, and only for the
// person who signed in, or was signed in, for it.
func (s *Service) Finish(ctx context.Context, f Finish) (Reply, error) {
	var reply Reply
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		p, err := s.people.Finish(ctx, tx, f.Pending, f.Browser)
		if err != nil {
			return err
		}
		if p.Step != identity.StepSignedIn || p.ResidentID != f.Person.ID {
			return ErrOtherPerson
		}
		r, err := Unpack(p.Request)
		if err != nil {
			return err
		}
		c, err := client(ctx, tx, r.ClientID)
		if err != nil {
			return err
		}
		if f.Agreed != nil {
			r.Scopes = c.agreed(r.Scopes, f.Agreed)
			if err := s.agree(ctx, tx, c, f.Person.ID, r.Scopes); err != nil {
				return err
			}
		}
		reply, err = s.issue(ctx, tx, c, r, f.Person)
		return err
	})
	if err != nil {
		return Reply{}, fmt.Errorf("finish sign-in: %w", err)
	}
	return reply, nil
}

// agreed returns what of the asked scopes the person left ticked. A notice has no
// boxes: everything asked is granted.
func (c Client) agreed(asked, ticked []string) []string {
	if c.FirstParty {
		return asked
	}
	return slices.DeleteFunc(slices.Clone(asked), func(scope string) bool {
		return scope != ScopeOpenID && !slices.Contains(ticked, scope)
	})
}

// Denied is the answer when the person goes back without signing in or agreeing.
func Denied() *Error { return &Error{"access_denied", "the person went back"} }

// Fail ends the pending sign-in with an error for the client that asked for it.
func (s *Service) Fail(ctx context.Context, pendingID, browser string, answer *Error) (Reply, error) {
	var reply Reply
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		p, err := s.people.Finish(ctx, tx, pendingID, browser)
		if err != nil {
			return err
		}
		r, err := Unpack(p.Request)
		if err != nil {
			return err
		}
		reply = Reply{RedirectURI: r.RedirectURI, State: r.State, Err: answer}
		return nil
	})
	if err != nil {
		return Reply{}, fmt.Errorf("end sign-in: %w", err)
	}
	return reply, nil
}

func (s *Service) issue(ctx context.Context, tx pgx.Tx, c Client, r Request, person identity.Person) (Reply, error) {
	sub, err := s.subject(ctx, tx, c.DepartmentID, person.ID)
	if err != nil {
		return Reply{}, err
	}
	sid, err := s.sid(ctx, tx, person.SessionID, c.ID)
	if err != nil {
		return Reply{}, err
	}
	code, now := id.Secret(), s.now()
	_, err = tx.Exec(ctx, `
		insert into identity.client_grant (id, client_id, resident_id, session_id, sid, sub, scopes, resources, nonce,
			acr, amr, signed_in_at, redirect_uri, challenge, code_hash, code_expires_at, created_at)
		values ($1, $2, $3, $4, $5, $6, $7, $8, nullif($9, ''), $10, $11, $12, $13, $14, $15, $16, $17)`,
		id.New(), c.ID, person.ID, person.SessionID, sid, sub, r.Scopes, r.Resources, r.Nonce,
		person.ACR, person.AMR, person.SignedInAt, r.RedirectURI, r.Challenge, id.Hash(code), now.Add(codeLife), now)
	if err != nil {
		return Reply{}, fmt.Errorf("store code: %w", err)
	}
	return Reply{RedirectURI: r.RedirectURI, State: r.State, Code: code}, nil
}

// aGrant is what a redeemed code stands for.
type aGrant struct {
	id, residentID, sid, sub string
	nonce                    *string
	scopes, resources, amr   []string
	acr                      int
	signedInAt               time.Time
}

// redeem consumes a code in one conditional update: of any number of simultaneous uses
// one gets the grant.
func (s *Service) redeem(ctx context.Context, tx pgx.Tx, c Client, x Exchange) (aGrant, error) {
	var g aGrant
	err := tx.QueryRow(ctx, `
		update identity.client_grant g set code_used_at = $1
		where code_hash = $2 and client_id = $3 and redirect_uri = $4 and challenge = $5
			and code_used_at is null and code_expires_at > $1 and revoked_at is null
			and exists (select from identity.resident r where r.id = g.resident_id and r.state = 'active')
		returning id, resident_id, sid, sub, nonce, scopes, resources, acr, amr, signed_in_at`,
		s.now(), id.Hash(x.Code), c.ID, x.RedirectURI, challengeOf(x.Verifier)).
		Scan(&g.id, &g.residentID, &g.sid, &g.sub, &g.nonce, &g.scopes, &g.resources, &g.acr, &g.amr, &g.signedInAt)
	if errors.Is(err, pgx.ErrNoRows) {
		return g, invalidGrant()
	}
	if err != nil {
		return g, fmt.Errorf("redeem code: %w", err)
	}
	return g, nil
}

// replayed revokes what a code gave when the same client presents it again: somebody
// else may have had it (RFC 6749, section 4.1.2).
func (s *Service) replayed(ctx context.Context, c Client, code string) error {
	now := s.now()
	return pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		var grantID, residentID string
		err := tx.QueryRow(ctx, `
			update identity.client_grant set revoked_at = $1, revoked_why = 'code replayed'
			where code_hash = $2 and client_id = $3 and code_used_at is not null and revoked_at is null
			returning id, resident_id`, now, id.Hash(code), c.ID).Scan(&grantID, &residentID)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil // not a replay, or revoked already
		}
		if err != nil {
			return fmt.Errorf("revoke replayed code: %w", err)
		}
		return audit.Record(ctx, tx, audit.Event{
			Action: "code.replayed", ObjectType: "grant", ObjectID: grantID, Subject: residentID, At: now,
			Details: map[string]any{"client": c.ID},
		})
	})
}
