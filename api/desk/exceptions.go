package desk

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-chi/chi/v5"
	"github.com/jackc/pgx/v5"

	"guichet/api/web"
	"guichet/internal/audit"
	"guichet/internal/clock"
	"guichet/internal/table"
	"guichet/ledger"
	"guichet/payments"
	"guichet/reconcile"
)

// exceptionsPage lists what waits for a person, or what did.
type exceptionsPage struct {
	view
	Rows   []exceptionLine
	Pages  web.Pagination
	Closed bool
	Kinds  []option
	Ages   []option
	Owners []option
}

// exceptionLine is an exception in a list.
type exceptionLine struct {
	reconcile.Exception
	Object reconcile.Object
	Days   int // open for
}

// Href is where the object of an exception is shown; empty: nowhere.
func (e exceptionLine) Href() string {
	switch e.ObjectType {
	case "transaction":
		return objectHref("payout", e.Object.In)
	case "credit":
		return objectHref("payment", e.Object.In)
	}
	return objectHref(e.ObjectType, e.ObjectID)
}

func (e exceptionLine) State() string {
	if e.ClosedAt.IsZero() {
		return "open"
	}
	return "closed"
}

// linesOf adds to exceptions what people call their objects, and their age.
func (h *Handler) linesOf(ctx context.Context, q reconcile.Querier, list ...reconcile.Exception) ([]exceptionLine, error) {
	objects, err := reconcile.ObjectsOf(ctx, q, list)
	if err != nil {
		return nil, err
	}
	lines := make([]exceptionLine, len(list))
	for i, e := range list {
		until := h.day()
		if !e.ClosedAt.IsZero() {
			until = clock.DateOf(e.ClosedAt)
		}
		lines[i] = exceptionLine{e, objects[[2]string{e.ObjectType, e.ObjectID}], int(until.Time().Sub(e.OpenedOn.Time()) / (24 * time.Hour))}
	}
	return lines, nil
}

// objectHref is where an object of the money rooms is shown; empty: nowhere.
func objectHref(objectType, objectID string) string {
	at, ok := map[string]string{
		"payout": "/desk/payouts/", "bank-line": "/desk/bank/lines/", "statement": "/desk/bank/statements/", "entry": "/desk/ledger/entries/",
		"sap-batch": "/desk/sap/batches/", "sap-document": "/desk/sap/documents/", "exception": "/desk/exceptions/", "manual-entry": "/desk/journal/",
		"bill": "/desk/lookup/bills/", "payment": "/desk/lookup/payments/",
	}[objectType]
	if !ok {
		return ""
	}
	return at + objectID
}

func exceptionFilter(v view) reconcile.ExceptionFilter {
	f := reconcile.ExceptionFilter{
		Today: v.Today, Closed: v.query.Get("state") == "closed",
		Kind: reconcile.Kind(v.query.Get("kind")), Age: reconcile.Age(v.query.Get("age")),
	}
	if v.query.Get("owner") == "me" {
		f.Owner = v.Member.ID
	}
	return f
}

func (h *Handler) exceptions(w http.ResponseWriter, r *http.Request) {
	p := exceptionsPage{view: h.view(r)}
	f := exceptionFilter(p.view)
	p.Closed = f.Closed
	p.Kinds, p.Ages, p.Owners = choices(p.view, "kind", "kind", reconcile.Kinds()), choices(p.view, "age", "age", reconcile.Ages()), choices(p.view, "owner", "filter", []string{"me"})
	list, err := reconcile.ListExceptions(r.Context(), h.DB, f, p.page(pageRows))
	if err != nil {
		h.fail(w, r, "list exceptions", err)
		return
	}
	list, p.Pages = cut(p.view, list, pageRows)
	if p.Rows, err = h.linesOf(r.Context(), h.DB, list...); err == nil {
		err = h.who(r.Context(), &p.view, ownersOf(list)...)
	}
	if err != nil {
		h.fail(w, r, "list exceptions", err)
		return
	}
	h.Site.Page(w, r, http.StatusOK, "desk/exceptions", p)
}

func (h *Handler) exceptionsTable(ctx context.Context, v view, _ *http.Request) (table.Table, error) {
	list, err := reconcile.ListExceptions(ctx, h.DB, exceptionFilter(v), wholeList)
	if err != nil {
		return table.Table{}, err
	}
	lines, err := h.linesOf(ctx, h.DB, list...)
	if err == nil {
		err = h.who(ctx, &v, ownersOf(list)...)
	}
	if err != nil {
		return table.Table{}, err
	}
	return tableOf(h, "exceptions", "", []table.Column{
		table.Text("exception"), table.Text("kind"), table.Text("object_type"), table.Text("object"), table.Text("object_key"), table.Amount("amount"), table.Text("currency"),
		table.Text("owner"), table.Moment("opened"), table.Moment("closed"), table.Text("resolution"),
	}, lines, func(e exceptionLine) []any {
		owner, _ := h.Site.Write(v.Lang, v.Who(e.Owner)) // Who makes messages that exist
		return []any{e.ID, string(e.Kind), e.ObjectType, e.Object.Name, e.ObjectID, e.Amount, e.Currency, owner, e.OpenedAt, e.ClosedAt, e.Resolution}
	})
}

func ownersOf(list []reconcile.Exception) []string {
	owners := make([]string, len(list))
	for i, e := range list {
		owners[i] = e.Owner
	}
	return owners
}

// exceptionPage is one exception with its history and what can be done about it.
type exceptionPage struct {
	view
	Exception exceptionLine
	Notes     []note
	Accounts  []ledger.Account
	Form      *web.Form
	Chosen    string // account
}

// note is one line of an exception's history.
type note struct {
	reconcile.Note
	Who     web.Message
	New     web.Message // the new owner, for an assignment
	English bool        // the service's own words
}

// Mine reports whether the reader owns it already.
func (p exceptionPage) Mine() bool { return p.Exception.Owner == p.Member.ID }

// AccountError is what is wrong with the account chosen, or nil.
func (p exceptionPage) AccountError() *web.Message { return p.Form.Error("account") }

// Open reports whether something can be done about it.
func (p exceptionPage) Open() bool { return p.Exception.ClosedAt.IsZero() }

func (h *Handler) exception(w http.ResponseWriter, r *http.Request) {
	h.showException(w, r, http.StatusOK, nil)
}

// showException shows an exception, with what was wrong with a form, if anything.
func (h *Handler) showException(w http.ResponseWriter, r *http.Request, status int, form *web.Form) {
	p := exceptionPage{view: h.view(r), Form: form, Chosen: form.Value("account")}
	if err := h.readException(r.Context(), chi.URLParam(r, "id"), &p); err != nil {
		h.fail(w, r, "read exception", err)
		return
	}
	h.Site.Page(w, r, status, "desk/exception", p)
}

func (h *Handler) readException(ctx context.Context, exceptionID string, p *exceptionPage) error {
	var notes []reconcile.Note
	err := h.snapshot(ctx, func(tx pgx.Tx) error {
		e, list, err := reconcile.ExceptionByID(ctx, tx, exceptionID)
		if err != nil {
			return err
		}
		lines, err := h.linesOf(ctx, tx, e)
		if err != nil {
			return err
		}
		p.Exception, notes = lines[0], list
		if p.MayCorrect() && p.Open() && e.SuspenseEntry != "" {
			p.Accounts, err = h.transferAccounts(ctx, tx, e.Currency)
		}
		return err
	})
	if err != nil {
		return err
	}
	actors := []string{p.Exception.Owner}
	for _, n := range notes {
		actors = append(actors, n.Actor, n.Text) // an assignment's text is the new owner
	}
	if err := h.who(ctx, &p.view, actors...); err != nil {
		return err
	}
	for _, n := range notes {
		line := note{Note: n, Who: p.Who(n.Actor), English: n.Actor == audit.System}
		if n.Kind == "assigned" {
			line.New = p.Who(n.Text)
		}
		p.Notes = append(p.Notes, line)
	}
	return nil
}

// accountsShown bounds the choice of accounts.
const accountsShown = 1000

// transferAccounts are where an amount in suspense may go: revenue, what the city
// owes, and expenses. Clearing and the bank are the nightly run's own.
func (h *Handler) transferAccounts(ctx context.Context, tx pgx.Tx, currency string) ([]ledger.Account, error) {
	list, err := h.Books.Accounts(ctx, tx, "", accountsShown)
	if err != nil {
		return nil, err
	}
	var open []ledger.Account
	for _, a := range list {
		if mayTake(a) && a.Currency == currency {
			open = append(open, a)
		}
	}
	return open, nil
}

func mayTake(a ledger.Account) bool {
	return a.State == ledger.Open && a.Type != ledger.Asset && a.Path != reconcile.Suspense && !strings.HasPrefix(a.Path, "liabilities:billed-not-collected:") &&
		a.Path != payments.Credits && a.Path != payments.CreditsSettled
}

// toException serves the addresses of an exception's forms when they are opened,
// not posted: by the language switch, or after signing in again.
func (h *Handler) toException(w http.ResponseWriter, r *http.Request) {
	h.see(w, r, "/desk/exceptions/"+chi.URLParam(r, "id"))
}

// longest text that a person may leave.
const longestNote = 2000

// deed reads the form of an action, does it, and goes back to the exception, or
// shows everything that was wrong. needed are the fields that must be filled.
func (h *Handler) deed(w http.ResponseWriter, r *http.Request, do func(*web.Form, string) error, needed ...string) {
	form, err := web.ReadForm(w, r)
	if err != nil {
		h.Site.Fail(w, r, http.StatusBadRequest, "")
		return
	}
	for _, field := range needed {
		switch text := form.Value(field); {
		case text == "" && field == "account":
			form.Fail(field, "desk.exception.account_bad")
		case text == "":
			form.Fail(field, "desk.exception.text_empty")
		case utf8.RuneCountInString(text) > longestNote:
			form.Fail(field, "desk.exception.text_long", "Most", longestNote)
		}
	}
	if !form.OK() {
		h.showException(w, r, http.StatusUnprocessableEntity, form)
		return
	}
	exceptionID := chi.URLParam(r, "id")
	switch err := do(form, exceptionID); {
	case errors.Is(err, reconcile.ErrResolved):
		form.Fail("", "desk.exception.resolved_already")
		h.showException(w, r, http.StatusConflict, form)
	case errors.Is(err, reconcile.ErrInSuspense):
		form.Fail("", "desk.exception.in_suspense")
		h.showException(w, r, http.StatusConflict, form)
	case errors.Is(err, errAccount), errors.Is(err, ledger.ErrUnknownAccount), errors.Is(err, ledger.ErrAccountClosed):
		form.Fail("account", "desk.exception.account_bad")
		h.showException(w, r, http.StatusUnprocessableEntity, form)
	case errors.Is(err, ledger.ErrPeriodClosed):
		form.Fail("", "desk.exception.period_closed")
		h.showException(w, r, http.StatusConflict, form)
	case err != nil:
		h.fail(w, r, "change exception", err)
	default:
		h.see(w, r, "/desk/exceptions/"+exceptionID)
	}
}

func (h *Handler) note(w http.ResponseWriter, r *http.Request) {
	h.deed(w, r, func(f *web.Form, exceptionID string) error {
		return h.Nightly.AddNote(r.Context(), exceptionID, f.Value("note"))
	}, "note")
}

// assign gives an exception to whoever asks.
func (h *Handler) assign(w http.ResponseWriter, r *http.Request) {
	h.deed(w, r, func(_ *web.Form, exceptionID string) error {
		return h.Nightly.Assign(r.Context(), exceptionID, h.view(r).Member.ID)
	})
}

func (h *Handler) resolve(w http.ResponseWriter, r *http.Request) {
	h.deed(w, r, func(f *web.Form, exceptionID string) error {
		return h.Nightly.Resolve(r.Context(), exceptionID, f.Value("reason"))
	}, "reason")
}

// errAccount: no account that an amount in suspense may go to.
var errAccount = errors.New("the account does not take amounts from suspense")

func (h *Handler) transfer(w http.ResponseWriter, r *http.Request) {
	h.deed(w, r, func(f *web.Form, exceptionID string) error {
		e, _, err := reconcile.ExceptionByID(r.Context(), h.DB, exceptionID)
		if err != nil {
			return err
		}
		a, err := h.Books.Account(r.Context(), h.DB, f.Value("account"))
		if err != nil {
			return err
		}
		if e.SuspenseEntry == "" || !mayTake(a) || a.Currency != e.Currency {
			return errAccount
		}
		return h.Nightly.Transfer(r.Context(), exceptionID, a.Path, ledger.Dimensions{Department: a.Department}, f.Value("why"))
	}, "account", "why")
}
