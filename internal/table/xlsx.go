package table

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/xuri/excelize/v2"

	"guichet/internal/clock"
	"guichet/internal/money"
)

// A double holds this many cents to the cent, with the two digits a sheet shows.
const maxCents = 1_000_000_000_000_000

// maxCell is how many characters a cell of XLSX holds.
const maxCell = excelize.TotalCellChars

// xlsx writes two sheets: the table under a frozen row of headings, and the
// question. Rows wait in a temporary file until the last one was read. Text is
// text in there: a cell has a type, and none has the type of a formula.
func (t Table) xlsx(w io.Writer) (err error) {
	f := excelize.NewFile()
	defer func() { err = errors.Join(err, f.Close()) }()
	styles, err := newStyles(f)
	if err != nil {
		return err
	}
	sheet := sheetName(t.heading(), t.Name)
	if err := f.SetSheetName("Sheet1", sheet); err != nil {
		return err
	}
	if err := t.sheet(f, sheet, styles); err != nil {
		return err
	}
	if err := t.question(f, styles); err != nil {
		return err
	}
	if err := t.properties(f); err != nil {
		return err
	}
	_, err = f.WriteTo(w)
	return err
}

func (t Table) heading() string {
	if t.Title == "" {
		return t.Name
	}
	return t.Title
}

// sheetName leaves of a title what the format takes: 31 characters, some of them not.
func sheetName(title, name string) string {
	clean := strings.Trim(strings.Map(func(r rune) rune {
		if strings.ContainsRune(`[]:*?/\`, r) {
			return '-'
		}
		return r
	}, title), " '")
	if clean == "" {
		clean = name
	}
	if r := []rune(clean); len(r) > excelize.MaxSheetNameLength {
		clean = strings.TrimRight(string(r[:excelize.MaxSheetNameLength]), " '")
	}
	return clean
}

// styles of cells: head and one for each kind.
type styles struct {
	head, headRight int
	of              map[kind]int
}

func newStyles(f *excelize.File) (s styles, err error) {
	formats := map[kind]string{text: "@", count: "0", amount: `#,##0.00;[Red]-#,##0.00`, day: "yyyy-mm-dd", moment: "yyyy-mm-dd hh:mm:ss"}
	s.of = map[kind]int{}
	for k, format := range formats {
		if s.of[k], err = f.NewStyle(&excelize.Style{CustomNumFmt: &format}); err != nil {
			return s, err
		}
	}
	head := excelize.Style{Font: &excelize.Font{Bold: true}, Border: []excelize.Border{{Type: "bottom", Color: "000000", Style: 1}}}
	if s.head, err = f.NewStyle(&head); err != nil {
		return s, err
	}
	head.Alignment = &excelize.Alignment{Horizontal: "right"}
	s.headRight, err = f.NewStyle(&head)
	return s, err
}

// widths of columns by kind, in characters.
var widths = map[kind]float64{text: 28, count: 12, amount: 18, day: 12, moment: 20}

func (t Table) sheet(f *excelize.File, name string, s styles) error {
	out, err := f.NewStreamWriter(name)
	if err != nil {
		return err
	}
	head := make([]any, len(t.Columns))
	for i, c := range t.Columns {
		if err := out.SetColWidth(i+1, i+1, max(widths[c.kind], float64(utf8.RuneCountInString(c.title())+2))); err != nil {
			return err
		}
		style := s.head
		if c.kind == amount || c.kind == count {
			style = s.headRight
		}
		head[i] = excelize.Cell{StyleID: style, Value: c.title()}
	}
	if err := out.SetPanes(&excelize.Panes{Freeze: true, YSplit: 1, TopLeftCell: "A2", ActivePane: "bottomLeft"}); err != nil {
		return err
	}
	if err := out.SetRow("A1", head); err != nil {
		return err
	}
	number, cells := 1, make([]any, len(t.Columns))
	err = t.each(func(row []any) error {
		if number++; number > excelize.TotalRows {
			return ErrTooMany
		}
		for i, v := range row {
			x, err := sheetValue(v)
			if err != nil {
				return err
			}
			cells[i] = excelize.Cell{StyleID: s.of[t.Columns[i].kind], Value: x}
		}
		at, err := excelize.CoordinatesToCellName(1, number)
		if err != nil {
			return err
		}
		return out.SetRow(at, cells)
	})
	if err != nil {
		return err
	}
	return out.Flush()
}

func sheetValue(v any) (any, error) {
	switch v := v.(type) {
	case string:
		if utf8.RuneCountInString(v) > maxCell {
			return nil, fmt.Errorf("a text of %d characters is too long for a cell", utf8.RuneCountInString(v))
		}
		return v, nil
	case money.Amount:
		if v >= maxCents || v <= -maxCents {
			return nil, fmt.Errorf("%s does not fit a sheet to the cent", v)
		}
		return float64(v) / 100, nil
	case clock.Date:
		return v.Time(), nil
	case time.Time:
		// A sheet knows no zones: it shows the clock on the wall in the city.
		return time.Date(v.Year(), v.Month(), v.Day(), v.Hour(), v.Minute(), v.Second(), 0, time.UTC), nil
	}
	return v, nil
}

// question is a sheet for whoever opens the file next year.
func (t Table) question(f *excelize.File, s styles) error {
	const sheet = "Question" // the same word in English and French
	if _, err := f.NewSheet(sheet); err != nil {
		return err
	}
	if err := f.SetColWidth(sheet, "A", "B", 32); err != nil {
		return err
	}
	rows := append([]Fact{{Title: t.heading(), Value: t.At.In(clock.Toronto).Format(time.RFC3339)}}, t.Asked...)
	for i, fact := range rows {
		for column, value := range []string{fact.title(), fact.Value} {
			at, err := excelize.CoordinatesToCellName(column+1, i+1)
			if err != nil {
				return err
			}
			if err := f.SetCellStr(sheet, at, value); err != nil {
				return err
			}
		}
	}
	return f.SetCellStyle(sheet, "A1", "B1", s.head)
}

// properties repeat it where a document's properties are looked for.
func (t Table) properties(f *excelize.File) error {
	asked := make([]string, len(t.Asked))
	for i, fact := range t.Asked {
		asked[i] = fact.title() + ": " + fact.Value
	}
	at := t.At.UTC().Format(time.RFC3339)
	return f.SetDocProps(&excelize.DocProperties{
		Title: t.heading(), Subject: t.Name, Description: strings.Join(asked, "\n"), Creator: "Guichet", LastModifiedBy: "Guichet", Created: at, Modified: at,
	})
}
