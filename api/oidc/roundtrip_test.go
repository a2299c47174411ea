package oidc_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"guichet/identity/provider"
	"guichet/internal/testdb"
)

// A tripCounter counts what a program waits for the database: one for each statement,
// one for each batch, and begin and commit as well.
type tripCounter struct {
	mu    sync.Mutex
	trips []string
}

func (c *tripCounter) note(sql string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	line, _, _ := strings.Cut(strings.TrimSpace(sql), "\n")
	c.trips = append(c.trips, line)
}

func (c *tripCounter) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trips = nil
}

func (c *tripCounter) all() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.trips)
}

func (c *tripCounter) TraceQueryStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryStartData) context.Context {
	c.note(d.SQL)
	return ctx
}

func (c *tripCounter) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (c *tripCounter) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	c.note("batch")
	return ctx
}

func (c *tripCounter) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (c *tripCounter) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}

// traced opens a test database again under a counter.
func traced(t *testing.T) (*pgxpool.Pool, *tripCounter) {
	t.Helper()
	c := &tripCounter{}
	config := testdb.New(t).Config()
	config.ConnConfig.Tracer = c
	db, err := pgxpool.NewWithConfig(t.Context(), config)
	must(t, err)
	t.Cleanup(db.Close)
	return db, c
}

func TestACodeFlowTakesSixRoundTrips(t *testing.T) {
	db, count := traced(t)
	w := newWorldOn(t, db)
	a := w.parking()
	b := w.browser()
	b.code(a, "demo@example.com")
	flow := func() {
		tok := a.redeem(b.again(a))
		if status, info := w.userinfo(tok.AccessToken); status != http.StatusOK || info["email"] != "demo@example.com" {
			t.Fatalf("userinfo %d %v", status, info)
		}
	}
	flow() // a new sub and sid, and statements to prepare
	count.reset()
	flow()
	if trips := count.all(); len(trips) > 6 || len(trips) == 0 {
		t.Errorf("%d round trips, want at most 6:\n%s", len(trips), strings.Join(trips, "\n"))
	}
}

// Eight flows of one person at once: nobody waits for a lock until it fails, and nothing is
// tried again for want of serializability.
func TestEightFlowsWithRefreshAtTwoClientsAtOnce(t *testing.T) {
	w := newWorld(t)
	dept := w.department("parking", "Parking")
	apps := []*app{w.offline("portal-a", dept, provider.NewClient{}), w.offline("portal-b", dept, provider.NewClient{})}
	b := w.browser()
	b.code(apps[0], "demo@example.com")
	cookie := b.cookie("guichet")
	var wg sync.WaitGroup
	for i := range 8 {
		a := apps[i%2] // portal-b has no sid in this session yet: they race for it, too
		other := w.browser()
		other.setCookie("guichet", cookie)
		wg.Go(func() {
			for range 3 {
				got := other.get(a.authorizeURL(with(a.request(), "scope", "openid profile email offline_access")))
				tok := a.redeem(got.query().Get("code"))
				if next := a.refresh(tok.RefreshToken); next.status != http.StatusOK {
					t.Errorf("authorize %d %s, token %d %s, refresh %d %s", got.status, got.location, tok.status, tok.body, next.status, next.body)
				}
			}
		})
	}
	wg.Wait()
	var sids, subs int
	must(t, w.db.QueryRow(t.Context(), `select count(distinct sid), count(distinct sub) from identity.client_grant`).Scan(&sids, &subs))
	if sids != 2 || subs != 1 {
		t.Errorf("%d sids and %d subs, want 2 and 1", sids, subs)
	}
}
