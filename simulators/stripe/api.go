package stripe

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	maxBody = 1 << 20
	keyLife = 24 * time.Hour // how long an idempotency key is remembered
)

// A call is one request to the API while it executes.
type call struct {
	*tx
	*param
	id     string // the {id} of the path
	path   string
	expand []string
}

// An endpoint does the work of one route. What it returns is a row, a *page or an
// object; an *apiError is the answer, any other error a fault of the simulator.
type endpoint func(*call) (any, error)

// routes is the part of Stripe's API that is here.
func (s *Simulator) routes() map[string]endpoint {
	return map[string]endpoint{
		"GET /v1/balance":                        getBalance,
		"GET /v1/balance_transactions":           listBalanceTransactions,
		"GET /v1/balance_transactions/{id}":      getOf[balanceTransaction]("balance transaction"),
		"GET /v1/charges":                        listCharges,
		"GET /v1/charges/{id}":                   getOf[charge]("charge"),
		"GET /v1/checkout/sessions":              listSessions,
		"POST /v1/checkout/sessions":             createSession,
		"GET /v1/checkout/sessions/{id}":         getOf[session]("checkout.session"),
		"POST /v1/checkout/sessions/{id}/expire": expireSession,
		"GET /v1/checkout/sessions/{id}/line_items": func(c *call) (any, error) {
			s, err := need[session](c, "checkout.session")
			if err != nil {
				return nil, err
			}
			return s.lineItems(), c.done()
		},
		"GET /v1/customers":                     listCustomers,
		"POST /v1/customers":                    createCustomer,
		"GET /v1/customers/{id}":                getCustomer,
		"POST /v1/customers/{id}":               updateCustomer,
		"DELETE /v1/customers/{id}":             deleteCustomer,
		"GET /v1/disputes":                      listDisputes,
		"GET /v1/disputes/{id}":                 getOf[dispute]("dispute"),
		"POST /v1/disputes/{id}":                updateDispute,
		"POST /v1/disputes/{id}/close":          closeDispute,
		"GET /v1/events":                        listEvents,
		"GET /v1/events/{id}":                   getOf[event]("event"),
		"GET /v1/payment_intents":               listIntents,
		"GET /v1/payment_intents/{id}":          getOf[intent]("payment_intent"),
		"POST /v1/payment_intents/{id}/cancel":  cancelIntent,
		"POST /v1/payment_intents/{id}/capture": captureIntent,
		"GET /v1/payouts":                       listPayouts,
		"GET /v1/payouts/{id}":                  getOf[payout]("payout"),
		"GET /v1/refunds":                       listRefunds,
		"POST /v1/refunds":                      createRefund,
		"GET /v1/refunds/{id}":                  getOf[refund]("refund"),
		"POST /v1/refunds/{id}":                 updateRefund,
		"POST /v1/refunds/{id}/cancel":          cancelRefund,
	}
}

// getOf retrieves one object of a kind.
func getOf[T any, P interface {
	*T
	row
}](name string) endpoint {
	return func(c *call) (any, error) {
		o, err := need[T, P](c, name)
		if err != nil {
			return nil, err
		}
		return P(o), c.done()
	}
}

// need returns the object that the path names.
func need[T any, P interface {
	*T
	row
}](c *call, name string) (*T, error) {
	o, ok := get[T, P](c.tx, c.id)
	if !ok {
		return nil, missing(name, c.id, "id")
	}
	return o, nil
}

// An answer is what goes back: exactly these bytes are kept under the key.
type answer struct {
	status int
	body   []byte
	replay bool
}

// serve answers one request to the API.
func (s *Simulator) serve(do endpoint) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q := &request{id: newID("request"), key: r.Header.Get("Idempotency-Key"), route: r.Pattern, path: r.URL.Path, pathID: r.PathValue("id")}
		h := w.Header()
		h.Set("Request-Id", q.id)
		h.Set("Stripe-Version", apiVersion)
		h.Set("Cache-Control", "no-store")
		if r.Method != http.MethodPost {
			q.key = "" // has no effect on other methods
		}
		if q.key != "" {
			h.Set("Idempotency-Key", q.key)
		}
		if err := s.admit(r, q); err != nil {
			s.write(w, r, errorAnswer(err))
			return
		}
		// A request that is lost before its work, or after it, does not hold its key.
		if s.strike(r.Context(), w, strikesBefore, r.Pattern) {
			return
		}
		a, err := s.once(r, q, do)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		if s.strike(r.Context(), w, strikesAfter, r.Pattern) {
			return
		}
		if a.replay {
			h.Set("Idempotent-Replayed", "true")
		}
		s.write(w, r, a)
	}
}

// once executes a request while no other with its key does.
func (s *Simulator) once(r *http.Request, q *request, do endpoint) (answer, error) {
	if !s.enter(q.key) {
		return errorAnswer(&apiError{
			Status: 409, Type: idempotencyError, Code: "idempotency_key_in_use",
			Message: "There is currently another in-progress request using this Idempotency Key. Please try again later.",
		}), nil
	}
	defer s.leave(q.key)
	s.faults.Hold(r.Context(), r.Pattern)
	return s.execute(q, do)
}

// A request is what a call came with.
type request struct {
	id, key, route, path, pathID string
	values                       url.Values
	digest                       string // of what an idempotency key is bound to
}

// admit checks the key and the version, and reads the parameters.
func (s *Simulator) admit(r *http.Request, q *request) error {
	key, _, basic := r.BasicAuth()
	if !basic {
		key, _ = strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	}
	switch {
	case key == "":
		return &apiError{Status: 401, Type: invalidRequest, Message: "You did not provide an API key. You need to provide your API key in the Authorization header, using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY')."}
	case key != s.opt.APIKey:
		return &apiError{Status: 401, Type: invalidRequest, Message: "Invalid API Key provided: " + mask(key)}
	}
	if v := r.Header.Get("Stripe-Version"); v != "" && v != apiVersion {
		return &apiError{Status: 400, Type: invalidRequest, Message: "Invalid Stripe API version: " + clip(v) + ". The simulator speaks " + apiVersion + " only."}
	}
	if len(q.key) > 255 {
		return badParam("", "", "Idempotency keys can be at most 255 characters long")
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil || len(body) > maxBody {
		return &apiError{Status: 413, Type: invalidRequest, Message: "Request body too large or unreadable"}
	}
	// The body is read for every method: only then does the server notice that a
	// waiting client has gone.
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return badParam("", "", "The request body is not form-encoded")
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return badParam("", "", "The query string is malformed")
	}
	q.values = form
	for k, v := range query {
		q.values[k] = append(q.values[k], v...)
	}
	sum := sha256.Sum256([]byte(r.Method + " " + q.path + "\n" + q.values.Encode()))
	q.digest = hex.EncodeToString(sum[:])
	return nil
}

// mask shows as much of a key as Stripe's own message does.
func mask(key string) string {
	if len(key) < 12 {
		return "****"
	}
	return key[:8] + strings.Repeat("*", 8) + key[len(key)-4:]
}

// stored is the answer kept under an idempotency key.
type stored struct {
	Key    string          `json:"key"`
	Path   string          `json:"path"`
	Digest string          `json:"digest"`
	Status int             `json:"status"`
	Body   json.RawMessage `json:"body"`
	At     int64           `json:"at"`
}

func (*stored) kind() string    { return "idempotency" }
func (s *stored) rowID() string { return keyID(s.Key) }

// dueAt is when the key is forgotten.
func (s *stored) dueAt() int64 { return unix(s.At).Add(keyLife).UnixMilli() }

func keyID(key string) string { return "key:" + key }

// enter notes that a request with the key executes; false if one does already.
func (s *Simulator) enter(key string) bool {
	if key == "" {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.executing[key] {
		return false
	}
	s.executing[key] = true
	return true
}

func (s *Simulator) leave(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.executing, key)
}

// execute runs the endpoint in one commit together with the answer that is kept
// under the key, or replays the kept answer.
func (s *Simulator) execute(q *request, do endpoint) (a answer, err error) {
	err = s.update(eventRequest{ID: text(q.id), IdempotencyKey: text(q.key)}, func(t *tx) error {
		if q.key != "" {
			if kept, ok := get[stored](t, keyID(q.key)); ok {
				a = kept.answer(q)
				return nil
			}
		}
		a, err = t.run(q, do)
		return err
	})
	return a, err
}

func (k *stored) answer(q *request) answer {
	if k.Digest == q.digest {
		return answer{status: k.Status, body: k.Body, replay: true}
	}
	message := "Keys for idempotent requests can only be used with the same parameters they were first used with."
	if k.Path != q.path {
		message = "Keys for idempotent requests can only be used for the same endpoint they were first used for ('" + k.Path + "' vs '" + q.path + "')."
	}
	return errorAnswer(&apiError{Status: 400, Type: idempotencyError, Message: message + " Try using a key other than '" + q.key + "' if you meant to execute a different request."})
}

// run executes the endpoint. A refused request changes nothing, but its answer is
// kept when the work had begun.
func (t *tx) run(q *request, do endpoint) (answer, error) {
	keep := true
	var a answer
	switch {
	case t.sim.hit(faultError, q.route):
		a = failure()
	default:
		body, err := t.work(q, do)
		var refused *apiError
		switch {
		case errors.As(err, &refused):
			t.forget()
			keep = refused.Begun
			a = errorAnswer(refused)
		case err != nil:
			return a, err
		default:
			a = answer{status: http.StatusOK, body: body}
		}
		if t.sim.hit(faultErrorAfter, q.route) {
			a, keep = failure(), true
		}
	}
	if q.key != "" && keep {
		t.put(&stored{Key: q.key, Path: q.path, Digest: q.digest, Status: a.status, Body: a.body, At: t.now.Unix()})
	}
	return a, nil
}

func (t *tx) work(q *request, do endpoint) ([]byte, error) {
	root, err := parseParams(q.values)
	if err != nil {
		return nil, badParam("", "", "%s", err)
	}
	c := &call{tx: t, param: root, id: q.pathID, path: q.path, expand: root.texts("expand")}
	if len(c.expand) > 20 {
		return nil, badParam("", "expand", "At most 20 properties can be expanded")
	}
	result, err := do(c)
	if err != nil {
		return nil, err
	}
	out, err := t.show(result)
	if err != nil {
		return nil, err
	}
	for _, path := range c.expand {
		if err := t.expand(out, path); err != nil {
			return nil, err
		}
	}
	return json.Marshal(out)
}

func (t *tx) show(result any) (object, error) {
	switch r := result.(type) {
	case row:
		return t.view(r)
	case object:
		return r, nil
	}
	return nil, fmt.Errorf("endpoint returned %T", result)
}

// page reads the parameters every list has and returns the part of the list they
// ask for, newest first, of the rows that match.
func page[T any, P interface {
	*T
	row
}](c *call, match func(*T) bool) (any, error) {
	limit, given := c.number("limit")
	if !given {
		limit = 10
	}
	after, before := c.text("starting_after", 255), c.text("ending_before", 255)
	if err := c.done(); err != nil {
		return nil, err
	}
	if limit < 1 || limit > 100 {
		return nil, badParam("", "limit", "This value must be between 1 and 100")
	}
	if after != "" && before != "" {
		return nil, badParam("", "ending_before", "You cannot specify both starting_after and ending_before")
	}
	kind := P(new(T)).kind()
	ids := c.sim.store.byKind[kind] // oldest first
	from, step := len(ids)-1, -1
	if cursor, name := after+before, "starting_after"; cursor != "" {
		if before != "" {
			name, step = "ending_before", 1
		}
		if _, ok := get[T, P](c.tx, cursor); !ok {
			return nil, missing(strings.ReplaceAll(kind, "_", " "), cursor, name)
		}
		from = c.sim.store.place[cursor] + step
	}
	data, more := []any{}, false
	for i := from; i >= 0 && i < len(ids); i += step {
		o, ok := get[T, P](c.tx, ids[i])
		if !ok || !match(o) {
			continue
		}
		if len(data) == int(limit) {
			more = true
			break
		}
		v, err := c.view(P(o))
		if err != nil {
			return nil, err
		}
		data = append(data, v)
	}
	if step > 0 {
		slices.Reverse(data) // a page is newest first, whichever way it was reached
	}
	return object{"object": "list", "url": c.path, "has_more": more, "data": data}, nil
}

// created reads created, created[gte] and the like.
func (p *param) created(key string) func(int64) bool {
	c := p.child(key)
	if c.leaf {
		at, _ := p.number(key)
		return func(t int64) bool { return t == at }
	}
	gte, hasGTE := c.number("gte")
	gt, hasGT := c.number("gt")
	lte, hasLTE := c.number("lte")
	lt, hasLT := c.number("lt")
	return func(t int64) bool {
		return (!hasGTE || t >= gte) && (!hasGT || t > gt) && (!hasLTE || t <= lte) && (!hasLT || t < lt)
	}
}

// is matches everything when no value was asked for.
func is[T ~string](want string, got T) bool { return want == "" || want == string(got) }

func errorAnswer(err error) answer {
	var e *apiError
	if !errors.As(err, &e) {
		return failure()
	}
	body, _ := json.Marshal(e.body()) // strings always marshal
	return answer{status: e.Status, body: body}
}

// failure is Stripe's answer to a fault of its own.
func failure() answer {
	return errorAnswer(&apiError{Status: 500, Type: apiFailure, Message: "An unknown error occurred."})
}

func (s *Simulator) write(w http.ResponseWriter, r *http.Request, a answer) {
	s.opt.Log.InfoContext(r.Context(), "api", "method", r.Method, "path", r.URL.Path, "status", a.status, "request", w.Header().Get("Request-Id"), "replay", a.replay)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(a.status)
	_, _ = io.Copy(w, bytes.NewReader(a.body)) // the client has gone: it will ask again
}

// fail answers for a fault of the simulator itself.
func (s *Simulator) fail(w http.ResponseWriter, r *http.Request, err error) {
	s.opt.Log.ErrorContext(r.Context(), "card processor simulator", "path", r.URL.Path, "error", err)
	s.write(w, r, failure())
}

// noSuchURL answers a path the API does not have.
func (s *Simulator) noSuchURL(w http.ResponseWriter, r *http.Request) {
	s.write(w, r, errorAnswer(&apiError{Status: 404, Type: invalidRequest, Message: fmt.Sprintf("Unrecognized request URL (%s: %s). The simulator has only a part of Stripe's API.", r.Method, r.URL.Path)}))
}

func unix(seconds int64) time.Time { return time.Unix(seconds, 0).UTC() }
