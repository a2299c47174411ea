package identity

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/audit"
	"guichet/internal/id"
)

// A PartnerVisit is a sign-in that is at a partner just now: a bank, the province.
type PartnerVisit struct {
	Partner    string // its key
	Pending    string // the sign-in it belongs to; empty: the person's account page links
	ResidentID string // whose account page that was
	State      string
	Nonce      string
	Verifier   string // PKCE
}

// ErrUnlinked says that the partner vouches for somebody who is nobody's here yet.
// What address the partner tells is of no account: whoever has one signs in first, and then links.
var ErrUnlinked = errors.New("the partner's person is not linked to an account")

// ErrLinkedElsewhere says that the partner's person is linked to another account.
var ErrLinkedElsewhere = errors.New("the partner's person is linked to another account")

// BeginPartner sends a browser's person to a partner: for a sign-in in progress, or for
// the signed-in person who wants to link. It returns ErrNoPending, ErrWrongStep or ErrStepUp, wrapped.
func (s *Service) BeginPartner(ctx context.Context, v PartnerVisit, browser string, linking *Person) (PartnerVisit, error) {
	if linking != nil {
		if err := s.mayAddFactor(ctx, s.db, *linking); err != nil {
			return v, fmt.Errorf("go to a partner: %w", err)
		}
		v.ResidentID = linking.ID
	} else if p, err := s.Pending(ctx, v.Pending, browser); err != nil || p.Step != StepEmail && p.Step != StepCode {
		if err == nil {
			err = ErrWrongStep
		}
		return v, fmt.Errorf("go to a partner: %w", err)
	}
	v.State, v.Nonce, v.Verifier = id.Secret(), id.Secret(), id.Secret()
	now := s.now()
	_, err := s.db.Exec(ctx, `
		insert into identity.partner_pending (state_hash, browser, partner, pending_id, resident_id, nonce, verifier, created_at, expires_at)
		values ($1, $2, $3, nullif($4, '')::uuid, nullif($5, '')::uuid, $6, $7, $8, $9)`,
		id.Hash(v.State), id.Hash(browser), v.Partner, v.Pending, v.ResidentID, v.Nonce, v.Verifier, now, now.Add(pendingLife))
	if err != nil {
		return v, fmt.Errorf("go to a partner: %w", err)
	}
	return v, nil
}

// TakePartner returns the visit that a partner's answer belongs to, once, to the browser
// that began it. Otherwise it returns ErrNoPending, wrapped.
func (s *Service) TakePartner(ctx context.Context, state, browser string) (PartnerVisit, error) {
	v := PartnerVisit{State: state}
	err := s.db.QueryRow(ctx, `
		update identity.partner_pending set used_at = $3
		where state_hash = $1 and browser = $2 and used_at is null and expires_at > $3
		returning partner, coalesce(pending_id::text, ''), coalesce(resident_id::text, ''), nonce, verifier`,
		id.Hash(state), id.Hash(browser), s.now()).Scan(&v.Partner, &v.Pending, &v.ResidentID, &v.Nonce, &v.Verifier)
	if errors.Is(err, pgx.ErrNoRows) {
		err = ErrNoPending
	}
	if err != nil {
		return PartnerVisit{}, fmt.Errorf("take a partner's answer: %w", err)
	}
	return v, nil
}

// Vouched is what a partner said, verified and translated by the table of that partner.
type Vouched struct {
	Issuer, Subject string
	Level           int  // 1 or 2
	Proofed         bool // the partner has seen the person's identity
}

// SignInByPartner signs in whoever is linked to the partner's person. It returns ErrUnlinked,
// ErrNoPending, ErrWrongStep or ErrSuspended, wrapped.
func (s *Service) SignInByPartner(ctx context.Context, u Vouched, t CodeTry) (SignedIn, error) {
	var in SignedIn
	var refused error // committed with its trace
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		p, err := s.lock(ctx, tx, t.Pending, t.Browser)
		if err != nil {
			return err
		}
		if p.Step != StepEmail && p.Step != StepCode {
			return ErrWrongStep
		}
		var residentID string
		var state State
		err = tx.QueryRow(ctx, `
			update identity.partner_link l set used_at = $3 from identity.resident r
			where l.issuer = $1 and l.subject = $2 and r.id = coalesce((select merged_into from identity.resident where id = l.resident_id), l.resident_id)
			returning r.id, r.state`, u.Issuer, u.Subject, s.now()).Scan(&residentID, &state)
		if errors.Is(err, pgx.ErrNoRows) {
			refused = ErrUnlinked
			return s.recordUpstream(ctx, tx, "upstream.mismatch", "", u, t.Visitor)
		}
		if err != nil {
			return err
		}
		pr := proof{pending: p, resident: residentID, factor: FactorPartner, session: t.Session, visitor: t.Visitor}
		if u.Level >= 2 {
			pr.factor = FactorVouched
		}
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
		return SignedIn{}, fmt.Errorf("sign in by a partner: %w", err)
	}
	return in, nil
}

// LinkPartner links the partner's person to the account of the person who went there from
// it. Linking again changes nothing. It returns ErrStepUp or ErrLinkedElsewhere, wrapped.
func (s *Service) LinkPartner(ctx context.Context, p Person, u Vouched, v Visitor) error {
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		if err := s.mayAddFactor(ctx, tx, p); err != nil {
			return err
		}
		var owner string
		err := tx.QueryRow(ctx, `
			insert into identity.partner_link as l (issuer, subject, resident_id, linked_at) values ($1, $2, $3, $4)
			on conflict (issuer, subject) do update set linked_at = l.linked_at returning resident_id`, u.Issuer, u.Subject, p.ID, s.now()).Scan(&owner)
		if err != nil {
			return err
		}
		if owner != p.ID {
			return ErrLinkedElsewhere
		}
		if u.Proofed {
			_, err := tx.Exec(ctx, `update identity.resident set proofed_at = $2, proofed_by = $3 where id = $1`, p.ID, s.now(), u.Issuer)
			if err != nil {
				return err
			}
		}
		if err := s.recordUpstream(ctx, tx, "upstream.linked", p.ID, u, v); err != nil {
			return err
		}
		return s.notify(ctx, tx, notice{resident: p.ID, template: "partner-linked", key: id.New(), data: map[string]string{"device": v.Device}})
	})
	if err != nil {
		return fmt.Errorf("link a partner: %w", err)
	}
	return nil
}

// UnlinkPartner takes the links to a partner away, after a fresh proof. It returns
// ErrNotFound or ErrStepUp, wrapped.
func (s *Service) UnlinkPartner(ctx context.Context, p Person, issuer string, v Visitor) error {
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		if err := s.mayAddFactor(ctx, tx, p); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, `delete from identity.partner_link where resident_id = $1 and issuer = $2`, p.ID, issuer)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return ErrNotFound
		}
		return s.recordUpstream(ctx, tx, "upstream.unlinked", p.ID, Vouched{Issuer: issuer}, v)
	})
	if err != nil {
		return fmt.Errorf("unlink a partner: %w", err)
	}
	return nil
}

func (s *Service) recordUpstream(ctx context.Context, tx pgx.Tx, action, residentID string, u Vouched, v Visitor) error {
	return audit.Record(ctx, tx, audit.Event{
		Action: action, ObjectType: "partner", ObjectID: u.Issuer, Subject: residentID, At: s.now(),
		Details: map[string]any{"level": u.Level, "network": v.Network, "device": v.Device},
	})
}

// A PartnerLink is one of a resident.
type PartnerLink struct {
	Issuer   string
	LinkedAt time.Time
	UsedAt   *time.Time
}

// PartnerLinks lists the partners that vouch for a resident.
func (s *Service) PartnerLinks(ctx context.Context, residentID string) ([]PartnerLink, error) {
	rows, err := s.db.Query(ctx, `
		select issuer, linked_at, used_at from identity.partner_link where resident_id = $1 order by linked_at, issuer limit 20`, residentID)
	if err != nil {
		return nil, fmt.Errorf("list partners: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[PartnerLink])
}
