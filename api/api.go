// Package api puts the HTTP rooms together: which handler answers which path.
//
//	/                resident pages, sign-in        api/resident, api/oidc
//	/account         the resident's own account     api/account
//	/oidc, /.well-known   the OpenID Provider        api/oidc
//	/api/v1          departments' JSON API          api/departments
//	/desk            staff pages                    api/desk
//	/desk/journal    journal entries by hand        api/journal
//	/desk/admin      administration and audit       api/admin
//	/hooks/processor the card processor's webhooks  here
//	/developers      the API's reference            here
//	/ledger          the books' signed heads        here
//
// What holds for every request (ids, logs, limits, headers) is internal/server's.
// Rules of the business live in the rooms below.
package api

import (
	"errors"
	"io"
	"log/slog"
	"net/http"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"guichet/api/account"
	"guichet/api/admin"
	"guichet/api/departments"
	"guichet/api/desk"
	"guichet/api/journal"
	"guichet/api/oidc"
	"guichet/api/resident"
	"guichet/api/session"
	"guichet/api/web"
	"guichet/ledger"
	"guichet/payments"
)

// Parts are the rooms behind the paths.
type Parts struct {
	Site        *web.Site
	Sessions    *session.Sessions
	OIDC        *oidc.Handler
	Account     *account.Handler
	Resident    *resident.Handler
	Desk        *desk.Handler
	Admin       *admin.Handler
	Journal     *journal.Handler
	Departments departments.Parts
	Payments    *payments.Service
	DB          ledger.Querier
	Books       *ledger.Books
	Log         *slog.Logger
}

// ProcessorHook is where the card processor posts its webhooks.
const ProcessorHook = "/hooks/processor"

// CrossSite lists the routes that other sites' programs may post to: each carries
// its own proof.
func CrossSite() []string {
	return append(oidc.CrossSite(), "POST "+ProcessorHook, departments.Prefix+"/")
}

// Bodies are the routes whose bodies may be larger than others, with their bytes.
func Bodies() map[string]int64 {
	return map[string]int64{
		"POST " + departments.BatchPath: departments.BatchBody, "POST /desk/documents/new": desk.MaxDocument, journal.FilesPattern: journal.FilesBody,
	}
}

// New returns the handler of everything public.
func New(p Parts) http.Handler {
	r := chi.NewRouter()
	r.Use(middleware.GetHead) // HEAD is GET without the body (RFC 9110, section 9.3.2)
	r.Handle("/static/*", p.Site.Static())
	p.OIDC.Routes(r)
	p.Account.Routes(r)
	p.Resident.Routes(r)
	p.Desk.Routes(r)
	p.Journal.Routes(r)
	p.Admin.Routes(r)
	document := departments.New(r, p.Departments).Document()
	r.With(p.Sessions.Load).Get("/developers", reference(p.Site, document))
	books := proofs{p.Books, p.DB, p.Log}
	r.Get("/ledger/head", books.head)
	r.Get("/ledger/key", books.key)
	r.Get("/ledger/consistency", books.consistency)
	r.Post(ProcessorHook, processorHook(p.Payments, p.Log))
	r.NotFound(p.Sessions.Load(http.HandlerFunc(p.Site.NotFound)).ServeHTTP)
	r.MethodNotAllowed(p.Site.MethodNotAllowed)
	return r
}

// processorHook keeps a webhook and answers. A refusal says no more than that:
// whoever forges needs no help, and the log has the reason.
func processorHook(s *payments.Service, log *slog.Logger) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, "body is too large or was cut", http.StatusBadRequest)
			return
		}
		switch err := s.Receive(r.Context(), body, r.Header.Get("Stripe-Signature")); {
		case err == nil:
			w.WriteHeader(http.StatusOK)
		case errors.Is(err, payments.ErrSignature), errors.Is(err, payments.ErrStale), errors.Is(err, payments.ErrFuture), errors.Is(err, payments.ErrMalformed):
			log.WarnContext(r.Context(), "processor webhook refused", "error", err)
			http.Error(w, "refused", http.StatusBadRequest)
		default:
			log.ErrorContext(r.Context(), "processor webhook", "error", err)
			http.Error(w, "not kept, send it again", http.StatusInternalServerError)
		}
	}
}
