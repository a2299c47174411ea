package oidc

import (
	"errors"
	"net/http"

	"guichet/api/session"
	"guichet/api/web"
	"guichet/identity/staff"
)

// breakGlassForm is for the day on which the directory is down.
type breakGlassForm struct {
	Form *web.Form
}

func (h *Handler) breakGlassPage(w http.ResponseWriter, r *http.Request) {
	h.site.Page(w, r, http.StatusOK, "oidc/breakglass", breakGlassForm{})
}

// breakGlass opens a short administrator's session with the code from the envelope.
func (h *Handler) breakGlass(w http.ResponseWriter, r *http.Request) {
	form, err := web.ReadForm(w, r)
	if err != nil {
		h.site.Fail(w, r, http.StatusBadRequest, "")
		return
	}
	for _, field := range []string{"code", "name", "why"} {
		if form.Value(field) == "" || len(form.Value(field)) > 500 {
			form.Fail(field, "oidc.breakglass.missing_"+field)
		}
	}
	status := http.StatusUnprocessableEntity
	if form.OK() {
		token, err := h.staff.BreakGlass(r.Context(), staff.Breaking{
			Code: form.Value("code"), Name: form.Value("name"), Why: form.Value("why"), OldToken: h.sessions.StaffToken(r),
		}, session.Visitor(r))
		switch {
		case err == nil:
			h.sessions.SetStaff(w, token)
			h.see(w, r, "/desk")
			return
		case errors.Is(err, staff.ErrBreakGlass):
			form.Fail("code", "oidc.breakglass.wrong")
		case limited(w, err):
			form.Fail("", "oidc.breakglass.limited")
			status = http.StatusTooManyRequests
		default:
			h.brokenPage(w, r, "break glass", err)
			return
		}
	}
	form.Values.Del("code") // it is not shown again
	h.site.Page(w, r, status, "oidc/breakglass", breakGlassForm{Form: form})
}
