package clock

import (
	"testing"
	"time"
)

func TestClockGoesForwardOnly(t *testing.T) {
	var c Clock
	if err := c.SetOffset(48 * time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := c.SetOffset(47 * time.Hour); err == nil {
		t.Error("the clock went back an hour")
	}
	if ahead := time.Until(c.Now()); ahead < 47*time.Hour || ahead > 49*time.Hour {
		t.Errorf("the clock is ahead by %s, want 48h", ahead)
	}
}

func TestDateOfFollowsTorontoAcrossDaylightSaving(t *testing.T) {
	tests := map[string]string{
		"2026-03-08T04:59:59Z": "2026-03-07", // the 23-hour day starts at 05:00 UTC
		"2026-03-08T05:00:00Z": "2026-03-08",
		"2026-03-09T03:59:59Z": "2026-03-08",
		"2026-03-09T04:00:00Z": "2026-03-09",
		"2026-11-02T04:59:59Z": "2026-11-01", // and the 25-hour day ends at 05:00
		"2028-02-29T12:00:00Z": "2028-02-29",
	}
	for in, want := range tests {
		at, err := time.Parse(time.RFC3339, in)
		if err != nil {
			t.Fatal(err)
		}
		if got := DateOf(at).String(); got != want {
			t.Errorf("DateOf(%s) = %s, want %s", in, got, want)
		}
	}
	if got := (Date{2026, time.March, 8}).AddDays(1).Start().Sub(Date{2026, time.March, 8}.Start()); got != 23*time.Hour {
		t.Errorf("8 March 2026 lasts %s, want 23h", got)
	}
}
