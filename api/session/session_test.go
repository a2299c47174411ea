package session_test

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"guichet/api/session"
	"guichet/api/web"
	"guichet/identity"
	"guichet/identity/staff"
	"guichet/internal/audit"
	"guichet/internal/mail"
	"guichet/internal/seal"
	"guichet/internal/testdb"
)

type noMail struct{}

func (noMail) Enqueue(context.Context, pgx.Tx, mail.Message) error { return nil }

func open(t *testing.T, db *pgxpool.Pool, baseURL string) *session.Sessions {
	t.Helper()
	raw := make([]byte, seal.Size)
	rand.Read(raw)
	master, err := seal.New(raw)
	if err != nil {
		t.Fatal(err)
	}
	now := func() time.Time { return time.Date(2026, 6, 1, 14, 0, 0, 0, time.UTC) }
	people, err := identity.New(t.Context(), db, identity.Config{Now: now, BaseURL: baseURL, Master: master, Mail: noMail{}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := session.New(session.Options{
		BaseURL: baseURL, Residents: people, Staff: staff.New(db, staff.Config{Now: now}),
		Site: web.New(web.Options{BaseURL: baseURL}), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCookies(t *testing.T) {
	for base, want := range map[string]string{
		"https://pay.example.ca": "__Host-guichet=token; Path=/; HttpOnly; Secure; SameSite=Lax",
		"http://localhost:8080":  "guichet=token; Path=/; HttpOnly; SameSite=Lax",
	} {
		s, w := open(t, testdb.New(t), base), httptest.NewRecorder()
		s.SetResident(w, "token")
		s.SetStaff(w, "token")
		s.SetSignInBrowser(w, "secret")
		s.SetDirectoryBrowser(w, "secret")
		s.SetGuest(w, "secret")
		set := w.Header().Values("Set-Cookie")
		if set[0] != want {
			t.Errorf("%s: %s, want %s", base, set[0], want)
		}
		for _, c := range set {
			if strings.Contains(c, "Domain") || strings.HasPrefix(c, "__Host-") != strings.HasPrefix(base, "https") || !strings.Contains(c, "HttpOnly") || !strings.Contains(c, "SameSite=Lax") {
				t.Errorf("%s: %s", base, c)
			}
		}
		if strings.Contains(set[4], "Max-Age") {
			t.Errorf("%s: a guest stays longer than the browser: %s", base, set[4])
		}
		if !strings.Contains(set[2], "Max-Age=600") || !strings.Contains(set[3], "Max-Age=600") {
			t.Errorf("%s: a sign-in in progress lives as %v", base, set[2:])
		}
	}
}

func TestBaseURLThatLeaksCookiesIsRefused(t *testing.T) {
	for _, base := range []string{"http://pay.example.ca", "http://192.168.1.2", "ftp://localhost", "localhost:8080", ""} {
		if _, err := session.New(session.Options{BaseURL: base, Log: slog.New(slog.DiscardHandler)}); err == nil {
			t.Errorf("%q is accepted", base)
		}
	}
}

func TestADatabaseThatDoesNotAnswerSignsNobodyOut(t *testing.T) {
	db := testdb.New(t)
	s := open(t, db, "http://localhost:8080")
	h := s.Load(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the request went on") }))
	db.Close()
	for _, cookie := range []string{"guichet", "guichet-staff"} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.AddCookie(&http.Cookie{Name: cookie, Value: strings.Repeat("A", 43)})
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusInternalServerError {
			t.Errorf("%s: status %d, want 500", cookie, w.Code)
		}
	}
}

func TestAGuestIsWrittenDownAsOne(t *testing.T) {
	s := open(t, testdb.New(t), "http://localhost:8080")
	var got audit.Origin
	h := s.Load(s.Load(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = audit.From(r.Context()) })))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
	if got.ActorKind != audit.Guest {
		t.Errorf("origin %+v", got)
	}
}

func TestRequireSendsToTheRightDoor(t *testing.T) {
	s := open(t, testdb.New(t), "http://localhost:8080")
	never := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("let in") })
	tests := []struct {
		h                http.Handler
		method, to, want string
	}{
		{session.RequireResident(never), "GET", "/bills?open=1", "/signin?return=%2Fbills%3Fopen%3D1"},
		{session.RequireResident(never), "POST", "/bills/7?x=1", "/signin?return=%2Fbills%2F7"},
		{s.RequireStaff(staff.Auditor)(never), "GET", "/desk/books", "/staff/signin?return=%2Fdesk%2Fbooks"},
	}
	for _, tt := range tests {
		w := httptest.NewRecorder()
		s.Load(tt.h).ServeHTTP(w, httptest.NewRequest(tt.method, tt.to, nil))
		if w.Code != http.StatusSeeOther || w.Header().Get("Location") != tt.want {
			t.Errorf("%s %s: %d %s, want %s", tt.method, tt.to, w.Code, w.Header().Get("Location"), tt.want)
		}
	}
}

func TestLocalPath(t *testing.T) {
	for in, want := range map[string]string{
		"/bills?open=1": "/bills?open=1", "/": "/", "": "/", "bills": "/", "//evil.example": "/", `/\evil.example`: "/", "/\t/evil": "/", "https://evil.example": "/",
		"javascript:alert(1)": "/", "/a\r\nX: 1": "/", "/%zz": "/", "/é": "/", "/" + strings.Repeat("a", 2000): "/",
	} {
		if got := session.LocalPath(in); got != want {
			t.Errorf("LocalPath(%q) = %q, want %q", in, got, want)
		}
	}
}

// Whatever passes leads to our own host, as a browser reads it.
func FuzzLocalPath(f *testing.F) {
	for _, s := range []string{"/bills", "//evil", `/\evil`, "/\t//evil", "https:/evil", "/..//evil"} {
		f.Add(s)
	}
	base := &url.URL{Scheme: "https", Host: "pay.example"}
	f.Fuzz(func(t *testing.T, in string) {
		got := session.LocalPath(in)
		u, err := base.Parse(got)
		if err != nil || u.Host != base.Host || u.Scheme != base.Scheme || strings.ContainsAny(got, "\\\r\n\t") {
			t.Errorf("LocalPath(%q) = %q leads to %v, %v", in, got, u, err)
		}
	})
}

func TestVisitorIsCoarse(t *testing.T) {
	for remote, want := range map[string]string{
		"203.0.113.77:5000": "203.0.113.0/24", "[2001:db8:1:2:3:4:5:6]:5000": "2001:db8:1:2::/64", "[::ffff:203.0.113.77]:1": "203.0.113.0/24", "[fe80::1%eth0]:1": "fe80::/64", "@": "", "": "",
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = remote
		if got := session.Visitor(r).Network; got != want {
			t.Errorf("network of %q = %q, want %q", remote, got, want)
		}
	}
	for agent, want := range map[string]string{
		"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0":                                                                  "Firefox, Linux",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36 Edg/140.0":               "Edge, Windows",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1": "Safari, iPhone",
		"curl/8.0": "", "": "",
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("User-Agent", agent)
		if got := session.Visitor(r).Device; got != want {
			t.Errorf("device %q, want %q", got, want)
		}
	}
}
