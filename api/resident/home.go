package resident

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"guichet/api/session"
	"guichet/api/web"
	"guichet/identity/delegation"
	"guichet/internal/money"
	"guichet/payments"
	"guichet/payments/bill"
)

// shownReceipts is how many past receipts the first page lists.
const shownReceipts = 20

// homePage is what a signed-in resident owes and has paid.
type homePage struct {
	Form     *web.Form
	Bills    []owed
	Total    money.Amount // of the bills that can be chosen
	Choices  int          // how many these are
	Receipts []payments.Receipt
	For      string                // name of whom the reader acts for; empty: themselves
	Right    delegation.Delegation // under which they do
}

// MayPay reports whether the reader may pay what they see, or some of it.
func (p homePage) MayPay() bool {
	return p.Right.ID == "" || slices.Contains(p.Right.Scope.Rights, delegation.PayBills)
}

// owed is one bill on the first page.
type owed struct {
	bill.Bill
	Quote    bill.Quote
	Overdue  bool
	Soon     bool   // due within a week
	Taken    bool   // somebody is paying it right now
	Fixed    bool   // the reader may see it and not pay it
	Checkout string // the checkout in which the reader is paying it
}

// Title is what the bill is for: its first line.
func (o owed) Title(lang string) string { return o.Lines[0].Description(lang) }

// More is how many lines the title leaves out.
func (o owed) More() int { return len(o.Lines) - 1 }

// owed says how a bill stands for a resident today.
func (h *Handler) owed(ctx context.Context, b bill.Bill, residentID string) (owed, error) {
	today := h.today()
	o := owed{Bill: b, Quote: b.Quote(today), Overdue: b.Overdue(today)}
	o.Soon = !o.Overdue && !b.DueOn.After(today.AddDays(7))
	if !b.BeingPaidUntil.After(h.Now()) {
		return o, nil
	}
	p, err := payments.Get(ctx, h.DB, b.BeingPaidBy)
	if err != nil {
		return o, fmt.Errorf("who is paying bill %s: %w", b.Notice, err)
	}
	if p.ResidentID == residentID {
		o.Checkout = p.CheckoutID
	}
	o.Taken = true
	return o, nil
}

func (h *Handler) home(w http.ResponseWriter, r *http.Request) {
	v := payer(r.Context())
	if v.ResidentID == "" {
		h.Site.Page(w, r, http.StatusOK, "resident/welcome", findPage{})
		return
	}
	h.owing(w, r, http.StatusOK, v.ResidentID, nil)
}

// owing shows what a resident owes, with what was wrong with the choice, if anything.
func (h *Handler) owing(w http.ResponseWriter, r *http.Request, status int, residentID string, form *web.Form) {
	page := homePage{Form: form}
	if d, ok := session.Acting(r.Context()); ok {
		page.Right, page.For = d, d.Party.Name
	}
	bills, err := h.Bills.OpenOf(r.Context(), residentID)
	if err != nil {
		h.fail(w, r, "list open bills", err)
		return
	}
	for _, b := range bills {
		if !may(r.Context(), delegation.ViewBills, b.Department) {
			continue
		}
		o, err := h.owed(r.Context(), b, residentID)
		if err != nil {
			h.fail(w, r, "list open bills", err)
			return
		}
		o.Fixed = !may(r.Context(), delegation.PayBills, b.Department)
		if !o.Taken && !o.Fixed {
			page.Choices++
			page.Total += o.Quote.Due
		}
		page.Bills = append(page.Bills, o)
	}
	if page.Receipts, err = h.Payments.ReceiptsOf(r.Context(), residentID, shownReceipts); err != nil {
		h.fail(w, r, "list receipts", err)
		return
	}
	page.Receipts = slices.DeleteFunc(page.Receipts, func(receipt payments.Receipt) bool { return !mayReceipt(r.Context(), receipt) })
	h.Site.Page(w, r, status, "resident/home", page)
}

// open makes a checkout of the bills chosen: of the resident's own, or of those of
// another checkout that the viewer may see.
func (h *Handler) open(w http.ResponseWriter, r *http.Request) {
	form, err := web.ReadForm(w, r)
	if err != nil {
		h.Site.Fail(w, r, http.StatusBadRequest, "")
		return
	}
	v := h.viewer(r)
	allowed, err := h.mayPay(r, v, form.Value("from"))
	if err != nil {
		h.fail(w, r, "open checkout", err)
		return
	}
	var chosen []string
	for _, b := range form.Values["bill"] {
		if !slices.Contains(allowed, b) { // somebody else's, or paid since the page was shown
			form.Fail("", "resident.home.changed")
		} else if !slices.Contains(chosen, b) {
			chosen = append(chosen, b)
		}
	}
	if len(form.Values["bill"]) == 0 {
		form.Fail("bills", "resident.home.choose_one")
	}
	if !form.OK() {
		if v.ResidentID == "" {
			h.see(w, r, "/")
			return
		}
		h.owing(w, r, http.StatusUnprocessableEntity, v.ResidentID, form)
		return
	}
	checkoutID, _, err := h.Payments.Open(r.Context(), payments.NewCheckout{BillIDs: chosen, Channel: "web", Viewer: h.owner(w, r), Lang: web.Lang(r)})
	if err != nil {
		h.fail(w, r, "open checkout", err)
		return
	}
	h.see(w, r, "/checkout/"+checkoutID)
}

// mayPay lists the bills that a viewer may put into a checkout.
func (h *Handler) mayPay(r *http.Request, v payments.Viewer, from string) ([]string, error) {
	var allowed []string
	ctx := r.Context()
	if v.ResidentID != "" {
		bills, err := h.Bills.OpenOf(ctx, v.ResidentID)
		if err != nil {
			return nil, err
		}
		for _, b := range bills {
			if may(ctx, delegation.PayBills, b.Department) {
				allowed = append(allowed, b.ID)
			}
		}
	}
	if from != "" {
		c, err := h.checkout(r, from, delegation.PayBills)
		if err != nil {
			return nil, err
		}
		for _, b := range c.Bills {
			allowed = append(allowed, b.ID)
		}
	}
	return allowed, nil
}
