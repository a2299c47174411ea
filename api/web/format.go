package web

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"guichet/internal/clock"
	"guichet/internal/money"
)

// French months are lower case; the first of the month is "1er" (Le guide du
// rédacteur, Translation Bureau of Canada). English follows The Canadian Style:
// month, day, comma, year.
var frenchMonths = [...]string{
	"janvier", "février", "mars", "avril", "mai", "juin",
	"juillet", "août", "septembre", "octobre", "novembre", "décembre",
}

// nbsp keeps a number and its unit on one line.
const nbsp = "\u00a0"

// Date writes a clock.Date, or the city's date of a time.Time, in full:
// "December 9, 2026", "9 décembre 2026".
func Date(lang string, v any) (string, error) {
	d, err := dateOf(v)
	if err != nil {
		return "", err
	}
	if lang == "fr" {
		return dayMonth(lang, d) + " " + strconv.Itoa(d.Year), nil
	}
	return dayMonth(lang, d) + ", " + strconv.Itoa(d.Year), nil
}

// Day writes a date without its year: "December 9", "9 décembre".
func Day(lang string, v any) (string, error) {
	d, err := dateOf(v)
	if err != nil {
		return "", err
	}
	return dayMonth(lang, d), nil
}

// DateTime writes a moment in the city's time: "December 9, 2026 at 3:05 p.m.",
// "9 décembre 2026 à 15 h 05".
func DateTime(lang string, t time.Time) (string, error) {
	date, err := Date(lang, t)
	if err != nil {
		return "", err
	}
	local := t.In(clock.Toronto)
	if lang == "fr" {
		s := date + " à " + strconv.Itoa(local.Hour()) + nbsp + "h"
		if local.Minute() > 0 {
			s += nbsp + fmt.Sprintf("%02d", local.Minute())
		}
		return s, nil
	}
	half := "a.m."
	if local.Hour() >= 12 {
		half = "p.m."
	}
	return date + " at " + local.Format("3:04") + nbsp + half, nil
}

// Number writes a count with its thousands apart: "12,345", "12 345".
func Number(lang string, n int64) string {
	digits := strconv.FormatInt(n, 10)
	sep := ","
	if lang == "fr" {
		sep = nbsp
	}
	sign := ""
	if strings.HasPrefix(digits, "-") {
		sign, digits = "-", digits[1:]
	}
	var b strings.Builder
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteString(sep)
		}
		b.WriteRune(d)
	}
	return sign + b.String()
}

func dayMonth(lang string, d clock.Date) string {
	if lang != "fr" {
		return d.Month.String() + " " + strconv.Itoa(d.Day)
	}
	day := strconv.Itoa(d.Day)
	if d.Day == 1 {
		day = "1er"
	}
	return day + " " + frenchMonths[d.Month-1]
}

func dateOf(v any) (clock.Date, error) {
	var d clock.Date
	switch v := v.(type) {
	case clock.Date:
		d = v
	case *clock.Date:
		if v != nil {
			d = *v
		}
	case time.Time:
		if !v.IsZero() {
			d = clock.DateOf(v)
		}
	case *time.Time:
		if v != nil && !v.IsZero() {
			d = clock.DateOf(*v)
		}
	default:
		return d, fmt.Errorf("date of %T: want clock.Date or time.Time", v)
	}
	if d.Month < time.January || d.Month > time.December {
		return d, fmt.Errorf("date of an empty %T", v) // a page must not show year 1
	}
	return d, nil
}

// inWords writes an argument of a message as the reader expects it.
func inWords(lang string, v any) (any, error) {
	switch v := v.(type) {
	case money.Amount:
		return v.Format(lang), nil
	case clock.Date:
		return Date(lang, v)
	case time.Time:
		return DateTime(lang, v)
	case int:
		return Number(lang, int64(v)), nil
	case int64:
		return Number(lang, v), nil
	}
	return v, nil
}
