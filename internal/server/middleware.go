package server

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"runtime/debug"
	"strings"

	"github.com/go-chi/chi/v5"

	"guichet/internal/audit"
	"guichet/internal/id"
)

type requestKey struct{}

// RequestID returns the id of the request ctx belongs to, or "". It is on every
// log line and in the answer's X-Request-Id.
func RequestID(ctx context.Context) string {
	v, _ := ctx.Value(requestKey{}).(string)
	return v
}

var idForm = regexp.MustCompile(`^[A-Za-z0-9-]{8,64}$`)

// identify gives the request its id and its true client, and the context what
// audit rows need. Forwarded headers count only from a trusted proxy.
func (s *Server) identify(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requestID := ""
		if s.trusted(r.RemoteAddr) {
			requestID = r.Header.Get("X-Request-Id")
			r.RemoteAddr = s.client(r)
		}
		r.Header.Del("X-Forwarded-For") // nobody behind us reads it by accident
		if !idForm.MatchString(requestID) {
			requestID = id.New()
		}
		w.Header().Set("X-Request-Id", requestID)
		ctx := context.WithValue(r.Context(), requestKey{}, requestID)
		ctx = audit.With(ctx, audit.Origin{
			Actor: audit.Guest, ActorKind: audit.Guest, Network: network(r.RemoteAddr), RequestID: requestID, Channel: "web",
		})
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

func (s *Server) trusted(remote string) bool {
	from, err := netip.ParseAddrPort(remote)
	if err != nil {
		return false
	}
	return s.isProxy(from.Addr())
}

func (s *Server) isProxy(a netip.Addr) bool {
	for _, p := range s.o.Proxies {
		if p.Contains(a.Unmap().WithZone("")) {
			return true
		}
	}
	return false
}

// client walks X-Forwarded-For from the right past our proxies: what stands
// further left was written by whoever sent the request.
func (s *Server) client(r *http.Request) string {
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0; i-- {
		a, err := hop(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		if !s.isProxy(a) {
			return net.JoinHostPort(a.Unmap().WithZone("").String(), "0")
		}
	}
	return r.RemoteAddr
}

// hop reads an address of X-Forwarded-For; some proxies add the port.
func hop(text string) (netip.Addr, error) {
	if with, err := netip.ParseAddrPort(text); err == nil {
		return with.Addr(), nil
	}
	return netip.ParseAddr(text)
}

// network is the /24 or, for IPv6, the /64 of an address: as exact as audit rows
// need it.
func network(remote string) string {
	from, err := netip.ParseAddrPort(remote)
	if err != nil {
		return ""
	}
	a, bits := from.Addr().Unmap().WithZone(""), 64
	if a.Is4() {
		bits = 24
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return ""
	}
	return p.String()
}

// observe writes one log line and counts one request, by route.
func (s *Server) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begin := s.o.Now()
		// A chi router beneath fills this in, and we read the pattern from it afterwards. It
		// takes itself for a part of another router then, and leaves to that one to say which.
		route := chi.NewRouteContext()
		route.Routes, _ = s.handler.(chi.Routes)
		r = r.WithContext(context.WithValue(r.Context(), chi.RouteCtxKey, route))
		a := &answer{ResponseWriter: w, secure: s.secure()}
		s.counts.inFlight.Inc()
		defer func() {
			s.counts.inFlight.Dec()
			took := s.o.Now().Sub(begin)
			pattern := route.RoutePattern()
			if pattern == "" || a.status == http.StatusNotFound && strings.HasSuffix(pattern, "*") {
				pattern = "unmatched"
			}
			method := methodOf(r)
			s.counts.add(method, pattern, a.code(), took)
			s.o.Log.InfoContext(r.Context(), "request", "method", method, "route", pattern,
				"status", a.code(), "bytes", a.bytes, "ms", took.Milliseconds())
		}()
		next.ServeHTTP(a, r)
	})
}

// methodOf keeps invented methods out of logs and labels.
func methodOf(r *http.Request) string {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return r.Method
	}
	return "other"
}

// recover turns a panic into 500 where nothing was answered yet. The value may
// hold anything, so only where it happened is logged.
func (s *Server) recover(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if v == http.ErrAbortHandler { // net/http itself compares it so
				panic(v)
			}
			s.counts.panics.Inc()
			s.o.Log.ErrorContext(r.Context(), "panic", "stack", string(debug.Stack()))
			if a, ok := w.(*answer); ok && a.status != 0 {
				panic(http.ErrAbortHandler) // cut the half answer off: it must not look whole
			}
			s.o.Fail(w, r, http.StatusInternalServerError)
		}()
		next.ServeHTTP(w, r)
	})
}

// limit bounds the body and the time of a request.
func (s *Server) limit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := int64(maxBody)
		if _, pattern := s.bodies.Handler(r); pattern != "" {
			n = s.allowed[pattern]
		}
		ctx, cancel := context.WithTimeout(r.Context(), answerTime)
		defer cancel()
		r = r.WithContext(ctx)
		r.Body = http.MaxBytesReader(w, r.Body, n)
		next.ServeHTTP(w, r)
	})
}

// An answer remembers what was sent and fills in the headers that are missing when
// it starts, so that a page that chose its own keeps them.
type answer struct {
	http.ResponseWriter
	secure bool
	status int
	bytes  int64
}

// policy is the Content-Security-Policy of what chose none.
const policy = "default-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"

func (a *answer) WriteHeader(status int) {
	if a.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) { // 1xx may come first
		a.status = status
		a.fill()
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) fill() {
	h := a.Header()
	for name, value := range map[string]string{
		"Cache-Control":                "no-store",
		"Content-Security-Policy":      policy,
		"Cross-Origin-Resource-Policy": "same-origin",
		"Permissions-Policy":           "camera=(), geolocation=(), microphone=(), payment=(), publickey-credentials-create=(self), publickey-credentials-get=(self)",
		"Referrer-Policy":              "no-referrer",
		"X-Content-Type-Options":       "nosniff",
		"X-Frame-Options":              "DENY",
	} {
		if _, set := h[name]; !set {
			h.Set(name, value)
		}
	}
	if a.secure {
		h.Set("Strict-Transport-Security", "max-age=31536000; includeSubDomains")
	}
}

func (a *answer) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	n, err := a.ResponseWriter.Write(p)
	a.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// code is what the client saw: 200 where the handler wrote nothing at all.
func (a *answer) code() int {
	if a.status == 0 {
		return http.StatusOK
	}
	return a.status
}
