// Package session connects a browser's cookies with the people behind them: who is
// the resident, who the member of staff, of this request?
//
//	cookie ──Load──▶ identity.Session, staff.Session ──▶ Resident(ctx), Staff(ctx)
//
// The two never mix: each has its own cookie, its own table, and its own way in. A cookie
// carries 256 random bits and nothing else. Every name has the prefix __Host-, so
// no other host of the city can set it; only development over http on loopback does without.
//
// What somebody may do is asked where it is done; here is only RequireResident and
// RequireStaff. The pages of signing in are in api/oidc.
package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"guichet/api/web"
	"guichet/identity"
	"guichet/identity/delegation"
	"guichet/identity/staff"
	"guichet/internal/audit"
)

// Options are what Sessions need.
type Options struct {
	BaseURL   string
	Residents *identity.Service
	Staff     *staff.Service
	Acting    *delegation.Service // nil: nobody acts for anybody
	Site      *web.Site
	Log       *slog.Logger
}

// Sessions reads and writes the cookies. It may be used by many goroutines at once.
type Sessions struct {
	residents *identity.Service
	staff     *staff.Service
	acting    *delegation.Service
	site      *web.Site
	log       *slog.Logger
	secure    bool
}

// New refuses a base URL over which a cookie could be read on the way.
func New(o Options) (*Sessions, error) {
	u, err := url.Parse(o.BaseURL)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("sessions: base URL %q is no address", o.BaseURL)
	}
	s := &Sessions{residents: o.Residents, staff: o.Staff, acting: o.Acting, site: o.Site, log: o.Log, secure: u.Scheme == "https"}
	if !s.secure {
		addr, err := netip.ParseAddr(u.Hostname())
		if u.Scheme != "http" || u.Hostname() != "localhost" && (err != nil || !addr.IsLoopback()) {
			return nil, fmt.Errorf("sessions: base URL %s: want https (http only on loopback)", o.BaseURL)
		}
		s.log.Warn("cookies are sent without Secure: development over http on loopback")
	}
	return s, nil
}

// The cookies. A browser keeps the sign-in cookie for as long as one step may take; the
// session cookies until it is closed, the server not even that long.
const (
	residentCookie = "guichet"
	guestCookie    = "guichet-guest"
	staffCookie    = "guichet-staff"
	signInCookie   = "guichet-signin"
	directory      = "guichet-directory" // a staff sign-in that is at the directory
	stepSeconds    = 600
)

func (s *Sessions) name(cookie string) string {
	if s.secure {
		return "__Host-" + cookie
	}
	return cookie
}

func (s *Sessions) read(r *http.Request, cookie string) string {
	c, err := r.Cookie(s.name(cookie))
	if err != nil {
		return ""
	}
	return c.Value
}

// write sets a cookie; maxAge 0 keeps it until the browser closes, below 0 deletes it.
func (s *Sessions) write(w http.ResponseWriter, cookie, value string, maxAge int) {
	http.SetCookie(w, &http.Cookie{
		Name: s.name(cookie), Value: value, Path: "/", MaxAge: maxAge,
		Secure: s.secure, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
}

// ResidentToken returns the session token that the browser holds, valid or not.
func (s *Sessions) ResidentToken(r *http.Request) string { return s.read(r, residentCookie) }

// SetResident gives the browser a resident's session; "" takes it away.
func (s *Sessions) SetResident(w http.ResponseWriter, token string) {
	s.write(w, residentCookie, token, gone(token))
}

// GuestToken returns the secret by which somebody without an account comes back to
// their checkouts in this browser.
func (s *Sessions) GuestToken(r *http.Request) string { return s.read(r, guestCookie) }

// SetGuest gives the browser that secret. It ends with the browser: the device may be shared.
func (s *Sessions) SetGuest(w http.ResponseWriter, secret string) {
	s.write(w, guestCookie, secret, gone(secret))
}

// SignOut takes the resident's session from the browser, and what its guest may see:
// whoever uses the device next must not find the receipts of whoever has left.
func (s *Sessions) SignOut(w http.ResponseWriter) {
	s.SetResident(w, "")
	s.SetGuest(w, "")
}

// StaffToken returns the staff session token that the browser holds, valid or not.
func (s *Sessions) StaffToken(r *http.Request) string { return s.read(r, staffCookie) }

// SetStaff gives the browser a staff session; "" takes it away.
func (s *Sessions) SetStaff(w http.ResponseWriter, token string) {
	s.write(w, staffCookie, token, gone(token))
}

// SignInBrowser returns the secret that binds sign-ins in progress to this browser.
func (s *Sessions) SignInBrowser(r *http.Request) string { return s.read(r, signInCookie) }

// SetSignInBrowser keeps that secret for one more step.
func (s *Sessions) SetSignInBrowser(w http.ResponseWriter, secret string) {
	s.write(w, signInCookie, secret, stepSeconds)
}

// DirectoryBrowser returns the secret that binds a staff sign-in to this browser.
func (s *Sessions) DirectoryBrowser(r *http.Request) string { return s.read(r, directory) }

// SetDirectoryBrowser keeps that secret; "" takes it away.
func (s *Sessions) SetDirectoryBrowser(w http.ResponseWriter, secret string) {
	if secret == "" {
		s.write(w, directory, "", -1)
		return
	}
	s.write(w, directory, secret, stepSeconds)
}

func gone(token string) int {
	if token == "" {
		return -1
	}
	return 0
}

type (
	residentKey struct{}
	staffKey    struct{}
	loadedKey   struct{}
)

// Resident returns the signed-in resident of a request.
func Resident(ctx context.Context) (identity.Person, bool) {
	p, ok := ctx.Value(residentKey{}).(identity.Person)
	return p, ok
}

// Staff returns the signed-in member of staff of a request.
func Staff(ctx context.Context) (staff.Member, bool) {
	m, ok := ctx.Value(staffKey{}).(staff.Member)
	return m, ok
}

// Load is the middleware that everything else here relies on. Loading twice costs
// nothing. When the database does not answer, nobody is taken for signed out: the
// request fails.
func (s *Sessions) Load(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Context().Value(loadedKey{}) != nil {
			next.ServeHTTP(w, r)
			return
		}
		ctx, err := s.load(r)
		if err != nil {
			s.log.ErrorContext(r.Context(), "read session", "error", err)
			s.site.Fail(w, r, http.StatusInternalServerError, "")
			return
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

func (s *Sessions) load(r *http.Request) (context.Context, error) {
	ctx := context.WithValue(r.Context(), loadedKey{}, true)
	origin := audit.From(ctx)
	origin.Actor, origin.ActorKind = audit.Guest, audit.Guest
	if token := s.ResidentToken(r); token != "" {
		p, err := s.residents.Session(ctx, token)
		switch {
		case err == nil:
			ctx = web.WithLang(context.WithValue(ctx, residentKey{}, p), p.Lang)
			origin.Actor, origin.ActorKind = p.ID, audit.Resident
			if ctx, err = s.loadActing(ctx, p); err != nil {
				return nil, err
			}
		case !errors.Is(err, identity.ErrNoSession):
			return nil, err
		}
	}
	if token := s.StaffToken(r); token != "" {
		m, err := s.staff.Session(ctx, token)
		switch {
		case err == nil:
			ctx = context.WithValue(ctx, staffKey{}, m)
			if ForStaff(r) {
				origin.Actor, origin.ActorKind = m.ID, audit.Staff
			}
		case !errors.Is(err, staff.ErrNoSession):
			return nil, err
		}
	}
	return audit.With(ctx, origin), nil
}

// ForStaff reports whether a request is for the staff side of the house: there the
// member of staff acts, whoever else is signed in in the same browser.
func ForStaff(r *http.Request) bool {
	first, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	return first == "desk" || first == "staff"
}

// RequireResident sends whoever is not signed in to sign in and then back. A form
// that was posted is lost: the person comes back to the page.
func RequireResident(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, ok := Resident(r.Context()); !ok {
			http.Redirect(w, r, "/signin?return="+url.QueryEscape(backTo(r)), http.StatusSeeOther)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// RequireStaff lets in members of staff who hold one of the roles, for any
// department: which one is asked where it is known. Others see 403.
func (s *Sessions) RequireStaff(roles ...string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			m, ok := Staff(r.Context())
			if !ok {
				http.Redirect(w, r, "/staff/signin?return="+url.QueryEscape(backTo(r)), http.StatusSeeOther)
				return
			}
			if !slices.ContainsFunc(m.Roles, func(held staff.Role) bool { return slices.Contains(roles, held.Name) }) {
				s.site.Fail(w, r, http.StatusForbidden, "")
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// RequireFresh lets in members of staff whom the directory has just seen prove who they
// are, and sends others to do so and then back: what a forgotten screen must not approve. A form
// that was posted is lost: the person comes back to its page.
func RequireFresh(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if m, _ := Staff(r.Context()); !m.Fresh {
			http.Redirect(w, r, "/staff/signin?fresh=1&return="+url.QueryEscape(backTo(r)), http.StatusSeeOther)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func backTo(r *http.Request) string {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return r.URL.EscapedPath()
	}
	return r.URL.RequestURI()
}

// LocalPath returns path if it leads to a page of ours, else "/". What a browser might
// read as another host ("//evil", "/\evil", a tab between) does not pass.
func LocalPath(path string) string {
	if len(path) > 2000 || !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") ||
		strings.ContainsFunc(path, func(r rune) bool { return r == '\\' || r <= ' ' || r > '~' }) {
		return "/"
	}
	if u, err := url.Parse(path); err != nil || u.Host != "" || u.Scheme != "" {
		return "/"
	}
	return path
}

// Viewer is the person reading, for the frame of every page.
func Viewer(r *http.Request) web.Viewer {
	if ForStaff(r) {
		v := web.Viewer{SignIn: "/staff/signin", SignOut: "/staff/signout"}
		if m, ok := Staff(r.Context()); ok {
			v.Name = m.Name
			switch {
			case m.BreakGlass:
				v.Alarm = "web.alarm.yours"
			case m.Alarm:
				v.Alarm = "web.alarm.others"
			}
		}
		return v
	}
	v := web.Viewer{SignIn: "/signin", SignOut: "/signout"}
	if p, ok := Resident(r.Context()); ok {
		v.Name = p.Name
		v.Acting, v.Contexts = actingView(r.Context())
	}
	return v
}
