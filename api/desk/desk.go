// Package desk serves the staff side: what moved today and whether it adds up, the
// way of every cent from payout to SAP, what waits for a person, the books, and the
// look-up of a bill while its payer is on the line.
//
//	/desk ──▶ today ──▶ payouts ─▶ lines ─▶ payments ─▶ bills
//	            │       bank ─▶ statements ─▶ lines      ▲
//	            │       SAP ─▶ batches ─▶ documents      │
//	            │       ledger ─▶ accounts ─▶ entries    │
//	            │         └─▶ journal, general, activity  │
//	            │       periods ─▶ trial balances        │
//	            └─────▶ exceptions          look-up ─────┘
//
// Denied by default: a route is in one table with the roles that may use it, and a
// role must hold for the whole city except where the table says otherwise. Whoever
// looks at a person's bill leaves an audit row; names of residents are shown to
// those who speak with them, and to nobody else. Nothing is decided here: what an
// action does and refuses is reconcile's. Every page works without JavaScript, and
// every table of the money rooms can be had as CSV, XLSX and JSON.
package desk

import (
	"context"
	"embed"
	"errors"
	"fmt"
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
	"guichet/identity/delegation"
	"guichet/identity/staff"
	"guichet/internal/clock"
	"guichet/internal/database"
	"guichet/internal/table"
	"guichet/ledger"
	"guichet/ledger/report"
	"guichet/payments"
	"guichet/payments/bill"
	"guichet/reconcile"
)

// Options are what a Handler works with.
type Options struct {
	DB          *pgxpool.Pool
	Books       *ledger.Books
	Nightly     *reconcile.Nightly
	Departments *department.Service
	People      *identity.Service
	Acting      *delegation.Service
	Staff       *staff.Service
	Sessions    *session.Sessions
	Site        *web.Site
	Now         func() time.Time
	Log         *slog.Logger
}

// A Handler serves the pages. It may be used by many goroutines at once.
type Handler struct{ Options }

//go:embed templates locale
var files embed.FS

// New registers the pages with the site.
func New(o Options) *Handler {
	o.Site.Register("desk", files)
	return &Handler{o}
}

// Who may do what.
var (
	everybody = staff.Roles()
	watch     = []string{staff.FinanceClerk, staff.FinanceApprover, staff.Auditor} // the city's money, without names
	handle    = []string{staff.FinanceClerk, staff.FinanceApprover}                // notes on exceptions, and taking them
	correct   = []string{staff.FinanceClerk}                                       // closing them, moving money out of suspense
	frontLine = []string{staff.Agent311, staff.CounterClerk, staff.Supervisor}     // speak with residents, and see who they are
	approve   = []string{staff.FinanceApprover}                                    // deciding what somebody else asked for
	lookUp    = slices.Concat(frontLine, watch)
	// administer is who may open api/admin's pages.
	administer = []string{staff.Administrator, staff.Department}
)

// A route is one address with the roles that may use it.
type route struct {
	method, pattern string
	roles           []string
	// byDepartment routes take a role for one department too: their handlers ask which.
	byDepartment bool
	do           http.HandlerFunc
}

// routes is everything there is.
func (h *Handler) routes() []route {
	const get, post = http.MethodGet, http.MethodPost
	return slices.Concat([]route{
		{get, "/desk", everybody, true, h.door},
		{get, "/desk/today", watch, false, h.today},

		{get, "/desk/payouts", watch, false, h.payouts},
		{get, "/desk/payouts/{id}", watch, false, h.payout},

		{get, "/desk/bank", watch, false, h.bank},
		{get, "/desk/bank/statements/{id}", watch, false, h.statement},
		{get, "/desk/bank/lines", watch, false, h.bankLines},
		{get, "/desk/bank/lines/{id}", watch, false, h.bankLine},

		{get, "/desk/sap", watch, false, h.sap},
		{get, "/desk/sap/batches/{id}", watch, false, h.batch},
		{get, "/desk/sap/batches/{id}/file", watch, false, h.batchFile},
		{get, "/desk/sap/batches/{id}/manifest", watch, false, h.batchManifest},
		{get, "/desk/sap/documents/{id}", watch, false, h.document},

		{get, "/desk/exceptions", watch, false, h.exceptions},
		{get, "/desk/exceptions/{id}", watch, false, h.exception},
		{get, "/desk/exceptions/{id}/{deed}", watch, false, h.toException},
		{post, "/desk/exceptions/{id}/note", handle, false, h.note},
		{post, "/desk/exceptions/{id}/assign", handle, false, h.assign},
		{post, "/desk/exceptions/{id}/transfer", correct, false, h.transfer},
		{post, "/desk/exceptions/{id}/resolve", correct, false, h.resolve},

		{get, "/desk/ledger", watch, false, h.ledger},
		{get, "/desk/ledger/accounts/{path}", watch, false, h.account},
		{get, "/desk/ledger/accounts", watch, false, h.accounts},
		{get, "/desk/ledger/accounts/{path}/statement", watch, false, h.datedStatement},
		{get, "/desk/ledger/general", watch, false, h.general},
		{get, "/desk/ledger/activity", watch, false, h.activity},
		{get, "/desk/ledger/journal", watch, false, h.journal},
		{get, "/desk/ledger/entries/{id}", watch, false, h.entry},
		{get, "/desk/ledger/entries/{id}/proof", watch, false, h.proof},

		{get, "/desk/documents", takeDocument, false, h.documents},
		{get, "/desk/documents/new", takeDocument, false, h.newDocument},
		{post, "/desk/documents/new", takeDocument, false, h.register},
		{get, "/desk/documents/{id}", takeDocument, false, h.documentWaiting},
		{get, "/desk/documents/{id}/file", takeDocument, false, h.documentFile},
		{post, "/desk/documents/{id}", decideDocument, false, session.RequireFresh(http.HandlerFunc(h.decide)).ServeHTTP},

		{get, "/desk/periods", watch, false, h.periods},
		{post, "/desk/periods", handle, false, h.askPeriod},
		{get, "/desk/periods/decide", watch, false, h.toPeriods},
		{post, "/desk/periods/decide", approve, false, session.RequireFresh(http.HandlerFunc(h.decidePeriod)).ServeHTTP},

		{get, "/desk/lookup", lookUp, true, h.lookupPage},
		{post, "/desk/lookup", lookUp, true, h.lookup},
		{get, "/desk/lookup/bills/{id}", lookUp, true, h.bill},
		{get, "/desk/lookup/payments/{id}", lookUp, true, h.payment},
	},
		h.files("/desk/today/receivables", watch, h.owingTable),
		h.files("/desk/payouts", watch, h.payoutsTable),
		h.files("/desk/payouts/{id}/lines", watch, h.payoutLinesTable),
		h.files("/desk/bank", watch, h.bankTable),
		h.files("/desk/bank/lines", watch, h.bankLinesTable),
		h.files("/desk/sap", watch, h.sapTable),
		h.files("/desk/sap/documents/{id}/items", watch, h.itemsTable),
		h.files("/desk/exceptions", watch, h.exceptionsTable),
		h.files("/desk/ledger", watch, h.trialTable),
		h.files("/desk/ledger/accounts", watch, h.accountsTable),
		h.files("/desk/ledger/accounts/{path}/lines", watch, h.linesTable),
		h.files("/desk/ledger/accounts/{path}/statement", watch, h.statementTable),
		h.files("/desk/ledger/general", watch, h.generalTable),
		h.files("/desk/ledger/activity", watch, h.activityTable),
		h.files("/desk/ledger/journal", watch, h.journalTable),
		h.files("/desk/ledger/entries/{id}/lines", watch, h.entryTable),
	)
}

// Routes mounts the pages.
func (h *Handler) Routes(r chi.Router) {
	r.Group(func(r chi.Router) {
		r.Use(h.Sessions.Load, h.Site.Text)
		for _, t := range h.routes() {
			guarded := r.With(h.Sessions.RequireStaff(t.roles...))
			if !t.byDepartment {
				guarded = guarded.With(h.wholeCity(t.roles))
			}
			guarded.MethodFunc(t.method, t.pattern, t.do)
		}
	})
}

// wholeCity lets in only whose role holds for every department: the money rooms
// show all of them.
func (h *Handler) wholeCity(roles []string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if m, _ := session.Staff(r.Context()); !hasAny(m, roles, "") {
				h.Site.Fail(w, r, http.StatusForbidden, "")
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// hasAny reports whether a member holds one of the roles for a department (an id),
// or, for "", for the whole city.
func hasAny(m staff.Member, roles []string, departmentID string) bool {
	return slices.ContainsFunc(roles, func(role string) bool { return m.Has(role, departmentID) })
}

// holdsAny reports whether a member holds one of the roles for anything at all.
func holdsAny(m staff.Member, roles []string) bool {
	return slices.ContainsFunc(m.Roles, func(r staff.Role) bool { return slices.Contains(roles, r.Name) })
}

// Viewer is session.Viewer with the desk's navigation: what the reader may open.
func Viewer(r *http.Request) web.Viewer {
	v := session.Viewer(r)
	m, ok := session.Staff(r.Context())
	if !ok || !session.ForStaff(r) {
		return v
	}
	if hasAny(m, watch, "") {
		v.Nav = []web.Link{
			{Href: "/desk/today", Label: "desk.nav.today"},
			{Href: "/desk/exceptions", Label: "desk.nav.exceptions"},
			{Href: "/desk/payouts", Label: "desk.nav.payouts"},
			{Href: "/desk/bank", Label: "desk.nav.bank"},
			{Href: "/desk/sap", Label: "desk.nav.sap"},
			{Href: "/desk/ledger", Label: "desk.nav.ledger"},
			{Href: "/desk/periods", Label: "desk.nav.periods"},
			{Href: "/desk/journal", Label: "desk.nav.journal"},
		}
	}
	if holdsAny(m, lookUp) {
		v.Nav = append(v.Nav, web.Link{Href: "/desk/lookup", Label: "desk.nav.lookup"})
	}
	if hasAny(m, takeDocument, "") {
		v.Nav = append(v.Nav, web.Link{Href: "/desk/documents", Label: "desk.nav.documents"})
	}
	if holdsAny(m, administer) {
		v.Nav = append(v.Nav, web.Link{Href: "/desk/admin", Label: "desk.nav.admin"})
	}
	if hasAny(m, []string{staff.Auditor}, "") {
		v.Nav = append(v.Nav, web.Link{Href: "/desk/audit", Label: "desk.nav.audit"})
	}
	return v
}

// door sends everybody to their first page.
func (h *Handler) door(w http.ResponseWriter, r *http.Request) {
	switch m, _ := session.Staff(r.Context()); {
	case hasAny(m, watch, ""):
		h.see(w, r, "/desk/today")
	case holdsAny(m, lookUp):
		h.see(w, r, "/desk/lookup")
	default: // who administers; without a role nobody is signed in
		h.see(w, r, "/desk/admin")
	}
}

// errForbidden: the member's role is for another department.
var errForbidden = errors.New("the role is for another department")

// fail answers what a page cannot tell: what is missing, what is not allowed, what
// was typed into an address, or the unknown.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, step string, err error) {
	var typed *addressError
	switch {
	case errors.Is(err, reconcile.ErrNotFound), errors.Is(err, payments.ErrNotFound), errors.Is(err, bill.ErrNotFound),
		errors.Is(err, ledger.ErrNotFound), errors.Is(err, ledger.ErrUnknownAccount), errors.Is(err, delegation.ErrNotFound):
		h.Site.Fail(w, r, http.StatusNotFound, "desk.error.not_found")
	case errors.Is(err, errForbidden):
		h.Site.Fail(w, r, http.StatusForbidden, "desk.error.other_department")
	case errors.As(err, &typed):
		h.Site.Fail(w, r, http.StatusBadRequest, typed.key)
	case errors.Is(err, errTooMany), errors.Is(err, report.ErrTooMany):
		h.Site.Fail(w, r, http.StatusUnprocessableEntity, "desk.error.too_many", "Most", maxRows)
	case errors.Is(err, ledger.ErrTooWide), database.TimedOut(err):
		h.Site.Fail(w, r, http.StatusUnprocessableEntity, "desk.error.too_wide")
	case errors.Is(err, ledger.ErrInvalid):
		h.Site.Fail(w, r, http.StatusBadRequest, "desk.error.bad_question")
	case errors.Is(err, table.ErrTooMany):
		h.Site.Fail(w, r, http.StatusUnprocessableEntity, "desk.error.sheet_full")
	case errors.Is(err, context.Canceled):
		h.Log.InfoContext(r.Context(), step, "error", err) // the reader went away
	default:
		h.Log.ErrorContext(r.Context(), step, "error", err)
		h.Site.Fail(w, r, http.StatusInternalServerError, "")
	}
}

// see sends the browser on with GET, and keeps a language asked for.
func (h *Handler) see(w http.ResponseWriter, r *http.Request, path string) {
	if lang := r.URL.Query().Get("lang"); lang != "" && r.Method == http.MethodGet {
		path += "?lang=" + web.Lang(r)
	}
	http.Redirect(w, r, path, http.StatusSeeOther)
}

// snapshot reads in one moment: figures on a page agree with each other.
func (h *Handler) snapshot(ctx context.Context, read func(pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, h.DB, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		// A page that is not there in half a minute is of no use; and plans for these
		// dates, not for any: they decide between a day and a decade.
		if _, err := tx.Exec(ctx, `select set_config('statement_timeout', '30s', true), set_config('plan_cache_mode', 'force_custom_plan', true)`); err != nil {
			return fmt.Errorf("prepare to read: %w", err)
		}
		return read(tx)
	})
}

// day is the city's date.
func (h *Handler) day() clock.Date { return clock.DateOf(h.Now()) }
