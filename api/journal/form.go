package journal

import (
	"context"
	"errors"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/go-chi/chi/v5"

	"guichet/api/web"
	"guichet/internal/clock"
	"guichet/internal/id"
	"guichet/internal/money"
	"guichet/ledger"
	"guichet/ledger/manual"
)

// A formPage is a draft being written.
type formPage struct {
	view
	Form     *web.Form
	Action   string
	Back     string
	Slots    []int // lines of the form
	Long     int   // lines that are too many for the form, and stay as they are
	Reasons  []choice
	Accounts []ledger.Account
	Debits   money.Amount
	Credits  money.Amount
}

type choice struct {
	Value    string
	Label    web.Message
	Selected bool
}

// A slot's fields, beside account, debit and credit.
var dimensions = []string{"department", "fund", "cost_centre", "order", "wbs", "channel", "tender"}

// Dimensions of a line, for the template.
func (formPage) Dimensions() []string { return dimensions }

// Opened reports whether a line's dimensions have something in them.
func (p formPage) Opened(slot int) bool {
	return slices.ContainsFunc(dimensions, func(d string) bool { return p.Form.Value(nth(d, slot)) != "" || p.Form.Error(nth(d, slot)) != nil })
}

// Out is by how much debits and credits differ.
func (p formPage) Out() money.Amount { return max(p.Debits-p.Credits, p.Credits-p.Debits) }

// Mode is what the draft becomes.
func (p formPage) Mode() string { return p.Form.Value("mode") }

// Error is what is wrong with a field, or nil.
func (p formPage) Error(name string) *web.Message { return p.Form.Error(name) }

// Value is what stands in a field.
func (p formPage) Value(name string) string { return p.Form.Value(name) }

func nth(name string, slot int) string { return name + "-" + strconv.Itoa(slot) }

const (
	// formLines is how many lines the form has room for; more come as CSV.
	formLines = 30
	// spareLines are empty lines below those that are filled.
	spareLines = 2
	firstLines = 4
	// accountsShown bounds the list of accounts to choose from.
	accountsShown = 2000
)

func (h *Handler) newPage(w http.ResponseWriter, r *http.Request) {
	c := manual.Content{EffectiveOn: h.view(r).Today}
	for mode, of := range map[manual.Mode]string{manual.Reversal: r.URL.Query().Get("reverse"), manual.Correction: r.URL.Query().Get("correct")} {
		if of == "" {
			continue
		}
		e, err := h.Books.Entry(r.Context(), h.DB, of)
		if err != nil {
			h.fail(w, r, "read entry", err)
			return
		}
		c.Mode, c.Of, c.Reason, c.Description, c.Lines = mode, e.ID, "correction", e.Description, manual.LinesOf(e.Lines)
		if mode == manual.Reversal {
			for i, l := range c.Lines {
				c.Lines[i].Debit, c.Lines[i].Credit = l.Credit, l.Debit
			}
		}
	}
	form := formOf(c)
	form.Values.Set("draft", id.New())
	h.showForm(w, r, http.StatusOK, form, "/desk/journal/new")
}

func (h *Handler) create(w http.ResponseWriter, r *http.Request) {
	form, c, ok := h.read(w, r, manual.Content{})
	if !ok {
		return
	}
	draftID := form.Value("draft")
	if !id.Valid(draftID) {
		h.Site.Fail(w, r, http.StatusBadRequest, "")
		return
	}
	if form.OK() {
		err := h.Manual.Create(r.Context(), draftID, h.view(r).Member.ID, c)
		if err == nil {
			h.leave(w, r, form, draftID)
			return
		}
		if _, told := h.complain(r, form, err); !told {
			h.fail(w, r, "create draft", err)
			return
		}
	}
	h.showForm(w, r, http.StatusUnprocessableEntity, form, "/desk/journal/new")
}

func (h *Handler) editPage(w http.ResponseWriter, r *http.Request) {
	p, err := h.Manual.Get(r.Context(), h.DB, chi.URLParam(r, "id"))
	if err != nil {
		h.fail(w, r, "read draft", err)
		return
	}
	if (paperPage{view: h.view(r), Paper: p}).Changeable() {
		form := formOf(p.Content)
		form.Values.Set("version", strconv.Itoa(p.Version))
		h.showForm(w, r, http.StatusOK, form, "/desk/journal/"+p.ID+"/edit")
		return
	}
	h.toPaper(w, r)
}

func (h *Handler) save(w http.ResponseWriter, r *http.Request) {
	draftID := chi.URLParam(r, "id")
	p, err := h.Manual.Get(r.Context(), h.DB, draftID)
	if err != nil {
		h.fail(w, r, "read draft", err)
		return
	}
	form, c, ok := h.read(w, r, p.Content)
	if !ok {
		return
	}
	status := http.StatusUnprocessableEntity
	if form.OK() {
		err := h.Manual.Save(r.Context(), draftID, h.view(r).Member.ID, versionOf(form), c)
		if err == nil {
			h.leave(w, r, form, draftID)
			return
		}
		var told bool
		if status, told = h.complain(r, form, err); !told {
			h.fail(w, r, "save draft", err)
			return
		}
	}
	h.showForm(w, r, status, form, "/desk/journal/"+draftID+"/edit")
}

// leave goes on after saving: to the draft, or back into the form for more lines.
func (h *Handler) leave(w http.ResponseWriter, r *http.Request, form *web.Form, draftID string) {
	path := "/desk/journal/" + draftID
	if form.Value("then") == "edit" {
		path += "/edit"
	}
	h.see(w, r, path)
}

func (h *Handler) showForm(w http.ResponseWriter, r *http.Request, status int, form *web.Form, action string) {
	p := formPage{view: h.view(r), Form: form, Action: action, Back: strings.TrimSuffix(action, "/edit")}
	if action == "/desk/journal/new" {
		p.Back = "/desk/journal"
	}
	p.Long, _ = strconv.Atoi(form.Value("long")) // ours; anything else is 0
	if p.Long == 0 {
		for i := 1; i <= slots(form); i++ {
			p.Slots = append(p.Slots, i)
			debit, _ := amountOf(form.Value(nth("debit", i))) // what cannot be read is told beside its field
			credit, _ := amountOf(form.Value(nth("credit", i)))
			p.Debits += debit
			p.Credits += credit
		}
	}
	for _, reason := range manual.Reasons() {
		p.Reasons = append(p.Reasons, choice{string(reason), p.Reason(reason), form.Value("reason") == string(reason)})
	}
	all, err := h.Books.Accounts(r.Context(), h.DB, "", accountsShown)
	if err != nil {
		h.fail(w, r, "list accounts", err)
		return
	}
	for _, a := range all {
		if a.State == ledger.Open {
			p.Accounts = append(p.Accounts, a)
		}
	}
	h.Site.Page(w, r, status, "journal/form", p)
}

// slots is how many lines a form shows: those that are filled, and some to spare.
func slots(form *web.Form) int {
	last := 0
	for i := 1; i <= formLines; i++ {
		for _, name := range append([]string{"account", "debit", "credit"}, dimensions...) {
			if form.Value(nth(name, i)) != "" {
				last = i
			}
		}
	}
	return min(max(last+spareLines, firstLines), formLines)
}

// formOf fills the form with a content.
func formOf(c manual.Content) *web.Form {
	v := url.Values{}
	set := func(name, value string) { v.Set(name, value) }
	if c.EffectiveOn != (clock.Date{}) {
		set("effective_on", c.EffectiveOn.String())
	}
	if c.UndoOn != (clock.Date{}) {
		set("undo_on", c.UndoOn.String())
	}
	set("reason", string(c.Reason))
	set("explanation", c.Explanation)
	set("description", c.Description)
	set("mode", string(c.Mode))
	set("of", c.Of)
	if c.Tick {
		set("tick", "yes")
	}
	if len(c.Lines) > formLines-spareLines {
		set("long", strconv.Itoa(len(c.Lines)))
		return &web.Form{Values: v}
	}
	for i, l := range c.Lines {
		set(nth("account", i+1), l.Account)
		for name, amount := range map[string]money.Amount{"debit": l.Debit, "credit": l.Credit} {
			if amount != 0 {
				set(nth(name, i+1), amount.String())
			}
		}
		d := l.Dimensions
		for n, value := range []string{d.Department, d.Fund, d.CostCentre, d.Order, d.WBS, d.Channel, d.Tender} {
			set(nth(dimensions[n], i+1), value)
		}
	}
	return &web.Form{Values: v}
}

// read makes a content of what was posted. What cannot be read is told beside its field; what is
// only missing is no fault of a draft. Lines that are too many for the form stay as they were.
func (h *Handler) read(w http.ResponseWriter, r *http.Request, old manual.Content) (*web.Form, manual.Content, bool) {
	form, err := web.ReadForm(w, r)
	if err != nil {
		h.Site.Fail(w, r, http.StatusBadRequest, "")
		return nil, old, false
	}
	c := manual.Content{
		Reason: manual.Reason(form.Value("reason")), Explanation: form.Value("explanation"), Description: form.Value("description"),
		Mode: manual.Mode(form.Value("mode")), Of: form.Value("of"), Tick: form.Value("tick") != "",
	}
	c.EffectiveOn, c.UndoOn = dateOf(form, "effective_on"), dateOf(form, "undo_on")
	if c.Reason != "" && !slices.Contains(manual.Reasons(), c.Reason) {
		form.Fail("reason", "journal.fault.no_reason")
	}
	if !slices.Contains([]manual.Mode{manual.Plain, manual.Reversal, manual.Correction}, c.Mode) || c.Mode != manual.Plain && !id.Valid(c.Of) {
		h.Site.Fail(w, r, http.StatusBadRequest, "")
		return nil, old, false
	}
	if form.Value("long") != "" {
		c.Lines = old.Lines
		return form, c, true
	}
	if err := h.readLines(r.Context(), form, &c); err != nil {
		h.fail(w, r, "look up accounts", err)
		return nil, old, false
	}
	return form, c, true
}

func (h *Handler) readLines(ctx context.Context, form *web.Form, c *manual.Content) error {
	var all []ledger.Account
	for i := 1; i <= formLines; i++ {
		var l manual.Line
		d := &l.Dimensions
		for n, to := range []*string{&d.Department, &d.Fund, &d.CostCentre, &d.Order, &d.WBS, &d.Channel, &d.Tender} {
			*to = form.Value(nth(dimensions[n], i))
		}
		for name, to := range map[string]*money.Amount{"debit": &l.Debit, "credit": &l.Credit} {
			var err error
			if *to, err = amountOf(form.Value(nth(name, i))); err != nil {
				form.Fail(nth(name, i), "journal.error.amount", "Line", i)
			}
		}
		if typed := form.Value(nth("account", i)); typed != "" {
			if all == nil {
				var err error
				if all, err = h.Books.Accounts(ctx, h.DB, "", accountsShown); err != nil {
					return err
				}
			}
			l.Account = h.account(form, i, typed, all)
		}
		if !l.Empty() {
			c.Lines = append(c.Lines, l)
		}
	}
	return nil
}

// account finds what was typed: the path of an account, or words that only one has in its
// path or a name.
func (h *Handler) account(form *web.Form, slot int, typed string, all []ledger.Account) string {
	words := strings.ToLower(typed)
	var fit []string
	for _, a := range all {
		if a.Path == typed {
			return a.Path
		}
		if strings.Contains(a.Path, words) || strings.Contains(strings.ToLower(a.NameEN), words) || strings.Contains(strings.ToLower(a.NameFR), words) {
			fit = append(fit, a.Path)
		}
	}
	switch len(fit) {
	case 0:
		form.Fail(nth("account", slot), "journal.error.account", "Line", slot)
	case 1:
		form.Values.Set(nth("account", slot), fit[0])
		return fit[0]
	default:
		const shown = 5
		form.Fail(nth("account", slot), "journal.error.accounts", "Line", slot, "Count", len(fit), "Accounts", strings.Join(fit[:min(len(fit), shown)], ", "))
	}
	return typed
}

// dateOf reads a date that may be left out.
func dateOf(form *web.Form, name string) clock.Date {
	text := form.Value(name)
	if text == "" {
		return clock.Date{}
	}
	d, err := clock.ParseDate(text)
	if err != nil || d.Year < 2000 || d.Year > 2198 {
		form.Fail(name, "journal.error.date")
	}
	return d
}

// How people write amounts: "1,234.50", "1 234,50", "1234,5" is not among them.
var (
	english = regexp.MustCompile(`^\d{1,3}(,\d{3})*(\.\d{2})?$`)
	french  = regexp.MustCompile(`^\d+,\d{2}$`)
	blanks  = strings.NewReplacer(" ", "", "\u00a0", "", "\u202f", "", "$", "")
)

var errAmount = errors.New("want an amount of up to a billion dollars, such as 1,234.50")

// amountOf reads an amount as people of both languages write it; nothing is zero.
func amountOf(text string) (money.Amount, error) {
	text = blanks.Replace(text)
	switch {
	case text == "":
		return 0, nil
	case english.MatchString(text):
		text = strings.ReplaceAll(text, ",", "")
	case french.MatchString(text):
		text = strings.Replace(text, ",", ".", 1)
	}
	a, err := money.Parse(text)
	if err != nil || a < 0 || a > 100_000_000_000 {
		return 0, errAmount
	}
	return a, nil
}

// mimeAttachment is the header of a download under a name.
func mimeAttachment(name string) string {
	return mime.FormatMediaType("attachment", map[string]string{"filename": name})
}

// pageNumber is the page of a list that is asked for.
func pageNumber(r *http.Request) int {
	n, err := strconv.Atoi(r.URL.Query().Get("page"))
	if err != nil || n < 1 || n > 2000 {
		return 1
	}
	return n
}
