package stripe

import (
	"context"
	"net/http"
	"strings"

	"guichet/simulators/control"
)

// The faults that can be planted. The target of a fault of the API is the route as
// the package comment lists it, such as "POST /v1/refunds"; of a webhook, the type
// of the event; of decline, the decline code to use.
const (
	faultSlow         = "slow"
	faultError        = "error-500"
	faultErrorAfter   = "error-500-after"
	faultGateway      = "bad-gateway"
	faultGatewayAfter = "bad-gateway-after"
	faultHang         = "hang"
	faultHangAfter    = "hang-after"
	faultCut          = "cut"
	faultCutAfter     = "cut-after"
	faultRateLimit    = "rate-limit"
	faultDecline      = "decline"
	faultDelay        = "webhook-delay"
	faultDuplicate    = "webhook-duplicate"
	faultDrop         = "webhook-drop"
	faultHold         = "webhook-hold"
)

var faultKinds = []control.Kind{
	{Name: faultSlow, Does: "answers the API after the delay"},
	{Name: faultError, Does: "does nothing, answers Stripe's own 500 and keeps it under the idempotency key"},
	{Name: faultErrorAfter, Does: "does the work, answers 500 and keeps the 500 under the idempotency key"},
	{Name: faultGateway, Does: "does nothing, answers a proxy's 502 in HTML"},
	{Name: faultGatewayAfter, Does: "does the work, answers a proxy's 502 in HTML"},
	{Name: faultHang, Does: "does nothing and never answers"},
	{Name: faultHangAfter, Does: "does the work and never answers"},
	{Name: faultCut, Does: "does nothing and cuts the connection"},
	{Name: faultCutAfter, Does: "does the work and cuts the connection"},
	{Name: faultRateLimit, Does: "does nothing, answers 429"},
	{Name: faultDecline, Does: "declines the next card; the target is the decline code"},
	{Name: faultDelay, Does: "sends the webhook after the delay; the target is the event's type"},
	{Name: faultDuplicate, Does: "sends one more copy of the webhook; plant it N times for N copies"},
	{Name: faultDrop, Does: "never sends the webhook"},
	{Name: faultHold, Does: "keeps the webhook until released, then in an order shuffled by a seed"},
}

// strikes are the faults that take the place of an answer of the API.
var (
	strikesBefore = []string{faultGateway, faultHang, faultCut, faultRateLimit}
	strikesAfter  = []string{faultGatewayAfter, faultHangAfter, faultCutAfter}
)

// hit reports whether a fault of the kind strikes now.
func (s *Simulator) hit(kind, target string) bool {
	_, hit := s.faults.Strike(kind, target)
	return hit
}

// strike does the first fault of kinds that is planted for the route, in place of
// an answer.
func (s *Simulator) strike(ctx context.Context, w http.ResponseWriter, kinds []string, route string) bool {
	for _, kind := range kinds {
		if !s.hit(kind, route) {
			continue
		}
		switch kind {
		case faultGateway, faultGatewayAfter:
			w.Header().Set("Content-Type", "text/html")
			w.Header().Del("Request-Id") // the proxy never saw the answer
			w.WriteHeader(http.StatusBadGateway)
			_, _ = w.Write([]byte("<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>\n"))
			return true
		case faultRateLimit:
			a := errorAnswer(&apiError{Status: http.StatusTooManyRequests, Type: invalidRequest, Code: "rate_limit", Message: "Request rate limit exceeded."})
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(a.status)
			_, _ = w.Write(a.body)
			return true
		case faultHang, faultHangAfter:
			select {
			case <-ctx.Done():
			case <-s.stop:
			}
		}
		panic(http.ErrAbortHandler) // an empty 200 would be an answer
	}
	return false
}

// declines returns the code with which a planted fault declines the next card.
func (s *Simulator) declines() (code string, hit bool) {
	for _, code := range []string{"generic_decline", "insufficient_funds", "lost_card", "stolen_card", "expired_card", "incorrect_cvc", "processing_error"} {
		if s.hit(faultDecline, code) {
			return code, true
		}
	}
	return "", false
}

// copies is how often a webhook is sent.
func (s *Simulator) copies(event string) int {
	n := 1
	for _, f := range s.faults.Planted() {
		mine := f.Target == "" || strings.EqualFold(f.Target, event)
		if f.Kind == faultDuplicate && mine && s.hit(faultDuplicate, event) {
			n++
		}
	}
	return n
}

// all returns copies of the rows of a kind, oldest first, as they stand in the
// transaction. New rows of the transaction itself are not among them.
func all[T any, P interface {
	*T
	row
}](t *tx) []*T {
	var out []*T
	for _, id := range t.sim.store.byKind[P(new(T)).kind()] {
		if r, ok := get[T, P](t, id); ok {
			out = append(out, r)
		}
	}
	return out
}
