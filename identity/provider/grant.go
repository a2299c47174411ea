package provider

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/identity"
	"guichet/internal/id"
)

const codeLife = 60 * time.Second

// ErrOtherPerson says that the person who signed in is not the one in this browser's session any more.
var ErrOtherPerson = errors.New("the sign-in belongs to another session")

// Issue answers a request of a person who is signed in and has been told.
func (s *Service) Issue(ctx context.Context, c Client, r Request, person identity.Person) (Reply, error) {
	reply, err := s.issue(ctx, s.db, c, r, person)
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
		c, err := client(ctx, tx, r.ClientID, f.Person.ID)
		if err != nil {
			return err
		}
		if f.Agreed != nil {
			if !c.FirstParty { // a notice has no boxes
				r.limit(f.Agreed)
			}
			if err := s.agree(ctx, tx, c, f.Person.ID, r.sees()); err != nil {
				return err
			}
		} else if !c.told(r.sees()) {
			return ErrOtherPerson // withdrawn, or the account changed, since the page was decided
		}
		reply, err = s.issue(ctx, tx, c, r, f.Person)
		return err
	})
	if err != nil {
		return Reply{}, fmt.Errorf("finish sign-in: %w", err)
	}
	return reply, nil
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

// issue stores the grant and its code in one statement, so that a person who is signed in
// waits for one round trip. Of two first visits at once, one may find the other's sub or sid
// not there yet: it tries again.
func (s *Service) issue(ctx context.Context, q querier, c Client, r Request, person identity.Person) (Reply, error) {
	code, now := id.Secret(), s.now()
	for range 3 {
		err := q.QueryRow(ctx, issueSQL, pgx.NamedArgs{
			"now": now, "new_sub": s.newSubject(c.DepartmentID, person.ID), "department": c.DepartmentID,
			"resident": person.ID, "session": person.SessionID, "client": c.ID, "new_sid": id.Secret(),
			"id": id.New(), "scopes": r.Scopes, "resources": r.Resources, "nonce": r.Nonce,
			"acr": r.stated(person.ACR), "amr": person.AMR, "signed_in": person.SignedInAt, "redirect": r.RedirectURI,
			"challenge": r.Challenge, "hash": id.Hash(code), "expires": now.Add(codeLife), "jkt": r.JKT,
			"id_claims": list(r.IDClaims), "info_claims": list(r.InfoClaims), "acting": r.acting(person),
		}).Scan(nil)
		if err == nil {
			return Reply{RedirectURI: r.RedirectURI, State: r.State, Code: code}, nil
		}
		if !isNone(err) {
			return Reply{}, fmt.Errorf("store code: %w", err)
		}
	}
	return Reply{}, errors.New("store code: no name for the resident or the session")
}

// list is never null in SQL.
func list(l []string) []string {
	if l == nil {
		return []string{}
	}
	return l
}

const issueSQL = `
with ` + subjectSQL + `, ` + sidSQL + `
insert into identity.client_grant (id, client_id, resident_id, session_id, sid, sub, scopes, resources, nonce,
	acr, amr, signed_in_at, redirect_uri, challenge, code_hash, code_expires_at, created_at, jkt, id_claims, info_claims, ends_at, acting_id)
select @id, @client, @resident, @session, named_session.sid, subject.sub, @scopes, @resources, nullif(@nonce, ''),
	@acr, @amr, @signed_in, @redirect, nullif(@challenge, ''), @hash, @expires, @now, nullif(@jkt, ''), @id_claims, @info_claims, @expires,
	(select d.id from identity.delegation d join department.department o on o.id = @department
		where d.id = nullif(@acting, '')::uuid and d.delegate_id = @resident and (d.departments = '{}' or o.code = any (d.departments))
			and identity.delegation_live(d.id, (@now::timestamptz at time zone 'America/Toronto')::date))
from subject, named_session
returning id`
