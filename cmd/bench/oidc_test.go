package main

import (
	"encoding/json"
	"strings"
	"testing"

	"guichet/internal/testdb"
)

func TestOIDCBenchCountsNoFailure(t *testing.T) {
	url := testdb.URL(t)
	var out strings.Builder
	err := run(t.Context(), []string{"oidc", "--json", "--pairs=1", "--time=100ms", "--callers=1,8"}, func(name string) string {
		if name == "DATABASE_URL" {
			return url
		}
		return ""
	}, &out)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Rates, Ratios map[string]float64
		Counts        map[string]int
	}
	if err := json.Unmarshal([]byte(out.String()), &got); err != nil {
		t.Fatalf("%q: %v", out.String(), err)
	}
	failed, counted := got.Counts["failed_8"]
	if failed != 0 || !counted || got.Rates["flow"] <= 0 || got.Ratios["flow_over_signing"] <= 0 || got.Ratios["flow_over_roundtrips"] <= 0 {
		t.Errorf("got %s", out.String())
	}
}
