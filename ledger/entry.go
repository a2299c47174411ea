package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"guichet/internal/clock"
	"guichet/internal/id"
	"guichet/internal/money"
)

// A Line is one side of an entry: debit positive, credit negative, never zero.
type Line struct {
	Account    string // path
	Amount     money.Amount
	Dimensions Dimensions
}

// An Entry is what happened, in two or more lines of one currency that sum to zero.
// Text in it names objects and never people: it is kept for good.
type Entry struct {
	ID          string            // set by Append
	Key         string            // idempotency key: "payment/<id>/succeeded"
	Kind        string            // what happened: "payment", "settlement"; "adjustment" also passes while a period closes
	EffectiveOn clock.Date        // accounting date; zero: today in Toronto
	RecordedAt  time.Time         // set by Append
	Currency    string            // empty: CAD
	Lines       []Line            // in the order given
	SourceType  string            // the business object that caused it
	SourceID    string            //
	Actor       string            // opaque id of who did it
	Channel     string            //
	Description string            //
	Metadata    map[string]string //
	Reverses    string            // id of the entry this one takes back, whole or in part; set by Reverse
	Corrects    string            // id of the entry this one replaces; set by Correct
	Held        bool              // its lines are held and not booked: a hold, or the release of one
	Hold        string            // id of the hold it releases or captures; set by Capture, Void and ExpireHolds

	// OrNextOpen asks Append to book in the next open period when the period of
	// EffectiveOn takes no more, instead of refusing. AskedOn then is the date asked for.
	OrNextOpen bool
	AskedOn    clock.Date // zero: the entry is not late
}

const (
	maxLines = 10_000
	maxText  = 4_000 // bytes in a text field
	maxCode  = 300   // bytes in a code that is in an index: a row of it holds 2,700, of seven dimensions
	maxPairs = 100   // of metadata
	// maxAmount keeps every sum of lines and every balance far inside 64 bits.
	maxAmount = 100_000_000_000_000
)

// Append records one entry in the caller's transaction and returns its id.
// Appending the same key and content again returns the first id and changes
// nothing; other content under the key is ErrConflict. See the errors of this
// package for what else is refused. On any error roll the transaction back.
func (b *Books) Append(ctx context.Context, tx pgx.Tx, e Entry) (string, error) {
	r, err := b.alone(ctx, tx, e)
	return r.ID, err
}

// alone is Append with all that is to be told of the entry.
func (b *Books) alone(ctx context.Context, tx pgx.Tx, e Entry) (Result, error) {
	err := e.plain()
	if err == nil {
		var r Result
		if r, err = b.appendOne(ctx, tx, e); err == nil {
			return r, nil
		}
	}
	return Result{}, fmt.Errorf("append %s: %w", e.Key, err)
}

// plain refuses what other functions set.
func (e *Entry) plain() error {
	if e.Reverses != "" || e.Corrects != "" || e.Held || e.Hold != "" || e.AskedOn != (clock.Date{}) {
		return fmt.Errorf("reversals, corrections and holds have functions of their own: %w", ErrInvalid)
	}
	return nil
}

func (b *Books) append(ctx context.Context, tx pgx.Tx, e Entry) (string, error) {
	r, err := b.appendOne(ctx, tx, e)
	return r.ID, err
}

func (b *Books) appendOne(ctx context.Context, tx pgx.Tx, e Entry) (Result, error) {
	r, err := b.prepare(ctx, tx, e)
	if err != nil {
		return Result{}, err
	}
	tag, err := tx.Exec(ctx, insertEntry, r.values()...)
	if err != nil {
		return Result{}, refused(err)
	}
	if tag.RowsAffected() == 1 {
		return r.result(), nil
	}
	first, err := b.replay(ctx, tx, r.Key, r.body)
	return Result{ID: first, Replayed: err == nil}, err
}

// A row is an entry as the journal keeps it.
type row struct {
	record
	columns
}

// draft checks an entry and fills what the caller left out.
func (b *Books) draft(e Entry) (row, error) {
	if e.Currency == "" {
		e.Currency = money.CAD
	}
	if err := e.check(); err != nil {
		return row{}, err
	}
	r := row{record: record{Entry: e, body: e.body()}}
	r.ID, r.RecordedAt = id.New(), b.moment()
	if r.EffectiveOn == (clock.Date{}) {
		r.EffectiveOn = clock.DateOf(r.RecordedAt)
	}
	if r.Metadata == nil {
		r.Metadata = map[string]string{}
	}
	return r, nil
}

// prepare makes a row of an entry: checks it, fills it, hashes it.
func (b *Books) prepare(ctx context.Context, tx pgx.Tx, e Entry) (row, error) {
	r, err := b.draft(e)
	if err != nil {
		return row{}, err
	}
	if r.OrNextOpen {
		open, err := b.nextOpen(ctx, tx, r.EffectiveOn, r.Kind)
		if err != nil {
			return row{}, err
		}
		if open != r.EffectiveOn {
			r.EffectiveOn, r.AskedOn = open, r.EffectiveOn
		}
		r.OrNextOpen = false
	}
	if !b.remembered(&r) {
		if err := b.resolve(ctx, tx, &r); err != nil {
			return row{}, err
		}
	}
	r.seal()
	return r, nil
}

// result is what became of a row that was inserted.
func (r *row) result() Result {
	return Result{ID: r.ID, EffectiveOn: r.EffectiveOn, Late: r.AskedOn != clock.Date{}}
}

// known is prepare without the database. It reports false when the database has to be
// asked: for the next open period, for an account or a dimension met for the first time.
func (b *Books) known(e Entry) (row, bool, error) {
	r, err := b.draft(e)
	if err != nil || r.OrNextOpen || !b.remembered(&r) {
		return row{}, false, err
	}
	r.seal()
	return r, true, nil
}

func (r *row) seal() { r.leaf = r.logHash(r.body) }

// values are the arguments of insertEntry.
func (r *row) values() []any {
	return []any{
		r.ID, r.Key, r.Kind, r.EffectiveOn.Time(), r.RecordedAt, r.Currency, r.accounts, r.amounts, r.dimensions,
		r.SourceType, r.SourceID, r.Actor, r.Channel, r.Description, r.Metadata,
		some(r.Reverses), some(r.Hold), some(r.Corrects), someDate(r.AskedOn), r.body, r.leaf,
	}
}

// some is a text for the database, null when it is empty.
func some(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func someDate(d clock.Date) *time.Time {
	if d == (clock.Date{}) {
		return nil
	}
	t := d.Time()
	return &t
}

const entryNames = `id, key, kind, effective_on, recorded_at, currency, accounts, amounts, dimensions,
	source_type, source_id, actor, channel, description, metadata, reverses, hold, corrects, asked_on, body_hash, leaf`

const insertEntry = `
insert into ledger.journal_entry (` + entryNames + `)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)
on conflict (key) do nothing`

// replay returns the entry that is there under the key, if it says the same. The
// insert has waited for the transaction that wrote it, and this later statement sees it.
func (b *Books) replay(ctx context.Context, tx pgx.Tx, key string, body []byte) (string, error) {
	var (
		first string
		have  []byte
	)
	err := tx.QueryRow(ctx, `select id, body_hash from ledger.journal_entry where key = $1`, key).Scan(&first, &have)
	if err != nil {
		return "", fmt.Errorf("read the entry under the key: %w", err)
	}
	if !bytes.Equal(have, body) {
		return "", &ConflictError{Key: key, EntryID: first}
	}
	return first, nil
}

// columns are the lines as the journal keeps them.
type columns struct{ accounts, amounts, dimensions []int64 }

// remembered fills the columns of a row from memory, or reports false.
func (b *Books) remembered(r *row) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return r.fill(b.accounts, b.dimensions)
}

// resolve fills the columns of a row and makes dimensions that are new.
func (b *Books) resolve(ctx context.Context, tx pgx.Tx, r *row) error {
	paths, dims := make([]string, len(r.Lines)), make([]Dimensions, len(r.Lines))
	for i, l := range r.Lines {
		paths[i], dims[i] = l.Account, l.Dimensions
	}
	accounts, err := b.accountIDs(ctx, tx, paths)
	if err != nil {
		return err
	}
	dimensions, err := b.dimensionIDs(ctx, tx, dims)
	if err != nil {
		return err
	}
	if !r.fill(accounts, dimensions) {
		return errors.New("an account or a dimension has no id")
	}
	return nil
}

// fill reports whether it found every id.
func (r *row) fill(accounts map[string]int64, dimensions map[Dimensions]int64) bool {
	n := len(r.Lines)
	all := make([]int64, 3*n)
	r.columns = columns{all[:n:n], all[n : 2*n : 2*n], all[2*n:]}
	for i := range r.Lines {
		l := &r.Lines[i]
		account, there := accounts[l.Account]
		dimension, known := dimensions[l.Dimensions]
		if !there || !known {
			return false
		}
		if r.Held {
			account = heldLayer(account, l.Amount, r.Hold != "")
		}
		r.accounts[i], r.amounts[i], r.dimensions[i] = account, int64(l.Amount), dimension
	}
	return true
}

// heldLayer is the id under which an account's held debits or credits run. A release
// takes a debit out with a credit, so its side is the other one.
func heldLayer(account int64, amount money.Amount, release bool) int64 {
	if (amount > 0) != release {
		return -2 * account
	}
	return -(2*account + 1)
}

// check refuses what the database would refuse too, without spoiling the
// caller's transaction.
func (e *Entry) check() error {
	if e.Key == "" || len(e.Key) > 200 || e.Kind == "" {
		return fmt.Errorf("an entry wants a key of up to 200 bytes and a kind: %w", ErrInvalid)
	}
	if n := len(e.Lines); n < 2 || n > maxLines {
		return fmt.Errorf("%d lines, want 2 to %d: %w", n, maxLines, ErrInvalid)
	}
	if y := e.EffectiveOn.Year; e.EffectiveOn != (clock.Date{}) && (y < 1900 || y > 2199) {
		return fmt.Errorf("effective on %s: %w", e.EffectiveOn, ErrInvalid)
	}
	if len(e.Metadata) > maxPairs {
		return fmt.Errorf("%d pairs of metadata, at most %d: %w", len(e.Metadata), maxPairs, ErrInvalid)
	}
	if err := errors.Join(code(e.SourceType), code(e.SourceID)); err != nil {
		return err
	}
	for _, s := range [...]string{e.Key, e.Kind, e.Currency, e.Actor, e.Channel, e.Description} {
		if err := plainText(s); err != nil {
			return err
		}
	}
	for k, v := range e.Metadata {
		if err := errors.Join(plainText(k), plainText(v)); err != nil {
			return err
		}
	}
	var sum money.Amount
	for i := range e.Lines {
		l := &e.Lines[i]
		if l.Amount == 0 || l.Amount > maxAmount || l.Amount < -maxAmount {
			return fmt.Errorf("line %d: amount %s: %w", i+1, l.Amount, ErrInvalid)
		}
		sum += l.Amount // maxLines × maxAmount fits
		for _, s := range l.Dimensions.fields() {
			if err := code(s); err != nil {
				return err
			}
		}
	}
	if sum != 0 {
		return &UnbalancedError{sum}
	}
	return nil
}

func code(s string) error {
	if len(s) > maxCode {
		return fmt.Errorf("code %.40q: want up to %d bytes: %w", s, maxCode, ErrInvalid)
	}
	return plainText(s)
}

func plainText(s string) error {
	if len(s) > maxText || !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 {
		return fmt.Errorf("text %.40q: want up to %d bytes of UTF-8 without NUL: %w", s, maxText, ErrInvalid)
	}
	return nil
}

// Entry returns one entry, or ErrNotFound.
func (b *Books) Entry(ctx context.Context, q Querier, entryID string) (Entry, error) {
	r, err := b.record(ctx, q, entryID)
	return r.Entry, err
}

func (b *Books) record(ctx context.Context, q Querier, entryID string) (record, error) {
	if !id.Valid(entryID) {
		return record{}, fmt.Errorf("entry %.40q: %w", entryID, ErrNotFound)
	}
	list, err := records(ctx, q, `where e.id = $1`, entryID)
	if err != nil {
		return record{}, fmt.Errorf("read entry %s: %w", entryID, err)
	}
	if len(list) == 0 {
		return record{}, fmt.Errorf("entry %s: %w", entryID, ErrNotFound)
	}
	return list[0], nil
}

// EntryByKey returns the entry recorded under an idempotency key, or ErrNotFound:
// how a caller learns what became of a commit whose answer was lost.
func (b *Books) EntryByKey(ctx context.Context, q Querier, key string) (Entry, error) {
	list, err := records(ctx, q, `where e.key = $1`, key)
	if err != nil {
		return Entry{}, fmt.Errorf("read entry under %s: %w", key, err)
	}
	if len(list) == 0 {
		return Entry{}, fmt.Errorf("entry under %q: %w", key, ErrNotFound)
	}
	return list[0].Entry, nil
}

// EntriesBySource returns up to limit entries that a business object caused, in
// order of id, after the given id (empty: from the first).
func (b *Books) EntriesBySource(ctx context.Context, q Querier, sourceType, sourceID, after string, limit int) ([]Entry, error) {
	if after == "" {
		after = "00000000-0000-0000-0000-000000000000"
	}
	list, err := records(ctx, q, `where e.source_type = $1 and e.source_id = $2 and e.id > $3 order by e.id limit $4`,
		sourceType, sourceID, after, limit)
	if err != nil {
		return nil, fmt.Errorf("list entries of %s %s: %w", sourceType, sourceID, err)
	}
	out := make([]Entry, len(list))
	for i := range list {
		out[i] = list[i].Entry
	}
	return out, nil
}

// A record is an entry with what the database keeps beside it.
type record struct {
	Entry
	body, leaf []byte
}

func records(ctx context.Context, q Querier, where string, args ...any) ([]record, error) {
	rows, err := q.Query(ctx, `select `+entryColumns+` from ledger.journal_entry e `+where, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (record, error) { return scanRecord(row) })
}

// entryColumns reads an entry with the names of its accounts and the values of its
// dimensions, line by line.
const entryColumns = `e.id, e.key, e.kind, e.effective_on, e.recorded_at, e.currency, e.source_type, e.source_id,
	e.actor, e.channel, e.description, e.metadata, coalesce(e.reverses::text, ''),
	coalesce(e.hold::text, ''), coalesce(e.corrects::text, ''), e.asked_on, e.accounts[1] < 0, e.body_hash, e.leaf, e.amounts,
	array(select coalesce(a.path, '') from unnest(e.accounts) with ordinality as l(id, n)
		left join ledger.account a on a.id = case when l.id < 0 then -l.id / 2 else l.id end order by l.n),
	array(select coalesce(v, '') from unnest(e.dimensions) with ordinality as l(id, n)
		left join ledger.dimension d on d.id = l.id
		cross join lateral unnest(array[d.department, d.fund, d.cost_centre, d.order_code, d.wbs, d.channel, d.tender])
			with ordinality as f(v, i) order by l.n, f.i)`

// scanRecord reads entryColumns, and what the statement has after them.
func scanRecord(row pgx.CollectableRow, more ...any) (record, error) {
	var (
		e         record
		effective time.Time
		amounts   []int64
		paths     []string
		dims      []string
		asked     *time.Time
	)
	err := row.Scan(append([]any{
		&e.ID, &e.Key, &e.Kind, &effective, &e.RecordedAt, &e.Currency, &e.SourceType, &e.SourceID,
		&e.Actor, &e.Channel, &e.Description, &e.Metadata, &e.Reverses,
		&e.Hold, &e.Corrects, &asked, &e.Held, &e.body, &e.leaf, &amounts, &paths, &dims,
	}, more...)...)
	if err != nil {
		return e, err
	}
	if len(paths) != len(amounts) || len(dims) != 7*len(amounts) {
		return e, fmt.Errorf("entry %s: %d amounts for %d accounts", e.ID, len(amounts), len(paths))
	}
	e.EffectiveOn, e.RecordedAt = clock.FromTime(effective), e.RecordedAt.UTC()
	if asked != nil {
		e.AskedOn = clock.FromTime(*asked)
	}
	e.Lines = make([]Line, len(amounts))
	for i := range amounts {
		e.Lines[i] = Line{paths[i], money.Amount(amounts[i]), dimensionsOf([7]string(dims[7*i : 7*i+7]))}
	}
	return e, nil
}
