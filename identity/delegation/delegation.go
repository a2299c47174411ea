package delegation

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"guichet/identity"
	"guichet/internal/clock"
	"guichet/internal/id"
	"guichet/internal/keyed"
	"guichet/internal/mail"
	"guichet/internal/money"
	"guichet/internal/seal"
)

// A Role is what somebody is to a party.
type Role string

const (
	Owner    Role = "owner"    // of a business or property
	Guardian Role = "guardian" // of a child
	Delegate Role = "delegate" // invited
	Executor Role = "executor" // of an estate
	Attorney Role = "attorney" // under a power of attorney
)

// Principal reports whether the role stands for the party itself: it may let others
// pass rights on.
func (r Role) Principal() bool { return r == Owner || r == Guardian }

// Errors callers branch on.
var (
	ErrNotFound   = errors.New("not found, or not yours to see")
	ErrEnded      = errors.New("the right to act has ended")
	ErrInvitation = errors.New("the invitation cannot be used") // unknown, used, withdrawn, too old, for another address: one answer
	ErrAlready    = errors.New("the person may act for this party already")
	ErrNotAllowed = errors.New("more than the giver may give")
	ErrAssurance  = errors.New("a stronger proof of identity is needed")
)

// MinACR is what giving and taking a right needs: two factors, or a passkey.
const MinACR = 2

// MailTemplates holds this package's mails for internal/mail.
//
//go:embed mailtext/*.txt
var MailTemplates embed.FS

// Config is what a Service needs.
type Config struct {
	People  *identity.Service
	Mail    identity.Mailer
	Master  *seal.Key
	Now     func() time.Time
	BaseURL string // of the links in mails, without a slash at the end
}

// A Service keeps parties and the rights to act for them. It may be used by many
// goroutines and by many instances at once.
type Service struct {
	db      *pgxpool.Pool
	people  *identity.Service
	mail    identity.Mailer
	now     func() time.Time
	baseURL string
	secrets *keyed.Hasher // invitations are found by its hashes: a code is short enough to try all of a plain hash
}

// New opens the service on a migrated database.
func New(ctx context.Context, db *pgxpool.Pool, c Config) (*Service, error) {
	s := &Service{db: db, people: c.People, mail: c.Mail, now: c.Now, baseURL: c.BaseURL}
	var err error
	if s.secrets, err = keyed.Load(ctx, db, c.Master, "identity.delegation"); err != nil {
		return nil, fmt.Errorf("open delegations: %w", err)
	}
	return s, nil
}

// A Delegation is one person's right to act for one party.
type Delegation struct {
	ID         string
	Party      Party
	DelegateID string
	Delegate   string // name; empty before somebody accepted
	Invited    string // the address the invitation went to, if to one
	Role       Role
	Scope      Scope
	InvitedBy  string
	InvitedAt  time.Time
	OpenUntil  time.Time // of an invitation
	AcceptedAt time.Time // zero: not accepted
	EndedAt    time.Time // zero: not ended
	EndedWhy   string
	State      string  // "invited", "waiting" (for a second member of staff), "live", "ended"
	Limits     []Limit // of this right and of those it was passed on from, the own first

	contactID string
}

// A Limit is how much may be paid under a right and all that was passed on from it.
type Limit struct {
	ID                   string
	PerPayment, PerMonth money.Amount // 0: no limit
}

// row is a delegation as stored.
type row struct {
	id, partyID, delegateID string
	role                    Role
	scope                   Scope
	lineage                 []string
	invitedBy               string
	invitedAt               time.Time
	contactID               string
	secretHash              []byte
	openUntil, acceptedAt   *time.Time
	approvalID              string
}

func (d row) insert(ctx context.Context, tx pgx.Tx) error {
	scope := d.scope.normal()
	_, err := tx.Exec(ctx, `
		insert into identity.delegation (id, party_id, delegate_id, role, rights, departments, per_payment_cents, per_month_cents, may_delegate,
			until, lineage, invited_by, invited_at, contact_id, secret_hash, open_until, accepted_at, approval_id)
		values ($1, $2, nullif($3, '')::uuid, $4, $5, $6, nullif($7, 0::bigint), nullif($8, 0::bigint), $9,
			$10, $11, $12, $13, nullif($14, '')::uuid, $15, $16, $17, nullif($18, '')::uuid)`,
		d.id, d.partyID, d.delegateID, string(d.role), texts(scope.Rights), append([]string{}, scope.Departments...), scope.PerPayment, scope.PerMonth,
		scope.MayDelegate, dateOrNil(scope.Until), append([]string{}, d.lineage...), d.invitedBy, d.invitedAt, d.contactID, d.secretHash,
		d.openUntil, d.acceptedAt, d.approvalID)
	if err != nil {
		return fmt.Errorf("store delegation: %w", err)
	}
	return nil
}

func texts(rights []Right) []string {
	out := make([]string, len(rights))
	for i, r := range rights {
		out[i] = string(r)
	}
	return out
}

const columns = `d.id, d.party_id, p.type, p.profile, p.proof, p.ends_on, k.box, coalesce(d.delegate_id::text, ''), d.role, d.rights, d.departments,
	coalesce(d.per_payment_cents, 0), coalesce(d.per_month_cents, 0), d.may_delegate, d.until, d.lineage::text[], d.invited_by, d.invited_at,
	coalesce(d.contact_id::text, ''), d.open_until, d.accepted_at, d.approval_id is not null, d.ended_at, d.ended_why, identity.delegation_live(d.id, $1)`

const from = ` from identity.delegation d join identity.party p on p.id = d.party_id join identity.person_key k on k.id = p.id where `

// read lists the delegations that a condition names; its parameters begin with $2.
func (s *Service) read(ctx context.Context, q querier, condition string, args ...any) ([]Delegation, error) {
	rows, err := q.Query(ctx, `select `+columns+from+condition, append([]any{s.today().Time()}, args...)...)
	if err != nil {
		return nil, fmt.Errorf("read delegations: %w", err)
	}
	type stored struct {
		row
		party    sealedParty
		until    *time.Time
		ended    *time.Time
		why      string
		approval bool
		live     bool
	}
	all, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (d stored, err error) {
		var rights []string
		err = r.Scan(&d.id, &d.partyID, &d.party.kind, &d.party.profile, &d.party.proof, &d.party.ends, &d.party.key, &d.delegateID, &d.role, &rights, &d.scope.Departments,
			&d.scope.PerPayment, &d.scope.PerMonth, &d.scope.MayDelegate, &d.until, &d.lineage, &d.invitedBy, &d.invitedAt,
			&d.contactID, &d.openUntil, &d.acceptedAt, &d.approval, &d.ended, &d.why, &d.live)
		d.party.id = d.partyID
		for _, name := range rights {
			d.scope.Rights = append(d.scope.Rights, Right(name))
		}
		return d, err
	})
	if err != nil {
		return nil, fmt.Errorf("read delegations: %w", err)
	}
	list := make([]Delegation, len(all))
	for i, d := range all {
		d.scope.Until = dateOf(d.until)
		list[i] = Delegation{
			ID: d.id, DelegateID: d.delegateID, Role: d.role, Scope: d.scope, InvitedBy: d.invitedBy, InvitedAt: d.invitedAt,
			OpenUntil: timeOf(d.openUntil), AcceptedAt: timeOf(d.acceptedAt), EndedAt: timeOf(d.ended), EndedWhy: d.why,
			Limits: []Limit{{d.id, d.scope.PerPayment, d.scope.PerMonth}},
		}
		for _, above := range d.lineage {
			list[i].Limits = append(list[i].Limits, Limit{ID: above}) // amounts: see Live
		}
		list[i].State = state(d.live, d.ended != nil, d.acceptedAt != nil, d.approval, d.openUntil, s.now())
		if list[i].Party, err = s.openParty(ctx, q, d.party); err != nil {
			return nil, err
		}
		if d.delegateID != "" {
			if list[i].Delegate, err = s.nameOf(ctx, q, d.delegateID); err != nil {
				return nil, err
			}
		}
		list[i].contactID = d.contactID
	}
	return list, nil
}

// withAddresses adds where open invitations went, for those who sent them.
func (s *Service) withAddresses(ctx context.Context, list []Delegation, err error) ([]Delegation, error) {
	for i, d := range list {
		if d.contactID == "" || d.State != "invited" {
			continue
		}
		address, err := s.people.Address(ctx, "contact:"+d.contactID)
		if err != nil && !errors.Is(err, mail.ErrGone) {
			return nil, err
		}
		list[i].Invited = address.Email
	}
	return list, err
}

func state(live, ended, accepted, onDocument bool, openUntil *time.Time, now time.Time) string {
	switch {
	case live:
		return "live"
	case ended || accepted:
		return "ended" // accepted and not live: past its last day, or one of the two may not sign in
	case onDocument:
		return "waiting"
	case openUntil != nil && openUntil.After(now):
		return "invited"
	}
	return "ended"
}

func timeOf(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

// A querier is a pool or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func (s *Service) today() clock.Date { return clock.DateOf(s.now()) }

// Live returns a right that is in force and the person's own, with the limits that hold
// for it, or ErrEnded: ended, expired, somebody else's and made up are one answer.
func (s *Service) Live(ctx context.Context, residentID, delegationID string) (Delegation, error) {
	return s.live(ctx, s.db, residentID, delegationID)
}

func (s *Service) live(ctx context.Context, q querier, residentID, delegationID string) (Delegation, error) {
	if !id.Valid(delegationID) {
		return Delegation{}, ErrEnded
	}
	list, err := s.read(ctx, q, `d.id = $2 and d.delegate_id = $3 and identity.delegation_live(d.id, $1)`, delegationID, residentID)
	if err != nil {
		return Delegation{}, err
	}
	if len(list) == 0 {
		return Delegation{}, ErrEnded
	}
	d := list[0]
	for i := range d.Limits[1:] {
		l := &d.Limits[i+1]
		err := q.QueryRow(ctx, `select coalesce(per_payment_cents, 0), coalesce(per_month_cents, 0) from identity.delegation where id = $1`, l.ID).
			Scan(&l.PerPayment, &l.PerMonth)
		if err != nil {
			return Delegation{}, fmt.Errorf("read limits: %w", err)
		}
	}
	return d, nil
}

// maxListed bounds the lists of one person's page.
const maxListed = 200

// Held lists for whom a resident may act now, by name of the party.
func (s *Service) Held(ctx context.Context, residentID string) ([]Delegation, error) {
	return s.read(ctx, s.db, `d.delegate_id = $2 and d.accepted_at is not null and identity.delegation_live(d.id, $1) order by d.id limit $3`, residentID, maxListed)
}

// Given lists who may act, is invited to, or once could, for the resident and for the parties whose
// rights they pass on, the newest first.
func (s *Service) Given(ctx context.Context, residentID string) ([]Delegation, error) {
	list, err := s.read(ctx, s.db, `(d.party_id = $2 or exists (select from identity.delegation x where x.id = any(d.lineage) and x.delegate_id = $2))
		order by d.ended_at is not null, d.id desc limit $3`, residentID, maxListed)
	return s.withAddresses(ctx, list, err)
}

// One reads a right that the resident holds, gave, or is represented under, or ErrNotFound.
func (s *Service) One(ctx context.Context, residentID, delegationID string) (Delegation, error) {
	if !id.Valid(delegationID) {
		return Delegation{}, ErrNotFound
	}
	list, err := s.read(ctx, s.db, `d.id = $2 and (d.party_id = $3 or d.delegate_id = $3
		or exists (select from identity.delegation x where x.id = any(d.lineage) and x.delegate_id = $3))`, delegationID, residentID)
	list, err = s.withAddresses(ctx, list, err)
	if err != nil {
		return Delegation{}, err
	}
	if len(list) == 0 {
		return Delegation{}, ErrNotFound
	}
	return list[0], nil
}

// An Entry is one line of a right's history, as both people see it.
type Entry struct {
	At     time.Time
	Action string // of the audit: "delegation.accepted"
	Actor  string // name; empty: the city, or somebody who has been forgotten
}

// History tells what happened to a right, and under it, the newest first. Whether the reader may see
// it, One has said.
func (s *Service) History(ctx context.Context, d Delegation) ([]Entry, error) {
	rows, err := s.db.Query(ctx, `
		select at, action, actor, actor_kind from ops.audit
		where object_type = 'delegation' and object_id = $1 order by seq desc limit $2`, d.ID, maxListed)
	if err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	type line struct {
		At                  time.Time
		Action, Actor, Kind string
	}
	lines, err := pgx.CollectRows(rows, pgx.RowToStructByPos[line])
	if err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	names, list := map[string]string{}, make([]Entry, len(lines))
	for i, l := range lines {
		name, known := names[l.Actor]
		if !known && l.Kind == "resident" {
			if name, err = s.nameOf(ctx, s.db, l.Actor); err != nil {
				return nil, err
			}
			names[l.Actor] = name
		}
		list[i] = Entry{l.At, l.Action, name}
	}
	return list, nil
}

// Switch makes the person's session act under a right that is in force, or for the
// person alone when delegationID is empty, and returns the session's new token. It returns ErrEnded or
// identity.ErrNoSession, wrapped.
func (s *Service) Switch(ctx context.Context, p identity.Person, token, delegationID string) (fresh string, err error) {
	err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		if delegationID != "" {
			d, err := s.live(ctx, tx, p.ID, delegationID)
			if err != nil {
				return err
			}
			if err := s.Used(ctx, tx, d, map[string]any{"session": p.SessionID}); err != nil {
				return err
			}
		}
		fresh, err = s.people.SetActing(ctx, tx, p, token, delegationID)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("switch: %w", err)
	}
	return fresh, nil
}

// Used records that somebody began to act under a right: in a session, or at a
// department's application.
func (s *Service) Used(ctx context.Context, tx pgx.Tx, d Delegation, details map[string]any) error {
	return s.record(ctx, tx, "delegation.used", row{id: d.ID, partyID: d.Party.ID, delegateID: d.DelegateID, role: d.Role}, details)
}

// Revoke ends a right and all that was passed on from it, at once: the represented
// person, whoever gave it, or the delegate may. An open invitation is withdrawn in the same way. Ending it
// again, or somebody else's, is ErrNotFound.
func (s *Service) Revoke(ctx context.Context, residentID, delegationID string) error {
	if !id.Valid(delegationID) {
		return fmt.Errorf("revoke: %w", ErrNotFound)
	}
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, revokeSQL, delegationID, residentID, s.now(), s.today().Time())
		if err != nil {
			return err
		}
		ended, err := pgx.CollectRows(rows, scanEnded)
		if err != nil {
			return err
		}
		if len(ended) == 0 {
			return ErrNotFound
		}
		for _, d := range ended {
			if err := s.record(ctx, tx, "delegation.revoked", d, nil); err != nil {
				return err
			}
			if err := s.tellEnded(ctx, tx, d, residentID); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("revoke %s: %w", delegationID, err)
	}
	return nil
}

const revokeSQL = `
update identity.delegation d
set ended_at = $3, ended_by = $2::text, ended_why = 'revoked'
from identity.delegation t
where t.id = $1 and t.ended_at is null and (t.id = d.id or t.id = any(d.lineage)) and d.ended_at is null
	and ($2::uuid in (t.delegate_id, t.party_id)
		or exists (select from identity.delegation x where x.id = any(t.lineage) and x.delegate_id = $2::uuid and identity.delegation_live(x.id, $4)))
returning d.id, d.party_id, coalesce(d.delegate_id::text, ''), d.role, d.invited_by, d.accepted_at`

func scanEnded(r pgx.CollectableRow) (d row, err error) {
	err = r.Scan(&d.id, &d.partyID, &d.delegateID, &d.role, &d.invitedBy, &d.acceptedAt)
	return d, err
}
