package session

import (
	"context"
	"errors"

	"guichet/api/web"
	"guichet/identity"
	"guichet/identity/delegation"
)

// actingKey is where a request keeps for whom its resident acts.
type actingKey struct{}

// acting is what Load found out.
type acting struct {
	right delegation.Delegation // zero: for themselves
	ended bool                  // the session acts under a right that has ended
	held  func() []web.Acting
}

// Acting returns the right under which the resident of a request acts for somebody
// else. Resident stays the human: a page that does not ask acts for them alone.
func Acting(ctx context.Context) (delegation.Delegation, bool) {
	a, _ := ctx.Value(actingKey{}).(acting)
	return a.right, a.right.ID != ""
}

// ActingEnded reports that the session acts under a right which is no longer in force:
// what it asks for must not be done, neither for the party nor silently for the person.
func ActingEnded(ctx context.Context) bool {
	a, _ := ctx.Value(actingKey{}).(acting)
	return a.ended
}

// loadActing asks whether the session's right is in force, on every request.
func (s *Sessions) loadActing(ctx context.Context, p identity.Person) (context.Context, error) {
	if s.acting == nil {
		return ctx, nil
	}
	var a acting
	if p.ActingID != "" {
		var err error
		a.right, err = s.acting.Live(ctx, p.ID, p.ActingID)
		if a.ended = errors.Is(err, delegation.ErrEnded); err != nil && !a.ended {
			return nil, err
		}
	}
	a.held = func() []web.Acting {
		held, err := s.acting.Held(ctx, p.ID)
		if err != nil {
			s.log.ErrorContext(ctx, "list for whom a resident may act", "error", err)
			return nil // the page is worth more than its menu
		}
		list := make([]web.Acting, len(held))
		for i, d := range held {
			list[i] = web.Acting{ID: d.ID, Name: d.Party.Name, Type: string(d.Party.Type)}
		}
		return list
	}
	return context.WithValue(ctx, actingKey{}, a), nil
}

// actingView is what the frame of a page shows of it.
func actingView(ctx context.Context) (now *web.Acting, held func() []web.Acting) {
	a, ok := ctx.Value(actingKey{}).(acting)
	if !ok {
		return nil, nil
	}
	if a.right.ID != "" {
		now = &web.Acting{ID: a.right.ID, Name: a.right.Party.Name, Type: string(a.right.Party.Type)}
	}
	return now, a.held
}
