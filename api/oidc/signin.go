package oidc

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"github.com/go-chi/chi/v5"

	"guichet/api/session"
	"guichet/api/web"
	"guichet/identity"
	"guichet/identity/delegation"
	"guichet/identity/provider"
)

// begin starts a sign-in to Guichet itself: /signin?return=/bills. With level=2 the
// person has to have proved level 2 just now; with again=1, anything.
func (h *Handler) begin(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	n := identity.NewPending{ReturnPath: session.LocalPath(q.Get("return"))}
	if q.Get("level") == "2" {
		n.WantACR = 2
	}
	p, ok := session.Resident(r.Context())
	switch {
	case ok && (n.WantACR == 2 && p.Fresh(h.now()) || n.WantACR == 0 && q.Get("again") == ""):
		http.Redirect(w, r, n.ReturnPath, http.StatusSeeOther)
		return
	case ok && n.WantACR == 2:
		n.ResidentID, n.StepUp = p.ID, true
	case ok:
		n.EmailHint = p.Email
	}
	if p, ok := h.start(w, r, n); ok {
		h.enter(w, r, p, "")
	}
}

// start begins a sign-in and binds it to the browser.
func (h *Handler) start(w http.ResponseWriter, r *http.Request, n identity.NewPending) (identity.Pending, bool) {
	n.Visitor = session.Visitor(r)
	p, browser, err := h.people.Begin(r.Context(), n, h.sessions.SignInBrowser(r))
	if limited(w, err) {
		h.site.Fail(w, r, http.StatusTooManyRequests, "")
		return p, false
	}
	if err != nil {
		h.brokenPage(w, r, "begin sign-in", err)
		return p, false
	}
	h.sessions.SetSignInBrowser(w, browser)
	return p, true
}

// enter leads to the first page of a sign-in.
func (h *Handler) enter(w http.ResponseWriter, r *http.Request, p identity.Pending, lang string) {
	to := url.URL{Path: "/signin/" + p.ID}
	if lang != "" {
		to.RawQuery = "lang=" + lang
	}
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, to.String(), http.StatusSeeOther)
}

// flow is a sign-in in progress as a handler sees it.
type flow struct {
	identity.Pending
	browser string
	client  *provider.Client // nil: sign-in to Guichet itself
	request provider.Request
}

// flow reads the sign-in of the address, if it belongs to this browser.
func (h *Handler) flow(ctx context.Context, r *http.Request) (flow, error) {
	f := flow{browser: h.sessions.SignInBrowser(r)}
	var err error
	if f.Pending, err = h.people.Pending(ctx, chi.URLParam(r, "id"), f.browser); err != nil {
		return f, err
	}
	if f.Request == nil {
		return f, nil
	}
	if f.request, err = provider.Unpack(f.Request); err != nil {
		return f, err
	}
	c, err := h.provider.ClientFor(ctx, f.request.ClientID, f.ResidentID)
	f.client = &c
	return f, err
}

// show shows the page of the step, or answers the client when nothing is left to ask.
func (h *Handler) show(w http.ResponseWriter, r *http.Request) {
	f, err := h.flow(r.Context(), r)
	if err != nil {
		h.pendingFailed(w, r, err)
		return
	}
	switch f.Step {
	case identity.StepSignedIn:
		if f.client != nil && f.request.Select {
			h.choose(w, r, f)
			return
		}
		h.proceed(w, r, f)
	case identity.StepFactor:
		h.factor(w, r, f)
	default:
		h.page(w, r, http.StatusOK, f, nil)
	}
}

// factor asks for the factor that is missing, unless the person has set it up meanwhile.
func (h *Handler) factor(w http.ResponseWriter, r *http.Request, f flow) {
	p, ok := session.Resident(r.Context())
	if ok && p.ID == f.ResidentID && p.Fresh(h.now()) {
		after, err := h.people.Reached(r.Context(), f.ID, f.browser, p)
		if err != nil {
			h.stepFailed(w, r, f, err)
			return
		}
		h.onward(w, r, after)
		return
	}
	h.page(w, r, http.StatusOK, f, nil)
}

// onward leads to where a sign-in goes on.
func (h *Handler) onward(w http.ResponseWriter, r *http.Request, p identity.Pending) {
	if p.Step == identity.StepDone {
		h.see(w, r, p.ReturnPath)
		return
	}
	h.see(w, r, "/signin/"+p.ID)
}

// proceed goes on after the person has proved who they are.
func (h *Handler) proceed(w http.ResponseWriter, r *http.Request, f flow) {
	person, ok := session.Resident(r.Context())
	h.proceedAs(w, r, f, person, ok)
}

func (h *Handler) proceedAs(w http.ResponseWriter, r *http.Request, f flow, person identity.Person, ok bool) {
	if !ok || person.ID != f.ResidentID || f.client == nil {
		h.pendingFailed(w, r, provider.ErrOtherPerson)
		return
	}
	next, err := h.provider.DecideAfter(r.Context(), *f.client, f.request, person)
	var answer *provider.Error
	if errors.As(err, &answer) {
		reply, err := h.provider.Fail(r.Context(), f.ID, f.browser, answer)
		h.reply(w, r, reply, err)
		return
	}
	if err != nil {
		h.brokenPage(w, r, "decide", err)
		return
	}
	if next == provider.Ask {
		h.page(w, r, http.StatusOK, f, nil)
		return
	}
	reply, err := h.provider.Finish(r.Context(), provider.Finish{Pending: f.ID, Browser: f.browser, Person: person})
	h.reply(w, r, reply, err)
}

// choose shows who is signed in and lets the person go on as another (prompt=select_account).
func (h *Handler) choose(w http.ResponseWriter, r *http.Request, f flow) {
	person, ok := session.Resident(r.Context())
	if !ok || person.ID != f.ResidentID {
		h.pendingFailed(w, r, provider.ErrOtherPerson)
		return
	}
	h.site.AllowForms(w, provider.Origin(f.request.RedirectURI))
	p := signInPage{Service: f.serviceName(web.Lang(r)), Name: person.Name, Email: person.Email}
	var err error
	if p.Contexts, err = h.contexts(r.Context(), f, person); err != nil {
		h.brokenPage(w, r, "list for whom a resident may act", err)
		return
	}
	h.site.Page(w, r, http.StatusOK, "oidc/choose", p)
}

// acting is a choice of the pages: for whom the person goes on.
type acting struct {
	ID, Name string // both empty: for themselves
	Type     string
	Now      bool
}

// contexts lists for whom the person can go to the client, themselves first; nothing when
// the client does not ask, or there is nobody else.
func (h *Handler) contexts(ctx context.Context, f flow, person identity.Person) ([]acting, error) {
	if f.client == nil || !f.request.Acts() {
		return nil, nil
	}
	held, err := h.provider.Contexts(ctx, *f.client, person.ID)
	if err != nil || len(held) == 0 {
		return nil, err
	}
	list := []acting{{Now: true}}
	for _, d := range held {
		now := d.ID == person.ActingID
		list = append(list, acting{ID: d.ID, Name: d.Party.Name, Type: string(d.Party.Type), Now: now})
		list[0].Now = list[0].Now && !now
	}
	return list, nil
}

// actAs changes in whose name the person goes on, if the form says so. The session gets a
// new cookie, as on every switch.
func (h *Handler) actAs(w http.ResponseWriter, r *http.Request, form *web.Form) (person identity.Person, ok bool) {
	if person, ok = session.Resident(r.Context()); !ok || !form.Values.Has("acting") || form.Value("acting") == person.ActingID {
		return person, ok
	}
	fresh, err := h.provider.ActAs(r.Context(), person, h.sessions.ResidentToken(r), form.Value("acting"))
	switch {
	case errors.Is(err, delegation.ErrEnded):
		h.site.Fail(w, r, http.StatusForbidden, "oidc.fail.acting")
		return person, false
	case err != nil:
		h.pendingFailed(w, r, err)
		return person, false
	}
	h.sessions.SetResident(w, fresh)
	person.ActingID = form.Value("acting")
	return person, true
}

// other begins the sign-in anew, for another account than the one that is signed in.
func (h *Handler) other(w http.ResponseWriter, r *http.Request, f flow) {
	if f.client == nil || f.Step != identity.StepSignedIn {
		h.pendingFailed(w, r, provider.ErrOtherPerson)
		return
	}
	req := f.request
	req.Select = false
	packed, err := req.Pack()
	if err != nil {
		h.brokenPage(w, r, "keep authorize request", err)
		return
	}
	if p, ok := h.start(w, r, identity.NewPending{Service: f.client.ID, Request: packed, WantACR: req.WantACR()}); ok {
		h.enter(w, r, p, "")
	}
}

// act carries out what a form of the sign-in pages asks for, and answers with a redirect
// (303) or with the page and what is wrong.
func (h *Handler) act(w http.ResponseWriter, r *http.Request) {
	form, err := web.ReadForm(w, r)
	if err != nil {
		h.site.Fail(w, r, http.StatusBadRequest, "")
		return
	}
	f, err := h.flow(r.Context(), r)
	if err != nil {
		h.pendingFailed(w, r, err)
		return
	}
	h.sessions.SetSignInBrowser(w, f.browser) // one more step, ten more minutes
	switch form.Value("do") {
	case "email":
		h.askCode(w, r, f, form, form.Value("email"))
	case "again":
		h.askCode(w, r, f, form, f.Email)
	case "code":
		h.tryCode(w, r, f, form)
	case "partner":
		h.toPartner(w, r, f, form.Value("partner"))
	case "factor":
		h.tryApp(w, r, f, form)
	case "recover":
		h.requestRecovery(w, r, f)
	case "finish":
		h.finishRecovery(w, r, f)
	case "passkey":
		h.tryPasskey(w, r, f, form)
	case "profile":
		h.register(w, r, f, form)
	case "keep":
		if _, ok := session.Resident(r.Context()); !ok {
			h.pendingFailed(w, r, provider.ErrOtherPerson)
			return
		}
		if person, ok := h.actAs(w, r, form); ok {
			h.proceedAs(w, r, f, person, ok)
		}
	case "other":
		h.other(w, r, f)
	case "agree":
		h.agree(w, r, f, form)
	case "cancel":
		h.cancel(w, r, f)
	default:
		h.site.Fail(w, r, http.StatusBadRequest, "")
	}
}

func (h *Handler) askCode(w http.ResponseWriter, r *http.Request, f flow, form *web.Form, email string) {
	lang := web.Lang(r)
	err := h.people.AskCode(r.Context(), identity.CodeRequest{
		Pending: f.ID, Browser: f.browser, Email: email, Lang: lang, Service: f.serviceName(lang), Visitor: session.Visitor(r),
	})
	switch {
	case err == nil:
		h.see(w, r, "/signin/"+f.ID)
	case errors.Is(err, identity.ErrBadEmail):
		form.Fail("email", "oidc.email.bad")
		h.page(w, r, http.StatusUnprocessableEntity, f, form)
	case limited(w, err):
		form.Fail("", "oidc.code.limited")
		h.page(w, r, http.StatusTooManyRequests, f, form)
	default:
		h.stepFailed(w, r, f, err)
	}
}

func (h *Handler) tryCode(w http.ResponseWriter, r *http.Request, f flow, form *web.Form) {
	in, err := h.people.TryCode(r.Context(), identity.CodeTry{
		Pending: f.ID, Browser: f.browser, Code: form.Value("code"), Session: h.sessions.ResidentToken(r), Visitor: session.Visitor(r),
	})
	var wrong *identity.WrongCodeError
	switch {
	case err == nil:
		h.signedIn(w, r, f, in)
		return
	case errors.As(err, &wrong) && wrong.Left > 0:
		form.Fail("code", "oidc.code.wrong", "Count", wrong.Left)
	case errors.As(err, &wrong) || errors.Is(err, identity.ErrCodeDead):
		form.Fail("code", "oidc.code.dead")
	case limited(w, err):
		form.Fail("", "oidc.code.tried")
		h.page(w, r, http.StatusTooManyRequests, f, form)
		return
	default:
		h.stepFailed(w, r, f, err)
		return
	}
	form.Values.Del("code") // what was wrong is not shown again
	h.page(w, r, http.StatusUnprocessableEntity, f, form)
}

// passkeyOptions answers the script that asks what to ask the browser.
func (h *Handler) passkeyOptions(w http.ResponseWriter, r *http.Request) {
	options, err := h.people.PasskeyOptions(r.Context(), chi.URLParam(r, "id"), h.sessions.SignInBrowser(r))
	switch {
	case errors.Is(err, identity.ErrNoPending):
		writeJSON(w, http.StatusBadRequest, map[string]string{"error": "no such sign-in in this browser"})
	case errors.Is(err, context.Canceled): // the page was left
	case err != nil:
		h.broken(w, r, "begin a passkey sign-in", err)
	default:
		writeJSON(w, http.StatusOK, options)
	}
}

func (h *Handler) tryPasskey(w http.ResponseWriter, r *http.Request, f flow, form *web.Form) {
	in, err := h.people.TryPasskey(r.Context(), identity.PasskeyTry{
		Pending: f.ID, Browser: f.browser, Response: []byte(form.Value("response")), Session: h.sessions.ResidentToken(r), Visitor: session.Visitor(r),
	})
	switch {
	case err == nil:
		h.signedIn(w, r, f, in)
	case errors.Is(err, identity.ErrPasskey):
		form.Fail("", "oidc.passkey.refused")
		h.page(w, r, http.StatusUnprocessableEntity, f, form)
	default:
		h.stepFailed(w, r, f, err)
	}
}

func (h *Handler) tryApp(w http.ResponseWriter, r *http.Request, f flow, form *web.Form) {
	in, err := h.people.TryApp(r.Context(), identity.CodeTry{
		Pending: f.ID, Browser: f.browser, Code: form.Value("app"), Session: h.sessions.ResidentToken(r), Visitor: session.Visitor(r),
	})
	switch {
	case err == nil:
		h.signedIn(w, r, f, in)
	case errors.Is(err, identity.ErrWrongFactor):
		form.Fail("app", "oidc.factor.wrong")
		form.Values.Del("app")
		h.page(w, r, http.StatusUnprocessableEntity, f, form)
	case limited(w, err):
		form.Fail("", "oidc.code.tried")
		h.page(w, r, http.StatusTooManyRequests, f, form)
	default:
		h.stepFailed(w, r, f, err)
	}
}

// requestRecovery opens a recovery, and says on the same page how it goes on.
func (h *Handler) requestRecovery(w http.ResponseWriter, r *http.Request, f flow) {
	if err := h.people.RequestRecovery(r.Context(), f.ID, f.browser, session.Visitor(r)); err != nil {
		h.stepFailed(w, r, f, err)
		return
	}
	h.see(w, r, "/signin/"+f.ID)
}

// finishRecovery signs in without the factors that were lost, to set up a new passkey.
func (h *Handler) finishRecovery(w http.ResponseWriter, r *http.Request, f flow) {
	in, err := h.people.FinishRecovery(r.Context(), identity.CodeTry{Pending: f.ID, Browser: f.browser, Visitor: session.Visitor(r)})
	if errors.Is(err, identity.ErrNotFound) {
		h.see(w, r, "/signin/"+f.ID)
		return
	}
	if err != nil {
		h.stepFailed(w, r, f, err)
		return
	}
	h.sessions.SetResident(w, in.Token)
	h.see(w, r, "/account/passkeys/new")
}

func (h *Handler) register(w http.ResponseWriter, r *http.Request, f flow, form *web.Form) {
	in, err := h.people.Register(r.Context(), identity.Registration{
		Pending: f.ID, Browser: f.browser, Name: form.Value("name"), Lang: form.Value("language"),
		Session: h.sessions.ResidentToken(r), Visitor: session.Visitor(r),
	})
	switch {
	case err == nil:
		h.signedIn(w, r, f, in)
	case errors.Is(err, identity.ErrBadName):
		form.Fail("name", "oidc.profile.bad")
		h.page(w, r, http.StatusUnprocessableEntity, f, form)
	default:
		h.stepFailed(w, r, f, err)
	}
}

// signedIn gives the browser its new session, if there is one already, and goes on.
func (h *Handler) signedIn(w http.ResponseWriter, r *http.Request, f flow, in identity.SignedIn) {
	if in.Token != "" {
		h.sessions.SetResident(w, in.Token)
	}
	h.onward(w, r, in.Pending)
}

func (h *Handler) agree(w http.ResponseWriter, r *http.Request, f flow, form *web.Form) {
	if _, ok := session.Resident(r.Context()); !ok || f.client == nil || f.Step != identity.StepSignedIn {
		h.pendingFailed(w, r, provider.ErrOtherPerson)
		return
	}
	person, ok := h.actAs(w, r, form)
	if !ok {
		return
	}
	agreed := append([]string{provider.ScopeOpenID}, form.Values["scope"]...)
	reply, err := h.provider.Finish(r.Context(), provider.Finish{Pending: f.ID, Browser: f.browser, Person: person, Agreed: agreed})
	h.reply(w, r, reply, err)
}

func (h *Handler) cancel(w http.ResponseWriter, r *http.Request, f flow) {
	if f.client == nil {
		h.see(w, r, "/account") // where a step-up of our own began
		return
	}
	// Somebody signed in who only declines the second factor goes on without: a client that
	// merely wished for it is content, one that ordered it is told.
	if p, ok := session.Resident(r.Context()); ok && f.Step == identity.StepFactor && p.ID == f.ResidentID {
		if err := h.people.Decline(r.Context(), f.ID, f.browser, p); err != nil {
			h.stepFailed(w, r, f, err)
			return
		}
		h.see(w, r, "/signin/"+f.ID)
		return
	}
	reply, err := h.provider.Fail(r.Context(), f.ID, f.browser, provider.Denied())
	h.reply(w, r, reply, err)
}

func (h *Handler) see(w http.ResponseWriter, r *http.Request, path string) {
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, path, http.StatusSeeOther)
}

// stepFailed answers a form that could not be carried out. One of another step, such as
// a second click or the Back button, leads to the page of the step.
func (h *Handler) stepFailed(w http.ResponseWriter, r *http.Request, f flow, err error) {
	if errors.Is(err, identity.ErrWrongStep) {
		h.see(w, r, "/signin/"+f.ID)
		return
	}
	h.pendingFailed(w, r, err)
}

// pendingFailed answers when a sign-in cannot go on. What is missing, over, or another
// browser's gets one answer, so that it tells nothing apart.
func (h *Handler) pendingFailed(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, identity.ErrSuspended):
		h.site.Fail(w, r, http.StatusForbidden, "oidc.fail.suspended")
	case errors.Is(err, identity.ErrNoPending), errors.Is(err, identity.ErrWrongStep),
		errors.Is(err, provider.ErrOtherPerson), errors.Is(err, provider.ErrNotFound):
		h.site.Fail(w, r, http.StatusBadRequest, "oidc.fail.pending")
	default:
		h.brokenPage(w, r, "sign-in", err)
	}
}

// signInPage is what the pages show.
type signInPage struct {
	Form       *web.Form
	Service    string // the application that asked, or Guichet
	Department string // "" for Guichet itself
	FirstParty bool
	Email      string
	Name       string
	Sees       []string // scopes beyond openid
	Contexts   []acting // for whom they could go on; nil: nobody asks, or there is nobody
	Brand      *brand   // of the department; nil: none of its own
	Address    string   // of the page itself
	Factors    identity.Factors
	StepUp     bool // there is a session already
	Recovery   *identity.Recovery
	Ready      bool // the wait of the recovery is over
	Partners   []*relying
}

func (f flow) serviceName(lang string) string {
	if f.client == nil {
		return "Guichet"
	}
	return f.client.Name.In(lang)
}

// page shows the page of the step, in whatever state the form is.
func (h *Handler) page(w http.ResponseWriter, r *http.Request, status int, f flow, form *web.Form) {
	lang := web.Lang(r)
	p := signInPage{Form: form, Service: f.serviceName(lang), Email: f.Email, Address: "/signin/" + f.ID, Partners: h.partners}
	if f.client != nil {
		p.Department, p.FirstParty = f.client.Department.In(lang), f.client.FirstParty
		// Browsers hold form-action against every redirect that follows, so also
		// against the one that ends at the client.
		h.site.AllowForms(w, provider.Origin(f.request.RedirectURI))
		p.Sees = f.request.Sees(*f.client)
		p.Brand = h.brand(r, f.client.DepartmentID, lang, p.Department)
	}
	name := map[identity.Step]string{
		identity.StepEmail: "oidc/email", identity.StepCode: "oidc/code", identity.StepFactor: "oidc/factor",
		identity.StepProfile: "oidc/profile", identity.StepSignedIn: "oidc/consent",
	}[f.Step]
	if person, ok := session.Resident(r.Context()); ok {
		p.Name, p.StepUp = person.Name, person.ID == f.ResidentID
		if f.Step == identity.StepSignedIn {
			var err error
			if p.Contexts, err = h.contexts(r.Context(), f, person); err != nil {
				h.brokenPage(w, r, "list for whom a resident may act", err)
				return
			}
		}
	}
	if f.Step == identity.StepFactor {
		var err error
		if p.Factors, err = h.people.Factors(r.Context(), f.ResidentID); err != nil {
			h.brokenPage(w, r, "read factors", err)
			return
		}
		if p.Recovery, err = h.people.Recovery(r.Context(), f.ResidentID); err != nil {
			h.brokenPage(w, r, "read recovery", err)
			return
		}
		p.Ready = p.Recovery != nil && !p.Recovery.ReadyAt.After(h.now())
	}
	if f.Step != identity.StepSignedIn && f.Step != identity.StepProfile {
		h.site.AllowScript(w)
		for _, partner := range h.partners { // where a form of this page may lead
			h.site.AllowForms(w, provider.Origin(partner.Partner.Issuer))
		}
	}
	h.site.Page(w, r, status, name, p)
}
