package departments

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
)

const about = "Bills and checkouts for departmental applications, and journal entries of finance systems. Amounts are integers of cents, in Canadian dollars. " +
	"A POST takes an Idempotency-Key: the same key with the same body does nothing again and answers with the object as it is now; " +
	"with another body it is refused (409). Keys count per operation and are kept for good. " +
	"What belongs to another department is not found (404). Members and parameters that are not described here are refused (422); " +
	"answers and events may get new members."

// ExampleBill stands in examples where the id of a bill goes.
const ExampleBill = "01980d6e-7c00-7000-8000-000000000001"

// examples are bodies of requests, by operation. Their values are those of the
// demonstration.
var examples = map[string]any{
	"create-bill": NewBill{
		Type: "fine", Reference: "DEMO-T-1001", GuestKey: "DEMO 001", IssuedOn: "2026-06-01", DueOn: "2026-06-16",
		Lines: []NewLine{{Fee: "parking-wrong-way", Quantity: 1}},
	},
	"cancel-bill":            Cancellation{Reason: "issued in error"},
	"create-checkout":        NewCheckout{Bills: []string{ExampleBill}, ReturnURL: "https://parking.example.ca/back", Lang: "en"},
	"create-journal-entry":   payroll,
	"create-journal-entries": []KeyedEntry{{"payroll-2026-24-0002", payroll}},
}

var payroll = NewEntry{
	Reference: "PAY-2026-24", Description: "Payroll, period 24", Lines: []EntryLine{
		{"expenses:payroll", 125000, Dimensions{Department: "water", CostCentre: "4300"}},
		{"liabilities:payroll", -125000, Dimensions{}},
	},
}

// Document is the OpenAPI document, for the reference pages.
func (a *API) Document() *huma.OpenAPI { return a.huma.OpenAPI() }

// finish completes the document with what the types do not say: examples, events,
// and that answers may get new members while requests may not have unknown ones.
// It takes out a keyword that only the library knows.
func (a *API) finish() {
	doc := a.huma.OpenAPI()
	doc.Tags = []*huma.Tag{{Name: "bills", Description: "What is owed"}, {Name: "checkouts", Description: "Paying bills together"}, {Name: "journal-entries", Description: "Entries of finance systems, with a journal key"}}
	describeEvents(doc)
	asked := map[*huma.Schema]bool{} // parts of requests
	for _, item := range doc.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Post} {
			if op == nil {
				continue
			}
			for _, p := range op.Parameters {
				p.Schema.PatternDescription = "" // it lives on in the messages
			}
			if op.RequestBody != nil {
				media := op.RequestBody.Content["application/json"]
				media.Example = examples[op.OperationID]
				reach(doc, media.Schema, asked)
			}
		}
	}
	for _, s := range doc.Components.Schemas.Map() {
		if !asked[s] {
			s.AdditionalProperties = nil
		}
		for _, p := range s.Properties {
			p.PatternDescription = ""
		}
	}
}

// reach collects the schemas that a schema refers to.
func reach(doc *huma.OpenAPI, s *huma.Schema, found map[*huma.Schema]bool) {
	switch {
	case s == nil || found[s]:
		return
	case s.Ref != "":
		reach(doc, doc.Components.Schemas.SchemaFromRef(s.Ref), found)
		return
	}
	found[s] = true
	reach(doc, s.Items, found)
	for _, p := range s.Properties {
		reach(doc, p, found)
	}
}

// serveDocument answers with the document. It does not change any more.
func (a *API) serveDocument() http.HandlerFunc {
	text, err := json.Marshal(a.huma.OpenAPI())
	if err != nil {
		panic(fmt.Sprintf("departments: OpenAPI document: %v", err)) // it holds only what is written here
	}
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(text) // a reader who has gone away is nobody's error
	}
}
