// Package department is the demonstration application of three departments: one
// process, one path each (/parking, /permits, /water). It stands in for the
// software that departments already have, and it is to Guichet what they are: a
// relying party, a client of the department API and a receiver of webhooks.
//
//	resident ──page──▶ application ──OpenID Connect──▶ Guichet
//	                        │      ──API v1: bills, checkouts──▶
//	                        ◀──signed webhooks── /hooks/{department}
//
// Each department has its own client, key, webhook secret and cookies (cookies of
// localhost are shared between ports, so they carry its name). Sessions live in
// memory: after a restart the resident signs in again. Events that were received
// are kept in Dir, once for each webhook-id, and survive kill -9.
//
// Faults of the webhook receiver; their target is the department's code:
//
//	error           answers 500
//	slow            answers after the delay
//	refuse          answers 410: the endpoint is gone
//	drop            ends the connection without an answer
//	store-and-fail  keeps the event and then answers 500
package department

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"guichet/simulators/control"
)

// Options of an App.
type Options struct {
	Now func() time.Time
	Dir string // its own directory, made when missing
	Log *slog.Logger

	URL         string // where it is reached, without a slash at the end
	Issuer      string // Guichet's OpenID Provider
	API         string // base of Guichet's department API: /api/v1/… is put behind it
	Departments []Department
	// Fee that the button of the permits department orders; default inspection-extra.
	InspectionFee string
	Links         []control.Link // other pages, for the head of the control page
}

// A Department is one tenant of Guichet. Its redirect URI is {URL}/{Code}/callback,
// its page after signing out {URL}/{Code}, its webhook endpoint {URL}/hooks/{Code}.
type Department struct {
	Code                   string // parking, permits or water
	ClientID, ClientSecret string
	APIKey                 string
	WebhookSecret          string // whsec_…
}

//go:embed templates
var templates embed.FS

// An App is the application. It may be used by many goroutines at once.
type App struct {
	o      Options
	site   *control.Site
	faults *control.Faults
	hooks  map[string]*standardwebhooks.Webhook
	http   *http.Client

	mu       sync.Mutex
	provider *oidc.Provider // after its first use: Guichet may start later
	pending  map[string]pending
	sessions map[string]session
	journal  *control.Journal[event]
	events   []event // in order of arrival
	byID     map[string]int
}

// New opens the events kept in o.Dir.
func New(o Options) (*App, error) {
	if o.InspectionFee == "" {
		o.InspectionFee = "inspection-extra"
	}
	a := &App{
		o: o, pending: map[string]pending{}, sessions: map[string]session{}, byID: map[string]int{},
		hooks: map[string]*standardwebhooks.Webhook{}, http: &http.Client{Timeout: 15 * time.Second},
		site: control.NewSite("Demo departments", o.Links, templates, o.Log),
	}
	if err := a.open(); err != nil {
		return nil, fmt.Errorf("open demo departments: %w", err)
	}
	return a, nil
}

func (a *App) open() error {
	for _, base := range []string{a.o.URL, a.o.Issuer, a.o.API} {
		if u, err := url.Parse(base); err != nil || u.Host == "" || strings.HasSuffix(base, "/") {
			return fmt.Errorf("address %q: want an absolute URL without a slash at the end", base)
		}
	}
	for _, d := range a.o.Departments {
		if _, ok := names[d.Code]; !ok {
			return fmt.Errorf("department %q: want parking, permits or water", d.Code)
		}
		// The library takes a secret that is no base64 of anything for an empty key.
		hook, err := standardwebhooks.NewWebhook(d.WebhookSecret)
		if err != nil || !strings.HasPrefix(d.WebhookSecret, "whsec_") || len(d.WebhookSecret) < 30 {
			return fmt.Errorf("department %s: the webhook secret is not whsec_ and 24 bytes or more in base64", d.Code)
		}
		a.hooks[d.Code] = hook
	}
	if err := os.MkdirAll(a.o.Dir, 0o700); err != nil {
		return err
	}
	var err error
	a.faults, err = control.OpenFaults(a.o.Dir, a.o.Log,
		control.Kind{Name: "error", Does: "answers webhooks of the department 500"},
		control.Kind{Name: "slow", Does: "answers after the delay"},
		control.Kind{Name: "refuse", Does: "answers 410: the endpoint is gone"},
		control.Kind{Name: "drop", Does: "ends the connection without an answer"},
		control.Kind{Name: "store-and-fail", Does: "keeps the event and then answers 500"},
	)
	if err != nil {
		return err
	}
	a.journal, err = control.OpenJournal(filepath.Join(a.o.Dir, "events.jsonl"), a.apply)
	return err
}

// Close closes the files.
func (a *App) Close() error { return a.journal.Close() }

// Handler serves the departments' pages, the webhook receivers, the control page
// and the control API:
//
//	GET /_control/events?department=   {"data": [event…]}, newest first
//	*   /_control/faults               see package control
func (a *App) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, d := range a.o.Departments {
		at := func(pattern string, h func(http.ResponseWriter, *http.Request, Department)) {
			mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
				r.Body = http.MaxBytesReader(w, r.Body, control.MaxBody)
				h(w, r, d)
			})
		}
		at("GET /"+d.Code, a.page)
		at("GET /"+d.Code+"/login", a.login)
		at("GET /"+d.Code+"/callback", a.callback)
		at("POST /"+d.Code+"/logout", a.logout)
		at("POST /"+d.Code+"/pay", a.pay)
		if d.Code == permits {
			at("POST /"+d.Code+"/order", a.order)
		}
		at("POST /hooks/"+d.Code, a.hook)
	}
	mux.HandleFunc("GET /{$}", a.home)
	mux.HandleFunc("GET /_control/events", func(w http.ResponseWriter, r *http.Request) {
		control.JSON(w, http.StatusOK, map[string]any{"data": a.newest(r.URL.Query().Get("department"), 500)})
	})
	a.faults.Routes(mux)
	return a.site.Handler(mux)
}

// home is the control page, in English like those of the simulators.
func (a *App) home(w http.ResponseWriter, r *http.Request) {
	type link struct{ Code, Name string }
	data := struct {
		Departments []link
		Events      []event
		Faults      *control.Faults
	}{Events: a.newest("", 100), Faults: a.faults}
	for _, d := range a.o.Departments {
		data.Departments = append(data.Departments, link{d.Code, names[d.Code]["en"]})
	}
	a.site.Page(w, http.StatusOK, "home", data)
}

// page shows a department to a resident: who is signed in, what is owed, what can
// be ordered.
func (a *App) page(w http.ResponseWriter, r *http.Request, d Department) {
	v := a.view(w, r, d)
	if r.URL.Query().Has("returned") {
		v.Note = v.T["returned"]
	}
	if v.Session != nil {
		bills, err := a.bills(r.Context(), d, v.Session.Subject)
		if err != nil {
			a.o.Log.Warn("list bills", "department", d.Code, "error", err)
			v.Problem = v.T["apiDown"]
		}
		v.Bills, v.Listed = bills, err == nil
	}
	a.site.PageIn(w, http.StatusOK, v.Lang, "department", v)
}

// fail shows the department's page with one plain sentence; the cause is logged.
func (a *App) fail(w http.ResponseWriter, r *http.Request, d Department, status int, key string, cause error) {
	a.o.Log.Warn("demo department", "department", d.Code, "problem", key, "error", cause)
	v := a.view(w, r, d)
	v.Problem = v.T[key]
	a.site.PageIn(w, status, v.Lang, "department", v)
}

// order raises a bill for an inspection of the resident. The form carries a number
// of its own, so a second click orders nothing more.
func (a *App) order(w http.ResponseWriter, r *http.Request, d Department) {
	s, ok := a.session(r, d)
	if !ok {
		http.Redirect(w, r, "/"+d.Code, http.StatusSeeOther)
		return
	}
	number := r.PostFormValue("order")
	if number == "" || len(number) > 50 {
		a.fail(w, r, d, http.StatusBadRequest, "badForm", errors.New("no order number"))
		return
	}
	if err := a.orderInspection(r.Context(), d, s.Subject, number); err != nil {
		a.fail(w, r, d, http.StatusBadGateway, "apiDown", err)
		return
	}
	http.Redirect(w, r, "/"+d.Code, http.StatusSeeOther)
}

// pay opens a checkout for the chosen bills and sends the resident there.
func (a *App) pay(w http.ResponseWriter, r *http.Request, d Department) {
	s, ok := a.session(r, d)
	if !ok {
		http.Redirect(w, r, "/"+d.Code, http.StatusSeeOther)
		return
	}
	if err := r.ParseForm(); err != nil {
		a.fail(w, r, d, http.StatusBadRequest, "badForm", err)
		return
	}
	chosen, number := r.PostForm["bill"], r.PostForm.Get("checkout")
	if len(chosen) == 0 || len(chosen) > 50 || number == "" || len(number) > 50 {
		a.fail(w, r, d, http.StatusBadRequest, "chooseBill", errors.New("no bill chosen"))
		return
	}
	bills, err := a.bills(r.Context(), d, s.Subject)
	if err != nil {
		a.fail(w, r, d, http.StatusBadGateway, "apiDown", err)
		return
	}
	for _, c := range chosen {
		if !slices.ContainsFunc(bills, func(b bill) bool { return b.ID == c }) {
			a.fail(w, r, d, http.StatusForbidden, "notYours", errors.New("a bill of somebody else"))
			return
		}
	}
	to, err := a.checkout(r.Context(), d, chosen, number, a.lang(r))
	if err != nil {
		a.fail(w, r, d, http.StatusBadGateway, "apiDown", err)
		return
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
}

// oidcProvider discovers Guichet's provider once it answers.
func (a *App) oidcProvider(ctx context.Context) (*oidc.Provider, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.provider != nil {
		return a.provider, nil
	}
	p, err := oidc.NewProvider(oidc.ClientContext(ctx, a.http), a.o.Issuer)
	if err != nil {
		return nil, fmt.Errorf("discover the provider: %w", err)
	}
	a.provider = p
	return p, nil
}
