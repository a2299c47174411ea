package ledger

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/clock"
	"guichet/internal/id"
	"guichet/internal/money"
)

// An EntrySearch says what is known of an entry; what is empty does not count. What it
// asks for must be found without reading the whole journal: by id, key or source, or
// among the entries of a span of days, the last 31 unless others are given.
type EntrySearch struct {
	ID         string
	Key        string
	SourceType string
	SourceID   string

	Kind          string
	Account       string // a line is on it, booked or held
	Department    string // a line has it as dimension
	Actor         string
	Channel       string
	Words         string       // all of them are in the description
	AmountFrom    money.Amount // a line is this much or more, whichever side; on Account, when given
	AmountTo      money.Amount // zero: AmountFrom exactly, when that is given
	RecordedFrom  clock.Date
	RecordedTo    clock.Date
	EffectiveFrom clock.Date
	EffectiveTo   clock.Date

	After EntryPlace // zero: the first page
	Limit int
}

// An EntryPlace is where a page of a search ends.
type EntryPlace struct {
	RecordedAt time.Time
	ID         string
}

// A Search is a page of entries, the last recorded first.
type Search struct {
	Asked   EntrySearch // with the dates that were filled in
	Entries []Entry
	Next    EntryPlace // give it as After for the next page; zero: there is none
}

const (
	searchDays     = 31  // when no dates are given
	maxSearchDays  = 92  // among all entries
	maxAccountDays = 366 // among an account's, by accounting date
	maxWords       = 8
)

// ErrTooWide: the search would read too much of the journal.
var ErrTooWide = errors.New("search wants an id, a key, a source or fewer days")

// Exact reports whether the search names what it looks for.
func (s EntrySearch) Exact() bool {
	return s.ID != "" || s.Key != "" || s.SourceType != "" && s.SourceID != ""
}

// bound fills in the dates and refuses what would read too much.
func (s EntrySearch) bound(today clock.Date) (EntrySearch, error) {
	if s.AmountTo == 0 {
		s.AmountTo = s.AmountFrom
	}
	if s.Limit < 1 || s.AmountFrom < 0 || s.AmountTo < s.AmountFrom || len(strings.Fields(s.Words)) > maxWords || s.ID != "" && !id.Valid(s.ID) {
		return s, fmt.Errorf("search: %w", ErrInvalid)
	}
	if s.Exact() {
		return s, nil
	}
	none := clock.Date{}
	recorded, effective := s.RecordedFrom != none || s.RecordedTo != none, s.EffectiveFrom != none || s.EffectiveTo != none
	if !recorded && !effective {
		s.RecordedFrom, s.RecordedTo, recorded = today.AddDays(1-searchDays), today, true
	}
	most := maxSearchDays
	if s.Account != "" && effective && !recorded {
		most = maxAccountDays
	}
	s.RecordedFrom, s.RecordedTo = closeSpan(s.RecordedFrom, s.RecordedTo, today, recorded)
	s.EffectiveFrom, s.EffectiveTo = closeSpan(s.EffectiveFrom, s.EffectiveTo, today, effective)
	within := func(from, to clock.Date, given bool) bool {
		return given && !from.AddDays(most-1).Before(to)
	}
	if !within(s.RecordedFrom, s.RecordedTo, recorded) && !within(s.EffectiveFrom, s.EffectiveTo, effective) {
		return s, ErrTooWide
	}
	return s, nil
}

// closeSpan gives a span that is open on one side its other end: today, or the days
// that a search without dates has.
func closeSpan(from, to, today clock.Date, given bool) (clock.Date, clock.Date) {
	switch none := (clock.Date{}); {
	case given && to == none:
		to = today
		if to.Before(from) {
			to = from
		}
	case given && from == none:
		from = to.AddDays(1 - searchDays)
	}
	return from, to
}

// SearchEntries returns a page of the entries that fit, or ErrTooWide.
func (b *Books) SearchEntries(ctx context.Context, q Querier, s EntrySearch) (Search, error) {
	s, err := s.bound(clock.DateOf(b.moment()))
	if err != nil {
		return Search{Asked: s}, err
	}
	out := Search{Asked: s}
	c, err := b.conditions(ctx, q, s)
	if err != nil {
		return out, err
	}
	list, err := records(ctx, q, c.where(s.Limit+1), c.args...)
	if err != nil {
		return out, fmt.Errorf("search entries: %w", err)
	}
	for _, r := range list[:min(len(list), s.Limit)] {
		out.Entries = append(out.Entries, r.Entry)
	}
	if len(list) > s.Limit {
		last := out.Entries[s.Limit-1]
		out.Next = EntryPlace{last.RecordedAt, last.ID}
	}
	return out, nil
}

// Found are all the entries that fit a search, by id.
type Found struct {
	Asked EntrySearch // with the dates that were filled in
	ids   [][16]byte  // the last recorded first
}

const (
	maxFound  = 1_000_000 // entries that a search may find as a whole
	foundRead = 1000      // of them that are read at once
)

// FindEntries finds all the entries that fit, on whatever page, or returns ErrTooWide. It
// goes over the days once: a search page by page would go over them for every page.
func (b *Books) FindEntries(ctx context.Context, q Querier, s EntrySearch) (Found, error) {
	s.After, s.Limit = EntryPlace{}, maxFound
	s, err := s.bound(clock.DateOf(b.moment()))
	out := Found{Asked: s}
	if err != nil {
		return out, err
	}
	c, err := b.conditions(ctx, q, s)
	if err != nil {
		return out, err
	}
	ids := c.ids(maxFound + 1)
	rows, err := q.Query(ctx, ids, c.args...)
	if err != nil {
		return out, fmt.Errorf("find entries: %w", err)
	}
	if out.ids, err = pgx.CollectRows(rows, pgx.RowTo[[16]byte]); err != nil {
		return out, fmt.Errorf("find entries: %w", err)
	}
	if len(out.ids) > maxFound {
		return out, fmt.Errorf("more than %d entries: %w", maxFound, ErrTooWide)
	}
	return out, nil
}

// EachFound reads what was found, some at a time. Entries never change: it needs no snapshot.
func (b *Books) EachFound(ctx context.Context, q Querier, f Found) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for some := range slices.Chunk(f.ids, foundRead) {
			list, err := records(ctx, q, `where e.id = any ($1::uuid[]) order by e.recorded_at desc, e.id desc`, some)
			if err == nil && len(list) != len(some) {
				err = fmt.Errorf("%d of %d entries: %w", len(list), len(some), ErrBroken)
			}
			if err != nil {
				yield(Entry{}, fmt.Errorf("read entries that were found: %w", err))
				return
			}
			for _, r := range list {
				if !yield(r.Entry, nil) {
					return
				}
			}
		}
	}
}

// conditions are parts of a where clause with their arguments.
type conditions struct {
	parts []string
	args  []any
}

// add adds a condition in which each ? stands for the next argument.
func (c *conditions) add(part string, args ...any) {
	for _, a := range args {
		c.args = append(c.args, a)
		part = strings.Replace(part, "?", "$"+strconv.Itoa(len(c.args)), 1)
	}
	c.parts = append(c.parts, part)
}

// where finds the ids first, so that only the entries of the page are read whole.
func (c *conditions) where(limit int) string {
	return `where e.id = any (array(` + c.ids(limit) + `)) order by e.recorded_at desc, e.id desc`
}

func (c *conditions) ids(limit int) string {
	c.args = append(c.args, limit)
	return `select e.id from ledger.journal_entry e where ` + strings.Join(c.parts, " and ") +
		` order by e.recorded_at desc, e.id desc limit $` + strconv.Itoa(len(c.args))
}

func (b *Books) conditions(ctx context.Context, q Querier, s EntrySearch) (*conditions, error) {
	c := &conditions{}
	for _, same := range []struct{ column, value string }{
		{"e.key", s.Key},
		{"e.source_type", s.SourceType},
		{"e.source_id", s.SourceID},
		{"e.kind", s.Kind},
		{"e.actor", s.Actor},
		{"e.channel", s.Channel},
	} {
		if same.value != "" {
			c.add(same.column+" = ?", same.value)
		}
	}
	if s.ID != "" {
		c.add("e.id = ?", s.ID)
	}
	c.days(s)
	layers, err := b.onAccount(ctx, q, c, s)
	if err != nil {
		return nil, err
	}
	if s.AmountTo != 0 {
		c.add(`exists (select from unnest(e.amounts, e.accounts) as l(amount, account)
			where abs(l.amount) between ? and ? and (?::bigint[] is null or l.account = any (?::bigint[])))`, s.AmountFrom, s.AmountTo, layers, layers)
	}
	if s.Department != "" {
		c.add(`e.dimensions && array(select d.id from ledger.dimension d where d.department = ?)`, s.Department)
	}
	if words := strings.Fields(strings.ToLower(s.Words)); len(words) > 0 {
		c.add(`(select bool_and(strpos(lower(e.description), w) > 0) from unnest(?::text[]) w)`, words)
	}
	if s.After != (EntryPlace{}) {
		c.add(`(e.recorded_at, e.id) < (?, ?::uuid)`, s.After.RecordedAt, s.After.ID)
	}
	return c, nil
}

func (c *conditions) days(s EntrySearch) {
	if s.RecordedFrom != (clock.Date{}) {
		c.add(`e.recorded_at >= ?`, s.RecordedFrom.Start())
	}
	if s.RecordedTo != (clock.Date{}) {
		c.add(`e.recorded_at < ?`, s.RecordedTo.AddDays(1).Start())
	}
	if s.EffectiveFrom != (clock.Date{}) {
		c.add(`e.effective_on >= ?`, s.EffectiveFrom.Time())
	}
	if s.EffectiveTo != (clock.Date{}) {
		c.add(`e.effective_on <= ?`, s.EffectiveTo.Time())
	}
}

// onAccount keeps the entries with a line on an account, and returns the account's ids:
// its own and those of its held layer. By accounting date they come off the index of
// its postings, however many entries others have in those days.
func (b *Books) onAccount(ctx context.Context, q Querier, c *conditions, s EntrySearch) ([]int64, error) {
	if s.Account == "" {
		return nil, nil
	}
	ids, err := b.accountIDs(ctx, q, []string{s.Account})
	if err != nil {
		return nil, err
	}
	n := ids[s.Account]
	layers := []int64{n, -2 * n, -(2*n + 1)}
	if s.Exact() || s.RecordedFrom != (clock.Date{}) {
		c.add(`e.accounts && ?::bigint[]`, layers)
		return layers, nil
	}
	c.add(`e.id in (
		select p.entry_id from ledger.posting p where p.account_id = any (?::bigint[]) and p.effective_on between ? and ?
		union all
		select u.entry_id from ledger.unposted u where u.accounts && ?::bigint[])`, layers, s.EffectiveFrom.Time(), s.EffectiveTo.Time(), layers)
	return layers, nil
}

// A Link is another entry that names this one.
type Link struct {
	EntryID    string
	Relation   string // reversed, corrected, captured or released: what it did to this one
	Kind       string
	RecordedAt time.Time
}

// maxLinks bounds what is listed: a bill of a thousand parts has that many releases.
const maxLinks = 200

// LinksTo returns the first 200 entries that take an entry back, correct it, capture
// it or release what it holds, in order of id.
func (b *Books) LinksTo(ctx context.Context, q Querier, entryID string) ([]Link, error) {
	rows, err := q.Query(ctx, `
		select e.id, case when e.reverses is not null then 'reversed' when e.corrects is not null then 'corrected'
			when e.accounts[1] < 0 then 'released' else 'captured' end, e.kind, e.recorded_at
		from ledger.journal_entry e where e.reverses = $1 or e.corrects = $1 or e.hold = $1 order by e.id limit $2`, entryID, maxLinks)
	if err != nil {
		return nil, fmt.Errorf("list what names entry %s: %w", entryID, err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (l Link, err error) {
		err = row.Scan(&l.EntryID, &l.Relation, &l.Kind, &l.RecordedAt)
		l.RecordedAt = l.RecordedAt.UTC()
		return l, err
	})
	if err != nil {
		return nil, fmt.Errorf("list what names entry %s: %w", entryID, err)
	}
	return slices.Clip(list), nil
}
