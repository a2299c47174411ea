package resident

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/jackc/pgx/v5"

	"guichet/api/session"
	"guichet/api/web"
	"guichet/identity"
	"guichet/identity/delegation"
	"guichet/internal/money"
	"guichet/payments"
	"guichet/payments/bill"
)

// reviewPage shows what is about to be paid.
type reviewPage struct {
	ID          string
	Form        *web.Form
	Departments []departmentDue
	Net, Tax    money.Amount
	Total       money.Amount
	Today       time.Time
	Email       string // where a resident's receipt goes; empty: a guest may give an address
	Resume      bool   // the processor's page is open already
	Tried       bool   // the last attempt did not end in a payment
	MayPay      bool   // not: the reader acts for somebody, and may only see it
	Rest        []string
	Blocked     []dueBill // bills that cannot be paid now
	Unanswered  bool      // the processor did not answer
}

// departmentDue is one department's bills in a checkout.
type departmentDue struct {
	NameEN, NameFR string
	Bills          []dueBill
}

// Name returns the department's name in "en" or "fr".
func (d departmentDue) Name(lang string) string {
	if lang == "fr" {
		return d.NameFR
	}
	return d.NameEN
}

// dueBill is a bill with its lines as due today.
type dueBill struct {
	payments.DueBill
	Lines []dueLine
	Taken bool // somebody else is paying it
}

// Gone reports that nothing can be paid of the bill any more.
func (b dueBill) Gone() bool { return !b.State.Payable() || b.Quote.Due == 0 }

// WasPaid tells a bill that was paid from one that was withdrawn.
func (b dueBill) WasPaid() bool { return b.State == bill.Paid }

// Several reports that a bill is more than one amount, and so has a sum.
func (b dueBill) Several() bool {
	return len(b.Lines) != 1 || b.Lines[0].Due.Step > 0 || b.Lines[0].Due.Tax > 0
}

type dueLine struct {
	bill.Line
	Due bill.QuoteLine
}

// Amount is what is due of the line before tax.
func (l dueLine) Amount() money.Amount { return l.Due.Net + l.Due.Step }

func (h *Handler) review(w http.ResponseWriter, r *http.Request) {
	c, err := h.checkout(r, chi.URLParam(r, "id"), delegation.ViewBills)
	if err != nil {
		h.fail(w, r, "read checkout", err)
		return
	}
	h.reviewed(w, r, http.StatusOK, c, reviewPage{})
}

// reviewed shows an open checkout, or sends on to where a closed one is told.
func (h *Handler) reviewed(w http.ResponseWriter, r *http.Request, status int, c payments.Checkout, page reviewPage) {
	switch {
	case c.State == "paid", c.Payment != nil && c.Payment.State == payments.Processing:
		h.see(w, r, "/checkout/"+c.ID+"/return")
		return
	case c.State != "open":
		h.Site.Page(w, r, http.StatusGone, "resident/closed", outcomePage{ID: c.ID})
		return
	}
	page.fill(c, h.Now())
	page.MayPay = mayBills(r.Context(), delegation.PayBills, c)
	if p, ok := session.Resident(r.Context()); ok {
		page.Email = p.Email
	}
	h.Site.Page(w, r, status, "resident/review", page)
}

// fill sorts a checkout's bills by department and by whether they can be paid.
func (p *reviewPage) fill(c payments.Checkout, now time.Time) {
	p.ID, p.Today = c.ID, now
	p.Resume = c.Payment != nil && c.Payment.State.Live()
	p.Tried = c.Payment != nil && !c.Payment.State.Live()
	at := make(map[string]int)
	for _, due := range c.Bills {
		b := dueBill{DueBill: due}
		for _, q := range due.Quote.Lines {
			b.Lines = append(b.Lines, dueLine{Line: due.Bill.Lines[q.Line-1], Due: q})
		}
		ours := c.Payment != nil && due.BeingPaidBy == c.Payment.ID
		b.Taken = due.BeingPaidUntil.After(now) && !ours
		if b.Taken || b.Gone() {
			p.Blocked = append(p.Blocked, b)
			continue
		}
		i, ok := at[b.DepartmentID]
		if !ok {
			i = len(p.Departments)
			at[b.DepartmentID] = i
			p.Departments = append(p.Departments, departmentDue{NameEN: b.DepartmentEN, NameFR: b.DepartmentFR})
		}
		p.Departments[i].Bills = append(p.Departments[i].Bills, b)
		p.Rest = append(p.Rest, b.ID)
		for _, l := range b.Lines {
			p.Net += l.Amount()
			p.Tax += l.Due.Tax
		}
	}
	p.Total = p.Net + p.Tax
}

// pay sends the browser to the processor's page.
func (h *Handler) pay(w http.ResponseWriter, r *http.Request) {
	form, err := web.ReadForm(w, r)
	if err != nil {
		h.Site.Fail(w, r, http.StatusBadRequest, "")
		return
	}
	v, checkoutID := h.viewer(r), chi.URLParam(r, "id")
	c, err := h.checkout(r, checkoutID, delegation.PayBills)
	if err != nil {
		h.fail(w, r, "read checkout", err)
		return
	}
	contact, err := h.contact(r.Context(), v, form)
	if err != nil {
		h.fail(w, r, "keep address for the receipt", err)
		return
	}
	if !form.OK() {
		h.reviewed(w, r, http.StatusUnprocessableEntity, c, reviewPage{Form: form})
		return
	}
	address, err := h.Payments.Pay(r.Context(), v, checkoutID, contact)
	if err == nil {
		http.Redirect(w, r, address, http.StatusSeeOther)
		return
	}
	h.notPaid(w, r, c.ID, form, err)
}

// contact returns the opaque id of the address that a guest wants the receipt at,
// or "". A resident's receipt goes to the resident.
func (h *Handler) contact(ctx context.Context, v payments.Viewer, form *web.Form) (contactID string, err error) {
	email := form.Value("email")
	if v.ResidentID != "" || email == "" {
		return "", nil
	}
	if _, err := identity.ParseEmail(email); err != nil {
		form.Fail("email", "resident.review.email_bad")
		return "", nil
	}
	err = pgx.BeginFunc(ctx, h.DB, func(tx pgx.Tx) error {
		contactID, err = h.People.Contact(ctx, tx, email)
		return err
	})
	return contactID, err
}

// notPaid tells why there is no page to pay on.
func (h *Handler) notPaid(w http.ResponseWriter, r *http.Request, checkoutID string, form *web.Form, err error) {
	var refused *payments.RefusedError
	status, page := http.StatusConflict, reviewPage{Form: form}
	switch {
	case errors.Is(err, payments.ErrAlreadyPaid):
		h.see(w, r, "/checkout/"+checkoutID+"/return")
		return
	case errors.Is(err, payments.ErrClosed):
		h.see(w, r, "/checkout/"+checkoutID)
		return
	case errors.Is(err, payments.ErrTaken), errors.Is(err, bill.ErrBeingPaid), errors.Is(err, payments.ErrNotPayable), errors.Is(err, payments.ErrEmpty):
		// The page shows which bills, from what the checkout says now.
	case errors.Is(err, payments.ErrUnknownOutcome), errors.As(err, &refused):
		h.Log.ErrorContext(r.Context(), "open the processor's page", "checkout", checkoutID, "error", err)
		w.Header().Set("Retry-After", "30")
		status, page.Unanswered = http.StatusServiceUnavailable, true
	default:
		h.fail(w, r, "pay", err)
		return
	}
	c, err := h.checkout(r, checkoutID, delegation.ViewBills)
	if err != nil {
		h.fail(w, r, "read checkout", err)
		return
	}
	h.reviewed(w, r, status, c, page)
}

// cancel gives up the attempt that is open, and frees the bills.
func (h *Handler) cancel(w http.ResponseWriter, r *http.Request) {
	checkoutID := chi.URLParam(r, "id")
	_, err := h.checkout(r, checkoutID, delegation.PayBills)
	if err == nil {
		err = h.Payments.Cancel(r.Context(), h.viewer(r), checkoutID)
	}
	switch {
	case errors.Is(err, payments.ErrAlreadyPaid):
		h.see(w, r, "/checkout/"+checkoutID+"/return")
	case errors.Is(err, payments.ErrUnknownOutcome):
		h.Log.WarnContext(r.Context(), "cancel checkout", "checkout", checkoutID, "error", err)
		h.Site.Fail(w, r, http.StatusServiceUnavailable, "resident.error.cancel_unanswered")
	case err != nil:
		h.fail(w, r, "cancel checkout", err)
	default:
		h.Site.Page(w, r, http.StatusOK, "resident/closed", outcomePage{ID: checkoutID, Cancelled: true})
	}
}

// outcomePage tells how an attempt to pay ended, or that it has not yet.
type outcomePage struct {
	ID        string
	State     string // "paid", "waiting", "failed", "expired"
	Cancelled bool   // of the page closed: by the reader just now
	Payment   *payments.Payment
	Receipt   *payments.Receipt // nil while it is being numbered
	Waited    int               // how many times the page has looked
	Slow      bool              // it has given up looking by itself
	Open      bool              // the processor still shows its page as unpaid
	ReturnURL string            // to the department that sent the payer
	Service   departmentDue     // that department
}

// The return page looks again by itself, first quickly, then slowly, then not any
// more: a page must not reload for ever (WCAG 2.2, 2.2.1). Between looks it is still.
const (
	quickLooks = 5
	allLooks   = 25
	quickly    = 2 * time.Second
	slowly     = 6 * time.Second
)

// outcome is where the processor sends the payer back to. Coming here proves
// nothing: payments asks the processor.
func (h *Handler) outcome(w http.ResponseWriter, r *http.Request) {
	c, err := h.settled(r.Context(), h.viewer(r), chi.URLParam(r, "id"))
	if err == nil && !mayBills(r.Context(), delegation.ViewBills, c) {
		err = payments.ErrNotFound
	}
	if err != nil {
		h.fail(w, r, "read checkout", err)
		return
	}
	page := outcomePage{ID: c.ID, Payment: c.Payment, Receipt: c.Receipt, State: outcomeOf(c)}
	if page.State == "" {
		h.see(w, r, "/checkout/"+c.ID)
		return
	}
	if c.ReturnURL != "" {
		page.ReturnURL = c.ReturnURL
		page.Service = departmentDue{NameEN: c.Bills[0].DepartmentEN, NameFR: c.Bills[0].DepartmentFR}
	}
	page.Open = c.Payment.State == payments.Pending
	if page.State == "waiting" || page.State == "paid" && page.Receipt == nil {
		h.lookAgain(w, r, &page)
	}
	h.Site.Page(w, r, http.StatusOK, "resident/outcome", page)
}

func (h *Handler) lookAgain(w http.ResponseWriter, r *http.Request, page *outcomePage) {
	page.Waited, _ = strconv.Atoi(r.URL.Query().Get("n")) // not a number: as at the first look
	if page.Waited < 0 || page.Waited >= allLooks || r.URL.Query().Get("still") != "" {
		page.Slow = true
		return
	}
	pause := slowly
	if page.Waited < quickLooks {
		pause = quickly
	}
	w.Header().Set("Refresh", fmt.Sprintf("%d; url=/checkout/%s/return?n=%d", int(pause.Seconds()), page.ID, page.Waited+1))
}

// settled reads a checkout after asking the processor about an attempt that is open.
// When the processor does not answer, what is known stays as it is.
func (h *Handler) settled(ctx context.Context, v payments.Viewer, checkoutID string) (payments.Checkout, error) {
	c, err := h.Payments.Checkout(ctx, v, checkoutID)
	if err != nil || c.Payment == nil || !c.Payment.State.Live() {
		return c, err
	}
	asking, cancel := context.WithTimeout(ctx, 8*time.Second)
	defer cancel()
	if _, err := h.Payments.Sync(asking, c.Payment.ID); err != nil {
		h.Log.WarnContext(ctx, "ask the processor from the return page", "checkout", c.ID, "error", err)
		return c, nil
	}
	return h.Payments.Checkout(ctx, v, checkoutID)
}

// outcomeOf puts the states of a checkout and its last payment into the words of
// the page. Empty: nothing has been tried.
func outcomeOf(c payments.Checkout) string {
	if c.State == "paid" {
		return "paid"
	}
	if c.Payment == nil {
		return ""
	}
	switch c.Payment.State {
	case payments.Failed:
		return "failed"
	case payments.Expired:
		return "expired"
	}
	return "waiting"
}
