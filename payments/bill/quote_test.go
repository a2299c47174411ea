package bill

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"guichet/internal/clock"
	"guichet/internal/money"
)

func day(n int) clock.Date { return clock.Date{Year: 2026, Month: time.November, Day: 1}.AddDays(n) }

func TestQuoteFollowsTheDates(t *testing.T) {
	fine := Bill{State: Open, IssuedOn: day(0), DueOn: day(15), EarlyUntil: day(15), Lines: []Line{{Line: 1, Net: 5500, Step: 2000}}}
	paid := fine
	paid.State = Paid
	crystallised := fine
	crystallised.Lines = []Line{{Line: 1, Net: 5500, Step: 2000, Crystallised: true}}
	partly := Bill{State: PartPaid, Lines: []Line{{Line: 1, Net: 16300, Tax: 2119, PaidNet: 10000, PaidTax: 1300}}}
	tests := []struct {
		name  string
		b     Bill
		on    clock.Date
		due   money.Amount
		saves money.Amount
	}{
		{"early amount on the first day", fine, day(0), 5500, 2000},
		{"early amount still on its last day", fine, day(15), 5500, 2000},
		{"set fine the day after", fine, day(16), 7500, 0},
		{"a step in the books stays, whatever the date", crystallised, day(1), 7500, 0},
		{"nothing is due of a paid bill", paid, day(1), 0, 0},
		{"what was paid is not due again", partly, day(1), 16300 + 2119 - 11300, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q := tt.b.Quote(tt.on)
			var saves money.Amount
			if q.Early != nil {
				saves = q.Early.Saves
			}
			if q.Due != tt.due || saves != tt.saves {
				t.Errorf("on %s: due %s, saves %s; want %s, %s", tt.on, q.Due, saves, tt.due, tt.saves)
			}
		})
	}
}

func TestQuoteSumsItsLinesAndNeverFallsWithTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := Bill{State: Open, EarlyUntil: day(rapid.IntRange(0, 60).Draw(t, "early"))}
		for i := range rapid.IntRange(1, 8).Draw(t, "lines") {
			b.Lines = append(b.Lines, Line{
				Line: i + 1,
				Net:  money.Amount(rapid.Int64Range(1, 1e9).Draw(t, "net")),
				Step: money.Amount(rapid.Int64Range(0, 1e9).Draw(t, "step")),
			})
		}
		before := b.Quote(day(0))
		for n := range 70 {
			q := b.Quote(day(n))
			var sum money.Amount
			for _, l := range q.Lines {
				sum += l.Total()
			}
			if sum != q.Due {
				t.Fatalf("day %d: lines sum to %s, due is %s", n, sum, q.Due)
			}
			if q.Due < before.Due {
				t.Fatalf("day %d: due fell from %s to %s", n, before.Due, q.Due)
			}
			if q.Early != nil && q.Due+q.Early.Saves != b.Quote(day(100)).Due {
				t.Fatalf("day %d: due %s and saved %s are not what is due later", n, q.Due, q.Early.Saves)
			}
			before = q
		}
	})
}
