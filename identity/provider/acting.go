package provider

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"guichet/identity"
	"guichet/identity/delegation"
)

// A grant is given for the person alone or, with the scope guichet:act, under the right
// that their session acts under at that moment. It keeps that right for good: another context is
// another grant. Once the right has ended nothing of the grant opens anything.

// grantLive is the condition that a grant g is not under a right that has ended; now
// names the parameter with the time.
func grantLive(now string) string {
	return `(g.acting_id is null or identity.delegation_live(g.acting_id, (` + now + `::timestamptz at time zone 'America/Toronto')::date))`
}

// acting is the right that a request is to be answered under; "" for none. Whether it
// holds, and in the client's department, is asked as the grant is stored.
func (r Request) acting(person identity.Person) string {
	if !r.Acts() {
		return ""
	}
	return person.ActingID
}

// actingClaims is what the claims about acting are made of.
type actingClaims struct {
	right, resident, sub string
	department           string // id, whose name for the party is told
	scopes               []string
}

// addActing adds for whom the person acts, and that they are the one who acts. The sub
// stays the human's: an application that does not know acting_for takes nobody for somebody else.
func (s *Service) addActing(ctx context.Context, claims map[string]any, a actingClaims) error {
	if a.right == "" || s.acting == nil || !slices.Contains(a.scopes, ScopeAct) {
		return nil
	}
	d, err := s.acting.Live(ctx, a.resident, a.right)
	if errors.Is(err, delegation.ErrEnded) {
		return ErrToken // at this moment
	}
	if err != nil {
		return err
	}
	party, err := s.subject(ctx, s.db, a.department, d.Party.ID)
	if err != nil {
		return err
	}
	in := map[string]any{
		"type": d.Party.Type, "id": party, "name": d.Party.Name, "role": d.Role, "rights": d.Scope.Rights, "proof": d.Party.Proof,
	}
	if d.Scope.Until.Year != 0 {
		in["until"] = d.Scope.Until.String()
	}
	claims["acting_for"], claims["act"] = in, map[string]any{"sub": a.sub}
	return nil
}

// Contexts lists the rights under which a resident may act at a client: those that
// extend to its department.
func (s *Service) Contexts(ctx context.Context, c Client, residentID string) ([]delegation.Delegation, error) {
	if s.acting == nil {
		return nil, nil
	}
	held, err := s.acting.Held(ctx, residentID)
	if err != nil || len(held) == 0 {
		return nil, err
	}
	var code string
	if err := s.db.QueryRow(ctx, `select code from department.department where id = $1`, c.DepartmentID).Scan(&code); err != nil {
		return nil, fmt.Errorf("read department: %w", err)
	}
	return slices.DeleteFunc(held, func(d delegation.Delegation) bool { return !d.Scope.Covers(code) }), nil
}

// ActAs makes the person's session act under a right, or for themselves when rightID is empty, before a
// request is answered, and returns the session's new token. It returns delegation.ErrEnded or
// identity.ErrNoSession, wrapped.
func (s *Service) ActAs(ctx context.Context, p identity.Person, token, rightID string) (fresh string, err error) {
	if s.acting == nil {
		return "", delegation.ErrEnded
	}
	return s.acting.Switch(ctx, p, token, rightID)
}

// Acts reports whether the client wants to know for whom the person acts.
func (r Request) Acts() bool { return slices.Contains(r.Scopes, ScopeAct) }
