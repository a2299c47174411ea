package api

import (
	"cmp"
	"embed"
	"net/http"
	"slices"

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
	Version    string
	Operations []operation
}

type operation struct {
	ID, Method, Path, Summary string
	Parameters, Fields        []field
	Answers                   []answer
}

type field struct {
	Name, Where, Type, Doc string
	Required               bool
}

type answer struct {
	Status, Meaning string
	Fields          []field
}

// reference registers the page and returns its handler. The document does not
// change while the program runs.
func reference(site *web.Site, doc *huma.OpenAPI) http.HandlerFunc {
	site.Register("developers", files)
	page := referencePage{Document: departments.Prefix + "/openapi.json", Version: doc.Info.Version}
	for path, item := range doc.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Post} {
			if op != nil {
				page.Operations = append(page.Operations, operationOf(doc, path, op))
			}
		}
	}
	slices.SortFunc(page.Operations, func(a, b operation) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Method, b.Method))
	})
	return func(w http.ResponseWriter, r *http.Request) {
		site.Page(w, r, http.StatusOK, "developers/reference", page)
	}
}

func operationOf(doc *huma.OpenAPI, path string, op *huma.Operation) operation {
	o := operation{ID: op.OperationID, Method: op.Method, Path: departments.Prefix + path, Summary: op.Summary}
	for _, p := range op.Parameters {
		o.Parameters = append(o.Parameters, field{Name: p.Name, Where: p.In, Type: typeOf(p.Schema), Doc: cmp.Or(p.Description, p.Schema.Description), Required: p.Required})
	}
	if op.RequestBody != nil {
		o.Fields = fieldsOf(doc, op.RequestBody.Content["application/json"], "")
	}
	for status, r := range op.Responses {
		a := answer{Status: status, Meaning: r.Description}
		if status[0] == '2' {
			a.Fields = fieldsOf(doc, r.Content["application/json"], "")
		}
		o.Answers = append(o.Answers, a)
	}
	slices.SortFunc(o.Answers, func(a, b answer) int { return cmp.Compare(a.Status, b.Status) })
	return o
}

func fieldsOf(doc *huma.OpenAPI, media *huma.MediaType, prefix string) []field {
	if media == nil {
		return nil
	}
	return properties(doc, media.Schema, prefix)
}

// properties lists a schema's members, those of lists and objects beneath their own.
func properties(doc *huma.OpenAPI, s *huma.Schema, prefix string) []field {
	s = resolve(doc, s)
	names := make([]string, 0, len(s.Properties))
	for name := range s.Properties {
		names = append(names, name)
	}
	slices.Sort(names)
	var out []field
	for _, name := range names {
		p := s.Properties[name]
		out = append(out, field{Name: prefix + name, Type: typeOf(resolve(doc, p)), Doc: p.Description, Required: slices.Contains(s.Required, name)})
		switch r := resolve(doc, p); {
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

func typeOf(s *huma.Schema) string {
	if s.Format != "" && s.Type == huma.TypeString {
		return s.Format
	}
	return s.Type
}
