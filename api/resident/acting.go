package resident

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/go-chi/chi/v5"

	"guichet/api/session"
	"guichet/api/web"
	"guichet/identity"
	"guichet/identity/delegation"
	"guichet/internal/clock"
	"guichet/internal/id"
	"guichet/internal/money"
	"guichet/payments"
)

// The pages of acting for others: who may, whom one may act for, and the way there.

func (h *Handler) actingRoutes(r chi.Router) {
	r.Get("/acting", h.actingPage)
	r.Post("/acting/switch", h.switchActing)
	r.Get("/acting/switch", func(w http.ResponseWriter, r *http.Request) { h.see(w, r, "/acting") })
	r.Get("/acting/business", h.businessPage)
	r.Post("/acting/business", h.addBusiness)
	r.Get("/acting/child", h.childPage)
	r.Post("/acting/child", h.addChild)
	r.Get("/acting/invite", h.invitePage)
	r.Post("/acting/invite", h.invite)
	r.Get("/acting/invitation/{secret}", h.invitation)
	r.Post("/acting/invitation/{secret}", h.answer)
	r.Get("/acting/code", h.codePage)
	r.Post("/acting/code", h.answer)
	r.Get("/acting/{id}", h.right)
	r.Post("/acting/{id}", h.endRight)
}

// actingPage lists both sides.
type actingPage struct {
	Now   string // id of the right the reader acts under
	Held  []delegation.Delegation
	Given []delegation.Delegation
}

// Open lists what is in force or offered; the rest is history.
func (p actingPage) Open() (list []delegation.Delegation) {
	for _, d := range p.Given {
		if d.State != "ended" {
			list = append(list, d)
		}
	}
	return list
}

// Past lists what has ended.
func (p actingPage) Past() (list []delegation.Delegation) {
	for _, d := range p.Given {
		if d.State == "ended" {
			list = append(list, d)
		}
	}
	return list
}

func (h *Handler) actingPage(w http.ResponseWriter, r *http.Request) {
	p, _ := session.Resident(r.Context())
	page := actingPage{Now: p.ActingID}
	var err error
	if page.Held, err = h.Acting.Held(r.Context(), p.ID); err == nil {
		page.Given, err = h.Acting.Given(r.Context(), p.ID)
	}
	if err != nil {
		h.fail(w, r, "list rights", err)
		return
	}
	h.Site.Page(w, r, http.StatusOK, "resident/acting", page)
}

// switchActing changes in whose name the session acts, and gives it a new cookie.
func (h *Handler) switchActing(w http.ResponseWriter, r *http.Request) {
	form, err := web.ReadForm(w, r)
	if err != nil {
		h.Site.Fail(w, r, http.StatusBadRequest, "")
		return
	}
	p, _ := session.Resident(r.Context())
	fresh, err := h.Acting.Switch(r.Context(), p, h.Sessions.ResidentToken(r), form.Value("to"))
	switch {
	case errors.Is(err, delegation.ErrEnded):
		h.Site.Page(w, r, http.StatusForbidden, "resident/acting-ended", nil)
	case errors.Is(err, identity.ErrNoSession): // another tab has switched at this moment
		h.see(w, r, "/")
	case err != nil:
		h.fail(w, r, "switch", err)
	default:
		h.Sessions.SetResident(w, fresh)
		h.see(w, r, "/")
	}
}

// rightPage is one right with all it allows, and what happened under it.
type rightPage struct {
	delegation.Delegation
	Mine     bool // the reader's own, not one they gave
	Names    []string
	History  []delegation.Entry
	Payments []payments.Payment
}

func (h *Handler) right(w http.ResponseWriter, r *http.Request) {
	p, _ := session.Resident(r.Context())
	d, err := h.Acting.One(r.Context(), p.ID, chi.URLParam(r, "id"))
	if err != nil {
		h.fail(w, r, "read right", err)
		return
	}
	page := rightPage{Delegation: d, Mine: d.DelegateID == p.ID}
	if page.Names, err = h.departmentNames(r, d.Scope); err == nil {
		page.History, err = h.Acting.History(r.Context(), d)
	}
	if err == nil {
		page.Payments, err = payments.UnderMandate(r.Context(), h.DB, d.ID, shownReceipts)
	}
	if err != nil {
		h.fail(w, r, "read right", err)
		return
	}
	h.Site.Page(w, r, http.StatusOK, "resident/acting-right", page)
}

// endRight ends a right, from either side. Pages that the card processor has open for it
// are closed: what can still be paid there would be paid under no right.
func (h *Handler) endRight(w http.ResponseWriter, r *http.Request) {
	form, err := web.ReadForm(w, r)
	if err != nil || form.Value("do") != "end" {
		h.Site.Fail(w, r, http.StatusBadRequest, "")
		return
	}
	p, _ := session.Resident(r.Context())
	rightID := chi.URLParam(r, "id")
	if err := h.Acting.Revoke(r.Context(), p.ID, rightID); err != nil {
		h.fail(w, r, "end right", err)
		return
	}
	if err := h.Payments.CancelMandate(r.Context(), rightID); err != nil {
		h.Log.WarnContext(r.Context(), "close what was being paid under a right that ended", "delegation", rightID, "error", err)
	}
	h.see(w, r, "/acting/"+rightID)
}

// departmentNames are the departments that a scope is limited to, in the reader's language.
func (h *Handler) departmentNames(r *http.Request, s delegation.Scope) (names []string, err error) {
	if len(s.Departments) == 0 {
		return nil, nil
	}
	all, err := h.Departments.All(r.Context())
	if err != nil {
		return nil, err
	}
	for _, d := range all {
		if s.Covers(d.Code) {
			names = append(names, d.Name(web.Lang(r)))
		}
	}
	return names, nil
}

// stepUp sends whoever has not proved enough to where they can, and back.
func (h *Handler) stepUp(w http.ResponseWriter, r *http.Request, back string) {
	h.Site.Page(w, r, http.StatusForbidden, "resident/acting-proof", "/signin?level=2&return="+url.QueryEscape(back))
}

type namePage struct{ Form *web.Form }

func (h *Handler) businessPage(w http.ResponseWriter, r *http.Request) {
	h.Site.Page(w, r, http.StatusOK, "resident/acting-business", namePage{})
}

func (h *Handler) addBusiness(w http.ResponseWriter, r *http.Request) {
	form, err := web.ReadForm(w, r)
	if err != nil {
		h.Site.Fail(w, r, http.StatusBadRequest, "")
		return
	}
	p, _ := session.Resident(r.Context())
	rightID, err := h.Acting.CreateBusiness(r.Context(), p.ID, form.Value("name"), form.Value("number"))
	h.added(w, r, form, "resident/acting-business", rightID, err)
}

func (h *Handler) childPage(w http.ResponseWriter, r *http.Request) {
	h.Site.Page(w, r, http.StatusOK, "resident/acting-child", namePage{})
}

func (h *Handler) addChild(w http.ResponseWriter, r *http.Request) {
	form, err := web.ReadForm(w, r)
	if err != nil {
		h.Site.Fail(w, r, http.StatusBadRequest, "")
		return
	}
	p, _ := session.Resident(r.Context())
	var rightID string
	born, err := clock.ParseDate(form.Value("born"))
	if err != nil {
		err = delegation.ErrBadBirth
	} else {
		rightID, err = h.Acting.AddChild(r.Context(), p.ID, form.Value("name"), born)
	}
	h.added(w, r, form, "resident/acting-child", rightID, err)
}

// added answers the form of a new party.
func (h *Handler) added(w http.ResponseWriter, r *http.Request, form *web.Form, page, rightID string, err error) {
	switch {
	case err == nil:
		h.see(w, r, "/acting/"+rightID)
		return
	case errors.Is(err, identity.ErrBadName):
		form.Fail("name", "resident.acting.bad_name")
	case errors.Is(err, delegation.ErrBadNumber):
		form.Fail("number", "resident.acting.bad_number")
	case errors.Is(err, delegation.ErrBadBirth):
		form.Fail("born", "resident.acting.bad_birth")
	case errors.Is(err, delegation.ErrTooMany):
		form.Fail("", "resident.acting.too_many")
	default:
		h.fail(w, r, "add a party", err)
		return
	}
	h.Site.Page(w, r, http.StatusUnprocessableEntity, page, namePage{form})
}

// invitePage is the form of an invitation.
type invitePage struct {
	Form        *web.Form
	Under       string // the right that is passed on; empty: the reader's own affairs
	Party       string // name; empty: the reader
	Principal   bool   // may let others pass it on
	Rights      []choiceOf
	Departments []choiceOf
	How         string // "mail" or "code"
	PassOn      bool
	First, Last clock.Date // of the days it may end
}

// choiceOf is one box of the form.
type choiceOf struct {
	Value, Label string
	Checked      bool
}

// inviteForm works out what the reader may give, with what they typed so far.
func (h *Handler) inviteForm(r *http.Request, form *web.Form) (invitePage, error) {
	p, _ := session.Resident(r.Context())
	page := invitePage{Form: form, Under: r.URL.Query().Get("for"), Principal: true, First: h.today(), Last: delegation.LastDay(h.today()), How: "mail"}
	outer := delegation.Scope{Rights: delegation.Rights(), MayDelegate: true}
	if page.Under != "" {
		d, err := h.Acting.Live(r.Context(), p.ID, page.Under)
		if err != nil {
			return page, err
		}
		if !d.Scope.MayDelegate {
			return page, errNoRight
		}
		outer, page.Party, page.Principal = d.Scope, d.Party.Name, d.Role.Principal()
	}
	if outer.Until != (clock.Date{}) && outer.Until.Before(page.Last) {
		page.Last = outer.Until
	}
	chosen := func(name, value string, at bool) bool {
		if form == nil {
			return at
		}
		for _, v := range form.Values[name] {
			if v == value {
				return true
			}
		}
		return false
	}
	for _, right := range outer.Rights {
		page.Rights = append(page.Rights, choiceOf{Value: string(right), Checked: chosen("right", string(right), right == delegation.ViewBills)})
	}
	all, err := h.Departments.All(r.Context())
	if err != nil {
		return page, err
	}
	for _, d := range all {
		if outer.Covers(d.Code) {
			page.Departments = append(page.Departments, choiceOf{d.Code, d.Name(web.Lang(r)), chosen("department", d.Code, true)})
		}
	}
	if form != nil {
		page.How, page.PassOn = form.Value("how"), form.Value("pass_on") != ""
	}
	return page, nil
}

func (h *Handler) invitePage(w http.ResponseWriter, r *http.Request) {
	page, err := h.inviteForm(r, nil)
	h.showInvite(w, r, http.StatusOK, page, err)
}

func (h *Handler) showInvite(w http.ResponseWriter, r *http.Request, status int, page invitePage, err error) {
	switch {
	case errors.Is(err, delegation.ErrEnded):
		h.Site.Page(w, r, http.StatusForbidden, "resident/acting-ended", nil)
	case err != nil:
		h.fail(w, r, "invite", err)
	default:
		if p, _ := session.Resident(r.Context()); p.ACR < delegation.MinACR {
			h.stepUp(w, r, r.URL.RequestURI())
			return
		}
		h.Site.Page(w, r, status, "resident/acting-invite", page)
	}
}

// invitedPage shows that an invitation has gone out, or its code, once.
type invitedPage struct {
	delegation.Invited
	Email string
	Under string
}

// Code is the secret in groups, as it is read out.
func (p invitedPage) Code() string { return id.Group(p.Secret) }

func (h *Handler) invite(w http.ResponseWriter, r *http.Request) {
	form, err := web.ReadForm(w, r)
	if err != nil {
		h.Site.Fail(w, r, http.StatusBadRequest, "")
		return
	}
	page, err := h.inviteForm(r, form)
	if err != nil {
		h.showInvite(w, r, http.StatusOK, page, err)
		return
	}
	p, _ := session.Resident(r.Context())
	n := delegation.Invitation{By: p, Under: page.Under, Scope: scopeOf(form, page), Lang: web.Lang(r)}
	if page.How == "mail" {
		if n.Email = form.Value("email"); n.Email == "" {
			form.Fail("email", "resident.acting.bad_email")
		}
	}
	if !form.OK() {
		h.showInvite(w, r, http.StatusUnprocessableEntity, page, nil)
		return
	}
	out, err := h.Acting.Invite(r.Context(), n)
	if err != nil {
		h.notInvited(w, r, page, err)
		return
	}
	h.Site.Page(w, r, http.StatusOK, "resident/acting-invited", invitedPage{out, n.Email, page.Under})
}

func (h *Handler) notInvited(w http.ResponseWriter, r *http.Request, page invitePage, err error) {
	status := http.StatusUnprocessableEntity
	switch {
	case errors.Is(err, delegation.ErrAssurance):
		h.stepUp(w, r, r.URL.RequestURI())
		return
	case errors.Is(err, identity.ErrBadEmail):
		page.Form.Fail("email", "resident.acting.bad_email")
	case errors.Is(err, delegation.ErrNotAllowed):
		page.Form.Fail("", "resident.acting.too_wide")
		status = http.StatusForbidden
	case errors.Is(err, delegation.ErrScope):
		page.Form.Fail("until", "resident.acting.bad_until")
	case errors.As(err, new(*identity.LimitedError)):
		page.Form.Fail("", "resident.acting.limited")
		status = http.StatusTooManyRequests
	default:
		h.showInvite(w, r, status, page, err)
		return
	}
	h.showInvite(w, r, status, page, nil)
}

// scopeOf reads what the form gives, and notes what is wrong with it.
func scopeOf(form *web.Form, page invitePage) delegation.Scope {
	var s delegation.Scope
	for _, right := range form.Values["right"] {
		s.Rights = append(s.Rights, delegation.Right(right))
	}
	if len(s.Rights) == 0 {
		form.Fail("rights", "resident.acting.no_rights")
	}
	switch s.Departments = form.Values["department"]; {
	case len(s.Departments) == 0 && len(page.Departments) > 0:
		form.Fail("departments", "resident.acting.no_departments")
	case len(s.Departments) == len(page.Departments) && page.Under == "":
		s.Departments = nil // every one, also those to come
	}
	var err error
	for name, to := range map[string]*money.Amount{"per_payment": &s.PerPayment, "per_month": &s.PerMonth} {
		typed := strings.NewReplacer(" ", "", "\u00a0", "", "\u202f", "", "$", "", ",", ".").Replace(form.Value(name))
		if typed == "" {
			continue
		}
		if *to, err = money.Parse(typed); err != nil || *to <= 0 {
			form.Fail(name, "resident.acting.bad_amount")
		}
	}
	if s.Until, err = clock.ParseDate(form.Value("until")); err != nil || s.Until.Before(page.First) || s.Until.After(page.Last) {
		form.Fail("until", "resident.acting.bad_until")
	}
	s.MayDelegate = form.Value("pass_on") != ""
	return s
}

// offerPage is an invitation as the invited person sees it, or the field for its code.
type offerPage struct {
	Form *web.Form
	*delegation.Delegation
	Inviter string
	Names   []string
	Code    string // typed; empty when it came by a link
	Weak    bool   // a stronger proof is needed before accepting
	Proof   string // where it is given
}

func (h *Handler) codePage(w http.ResponseWriter, r *http.Request) {
	h.Site.Page(w, r, http.StatusOK, "resident/acting-code", offerPage{})
}

// invitation shows what is offered. Opening the link changes nothing: programs that
// read mail open links too.
func (h *Handler) invitation(w http.ResponseWriter, r *http.Request) {
	h.offer(w, r, nil, h.answerOf(r, chi.URLParam(r, "secret")))
}

func (h *Handler) answerOf(r *http.Request, secret string) delegation.Answer {
	p, _ := session.Resident(r.Context())
	return delegation.Answer{By: p, Secret: secret, Visitor: session.Visitor(r)}
}

func (h *Handler) offer(w http.ResponseWriter, r *http.Request, form *web.Form, a delegation.Answer) {
	d, err := h.Acting.Look(r.Context(), a)
	if err != nil {
		h.notOffered(w, r, form, err)
		return
	}
	page := offerPage{Delegation: &d, Weak: a.By.ACR < delegation.MinACR, Proof: "/signin?level=2&return=" + url.QueryEscape(r.URL.Path)}
	if form != nil {
		page.Code = a.Secret
	}
	inviter, err := h.People.Resident(r.Context(), d.InvitedBy)
	if err == nil {
		page.Inviter = inviter.Name
		page.Names, err = h.departmentNames(r, d.Scope)
	}
	if err != nil {
		h.fail(w, r, "read invitation", err)
		return
	}
	h.Site.Page(w, r, http.StatusOK, "resident/acting-offer", page)
}

// notOffered gives one answer for every invitation that cannot be used, whatever the
// reason: used, withdrawn, too old, for another address, or made up.
func (h *Handler) notOffered(w http.ResponseWriter, r *http.Request, form *web.Form, err error) {
	switch {
	case errors.As(err, new(*identity.LimitedError)):
		h.Site.Fail(w, r, http.StatusTooManyRequests, "resident.acting.tried")
	case errors.Is(err, delegation.ErrAlready):
		h.Site.Fail(w, r, http.StatusConflict, "resident.acting.already")
	case !errors.Is(err, delegation.ErrInvitation):
		h.fail(w, r, "answer invitation", err)
	case form != nil:
		form.Fail("code", "resident.acting.bad_code")
		h.Site.Page(w, r, http.StatusNotFound, "resident/acting-code", offerPage{Form: form})
	default:
		h.Site.Fail(w, r, http.StatusNotFound, "resident.acting.unusable")
	}
}

// answer takes the code, the yes or the no.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request) {
	form, err := web.ReadForm(w, r)
	if err != nil {
		h.Site.Fail(w, r, http.StatusBadRequest, "")
		return
	}
	a := h.answerOf(r, chi.URLParam(r, "secret"))
	typed := form
	if a.Secret != "" {
		typed = nil
	} else {
		a.Secret = form.Value("code")
	}
	switch form.Value("do") {
	case "look":
		h.offer(w, r, typed, a)
	case "accept":
		rightID, err := h.Acting.Accept(r.Context(), a)
		switch {
		case errors.Is(err, delegation.ErrAssurance):
			h.stepUp(w, r, r.URL.Path)
		case err != nil:
			h.notOffered(w, r, typed, err)
		default:
			h.see(w, r, "/acting/"+rightID)
		}
	case "decline":
		if err := h.Acting.Decline(r.Context(), a); err != nil {
			h.notOffered(w, r, typed, err)
			return
		}
		h.see(w, r, "/acting")
	default:
		h.Site.Fail(w, r, http.StatusBadRequest, "")
	}
}
