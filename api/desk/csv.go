package desk

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"guichet/api/web"
	"guichet/internal/clock"
	"guichet/internal/money"
	"guichet/reconcile"
)

// maxCSV bounds the rows of a file. A list that is longer is refused, never cut: a
// figure that is missing half its rows is worse than none.
const maxCSV = 100_000

// wholeList asks for all that a file may hold, and one row more to know.
var wholeList = reconcile.Page{Limit: maxCSV + 1}

var errTooMany = errors.New("too many rows for a file")

// A table is what a CSV file holds: keys of its headings, and rows of string, int,
// int64, money.Amount, clock.Date or time.Time.
type table struct {
	name     string // of the file, without ending
	headings []string
	rows     [][]any
}

// tableOf makes a table of a list read with a limit of maxCSV + 1.
func tableOf[T any](name string, headings []string, list []T, row func(T) []any) (table, error) {
	if len(list) > maxCSV {
		return table{}, errTooMany
	}
	t := table{name: name, headings: headings}
	for _, item := range list {
		t.rows = append(t.rows, row(item))
	}
	return t, nil
}

// csv answers with a table as a file: whole or not at all.
func (h *Handler) csv(w http.ResponseWriter, r *http.Request, t table) {
	var b bytes.Buffer
	b.WriteString("\ufeff") // spreadsheets take the file for UTF-8 by this mark
	out := csv.NewWriter(&b)
	heading := make([]string, len(t.headings))
	for i, key := range t.headings {
		heading[i] = safe(h.Site.T(web.Lang(r), "desk.col."+key))
	}
	records := [][]string{heading}
	for _, row := range t.rows {
		record := make([]string, len(row))
		for i, v := range row {
			text, err := cell(v)
			if err != nil {
				h.fail(w, r, "write "+t.name, err)
				return
			}
			record[i] = text
		}
		records = append(records, record)
	}
	if err := out.WriteAll(records); err != nil {
		h.fail(w, r, "write "+t.name, err)
		return
	}
	download(w, "text/csv; charset=utf-8", t.name+".csv", b.Bytes())
}

// download answers with a file to be kept.
func download(w http.ResponseWriter, mediaType, name string, data []byte) {
	header := w.Header()
	header.Set("Content-Type", mediaType)
	header.Set("Content-Disposition", fmt.Sprintf(`attachment; filename="%s"`, plain(name)))
	header.Set("Cache-Control", "private, no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(data) // a reader who has gone away is nobody's error
}

// plain leaves of a name what every file system and every header takes: parts of it
// may be the processor's or the bank's.
func plain(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '.' || r == '-' {
			return r
		}
		return '-'
	}, name)
}

// cell writes a value. Amounts and dates are the service's own: a minus before an
// amount stays, so that a spreadsheet can add.
func cell(v any) (string, error) {
	switch v := v.(type) {
	case money.Amount:
		return v.String(), nil
	case int, int64:
		return fmt.Sprint(v), nil
	case clock.Date:
		if v == (clock.Date{}) {
			return "", nil
		}
		return v.String(), nil
	case time.Time:
		if v.IsZero() {
			return "", nil
		}
		return v.In(clock.Toronto).Format(time.RFC3339), nil
	case string:
		return safe(v), nil
	}
	return "", fmt.Errorf("cell of %T", v)
}

// safe keeps a spreadsheet from taking text for a formula: whoever may write a
// bank reference must not run anything in finance's spreadsheet (OWASP, CSV injection).
func safe(text string) string {
	if strings.HasPrefix(text, "\t") || strings.HasPrefix(text, "\r") || strings.HasPrefix(text, "\n") {
		return "'" + text
	}
	if start := strings.TrimLeft(text, " \u00a0\u3000"); start != "" && strings.ContainsRune("=+-@＝＋－＠", []rune(start)[0]) {
		return "'" + text
	}
	return text
}

// table returns what answers with a table that was made, or with why it was not.
func (h *Handler) table(w http.ResponseWriter, r *http.Request) func(table, error) {
	return func(t table, err error) {
		if err != nil {
			h.fail(w, r, "make table", err)
			return
		}
		h.csv(w, r, t)
	}
}
