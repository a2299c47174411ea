// Package account serves the pages on which residents look after their own account:
// who they are, how they sign in, where they are signed in, who knows them, and how they leave.
//
//	/account ──▶ profile, addresses, security, devices, departments, history, …
//	/link/{secret} ◀── mail: opening it changes nothing, its button does
//
// What may be done is decided in identity; a page that needs a fresh proof sends its
// reader to /signin?level=2 and gets them back. Every page works without JavaScript, but for
// making a passkey.
package account

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"guichet/api/oidc"
	"guichet/api/session"
	"guichet/api/web"
	"guichet/identity"
	"guichet/identity/provider"
	"guichet/payments"
)

// Options are what a Handler works with.
type Options struct {
	People   *identity.Service
	Provider *provider.Service
	Sessions *session.Sessions
	Site     *web.Site
	Now      func() time.Time
	Log      *slog.Logger
	Partners []oidc.Partner
	// Receipts lists what a resident has paid, for the export of their data.
	Receipts func(ctx context.Context, residentID string, limit int) ([]payments.Receipt, error)
}

// A Handler serves the pages. It may be used by many goroutines at once.
type Handler struct{ Options }

//go:embed templates locale
var files embed.FS

// New registers the pages with the site.
func New(o Options) *Handler {
	o.Site.Register("account", files)
	return &Handler{o}
}

// Routes mounts the pages.
func (h *Handler) Routes(r chi.Router) {
	r.Group(func(r chi.Router) {
		r.Use(h.Sessions.Load, h.Site.Text)
		r.Get("/link/{secret}", h.link)
		r.Post("/link/{secret}", h.useLink)
		r.Get("/recover", h.recover)
		r.Group(func(r chi.Router) {
			r.Use(session.RequireResident)
			r.Get("/account", h.home)
			r.Post("/account", h.settle)
			for path, p := range map[string]page{
				"/account/profile":      {h.profile, h.saveProfile},
				"/account/emails":       {h.emails, h.changeEmails},
				"/account/security":     {h.security, h.changeSecurity},
				"/account/passkeys/new": {h.newPasskey, h.addPasskey},
				"/account/app":          {h.newApp, h.confirmApp},
				"/account/devices":      {h.devices, h.endDevices},
				"/account/departments":  {h.departments, h.withdraw},
				"/account/history":      {h.history, h.disavow},
				"/account/settings":     {h.settings, h.saveSettings},
				"/account/data":         {h.data, h.takeData},
				"/account/merge":        {h.merge, h.beginMerge},
				"/account/merge/{id}":   {h.previewMerge, h.confirmMerge},
			} {
				r.Get(path, p.show)
				r.Post(path, h.posted(p.act))
			}
			r.Post("/account/passkeys/options", h.passkeyOptions)
		})
	})
}

// page is an address with what shows it and what carries out its forms.
type page struct {
	show func(http.ResponseWriter, *http.Request)
	act  func(http.ResponseWriter, *http.Request, *web.Form)
}

func (h *Handler) posted(act func(http.ResponseWriter, *http.Request, *web.Form)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		form, err := web.ReadForm(w, r)
		if err != nil {
			h.Site.Fail(w, r, http.StatusBadRequest, "")
			return
		}
		act(w, r, form)
	}
}

// person is the reader: RequireResident stands before every page that asks.
func person(r *http.Request) identity.Person {
	p, _ := session.Resident(r.Context())
	return p
}

// view is what every page may show beside its own.
type view struct {
	Form *web.Form
	Done string // what was just done, for a line at the top
	P    identity.Person
}

// deeds are the words that ?done= may stand for.
var deeds = []string{"saved", "added", "removed", "renamed", "ended", "withdrawn", "disavowed", "kept", "cancelled", "merged", "asked", "main"}

func (h *Handler) view(r *http.Request, form *web.Form) view {
	v := view{Form: form, P: person(r)}
	for _, deed := range deeds {
		if r.URL.Query().Get("done") == deed {
			v.Done = "account.done." + deed
		}
	}
	return v
}

// fail answers what a page cannot carry out. A proof that is missing is asked for, and
// leads back to the page.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, step string, err error) {
	switch {
	case errors.Is(err, identity.ErrStepUp):
		h.stepUp(w, r)
	case errors.Is(err, identity.ErrNotFound), errors.Is(err, provider.ErrNotFound), errors.Is(err, identity.ErrNoLink):
		h.Site.Fail(w, r, http.StatusNotFound, "")
	case errors.Is(err, identity.ErrNoPending):
		h.Site.Fail(w, r, http.StatusBadRequest, "account.fail.pending")
	case errors.Is(err, identity.ErrNoSession):
		h.see(w, r, "/signin")
	case errors.Is(err, context.Canceled):
		h.Log.InfoContext(r.Context(), step, "error", err) // the reader went away
	default:
		h.Log.ErrorContext(r.Context(), step, "error", err)
		h.Site.Fail(w, r, http.StatusInternalServerError, "")
	}
}

// stepUp asks for the proof that is missing. Of somebody without a second factor that is a
// new code by e-mail.
func (h *Handler) stepUp(w http.ResponseWriter, r *http.Request) {
	q := url.Values{"return": {session.LocalPath(r.URL.RequestURI())}, "level": {"2"}}
	has, err := h.People.Factors(r.Context(), person(r).ID)
	if err != nil {
		h.fail(w, r, "read factors", err)
		return
	}
	if !has.Strong() {
		q.Del("level")
		q.Set("again", "1")
	}
	h.see(w, r, "/signin?"+q.Encode())
}

// needFresh reports whether the reader has proved level 2 just now, and sends them to do
// so otherwise. Of somebody who has no second factor it is asked to set one up.
func (h *Handler) needFresh(w http.ResponseWriter, r *http.Request) bool {
	if person(r).Fresh(h.Now()) {
		return true
	}
	h.see(w, r, "/signin?"+url.Values{"return": {session.LocalPath(r.URL.RequestURI())}, "level": {"2"}}.Encode())
	return false
}

// limited sets Retry-After when err says that a limit was met.
func limited(w http.ResponseWriter, err error) bool {
	var l *identity.LimitedError
	if !errors.As(err, &l) {
		return false
	}
	w.Header().Set("Retry-After", fmt.Sprint(int(l.After.Seconds())))
	return true
}

func (h *Handler) see(w http.ResponseWriter, r *http.Request, path string) {
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, path, http.StatusSeeOther)
}

// done goes back to a page with a line that says what was done.
func (h *Handler) done(w http.ResponseWriter, r *http.Request, path, deed string) {
	h.see(w, r, path+"?done="+deed)
}

// after leads to where the reader came from to set a factor up, else to the page of factors.
func (h *Handler) after(w http.ResponseWriter, r *http.Request, form *web.Form) {
	if back := session.LocalPath(form.Value("return")); back != "/" {
		h.see(w, r, back)
		return
	}
	h.done(w, r, "/account/security", "added")
}

// homePage is the overview.
type homePage struct {
	view
	Recovery *identity.Recovery
	Closing  *time.Time
	Limited  *time.Time
	Factors  identity.Factors
}

func (h *Handler) home(w http.ResponseWriter, r *http.Request) {
	page := homePage{view: h.view(r, nil)}
	var err error
	if page.Recovery, err = h.People.Recovery(r.Context(), page.P.ID); err == nil {
		page.Closing, err = h.People.Closing(r.Context(), page.P.ID)
	}
	if err == nil {
		page.Limited, err = h.People.Limited(r.Context(), page.P.ID)
	}
	if err == nil {
		page.Factors, err = h.People.Factors(r.Context(), page.P.ID)
	}
	if err != nil {
		h.fail(w, r, "show account", err)
		return
	}
	h.Site.Page(w, r, http.StatusOK, "account/home", page)
}

// settle carries out what the banners of the overview offer.
func (h *Handler) settle(w http.ResponseWriter, r *http.Request) {
	form, err := web.ReadForm(w, r)
	if err != nil {
		h.Site.Fail(w, r, http.StatusBadRequest, "")
		return
	}
	deed := ""
	switch form.Value("do") {
	case "keep":
		deed, err = "kept", h.People.KeepAccount(r.Context(), person(r))
	case "cancel-recovery":
		deed, err = "cancelled", h.People.CancelRecovery(r.Context(), person(r))
	default:
		h.Site.Fail(w, r, http.StatusBadRequest, "")
		return
	}
	if err != nil {
		h.fail(w, r, "settle account", err)
		return
	}
	h.done(w, r, "/account", deed)
}

// profilePage is what a person says about themselves.
type profilePage struct {
	view
	identity.Resident
}

func (h *Handler) profile(w http.ResponseWriter, r *http.Request) {
	h.showProfile(w, r, http.StatusOK, nil)
}

func (h *Handler) showProfile(w http.ResponseWriter, r *http.Request, status int, form *web.Form) {
	page := profilePage{view: h.view(r, form)}
	var err error
	if page.Resident, err = h.People.Resident(r.Context(), page.P.ID); err != nil {
		h.fail(w, r, "show profile", err)
		return
	}
	h.Site.Page(w, r, status, "account/profile", page)
}

func (h *Handler) saveProfile(w http.ResponseWriter, r *http.Request, form *web.Form) {
	lang := form.Value("language")
	err := h.People.UpdateProfile(r.Context(), person(r), identity.ProfileChange{
		Name: form.Value("name"), Lang: lang, Phone: form.Value("phone"),
		Address: identity.PostalAddress{
			Street: strings.ReplaceAll(form.Value("street"), "\r\n", "\n"), Locality: form.Value("locality"), Region: form.Value("region"),
			PostalCode: form.Value("postal_code"), Country: form.Value("country"),
		},
	})
	switch {
	case err == nil:
		// The language chosen here is also that of this browser, whatever its switch said before.
		h.see(w, r, "/account/profile?"+url.Values{"done": {"saved"}, "lang": {lang}}.Encode())
		return
	case errors.Is(err, identity.ErrBadName):
		form.Fail("name", "account.profile.bad_name")
	case errors.Is(err, identity.ErrBadPhone):
		form.Fail("phone", "account.profile.bad_phone")
	case errors.Is(err, identity.ErrBadAddress):
		form.Fail("street", "account.profile.bad_address")
	default:
		h.fail(w, r, "save profile", err)
		return
	}
	h.showProfile(w, r, http.StatusUnprocessableEntity, form)
}

// emailsPage lists the addresses. Asked is "new" or the id of an address, while a code is out.
type emailsPage struct {
	view
	Emails []identity.EmailAddress
	Asked  string
}

func (h *Handler) emails(w http.ResponseWriter, r *http.Request) {
	if h.needFresh(w, r) {
		h.showEmails(w, r, http.StatusOK, nil, "")
	}
}

func (h *Handler) showEmails(w http.ResponseWriter, r *http.Request, status int, form *web.Form, asked string) {
	page := emailsPage{view: h.view(r, form), Asked: asked}
	var err error
	if page.Emails, err = h.People.Emails(r.Context(), page.P.ID); err != nil {
		h.fail(w, r, "list addresses", err)
		return
	}
	h.Site.Page(w, r, status, "account/emails", page)
}

func (h *Handler) changeEmails(w http.ResponseWriter, r *http.Request, form *web.Form) {
	ctx, p, v := r.Context(), person(r), session.Visitor(r)
	var err error
	asked, deed := "", ""
	switch form.Value("do") {
	case "ask-new":
		asked, err = "new", h.People.AskNewEmail(ctx, p, form.Value("email"), v)
	case "add":
		asked, deed, err = "new", "added", h.People.AddEmail(ctx, p, form.Value("code"), v)
	case "ask-main":
		asked, err = form.Value("id"), h.People.AskOldEmail(ctx, p, v)
	case "main":
		asked, deed, err = form.Value("id"), "main", h.People.MakeMain(ctx, p, form.Value("id"), form.Value("code"), v)
	case "remove":
		deed, err = "removed", h.People.RemoveEmail(ctx, p, form.Value("id"), v)
	default:
		h.Site.Fail(w, r, http.StatusBadRequest, "")
		return
	}
	status := http.StatusUnprocessableEntity
	var wrong *identity.WrongCodeError
	switch {
	case err == nil && deed != "":
		h.done(w, r, "/account/emails", deed)
		return
	case err == nil:
		status = http.StatusOK
	case errors.Is(err, identity.ErrBadEmail):
		asked = ""
		form.Fail("email", "account.emails.bad")
	case errors.Is(err, identity.ErrTooManyEmails):
		asked = ""
		form.Fail("email", "account.emails.too_many")
	case errors.As(err, &wrong) && wrong.Left > 0:
		form.Fail("code", "account.emails.wrong", "Count", wrong.Left)
	case errors.As(err, &wrong), errors.Is(err, identity.ErrCodeDead):
		form.Fail("code", "account.emails.dead")
	case errors.Is(err, identity.ErrLimited):
		form.Fail("", "account.emails.after_recovery")
	case errors.Is(err, identity.ErrMainEmail):
		form.Fail("", "account.emails.is_main")
	case limited(w, err):
		form.Fail("", "account.limited")
		status = http.StatusTooManyRequests
	default:
		h.fail(w, r, "change addresses", err)
		return
	}
	form.Values.Del("code")
	h.showEmails(w, r, status, form, asked)
}
