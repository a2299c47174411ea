package delegation

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"guichet/identity"
	"guichet/internal/approval"
	"guichet/internal/attachment"
	"guichet/internal/id"
)

// approvalKind is what a second member of staff decides about.
const approvalKind = "delegation.document"

// ErrNoAccount says that the person who is to act has no account under the address.
var ErrNoAccount = errors.New("nobody has proved this address")

// A Registration is a right that rests on a document somebody brought: a will, a
// power of attorney, a title, articles of incorporation.
type Registration struct {
	By          string // member of staff
	Type        Type
	Name        string // of the party; unused when Represented is set
	Number      string // of a business
	Represented string // address of the resident who is represented, for a power of attorney over an account
	Delegate    string // address that the person who is to act has proved
	Scope       Scope
	FileName    string
	File        []byte
}

// rolesOnDocument says what somebody becomes by a document.
var rolesOnDocument = map[Type]Role{Business: Owner, Property: Owner, Estate: Executor, Person: Attorney}

// DocumentFile is where the document of a right is kept.
func DocumentFile(delegationID string) attachment.Owner {
	return attachment.Owner{Type: "delegation", ID: delegationID}
}

// Register keeps a right and its document until a second member of staff has decided;
// until then nobody can act. Errors: identity.ErrBadName, identity.ErrBadEmail, ErrBadNumber, ErrScope,
// ErrNoAccount, attachment.ErrType, attachment.ErrSize, wrapped.
func (s *Service) Register(ctx context.Context, n Registration) (delegationID string, err error) {
	err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		delegationID, err = s.register(ctx, tx, n)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("register a %s: %w", n.Type, err)
	}
	return delegationID, nil
}

func (s *Service) register(ctx context.Context, tx pgx.Tx, n Registration) (string, error) {
	d := row{id: id.New(), role: rolesOnDocument[n.Type], scope: n.Scope.normal(), invitedBy: n.By, invitedAt: s.now()}
	if err := d.scope.check(s.today()); err != nil {
		return "", err
	}
	var err error
	d.delegateID, err = s.people.FindByEmail(ctx, tx, n.Delegate)
	if errors.Is(err, identity.ErrNotFound) {
		return "", ErrNoAccount
	}
	if err != nil {
		return "", err
	}
	if d.partyID, err = s.registered(ctx, tx, n); err != nil {
		return "", err
	}
	if d.partyID == d.delegateID {
		return "", ErrNoAccount // nobody acts for themselves
	}
	f, err := attachment.Store(ctx, tx, DocumentFile(d.id), n.FileName, n.File, s.now())
	if err != nil {
		return "", err
	}
	payload, err := payloadOf(d, hex.EncodeToString(f.SHA256))
	if err != nil {
		return "", err
	}
	d.approvalID, err = approval.Ask(ctx, tx, approval.Request{Kind: approvalKind, Object: d.id, Payload: payload, By: n.By, At: s.now()})
	if err != nil {
		return "", err
	}
	if err := d.insert(ctx, tx); err != nil {
		return "", err
	}
	return d.id, s.record(ctx, tx, "delegation.registered", d, map[string]any{"document": hex.EncodeToString(f.SHA256), "until": d.scope.Until.String()})
}

// registered makes or finds the party of a registration.
func (s *Service) registered(ctx context.Context, tx pgx.Tx, n Registration) (string, error) {
	if n.Type == Person && n.Represented != "" {
		partyID, err := s.people.FindByEmail(ctx, tx, n.Represented)
		if errors.Is(err, identity.ErrNotFound) {
			return "", ErrNoAccount
		}
		if err != nil {
			return "", err
		}
		return partyID, s.ensureResident(ctx, tx, partyID)
	}
	var err error
	profile := partyProfile{}
	if profile.Name, err = identity.ParseName(n.Name); err != nil {
		return "", err
	}
	if profile.Number, err = ParseNumber(n.Number); err != nil {
		return "", err
	}
	return s.createParty(ctx, tx, newParty{kind: n.Type, profile: profile, proof: Document}, n.By)
}

// payloadOf is what is decided about, byte for byte: both looks must be at the same.
func payloadOf(d row, document string) ([]byte, error) {
	text, err := json.Marshal(map[string]any{
		"delegation": d.id, "party": d.partyID, "delegate": d.delegateID, "role": d.role, "rights": texts(d.scope.Rights),
		"departments": append([]string{}, d.scope.Departments...), "per_payment_cents": int64(d.scope.PerPayment), "per_month_cents": int64(d.scope.PerMonth),
		"may_delegate": d.scope.MayDelegate, "until": d.scope.Until.String(), "document": document,
	})
	if err != nil {
		return nil, fmt.Errorf("write what is decided: %w", err)
	}
	return text, nil
}

// A Waiting is a registration that a second member of staff is to decide about.
type Waiting struct {
	Delegation
	ApprovalID  string
	RequestedBy string
	Files       []attachment.File
}

// Waiting lists what waits for a decision, oldest first.
func (s *Service) Waiting(ctx context.Context) ([]Waiting, error) {
	return s.waiting(ctx, s.db, `d.approval_id is not null and d.accepted_at is null and d.ended_at is null order by d.id limit $2`, maxListed)
}

// WaitingFor reads one that waits for a decision, or ErrNotFound.
func (s *Service) WaitingFor(ctx context.Context, delegationID string) (Waiting, error) {
	if !id.Valid(delegationID) {
		return Waiting{}, ErrNotFound
	}
	return s.waitingFor(ctx, s.db, delegationID)
}

func (s *Service) waitingFor(ctx context.Context, q querier, delegationID string) (Waiting, error) {
	list, err := s.waiting(ctx, q, `d.id = $2 and d.approval_id is not null and d.accepted_at is null and d.ended_at is null`, delegationID)
	if err == nil && len(list) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return Waiting{}, err
	}
	return list[0], nil
}

func (s *Service) waiting(ctx context.Context, q querier, condition string, args ...any) ([]Waiting, error) {
	list, err := s.read(ctx, q, condition, args...)
	if err != nil {
		return nil, err
	}
	out := make([]Waiting, len(list))
	for i, d := range list {
		out[i].Delegation = d
		err := q.QueryRow(ctx, `
			select a.id, a.requested_by from ops.approval a join identity.delegation d on d.approval_id = a.id where d.id = $1`, d.ID).
			Scan(&out[i].ApprovalID, &out[i].RequestedBy)
		if err != nil {
			return nil, fmt.Errorf("read approval: %w", err)
		}
		if out[i].Files, err = attachment.List(ctx, q, DocumentFile(d.ID)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// A Decision is the second person's.
type Decision struct {
	ID     string // of the delegation
	By     string // member of staff
	Reason string
}

// Approve puts a registered right in force, as it was registered. Who registered it cannot: that is
// approval.ErrSamePerson. Other errors: ErrNotFound, ErrAlready, ErrEnded, wrapped.
func (s *Service) Approve(ctx context.Context, n Decision) error {
	err := s.decide(ctx, n, func(tx pgx.Tx, w Waiting, d row) error {
		if d.scope.Until.Before(s.today()) {
			return ErrEnded
		}
		payload, err := payloadOf(d, documentOf(w))
		if err != nil {
			return err
		}
		if _, err := approval.Approve(ctx, tx, approval.Decision{ID: w.ApprovalID, By: n.By, Reason: n.Reason, At: s.now()}, payload); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `update identity.delegation set accepted_at = $2 where id = $1 and accepted_at is null and ended_at is null`, d.id, s.now())
		if pg := new(pgconn.PgError); errors.As(err, &pg) && pg.ConstraintName == "delegation_one_live" {
			return ErrAlready
		}
		if err != nil {
			return err
		}
		if err := s.record(ctx, tx, "delegation.accepted", d, map[string]any{"approval": w.ApprovalID}); err != nil {
			return err
		}
		return s.tell(ctx, tx, "acting-granted", "granted", d, w.Delegate, d.delegateID)
	})
	if err != nil {
		return fmt.Errorf("approve %s: %w", n.ID, err)
	}
	return nil
}

// Refuse ends a registration. It returns approval.ErrSamePerson or ErrNotFound, wrapped.
func (s *Service) Refuse(ctx context.Context, n Decision) error {
	err := s.decide(ctx, n, func(tx pgx.Tx, w Waiting, d row) error {
		if _, err := approval.Refuse(ctx, tx, approval.Decision{ID: w.ApprovalID, By: n.By, Reason: n.Reason, At: s.now()}); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `update identity.delegation set ended_at = $2, ended_by = $3, ended_why = 'refused' where id = $1 and ended_at is null`, d.id, s.now(), n.By)
		if err != nil {
			return err
		}
		return s.record(ctx, tx, "delegation.refused", d, nil)
	})
	if err != nil {
		return fmt.Errorf("refuse %s: %w", n.ID, err)
	}
	return nil
}

func (s *Service) decide(ctx context.Context, n Decision, do func(pgx.Tx, Waiting, row) error) error {
	if !id.Valid(n.ID) {
		return ErrNotFound
	}
	return pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `select from identity.delegation where id = $1 for no key update`, n.ID); err != nil {
			return err
		}
		w, err := s.waitingFor(ctx, tx, n.ID)
		if err != nil {
			return err
		}
		return do(tx, w, row{id: w.ID, partyID: w.Party.ID, delegateID: w.DelegateID, role: w.Role, scope: w.Scope, invitedBy: w.InvitedBy})
	})
}

func documentOf(w Waiting) string {
	if len(w.Files) == 0 {
		return ""
	}
	return hex.EncodeToString(w.Files[0].SHA256)
}
