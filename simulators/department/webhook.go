package department

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"guichet/simulators/control"
)

// event is a webhook that was received, and what the page shows of it.
type event struct {
	ID         string          `json:"id"` // webhook-id
	Department string          `json:"department"`
	Type       string          `json:"type"`
	ReceivedAt time.Time       `json:"received_at"`
	Deliveries int             `json:"deliveries"`
	Payload    json.RawMessage `json:"payload,omitempty"`
}

// key tells events apart: a webhook-id is one department's.
func (e event) key() string { return e.Department + " " + e.ID }

// maxPayloads bounds the payloads in memory: those of older events are forgotten,
// the events are not.
const maxPayloads = 2000

// apply keeps an event once for its id; the journal holds a short line for each
// further delivery.
func (a *App) apply(e event) {
	if i, ok := a.byID[e.key()]; ok {
		a.events[i].Deliveries++
		return
	}
	e.Deliveries = 1
	a.byID[e.key()] = len(a.events)
	a.events = append(a.events, e)
	if n := len(a.events) - maxPayloads; n > 0 {
		a.events[n-1].Payload = nil
	}
}

// newest lists events, newest first.
func (a *App) newest(department string, limit int) []event {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := []event{}
	for _, e := range slices.Backward(a.events) {
		if len(out) == limit {
			break
		}
		if department == "" || e.Department == department {
			out = append(out, e)
		}
	}
	return out
}

// hook receives a webhook: first its signature, then the event once, then 204.
func (a *App) hook(w http.ResponseWriter, r *http.Request, d Department) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		control.Fail(w, http.StatusRequestEntityTooLarge, "the body cannot be read")
		return
	}
	a.faults.Hold(r.Context(), d.Code)
	if _, hit := a.faults.Strike("drop", d.Code); hit {
		panic(http.ErrAbortHandler) // net/http ends the connection
	}
	if _, hit := a.faults.Strike("error", d.Code); hit {
		control.Fail(w, http.StatusInternalServerError, "told to fail")
		return
	}
	if _, hit := a.faults.Strike("refuse", d.Code); hit {
		control.Fail(w, http.StatusGone, "told to refuse")
		return
	}
	if err := a.verify(d, body, r.Header); err != nil {
		a.o.Log.Warn("webhook refused", "department", d.Code, "error", err)
		control.Fail(w, http.StatusUnauthorized, "%v", err)
		return
	}
	var payload struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(body, &payload); err != nil {
		control.Fail(w, http.StatusBadRequest, "the body is not JSON: %v", err)
		return
	}
	e := event{ID: r.Header.Get("webhook-id"), Department: d.Code, Type: payload.Type, ReceivedAt: a.o.Now(), Payload: body}
	if err := a.receive(e); err != nil {
		a.o.Log.Error("keep webhook", "department", d.Code, "error", err)
		control.Fail(w, http.StatusInternalServerError, "cannot keep the event")
		return
	}
	if _, hit := a.faults.Strike("store-and-fail", d.Code); hit {
		control.Fail(w, http.StatusInternalServerError, "told to fail")
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// tolerance is how far a webhook's clock may be off, as the specification's
// libraries have it.
const tolerance = 5 * time.Minute

// verify checks the signature with the specification's own library, and the time
// against our clock: the library only knows the wall's.
func (a *App) verify(d Department, body []byte, h http.Header) error {
	if err := a.hooks[d.Code].VerifyIgnoringTimestamp(body, h); err != nil {
		return err
	}
	seconds, err := strconv.ParseInt(h.Get("webhook-timestamp"), 10, 64)
	if err != nil {
		return err
	}
	if off := a.o.Now().Sub(time.Unix(seconds, 0)).Abs(); off > tolerance {
		return errors.New("the timestamp is too far from now")
	}
	return nil
}

// receive keeps an event. Only its first delivery is written with its payload.
func (a *App) receive(e event) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, again := a.byID[e.key()]; again {
		e.Payload = nil
	}
	if err := a.journal.Append(e); err != nil {
		return err
	}
	a.apply(e)
	return nil
}
