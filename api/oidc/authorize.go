package oidc

import (
	"errors"
	"net/http"
	"net/url"

	"guichet/api/session"
	"guichet/identity"
	"guichet/identity/provider"
)

// maxBody bounds what another site may post.
const maxBody = 64 << 10

// authorize answers a client's request: with an error page while client and redirect
// address are unproved, with a redirect after.
func (h *Handler) authorize(w http.ResponseWriter, r *http.Request) {
	v, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		h.site.Fail(w, r, http.StatusBadRequest, "oidc.fail.request")
		return
	}
	c, req, err := h.provider.Check(r.Context(), v)
	if err != nil {
		h.refuse(w, r, req, err)
		return
	}
	var person *identity.Person
	if p, ok := session.Resident(r.Context()); ok {
		person = &p
	}
	next, err := h.provider.Decide(r.Context(), c, req, person)
	if err != nil {
		h.refuse(w, r, req, err)
		return
	}
	if next == provider.Answer {
		reply, err := h.provider.Issue(r.Context(), c, req, *person)
		h.reply(w, r, reply, err)
		return
	}
	n := identity.NewPending{Service: c.ID, EmailHint: req.LoginHint}
	if next == provider.Ask {
		n.ResidentID = person.ID
	}
	if n.Request, err = req.Pack(); err != nil {
		h.brokenPage(w, r, "keep authorize request", err)
		return
	}
	h.start(w, r, n, req.Lang)
}

// authorizePost gives a posted request the same meaning. A form that comes from another site
// carries none of our cookies (SameSite=Lax), so a sound request is repeated as GET.
func (h *Handler) authorizePost(w http.ResponseWriter, r *http.Request) {
	v, ok := postedForm(w, r)
	if !ok {
		h.site.Fail(w, r, http.StatusBadRequest, "oidc.fail.request")
		return
	}
	_, req, err := h.provider.Check(r.Context(), v)
	if err != nil {
		h.refuse(w, r, req, err)
		return
	}
	http.Redirect(w, r, "/oidc/authorize?"+v.Encode(), http.StatusSeeOther)
}

// postedForm reads a form that comes without parameters in the address.
func postedForm(w http.ResponseWriter, r *http.Request) (url.Values, bool) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	if !isForm(r) || r.URL.RawQuery != "" || r.ParseForm() != nil {
		return nil, false
	}
	return r.PostForm, true
}

// refuse says no: to the person while nobody else can be trusted with it, else to the client.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, req provider.Request, err error) {
	var answer *provider.Error
	switch {
	case errors.Is(err, provider.ErrClient):
		h.site.Fail(w, r, http.StatusBadRequest, "oidc.fail.client")
	case errors.Is(err, provider.ErrRedirectURI):
		h.site.Fail(w, r, http.StatusBadRequest, "oidc.fail.redirect")
	case errors.As(err, &answer):
		h.reply(w, r, provider.Reply{RedirectURI: req.RedirectURI, State: req.State, Err: answer}, nil)
	default:
		h.brokenPage(w, r, "authorize", err)
	}
	h.note(r, atAuthorize, err)
}

// reply sends the browser back to the client.
func (h *Handler) reply(w http.ResponseWriter, r *http.Request, reply provider.Reply, err error) {
	if err != nil {
		h.pendingFailed(w, r, err)
		return
	}
	w.Header().Set("Referrer-Policy", "no-referrer")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Location", reply.URL(h.issuer))
	w.WriteHeader(http.StatusSeeOther)
}
