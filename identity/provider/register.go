package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"guichet/internal/approval"
	"guichet/internal/audit"
	"guichet/internal/id"
)

// NewClient describes a client to register.
type NewClient struct {
	By           string // who registers it
	ID           string
	DepartmentID string
	Name         Words
	Type         string // Web when empty
	AuthMethod   string // SecretBasic for Web, NoSecret for Native when empty
	FirstParty   bool
	Scopes       []string // openid, profile and email when empty
	Resources    []string
	Alg          string // ES256 when empty
	RedirectURIs []string
	PostLogout   []string
	Policy
}

// Created is a client just registered. Secret is seen here and never again; Approval
// is what waits for a second person, empty when the client works already.
type Created struct{ Secret, Approval string }

// The kinds of approval that Approve and Refuse carry out.
const (
	ApproveClient    = "client.create"
	ApproveAddresses = "client.addresses"
	ApproveChange    = "client.change"
)

// A TermsError is all that is wrong with what was written about a client.
type TermsError struct{ Faults []error }

func (e *TermsError) Error() string { return errors.Join(e.Faults...).Error() }

// ErrTaken says that a client of that id exists, or waits for approval.
var ErrTaken = errors.New("a client of this id exists already")

// CreateClient registers a client. In development it works at once; elsewhere it
// waits for Approve by a second person. All faults of the description come as one error.
func (s *Service) CreateClient(ctx context.Context, tx pgx.Tx, n NewClient) (Created, error) {
	n = n.orDefault()
	if err := s.valid(n); err != nil {
		return Created{}, fmt.Errorf("create client %q: %w", n.ID, err)
	}
	var c Created
	var hash []byte
	if n.AuthMethod == SecretBasic || n.AuthMethod == SecretPost {
		c.Secret = id.Secret()
		hash = id.Hash(c.Secret)
	}
	var err error
	state := "active"
	if !s.development {
		state = "proposed"
		if c.Approval, err = s.ask(ctx, tx, ApproveClient, n.ID, n.By, proposal{n.ID, n.terms(), n.RedirectURIs, n.PostLogout}); errors.Is(err, approval.ErrPending) {
			err = ErrTaken
		}
		if err != nil {
			return Created{}, fmt.Errorf("create client %s: %w", n.ID, err)
		}
	}
	now := s.now()
	_, err = tx.Exec(ctx, `
		insert into identity.client (id, department_id, name_en, name_fr, type, auth_method, secret_hash, first_party,
			scopes, resources, id_token_alg, policy, state, created_at)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)`,
		n.ID, n.DepartmentID, n.Name.EN, n.Name.FR, n.Type, n.AuthMethod, hash, n.FirstParty,
		n.Scopes, n.Resources, n.Alg, n.Policy, state, now)
	if err == nil {
		err = s.addURIs(ctx, tx, n.ID, c.Approval, n.RedirectURIs, n.PostLogout)
	}
	if pg := (*pgconn.PgError)(nil); errors.As(err, &pg) && pg.ConstraintName == "client_pkey" {
		err = ErrTaken
	}
	if err != nil {
		return Created{}, fmt.Errorf("create client %s: %w", n.ID, err)
	}
	return c, audit.Record(ctx, tx, audit.Event{
		Action: "client.created", ObjectType: "client", ObjectID: n.ID, At: now,
		Details: map[string]any{
			"by": n.By, "state": state, "department": n.DepartmentID, "first_party": n.FirstParty,
			"redirect_uris": n.RedirectURIs, "post_logout_uris": n.PostLogout, "scopes": n.Scopes,
		},
	})
}

func (n NewClient) orDefault() NewClient {
	if n.Type == "" {
		n.Type = Web
	}
	if n.AuthMethod == "" {
		n.AuthMethod = SecretBasic
		if n.Type == Native {
			n.AuthMethod = NoSecret
		}
	}
	if n.Scopes == nil {
		n.Scopes = []string{ScopeOpenID, ScopeProfile, ScopeEmail}
	}
	if n.Resources == nil {
		n.Resources = []string{}
	}
	if n.Alg == "" {
		n.Alg = ES256
	}
	n.RedirectURIs, n.PostLogout = sortedSet(n.RedirectURIs), sortedSet(n.PostLogout)
	return n
}

// sortedSet is never nil: the JSON of a proposal must be the same from rows.
func sortedSet(list []string) []string {
	out := append([]string{}, list...)
	slices.Sort(out)
	return slices.Compact(out)
}

// AddAddresses registers more addresses of a client; those it has already change
// nothing. In development they work at once and the returned approval is empty; elsewhere they
// wait for Approve.
func (s *Service) AddAddresses(ctx context.Context, tx pgx.Tx, clientID string, redirect, postLogout []string, by string) (approvalID string, err error) {
	c, err := client(ctx, tx, clientID, "")
	if err != nil {
		return "", fmt.Errorf("add addresses to %s: %w", clientID, err)
	}
	redirect = sortedSet(slices.DeleteFunc(slices.Clone(redirect), func(uri string) bool { return slices.Contains(c.RedirectURIs, uri) }))
	postLogout = sortedSet(slices.DeleteFunc(slices.Clone(postLogout), func(uri string) bool { return slices.Contains(c.PostLogout, uri) }))
	if len(redirect)+len(postLogout) == 0 {
		return "", nil
	}
	for _, uri := range slices.Concat(redirect, postLogout) {
		if err := s.validURI(c.Type, uri); err != nil {
			return "", fmt.Errorf("add addresses to %s: %w", clientID, &TermsError{[]error{fmt.Errorf("address %q: %w", uri, err)}})
		}
	}
	if !s.development {
		approvalID, err = s.ask(ctx, tx, ApproveAddresses, clientID, by, proposal{clientID, nil, redirect, postLogout})
	}
	if err == nil {
		err = s.addURIs(ctx, tx, clientID, approvalID, redirect, postLogout)
	}
	if err != nil {
		return "", fmt.Errorf("add addresses to %s: %w", clientID, err)
	}
	return approvalID, s.changed(ctx, tx, clientID, map[string]any{
		"by": by, "added": slices.Concat(redirect, postLogout), "approval": approvalID,
	})
}

// RemoveAddress takes an address away, at once: trusting less needs no second person.
func (s *Service) RemoveAddress(ctx context.Context, tx pgx.Tx, clientID, uri, by string) error {
	tag, err := tx.Exec(ctx, `delete from identity.client_uri where client_id = $1 and uri = $2 and state = 'active'`, clientID, uri)
	if err != nil {
		return fmt.Errorf("remove address of %s: %w", clientID, err)
	}
	if tag.RowsAffected() == 0 {
		return nil
	}
	return s.changed(ctx, tx, clientID, map[string]any{"by": by, "removed": uri})
}

// A proposal is what a second person agrees to. Its JSON is rebuilt from the rows when
// they do, so that rows changed in between are noticed.
type proposal struct {
	Client       string
	Terms        *terms // of a new client; nil when only addresses are added
	RedirectURIs []string
	PostLogout   []string
}

type terms struct {
	DepartmentID, NameEN, NameFR, Type, AuthMethod, Alg string
	FirstParty                                          bool
	Scopes, Resources                                   []string
	Policy                                              Policy
}

func (n NewClient) terms() *terms {
	return &terms{n.DepartmentID, n.Name.EN, n.Name.FR, n.Type, n.AuthMethod, n.Alg, n.FirstParty, n.Scopes, n.Resources, n.Policy}
}

func (s *Service) ask(ctx context.Context, tx pgx.Tx, kind, clientID, by string, p proposal) (string, error) {
	payload, err := json.Marshal(p)
	if err != nil {
		return "", err
	}
	return approval.Ask(ctx, tx, approval.Request{Kind: kind, Object: clientID, Payload: payload, By: by, At: s.now()})
}

// Approve carries out, with the second person's yes, what CreateClient, AddAddresses or
// ProposeChange proposed. Errors are those of approval.Approve.
func (s *Service) Approve(ctx context.Context, tx pgx.Tx, d approval.Decision) error {
	asked, err := approval.Get(ctx, tx, d.ID)
	if err != nil {
		return fmt.Errorf("approve client: %w", err)
	}
	if asked.Kind == ApproveChange {
		if err := s.approveChange(ctx, tx, d, asked.Object); err != nil {
			return fmt.Errorf("approve change of client %s: %w", asked.Object, err)
		}
		return nil
	}
	p, err := s.proposed(ctx, tx, d.ID)
	if err != nil {
		return fmt.Errorf("approve client: %w", err)
	}
	payload, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("approve client: %w", err)
	}
	if _, err := approval.Approve(ctx, tx, d, payload); err != nil {
		return fmt.Errorf("approve client: %w", err)
	}
	if p.Terms != nil {
		if _, err := tx.Exec(ctx, `update identity.client set state = 'active' where id = $1`, p.Client); err != nil {
			return fmt.Errorf("approve client %s: %w", p.Client, err)
		}
	}
	if _, err := tx.Exec(ctx, `update identity.client_uri set state = 'active' where approval_id = $1`, d.ID); err != nil {
		return fmt.Errorf("approve addresses of %s: %w", p.Client, err)
	}
	return s.changed(ctx, tx, p.Client, map[string]any{"by": d.By, "approved": d.ID})
}

// Refuse carries out the second person's no: the addresses go, a new client stays
// disabled, a client to be changed stays as it is.
func (s *Service) Refuse(ctx context.Context, tx pgx.Tx, d approval.Decision) error {
	a, err := approval.Refuse(ctx, tx, d)
	if err != nil {
		return fmt.Errorf("refuse client: %w", err)
	}
	if _, err := tx.Exec(ctx, `delete from identity.client_uri where approval_id = $1 and state = 'proposed'`, d.ID); err != nil {
		return fmt.Errorf("refuse addresses of %s: %w", a.Object, err)
	}
	if a.Kind == ApproveClient {
		if _, err := tx.Exec(ctx, `update identity.client set state = 'disabled' where id = $1 and state = 'proposed'`, a.Object); err != nil {
			return fmt.Errorf("refuse client %s: %w", a.Object, err)
		}
	}
	return s.changed(ctx, tx, a.Object, map[string]any{"by": d.By, "refused": d.ID})
}

// proposed rebuilds a proposal from the rows that wait for an approval.
func (s *Service) proposed(ctx context.Context, tx pgx.Tx, approvalID string) (proposal, error) {
	if !id.Valid(approvalID) {
		return proposal{}, approval.ErrNotFound
	}
	var p proposal
	var t terms
	var state string
	err := tx.QueryRow(ctx, `
		select c.id, c.state, c.department_id, c.name_en, c.name_fr, c.type, c.auth_method, c.id_token_alg, c.first_party, c.scopes, c.resources, c.policy,
			array(select u.uri from identity.client_uri u where u.approval_id = $1 and u.kind = 'redirect' order by u.uri collate "C"),
			array(select u.uri from identity.client_uri u where u.approval_id = $1 and u.kind = 'post-logout' order by u.uri collate "C")
		from identity.client c
		where c.id = (select u.client_id from identity.client_uri u where u.approval_id = $1 limit 1)
		for update of c`, approvalID).
		Scan(&p.Client, &state, &t.DepartmentID, &t.NameEN, &t.NameFR, &t.Type, &t.AuthMethod, &t.Alg, &t.FirstParty, &t.Scopes, &t.Resources, &t.Policy,
			&p.RedirectURIs, &p.PostLogout)
	if errors.Is(err, pgx.ErrNoRows) {
		return proposal{}, approval.ErrNotFound
	}
	if err != nil {
		return proposal{}, err
	}
	if state == "proposed" {
		p.Terms = &t
	}
	return p, nil
}

func (s *Service) valid(n NewClient) error {
	var faults []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	fault(!clientID.MatchString(n.ID), "id: want 2 to 64 of a-z, 0-9, dot, dash, underscore")
	fault(!id.Valid(n.DepartmentID), "department: want its id")
	fault(n.By == "" && !s.development, "by: want who registers it")
	fault(n.Name.EN == "" || n.Name.FR == "", "name: needed in English and in French")
	fault(n.Type != Web && n.Type != Native, "type: want %s or %s", Web, Native)
	fault(n.Type == Web && n.AuthMethod != SecretBasic && n.AuthMethod != SecretPost && n.AuthMethod != PrivateKey,
		"authentication: want %s, %s or %s", SecretBasic, SecretPost, PrivateKey)
	fault(n.Type == Native && n.AuthMethod != NoSecret, "authentication: a native client keeps no secret")
	fault(n.Alg != ES256 && n.Alg != RS256, "algorithm: want %s or %s", ES256, RS256)
	fault(!slices.Contains(n.Scopes, ScopeOpenID), "scopes: openid is missing")
	for _, scope := range n.Scopes {
		fault(!slices.Contains(Scopes(), scope), "scope %q does not exist", scope)
	}
	n.Policy.check(n, fault)
	fault(len(n.RedirectURIs) == 0 && !n.Device, "redirect address: at least one is needed")
	for _, uri := range slices.Concat(n.RedirectURIs, n.PostLogout) {
		if err := s.validURI(n.Type, uri); err != nil {
			faults = append(faults, fmt.Errorf("address %q: %w", uri, err))
		}
	}
	for _, uri := range n.Resources {
		u, err := url.Parse(uri)
		fault(err != nil || !u.IsAbs() || u.Host == "" || strings.Contains(uri, "#"), "resource %q: want an absolute URI without fragment", uri)
	}
	if len(faults) > 0 {
		return &TermsError{faults}
	}
	return nil
}

// check reports what cannot stand in a policy.
func (p Policy) check(n NewClient, fault func(bad bool, format string, args ...any)) {
	fault((n.AuthMethod == PrivateKey) != (p.Keys != nil), "keys: needed for %s, and only there", PrivateKey)
	if p.Keys != nil {
		fault(len(p.Keys.Keys) == 0 || len(p.Keys.Keys) > 5, "keys: want 1 to 5")
		for _, k := range p.Keys.Keys {
			fault(!k.IsPublic() || !k.Valid(), "key %q: want a public key", k.KeyID)
		}
		fault(!slices.Contains(AssertionAlgs(), p.AssertionAlg), "algorithm of assertions: want one of %v", AssertionAlgs())
	}
	fault(p.FAPI2 && (n.AuthMethod != PrivateKey || p.DPoP == "" || p.NonceForPKCE), "FAPI 2.0: want %s, proof of possession and PKCE", PrivateKey)
	fault(p.DPoP != "" && p.DPoP != DPoPRequired && p.DPoP != DPoPNonce, "proof of possession: want %q, %q or nothing", DPoPRequired, DPoPNonce)
	fault(p.NonceForPKCE && n.AuthMethod == NoSecret, "a client without a secret cannot do without PKCE")
	fault(p.GraceSeconds != nil && (*p.GraceSeconds < 0 || *p.GraceSeconds > 60), "grace: want 0 to 60 seconds")
	fault(p.Device && (p.Place == nil || p.Place.EN == "" || p.Place.FR == ""), "place of the device: needed in English and in French")
	fault(p.Device && slices.Contains(n.Scopes, ScopeOffline), "a device gets no refresh tokens")
	if p.LogoutURI != "" {
		u, err := url.Parse(p.LogoutURI)
		fault(err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || u.Scheme != "https" && !(u.Scheme == "http" && p.LogoutPrivate),
			"logout address %q: want https (http only into a private network)", p.LogoutURI)
	}
}

// validURI refuses what must never become a registered address: anything that
// browsers and servers might read in two ways.
func (s *Service) validURI(clientType, uri string) error {
	u, err := url.Parse(uri)
	switch {
	case err != nil:
		return errors.New("not an address")
	case strings.ContainsFunc(uri, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`\*#"<>`, r) }):
		return errors.New("only printable ASCII, no fragment, wildcard or backslash")
	case u.User != nil || u.Host == "" || u.Hostname() == "":
		return errors.New("want a host and no user name")
	case strings.ToLower(u.Host) != u.Host:
		return errors.New("want the host in lower case")
	case u.Scheme == "https":
		return nil
	case u.Scheme == "http" && loopback(u.Hostname()) && (clientType == Native || s.development):
		return nil
	}
	return errors.New("want https (http only on loopback, for native clients or in development)")
}

func (s *Service) addURIs(ctx context.Context, tx pgx.Tx, clientID, approvalID string, redirect, postLogout []string) error {
	state := "active"
	if approvalID != "" {
		state = "proposed"
	}
	for kind, uris := range map[string][]string{"redirect": redirect, "post-logout": postLogout} {
		_, err := tx.Exec(ctx, `
			insert into identity.client_uri (client_id, kind, uri, state, approval_id, created_at)
			select $1, $2, uri, $4, nullif($5, '')::uuid, $6::timestamptz from unnest($3::text[]) uri
			on conflict (client_id, kind, uri) do nothing`, clientID, kind, uris, state, approvalID, s.now())
		if err != nil {
			return fmt.Errorf("store addresses: %w", err)
		}
	}
	return nil
}

func (s *Service) changed(ctx context.Context, tx pgx.Tx, clientID string, details map[string]any) error {
	return audit.Record(ctx, tx, audit.Event{Action: "client.changed", ObjectType: "client", ObjectID: clientID, At: s.now(), Details: details})
}

func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}
