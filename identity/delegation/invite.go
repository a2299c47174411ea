package delegation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"guichet/identity"
	"guichet/internal/id"
)

// How long an invitation is open. A code is read off a screen and typed at once.
const (
	mailLife = 7 * 24 * time.Hour
	codeLife = 15 * time.Minute
)

// The brakes on inviting, which sends mail to addresses that somebody typed, and on
// trying codes: 45 random bits that live for minutes.
var (
	invitesByPerson = identity.Limit{Burst: 20, Per: 24 * time.Hour}
	invitesByTarget = identity.Limit{Burst: 3, Per: 24 * time.Hour}
	codesByPerson   = identity.Limit{Burst: 10, Per: 15 * time.Minute}
	codesByNetwork  = identity.Limit{Burst: 100, Per: 15 * time.Minute}
)

// An Invitation asks somebody to act for a party.
type Invitation struct {
	By    identity.Person
	Under string // the right that is passed on; empty: the inviter's own affairs
	Scope Scope
	Email string // only who has proved this address may accept; empty: whoever is shown the code
	Lang  string // of the mail
}

// An Invited is what an invitation made. Secret opens it: in a mail it is part of the
// link, without an address it is a code to be shown to one person.
type Invited struct {
	ID        string
	Secret    string
	OpenUntil time.Time
}

// Invite offers a right within what the inviter has. Whether the address has an account makes no
// difference: nothing is looked up. It returns ErrAssurance, ErrScope, ErrNotAllowed, ErrEnded,
// identity.ErrBadEmail or a *identity.LimitedError, wrapped.
func (s *Service) Invite(ctx context.Context, n Invitation) (Invited, error) {
	var out Invited
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) (err error) {
		out, err = s.invite(ctx, tx, n)
		return err
	})
	if err != nil {
		return Invited{}, fmt.Errorf("invite: %w", err)
	}
	return out, nil
}

func (s *Service) invite(ctx context.Context, tx pgx.Tx, n Invitation) (Invited, error) {
	if n.By.ACR < MinACR {
		return Invited{}, ErrAssurance
	}
	if err := s.people.Take(ctx, tx, "invites", n.By.ID, invitesByPerson); err != nil {
		return Invited{}, err
	}
	d := row{id: id.New(), role: Delegate, scope: n.Scope.normal(), invitedBy: n.By.ID, invitedAt: s.now()}
	if err := d.scope.check(s.today()); err != nil {
		return Invited{}, err
	}
	outer := everything()
	if n.Under == "" {
		d.partyID = n.By.ID
		if err := s.ensureResident(ctx, tx, n.By.ID); err != nil {
			return Invited{}, err
		}
	} else {
		// The lock makes a revocation at this moment wait, and then end the invitation too.
		if _, err := tx.Exec(ctx, `select from identity.delegation where id = $1 for share`, n.Under); err != nil {
			return Invited{}, fmt.Errorf("lock right: %w", err)
		}
		giver, err := s.live(ctx, tx, n.By.ID, n.Under)
		if err != nil {
			return Invited{}, err
		}
		if !giver.Scope.MayDelegate {
			return Invited{}, ErrNotAllowed
		}
		outer = giver.Scope
		outer.MayDelegate = giver.Role.Principal()
		d.partyID = giver.Party.ID
		for _, l := range giver.Limits[1:] {
			d.lineage = append(d.lineage, l.ID)
		}
		d.lineage = append(d.lineage, giver.ID)
	}
	if !d.scope.Within(outer) {
		return Invited{}, ErrNotAllowed
	}
	out, err := s.open(ctx, tx, n, &d)
	if err != nil {
		return Invited{}, err
	}
	if err := d.insert(ctx, tx); err != nil {
		return Invited{}, err
	}
	return out, s.record(ctx, tx, "delegation.invited", d, map[string]any{
		"rights": texts(d.scope.Rights), "departments": d.scope.Departments, "until": d.scope.Until.String(), "by_mail": d.contactID != "",
		"per_payment_cents": int64(d.scope.PerPayment), "per_month_cents": int64(d.scope.PerMonth),
	})
}

// open makes the secret of an invitation, and mails it if it goes to an address.
func (s *Service) open(ctx context.Context, tx pgx.Tx, n Invitation, d *row) (out Invited, err error) {
	out = Invited{ID: d.id, Secret: id.Code(9), OpenUntil: s.now().Add(codeLife)}
	if n.Email != "" {
		out.Secret, out.OpenUntil = id.Secret(), s.now().Add(mailLife)
		email, err := identity.ParseEmail(n.Email)
		if err != nil {
			return out, err
		}
		if d.contactID, err = s.people.Contact(ctx, tx, email); err != nil {
			return out, err
		}
		if err := s.people.Take(ctx, tx, "invited", d.contactID, invitesByTarget); err != nil {
			return out, err
		}
		if err := s.mailInvitation(ctx, tx, n, *d, out); err != nil {
			return out, err
		}
	}
	d.secretHash, d.openUntil = s.secrets.Sum(out.Secret), &out.OpenUntil
	return out, nil
}

// usable is the condition under which an invitation is open for a person: $2 the hash
// of its secret, $3 the person, $4 now. What it was passed on from must be in force.
const usable = `d.secret_hash = $2 and d.accepted_at is null and d.ended_at is null and d.open_until > $4 and (d.until is null or d.until >= $1)
	and d.invited_by <> $3::text and d.party_id <> $3::uuid
	and (d.contact_id is null or exists (
		select from identity.contact c join identity.email e on e.lookup = c.lookup where c.id = d.contact_id and e.resident_id = $3::uuid))
	and not exists (select from unnest(d.lineage) above where not identity.delegation_live(above, $1))
	and not exists (select from identity.resident r where r.id = d.party_id and r.state <> 'active')`

// An Answer is a person's yes or no to an invitation.
type Answer struct {
	By      identity.Person
	Secret  string // from the link, or a code as typed
	Visitor identity.Visitor
}

// secretHash finds what an invitation is stored under. A typing slip in a code, which
// its check character finds, is ErrInvitation too.
func (s *Service) secretHash(typed string) ([]byte, error) {
	if len(typed) == 43 { // id.Secret's length
		return s.secrets.Sum(typed), nil
	}
	code, ok := id.Normalize(typed)
	if !ok {
		return nil, ErrInvitation
	}
	return s.secrets.Sum(code), nil
}

// Look shows an invitation to a person who could accept it, and changes nothing but
// what is left of their tries. It returns ErrInvitation or a *identity.LimitedError, wrapped.
func (s *Service) Look(ctx context.Context, a Answer) (Delegation, error) {
	var list []Delegation
	err := s.try(ctx, a, func(hash []byte) (err error) {
		list, err = s.read(ctx, s.db, usable, hash, a.By.ID, s.now())
		if err == nil && len(list) == 0 {
			err = ErrInvitation
		}
		return err
	})
	if err != nil {
		return Delegation{}, fmt.Errorf("look at invitation: %w", err)
	}
	return list[0], nil
}

// try counts a try before the secret is compared, so that guesses made at the same
// moment cannot share one. Links hold 256 bits: those need no brake.
func (s *Service) try(ctx context.Context, a Answer, use func(hash []byte) error) error {
	if len(a.Secret) != 43 {
		err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
			if err := s.people.Take(ctx, tx, "invitation-network", a.Visitor.Network, codesByNetwork); err != nil {
				return err
			}
			return s.people.Take(ctx, tx, "invitation-person", a.By.ID, codesByPerson)
		})
		if err != nil {
			return err
		}
	}
	hash, err := s.secretHash(a.Secret)
	if err != nil {
		return err
	}
	return use(hash)
}

// Accept takes the right, once: of any number of simultaneous tries one succeeds. It returns
// ErrInvitation, ErrAlready, ErrAssurance or a *identity.LimitedError, wrapped.
func (s *Service) Accept(ctx context.Context, a Answer) (delegationID string, err error) {
	if a.By.ACR < MinACR {
		return "", fmt.Errorf("accept: %w", ErrAssurance)
	}
	err = s.try(ctx, a, func(hash []byte) error {
		return pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
			d := row{delegateID: a.By.ID}
			err := tx.QueryRow(ctx, `
				update identity.delegation d set delegate_id = $3::uuid, accepted_at = $4 where `+usable+`
				returning d.id, d.party_id, d.role, d.invited_by`, s.today().Time(), hash, a.By.ID, s.now()).
				Scan(&d.id, &d.partyID, &d.role, &d.invitedBy)
			pg := new(pgconn.PgError)
			switch {
			case errors.Is(err, pgx.ErrNoRows):
				return ErrInvitation
			case errors.As(err, &pg) && pg.ConstraintName == "delegation_one_live":
				return ErrAlready
			case err != nil:
				return err
			}
			delegationID = d.id
			if err := s.record(ctx, tx, "delegation.accepted", d, map[string]any{"acr": a.By.ACR}); err != nil {
				return err
			}
			return s.tellAccepted(ctx, tx, d, a.By)
		})
	})
	if err != nil {
		return "", fmt.Errorf("accept: %w", err)
	}
	return delegationID, nil
}

// Decline ends an invitation that the person could have accepted. It returns
// ErrInvitation or a *identity.LimitedError, wrapped.
func (s *Service) Decline(ctx context.Context, a Answer) error {
	err := s.try(ctx, a, func(hash []byte) error {
		return pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
			rows, err := tx.Query(ctx, `
				update identity.delegation d set ended_at = $4, ended_by = $3::text, ended_why = 'declined' where `+usable+`
				returning d.id, d.party_id, coalesce(d.delegate_id::text, ''), d.role, d.invited_by, d.accepted_at`,
				s.today().Time(), hash, a.By.ID, s.now())
			if err != nil {
				return err
			}
			d, err := pgx.CollectExactlyOneRow(rows, scanEnded)
			if errors.Is(err, pgx.ErrNoRows) {
				return ErrInvitation
			}
			if err != nil {
				return err
			}
			return s.record(ctx, tx, "delegation.declined", d, nil)
		})
	})
	if err != nil {
		return fmt.Errorf("decline: %w", err)
	}
	return nil
}
