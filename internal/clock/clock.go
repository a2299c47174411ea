// Package clock gives the time of the business: the wall clock plus an offset
// that development, demo and sandbox may move forward, and the city's calendar in
// America/Toronto. Nothing else in the product calls time.Now.
//
// The offset is kept by whoever opens the database; this package only applies
// it. Production never sets one.
package clock

import (
	"fmt"
	"sync/atomic"
	"time"
	_ "time/tzdata" // the zone must exist on the smallest machine
)

// Toronto is the zone of accounting dates and nightly runs.
var Toronto = mustLoad("America/Toronto")

func mustLoad(name string) *time.Location {
	loc, err := time.LoadLocation(name)
	if err != nil {
		panic(err) // the zone data is linked in
	}
	return loc
}

// A Clock is the wall clock plus an offset. The zero value has no offset. It may
// be used by many goroutines at once.
type Clock struct{ offset atomic.Int64 }

// Now returns the business time, in UTC and without a monotonic reading.
func (c *Clock) Now() time.Time {
	return time.Now().Add(time.Duration(c.offset.Load())).Round(0).UTC()
}

// Offset is how far the clock runs ahead of the wall clock.
func (c *Clock) Offset() time.Duration { return time.Duration(c.offset.Load()) }

// SetOffset makes the clock run ahead of the wall clock by d. It refuses to go
// back: time that has been seen stays in the past.
func (c *Clock) SetOffset(d time.Duration) error {
	for {
		old := c.offset.Load()
		if int64(d) < old {
			return fmt.Errorf("set clock offset %s: the clock is ahead by %s and cannot go back", d, time.Duration(old))
		}
		if c.offset.CompareAndSwap(old, int64(d)) {
			return nil
		}
	}
}

// A Date is a day of the city's calendar, without a time. Stored as SQL date.
type Date struct {
	Year  int
	Month time.Month
	Day   int
}

// DateOf returns the city's date at t.
func DateOf(t time.Time) Date {
	y, m, d := t.In(Toronto).Date()
	return Date{y, m, d}
}

// ParseDate reads YYYY-MM-DD.
func ParseDate(s string) (Date, error) {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		return Date{}, fmt.Errorf("date %q: want YYYY-MM-DD", s)
	}
	return FromTime(t), nil
}

// FromTime returns the date that t shows in its own zone: SQL dates arrive as
// midnight UTC.
func FromTime(t time.Time) Date {
	y, m, d := t.Date()
	return Date{y, m, d}
}

// Time returns midnight UTC of the date: the form SQL dates travel in.
func (d Date) Time() time.Time { return time.Date(d.Year, d.Month, d.Day, 0, 0, 0, 0, time.UTC) }

// Start returns the first moment of the date in Toronto.
func (d Date) Start() time.Time { return time.Date(d.Year, d.Month, d.Day, 0, 0, 0, 0, Toronto) }

// AddDays returns the date n days later (or earlier).
func (d Date) AddDays(n int) Date { return FromTime(d.Time().AddDate(0, 0, n)) }

// Before reports whether d is earlier than e.
func (d Date) Before(e Date) bool { return d.Time().Before(e.Time()) }

// After reports whether d is later than e.
func (d Date) After(e Date) bool { return e.Before(d) }

// Weekday returns the day of the week.
func (d Date) Weekday() time.Weekday { return d.Time().Weekday() }

// BusinessDay reports whether banks move money on d: Monday to Friday.
// Statutory holidays are the fee engine's calendar, not the clock's.
func (d Date) BusinessDay() bool {
	return d.Weekday() != time.Saturday && d.Weekday() != time.Sunday
}

// String writes YYYY-MM-DD.
func (d Date) String() string { return d.Time().Format(time.DateOnly) }
