package departments

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"slices"

	"guichet/payments"
)

// NewCheckout asks for a checkout.
type NewCheckout struct {
	Bills     []string `json:"bills" minItems:"1" maxItems:"50" doc:"Ids of the department's bills, each once"`
	ReturnURL string   `json:"return_url,omitempty" format:"uri" maxLength:"2000" example:"https://permits.example.ca/back" doc:"Where the payer goes afterwards: https, or http on the same machine. That somebody comes there proves nothing"`
	Lang      string   `json:"lang,omitempty" enum:"en,fr" default:"en"`
}

// Checkout is a checkout as departments see it.
type Checkout struct {
	ID          string   `json:"id" format:"uuid"`
	State       string   `json:"state" enum:"open,paid,expired,cancelled" example:"open"`
	URL         string   `json:"url,omitempty" format:"uri" doc:"After a POST only: send the payer here. It lets whoever holds it pay, so keep it out of logs"`
	AmountCents int64    `json:"amount_cents" example:"5500" doc:"What is due of its bills today"`
	Bills       []string `json:"bills"`
	Receipt     int64    `json:"receipt_number,omitempty" example:"1042" doc:"Once it is paid"`
}

type createCheckoutRequest struct {
	Idempotent
	Body NewCheckout
}

type newCheckoutAnswer struct {
	Body Checkout
	Replayed
}

func (a *API) createCheckout(ctx context.Context, in *createCheckoutRequest) (*newCheckoutAnswer, error) {
	d := caller(ctx)
	var wrong []error
	for i, billID := range in.Body.Bills {
		if slices.Contains(in.Body.Bills[:i], billID) {
			wrong = append(wrong, field(fmt.Sprintf("body.bills[%d]", i), "it is there already"))
		}
	}
	if in.Body.ReturnURL != "" && !leadsBack(in.Body.ReturnURL) {
		wrong = append(wrong, field("body.return_url", "want an absolute https address without a user name"))
	}
	if len(wrong) > 0 {
		return nil, invalid(wrong...)
	}
	checkoutID, token, replayed, err := a.p.Payments.OpenOnce(ctx, payments.NewCheckout{
		BillIDs: in.Body.Bills, Channel: "department", DepartmentID: d.ID, IdempotencyKey: in.Key, Lang: in.Body.Lang, ReturnURL: in.Body.ReturnURL,
	})
	if err != nil {
		return nil, a.problemOf(ctx, err)
	}
	c, err := a.checkout(ctx, checkoutID)
	if err != nil {
		return nil, err
	}
	c.URL = a.p.Payments.CheckoutURL(token)
	return &newCheckoutAnswer{c, replayedIf(replayed)}, nil
}

// leadsBack reports whether a payer may be sent to an address: over TLS, or to
// the machine itself, where applications are developed.
func leadsBack(address string) bool {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Scheme == "https" || u.Scheme == "http" && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback())
}

type checkoutRequest struct {
	ID string `path:"id" doc:"The checkout's id"`
}

type checkoutAnswer struct{ Body Checkout }

func (a *API) getCheckout(ctx context.Context, in *checkoutRequest) (*checkoutAnswer, error) {
	c, err := a.checkout(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return &checkoutAnswer{c}, nil
}

func (a *API) checkout(ctx context.Context, checkoutID string) (Checkout, error) {
	c, err := a.p.Payments.ForDepartment(ctx, caller(ctx).ID, checkoutID)
	if err != nil {
		return Checkout{}, a.problemOf(ctx, err)
	}
	v := Checkout{ID: c.ID, State: c.State, AmountCents: int64(c.Total)}
	for _, b := range c.Bills {
		v.Bills = append(v.Bills, b.ID)
	}
	if c.Receipt != nil {
		v.Receipt = c.Receipt.Number
	}
	return v, nil
}
