package desk

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-chi/chi/v5"

	"guichet/api/session"
	"guichet/api/web"
	"guichet/identity"
	"guichet/identity/delegation"
	"guichet/identity/staff"
	"guichet/internal/approval"
	"guichet/internal/attachment"
	"guichet/internal/clock"
	"guichet/internal/money"
)

// Rights to act that rest on a document: one person registers what somebody brought to
// the counter, another one looks at it again and decides.

// MaxDocument bounds the form with its file.
const MaxDocument = attachment.MaxSize + 64<<10

var (
	takeDocument   = []string{staff.CounterClerk, staff.Supervisor}
	decideDocument = []string{staff.Supervisor}
)

// documentsPage lists what waits.
type documentsPage struct {
	view
	Waiting []delegation.Waiting
}

func (h *Handler) documents(w http.ResponseWriter, r *http.Request) {
	page := documentsPage{view: h.view(r)}
	var err error
	if page.Waiting, err = h.Acting.Waiting(r.Context()); err == nil {
		err = h.nameRequesters(r, &page.view, page.Waiting)
	}
	if err != nil {
		h.fail(w, r, "list documents", err)
		return
	}
	h.Site.Page(w, r, http.StatusOK, "desk/rights", page)
}

func (h *Handler) nameRequesters(r *http.Request, v *view, list []delegation.Waiting) (err error) {
	ids := make([]string, len(list))
	for i, d := range list {
		ids[i] = d.RequestedBy
	}
	v.names, err = h.Staff.Names(r.Context(), ids)
	return err
}

// documentForm is the form of a new one.
type documentForm struct {
	view
	Form   *web.Form
	Types  []delegation.Type
	Rights []delegation.Right
	Last   clock.Date
}

// Chosen reports whether a box of the form is ticked.
func (f documentForm) Chosen(name, value string) bool {
	return f.Form != nil && slices.Contains(f.Form.Values[name], value)
}

func (h *Handler) newDocument(w http.ResponseWriter, r *http.Request) {
	h.showDocument(w, r, http.StatusOK, nil)
}

func (h *Handler) showDocument(w http.ResponseWriter, r *http.Request, status int, form *web.Form) {
	v, ok := h.named(w, r)
	if !ok {
		return
	}
	h.Site.Page(w, r, status, "desk/right-new", documentForm{
		view: v, Form: form, Last: delegation.LastDay(h.day()), Rights: delegation.Rights(),
		Types: []delegation.Type{delegation.Estate, delegation.Person, delegation.Property, delegation.Business},
	})
}

// register takes a document.
func (h *Handler) register(w http.ResponseWriter, r *http.Request) {
	form, n, ok := h.readUpload(w, r)
	if !ok {
		return
	}
	m, _ := session.Staff(r.Context())
	n.By = m.ID
	if !form.OK() {
		h.showDocument(w, r, http.StatusUnprocessableEntity, form)
		return
	}
	rightID, err := h.Acting.Register(r.Context(), n)
	switch {
	case err == nil:
		h.see(w, r, "/desk/documents/"+rightID)
		return
	case errors.Is(err, identity.ErrBadName):
		form.Fail("name", "desk.rights.bad_name")
	case errors.Is(err, delegation.ErrBadNumber):
		form.Fail("business_number", "desk.rights.bad_number")
	case errors.Is(err, identity.ErrBadEmail), errors.Is(err, delegation.ErrNoAccount):
		form.Fail("delegate", "desk.rights.no_account")
	case errors.Is(err, delegation.ErrScope):
		form.Fail("until", "desk.rights.bad_scope")
	case errors.Is(err, attachment.ErrType), errors.Is(err, attachment.ErrSize):
		form.Fail("file", "desk.rights.bad_file")
	default:
		h.fail(w, r, "register a document", err)
		return
	}
	h.showDocument(w, r, http.StatusUnprocessableEntity, form)
}

// readUpload reads the form with its file. It answers itself when it cannot.
func (h *Handler) readUpload(w http.ResponseWriter, r *http.Request) (form *web.Form, n delegation.Registration, ok bool) {
	r.Body = http.MaxBytesReader(w, r.Body, MaxDocument)
	if err := r.ParseMultipartForm(1 << 20); err != nil {
		status := http.StatusBadRequest
		if errors.As(err, new(*http.MaxBytesError)) {
			status = http.StatusRequestEntityTooLarge
		}
		h.Site.Fail(w, r, status, "")
		return nil, n, false
	}
	defer r.MultipartForm.RemoveAll() //nolint:errcheck // a temporary file that stays is the system's to remove
	form = &web.Form{Values: r.PostForm}
	for _, values := range form.Values {
		if slices.ContainsFunc(values, func(v string) bool { return !utf8.ValidString(v) || strings.ContainsRune(v, 0) }) {
			h.Site.Fail(w, r, http.StatusBadRequest, "")
			return nil, n, false
		}
	}
	n = delegation.Registration{
		Type: delegation.Type(form.Value("type")), Name: form.Value("name"), Number: form.Value("business_number"),
		Represented: form.Value("represented"), Delegate: form.Value("delegate"),
	}
	if !slices.Contains([]delegation.Type{delegation.Estate, delegation.Person, delegation.Property, delegation.Business}, n.Type) {
		form.Fail("type", "desk.rights.no_type")
	}
	n.Scope = h.scopeOf(form)
	file, header, err := r.FormFile("file")
	if err != nil {
		form.Fail("file", "desk.rights.bad_file")
		return form, n, true
	}
	defer file.Close() //nolint:errcheck // read only
	n.FileName = header.Filename
	if n.File, err = io.ReadAll(io.LimitReader(file, attachment.MaxSize+1)); err != nil {
		h.Site.Fail(w, r, http.StatusBadRequest, "")
		return nil, n, false
	}
	return form, n, true
}

func (h *Handler) scopeOf(form *web.Form) (s delegation.Scope) {
	for _, right := range form.Values["right"] {
		s.Rights = append(s.Rights, delegation.Right(right))
	}
	if len(s.Rights) == 0 {
		form.Fail("rights", "desk.rights.no_rights")
	}
	s.Departments = form.Values["department"] // none: every one
	var err error
	for name, to := range map[string]*money.Amount{"per_payment": &s.PerPayment, "per_month": &s.PerMonth} {
		if typed := strings.ReplaceAll(form.Value(name), ",", "."); typed != "" {
			if *to, err = money.Parse(typed); err != nil || *to <= 0 {
				form.Fail(name, "desk.rights.bad_amount")
			}
		}
	}
	if s.Until, err = clock.ParseDate(form.Value("until")); err != nil {
		form.Fail("until", "desk.rights.bad_scope")
	}
	return s
}

// documentView is one of them, as the second person sees it.
type documentView struct {
	view
	Form *web.Form
	delegation.Waiting
}

// Mine reports whether the reader registered it, and so cannot decide.
func (d documentView) Mine() bool { return d.RequestedBy == d.Member.ID }

// MayDecide reports whether the reader's role decides.
func (d documentView) MayDecide() bool { return hasAny(d.Member, decideDocument, "") }

func (h *Handler) documentWaiting(w http.ResponseWriter, r *http.Request) {
	h.showDecision(w, r, http.StatusOK, nil)
}

func (h *Handler) showDecision(w http.ResponseWriter, r *http.Request, status int, form *web.Form) {
	page := documentView{view: h.view(r), Form: form}
	var err error
	page.Waiting, err = h.Acting.WaitingFor(r.Context(), chi.URLParam(r, "id"))
	if err == nil {
		err = h.viewed(r, "delegation", page.ID, page.DelegateID)
	}
	if err == nil {
		err = h.nameRequesters(r, &page.view, []delegation.Waiting{page.Waiting})
	}
	if err != nil {
		h.fail(w, r, "read document", err)
		return
	}
	h.Site.Page(w, r, status, "desk/right", page)
}

// documentFile is the document itself, as it was brought.
func (h *Handler) documentFile(w http.ResponseWriter, r *http.Request) {
	d, err := h.Acting.WaitingFor(r.Context(), chi.URLParam(r, "id"))
	if err == nil && len(d.Files) == 0 {
		err = delegation.ErrNotFound
	}
	if err == nil {
		err = h.viewed(r, "delegation", d.ID, d.DelegateID)
	}
	var f attachment.File
	if err == nil {
		f, err = attachment.Load(r.Context(), h.DB, delegation.DocumentFile(d.ID), d.Files[0].ID)
	}
	if err != nil {
		h.fail(w, r, "read document", err)
		return
	}
	header := w.Header()
	header.Set("Content-Type", f.MediaType)
	header.Set("Content-Disposition", `attachment; filename="document-`+d.ID+`"`)
	header.Set("Cache-Control", "private, no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(f.Bytes) // a reader who has gone away is nobody's error
}

// decide is the second person's yes or no.
func (h *Handler) decide(w http.ResponseWriter, r *http.Request) {
	form, err := web.ReadForm(w, r)
	if err != nil {
		h.Site.Fail(w, r, http.StatusBadRequest, "")
		return
	}
	m, _ := session.Staff(r.Context())
	decision := delegation.Decision{ID: chi.URLParam(r, "id"), By: m.ID, Reason: form.Value("why")}
	switch form.Value("do") {
	case "approve":
		err = h.Acting.Approve(r.Context(), decision)
	case "refuse":
		if decision.Reason == "" {
			form.Fail("why", "desk.rights.no_reason")
			h.showDecision(w, r, http.StatusUnprocessableEntity, form)
			return
		}
		err = h.Acting.Refuse(r.Context(), decision)
	default:
		h.Site.Fail(w, r, http.StatusBadRequest, "")
		return
	}
	switch {
	case err == nil:
		h.see(w, r, "/desk/documents")
		return
	case errors.Is(err, approval.ErrSamePerson):
		form.Fail("", "desk.rights.same_person")
	case errors.Is(err, delegation.ErrAlready):
		form.Fail("", "desk.rights.already")
	case errors.Is(err, delegation.ErrEnded):
		form.Fail("", "desk.rights.too_late")
	default:
		h.fail(w, r, "decide about a document", err)
		return
	}
	h.showDecision(w, r, http.StatusConflict, form)
}
