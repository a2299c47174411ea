package provider

import (
	"context"
	"errors"
	"net/url"
	"slices"

	"guichet/identity"
)

// A LogoutRequest is what a client, or a link, asks of the end-session endpoint
// (OpenID Connect RP-Initiated Logout 1.0).
type LogoutRequest struct {
	IDTokenHint string
	ClientID    string
	URI         string // post_logout_redirect_uri
	State       string
}

// A LogoutStep is what to do about a LogoutRequest.
type LogoutStep struct {
	SignOut  bool   // end the session now
	Confirm  bool   // ask the person first; nothing happens before
	Next     string // where to go afterwards: a registered address, or "" for our own page
	ClientID string // whose address Next is
}

// Logout decides about a request with person nil when nobody is signed in. The session
// ends without a question only when the client proves, by its ID token, that it
// speaks of this person, and asks for nothing unregistered. ErrHint means a forged token.
func (s *Service) Logout(ctx context.Context, r LogoutRequest, person *identity.Person) (LogoutStep, error) {
	clientID, own := r.ClientID, false
	if r.IDTokenHint != "" {
		h, err := s.hint(ctx, r.IDTokenHint)
		if err == nil && r.ClientID != "" && r.ClientID != h.clientID {
			err = ErrHint
		}
		if err != nil {
			return LogoutStep{}, err
		}
		clientID = h.clientID
		if person != nil {
			own, err = s.speaksOf(ctx, h, person.ID)
			if err != nil {
				return LogoutStep{}, err
			}
		}
	}
	next, err := s.AfterLogout(ctx, clientID, r.URI, r.State)
	if err != nil {
		return LogoutStep{}, err
	}
	unregistered := r.URI != "" && next == ""
	switch {
	case person == nil && r.IDTokenHint != "":
		return LogoutStep{Next: next}, nil // signed out already
	case person == nil:
		return LogoutStep{}, nil // a bare link leads nowhere else
	case own && !unregistered:
		return LogoutStep{SignOut: true, Next: next}, nil
	}
	return LogoutStep{Confirm: true, Next: next, ClientID: clientID}, nil
}

// speaksOf reports whether the ID token is of this person, for a client we still know.
func (s *Service) speaksOf(ctx context.Context, h hint, residentID string) (bool, error) {
	c, err := s.Client(ctx, h.clientID)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return s.isSubject(ctx, c, h.sub, residentID)
}

// AfterLogout returns the address to go to after signing out, with the state added, if
// the client registered it; else "".
func (s *Service) AfterLogout(ctx context.Context, clientID, uri, state string) (string, error) {
	if clientID == "" || uri == "" {
		return "", nil
	}
	c, err := s.Client(ctx, clientID)
	if errors.Is(err, ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if !slices.Contains(c.PostLogout, uri) {
		return "", nil
	}
	if state == "" {
		return uri, nil
	}
	u, err := url.Parse(uri)
	if err != nil {
		return "", err
	}
	if u.RawQuery != "" {
		u.RawQuery += "&"
	}
	u.RawQuery += "state=" + url.QueryEscape(state)
	return u.String(), nil
}
