package departments

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/validation"

	"guichet/ledger"
	"guichet/payments"
	"guichet/payments/bill"
)

// A Problem is an RFC 9457 problem document. Unlike the library's own, it never
// repeats the rejected value: it may be a secret.
type Problem struct {
	Type   string  `json:"type" enum:"about:blank" doc:"Always about:blank: the title is that of the status, and code tells more"`
	Title  string  `json:"title" example:"Unprocessable Entity"`
	Status int     `json:"status" example:"422"`
	Code   Code    `json:"code" enum:"bad-request,unauthorized,forbidden,account-not-allowed,not-found,method-not-allowed,timeout,wrong-state,idempotency-conflict,reference-taken,being-paid,period-closed,account-closed,limit,too-large,unsupported-media-type,invalid,unbalanced,unknown-account,internal" example:"invalid" doc:"What to branch on; more may be added"`
	Detail string  `json:"detail" doc:"For a person; may change"`
	Errors []Field `json:"errors,omitempty" doc:"With 400 and 422: the fields that are wrong; of journal entries with 403 and 409 too"`
	Entry  string  `json:"entry,omitempty" format:"uuid" doc:"With idempotency-conflict, of journal entries: the entry that has the key"`
}

// A Field says what is wrong with one field.
type Field struct {
	Location string `json:"location" example:"body.lines[0].fee" doc:"Begins with body, path, query or header"`
	Message  string `json:"message" example:"the department has no such fee on the date of issue"`
}

// A Code is a kind of problem, for programs.
type Code string

// The codes that a status alone does not tell.
const (
	wrongState          Code = "wrong-state"
	idempotencyConflict Code = "idempotency-conflict"
	referenceTaken      Code = "reference-taken"
	beingPaid           Code = "being-paid"
	accountNotAllowed   Code = "account-not-allowed"
	periodClosed        Code = "period-closed"
	accountClosed       Code = "account-closed"
	limit               Code = "limit"
	unbalanced          Code = "unbalanced"
	unknownAccount      Code = "unknown-account"
)

// A Kind is a code with its status.
type Kind struct {
	Status int
	Code   Code
}

// Kinds are all there are. The first of a status is what the library's errors get.
var Kinds = []Kind{
	{http.StatusBadRequest, "bad-request"},
	{http.StatusUnauthorized, "unauthorized"},
	{http.StatusForbidden, "forbidden"},
	{http.StatusForbidden, accountNotAllowed},
	{http.StatusNotFound, "not-found"},
	{http.StatusMethodNotAllowed, "method-not-allowed"},
	{http.StatusRequestTimeout, "timeout"},
	{http.StatusConflict, wrongState},
	{http.StatusConflict, idempotencyConflict},
	{http.StatusConflict, referenceTaken},
	{http.StatusConflict, beingPaid},
	{http.StatusConflict, periodClosed},
	{http.StatusConflict, accountClosed},
	{http.StatusConflict, limit},
	{http.StatusRequestEntityTooLarge, "too-large"},
	{http.StatusUnsupportedMediaType, "unsupported-media-type"},
	{http.StatusUnprocessableEntity, "invalid"},
	{http.StatusUnprocessableEntity, unbalanced},
	{http.StatusUnprocessableEntity, unknownAccount},
	{http.StatusInternalServerError, "internal"},
}

func codeOf(status int) Code {
	for _, k := range Kinds {
		if k.Status == status {
			return k.Code
		}
	}
	return ""
}

// coded is a problem of a code, with its status.
func coded(code Code, detail string) *Problem {
	i := slices.IndexFunc(Kinds, func(k Kind) bool { return k.Code == code })
	status := Kinds[i].Status
	return &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Code: code, Detail: detail}
}

func (p *Problem) Error() string  { return p.Detail }
func (p *Problem) GetStatus() int { return p.Status }

// ContentType is RFC 9457's.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

// problem makes every error of the library. Its messages are constant texts, but
// for the names of members and parameters that it does not know.
func problem(status int, message string, errs ...error) huma.StatusError {
	if status == http.StatusInternalServerError && message == "cannot read request body" {
		status, message = http.StatusBadRequest, "the body could not be read to its end" // cut off, or broken chunks
	}
	p := &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Code: codeOf(status), Detail: message}
	return p.with(errs...)
}

// with adds the fields that are wrong.
func (p *Problem) with(fields ...error) *Problem {
	for _, err := range fields {
		if d, ok := err.(huma.ErrorDetailer); ok {
			p.Errors = append(p.Errors, fieldOf(d.ErrorDetail()))
		}
	}
	return p
}

// memberName is how a name looks that may be repeated to whoever sent it: what is
// longer or stranger may be a value in the wrong place.
var memberName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,39}$`)

func fieldOf(d *huma.ErrorDetail) Field {
	f := Field{Location: d.Location, Message: d.Message}
	var names []string
	switch {
	case d.Message == validation.MsgUnexpectedProperty:
		f.Message = "there is no such member"
		members, _ := d.Value.(map[string]any) // the object that has it
		for name := range members {
			names = append(names, name)
		}
	case d.Message == "unknown query parameter":
		f.Message = "there is no such parameter"
		names = append(names, strings.TrimPrefix(d.Location, "query."))
	}
	for _, name := range names {
		if parent, ok := strings.CutSuffix(d.Location, "."+name); ok && !memberName.MatchString(name) {
			f.Location = parent
		}
	}
	return f
}

// quoteless formats the library's messages. Errors of parsers quote what they
// could not parse, so they are left out.
func quoteless(format string, args ...any) string {
	for _, a := range args {
		if _, ok := a.(error); ok {
			return strings.TrimSuffix(format, ": %v")
		}
	}
	return fmt.Sprintf(format, args...)
}

func writeProblem(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(problem(status, detail)) // a caller who has gone away is nobody's error
}

// invalid is 422 with the fields that are wrong.
func invalid(fields ...error) error {
	return problem(http.StatusUnprocessableEntity, "validation failed", fields...)
}

func field(location, message string) error {
	return &huma.ErrorDetail{Location: location, Message: message}
}

// problemOf turns an error of the rooms below into an answer. What it does not
// know is 500 without detail; the cause goes to the log.
func (a *API) problemOf(ctx context.Context, err error) error {
	conflict := func(code Code, detail string) error { return coded(code, detail) }
	move := new(bill.TransitionError)
	switch {
	case errors.Is(err, bill.ErrNotFound), errors.Is(err, payments.ErrNotFound), errors.Is(err, ledger.ErrNotFound):
		return problem(http.StatusNotFound, "the department has no such object")
	case errors.Is(err, bill.ErrConflict), errors.Is(err, payments.ErrConflict):
		return conflict(idempotencyConflict, "the Idempotency-Key was used before with another body")
	case errors.Is(err, bill.ErrReference):
		return conflict(referenceTaken, "the department has a bill with this reference already")
	case errors.Is(err, bill.ErrBeingPaid):
		return conflict(beingPaid, "the bill is being paid right now")
	case errors.As(err, &move):
		return conflict(wrongState, move.Error())
	}
	a.p.Log.ErrorContext(ctx, "department API", "error", err)
	return problem(http.StatusInternalServerError, "something went wrong on our side; try again with the same Idempotency-Key")
}
