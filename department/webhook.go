package department

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"guichet/internal/id"
	"guichet/internal/jobs"
	"guichet/internal/outbound"
)

// An Event is what a department is told: type, the object, its sequence, and
// a document about it without personal data.
type Event struct {
	DepartmentID string
	Type         string // "bill.paid", "payment.succeeded", …
	ObjectType   string
	ObjectID     string
	Sequence     int64 // of the object: a receiver drops what is older than it knows
	Data         any
}

// Emit records an event and queues its delivery to every active endpoint, in the
// caller's transaction. The same event of the same object and sequence is recorded once.
func (s *Service) Emit(ctx context.Context, tx pgx.Tx, e Event) error {
	data, err := json.Marshal(e.Data)
	if err != nil {
		return fmt.Errorf("emit %s: %w", e.Type, err)
	}
	eventID, now := id.New(), s.now()
	rows, err := tx.Query(ctx, `
		with e as (
			insert into department.event (id, department_id, type, object_type, object_id, sequence, data, created_at)
			values ($1, $2, $3, $4, $5, $6, $7, $8)
			on conflict (department_id, object_id, sequence, type) do nothing
			returning id, department_id)
		insert into department.delivery (id, event_id, endpoint_id, updated_at)
		select gen_random_uuid(), e.id, w.id, $8
		from e join department.webhook_endpoint w on w.department_id = e.department_id and w.state = 'active'
		returning id::text`,
		eventID, e.DepartmentID, e.Type, e.ObjectType, e.ObjectID, e.Sequence, data, now)
	if err != nil {
		return fmt.Errorf("emit %s: %w", e.Type, err)
	}
	deliveries, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("emit %s: %w", e.Type, err)
	}
	for _, d := range deliveries {
		if err := s.queue.Insert(ctx, tx, DeliverArgs{DeliveryID: d}, nil); err != nil {
			return fmt.Errorf("emit %s: %w", e.Type, err)
		}
	}
	return nil
}

// DeliverArgs is the job that sends one event to one endpoint.
type DeliverArgs struct {
	DeliveryID string `json:"delivery_id"`
}

// Kind names the job. It is stored with queued jobs: never change it.
func (DeliverArgs) Kind() string { return "department.deliver" }

// InsertOpts bounds the retries: 20 of River's growing pauses are about two weeks,
// so delivery itself stops after giveUp.
func (DeliverArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{MaxAttempts: 20, Queue: jobs.Webhooks}
}

const (
	giveUp    = 72 * time.Hour // deliveries are tried for three days
	maxAnswer = 1 << 10        // bytes of an answer that are read
)

type deliverWorker struct {
	river.WorkerDefaults[DeliverArgs]
	service *Service
}

// AddWorkers registers the delivery of webhooks.
func (s *Service) AddWorkers(w *river.Workers) {
	river.AddWorker(w, &deliverWorker{service: s})
}

func (w *deliverWorker) Work(ctx context.Context, job *river.Job[DeliverArgs]) error {
	return w.service.deliver(ctx, job.Args.DeliveryID)
}

// body is the JSON that leaves the house: the contract with departments.
type body struct {
	ID        string          `json:"id"`
	Type      string          `json:"type"`
	Timestamp time.Time       `json:"timestamp"`
	Object    object          `json:"object"`
	Data      json.RawMessage `json:"data"`
}

type object struct {
	Type     string `json:"type"`
	ID       string `json:"id"`
	Sequence int64  `json:"sequence"`
}

// deliver sends one delivery and records what came of it. It may be killed at any
// line and run again: the receiver knows the event by its id.
func (s *Service) deliver(ctx context.Context, deliveryID string) error {
	var (
		b                     body
		address, state, endID string
		sealed                []byte
		private, active       bool
	)
	err := s.db.QueryRow(ctx, `
		select e.id, e.type, e.created_at, e.object_type, e.object_id, e.sequence, e.data,
			d.state, w.id, w.url, w.sealed_secret, w.allow_private, w.state = 'active'
		from department.delivery d
		join department.event e on e.id = d.event_id
		join department.webhook_endpoint w on w.id = d.endpoint_id
		where d.id = $1`, deliveryID).
		Scan(&b.ID, &b.Type, &b.Timestamp, &b.Object.Type, &b.Object.ID, &b.Object.Sequence, &b.Data,
			&state, &endID, &address, &sealed, &private, &active)
	if err != nil {
		return fmt.Errorf("load delivery %s: %w", deliveryID, err)
	}
	if state != "pending" {
		return nil
	}
	secret, err := s.key.Open(sealed, []byte(endID))
	if err != nil {
		return fmt.Errorf("open secret of endpoint %s: %w", endID, err)
	}
	payload, err := json.Marshal(b)
	if err != nil {
		return fmt.Errorf("write event %s: %w", b.ID, err)
	}
	status, sendErr := 0, errDisabled
	if active {
		status, sendErr = send(ctx, address, private, string(secret), b.ID, s.now(), payload)
	}
	next := "delivered"
	switch {
	case sendErr == nil:
	case !active, s.now().Sub(b.Timestamp) > giveUp:
		next = "failed"
	default:
		next = "pending"
	}
	reason := ""
	if sendErr != nil {
		reason = sendErr.Error()
	}
	_, err = s.db.Exec(ctx, `
		update department.delivery
		set state = $2, attempts = attempts + 1, last_status = $3, last_error = left($4, 500), updated_at = $5,
			delivered_at = case when $2 = 'delivered' then $5::timestamptz end
		where id = $1 and state = 'pending'`, deliveryID, next, status, reason, s.now())
	if err != nil {
		return fmt.Errorf("record delivery %s: %w", deliveryID, err)
	}
	if next == "pending" {
		return sendErr // River tries again, later and later
	}
	return nil
}

// send posts a signed payload as the Standard Webhooks specification says:
// headers webhook-id, webhook-timestamp, webhook-signature over "id.timestamp.body".
func send(ctx context.Context, address string, private bool, secret, msgID string, at time.Time, payload []byte) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, outbound.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(payload))
	if err != nil {
		return 0, fmt.Errorf("webhook request: %w", err)
	}
	stamp := strconv.FormatInt(at.Unix(), 10)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "Guichet-Webhooks/1")
	req.Header.Set("webhook-id", msgID)
	req.Header.Set("webhook-timestamp", stamp)
	req.Header.Set("webhook-signature", sign(secret, msgID, stamp, payload))
	resp, err := outbound.Client(private).Do(req)
	if err != nil {
		return 0, fmt.Errorf("webhook to %s: %w", req.URL.Host, errors.Unwrap(err)) // *url.Error repeats the whole address
	}
	defer resp.Body.Close()
	io.CopyN(io.Discard, resp.Body, maxAnswer) //nolint:errcheck // what an endpoint says beside its status does not matter
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return resp.StatusCode, fmt.Errorf("webhook to %s: answered %d", req.URL.Host, resp.StatusCode)
	}
	return resp.StatusCode, nil
}

const secretPrefix = "whsec_"

func newWebhookSecret() string {
	var b [32]byte
	rand.Read(b[:]) // never fails: crypto/rand crashes the program instead
	return secretPrefix + base64.StdEncoding.EncodeToString(b[:])
}

func sign(secret, msgID, stamp string, payload []byte) string {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, secretPrefix))
	if err != nil {
		panic("a webhook secret of ours is not base64") // sealed and authenticated: ours or nothing
	}
	m := hmac.New(sha256.New, key)
	m.Write([]byte(msgID + "." + stamp + "."))
	m.Write(payload)
	return "v1," + base64.StdEncoding.EncodeToString(m.Sum(nil))
}

var errDisabled = errors.New("the endpoint was disabled")
