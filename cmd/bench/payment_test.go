package main

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"guichet/internal/testdb"
)

// The benchmark itself fails when its two ways write different rows, or rows that
// break the rules of the room.
func TestPaymentBenchmarkRuns(t *testing.T) {
	url := testdb.URL(t)
	var out strings.Builder
	err := run(t.Context(), []string{"payment", "--json", "--pairs=1", "--time=50ms", "--callers=1,3"}, func(name string) string {
		if name == "DATABASE_URL" {
			return url
		}
		return ""
	}, &out)
	if err != nil {
		t.Fatal(err)
	}
	var got result
	if err := json.Unmarshal([]byte(out.String()), &got); err != nil {
		t.Fatalf("%q: %v", out.String(), err)
	}
	want := []string{"hot_over_spread", "hot_over_spread_1", "payment_over_plain", "payment_over_plain_1"}
	if names := slices.Sorted(maps.Keys(got.Ratios)); got.Name != "payment" || !slices.Equal(names, want) || len(got.Rates) != 8 {
		t.Errorf("got %+v", got)
	}
}
