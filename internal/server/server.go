// Package server is the frame around the service's HTTP handlers: what holds for
// every request, whatever it asks for, and an orderly start and end.
//
//	request ─▶ id, client ─▶ log, metrics ─▶ recover ─▶ limits ─▶ same origin? ─▶ handler
//	                                                                  │ headers that are missing are filled in
//	admin listener (never public) ─▶ /metrics /livez /readyz
//
// Logs hold the route's pattern, never the path, a query, an address or a header:
// those carry people's data and secrets. Rooms register what deviates (CrossSite, AllowBody) before Serve.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Limits that hold unless a room asks for another.
const (
	maxBody    = 1 << 20          // bytes of a request's body
	maxHeader  = 64 << 10         // bytes of its header
	answerTime = 60 * time.Second // from the request's header to the answer's end
	stopTime   = 25 * time.Second // for requests at work when the service stops
)

// Options of the frame.
type Options struct {
	BaseURL string         // https: browsers are told to stay with it
	Proxies []netip.Prefix // whose X-Forwarded-For and X-Request-Id are believed
	Now     func() time.Time
	Log     *slog.Logger
	Metrics *prometheus.Registry // requests are counted here; /metrics shows all of it
	Ready   func(context.Context) error
	Drain   time.Duration // how long /readyz says no before listeners close: what a load balancer needs

	// Fail answers where no handler does: 403 across sites, 500 after a panic.
	Fail func(w http.ResponseWriter, r *http.Request, status int)
}

// A Server frames one handler.
type Server struct {
	o       Options
	cross   *http.CrossOriginProtection
	bodies  *http.ServeMux // only to match patterns
	allowed map[string]int64
	counts  counts
	handler http.Handler
	stops   chan struct{} // closed when stopping begins
}

// New returns a server for handler.
func New(o Options, handler http.Handler) *Server {
	s := &Server{
		o: o, cross: http.NewCrossOriginProtection(), bodies: http.NewServeMux(), allowed: make(map[string]int64),
		counts: newCounts(o.Metrics), handler: handler, stops: make(chan struct{}),
	}
	s.cross.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { o.Fail(w, r, http.StatusForbidden) }))
	return s
}

// CrossSite lets other sites' forms and programs post to the routes, given as
// patterns of net/http: those that carry their own proof, such as a signature.
func (s *Server) CrossSite(patterns ...string) {
	for _, p := range patterns {
		s.cross.AddInsecureBypassPattern(p)
	}
}

// AllowBody lets requests to a pattern of net/http have a body of up to n bytes
// instead of 1 MiB.
func (s *Server) AllowBody(pattern string, n int64) {
	s.bodies.Handle(pattern, http.NotFoundHandler())
	s.allowed[pattern] = n
}

// Handler returns the whole chain, as Serve uses it.
func (s *Server) Handler() http.Handler {
	var h http.Handler = s.cross.Handler(s.handler)
	h = s.limit(h)
	h = s.recover(h)
	h = s.observe(h)
	probes := s.probes()
	return s.identify(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// No http.ServeMux around everything: it would redirect "//a" to "/a", past limits, log and headers.
		if r.URL.Path == "/livez" || r.URL.Path == "/readyz" {
			probes.ServeHTTP(w, r)
			return
		}
		h.ServeHTTP(w, r)
	}))
}

// probes are asked every few seconds: they stay out of the log.
func (s *Server) probes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", s.livez)
	mux.HandleFunc("GET /readyz", s.readyz)
	return mux
}

// admin answers what only operators may see.
func (s *Server) admin() http.Handler {
	mux := s.probes()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.o.Metrics, promhttp.HandlerOpts{Timeout: 10 * time.Second}))
	return mux
}

// livez says that the process answers; an orchestrator restarts one that does not.
func (s *Server) livez(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, "ok") }

// readyz says whether requests are welcome. Why not is in the log, not in the answer:
// the public listener has it too.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	select {
	case <-s.stops:
		plain(w, http.StatusServiceUnavailable, "stopping")
		return
	default:
	}
	ctx, cancel := context.WithTimeout(r.Context(), 3*time.Second)
	defer cancel()
	if err := s.o.Ready(ctx); err != nil {
		s.o.Log.WarnContext(r.Context(), "not ready", "error", err)
		plain(w, http.StatusServiceUnavailable, "not ready")
		return
	}
	plain(w, http.StatusOK, "ok")
}

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	fmt.Fprintln(w, text) // a reader who has gone away is nobody's error
}

// Listen opens addr. setting is the variable or flag to name when that fails.
func Listen(setting, addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s: %s is in use by another program: stop it or choose another port", setting, addr)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", setting, err)
	}
	return l, nil
}

// Serve answers on both listeners until ctx ends, and then stops in order: not
// ready first, then no new connections, then the requests at work finish. It returns nil after
// an orderly end. It closes the listeners.
func (s *Server) Serve(ctx context.Context, public, admin net.Listener) error {
	servers := []*http.Server{s.server(s.Handler()), s.server(s.admin())}
	ended := make(chan error, len(servers))
	for i, l := range []net.Listener{public, admin} {
		go func() { ended <- servers[i].Serve(l) }()
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-ended: // a listener broke: stop the other one too
	}
	close(s.stops)
	if err == nil && s.o.Drain > 0 {
		select {
		case <-time.After(s.o.Drain):
		case err = <-ended:
		}
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	for _, srv := range servers {
		err = errors.Join(err, srv.Shutdown(stop))
	}
	if err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

func (s *Server) server(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       answerTime,
		WriteTimeout:      answerTime + 5*time.Second, // the handler's own deadline comes first
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(&connectionLog{s.o.Log.Handler()}, slog.LevelWarn),
	}
}

// connectionLog takes net/http's own messages. Those about single connections
// quote what strangers send and are dropped; those about us are kept.
type connectionLog struct{ slog.Handler }

func (h *connectionLog) Handle(ctx context.Context, r slog.Record) error {
	for _, ours := range []string{"http: Accept error", "http: superfluous"} {
		if strings.HasPrefix(r.Message, ours) {
			return h.Handler.Handle(ctx, r)
		}
	}
	return nil
}

// secure reports whether the service is reached over TLS.
func (s *Server) secure() bool { return strings.HasPrefix(s.o.BaseURL, "https:") }
