package account

import (
	"net/http"
	"time"

	"guichet/api/session"
	"guichet/api/web"
	"guichet/identity"
	"guichet/identity/provider"
)

// devicesPage lists where a person is signed in.
type devicesPage struct {
	view
	Devices []identity.Device
}

func (h *Handler) devices(w http.ResponseWriter, r *http.Request) {
	page := devicesPage{view: h.view(r, nil)}
	var err error
	if page.Devices, err = h.People.Devices(r.Context(), page.P); err != nil {
		h.fail(w, r, "list sessions", err)
		return
	}
	h.Site.Page(w, r, http.StatusOK, "account/devices", page)
}

func (h *Handler) endDevices(w http.ResponseWriter, r *http.Request, form *web.Form) {
	var err error
	switch form.Value("do") {
	case "one":
		err = h.People.EndDevice(r.Context(), person(r), form.Value("id"))
	case "others":
		err = h.People.EndOtherDevices(r.Context(), person(r))
	default:
		h.Site.Fail(w, r, http.StatusBadRequest, "")
		return
	}
	if err != nil {
		h.fail(w, r, "end sessions", err)
		return
	}
	h.done(w, r, "/account/devices", "ended")
}

// departmentsPage lists who knows a person, and what they see.
type departmentsPage struct {
	view
	Known []provider.Known
}

func (h *Handler) departments(w http.ResponseWriter, r *http.Request) {
	page := departmentsPage{view: h.view(r, nil)}
	var err error
	if page.Known, err = h.Provider.KnownTo(r.Context(), page.P.ID); err != nil {
		h.fail(w, r, "list departments", err)
		return
	}
	h.Site.Page(w, r, http.StatusOK, "account/departments", page)
}

func (h *Handler) withdraw(w http.ResponseWriter, r *http.Request, form *web.Form) {
	if err := h.Provider.Withdraw(r.Context(), person(r), form.Value("client")); err != nil {
		h.fail(w, r, "withdraw consent", err)
		return
	}
	h.done(w, r, "/account/departments", "withdrawn")
}

// historyPage is the sign-in history. Ask is the line that the reader is about to disavow.
type historyPage struct {
	view
	Visits []identity.Visit
	Older  string // query of the next page, empty at the end
	Ask    string
}

func (h *Handler) history(w http.ResponseWriter, r *http.Request) {
	h.showHistory(w, r, "")
}

func (h *Handler) showHistory(w http.ResponseWriter, r *http.Request, ask string) {
	page := historyPage{view: h.view(r, nil), Ask: ask}
	before := h.Now().Add(time.Second)
	if t, err := time.Parse(time.RFC3339Nano, r.URL.Query().Get("before")); err == nil {
		before = t
	}
	var more bool
	var err error
	if page.Visits, more, err = h.People.History(r.Context(), page.P.ID, before); err != nil {
		h.fail(w, r, "read history", err)
		return
	}
	if more {
		page.Older = page.Visits[len(page.Visits)-1].At.UTC().Format(time.RFC3339Nano)
	}
	h.Site.Page(w, r, http.StatusOK, "account/history", page)
}

// disavow asks once more before it ends the session of a sign-in.
func (h *Handler) disavow(w http.ResponseWriter, r *http.Request, form *web.Form) {
	if form.Value("sure") == "" {
		h.showHistory(w, r, form.Value("id"))
		return
	}
	if err := h.People.Disavow(r.Context(), person(r), form.Value("id"), session.Visitor(r)); err != nil {
		h.fail(w, r, "disavow a sign-in", err)
		return
	}
	h.done(w, r, "/account/history", "disavowed")
}

// settingsPage is what we write about.
type settingsPage struct {
	view
	identity.Settings
}

func (h *Handler) settings(w http.ResponseWriter, r *http.Request) {
	page := settingsPage{view: h.view(r, nil)}
	var err error
	if page.Settings, err = h.People.Settings(r.Context(), page.P.ID); err != nil {
		h.fail(w, r, "read settings", err)
		return
	}
	h.Site.Page(w, r, http.StatusOK, "account/settings", page)
}

func (h *Handler) saveSettings(w http.ResponseWriter, r *http.Request, form *web.Form) {
	if err := h.People.SetSettings(r.Context(), person(r), identity.Settings{QuietDevices: form.Value("devices") == ""}); err != nil {
		h.fail(w, r, "save settings", err)
		return
	}
	h.done(w, r, "/account/settings", "saved")
}

// linkPage asks before a link of a mail does what it is for.
type linkPage struct {
	view
	Purpose string
}

func (h *Handler) link(w http.ResponseWriter, r *http.Request) {
	l, err := h.People.Link(r.Context(), secretOf(r))
	if err != nil {
		h.fail(w, r, "read link", err)
		return
	}
	h.Site.Page(w, r, http.StatusOK, "account/link", linkPage{view{}, l.Purpose})
}

func (h *Handler) useLink(w http.ResponseWriter, r *http.Request) {
	l, err := h.People.UseLink(r.Context(), secretOf(r), session.Visitor(r))
	if err != nil {
		h.fail(w, r, "use link", err)
		return
	}
	h.Site.Page(w, r, http.StatusOK, "account/linked", linkPage{view{}, l.Purpose})
}

// recover tells what to do when a second factor is lost.
func (h *Handler) recover(w http.ResponseWriter, r *http.Request) {
	h.Site.Page(w, r, http.StatusOK, "account/recover", nil)
}
