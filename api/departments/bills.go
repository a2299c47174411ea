package departments

import (
	"context"
	"fmt"
	"net/url"

	"github.com/danielgtaylor/huma/v2"

	"guichet/internal/clock"
	"guichet/internal/id"
	"guichet/internal/money"
	"guichet/payments"
	"guichet/payments/bill"
)

// Idempotent is the header every POST takes.
type Idempotent struct {
	Key string `header:"Idempotency-Key" required:"true" minLength:"1" maxLength:"255" doc:"The same key with the same body gives the first answer again"`
}

type text struct {
	EN string `json:"en" minLength:"1" maxLength:"200"`
	FR string `json:"fr" minLength:"1" maxLength:"200"`
}

type createBillRequest struct {
	Idempotent
	Body struct {
		Type         string    `json:"type" minLength:"1" maxLength:"40" example:"fine"`
		Reference    string    `json:"reference" minLength:"1" maxLength:"64" doc:"The department's own id, once per department"`
		OwnerSubject string    `json:"owner_subject,omitempty" maxLength:"255" doc:"Pairwise subject of the resident who owes it"`
		GuestKey     string    `json:"guest_key,omitempty" maxLength:"40" doc:"Second factor of a guest, such as a plate or postal code; kept as a keyed hash"`
		IssuedOn     string    `json:"issued_on" format:"date"`
		DueOn        string    `json:"due_on" format:"date"`
		Lines        []newLine `json:"lines" minItems:"1" maxItems:"100"`
	}
}

type newLine struct {
	Fee         string `json:"fee" minLength:"2" maxLength:"60" example:"parking-wrong-way"`
	Quantity    int    `json:"quantity,omitempty" minimum:"1" maximum:"10000" default:"1"`
	AmountCents int64  `json:"amount_cents,omitempty" minimum:"1" maximum:"1000000000" doc:"Before tax; for variable fees only"`
	Description *text  `json:"description,omitempty" doc:"In both languages; the fee's names otherwise"`
}

// A billView is a bill as departments see it.
type billView struct {
	ID           string     `json:"id" format:"uuid"`
	NoticeNumber string     `json:"notice_number" example:"7K3M-92QX-DA"`
	Type         string     `json:"type"`
	Reference    string     `json:"reference"`
	State        bill.State `json:"state" enum:"draft,open,part_paid,paid,cancelled,replaced,transferred,written_off"`
	IssuedOn     string     `json:"issued_on" format:"date"`
	DueOn        string     `json:"due_on" format:"date"`
	EarlyUntil   string     `json:"early_until,omitempty" format:"date" doc:"Last day of the early amount"`
	Currency     string     `json:"currency" enum:"CAD"`
	AmountCents  int64      `json:"amount_cents" doc:"In the books: as issued and crystallised"`
	PaidCents    int64      `json:"paid_cents"`
	DueCents     int64      `json:"due_cents" doc:"If paid today"`
	Lines        []lineView `json:"lines"`
	URL          string     `json:"url" doc:"Where its payer finds it"`
	Version      int64      `json:"version" doc:"Grows with every change"`
}

type lineView struct {
	Line          int    `json:"line"`
	Fee           string `json:"fee"`
	DescriptionEN string `json:"description_en"`
	DescriptionFR string `json:"description_fr"`
	Quantity      int    `json:"quantity"`
	NetCents      int64  `json:"net_cents"`
	TaxCode       string `json:"tax_code" enum:"hst,exempt,none"`
	TaxCents      int64  `json:"tax_cents"`
	StepCents     int64  `json:"step_cents" doc:"Added when the early days are over"`
}

type billAnswer struct {
	Replayed string `header:"Idempotent-Replayed" doc:"true when the key had been used"`
	Body     billView
}

func (a *API) createBill(ctx context.Context, in *createBillRequest) (*billAnswer, error) {
	d := caller(ctx)
	n := bill.NewBill{DepartmentID: d.ID, IdempotencyKey: in.Key, Type: in.Body.Type, Reference: in.Body.Reference, GuestKey: in.Body.GuestKey}
	var err error
	if n.IssuedOn, err = clock.ParseDate(in.Body.IssuedOn); err != nil {
		return nil, fieldProblem("body.issued_on", err)
	}
	if n.DueOn, err = clock.ParseDate(in.Body.DueOn); err != nil {
		return nil, fieldProblem("body.due_on", err)
	}
	if in.Body.OwnerSubject != "" {
		resident, ok, err := a.p.Subjects.Resident(ctx, d.ID, in.Body.OwnerSubject)
		if err != nil {
			return nil, a.problemOf(ctx, fmt.Errorf("resolve subject: %w", err))
		}
		if !ok {
			return nil, fieldProblem("body.owner_subject", fmt.Errorf("the department knows nobody by this subject"))
		}
		n.ResidentID = resident
	}
	for _, l := range in.Body.Lines {
		nl := bill.NewLine{Fee: l.Fee, Quantity: l.Quantity, Amount: money.Amount(l.AmountCents)}
		if l.Description != nil {
			nl.DescriptionEN, nl.DescriptionFR = l.Description.EN, l.Description.FR
		}
		n.Lines = append(n.Lines, nl)
	}
	b, replayed, err := a.p.Bills.Issue(ctx, n)
	if err != nil {
		return nil, a.problemOf(ctx, err)
	}
	answer := &billAnswer{Body: a.view(b)}
	if replayed {
		answer.Replayed = "true"
	}
	return answer, nil
}

func fieldProblem(location string, err error) error {
	return huma.NewError(422, "validation failed", &huma.ErrorDetail{Location: location, Message: err.Error()})
}

type listBillsRequest struct {
	Owner  string `query:"owner" maxLength:"255" doc:"Pairwise subject"`
	State  string `query:"state" enum:"draft,open,part_paid,paid,cancelled,replaced,transferred,written_off"`
	Cursor string `query:"cursor" maxLength:"36"`
	Limit  int    `query:"limit" minimum:"1" maximum:"100" default:"50"`
}

type listBillsAnswer struct {
	Body struct {
		Data       []billView `json:"data"`
		NextCursor string     `json:"next_cursor" doc:"Empty on the last page"`
	}
}

func (a *API) listBills(ctx context.Context, in *listBillsRequest) (*listBillsAnswer, error) {
	d := caller(ctx)
	f := bill.Filter{State: bill.State(in.State), After: in.Cursor, Limit: in.Limit}
	answer := new(listBillsAnswer)
	answer.Body.Data = []billView{}
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
	ID string `path:"id" maxLength:"36"`
}

func (a *API) getBill(ctx context.Context, in *billRequest) (*billAnswer, error) {
	b, err := a.p.Bills.Get(ctx, caller(ctx).ID, in.ID)
	if err != nil {
		return nil, a.problemOf(ctx, err)
	}
	return &billAnswer{Body: a.view(b)}, nil
}

type cancelBillRequest struct {
	Idempotent
	ID   string `path:"id" maxLength:"36"`
	Body struct {
		Reason string `json:"reason" minLength:"1" maxLength:"200"`
	}
}

func (a *API) cancelBill(ctx context.Context, in *cancelBillRequest) (*billAnswer, error) {
	b, err := a.p.Bills.Cancel(ctx, caller(ctx).ID, in.ID, in.Body.Reason)
	if err != nil {
		return nil, a.problemOf(ctx, err)
	}
	return &billAnswer{Body: a.view(b)}, nil
}

func (a *API) view(b bill.Bill) billView {
	v := billView{
		ID: b.ID, NoticeNumber: id.Group(b.Notice), Type: b.Type, Reference: b.Reference, State: b.State,
		IssuedOn: b.IssuedOn.String(), DueOn: b.DueOn.String(), Currency: money.CAD,
		AmountCents: int64(b.Billed), PaidCents: int64(b.Paid), DueCents: int64(b.Quote(a.p.Today()).Due),
		URL: a.p.BaseURL + "/pay?notice=" + url.QueryEscape(id.Group(b.Notice)), Version: b.Version,
	}
	if b.EarlyUntil != (clock.Date{}) {
		v.EarlyUntil = b.EarlyUntil.String()
	}
	for _, l := range b.Lines {
		v.Lines = append(v.Lines, lineView{Line: l.Line, Fee: l.Fee, DescriptionEN: l.DescriptionEN, DescriptionFR: l.DescriptionFR,
			Quantity: l.Quantity, NetCents: int64(l.Net), TaxCode: string(l.TaxCode), TaxCents: int64(l.Tax), StepCents: int64(l.Step)})
	}
	return v
}

type createCheckoutRequest struct {
	Idempotent
	Body struct {
		Bills     []string `json:"bills" minItems:"1" maxItems:"50" doc:"Ids of the department's bills"`
		ReturnURL string   `json:"return_url,omitempty" format:"uri" maxLength:"2000" doc:"Where the payer goes afterwards; it proves nothing"`
		Lang      string   `json:"lang,omitempty" enum:"en,fr" default:"en"`
	}
}

// A checkoutView is a checkout as departments see it.
type checkoutView struct {
	ID          string   `json:"id" format:"uuid"`
	State       string   `json:"state" enum:"open,paid,expired,cancelled"`
	URL         string   `json:"url,omitempty" doc:"Send the payer here. It lets whoever holds it pay: keep it out of logs"`
	AmountCents int64    `json:"amount_cents" doc:"What is due of its bills today"`
	Bills       []string `json:"bills"`
	Receipt     int64    `json:"receipt_number,omitempty"`
}

type checkoutAnswer struct{ Body checkoutView }

func (a *API) createCheckout(ctx context.Context, in *createCheckoutRequest) (*checkoutAnswer, error) {
	d := caller(ctx)
	if in.Body.ReturnURL != "" {
		if u, err := url.Parse(in.Body.ReturnURL); err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || u.User != nil {
			return nil, fieldProblem("body.return_url", fmt.Errorf("want an absolute http or https address"))
		}
	}
	checkoutID, token, err := a.p.Payments.Open(ctx, payments.NewCheckout{
		BillIDs: in.Body.Bills, Channel: "department", DepartmentID: d.ID, IdempotencyKey: in.Key, Lang: in.Body.Lang, ReturnURL: in.Body.ReturnURL,
	})
	if err != nil {
		return nil, a.problemOf(ctx, err)
	}
	answer, err := a.checkout(ctx, checkoutID)
	if err != nil {
		return nil, err
	}
	answer.Body.URL = a.p.Payments.CheckoutURL(token)
	return answer, nil
}

type checkoutRequest struct {
	ID string `path:"id" maxLength:"36"`
}

func (a *API) getCheckout(ctx context.Context, in *checkoutRequest) (*checkoutAnswer, error) {
	return a.checkout(ctx, in.ID)
}

func (a *API) checkout(ctx context.Context, checkoutID string) (*checkoutAnswer, error) {
	c, err := a.p.Payments.ForDepartment(ctx, caller(ctx).ID, checkoutID)
	if err != nil {
		return nil, a.problemOf(ctx, err)
	}
	v := checkoutView{ID: c.ID, State: c.State, AmountCents: int64(c.Total)}
	for _, b := range c.Bills {
		v.Bills = append(v.Bills, b.ID)
	}
	if c.Receipt != nil {
		v.Receipt = c.Receipt.Number
	}
	return &checkoutAnswer{Body: v}, nil
}
