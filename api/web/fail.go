package web

import (
	"net/http"
	"strconv"
)

// failure is the data of the error page.
type failure struct {
	Status    int
	Title     Message
	Message   Message
	RequestID string
	Home      string // the first page, of the desk or of residents
	Minutes   int    // how long to wait, 0: not known
}

// The statuses that have words of their own in locale/*.toml; others speak as 500 or 400.
var spokenStatus = map[int]bool{400: true, 403: true, 404: true, 405: true, 413: true, 429: true, 500: true, 503: true}

// retryAfter is what 429 and 503 ask for when the handler did not say, in seconds.
const retryAfter = 60

// Fail answers with the error page: a plain sentence, in the reader's language
// first and then in the other one, and the request id. The sentence is the message of
// key; an empty key means the usual one of the status. The cause is the caller's to log.
func (s *Site) Fail(w http.ResponseWriter, r *http.Request, status int, key string, args ...any) {
	words := status
	if !spokenStatus[words] {
		words = http.StatusBadRequest
		if status >= 500 {
			words = http.StatusInternalServerError
		}
	}
	group := "web.error.s" + strconv.Itoa(words)
	f := failure{Status: status, Title: Say(group + ".title"), Message: Say(group + ".text"), RequestID: s.requestID(r.Context()), Home: "/"}
	if here(r.URL.Path, deskPath) {
		f.Home = deskPath
	}
	if key != "" {
		f.Message = Say(key, args...)
	}
	if status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable {
		wait, err := strconv.Atoi(w.Header().Get("Retry-After"))
		if err != nil || wait <= 0 {
			wait = retryAfter
			w.Header().Set("Retry-After", strconv.Itoa(wait))
		}
		f.Minutes = (wait + 59) / 60
	}
	text, err := s.render(r, "web/error", f)
	if err != nil {
		s.log.ErrorContext(r.Context(), "render error page", "status", status, "key", key, "error", err)
		text = []byte(lastResort)
	}
	w.Header().Del("Refresh") // an error page that reloads itself would ask again for ever
	s.write(w, r, status, text)
}

// lastResort is sent when even the error page cannot be rendered.
const lastResort = `<!doctype html><html lang="en-CA"><meta charset="utf-8"><title>Guichet</title>
<p>Something went wrong on our side. Please try again later.</p>
<p lang="fr-CA">Un problème est survenu de notre côté. Veuillez réessayer plus tard.</p></html>`

// NotFound is the page of an address that leads nowhere.
func (s *Site) NotFound(w http.ResponseWriter, r *http.Request) {
	s.Fail(w, r, http.StatusNotFound, "")
}

// MethodNotAllowed is the page of a form sent to an address that takes none.
func (s *Site) MethodNotAllowed(w http.ResponseWriter, r *http.Request) {
	s.Fail(w, r, http.StatusMethodNotAllowed, "")
}
