package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"guichet/internal/clock"
)

// A Result is what became of one entry of a batch.
type Result struct {
	ID          string     // of the entry recorded, now or before
	Replayed    bool       // it was there under its key, with the same content
	EffectiveOn clock.Date // where it was booked; of a replay: zero
	Late        bool       // that is not the date asked for, whose period was closed
	Err         error      // AppendEach only: why this entry was refused
}

// maxBatch bounds a batch: more are several transactions.
const maxBatch = 10_000

// AppendAll records every entry of a batch or none, in one statement and the
// caller's transaction. A key that is there already, in the books or twice in the batch,
// is a replay when the content is the same, else ErrConflict. Limits are checked after the
// whole batch. On any error roll the transaction back.
func (b *Books) AppendAll(ctx context.Context, tx pgx.Tx, entries []Entry) ([]Result, error) {
	rows := make([]row, len(entries))
	for i := range entries {
		var err error
		if rows[i], err = b.batched(ctx, tx, entries[i]); err != nil {
			return nil, fmt.Errorf("entry %d of %d, %s: %w", i+1, len(entries), entries[i].Key, err)
		}
	}
	if len(rows) > maxBatch {
		return nil, fmt.Errorf("a batch of %d entries, at most %d: %w", len(rows), maxBatch, ErrInvalid)
	}
	results, err := b.insertRows(ctx, tx, rows)
	if err != nil {
		return nil, fmt.Errorf("append a batch of %d: %w", len(rows), err)
	}
	for i, r := range results {
		if r.Err != nil {
			return nil, fmt.Errorf("entry %d of %d: %w", i+1, len(results), r.Err)
		}
	}
	return results, nil
}

// AppendEach records what it can of a batch and says of every entry what became of
// it: an entry that is refused takes no other with it. An error of the database ends
// the whole; roll back then.
func (b *Books) AppendEach(ctx context.Context, tx pgx.Tx, entries []Entry) ([]Result, error) {
	if len(entries) > maxBatch {
		return nil, fmt.Errorf("a batch of %d entries, at most %d: %w", len(entries), maxBatch, ErrInvalid)
	}
	results := make([]Result, len(entries))
	rows := make([]row, 0, len(entries))
	places := make([]int, 0, len(entries))
	for i := range entries {
		r, err := b.batched(ctx, tx, entries[i])
		switch {
		case err == nil:
			rows, places = append(rows, r), append(places, i)
		case isRefusal(err):
			results[i].Err = err
		default:
			return nil, fmt.Errorf("entry %d of %d: %w", i+1, len(entries), err)
		}
	}
	some, err := b.insertEach(ctx, tx, rows)
	if err != nil {
		return nil, fmt.Errorf("append a batch of %d: %w", len(rows), err)
	}
	for i, r := range some {
		results[places[i]] = r
	}
	for i := range results {
		if err := results[i].Err; err != nil {
			results[i] = Result{Err: fmt.Errorf("append %s: %w", entries[i].Key, err)}
		}
	}
	return results, nil
}

func (b *Books) batched(ctx context.Context, tx pgx.Tx, e Entry) (row, error) {
	if err := e.plain(); err != nil {
		return row{}, err
	}
	return b.prepare(ctx, tx, e)
}

// refusals are the errors of one entry; anything else is trouble with the database.
var refusals = []error{
	ErrInvalid, ErrUnbalanced, ErrConflict, ErrUnknownAccount, ErrCurrency, ErrAccountClosed, ErrPeriodClosed, ErrLimit,
	ErrReversed, ErrHold, ErrNotFound,
}

// Refused reports whether an error is the books' answer to what was asked, which asking
// again does not change; other errors are trouble with the database.
func Refused(err error) bool { return isRefusal(err) }

func isRefusal(err error) bool {
	return slices.ContainsFunc(refusals, func(r error) bool { return errors.Is(err, r) })
}

// insertEach inserts rows in a savepoint and halves what is refused until the guilty
// row stands alone.
func (b *Books) insertEach(ctx context.Context, tx pgx.Tx, rows []row) ([]Result, error) {
	if len(rows) == 0 {
		return nil, nil
	}
	var results []Result
	err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) (err error) {
		results, err = b.insertRows(ctx, tx, rows)
		return err
	})
	switch {
	case err == nil:
		return results, nil
	case !isRefusal(err):
		return nil, err
	case len(rows) == 1:
		return []Result{{Err: err}}, nil
	}
	half := len(rows) / 2
	first, err := b.insertEach(ctx, tx, rows[:half])
	if err != nil {
		return nil, err
	}
	second, err := b.insertEach(ctx, tx, rows[half:])
	return append(first, second...), err
}

// insertRows writes rows in one statement; an Err in a result is a conflict. In order
// of key: two batches with the same keys would otherwise wait for each other.
func (b *Books) insertRows(ctx context.Context, tx pgx.Tx, rows []row) ([]Result, error) {
	order := make([]int, len(rows))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return strings.Compare(rows[i].Key, rows[j].Key) })
	var c journalColumns
	for _, i := range order {
		if err := c.add(&rows[i]); err != nil {
			return nil, err
		}
	}
	inserted := make(map[string]bool, len(rows))
	found, err := tx.Query(ctx, insertEntries, c.values()...)
	if err != nil {
		return nil, refused(err)
	}
	var entryID string
	if _, err := pgx.ForEachRow(found, []any{&entryID}, func() error {
		inserted[entryID] = true
		return nil
	}); err != nil {
		return nil, refused(err)
	}
	results := make([]Result, len(rows))
	var again []string
	for i := range rows {
		if r := &rows[i]; inserted[r.ID] {
			results[i] = r.result()
		} else {
			again = append(again, r.Key)
		}
	}
	if len(again) == 0 {
		return results, nil
	}
	return results, b.replays(ctx, tx, rows, results, again)
}

// replays compares the rows that were not inserted with what is there under their keys.
func (b *Books) replays(ctx context.Context, tx pgx.Tx, rows []row, results []Result, keys []string) error {
	type kept struct {
		entryID string
		body    []byte
	}
	there := map[string]kept{}
	found, err := tx.Query(ctx, `select key, id::text, body_hash from ledger.journal_entry where key = any($1)`, keys)
	if err != nil {
		return fmt.Errorf("read the entries under the keys: %w", err)
	}
	var (
		key  string
		have kept
	)
	if _, err := pgx.ForEachRow(found, []any{&key, &have.entryID, &have.body}, func() error {
		there[key] = kept{have.entryID, bytes.Clone(have.body)}
		return nil
	}); err != nil {
		return fmt.Errorf("read the entries under the keys: %w", err)
	}
	for i := range rows {
		if results[i].ID != "" {
			continue
		}
		have, ok := there[rows[i].Key]
		switch {
		case !ok:
			return fmt.Errorf("key %s is taken by nobody", rows[i].Key)
		case !bytes.Equal(have.body, rows[i].body):
			results[i].Err = &ConflictError{rows[i].Key, have.entryID}
		default:
			results[i] = Result{ID: have.entryID, Replayed: true}
		}
	}
	return nil
}

// copyFresh records rows, each under a key that nobody has used, in a transaction of its
// own. A key that is there fails all of them: whoever calls falls back on insertEach.
func copyFresh(ctx context.Context, db *pgxpool.Pool, rows []*row) error {
	// In order of key, as insertRows.
	slices.SortFunc(rows, func(a, b *row) int { return strings.Compare(a.Key, b.Key) })
	c := newCopy()
	for _, r := range rows {
		if err := r.copyTo(c); err != nil {
			return err
		}
	}
	return db.AcquireFunc(ctx, func(conn *pgxpool.Conn) error {
		return c.send(ctx, conn.Conn(), "journal_entry", copiedColumns)
	})
}

// copiedColumns are the columns of an entry that is linked to no other and not late.
const copiedColumns = `id, key, kind, effective_on, recorded_at, currency, accounts, amounts, dimensions,
	source_type, source_id, actor, channel, description, metadata, body_hash, leaf`

func (r *row) copyTo(c *copyRows) error {
	entryID, err := uuid.Parse(r.ID)
	if err != nil {
		return fmt.Errorf("id of %s: %w", r.Key, err)
	}
	metadata := []byte("{}")
	if len(r.Metadata) > 0 {
		if metadata, err = json.Marshal(r.Metadata); err != nil {
			return fmt.Errorf("metadata of %s: %w", r.Key, err)
		}
	}
	c.row(17)
	c.bytes(entryID[:])
	c.text(r.Key)
	c.text(r.Kind)
	c.date(r.EffectiveOn.Time())
	c.moment(r.RecordedAt)
	c.text(r.Currency)
	c.int8s(r.accounts)
	c.int8s(r.amounts)
	c.int8s(r.dimensions)
	c.text(r.SourceType)
	c.text(r.SourceID)
	c.text(r.Actor)
	c.text(r.Channel)
	c.text(r.Description)
	c.jsonb(metadata)
	c.bytes(r.body)
	c.bytes(r.leaf)
	return nil
}

// journalColumns are entries turned by ninety degrees, for unnest. An array of arrays cannot
// be ragged, so lines and metadata travel as text.
type journalColumns struct {
	id, key, kind, currency, accounts, amounts, dimensions      []string
	sourceType, sourceID, actor, channel, description, metadata []string
	effective, recorded                                         []time.Time
	asked                                                       []*time.Time
	body, leaf                                                  [][]byte
}

func (c *journalColumns) add(r *row) error {
	metadata, err := json.Marshal(r.Metadata)
	if err != nil {
		return fmt.Errorf("metadata of %s: %w", r.Key, err)
	}
	c.id, c.key, c.kind, c.currency = append(c.id, r.ID), append(c.key, r.Key), append(c.kind, r.Kind), append(c.currency, r.Currency)
	c.accounts, c.amounts, c.dimensions = append(c.accounts, braces(r.accounts)), append(c.amounts, braces(r.amounts)), append(c.dimensions, braces(r.dimensions))
	c.sourceType, c.sourceID = append(c.sourceType, r.SourceType), append(c.sourceID, r.SourceID)
	c.actor, c.channel, c.description = append(c.actor, r.Actor), append(c.channel, r.Channel), append(c.description, r.Description)
	c.metadata = append(c.metadata, string(metadata))
	c.effective, c.recorded, c.asked = append(c.effective, r.EffectiveOn.Time()), append(c.recorded, r.RecordedAt), append(c.asked, someDate(r.AskedOn))
	c.body, c.leaf = append(c.body, r.body), append(c.leaf, r.leaf)
	return nil
}

func (c *journalColumns) values() []any {
	return []any{
		c.id, c.key, c.kind, c.effective, c.recorded, c.currency, c.accounts, c.amounts, c.dimensions,
		c.sourceType, c.sourceID, c.actor, c.channel, c.description, c.metadata, c.asked, c.body, c.leaf,
	}
}

// braces is a one-dimensional array as PostgreSQL writes it.
func braces(v []int64) string {
	out := []byte{'{'}
	for i, n := range v {
		if i > 0 {
			out = append(out, ',')
		}
		out = strconv.AppendInt(out, n, 10)
	}
	return string(append(out, '}'))
}

const insertEntries = `
insert into ledger.journal_entry (id, key, kind, effective_on, recorded_at, currency, accounts, amounts, dimensions,
	source_type, source_id, actor, channel, description, metadata, asked_on, body_hash, leaf)
select id, key, kind, effective_on, recorded_at, currency, accounts::bigint[], amounts::bigint[], dimensions::bigint[],
	source_type, source_id, actor, channel, description, metadata::jsonb, asked_on, body_hash, leaf
from unnest($1::uuid[], $2::text[], $3::text[], $4::date[], $5::timestamptz[], $6::text[], $7::text[], $8::text[], $9::text[],
	$10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::date[], $17::bytea[], $18::bytea[])
	as e(id, key, kind, effective_on, recorded_at, currency, accounts, amounts, dimensions,
		source_type, source_id, actor, channel, description, metadata, asked_on, body_hash, leaf)
on conflict (key) do nothing
returning id::text`

// transient reports whether the same transaction may succeed when it is run again:
// a deadlock, or a serialization failure.
func transient(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == "40P01" || pg.Code == "40001")
}
