// Package department keeps the tenants of the service: who they are, the keys
// their applications use, and what they are told by webhook.
//
//	administration ─▶ departments, API keys, endpoints
//	payments ──Emit──▶ events ──job──▶ signed webhooks (Standard Webhooks)
//
// A department sees only its own: every query takes its id. Keys are stored
// hashed, webhook secrets sealed. Events are immutable; deliveries promise no
// order, each event carries the sequence of its object instead.
// Bills, money and people do not belong here.
package department

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"guichet/internal/audit"
	"guichet/internal/id"
	"guichet/internal/jobs"
	"guichet/internal/outbound"
	"guichet/internal/seal"
)

var (
	ErrNotFound = errors.New("department not found")
	ErrNoKey    = errors.New("the department has no such API key")
	ErrAddress  = errors.New("webhook address")
	ErrNoHook   = errors.New("the department has no such webhook endpoint")
	ErrKey      = errors.New("API key is unknown or revoked")
	ErrExists   = errors.New("department exists already with other content")
)

// A Querier is a pool or a transaction.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// A Department is a tenant.
type Department struct {
	ID        string
	Code      string // short, in account paths and addresses: "parking"
	NameEN    string
	NameFR    string
	Basis     string // "settled": what is exported to SAP; "accrual" is refused until the export knows it
	HSTNumber string // printed on receipts; empty when it charges none
}

// Name returns the department's name in "en" or "fr".
func (d Department) Name(lang string) string {
	if lang == "fr" {
		return d.NameFR
	}
	return d.NameEN
}

// A Service administers departments and tells them what happened. It may be used
// by many goroutines at once.
type Service struct {
	db    *pgxpool.Pool
	key   *seal.Key
	queue *jobs.Queue
	now   func() time.Time
	known callers
}

// New returns a service over the database.
func New(db *pgxpool.Pool, key *seal.Key, queue *jobs.Queue, now func() time.Time) *Service {
	return &Service{db: db, key: key, queue: queue, now: now, known: newCallers()}
}

var codeForm = regexp.MustCompile(`^[a-z][a-z0-9]{1,29}$`)

// Create adds a department. Creating the same one again returns the first;
// the same code with other content is ErrExists.
func (s *Service) Create(ctx context.Context, tx pgx.Tx, d Department) (Department, error) {
	if d.Basis == "" {
		d.Basis = "settled"
	}
	if !codeForm.MatchString(d.Code) {
		return Department{}, fmt.Errorf("department code %q: want 2 to 30 lower case letters and digits, a letter first", d.Code)
	}
	if d.NameEN == "" || d.NameFR == "" {
		return Department{}, fmt.Errorf("department %s: a name in both languages is needed", d.Code)
	}
	if d.Basis != "settled" {
		return Department{}, fmt.Errorf("department %s: basis %q: only settled can be exported to SAP today", d.Code, d.Basis)
	}
	d.ID = id.New()
	tag, err := tx.Exec(ctx, `
		insert into department.department (id, code, name_en, name_fr, basis, hst_number, created_at)
		values ($1, $2, $3, $4, $5, $6, $7) on conflict (code) do nothing`,
		d.ID, d.Code, d.NameEN, d.NameFR, d.Basis, d.HSTNumber, s.now())
	if err != nil {
		return Department{}, fmt.Errorf("create department %s: %w", d.Code, err)
	}
	if tag.RowsAffected() == 0 {
		old, err := s.ByCode(ctx, tx, d.Code)
		if err != nil {
			return Department{}, fmt.Errorf("create department %s: %w", d.Code, err)
		}
		if d.ID = old.ID; d != old {
			return Department{}, fmt.Errorf("create department %s: %w", d.Code, ErrExists)
		}
		return old, nil
	}
	return d, audit.Record(ctx, tx, audit.Event{
		Action: "department.created", ObjectType: "department", ObjectID: d.ID,
		Details: map[string]any{"code": d.Code}, At: s.now(),
	})
}

const columns = `id, code, name_en, name_fr, basis, hst_number`

// ByCode finds a department, or ErrNotFound.
func (s *Service) ByCode(ctx context.Context, q Querier, code string) (Department, error) {
	return one(q.Query(ctx, `select `+columns+` from department.department where code = $1`, code))
}

// ByID finds a department, or ErrNotFound.
func (s *Service) ByID(ctx context.Context, q Querier, departmentID string) (Department, error) {
	return one(q.Query(ctx, `select `+columns+` from department.department where id = $1`, departmentID))
}

// All lists the departments by code. There are dozens, not thousands.
func (s *Service) All(ctx context.Context) ([]Department, error) {
	rows, err := s.db.Query(ctx, `select `+columns+` from department.department order by code limit 1000`)
	if err != nil {
		return nil, fmt.Errorf("list departments: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Department])
}

func one(rows pgx.Rows, err error) (Department, error) {
	if err != nil {
		return Department{}, err
	}
	d, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[Department])
	if errors.Is(err, pgx.ErrNoRows) {
		return Department{}, ErrNotFound
	}
	return d, err
}

// AddEndpoint registers where the department hears of events and returns the
// signing secret ("whsec_…"); it is shown this once. A second registration of the
// same address is ErrExists, unless the first was disabled. An address inside the network, or over plain HTTP, needs
// allowPrivate.
func (s *Service) AddEndpoint(ctx context.Context, tx pgx.Tx, departmentID, address string, allowPrivate bool) (string, error) {
	u, err := url.Parse(address)
	if err != nil || u.Hostname() == "" || u.User != nil || u.Fragment != "" || (u.Scheme != "https" && !(allowPrivate && u.Scheme == "http")) {
		return "", fmt.Errorf("%w %q: want an https address without user or fragment", ErrAddress, address)
	}
	// Other ports belong to other services. Names are resolved, and checked, at each delivery.
	ip, notIP := netip.ParseAddr(u.Hostname())
	if !allowPrivate && (!slices.Contains([]string{"", "443", "8443"}, u.Port()) || notIP == nil && !outbound.Public(ip)) {
		return "", fmt.Errorf("%w %q: want port 443 or 8443 of a public address", ErrAddress, address)
	}
	endpointID, secret := id.New(), newWebhookSecret()
	tag, err := tx.Exec(ctx, `
		insert into department.webhook_endpoint (id, department_id, url, sealed_secret, allow_private, created_at)
		values ($1, $2, $3, $4, $5, $6)
		on conflict (department_id, url) where state = 'active' do nothing`,
		endpointID, departmentID, address, s.key.Seal([]byte(secret), []byte(endpointID)), allowPrivate, s.now())
	if err != nil {
		return "", fmt.Errorf("add webhook endpoint: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return "", fmt.Errorf("webhook address %s: %w", address, ErrExists)
	}
	return secret, audit.Record(ctx, tx, audit.Event{
		Action: "webhook_endpoint.created", ObjectType: "webhook_endpoint", ObjectID: endpointID,
		Details: map[string]any{"department": departmentID, "url": address, "private": allowPrivate}, At: s.now(),
	})
}
