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
	"guichet/reconcile/sap"
)

const (
	batchesShown   = 10 // on a page, each with its documents
	documentsShown = 50 // of one batch, before its own page is needed
	recordsShown   = 200
)

// sapPage lists the files for SAP with the documents in them.
type sapPage struct {
	view
	Batches []batch
	Pages   web.Pagination
	States  []option
	On      string
}

// batch is a file for SAP with the first of its documents.
type batch struct {
	reconcile.BatchRow
	List []reconcile.Document
}

// More is how many documents the list leaves out.
func (b batch) More() int { return b.Documents - len(b.List) }

func batchFilter(v view) (f reconcile.BatchFilter, err error) {
	f.Waiting = v.query.Get("state") == "waiting"
	f.On, err = v.date("on")
	return f, err
}

func (h *Handler) sap(w http.ResponseWriter, r *http.Request) {
	v, ok := h.named(w, r)
	if !ok {
		return
	}
	p := sapPage{view: v}
	p.States, p.On = choices(p.view, "state", "filter", []string{"waiting"}), p.query.Get("on")
	f, err := batchFilter(p.view)
	if err != nil {
		h.fail(w, r, "read filter", err)
		return
	}
	if err := h.snapshot(r.Context(), func(tx pgx.Tx) error { return h.readBatches(r.Context(), tx, f, &p) }); err != nil {
		h.fail(w, r, "list SAP batches", err)
		return
	}
	h.Site.Page(w, r, http.StatusOK, "desk/sap", p)
}

func (h *Handler) readBatches(ctx context.Context, tx pgx.Tx, f reconcile.BatchFilter, p *sapPage) error {
	list, err := reconcile.ListBatches(ctx, tx, f, p.page(batchesShown))
	if err != nil {
		return err
	}
	list, p.Pages = cut(p.view, list, batchesShown)
	for _, row := range list {
		documents, err := reconcile.DocumentsOfBatch(ctx, tx, row.ID, reconcile.Page{Limit: documentsShown})
		if err != nil {
			return err
		}
		p.Batches = append(p.Batches, batch{row, documents})
	}
	return nil
}

func (h *Handler) sapTable(ctx context.Context, v view, _ *http.Request) (table.Table, error) {
	f, err := batchFilter(v)
	if err != nil {
		return table.Table{}, err
	}
	list, err := reconcile.ListDocuments(ctx, h.DB, f, wholeList)
	if err != nil {
		return table.Table{}, err
	}
	return tableOf(h, "sap-documents", "", []table.Column{
		table.Text("docnum"), table.Text("reference"), table.Day("posting_on"), table.Text("department"), table.Text("company"), table.Amount("amount"), table.Text("currency"),
		table.Text("file"), table.Text("state"), table.Text("sap_number"), table.Count("sap_year"), table.Text("status"), table.Text("sap_text"),
	}, list, func(d reconcile.DocumentRow) []any {
		return []any{
			d.DocNum, d.Reference, d.PostingOn, d.Department, d.CompanyCode, d.Debits, d.Currency,
			d.FileName, string(d.State), d.SAPNumber, number(int64(d.SAPYear)), d.AnswerStatus, d.AnswerText,
		}
	})
}

// batchPage is one file for SAP.
type batchPage struct {
	view
	Batch   batch
	Pages   web.Pagination
	History []step
	Records []string // of the file, the first of them
	Hidden  int      // records that are not shown
	Size    int
}

func (h *Handler) batch(w http.ResponseWriter, r *http.Request) {
	v, ok := h.named(w, r)
	if !ok {
		return
	}
	p := batchPage{view: v}
	if err := h.readBatch(r.Context(), chi.URLParam(r, "id"), &p); err != nil {
		h.fail(w, r, "read SAP batch", err)
		return
	}
	h.Site.Page(w, r, http.StatusOK, "desk/batch", p)
}

func (h *Handler) readBatch(ctx context.Context, batchID string, p *batchPage) error {
	var events []reconcile.StateEvent
	err := h.snapshot(ctx, func(tx pgx.Tx) (err error) {
		if p.Batch.BatchRow, err = reconcile.BatchByID(ctx, tx, batchID); err != nil {
			return err
		}
		list, err := reconcile.DocumentsOfBatch(ctx, tx, batchID, p.page(pageRows))
		if err != nil {
			return err
		}
		p.Batch.List, p.Pages = cut(p.view, list, pageRows)
		if events, err = reconcile.BatchHistory(ctx, tx, batchID); err != nil {
			return err
		}
		file, err := reconcile.BatchFile(ctx, tx, batchID)
		p.Size = len(file.Data)
		p.Records, p.Hidden = records(file, "")
		return err
	})
	if err != nil {
		return err
	}
	if err := h.who(ctx, &p.view, actorsOf(events)...); err != nil {
		return err
	}
	p.History = stepsOf(p.view, "batch", events)
	return nil
}

// records are the lines of a flat file as text, up to recordsShown of them, without
// the blanks that fill them; with a number, only those that carry it.
func records(f sap.File, docnum string) (shown []string, hidden int) {
	for _, line := range strings.Split(strings.TrimRight(text(f.Data), "\r\n"), "\n") {
		switch {
		case docnum != "" && !strings.Contains(line, docnum):
		case len(shown) == recordsShown:
			hidden++
		default:
			shown = append(shown, strings.TrimRight(line, " \r"))
		}
	}
	return shown, hidden
}

// text turns the file's ISO-8859-1, a byte a character, into UTF-8.
func text(data []byte) string {
	runes := make([]rune, len(data))
	for i, b := range data {
		runes[i] = rune(b)
	}
	return string(runes)
}

func (h *Handler) batchFile(w http.ResponseWriter, r *http.Request) {
	f, err := reconcile.BatchFile(r.Context(), h.DB, chi.URLParam(r, "id"))
	if err != nil {
		h.fail(w, r, "read SAP file", err)
		return
	}
	whole(w, "application/octet-stream", f.Name, f.Data) // the very bytes: no charset that a program could convert
}

func (h *Handler) batchManifest(w http.ResponseWriter, r *http.Request) {
	f, err := reconcile.BatchFile(r.Context(), h.DB, chi.URLParam(r, "id"))
	if err != nil {
		h.fail(w, r, "read SAP file", err)
		return
	}
	whole(w, "application/json", f.ManifestName(), f.Manifest)
}

// documentPage is one document: its items, what SAP said, and what is in it.
type documentPage struct {
	view
	Document reconcile.Document
	Batch    reconcile.BatchRow
	Items    []reconcile.Item
	Answers  []sap.Answer
	History  []step
	Sources  []reconcile.Source
	Pages    web.Pagination
	Records  []string
	Hidden   int
}

// Outcome is the state that an answer brings.
func (p documentPage) Outcome(a sap.Answer) string {
	return map[sap.Outcome]string{sap.Posted: "posted", sap.Rejected: "rejected", sap.Closed: "closed", sap.InProgress: "processing"}[a.Outcome()]
}

func (h *Handler) document(w http.ResponseWriter, r *http.Request) {
	v, ok := h.named(w, r)
	if !ok {
		return
	}
	p := documentPage{view: v}
	if err := h.readDocument(r.Context(), chi.URLParam(r, "id"), &p); err != nil {
		h.fail(w, r, "read SAP document", err)
		return
	}
	h.Site.Page(w, r, http.StatusOK, "desk/document", p)
}

func (h *Handler) readDocument(ctx context.Context, documentID string, p *documentPage) error {
	var events []reconcile.StateEvent
	err := h.snapshot(ctx, func(tx pgx.Tx) error {
		d, err := reconcile.DocumentByID(ctx, tx, documentID)
		if err != nil {
			return err
		}
		p.Document = d
		if p.Batch, err = reconcile.BatchByID(ctx, tx, d.BatchID); err != nil {
			return err
		}
		if p.Items, err = reconcile.ItemsOf(ctx, tx, d.ID); err != nil {
			return err
		}
		if p.Answers, err = reconcile.AnswersOf(ctx, tx, d.ID); err != nil {
			return err
		}
		if events, err = reconcile.DocumentHistory(ctx, tx, d.ID); err != nil {
			return err
		}
		sources, err := reconcile.SourcesOf(ctx, tx, d.ID, p.page(pageRows))
		if err != nil {
			return err
		}
		p.Sources, p.Pages = cut(p.view, sources, pageRows)
		file, err := reconcile.BatchFile(ctx, tx, d.BatchID)
		p.Records, p.Hidden = records(file, d.DocNum)
		return err
	})
	if err != nil {
		return err
	}
	if err := h.who(ctx, &p.view, actorsOf(events)...); err != nil {
		return err
	}
	p.History = stepsOf(p.view, "document", events)
	return nil
}

func (h *Handler) itemsTable(ctx context.Context, _ view, r *http.Request) (table.Table, error) {
	d, err := reconcile.DocumentByID(ctx, h.DB, chi.URLParam(r, "id"))
	if err != nil {
		return table.Table{}, err
	}
	items, err := reconcile.ItemsOf(ctx, h.DB, d.ID)
	if err != nil {
		return table.Table{}, err
	}
	return tableOf(h, "sap-items", "sap-"+d.Reference, []table.Column{
		table.Count("item"), table.Text("kind"), table.Text("gl_account"), table.Text("object_kind"), table.Text("object"), table.Text("tax_code"),
		table.Amount("amount"), table.Amount("base"), table.Text("currency"), table.Text("text"),
	}, items, func(i reconcile.Item) []any {
		return []any{i.Number, i.Kind, i.GLAccount, i.ObjectKind, i.ObjectNumber, i.Code, i.Amount, i.Base, d.Currency, i.Text}
	})
}
