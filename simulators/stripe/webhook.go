package stripe

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"
)

// A delivery is one copy of one event on its way to one endpoint.
type delivery struct {
	ID      string `json:"id"`
	Event   string `json:"event"`
	URL     string `json:"url"`
	At      int64  `json:"at"`    // milliseconds; 0 while held or given up
	First   int64  `json:"first"` // when it was first due, in seconds
	Attempt int    `json:"attempt"`
	State   string `json:"state"` // due, held, failed
	Last    string `json:"last"`  // outcome of the last attempt
}

const (
	deliveryDue    = "due"
	deliveryHeld   = "held"
	deliveryFailed = "failed"
)

func (*delivery) kind() string    { return "delivery" }
func (d *delivery) rowID() string { return d.ID }
func (d *delivery) dueAt() int64  { return d.At }

// backoff is the pause after each failed attempt; the last one repeats until
// giveUp. Stripe's own schedule is exponential over up to three days.
var backoff = []time.Duration{5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute, time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour}

const (
	giveUp   = 72 * time.Hour
	senders  = 8  // deliveries under way at once
	sendLot  = 64 // rows taken up at a time
	maxReply = 64 << 10
)

// queue makes the deliveries of an event, as planted faults bend them.
func (t *tx) queue(e *event) {
	for _, to := range t.sim.opt.WebhookEndpoints {
		if len(to.Events) > 0 && !slices.Contains(to.Events, e.Type) || t.sim.hit(faultDrop, e.Type) {
			continue
		}
		at, state := t.now.UnixMilli(), deliveryDue
		if f, hit := t.sim.faults.Strike(faultDelay, e.Type); hit {
			at = t.now.Add(time.Duration(f.Delay)).UnixMilli()
		}
		if t.sim.hit(faultHold, e.Type) {
			at, state = 0, deliveryHeld
		}
		for range t.sim.copies(e.Type) {
			t.put(&delivery{ID: newID("delivery"), Event: e.ID, URL: to.URL, First: t.now.Unix(), State: state, At: at})
		}
	}
}

// sendDue sends one lot of what is due, webhooks and messages to the bank, and
// returns how many it tried.
func (s *Simulator) sendDue(ctx context.Context) (int, error) {
	s.mu.Lock()
	now := s.opt.Now()
	var lot []row
	for len(lot) < sendLot {
		r := s.store.popDue(&s.store.outbox, now)
		if r == nil {
			break
		}
		lot = append(lot, r)
	}
	s.mu.Unlock()

	var wg sync.WaitGroup
	slots := make(chan struct{}, senders)
	errs := make([]error, len(lot))
	for i, r := range lot {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			switch r := r.(type) {
			case *delivery:
				errs[i] = s.deliver(ctx, r)
			case *credit:
				errs[i] = s.tellBank(ctx, r)
			}
		})
	}
	wg.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, err := range errs {
		if err != nil { // it stays due
			s.store.schedule(lot[i])
		}
	}
	return len(lot), errors.Join(errs...)
}

// deliver makes one attempt and records what came of it. The error is for what
// prevents an attempt; an endpoint that refuses is an outcome.
func (s *Simulator) deliver(ctx context.Context, d *delivery) error {
	body, secret, err := s.payload(d)
	if err != nil {
		return err
	}
	last := "the endpoint is not configured any more"
	delivered := false
	if secret != "" {
		status, err := s.post(ctx, d.URL, body, sign(body, secret, s.opt.Now()))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		delivered = err == nil && status >= 200 && status < 300
		last = fmt.Sprintf("HTTP %d", status)
		if err != nil {
			last = err.Error()
		}
	}
	s.opt.Log.InfoContext(ctx, "webhook", "event", d.Event, "url", d.URL, "attempt", d.Attempt+1, "result", last)
	return s.update(eventRequest{}, func(t *tx) error {
		if delivered {
			t.drop(d.ID)
			return nil
		}
		next := *d
		next.Attempt, next.Last = d.Attempt+1, last
		pause := backoff[min(d.Attempt, len(backoff)-1)]
		at := t.now.Add(pause)
		next.At = at.UnixMilli()
		if at.Sub(unix(d.First)) > giveUp {
			next.State, next.At = deliveryFailed, 0
		}
		t.put(&next)
		return nil
	})
}

// payload returns the event as it is sent, and the secret of the endpoint.
func (s *Simulator) payload(d *delivery) (body []byte, secret string, err error) {
	for _, to := range s.opt.WebhookEndpoints {
		if to.URL == d.URL {
			secret = to.Secret
		}
	}
	err = s.update(eventRequest{}, func(t *tx) error {
		shown, err := t.viewID(d.Event)
		if err != nil {
			return err
		}
		body, err = json.Marshal(shown)
		return err
	})
	return body, secret, err
}

func (s *Simulator) post(ctx context.Context, url string, body []byte, signature string) (status int, err error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	q.Header.Set("Content-Type", "application/json; charset=utf-8")
	q.Header.Set("User-Agent", "Stripe/1.0 (simulator)")
	if signature != "" {
		q.Header.Set("Stripe-Signature", signature)
	}
	r, err := s.http.Do(q)
	if err != nil {
		return 0, err
	}
	defer r.Body.Close()
	// Read to the end so that the connection is used again.
	if _, err := io.CopyN(io.Discard, r.Body, maxReply); err != nil && err != io.EOF {
		return 0, err
	}
	return r.StatusCode, nil
}

// sign makes the header Stripe-Signature: HMAC-SHA256 over "<time>.<body>".
func sign(body []byte, secret string, at time.Time) string {
	mac := hmac.New(sha256.New, []byte(secret))
	fmt.Fprintf(mac, "%d.", at.Unix())
	mac.Write(body)
	return fmt.Sprintf("t=%d,v1=%s", at.Unix(), hex.EncodeToString(mac.Sum(nil)))
}

// release sends everything held, one after the other in an order shuffled by seed,
// and returns the events in that order.
func (s *Simulator) release(ctx context.Context, seed uint64) ([]string, error) {
	s.sending.Lock()
	defer s.sending.Unlock()
	var held []*delivery
	err := s.update(eventRequest{}, func(t *tx) error {
		for _, d := range all[delivery](t) {
			if d.State == deliveryHeld {
				held = append(held, d)
			}
		}
		rand.New(rand.NewPCG(seed, 0)).Shuffle(len(held), func(i, j int) { held[i], held[j] = held[j], held[i] })
		for _, d := range held {
			// Due from now on, in case this process dies; the sender waits for us.
			d.State, d.At = deliveryDue, t.now.UnixMilli()
			t.put(d)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	order := []string{}
	for _, d := range held {
		if err := s.deliver(ctx, d); err != nil {
			return order, err
		}
		order = append(order, d.Event)
	}
	return order, nil
}

// resend queues an event again for every endpoint, whatever faults are planted.
func (t *tx) resend(eventID string) error {
	if _, ok := get[event](t, eventID); !ok {
		return missing("event", eventID, "id")
	}
	for _, to := range t.sim.opt.WebhookEndpoints {
		t.put(&delivery{ID: newID("delivery"), Event: eventID, URL: to.URL, First: t.now.Unix(), State: deliveryDue, At: t.now.UnixMilli()})
	}
	return nil
}

// The ways to forge a webhook.
const (
	forgeSignature = "signature" // made with another secret
	forgeOld       = "old"       // properly signed an hour ago
	forgeFuture    = "future"    // properly signed for an hour from now
	forgeUnsigned  = "unsigned"
)

// A forgery is what an endpoint answered to a webhook that it must refuse.
type forgery struct {
	URL    string `json:"url"`
	Status int    `json:"status"`
	Error  string `json:"error,omitempty"`
}

// forge sends an event in a way every endpoint must refuse.
func (s *Simulator) forge(ctx context.Context, eventID, how string) ([]forgery, error) {
	out := []forgery{}
	for _, to := range s.opt.WebhookEndpoints {
		body, secret, err := s.payload(&delivery{Event: eventID, URL: to.URL})
		if err != nil {
			return nil, missing("event", eventID, "id")
		}
		var signature string
		switch now := s.opt.Now(); how {
		case forgeSignature:
			signature = sign(body, "whsec_forged", now)
		case forgeOld:
			signature = sign(body, secret, now.Add(-time.Hour))
		case forgeFuture:
			signature = sign(body, secret, now.Add(time.Hour))
		case forgeUnsigned:
		default:
			return nil, badParam("", "how", "how: one of signature, old, future, unsigned")
		}
		f := forgery{URL: to.URL}
		if f.Status, err = s.post(ctx, to.URL, body, signature); err != nil {
			f.Error = err.Error()
		}
		out = append(out, f)
	}
	return out, nil
}
