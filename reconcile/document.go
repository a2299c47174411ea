package reconcile

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/audit"
	"guichet/internal/clock"
	"guichet/internal/id"
	"guichet/internal/money"
	"guichet/ledger"
	"guichet/reconcile/sap"
)

// An exportEntry is a journal entry that waits for SAP.
type exportEntry struct {
	id, department, currency string
	on                       clock.Date
	lines                    []exportLine
}

type exportLine struct {
	ledger.Line
	taxCode string
	base    money.Amount
}

func (l exportLine) key() lineKey { return lineKey{l.Account, l.taxCode, l.Dimensions} }

// maxExport bounds the entries of one run.
const maxExport = 100_000

// unexported lists the entries up to a date that no live document has, in order.
func (n *Nightly) unexported(ctx context.Context, tx pgx.Tx, through clock.Date) ([]exportEntry, error) {
	rows, err := tx.Query(ctx, `
		select s.entry_id, s.department, s.currency, s.effective_on, s.tax_codes, s.bases_cents from reconcile.settlement s
		where s.effective_on <= $1 and not exists (select from reconcile.sap_export x where x.entry_id = s.entry_id and x.live)
		order by s.effective_on, s.department, s.recorded_at, s.entry_id limit $2`, through.Time(), maxExport)
	if err != nil {
		return nil, fmt.Errorf("list what is to be exported: %w", err)
	}
	type row struct {
		exportEntry
		codes []string
		bases []int64
	}
	list, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (e row, err error) {
		var on time.Time
		err = r.Scan(&e.id, &e.department, &e.currency, &on, &e.codes, &e.bases)
		e.on = clock.FromTime(on)
		return e, err
	})
	if err != nil {
		return nil, fmt.Errorf("list what is to be exported: %w", err)
	}
	out := make([]exportEntry, len(list))
	for i, r := range list {
		entry, err := n.books.Entry(ctx, tx, r.id)
		if err != nil {
			return nil, err
		}
		if len(entry.Lines) != len(r.codes) {
			return nil, fmt.Errorf("entry %s has %d lines, settled with %d", r.id, len(entry.Lines), len(r.codes))
		}
		out[i] = r.exportEntry
		for j, l := range entry.Lines {
			out[i].lines = append(out[i].lines, exportLine{l, r.codes[j], money.Amount(r.bases[j])})
		}
	}
	return out, nil
}

// A draft is a document being summed up: items by G/L account, cost object and tax
// code, and which line went where.
type draft struct {
	currency, department string
	on                   clock.Date
	items                map[itemKey]*draftItem
	entries              []exportEntry
	sources              []source
}

type itemKey struct {
	tax     bool
	account string
	object  sap.CostObject
	code    string
}

type draftItem struct {
	amount, base money.Amount
	text         string
	number       int // in the document; 0: cancelled out
}

type source struct {
	entryID string
	line    int
	item    *draftItem // nil: internal
}

// add maps an entry and sums it up. On an error the draft is as it was.
func (d *draft) add(e exportEntry, m mapping) error {
	rows := make([]mappingRow, len(e.lines))
	var internal money.Amount
	unmapped := unmappedError{}
	for i, l := range e.lines {
		var err error
		if rows[i], err = m.resolve(l.key(), e.on); err != nil {
			unmapped[l.key().String()] = err.Error()
		}
		if rows[i].internal {
			internal += l.Amount
		}
	}
	if len(unmapped) > 0 {
		return unmapped
	}
	if internal != 0 {
		return fmt.Errorf("entry %s: its internal lines sum to %s, so that the rest would not balance", e.id, internal)
	}
	for i, l := range e.lines {
		var item *draftItem
		if r := rows[i]; !r.internal {
			key := itemKey{l.base != 0, r.glAccount, r.object, r.taxCode}
			if key.tax {
				key.object = sap.CostObject{} // SAP's tax items have none
			}
			if item = d.items[key]; item == nil {
				item = &draftItem{text: r.textOf(l.Account)}
				d.items[key] = item
			}
			item.amount += l.Amount
			item.base += l.base
		}
		d.sources = append(d.sources, source{e.id, i + 1, item})
	}
	d.entries = append(d.entries, e)
	return nil
}

// document writes the draft in SAP's terms and numbers its items: G/L first, then
// tax, each in the order of its numbers.
func (d *draft) document(companyCode, documentType, reference string) sap.Document {
	doc := sap.Document{
		CompanyCode: companyCode, Currency: d.currency, DocumentDate: d.on, PostingDate: d.on, Type: documentType,
		HeaderText: strings.ToUpper("GUICHET " + d.on.Time().Format("20060102") + " " + d.department), Reference: reference,
	}
	keys := slices.SortedFunc(maps.Keys(d.items), func(a, b itemKey) int {
		return cmp.Or(cmp.Compare(a.account, b.account), cmp.Compare(a.object.Kind, b.object.Kind),
			cmp.Compare(a.object.Number, b.object.Number), cmp.Compare(a.code, b.code))
	})
	assignment := d.on.Time().Format("20060102")
	for _, k := range keys {
		if it := d.items[k]; !k.tax && it.amount != 0 {
			doc.Lines = append(doc.Lines, sap.Line{
				Account: k.account, Object: k.object, TaxCode: k.code, Amount: it.amount,
				Text: it.text, Assignment: assignment,
			})
			it.number = len(doc.Lines)
		}
	}
	for _, k := range keys {
		if it := d.items[k]; k.tax && it.amount != 0 {
			doc.Taxes = append(doc.Taxes, sap.TaxLine{Account: k.account, Code: k.code, Amount: it.amount, Base: it.base})
			it.number = len(doc.Lines) + len(doc.Taxes)
		}
	}
	return doc
}

// An unmappedError says why lines have no place in SAP, by what the mapping looks at.
type unmappedError map[string]string

func (e unmappedError) Error() string {
	return "not mapped: " + strings.Join(slices.Sorted(maps.Keys(e)), "; ")
}

type built struct {
	Batches   int `json:"batches"`
	Documents int `json:"documents"`
	Entries   int `json:"entries"`
	Refused   int `json:"refused"`
}

// buildDocuments makes documents of what has settled up to the business date and
// was not exported, and freezes them in a batch per currency.
func (n *Nightly) buildDocuments(ctx context.Context, date clock.Date) (any, error) {
	var did built
	err := pgx.BeginFunc(ctx, n.db, func(tx pgx.Tx) error {
		did = built{}
		// One builder at a time: a second one, on another machine, then reads what
		// the first has exported.
		if _, err := tx.Exec(ctx, `select last from reconcile.sap_series where name = 'batch' for update`); err != nil {
			return fmt.Errorf("wait for another builder: %w", err)
		}
		entries, err := n.unexported(ctx, tx, date)
		if err != nil || len(entries) == 0 {
			return err
		}
		m, err := currentMapping(ctx, tx)
		if err != nil {
			return err
		}
		drafts, err := n.draftAll(ctx, tx, entries, m, &did)
		if err != nil {
			return err
		}
		byCurrency := map[string][]*draft{}
		for _, d := range drafts {
			byCurrency[d.currency] = append(byCurrency[d.currency], d)
		}
		for _, currency := range slices.Sorted(maps.Keys(byCurrency)) {
			if err := n.freeze(ctx, tx, date, currency, byCurrency[currency]); err != nil {
				return err
			}
			did.Batches++
			did.Documents += len(byCurrency[currency])
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return did, nil
}

// draftAll groups entries by currency, posting date and department, splits what is
// too long for one document, and opens exceptions for what cannot be one.
func (n *Nightly) draftAll(ctx context.Context, tx pgx.Tx, entries []exportEntry, m mapping, did *built) ([]*draft, error) {
	var drafts []*draft
	last := map[string]*draft{} // by currency: entries come in order of date and department
	unmapped := unmappedError{}
	for _, e := range entries {
		// The entry alone first: what does not map or fit must not spoil the others.
		alone := newDraft(e)
		err := alone.add(e, m)
		if missing := unmappedError(nil); errors.As(err, &missing) {
			did.Refused++
			maps.Copy(unmapped, missing)
			continue
		}
		if err == nil {
			err = alone.check(n.cfg)
		}
		if err != nil {
			did.Refused++
			if err := n.refuseEntries(ctx, tx, []exportEntry{e}, err); err != nil {
				return nil, err
			}
			continue
		}
		d := last[e.currency]
		if d == nil || d.on != e.on || d.department != e.department || d.itemsWith(alone) > sap.MaxItems {
			d = newDraft(e)
			last[e.currency] = d
			drafts = append(drafts, d)
		}
		if err := d.add(e, m); err != nil {
			return nil, err
		}
	}
	if err := n.reportUnmapped(ctx, tx, unmapped); err != nil {
		return nil, err
	}
	var good []*draft
	for _, d := range drafts {
		if err := d.check(n.cfg); err != nil { // together they may cancel out
			did.Refused += len(d.entries)
			if err := n.refuseEntries(ctx, tx, d.entries, err); err != nil {
				return nil, err
			}
			continue
		}
		did.Entries += len(d.entries)
		good = append(good, d)
	}
	return good, nil
}

func newDraft(e exportEntry) *draft {
	return &draft{currency: e.currency, department: e.department, on: e.on, items: map[itemKey]*draftItem{}}
}

// check reports why SAP could not take the draft as a document.
func (d *draft) check(cfg Config) error {
	doc := d.document(cfg.CompanyCode, cfg.DocumentType, "CHECK")
	return doc.Check()
}

// itemsWith counts the items that d would have with those of another draft.
func (d *draft) itemsWith(o *draft) int {
	count := len(d.items)
	for k := range o.items {
		if _, ok := d.items[k]; !ok {
			count++
		}
	}
	return count
}

func (n *Nightly) refuseEntries(ctx context.Context, tx pgx.Tx, entries []exportEntry, reason error) error {
	for _, e := range entries {
		if err := n.reopen(ctx, tx, Exception{Kind: DocumentInvalid, ObjectType: "entry", ObjectID: e.id}, reason.Error()); err != nil {
			return err
		}
	}
	return nil
}

// reportUnmapped keeps one exception per account that is missing in the mapping,
// and closes those that are mapped now.
func (n *Nightly) reportUnmapped(ctx context.Context, tx pgx.Tx, unmapped unmappedError) error {
	for _, name := range slices.Sorted(maps.Keys(unmapped)) {
		if err := n.reopen(ctx, tx, Exception{Kind: Unmapped, ObjectType: "account", ObjectID: name}, unmapped[name]); err != nil {
			return err
		}
	}
	open, err := exceptions(ctx, tx, `where type = $1 and closed_at is null order by opened_at, id limit 10000`, string(Unmapped))
	if err != nil {
		return err
	}
	for _, e := range open {
		if _, still := unmapped[e.ObjectID]; still {
			continue
		}
		if err := n.close(ctx, tx, e, "mapped now"); err != nil {
			return err
		}
	}
	return nil
}

// freeze numbers the documents, writes their file, and keeps all of it: from here
// on DOCNUM, reference, file name and bytes never change.
func (n *Nightly) freeze(ctx context.Context, tx pgx.Tx, date clock.Date, currency string, drafts []*draft) error {
	now := n.now()
	docs := make([]sap.Numbered, len(drafts))
	var debits money.Amount
	for i, d := range drafts {
		number, err := nextNumber(ctx, tx, "docnum")
		if err != nil {
			return err
		}
		// GUI, posting date, and the last digits of DOCNUM: 16 characters that people can search for.
		reference := fmt.Sprintf("GUI%s%07d", d.on.Time().Format("060102"), number%10_000_000)
		docs[i] = sap.Numbered{DocNum: fmt.Sprintf("%016d", number), Document: d.document(n.cfg.CompanyCode, n.cfg.DocumentType, reference)}
		dr, _, err := docs[i].Totals()
		if err != nil {
			return err
		}
		if debits, err = money.Add(debits, dr); err != nil {
			return err
		}
	}
	number, err := nextNumber(ctx, tx, "batch")
	if err != nil {
		return err
	}
	file, err := n.writer.File(fmt.Sprintf("GUICHET_%010d.idoc", number), docs, now)
	if err != nil {
		return fmt.Errorf("write SAP file: %w", err)
	}
	sum := sha256.Sum256(file.Data)
	batchID := id.New()
	if _, err := tx.Exec(ctx, `
		insert into reconcile.sap_batch (id, number, business_date, currency, file_name, data, manifest, sha256, documents, debits_cents,
			state, created_at, updated_at)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 'ready', $11, $11)`,
		batchID, number, date.Time(), currency, file.Name, file.Data, file.Manifest, sum[:], len(docs), debits, now); err != nil {
		return fmt.Errorf("keep SAP batch: %w", err)
	}
	for i, d := range drafts {
		if err := n.keepDocument(ctx, tx, batchID, d, docs[i]); err != nil {
			return fmt.Errorf("keep SAP document %s: %w", docs[i].DocNum, err)
		}
	}
	return audit.Record(ctx, tx, audit.Event{
		Action: "sap-batch.created", ObjectType: "sap-batch", ObjectID: batchID, At: now,
		Details: map[string]any{"file": file.Name, "documents": len(docs)},
	})
}

// nextNumber gives the next number of a series. The row is held until the end: a
// rollback gives the number back, and nobody else has taken the next.
func nextNumber(ctx context.Context, tx pgx.Tx, series string) (number int64, err error) {
	err = tx.QueryRow(ctx, `update reconcile.sap_series set last = last + 1 where name = $1 returning last`, series).Scan(&number)
	if err != nil {
		return 0, fmt.Errorf("next number of %s: %w", series, err)
	}
	return number, nil
}

func (n *Nightly) keepDocument(ctx context.Context, tx pgx.Tx, batchID string, d *draft, doc sap.Numbered) error {
	documentID := id.New()
	debits, _, err := doc.Totals()
	if err != nil {
		return err
	}
	batch := new(pgx.Batch)
	batch.Queue(`
		insert into reconcile.sap_document (id, batch_id, docnum, reference, company_code, currency, department, posting_on, debits_cents,
			state, created_at, updated_at)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'created', $10, $10)`,
		documentID, batchID, doc.DocNum, doc.Reference, doc.CompanyCode, doc.Currency, d.department, doc.PostingDate.Time(), debits, n.now())
	const item = `
		insert into reconcile.sap_item (document_id, item, kind, gl_account, object_kind, object_number, tax_code, amount_cents, base_cents, text)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`
	for i, l := range doc.Lines {
		batch.Queue(item, documentID, i+1, "gl", l.Account, string(l.Object.Kind), l.Object.Number, l.TaxCode, l.Amount, 0, l.Text)
	}
	for i, x := range doc.Taxes {
		batch.Queue(item, documentID, len(doc.Lines)+i+1, "tax", x.Account, "", "", x.Code, x.Amount, x.Base, "")
	}
	for _, src := range d.sources {
		var number *int
		if src.item != nil && src.item.number > 0 {
			number = &src.item.number
		}
		batch.Queue(`insert into reconcile.sap_source (document_id, entry_id, line, item) values ($1, $2, $3, $4)`,
			documentID, src.entryID, src.line, number)
	}
	for _, e := range d.entries {
		batch.Queue(`insert into reconcile.sap_export (entry_id, document_id) values ($1, $2)`, e.id, documentID)
	}
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return err
	}
	for _, e := range d.entries {
		if err := n.settled(ctx, tx, DocumentInvalid, "entry", e.id, "exported with document "+doc.DocNum); err != nil {
			return err
		}
	}
	return nil
}
