// Package journal serves the pages on which finance writes journal entries by hand:
// a maker drafts, a checker looks at what it would do and approves or refuses.
//
//	/desk/journal ──▶ lists ─▶ a draft ─▶ edit, files, lines by CSV ─▶ submit
//	                              │
//	                              └─▶ decide (another person, freshly proved) ─▶ posted
//
// What a step refuses is ledger/manual's. Denied by default: a route is in one table with
// its roles, which must hold for the whole city. Everything works without JavaScript;
// sums are checked whenever a draft is saved.
package journal

import (
	"context"
	"embed"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"guichet/api/session"
	"guichet/api/web"
	"guichet/identity/staff"
	"guichet/internal/attachment"
	"guichet/internal/clock"
	"guichet/internal/money"
	"guichet/ledger"
	"guichet/ledger/manual"
)

// Options are what a Handler works with.
type Options struct {
	DB       *pgxpool.Pool
	Books    *ledger.Books
	Manual   *manual.Service
	Staff    *staff.Service
	Sessions *session.Sessions
	Site     *web.Site
	Now      func() time.Time
	Log      *slog.Logger
}

// A Handler serves the pages. It may be used by many goroutines at once.
type Handler struct{ Options }

//go:embed templates locale
var files embed.FS

// New registers the pages with the site.
func New(o Options) *Handler {
	o.Site.Register("journal", files)
	return &Handler{o}
}

// Who may do what.
var (
	watch    = []string{staff.FinanceClerk, staff.FinanceApprover, staff.Auditor}
	makers   = []string{staff.FinanceClerk, staff.FinanceApprover}
	checkers = []string{staff.FinanceApprover}
)

// A route is one address with the roles that may use it.
type route struct {
	method, pattern string
	roles           []string
	fresh           bool // after a fresh proof at the directory
	do              http.HandlerFunc
}

// FilesPattern is the route that takes files, of up to FilesBody bytes with what is around them.
const (
	FilesPattern = "POST /desk/journal/{id}/files"
	FilesBody    = attachment.MaxSize + 64<<10
)

// routes is everything there is.
func (h *Handler) routes() []route {
	const get, post = http.MethodGet, http.MethodPost
	return []route{
		{get, "/desk/journal", watch, false, h.list},
		{get, "/desk/journal/new", makers, false, h.newPage},
		{post, "/desk/journal/new", makers, false, h.create},
		{get, "/desk/journal/{id}", watch, false, h.paper},
		{get, "/desk/journal/{id}/edit", makers, false, h.editPage},
		{post, "/desk/journal/{id}/edit", makers, false, h.save},
		{post, "/desk/journal/{id}/lines", makers, false, h.lines},
		{post, "/desk/journal/{id}/files", makers, false, h.attach},
		{post, "/desk/journal/{id}/detach", makers, false, h.detach},
		{get, "/desk/journal/{id}/files/{file}", watch, false, h.file},
		{post, "/desk/journal/{id}/submit", makers, false, h.submit},
		{post, "/desk/journal/{id}/back", makers, false, h.takeBack},
		{post, "/desk/journal/{id}/withdraw", makers, false, h.withdraw},
		{get, "/desk/journal/{id}/decide", checkers, true, h.decidePage},
		{post, "/desk/journal/{id}/decide", checkers, true, h.decide},
		{get, "/desk/journal/{id}/{deed}", watch, false, h.toPaper},
	}
}

// Routes mounts the pages.
func (h *Handler) Routes(r chi.Router) {
	r.Group(func(r chi.Router) {
		r.Use(h.Sessions.Load, h.Site.Text)
		for _, t := range h.routes() {
			guarded := r.With(h.Sessions.RequireStaff(t.roles...), h.wholeCity(t.roles))
			if t.fresh {
				guarded = guarded.With(session.RequireFresh)
			}
			guarded.MethodFunc(t.method, t.pattern, t.do)
		}
	})
}

// wholeCity lets in only whose role holds for every department.
func (h *Handler) wholeCity(roles []string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if m, _ := session.Staff(r.Context()); !hasAny(m, roles) {
				h.Site.Fail(w, r, http.StatusForbidden, "")
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

func hasAny(m staff.Member, roles []string) bool {
	return slices.ContainsFunc(roles, func(role string) bool { return m.Has(role, "") })
}

// fail answers what a page cannot tell.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, step string, err error) {
	switch {
	case errors.Is(err, manual.ErrNotFound), errors.Is(err, ledger.ErrNotFound), errors.Is(err, attachment.ErrNotFound):
		h.Site.Fail(w, r, http.StatusNotFound, "journal.missing")
	case errors.Is(err, context.Canceled):
		h.Log.InfoContext(r.Context(), step, "error", err) // the reader went away
	default:
		h.Log.ErrorContext(r.Context(), step, "error", err)
		h.Site.Fail(w, r, http.StatusInternalServerError, "")
	}
}

// see leads to a page with GET, and keeps a language asked for.
func (h *Handler) see(w http.ResponseWriter, r *http.Request, path string) {
	if lang := r.URL.Query().Get("lang"); lang != "" {
		path += "?lang=" + web.Lang(r)
	}
	http.Redirect(w, r, path, http.StatusSeeOther)
}

// toPaper serves the addresses of a draft's forms when they are opened, not posted: by
// the language switch, or after signing in again.
func (h *Handler) toPaper(w http.ResponseWriter, r *http.Request) {
	h.see(w, r, "/desk/journal/"+chi.URLParam(r, "id"))
}

// A view is what every page can ask.
type view struct {
	Lang   string
	Today  clock.Date
	Member staff.Member
	names  map[string]string // of members, by id
}

func (h *Handler) view(r *http.Request) view {
	m, _ := session.Staff(r.Context())
	return view{Lang: web.Lang(r), Today: clock.DateOf(h.Now()), Member: m}
}

// Who is the name of a member, or the id of one who is not known any more.
func (v view) Who(memberID string) string {
	if name, ok := v.names[memberID]; ok {
		return name
	}
	return memberID
}

// MayMake reports whether the reader may write drafts.
func (v view) MayMake() bool { return hasAny(v.Member, makers) }

// A tag is a state as a coloured word.
type tag struct {
	Word web.Message
	Tone string
}

// Tag is the tag of a state.
func (view) Tag(s manual.State) tag {
	return tag{web.Say("journal.state." + string(s)), map[manual.State]string{manual.Submitted: "warn", manual.Posted: "good", manual.Refused: "bad"}[s]}
}

// Reason is the word for a reason.
func (view) Reason(reason manual.Reason) web.Message {
	if !slices.Contains(manual.Reasons(), reason) {
		return web.Say("journal.reason_none")
	}
	return web.Say("journal.reason_" + string(reason))
}

// Name is an account's name in the reader's language.
func (v view) Name(a ledger.Account) string {
	if v.Lang == "fr" {
		return a.NameFR
	}
	return a.NameEN
}

// A listPage is one of the lists of drafts.
type listPage struct {
	view
	Tabs  []listTab
	Rows  []listRow
	Pages web.Pagination
	Which string
}

type listTab struct {
	Href  string
	Label web.Message
	Count int
	Here  bool
}

type listRow struct {
	manual.Paper
	Sum  money.Amount
	Days int // since the last step
}

// rows of a page of a list.
const pageRows = 50

// which lists there are, and what is in them.
var lists = []string{"mine", "submitted", "posted", "refused", "withdrawn"}

func (h *Handler) list(w http.ResponseWriter, r *http.Request) {
	p := listPage{view: h.view(r), Which: r.URL.Query().Get("list")}
	if !slices.Contains(lists, p.Which) {
		p.Which = "mine"
		if !p.MayMake() {
			p.Which = "submitted"
		}
	}
	counts, err := h.Manual.Counts(r.Context(), h.DB, p.Member.ID)
	if err != nil {
		h.fail(w, r, "count drafts", err)
		return
	}
	for _, name := range lists {
		t := listTab{Href: "/desk/journal?list=" + name, Label: web.Say("journal.list." + name), Count: counts[manual.State(name)], Here: name == p.Which}
		if name == "mine" {
			t.Count = counts[manual.Draft]
		}
		p.Tabs = append(p.Tabs, t)
	}
	if err := h.rows(r, &p); err != nil {
		h.fail(w, r, "list drafts", err)
		return
	}
	h.Site.Page(w, r, http.StatusOK, "journal/list", p)
}

func (h *Handler) rows(r *http.Request, p *listPage) error {
	f := manual.Filter{State: manual.State(p.Which), Limit: pageRows + 1}
	if p.Which == "mine" {
		f.State, f.Maker = "", p.Member.ID
	}
	page := pageNumber(r)
	f.Offset = (page - 1) * pageRows
	papers, err := h.Manual.List(r.Context(), h.DB, f)
	if err != nil {
		return err
	}
	p.Pages = web.Pagination{Query: map[string][]string{"list": {p.Which}}, Page: page, Next: len(papers) > pageRows}
	var makers []string
	for _, paper := range papers[:min(len(papers), pageRows)] {
		debits, _ := paper.Content.Totals()
		days := int(p.Today.Time().Sub(clock.DateOf(paper.ChangedAt).Time()) / (24 * time.Hour))
		p.Rows = append(p.Rows, listRow{paper, debits, days})
		makers = append(makers, paper.Maker)
	}
	p.names, err = h.Staff.Names(r.Context(), makers)
	return err
}
