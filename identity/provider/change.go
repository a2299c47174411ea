package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/approval"
	"guichet/internal/audit"
)

// ErrNothing says that a change would change nothing.
var ErrNothing = errors.New("nothing would change")

// A Change is what shall become of a client's terms; nil leaves a term as it is.
type Change struct {
	Name       *Words    `json:",omitempty"`
	Scopes     *[]string `json:",omitempty"`
	Resources  *[]string `json:",omitempty"`
	AuthMethod *string   `json:",omitempty"`
	Alg        *string   `json:",omitempty"`
	FirstParty *bool     `json:",omitempty"`
	Policy     *Policy   `json:",omitempty"`
	Enable     bool      `json:",omitempty"` // a disabled client works again
}

// over lays the change over terms.
func (c Change) over(n NewClient) NewClient {
	if c.Name != nil {
		n.Name = *c.Name
	}
	if c.Scopes != nil {
		n.Scopes = *c.Scopes
	}
	if c.Resources != nil {
		n.Resources = *c.Resources
	}
	if c.AuthMethod != nil {
		n.AuthMethod = *c.AuthMethod
	}
	if c.Alg != nil {
		n.Alg = *c.Alg
	}
	if c.FirstParty != nil {
		n.FirstParty = *c.FirstParty
	}
	if c.Policy != nil {
		n.Policy = *c.Policy
	}
	return n
}

// since leaves of the change what differs from the client as it is.
func (c Change) since(r Registered) Change {
	if c.Name != nil && *c.Name == r.Name {
		c.Name = nil
	}
	if c.Scopes != nil && slices.Equal(*c.Scopes, r.Scopes) {
		c.Scopes = nil
	}
	if c.Resources != nil && slices.Equal(*c.Resources, r.Resources) {
		c.Resources = nil
	}
	if c.AuthMethod != nil && *c.AuthMethod == r.AuthMethod {
		c.AuthMethod = nil
	}
	if c.Alg != nil && *c.Alg == r.Alg {
		c.Alg = nil
	}
	if c.FirstParty != nil && *c.FirstParty == r.FirstParty {
		c.FirstParty = nil
	}
	if c.Policy != nil && c.Policy.equal(r.Policy) {
		c.Policy = nil
	}
	c.Enable = c.Enable && r.State == "disabled"
	return c
}

// ProposeChange asks for a change of a client's terms. In development it is carried out at
// once and the returned approval is empty; elsewhere it waits for Approve by a second person.
// It returns ErrNotFound, ErrNothing or approval.ErrPending, wrapped, or all that is wrong
// with the terms as one error.
func (s *Service) ProposeChange(ctx context.Context, tx pgx.Tx, name string, c Change, by string) (string, error) {
	r, err := registered(ctx, tx, name)
	if err != nil {
		return "", fmt.Errorf("change client %q: %w", name, err)
	}
	if c = c.since(r); c == (Change{}) {
		return "", fmt.Errorf("change client %s: %w", name, ErrNothing)
	}
	if c.AuthMethod != nil && usesSecret(*c.AuthMethod) != usesSecret(r.AuthMethod) {
		fault := errors.New("authentication: a client does not change between secret, key and none; register another one")
		return "", fmt.Errorf("change client %s: %w", name, &TermsError{[]error{fault}})
	}
	if err := s.valid(c.over(r.asNew())); err != nil {
		return "", fmt.Errorf("change client %s: %w", name, err)
	}
	if s.development {
		return "", s.carryOut(ctx, tx, r, c, map[string]any{"by": by})
	}
	payload, err := json.Marshal(c)
	if err != nil {
		return "", fmt.Errorf("change client %s: %w", name, err)
	}
	now := s.now()
	approvalID, err := approval.Ask(ctx, tx, approval.Request{Kind: ApproveChange, Object: name, Payload: payload, By: by, At: now})
	if err != nil {
		return "", fmt.Errorf("change client %s: %w", name, err)
	}
	_, err = tx.Exec(ctx, `insert into identity.client_change (approval_id, client_id, change, created_at) values ($1, $2, $3, $4)`,
		approvalID, name, payload, now)
	if err != nil {
		return "", fmt.Errorf("keep change of client %s: %w", name, err)
	}
	return approvalID, s.changed(ctx, tx, name, map[string]any{"by": by, "proposed": approvalID})
}

func usesSecret(method string) bool { return method == SecretBasic || method == SecretPost }

// approveChange carries out a change with the second person's yes.
func (s *Service) approveChange(ctx context.Context, tx pgx.Tx, d approval.Decision, name string) error {
	r, err := registered(ctx, tx, name)
	if err != nil {
		return err
	}
	c, err := changeOf(ctx, tx, d.ID)
	if err != nil {
		return err
	}
	payload, err := json.Marshal(c)
	if err != nil {
		return err
	}
	if _, err := approval.Approve(ctx, tx, d, payload); err != nil {
		return err
	}
	if err := s.valid(c.over(r.asNew())); err != nil { // the client may have changed since
		return err
	}
	return s.carryOut(ctx, tx, r, c, map[string]any{"by": d.By, "approved": d.ID})
}

func (s *Service) carryOut(ctx context.Context, tx pgx.Tx, r Registered, c Change, details map[string]any) error {
	n := c.over(r.asNew())
	_, err := tx.Exec(ctx, `
		update identity.client set name_en = $2, name_fr = $3, scopes = $4, resources = $5, auth_method = $6, id_token_alg = $7,
			first_party = $8, policy = $9, state = case when $10 and state = 'disabled' then 'active' else state end
		where id = $1`, r.ID, n.Name.EN, n.Name.FR, n.Scopes, n.Resources, n.AuthMethod, n.Alg, n.FirstParty, n.Policy, c.Enable)
	if err != nil {
		return fmt.Errorf("change client %s: %w", r.ID, err)
	}
	details["change"] = c
	return s.changed(ctx, tx, r.ID, details)
}

// changeOf reads the change that an approval is about.
func changeOf(ctx context.Context, q querier, approvalID string) (Change, error) {
	var body []byte
	err := q.QueryRow(ctx, `select change from identity.client_change where approval_id = $1`, approvalID).Scan(&body)
	if errors.Is(err, pgx.ErrNoRows) {
		return Change{}, approval.ErrNotFound
	}
	if err != nil {
		return Change{}, fmt.Errorf("read change %s: %w", approvalID, err)
	}
	var c Change
	if err := json.Unmarshal(body, &c); err != nil {
		return Change{}, fmt.Errorf("read change %s: %w", approvalID, err)
	}
	return c, nil
}

// Disable stops a client at once, with the tokens it was given: trusting less needs no second
// person. Disabling again changes nothing; a change with Enable brings it back.
func (s *Service) Disable(ctx context.Context, tx pgx.Tx, name, by, why string) error {
	tag, err := tx.Exec(ctx, `update identity.client set state = 'disabled' where id = $1 and state = 'active'`, name)
	if err != nil {
		return fmt.Errorf("disable client %s: %w", name, err)
	}
	if tag.RowsAffected() == 0 {
		_, err := registered(ctx, tx, name)
		return err
	}
	_, err = tx.Exec(ctx, `
		update identity.client_grant set revoked_at = $2, revoked_why = 'client disabled' where client_id = $1 and revoked_at is null`,
		name, s.now())
	if err != nil {
		return fmt.Errorf("revoke grants of %s: %w", name, err)
	}
	return audit.Record(ctx, tx, audit.Event{
		Action: "client.disabled", ObjectType: "client", ObjectID: name, At: s.now(), Details: map[string]any{"by": by, "why": why},
	})
}

// A Registered is a client as those see it who look after it: in every state, with what is
// not in force yet.
type Registered struct {
	Client
	State          string // proposed, active or disabled
	DepartmentCode string
	CreatedAt      time.Time
	SecretMadeAt   time.Time  // when there is a secret
	OldSecretUntil *time.Time // when the secret before ends; nil: there is none
	Proposed       []Address  // addresses that wait for a second person
}

// An Address is one of a client's, of kind "redirect" or "post-logout".
type Address struct{ Kind, URI string }

// HasSecret reports whether the client proves itself with a secret.
func (r Registered) HasSecret() bool { return r.secrets.hash != nil }

func (r Registered) asNew() NewClient {
	return NewClient{
		ID: r.ID, By: "-", DepartmentID: r.DepartmentID, Name: r.Name, Type: r.Type, AuthMethod: r.AuthMethod, FirstParty: r.FirstParty,
		Scopes: r.Scopes, Resources: r.Resources, Alg: r.Alg, RedirectURIs: append(slices.Clone(r.RedirectURIs), r.proposedRedirects()...), PostLogout: r.PostLogout,
		Policy: r.Policy,
	}
}

func (r Registered) proposedRedirects() []string {
	var uris []string
	for _, a := range r.Proposed {
		if a.Kind == "redirect" {
			uris = append(uris, a.URI)
		}
	}
	return uris
}

// Registered reads a client in any state, or returns ErrNotFound.
func (s *Service) Registered(ctx context.Context, name string) (Registered, error) {
	return registered(ctx, s.db, name)
}

// A lister is a pool or a transaction.
type lister interface {
	querier
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func registered(ctx context.Context, q lister, name string) (Registered, error) {
	if !clientID.MatchString(name) {
		return Registered{}, ErrNotFound
	}
	list, err := readRegistered(ctx, q, `where c.id = $1`, name)
	if err == nil && len(list) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return Registered{}, err
	}
	return list[0], nil
}

// Clients lists the clients of departments, or of all when departmentIDs is nil, by department
// and id, at most 500.
func (s *Service) Clients(ctx context.Context, departmentIDs []string) ([]Registered, error) {
	return readRegistered(ctx, s.db, `where $1::uuid[] is null or c.department_id = any ($1)`, departmentIDs)
}

func readRegistered(ctx context.Context, q lister, where string, arg any) ([]Registered, error) {
	rows, err := q.Query(ctx, `
		select c.id, c.department_id, c.name_en, c.name_fr, d.name_en, d.name_fr, d.code, c.type, c.auth_method, c.secret_hash,
			c.first_party, c.scopes, c.resources, c.id_token_alg, c.policy, c.state, c.created_at, coalesce(c.secret_made_at, c.created_at), c.old_secret_until,
			array(select u.uri from identity.client_uri u where u.client_id = c.id and u.kind = 'redirect' and u.state = 'active' order by u.uri),
			array(select u.uri from identity.client_uri u where u.client_id = c.id and u.kind = 'post-logout' and u.state = 'active' order by u.uri),
			coalesce((select jsonb_agg(jsonb_build_object('Kind', u.kind, 'URI', u.uri) order by u.kind, u.uri)
				from identity.client_uri u where u.client_id = c.id and u.state = 'proposed'), '[]')
		from identity.client c join department.department d on d.id = c.department_id
		`+where+` order by d.code, c.id limit 500`, arg)
	if err != nil {
		return nil, fmt.Errorf("read clients: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r Registered, err error) {
		var proposed []byte
		err = row.Scan(&r.ID, &r.DepartmentID, &r.Name.EN, &r.Name.FR, &r.Department.EN, &r.Department.FR, &r.DepartmentCode, &r.Type, &r.AuthMethod, &r.secrets.hash,
			&r.FirstParty, &r.Scopes, &r.Resources, &r.Alg, &r.Policy, &r.State, &r.CreatedAt, &r.SecretMadeAt, &r.OldSecretUntil, &r.RedirectURIs, &r.PostLogout, &proposed)
		if err != nil {
			return r, err
		}
		return r, json.Unmarshal(proposed, &r.Proposed)
	})
	if err != nil {
		return nil, fmt.Errorf("read clients: %w", err)
	}
	return list, nil
}

// A Proposal is what waits for a second person: a new client, addresses, or a change.
type Proposal struct {
	approval.Approval
	Client     Registered
	RedirectTo []string // addresses that would be added
	PostLogout []string
	Change     Change
}

// Proposal reads what an approval is about, or returns approval.ErrNotFound.
func (s *Service) Proposal(ctx context.Context, tx pgx.Tx, approvalID string) (Proposal, error) {
	a, err := approval.Get(ctx, tx, approvalID)
	if err != nil {
		return Proposal{}, err
	}
	p := Proposal{Approval: a}
	switch a.Kind {
	case ApproveChange:
		p.Change, err = changeOf(ctx, tx, approvalID)
	case ApproveClient, ApproveAddresses:
		err = tx.QueryRow(ctx, `
			select array(select u.uri from identity.client_uri u where u.approval_id = $1 and u.kind = 'redirect' order by u.uri),
				array(select u.uri from identity.client_uri u where u.approval_id = $1 and u.kind = 'post-logout' order by u.uri)`, approvalID).
			Scan(&p.RedirectTo, &p.PostLogout)
	default:
		return Proposal{}, approval.ErrNotFound
	}
	if err != nil {
		return Proposal{}, err
	}
	p.Client, err = registered(ctx, tx, a.Object)
	return p, err
}
