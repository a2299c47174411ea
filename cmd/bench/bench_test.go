package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"guichet/internal/testdb"
)

// Every benchmark runs to its end and prints what machines read.
func TestBenchmarksRun(t *testing.T) {
	url := testdb.URL(t)
	var out strings.Builder
	args := []string{"ledger", "--json", "--pairs=1", "--time=50ms", "--callers=2,3"}
	err := run(t.Context(), args, func(name string) string {
		if name == "DATABASE_URL" {
			return url
		}
		return ""
	}, &out)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Name          string
		Rates, Ratios map[string]float64
	}
	if err := json.Unmarshal([]byte(out.String()), &got); err != nil {
		t.Fatalf("%q: %v", out.String(), err)
	}
	want := []string{"batched_over_copy", "hot_over_balance_rows", "hot_over_balance_rows_2", "hot_over_spread", "hot_over_spread_2", "http_over_process", "http_over_process_alone", "http_p99_3_over_1", "poster_over_copy"}
	if names := slices.Sorted(maps.Keys(got.Ratios)); got.Name != "ledger" || !slices.Equal(names, want) || len(got.Rates) != 13 {
		t.Errorf("got %+v", got)
	}
	for name, v := range got.Ratios {
		if v <= 0 {
			t.Errorf("%s is %f", name, v)
		}
	}
}

// The picture is drawn from what was seen, and the large account has the postings asked for.
func TestSustainAndBalancesRun(t *testing.T) {
	url, file := testdb.URL(t), filepath.Join(t.TempDir(), "run.svg")
	var out strings.Builder
	args := []string{"sustain", "balances", "--json", "--pairs=1", "--time=1500ms", "--callers=3", "--postings=10500", "--picture=" + file}
	if err := run(t.Context(), args, func(name string) string {
		if name == "DATABASE_URL" {
			return url
		}
		return ""
	}, &out); err != nil {
		t.Fatal(err)
	}
	sustain, balances, _ := strings.Cut(out.String(), "\n")
	var s, b result
	if err := errors.Join(json.Unmarshal([]byte(sustain), &s), json.Unmarshal([]byte(balances), &b)); err != nil {
		t.Fatalf("%v in %s", err, out.String())
	}
	if s.Counts["entries"] == 0 || s.Counts["bytes_per_entry_posting"] == 0 {
		t.Errorf("sustain counted %v", s.Counts)
	}
	if b.Counts["postings_large"] != 10500 || len(b.Ratios) != 4 {
		t.Errorf("balances gave %v and %v", b.Counts, b.Ratios)
	}
	if text, err := os.ReadFile(file); err != nil || xml.Unmarshal(text, new(struct{ XMLName xml.Name })) != nil || !bytes.Contains(text, []byte("<polyline")) {
		t.Errorf("picture: %v, %.80s", err, text)
	}
}

func TestBadArguments(t *testing.T) {
	for _, args := range [][]string{{"nothing"}, {"ledger", "--pairs=0"}, {"ledger", "--callers=0"}, {"ledger", "--time=0s"}, {"--what"}} {
		if err := run(t.Context(), args, func(string) string { return "" }, io.Discard); err == nil {
			t.Errorf("%q was accepted", args)
		}
	}
}

// The median of the rounds' ratios counts, not the ratio of the medians.
func TestCompare(t *testing.T) {
	rates := map[string][]int{"a": {10, 20, 90}, "b": {10, 40, 30}}
	var order []string
	fake := func(name string) contender {
		return contender{name, func(context.Context, int, time.Duration) (sample, error) {
			order = append(order, name)
			done := rates[name][0]
			rates[name] = rates[name][1:]
			return sample{done: done, elapsed: time.Second}, nil
		}}
	}
	l := &lab{options: options{Pairs: 3}, out: io.Discard, result: result{Rates: map[string]float64{}, Ratios: map[string]float64{}}}
	if err := l.compare(t.Context(), 1, "_x", [][2]string{{"a", "b"}}, fake("a"), fake("b")); err != nil {
		t.Fatal(err)
	}
	if l.Rates["a_x"] != 20 || l.Rates["b_x"] != 30 || l.Ratios["a_over_b_x"] != 1 || strings.Join(order, "") != "abbaab" {
		t.Errorf("got %v %v in order %v", l.Rates, l.Ratios, order)
	}
}

func TestLoadEndsWithTheFirstError(t *testing.T) {
	broken := errors.New("broken")
	_, err := load(t.Context(), 4, time.Hour, func(ctx context.Context, caller, n int) error {
		if caller == 2 && n == 3 {
			return broken
		}
		return ctx.Err()
	})
	if !errors.Is(err, broken) {
		t.Errorf("got %v, want the error of the call", err)
	}
}
