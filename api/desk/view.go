package desk

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"guichet/api/session"
	"guichet/api/web"
	"guichet/department"
	"guichet/identity/staff"
	"guichet/internal/audit"
	"guichet/internal/clock"
	"guichet/internal/money"
	"guichet/reconcile"
)

// A view is what every page can ask: words for states and kinds, names of members,
// what the reader may do, and the addresses of the same list elsewhere.
type view struct {
	site   *web.Site
	names  map[string]string // of members, by id
	depts  []department.Department
	query  url.Values
	Lang   string
	Today  clock.Date
	Member staff.Member
}

func (h *Handler) view(r *http.Request) view {
	m, _ := session.Staff(r.Context())
	return view{site: h.Site, query: r.URL.Query(), Lang: web.Lang(r), Today: h.day(), Member: m}
}

// named is view for a page that names departments. It answers itself when it cannot.
func (h *Handler) named(w http.ResponseWriter, r *http.Request) (view, bool) {
	v := h.view(r)
	var err error
	if v.depts, err = h.Departments.All(r.Context()); err != nil {
		h.fail(w, r, "list departments", err)
		return view{}, false
	}
	return v, true
}

// slug turns a value into a part of a key.
var slug = strings.NewReplacer("-", "_", "/", "_", ".", "_", ":", "")

// Label is the word for a value of a group, such as the kind of an exception. A
// value that has none, because it is the processor's or the bank's, stands for itself.
func (v view) Label(group string, value any) web.Message {
	text := fmt.Sprint(value)
	key := "desk." + group + "." + slug.Replace(text)
	if _, err := v.site.Write("en", web.Say(key)); err != nil {
		return asIs(text)
	}
	return web.Say(key)
}

// asIs is a text that is the same in both languages.
func asIs(text string) web.Message { return web.Say("desk.as_is", "Text", text) }

// A tag is a state as a coloured word.
type tag struct {
	Word web.Message
	Tone string // good, info, warn, bad, or empty
}

// Tag is the tag for a state of a group.
func (v view) Tag(group string, state any) tag {
	return tag{v.Label(group+"_state", state), tones[group+"."+fmt.Sprint(state)]}
}

// tones colour states; what is not here is plain.
var tones = map[string]string{
	"payout.announced": "info", "payout.itemised": "info", "payout.matched": "info", "payout.settled": "good", "payout.failed": "bad", "payout.returned": "bad",
	"batch.ready": "info", "batch.sending": "info", "batch.unknown": "warn", "batch.delivered": "info",
	"batch.posted": "good", "batch.partly-posted": "info", "batch.rejected": "bad",
	"document.created": "info", "document.sent": "info", "document.processing": "info", "document.posted": "good", "document.rejected": "bad", "document.closed": "bad",
	"bill.open": "info", "bill.part_paid": "info", "bill.paid": "good",
	"payment.created": "info", "payment.unknown": "warn", "payment.pending": "info", "payment.processing": "info", "payment.succeeded": "good", "payment.failed": "bad",
	"run.running": "info", "run.done": "good", "run.failed": "bad", "step.running": "info", "step.done": "good", "step.failed": "bad",
	"line.explained": "good", "line.unexplained": "warn", "line.in-progress": "info", "line.unexplained-settled": "", "line.fee": "",
	"exception.open": "warn", "exception.closed": "good", "period.open": "info", "period.closing": "warn", "period.closed": "good",
	"hold.open": "info", "hold.captured": "good", "hold.voided": "", "hold.expired": "",
	"account.open": "", "account.frozen": "warn", "account.closed": "",
}

// Who names an actor: a member by name, the service, or what is known.
func (v view) Who(actor string) web.Message {
	if name, ok := v.names[actor]; ok {
		return asIs(name)
	}
	switch {
	case actor == audit.System, strings.HasPrefix(actor, audit.System+":"):
		return web.Say("desk.who.system")
	case strings.HasPrefix(actor, "api_key:"):
		return web.Say("desk.who.finance_system")
	case actor == "":
		return web.Say("desk.who.nobody")
	}
	return v.Label("who", actor)
}

// who reads the names of actors.
func (h *Handler) who(ctx context.Context, v *view, actors ...string) (err error) {
	v.names, err = h.Staff.Names(ctx, actors)
	return err
}

// Department is the name of a department by its code; what belongs to none of them
// is the city's own.
func (v view) Department(code string) string {
	for _, d := range v.depts {
		if d.Code == code {
			return d.Name(v.Lang)
		}
	}
	return v.site.T(v.Lang, "desk.central")
}

// Negate is the amount on the other side: a column of credits shows them without
// a sign.
func (view) Negate(a money.Amount) money.Amount { return -a }

// MayHandle reports whether the reader may note and take exceptions.
func (v view) MayHandle() bool { return hasAny(v.Member, handle, "") }

// MayCorrect reports whether the reader may close exceptions and move suspense.
func (v view) MayCorrect() bool { return hasAny(v.Member, correct, "") }

// MayWatch reports whether the reader may open the money rooms.
func (v view) MayWatch() bool { return hasAny(v.Member, watch, "") }

// Keep is an address with the filters of this page.
func (v view) Keep(path string) string {
	if q := v.filters().Encode(); q != "" {
		return path + "?" + q
	}
	return path
}

// filters are the reader's, without place and language.
func (v view) filters() url.Values {
	q := url.Values{}
	for name, values := range v.query {
		if name != "page" && name != "lang" && name != "before" && name != "after" && strings.Join(values, "") != "" {
			q[name] = values
		}
	}
	return q
}

// rows per page of a list.
const pageRows = 50

// maxPage bounds how far back a list is leafed through; beyond it there are the files.
const maxPage = 2000

// page is the part of a list the reader asks for, with one row more than is shown:
// it says whether there is a next page.
func (v view) page(rows int) reconcile.Page {
	n := v.number()
	return reconcile.Page{Limit: rows + 1, Offset: (n - 1) * rows}
}

func (v view) number() int {
	n, err := strconv.Atoi(v.query.Get("page"))
	if err != nil || n < 1 || n > maxPage { // not a page: the first
		return 1
	}
	return n
}

// cut leaves one page of a list that was read with page, and says where it is.
func cut[T any](v view, list []T, rows int) ([]T, web.Pagination) {
	more := len(list) > rows
	return list[:min(len(list), rows)], web.Pagination{Query: v.filters(), Page: v.number(), Next: more}
}

// An addressError is a part of an address that cannot be read.
type addressError struct{ key string }

func (e *addressError) Error() string { return "address: " + e.key }

// date reads a date of the address; absent, it is the zero date.
func (v view) date(name string) (clock.Date, error) {
	text := v.query.Get(name)
	if text == "" {
		return clock.Date{}, nil
	}
	d, err := clock.ParseDate(text)
	if err != nil || d.Year < 2000 || d.Year > 2199 {
		return clock.Date{}, &addressError{"desk.error.bad_date"}
	}
	return d, nil
}

// An option is one choice of a filter.
type option struct {
	Value    string
	Label    web.Message
	Selected bool
}

// choices are the options of a filter, the first of them being all.
func choices[T ~string](v view, name, group string, values []T) []option {
	chosen := v.query.Get(name)
	list := []option{{"", web.Say("desk.filter.all"), chosen == ""}}
	for _, value := range values {
		list = append(list, option{string(value), v.Label(group, value), chosen == string(value)})
	}
	return list
}
