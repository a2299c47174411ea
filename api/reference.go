package api

import (
	"cmp"
	"embed"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"guichet/api/departments"
	"guichet/api/web"
)

//go:embed templates locale
var files embed.FS

// referencePage shows the department API to developers, made from its OpenAPI
// document; it loads nothing from elsewhere.
type referencePage struct {
	Document   string // address of the OpenAPI document
	Base       string // of the API
	Version    string
	Operations []operation
	Events     []event
	Kinds      []departments.Kind
	Start      string // the first thing to try in a shell
	Verify     string // a signature made in a shell
	Problem    string // an answer with an error
}

type operation struct {
	ID, Method, Path   string
	Summary            string // in the document's language
	Parameters, Fields []field
	Status             string // of success
	Answer             []field
	Errors             []string // statuses
	Curl               string
}

type field struct {
	Name, Type, Doc string
	Where           string // of a parameter: path, query or header
	Values          []any  // all there are
	Bounds          string // of a number: "1–100"
	Required        bool
}

// events with the same body are told together.
type event struct {
	Types  []eventType
	Fields []field
}

// An eventType has a name with dots, and a key of a word.
type eventType struct{ Name, Key string }

// sample is a webhook with its signature, for trying a verification. The secret
// decodes to what it is.
var sample = struct{ Secret, ID, Timestamp, Body, Signature string }{
	Secret:    "whsec_Z3VpY2hldC1kZW1vbnN0cmF0aW9uLXNlY3JldC0wMDA=",
	ID:        "01980d6e-7c00-7000-8000-000000000002",
	Timestamp: "1780344000",
	Body:      `{"type":"bill.paid"}`,
	Signature: "v1,prVXE8H5XHAZ1c9suz4UWqP3IHuScCnrdYCcMgJpqbg=",
}

// reference registers the page and returns its handler. The document does not
// change while the program runs.
func reference(site *web.Site, doc *huma.OpenAPI) http.HandlerFunc {
	site.Register("developers", files)
	page := pageOf(doc)
	return func(w http.ResponseWriter, r *http.Request) {
		site.Page(w, r, http.StatusOK, "developers/reference", page)
	}
}

func pageOf(doc *huma.OpenAPI) referencePage {
	base := doc.Servers[0].URL
	page := referencePage{
		Document: departments.DocumentPath, Base: base, Version: doc.Info.Version, Kinds: departments.Kinds,
		Start:  "export GUICHET_KEY=guichet_test_…\ncurl " + base + `/bills -H "Authorization: Bearer $GUICHET_KEY"`,
		Verify: verify(), Problem: exampleProblem(),
	}
	for path, item := range doc.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Post} {
			if op != nil {
				page.Operations = append(page.Operations, operationOf(doc, path, op))
			}
		}
	}
	slices.SortFunc(page.Operations, func(a, b operation) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), -cmp.Compare(a.Method, b.Method)) // creating comes before reading
	})
	byBody := map[string]*event{}
	for kind, item := range doc.Webhooks {
		media := item.Post.RequestBody.Content["application/json"]
		e := byBody[media.Schema.Ref]
		if e == nil {
			e = &event{Fields: properties(doc, media.Schema, "")}
			byBody[media.Schema.Ref] = e
		}
		e.Types = append(e.Types, eventType{kind, strings.ReplaceAll(kind, ".", "-")})
	}
	for _, e := range byBody {
		slices.SortFunc(e.Types, func(a, b eventType) int { return cmp.Compare(a.Name, b.Name) })
		page.Events = append(page.Events, *e)
	}
	slices.SortFunc(page.Events, func(a, b event) int { return cmp.Compare(a.Types[0].Name, b.Types[0].Name) })
	return page
}

// verify makes the sample's signature with the tools of a shell.
func verify() string {
	return fmt.Sprintf(`SECRET=%s
ID=%s
TIMESTAMP=%s
BODY='%s'

KEY=$(printf %%s "${SECRET#whsec_}" | base64 -d | od -An -v -tx1 | tr -d ' \n')
printf %%s "$ID.$TIMESTAMP.$BODY" |
  openssl dgst -sha256 -mac HMAC -macopt "hexkey:$KEY" -binary | base64

# webhook-signature: %s`, sample.Secret, sample.ID, sample.Timestamp, sample.Body, sample.Signature)
}

func exampleProblem() string {
	text := indented(departments.Problem{
		Type: "about:blank", Title: http.StatusText(http.StatusUnprocessableEntity), Status: http.StatusUnprocessableEntity, Code: "invalid",
		Detail: "validation failed", Errors: []departments.Field{{Location: "body.lines[0].fee", Message: "the department has no such fee on the date of issue"}},
	}, "")
	return "HTTP/1.1 422 Unprocessable Entity\nContent-Type: application/problem+json\n\n" + text
}

func operationOf(doc *huma.OpenAPI, path string, op *huma.Operation) operation {
	o := operation{ID: op.OperationID, Method: op.Method, Path: departments.Prefix + path, Summary: op.Summary, Curl: curl(doc, path, op)}
	for _, p := range op.Parameters {
		o.Parameters = append(o.Parameters, field{
			Name: p.Name, Where: p.In, Type: typeOf(doc, p.Schema), Doc: cmp.Or(p.Description, p.Schema.Description),
			Values: p.Schema.Enum, Bounds: bounds(p.Schema), Required: p.Required,
		})
	}
	if op.RequestBody != nil {
		o.Fields = properties(doc, op.RequestBody.Content["application/json"].Schema, "")
	}
	for status, r := range op.Responses {
		if status[0] == '2' {
			o.Status, o.Answer = status, properties(doc, r.Content["application/json"].Schema, "")
		} else {
			o.Errors = append(o.Errors, status)
		}
	}
	slices.Sort(o.Errors)
	return o
}

// curl is a command that can be pasted into a shell. The key, and the ids of what
// was made before, are shell variables.
func curl(doc *huma.OpenAPI, path string, op *huma.Operation) string {
	address := doc.Servers[0].URL + path
	thing, key := "BILL", "GUICHET_KEY"
	switch {
	case strings.HasPrefix(path, "/checkouts"):
		thing = "CHECKOUT"
	case strings.HasPrefix(path, "/journal-entries"):
		thing, key = "ENTRY", "GUICHET_JOURNAL_KEY"
	}
	var headers []string
	for _, p := range op.Parameters {
		switch {
		case p.In == "header":
			headers = append(headers, fmt.Sprintf(`  -H "%s: %s/DEMO-T-1001"`, p.Name, op.OperationID))
		case p.In == "query" && p.Required: // the key of what was created before
			address += fmt.Sprintf("?%s=%s/DEMO-T-1001", p.Name, strings.Replace(op.OperationID, "find-", "create-", 1))
		}
	}
	lines := []string{"curl " + strings.ReplaceAll(address, "{id}", "$"+thing), `  -H "Authorization: Bearer $` + key + `"`}
	if op.RequestBody != nil {
		lines = append(lines, `  -H "Content-Type: application/json"`)
		lines = append(lines, headers...)
		lines = append(lines, "  -d '"+body(op.RequestBody.Content["application/json"].Example)+"'")
	}
	return strings.Join(lines, " \\\n")
}

// body writes an example for the inside of single quotes of a shell.
func body(example any) string {
	return strings.NewReplacer("'", `'\''`, departments.ExampleBill, `'$BILL'`).Replace(indented(example, "  "))
}

func indented(v any, prefix string) string {
	text, err := json.MarshalIndent(v, prefix, "  ")
	if err != nil {
		panic(fmt.Sprintf("developers: example: %v", err)) // it is written in the program
	}
	return string(text)
}

// properties lists a schema's members, those of lists and objects beneath their
// own: first those that are required, as the document orders them.
func properties(doc *huma.OpenAPI, s *huma.Schema, prefix string) []field {
	s = resolve(doc, s)
	if s.Type == huma.TypeArray {
		return properties(doc, s.Items, prefix+"[].")
	}
	names := slices.Clone(s.Required)
	var optional []string
	for name := range s.Properties {
		if !slices.Contains(names, name) {
			optional = append(optional, name)
		}
	}
	slices.Sort(optional)
	var out []field
	for _, name := range append(names, optional...) {
		p := s.Properties[name]
		r := resolve(doc, p)
		out = append(out, field{
			Name: prefix + name, Type: typeOf(doc, p), Doc: cmp.Or(p.Description, r.Description), Values: r.Enum, Bounds: bounds(r),
			Required: slices.Contains(s.Required, name),
		})
		switch {
		case r.Type == huma.TypeArray && resolve(doc, r.Items).Type == huma.TypeObject:
			out = append(out, properties(doc, r.Items, prefix+name+"[].")...)
		case r.Type == huma.TypeObject:
			out = append(out, properties(doc, r, prefix+name+".")...)
		}
	}
	return out
}

func resolve(doc *huma.OpenAPI, s *huma.Schema) *huma.Schema {
	if s.Ref != "" {
		return doc.Components.Schemas.SchemaFromRef(s.Ref)
	}
	return s
}

func typeOf(doc *huma.OpenAPI, s *huma.Schema) string {
	s = resolve(doc, s)
	switch {
	case s.Type == huma.TypeArray:
		return typeOf(doc, s.Items) + "[]"
	case s.Type == huma.TypeString && s.Format != "":
		return s.Format
	}
	return s.Type
}

func bounds(s *huma.Schema) string {
	if s.Minimum == nil || s.Maximum == nil {
		return ""
	}
	return fmt.Sprintf("%.0f–%.0f", *s.Minimum, *s.Maximum)
}
