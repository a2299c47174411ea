package stripe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"guichet/internal/money"
	"guichet/simulators/control"
)

// Options say what a simulator is. Now, Dir and APIKey are needed.
type Options struct {
	Now              func() time.Time
	Dir              string // where its state lives
	Log              *slog.Logger
	APIKey           string // the secret key it accepts, such as sk_test_…
	WebhookEndpoints []Endpoint
	BankURL          string         // base URL of the bank simulator that is told of payouts; "" for none
	PublicURL        string         // base URL of the card page as a browser reaches it
	Links            []control.Link // other pages, for the head of every page

	// The price of a charge: a rate in millionths and a fixed part. Both zero: 2.9 % + 30 ¢.
	FeeRateMillionths int64
	FeeFixed          money.Amount
}

// An Endpoint receives webhooks.
type Endpoint struct {
	URL    string
	Secret string   // whsec_…
	Events []string // types it wants; none means all
}

// A Simulator is the card processor. It is safe for concurrent use.
type Simulator struct {
	opt    Options
	http   *http.Client
	faults *control.Faults
	sites  map[string]*control.Site // by language of the page
	stop   chan struct{}
	wake   chan struct{} // something may be due

	sending sync.Mutex // one sender at a time

	mu        sync.Mutex // guards what follows
	store     *store
	executing map[string]bool // idempotency keys under way
	pending   map[string]int  // event id → deliveries not yet made
}

// New opens the simulator's state, or starts it. Run must be running for webhooks
// to go out by themselves.
func New(o Options) (*Simulator, error) {
	if o.Now == nil || o.Dir == "" || o.APIKey == "" {
		return nil, errors.New("card processor simulator: Now, Dir and APIKey are needed")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.FeeRateMillionths == 0 && o.FeeFixed == 0 {
		o.FeeRateMillionths, o.FeeFixed = 29_000, 30
	}
	st, err := openStore(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("open card processor simulator: %w", err)
	}
	faults, err := control.OpenFaults(o.Dir, o.Log, faultKinds...)
	if err != nil {
		return nil, fmt.Errorf("open card processor simulator: %w", errors.Join(err, st.close()))
	}
	s := &Simulator{
		opt: o, store: st, faults: faults, stop: make(chan struct{}), wake: make(chan struct{}, 1),
		executing: map[string]bool{}, pending: map[string]int{},
		sites: map[string]*control.Site{
			"en": control.NewSite("Card processor", o.Links, templates, o.Log),
			"fr": control.NewSite("Processeur de cartes", o.Links, templates, o.Log),
		},
		http: &http.Client{
			Timeout: 10 * time.Second,
			// Stripe counts a redirect as a failed delivery.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	for _, id := range st.byKind["delivery"] {
		if d, ok := st.rows[id].(*delivery); ok {
			s.pending[d.Event]++
		}
	}
	return s, nil
}

// Close ends every hanging request and lets go of the state.
func (s *Simulator) Close() error {
	close(s.stop)
	s.sending.Lock()
	defer s.sending.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store.close()
}

// Run does what is due, as the clock reaches it, until ctx ends: delayed outcomes,
// expiries, webhooks and their retries, messages to the bank.
func (s *Simulator) Run(ctx context.Context) error {
	// The business clock may jump, so it is looked at often instead of slept on.
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := s.Settle(ctx); err != nil && ctx.Err() == nil {
			s.opt.Log.ErrorContext(ctx, "card processor simulator", "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		case <-s.wake:
		}
	}
}

// Settle does everything that is due now and returns when it is done: tests and
// the control API use it instead of waiting.
func (s *Simulator) Settle(ctx context.Context) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	for {
		if err := s.update(eventRequest{}, func(*tx) error { return nil }); err != nil {
			return err
		}
		sent, err := s.sendDue(ctx)
		if err != nil || sent == 0 {
			return err
		}
	}
}

// Handler serves the API under /v1, the card page under /c/pay, the control API
// under /_control and the control page at /.
func (s *Simulator) Handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, do := range s.routes() {
		mux.HandleFunc(pattern, s.serve(do))
	}
	mux.HandleFunc("/v1/", s.noSuchURL)
	s.pageRoutes(mux)
	s.controlRoutes(mux)
	s.faults.Routes(mux)
	return s.sites["en"].Handler(mux)
}

// A tx is one change of the simulator's state: all of it is stored, or nothing.
type tx struct {
	sim    *Simulator
	now    time.Time
	cause  eventRequest // the API request that events name, if one caused them
	staged map[string]row
	order  []string // of staging; a nil row in staged is a removal
}

// update runs fn in a transaction of its own, after everything that was due before
// it. Nothing else runs meanwhile.
func (s *Simulator) update(cause eventRequest, fn func(*tx) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.opt.Now().UTC()
	for {
		r := s.store.popDue(&s.store.tasks, now)
		if r == nil {
			break
		}
		if err := s.commit(&tx{sim: s, now: now}, func(t *tx) error { return t.perform(r) }); err != nil {
			return err
		}
	}
	return s.commit(&tx{sim: s, now: now, cause: cause}, fn)
}

func (s *Simulator) commit(t *tx, fn func(*tx) error) error {
	t.forget()
	if err := fn(t); err != nil {
		return err
	}
	var puts []row
	var drops []string
	for _, id := range t.order {
		if r := t.staged[id]; r != nil {
			puts = append(puts, r)
		} else if _, stored := s.store.rows[id]; stored {
			drops = append(drops, id)
		}
	}
	drops = append(drops, s.oldEvents(puts)...)
	change := s.countDeliveries(t)
	if err := s.store.commit(puts, drops); err != nil {
		return err
	}
	for event, n := range change {
		if s.pending[event] += n; s.pending[event] == 0 {
			delete(s.pending, event)
		}
	}
	if len(puts) > 0 {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
	return s.store.compact()
}

// countDeliveries says by how much a commit changes what is pending per event.
func (s *Simulator) countDeliveries(t *tx) map[string]int {
	change := map[string]int{}
	for id, r := range t.staged {
		old, was := s.store.rows[id].(*delivery)
		d, is := r.(*delivery)
		switch {
		case is && !was:
			change[d.Event]++
		case was && r == nil:
			change[old.Event]--
		}
	}
	return change
}

// maxEvents is how many events are kept: the newest. Stripe keeps 30 days.
const maxEvents = 50_000

// oldEvents are those that the new ones push out, unless still to be delivered.
func (s *Simulator) oldEvents(puts []row) (drops []string) {
	ids := s.store.byKind["event"]
	next := len(ids) - maxEvents
	for _, r := range puts {
		if r.kind() != "event" {
			continue
		}
		if next >= 0 && next < len(ids) && s.pending[ids[next]] == 0 {
			drops = append(drops, ids[next])
		}
		next++
	}
	return drops
}

// forget drops everything staged.
func (t *tx) forget() { t.staged, t.order = map[string]row{}, nil }

func (t *tx) row(id string) (row, bool) {
	if r, staged := t.staged[id]; staged {
		return r, r != nil
	}
	r, ok := t.sim.store.rows[id]
	return r, ok
}

// get returns a copy of a row. Its maps and slices are shared: replace, never write.
func get[T any, P interface {
	*T
	row
}](t *tx, id string) (*T, bool) {
	r, _ := t.row(id)
	p, ok := r.(P)
	if !ok {
		return nil, false
	}
	c := *p
	return &c, true
}

// put stages a new or changed row.
func (t *tx) put(r row) { t.stage(r.rowID(), r) }

// drop stages the removal of a row.
func (t *tx) drop(id string) { t.stage(id, nil) }

func (t *tx) stage(id string, r row) {
	if _, there := t.staged[id]; !there {
		t.order = append(t.order, id)
	}
	t.staged[id] = r
}

// emit records that something happened to an object and queues its webhooks.
// previous holds the members that changed, for events of type *.updated.
func (t *tx) emit(kind string, about row, previous object) error {
	shown, err := t.view(about)
	if err != nil {
		return err
	}
	e := &event{ID: newID("event"), Object: "event", APIVersion: apiVersion, Created: t.now.Unix(), Request: t.cause, Type: kind}
	if e.Data.Object, err = json.Marshal(shown); err != nil {
		return fmt.Errorf("event %s: %w", kind, err)
	}
	if previous != nil {
		if e.Data.PreviousAttributes, err = json.Marshal(previous); err != nil {
			return fmt.Errorf("event %s: %w", kind, err)
		}
	}
	t.put(e)
	t.queue(e)
	return nil
}

// after queues something that the processor will do by itself.
func (t *tx) after(d time.Duration, action, target string) {
	t.at(t.now.Add(d), action, target)
}

func (t *tx) at(at time.Time, action, target string) {
	t.put(&task{ID: taskID(action, target), At: at.UnixMilli(), Action: action, Target: target})
}

// A task is something the processor does by itself at a time.
type task struct {
	ID     string `json:"id"`
	At     int64  `json:"at"` // milliseconds
	Action string `json:"action"`
	Target string `json:"target"`
}

func (*task) kind() string    { return "task" }
func (k *task) rowID() string { return k.ID }
func (k *task) dueAt() int64  { return k.At }

func taskID(action, target string) string { return "task:" + action + ":" + target }

// perform does a task, or forgets an idempotency key. The target of a task may have
// moved on meanwhile: then it is nothing.
func (t *tx) perform(r row) error {
	t.drop(r.rowID())
	k, ok := r.(*task)
	if !ok {
		return nil
	}
	switch k.Action {
	case taskExpire:
		return t.expireDue(k.Target)
	case taskRelease:
		return t.releaseDue(k.Target)
	case taskDebitSucceeds:
		return t.debitDone(k.Target, "")
	case taskDebitFails:
		return t.debitDone(k.Target, "insufficient_funds")
	case taskRefundFails:
		return t.finishRefund(k.Target, "failed")
	case taskRefundSucceeds:
		return t.finishRefund(k.Target, "succeeded")
	}
	if reason, is := strings.CutPrefix(k.Action, taskDispute); is {
		_, err := t.dispute(k.Target, 0, reason)
		return err
	}
	return fmt.Errorf("unknown task %q", k.Action)
}
