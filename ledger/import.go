package ledger

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/clock"
	"guichet/internal/money"
)

// A Migration is a file of entries from another system.
type Migration struct {
	Name string // what it is called for good: "munis-2019"
	Kind string // "opening" or "history"
	// What the other system says the file holds. The file must hold exactly that.
	Entries int64
	Debits  money.Amount
	Actor   string
}

// An Import is what came into the books by one file, and what proves it whole.
type Import struct {
	Migration
	FileHash   []byte // SHA-256
	Lines      int64
	First      clock.Date
	Last       clock.Date
	ImportedAt time.Time
}

// migrated is the source of every entry that came by file; its id is the name of the import.
const migrated = "import"

var importColumns = []string{
	"entry", "effective_on", "account", "debit", "credit", "description",
	"department", "fund", "cost_centre", "order", "wbs", "channel", "tender",
}

// Import records the entries of a CSV file under their original dates, marked as
// migrated: source type "import", source id the name. A row is a line: entry (its
// number in the other system; rows of one entry follow each other), effective_on, account, debit
// or credit, and where wanted description and dimensions. All or nothing: the counts and totals must be those given, and
// are read back from the journal afterwards. The same file under the same name again returns
// the first result; another file is ErrConflict.
func (b *Books) Import(ctx context.Context, tx pgx.Tx, m Migration, file io.Reader) (Import, error) {
	im, err := b.importFile(ctx, tx, m, file)
	if err != nil {
		return Import{}, fmt.Errorf("import %s: %w", m.Name, err)
	}
	return im, nil
}

func (b *Books) importFile(ctx context.Context, tx pgx.Tx, m Migration, file io.Reader) (Import, error) {
	if m.Kind != "opening" && m.Kind != "history" {
		return Import{}, fmt.Errorf("kind %q, want opening or history: %w", m.Kind, ErrInvalid)
	}
	if m.Name == "" || len(m.Name) > 100 {
		return Import{}, fmt.Errorf("name %.40q, want 1 to 100 bytes: %w", m.Name, ErrInvalid)
	}
	hash := sha256.New()
	entries, err := readEntries(io.TeeReader(file, hash), m)
	if err != nil {
		return Import{}, err
	}
	im := Import{Migration: m, FileHash: hash.Sum(nil)}
	switch have, err := b.ImportOf(ctx, tx, m.Name); {
	case err == nil && bytes.Equal(have.FileHash, im.FileHash):
		return have, nil
	case err == nil:
		return Import{}, fmt.Errorf("another file came under the name, with hash %x: %w", have.FileHash, ErrConflict)
	case !errors.Is(err, ErrNotFound):
		return Import{}, err
	}
	if err := im.count(entries); err != nil {
		return Import{}, err
	}
	for from := 0; from < len(entries); from += maxBatch {
		if _, err := b.AppendAll(ctx, tx, entries[from:min(from+maxBatch, len(entries))]); err != nil {
			return Import{}, fmt.Errorf("after %d entries: %w", from, err)
		}
	}
	return b.prove(ctx, tx, im)
}

// count compares the file with what the other system says it holds.
func (im *Import) count(entries []Entry) error {
	var debits money.Amount
	for _, e := range entries {
		for _, l := range e.Lines {
			im.Lines++
			if l.Amount > 0 {
				var err error
				if debits, err = money.Add(debits, l.Amount); err != nil {
					return fmt.Errorf("debits: %w: %w", err, ErrInvalid)
				}
			}
		}
		if im.First == (clock.Date{}) || e.EffectiveOn.Before(im.First) {
			im.First = e.EffectiveOn
		}
		if e.EffectiveOn.After(im.Last) {
			im.Last = e.EffectiveOn
		}
	}
	if int64(len(entries)) != im.Entries || debits != im.Debits {
		return fmt.Errorf("the file holds %d entries with debits of %s, announced are %d with %s: %w", len(entries), debits, im.Entries, im.Debits, ErrInvalid)
	}
	return nil
}

// prove reads back from the journal what has been imported, and keeps the result.
func (b *Books) prove(ctx context.Context, tx pgx.Tx, im Import) (Import, error) {
	var entries, lines, debits int64
	err := tx.QueryRow(ctx, `
		select count(*), coalesce(sum(cardinality(e.amounts)), 0)::bigint,
			coalesce(sum((select sum(a) from unnest(e.amounts) a where a > 0)), 0)::bigint
		from ledger.journal_entry e where e.source_type = $1 and e.source_id = $2`, migrated, im.Name).Scan(&entries, &lines, &debits)
	if err != nil {
		return Import{}, fmt.Errorf("read back: %w", err)
	}
	if entries != im.Entries || lines != im.Lines || money.Amount(debits) != im.Debits {
		return Import{}, fmt.Errorf("the journal holds %d entries of it with %d lines and debits of %s, the file %d with %d and %s: %w",
			entries, lines, money.Amount(debits), im.Entries, im.Lines, im.Debits, ErrConflict)
	}
	im.ImportedAt = b.moment()
	_, err = tx.Exec(ctx, `
		insert into ledger.import (name, kind, file_hash, entries, lines, debits, first_on, last_on, actor, imported_at)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
		im.Name, im.Kind, im.FileHash, im.Entries, im.Lines, im.Debits, im.First.Time(), im.Last.Time(), im.Actor, im.ImportedAt)
	if err != nil {
		return Import{}, fmt.Errorf("keep the result: %w", err)
	}
	return im, nil
}

// ImportOf returns an import by name, or ErrNotFound.
func (b *Books) ImportOf(ctx context.Context, q Querier, name string) (Import, error) {
	im := Import{Migration: Migration{Name: name}}
	var first, last time.Time
	err := q.QueryRow(ctx, `
		select kind, file_hash, entries, lines, debits, first_on, last_on, actor, imported_at from ledger.import where name = $1`, name).
		Scan(&im.Kind, &im.FileHash, &im.Entries, &im.Lines, &im.Debits, &first, &last, &im.Actor, &im.ImportedAt)
	if errors.Is(err, pgx.ErrNoRows) {
		return Import{}, fmt.Errorf("import %q: %w", name, ErrNotFound)
	}
	if err != nil {
		return Import{}, fmt.Errorf("read import %s: %w", name, err)
	}
	im.First, im.Last, im.ImportedAt = clock.FromTime(first), clock.FromTime(last), im.ImportedAt.UTC()
	return im, nil
}

// readEntries reads the rows of a migration and groups them into entries.
func readEntries(in io.Reader, m Migration) ([]Entry, error) {
	t, err := readTable(in, importColumns, []string{"entry", "effective_on", "account", "debit", "credit"})
	if err != nil {
		return nil, err
	}
	var entries []Entry
	seen := map[string]bool{}
	for {
		row, err := t.next()
		if errors.Is(err, io.EOF) {
			return entries, nil
		}
		if err != nil {
			return nil, err
		}
		number := row["entry"]
		if n := len(entries); n == 0 || entries[n-1].Metadata["entry"] != number {
			if number == "" || seen[number] {
				return nil, fmt.Errorf("line %d: entry %q has no number, or came before: %w", t.line, number, ErrInvalid)
			}
			seen[number] = true
			on, err := clock.ParseDate(row["effective_on"])
			if err != nil {
				return nil, fmt.Errorf("line %d: %w: %w", t.line, err, ErrInvalid)
			}
			key := sha256.Sum256([]byte(number))
			entries = append(entries, Entry{
				Key: "import/" + m.Name + "/" + hex.EncodeToString(key[:16]), Kind: m.Kind, EffectiveOn: on, Description: row["description"],
				SourceType: migrated, SourceID: m.Name, Actor: m.Actor, Channel: "batch", Metadata: map[string]string{"entry": number},
			})
		}
		e := &entries[len(entries)-1]
		if row["effective_on"] != e.EffectiveOn.String() {
			return nil, fmt.Errorf("line %d: entry %s has two dates: %w", t.line, number, ErrInvalid)
		}
		amount, err := oneSide(row["debit"], row["credit"])
		if err != nil {
			return nil, fmt.Errorf("line %d: %w: %w", t.line, err, ErrInvalid)
		}
		e.Lines = append(e.Lines, Line{row["account"], amount, Dimensions{
			row["department"], row["fund"], row["cost_centre"], row["order"], row["wbs"], row["channel"], row["tender"],
		}})
	}
}

// oneSide reads a debit or a credit.
func oneSide(debit, credit string) (money.Amount, error) {
	if (debit == "") == (credit == "") {
		return 0, fmt.Errorf("debit %q and credit %q, want one of them", debit, credit)
	}
	if debit != "" {
		return money.Parse(debit)
	}
	amount, err := money.Parse(credit)
	return -amount, err
}
