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
	var person *identity.Person
	residentID := ""
	if p, ok := session.Resident(r.Context()); ok {
		person, residentID = &p, p.ID
	}
	if provider.IsPushed(v.Get("request_uri")) {
		c, o, err := h.provider.Open(r.Context(), v, residentID)
		switch {
		case err != nil:
			h.refuse(w, r, o.Request, err)
		case o.Pending != "":
			h.see(w, r, "/signin/"+o.Pending)
		default:
			h.decide(w, r, asked{client: c, request: o.Request, person: person, pushed: &o})
		}
		return
	}
	c, req, err := h.provider.Check(r.Context(), v, residentID)
	if err != nil {
		h.refuse(w, r, req, err)
		return
	}
	h.decide(w, r, asked{client: c, request: req, person: person})
}

// asked is a request that passed its checks.
type asked struct {
	client  provider.Client
	request provider.Request
	person  *identity.Person // nil: nobody is signed in
	pushed  *provider.Opened // nil: it came in the address
}

// decide answers the request, or begins what has to come first.
func (h *Handler) decide(w http.ResponseWriter, r *http.Request, a asked) {
	next, err := h.provider.Decide(r.Context(), a.client, a.request, a.person)
	if err != nil {
		h.refuse(w, r, a.request, err)
		return
	}
	if next == provider.Answer {
		reply, err := h.provider.Issue(r.Context(), a.client, a.request, *a.person)
		h.reply(w, r, reply, err)
		return
	}
	n := identity.NewPending{Service: a.client.ID, EmailHint: a.request.LoginHint}
	if next == provider.SignIn || next == provider.StepUp {
		n.WantACR = a.request.WantACR()
		a.request.Select = false // whoever types an address has chosen
	}
	if next != provider.SignIn {
		n.ResidentID, n.StepUp = a.person.ID, next == provider.StepUp
	}
	if n.Request, err = a.request.Pack(); err != nil {
		h.brokenPage(w, r, "keep authorize request", err)
		return
	}
	p, ok := h.start(w, r, n)
	if !ok {
		return
	}
	if a.pushed != nil {
		if err := h.provider.Bind(r.Context(), *a.pushed, p.ID); err != nil {
			h.brokenPage(w, r, "bind pushed request", err)
			return
		}
	}
	h.enter(w, r, p, a.request.Lang)
}

// authorizePost gives a posted request the same meaning. A form that comes from another site
// carries none of our cookies (SameSite=Lax), so a sound request is repeated as GET.
func (h *Handler) authorizePost(w http.ResponseWriter, r *http.Request) {
	v, ok := postedForm(w, r)
	if !ok {
		h.site.Fail(w, r, http.StatusBadRequest, "oidc.fail.request")
		return
	}
	if !provider.IsPushed(v.Get("request_uri")) {
		_, req, err := h.provider.Check(r.Context(), v, "")
		if err != nil {
			h.refuse(w, r, req, err)
			return
		}
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
	case errors.Is(err, provider.ErrPushed):
		h.site.Fail(w, r, http.StatusBadRequest, "oidc.fail.request")
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
