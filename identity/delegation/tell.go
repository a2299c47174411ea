package delegation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/identity"
	"guichet/internal/audit"
	"guichet/internal/clock"
	"guichet/internal/mail"
)

// remindBefore is how long before the end both people are told.
const remindBefore = 30 // days

func (s *Service) mailInvitation(ctx context.Context, tx pgx.Tx, n Invitation, d row, out Invited) error {
	name, err := s.partyName(ctx, tx, d.partyID)
	if err != nil {
		return err
	}
	return s.mail.Enqueue(ctx, tx, mail.Message{
		Key: "delegation/" + d.id + "/invited", To: "contact:" + d.contactID, Lang: n.Lang, Template: "acting-invitation",
		Data: map[string]string{
			"inviter": n.By.Name, "party": name, "link": s.baseURL + "/acting/invitation/" + out.Secret,
			"until": clock.DateOf(out.OpenUntil).String(),
		},
	})
}

// tellAccepted mails the person who gave the right.
func (s *Service) tellAccepted(ctx context.Context, tx pgx.Tx, d row, by identity.Person) error {
	return s.tell(ctx, tx, "acting-accepted", "accepted", d, by.Name, d.invitedBy)
}

// tellEnded mails both people that an accepted right has ended; who ended it knows.
func (s *Service) tellEnded(ctx context.Context, tx pgx.Tx, d row, by string) error {
	if d.acceptedAt == nil {
		return nil
	}
	delegate, err := s.nameOf(ctx, tx, d.delegateID)
	if err != nil {
		return err
	}
	for _, to := range both(d) {
		if to == by {
			continue
		}
		if err := s.tell(ctx, tx, "acting-ended", "ended/"+to, d, delegate, to); err != nil {
			return err
		}
	}
	return nil
}

// both are the residents that a right concerns: who acts, and who gave it.
func both(d row) []string {
	if d.invitedBy == d.delegateID {
		return []string{d.delegateID}
	}
	return []string{d.delegateID, d.invitedBy}
}

// tell mails one resident about a right, in the resident's language. Who has been
// forgotten, or is staff, gets none.
func (s *Service) tell(ctx context.Context, tx pgx.Tx, template, what string, d row, delegate, to string) error {
	r, err := s.people.ResidentIn(ctx, tx, to)
	if errors.Is(err, identity.ErrNotFound) || errors.Is(err, identity.ErrForgotten) {
		return nil
	}
	if err != nil {
		return err
	}
	party, err := s.partyName(ctx, tx, d.partyID)
	if err != nil {
		return err
	}
	return s.mail.Enqueue(ctx, tx, mail.Message{
		Key: "delegation/" + d.id + "/" + what, To: "resident:" + to, Lang: r.Lang, Template: template,
		Data: map[string]string{"delegate": delegate, "party": party, "until": d.scope.Until.String(), "link": s.baseURL + "/acting"},
	})
}

// partyName reads a party's name in a transaction that may have just made it.
func (s *Service) partyName(ctx context.Context, tx pgx.Tx, partyID string) (string, error) {
	p := sealedParty{id: partyID}
	err := tx.QueryRow(ctx, `
		select p.type, p.profile, p.proof, k.box from identity.party p join identity.person_key k on k.id = p.id where p.id = $1`, partyID).
		Scan(&p.kind, &p.profile, &p.proof, &p.key)
	if err != nil {
		return "", fmt.Errorf("read party: %w", err)
	}
	party, err := s.openParty(ctx, tx, p)
	return party.Name, err
}

// batch is how many rights one transaction of Tend touches.
const batch = 100

// Tend ends what is past its last day, lets invitations lapse that nobody took, and
// reminds both people thirty days before an end. A right past its last day is not in force, whether Tend has run or
// not. It may run on several instances at once, and again.
func (s *Service) Tend(ctx context.Context) (int64, error) {
	var total int64
	for _, step := range []func(context.Context, pgx.Tx) (int, error){s.expire, s.lapse, s.remind} {
		for {
			var n int
			err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) (err error) {
				n, err = step(ctx, tx)
				return err
			})
			if err != nil {
				return total, fmt.Errorf("tend delegations: %w", err)
			}
			total += int64(n)
			if n < batch {
				break
			}
		}
	}
	return total, nil
}

func (s *Service) expire(ctx context.Context, tx pgx.Tx) (int, error) {
	ended, err := s.end(ctx, tx, "expired", `accepted_at is not null and until < $4`, s.today().Time())
	for _, d := range ended {
		if err := s.record(ctx, tx, "delegation.expired", d, nil); err != nil {
			return 0, err
		}
		if err := s.tellEnded(ctx, tx, d, ""); err != nil {
			return 0, err
		}
	}
	return len(ended), err
}

func (s *Service) lapse(ctx context.Context, tx pgx.Tx) (int, error) {
	ended, err := s.end(ctx, tx, "lapsed", `accepted_at is null and open_until < $4`, s.now())
	for _, d := range ended {
		if err := s.record(ctx, tx, "delegation.lapsed", d, nil); err != nil {
			return 0, err
		}
	}
	return len(ended), err
}

// end ends a batch of rights that a condition on $4 names, skipping what somebody holds.
func (s *Service) end(ctx context.Context, tx pgx.Tx, why, condition string, before time.Time) ([]row, error) {
	rows, err := tx.Query(ctx, `
		update identity.delegation d set ended_at = $1, ended_by = $2, ended_why = $3
		where d.id in (select id from identity.delegation where ended_at is null and `+condition+` order by id limit $5 for no key update skip locked)
		returning d.id, d.party_id, coalesce(d.delegate_id::text, ''), d.role, d.invited_by, d.accepted_at`,
		s.now(), audit.System, why, before, batch)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scanEnded)
}

func (s *Service) remind(ctx context.Context, tx pgx.Tx) (int, error) {
	rows, err := tx.Query(ctx, `
		update identity.delegation d set reminded_at = $1
		where d.id in (select id from identity.delegation
			where ended_at is null and accepted_at is not null and reminded_at is null and until < $2
				and until > (accepted_at at time zone 'America/Toronto')::date + $4::integer -- a short one needs no reminder
			order by id limit $3 for no key update skip locked)
		returning d.id, d.party_id, coalesce(d.delegate_id::text, ''), d.role, d.invited_by, d.until`,
		s.now(), s.today().AddDays(remindBefore+1).Time(), batch, remindBefore)
	if err != nil {
		return 0, err
	}
	soon, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (d row, err error) {
		var until time.Time
		err = r.Scan(&d.id, &d.partyID, &d.delegateID, &d.role, &d.invitedBy, &until)
		d.scope.Until = clock.FromTime(until)
		return d, err
	})
	if err != nil {
		return 0, err
	}
	for _, d := range soon {
		delegate, err := s.nameOf(ctx, tx, d.delegateID)
		if err != nil {
			return 0, err
		}
		for _, to := range both(d) {
			if err := s.tell(ctx, tx, "acting-reminder", "reminder/"+to, d, delegate, to); err != nil {
				return 0, err
			}
		}
	}
	return len(soon), nil
}
