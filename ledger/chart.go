package ledger

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"guichet/internal/money"
)

// maxRows bounds a file that is read whole.
const maxRows = 1_000_000

// A table reads a CSV file with a header line. Columns may come in any order; those
// that are not known are a mistake and not a remark.
type table struct {
	r     *csv.Reader
	names []string
	line  int
}

func readTable(in io.Reader, known, needed []string) (*table, error) {
	t := &table{r: csv.NewReader(in), line: 1}
	names, err := t.r.Read()
	if err != nil {
		return nil, fmt.Errorf("header line: %w: %w", err, ErrInvalid)
	}
	names[0] = strings.TrimPrefix(names[0], "\ufeff") // as spreadsheets write it
	for _, name := range names {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("column %q is not one of %s: %w", name, strings.Join(known, ", "), ErrInvalid)
		}
	}
	for _, name := range needed {
		if !slices.Contains(names, name) {
			return nil, fmt.Errorf("column %q is missing: %w", name, ErrInvalid)
		}
	}
	t.names = names
	return t, nil
}

// next returns the next row by column, or io.EOF.
func (t *table) next() (map[string]string, error) {
	record, err := t.r.Read()
	if errors.Is(err, io.EOF) {
		return nil, io.EOF
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrInvalid)
	}
	if t.line++; t.line > maxRows {
		return nil, fmt.Errorf("more than %d lines: %w", maxRows, ErrInvalid)
	}
	row := make(map[string]string, len(record))
	for i, name := range t.names {
		row[name] = strings.TrimSpace(record[i])
	}
	return row, nil
}

// ReadChart reads a chart of accounts from CSV: path, name_en, name_fr and, where
// wanted, department, currency, normal (debit or credit), lowest (the limit; empty: none). It
// checks every account and finds those that come twice.
func ReadChart(in io.Reader) ([]Account, error) {
	t, err := readTable(in, []string{"path", "name_en", "name_fr", "department", "currency", "normal", "lowest"}, []string{"path", "name_en", "name_fr"})
	if err != nil {
		return nil, fmt.Errorf("read chart: %w", err)
	}
	var chart []Account
	seen := map[string]bool{}
	for {
		row, err := t.next()
		if errors.Is(err, io.EOF) {
			return chart, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read chart: %w", err)
		}
		a := Account{Path: row["path"], NameEN: row["name_en"], NameFR: row["name_fr"], Department: row["department"], Currency: row["currency"]}
		switch row["normal"] {
		case "":
		case "debit":
			a.Normal = Debit
		case "credit":
			a.Normal = Credit
		default:
			return nil, fmt.Errorf("read chart, line %d: normal %q, want debit or credit: %w", t.line, row["normal"], ErrInvalid)
		}
		if s := row["lowest"]; s != "" {
			lowest, err := money.Parse(s)
			if err != nil {
				return nil, fmt.Errorf("read chart, line %d: %w: %w", t.line, err, ErrInvalid)
			}
			a.Lowest = &lowest
		}
		if a, err = a.complete(); err != nil {
			return nil, fmt.Errorf("read chart, line %d: %w", t.line, err)
		}
		if seen[a.Path] {
			return nil, fmt.Errorf("read chart, line %d: %s is there twice: %w", t.line, a.Path, ErrInvalid)
		}
		seen[a.Path] = true
		chart = append(chart, a)
	}
}

// A ChartChange is one difference between a chart and the books.
type ChartChange struct {
	Path             string
	Field            string // name_en, name_fr, lowest; or what cannot change: type, normal, currency, department
	Have, Want       string
	Open, Impossible bool // a new account; a change that an account cannot make
}

// String is the change as a line of a diff.
func (c ChartChange) String() string {
	switch {
	case c.Open:
		return "+ " + c.Path
	case c.Impossible:
		return fmt.Sprintf("! %s: %s is %q and cannot become %q", c.Path, c.Field, c.Have, c.Want)
	}
	return fmt.Sprintf("~ %s: %s %q becomes %q", c.Path, c.Field, c.Have, c.Want)
}

// DiffChart says what LoadChart would do. Accounts of the books that are not in the
// chart are left alone: departments open their own.
func (b *Books) DiffChart(ctx context.Context, q Querier, chart []Account) ([]ChartChange, error) {
	have, err := allAccounts(ctx, q)
	if err != nil {
		return nil, err
	}
	by := make(map[string]Account, len(have))
	for _, a := range have {
		by[a.Path] = a
	}
	var changes []ChartChange
	for _, want := range chart {
		a, ok := by[want.Path]
		if !ok {
			changes = append(changes, ChartChange{Path: want.Path, Open: true})
			continue
		}
		for _, f := range []struct {
			name, have, want string
			fixed            bool
		}{
			{"normal", side(a.Normal), side(want.Normal), true},
			{"currency", a.Currency, want.Currency, true},
			{"department", a.Department, want.Department, true},
			{"name_en", a.NameEN, want.NameEN, false},
			{"name_fr", a.NameFR, want.NameFR, false},
			{"lowest", limit(a.Lowest), limit(want.Lowest), false},
		} {
			if f.have != f.want {
				changes = append(changes, ChartChange{Path: a.Path, Field: f.name, Have: f.have, Want: f.want, Impossible: f.fixed})
			}
		}
	}
	return changes, nil
}

func side(s Side) string {
	if s == Debit {
		return "debit"
	}
	return "credit"
}

func limit(a *money.Amount) string {
	if a == nil {
		return "none"
	}
	return a.String()
}

// LoadChart brings the books to a chart and returns what it changed: new accounts
// are opened, names and limits follow. A change that an account cannot make
// is ErrConflict and nothing is done. Call it in a transaction of its own: it waits for every append.
func (b *Books) LoadChart(ctx context.Context, tx pgx.Tx, chart []Account) ([]ChartChange, error) {
	if err := lockAppends(ctx, tx); err != nil {
		return nil, fmt.Errorf("load chart: %w", err)
	}
	changes, err := b.DiffChart(ctx, tx, chart)
	if err != nil {
		return nil, fmt.Errorf("load chart: %w", err)
	}
	want := make(map[string]Account, len(chart))
	for _, a := range chart {
		want[a.Path] = a
	}
	for _, c := range changes {
		if c.Impossible {
			return changes, fmt.Errorf("load chart: %s: %w", c, ErrConflict)
		}
	}
	for _, c := range changes {
		a := want[c.Path]
		switch {
		case c.Open:
			err = b.OpenAccount(ctx, tx, a)
		case c.Field == "lowest":
			err = b.SetLimit(ctx, tx, a.Path, a.Lowest)
		default:
			err = b.Rename(ctx, tx, a.Path, a.NameEN, a.NameFR)
		}
		if err != nil {
			return nil, fmt.Errorf("load chart: %w", err)
		}
	}
	return changes, nil
}
