package reconcile

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/audit"
	"guichet/internal/clock"
	"guichet/internal/id"
	"guichet/internal/money"
	"guichet/reconcile/sap"
)

// A DocumentState is how far SAP is with a document.
type DocumentState string

const (
	DocumentCreated DocumentState = "created"
	Sent            DocumentState = "sent"       // delivered, not answered
	Processing      DocumentState = "processing" // SAP has it and is not done
	Posted          DocumentState = "posted"     // final
	RejectedState   DocumentState = "rejected"   // SAP may still post it: it keeps its number
	Closed          DocumentState = "closed"     // SAP will never post it
	Replaced        DocumentState = "replaced"   // what was in it goes out again, under another number
)

// nextDocument is the whole state machine. An answer may come before we know that
// the file was delivered.
var nextDocument = map[DocumentState][]DocumentState{
	DocumentCreated: {Sent, Processing, Posted, RejectedState, Closed},
	Sent:            {Processing, Posted, RejectedState, Closed, Replaced},
	Processing:      {Posted, RejectedState, Closed, Replaced},
	RejectedState:   {Processing, Posted, Closed, Replaced},
	Closed:          {Replaced, Posted, RejectedState, Processing},
}

// states are what SAP's outcomes make of a document.
var states = map[sap.Outcome]DocumentState{
	sap.InProgress: Processing, sap.Posted: Posted, sap.Rejected: RejectedState, sap.Closed: Closed,
}

// A Document is one accounting document for SAP and what SAP says of it.
type Document struct {
	ID, BatchID  string
	DocNum       string // ours
	Reference    string
	CompanyCode  string
	Currency     string
	Department   string
	PostingOn    clock.Date
	Debits       money.Amount
	State        DocumentState
	SAPNumber    string // SAP's own, once posted
	SAPYear      int
	AnswerStatus string // IDoc status of the current answer; empty: none
	AnswerText   string
	UpdatedAt    time.Time

	seq      int64
	answerID int64
}

func documents(ctx context.Context, q Querier, where string, args ...any) ([]Document, error) {
	rows, err := q.Query(ctx, `
		select d.id, d.batch_id, d.docnum, d.reference, d.company_code, d.currency, d.department, d.posting_on, d.debits_cents,
			d.state, d.sap_number, d.sap_year, coalesce((select status from reconcile.sap_answer a where a.id = d.answer_id), ''),
			coalesce((select text from reconcile.sap_answer a where a.id = d.answer_id), ''), d.updated_at, d.seq, coalesce(d.answer_id, 0)
		from reconcile.sap_document d `+where, args...)
	if err != nil {
		return nil, fmt.Errorf("read SAP documents: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (d Document, err error) {
		var on time.Time
		err = row.Scan(&d.ID, &d.BatchID, &d.DocNum, &d.Reference, &d.CompanyCode, &d.Currency, &d.Department, &on, &d.Debits,
			&d.State, &d.SAPNumber, &d.SAPYear, &d.AnswerStatus, &d.AnswerText, &d.UpdatedAt, &d.seq, &d.answerID)
		d.PostingOn = clock.FromTime(on)
		return d, err
	})
	if err != nil {
		return nil, fmt.Errorf("read SAP documents: %w", err)
	}
	return list, nil
}

// DocumentsOf lists the documents of a batch in order of their numbers.
func DocumentsOf(ctx context.Context, q Querier, batchID string) ([]Document, error) {
	if !id.Valid(batchID) {
		return nil, ErrNotFound
	}
	return documents(ctx, q, `where d.batch_id = $1 order by d.docnum limit 10000`, batchID)
}

// An Item is one line of a document, as SAP has it.
type Item struct {
	Number                                    int
	Kind                                      string // gl or tax
	GLAccount, ObjectKind, ObjectNumber, Code string
	Amount, Base                              money.Amount
	Text                                      string
}

// ItemsOf lists the items of a document.
func ItemsOf(ctx context.Context, q Querier, documentID string) ([]Item, error) {
	if !id.Valid(documentID) {
		return nil, ErrNotFound
	}
	rows, err := q.Query(ctx, `
		select item, kind, gl_account, object_kind, object_number, tax_code, amount_cents, base_cents, text
		from reconcile.sap_item where document_id = $1 order by item limit 1000`, documentID)
	if err != nil {
		return nil, fmt.Errorf("read items of SAP document: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Item])
	if err != nil {
		return nil, fmt.Errorf("read items of SAP document: %w", err)
	}
	return list, nil
}

// move changes the state of a locked document and records the event.
func (d *Document) move(ctx context.Context, tx pgx.Tx, to DocumentState, cause string, now time.Time) error {
	if !slices.Contains(nextDocument[d.State], to) {
		return &TransitionError{"SAP document " + d.DocNum, string(d.State), string(to)}
	}
	from := d.State
	d.State = to
	d.seq++
	batch := new(pgx.Batch)
	batch.Queue(`
		update reconcile.sap_document set state = $2, seq = $3, answer_id = nullif($4::bigint, 0), sap_number = $5, sap_year = $6, updated_at = $7
		where id = $1`, d.ID, string(to), d.seq, d.answerID, d.SAPNumber, d.SAPYear, now)
	batch.Queue(`
		insert into reconcile.sap_document_event (document_id, seq, from_state, to_state, cause, actor, at) values ($1, $2, $3, $4, $5, $6, $7)`,
		d.ID, d.seq, string(from), string(to), cause, audit.From(ctx).Actor, now)
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("move SAP document %s to %s: %w", d.DocNum, to, err)
	}
	return nil
}

// An AnswersResult says what one call of ReadAnswers did.
type AnswersResult struct {
	Files    int    `json:"files"`
	Refused  int    `json:"refused"`
	Answers  int    `json:"answers"`
	Posted   int    `json:"posted"`
	Rejected int    `json:"rejected"`
	Trouble  string `json:"trouble,omitempty"` // SAP's folder could not be read: the next call tries again
}

// ReadAnswers takes the answer files that are new. Each is kept as it came; each
// state in it is added to its document's history. Files may be read again, in any
// order, and by two instances at once.
func (n *Nightly) ReadAnswers(ctx context.Context) (AnswersResult, error) {
	var did AnswersResult
	if n.handover.Place == nil {
		return did, nil
	}
	names, err := n.handover.AnswerNames(ctx)
	if err != nil {
		n.log.WarnContext(ctx, "SAP's answers cannot be read", "error", err)
		return AnswersResult{Trouble: err.Error()}, ctx.Err()
	}
	known, err := n.knownAnswers(ctx, names)
	if err != nil {
		return did, err
	}
	for _, name := range names {
		if known[name] {
			continue
		}
		data, err := n.handover.Answer(ctx, name)
		if err != nil {
			n.log.WarnContext(ctx, "SAP's answer cannot be read", "file", name, "error", err)
			did.Trouble = err.Error()
			continue
		}
		if err := n.takeAnswers(ctx, name, data, &did); err != nil {
			return did, fmt.Errorf("answer file %q: %w", name, err)
		}
	}
	return did, nil
}

// knownAnswers returns the names that were taken before: SAP never uses one again.
func (n *Nightly) knownAnswers(ctx context.Context, names []string) (map[string]bool, error) {
	rows, err := n.db.Query(ctx, `select name from reconcile.sap_answer_file where name = any($1) order by name`, names)
	if err != nil {
		return nil, fmt.Errorf("look for answers taken before: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("look for answers taken before: %w", err)
	}
	known := map[string]bool{}
	for _, name := range list {
		known[name] = true
	}
	return known, nil
}

// takeAnswers keeps one file and follows what it says, in one transaction.
func (n *Nightly) takeAnswers(ctx context.Context, name string, data []byte, did *AnswersResult) error {
	answers, refused := sap.ReadALEAUD(bytes.NewReader(data))
	var now AnswersResult
	err := pgx.BeginFunc(ctx, n.db, func(tx pgx.Tx) error {
		now = AnswersResult{Files: 1}
		state, reason := "accepted", ""
		if refused != nil {
			state, reason = "refused", refused.Error()
		}
		sum := sha256.Sum256(data)
		tag, err := tx.Exec(ctx, `
			insert into reconcile.sap_answer_file (sha256, name, bytes, state, reason, received_at) values ($1, $2, $3, $4, $5, $6)
			on conflict do nothing`, sum[:], name, data, state, reason, n.now())
		if err != nil {
			return fmt.Errorf("keep: %w", err)
		}
		if tag.RowsAffected() == 0 { // the same content under another name
			now = AnswersResult{}
			return nil
		}
		if refused != nil {
			now.Refused = 1
			return n.open(ctx, tx, Exception{Kind: AnswerRefused, ObjectType: "sap-answer-file", ObjectID: name}, reason)
		}
		// In one order: two files about the same documents would otherwise wait for
		// each other.
		slices.SortStableFunc(answers, func(a, b sap.Answer) int { return strings.Compare(a.DocNum, b.DocNum) })
		for _, a := range answers {
			if err := n.takeAnswer(ctx, tx, sum[:], a, &now); err != nil {
				return fmt.Errorf("document %s: %w", a.DocNum, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	did.Files += now.Files
	did.Refused += now.Refused
	did.Answers += now.Answers
	did.Posted += now.Posted
	did.Rejected += now.Rejected
	return nil
}

// takeAnswer adds one state to the history and, if it is the current one, follows it.
func (n *Nightly) takeAnswer(ctx context.Context, tx pgx.Tx, file []byte, a sap.Answer, did *AnswersResult) error {
	b, d, err := lockDocument(ctx, tx, `d.docnum = $1`, a.DocNum)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	var documentID *string // SAP may answer about what is not ours
	if err == nil {
		documentID = &d.ID
	}
	var answerID int64
	err = tx.QueryRow(ctx, `
		insert into reconcile.sap_answer (file_sha256, docnum, document_id, at, status, severity, class, number, text, system, sap_docnum,
			object_key, sap_number, sap_company, sap_year, received_at)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
		on conflict on constraint sap_answer_once do nothing returning id`,
		file, a.DocNum, documentID, a.At, a.Status, a.Severity, a.Class, a.Number, a.Text, a.System, a.SAPDocNum,
		a.ObjectKey, a.Document, a.Company, a.FiscalYear, n.now()).Scan(&answerID)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil // the same answer again
	}
	if err != nil {
		return fmt.Errorf("keep answer: %w", err)
	}
	did.Answers++
	if documentID == nil {
		return n.open(ctx, tx, Exception{Kind: AnswerForeign, ObjectType: "sap-answer", ObjectID: a.DocNum},
			"SAP answers about a document that is not ours: "+a.String())
	}
	if err := n.provesDelivery(ctx, tx, &b, &d); err != nil {
		return err
	}
	return n.follow(ctx, tx, &d, answerID, a, did)
}

// lockDocument finds a document and holds its batch and then the document itself,
// or returns ErrNotFound.
func lockDocument(ctx context.Context, tx pgx.Tx, condition string, arg any) (b Batch, d Document, err error) {
	var batchID string
	err = tx.QueryRow(ctx, `select d.batch_id from reconcile.sap_document d where `+condition, arg).Scan(&batchID)
	if errors.Is(err, pgx.ErrNoRows) {
		return b, d, ErrNotFound
	}
	if err != nil {
		return b, d, fmt.Errorf("look for SAP document: %w", err)
	}
	if b, err = lockBatch(ctx, tx, batchID); err != nil {
		return b, d, err
	}
	list, err := documents(ctx, tx, `where `+condition+` for update of d`, arg)
	if err != nil {
		return b, d, err
	}
	return b, list[0], nil
}

// follow moves a document to where its newest answer says it is.
func (n *Nightly) follow(ctx context.Context, tx pgx.Tx, d *Document, answerID int64, a sap.Answer, did *AnswersResult) error {
	current, err := currentAnswer(ctx, tx, d.answerID)
	if err != nil {
		return err
	}
	if d.State == Replaced {
		if a.Outcome() == sap.Posted {
			return n.reopen(ctx, tx, rejectedException(*d), "SAP has posted a document that was replaced: reverse one of them. "+a.String())
		}
		return nil
	}
	if d.answerID != 0 && !a.Supersedes(current) {
		return nil
	}
	to := states[a.Outcome()]
	d.answerID = answerID
	if a.Document != "" {
		d.SAPNumber, d.SAPYear = a.Document, a.FiscalYear
	}
	if d.State == to { // SAP says more about the same
		_, err := tx.Exec(ctx, `update reconcile.sap_document set answer_id = $2, updated_at = $3 where id = $1`, d.ID, answerID, n.now())
		if err != nil {
			return fmt.Errorf("keep current answer: %w", err)
		}
	} else {
		if err := d.move(ctx, tx, to, a.String(), n.now()); err != nil {
			return err
		}
		switch to {
		case Posted:
			did.Posted++
		case RejectedState, Closed:
			did.Rejected++
		}
	}
	switch to {
	case Posted:
		return n.settled(ctx, tx, Rejected, "sap-document", d.ID, "posted as "+a.Document)
	case RejectedState, Closed:
		return n.reopen(ctx, tx, rejectedException(*d), a.String())
	}
	return nil
}

func rejectedException(d Document) Exception {
	return Exception{Kind: Rejected, ObjectType: "sap-document", ObjectID: d.ID, Amount: d.Debits, Currency: d.Currency}
}

// provesDelivery: whoever answers about a document has its file, whatever our
// record of the delivery says.
func (n *Nightly) provesDelivery(ctx context.Context, tx pgx.Tx, b *Batch, d *Document) error {
	if b.State == Delivered {
		return nil
	}
	if err := b.move(ctx, tx, Delivered, "SAP answered", map[string]string{"docnum": d.DocNum}, n.now()); err != nil {
		return err
	}
	if err := n.arrived(ctx, tx, *b); err != nil {
		return err
	}
	list, err := documents(ctx, tx, `where d.id = $1`, d.ID)
	if err != nil {
		return err
	}
	*d = list[0]
	return nil
}

// currentAnswer reads what decides between two answers; the zero answer for none.
func currentAnswer(ctx context.Context, q Querier, answerID int64) (a sap.Answer, err error) {
	if answerID == 0 {
		return a, nil
	}
	if err := q.QueryRow(ctx, `select status, at from reconcile.sap_answer where id = $1`, answerID).Scan(&a.Status, &a.At); err != nil {
		return a, fmt.Errorf("read current answer: %w", err)
	}
	return a, nil
}

// AnswersOf lists everything SAP has said of a document, in the order it reached us.
func AnswersOf(ctx context.Context, q Querier, documentID string) ([]sap.Answer, error) {
	if !id.Valid(documentID) {
		return nil, ErrNotFound
	}
	rows, err := q.Query(ctx, `
		select docnum, at, status, severity, class, number, text, system, sap_docnum, object_key, sap_number, sap_company, sap_year
		from reconcile.sap_answer where document_id = $1 order by id limit 1000`, documentID)
	if err != nil {
		return nil, fmt.Errorf("read answers: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[sap.Answer])
	if err != nil {
		return nil, fmt.Errorf("read answers: %w", err)
	}
	return list, nil
}

// ErrStillPossible: SAP may still post the document. Somebody has to close it
// there first, or attest that it is closed.
var ErrStillPossible = errors.New("SAP may still post the document")

// Replace frees what is in a document that SAP will never post: the next run
// exports it again under a new number. SAP must have closed the document (status
// 68), or attested must say who made sure that it is closed. Errors: ErrNotFound,
// ErrStillPossible, *TransitionError.
func (n *Nightly) Replace(ctx context.Context, documentID, attested string) error {
	err := pgx.BeginFunc(ctx, n.db, func(tx pgx.Tx) error {
		if !id.Valid(documentID) {
			return ErrNotFound
		}
		_, d, err := lockDocument(ctx, tx, `d.id = $1`, documentID)
		if err != nil {
			return err
		}
		cause := "closed by SAP"
		if d.State != Closed {
			if attested == "" {
				return ErrStillPossible
			}
			cause = "attested: " + attested
		}
		if err := d.move(ctx, tx, Replaced, cause, n.now()); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `update reconcile.sap_export set live = false where document_id = $1`, d.ID); err != nil {
			return fmt.Errorf("free its entries: %w", err)
		}
		if err := n.settled(ctx, tx, Rejected, "sap-document", d.ID, "replaced: "+cause); err != nil {
			return err
		}
		return audit.Record(ctx, tx, audit.Event{
			Action: "sap-document.replaced", ObjectType: "sap-document", ObjectID: d.ID, At: n.now(),
			Details: map[string]any{"cause": cause},
		})
	})
	if err != nil {
		return fmt.Errorf("replace SAP document %s: %w", documentID, err)
	}
	return nil
}
