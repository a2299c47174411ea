package departments

import (
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"guichet/payments/bill"
)

// BillEvent is the body of a webhook about a bill. Package department sends it;
// here it is only described.
type BillEvent struct {
	EventHead
	Object EventObject   `json:"object"`
	Data   BillEventData `json:"data"`
}

// PaymentEvent is the body of a webhook about a payment: the department's part of it.
type PaymentEvent struct {
	EventHead
	Object EventObject      `json:"object"`
	Data   PaymentEventData `json:"data"`
}

// EventHead is what every event has.
type EventHead struct {
	ID        string    `json:"id" format:"uuid" doc:"The same at every delivery, also in the header webhook-id"`
	Type      string    `json:"type" example:"bill.paid"`
	Timestamp time.Time `json:"timestamp"`
}

// EventObject names what an event is about.
type EventObject struct {
	Type     string `json:"type" enum:"bill,payment"`
	ID       string `json:"id" format:"uuid"`
	Sequence int64  `json:"sequence" doc:"Grows with every change of the object: drop what is older than you know"`
}

// BillEventData is the bill after the event.
type BillEventData struct {
	ID           string     `json:"id" format:"uuid"`
	Reference    string     `json:"reference" example:"DEMO-T-1001"`
	NoticeNumber string     `json:"notice_number" example:"7K3M-92QX-DA"`
	Type         string     `json:"type" example:"fine"`
	State        bill.State `json:"state" enum:"draft,open,part_paid,paid,cancelled,replaced,transferred,written_off" example:"paid"`
	BilledCents  int64      `json:"billed_cents" example:"5500"`
	PaidCents    int64      `json:"paid_cents" example:"5500"`
	Currency     string     `json:"currency" enum:"CAD"`
}

// PaymentEventData is the department's part of a payment.
type PaymentEventData struct {
	ID          string             `json:"id" format:"uuid"`
	Reference   string             `json:"reference" example:"R4T7YQ2M9A" doc:"What stands on the receipt"`
	AmountCents int64              `json:"amount_cents" example:"5500"`
	Currency    string             `json:"currency" enum:"CAD"`
	Tender      string             `json:"tender" enum:"card,cash,cheque,interac,online_banking,pre_authorised_debit,credit" example:"card"`
	Bills       []PaymentEventBill `json:"bills"`
}

// PaymentEventBill is what a payment brought one bill.
type PaymentEventBill struct {
	ID          string `json:"id" format:"uuid"`
	Reference   string `json:"reference" example:"DEMO-T-1001"`
	AmountCents int64  `json:"amount_cents" example:"5500"`
}

// eventTypes are the types of events that departments hear of.
var eventTypes = []struct {
	name, summary string
	body          reflect.Type
}{
	{"bill.issued", "A bill was issued", reflect.TypeFor[BillEvent]()},
	{"bill.part_paid", "A part of a bill was paid", reflect.TypeFor[BillEvent]()},
	{"bill.paid", "A bill was paid in full", reflect.TypeFor[BillEvent]()},
	{"bill.cancelled", "A bill was withdrawn", reflect.TypeFor[BillEvent]()},
	{"payment.succeeded", "A payment over at least one of the department's bills succeeded", reflect.TypeFor[PaymentEvent]()},
}

// describeEvents adds what is sent to departments, by the Standard Webhooks
// specification.
func describeEvents(doc *huma.OpenAPI) {
	doc.Webhooks = make(map[string]*huma.PathItem, len(eventTypes))
	text := &huma.Schema{Type: huma.TypeString}
	for _, e := range eventTypes {
		doc.Webhooks[e.name] = &huma.PathItem{Post: &huma.Operation{
			OperationID: "on-" + e.name, Summary: e.summary, Description: "Sent to every endpoint of the department.", Security: []map[string][]string{{}},
			Parameters: []*huma.Param{
				{Name: "webhook-id", In: "header", Required: true, Schema: text, Description: "The event's id: handle each once"},
				{Name: "webhook-timestamp", In: "header", Required: true, Schema: text, Description: "Seconds since 1970: refuse what is older than five minutes"},
				{
					Name: "webhook-signature", In: "header", Required: true, Schema: text,
					Description: "v1, and the base64 of HMAC-SHA-256 over id.timestamp.body with the endpoint's secret; several are separated by spaces",
				},
			},
			RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
				"application/json": {Schema: doc.Components.Schemas.Schema(e.body, true, "")},
			}},
			Responses: map[string]*huma.Response{"2XX": {Description: http.StatusText(http.StatusOK) + ": anything else, or no answer in 5 seconds, is tried again for three days"}},
		}}
	}
}
