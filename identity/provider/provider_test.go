package provider_test

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"guichet/identity"
	"guichet/identity/provider"
	"guichet/internal/approval"
	"guichet/internal/id"
	"guichet/internal/jobs"
	"guichet/internal/mail"
	"guichet/internal/seal"
	"guichet/internal/testdb"
)

type noMail struct{}

func (noMail) Enqueue(context.Context, pgx.Tx, mail.Message) error { return nil }

type world struct {
	*provider.Service
	db         *pgxpool.Pool
	master     *seal.Key
	people     *identity.Service
	queue      *jobs.Queue
	department string
	now        time.Time
}

func newWorld(t *testing.T, development bool) *world {
	t.Helper()
	w := &world{db: testdb.New(t), department: id.New(), now: time.Date(2026, 6, 1, 14, 0, 0, 0, time.UTC)}
	raw := make([]byte, seal.Size)
	rand.Read(raw)
	var err error
	if w.master, err = seal.New(raw); err != nil {
		t.Fatal(err)
	}
	if w.queue, err = jobs.New(w.db, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	w.people, err = identity.New(t.Context(), w.db, identity.Config{Now: w.clock, BaseURL: "https://guichet.example", Master: w.master, Mail: noMail{}})
	if err != nil {
		t.Fatal(err)
	}
	w.Service = w.instance(t, development)
	_, err = w.db.Exec(t.Context(), `
		insert into department.department (id, code, name_en, name_fr, created_at) values ($1, 'parking', 'Parking', 'Stationnement', $2)`,
		w.department, w.now)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) clock() time.Time { return w.now }

// instance is one more replica on the same database.
func (w *world) instance(t *testing.T, development bool) *provider.Service {
	t.Helper()
	s, err := provider.New(t.Context(), w.db, w.people, provider.Config{Issuer: "https://pay.example", Now: w.clock, Master: w.master, Queue: w.queue, Development: development})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (w *world) in(t *testing.T, f func(tx pgx.Tx) error) error {
	t.Helper()
	return pgx.BeginFunc(t.Context(), w.db, f)
}

func (w *world) parking() provider.NewClient {
	return provider.NewClient{
		By: "admin-1", ID: "parking-portal", DepartmentID: w.department, Name: provider.Words{EN: "Parking", FR: "Stationnement"},
		RedirectURIs: []string{"https://parking.example/b", "https://parking.example/a"},
	}
}

func TestNewClientWaitsForASecondPerson(t *testing.T) {
	w := newWorld(t, false)
	var created provider.Created
	err := w.in(t, func(tx pgx.Tx) (err error) {
		created, err = w.CreateClient(t.Context(), tx, w.parking())
		return err
	})
	if err != nil || created.Approval == "" || len(created.Secret) != 43 {
		t.Fatalf("created %+v, %v", created, err)
	}
	if _, err := w.Client(t.Context(), "parking-portal"); !errors.Is(err, provider.ErrNotFound) {
		t.Errorf("a proposed client works: %v", err)
	}
	approve := func(by string) error {
		return w.in(t, func(tx pgx.Tx) error {
			return w.Approve(t.Context(), tx, approval.Decision{ID: created.Approval, By: by, At: w.now})
		})
	}
	if err := approve("admin-1"); !errors.Is(err, approval.ErrSamePerson) {
		t.Errorf("the requester approves: %v", err)
	}
	if _, err := w.db.Exec(t.Context(), `insert into identity.client_uri (client_id, kind, uri, state, approval_id, created_at) values ('parking-portal', 'redirect', 'https://evil.example/', 'proposed', $1, $2)`, created.Approval, w.now); err != nil {
		t.Fatal(err)
	}
	if err := approve("admin-2"); !errors.Is(err, approval.ErrChanged) {
		t.Errorf("an address slipped in between: %v", err)
	}
	if _, err := w.db.Exec(t.Context(), `delete from identity.client_uri where uri = 'https://evil.example/'`); err != nil {
		t.Fatal(err)
	}
	if err := approve("admin-2"); err != nil {
		t.Fatal(err)
	}
	c, err := w.Client(t.Context(), "parking-portal")
	if err != nil || !slices.Equal(c.RedirectURIs, []string{"https://parking.example/a", "https://parking.example/b"}) || c.AuthMethod != provider.SecretBasic || c.Alg != provider.ES256 {
		t.Errorf("client %+v, %v", c, err)
	}
	if _, err := w.Authenticate(t.Context(), provider.Credentials{ClientID: "parking-portal", Secret: created.Secret, Method: provider.SecretBasic}, identity.Visitor{}); err != nil {
		t.Errorf("its secret: %v", err)
	}
}

func TestMoreAddressesWaitForASecondPerson(t *testing.T) {
	for _, yes := range []bool{true, false} {
		dev, w := true, newWorld(t, true)
		if err := w.in(t, func(tx pgx.Tx) error { _, err := w.CreateClient(t.Context(), tx, w.parking()); return err }); err != nil {
			t.Fatal(err)
		}
		dev = false
		w.Service = w.instance(t, dev)
		const more = "https://parking.example/c"
		var asked string
		err := w.in(t, func(tx pgx.Tx) (err error) {
			asked, err = w.AddAddresses(t.Context(), tx, "parking-portal", []string{more, "https://parking.example/a"}, []string{"https://parking.example/bye"}, "admin-1")
			return err
		})
		if err != nil || asked == "" {
			t.Fatalf("ask: %q, %v", asked, err)
		}
		if c, err := w.Client(t.Context(), "parking-portal"); err != nil || slices.Contains(c.RedirectURIs, more) {
			t.Errorf("a proposed address is followed: %v, %v", c.RedirectURIs, err)
		}
		d := approval.Decision{ID: asked, By: "admin-2", At: w.now}
		err = w.in(t, func(tx pgx.Tx) error {
			if yes {
				return w.Approve(t.Context(), tx, d)
			}
			return w.Refuse(t.Context(), tx, d)
		})
		if err != nil {
			t.Fatal(err)
		}
		c, err := w.Client(t.Context(), "parking-portal")
		if err != nil || slices.Contains(c.RedirectURIs, more) != yes || len(c.PostLogout) == 1 != yes {
			t.Errorf("decided %v: %+v, %v", yes, c, err)
		}
		if err := w.in(t, func(tx pgx.Tx) error {
			return w.RemoveAddress(t.Context(), tx, "parking-portal", "https://parking.example/a", "admin-1")
		}); err != nil {
			t.Fatal(err)
		}
		if c, err = w.Client(t.Context(), "parking-portal"); err != nil || slices.Contains(c.RedirectURIs, "https://parking.example/a") {
			t.Errorf("a removed address is followed: %v, %v", c.RedirectURIs, err)
		}
	}
}

func TestCreateClientRefuses(t *testing.T) {
	w := newWorld(t, false)
	tests := map[string]func(*provider.NewClient){
		"a name with spaces":       func(n *provider.NewClient) { n.ID = "parking portal" },
		"no requester":             func(n *provider.NewClient) { n.By = "" },
		"no address":               func(n *provider.NewClient) { n.RedirectURIs = nil },
		"one language":             func(n *provider.NewClient) { n.Name.FR = "" },
		"a wildcard":               func(n *provider.NewClient) { n.RedirectURIs = []string{"https://*.parking.example/"} },
		"a fragment":               func(n *provider.NewClient) { n.RedirectURIs = []string{"https://parking.example/#x"} },
		"a user name":              func(n *provider.NewClient) { n.RedirectURIs = []string{"https://a@parking.example/"} },
		"a backslash":              func(n *provider.NewClient) { n.RedirectURIs = []string{`https://parking.example\@evil/`} },
		"http":                     func(n *provider.NewClient) { n.RedirectURIs = []string{"http://parking.example/"} },
		"loopback for a web app":   func(n *provider.NewClient) { n.RedirectURIs = []string{"http://127.0.0.1/"} },
		"another scheme":           func(n *provider.NewClient) { n.PostLogout = []string{"javascript:alert(1)"} },
		"a relative address":       func(n *provider.NewClient) { n.RedirectURIs = []string{"/callback"} },
		"a host in capitals":       func(n *provider.NewClient) { n.RedirectURIs = []string{"https://Parking.example/"} },
		"a scope nobody has":       func(n *provider.NewClient) { n.Scopes = []string{"openid", "admin"} },
		"no openid":                func(n *provider.NewClient) { n.Scopes = []string{"profile"} },
		"a native app's secret":    func(n *provider.NewClient) { n.Type, n.AuthMethod = provider.Native, provider.SecretBasic },
		"a web app without secret": func(n *provider.NewClient) { n.AuthMethod = provider.NoSecret },
		"an algorithm":             func(n *provider.NewClient) { n.Alg = "none" },
		"a resource with fragment": func(n *provider.NewClient) { n.Resources = []string{"https://api.example/#x"} },
	}
	for name, change := range tests {
		n := w.parking()
		change(&n)
		if err := w.in(t, func(tx pgx.Tx) error { _, err := w.CreateClient(t.Context(), tx, n); return err }); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	n := w.parking()
	if err := w.in(t, func(tx pgx.Tx) error { _, err := w.CreateClient(t.Context(), tx, n); return err }); err != nil {
		t.Errorf("the unbroken one: %v", err)
	}
}

func kids(t *testing.T, s *provider.Service) []string {
	t.Helper()
	set, err := s.JWKS(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, k := range set.Keys {
		if k.Algorithm == provider.ES256 {
			out = append(out, k.KeyID)
		}
	}
	slices.Sort(out)
	return out
}

// states are the ES256 keys by state, as stored.
func (w *world) states(t *testing.T) map[string]string {
	t.Helper()
	rows, err := w.db.Query(t.Context(), `select state, kid from identity.signing_key where alg = 'ES256' order by created_at limit 20`)
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]string{}
	var state, kid string
	if _, err := pgx.ForEachRow(rows, []any{&state, &kid}, func() error { m[state] = kid; return nil }); err != nil {
		t.Fatal(err)
	}
	return m
}

// oidcc-server-rotate-keys
func TestKeysRotate(t *testing.T) {
	w := newWorld(t, true)
	tend := func() {
		t.Helper()
		if err := w.TendKeys(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	tend()
	first := w.states(t)
	tend()
	if second := w.states(t); second["active"] != first["active"] || second["next"] != first["next"] {
		t.Errorf("tending twice changed keys: %v, %v", first, second)
	}
	w.now = w.now.Add(90*24*time.Hour - time.Minute)
	tend()
	if got := w.states(t); got["active"] != first["active"] {
		t.Error("the key changed before its 90 days")
	}
	w.now = w.now.Add(time.Minute)
	tend()
	rotated := w.states(t)
	if rotated["active"] != first["next"] || rotated["retiring"] != first["active"] || rotated["next"] == "" || rotated["next"] == first["next"] {
		t.Errorf("after 90 days: %v, before: %v", rotated, first)
	}
	published := kids(t, w.Service)
	if !slices.Contains(published, first["active"]) || len(published) != 3 {
		t.Errorf("published: %v", published)
	}
	var private []byte
	if err := w.db.QueryRow(t.Context(), `select private from identity.signing_key where kid = $1`, first["active"]).Scan(&private); err != nil || private != nil {
		t.Errorf("the retired private key is kept: %d bytes, %v", len(private), err)
	}
	w.now = w.now.Add(8 * 24 * time.Hour)
	tend()
	if slices.Contains(kids(t, w.Service), first["active"]) {
		t.Error("the retired key is still published after 8 days")
	}
}

func TestTheNextKeyIsPublishedADayBeforeItSigns(t *testing.T) {
	w := newWorld(t, true)
	if err := w.TendKeys(t.Context()); err != nil {
		t.Fatal(err)
	}
	first := w.states(t)
	w.now = w.now.Add(91 * 24 * time.Hour)
	// The next key was lost and is made anew only now.
	if _, err := testdb.Owner(t, w.db).Exec(t.Context(), `delete from identity.signing_key where state = 'next'`); err != nil {
		t.Fatal(err)
	}
	for _, after := range []time.Duration{0, 23 * time.Hour} {
		w.now = w.now.Add(after)
		if err := w.TendKeys(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := w.states(t); got["active"] != first["active"] {
			t.Fatalf("a key signs %s after it was first published", after)
		}
	}
	w.now = w.now.Add(time.Hour)
	if err := w.TendKeys(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := w.states(t); got["active"] == first["active"] {
		t.Error("the overdue change of keys did not happen")
	}
}

func TestTwoReplicasAgreeOnTheKeys(t *testing.T) {
	w := newWorld(t, true)
	other := w.instance(t, true)
	var wg sync.WaitGroup
	for _, s := range []*provider.Service{w.Service, other} {
		wg.Go(func() {
			if err := s.TendKeys(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if a, b := kids(t, w.Service), kids(t, other); !slices.Equal(a, b) || len(a) != 2 {
		t.Errorf("replicas publish %v and %v", a, b)
	}
}

func TestSigningKeysAreSealed(t *testing.T) {
	w := newWorld(t, true)
	if err := w.TendKeys(t.Context()); err != nil {
		t.Fatal(err)
	}
	var private string
	if err := w.db.QueryRow(t.Context(), `select encode(string_agg(private, ''), 'hex') from identity.signing_key`).Scan(&private); err != nil {
		t.Fatal(err)
	}
	// The object identifiers of P-256 and RSA stand in every unsealed PKCS #8 key.
	for _, oid := range []string{"2a8648ce3d030107", "2a864886f70d010101"} {
		if strings.Contains(private, oid) {
			t.Error("a private key is stored in the clear")
		}
	}
}
