// Package manual lets people write journal entries: one drafts, another one looks
// and approves, and in that moment the entry is in the books.
//
//	maker ──Create, Save──▶ draft ──Submit──▶ submitted ──Approve (another person)──▶ posted
//	                          ▲                  │ ├──Refuse──▶ refused ──Save──▶ draft
//	                          └──── TakeBack ────┘ └──Withdraw─▶ withdrawn
//
// Every change is a new version, kept as it was written. A checker approves one version
// by its hash: what is changed afterwards has to be submitted again. The entry, the
// approval, the state and the audit row commit together, under a key made from the draft,
// so it is posted once however often somebody presses the button. That maker and
// checker are two persons is a rule of the database as well.
// Attached files are part of a version by id and hash. It knows nothing of pages.
package manual

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"guichet/internal/audit"
	"guichet/internal/id"
	"guichet/ledger"
)

// A State is where a draft stands.
type State string

const (
	Draft     State = "draft"
	Submitted State = "submitted"
	Posted    State = "posted"
	Refused   State = "refused"
	Withdrawn State = "withdrawn"
)

// States lists the states.
func States() []State { return []State{Draft, Submitted, Posted, Refused, Withdrawn} }

// next is the table of states. The database has it too.
var next = map[State][]State{
	Draft:     {Draft, Submitted, Withdrawn},
	Submitted: {Draft, Posted, Refused, Withdrawn},
	Refused:   {Draft, Withdrawn},
}

// What a caller may be told.
var (
	ErrNotFound = errors.New("draft not found")
	ErrStale    = errors.New("somebody has changed the draft meanwhile")
	ErrMaker    = errors.New("only who wrote the draft may do this")
	ErrSame     = errors.New("who wrote the draft cannot decide about it")
	ErrTick     = errors.New("an account that bills and settlements own wants a tick of its own")
	ErrReason   = errors.New("a reason is needed")
)

// A StateError says that a step does not fit where the draft stands. For a decision
// that came second it says who was first.
type StateError struct {
	State State
	By    string // who brought it there
}

func (e *StateError) Error() string { return fmt.Sprintf("the draft is %s", e.State) }

// source is the source of every entry that came from a draft; its id is the draft's.
const source = "manual-entry"

// Options are what a Service works with.
type Options struct {
	DB    *pgxpool.Pool
	Books *ledger.Books
	Now   func() time.Time
	// Owned are accounts, each with all below it, that other rooms keep equal to
	// objects of theirs. Whoever books on them by hand must say that they mean it.
	Owned []string
}

// A Service keeps drafts. It may be used by many goroutines at once.
type Service struct{ Options }

// New returns a service.
func New(o Options) *Service { return &Service{o} }

// A Paper is a draft with one of its versions.
type Paper struct {
	ID        string
	Maker     string
	State     State
	Version   int
	Content   Content
	Hash      []byte
	Approval  string // of the version submitted last
	Entry     string // posted
	Undo      string // posted with it: the reversal on a later date
	CreatedAt time.Time
	ChangedAt time.Time
	Decider   string // who approved or refused
}

const paperColumns = `d.id, d.maker, d.state, d.version, v.content, v.hash, coalesce(d.approval_id::text, '') as approval,
	coalesce(d.entry_id::text, '') as entry, coalesce(d.undo_id::text, '') as undo, d.created_at, d.changed_at, coalesce(a.decided_by, '') as decider`

const papers = ` from ledger.manual_draft d join ledger.manual_version v on v.draft_id = d.id and v.version = d.version
	left join ops.approval a on a.id = d.approval_id `

func scanPaper(row pgx.CollectableRow) (Paper, error) {
	var (
		p    Paper
		text string
	)
	if err := row.Scan(&p.ID, &p.Maker, &p.State, &p.Version, &text, &p.Hash, &p.Approval, &p.Entry, &p.Undo, &p.CreatedAt, &p.ChangedAt, &p.Decider); err != nil {
		return p, err
	}
	if err := json.Unmarshal([]byte(text), &p.Content); err != nil {
		return p, fmt.Errorf("content of draft %s: %w", p.ID, err)
	}
	return p, nil
}

// Get returns a draft with its newest version, or ErrNotFound.
func (s *Service) Get(ctx context.Context, q ledger.Querier, draftID string) (Paper, error) {
	return get(ctx, q, draftID, "")
}

func get(ctx context.Context, q ledger.Querier, draftID, lock string) (Paper, error) {
	if !id.Valid(draftID) {
		return Paper{}, fmt.Errorf("draft %.40q: %w", draftID, ErrNotFound)
	}
	rows, err := q.Query(ctx, `select `+paperColumns+papers+`where d.id = $1`+lock, draftID)
	if err != nil {
		return Paper{}, fmt.Errorf("read draft %s: %w", draftID, err)
	}
	p, err := pgx.CollectExactlyOneRow(rows, scanPaper)
	if errors.Is(err, pgx.ErrNoRows) {
		return Paper{}, fmt.Errorf("draft %s: %w", draftID, ErrNotFound)
	}
	if err != nil {
		return Paper{}, fmt.Errorf("read draft %s: %w", draftID, err)
	}
	return p, nil
}

// lock reads a draft that nobody else changes until the transaction ends. The row is locked
// first: the later statement sees what the one before us has done.
func lock(ctx context.Context, tx pgx.Tx, draftID string) (Paper, error) {
	if !id.Valid(draftID) {
		return Paper{}, fmt.Errorf("draft %.40q: %w", draftID, ErrNotFound)
	}
	if _, err := tx.Exec(ctx, `select from ledger.manual_draft where id = $1 for no key update`, draftID); err != nil {
		return Paper{}, fmt.Errorf("lock draft %s: %w", draftID, err)
	}
	return get(ctx, tx, draftID, "")
}

// A Filter narrows a list. Empty fields fit everything.
type Filter struct {
	State         State
	Maker         string
	Limit, Offset int
}

// List returns drafts: those that wait for a decision the oldest first, others the newest first.
func (s *Service) List(ctx context.Context, q ledger.Querier, f Filter) ([]Paper, error) {
	order := `d.changed_at desc, d.id desc`
	if f.State == Submitted {
		order = `d.changed_at, d.id`
	}
	rows, err := q.Query(ctx, `select `+paperColumns+papers+`
		where ($1 = '' or d.state = $1) and ($2 = '' or d.maker = $2) order by `+order+` limit $3 offset $4`, f.State, f.Maker, f.Limit, f.Offset)
	if err != nil {
		return nil, fmt.Errorf("list drafts: %w", err)
	}
	list, err := pgx.CollectRows(rows, scanPaper)
	if err != nil {
		return nil, fmt.Errorf("list drafts: %w", err)
	}
	return list, nil
}

// Counts are how many drafts stand where; of those in the state draft only the maker's own.
func (s *Service) Counts(ctx context.Context, q ledger.Querier, maker string) (map[State]int, error) {
	rows, err := q.Query(ctx, `select state, count(*) from ledger.manual_draft where state <> 'draft' or maker = $1 group by state order by state limit 10`, maker)
	if err != nil {
		return nil, fmt.Errorf("count drafts: %w", err)
	}
	counts := map[State]int{}
	var (
		state State
		n     int
	)
	if _, err := pgx.ForEachRow(rows, []any{&state, &n}, func() error { counts[state] = n; return nil }); err != nil {
		return nil, fmt.Errorf("count drafts: %w", err)
	}
	return counts, nil
}

// An Event is a step of a draft.
type Event struct {
	Version int
	State   State
	Actor   string
	Reason  string
	At      time.Time
}

// History returns the steps of a draft, the oldest first, at most 500.
func (s *Service) History(ctx context.Context, q ledger.Querier, draftID string) ([]Event, error) {
	rows, err := q.Query(ctx, `select version, state, actor, reason, at from ledger.manual_event where draft_id = $1 order by id limit 500`, draftID)
	if err != nil {
		return nil, fmt.Errorf("read history of draft %s: %w", draftID, err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Event])
	if err != nil {
		return nil, fmt.Errorf("read history of draft %s: %w", draftID, err)
	}
	return list, nil
}

// write stores a version.
func (s *Service) write(ctx context.Context, tx pgx.Tx, draftID string, version int, by string, c Content) error {
	text, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("write draft %s: %w", draftID, err)
	}
	_, err = tx.Exec(ctx, `
		insert into ledger.manual_version (draft_id, version, content, hash, made_by, made_at)
		values ($1, $2, $3, sha256(convert_to($3, 'UTF8')), $4, $5)`, draftID, version, string(text), by, s.Now())
	if err != nil {
		return fmt.Errorf("write version %d of draft %s: %w", version, draftID, err)
	}
	return nil
}

// move takes a draft to a state, and notes the step.
func (s *Service) move(ctx context.Context, tx pgx.Tx, p *Paper, to State, by, reason string) error {
	if !slices.Contains(next[p.State], to) {
		return s.stands(ctx, tx, *p)
	}
	p.State = to
	now := s.Now()
	_, err := tx.Exec(ctx, `
		update ledger.manual_draft set state = $2, version = $3, approval_id = nullif($4, '')::uuid, entry_id = nullif($5, '')::uuid,
			undo_id = nullif($6, '')::uuid, changed_at = $7 where id = $1`, p.ID, to, p.Version, p.Approval, p.Entry, p.Undo, now)
	if err != nil {
		return fmt.Errorf("set draft %s to %s: %w", p.ID, to, err)
	}
	return s.step(ctx, tx, *p, by, reason)
}

func (s *Service) step(ctx context.Context, tx pgx.Tx, p Paper, by, reason string) error {
	now := s.Now()
	_, err := tx.Exec(ctx, `insert into ledger.manual_event (draft_id, version, state, actor, reason, at) values ($1, $2, $3, $4, $5, $6)`,
		p.ID, p.Version, p.State, by, reason, now)
	if err != nil {
		return fmt.Errorf("note the step of draft %s: %w", p.ID, err)
	}
	details := map[string]any{"version": p.Version, "by": by}
	if p.Entry != "" {
		details["entry"] = p.Entry
	}
	return audit.Record(ctx, tx, audit.Event{Action: "manual_entry." + string(p.State), ObjectType: "manual_entry", ObjectID: p.ID, At: now, Details: details})
}

// stands is the error of a step that does not fit.
func (s *Service) stands(ctx context.Context, tx pgx.Tx, p Paper) error {
	e := &StateError{State: p.State}
	err := tx.QueryRow(ctx, `select actor from ledger.manual_event where draft_id = $1 order by id desc limit 1`, p.ID).Scan(&e.By)
	if err != nil {
		return fmt.Errorf("read who was first on draft %s: %w", p.ID, err)
	}
	return e
}
