// Package table writes one table as CSV, JSON or XLSX from one description of its
// columns. It knows no business: what is in a table, and in whose language its
// headings are, is the caller's.
//
//	columns, question, rows ──Write──▶ CSV   for spreadsheets, headings in the reader's language
//	                                   JSON  for programs, stable names, whole cents
//	                                   XLSX  numbers and dates as such, the question on a sheet of its own
//
// Rows are read one by one and never kept. What Write returns an error for is not
// whole: the caller must not let it pass for a file.
package table

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"guichet/internal/clock"
	"guichet/internal/money"
)

// A Format is how a table is written. Its text is also the ending of a file's name.
type Format string

const (
	CSV  Format = "csv"
	JSON Format = "json"
	XLSX Format = "xlsx"
)

// Formats lists them all.
func Formats() []Format { return []Format{CSV, XLSX, JSON} }

// MediaType is the Content-Type of a format.
func (f Format) MediaType() string {
	switch f {
	case CSV:
		return "text/csv; charset=utf-8"
	case XLSX:
		return "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
	}
	return "application/json"
}

// A Column has a stable key, which names it to programs, and a title for people;
// without one the key stands for it.
type Column struct {
	Key, Title string
	kind       kind
}

type kind int

const (
	text kind = iota
	count
	amount
	day
	moment
)

// Text makes a column of string.
func Text(key string) Column { return Column{Key: key} }

// Count makes a column of int or int64.
func Count(key string) Column { return Column{Key: key, kind: count} }

// Amount makes a column of money.Amount. JSON has whole cents there, under the key
// with _cents: a table with amounts has a text column "currency".
func Amount(key string) Column { return Column{Key: key, kind: amount} }

// Day makes a column of clock.Date; the zero date is an empty cell.
func Day(key string) Column { return Column{Key: key, kind: day} }

// Moment makes a column of time.Time, written in the city's time; the zero time is
// an empty cell.
func Moment(key string) Column { return Column{Key: key, kind: moment} }

func (c Column) title() string {
	if c.Title == "" {
		return c.Key
	}
	return c.Title
}

// field is the column's name in JSON.
func (c Column) field() string {
	if c.kind == amount {
		return c.Key + "_cents"
	}
	return c.Key
}

// A Fact is one part of the question that the table answers, such as the date.
type Fact struct{ Key, Title, Value string }

func (f Fact) title() string {
	if f.Title == "" {
		return f.Key
	}
	return f.Title
}

// Rows are read once, in order. A row has a value of its column's type for each
// column; nil is an empty cell. An error ends the table.
type Rows = iter.Seq2[[]any, error]

// A Table is what to write.
type Table struct {
	Name    string // stable: what kind of table it is
	File    string // name of a file with it, without its ending; empty: Name
	Title   string // for people
	Columns []Column
	Asked   []Fact    // the question, as far as it was narrowed
	At      time.Time // when it was answered
	Rows    Rows
}

// Of makes rows of a list.
func Of[T any](list []T, row func(T) []any) Rows {
	return func(yield func([]any, error) bool) {
		for _, item := range list {
			if !yield(row(item), nil) {
				return
			}
		}
	}
}

// ErrTooMany: a sheet of XLSX holds 1,048,575 rows beneath its headings.
var ErrTooMany = errors.New("too many rows for one sheet")

// Write writes the table. After an error what was written is not whole. CSV and JSON
// leave as they are read; XLSX begins to leave when its last row was read.
func (t Table) Write(w io.Writer, f Format) error {
	if err := t.check(); err != nil {
		return err
	}
	var err error
	switch f {
	case CSV:
		err = t.csv(w)
	case JSON:
		err = t.json(w)
	case XLSX:
		err = t.xlsx(w)
	default:
		err = fmt.Errorf("no format %q", f)
	}
	if err != nil {
		return fmt.Errorf("write table %s: %w", t.Name, err)
	}
	return nil
}

func (t Table) check() error {
	seen := map[string]bool{}
	amounts := false
	for _, c := range t.Columns {
		if c.Key == "" || seen[c.Key] {
			return fmt.Errorf("table %s: column %q without a key of its own", t.Name, c.Key)
		}
		seen[c.Key] = true
		amounts = amounts || c.kind == amount
	}
	if len(t.Columns) == 0 || amounts && !seen["currency"] {
		return fmt.Errorf("table %s: no columns, or amounts without their currency", t.Name)
	}
	return nil
}

// each reads the rows, checks that they fit the columns, and makes empty what is
// nothing.
func (t Table) each(write func(row []any) error) error {
	for row, err := range t.Rows {
		if err != nil {
			return err
		}
		if len(row) != len(t.Columns) {
			return fmt.Errorf("%d cells for %d columns", len(row), len(t.Columns))
		}
		for i, v := range row {
			if row[i], err = t.Columns[i].value(v); err != nil {
				return err
			}
		}
		if err := write(row); err != nil {
			return err
		}
	}
	return nil
}

// value is nil, string, int64, money.Amount, clock.Date or time.Time in the city's zone.
func (c Column) value(v any) (any, error) {
	fits := false
	switch x := v.(type) {
	case nil:
		return nil, nil
	case string:
		fits = c.kind == text
	case int:
		v, fits = int64(x), c.kind == count
	case int64:
		fits = c.kind == count
	case money.Amount:
		fits = c.kind == amount
	case clock.Date:
		if fits = c.kind == day; x == (clock.Date{}) {
			v = nil
		}
	case time.Time:
		fits = c.kind == moment
		if v = x.In(clock.Toronto); x.IsZero() {
			v = nil
		}
	}
	if !fits {
		return nil, fmt.Errorf("column %s: a %T does not fit", c.Key, v)
	}
	return v, nil
}
