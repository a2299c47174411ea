package table_test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/xuri/excelize/v2"

	"guichet/internal/clock"
	"guichet/internal/money"
	"guichet/internal/table"
)

var at = time.Date(2026, 11, 2, 15, 4, 5, 0, time.UTC)

// lines is a table with a column of each kind.
func lines(rows table.Rows) table.Table {
	columns := []table.Column{
		table.Text("what"), table.Count("number"), table.Amount("amount"), table.Text("currency"), table.Day("booked"), table.Moment("recorded"),
	}
	columns[0].Title = "Écriture"
	return table.Table{
		Name: "lines", File: "lines-of-today", Title: "Lines: all [of] them, and a title that is long", Columns: columns, At: at,
		Asked: []table.Fact{{Key: "from", Title: "Du", Value: "2026-10-01"}}, Rows: rows,
	}
}

func sample() table.Rows {
	day := clock.Date{Year: 2026, Month: time.October, Day: 31}
	return table.Of([][]any{
		{"plain", 1, money.Amount(123_456), "CAD", day, at},
		{"=HYPERLINK(\"x\")", int64(2), money.Amount(-5), "CAD", clock.Date{}, time.Time{}},
		{nil, nil, nil, nil, nil, nil},
	}, func(r []any) []any { return r })
}

func write(t *testing.T, tb table.Table, f table.Format) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := tb.Write(&b, f); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestCSV(t *testing.T) {
	t.Parallel()
	text, marked := strings.CutPrefix(string(write(t, lines(sample()), table.CSV)), "\ufeff")
	got, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	want := `[[Écriture number amount currency booked recorded] [plain 1 1234.56 CAD 2026-10-31 2026-11-02T10:04:05-05:00] ['=HYPERLINK("x") 2 -0.05 CAD  ] [     ]]`
	if err != nil || !marked || fmt.Sprint(got) != want {
		t.Errorf("%v, marked %v:\n%v\nwant\n%s", err, marked, got, want)
	}
}

func TestJSON(t *testing.T) {
	t.Parallel()
	text := write(t, lines(sample()), table.JSON)
	const want = `{"table":"lines","at":"2026-11-02T10:04:05-05:00","asked":{"from":"2026-10-01"},"rows":[
{"what":"plain","number":1,"amount_cents":123456,"currency":"CAD","booked":"2026-10-31","recorded":"2026-11-02T10:04:05-05:00"},
{"what":"=HYPERLINK(\"x\")","number":2,"amount_cents":-5,"currency":"CAD","booked":null,"recorded":null},
{"what":null,"number":null,"amount_cents":null,"currency":null,"booked":null,"recorded":null}
],"count":3}
`
	if string(text) != want || !json.Valid(text) {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
	if empty := write(t, lines(table.Of(nil, func(int) []any { return nil })), table.JSON); !json.Valid(empty) || !bytes.Contains(empty, []byte(`"count":0`)) {
		t.Errorf("an empty table is\n%s", empty)
	}
}

func TestXLSX(t *testing.T) {
	t.Parallel()
	f, err := excelize.OpenReader(bytes.NewReader(write(t, lines(sample()), table.XLSX)))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sheets := f.GetSheetList()
	if len(sheets) != 2 || sheets[0] != "Lines- all -of- them, and a tit" || sheets[1] != "Question" {
		t.Fatalf("sheets %q", sheets)
	}
	cell := func(sheet, at string) (shown, raw string, kind excelize.CellType) {
		t.Helper()
		shown, err := f.GetCellValue(sheet, at)
		if err == nil {
			raw, err = f.GetCellValue(sheet, at, excelize.Options{RawCellValue: true})
		}
		if err == nil {
			kind, err = f.GetCellType(sheet, at)
		}
		if err != nil {
			t.Fatal(err)
		}
		return shown, raw, kind
	}
	for at, want := range map[string][2]string{
		"A1": {"Écriture", "Écriture"}, "C1": {"amount", "amount"}, "A2": {"plain", "plain"}, "B2": {"1", "1"}, "C2": {"1,234.56", "1234.56"},
		"C3": {"-0.05", "-0.05"}, "E2": {"2026-10-31", "46326"}, "F2": {"2026-11-02 10:04:05", ""}, "E3": {"", ""}, "C4": {"", ""}, "A3": {`=HYPERLINK("x")`, `=HYPERLINK("x")`},
	} {
		if shown, raw, _ := cell(sheets[0], at); shown != want[0] || want[1] != "" && raw != want[1] {
			t.Errorf("%s shows %q and is %q, want %q", at, shown, raw, want)
		}
	}
	t.Run("text is never a formula", func(t *testing.T) {
		if formula, err := f.GetCellFormula(sheets[0], "A3"); err != nil || formula != "" {
			t.Errorf("formula %q, %v", formula, err)
		}
		if _, _, kind := cell(sheets[0], "A3"); kind != excelize.CellTypeInlineString && kind != excelize.CellTypeSharedString {
			t.Errorf("the cell is of type %d", kind)
		}
	})
	t.Run("headings stay", func(t *testing.T) {
		panes, err := f.GetPanes(sheets[0])
		if err != nil || !panes.Freeze || panes.YSplit != 1 {
			t.Errorf("panes %+v, %v", panes, err)
		}
	})
	t.Run("the question is in it", func(t *testing.T) {
		if shown, _, _ := cell("Question", "B2"); shown != "2026-10-01" {
			t.Errorf("the second sheet says %q", shown)
		}
		if shown, _, _ := cell("Question", "B1"); shown != "2026-11-02T10:04:05-05:00" {
			t.Errorf("the second sheet says %q", shown)
		}
		p, err := f.GetDocProps()
		if err != nil || p.Description != "Du: 2026-10-01" || p.Created != "2026-11-02T15:04:05Z" || p.Subject != "lines" {
			t.Errorf("properties %+v, %v", p, err)
		}
	})
}

func TestWhatIsNotWholeIsAnError(t *testing.T) {
	t.Parallel()
	broken := errors.New("the database went away")
	failing := func(yield func([]any, error) bool) {
		if yield([]any{"plain", 1, money.Amount(1), "CAD", nil, nil}, nil) {
			yield(nil, broken)
		}
	}
	for _, f := range table.Formats() {
		var b bytes.Buffer
		if err := lines(failing).Write(&b, f); !errors.Is(err, broken) {
			t.Errorf("%s: got %v", f, err)
		}
		if f == table.XLSX && b.Len() > 0 {
			t.Errorf("%d bytes of a sheet left before its last row was read", b.Len())
		}
		if f == table.JSON && json.Valid(b.Bytes()) {
			t.Errorf("half a table reads as JSON:\n%s", b.Bytes())
		}
		for name, row := range map[string][]any{
			"too few cells": {"plain"}, "a float": {"plain", 1, 1.5, "CAD", nil, nil}, "text for a number": {"plain", "1", nil, "CAD", nil, nil},
		} {
			if err := lines(table.Of([][]any{row}, func(r []any) []any { return r })).Write(io.Discard, f); err == nil {
				t.Errorf("%s: %s is written", f, name)
			}
		}
	}
	big := lines(table.Of([]money.Amount{math.MaxInt64}, func(a money.Amount) []any { return []any{"big", 1, a, "CAD", nil, nil} }))
	if err := big.Write(io.Discard, table.XLSX); err == nil {
		t.Error("an amount that a sheet cannot hold to the cent is written")
	}
	long := lines(table.Of([]int{1}, func(int) []any { return []any{strings.Repeat("x", 40_000), 1, nil, nil, nil, nil} }))
	if err := long.Write(io.Discard, table.XLSX); err == nil {
		t.Error("a text that a cell cannot hold is cut")
	}
	for name, tb := range map[string]table.Table{
		"no columns":               {Name: "x"},
		"two columns of one name":  {Name: "x", Columns: []table.Column{table.Text("a"), table.Text("a")}},
		"an amount of no currency": {Name: "x", Columns: []table.Column{table.Amount("a")}},
	} {
		if err := tb.Write(io.Discard, table.CSV); err == nil {
			t.Errorf("%s is written", name)
		}
	}
	if err := lines(sample()).Write(io.Discard, "pdf"); err == nil {
		t.Error("a format that is none is written")
	}
}

// A sheet has an end. What does not fit is refused, not cut.
func TestASheetThatIsFull(t *testing.T) {
	t.Parallel()
	rows := func(n int) table.Table {
		return table.Table{Name: "n", Columns: []table.Column{table.Count("n")}, Rows: func(yield func([]any, error) bool) {
			for i := range n {
				if !yield([]any{i}, nil) {
					return
				}
			}
		}}
	}
	if err := rows(1_048_576).Write(io.Discard, table.XLSX); !errors.Is(err, table.ErrTooMany) {
		t.Errorf("one row too many: %v", err)
	}
	if err := rows(1_048_575).Write(io.Discard, table.XLSX); err != nil {
		t.Errorf("as many as fit: %v", err)
	}
}
