package departments

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"guichet/department"
	"guichet/internal/clock"
	"guichet/internal/money"
	"guichet/ledger"
)

const (
	// MaxBatch is how many entries one request may bring.
	MaxBatch = 1000
	// BatchPath is where they go. Their body may have BatchBody bytes.
	BatchPath = Prefix + "/journal-entries/batch"
	BatchBody = 4 << 20

	uploadKind   = "journal"
	uploadSource = "journal-upload"
)

func (a *API) journalRoutes() {
	single := post("create-journal-entry", "/journal-entries", "Record a journal entry",
		"It is in the books when the answer comes. Lines are signed cents, debits above zero, and sum to zero.", http.StatusCreated)
	a.describeEntry(&single)
	register(a, single, a.createEntry)
	delete(single.RequestBody.Content, "application/octet-stream") // what the library says of raw bodies
	batch := post("create-journal-entries", "/journal-entries/batch", "Record many journal entries",
		"Up to 1,000, as a JSON array or as JSON Lines. Each has an idempotency_key of its own, in the same series as the keys of single entries.", http.StatusOK)
	batch.MaxBodyBytes = BatchBody
	batch.RequestBody = &huma.RequestBody{Content: map[string]*huma.MediaType{jsonLines: {Schema: &huma.Schema{
		Type: huma.TypeString, Description: "One entry in each line",
	}}}}
	register(a, batch, a.createEntries)
	register(a, get("find-journal-entry", "/journal-entries", "Find a journal entry by its key",
		"What became of a request whose answer was lost."), a.findEntry)
	register(a, get("get-journal-entry", "/journal-entries/{id}", "Read a journal entry",
		"One that was uploaded by the department, on accounts that the key may book on."), a.getEntry)
}

// register adds an operation that takes journal keys.
func register[I, O any](a *API, op huma.Operation, do func(context.Context, *I) (*O, error)) {
	op.Security = []map[string][]string{{journalScheme: {}}}
	huma.Register(a.huma, op, do)
}

// EntryKey is the idempotency key of a journal entry. The books keep it whole, with
// the department's code before it.
type EntryKey struct {
	Key string `header:"Idempotency-Key" required:"true" pattern:"^[!-~]{1,160}$" patternDescription:"1 to 160 visible ASCII characters" example:"payroll-2026-24-0001" doc:"One per entry, such as its number in your system"`
}

// NewEntry is a journal entry to record.
type NewEntry struct {
	Reference   string      `json:"reference" pattern:"^[!-~]([ -~]{0,62}[!-~])?$" patternDescription:"1 to 64 printable ASCII characters, no space at either end" example:"PAY-2026-24" doc:"The document in your system"`
	Description string      `json:"description" minLength:"1" maxLength:"200" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*$" patternDescription:"text without control characters" example:"Payroll, period 24" doc:"Kept for good: name nobody in it"`
	EffectiveOn string      `json:"effective_on,omitempty" format:"date" example:"2026-11-20" doc:"Accounting date in Toronto; the day it is recorded when left out"`
	OrNextOpen  bool        `json:"or_next_open,omitempty" doc:"When the period of effective_on is closed, book on the first day of the next open one instead of refusing"`
	Lines       []EntryLine `json:"lines" minItems:"2" maxItems:"1000"`
}

// EntryLine is one side of an entry.
type EntryLine struct {
	Account     string     `json:"account" maxLength:"200" pattern:"^(assets|liabilities|equity|revenue|expenses)(:[a-z0-9][a-z0-9-]*)+$" patternDescription:"the path of an account" example:"expenses:payroll"`
	AmountCents int64      `json:"amount_cents" minimum:"-100000000000000" maximum:"100000000000000" example:"125000" doc:"Debit above zero, credit below, never zero"`
	Dimensions  Dimensions `json:"dimensions,omitempty,omitzero"`
}

// Dimensions say what a line is about, in codes.
type Dimensions struct {
	Department string `json:"department,omitempty" maxLength:"40" pattern:"^[!-~]*$" patternDescription:"visible ASCII characters" example:"water"`
	Fund       string `json:"fund,omitempty" maxLength:"40" pattern:"^[!-~]*$" patternDescription:"visible ASCII characters"`
	CostCentre string `json:"cost_centre,omitempty" maxLength:"40" pattern:"^[!-~]*$" patternDescription:"visible ASCII characters" example:"4300"`
	Order      string `json:"order,omitempty" maxLength:"40" pattern:"^[!-~]*$" patternDescription:"visible ASCII characters"`
	WBS        string `json:"wbs,omitempty" maxLength:"40" pattern:"^[!-~]*$" patternDescription:"visible ASCII characters"`
	Channel    string `json:"channel,omitempty" maxLength:"40" pattern:"^[!-~]*$" patternDescription:"visible ASCII characters"`
	Tender     string `json:"tender,omitempty" maxLength:"40" pattern:"^[!-~]*$" patternDescription:"visible ASCII characters"`
}

// KeyedEntry is an entry among others.
type KeyedEntry struct {
	IdempotencyKey string `json:"idempotency_key" pattern:"^[!-~]{1,160}$" patternDescription:"1 to 160 visible ASCII characters" example:"payroll-2026-24-0001" doc:"One per entry, such as its number in your system"`
	NewEntry
}

// RecordedEntry is what is told of an entry that is in the books.
type RecordedEntry struct {
	ID          string `json:"id" format:"uuid"`
	EffectiveOn string `json:"effective_on" format:"date" example:"2026-11-20" doc:"Where it is booked"`
	AskedOn     string `json:"asked_on,omitempty" format:"date" doc:"The date asked for, when its period was closed"`
}

// JournalEntry is an entry as it was uploaded.
type JournalEntry struct {
	RecordedEntry
	IdempotencyKey string      `json:"idempotency_key" example:"payroll-2026-24-0001"`
	RecordedAt     time.Time   `json:"recorded_at"`
	Currency       string      `json:"currency" enum:"CAD"`
	Reference      string      `json:"reference" example:"PAY-2026-24"`
	Description    string      `json:"description" example:"Payroll, period 24"`
	Lines          []EntryLine `json:"lines"`
}

type createEntryRequest struct {
	EntryKey
	RawBody []byte // a NewEntry, see readEntry
}

type recordedAnswer struct {
	Body RecordedEntry
	Replayed
}

func (a *API) createEntry(ctx context.Context, in *createEntryRequest) (*recordedAnswer, error) {
	asked, fault := a.readEntry(in.RawBody)
	if fault != nil {
		return nil, fault
	}
	e, fault := newEntry(caller(ctx), in.Key, asked, "body")
	if fault != nil {
		return nil, fault
	}
	r, err := a.p.Journal.Append(ctx, e)
	if err != nil {
		return nil, a.entryProblem(ctx, e, "body", err)
	}
	recorded, err := a.recorded(ctx, e, r)
	if err != nil {
		return nil, a.problemOf(ctx, err)
	}
	return &recordedAnswer{recorded, replayedIf(r.Replayed)}, nil
}

// uploadKey is an entry's key in the books: the department's own series.
func uploadKey(c department.Caller, key string) string { return "upload/" + c.Code + "/" + key }

// newEntry checks what the types alone do not. Faults are found before the books are
// asked anything.
func newEntry(c department.Caller, key string, in *NewEntry, at string) (ledger.Entry, *Problem) {
	e := ledger.Entry{
		Key: uploadKey(c, key), Kind: uploadKind, SourceType: uploadSource, SourceID: in.Reference, Actor: c.Actor(), Channel: "api",
		Description: in.Description, OrNextOpen: in.OrNextOpen, Lines: make([]ledger.Line, len(in.Lines)),
	}
	var wrong, closed []error
	if in.EffectiveOn != "" {
		e.EffectiveOn, wrong = date(wrong, at+".effective_on", in.EffectiveOn)
	}
	var sum int64
	for i, l := range in.Lines {
		if l.AmountCents == 0 {
			wrong = append(wrong, field(fmt.Sprintf("%s.lines[%d].amount_cents", at, i), "it must not be zero"))
		}
		if !c.MayBook(l.Account) {
			closed = append(closed, field(fmt.Sprintf("%s.lines[%d].account", at, i), "the key may not book on it"))
		}
		sum += l.AmountCents // 1,000 of a trillion dollars fit
		e.Lines[i] = ledger.Line{Account: l.Account, Amount: money.Amount(l.AmountCents), Dimensions: ledger.Dimensions(l.Dimensions)}
	}
	switch {
	case len(wrong) > 0:
		return e, coded("invalid", "validation failed").with(wrong...)
	case len(closed) > 0:
		return e, coded(accountNotAllowed, "the key may not book on every account").with(closed...)
	case sum != 0:
		return e, coded(unbalanced, "the lines do not sum to zero").with(field(at+".lines", "they do not sum to zero"))
	}
	return e, nil
}

// recorded tells of an entry what was told the first time.
func (a *API) recorded(ctx context.Context, e ledger.Entry, r ledger.Result) (RecordedEntry, error) {
	if r.Replayed || r.Late {
		kept, err := a.p.Books.Entry(ctx, a.p.DB, r.ID)
		return recordedEntry(kept), err
	}
	e.ID, e.EffectiveOn = r.ID, r.EffectiveOn
	return recordedEntry(e), nil
}

func recordedEntry(e ledger.Entry) RecordedEntry {
	r := RecordedEntry{ID: e.ID, EffectiveOn: e.EffectiveOn.String()}
	if e.AskedOn != (clock.Date{}) {
		r.AskedOn = e.AskedOn.String()
	}
	return r
}

type createEntriesRequest struct {
	Results string       `query:"results" enum:"all,each" default:"all" doc:"all: one entry that is refused refuses all of them. each: what can be recorded is, and every entry has its answer"`
	Body    []KeyedEntry `minItems:"1" maxItems:"1000"`
}

// EntryResult is what became of one entry.
type EntryResult struct {
	Outcome string         `json:"outcome" enum:"recorded,replayed,refused" doc:"replayed: it was in the books under its key"`
	Entry   *RecordedEntry `json:"entry,omitempty"`
	Problem *Problem       `json:"problem,omitempty" doc:"Why it was refused"`
}

// EntryResults are in the order of the request.
type EntryResults struct {
	Data []EntryResult `json:"data"`
}

type createEntriesAnswer struct{ Body EntryResults }

func (a *API) createEntries(ctx context.Context, in *createEntriesRequest) (*createEntriesAnswer, error) {
	c, whole := caller(ctx), in.Results == "all"
	answer := &createEntriesAnswer{EntryResults{Data: make([]EntryResult, len(in.Body))}}
	entries, places := make([]ledger.Entry, 0, len(in.Body)), make([]int, 0, len(in.Body))
	for i := range in.Body {
		e, fault := newEntry(c, in.Body[i].IdempotencyKey, &in.Body[i].NewEntry, placeOf(i))
		if fault != nil {
			answer.Body.Data[i] = EntryResult{Outcome: "refused", Problem: fault}
			continue
		}
		entries, places = append(entries, e), append(places, i)
	}
	if whole && len(entries) < len(in.Body) {
		return nil, together(answer.Body.Data)
	}
	results, err := a.p.Journal.AppendTogether(ctx, entries, whole)
	if err != nil {
		return nil, a.problemOf(ctx, err)
	}
	refused := false
	for n, r := range results {
		i := places[n]
		if r.Err != nil {
			fault := a.entryProblem(ctx, entries[n], placeOf(i), r.Err)
			answer.Body.Data[i], refused = EntryResult{Outcome: "refused", Problem: fault}, true
			continue
		}
		answer.Body.Data[i].Outcome = "recorded"
		if r.Replayed {
			answer.Body.Data[i].Outcome = "replayed"
		}
	}
	if whole && refused {
		return nil, together(answer.Body.Data)
	}
	for n, r := range results {
		if r.Err != nil {
			continue
		}
		recorded, err := a.recorded(ctx, entries[n], r)
		if err != nil {
			return nil, a.problemOf(ctx, err)
		}
		answer.Body.Data[places[n]].Entry = &recorded
	}
	return answer, nil
}

func placeOf(i int) string { return fmt.Sprintf("body[%d]", i) }

// maxFaults bounds what is told about a batch.
const maxFaults = 100

// together is the problem of a batch that was refused because of some of its entries: the first
// one's, with the fields of all.
func together(results []EntryResult) *Problem {
	var p *Problem
	for i, r := range results {
		switch {
		case r.Problem == nil:
		case p == nil:
			first := *r.Problem
			first.Detail = fmt.Sprintf("nothing is recorded; entry %d: %s", i+1, first.Detail)
			p = &first
		case len(p.Errors) < maxFaults:
			p.Errors = append(p.Errors, r.Problem.Errors...)
		}
	}
	return p
}

type entryRequest struct {
	ID string `path:"id" doc:"The entry's id"`
}

type findEntryRequest struct {
	Key string `query:"idempotency_key" required:"true" pattern:"^[!-~]{1,160}$" patternDescription:"1 to 160 visible ASCII characters" doc:"The key it was sent with"`
}

type readEntryAnswer struct{ Body JournalEntry }

func (a *API) getEntry(ctx context.Context, in *entryRequest) (*readEntryAnswer, error) {
	e, err := a.p.Books.Entry(ctx, a.p.DB, in.ID)
	return a.showEntry(ctx, e, err)
}

func (a *API) findEntry(ctx context.Context, in *findEntryRequest) (*readEntryAnswer, error) {
	e, err := a.p.Books.EntryByKey(ctx, a.p.DB, uploadKey(caller(ctx), in.Key))
	return a.showEntry(ctx, e, err)
}

// showEntry shows an entry to a key that may book on all of its accounts, if it was
// uploaded by the department: what else is in the books is not found.
func (a *API) showEntry(ctx context.Context, e ledger.Entry, err error) (*readEntryAnswer, error) {
	c := caller(ctx)
	key, mine := strings.CutPrefix(e.Key, uploadKey(c, ""))
	for _, l := range e.Lines {
		mine = mine && c.MayBook(l.Account)
	}
	if err == nil && !mine {
		err = ledger.ErrNotFound
	}
	if err != nil {
		return nil, a.problemOf(ctx, err)
	}
	v := JournalEntry{
		RecordedEntry: recordedEntry(e), IdempotencyKey: key, RecordedAt: e.RecordedAt, Currency: e.Currency,
		Reference: e.SourceID, Description: e.Description, Lines: make([]EntryLine, len(e.Lines)),
	}
	for i, l := range e.Lines {
		v.Lines[i] = EntryLine{l.Account, int64(l.Amount), Dimensions(l.Dimensions)}
	}
	return &readEntryAnswer{v}, nil
}

// entryProblem says why the books refused an entry, and which of its lines is to blame.
func (a *API) entryProblem(ctx context.Context, e ledger.Entry, at string, err error) *Problem {
	var (
		conflict *ledger.ConflictError
		period   *ledger.PeriodError
		low      *ledger.LimitError
		unknown  *ledger.UnknownAccountError
	)
	lines := func(message string, guilty func(path string) bool) (fields []error) {
		for i, l := range e.Lines {
			if guilty(l.Account) {
				fields = append(fields, field(fmt.Sprintf("%s.lines[%d].account", at, i), message))
			}
		}
		return fields
	}
	// Each account is asked for once: a thousand lines may be on the same one.
	asked := map[string]bool{}
	account := func(test func(ledger.Account, error) bool) func(string) bool {
		return func(path string) bool {
			if _, done := asked[path]; !done {
				asked[path] = test(a.p.Books.Account(ctx, a.p.DB, path))
			}
			return asked[path]
		}
	}
	switch {
	case errors.As(err, &conflict):
		p := coded(idempotencyConflict, "the key was used before for an entry with other content").with(field(at, "the key was used before for an entry with other content"))
		p.Entry = conflict.EntryID
		return p
	case errors.As(err, &period):
		return coded(periodClosed, "the books of that month are closed").with(field(at+".effective_on", "the books of that month are closed"))
	case errors.As(err, &low):
		return coded(limit, "an account would fall below its limit").with(
			lines("it would fall below its limit", func(path string) bool { return path == low.Account })...)
	case errors.Is(err, ledger.ErrUnknownAccount):
		return coded(unknownAccount, "there is no such account").with(
			lines("there is no such account", func(path string) bool { return errors.As(err, &unknown) && path == unknown.Path })...)
	case errors.Is(err, ledger.ErrAccountClosed):
		return coded(accountClosed, "an account is frozen or closed").with(
			lines("it is frozen or closed", account(func(acc ledger.Account, err error) bool { return err == nil && acc.State != ledger.Open }))...)
	case errors.Is(err, ledger.ErrCurrency):
		return coded("invalid", "validation failed").with(
			lines("it holds another currency", account(func(acc ledger.Account, err error) bool { return err == nil && acc.Currency != money.CAD }))...)
	}
	a.p.Log.ErrorContext(ctx, "record journal entry", "error", err)
	return coded("internal", "something went wrong on our side; try again with the same key")
}
