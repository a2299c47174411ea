package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"text/tabwriter"
	"time"
)

// A lab is what a benchmark works with.
type lab struct {
	options
	url string    // owner's URL of a fresh, migrated database
	out io.Writer // for a person who watches; silent with --json
	result
	rows []row
}

// A result is what machines read.
type result struct {
	Name   string             `json:"name"`
	Rates  map[string]float64 `json:"rates"`  // operations a second
	Ratios map[string]float64 `json:"ratios"` // a rate over that of the baseline
	Counts map[string]int     `json:"counts,omitempty"`
}

// A row is a contender's line in the table.
type row struct {
	name          string
	rate          float64
	p50, p99, max time.Duration
	note          string
}

// A contender is one way of doing the work. run does it for a while with a number
// of callers.
type contender struct {
	name string
	run  func(ctx context.Context, callers int, d time.Duration) (sample, error)
}

// A sample is what one run gave.
type sample struct {
	done    int
	elapsed time.Duration
	times   []time.Duration // of the single operations, in any order
	note    string          // anything else worth a column
}

func (s sample) rate() float64 { return float64(s.done) / s.elapsed.Seconds() }

// compare runs the contenders in turn, Pairs times, in alternating order, and
// records under suffix the median rate of each and the median over the rounds of
// each ratio; a ratio "a_over_b" compares a with b in the same round.
func (l *lab) compare(ctx context.Context, callers int, suffix string, ratios [][2]string, contenders ...contender) error {
	samples := map[string][]sample{}
	for round := range l.Pairs {
		order := slices.Clone(contenders)
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, c := range order {
			s, err := c.run(ctx, callers, l.Time)
			if err != nil {
				return fmt.Errorf("%s with %d callers: %w", c.name, callers, err)
			}
			samples[c.name] = append(samples[c.name], s)
			fmt.Fprintf(l.out, "  round %d of %d, %d callers, %s: %.0f/s\n", round+1, l.Pairs, callers, c.name, s.rate())
		}
	}
	for _, c := range contenders {
		of := samples[c.name]
		rates := make([]float64, len(of))
		var times []time.Duration
		for i, s := range of {
			rates[i] = s.rate()
			times = append(times, s.times...)
		}
		slices.Sort(times)
		l.Rates[c.name+suffix] = median(rates)
		l.rows = append(l.rows, row{
			fmt.Sprintf("%s, %d callers", c.name, callers), median(rates),
			quantile(times, 0.5), quantile(times, 0.99), quantile(times, 1), of[len(of)-1].note,
		})
	}
	for _, r := range ratios {
		each := make([]float64, l.Pairs)
		for i := range each {
			each[i] = samples[r[0]][i].rate() / samples[r[1]][i].rate()
		}
		l.Ratios[r[0]+"_over_"+r[1]+suffix] = median(each)
	}
	return nil
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// load calls op from many callers until d has passed, and returns after the last
// call. The first error ends it.
func load(ctx context.Context, callers int, d time.Duration, op func(ctx context.Context, caller, n int) error) (sample, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	times := make([][]time.Duration, callers)
	start := time.Now()
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for n := 0; time.Since(start) < d && ctx.Err() == nil; n++ {
				began := time.Now()
				if err := op(ctx, c, n); err != nil {
					cancel(err)
					return
				}
				times[c] = append(times[c], time.Since(began))
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return sample{}, err
	}
	s := sample{elapsed: time.Since(start), times: slices.Concat(times...)}
	s.done = len(s.times)
	return s, nil
}

func (l *lab) print(out io.Writer) error {
	if l.JSON {
		if err := json.NewEncoder(out).Encode(l.result); err != nil {
			return fmt.Errorf("print: %w", err)
		}
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\n\trate/s\tp50\tp99\tmax\t")
	for _, r := range l.rows {
		fmt.Fprintf(w, "%s\t%.0f\t%s\t%s\t%s\t%s\n", r.name, r.rate, short(r.p50), short(r.p99), short(r.max), r.note)
	}
	fmt.Fprintln(w)
	names := make([]string, 0, len(l.Ratios))
	for name := range l.Ratios {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(w, "%s\t%.2f\n", name, l.Ratios[name])
	}
	for _, name := range slices.Sorted(maps.Keys(l.Counts)) {
		fmt.Fprintf(w, "%s\t%d\n", name, l.Counts[name])
	}
	fmt.Fprintln(w)
	return w.Flush()
}

func short(d time.Duration) string { return d.Round(100 * time.Microsecond).String() }
