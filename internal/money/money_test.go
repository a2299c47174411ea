package money

import (
	"errors"
	"math"
	"testing"

	"pgregory.net/rapid"
)

func TestPercentRoundsHalfAwayFromZero(t *testing.T) {
	tests := []struct {
		name string
		in   Amount
		rate int64
		want Amount
	}{
		{"1.25 % of 2,347.18", 234718, 12_500, 2934},
		{"1.75 % of 125.00", 12500, 17_500, 219},
		{"13 % of 163.00", 16300, 130_000, 2119},
		{"half goes up", 50, 10_000, 1},
		{"minus half goes down", -50, 10_000, -1},
		{"0.0417 % a day for 15 days of 187.43", 18743, 417 * 15, 117},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Percent(tt.in, tt.rate)
			if err != nil || got != tt.want {
				t.Errorf("Percent(%d, %d) = %d, %v; want %d", tt.in, tt.rate, got, err, tt.want)
			}
		})
	}
	if _, err := Percent(math.MaxInt64, 2_000_000); !errors.Is(err, ErrRange) {
		t.Errorf("200 %% of the largest amount: err = %v, want ErrRange", err)
	}
}

func TestSplitPartsSumToTheWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		total := Amount(rapid.Int64Range(-1e15, 1e15).Draw(t, "total"))
		raw := rapid.SliceOfN(rapid.Int64Range(0, 1e12), 1, 20).Draw(t, "weights")
		weights := make([]Amount, len(raw))
		var any bool
		for i, w := range raw {
			weights[i] = Amount(w)
			any = any || w > 0
		}
		parts, err := Split(total, weights)
		if !any {
			if err == nil {
				t.Fatal("no weight above zero: no error")
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		sum, err := Sum(parts...)
		if err != nil || sum != total {
			t.Fatalf("parts %v sum to %d (%v), want %d", parts, sum, err, total)
		}
		for i := range parts {
			if weights[i] == 0 && parts[i] != 0 {
				t.Fatalf("part %d has weight zero and got %d", i, parts[i])
			}
		}
	})
}

func TestRoundCash(t *testing.T) {
	for in, want := range map[Amount]Amount{18419: 18420, 1: 0, 2: 0, 3: 5, 4: 5, 5: 5, 6: 5, 7: 5, 8: 10, 9: 10, -3: -5, -2: 0, -8: -10} {
		if got := RoundCash(in); got != want {
			t.Errorf("RoundCash(%d) = %d, want %d", in, got, want)
		}
	}
}

func TestFormat(t *testing.T) {
	tests := []struct {
		in     Amount
		en, fr string
	}{
		{0, "$0.00", "0,00\u00a0$"},
		{123450, "$1,234.50", "1\u00a0234,50\u00a0$"},
		{-5, "-$0.05", "-0,05\u00a0$"},
		{100000000, "$1,000,000.00", "1\u00a0000\u00a0000,00\u00a0$"},
	}
	for _, tt := range tests {
		if got := tt.in.Format("en"); got != tt.en {
			t.Errorf("%d in English: %q, want %q", tt.in, got, tt.en)
		}
		if got := tt.in.Format("fr"); got != tt.fr {
			t.Errorf("%d in French: %q, want %q", tt.in, got, tt.fr)
		}
	}
}

func TestParseReadsWhatStringWrites(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := Amount(rapid.Int64Range(math.MinInt64+1, math.MaxInt64).Draw(t, "a"))
		got, err := Parse(a.String())
		if err != nil || got != a {
			t.Fatalf("Parse(%q) = %d, %v; want %d", a.String(), got, err, a)
		}
	})
	for _, bad := range []string{"", ".", "1.", "1.5", "1.555", "1,00", "+1.00", "--1.00", "$1.00", "99999999999999999999.00", "١.00"} {
		if _, err := Parse(bad); err == nil {
			t.Errorf("Parse(%q): no error", bad)
		}
	}
}
