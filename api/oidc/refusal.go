package oidc

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"guichet/api/session"
	"guichet/identity/provider"
)

// atAuthorize is that endpoint as the people who look after a client read it; the others
// are called by the end of their address.
const atAuthorize = "authorize"

// note keeps a refused request for whoever looks after the client it names. It is called
// after the answer has left: whether a client is known must not show in the time.
func (h *Handler) note(r *http.Request, endpoint string, err error) {
	refusal := provider.Refusal{Endpoint: endpoint, Network: session.Visitor(r).Network}
	var answer *provider.Error
	switch {
	case errors.Is(err, provider.ErrRedirectURI):
		refusal.Code = provider.BadRedirect
	case !errors.As(err, &answer) || everyday(answer.Code):
		return
	default:
		refusal.Code, refusal.Description = answer.Code, answer.Description
	}
	ctx := context.WithoutCancel(r.Context()) // the client has its answer and may be gone
	if err := h.provider.Refused(ctx, claimedClient(r), refusal); err != nil {
		h.log.WarnContext(r.Context(), "keep a client's error", "error", err)
	}
}

// everyday reports whether an error is how the protocol says that the person has not
// signed in or does not want to: nothing anybody has to mend.
func everyday(code string) bool {
	switch code {
	case "login_required", "consent_required", "interaction_required", "account_selection_required", "access_denied",
		"authorization_pending", "slow_down", "expired_token", provider.UseNonce:
		return true
	}
	return false
}

// claimedClient is the client that a request says it comes from.
func claimedClient(r *http.Request) string {
	if name, _, ok := r.BasicAuth(); ok {
		if name, err := url.QueryUnescape(name); err == nil {
			return name
		}
		return ""
	}
	return r.FormValue("client_id")
}
