package oidc

import (
	"fmt"
	"net/http"
	"strconv"

	"github.com/go-chi/chi/v5"

	"guichet/department"
	"guichet/internal/id"
)

// A brand is how the sign-in page shows whose application asked: a band of the
// department's colour, with its logo. The policy of the pages allows no colour in the page
// itself, so that it comes as a style sheet of our own.
type brand struct {
	Style, Logo string // addresses; Logo "": none
	Alt         string
	Department  string
}

// brand is what a department's sign-in pages show; nil: nothing of its own. A branding that
// cannot be read keeps nobody from signing in.
func (h *Handler) brand(r *http.Request, departmentID, lang, name string) *brand {
	b, err := h.departments.Branding(r.Context(), departmentID)
	if err != nil {
		h.log.WarnContext(r.Context(), "read branding", "error", err)
	}
	if err != nil || b.Colour == "" {
		return nil
	}
	base := fmt.Sprintf("/branding/%s/%d/", departmentID, b.ChangedAt.Unix())
	out := &brand{Style: base + "band.css", Alt: b.LogoEN, Department: name}
	if lang == "fr" {
		out.Alt = b.LogoFR
	}
	if b.Logo != nil {
		out.Logo = base + "logo"
	}
	return out
}

// branding reads the branding of the address, or answers 404.
func (h *Handler) branding(w http.ResponseWriter, r *http.Request) (department.Branding, bool) {
	var b department.Branding
	departmentID := chi.URLParam(r, "department")
	if id.Valid(departmentID) {
		var err error
		if b, err = h.departments.Branding(r.Context(), departmentID); err != nil {
			h.brokenPage(w, r, "read branding", err)
			return b, false
		}
	}
	// Each change has an address of its own, so that browsers may keep what they have.
	if b.Colour == "" || chi.URLParam(r, "version") != strconv.FormatInt(b.ChangedAt.Unix(), 10) {
		h.site.Fail(w, r, http.StatusNotFound, "")
		return b, false
	}
	w.Header().Set("Cache-Control", "public, max-age=86400, immutable")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	return b, true
}

func (h *Handler) brandStyle(w http.ResponseWriter, r *http.Request) {
	if b, ok := h.branding(w, r); ok {
		w.Header().Set("Content-Type", "text/css; charset=utf-8")
		fmt.Fprintf(w, ".brand-band { background: %s; }\n", b.Colour) // six digits: the database checks it, too
	}
}

func (h *Handler) brandLogo(w http.ResponseWriter, r *http.Request) {
	b, ok := h.branding(w, r)
	if !ok {
		return
	}
	if b.Logo == nil {
		h.site.Fail(w, r, http.StatusNotFound, "")
		return
	}
	w.Header().Set("Content-Type", b.LogoType)
	w.Header().Set("Content-Security-Policy", "default-src 'none'")
	w.Write(b.Logo) // a reader who has gone away is nobody's error
}
