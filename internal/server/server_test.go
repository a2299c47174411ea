package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"guichet/internal/audit"
	"guichet/internal/clock"
	"guichet/internal/jobs"
	"guichet/internal/testdb"
	"guichet/migrations"
)

// logbook is a log that tests may read while it is written.
type logbook struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func newServer(log *logbook, h http.Handler, change ...func(*Options)) *Server {
	o := Options{
		BaseURL: "https://guichet.example", Now: new(clock.Clock).Now, Log: slog.New(LogRequests(slog.NewTextHandler(log, nil))),
		Metrics: NewMetrics(), Proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
		Ready: func(context.Context) error { return nil },
		Fail: func(w http.ResponseWriter, _ *http.Request, status int) {
			http.Error(w, "a plain sentence", status)
		},
	}
	for _, f := range change {
		f(&o)
	}
	return New(o, h)
}

func do(t *testing.T, h http.Handler, method, target, body string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		if header[i] == "From" {
			r.RemoteAddr = header[i+1]
			continue
		}
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func TestEveryAnswerCarriesTheHeaders(t *testing.T) {
	router := chi.NewRouter()
	router.Get("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "x") })
	router.Get("/own", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'none'; form-action https://pay.example")
		w.Header().Set("Cache-Control", "public, max-age=1")
		w.WriteHeader(http.StatusTeapot)
	})
	h := newServer(&logbook{}, router).Handler()
	want := map[string]string{
		"Content-Security-Policy":   policy,
		"X-Content-Type-Options":    "nosniff",
		"Referrer-Policy":           "no-referrer",
		"X-Frame-Options":           "DENY",
		"Cache-Control":             "no-store",
		"Strict-Transport-Security": "max-age=31536000; includeSubDomains",
	}
	for _, target := range []string{"/", "/nowhere"} {
		resp := do(t, h, "GET", target, "")
		for name, v := range want {
			if got := resp.Header.Get(name); got != v {
				t.Errorf("%s: %s = %q, want %q", target, name, got, v)
			}
		}
	}
	resp := do(t, h, "GET", "/own", "")
	if resp.Header.Get("Content-Security-Policy") != "default-src 'none'; form-action https://pay.example" || resp.Header.Get("Cache-Control") != "public, max-age=1" {
		t.Errorf("a page's own headers are lost: %v", resp.Header)
	}
	plainHTTP := newServer(&logbook{}, router, func(o *Options) { o.BaseURL = "http://localhost:8080" }).Handler()
	if got := do(t, plainHTTP, "GET", "/", "").Header.Get("Strict-Transport-Security"); got != "" {
		t.Errorf("HSTS over plain HTTP: %q", got)
	}
}

// Probes of load balancers, link checkers and mail scanners ask with HEAD.
func TestHeadIsAnsweredLikeGet(t *testing.T) {
	router := chi.NewRouter()
	router.Use(middleware.GetHead)
	router.Get("/page/{id}", func(http.ResponseWriter, *http.Request) {})
	router.Post("/form", func(http.ResponseWriter, *http.Request) { t.Error("HEAD reached a form") })
	log := &logbook{}
	h := newServer(log, router).Handler()
	for target, want := range map[string]int{
		"/page/1": http.StatusOK, "/form": http.StatusMethodNotAllowed, "/nowhere": http.StatusNotFound, "/livez": http.StatusOK,
	} {
		if got := do(t, h, "HEAD", target, "").StatusCode; got != want {
			t.Errorf("HEAD %s: %d, want %d", target, got, want)
		}
	}
	if !strings.Contains(log.String(), "route=/page/{id}") || strings.Contains(log.String(), "panic") {
		t.Errorf("log: %s", log)
	}
}

// A path is what it says: cleaning it would answer before limits, log and headers.
func TestUncleanPathsLeadNowhere(t *testing.T) {
	router := chi.NewRouter()
	router.Get("/page", func(http.ResponseWriter, *http.Request) {})
	log := &logbook{}
	h := newServer(log, router).Handler()
	for _, target := range []string{"//page", "/./page", "/a/../page", "/page/", "//livez", "/%2e/page", "/%2Fpage"} {
		resp := do(t, h, "GET", "https://guichet.example"+target, "")
		if resp.StatusCode != http.StatusNotFound || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %d %v", target, resp.StatusCode, resp.Header)
		}
	}
	if n := strings.Count(log.String(), "status=404"); n != 7 {
		t.Errorf("%d of 7 requests in the log: %s", n, log)
	}
}

func TestOtherSitesCannotPostUnlessTheRouteSaysSo(t *testing.T) {
	router := chi.NewRouter()
	router.Post("/pay", func(http.ResponseWriter, *http.Request) {})
	router.Post("/webhook", func(http.ResponseWriter, *http.Request) {})
	router.Get("/pay", func(http.ResponseWriter, *http.Request) {})
	s := newServer(&logbook{}, router)
	s.CrossSite("POST /webhook")
	h := s.Handler()
	tests := []struct {
		name, method, path, site string
		want                     int
	}{
		{"our own form", "POST", "/pay", "same-origin", 200},
		{"another site's form", "POST", "/pay", "cross-site", 403},
		{"a sibling host's form", "POST", "/pay", "same-site", 403},
		{"another site's link", "GET", "/pay", "cross-site", 200},
		{"a route that carries its own proof", "POST", "/webhook", "cross-site", 200},
		{"a program", "POST", "/pay", "", 200},
	}
	for _, tt := range tests {
		resp := do(t, h, tt.method, tt.path, "", "Sec-Fetch-Site", tt.site)
		if resp.StatusCode != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, resp.StatusCode, tt.want)
		}
	}
	if resp := do(t, h, "POST", "/pay", "", "Origin", "https://evil.example"); resp.StatusCode != 403 {
		t.Errorf("an old browser on another site: %d, want 403", resp.StatusCode)
	}
}

func TestBodiesAreBounded(t *testing.T) {
	router := chi.NewRouter()
	read := func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			http.Error(w, "too large", http.StatusRequestEntityTooLarge)
		}
	}
	router.Post("/small", read)
	router.Post("/upload", read)
	s := newServer(&logbook{}, router)
	s.AllowBody("POST /upload", 2*maxBody)
	h := s.Handler()
	for _, tt := range []struct {
		path string
		size int
		want int
	}{{"/small", maxBody, 200}, {"/small", maxBody + 1, 413}, {"/upload", 2 * maxBody, 200}, {"/upload", 2*maxBody + 1, 413}} {
		if resp := do(t, h, "POST", tt.path, strings.Repeat("x", tt.size)); resp.StatusCode != tt.want {
			t.Errorf("%s with %d bytes: %d, want %d", tt.path, tt.size, resp.StatusCode, tt.want)
		}
	}
}

func TestPanicIsFiveHundredWithoutDetail(t *testing.T) {
	log := &logbook{}
	router := chi.NewRouter()
	router.Get("/broken", func(http.ResponseWriter, *http.Request) { panic("zoe@example.org") })
	router.Get("/half", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "half")
		panic("zoe@example.org")
	})
	srv := httptest.NewServer(newServer(log, router).Handler())
	defer srv.Close()
	resp, err := http.Get(srv.URL + "/broken")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || resp.StatusCode != 500 || strings.TrimSpace(string(body)) != "a plain sentence" {
		t.Errorf("answer %d %q, %v", resp.StatusCode, body, err)
	}
	if resp, err = http.Get(srv.URL + "/half"); err == nil {
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
	}
	if err == nil {
		t.Error("half an answer looks whole")
	}
	if text := log.String(); strings.Contains(text, "zoe@") || !strings.Contains(text, "msg=panic") || !strings.Contains(text, "server_test.go") {
		t.Errorf("log:\n%s", text)
	}
}

func TestLogHoldsTheRouteAndNothingOfThePerson(t *testing.T) {
	log := &logbook{}
	router := chi.NewRouter()
	router.Route("/receipts", func(r chi.Router) {
		r.Get("/{code}", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	})
	h := newServer(log, router).Handler()
	do(t, h, "GET", "/receipts/7K3MSECRET?token=SECRET", "", "From", "203.0.113.7:5000", "Cookie", "s=SECRET", "User-Agent", "SECRET")
	do(t, h, "GET", "/SECRET", "")
	do(t, h, "SECRET", "/receipts/1", "")
	text := log.String()
	for _, want := range []string{"route=/receipts/{code}", "method=GET", "status=204", "route=unmatched", "method=other", "request=0"} {
		if !strings.Contains(text, want) {
			t.Errorf("the log lacks %q:\n%s", want, text)
		}
	}
	for _, private := range []string{"SECRET", "203.0.113"} {
		if strings.Contains(text, private) {
			t.Errorf("the log holds %q:\n%s", private, text)
		}
	}
}

// What a handler logs is found by the id that the person was told.
func TestEveryLineOfARequestHasItsID(t *testing.T) {
	log := &logbook{}
	said := slog.New(LogRequests(slog.NewTextHandler(log, nil))).With("room", "test").WithGroup("g")
	h := newServer(log, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		said.ErrorContext(r.Context(), "cause")
		panic("x")
	})).Handler()
	id := do(t, h, "GET", "/", "").Header.Get("X-Request-Id")
	for line := range strings.Lines(log.String()) {
		if strings.Count(line, id) != 1 {
			t.Errorf("the id %s is not once in %s", id, line)
		}
	}
	if n := strings.Count(log.String(), "\n"); n != 3 {
		t.Errorf("%d lines, want cause, panic and request: %s", n, log)
	}
	said.Info("elsewhere")
	if !strings.HasSuffix(log.String(), "msg=elsewhere room=test\n") {
		t.Errorf("a line without a request: %s", log)
	}
}

func TestForwardedHeadersCountOnlyFromTheProxy(t *testing.T) {
	var remote string
	var origin audit.Origin
	h := newServer(&logbook{}, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		remote, origin = r.RemoteAddr, audit.From(r.Context())
	})).Handler()
	tests := []struct{ name, from, forwarded, want, network string }{
		{"no proxy", "198.51.100.1:1", "203.0.113.7", "198.51.100.1:1", "198.51.100.0/24"},
		{"the proxy", "10.0.0.1:1", "203.0.113.7", "203.0.113.7:0", "203.0.113.0/24"},
		{"two proxies", "10.0.0.1:1", "203.0.113.7, 10.0.0.2", "203.0.113.7:0", "203.0.113.0/24"},
		{"a forged hop in front", "10.0.0.1:1", "192.0.2.9, 203.0.113.7", "203.0.113.7:0", "203.0.113.0/24"},
		{"nonsense", "10.0.0.1:1", "x", "10.0.0.1:1", "10.0.0.0/24"},
		{"a proxy that adds ports", "10.0.0.1:1", "203.0.113.7:51234", "203.0.113.7:0", "203.0.113.0/24"},
		{"ports of version 6", "10.0.0.1:1", "[2001:db8:0:1::7]:51234, 10.0.0.2:443", "[2001:db8:0:1::7]:0", "2001:db8:0:1::/64"},
		{"version 6", "10.0.0.1:1", "2001:db8:0:1::7", "[2001:db8:0:1::7]:0", "2001:db8:0:1::/64"},
	}
	for _, tt := range tests {
		do(t, h, "GET", "/", "", "From", tt.from, "X-Forwarded-For", tt.forwarded)
		if remote != tt.want || origin.Network != tt.network {
			t.Errorf("%s: client %s in %s, want %s in %s", tt.name, remote, origin.Network, tt.want, tt.network)
		}
	}
	ours := "0190a000-proxy-made"
	if resp := do(t, h, "GET", "/", "", "From", "10.0.0.1:1", "X-Request-Id", ours); resp.Header.Get("X-Request-Id") != ours || origin.RequestID != ours {
		t.Errorf("the proxy's request id is not kept: %v", resp.Header)
	}
	for _, from := range []string{"198.51.100.1:1", "10.0.0.1:1"} {
		resp := do(t, h, "GET", "/", "", "From", from, "X-Request-Id", "a\"b c")
		if got := resp.Header.Get("X-Request-Id"); len(got) != 36 {
			t.Errorf("from %s: request id %q, want a new one", from, got)
		}
	}
}

func TestReadiness(t *testing.T) {
	log := &logbook{}
	db := testdb.New(t)
	s := newServer(log, http.NotFoundHandler(), func(o *Options) {
		o.Ready = func(ctx context.Context) error { return migrations.Check(ctx, db) }
	})
	for _, h := range []http.Handler{s.Handler(), s.admin()} {
		if resp := do(t, h, "GET", "/readyz", ""); resp.StatusCode != 200 {
			t.Errorf("ready: %d", resp.StatusCode)
		}
	}
	db.Close()
	for _, h := range []http.Handler{s.Handler(), s.admin()} {
		resp := do(t, h, "GET", "/readyz", "")
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != 503 || string(body) != "not ready\n" {
			t.Errorf("without a database: %d %q, %v", resp.StatusCode, body, err)
		}
		if resp := do(t, h, "GET", "/livez", ""); resp.StatusCode != 200 {
			t.Errorf("alive without a database: %d", resp.StatusCode)
		}
	}
}

func TestMetricsAreOnTheAdminSideOnly(t *testing.T) {
	db := testdb.New(t)
	q, err := jobs.New(db, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	router := chi.NewRouter()
	router.Get("/bills/{id}", func(http.ResponseWriter, *http.Request) {})
	s := newServer(&logbook{}, router)
	WatchDatabase(s.o.Metrics, db)
	WatchJobs(s.o.Metrics, q)
	do(t, s.Handler(), "GET", "/bills/7", "")
	if resp := do(t, s.Handler(), "GET", "/metrics", ""); resp.StatusCode != 404 {
		t.Errorf("metrics in public: %d", resp.StatusCode)
	}
	resp := do(t, s.admin(), "GET", "/metrics", "")
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%d, %v", resp.StatusCode, err)
	}
	for _, want := range []string{
		`guichet_http_requests_total{method="GET",route="/bills/{id}",status="200"} 1`, "guichet_db_connections_max 10", "go_goroutines",
	} {
		if !strings.Contains(string(body), want) {
			t.Errorf("metrics lack %q", want)
		}
	}
}

func TestStoppingLetsRequestsFinish(t *testing.T) {
	started, finish := make(chan struct{}), make(chan struct{})
	s := newServer(&logbook{}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(started)
		<-finish
		fmt.Fprint(w, "done")
	}))
	public, err := Listen("GUICHET_LISTEN", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	admin, err := Listen("GUICHET_ADMIN_LISTEN", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, public, admin) }()
	answered := make(chan error, 1)
	go func() {
		resp, err := http.Get("http://" + public.Addr().String())
		if err == nil {
			defer resp.Body.Close()
			body, readErr := io.ReadAll(resp.Body)
			if err = readErr; string(body) != "done" {
				err = errors.Join(err, fmt.Errorf("body %q", body))
			}
		}
		answered <- err
	}()
	<-started
	stop()
	<-s.stops
	close(finish)
	if err := <-answered; err != nil {
		t.Errorf("the request at work: %v", err)
	}
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if resp := do(t, s.Handler(), "GET", "/readyz", ""); resp.StatusCode != 503 {
		t.Errorf("ready while stopping: %d", resp.StatusCode)
	}
}

func TestPortInUseIsOneClearLine(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = Listen("--port", l.Addr().String())
	if err == nil || !strings.Contains(err.Error(), "--port: "+l.Addr().String()+" is in use by another program") {
		t.Errorf("err = %v", err)
	}
}

func TestBrokenListenerEndsTheOtherOne(t *testing.T) {
	s := newServer(&logbook{}, http.NotFoundHandler())
	public, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	admin, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	public.Close()
	served := make(chan error, 1)
	go func() { served <- s.Serve(t.Context(), public, admin) }()
	select {
	case err := <-served:
		if err == nil {
			t.Error("a broken listener is no error")
		}
	case <-time.After(time.Minute):
		t.Error("still serving")
	}
}
