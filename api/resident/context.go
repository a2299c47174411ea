package resident

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"guichet/api/session"
	"guichet/identity"
	"guichet/identity/delegation"
	"guichet/internal/audit"
	"guichet/payments"
)

// In whose name the pages of bills, checkouts and receipts work. The right is asked for
// on every request: what has ended shows and pays nothing more.

// errNoRight says that the reader acts for somebody, and not in this.
var errNoRight = errors.New("the right to act does not include this")

// inContext keeps both people in the audit of what follows, and stops a session whose
// right has ended: going on as oneself without noticing would be as wrong as going on.
func (h *Handler) inContext(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if session.ActingEnded(r.Context()) {
			h.Site.Page(w, r, http.StatusForbidden, "resident/acting-ended", nil)
			return
		}
		if d, ok := session.Acting(r.Context()); ok {
			origin := audit.From(r.Context())
			origin.OnBehalfOf = d.Party.ID
			r = r.WithContext(audit.With(r.Context(), origin))
		}
		next.ServeHTTP(w, r)
	})
}

// payer is whose bills the reader sees and pays: their own, or those of whom they act for.
func payer(ctx context.Context) payments.Viewer {
	p, ok := session.Resident(ctx)
	if !ok {
		return payments.Viewer{}
	}
	d, ok := session.Acting(ctx)
	if !ok {
		return payments.Viewer{ResidentID: p.ID}
	}
	m := &payments.Mandate{ActorID: p.ID}
	for _, l := range d.Limits {
		m.Limits = append(m.Limits, payments.SpendLimit(l))
	}
	return payments.Viewer{ResidentID: d.Party.ID, Mandate: m}
}

// may reports whether the reader may do this in a department, by code: who acts for
// themselves always may.
func may(ctx context.Context, right delegation.Right, department string) bool {
	d, ok := session.Acting(ctx)
	return !ok || d.Scope.May(right, department)
}

func mayBills(ctx context.Context, right delegation.Right, c payments.Checkout) bool {
	return !slices.ContainsFunc(c.Bills, func(b payments.DueBill) bool { return !may(ctx, right, b.Department) })
}

func mayReceipt(ctx context.Context, r payments.Receipt) bool {
	return !slices.ContainsFunc(r.Document.Departments, func(d payments.ReceiptDepartment) bool { return !may(ctx, delegation.ViewBills, d.Code) })
}

// checkout reads a checkout that the reader may see, or errNoRight when they may not do
// with it what they want to.
func (h *Handler) checkout(r *http.Request, checkoutID string, right delegation.Right) (payments.Checkout, error) {
	c, err := h.Payments.Checkout(r.Context(), h.viewer(r), checkoutID)
	switch {
	case err != nil:
		return payments.Checkout{}, err
	case !mayBills(r.Context(), delegation.ViewBills, c):
		return payments.Checkout{}, payments.ErrNotFound
	case !mayBills(r.Context(), right, c):
		return payments.Checkout{}, errNoRight
	}
	return c, nil
}

// bothPeople returns who paid a receipt in whose name, or nothing when the payer did.
func (h *Handler) bothPeople(ctx context.Context, r payments.Receipt) (by, in string, err error) {
	p, err := payments.Get(ctx, h.DB, r.PaymentID)
	if err != nil || p.ActorID == "" {
		return "", "", err
	}
	actor, err := h.People.Resident(ctx, p.ActorID)
	if err != nil && !errors.Is(err, identity.ErrForgotten) {
		return "", "", err
	}
	party, err := h.Acting.Party(ctx, p.ResidentID)
	if err != nil {
		return "", "", fmt.Errorf("whose payment: %w", err)
	}
	return actor.Name, party.Name, nil
}

// limitPage says which limit a payment would pass.
type limitPage struct {
	payments.LimitError
	Party string
}

func (h *Handler) aboveLimit(w http.ResponseWriter, r *http.Request, over *payments.LimitError) {
	d, _ := session.Acting(r.Context())
	h.Site.Page(w, r, http.StatusForbidden, "resident/acting-limit", limitPage{*over, d.Party.Name})
}
