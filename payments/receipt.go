package payments

import (
	"cmp"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/audit"
	"guichet/internal/id"
	"guichet/internal/mail"
	"guichet/internal/money"
	"guichet/payments/bill"
	"guichet/payments/fee"
)

// A Receipt is the immutable proof of one payment, over all its departments. The
// city has one series, without gaps, in the order of numbering.
type Receipt struct {
	Number     int64
	ID         string
	PaymentID  string
	EntryID    string // journal entry, for the proof
	VerifyCode string // anybody who holds it may check the receipt; it tells no names
	Document   Document
	IssuedAt   time.Time
}

// A Document is what the receipt says, in both languages, as of its issue.
type Document struct {
	PaymentReference string              `json:"payment_reference"`
	Tender           string              `json:"tender"`
	CardBrand        string              `json:"card_brand,omitempty"`
	CardLast4        string              `json:"card_last4,omitempty"`
	PaidAt           time.Time           `json:"paid_at"`
	Amount           money.Amount        `json:"amount_cents"`
	Currency         string              `json:"currency"`
	Departments      []ReceiptDepartment `json:"departments"`
	Credits          []ReceiptCredit     `json:"credits,omitempty"`
}

// A ReceiptDepartment is a department's part of a receipt.
type ReceiptDepartment struct {
	Code      string        `json:"code"`
	NameEN    string        `json:"name_en"`
	NameFR    string        `json:"name_fr"`
	HSTNumber string        `json:"hst_number,omitempty"`
	Lines     []ReceiptLine `json:"lines"`
	Net       money.Amount  `json:"net_cents"`
	Tax       money.Amount  `json:"tax_cents"`
}

// Name returns the department's name in "en" or "fr".
func (d ReceiptDepartment) Name(lang string) string {
	if lang == "fr" {
		return d.NameFR
	}
	return d.NameEN
}

// Total is the department's sum.
func (d ReceiptDepartment) Total() money.Amount { return d.Net + d.Tax }

// A ReceiptLine is one bill line that was paid.
type ReceiptLine struct {
	Notice        string       `json:"notice"`
	Reference     string       `json:"reference"`
	DescriptionEN string       `json:"description_en"`
	DescriptionFR string       `json:"description_fr"`
	Quantity      int          `json:"quantity"`
	Net           money.Amount `json:"net_cents"`
	Tax           money.Amount `json:"tax_cents"`
	TaxCode       fee.Tax      `json:"tax_code"`
}

// Description returns the line's text in "en" or "fr".
func (l ReceiptLine) Description(lang string) string {
	if lang == "fr" {
		return l.DescriptionFR
	}
	return l.DescriptionEN
}

// A ReceiptCredit is money that its bill no longer needed: the payer owns it.
type ReceiptCredit struct {
	Notice string       `json:"notice"`
	Amount money.Amount `json:"amount_cents"`
}

// ReceiptArgs is the job that numbers a payment's receipt and mails it.
type ReceiptArgs struct {
	PaymentID string `json:"payment_id"`
}

// Kind names the job. It is stored with queued jobs: never change it.
func (ReceiptArgs) Kind() string { return "payments.receipt" }

// issueReceipt numbers a payment's receipt and queues the job that mails it. Doing it again
// changes nothing. Only this job takes numbers, so payers never queue for one.
func (s *Service) issueReceipt(ctx context.Context, paymentID string) error {
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		p, err := Get(ctx, tx, paymentID)
		if err != nil {
			return err
		}
		if p.State != Succeeded {
			return &TransitionError{From: p.State, To: Succeeded}
		}
		doc, err := s.document(ctx, tx, p)
		if err != nil {
			return err
		}
		text, err := json.Marshal(doc)
		if err != nil {
			return err
		}
		// The number is taken last: the series' row stays locked only until the commit.
		var number int64
		if err := tx.QueryRow(ctx, `select last + 1 from payments.receipt_series where name = 'city' for update`).Scan(&number); err != nil {
			return fmt.Errorf("take number: %w", err)
		}
		r := Receipt{Number: number, ID: id.New(), PaymentID: p.ID, EntryID: p.EntryID, VerifyCode: id.Code(15), Document: doc, IssuedAt: s.now()}
		tag, err := tx.Exec(ctx, `
			insert into payments.receipt (number, id, payment_id, entry_id, verify_code, document, issued_at)
			values ($1, $2, $3, $4, $5, $6, $7) on conflict (payment_id) do nothing`,
			r.Number, r.ID, r.PaymentID, r.EntryID, r.VerifyCode, text, r.IssuedAt)
		if err != nil {
			return fmt.Errorf("store receipt: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return nil // it has one: the number stays free
		}
		if _, err := tx.Exec(ctx, `update payments.receipt_series set last = $1 where name = 'city'`, number); err != nil {
			return fmt.Errorf("take number: %w", err)
		}
		if err := audit.Record(ctx, tx, audit.Event{
			Action: "receipt.issued", ObjectType: "receipt", ObjectID: r.ID, Subject: p.ResidentID,
			At: s.now(), Details: map[string]any{"number": number, "payment": p.ID},
		}); err != nil {
			return err
		}
		if p.ContactID == "" && p.ResidentID == "" {
			return nil // nobody asked for one: it can be printed from the page
		}
		return s.queue.Insert(ctx, tx, ReceiptMailArgs{ReceiptID: r.ID}, nil)
	})
	if err != nil {
		return fmt.Errorf("issue receipt of payment %s: %w", paymentID, err)
	}
	return nil
}

// MailTemplates holds this package's mails for internal/mail.
//
//go:embed mailtext
var MailTemplates embed.FS

// ReceiptMailArgs is the job that mails a numbered receipt.
type ReceiptMailArgs struct {
	ReceiptID string `json:"receipt_id"`
}

// Kind names the job. It is stored with queued jobs: never change it.
func (ReceiptMailArgs) Kind() string { return "payments.receipt_mail" }

// mailReceipt draws the receipt and puts it into the outbox. Doing it again
// changes nothing.
func (s *Service) mailReceipt(ctx context.Context, receiptID string) error {
	r, err := oneReceipt(ctx, s.db, `r.id = $1`, receiptID)
	if err != nil {
		return fmt.Errorf("mail receipt: %w", err)
	}
	p, err := Get(ctx, s.db, r.PaymentID)
	if err != nil {
		return fmt.Errorf("mail receipt %d: %w", r.Number, err)
	}
	to := "contact:" + p.ContactID
	if p.ContactID == "" {
		to = "resident:" + cmp.Or(p.ActorID, p.ResidentID)
	}
	pdf, err := s.render(r, p.Lang)
	if err != nil {
		return fmt.Errorf("draw receipt %d: %w", r.Number, err)
	}
	name := fmt.Sprintf("receipt-%d.pdf", r.Number)
	if p.Lang == "fr" {
		name = fmt.Sprintf("recu-%d.pdf", r.Number)
	}
	err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		return s.outbox.Enqueue(ctx, tx, mail.Message{
			Key: "receipt/" + r.ID, To: to, Lang: p.Lang, Template: "receipt",
			Data: map[string]string{
				"Number": fmt.Sprint(r.Number), "Amount": p.Amount.Format(p.Lang), "Reference": id.Group(p.Reference),
				"VerifyURL": s.cfg.BaseURL + "/verify/" + id.Group(r.VerifyCode),
			},
			Attachments: []mail.Attachment{{Name: name, MediaType: "application/pdf", Bytes: pdf}},
		})
	})
	if err != nil {
		return fmt.Errorf("mail receipt %d: %w", r.Number, err)
	}
	return nil
}

// document writes down what was paid, from the bills as they are.
func (s *Service) document(ctx context.Context, tx pgx.Tx, p Payment) (Document, error) {
	doc := Document{
		PaymentReference: p.Reference, Tender: p.Tender, CardBrand: p.Card.Brand, CardLast4: p.Card.Last4,
		PaidAt: p.SucceededAt, Amount: p.Amount, Currency: money.CAD,
	}
	bills, err := bill.Load(ctx, tx, p.billIDs())
	if err != nil {
		return Document{}, err
	}
	credits, err := creditsOf(ctx, tx, p.ID)
	if err != nil {
		return Document{}, err
	}
	at := make(map[string]int)
	for _, b := range bills {
		if amount, ok := credits[b.ID]; ok {
			doc.Credits = append(doc.Credits, ReceiptCredit{Notice: b.Notice, Amount: amount})
			continue
		}
		i, ok := at[b.DepartmentID]
		if !ok {
			d, err := s.depts.ByID(ctx, tx, b.DepartmentID)
			if err != nil {
				return Document{}, err
			}
			i = len(doc.Departments)
			at[b.DepartmentID] = i
			doc.Departments = append(doc.Departments, ReceiptDepartment{Code: d.Code, NameEN: d.NameEN, NameFR: d.NameFR, HSTNumber: d.HSTNumber})
		}
		d := &doc.Departments[i]
		for _, a := range p.of(b.ID).Lines {
			l := b.Lines[a.Line-1]
			d.Lines = append(d.Lines, ReceiptLine{
				Notice: b.Notice, Reference: b.Reference, DescriptionEN: l.DescriptionEN, DescriptionFR: l.DescriptionFR,
				Quantity: l.Quantity, Net: a.Net + a.Step, Tax: a.Tax, TaxCode: l.TaxCode,
			})
			d.Net += a.Net + a.Step
			d.Tax += a.Tax
		}
	}
	return doc, nil
}

func creditsOf(ctx context.Context, q Querier, paymentID string) (map[string]money.Amount, error) {
	rows, err := q.Query(ctx, `select bill_id, amount_cents from payments.credit where payment_id = $1 order by bill_id`, paymentID)
	if err != nil {
		return nil, fmt.Errorf("read credits: %w", err)
	}
	credits := make(map[string]money.Amount)
	var billID string
	var amount money.Amount
	_, err = pgx.ForEachRow(rows, []any{&billID, &amount}, func() error {
		credits[billID] = amount
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read credits: %w", err)
	}
	return credits, nil
}

const receiptColumns = `r.number, r.id, r.payment_id, r.entry_id, r.verify_code, r.document, r.issued_at`

func scanReceipt(row pgx.CollectableRow) (Receipt, error) {
	var r Receipt
	var text []byte
	if err := row.Scan(&r.Number, &r.ID, &r.PaymentID, &r.EntryID, &r.VerifyCode, &text, &r.IssuedAt); err != nil {
		return Receipt{}, err
	}
	return r, json.Unmarshal(text, &r.Document)
}

func oneReceipt(ctx context.Context, q Querier, condition string, args ...any) (Receipt, error) {
	rows, err := q.Query(ctx, `select `+receiptColumns+` from payments.receipt r where `+condition, args...)
	if err != nil {
		return Receipt{}, fmt.Errorf("read receipt: %w", err)
	}
	r, err := pgx.CollectExactlyOneRow(rows, scanReceipt)
	if errors.Is(err, pgx.ErrNoRows) {
		return Receipt{}, ErrNotFound
	}
	if err != nil {
		return Receipt{}, fmt.Errorf("read receipt: %w", err)
	}
	return r, nil
}

// Receipt reads a receipt as the viewer may see it, or ErrNotFound.
func (s *Service) Receipt(ctx context.Context, v Viewer, receiptID string) (Receipt, error) {
	if !id.Valid(receiptID) {
		return Receipt{}, ErrNotFound
	}
	return oneReceipt(ctx, s.db, `r.id = $1 and exists (
		select 1 from payments.payment p join payments.checkout c on c.id = p.checkout_id
		where p.id = r.payment_id and (p.resident_id = nullif($2, '')::uuid or c.resident_id = nullif($2, '')::uuid
			or exists (select 1 from payments.guest_access g where g.checkout_id = c.id and g.guest_hash = $3)))`,
		receiptID, v.ResidentID, v.GuestHash)
}

// ReceiptByCode reads the receipt whose printed code somebody holds, or ErrNotFound.
func (s *Service) ReceiptByCode(ctx context.Context, typed string) (Receipt, error) {
	code, ok := id.Normalize(typed)
	if !ok {
		return Receipt{}, ErrNotFound
	}
	return oneReceipt(ctx, s.db, `r.verify_code = $1`, code)
}

// ReceiptsOf lists a resident's receipts, the newest first.
func (s *Service) ReceiptsOf(ctx context.Context, residentID string, limit int) ([]Receipt, error) {
	rows, err := s.db.Query(ctx, `
		select `+receiptColumns+` from payments.receipt r join payments.payment p on p.id = r.payment_id
		where p.resident_id = $1 order by r.number desc limit $2`, residentID, limit)
	if err != nil {
		return nil, fmt.Errorf("list receipts: %w", err)
	}
	receipts, err := pgx.CollectRows(rows, scanReceipt)
	if err != nil {
		return nil, fmt.Errorf("list receipts: %w", err)
	}
	return receipts, nil
}
