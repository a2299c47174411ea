package department

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/approval"
	"guichet/internal/audit"
	"guichet/internal/id"
)

// ApproveKey is the kind of approval of a proposed API key.
const ApproveKey = "api_key.live"

// IssueKey makes an API key for the department's application and returns it; it
// is shown this once. env is "test" or "live" and part of the key's text.
func (s *Service) IssueKey(ctx context.Context, tx pgx.Tx, departmentID, name, env string) (string, error) {
	k, err := s.addKey(ctx, tx, newKey{departmentID, name, env, "", nil})
	return k.secret, err
}

// A JournalKey is asked for by a person, for a system that uploads journal entries.
type JournalKey struct {
	DepartmentID string
	Name         string   // what it is for
	Env          string   // "test" or "live"
	Accounts     []string // paths, each with all below it, that it may book on
	By           string   // who asks
}

// accountForm is the path of an account: a root alone would open a fifth of the books.
var accountForm = regexp.MustCompile(`^(assets|liabilities|equity|revenue|expenses)(:[a-z0-9][a-z0-9-]*)+$`)

const maxAccounts = 100

// ProposeJournalKey is ProposeKey for a key that uploads journal entries and does
// nothing else. A second person approves it also in development: it moves money
// without a bill.
func (s *Service) ProposeJournalKey(ctx context.Context, tx pgx.Tx, k JournalKey) (secret, approvalID string, err error) {
	accounts := slices.Compact(slices.Sorted(slices.Values(k.Accounts)))
	if k.By == "" || len(accounts) == 0 || len(accounts) > maxAccounts {
		return "", "", fmt.Errorf("journal key %q: want who asks for it, and 1 to %d accounts", k.Name, maxAccounts)
	}
	for _, path := range accounts {
		if !accountForm.MatchString(path) || len(path) > 200 {
			return "", "", fmt.Errorf("journal key %q: account %q: want a path below a root, such as expenses:payroll", k.Name, path)
		}
	}
	added, err := s.addKey(ctx, tx, newKey{k.DepartmentID, k.Name, k.Env, k.By, accounts})
	return added.secret, added.approvalID, err
}

// ProposeKey is IssueKey for a key that works once a second person has approved it. It
// returns the key and the approval that it waits for.
func (s *Service) ProposeKey(ctx context.Context, tx pgx.Tx, departmentID, name, env, by string) (secret, approvalID string, err error) {
	k, err := s.addKey(ctx, tx, newKey{departmentID, name, env, by, nil})
	return k.secret, k.approvalID, err
}

type newKey struct {
	departmentID, name, env, proposedBy string

	accounts []string // of a journal key
}

type addedKey struct{ secret, approvalID string }

// keyTerms are what a second person agrees to.
type keyTerms struct {
	ID, DepartmentID, Name, Prefix string

	Accounts []string `json:",omitempty"` // of a journal key
}

func (s *Service) addKey(ctx context.Context, tx pgx.Tx, n newKey) (addedKey, error) {
	if n.name = strings.TrimSpace(n.name); n.name == "" || len(n.name) > 100 {
		return addedKey{}, errors.New("issue key: want a name of at most 100 bytes")
	}
	k := addedKey{secret: "guichet_" + n.env + "_" + id.Secret()}
	keyID, prefix, state, now := id.New(), k.secret[:len("guichet_")+len(n.env)+5], "active", s.now()
	if n.proposedBy != "" {
		payload, err := json.Marshal(keyTerms{keyID, n.departmentID, n.name, prefix, n.accounts})
		if err != nil {
			return addedKey{}, fmt.Errorf("propose key %q: %w", n.name, err)
		}
		state = "proposed"
		k.approvalID, err = approval.Ask(ctx, tx, approval.Request{Kind: ApproveKey, Object: keyID, Payload: payload, By: n.proposedBy, At: now})
		if err != nil {
			return addedKey{}, fmt.Errorf("propose key %q: %w", n.name, err)
		}
	}
	_, err := tx.Exec(ctx, `
		insert into department.api_key (id, department_id, name, prefix, hash, created_at, created_by, approval_id, state)
		values ($1, $2, $3, $4, $5, $6, $7, nullif($8, '')::uuid, $9)`,
		keyID, n.departmentID, n.name, prefix, id.Hash(k.secret), now, audit.From(ctx).Actor, k.approvalID, state)
	if err != nil {
		return addedKey{}, fmt.Errorf("issue key %q: %w", n.name, err)
	}
	details := map[string]any{"department": n.departmentID, "name": n.name, "state": state}
	if n.accounts != nil {
		details["journal"] = n.accounts
		if _, err := tx.Exec(ctx, `insert into department.journal_grant (key_id, accounts) values ($1, $2)`, keyID, n.accounts); err != nil {
			return addedKey{}, fmt.Errorf("issue journal key %q: %w", n.name, err)
		}
	}
	return k, audit.Record(ctx, tx, audit.Event{Action: "api_key.created", ObjectType: "api_key", ObjectID: keyID, Details: details, At: now})
}

// DecideKey carries out a second person's decision about a proposed key. Errors are those of
// package approval.
func (s *Service) DecideKey(ctx context.Context, tx pgx.Tx, d approval.Decision, decision string) error {
	k, err := s.ProposedKey(ctx, tx, d.ID)
	if err != nil {
		return fmt.Errorf("decide about key: %w", err)
	}
	state := "refused"
	if decision == approval.Approved {
		state = "active"
		payload, err := json.Marshal(keyTerms{k.ID, k.DepartmentID, k.Name, k.Prefix, k.Accounts})
		if err != nil {
			return fmt.Errorf("approve key: %w", err)
		}
		if _, err := approval.Approve(ctx, tx, d, payload); err != nil {
			return fmt.Errorf("approve key: %w", err)
		}
	} else if _, err := approval.Refuse(ctx, tx, d); err != nil {
		return fmt.Errorf("refuse key: %w", err)
	}
	if _, err := tx.Exec(ctx, `update department.api_key set state = $2 where id = $1`, k.ID, state); err != nil {
		return fmt.Errorf("decide about key %s: %w", k.ID, err)
	}
	s.known.forget()
	return audit.Record(ctx, tx, audit.Event{
		Action: "api_key." + decision, ObjectType: "api_key", ObjectID: k.ID, Details: map[string]any{"by": d.By, "approval": d.ID}, At: s.now(),
	})
}

// RevokeKey makes a key useless: at once here, within a second in other processes. Revoking again changes nothing; a key that the
// department does not have is ErrNoKey.
func (s *Service) RevokeKey(ctx context.Context, tx pgx.Tx, departmentID, keyID string) error {
	if !id.Valid(keyID) {
		return fmt.Errorf("revoke key: %w", ErrNoKey)
	}
	var before *time.Time
	err := tx.QueryRow(ctx, `select revoked_at from department.api_key where id = $1 and department_id = $2 for update`, keyID, departmentID).Scan(&before)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("revoke key %s: %w", keyID, ErrNoKey)
	case err != nil:
		return fmt.Errorf("revoke key %s: %w", keyID, err)
	case before != nil:
		return nil
	}
	if _, err := tx.Exec(ctx, `update department.api_key set revoked_at = $2 where id = $1`, keyID, s.now()); err != nil {
		return fmt.Errorf("revoke key %s: %w", keyID, err)
	}
	s.known.forget()
	return audit.Record(ctx, tx, audit.Event{Action: "api_key.revoked", ObjectType: "api_key", ObjectID: keyID, At: s.now()})
}

// A Key is an API key as administrators see it: without the key.
type Key struct {
	ID           string
	DepartmentID string
	Name         string
	Prefix       string // the first characters, to tell keys apart
	State        string // proposed, active, refused
	CreatedAt    time.Time
	CreatedBy    string
	LastUsedOn   *time.Time
	RevokedAt    *time.Time
	Accounts     []string // of a journal key: what it may book on
}

const keyColumns = `id, department_id, name, prefix, state, created_at, created_by, last_used_on, revoked_at,
	(select g.accounts from department.journal_grant g where g.key_id = api_key.id) as accounts`

// Keys lists a department's keys, the ones in use first, then the newest, at most 200.
func (s *Service) Keys(ctx context.Context, q Querier, departmentID string) ([]Key, error) {
	rows, err := q.Query(ctx, `
		select `+keyColumns+` from department.api_key where department_id = $1
		order by revoked_at is not null or state = 'refused', created_at desc, id desc limit 200`, departmentID)
	if err != nil {
		return nil, fmt.Errorf("list keys: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[Key])
	if err != nil {
		return nil, fmt.Errorf("list keys: %w", err)
	}
	return list, nil
}

// ProposedKey reads the key that an approval is about, or returns approval.ErrNotFound.
func (s *Service) ProposedKey(ctx context.Context, q Querier, approvalID string) (Key, error) {
	if !id.Valid(approvalID) {
		return Key{}, approval.ErrNotFound
	}
	rows, err := q.Query(ctx, `select `+keyColumns+` from department.api_key where approval_id = $1`, approvalID)
	if err != nil {
		return Key{}, fmt.Errorf("read proposed key: %w", err)
	}
	k, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[Key])
	if errors.Is(err, pgx.ErrNoRows) {
		return Key{}, approval.ErrNotFound
	}
	if err != nil {
		return Key{}, fmt.Errorf("read proposed key: %w", err)
	}
	return k, nil
}

// An Endpoint is where a department hears of events, without its secret.
type Endpoint struct {
	ID           string
	URL          string
	State        string // active, disabled
	AllowPrivate bool
	CreatedAt    time.Time
	Delivered    *time.Time // the last time it took an event
	Failing      int        // deliveries that wait to be tried again
}

// Endpoints lists a department's endpoints, oldest first, at most 100.
func (s *Service) Endpoints(ctx context.Context, q Querier, departmentID string) ([]Endpoint, error) {
	rows, err := q.Query(ctx, `
		select w.id, w.url, w.state, w.allow_private, w.created_at,
			(select max(d.delivered_at) from department.delivery d where d.endpoint_id = w.id) as delivered,
			(select count(*) from department.delivery d where d.endpoint_id = w.id and d.state = 'pending' and d.attempts > 0) as failing
		from department.webhook_endpoint w where w.department_id = $1 order by w.created_at, w.id limit 100`, departmentID)
	if err != nil {
		return nil, fmt.Errorf("list webhook endpoints: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[Endpoint])
	if err != nil {
		return nil, fmt.Errorf("list webhook endpoints: %w", err)
	}
	return list, nil
}

// DisableEndpoint sends nothing more to an endpoint, and makes its secret worthless. Doing
// it again changes nothing; an endpoint that the department does not have is ErrNoHook.
func (s *Service) DisableEndpoint(ctx context.Context, tx pgx.Tx, departmentID, endpointID string) error {
	if !id.Valid(endpointID) {
		return fmt.Errorf("disable webhook endpoint: %w", ErrNoHook)
	}
	var state string
	err := tx.QueryRow(ctx, `select state from department.webhook_endpoint where id = $1 and department_id = $2 for update`, endpointID, departmentID).Scan(&state)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("disable webhook endpoint %s: %w", endpointID, ErrNoHook)
	case err != nil:
		return fmt.Errorf("disable webhook endpoint %s: %w", endpointID, err)
	case state == "disabled":
		return nil
	}
	if _, err := tx.Exec(ctx, `update department.webhook_endpoint set state = 'disabled' where id = $1`, endpointID); err != nil {
		return fmt.Errorf("disable webhook endpoint %s: %w", endpointID, err)
	}
	return audit.Record(ctx, tx, audit.Event{
		Action: "webhook_endpoint.disabled", ObjectType: "webhook_endpoint", ObjectID: endpointID, Details: map[string]any{"department": departmentID}, At: s.now(),
	})
}
