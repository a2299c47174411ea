package stripe

import "fmt"

// The types of error Stripe answers with.
const (
	apiFailure       = "api_error"
	cardError        = "card_error"
	idempotencyError = "idempotency_error"
	invalidRequest   = "invalid_request_error"
)

// An apiError is an answer of the API that is not 200.
type apiError struct {
	Status  int
	Type    string
	Code    string
	Param   string
	Message string

	// Begun: the request was understood and its execution began, so that the answer
	// is kept under its idempotency key. What fails validation is not kept.
	Begun bool
}

func (e *apiError) Error() string { return e.Message }

// An errorBody is the member "error" of an answer, and of a failed intent.
type errorBody struct {
	Charge      string `json:"charge,omitempty"`
	Code        string `json:"code,omitempty"`
	DeclineCode string `json:"decline_code,omitempty"`
	DocURL      string `json:"doc_url,omitempty"`
	Message     string `json:"message"`
	Param       string `json:"param,omitempty"`
	Type        string `json:"type"`
}

func (e *apiError) body() object {
	b := errorBody{Code: e.Code, Message: e.Message, Param: e.Param, Type: e.Type}
	if e.Code != "" {
		b.DocURL = docURL(e.Code)
	}
	return object{"error": b}
}

func docURL(code string) string { return "https://stripe.com/docs/error-codes/" + dashed(code) }

func dashed(code string) string {
	b := []byte(code)
	for i := range b {
		if b[i] == '_' {
			b[i] = '-'
		}
	}
	return string(b)
}

// badParam refuses one parameter; nothing has begun.
func badParam(code, param, format string, args ...any) *apiError {
	return &apiError{Status: 400, Type: invalidRequest, Code: code, Param: param, Message: fmt.Sprintf(format, args...)}
}

// badState refuses a request because of the state of what it is about.
func badState(code, format string, args ...any) *apiError {
	return &apiError{Status: 400, Type: invalidRequest, Code: code, Message: fmt.Sprintf(format, args...), Begun: true}
}

// missing says that an id names nothing. In a path it is 404, as a parameter 400.
func missing(kind, id, param string) *apiError {
	status := 404
	if param != "id" {
		status = 400
	}
	return &apiError{Status: status, Type: invalidRequest, Code: "resource_missing", Param: param, Message: fmt.Sprintf("No such %s: '%s'", kind, id), Begun: true}
}
