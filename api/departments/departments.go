// Package departments is the JSON API, version 1, for departmental applications:
// bills in, checkouts out, and journal entries of finance systems. Its document is OpenAPI 3.1, made from the types here.
//
//	department's application ──Bearer key──▶ /api/v1/… ──▶ payments, payments/bill
//	finance system ──Bearer journal key──▶ /api/v1/journal-entries ──▶ ledger
//	anybody ──▶ /api/v1/openapi.json
//
// A key sees its own department and nothing else: what belongs to another is 404.
// Finance systems have keys of another kind, which open the journal and nothing else;
// ordinary keys never do. Every POST takes an Idempotency-Key. Errors are RFC 9457 problem documents and
// never repeat a rejected value. No business rule lives here; pages and the
// OpenID endpoints are other rooms.
package departments

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"

	"guichet/department"
	"guichet/internal/audit"
	"guichet/internal/clock"
	"guichet/ledger"
	"guichet/payments"
	"guichet/payments/bill"
)

// Subjects tells which resident a department means by a pairwise subject.
type Subjects interface {
	// Resident returns the opaque resident id, or false when the department knows
	// nobody by that subject.
	Resident(ctx context.Context, departmentID, subject string) (residentID string, ok bool, err error)
}

// Parts is what the API works with.
type Parts struct {
	Departments *department.Service
	Bills       *bill.Service
	Payments    *payments.Service
	Subjects    Subjects
	Books       *ledger.Books
	Journal     *ledger.Queue // records journal entries; somebody runs it
	DB          ledger.Querier
	Today       func() clock.Date // the city's date
	BaseURL     string            // public origin, without a slash at the end
	Log         *slog.Logger
}

const (
	// Prefix is where the API lives.
	Prefix = "/api/v1"
	// DocumentPath is where its OpenAPI document lives. It needs no key.
	DocumentPath = Prefix + "/openapi.json"
)

const (
	maxBody = 1 << 20 // bytes: a bill of 100 lines, all of it escaped, is half of it
	// readTime bounds a slow body. The library's own 5 seconds would also end the
	// request's context while the handler works.
	readTime = time.Minute
)

// API serves the department API.
type API struct {
	p           Parts
	huma        huma.API
	entrySchema *huma.Schema // of a NewEntry
}

// New adds the API's routes to a router, below Prefix.
func New(r chi.Router, p Parts) *API {
	house()
	a := &API{p: p}
	r.Route(Prefix, func(r chi.Router) {
		// Errors of the router itself are problem documents too.
		r.NotFound(func(w http.ResponseWriter, _ *http.Request) {
			writeProblem(w, http.StatusNotFound, "there is no such resource")
		})
		r.MethodNotAllowed(notAllowed(r))
		r.Use(plain)
		cfg := huma.DefaultConfig("Guichet department API", "1.0.0")
		cfg.CreateHooks, cfg.OpenAPIPath, cfg.SchemasPath, cfg.DocsPath = nil, "", "", ""
		format := huma.Format{Marshal: writeJSON, Unmarshal: readJSON}
		cfg.Formats = map[string]huma.Format{"application/json": format, "json": format, jsonLines: {Unmarshal: readLines}} // the second for …+json: problems
		cfg.RejectUnknownQueryParameters = true
		cfg.Info.Description = about
		cfg.Servers = []*huma.Server{{URL: p.BaseURL + Prefix}}
		cfg.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
			keyScheme:     {Type: "http", Scheme: "bearer", Description: "An API key of the department. It sees that department only."},
			journalScheme: {Type: "http", Scheme: "bearer", Description: "A journal key of a finance system. It books on the accounts it was given, and sees what was uploaded to them."},
		}
		cfg.Security = []map[string][]string{{keyScheme: {}}}
		a.huma = humachi.New(r, cfg)
		a.huma.UseMiddleware(a.authenticate, a.readable)
		a.routes()
		a.finish()
		r.Get(strings.TrimPrefix(DocumentPath, Prefix), a.serveDocument())
	})
	return a
}

// house sets what the library keeps in package variables.
var house = sync.OnceFunc(func() {
	huma.NewError = problem
	huma.ErrorFormatter = quoteless
	huma.ValidateStrictCasing = true
	huma.DefaultArrayNullable = false
})

func (a *API) routes() {
	huma.Register(a.huma, post("create-bill", "/bills", "Create a bill",
		"It is open at once: in the books, and payable by its owner or, with the guest key, by whoever has the notice.",
		http.StatusCreated), a.createBill)
	huma.Register(a.huma, get("list-bills", "/bills", "List bills",
		"The department's own, the oldest first, a page at a time."), a.listBills)
	huma.Register(a.huma, get("get-bill", "/bills/{id}", "Read a bill",
		"With what is due of it today."), a.getBill)
	huma.Register(a.huma, post("cancel-bill", "/bills/{id}/cancel", "Withdraw a bill",
		"One that nobody has paid or is paying. It is reversed in the books and stays readable.", http.StatusOK), a.cancelBill)
	huma.Register(a.huma, post("create-checkout", "/checkouts", "Open a checkout",
		"For the department's bills that one payer pays together. It lives for a day; what is due is worked out when the payer pays.",
		http.StatusCreated), a.createCheckout)
	huma.Register(a.huma, get("get-checkout", "/checkouts/{id}", "Read a checkout",
		"Ask here, or wait for the events; that the payer came back proves nothing."), a.getCheckout)
	a.journalRoutes()
}

func get(opID, path, summary, description string) huma.Operation {
	return huma.Operation{
		OperationID: opID, Method: http.MethodGet, Path: path, Summary: summary, Description: description, Tags: tags(path),
		Errors: []int{401, 403, 404, 422, 500},
	}
}

func post(opID, path, summary, description string, status int) huma.Operation {
	return huma.Operation{
		OperationID: opID, Method: http.MethodPost, Path: path, Summary: summary, Description: description, Tags: tags(path),
		DefaultStatus: status, MaxBodyBytes: maxBody, BodyReadTimeout: readTime, Errors: []int{400, 401, 403, 404, 408, 409, 413, 415, 422, 500},
	}
}

func tags(path string) []string { return []string{strings.Split(path, "/")[1]} }

// The kinds of keys, as the document names them.
const (
	keyScheme     = "key"
	journalScheme = "journal-key"
)

type callerKey struct{}

// authenticate lets nobody pass without a department's key.
func (a *API) authenticate(ctx huma.Context, next func(huma.Context)) {
	scheme, key, ok := strings.Cut(ctx.Header("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		ctx.SetHeader("WWW-Authenticate", `Bearer realm="guichet"`)
		a.refuse(ctx, http.StatusUnauthorized, "an API key is needed: Authorization: Bearer guichet_…")
		return
	}
	c, err := a.p.Departments.Authenticate(ctx.Context(), strings.TrimSpace(key))
	if errors.Is(err, department.ErrKey) {
		ctx.SetHeader("WWW-Authenticate", `Bearer realm="guichet", error="invalid_token"`)
		a.refuse(ctx, http.StatusUnauthorized, "the API key is unknown or revoked")
		return
	}
	if err != nil {
		a.p.Log.ErrorContext(ctx.Context(), "authenticate department", "error", err)
		a.refuse(ctx, http.StatusInternalServerError, "something went wrong on our side; try again")
		return
	}
	if c.Journal != forJournal(ctx.Operation()) {
		a.refuse(ctx, http.StatusForbidden, "the API key is not for this")
		return
	}
	o := audit.From(ctx.Context())
	o.Actor, o.ActorKind, o.Channel = "department:"+c.Code, "department", "department"
	next(huma.WithContext(ctx, context.WithValue(audit.With(ctx.Context(), o), callerKey{}, c)))
}

// forJournal tells operations that take journal keys by what the document says of them.
func forJournal(op *huma.Operation) bool {
	return slices.ContainsFunc(op.Security, func(s map[string][]string) bool { _, ok := s[journalScheme]; return ok })
}

func (a *API) refuse(ctx huma.Context, status int, detail string) {
	if err := huma.WriteErr(a.huma, ctx, status, detail); err != nil {
		a.p.Log.ErrorContext(ctx.Context(), "write problem", "error", err)
	}
}

// caller is the department whose key was shown.
func caller(ctx context.Context) department.Caller {
	return ctx.Value(callerKey{}).(department.Caller) //nolint:forcetypeassert // no handler runs without authenticate
}

// plain makes answers JSON, whatever is asked for, and nobody's to keep.
func plain(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		r.Header.Del("Accept")
		next.ServeHTTP(w, r)
	})
}

// notAllowed answers 405 with the methods that the path has (RFC 9110, 15.5.6).
func notAllowed(routes chi.Routes) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var allowed []string
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			if routes.Match(chi.NewRouteContext(), method, chi.RouteContext(r.Context()).RoutePath) {
				allowed = append(allowed, method)
			}
		}
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		writeProblem(w, http.StatusMethodNotAllowed, "the resource does not know this method")
	}
}
