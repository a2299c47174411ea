package desk

import (
	"testing"
	"time"

	"guichet/internal/clock"
	"guichet/internal/money"
)

func TestCells(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		value any
		want  string
	}{
		{"plain", "plain"},
		{"", ""},
		{"a=b", "a=b"},
		{"po_1", "po_1"},
		{"=1+1", "'=1+1"},
		{"+1", "'+1"},
		{"-1", "'-1"},
		{"@A1", "'@A1"},
		{" =1", "' =1"},
		{"\u00a0=1", "'\u00a0=1"},
		{"\t=1", "'\t=1"},
		{"\r=1", "'\r=1"},
		{"\n1", "'\n1"},
		{"＝1", "'＝1"},
		{"－1", "'－1"},
		{money.Amount(-123_456), "-1234.56"},
		{money.Amount(0), "0.00"},
		{7, "7"},
		{int64(-7), "-7"},
		{clock.Date{Year: 2026, Month: time.December, Day: 9}, "2026-12-09"},
		{clock.Date{}, ""},
		{time.Time{}, ""},
		{time.Date(2026, 12, 9, 20, 5, 0, 0, time.UTC), "2026-12-09T15:05:00-05:00"},
	} {
		if got, err := cell(c.value); err != nil || got != c.want {
			t.Errorf("cell of %q is %q, %v; want %q", c.value, got, err, c.want)
		}
	}
	if _, err := cell(1.5); err == nil {
		t.Error("a float is written")
	}
}

func TestATableIsNeverCut(t *testing.T) {
	t.Parallel()
	row := func(int) []any { return nil }
	if made, err := tableOf("t", nil, make([]int, maxCSV), row); err != nil || len(made.rows) != maxCSV {
		t.Errorf("%d rows, %v", len(made.rows), err)
	}
	if _, err := tableOf("t", nil, make([]int, maxCSV+1), row); err != errTooMany {
		t.Errorf("one row more: %v", err)
	}
}
