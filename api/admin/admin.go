// Package admin serves the administration pages of the desk: clients of departments,
// API keys and webhooks, branding, signing keys, staff, and the search of the audit.
//
//	department's administrator ──propose──▶ waits ──approve──▶ second administrator
//	administrator of the city  ──▶ staff, signing keys, what is in force
//	auditor                    ──▶ the audit; each search is part of it
//
// Denied by default: a route is in one table with its roles, and what concerns a
// department asks for a role in that department. What must not happen on a forgotten screen
// (approvals, secrets, keys, roles) asks the directory for a fresh proof first. Rules are those of
// identity/provider, identity/staff and department; the command line uses the same.
package admin

import (
	"context"
	"embed"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"guichet/api/session"
	"guichet/api/web"
	"guichet/department"
	"guichet/identity"
	"guichet/identity/provider"
	"guichet/identity/staff"
	"guichet/internal/approval"
)

// Options are what a Handler works with.
type Options struct {
	DB          *pgxpool.Pool
	Provider    *provider.Service
	Departments *department.Service
	People      *identity.Service
	Staff       *staff.Service
	Sessions    *session.Sessions
	Site        *web.Site
	Live        bool     // keys of this deployment move real money
	Partners    []string // issuers that people sign in by: the staff directory above all
	Now         func() time.Time
	Log         *slog.Logger
}

// A Handler serves the pages. It may be used by many goroutines at once.
type Handler struct{ Options }

//go:embed templates locale
var files embed.FS

// Register adds the room's words and pages to a site.
func Register(site *web.Site) { site.Register("admin", files) }

// New registers the pages with the site.
func New(o Options) *Handler {
	Register(o.Site)
	return &Handler{o}
}

// Who may do what.
var (
	managers = []string{staff.Administrator, staff.Department} // of the departments they hold the role for
	chiefs   = []string{staff.Administrator}                   // of the whole city
	auditors = []string{staff.Auditor}                         // of the whole city
)

// A route is one address with the roles that may use it.
type route struct {
	method, pattern string
	roles           []string
	city            bool // the role must hold for the whole city
	fresh           bool // after a fresh proof at the directory
	do              http.HandlerFunc
}

// routes is everything there is.
func (h *Handler) routes() []route {
	const get, post = http.MethodGet, http.MethodPost
	return []route{
		{get, "/desk/admin", managers, false, false, h.overview},
		{get, "/desk/admin/new-client", managers, false, false, h.newClientPage},
		{post, "/desk/admin/new-client", managers, false, false, h.newClient},
		{get, "/desk/admin/clients", managers, false, false, h.clients},
		{get, "/desk/admin/clients/{id}", managers, false, false, h.clientPage},
		{post, "/desk/admin/clients/{id}", managers, false, false, h.changeClient},
		{get, "/desk/admin/clients/{id}/errors", managers, false, false, h.clientErrors},
		{get, "/desk/admin/clients/{id}/secret", managers, false, true, h.secretPage},
		{post, "/desk/admin/clients/{id}/secret", managers, false, true, h.rotateSecret},
		{get, "/desk/admin/approvals/{id}", managers, false, true, h.approvalPage},
		{post, "/desk/admin/approvals/{id}", managers, false, true, h.decide},
		{get, "/desk/admin/departments", managers, false, false, h.departments},
		{get, "/desk/admin/departments/{code}/keys", managers, false, true, h.keysPage},
		{post, "/desk/admin/departments/{code}/keys", managers, false, true, h.changeKeys},
		{get, "/desk/admin/departments/{code}/branding", managers, false, false, h.brandingPage},
		{post, "/desk/admin/departments/{code}/branding", managers, false, false, h.setBranding},

		{get, "/desk/admin/signing-keys", chiefs, true, false, h.signingKeys},
		{post, "/desk/admin/signing-keys", chiefs, true, true, h.rotateKey},
		{get, "/desk/admin/settings", chiefs, true, false, h.settings},
		{get, "/desk/admin/staff", chiefs, true, false, h.staffPage},
		{post, "/desk/admin/staff", chiefs, true, true, h.changeHints},
		{get, "/desk/admin/staff/{id}", chiefs, true, false, h.memberPage},
		{post, "/desk/admin/staff/{id}", chiefs, true, true, h.changeMember},

		{get, "/desk/audit", auditors, true, false, h.audit},
		{get, "/desk/audit.csv", auditors, true, false, h.auditCSV},
		{get, "/desk/audit.json", auditors, true, false, h.auditJSON},
	}
}

// Routes mounts the pages.
func (h *Handler) Routes(r chi.Router) {
	r.Group(func(r chi.Router) {
		r.Use(h.Sessions.Load, h.Site.Text)
		for _, t := range h.routes() {
			guarded := r.With(h.Sessions.RequireStaff(t.roles...))
			if t.city {
				guarded = guarded.With(h.wholeCity(t.roles))
			}
			if t.fresh {
				guarded = guarded.With(session.RequireFresh)
			}
			guarded.MethodFunc(t.method, t.pattern, t.do)
		}
	})
}

func (h *Handler) wholeCity(roles []string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !slices.ContainsFunc(roles, func(role string) bool { return reader(r).Has(role, "") }) {
				h.Site.Fail(w, r, http.StatusForbidden, "")
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// reader is the member of staff of a request.
func reader(r *http.Request) staff.Member {
	m, _ := session.Staff(r.Context())
	return m
}

// manages reports whether a member looks after a department.
func manages(m staff.Member, departmentID string) bool {
	return m.Has(staff.Administrator, departmentID) || m.Has(staff.Department, departmentID)
}

// managed are the departments a member looks after.
func (h *Handler) managed(r *http.Request) ([]department.Department, error) {
	all, err := h.Departments.All(r.Context())
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(d department.Department) bool { return !manages(reader(r), d.ID) }), nil
}

// errOther: the object belongs to a department that the member does not look after. Whether
// it exists is not told.
var errOther = errors.New("another department's")

// fail answers what a page cannot tell.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, step string, err error) {
	switch {
	case errors.Is(err, errOther), errors.Is(err, provider.ErrNotFound), errors.Is(err, department.ErrNotFound), errors.Is(err, department.ErrNoKey),
		errors.Is(err, department.ErrNoHook), errors.Is(err, staff.ErrNotFound), errors.Is(err, approval.ErrNotFound):
		h.Site.Fail(w, r, http.StatusNotFound, "admin.missing")
	case errors.Is(err, context.Canceled):
		h.Log.InfoContext(r.Context(), step, "error", err) // the reader went away
	default:
		h.Log.ErrorContext(r.Context(), step, "error", err)
		h.Site.Fail(w, r, http.StatusInternalServerError, "")
	}
}

// in runs a change in one transaction.
func (h *Handler) in(ctx context.Context, f func(tx pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, h.DB, f)
}

// form reads a posted form, or answers itself.
func (h *Handler) form(w http.ResponseWriter, r *http.Request) (*web.Form, bool) {
	f, err := web.ReadForm(w, r)
	if err != nil {
		h.Site.Fail(w, r, http.StatusBadRequest, "")
		return nil, false
	}
	return f, true
}

// see leads to a page with GET, saying what was done.
func (h *Handler) see(w http.ResponseWriter, r *http.Request, path, done string) {
	to := path + "?done=" + done
	if lang := r.URL.Query().Get("lang"); lang != "" {
		to += "&lang=" + web.Lang(r)
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
}

// done is what see said; what is no word of ours is nothing.
func (h *Handler) done(r *http.Request) web.Message {
	m := say("done." + slug(r.URL.Query().Get("done")))
	if _, err := h.Site.Write("en", m); err != nil {
		return web.Message{}
	}
	return m
}

// home is the way back.
func home(more ...crumb) []crumb {
	return append([]crumb{{Href: "/desk/admin", Label: say("title")}}, more...)
}
