package account

import (
	"context"
	"encoding/json"
	"errors"
	"html/template"
	"net/http"

	"guichet/api/oidc"
	"guichet/api/session"
	"guichet/api/web"
	"guichet/identity"
	"guichet/identity/provider"
)

// securityPage lists how a person proves who they are.
type securityPage struct {
	view
	Passkeys []identity.Passkey
	Factors  identity.Factors
	Partners []partnerRow
	Confirm  string // the factor whose removal would leave only the code by e-mail
}

func (h *Handler) security(w http.ResponseWriter, r *http.Request) {
	h.showSecurity(w, r, http.StatusOK, securityPage{view: h.view(r, nil)})
}

func (h *Handler) showSecurity(w http.ResponseWriter, r *http.Request, status int, page securityPage) {
	var err error
	if page.Passkeys, err = h.People.Passkeys(r.Context(), page.P.ID); err == nil {
		page.Factors, err = h.People.Factors(r.Context(), page.P.ID)
	}
	if err == nil {
		page.Partners, err = h.partnerRows(r.Context(), page.P.ID)
	}
	if err != nil {
		h.fail(w, r, "show security", err)
		return
	}
	for _, partner := range h.Partners { // where a form of this page may lead
		h.Site.AllowForms(w, provider.Origin(partner.Issuer))
	}
	h.Site.Page(w, r, status, "account/security", page)
}

// partnerRow is a partner with what the reader has to do with it.
type partnerRow struct {
	oidc.Partner
	Link *identity.PartnerLink // nil: not linked
}

func (h *Handler) partnerRows(ctx context.Context, residentID string) ([]partnerRow, error) {
	links, err := h.People.PartnerLinks(ctx, residentID)
	if err != nil {
		return nil, err
	}
	var rows []partnerRow
	for _, p := range h.Partners {
		row := partnerRow{Partner: p}
		for i := range links {
			if links[i].Issuer == p.Issuer {
				row.Link = &links[i]
			}
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func (h *Handler) changeSecurity(w http.ResponseWriter, r *http.Request, form *web.Form) {
	ctx, p, v := r.Context(), person(r), session.Visitor(r)
	page := securityPage{view: h.view(r, form)}
	knowing, passkey := form.Value("sure") != "", form.Value("id")
	var err error
	deed := "removed"
	switch form.Value("do") {
	case "rename":
		deed, err = "renamed", h.People.RenamePasskey(ctx, p, passkey, form.Value("name"))
	case "remove-passkey":
		page.Confirm, err = passkey, h.People.RemovePasskey(ctx, p, passkey, knowing, v)
	case "remove-app":
		page.Confirm, err = "app", h.People.RemoveApp(ctx, p, knowing, v)
	case "unlink":
		err = h.People.UnlinkPartner(ctx, p, form.Value("issuer"), v)
	case "codes":
		var codes []string
		if codes, err = h.People.NewBackupCodes(ctx, p, v); err == nil {
			h.Site.Page(w, r, http.StatusOK, "account/codes", codesPage{page.view, codes, "/"})
			return
		}
	default:
		h.Site.Fail(w, r, http.StatusBadRequest, "")
		return
	}
	switch {
	case err == nil:
		h.done(w, r, "/account/security", deed)
	case errors.Is(err, identity.ErrLastWay):
		h.showSecurity(w, r, http.StatusConflict, page)
	case errors.Is(err, identity.ErrBadName):
		form.Fail("name", "account.security.bad_name")
		h.showSecurity(w, r, http.StatusUnprocessableEntity, page)
	default:
		h.fail(w, r, "change security", err)
	}
}

// passkeyPage makes a passkey, and comes back to where it was needed.
type passkeyPage struct {
	view
	Return string
}

func (h *Handler) newPasskey(w http.ResponseWriter, r *http.Request) {
	h.showNewPasskey(w, r, http.StatusOK, nil, r.URL.Query().Get("return"))
}

func (h *Handler) showNewPasskey(w http.ResponseWriter, r *http.Request, status int, form *web.Form, back string) {
	may, err := h.People.MayAddFactor(r.Context(), person(r))
	if err != nil {
		h.fail(w, r, "show new passkey", err)
		return
	}
	if !may {
		h.stepUp(w, r)
		return
	}
	h.Site.AllowScript(w)
	h.Site.Page(w, r, status, "account/passkey", passkeyPage{view: h.view(r, form), Return: session.LocalPath(back)})
}

func (h *Handler) passkeyOptions(w http.ResponseWriter, r *http.Request) {
	options, err := h.People.NewPasskeyOptions(r.Context(), person(r))
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	switch {
	case errors.Is(err, identity.ErrStepUp):
		w.WriteHeader(http.StatusForbidden)
	case err != nil:
		h.Log.ErrorContext(r.Context(), "begin adding a passkey", "error", err)
		w.WriteHeader(http.StatusInternalServerError)
	default:
		_ = json.NewEncoder(w).Encode(options) // a reader who has gone away is nobody's error
	}
}

func (h *Handler) addPasskey(w http.ResponseWriter, r *http.Request, form *web.Form) {
	token, err := h.People.AddPasskey(r.Context(), person(r), identity.NewPasskey{
		Name: form.Value("name"), Response: []byte(form.Value("response")), Token: h.Sessions.ResidentToken(r), Visitor: session.Visitor(r),
	})
	switch {
	case err == nil:
		h.Sessions.SetResident(w, token)
		h.after(w, r, form)
		return
	case errors.Is(err, identity.ErrPasskey):
		form.Fail("", "account.passkey.refused")
	case errors.Is(err, identity.ErrBadName):
		form.Fail("name", "account.security.bad_name")
	default:
		h.fail(w, r, "add a passkey", err)
		return
	}
	h.showNewPasskey(w, r, http.StatusUnprocessableEntity, form, form.Value("return"))
}

// appPage sets an authenticator app up.
type appPage struct {
	view
	App    identity.App
	Link   template.URL // otpauth:, which a template would not trust
	Return string
}

func (h *Handler) newApp(w http.ResponseWriter, r *http.Request) {
	h.showApp(w, r, http.StatusOK, nil, r.URL.Query().Get("return"))
}

func (h *Handler) showApp(w http.ResponseWriter, r *http.Request, status int, form *web.Form, back string) {
	page := appPage{view: h.view(r, form), Return: session.LocalPath(back)}
	var err error
	page.App, err = h.People.NewApp(r.Context(), page.P)
	if errors.Is(err, identity.ErrWrongStep) { // there is one
		h.see(w, r, "/account/security")
		return
	}
	if err != nil {
		h.fail(w, r, "new authenticator app", err)
		return
	}
	page.Link = template.URL(page.App.URI)
	h.Site.Page(w, r, status, "account/app", page)
}

// codesPage shows backup codes, once.
type codesPage struct {
	view
	Codes  []string
	Return string
}

func (h *Handler) confirmApp(w http.ResponseWriter, r *http.Request, form *web.Form) {
	codes, token, err := h.People.ConfirmApp(r.Context(), person(r), h.Sessions.ResidentToken(r), form.Value("code"), session.Visitor(r))
	switch {
	case err == nil:
		h.Sessions.SetResident(w, token)
		h.Site.Page(w, r, http.StatusOK, "account/codes", codesPage{h.view(r, nil), codes, session.LocalPath(form.Value("return"))})
		return
	case errors.Is(err, identity.ErrWrongFactor):
		form.Fail("code", "account.app.wrong")
		form.Values.Del("code")
		h.showApp(w, r, http.StatusUnprocessableEntity, form, form.Value("return"))
	case limited(w, err):
		form.Fail("", "account.limited")
		h.showApp(w, r, http.StatusTooManyRequests, form, form.Value("return"))
	case errors.Is(err, identity.ErrWrongStep):
		h.see(w, r, "/account/security")
	default:
		h.fail(w, r, "confirm authenticator app", err)
	}
}
