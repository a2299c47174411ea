package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-jose/go-jose/v4"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"guichet/api/oidc"
	"guichet/api/session"
	"guichet/api/web"
	"guichet/department"
	"guichet/identity"
	"guichet/identity/provider"
	"guichet/identity/staff"
	"guichet/internal/database"
	"guichet/internal/id"
	"guichet/internal/jobs"
	"guichet/internal/mail"
	"guichet/internal/seal"
)

// oidcBench measures the complete code flow of a person who is signed in (authorize, token,
// userinfo, over HTTP on loopback, ES256) beside the two things it cannot do without:
//
//	flow        the three requests; callers are people of their own
//	signing     one ES256 signature, as an ID token needs
//	roundtrips  six statements "select 1", one after the other, as many as the flow takes
//
// A flow that does not end with the person's claims is counted as failed and not as done.
func oidcBench(ctx context.Context, l *lab) error {
	b, err := openOIDC(ctx, l)
	if err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	defer b.close()
	for _, callers := range l.Callers {
		suffix := ""
		if callers != slices.Max(l.Callers) {
			suffix = fmt.Sprintf("_%d", callers)
		}
		b.failed.Store(0)
		ratios := [][2]string{{"flow", "signing"}, {"flow", "roundtrips"}}
		if err := l.compare(ctx, callers, suffix, ratios, b.flow(), b.signing(), b.roundtrips()); err != nil {
			return err
		}
		l.Counts[fmt.Sprintf("failed_%d", callers)] = int(b.failed.Load())
	}
	return nil
}

// flowTrips is how many round trips a flow takes; a test of api/oidc holds it to that.
const flowTrips = 6

// An oidcLab is the provider behind HTTP, with people who are signed in.
type oidcLab struct {
	db       *pgxpool.Pool
	srv      *httptest.Server
	url      string // of srv, by name: passkeys want no bare address
	code     string // last one mailed
	secret   string
	people   []*http.Client
	failed   atomic.Int64
	why      atomic.Pointer[string] // of the first failure
	signer   jose.Signer
	verifier string
}

// Enqueue is the mail of the bench: it keeps the code.
func (b *oidcLab) Enqueue(_ context.Context, _ pgx.Tx, m mail.Message) error {
	b.code = m.Data["code"]
	return nil
}

func (b *oidcLab) close() {
	if b.srv != nil {
		b.srv.Close()
	}
	if b.db != nil {
		b.db.Close()
	}
}

func openOIDC(ctx context.Context, l *lab) (_ *oidcLab, err error) {
	most := slices.Max(l.Callers)
	b := &oidcLab{verifier: id.Secret()}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	if b.db, err = database.Open(ctx, l.url, database.Options{MaxConns: int32(most) + 2}); err != nil {
		return nil, err
	}
	var handler http.Handler
	b.srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	b.url = strings.Replace(b.srv.URL, "127.0.0.1", "localhost", 1)
	people, err := b.open(ctx, &handler)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if b.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, nil); err != nil {
		return nil, err
	}
	for i := range most {
		if err := b.signIn(ctx, people, fmt.Sprintf("demo.%d@example.com", i)); err != nil {
			return nil, fmt.Errorf("sign in: %w", err)
		}
	}
	return b, nil
}

// open wires the identity side and registers one client.
func (b *oidcLab) open(ctx context.Context, handler *http.Handler) (*identity.Service, error) {
	log, raw := slog.New(slog.DiscardHandler), make([]byte, seal.Size)
	rand.Read(raw) // never fails: crypto/rand crashes the program instead
	master, err := seal.New(raw)
	if err != nil {
		return nil, err
	}
	queue, err := jobs.New(b.db, log)
	if err != nil {
		return nil, err
	}
	wide := identity.Limit{Burst: 1_000_000, Per: time.Minute}
	people, err := identity.New(ctx, b.db, identity.Config{Now: time.Now, BaseURL: b.url, Master: master, Mail: b, Limits: identity.Limits{
		CodeAgain: wide, CodeAddress: wide, CodeTotal: wide, CodeNetwork: wide, TryAddress: wide, TryNetwork: wide,
	}})
	if err != nil {
		return nil, err
	}
	p, err := provider.New(ctx, b.db, people, provider.Config{Issuer: b.url, Now: time.Now, Master: master, Queue: queue, Development: true})
	if err != nil {
		return nil, err
	}
	if err := p.TendKeys(ctx); err != nil {
		return nil, err
	}
	members := staff.New(b.db, staff.Config{Now: time.Now})
	site := web.New(web.Options{BaseURL: b.url, Dev: true, Log: log, Viewer: session.Viewer})
	sessions, err := session.New(session.Options{BaseURL: b.url, Residents: people, Staff: members, Site: site, Log: log})
	if err != nil {
		return nil, err
	}
	h, err := oidc.New(oidc.Options{
		Issuer: b.url, Provider: p, People: people, Staff: members, Sessions: sessions, Site: site, Now: time.Now, Log: log,
	})
	if err != nil {
		return nil, err
	}
	r := chi.NewRouter()
	h.Routes(r)
	*handler = r
	depts := department.New(b.db, master, queue, time.Now)
	return people, pgx.BeginFunc(ctx, b.db, func(tx pgx.Tx) error {
		d, err := depts.Create(ctx, tx, department.Department{Code: "parking", NameEN: "Parking", NameFR: "Stationnement"})
		if err != nil {
			return err
		}
		created, err := p.CreateClient(ctx, tx, provider.NewClient{
			ID: "portal", DepartmentID: d.ID, Name: provider.Words{EN: "Portal", FR: "Portail"}, FirstParty: true, RedirectURIs: []string{"https://portal.example/callback"},
		})
		b.secret = created.Secret
		return err
	})
}

// signIn makes a person, gives them a browser with their session, and answers the notice.
func (b *oidcLab) signIn(ctx context.Context, people *identity.Service, email string) error {
	p, browser, err := people.Begin(ctx, identity.NewPending{ReturnPath: "/"}, "")
	if err != nil {
		return err
	}
	if err := people.AskCode(ctx, identity.CodeRequest{Pending: p.ID, Browser: browser, Email: email, Lang: "en"}); err != nil {
		return err
	}
	if _, err := people.TryCode(ctx, identity.CodeTry{Pending: p.ID, Browser: browser, Code: b.code}); err != nil {
		return err
	}
	in, err := people.Register(ctx, identity.Registration{Pending: p.ID, Browser: browser, Name: "Demo Resident", Lang: "en"})
	if err != nil {
		return err
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		return err
	}
	u, err := url.Parse(b.url)
	if err != nil {
		return err
	}
	jar.SetCookies(u, []*http.Cookie{{Name: "guichet", Value: in.Token, Path: "/"}})
	c := &http.Client{
		Jar: jar, Transport: &http.Transport{MaxIdleConnsPerHost: 2},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	b.people = append(b.people, c)
	page, _, err := b.do(ctx, c, http.MethodGet, b.authorizeURL(), nil)
	if err != nil {
		return err
	}
	_, _, err = b.do(ctx, c, http.MethodPost, b.url+page.Get("Location"), url.Values{"do": {"agree"}})
	return err
}

func (b *oidcLab) authorizeURL() string {
	sum := sha256.Sum256([]byte(b.verifier))
	return b.url + "/oidc/authorize?" + url.Values{
		"client_id": {"portal"}, "redirect_uri": {"https://portal.example/callback"}, "response_type": {"code"}, "scope": {"openid profile email"},
		"state": {"s"}, "nonce": {"n"}, "code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"},
	}.Encode()
}

// do sends one request; a token as the form's "access_token" goes into the header.
func (b *oidcLab) do(ctx context.Context, c *http.Client, method, to string, form url.Values) (http.Header, []byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, to, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, nil, err
	}
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	switch {
	case form.Has("grant_type"):
		r.SetBasicAuth("portal", url.QueryEscape(b.secret))
	case form.Has("access_token"):
		r.Header.Set("Authorization", "Bearer "+form.Get("access_token"))
		r.Body = http.NoBody
		r.ContentLength = 0
	}
	resp, err := c.Do(r)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= http.StatusBadRequest {
		err = fmt.Errorf("%s: %d %s", r.URL.Path, resp.StatusCode, body)
	}
	return resp.Header, body, err
}

// once is one flow, from the session to the claims.
func (b *oidcLab) once(ctx context.Context, c *http.Client) error {
	back, _, err := b.do(ctx, c, http.MethodGet, b.authorizeURL(), nil)
	if err != nil {
		return err
	}
	at, err := url.Parse(back.Get("Location"))
	if err != nil {
		return err
	}
	_, body, err := b.do(ctx, c, http.MethodPost, b.url+"/oidc/token", url.Values{
		"grant_type": {"authorization_code"}, "code": {at.Query().Get("code")}, "redirect_uri": {"https://portal.example/callback"}, "code_verifier": {b.verifier},
	})
	if err != nil {
		return err
	}
	var t struct {
		Access string `json:"access_token"`
	}
	if err := json.Unmarshal(body, &t); err != nil {
		return err
	}
	_, body, err = b.do(ctx, c, http.MethodGet, b.url+"/oidc/userinfo", url.Values{"access_token": {t.Access}})
	if err == nil && !strings.Contains(string(body), `"email":"demo.`) {
		err = errors.New("userinfo without the person's claims")
	}
	return err
}

func (b *oidcLab) flow() contender {
	return contender{"flow", func(ctx context.Context, callers int, d time.Duration) (sample, error) {
		before := b.failed.Load()
		s, err := load(ctx, callers, d, func(ctx context.Context, caller, _ int) error {
			if err := b.once(ctx, b.people[caller]); err != nil {
				b.failed.Add(1)
				text := err.Error()
				b.why.CompareAndSwap(nil, &text)
			}
			return ctx.Err()
		})
		s.done -= int(b.failed.Load() - before)
		if why := b.why.Load(); why != nil {
			s.note = "first failure: " + *why
		}
		return s, err
	}}
}

func (b *oidcLab) signing() contender {
	claims := []byte(`{"iss":"https://pay.example","sub":"` + id.Secret() + `","aud":"portal","exp":1,"iat":1,"nonce":"n"}`)
	return contender{"signing", func(ctx context.Context, callers int, d time.Duration) (sample, error) {
		return load(ctx, callers, d, func(context.Context, int, int) error {
			jws, err := b.signer.Sign(claims)
			if err != nil {
				return err
			}
			_, err = jws.CompactSerialize()
			return err
		})
	}}
}

func (b *oidcLab) roundtrips() contender {
	return contender{"roundtrips", func(ctx context.Context, callers int, d time.Duration) (sample, error) {
		return load(ctx, callers, d, func(ctx context.Context, _, _ int) error {
			for range flowTrips {
				var one int
				if err := b.db.QueryRow(ctx, "select 1").Scan(&one); err != nil {
					return err
				}
			}
			return nil
		})
	}}
}
