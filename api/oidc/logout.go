package oidc

import (
	"errors"
	"net/http"
	"net/url"

	"guichet/api/session"
	"guichet/api/web"
	"guichet/identity"
	"guichet/identity/provider"
)

// logout is the end-session endpoint. A client that proves, by its ID token, that it
// speaks of the person in this browser signs them out; anybody else gets them asked.
func (h *Handler) logout(w http.ResponseWriter, r *http.Request) {
	v, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil || repeated(v) {
		h.site.Fail(w, r, http.StatusBadRequest, "oidc.fail.request")
		return
	}
	var person *identity.Person
	p, ok := session.Resident(r.Context())
	if ok {
		person = &p
	}
	step, err := h.provider.Logout(r.Context(), logoutRequest(v), person)
	if errors.Is(err, provider.ErrHint) {
		h.site.Fail(w, r, http.StatusBadRequest, "oidc.fail.hint")
		return
	}
	if err != nil {
		h.brokenPage(w, r, "logout", err)
		return
	}
	if step.Confirm {
		h.askSignOut(w, r, v, step)
		return
	}
	if step.SignOut {
		if err := h.people.EndSession(r.Context(), p, "signed out at a client"); err != nil {
			h.brokenPage(w, r, "sign out", err)
			return
		}
		h.sessions.SignOut(w)
	}
	h.afterSignOut(w, r, step.Next)
}

// logoutPost gives a posted request the same meaning: like authorizePost.
func (h *Handler) logoutPost(w http.ResponseWriter, r *http.Request) {
	v, ok := postedForm(w, r)
	if !ok || repeated(v) {
		h.site.Fail(w, r, http.StatusBadRequest, "oidc.fail.request")
		return
	}
	http.Redirect(w, r, "/oidc/logout?"+v.Encode(), http.StatusSeeOther)
}

func logoutRequest(v url.Values) provider.LogoutRequest {
	return provider.LogoutRequest{
		IDTokenHint: v.Get("id_token_hint"), ClientID: v.Get("client_id"), URI: v.Get("post_logout_redirect_uri"), State: v.Get("state"),
	}
}

func repeated(v url.Values) bool {
	for _, values := range v {
		if len(values) > 1 {
			return true
		}
	}
	return false
}

// signOutPage is what the page shows that asks before signing out.
type signOutPage struct {
	Name                 string
	ClientID, URI, State string // go along, to be looked up again
}

func (h *Handler) askSignOut(w http.ResponseWriter, r *http.Request, v url.Values, step provider.LogoutStep) {
	p, _ := session.Resident(r.Context())
	page := signOutPage{Name: p.Name}
	if step.Next != "" {
		page.ClientID, page.URI, page.State = step.ClientID, v.Get("post_logout_redirect_uri"), v.Get("state")
		h.site.AllowForms(w, provider.Origin(page.URI))
	}
	h.site.Page(w, r, http.StatusOK, "oidc/signout", page)
}

// signOut ends the resident's session, for the portal's own button and for the page
// that asked. It comes from our pages only (CrossOriginProtection).
func (h *Handler) signOut(w http.ResponseWriter, r *http.Request) {
	form, err := web.ReadForm(w, r)
	if err != nil {
		h.site.Fail(w, r, http.StatusBadRequest, "")
		return
	}
	if p, ok := session.Resident(r.Context()); ok {
		if err := h.people.EndSession(r.Context(), p, "signed out"); err != nil {
			h.brokenPage(w, r, "sign out", err)
			return
		}
	}
	h.sessions.SignOut(w)
	next, err := h.provider.AfterLogout(r.Context(), form.Value("client_id"), form.Value("post_logout_redirect_uri"), form.Values.Get("state"))
	if err != nil {
		h.brokenPage(w, r, "sign out", err)
		return
	}
	h.afterSignOut(w, r, next)
}

func (h *Handler) afterSignOut(w http.ResponseWriter, r *http.Request, next string) {
	if next == "" {
		next = "/signed-out"
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Referrer-Policy", "no-referrer")
	w.Header().Set("Location", next)
	w.WriteHeader(http.StatusSeeOther)
}

func (h *Handler) signedOut(w http.ResponseWriter, r *http.Request) {
	h.site.Page(w, r, http.StatusOK, "oidc/signedout", nil)
}
