package departments

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"guichet/internal/clock"
	"guichet/internal/id"
	"guichet/internal/money"
	"guichet/ledger"
	"guichet/payments/bill"
	"guichet/payments/fee"
)

// Idempotent is the header every POST takes.
type Idempotent struct {
	Key string `header:"Idempotency-Key" required:"true" pattern:"^[!-~]{1,255}$" patternDescription:"1 to 255 visible ASCII characters" example:"bill-DEMO-T-1001" doc:"One per thing to do, such as your own id of it"`
}

// Replayed is the header every answer to a POST may have.
type Replayed struct {
	Replayed string `header:"Idempotent-Replayed" enum:"true" doc:"Present when the key had been used before: nothing was done again"`
}

func replayedIf(yes bool) Replayed {
	if yes {
		return Replayed{"true"}
	}
	return Replayed{}
}

// Text is a text in both official languages.
type Text struct {
	EN string `json:"en" minLength:"1" maxLength:"200" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*$" patternDescription:"text without control characters"`
	FR string `json:"fr" minLength:"1" maxLength:"200" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*$" patternDescription:"text without control characters"`
}

// NewBill is what a department asks to bill.
type NewBill struct {
	Type         string    `json:"type" pattern:"^[a-z][a-z0-9_-]{0,39}$" patternDescription:"1 to 40 lower case letters, digits, dashes and underscores, a letter first" example:"fine" doc:"The department's own kind of bill"`
	Reference    string    `json:"reference" pattern:"^[!-~]([ -~]{0,62}[!-~])?$" patternDescription:"1 to 64 printable ASCII characters, no space at either end" example:"DEMO-T-1001" doc:"The department's own id, once per department"`
	OwnerSubject string    `json:"owner_subject,omitempty" pattern:"^[!-~]{1,255}$" patternDescription:"1 to 255 visible ASCII characters" doc:"The resident who owes it: the sub that the department's own sign-in received. One of owner_subject and guest_key is needed"`
	GuestKey     string    `json:"guest_key,omitempty" maxLength:"40" pattern:"[A-Za-z0-9]" patternDescription:"text with a letter or a digit" example:"DEMO 001" doc:"What a guest types beside the notice number, such as a plate or postal code. Only a keyed hash is stored; case, spaces and dashes do not matter"`
	IssuedOn     string    `json:"issued_on" format:"date" example:"2026-06-01" doc:"Date in Toronto; fees are those in force on it"`
	DueOn        string    `json:"due_on" format:"date" example:"2026-06-16" doc:"Not before issued_on"`
	Lines        []NewLine `json:"lines" minItems:"1" maxItems:"100"`
}

// NewLine asks for one fee of the department's catalogue.
type NewLine struct {
	Fee         string `json:"fee" pattern:"^[a-z][a-z0-9-]{1,59}$" patternDescription:"the code of a fee" example:"parking-wrong-way" doc:"Code in the department's catalogue"`
	Quantity    int    `json:"quantity,omitempty" minimum:"1" maximum:"10000" default:"1"`
	AmountCents int64  `json:"amount_cents,omitempty" minimum:"1" maximum:"1000000000" doc:"Before tax; needed by variable fees, and by no others"`
	Description *Text  `json:"description,omitempty" doc:"Shown to the payer; the fee's names otherwise"`
}

// Bill is a bill as departments see it.
type Bill struct {
	ID           string     `json:"id" format:"uuid"`
	NoticeNumber string     `json:"notice_number" example:"7K3M-92QX-DA" doc:"What a payer types; the last character checks the others"`
	Type         string     `json:"type" example:"fine"`
	Reference    string     `json:"reference" example:"DEMO-T-1001"`
	State        bill.State `json:"state" enum:"draft,open,part_paid,paid,cancelled,replaced,transferred,written_off" example:"open"`
	IssuedOn     string     `json:"issued_on" format:"date" example:"2026-06-01"`
	DueOn        string     `json:"due_on" format:"date" example:"2026-06-16"`
	EarlyUntil   string     `json:"early_until,omitempty" format:"date" example:"2026-06-16" doc:"Last day of the early amount"`
	Currency     string     `json:"currency" enum:"CAD"`
	AmountCents  int64      `json:"amount_cents" example:"5500" doc:"In the books: as issued, and what was added since"`
	PaidCents    int64      `json:"paid_cents" example:"0"`
	DueCents     int64      `json:"due_cents" example:"5500" doc:"If paid today"`
	Lines        []Line     `json:"lines"`
	URL          string     `json:"url" format:"uri" doc:"Where its payer finds it"`
	Version      int64      `json:"version" example:"1" doc:"Grows with every change; the sequence of its events"`
}

// Line is one thing charged.
type Line struct {
	Line          int    `json:"line" example:"1"`
	Fee           string `json:"fee" example:"parking-wrong-way"`
	DescriptionEN string `json:"description_en" example:"Parked facing the wrong way"`
	DescriptionFR string `json:"description_fr" example:"Stationnement en sens inverse"`
	Quantity      int    `json:"quantity" example:"1"`
	NetCents      int64  `json:"net_cents" example:"5500"`
	TaxCode       string `json:"tax_code" enum:"hst,exempt,none" example:"none"`
	TaxCents      int64  `json:"tax_cents" example:"0"`
	StepCents     int64  `json:"step_cents" example:"2000" doc:"Added when the early days are over"`
}

type createBillRequest struct {
	Idempotent
	Body NewBill
}

// billAnswer is a bill after a POST.
type billAnswer struct {
	Body Bill
	Replayed
}

func (a *API) createBill(ctx context.Context, in *createBillRequest) (*billAnswer, error) {
	n, err := a.newBill(ctx, in)
	if err != nil {
		return nil, err
	}
	b, replayed, err := a.p.Bills.Issue(ctx, n)
	line := new(bill.LineError)
	switch {
	case errors.As(err, &line):
		return nil, invalid(lineField(line, in.Body.Lines[line.Line-1]))
	case errors.Is(err, bill.ErrTooMuch):
		return nil, invalid(field("body.lines", "they come to more than a billion dollars"))
	case errors.Is(err, ledger.ErrPeriodClosed):
		return nil, invalid(field("body.issued_on", "the books of that month are closed"))
	case err != nil:
		return nil, a.problemOf(ctx, err)
	}
	return &billAnswer{a.view(b), replayedIf(replayed)}, nil
}

// newBill checks what the types alone do not.
func (a *API) newBill(ctx context.Context, in *createBillRequest) (bill.NewBill, error) {
	d, body := caller(ctx), in.Body
	n := bill.NewBill{DepartmentID: d.ID, IdempotencyKey: in.Key, Type: body.Type, Reference: body.Reference, GuestKey: body.GuestKey}
	var wrong []error
	n.IssuedOn, wrong = date(wrong, "body.issued_on", body.IssuedOn)
	n.DueOn, wrong = date(wrong, "body.due_on", body.DueOn)
	if len(wrong) == 0 && n.DueOn.Before(n.IssuedOn) {
		wrong = append(wrong, field("body.due_on", "it is before issued_on"))
	}
	if body.OwnerSubject == "" && body.GuestKey == "" {
		wrong = append(wrong, field("body", "owner_subject or guest_key is needed: nobody could pay it"))
	}
	if body.OwnerSubject != "" {
		resident, ok, err := a.p.Subjects.Resident(ctx, d.ID, body.OwnerSubject)
		if err != nil {
			return n, a.problemOf(ctx, fmt.Errorf("resolve subject: %w", err))
		}
		if !ok {
			wrong = append(wrong, field("body.owner_subject", "the department knows nobody by this subject"))
		}
		n.ResidentID = resident
	}
	if len(wrong) > 0 {
		return n, invalid(wrong...)
	}
	for _, l := range body.Lines {
		nl := bill.NewLine{Fee: l.Fee, Quantity: l.Quantity, Amount: money.Amount(l.AmountCents)}
		if l.Description != nil {
			nl.DescriptionEN, nl.DescriptionFR = l.Description.EN, l.Description.FR
		}
		n.Lines = append(n.Lines, nl)
	}
	return n, nil
}

// date reads a date of this age: beyond it, the books take none.
func date(wrong []error, location, text string) (clock.Date, []error) {
	d, err := clock.ParseDate(text)
	if err != nil || d.Year < 2000 || d.Year > 2198 {
		return d, append(wrong, field(location, "want a date from the year 2000 to 2198"))
	}
	return d, wrong
}

// lineField says in the caller's terms why a line cannot be billed.
func lineField(e *bill.LineError, l NewLine) error {
	at := fmt.Sprintf("body.lines[%d]", e.Line-1)
	switch {
	case errors.Is(e, fee.ErrNotFound):
		return field(at+".fee", "the department has no such fee on the date of issue")
	case errors.Is(e, fee.ErrPrice) && l.AmountCents == 0:
		return field(at+".amount_cents", "the fee is variable: an amount is needed")
	case errors.Is(e, fee.ErrPrice):
		return field(at+".amount_cents", "the fee has a price of its own: leave the amount out")
	}
	return field(at, "its early amount ends on another day than that of the lines before")
}

type listBillsRequest struct {
	Owner  string     `query:"owner" pattern:"^[!-~]{1,255}$" patternDescription:"1 to 255 visible ASCII characters" doc:"Only bills of the resident with this subject"`
	State  bill.State `query:"state" enum:"draft,open,part_paid,paid,cancelled,replaced,transferred,written_off"`
	Cursor string     `query:"cursor" doc:"The next_cursor of the page before"`
	Limit  int        `query:"limit" minimum:"1" maximum:"100" default:"50"`
}

// BillPage is a page of bills.
type BillPage struct {
	Data       []Bill `json:"data"`
	NextCursor string `json:"next_cursor" doc:"Ask with it for the page after; empty on the last page, which may have no bills"`
}

type listBillsAnswer struct{ Body BillPage }

func (a *API) listBills(ctx context.Context, in *listBillsRequest) (*listBillsAnswer, error) {
	d := caller(ctx)
	if in.Cursor != "" && !id.Valid(in.Cursor) {
		return nil, invalid(field("query.cursor", "want a next_cursor of before"))
	}
	f := bill.Filter{State: in.State, After: in.Cursor, Limit: in.Limit}
	answer := &listBillsAnswer{BillPage{Data: []Bill{}}}
	if in.Owner != "" {
		resident, ok, err := a.p.Subjects.Resident(ctx, d.ID, in.Owner)
		if err != nil {
			return nil, a.problemOf(ctx, fmt.Errorf("resolve subject: %w", err))
		}
		if !ok {
			return answer, nil // nobody of that name has bills
		}
		f.ResidentID = resident
	}
	bills, err := a.p.Bills.List(ctx, d.ID, f)
	if err != nil {
		return nil, a.problemOf(ctx, err)
	}
	for _, b := range bills {
		answer.Body.Data = append(answer.Body.Data, a.view(b))
	}
	if len(bills) == in.Limit {
		answer.Body.NextCursor = bills[len(bills)-1].ID
	}
	return answer, nil
}

type billRequest struct {
	ID string `path:"id" doc:"The bill's id"`
}

type readBillAnswer struct{ Body Bill }

func (a *API) getBill(ctx context.Context, in *billRequest) (*readBillAnswer, error) {
	b, err := a.p.Bills.Get(ctx, caller(ctx).ID, in.ID)
	if err != nil {
		return nil, a.problemOf(ctx, err)
	}
	return &readBillAnswer{a.view(b)}, nil
}

// Cancellation says why a bill is withdrawn.
type Cancellation struct {
	Reason string `json:"reason" minLength:"1" maxLength:"200" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*$" patternDescription:"text without control characters" example:"issued in error" doc:"For the city's records: name nobody in it"`
}

type cancelBillRequest struct {
	Idempotent
	ID   string `path:"id" doc:"The bill's id"`
	Body Cancellation
}

func (a *API) cancelBill(ctx context.Context, in *cancelBillRequest) (*billAnswer, error) {
	b, replayed, err := a.p.Bills.CancelOnce(ctx, bill.Cancellation{
		DepartmentID: caller(ctx).ID, BillID: in.ID, Reason: in.Body.Reason, IdempotencyKey: in.Key,
	})
	if err != nil {
		return nil, a.problemOf(ctx, err)
	}
	return &billAnswer{a.view(b), replayedIf(replayed)}, nil
}

func (a *API) view(b bill.Bill) Bill {
	v := Bill{
		ID: b.ID, NoticeNumber: id.Group(b.Notice), Type: b.Type, Reference: b.Reference, State: b.State,
		IssuedOn: b.IssuedOn.String(), DueOn: b.DueOn.String(), Currency: money.CAD,
		AmountCents: int64(b.Billed), PaidCents: int64(b.Paid), DueCents: int64(b.Quote(a.p.Today()).Due),
		URL: a.p.BaseURL + "/pay?notice=" + url.QueryEscape(id.Group(b.Notice)), Version: b.Version,
	}
	if b.EarlyUntil != (clock.Date{}) {
		v.EarlyUntil = b.EarlyUntil.String()
	}
	for _, l := range b.Lines {
		v.Lines = append(v.Lines, Line{
			Line: l.Line, Fee: l.Fee, DescriptionEN: l.DescriptionEN, DescriptionFR: l.DescriptionFR,
			Quantity: l.Quantity, NetCents: int64(l.Net), TaxCode: string(l.TaxCode), TaxCents: int64(l.Tax), StepCents: int64(l.Step),
		})
	}
	return v
}
