package main

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"guichet/identity/staff"
	"guichet/ledger"
)

// watchPoster adds how far the poster is behind the journal: both should be near
// zero, and an alert where they grow.
func watchPoster(r *prometheus.Registry, p *ledger.Poster) {
	r.MustRegister(&posterCollector{p})
}

var (
	posterBacklog = prometheus.NewDesc("guichet_ledger_unposted", "Journal entries not posted yet.", nil, nil)
	posterLag     = prometheus.NewDesc("guichet_ledger_lag_seconds", "Age of the oldest journal entry not posted yet.", nil, nil)
	posterSealed  = prometheus.NewDesc("guichet_ledger_sealed", "Entries in the ledger's log.", nil, nil)
)

type posterCollector struct{ poster *ledger.Poster }

func (c *posterCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- posterBacklog
	ch <- posterLag
	ch <- posterSealed
}

func (c *posterCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	s, err := c.poster.Stats(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(posterBacklog, err)
		return
	}
	ch <- prometheus.MustNewConstMetric(posterBacklog, prometheus.GaugeValue, float64(s.Backlog))
	ch <- prometheus.MustNewConstMetric(posterLag, prometheus.GaugeValue, s.Lag.Seconds())
	ch <- prometheus.MustNewConstMetric(posterSealed, prometheus.GaugeValue, float64(s.Sealed))
}

// watchBreakGlass adds the uses of the break-glass account: an alert where the total
// grows, and while a session is open.
func watchBreakGlass(r *prometheus.Registry, s *staff.Service) {
	r.MustRegister(&breakGlassCollector{s})
}

var (
	breakGlassUsed = prometheus.NewDesc("guichet_break_glass_used_total", "Break-glass credentials used, ever.", nil, nil)
	breakGlassOpen = prometheus.NewDesc("guichet_break_glass_open", "Break-glass sessions open now.", nil, nil)
)

type breakGlassCollector struct{ staff *staff.Service }

func (c *breakGlassCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- breakGlassUsed
	ch <- breakGlassOpen
}

func (c *breakGlassCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	used, open, err := c.staff.BreakGlassUse(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(breakGlassUsed, err)
		return
	}
	ch <- prometheus.MustNewConstMetric(breakGlassUsed, prometheus.CounterValue, float64(used))
	ch <- prometheus.MustNewConstMetric(breakGlassOpen, prometheus.GaugeValue, float64(open))
}
