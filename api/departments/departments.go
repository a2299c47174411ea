// Package departments is the JSON API, version 1, for departmental applications:
// bills in, checkouts out. Its document is OpenAPI 3.1, made from the types here.
//
//	department's application ──Bearer key──▶ /api/v1/… ──▶ payments, payments/bill
//
// A key sees its own department and nothing else: what belongs to another is 404.
// Every POST takes an Idempotency-Key. Errors are RFC 9457 problem documents and
// never repeat a rejected value. No business rule lives here; pages and the
// OpenID endpoints are other rooms.
package departments

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"

	"guichet/department"
	"guichet/internal/audit"
	"guichet/internal/clock"
	"guichet/payments"
	"guichet/payments/bill"
	"guichet/payments/fee"
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
	Today       func() clock.Date // the city's date
	BaseURL     string            // public origin, without a slash at the end
	Log         *slog.Logger
}

// Prefix is where the API lives.
const Prefix = "/api/v1"

// maxBody bounds a request: a bill of 100 lines is far below.
const maxBody = 1 << 20

// API serves the department API.
type API struct {
	p    Parts
	huma huma.API
}

// New adds the API's routes to a router, below Prefix.
func New(r chi.Router, p Parts) *API {
	huma.NewError = problem
	a := &API{p: p}
	r.Route(Prefix, func(r chi.Router) {
		// Errors of the router itself are problem documents too.
		r.NotFound(func(w http.ResponseWriter, _ *http.Request) { writeProblem(w, http.StatusNotFound, "no such resource") })
		r.MethodNotAllowed(func(w http.ResponseWriter, _ *http.Request) {
			writeProblem(w, http.StatusMethodNotAllowed, "the resource does not know this method")
		})
		r.Use(noStore)
		cfg := huma.DefaultConfig("Guichet department API", "1.0.0")
		cfg.CreateHooks, cfg.SchemasPath, cfg.DocsPath = nil, "", ""
		cfg.Info.Description = "Bills, checkouts and receipts for departmental applications. Amounts are integers of cents, Canadian dollars."
		cfg.Servers = []*huma.Server{{URL: p.BaseURL + Prefix}}
		cfg.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
			"key": {Type: "http", Scheme: "bearer", Description: "An API key of the department."},
		}
		cfg.Security = []map[string][]string{{"key": {}}}
		a.huma = humachi.New(r, cfg)
		a.huma.UseMiddleware(a.authenticate)
		a.routes()
	})
	return a
}

// Document is the OpenAPI document, for the reference pages.
func (a *API) Document() *huma.OpenAPI { return a.huma.OpenAPI() }

func (a *API) routes() {
	huma.Register(a.huma, post("create-bill", "/bills", "Create a bill", http.StatusCreated), a.createBill)
	huma.Register(a.huma, get("list-bills", "/bills", "List bills, the oldest first"), a.listBills)
	huma.Register(a.huma, get("get-bill", "/bills/{id}", "Read a bill"), a.getBill)
	huma.Register(a.huma, post("cancel-bill", "/bills/{id}/cancel", "Withdraw a bill nobody has paid", http.StatusOK), a.cancelBill)
	huma.Register(a.huma, post("create-checkout", "/checkouts", "Open a checkout for some bills", http.StatusCreated), a.createCheckout)
	huma.Register(a.huma, get("get-checkout", "/checkouts/{id}", "Read a checkout"), a.getCheckout)
}

func get(opID, path, summary string) huma.Operation {
	return huma.Operation{OperationID: opID, Method: http.MethodGet, Path: path, Summary: summary, Errors: []int{401, 404, 422, 500}}
}

func post(opID, path, summary string, status int) huma.Operation {
	return huma.Operation{OperationID: opID, Method: http.MethodPost, Path: path, Summary: summary, DefaultStatus: status,
		MaxBodyBytes: maxBody, Errors: []int{401, 404, 409, 413, 415, 422, 500}}
}

type departmentKey struct{}

// authenticate lets nobody pass without a department's key.
func (a *API) authenticate(ctx huma.Context, next func(huma.Context)) {
	key, ok := strings.CutPrefix(ctx.Header("Authorization"), "Bearer ")
	if !ok {
		ctx.SetHeader("WWW-Authenticate", `Bearer realm="guichet"`)
		a.refuse(ctx, http.StatusUnauthorized, "an API key is needed: Authorization: Bearer guichet_…")
		return
	}
	d, err := a.p.Departments.Authenticate(ctx.Context(), key)
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
	o := audit.From(ctx.Context())
	o.Actor, o.ActorKind, o.Channel = "department:"+d.Code, "department", "department"
	ctx = huma.WithContext(ctx, audit.With(ctx.Context(), o))
	next(huma.WithValue(ctx, departmentKey{}, d))
}

func (a *API) refuse(ctx huma.Context, status int, detail string) {
	if err := huma.WriteErr(a.huma, ctx, status, detail); err != nil {
		a.p.Log.ErrorContext(ctx.Context(), "write problem", "error", err)
	}
}

// caller is the department whose key was shown.
func caller(ctx context.Context) department.Department {
	return ctx.Value(departmentKey{}).(department.Department) //nolint:forcetypeassert // no handler runs without authenticate
}

func noStore(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// problemOf turns an error of the rooms below into an answer. What it does not
// know is 500 without detail; the cause goes to the log.
func (a *API) problemOf(ctx context.Context, err error) error {
	var (
		move    *bill.TransitionError
		status  int
		message string
	)
	switch {
	case errors.Is(err, bill.ErrNotFound), errors.Is(err, payments.ErrNotFound):
		status, message = http.StatusNotFound, "the department has no such object"
	case errors.Is(err, fee.ErrNotFound):
		status, message = http.StatusUnprocessableEntity, "a line names a fee that the department does not have on the date of issue"
	case errors.Is(err, bill.ErrInvalid), errors.Is(err, fee.ErrPrice), errors.Is(err, payments.ErrEmpty):
		status, message = http.StatusUnprocessableEntity, err.Error()
	case errors.Is(err, bill.ErrConflict), errors.Is(err, payments.ErrConflict):
		status, message = http.StatusConflict, "the Idempotency-Key was used before with another body"
	case errors.Is(err, bill.ErrReference):
		status, message = http.StatusConflict, "the department has a bill with this reference already"
	case errors.Is(err, bill.ErrBeingPaid):
		status, message = http.StatusConflict, "the bill is being paid right now"
	case errors.As(err, &move):
		status, message = http.StatusConflict, move.Error()
	default:
		a.p.Log.ErrorContext(ctx, "department API", "error", err)
		status, message = http.StatusInternalServerError, "something went wrong on our side; try again with the same Idempotency-Key"
	}
	return huma.NewError(status, message)
}
