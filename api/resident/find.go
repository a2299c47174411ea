package resident

import (
	"errors"
	"math"
	"net/http"
	"net/url"
	"strconv"

	"github.com/go-chi/chi/v5"
	"github.com/jackc/pgx/v5"

	"guichet/api/session"
	"guichet/api/web"
	"guichet/identity"
	"guichet/identity/delegation"
	"guichet/internal/audit"
	"guichet/internal/id"
	"guichet/payments"
	"guichet/payments/bill"
)

// findPage is the form for one notice, and what it found when there is nothing to pay.
type findPage struct {
	Form *web.Form
	Done *bill.Bill
}

// Paid tells a bill that was paid from one that was withdrawn.
func (p findPage) Paid() bool { return p.Done != nil && p.Done.State == bill.Paid }

// findPage shows the form, with the notice number of the link that departments give
// their payers.
func (h *Handler) findPage(w http.ResponseWriter, r *http.Request) {
	var page findPage
	if notice := r.URL.Query().Get("notice"); notice != "" {
		page.Form = &web.Form{Values: url.Values{"notice": {notice}}}
	}
	h.Site.Page(w, r, http.StatusOK, "resident/find", page)
}

// find looks for a notice with its second factor. Until both fit, every answer is
// the same; only a slip of the pen, which the check character finds without looking, has its own.
func (h *Handler) find(w http.ResponseWriter, r *http.Request) {
	form, err := web.ReadForm(w, r)
	if err != nil {
		h.Site.Fail(w, r, http.StatusBadRequest, "")
		return
	}
	notice, whole := id.Normalize(form.Value("notice"))
	if form.Value("notice") == "" {
		form.Fail("notice", "resident.find.notice_empty")
	} else if !whole {
		form.Fail("notice", "resident.find.notice_slip")
	}
	if form.Value("key") == "" {
		form.Fail("key", "resident.find.key_empty")
	}
	if !form.OK() {
		h.Site.Page(w, r, http.StatusUnprocessableEntity, "resident/find", findPage{Form: form})
		return
	}
	if err := h.takeTry(r, notice); err != nil {
		h.limited(w, r, notice, err)
		return
	}
	b, err := h.Bills.ForGuest(r.Context(), notice, form.Value("key"))
	switch {
	case errors.Is(err, bill.ErrNotFound):
		form.Fail("notice", "resident.find.not_found")
		h.Site.Page(w, r, http.StatusNotFound, "resident/find", findPage{Form: form})
		return
	case err != nil:
		h.fail(w, r, "find notice", err)
		return
	case !b.State.Payable():
		h.Site.Page(w, r, http.StatusOK, "resident/find", findPage{Done: &b})
		return
	}
	if !may(r.Context(), delegation.PayBills, b.Department) {
		h.fail(w, r, "open checkout", errNoRight)
		return
	}
	checkoutID, _, err := h.Payments.Open(r.Context(), payments.NewCheckout{
		BillIDs: []string{b.ID}, Channel: "web", Viewer: h.owner(w, r), Lang: web.Lang(r),
	})
	if err != nil {
		h.fail(w, r, "open checkout", err)
		return
	}
	h.see(w, r, "/checkout/"+checkoutID)
}

// takeTry counts a try at a notice, whether it exists or not, and one of its network.
func (h *Handler) takeTry(r *http.Request, notice string) error {
	network := session.Visitor(r).Network
	return pgx.BeginFunc(r.Context(), h.DB, func(tx pgx.Tx) error {
		if err := h.People.Take(r.Context(), tx, "notice", network+"\x00"+notice, h.Limits.Notice); err != nil {
			return err
		}
		if err := h.People.Take(r.Context(), tx, "notice-total", notice, h.Limits.Total); err != nil {
			return err
		}
		return h.People.Take(r.Context(), tx, "notice-network", network, h.Limits.Network)
	})
}

func (h *Handler) limited(w http.ResponseWriter, r *http.Request, notice string, err error) {
	var limit *identity.LimitedError
	if !errors.As(err, &limit) {
		h.fail(w, r, "count tries at a notice", err)
		return
	}
	h.People.NoteLimited(r.Context(), audit.Event{Action: "notice.limited", ObjectType: "notice", ObjectID: notice}, session.Visitor(r))
	w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(limit.After.Seconds()))))
	h.Site.Fail(w, r, http.StatusTooManyRequests, "")
}

// enter follows the link of a checkout that a department opened for its payer.
func (h *Handler) enter(w http.ResponseWriter, r *http.Request) {
	checkoutID, err := h.Payments.Enter(r.Context(), chi.URLParam(r, "token"), h.guest(w, r).GuestHash)
	if err != nil {
		h.fail(w, r, "enter checkout", err)
		return
	}
	h.see(w, r, "/checkout/"+checkoutID)
}
