package oidc

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"guichet/api/session"
	"guichet/api/web"
	"guichet/identity/provider"
)

const grantDevice = "urn:ietf:params:oauth:grant-type:device_code"

// askDevice begins a sign-in at a kiosk or counter (RFC 8628, section 3.1).
func (h *Handler) askDevice(w http.ResponseWriter, r clientRequest) {
	d, err := h.provider.AskDevice(r.Context(), r.client, strings.Fields(r.form.Get("scope")))
	if err != nil {
		h.clientFailed(w, r.Request, err)
		return
	}
	page := h.issuer + "/device"
	writeJSON(w, http.StatusOK, map[string]any{
		"device_code": d.Code, "user_code": d.UserCode, "expires_in": int(d.ExpiresIn.Seconds()), "interval": d.Interval,
		"verification_uri": page, "verification_uri_complete": page + "?" + url.Values{"user_code": {d.UserCode}}.Encode(),
	})
}

// devicePage is what the pages of letting a device in show.
type devicePage struct {
	Form       *web.Form
	Code       string // as typed
	Device     string
	Place      string
	Department string
	Sees       []string
	FirstParty bool
	In         bool // on the last page: let in, or sent away
}

// device asks for the code. A link fills it in and does nothing else: whoever sent the
// link may stand at the device (RFC 8628, section 5.4).
func (h *Handler) device(w http.ResponseWriter, r *http.Request) {
	form := &web.Form{Values: url.Values{"user_code": {r.URL.Query().Get("user_code")}}}
	h.site.Page(w, r, http.StatusOK, "oidc/device", devicePage{Form: form})
}

// devicePost shows which device waits with the code, and carries out the person's answer.
func (h *Handler) devicePost(w http.ResponseWriter, r *http.Request) {
	form, err := web.ReadForm(w, r)
	if err != nil {
		h.site.Fail(w, r, http.StatusBadRequest, "")
		return
	}
	person, _ := session.Resident(r.Context()) // RequireResident stands before
	page := devicePage{Form: form, Code: form.Value("user_code")}
	switch form.Value("do") {
	case "find":
		var d provider.Waiting
		if d, err = h.provider.WaitingDevice(r.Context(), page.Code, person); err == nil {
			lang := web.Lang(r)
			page.Device, page.Place, page.Department = d.Client.Name.In(lang), d.Client.Place.In(lang), d.Client.Department.In(lang)
			page.Sees, page.FirstParty = d.Sees, d.Client.FirstParty
			h.site.Page(w, r, http.StatusOK, "oidc/devicefound", page)
			return
		}
	case "let in":
		page.In = true
		err = h.provider.LetDeviceIn(r.Context(), page.Code, person)
	case "send away":
		err = h.provider.SendDeviceAway(r.Context(), page.Code, person)
	default:
		h.site.Fail(w, r, http.StatusBadRequest, "")
		return
	}
	switch {
	case err == nil:
		h.site.Page(w, r, http.StatusOK, "oidc/devicedone", page)
	case errors.Is(err, provider.ErrUserCode):
		form.Fail("user_code", "oidc.device.wrong")
		h.site.Page(w, r, http.StatusUnprocessableEntity, "oidc/device", page)
	case limited(w, err):
		form.Fail("", "oidc.device.limited")
		h.site.Page(w, r, http.StatusTooManyRequests, "oidc/device", page)
	default:
		h.brokenPage(w, r, "device", err)
	}
}
