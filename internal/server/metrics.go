package server

import (
	"context"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"guichet/internal/jobs"
)

// NewMetrics returns a registry with the process's own figures.
func NewMetrics() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

type counts struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	inFlight prometheus.Gauge
	panics   prometheus.Counter
}

func newCounts(r *prometheus.Registry) counts {
	c := counts{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "guichet_http_requests_total", Help: "Requests answered, by method, route and status.",
		}, []string{"method", "route", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "guichet_http_request_seconds", Help: "Time to answer, by route.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 30},
		}, []string{"route"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{Name: "guichet_http_requests_in_flight", Help: "Requests being answered now."}),
		panics:   prometheus.NewCounter(prometheus.CounterOpts{Name: "guichet_http_panics_total", Help: "Requests that ended in a panic."}),
	}
	r.MustRegister(c.requests, c.seconds, c.inFlight, c.panics)
	return c
}

func (c counts) add(method, route string, status int, took time.Duration) {
	c.requests.WithLabelValues(method, route, strconv.Itoa(status)).Inc()
	c.seconds.WithLabelValues(route).Observe(took.Seconds())
}

// WatchDatabase adds the figures of a connection pool.
func WatchDatabase(r *prometheus.Registry, db *pgxpool.Pool) {
	gauge := func(name, help string, f func(*pgxpool.Stat) float64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return f(db.Stat()) }))
	}
	gauge("guichet_db_connections", "Connections open.", func(s *pgxpool.Stat) float64 { return float64(s.TotalConns()) })
	gauge("guichet_db_connections_busy", "Connections in use.", func(s *pgxpool.Stat) float64 { return float64(s.AcquiredConns()) })
	gauge("guichet_db_connections_max", "Connections allowed.", func(s *pgxpool.Stat) float64 { return float64(s.MaxConns()) })
	gauge("guichet_db_wait_seconds_total", "Time spent waiting for a connection.", func(s *pgxpool.Stat) float64 { return s.EmptyAcquireWaitTime().Seconds() })
}

// WatchJobs adds how many jobs wait and how many were given up: the latter should
// be zero, and an alert where they are not.
func WatchJobs(r *prometheus.Registry, q *jobs.Queue) { r.MustRegister(&jobCollector{q}) }

var (
	jobsWaiting = prometheus.NewDesc("guichet_jobs_waiting", "Jobs to run now or later, by kind.", []string{"kind"}, nil)
	jobsParked  = prometheus.NewDesc("guichet_jobs_parked", "Jobs given up that wait for a person, by kind.", []string{"kind"}, nil)
)

type jobCollector struct{ q *jobs.Queue }

func (c *jobCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- jobsWaiting
	ch <- jobsParked
}

func (c *jobCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for desc, ask := range map[*prometheus.Desc]func(context.Context) (map[string]int, error){jobsWaiting: c.q.Waiting, jobsParked: c.q.Parked} {
		n, err := ask(ctx)
		if err != nil {
			ch <- prometheus.NewInvalidMetric(desc, err)
			continue
		}
		for kind, count := range n {
			ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(count), kind)
		}
	}
}
