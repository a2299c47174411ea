package provider

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"guichet/internal/audit"
	"guichet/internal/id"
	"guichet/internal/jobs"
	"guichet/internal/outbound"
)

// A Queue takes jobs in the transaction that causes them: internal/jobs.
type Queue interface {
	Insert(ctx context.Context, tx pgx.Tx, args river.JobArgs, opts *river.InsertOpts) error
}

// LogoutArgs is the job that tells one client of the end of one session (OpenID Connect
// Back-Channel Logout 1.0).
type LogoutArgs struct {
	SessionID string `json:"session_id"`
	ClientID  string `json:"client_id"`
}

// Kind names the job. It is stored with queued jobs: never change it.
func (LogoutArgs) Kind() string { return "identity.logout" }

// logoutPauses are those between the tries.
var logoutPauses = []time.Duration{time.Minute, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour}

// InsertOpts keeps slow clients apart from the work of the house.
func (LogoutArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{MaxAttempts: len(logoutPauses) + 1, Queue: jobs.Webhooks}
}

// sessionEnds queues, in the transaction that ends a session, a notice to every client
// that was told of it and takes notices.
func (s *Service) sessionEnds(ctx context.Context, tx pgx.Tx, sessionID string) error {
	rows, err := tx.Query(ctx, `
		select c.id from identity.session_client k join identity.client c on c.id = k.client_id
		where k.session_id = $1 and c.state = 'active' and c.policy->>'logout_uri' <> ''
		order by c.id limit 500`, sessionID)
	if err != nil {
		return fmt.Errorf("find clients of session %s: %w", sessionID, err)
	}
	clients, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("find clients of session %s: %w", sessionID, err)
	}
	for _, c := range clients {
		if err := s.queue.Insert(ctx, tx, LogoutArgs{sessionID, c}, nil); err != nil {
			return err
		}
	}
	return nil
}

type logoutWorker struct {
	river.WorkerDefaults[LogoutArgs]
	service *Service
}

// AddWorkers registers the notices to clients.
func (s *Service) AddWorkers(w *river.Workers) {
	river.AddWorker(w, &logoutWorker{service: s})
}

// NextRetry is on the clock of the queue, which stamps the try.
func (w *logoutWorker) NextRetry(job *river.Job[LogoutArgs]) time.Time {
	return NextLogoutTry(job.Attempt, *job.AttemptedAt)
}

// NextLogoutTry is when a notice is tried again whose try number attempt began at the given time.
func NextLogoutTry(attempt int, began time.Time) time.Time {
	return began.Add(logoutPauses[min(attempt, len(logoutPauses))-1])
}

func (w *logoutWorker) Work(ctx context.Context, job *river.Job[LogoutArgs]) error {
	return w.service.SendLogout(ctx, job.Args, job.Attempt >= job.MaxAttempts)
}

// SendLogout posts the notice once. It returns an error when it should be tried again; at
// the last try a failure is recorded instead. Clients know the notice by its jti and session, so a
// second one harms nothing.
func (s *Service) SendLogout(ctx context.Context, a LogoutArgs, last bool) error {
	var sid, residentID, sub string
	err := s.db.QueryRow(ctx, `
		select k.sid, n.resident_id, p.sub
		from identity.session_client k
		join identity.session n on n.id = k.session_id
		join identity.client c on c.id = k.client_id
		join identity.pairwise p on p.resident_id = n.resident_id and p.department_id = c.department_id
		where k.session_id = $1 and k.client_id = $2`, a.SessionID, a.ClientID).Scan(&sid, &residentID, &sub)
	if isNone(err) {
		return nil // swept away: nobody holds it any more
	}
	if err != nil {
		return fmt.Errorf("read notice to %s: %w", a.ClientID, err)
	}
	c, err := s.Client(ctx, a.ClientID)
	if errors.Is(err, ErrNotFound) || err == nil && c.LogoutURI == "" {
		return nil
	}
	if err != nil {
		return err
	}
	now := s.now()
	token, err := s.sign(ctx, jwtType{alg: c.Alg, typ: "logout+jwt"}, map[string]any{
		"iss": s.issuer, "aud": c.ID, "iat": now.Unix(), "exp": now.Add(2 * time.Minute).Unix(), "jti": id.New(), "sub": sub, "sid": sid,
		"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}},
	})
	if err != nil {
		return err
	}
	sent := postLogout(ctx, c, token)
	if sent != nil && !last {
		return sent
	}
	e := audit.Event{
		Action: "logout.backchannel.sent", ObjectType: "client", ObjectID: c.ID, Subject: residentID, At: now,
		Details: map[string]any{"session": a.SessionID},
	}
	if sent != nil {
		e.Action, e.Details["reason"] = "logout.backchannel.failed", sent.Error()
	}
	return pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error { return audit.Record(ctx, tx, e) })
}

func postLogout(ctx context.Context, c Client, token string) error {
	body := strings.NewReader(url.Values{"logout_token": {token}}.Encode())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.LogoutURI, body)
	if err != nil {
		return fmt.Errorf("logout of %s: %w", c.ID, err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := outbound.Client(c.LogoutPrivate).Do(req)
	if err != nil {
		return fmt.Errorf("logout of %s: %w", c.ID, errors.Unwrap(err)) // *url.Error repeats the whole address
	}
	defer resp.Body.Close()
	io.CopyN(io.Discard, resp.Body, 1<<10) //nolint:errcheck // what a client says beside its status does not matter
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNoContent {
		return fmt.Errorf("logout of %s: answered %d", c.ID, resp.StatusCode)
	}
	return nil
}
