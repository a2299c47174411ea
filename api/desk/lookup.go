package desk

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/go-chi/chi/v5"
	"github.com/jackc/pgx/v5"

	"guichet/api/document"
	"guichet/api/session"
	"guichet/api/web"
	"guichet/identity"
	"guichet/identity/delegation"
	"guichet/identity/staff"
	"guichet/internal/audit"
	"guichet/internal/id"
	"guichet/internal/money"
	"guichet/payments"
	"guichet/payments/bill"
	"guichet/reconcile"
)

// lookupPage is the form that finds a bill or a payment.
type lookupPage struct {
	view
	Form *web.Form
}

func (h *Handler) lookupPage(w http.ResponseWriter, r *http.Request) {
	h.Site.Page(w, r, http.StatusOK, "desk/lookup", lookupPage{view: h.view(r)})
}

// lookup finds what a number belongs to. The form is posted, so that what people
// read out on the phone stays out of the browser's history and of logs.
func (h *Handler) lookup(w http.ResponseWriter, r *http.Request) {
	form, err := web.ReadForm(w, r)
	if err != nil {
		h.Site.Fail(w, r, http.StatusBadRequest, "")
		return
	}
	typed := form.Value("number")
	if typed == "" {
		form.Fail("number", "desk.lookup.empty")
		h.Site.Page(w, r, http.StatusUnprocessableEntity, "desk/lookup", lookupPage{view: h.view(r), Form: form})
		return
	}
	m, _ := session.Staff(r.Context())
	path, err := h.find(r.Context(), m, typed)
	switch {
	case errors.Is(err, bill.ErrNotFound), errors.Is(err, payments.ErrNotFound), errors.Is(err, errForbidden):
		// Another department's is as good as none: this form must not be a way to
		// find out which numbers exist.
		form.Fail("number", missing(typed))
		h.Site.Page(w, r, http.StatusNotFound, "desk/lookup", lookupPage{view: h.view(r), Form: form})
	case err != nil:
		h.fail(w, r, "look up", err)
	default:
		if why := form.Value("purpose"); slices.Contains(purposes, why) {
			path += "?for=" + why
		}
		h.see(w, r, path)
	}
}

// purposes are why somebody looks at a person's bill, as the form asks.
var purposes = []string{"call", "counter", "letter", "check"}

// missing says that nothing was found, or that the number was misheard: its check
// character finds that without looking.
func missing(typed string) string {
	if _, ok := id.Normalize(typed); !ok && !isNumber(typed) {
		return "desk.lookup.slip"
	}
	return "desk.lookup.not_found"
}

func isNumber(typed string) bool {
	_, err := strconv.ParseInt(typed, 10, 64)
	return err == nil
}

// find returns the page of a notice number, a payment reference or a receipt number.
func (h *Handler) find(ctx context.Context, m staff.Member, typed string) (path string, err error) {
	b, err := bill.ByNotice(ctx, h.DB, typed)
	if err == nil {
		return "/desk/lookup/bills/" + b.ID, mayLookUp(m, b)
	}
	if !errors.Is(err, bill.ErrNotFound) {
		return "", err
	}
	p, err := payments.ByReference(ctx, h.DB, typed)
	if errors.Is(err, payments.ErrNotFound) {
		number, bad := strconv.ParseInt(strings.TrimPrefix(typed, "#"), 10, 64)
		if bad != nil {
			return "", err
		}
		p, err = payments.ByReceiptNumber(ctx, h.DB, number)
	}
	if err != nil {
		return "", err
	}
	bills, err := bill.Load(ctx, h.DB, billIDs(p))
	if err != nil {
		return "", err
	}
	return "/desk/lookup/payments/" + p.ID, mayLookUp(m, bills...)
}

// mayLookUp reports errForbidden unless the member may look up one of the bills.
func mayLookUp(m staff.Member, bills ...bill.Bill) error {
	for _, b := range bills {
		if hasAny(m, lookUp, b.DepartmentID) {
			return nil
		}
	}
	return errForbidden
}

func billIDs(p payments.Payment) []string {
	var ids []string
	for _, a := range p.Allocations {
		if !slices.Contains(ids, a.BillID) {
			ids = append(ids, a.BillID)
		}
	}
	return ids
}

// viewed writes down that the reader has seen somebody's bill or payment, and why if the
// look-up form said it. It comes
// before the page: what cannot be written down is not shown.
func (h *Handler) viewed(r *http.Request, objectType, objectID, residentID string) error {
	details := map[string]any{}
	if why := r.URL.Query().Get("for"); slices.Contains(purposes, why) {
		details["purpose"] = why
	}
	return pgx.BeginFunc(r.Context(), h.DB, func(tx pgx.Tx) error {
		return audit.Record(r.Context(), tx, audit.Event{Action: "staff.viewed", ObjectType: objectType, ObjectID: objectID, Subject: residentID, At: h.Now(), Details: details})
	})
}

// person is whom a bill belongs to, as far as the reader may know.
type person struct {
	State string // none: nobody has claimed it; hidden, gone, known, or party: others act for it
	identity.Resident
}

// personOf joins the resident of a bill, for those who speak with residents.
func (h *Handler) personOf(ctx context.Context, m staff.Member, residentID string, departmentIDs ...string) (person, error) {
	mayKnow := slices.ContainsFunc(departmentIDs, func(d string) bool { return hasAny(m, frontLine, d) })
	switch {
	case residentID == "":
		return person{State: "none"}, nil
	case !mayKnow:
		return person{State: "hidden"}, nil
	}
	who, err := h.People.Resident(ctx, residentID)
	if errors.Is(err, identity.ErrNotFound) { // a business, a child, an estate
		party, err := h.Acting.Party(ctx, residentID)
		if err == nil && party.Name != "" {
			return person{"party", identity.Resident{Name: party.Name}}, nil
		}
		if err != nil && !errors.Is(err, delegation.ErrNotFound) {
			return person{}, err
		}
	}
	switch {
	case errors.Is(err, identity.ErrForgotten), errors.Is(err, identity.ErrNotFound):
		return person{State: "gone"}, nil
	case err != nil:
		return person{}, err
	}
	return person{"known", who}, nil
}

// billPage is a bill as staff see it.
type billPage struct {
	view
	Bill     bill.Bill
	Quote    bill.Quote
	Lines    []billLine
	Owner    person
	Parts    []payments.Part
	History  []step
	Traces   []trace // of its payments, for the money rooms
	BeingNow bool    // somebody is paying it at this moment
}

// billLine is a line with what is due of it today.
type billLine struct {
	bill.Line
	Due money.Amount
}

// Billed is the line as it stands in the books.
func (l billLine) Billed() money.Amount {
	if l.Crystallised {
		return l.Net + l.Tax + l.Step
	}
	return l.Net + l.Tax
}

// Received is what was paid of the line.
func (l billLine) Received() money.Amount { return l.PaidNet + l.PaidStep + l.PaidTax }

// trace is the way of one payment.
type trace struct {
	Reference string
	reconcile.Trace
}

// Overdue reports whether the bill is late.
func (p billPage) Overdue() bool { return p.Bill.Overdue(p.Today) }

func (h *Handler) bill(w http.ResponseWriter, r *http.Request) {
	v, ok := h.named(w, r)
	if !ok {
		return
	}
	p := billPage{view: v}
	b, err := bill.ByID(r.Context(), h.DB, chi.URLParam(r, "id"))
	if err == nil {
		err = mayLookUp(p.Member, b)
	}
	if err == nil {
		err = h.viewed(r, "bill", b.ID, b.ResidentID)
	}
	if err == nil {
		err = h.readBill(r.Context(), b.ID, &p)
	}
	if err != nil {
		h.fail(w, r, "look up bill", err)
		return
	}
	h.Site.Page(w, r, http.StatusOK, "desk/bill", p)
}

func (h *Handler) readBill(ctx context.Context, billID string, p *billPage) error {
	err := h.snapshot(ctx, func(tx pgx.Tx) (err error) {
		if p.Bill, err = bill.ByID(ctx, tx, billID); err != nil {
			return err
		}
		if p.Parts, err = payments.OfBill(ctx, tx, billID); err != nil {
			return err
		}
		events, err := bill.History(ctx, tx, billID)
		if err != nil {
			return err
		}
		for _, e := range events {
			p.History = append(p.History, p.step("bill", e.To, e.Cause, e.At))
		}
		return h.readTraces(ctx, tx, p)
	})
	if err != nil {
		return err
	}
	p.Quote = p.Bill.Quote(p.Today)
	for i, l := range p.Bill.Lines {
		line := billLine{Line: l}
		for _, q := range p.Quote.Lines {
			if q.Line == i+1 {
				line.Due = q.Total()
			}
		}
		p.Lines = append(p.Lines, line)
	}
	p.BeingNow = p.Bill.BeingPaidUntil.After(h.Now())
	p.Owner, err = h.personOf(ctx, p.Member, p.Bill.ResidentID, p.Bill.DepartmentID)
	return err
}

// readTraces follows the money of a bill's payments, for those who may open the
// money rooms.
func (h *Handler) readTraces(ctx context.Context, tx pgx.Tx, p *billPage) error {
	if !p.MayWatch() {
		return nil
	}
	for _, part := range p.Parts {
		if part.State != payments.Succeeded {
			continue
		}
		t, err := reconcile.TraceOf(ctx, tx, part.PaymentID, []string{p.Bill.Department})
		if errors.Is(err, reconcile.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		p.Traces = append(p.Traces, trace{part.Reference, t})
	}
	return nil
}

// paymentPage is a payment as staff see it.
type paymentPage struct {
	view
	Payment payments.Payment
	Receipt *payments.Receipt // nil: not numbered
	Bills   []paidBill        // that the reader may look up
	Others  int               // bills of departments that the reader may not
	Payer   person
	History []step
	Trace   *reconcile.Trace // for the money rooms; nil: not paid out yet
}

// CardBrand is the card's network as it writes itself.
func (p paymentPage) CardBrand() string { return document.Brand(p.Payment.Card.Brand) }

// paidBill is a bill with what the payment is for.
type paidBill struct {
	bill.Bill
	Amount money.Amount
	Credit bool
}

// Title is what the bill is for: its first line.
func (b paidBill) Title(lang string) string { return b.Lines[0].Description(lang) }

func (h *Handler) payment(w http.ResponseWriter, r *http.Request) {
	v, ok := h.named(w, r)
	if !ok {
		return
	}
	p := paymentPage{view: v}
	found, err := payments.Get(r.Context(), h.DB, chi.URLParam(r, "id"))
	var bills []bill.Bill
	if err == nil {
		bills, err = bill.Load(r.Context(), h.DB, billIDs(found))
	}
	if err == nil {
		err = mayLookUp(p.Member, bills...)
	}
	if err == nil {
		err = h.viewed(r, "payment", found.ID, found.ResidentID)
	}
	if err == nil {
		err = h.readPayment(r.Context(), found.ID, &p)
	}
	if err != nil {
		h.fail(w, r, "look up payment", err)
		return
	}
	h.Site.Page(w, r, http.StatusOK, "desk/payment", p)
}

func (h *Handler) readPayment(ctx context.Context, paymentID string, p *paymentPage) error {
	var departments []string // ids, of the bills shown
	err := h.snapshot(ctx, func(tx pgx.Tx) (err error) {
		if p.Payment, err = payments.Get(ctx, tx, paymentID); err != nil {
			return err
		}
		if departments, err = h.readPaidBills(ctx, tx, p); err != nil {
			return err
		}
		receipt, err := payments.ReceiptOf(ctx, tx, paymentID)
		if err == nil {
			p.Receipt = &receipt
		} else if !errors.Is(err, payments.ErrNotFound) {
			return err
		}
		events, err := payments.History(ctx, tx, paymentID)
		if err != nil {
			return err
		}
		for _, e := range events {
			p.History = append(p.History, p.step("payment", e.To, e.Cause, e.At))
		}
		if !p.MayWatch() {
			return nil
		}
		var codes []string
		for _, b := range p.Bills {
			codes = append(codes, b.Department)
		}
		t, err := reconcile.TraceOf(ctx, tx, paymentID, codes)
		if err == nil {
			p.Trace = &t
		} else if !errors.Is(err, reconcile.ErrNotFound) {
			return err
		}
		return nil
	})
	if err != nil {
		return err
	}
	p.Payer, err = h.personOf(ctx, p.Member, p.Payment.ResidentID, departments...)
	return err
}

// readPaidBills reads the payment's bills that the reader may look up, and returns
// their departments.
func (h *Handler) readPaidBills(ctx context.Context, tx pgx.Tx, p *paymentPage) (departments []string, err error) {
	bills, err := bill.Load(ctx, tx, billIDs(p.Payment))
	if err != nil {
		return nil, err
	}
	credits, err := payments.Credited(ctx, tx, p.Payment.ID)
	if err != nil {
		return nil, err
	}
	for _, b := range bills {
		if mayLookUp(p.Member, b) != nil {
			p.Others++
			continue
		}
		paid := paidBill{Bill: b}
		for _, a := range p.Payment.Allocations {
			if a.BillID == b.ID {
				paid.Amount += a.Total()
			}
		}
		_, paid.Credit = credits[b.ID]
		p.Bills = append(p.Bills, paid)
		departments = append(departments, b.DepartmentID)
	}
	return departments, nil
}
