package journal

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-chi/chi/v5"

	"guichet/api/web"
	"guichet/internal/attachment"
	"guichet/internal/money"
	"guichet/ledger"
	"guichet/ledger/manual"
)

// A paperPage is a draft with what it would do, its history, and what the reader may do
// about it.
type paperPage struct {
	view
	manual.Paper
	Form     *web.Form
	Debits   money.Amount
	Credits  money.Amount
	Missing  []web.Message
	Review   manual.Review
	Refusal  web.Message // what the books would say; empty: nothing
	History  []manual.Event
	Deciding bool // the page is the checker's
}

// Title is what a draft is called.
func (p paperPage) Title() string { return p.Content.Description }

// Mine reports whether the reader wrote it.
func (p paperPage) Mine() bool { return p.Maker == p.Member.ID }

// Changeable reports whether the reader may change it now.
func (p paperPage) Changeable() bool {
	return p.Mine() && p.MayMake() && (p.State == manual.Draft || p.State == manual.Refused)
}

// Open reports whether it may still become an entry.
func (p paperPage) Open() bool {
	return p.State == manual.Draft || p.State == manual.Refused || p.State == manual.Submitted
}

// MayDecide reports whether the reader may decide about it now.
func (p paperPage) MayDecide() bool {
	return p.State == manual.Submitted && !p.Mine() && hasAny(p.Member, checkers)
}

// Out is by how much debits and credits differ, and Over whether there are too many debits.
func (p paperPage) Out() money.Amount { return max(p.Debits-p.Credits, p.Credits-p.Debits) }

func (p paperPage) Over() bool { return p.Debits > p.Credits }

// Change is by how much an account moves.
func (paperPage) Change(e manual.Effect) money.Amount { return e.After - e.Before }

// Columns of a file of lines.
func (paperPage) Columns() string { return strings.Join(manual.Columns, ",") }

// Dimensions are what a line is about, in one line.
func (paperPage) Dimensions(d ledger.Dimensions) string {
	var parts []string
	for _, value := range []string{d.Department, d.Fund, d.CostCentre, d.Order, d.WBS, d.Channel, d.Tender} {
		if value != "" {
			parts = append(parts, value)
		}
	}
	return strings.Join(parts, " · ")
}

func (h *Handler) paper(w http.ResponseWriter, r *http.Request) {
	h.showPaper(w, r, http.StatusOK, nil, false)
}

// decidePage is the checker's look at a draft.
func (h *Handler) decidePage(w http.ResponseWriter, r *http.Request) {
	h.showPaper(w, r, http.StatusOK, nil, true)
}

// showPaper shows a draft, with what was wrong with a form, if anything.
func (h *Handler) showPaper(w http.ResponseWriter, r *http.Request, status int, form *web.Form, deciding bool) {
	p := paperPage{view: h.view(r), Form: form}
	if err := h.readPaper(r, &p); err != nil {
		h.fail(w, r, "read draft", err)
		return
	}
	p.Deciding = deciding && p.MayDecide()
	h.Site.Page(w, r, status, "journal/paper", p)
}

func (h *Handler) readPaper(r *http.Request, p *paperPage) (err error) {
	ctx := r.Context()
	if p.Paper, err = h.Manual.Get(ctx, h.DB, chi.URLParam(r, "id")); err != nil {
		return err
	}
	p.Debits, p.Credits = p.Content.Totals()
	if p.History, err = h.Manual.History(ctx, h.DB, p.ID); err != nil {
		return err
	}
	actors := []string{p.Maker, p.Decider}
	for _, e := range p.History {
		actors = append(actors, e.Actor)
	}
	if p.names, err = h.Staff.Names(ctx, actors); err != nil {
		return err
	}
	if !p.Open() {
		return nil
	}
	for _, f := range p.Content.Faults() {
		p.Missing = append(p.Missing, faultMessage(f))
	}
	if p.Review, err = h.Manual.Review(ctx, p.Paper); err != nil {
		return err
	}
	if p.Review.Err != nil {
		p.Refusal = refusalMessage(p.Review.Err)
	}
	return nil
}

func faultMessage(f manual.Fault) web.Message {
	key := "journal.fault." + strings.ReplaceAll(f.What, "-", "_")
	if f.Line > 0 {
		return web.Say("journal.in_line", "Line", f.Line, "Fault", web.Say(key))
	}
	return web.Say(key)
}

func rowMessage(f manual.LineFault) web.Message {
	key := "journal.csv." + strings.ReplaceAll(f.What, "-", "_")
	switch f.What {
	case "unknown-column":
		name := []rune(f.Column)
		return web.Say(key, "Column", string(name[:min(len(name), 40)]))
	case "not-csv", "no-account", "bad-amount":
		return web.Say(key, "Line", f.Line)
	}
	return web.Say(key)
}

// refusalMessage says what the books refuse.
func refusalMessage(err error) web.Message {
	var (
		unknown *ledger.UnknownAccountError
		low     *ledger.LimitError
	)
	switch {
	case errors.As(err, &unknown):
		return web.Say("journal.refused.unknown", "Account", unknown.Path)
	case errors.As(err, &low):
		return web.Say("journal.refused.limit", "Account", low.Account, "Available", low.Available, "Lowest", low.Lowest)
	case errors.Is(err, ledger.ErrAccountClosed):
		return web.Say("journal.refused.closed")
	case errors.Is(err, ledger.ErrReversed):
		return web.Say("journal.refused.reversed")
	case errors.Is(err, ledger.ErrPeriodClosed):
		return web.Say("journal.refused.period")
	}
	return web.Say("journal.refused.form")
}

// complain puts what a step refuses on the form. It reports false when the error is none of
// those that a person can do something about.
func (h *Handler) complain(r *http.Request, form *web.Form, err error) (status int, told bool) {
	var (
		state  *manual.StateError
		faults *manual.FaultsError
	)
	switch {
	case errors.As(err, &state):
		names, nameErr := h.Staff.Names(r.Context(), []string{state.By})
		if nameErr != nil {
			return 0, false
		}
		form.Fail("", "journal.error.state", "State", web.Say("journal.state_long."+string(state.State)), "Who", view{names: names}.Who(state.By))
		return http.StatusConflict, true
	case errors.As(err, &faults):
		form.Fail("", "journal.error.faults")
		return http.StatusUnprocessableEntity, true
	case manual.Refusal(err):
		form.Errors = append(form.Errors, web.FieldError{Message: refusalMessage(err)})
		return http.StatusConflict, true
	}
	for sentinel, said := range map[error]struct {
		field, key string
		status     int
	}{
		manual.ErrStale:    {"", "journal.error.stale", http.StatusConflict},
		manual.ErrMaker:    {"", "journal.error.maker", http.StatusForbidden},
		manual.ErrSame:     {"", "journal.error.same", http.StatusForbidden},
		manual.ErrTick:     {"tick", "journal.error.tick", http.StatusUnprocessableEntity},
		manual.ErrReason:   {"why", "journal.error.reason", http.StatusUnprocessableEntity},
		manual.ErrTooMuch:  {"", "journal.error.too_much", http.StatusUnprocessableEntity},
		attachment.ErrType: {"upload", "journal.error.file_type", http.StatusUnprocessableEntity},
		attachment.ErrSize: {"upload", "journal.error.file_size", http.StatusUnprocessableEntity},
	} {
		if errors.Is(err, sentinel) {
			form.Fail(said.field, said.key)
			return said.status, true
		}
	}
	return 0, false
}

// deed reads the form of a step, takes it, and goes back to the draft, or shows
// everything that was wrong.
func (h *Handler) deed(w http.ResponseWriter, r *http.Request, do func(f *web.Form, draftID string, version int) error) {
	form, err := web.ReadForm(w, r)
	if err != nil {
		h.Site.Fail(w, r, http.StatusBadRequest, "")
		return
	}
	h.finish(w, r, form, do(form, chi.URLParam(r, "id"), versionOf(form)))
}

func (h *Handler) finish(w http.ResponseWriter, r *http.Request, form *web.Form, err error) {
	if err == nil && form.OK() {
		h.see(w, r, "/desk/journal/"+chi.URLParam(r, "id"))
		return
	}
	status, told := http.StatusUnprocessableEntity, true
	if err != nil {
		status, told = h.complain(r, form, err)
	}
	if !told {
		h.fail(w, r, "change draft", err)
		return
	}
	deciding := strings.HasSuffix(r.URL.Path, "/decide")
	for i := range form.Errors {
		if form.Errors[i].Field == "tick" && !deciding { // the maker ticks on another page
			form.Errors[i].Field = ""
		}
	}
	h.showPaper(w, r, status, form, deciding)
}

// versionOf is the version that the form was made from; 0: none, which is always old.
func versionOf(form *web.Form) int {
	n, err := strconv.Atoi(form.Value("version"))
	if err != nil {
		return 0
	}
	return n
}

func (h *Handler) submit(w http.ResponseWriter, r *http.Request) {
	h.deed(w, r, func(_ *web.Form, draftID string, version int) error {
		return h.Manual.Submit(r.Context(), draftID, h.view(r).Member.ID, version)
	})
}

func (h *Handler) takeBack(w http.ResponseWriter, r *http.Request) {
	h.deed(w, r, func(_ *web.Form, draftID string, version int) error {
		return h.Manual.TakeBack(r.Context(), draftID, h.view(r).Member.ID, version)
	})
}

func (h *Handler) withdraw(w http.ResponseWriter, r *http.Request) {
	h.deed(w, r, func(_ *web.Form, draftID string, version int) error {
		return h.Manual.Withdraw(r.Context(), draftID, h.view(r).Member.ID, version)
	})
}

func (h *Handler) decide(w http.ResponseWriter, r *http.Request) {
	h.deed(w, r, func(form *web.Form, draftID string, version int) error {
		why := form.Value("why")
		if utf8.RuneCountInString(why) > manual.MaxText {
			return manual.ErrTooMuch
		}
		d := manual.Decision{Draft: draftID, By: h.view(r).Member.ID, Version: version, Reason: why, Tick: form.Value("tick") != ""}
		switch form.Value("decision") {
		case "approve":
			_, err := h.Manual.Approve(r.Context(), d)
			return err
		case "refuse":
			return h.Manual.Refuse(r.Context(), d)
		}
		form.Fail("", "journal.error.decision")
		return nil
	})
}

// lines takes lines as CSV, and replaces those of the draft.
func (h *Handler) lines(w http.ResponseWriter, r *http.Request) {
	h.deed(w, r, func(form *web.Form, draftID string, version int) error {
		lines, faults := manual.ReadLines(form.Value("csv"))
		if len(faults) > 0 {
			for _, f := range faults[:min(len(faults), 20)] {
				form.Errors = append(form.Errors, web.FieldError{Field: "csv", Message: rowMessage(f)})
			}
			return nil
		}
		p, err := h.Manual.Get(r.Context(), h.DB, draftID)
		if err != nil {
			return err
		}
		p.Content.Lines = lines
		return h.Manual.Save(r.Context(), draftID, h.view(r).Member.ID, version, p.Content)
	})
}

// attach takes a file. A body that is too large ends the form, and so does one that is no form.
func (h *Handler) attach(w http.ResponseWriter, r *http.Request) {
	form := &web.Form{}
	name, text, err := upload(r, form)
	if err != nil {
		form.Fail("upload", "journal.error.file_size")
		h.finish(w, r, form, nil)
		return
	}
	h.finish(w, r, form, h.Manual.Attach(r.Context(), chi.URLParam(r, "id"), h.view(r).Member.ID, versionOf(form), name, text))
}

// upload reads the parts of a form with a file, in the order in which our page has them: the
// version first.
func upload(r *http.Request, form *web.Form) (name string, text []byte, err error) {
	parts, err := r.MultipartReader()
	if err != nil {
		return "", nil, fmt.Errorf("read form: %w", err)
	}
	form.Values = map[string][]string{}
	for range 4 {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			return name, text, nil
		}
		if err != nil {
			return "", nil, fmt.Errorf("read form: %w", err)
		}
		value, err := io.ReadAll(io.LimitReader(part, attachment.MaxSize+1))
		switch {
		case err != nil:
			return "", nil, fmt.Errorf("read form: %w", err)
		case part.FormName() == "version" && len(value) < 20:
			form.Values.Set("version", string(value))
		case part.FormName() == "upload":
			name, text = part.FileName(), value
		}
	}
	return "", nil, errors.New("read form: too many parts")
}

func (h *Handler) detach(w http.ResponseWriter, r *http.Request) {
	h.deed(w, r, func(form *web.Form, draftID string, version int) error {
		return h.Manual.Detach(r.Context(), draftID, h.view(r).Member.ID, version, form.Value("file"))
	})
}

// file hands an attachment out as a download, never as a page of ours.
func (h *Handler) file(w http.ResponseWriter, r *http.Request) {
	f, err := h.Manual.File(r.Context(), chi.URLParam(r, "id"), chi.URLParam(r, "file"))
	if err != nil {
		h.fail(w, r, "read file", err)
		return
	}
	header := w.Header()
	header.Set("Content-Type", f.MediaType)
	header.Set("Content-Disposition", mimeAttachment(f.Name))
	header.Set("Cache-Control", "private, no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(f.Bytes) // a reader who has gone away is nobody's error
}
