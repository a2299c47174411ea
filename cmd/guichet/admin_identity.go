package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/api/admin"
	"guichet/department"
	"guichet/identity/provider"
	"guichet/identity/staff"
	"guichet/internal/approval"
	"guichet/internal/config"
)

// adminClientCmd looks after clients; without a verb it adds one.
type adminClientCmd struct {
	Add     clientAddCmd     `cmd:"" default:"withargs" help:"Register a client; prints its secret once."`
	List    clientListCmd    `cmd:"" help:"List clients."`
	Rotate  clientRotateCmd  `cmd:"" help:"Give a client a new secret; prints it once."`
	Revoke  clientRevokeCmd  `cmd:"" help:"End the secret that works on after a rotation."`
	Disable clientDisableCmd `cmd:"" help:"Stop a client at once, with its tokens."`
	Change  clientChangeCmd  `cmd:"" help:"Propose other terms for a client, more addresses, or that a disabled one works again."`
	Errors  clientErrorsCmd  `cmd:"" help:"The client's last 50 refused requests, newest first."`
}

type clientAddCmd struct {
	Department  string   `arg:"" help:"Code of the department."`
	ID          string   `arg:"" help:"Client id."`
	NameEN      string   `arg:"" name:"name-en" help:"Name in English."`
	NameFR      string   `arg:"" name:"name-fr" help:"Name in French."`
	RedirectURI []string `name:"redirect-uri" help:"Exact redirect address; may be given again."`
	PostLogout  []string `name:"post-logout-uri" help:"Exact address after sign-out; may be given again."`
	ThirdParty  bool     `name:"third-party" help:"Not a city department: people are asked for consent."`
	By          string   `help:"Who proposes it; outside development a second person approves."`
	clientPolicy
}

func (c *clientAddCmd) Run(ctx context.Context, e env) error {
	n := provider.NewClient{
		ID: c.ID, Name: provider.Words{EN: c.NameEN, FR: c.NameFR}, FirstParty: !c.ThirdParty, RedirectURIs: c.RedirectURI, PostLogout: c.PostLogout, By: c.By,
	}
	if err := c.apply(&n); err != nil {
		return err
	}
	return e.do(ctx, func(ctx context.Context, w *world, tx pgx.Tx) (any, error) {
		d, err := w.byCode(ctx, tx, c.Department)
		if err != nil {
			return nil, err
		}
		n.DepartmentID = d.ID
		created, err := w.provider.CreateClient(ctx, tx, n)
		if errors.Is(err, provider.ErrTaken) {
			return nil, fmt.Errorf("there is a client %s already; its secret was shown then (admin client rotate gives it a new one)", c.ID)
		}
		return map[string]string{"client_id": c.ID, "client_secret": created.Secret, "waits_for_approval": created.Approval}, err
	})
}

// byCode finds a department, in words that name it when there is none.
func (w *world) byCode(ctx context.Context, tx pgx.Tx, code string) (department.Department, error) {
	d, err := w.depts.ByCode(ctx, tx, code)
	if err != nil {
		return d, fmt.Errorf("department %q: %w", code, err)
	}
	return d, nil
}

type clientListCmd struct {
	Department string `help:"Code of the department; all when left out."`
}

func (c *clientListCmd) Run(ctx context.Context, e env) error {
	return e.do(ctx, func(ctx context.Context, w *world, tx pgx.Tx) (any, error) {
		var only []string
		if c.Department != "" {
			d, err := w.byCode(ctx, tx, c.Department)
			if err != nil {
				return nil, err
			}
			only = []string{d.ID}
		}
		list, err := w.provider.Clients(ctx, only)
		out := []map[string]any{}
		for _, r := range list {
			out = append(out, map[string]any{
				"client_id": r.ID, "department": r.DepartmentCode, "state": r.State, "auth_method": r.AuthMethod, "alg": r.Alg,
				"scopes": r.Scopes, "redirect_uris": r.RedirectURIs, "post_logout_uris": r.PostLogout, "old_secret_until": r.OldSecretUntil,
			})
		}
		return out, err
	})
}

type clientRotateCmd struct {
	ID      string        `arg:"" help:"Client id."`
	By      string        `required:"" help:"Who rotates it."`
	Overlap time.Duration `default:"24h" help:"How long the secret before works on: 24h, or 0s when it has leaked; at most 720h."`
}

func (c *clientRotateCmd) Run(ctx context.Context, e env) error {
	return e.do(ctx, func(ctx context.Context, w *world, tx pgx.Tx) (any, error) {
		secret, err := w.provider.RotateSecret(ctx, tx, provider.Rotation{Client: c.ID, By: c.By, Overlap: c.Overlap})
		return map[string]string{"client_id": c.ID, "client_secret": secret, "old_secret_works_for": c.Overlap.String()}, err
	})
}

type clientRevokeCmd struct {
	ID string `arg:"" help:"Client id."`
	By string `required:"" help:"Who revokes it."`
}

func (c *clientRevokeCmd) Run(ctx context.Context, e env) error {
	return e.do(ctx, func(ctx context.Context, w *world, tx pgx.Tx) (any, error) {
		if _, err := w.provider.Registered(ctx, c.ID); err != nil {
			return nil, fmt.Errorf("client %q: %w", c.ID, err)
		}
		return map[string]string{"client_id": c.ID, "old_secret": "revoked"}, w.provider.RevokeOldSecret(ctx, tx, c.ID, c.By)
	})
}

type clientDisableCmd struct {
	ID  string `arg:"" help:"Client id."`
	By  string `required:"" help:"Who disables it."`
	Why string `required:"" help:"The reason, for the audit."`
}

func (c *clientDisableCmd) Run(ctx context.Context, e env) error {
	return e.do(ctx, func(ctx context.Context, w *world, tx pgx.Tx) (any, error) {
		return map[string]string{"client_id": c.ID, "state": "disabled"}, w.provider.Disable(ctx, tx, c.ID, c.By, c.Why)
	})
}

type clientChangeCmd struct {
	ID          string   `arg:"" help:"Client id."`
	By          string   `required:"" help:"Who proposes it; outside development a second person approves."`
	Scope       []string `help:"Scopes from now on; may be given again."`
	Alg         string   `help:"Algorithm of ID tokens: ES256 or RS256."`
	AuthMethod  string   `name:"auth-method" help:"How the client proves itself at the token endpoint."`
	Enable      bool     `help:"A disabled client works again."`
	RedirectURI []string `name:"redirect-uri" help:"One more redirect address; may be given again."`
	PostLogout  []string `name:"post-logout-uri" help:"One more address after sign-out; may be given again."`
}

func (c *clientChangeCmd) Run(ctx context.Context, e env) error {
	change := provider.Change{Enable: c.Enable}
	if c.Scope != nil {
		change.Scopes = &c.Scope
	}
	if c.Alg != "" {
		change.Alg = &c.Alg
	}
	if c.AuthMethod != "" {
		change.AuthMethod = &c.AuthMethod
	}
	return e.do(ctx, func(ctx context.Context, w *world, tx pgx.Tx) (any, error) {
		waits := map[string]string{"client_id": c.ID}
		if c.RedirectURI != nil || c.PostLogout != nil {
			approvalID, err := w.provider.AddAddresses(ctx, tx, c.ID, c.RedirectURI, c.PostLogout, c.By)
			if err != nil {
				return nil, err
			}
			waits["addresses_wait_for_approval"] = approvalID
			if change == (provider.Change{}) {
				return waits, nil
			}
		}
		approvalID, err := w.provider.ProposeChange(ctx, tx, c.ID, change, c.By)
		waits["waits_for_approval"] = approvalID
		return waits, err
	})
}

type clientErrorsCmd struct {
	ID string `arg:"" help:"Client id."`
}

func (c *clientErrorsCmd) Run(ctx context.Context, e env) error {
	return e.do(ctx, func(ctx context.Context, w *world, tx pgx.Tx) (any, error) {
		if _, err := w.provider.Registered(ctx, c.ID); err != nil {
			return nil, fmt.Errorf("client %q: %w", c.ID, err)
		}
		admin.Register(w.site)
		list, err := w.provider.Refusals(ctx, c.ID)
		out := []map[string]any{}
		for _, r := range list {
			words, do := admin.Explain(w.site, "en", r)
			out = append(out, map[string]any{
				"at": r.At, "endpoint": r.Endpoint, "error": r.Code, "description": r.Description, "network": r.Network, "means": words, "do": do,
			})
		}
		return out, err
	})
}

// adminKeyCmd looks after API keys; without a verb it issues one.
type adminKeyCmd struct {
	Add    keyAddCmd    `cmd:"" default:"withargs" help:"Issue an API key; prints it once."`
	List   keyListCmd   `cmd:"" help:"List a department's keys."`
	Revoke keyRevokeCmd `cmd:"" help:"Make a key useless, at once."`
}

type keyAddCmd struct {
	Department string   `arg:"" help:"Code of the department."`
	Name       string   `arg:"" help:"What the key is for."`
	Journal    []string `help:"Make it a key that uploads journal entries, and nothing else: an account that it may book on, with all below it; may be given again. A second person approves."`
	By         string   `help:"Who asks for a journal key."`
}

// keyKind is what a key of this deployment calls itself.
func keyKind(cfg config.Config) string {
	if cfg.Env == config.Production {
		return "live"
	}
	return "test"
}

func (c *keyAddCmd) Run(ctx context.Context, e env) error {
	return e.do(ctx, func(ctx context.Context, w *world, tx pgx.Tx) (any, error) {
		d, err := w.byCode(ctx, tx, c.Department)
		if err != nil {
			return nil, err
		}
		if len(c.Journal) > 0 {
			key, waits, err := w.depts.ProposeJournalKey(ctx, tx, department.JournalKey{
				DepartmentID: d.ID, Name: c.Name, Env: keyKind(w.cfg), Accounts: c.Journal, By: c.By,
			})
			return map[string]string{"api_key": key, "waits_for_approval": waits}, err
		}
		key, err := w.depts.IssueKey(ctx, tx, d.ID, c.Name, keyKind(w.cfg))
		return map[string]string{"api_key": key}, err
	})
}

type keyListCmd struct {
	Department string `arg:"" help:"Code of the department."`
}

func (c *keyListCmd) Run(ctx context.Context, e env) error {
	return e.do(ctx, func(ctx context.Context, w *world, tx pgx.Tx) (any, error) {
		d, err := w.byCode(ctx, tx, c.Department)
		if err != nil {
			return nil, err
		}
		list, err := w.depts.Keys(ctx, tx, d.ID)
		out := []map[string]any{}
		for _, k := range list {
			out = append(out, map[string]any{"id": k.ID, "name": k.Name, "begins": k.Prefix, "state": k.State, "created_at": k.CreatedAt, "last_used_on": k.LastUsedOn, "revoked_at": k.RevokedAt, "journal": k.Accounts})
		}
		return out, err
	})
}

type keyRevokeCmd struct {
	Department string `arg:"" help:"Code of the department."`
	ID         string `arg:"" help:"Id of the key, as admin key list prints it."`
}

func (c *keyRevokeCmd) Run(ctx context.Context, e env) error {
	return e.do(ctx, func(ctx context.Context, w *world, tx pgx.Tx) (any, error) {
		d, err := w.byCode(ctx, tx, c.Department)
		if err != nil {
			return nil, err
		}
		return map[string]string{"id": c.ID, "state": "revoked"}, w.depts.RevokeKey(ctx, tx, d.ID, c.ID)
	})
}

// adminWebhookCmd looks after webhook endpoints; without a verb it registers one.
type adminWebhookCmd struct {
	Add    webhookAddCmd    `cmd:"" default:"withargs" help:"Register a webhook endpoint; prints its signing secret once."`
	List   webhookListCmd   `cmd:"" help:"List a department's endpoints."`
	Revoke webhookRevokeCmd `cmd:"" help:"Send nothing more to an endpoint; registering it again gives it a new secret."`
}

type webhookAddCmd struct {
	Department string `arg:"" help:"Code of the department."`
	URL        string `arg:"" help:"Where events are posted."`
	Private    bool   `help:"Allow plain http, and an address inside the network or on this machine."`
}

func (c *webhookAddCmd) Run(ctx context.Context, e env) error {
	return e.do(ctx, func(ctx context.Context, w *world, tx pgx.Tx) (any, error) {
		d, err := w.byCode(ctx, tx, c.Department)
		if err != nil {
			return nil, err
		}
		secret, err := w.depts.AddEndpoint(ctx, tx, d.ID, c.URL, c.Private)
		if errors.Is(err, department.ErrExists) {
			return nil, fmt.Errorf("%s has the webhook address %s already; its secret was shown then", c.Department, c.URL)
		}
		if err != nil && !c.Private {
			return nil, fmt.Errorf("%w (--private allows plain http and addresses inside the network)", err)
		}
		return map[string]string{"secret": secret}, err
	})
}

type webhookListCmd struct {
	Department string `arg:"" help:"Code of the department."`
}

func (c *webhookListCmd) Run(ctx context.Context, e env) error {
	return e.do(ctx, func(ctx context.Context, w *world, tx pgx.Tx) (any, error) {
		d, err := w.byCode(ctx, tx, c.Department)
		if err != nil {
			return nil, err
		}
		list, err := w.depts.Endpoints(ctx, tx, d.ID)
		out := []map[string]any{}
		for _, p := range list {
			out = append(out, map[string]any{"id": p.ID, "url": p.URL, "state": p.State, "private": p.AllowPrivate, "last_delivery_at": p.Delivered, "waiting_to_be_tried_again": p.Failing})
		}
		return out, err
	})
}

type webhookRevokeCmd struct {
	Department string `arg:"" help:"Code of the department."`
	ID         string `arg:"" help:"Id of the endpoint, as admin webhook list prints it."`
}

func (c *webhookRevokeCmd) Run(ctx context.Context, e env) error {
	return e.do(ctx, func(ctx context.Context, w *world, tx pgx.Tx) (any, error) {
		d, err := w.byCode(ctx, tx, c.Department)
		if err != nil {
			return nil, err
		}
		return map[string]string{"id": c.ID, "state": "disabled"}, w.depts.DisableEndpoint(ctx, tx, d.ID, c.ID)
	})
}

type adminApproveCmd struct {
	Approval string `arg:"" help:"Id of what waits, as the proposing command printed it."`
	By       string `required:"" help:"Who approves: not the one who proposed."`
}

func (c *adminApproveCmd) Run(ctx context.Context, e env) error {
	return e.do(ctx, func(ctx context.Context, w *world, tx pgx.Tx) (any, error) {
		d := approval.Decision{ID: c.Approval, By: c.By, At: w.clock.Now()}
		return map[string]string{"approved": c.Approval}, w.decide(ctx, tx, d, approval.Approved)
	})
}

type adminRefuseCmd struct {
	Approval string `arg:"" help:"Id of what waits, as the proposing command printed it."`
	By       string `required:"" help:"Who refuses: not the one who proposed."`
	Why      string `required:"" help:"The reason, for who proposed it."`
}

func (c *adminRefuseCmd) Run(ctx context.Context, e env) error {
	return e.do(ctx, func(ctx context.Context, w *world, tx pgx.Tx) (any, error) {
		d := approval.Decision{ID: c.Approval, By: c.By, Reason: c.Why, At: w.clock.Now()}
		return map[string]string{"refused": c.Approval}, w.decide(ctx, tx, d, approval.Refused)
	})
}

// decide carries out a decision in the room that asked for it.
func (w *world) decide(ctx context.Context, tx pgx.Tx, d approval.Decision, decision string) error {
	a, err := approval.Get(ctx, tx, d.ID)
	switch {
	case err != nil:
		return fmt.Errorf("approval %s: %w", d.ID, err)
	case a.Kind == department.ApproveKey:
		return w.depts.DecideKey(ctx, tx, d, decision)
	case decision == approval.Approved:
		return w.provider.Approve(ctx, tx, d)
	}
	return w.provider.Refuse(ctx, tx, d)
}

// adminStaffCmd looks after the roles of staff; without a verb it grants one.
type adminStaffCmd struct {
	Grant   staffGrantCmd   `cmd:"" default:"withargs" help:"Grant a role to a member of staff who has signed in before."`
	Revoke  staffRevokeCmd  `cmd:"" help:"Take a role away; the member's sessions end."`
	List    staffListCmd    `cmd:"" help:"List members of staff with their roles."`
	Suspend staffSuspendCmd `cmd:"" help:"Let a member in no more; the member's sessions end."`
	Resume  staffResumeCmd  `cmd:"" help:"Let a suspended member in again."`
}

type roleArgs struct {
	Email      string `arg:"" help:"The member's address in the city's directory."`
	Role       string `arg:"" help:"Role, such as finance-clerk."`
	Department string `help:"Code of the department; the whole city when left out."`
	Channel    string `help:"Channel, such as phone; every one when left out."`
	By         string `required:"" help:"Who says so."`
}

// role finds the member and the role that the arguments name.
func (a *roleArgs) role(ctx context.Context, w *world, tx pgx.Tx) (memberID string, r staff.Role, err error) {
	r = staff.Role{Name: a.Role, Channel: a.Channel}
	if a.Department != "" {
		d, err := w.byCode(ctx, tx, a.Department)
		if err != nil {
			return "", r, err
		}
		r.Department = d.ID
	}
	memberID, err = w.memberByEmail(ctx, a.Email)
	return memberID, r, err
}

func (w *world) memberByEmail(ctx context.Context, email string) (string, error) {
	members, err := w.staff.MembersByEmail(ctx, email)
	if err != nil {
		return "", err
	}
	if len(members) != 1 {
		return "", fmt.Errorf("%d members of staff with the address %s have tried to sign in at /desk; want one", len(members), email)
	}
	return members[0].ID, nil
}

type staffGrantCmd struct {
	roleArgs `embed:""`
}

func (c *staffGrantCmd) Run(ctx context.Context, e env) error {
	return e.do(ctx, func(ctx context.Context, w *world, tx pgx.Tx) (any, error) {
		memberID, role, err := c.role(ctx, w, tx)
		if err != nil {
			return nil, err
		}
		return map[string]string{"member": memberID, "role": c.Role}, w.staff.Grant(ctx, tx, memberID, role, c.By)
	})
}

type staffRevokeCmd struct {
	roleArgs `embed:""`
}

func (c *staffRevokeCmd) Run(ctx context.Context, e env) error {
	return e.do(ctx, func(ctx context.Context, w *world, tx pgx.Tx) (any, error) {
		memberID, role, err := c.role(ctx, w, tx)
		if err != nil {
			return nil, err
		}
		return map[string]string{"member": memberID, "revoked": c.Role}, w.staff.Revoke(ctx, tx, memberID, role, c.By)
	})
}

type staffListCmd struct{}

func (c *staffListCmd) Run(ctx context.Context, e env) error {
	return e.do(ctx, func(ctx context.Context, w *world, tx pgx.Tx) (any, error) {
		list, err := w.staff.Members(ctx, staff.MemberFilter{})
		out := []map[string]any{}
		for _, m := range list {
			out = append(out, map[string]any{"id": m.ID, "name": m.Name, "email": m.Email, "suspended": m.Suspended, "groups": m.Groups, "roles": m.Roles})
		}
		return out, err
	})
}

type turnArgs struct {
	Email string `arg:"" help:"The member's address in the city's directory."`
	By    string `required:"" help:"Who says so."`
	Why   string `required:"" help:"The reason, for the audit."`
}

type staffSuspendCmd struct {
	turnArgs `embed:""`
}

func (c *staffSuspendCmd) Run(ctx context.Context, e env) error {
	return e.do(ctx, func(ctx context.Context, w *world, tx pgx.Tx) (any, error) {
		memberID, err := w.memberByEmail(ctx, c.Email)
		if err != nil {
			return nil, err
		}
		return map[string]string{"member": memberID, "state": "suspended"}, w.staff.Suspend(ctx, tx, memberID, c.By, c.Why)
	})
}

type staffResumeCmd struct {
	turnArgs `embed:""`
}

func (c *staffResumeCmd) Run(ctx context.Context, e env) error {
	return e.do(ctx, func(ctx context.Context, w *world, tx pgx.Tx) (any, error) {
		memberID, err := w.memberByEmail(ctx, c.Email)
		if err != nil {
			return nil, err
		}
		return map[string]string{"member": memberID, "state": "active"}, w.staff.Resume(ctx, tx, memberID, c.By, c.Why)
	})
}

// adminSigningKeyCmd looks after the provider's keys.
type adminSigningKeyCmd struct {
	List   signingKeyListCmd   `cmd:"" help:"List the keys and their states."`
	Rotate signingKeyRotateCmd `cmd:"" help:"Let the next key sign from now on."`
}

type signingKeyListCmd struct{}

func (c *signingKeyListCmd) Run(ctx context.Context, e env) error {
	return e.do(ctx, func(ctx context.Context, w *world, tx pgx.Tx) (any, error) { return w.provider.Keys(ctx) })
}

type signingKeyRotateCmd struct {
	Alg         string `arg:"" help:"ES256 or RS256."`
	Compromised bool   `help:"The key has leaked: withdraw it at once, with every ID token it signed."`
	By          string `required:"" help:"Who rotates."`
}

func (c *signingKeyRotateCmd) Run(ctx context.Context, e env) error {
	w, err := openWorld(ctx, e)
	if err != nil {
		return err
	}
	defer w.close()
	rotate := w.provider.RotateKey
	if c.Compromised {
		rotate = w.provider.WithdrawKey
	}
	if err := rotate(asAdmin(ctx), c.Alg, c.By); err != nil {
		return err
	}
	fmt.Fprintf(e.out, "the next %s key signs\n", c.Alg)
	return nil
}

// adminBreakGlassCmd looks after the envelopes.
type adminBreakGlassCmd struct {
	Make   breakGlassMakeCmd   `cmd:"" help:"Make a credential; prints its code once, for a sealed envelope."`
	List   breakGlassListCmd   `cmd:"" help:"List the credentials and their uses."`
	Revoke breakGlassRevokeCmd `cmd:"" help:"Make a credential useless."`
}

type breakGlassMakeCmd struct {
	By string `required:"" help:"Who makes it."`
}

func (c *breakGlassMakeCmd) Run(ctx context.Context, e env) error {
	return e.do(ctx, func(ctx context.Context, w *world, tx pgx.Tx) (any, error) {
		credentialID, code, err := w.staff.MakeBreakGlass(ctx, tx, c.By)
		if errors.Is(err, staff.ErrNoAlarm) {
			return nil, fmt.Errorf("%w: set STAFF_ALARM_MAIL first", err)
		}
		return map[string]string{"id": credentialID, "code": code, "opens": w.cfg.BaseURL + "/staff/break-glass"}, err
	})
}

type breakGlassListCmd struct{}

func (c *breakGlassListCmd) Run(ctx context.Context, e env) error {
	return e.do(ctx, func(ctx context.Context, w *world, tx pgx.Tx) (any, error) {
		list, err := w.staff.BreakGlasses(ctx)
		out := []map[string]any{}
		for _, b := range list {
			out = append(out, map[string]any{
				"id": b.ID, "made_by": b.MadeBy, "made_at": b.MadeAt, "expires_at": b.ExpiresAt, "revoked_at": b.RevokedAt,
				"used_at": b.UsedAt, "used_by": b.UsedBy, "used_why": b.UsedWhy, "used_network": b.UsedNetwork,
			})
		}
		return out, err
	})
}

type breakGlassRevokeCmd struct {
	ID string `arg:"" help:"Id of the credential, as admin break-glass list prints it."`
	By string `required:"" help:"Who revokes it."`
}

func (c *breakGlassRevokeCmd) Run(ctx context.Context, e env) error {
	return e.do(ctx, func(ctx context.Context, w *world, tx pgx.Tx) (any, error) {
		return map[string]string{"id": c.ID, "state": "revoked"}, w.staff.RevokeBreakGlass(ctx, tx, c.ID, c.By)
	})
}
