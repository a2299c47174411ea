package table

import (
	"encoding/csv"
	"io"
	"strconv"
	"strings"
	"time"

	"guichet/internal/clock"
	"guichet/internal/money"
)

// csv writes RFC 4180 with the mark by which spreadsheets know UTF-8.
func (t Table) csv(w io.Writer) error {
	if _, err := io.WriteString(w, "\ufeff"); err != nil {
		return err
	}
	out := csv.NewWriter(w)
	record := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		record[i] = safe(c.title())
	}
	if err := out.Write(record); err != nil {
		return err
	}
	err := t.each(func(row []any) error {
		for i, v := range row {
			record[i] = cell(v)
		}
		return out.Write(record)
	})
	if err != nil {
		return err
	}
	out.Flush()
	return out.Error()
}

// cell writes a value. Amounts and dates are the service's own: a minus before an
// amount stays, so that a spreadsheet can add.
func cell(v any) string {
	switch v := v.(type) {
	case string:
		return safe(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case money.Amount:
		return v.String()
	case clock.Date:
		return v.String()
	case time.Time:
		return v.Format(time.RFC3339)
	}
	return ""
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
