package desk

import (
	"context"
	"net/http"
	"strings"

	"github.com/go-chi/chi/v5"
	"github.com/jackc/pgx/v5"

	"guichet/api/web"
	"guichet/internal/table"
	"guichet/reconcile"
)

// refusedShown is how many refused files the page of the bank lists.
const refusedShown = 20

// bankPage lists the statements.
type bankPage struct {
	view
	Rows    []reconcile.Statement
	Pages   web.Pagination
	Refused []reconcile.RefusedFile
}

func (h *Handler) bank(w http.ResponseWriter, r *http.Request) {
	p := bankPage{view: h.view(r)}
	list, err := reconcile.ListStatements(r.Context(), h.DB, p.page(pageRows))
	if err != nil {
		h.fail(w, r, "list statements", err)
		return
	}
	p.Rows, p.Pages = cut(p.view, list, pageRows)
	if p.Refused, err = reconcile.RefusedFiles(r.Context(), h.DB, refusedShown); err != nil {
		h.fail(w, r, "list refused files", err)
		return
	}
	h.Site.Page(w, r, http.StatusOK, "desk/bank", p)
}

func (h *Handler) bankTable(ctx context.Context, _ view, _ *http.Request) (table.Table, error) {
	list, err := reconcile.ListStatements(ctx, h.DB, wholeList)
	if err != nil {
		return table.Table{}, err
	}
	return tableOf(h, "bank-statements", "", []table.Column{
		table.Text("statement"), table.Text("account"), table.Day("opening_on"), table.Day("closing_on"), table.Amount("opening"), table.Amount("closing"), table.Text("currency"),
		table.Count("lines"), table.Count("unexplained"), table.Text("file"), table.Moment("received"),
	}, list, func(s reconcile.Statement) []any {
		return []any{s.Number, s.Account, s.OpeningOn, s.ClosingOn, s.Opening, s.Closing, s.Currency, s.Lines, s.Unexplained, s.File, s.ReceivedAt}
	})
}

// lineRow is a bank line in a list.
type lineRow struct{ reconcile.LineRow }

// State says where a line stands, for its tag.
func (l lineRow) State() string {
	switch l.PayoutState {
	case "":
		return "unexplained"
	case reconcile.Settled, reconcile.Returned:
		return "explained"
	}
	return "in-progress"
}

// Reference is what the bank wrote to tell the line by.
func (l lineRow) Reference() string { return strings.Join(l.Refs, " · ") }

func lineRows(list []reconcile.LineRow) []lineRow {
	rows := make([]lineRow, len(list))
	for i, l := range list {
		rows[i] = lineRow{l}
	}
	return rows
}

// statementPage is one statement with its lines.
type statementPage struct {
	view
	Statement reconcile.Statement
	Lines     []lineRow
	Pages     web.Pagination
}

func (h *Handler) statement(w http.ResponseWriter, r *http.Request) {
	p, statementID := statementPage{view: h.view(r)}, chi.URLParam(r, "id")
	err := h.snapshot(r.Context(), func(tx pgx.Tx) (err error) {
		if p.Statement, err = reconcile.StatementByID(r.Context(), tx, statementID); err != nil {
			return err
		}
		list, err := reconcile.ListBankLines(r.Context(), tx, reconcile.LineFilter{StatementID: statementID}, p.page(pageRows))
		list, p.Pages = cut(p.view, list, pageRows)
		p.Lines = lineRows(list)
		return err
	})
	if err != nil {
		h.fail(w, r, "read statement", err)
		return
	}
	h.Site.Page(w, r, http.StatusOK, "desk/statement", p)
}

// linesPage lists bank lines over all statements.
type linesPage struct {
	view
	Lines  []lineRow
	Pages  web.Pagination
	States []option
	On     string
}

func lineFilter(v view) (f reconcile.LineFilter, err error) {
	f.Unexplained, f.StatementID = v.query.Get("state") == "unexplained", v.query.Get("statement")
	f.On, err = v.date("on")
	return f, err
}

func (h *Handler) bankLines(w http.ResponseWriter, r *http.Request) {
	p := linesPage{view: h.view(r)}
	p.States, p.On = choices(p.view, "state", "line_state", []string{"unexplained"}), p.query.Get("on")
	f, err := lineFilter(p.view)
	if err != nil {
		h.fail(w, r, "read filter", err)
		return
	}
	list, err := reconcile.ListBankLines(r.Context(), h.DB, f, p.page(pageRows))
	if err != nil {
		h.fail(w, r, "list bank lines", err)
		return
	}
	list, p.Pages = cut(p.view, list, pageRows)
	p.Lines = lineRows(list)
	h.Site.Page(w, r, http.StatusOK, "desk/lines", p)
}

func (h *Handler) bankLinesTable(ctx context.Context, v view, _ *http.Request) (table.Table, error) {
	f, err := lineFilter(v)
	if err != nil {
		return table.Table{}, err
	}
	list, err := reconcile.ListBankLines(ctx, h.DB, f, wholeList)
	if err != nil {
		return table.Table{}, err
	}
	return tableOf(h, "bank-lines", "", []table.Column{
		table.Text("statement"), table.Count("line"), table.Day("booked"), table.Day("value"), table.Amount("amount"), table.Text("currency"), table.Text("reference"),
		table.Text("code"), table.Text("text"), table.Text("state"), table.Text("payout"), table.Text("rule"),
	}, lineRows(list), func(l lineRow) []any {
		return []any{l.Statement, l.Number, l.BookedOn, l.ValueOn, l.Amount, l.Currency, l.Reference(), l.Code, l.Text, l.State(), l.PayoutID, l.Rule}
	})
}

// linePage is one bank line and what explains it.
type linePage struct {
	view
	Line   lineRow
	Payout reconcile.Payout
	Match  reconcile.PayoutMatch
}

func (h *Handler) bankLine(w http.ResponseWriter, r *http.Request) {
	p := linePage{view: h.view(r)}
	if err := h.readLine(r.Context(), chi.URLParam(r, "id"), &p); err != nil {
		h.fail(w, r, "read bank line", err)
		return
	}
	h.Site.Page(w, r, http.StatusOK, "desk/line", p)
}

func (h *Handler) readLine(ctx context.Context, lineID string, p *linePage) error {
	err := h.snapshot(ctx, func(tx pgx.Tx) error {
		list, err := reconcile.ListBankLines(ctx, tx, reconcile.LineFilter{LineID: lineID}, reconcile.Page{Limit: 1})
		if err != nil {
			return err
		}
		if len(list) == 0 || lineID == "" {
			return reconcile.ErrNotFound
		}
		if p.Line = (lineRow{list[0]}); p.Line.PayoutID == "" {
			return nil
		}
		p.Payout, p.Match, err = reconcile.PayoutByID(ctx, tx, p.Line.PayoutID)
		return err
	})
	if err != nil {
		return err
	}
	return h.who(ctx, &p.view, p.Match.By)
}
