package desk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/jackc/pgx/v5"

	"guichet/api/web"
	"guichet/internal/clock"
	"guichet/internal/money"
	"guichet/internal/table"
	"guichet/ledger"
	"guichet/payments/bill"
	"guichet/reconcile"
)

// todayPage is the desk at a glance.
type todayPage struct {
	view
	Day        reconcile.Day
	Known      bool       // a nightly run has ended
	Before     clock.Date // the days beside it
	After      clock.Date // zero: that is the future
	Movement   clock.Date // the last day on which something moved, when this one is quiet
	Exceptions exceptionTable
	Run        *reconcile.RunState // the latest; nil: none yet
	Owing      []owing
	Total      owing
}

// side is one of the four totals.
type side struct {
	Name  string
	Href  string
	Total reconcile.Total
	First bool
	Gap   money.Amount // from the side before
	Rest  money.Amount // of it, without an explanation
	Items []reconcile.DayItem
}

// Sides are the four totals in the order of the money.
func (p todayPage) Sides() []side {
	on := "?on=" + p.Day.Date.String()
	sides := []side{
		{Name: "processor", Href: "/desk/payouts" + on, Total: p.Day.Processor, First: true},
		{Name: "bank", Href: "/desk/bank/lines" + on, Total: p.Day.Bank},
		{Name: "ledger", Href: "/desk/ledger/accounts/" + reconcile.BankAccount, Total: p.Day.Ledger},
		{Name: "sap", Href: "/desk/sap" + on, Total: p.Day.SAP},
	}
	for i := range sides[1:] {
		s := &sides[i+1]
		s.Gap, s.Rest = p.Day.Gap(s.Name), p.Day.Rest(s.Name)
		for _, item := range p.Day.Items {
			if item.Side == s.Name {
				s.Items = append(s.Items, item)
			}
		}
	}
	return sides
}

// ItemHref is where what explains a difference is shown.
func (p todayPage) ItemHref(i reconcile.DayItem) string {
	switch i.Kind {
	case reconcile.DayNotBooked, reconcile.DayOther, reconcile.DayNotInBooks:
		return "/desk/payouts/" + i.Object
	case reconcile.DayUnexplained:
		return "/desk/bank/lines?state=unexplained&on=" + p.Day.Date.String()
	case reconcile.DayNotPosted:
		return "/desk/sap/documents/" + i.Object
	}
	return "/desk/exceptions"
}

// owing is a department's open bills beside what its receivable account holds.
type owing struct {
	bill.Owing
	Books money.Amount
}

// Agrees reports that the bills are what the books say.
func (o owing) Agrees() bool { return o.Books == o.Amount }

// exceptionTable counts open exceptions, a row per kind and a column per age.
type exceptionTable struct {
	Rows   []exceptionRow
	Count  int
	Amount money.Amount
}

type exceptionRow struct {
	Kind   reconcile.Kind
	Cells  []exceptionCell
	Count  int
	Amount money.Amount
}

type exceptionCell struct {
	Age   reconcile.Age
	Count int
}

func exceptionTableOf(counts []reconcile.ExceptionCount) exceptionTable {
	var t exceptionTable
	for _, c := range counts { // ordered by kind
		if len(t.Rows) == 0 || t.Rows[len(t.Rows)-1].Kind != c.Kind {
			row := exceptionRow{Kind: c.Kind}
			for _, age := range reconcile.Ages() {
				row.Cells = append(row.Cells, exceptionCell{Age: age})
			}
			t.Rows = append(t.Rows, row)
		}
		row := &t.Rows[len(t.Rows)-1]
		for i := range row.Cells {
			if row.Cells[i].Age == c.Age {
				row.Cells[i].Count = c.Count
			}
		}
		row.Count += c.Count
		row.Amount += c.Amount
		t.Count += c.Count
		t.Amount += c.Amount
	}
	return t
}

// Ages are the columns of the exceptions.
func (todayPage) Ages() []reconcile.Age { return reconcile.Ages() }

func (h *Handler) today(w http.ResponseWriter, r *http.Request) {
	p := todayPage{view: h.view(r)}
	on, err := p.date("on")
	if err != nil {
		h.fail(w, r, "read date", err)
		return
	}
	if on.After(p.Today) {
		on = p.Today
	}
	err = h.snapshot(r.Context(), func(tx pgx.Tx) error { return h.readToday(r.Context(), tx, on, &p) })
	if err != nil {
		h.fail(w, r, "read the day", err)
		return
	}
	h.Site.Page(w, r, http.StatusOK, "desk/today", p)
}

func (h *Handler) readToday(ctx context.Context, tx pgx.Tx, on clock.Date, p *todayPage) error {
	last, err := reconcile.LastDay(ctx, tx)
	if err != nil && !errors.Is(err, reconcile.ErrNotFound) {
		return err
	}
	p.Known = err == nil
	if on == (clock.Date{}) {
		if on = last; !p.Known {
			on = p.Today
		}
	}
	if p.Day, err = reconcile.DayOf(ctx, tx, on); err != nil {
		return err
	}
	p.Before = on.AddDays(-1)
	if on.Before(p.Today) {
		p.After = on.AddDays(1)
	}
	if p.Day.Quiet() {
		p.Movement, err = reconcile.LastMovement(ctx, tx, p.Today)
		if err != nil && !errors.Is(err, reconcile.ErrNotFound) {
			return err
		}
	}
	counts, err := reconcile.CountExceptions(ctx, tx, p.Today)
	if err != nil {
		return err
	}
	p.Exceptions = exceptionTableOf(counts)
	runs, err := reconcile.Runs(ctx, tx, 1)
	if err != nil {
		return err
	}
	if len(runs) > 0 {
		p.Run = &runs[0]
	}
	if p.Owing, err = h.owing(ctx, tx); err != nil {
		return err
	}
	for _, o := range p.Owing {
		p.Total.Bills += o.Bills
		p.Total.Amount += o.Amount
		p.Total.Overdue += o.Overdue
		p.Total.OverdueAmount += o.OverdueAmount
		p.Total.Books += o.Books
	}
	return nil
}

// owing is what is open today, by department.
func (h *Handler) owing(ctx context.Context, tx pgx.Tx) ([]owing, error) {
	list, err := bill.OwingByDepartment(ctx, tx, h.day())
	if err != nil {
		return nil, err
	}
	out := make([]owing, len(list))
	for i, o := range list {
		books, err := h.Books.Balance(ctx, tx, bill.Receivable(o.Department))
		if err != nil && !errors.Is(err, ledger.ErrUnknownAccount) { // a department that has not billed yet
			return nil, err
		}
		out[i] = owing{o, books}
	}
	return out, nil
}

func (h *Handler) owingTable(ctx context.Context, v view, _ *http.Request) (table.Table, error) {
	var list []owing
	err := h.snapshot(ctx, func(tx pgx.Tx) (err error) {
		list, err = h.owing(ctx, tx)
		return err
	})
	if err != nil {
		return table.Table{}, err
	}
	return tableOf(h, "receivables", "receivables-"+h.day().String(), []table.Column{
		table.Text("department"), table.Count("open_bills"), table.Amount("open_amount"), table.Count("overdue_bills"), table.Amount("overdue_amount"), table.Amount("in_books"),
		table.Text("currency"),
	}, list, func(o owing) []any {
		return []any{o.Name(v.Lang), o.Bills, o.Amount, o.Overdue, o.OverdueAmount, o.Books, money.CAD}
	})
}

// RunState is the run's state, told as failed when a step of it is: a failed run
// goes on by itself, but somebody should know.
func (p todayPage) RunState() string {
	for _, s := range p.Run.Steps {
		if s.State == "failed" {
			return "failed"
		}
	}
	return p.Run.State
}

// resultWords are what steps count, in the order in which they are told.
var resultWords = []string{
	"transactions", "files", "statements", "duplicates", "lines", "payouts", "itemised", "ties", "unmatched_lines", "missing_payouts",
	"payments", "unexplained", "explained_late", "unposted", "credits", "batches", "documents", "entries", "delivered", "waiting", "answers", "posted", "rejected", "refused",
}

// Results tells what a step did: what it counted, without what was none.
func (p todayPage) Results(s reconcile.StepState) ([]web.Message, error) {
	var counts map[string]any
	if err := json.Unmarshal([]byte(s.Result), &counts); err != nil {
		return nil, fmt.Errorf("result of step %s: %w", s.Name, err)
	}
	var list []web.Message
	for _, word := range resultWords {
		if n, ok := counts[word].(float64); ok && n != 0 {
			list = append(list, web.Say("desk.result."+word, "Count", int(n)))
		}
	}
	return list, nil
}
