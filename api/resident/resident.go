// Package resident serves the pages on which people pay: what they owe, a single
// notice as a guest, the checkout, the receipt and its verification.
//
//	/ , /pay, /c/{token} ──▶ /checkout/{id} ──▶ processor's page
//	                              │                   │
//	/receipt/{id} , PDF ◀── /checkout/{id}/return ◀───┘   asks payments, never the address
//	/verify/{code}: anybody, nothing personal
//	/acting: who may act for whom; in whose name these pages show and pay bills
//
// Every page works without JavaScript. Nothing personal is shown before a guest's
// notice number and second factor fit each other. What may be seen of a checkout,
// payments decides by the viewer: the resident signed in, or the browser's guest
// cookie. Money, prices and states are decided there too; here is only their telling.
package resident

import (
	"context"
	"embed"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"guichet/api/document"
	"guichet/api/session"
	"guichet/api/web"
	"guichet/department"
	"guichet/identity"
	"guichet/identity/delegation"
	"guichet/internal/clock"
	"guichet/internal/id"
	"guichet/ledger"
	"guichet/payments"
	"guichet/payments/bill"
)

// Options are what a Handler works with.
type Options struct {
	DB       *pgxpool.Pool
	Payments *payments.Service
	Bills    *bill.Service
	Books    *ledger.Books
	People   *identity.Service
	Acting   *delegation.Service
	// Departments are listed where somebody chooses in which ones another may act.
	Departments *department.Service
	Sessions    *session.Sessions
	Site        *web.Site
	Documents   *document.Printer
	Now         func() time.Time
	Log         *slog.Logger
	Limits      Limits
}

// Limits are the brakes on guessing at notices. Zero values take the defaults. A
// stranger who reads a notice on a windshield exhausts it for his own network only.
type Limits struct {
	Notice  identity.Limit // tries at one notice number from one network
	Total   identity.Limit // tries at one notice number
	Network identity.Limit // tries from one network
}

// A Handler serves the pages. It may be used by many goroutines at once.
type Handler struct{ Options }

//go:embed templates locale
var files embed.FS

// New registers the pages with the site.
func New(o Options) *Handler {
	if o.Limits.Notice == (identity.Limit{}) {
		o.Limits.Notice = identity.Limit{Burst: 10, Per: time.Hour}
	}
	if o.Limits.Total == (identity.Limit{}) {
		o.Limits.Total = identity.Limit{Burst: 100, Per: time.Hour}
	}
	if o.Limits.Network == (identity.Limit{}) {
		o.Limits.Network = identity.Limit{Burst: 30, Per: 15 * time.Minute}
	}
	o.Site.Register("resident", files)
	return &Handler{o}
}

// Routes mounts the pages.
func (h *Handler) Routes(r chi.Router) {
	r.Group(func(r chi.Router) {
		r.Use(h.Sessions.Load, h.Site.Text)
		h.actingRoutes(r.With(session.RequireResident))
		r.Get("/verify", h.verifyPage)
		r.Get("/verify/{code}", h.verify)
		r = r.With(h.inContext)
		r.Get("/", h.home)
		r.Get("/pay", h.findPage)
		r.Post("/pay", h.find)
		r.Get("/c/{token}", h.enter)
		r.Post("/checkout", h.open)
		r.Get("/checkout", h.toHome)
		r.Get("/checkout/{id}", h.review)
		r.Post("/checkout/{id}/pay", h.pay)
		r.Get("/checkout/{id}/pay", h.toCheckout)
		r.Post("/checkout/{id}/cancel", h.cancel)
		r.Get("/checkout/{id}/cancel", h.toCheckout)
		r.Get("/checkout/{id}/return", h.outcome)
		r.Get("/receipt/{id}", h.receipt)
		r.Get("/receipt/{id}/pdf", h.receiptPDF)
		r.Get("/receipt/{id}/proof", h.proof)
	})
}

// today is the city's date, on which everything due is worked out.
func (h *Handler) today() clock.Date { return clock.DateOf(h.Now()) }

// viewer is who asks for a checkout or a receipt: the resident, or the one the resident
// acts for, and the browser's guest.
func (h *Handler) viewer(r *http.Request) payments.Viewer {
	v := payer(r.Context())
	if secret := h.Sessions.GuestToken(r); secret != "" {
		v.GuestHash = id.Hash(secret)
	}
	return v
}

// guest is viewer for somebody about to be given access: without a guest cookie the
// browser gets one.
func (h *Handler) guest(w http.ResponseWriter, r *http.Request) payments.Viewer {
	v := h.viewer(r)
	if v.GuestHash == nil {
		secret := id.Secret()
		h.Sessions.SetGuest(w, secret)
		v.GuestHash = id.Hash(secret)
	}
	return v
}

// owner is whose a new checkout is: the resident's alone, so that it is out of reach
// when they have signed out, else the guest's.
func (h *Handler) owner(w http.ResponseWriter, r *http.Request) payments.Viewer {
	if v := payer(r.Context()); v.ResidentID != "" {
		return v
	}
	return h.guest(w, r)
}

// fail answers what a page cannot tell: what is missing, or the unknown.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, step string, err error) {
	var over *payments.LimitError
	switch {
	case errors.As(err, &over):
		h.aboveLimit(w, r, over)
	case errors.Is(err, errNoRight):
		h.Site.Fail(w, r, http.StatusForbidden, "resident.acting.no_right")
	case errors.Is(err, payments.ErrNotFound), errors.Is(err, bill.ErrNotFound), errors.Is(err, delegation.ErrNotFound):
		h.Site.Fail(w, r, http.StatusNotFound, "resident.error.not_found")
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

func (h *Handler) toHome(w http.ResponseWriter, r *http.Request) { h.see(w, r, "/") }

// toCheckout serves the addresses of a checkout's forms when they are opened, not
// posted: by the language switch, or after the back button.
func (h *Handler) toCheckout(w http.ResponseWriter, r *http.Request) {
	h.see(w, r, "/checkout/"+chi.URLParam(r, "id"))
}
