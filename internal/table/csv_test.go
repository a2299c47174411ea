package table

import (
	"testing"
	"time"

	"guichet/internal/clock"
	"guichet/internal/money"
)

func TestCells(t *testing.T) {
	t.Parallel()
	words, figures, sums, days, moments := Text("t"), Count("c"), Amount("a"), Day("d"), Moment("m")
	for _, c := range []struct {
		column Column
		value  any
		want   string
	}{
		{words, "plain", "plain"},
		{words, "", ""},
		{words, nil, ""},
		{words, "a=b", "a=b"},
		{words, "po_1", "po_1"},
		{words, "=1+1", "'=1+1"},
		{words, "+1", "'+1"},
		{words, "-1", "'-1"},
		{words, "@A1", "'@A1"},
		{words, " =1", "' =1"},
		{words, "\u00a0=1", "'\u00a0=1"},
		{words, "\t=1", "'\t=1"},
		{words, "\r=1", "'\r=1"},
		{words, "\n1", "'\n1"},
		{words, "＝1", "'＝1"},
		{words, "－1", "'－1"},
		{sums, money.Amount(-123_456), "-1234.56"},
		{sums, money.Amount(0), "0.00"},
		{sums, nil, ""},
		{figures, 7, "7"},
		{figures, int64(-7), "-7"},
		{days, clock.Date{Year: 2026, Month: time.December, Day: 9}, "2026-12-09"},
		{days, clock.Date{}, ""},
		{moments, time.Time{}, ""},
		{moments, time.Date(2026, 12, 9, 20, 5, 0, 0, time.UTC), "2026-12-09T15:05:00-05:00"},
	} {
		v, err := c.column.value(c.value)
		if got := cell(v); err != nil || got != c.want {
			t.Errorf("cell of %q is %q, %v; want %q", c.value, got, err, c.want)
		}
	}
	for _, c := range []struct {
		column Column
		value  any
	}{{words, 1}, {figures, "1"}, {sums, 1}, {sums, 1.5}, {sums, "1.50"}, {days, time.Now}, {moments, clock.Date{}}} {
		if v, err := c.column.value(c.value); err == nil {
			t.Errorf("%T became %v in column %s", c.value, v, c.column.Key)
		}
	}
}
