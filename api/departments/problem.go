package departments

import (
	"encoding/json"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
)

// A Problem is an RFC 9457 problem document. Unlike the library's own, it never
// repeats the rejected value: it may be a secret.
type Problem struct {
	Type   string  `json:"type" doc:"A name of the kind of problem" example:"about:blank"`
	Title  string  `json:"title"`
	Status int     `json:"status"`
	Detail string  `json:"detail"`
	Errors []Field `json:"errors,omitempty" doc:"The fields that are wrong"`
}

// A Field says what is wrong with one field.
type Field struct {
	Location string `json:"location" example:"body.lines[0].fee"`
	Message  string `json:"message"`
}

func (p *Problem) Error() string  { return p.Detail }
func (p *Problem) GetStatus() int { return p.Status }

// ContentType is RFC 9457's.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

func problem(status int, message string, errs ...error) huma.StatusError {
	p := &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: message}
	for _, err := range errs {
		if d, ok := err.(huma.ErrorDetailer); ok {
			detail := d.ErrorDetail()
			p.Errors = append(p.Errors, Field{Location: detail.Location, Message: detail.Message})
		}
	}
	return p
}

func writeProblem(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(problem(status, detail)) //nolint:errcheck // the caller has gone
}
