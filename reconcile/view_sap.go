package reconcile

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/clock"
	"guichet/internal/id"
	"guichet/internal/money"
)

// A BatchFilter narrows the list of batches; zero fields do not.
type BatchFilter struct {
	On      clock.Date // posting date of a document in it
	Waiting bool       // something in it is not posted or replaced
}

// A BatchRow is a file for SAP with how far its documents are.
type BatchRow struct {
	Batch
	SHA256                       string // of the file, in hex
	Posted, Rejected, Superseded int    // documents; Superseded ones were replaced
}

// Progress is the batch's state as people see it: posted once SAP has posted
// everything in it, rejected while something waits for a person, else where the
// file is.
func (b BatchRow) Progress() string {
	switch {
	case b.Rejected > 0:
		return "rejected"
	case b.Posted > 0 && b.Posted+b.Superseded == b.Documents:
		return "posted"
	case b.Superseded == b.Documents:
		return "replaced"
	case b.Posted > 0:
		return "partly-posted"
	}
	return string(b.State)
}

// ListBatches lists the files for SAP, the newest first.
func ListBatches(ctx context.Context, q Querier, f BatchFilter, p Page) ([]BatchRow, error) {
	return batchRows(ctx, q, `
		where ($1::date is null or exists (select from reconcile.sap_document d where d.batch_id = b.id and d.posting_on = $1))
			and (not $2 or exists (select from reconcile.sap_document d where d.batch_id = b.id and d.state not in ('posted', 'replaced')))
		order by b.number desc limit $3 offset $4`, dateOrNull(f.On), f.Waiting, p.Limit, p.Offset)
}

// BatchByID reads one batch, or ErrNotFound.
func BatchByID(ctx context.Context, q Querier, batchID string) (BatchRow, error) {
	if !id.Valid(batchID) {
		return BatchRow{}, ErrNotFound
	}
	list, err := batchRows(ctx, q, `where b.id = $1`, batchID)
	if err == nil && len(list) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return BatchRow{}, err
	}
	return list[0], nil
}

func batchRows(ctx context.Context, q Querier, where string, args ...any) ([]BatchRow, error) {
	rows, err := q.Query(ctx, `
		select b.id, b.number, b.business_date, b.currency, b.file_name, b.documents, b.debits_cents, b.state, b.created_at, b.updated_at,
			encode(b.sha256, 'hex'), c.posted, c.rejected, c.superseded
		from reconcile.sap_batch b cross join lateral (
			select count(*) filter (where state = 'posted') as posted, count(*) filter (where state in ('rejected', 'closed')) as rejected,
				count(*) filter (where state = 'replaced') as superseded
			from reconcile.sap_document d where d.batch_id = b.id) c `+where, args...)
	if err != nil {
		return nil, fmt.Errorf("list SAP batches: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (b BatchRow, err error) {
		var on time.Time
		err = row.Scan(&b.ID, &b.Number, &on, &b.Currency, &b.FileName, &b.Documents, &b.Debits, &b.State, &b.CreatedAt, &b.UpdatedAt,
			&b.SHA256, &b.Posted, &b.Rejected, &b.Superseded)
		b.BusinessDate = clock.FromTime(on)
		return b, err
	})
	if err != nil {
		return nil, fmt.Errorf("list SAP batches: %w", err)
	}
	return list, nil
}

// DocumentsOfBatch lists documents of a batch in order of their numbers.
func DocumentsOfBatch(ctx context.Context, q Querier, batchID string, p Page) ([]Document, error) {
	if !id.Valid(batchID) {
		return nil, ErrNotFound
	}
	return documents(ctx, q, `where d.batch_id = $1 order by d.docnum limit $2 offset $3`, batchID, p.Limit, p.Offset)
}

// A DocumentRow is a document with the file it is in.
type DocumentRow struct {
	Document
	FileName string
}

// ListDocuments lists the documents that a filter of batches names, by posting date
// and by what waits in them, the newest first.
func ListDocuments(ctx context.Context, q Querier, f BatchFilter, p Page) ([]DocumentRow, error) {
	list, err := documents(ctx, q, `
		where ($1::date is null or d.posting_on = $1) and (not $2 or d.state not in ('posted', 'replaced'))
		order by d.docnum desc limit $3 offset $4`, dateOrNull(f.On), f.Waiting, p.Limit, p.Offset)
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(list))
	for i, d := range list {
		ids[i] = d.BatchID
	}
	rows, err := q.Query(ctx, `select id, file_name from reconcile.sap_batch where id = any($1::uuid[]) order by id`, ids)
	if err != nil {
		return nil, fmt.Errorf("read names of SAP files: %w", err)
	}
	names := map[string]string{}
	var batchID, name string
	if _, err := pgx.ForEachRow(rows, []any{&batchID, &name}, func() error { names[batchID] = name; return nil }); err != nil {
		return nil, fmt.Errorf("read names of SAP files: %w", err)
	}
	out := make([]DocumentRow, len(list))
	for i, d := range list {
		out[i] = DocumentRow{d, names[d.BatchID]}
	}
	return out, nil
}

// DocumentByID reads one document, or ErrNotFound.
func DocumentByID(ctx context.Context, q Querier, documentID string) (Document, error) {
	if !id.Valid(documentID) {
		return Document{}, ErrNotFound
	}
	list, err := documents(ctx, q, `where d.id = $1`, documentID)
	if err == nil && len(list) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return Document{}, err
	}
	return list[0], nil
}

// BatchHistory lists the steps of a batch, oldest first.
func BatchHistory(ctx context.Context, q Querier, batchID string) ([]StateEvent, error) {
	return history(ctx, q, `
		select seq, from_state, to_state, cause, actor, evidence, at from reconcile.sap_batch_event where batch_id = $1 order by seq limit 1000`, batchID)
}

// DocumentHistory lists the steps of a document, oldest first.
func DocumentHistory(ctx context.Context, q Querier, documentID string) ([]StateEvent, error) {
	return history(ctx, q, `
		select seq, from_state, to_state, cause, actor, null, at from reconcile.sap_document_event where document_id = $1 order by seq limit 1000`, documentID)
}

// A Source is a journal entry that is in a document.
type Source struct {
	EntryID     string
	Kind        string // department, fees, unexplained, explained or transfer
	PayoutID    string // empty: none
	EffectiveOn clock.Date
	Debits      money.Amount // of it, in the document's items
}

// SourcesOf lists the journal entries in a document.
func SourcesOf(ctx context.Context, q Querier, documentID string, p Page) ([]Source, error) {
	rows, err := q.Query(ctx, `
		select s.entry_id, s.kind, coalesce(s.payout_id, ''), s.effective_on,
			(select coalesce(sum(greatest(e.amounts[src.line], 0)), 0)::bigint from reconcile.sap_source src
				where src.document_id = x.document_id and src.entry_id = s.entry_id and src.item is not null)
		from reconcile.sap_export x join reconcile.settlement s on s.entry_id = x.entry_id join ledger.journal_entry e on e.id = s.entry_id
		where x.document_id = $1 order by s.recorded_at, s.entry_id limit $2 offset $3`, documentID, p.Limit, p.Offset)
	if err != nil {
		return nil, fmt.Errorf("list entries of SAP document: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (s Source, err error) {
		var on time.Time
		err = row.Scan(&s.EntryID, &s.Kind, &s.PayoutID, &on, &s.Debits)
		s.EffectiveOn = clock.FromTime(on)
		return s, err
	})
	if err != nil {
		return nil, fmt.Errorf("list entries of SAP document: %w", err)
	}
	return list, nil
}

// DocumentsOfEntry lists the documents that a journal entry is or was in.
func DocumentsOfEntry(ctx context.Context, q Querier, entryID string) ([]Document, error) {
	if !id.Valid(entryID) {
		return nil, ErrNotFound
	}
	return documents(ctx, q, `where d.id in (select document_id from reconcile.sap_export where entry_id = $1) order by d.docnum limit 100`, entryID)
}
