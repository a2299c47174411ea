package desk

import (
	"context"
	"net/http"

	"github.com/go-chi/chi/v5"
	"github.com/jackc/pgx/v5"

	"guichet/api/web"
	"guichet/internal/money"
	"guichet/internal/table"
	"guichet/payments"
	"guichet/reconcile"
)

// payoutsPage lists what the processor paid out.
type payoutsPage struct {
	view
	Rows   []reconcile.PayoutRow
	Pages  web.Pagination
	States []option
	On     string
}

var payoutStates = []reconcile.PayoutState{
	reconcile.Announced, reconcile.Itemised, reconcile.Matched, reconcile.Settled, reconcile.Failed, reconcile.Returned,
}

// payoutFilter reads the filter of the list from the address.
func payoutFilter(v view) (f reconcile.PayoutFilter, err error) {
	f.State = reconcile.PayoutState(v.query.Get("state"))
	f.On, err = v.date("on")
	return f, err
}

func (h *Handler) payouts(w http.ResponseWriter, r *http.Request) {
	p := payoutsPage{view: h.view(r)}
	p.States, p.On = choices(p.view, "state", "payout_state", payoutStates), p.query.Get("on")
	f, err := payoutFilter(p.view)
	if err != nil {
		h.fail(w, r, "read filter", err)
		return
	}
	list, err := reconcile.ListPayouts(r.Context(), h.DB, f, p.page(pageRows))
	if err != nil {
		h.fail(w, r, "list payouts", err)
		return
	}
	p.Rows, p.Pages = cut(p.view, list, pageRows)
	h.Site.Page(w, r, http.StatusOK, "desk/payouts", p)
}

func (h *Handler) payoutsTable(ctx context.Context, v view, _ *http.Request) (table.Table, error) {
	f, err := payoutFilter(v)
	if err != nil {
		return table.Table{}, err
	}
	list, err := reconcile.ListPayouts(ctx, h.DB, f, wholeList)
	if err != nil {
		return table.Table{}, err
	}
	return tableOf(h, "payouts", "", []table.Column{
		table.Text("payout"), table.Moment("created"), table.Day("announced"), table.Day("booked"), table.Amount("amount"), table.Text("currency"),
		table.Text("state"), table.Text("trace"), table.Text("rule"), table.Text("bank_line"),
	}, list, func(o reconcile.PayoutRow) []any {
		return []any{o.ID, o.CreatedAt, o.ArrivalOn, o.BookedOn, o.Amount, o.Currency, string(o.State), o.TraceID, o.Rule, o.BankLine}
	})
}

// payoutPage is one payout: the bank line that it is, and what is in it.
type payoutPage struct {
	view
	Payout      reconcile.Payout
	Match       reconcile.PayoutMatch // zero: none
	Suggestions []reconcile.Suggestion
	Sums        reconcile.PayoutSums
	Lines       []payoutLine
	Pages       web.Pagination
	History     []step
	Entries     []entryRow
	Moved       money.Amount // by which the entries move the bank account: the payout
}

// payoutLine is one line with the payment that explains it.
type payoutLine struct {
	reconcile.PayoutLine
	Payment payments.Brief // zero: none
}

// State says where a line stands, for its tag.
func (l payoutLine) State() string {
	switch {
	case l.IsFee:
		return "fee"
	case l.PaymentID != "":
		return "explained"
	case l.Waits, l.ExceptionID == "":
		return "unexplained"
	}
	return "unexplained-settled"
}

func (h *Handler) payout(w http.ResponseWriter, r *http.Request) {
	v, ok := h.named(w, r)
	if !ok {
		return
	}
	p := payoutPage{view: v}
	if err := h.snapshot(r.Context(), func(tx pgx.Tx) error { return h.readPayout(r.Context(), tx, chi.URLParam(r, "id"), &p) }); err != nil {
		h.fail(w, r, "read payout", err)
		return
	}
	if err := h.who(r.Context(), &p.view, p.Match.By); err != nil {
		h.fail(w, r, "read payout", err)
		return
	}
	h.Site.Page(w, r, http.StatusOK, "desk/payout", p)
}

func (h *Handler) readPayout(ctx context.Context, tx pgx.Tx, payoutID string, p *payoutPage) (err error) {
	if p.Payout, p.Match, err = reconcile.PayoutByID(ctx, tx, payoutID); err != nil {
		return err
	}
	if p.Match.Rule == "" {
		if p.Suggestions, err = reconcile.SuggestionsOf(ctx, tx, payoutID); err != nil {
			return err
		}
	}
	if p.Sums, err = reconcile.SumsOf(ctx, tx, payoutID); err != nil {
		return err
	}
	lines, err := h.payoutLines(ctx, tx, payoutID, p.page(pageRows))
	if err != nil {
		return err
	}
	p.Lines, p.Pages = cut(p.view, lines, pageRows)
	events, err := reconcile.PayoutHistory(ctx, tx, payoutID)
	if err != nil {
		return err
	}
	p.History = stepsOf(p.view, "payout", events)
	entries, err := h.Books.EntriesBySource(ctx, tx, "payout", payoutID, "", 200)
	for _, e := range entries {
		p.Entries = append(p.Entries, entryRow{e})
		p.Moved += entryRow{e}.Bank()
	}
	return err
}

func (h *Handler) payoutLines(ctx context.Context, tx pgx.Tx, payoutID string, page reconcile.Page) ([]payoutLine, error) {
	lines, err := reconcile.PayoutLines(ctx, tx, payoutID, page)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, l := range lines {
		if l.PaymentID != "" {
			ids = append(ids, l.PaymentID)
		}
	}
	briefs, err := payments.Briefs(ctx, tx, ids)
	if err != nil {
		return nil, err
	}
	list := make([]payoutLine, len(lines))
	for i, l := range lines {
		list[i] = payoutLine{l, briefs[l.PaymentID]}
	}
	return list, nil
}

// payoutLinesTable has a row for each bill of each line: the whole way down. Amounts
// of a line stand on its first row only, so that a column can be added up.
func (h *Handler) payoutLinesTable(ctx context.Context, _ view, r *http.Request) (table.Table, error) {
	payoutID := chi.URLParam(r, "id")
	var lines []payoutLine
	var payout reconcile.Payout
	err := h.snapshot(ctx, func(tx pgx.Tx) (err error) {
		if payout, _, err = reconcile.PayoutByID(ctx, tx, payoutID); err != nil {
			return err
		}
		lines, err = h.payoutLines(ctx, tx, payoutID, wholeList)
		return err
	})
	if err != nil {
		return table.Table{}, err
	}
	type row struct {
		line  payoutLine
		first bool
		bill  payments.BriefBill
	}
	var rows []row
	for _, l := range lines {
		bills := l.Payment.Bills
		if len(bills) == 0 {
			bills = []payments.BriefBill{{}}
		}
		for i, b := range bills {
			rows = append(rows, row{line: l, first: i == 0, bill: b})
		}
	}
	return tableOf(h, "payout-lines", "payout-"+payoutID, []table.Column{
		table.Text("line"), table.Moment("created"), table.Text("category"), table.Amount("gross"), table.Amount("fee"), table.Amount("net"), table.Text("currency"),
		table.Text("state"), table.Text("rule"), table.Text("payment"), table.Count("receipt"), table.Text("notice"), table.Text("department"),
	}, rows, func(x row) []any {
		l := x.line
		amounts := []any{nil, nil, nil}
		if x.first {
			amounts = []any{l.Amount, l.Fee, l.Net}
		}
		return append(append([]any{l.ID, l.CreatedAt, l.Category}, amounts...),
			payout.Currency, l.State(), l.Rule, l.Payment.Reference, number(l.Payment.Receipt), x.bill.Notice, x.bill.Department)
	})
}

// number is a number of a series, where 0 is none.
func number(n int64) any {
	if n == 0 {
		return nil
	}
	return n
}
