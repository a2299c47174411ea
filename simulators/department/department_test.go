package department

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"guichet/simulators/control"
	"guichet/simulators/directory"
)

var secrets = map[string]string{
	"parking": "whsec_cGFya2luZy1wYXJraW5nLXBhcmtpbmctcGFyaw==",
	"permits": "whsec_cGVybWl0cy1wZXJtaXRzLXBlcm1pdHMtcGVybQ==",
	"water":   "whsec_d2F0ZXItd2F0ZXItd2F0ZXItd2F0ZXItd2F0ZXI=",
}

// world is the application between an independent OpenID Provider and a
// department API that keeps bills in memory.
type world struct {
	*App
	url    string // of the application
	issuer string
	api    *fakeAPI
	now    atomic.Pointer[time.Time]
}

func start(t *testing.T, dir string) *world {
	t.Helper()
	w := &world{api: &fakeAPI{bills: map[string]map[string]any{}}}
	w.setNow(time.Date(2026, 11, 24, 14, 0, 0, 0, time.UTC))
	now := func() time.Time { return *w.now.Load() }
	quiet := slog.New(slog.DiscardHandler)

	var app, provider http.Handler
	serve := func(h *http.Handler) string {
		srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { (*h).ServeHTTP(rw, r) }))
		t.Cleanup(srv.Close)
		// Two names of one machine: cookies of the two must not mix.
		return strings.Replace(srv.URL, "127.0.0.1", "localhost", 1)
	}
	w.url, w.issuer = serve(&app), serve(&provider)
	api := httptest.NewServer(w.api)
	t.Cleanup(api.Close)
	w.api.url = api.URL

	var clients []directory.Client
	var departments []Department
	for code, secret := range secrets {
		clients = append(clients, directory.Client{
			ID: code + "-app", Secret: "secret-" + code, RedirectURIs: []string{w.url + "/" + code + "/callback"}, PostLogoutURIs: []string{w.url + "/" + code},
		})
		departments = append(departments, Department{Code: code, ClientID: code + "-app", ClientSecret: "secret-" + code, APIKey: "key-" + code, WebhookSecret: secret})
	}
	op, err := directory.New(directory.Options{Now: now, Dir: t.TempDir(), Log: quiet, Issuer: w.issuer, Clients: clients})
	if err != nil {
		t.Fatal(err)
	}
	provider = op.Handler()
	w.App, err = New(Options{Now: now, Dir: dir, Log: quiet, URL: w.url, Issuer: w.issuer, API: api.URL, Departments: departments})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	app = w.Handler()
	return w
}

func (w *world) setNow(t time.Time) { w.now.Store(&t) }

// fakeAPI answers as the department API does, for keys "key-<department>".
type fakeAPI struct {
	url   string
	down  atomic.Bool
	mu    sync.Mutex
	bills map[string]map[string]any // by id
	seen  map[string]string         // idempotency keys and their bodies
	paid  []string
}

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	department, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer key-")
	body, _ := io.ReadAll(r.Body)
	switch {
	case f.down.Load():
		control.Fail(w, http.StatusBadGateway, "down")
	case !ok:
		control.Fail(w, http.StatusUnauthorized, "no key")
	case r.Method == http.MethodGet && r.URL.Path == "/api/v1/bills":
		data := []any{}
		for _, b := range f.bills {
			if b["department"] == department && b["owner_subject"] == r.URL.Query().Get("owner") {
				data = append(data, b)
			}
		}
		control.JSON(w, http.StatusOK, map[string]any{"data": data, "next_cursor": ""})
	case r.Method == http.MethodPost && r.URL.Path == "/api/v1/bills":
		f.createBill(w, r, department, body)
	case r.Method == http.MethodPost && r.URL.Path == "/api/v1/checkouts":
		var in struct {
			Bills     []string `json:"bills"`
			ReturnURL string   `json:"return_url"`
			Lang      string   `json:"lang"`
		}
		if err := json.Unmarshal(body, &in); err != nil || r.Header.Get("Idempotency-Key") == "" {
			control.Fail(w, http.StatusUnprocessableEntity, "%v", err)
			return
		}
		f.paid = in.Bills
		control.JSON(w, http.StatusCreated, map[string]any{"id": "c1", "url": f.url + "/checkout?lang=" + in.Lang + "&return=" + url.QueryEscape(in.ReturnURL)})
	default:
		http.NotFound(w, r)
	}
}

func (f *fakeAPI) createBill(w http.ResponseWriter, r *http.Request, department string, body []byte) {
	key := department + " " + r.Header.Get("Idempotency-Key")
	if f.seen == nil {
		f.seen = map[string]string{}
	}
	if before, again := f.seen[key]; again && before != string(body) {
		control.Fail(w, http.StatusConflict, "same key, other body")
		return
	}
	var b map[string]any
	if err := json.Unmarshal(body, &b); err != nil {
		control.Fail(w, http.StatusUnprocessableEntity, "%v", err)
		return
	}
	f.seen[key] = string(body)
	id := "bill " + b["reference"].(string)
	b["id"], b["department"], b["notice_number"], b["state"], b["due_cents"], b["url"] = id, department, "7K3M-92QX-DA", "open", 18419, f.url+"/pay"
	b["due_on"] = "2026-12-24"
	b["lines"] = []any{map[string]any{"description_en": "Additional inspection", "description_fr": "Inspection supplémentaire"}}
	f.bills[id] = b
	control.JSON(w, http.StatusCreated, b)
}

// browser keeps cookies and follows redirects as one does.
type browser struct {
	t *testing.T
	*http.Client
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{t, &http.Client{Jar: jar}}
}

// stay answers with redirects instead of following them.
func (b *browser) stay() *browser {
	return &browser{b.t, &http.Client{Jar: b.Jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

func (b *browser) read(resp *http.Response, err error) (*http.Response, string) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp, string(body)
}

func (b *browser) open(address string) (*http.Response, string) {
	b.t.Helper()
	return b.read(b.Get(address))
}

func (b *browser) send(address string, form url.Values) (*http.Response, string) {
	b.t.Helper()
	return b.read(b.PostForm(address, form))
}

var hidden = regexp.MustCompile(`<input type="hidden" name="([^"]+)" value="([^"]*)">`)

// fields reads the hidden fields of a page.
func fields(page string) url.Values {
	out := url.Values{}
	for _, m := range hidden.FindAllStringSubmatch(page, -1) {
		out.Set(m[1], strings.NewReplacer("&amp;", "&", "&#43;", "+", "&#34;", `"`).Replace(m[2]))
	}
	return out
}

// signIn goes through the provider's page and returns where it ends.
func (b *browser) signIn(w *world, department, subject string) (*http.Response, string) {
	b.t.Helper()
	resp, page := b.open(w.url + "/" + department + "/login")
	if !strings.HasPrefix(resp.Request.URL.String(), w.issuer+"/authorize?") {
		b.t.Fatalf("login led to %s\n%s", resp.Request.URL, page)
	}
	form := fields(page)
	form.Set("subject", subject)
	return b.send(w.issuer+"/authorize", form)
}

func TestResidentSignsInOrdersAndPays(t *testing.T) {
	w := start(t, t.TempDir())
	b := newBrowser(t)
	if _, page := b.open(w.url + "/permits"); !strings.Contains(page, "Sign in with your city account") || strings.Contains(page, "<form") {
		t.Errorf("before signing in:\n%s", page)
	}
	resp, page := b.signIn(w, "permits", "staff-1001")
	if resp.Request.URL.String() != w.url+"/permits" || !strings.Contains(page, "You are signed in as <strong>Demo Finance Clerk</strong>") {
		t.Fatalf("after signing in: %s\n%s", resp.Request.URL, page)
	}
	for _, c := range b.Jar.Cookies(mustParse(t, w.url+"/permits")) {
		if c.Name != "demo_permits_session" {
			t.Errorf("cookie %s is left", c.Name)
		}
	}

	order := url.Values{"order": {fields(page).Get("order")}}
	for range 2 { // a double click
		if resp, page = b.send(w.url+"/permits/order", order); resp.StatusCode != http.StatusOK {
			t.Fatalf("order: %s\n%s", resp.Status, page)
		}
	}
	if len(w.api.bills) != 1 || strings.Count(page, "7K3M-92QX-DA</a>") != 1 || !strings.Contains(page, "$184.19") {
		t.Fatalf("%d bills\n%s", len(w.api.bills), page)
	}
	var id string
	for key, bill := range w.api.bills {
		id = key
		lines, _ := json.Marshal(bill["lines"])
		if bill["type"] != "permit" || bill["owner_subject"] != "staff-1001" || bill["issued_on"] != "2026-11-24" || bill["due_on"] != "2026-12-24" {
			t.Errorf("bill %v %s", bill, lines)
		}
	}

	pay := url.Values{"checkout": {fields(page).Get("checkout")}, "bill": {id}}
	resp, _ = b.stay().send(w.url+"/permits/pay", pay)
	want := w.api.url + "/checkout?lang=en&return=" + url.QueryEscape(w.url+"/permits?returned=1")
	if resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != want || !slices.Equal(w.api.paid, []string{id}) {
		t.Errorf("pay: %s to %s, bills %v", resp.Status, resp.Header.Get("Location"), w.api.paid)
	}
	if _, page := b.open(w.url + "/permits?returned=1"); !strings.Contains(page, "You are back from the payment page.") {
		t.Errorf("back from paying:\n%s", page)
	}

	// Another department knows nothing of this session.
	if _, page := b.open(w.url + "/water"); strings.Contains(page, "signed in as") {
		t.Errorf("signed in at the water department too:\n%s", page)
	}
	resp, page = b.send(w.url+"/permits/logout", nil)
	if resp.Request.URL.String() != w.url+"/permits" || strings.Contains(page, "signed in as") {
		t.Errorf("after signing out: %s\n%s", resp.Request.URL, page)
	}
}

func mustParse(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestPayRefuses(t *testing.T) {
	w := start(t, t.TempDir())
	b := newBrowser(t)
	b.signIn(w, "permits", "staff-1001")
	w.api.bills["foreign"] = map[string]any{"id": "foreign", "department": "permits", "owner_subject": "staff-1002"}
	const good = "c1"
	for name, tt := range map[string]struct {
		form url.Values
		want int
	}{
		"no bill":                  {url.Values{"checkout": {good}}, 400},
		"somebody else's bill":     {url.Values{"checkout": {good}, "bill": {"foreign"}}, 403},
		"no number of the payment": {url.Values{"bill": {"foreign"}}, 400},
	} {
		if resp, page := b.send(w.url+"/permits/pay", tt.form); resp.StatusCode != tt.want || !strings.Contains(page, `role="alert"`) {
			t.Errorf("%s: %s\n%s", name, resp.Status, page)
		}
	}
	for _, path := range []string{"/permits/pay", "/permits/order"} {
		if resp, _ := newBrowser(t).stay().send(w.url+path, url.Values{"bill": {"foreign"}, "checkout": {"x"}, "order": {"x"}}); resp.StatusCode != http.StatusSeeOther {
			t.Errorf("%s without a session: %s", path, resp.Status)
		}
	}
	if len(w.api.paid) != 0 || len(w.api.bills) != 1 {
		t.Errorf("paid %v, bills %v", w.api.paid, w.api.bills)
	}
	if resp, _ := b.send(w.url+"/water/order", url.Values{"order": {"x"}}); resp.StatusCode != http.StatusNotFound && resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("the water department takes orders: %s", resp.Status)
	}
}

func TestSignInRefuses(t *testing.T) {
	for _, kind := range []string{"wrong-nonce", "wrong-audience", "expired", "unknown-kid"} {
		t.Run(kind, func(t *testing.T) {
			w := start(t, t.TempDir())
			resp, err := http.Post(w.issuer+"/_control/faults", "application/json", strings.NewReader(`{"kind":"`+kind+`"}`))
			if err != nil || resp.StatusCode != http.StatusCreated {
				t.Fatalf("plant: %v, %v", resp, err)
			}
			resp.Body.Close()
			b := newBrowser(t)
			if resp, page := b.signIn(w, "permits", "staff-1001"); resp.StatusCode != http.StatusBadRequest || strings.Contains(page, "signed in as") {
				t.Errorf("%s\n%s", resp.Status, page)
			}
			if resp, page := b.signIn(w, "permits", "staff-1001"); !strings.Contains(page, "signed in as") {
				t.Errorf("next sign-in: %s\n%s", resp.Status, page)
			}
		})
	}

	w := start(t, t.TempDir())
	callback := func(b *browser, change func(url.Values)) (*http.Response, string) {
		t.Helper()
		_, page := b.open(w.url + "/permits/login")
		form := fields(page)
		form.Set("subject", "staff-1001")
		resp, _ := b.stay().send(w.issuer+"/authorize", form)
		to := mustParse(t, resp.Header.Get("Location"))
		q := to.Query()
		change(q)
		to.RawQuery = q.Encode()
		return b.open(to.String())
	}
	for name, change := range map[string]func(url.Values){
		"another state":      func(q url.Values) { q.Set("state", "x") },
		"no state":           func(q url.Values) { q.Del("state") },
		"another issuer":     func(q url.Values) { q.Set("iss", "https://evil.example") },
		"no issuer":          func(q url.Values) { q.Del("iss") },
		"a code of nobody's": func(q url.Values) { q.Set("code", "x") },
		"too late":           func(url.Values) { w.setNow(w.now.Load().Add(pendingLife + time.Second)) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBrowser(t)
			if resp, page := callback(b, change); resp.StatusCode != http.StatusBadRequest || strings.Contains(page, "signed in as") {
				t.Errorf("%s\n%s", resp.Status, page)
			}
		})
	}
	t.Run("cancelled at the provider", func(t *testing.T) {
		resp, page := callback(newBrowser(t), func(q url.Values) { q.Del("code"); q.Set("error", "access_denied") })
		if resp.StatusCode != http.StatusOK || !strings.Contains(page, "You were not signed in.") {
			t.Errorf("%s\n%s", resp.Status, page)
		}
	})
	t.Run("in another browser", func(t *testing.T) {
		thief := newBrowser(t)
		b := newBrowser(t)
		_, page := b.open(w.url + "/permits/login")
		form := fields(page)
		form.Set("subject", "staff-1001")
		resp, _ := b.stay().send(w.issuer+"/authorize", form)
		if resp, _ := thief.open(resp.Header.Get("Location")); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("thief: %s", resp.Status)
		}
	})
	t.Run("twice", func(t *testing.T) {
		b := newBrowser(t)
		resp, _ := callback(b, func(url.Values) {})
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("first time: %s", resp.Status)
		}
		again := resp.Request.Response.Request.URL // the callback itself
		if resp, _ := b.open(again.String()); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("second time: %s", resp.Status)
		}
	})
	t.Run("session ends", func(t *testing.T) {
		b := newBrowser(t)
		b.signIn(w, "permits", "staff-1001")
		w.setNow(w.now.Load().Add(sessionLife + time.Second))
		if _, page := b.open(w.url + "/permits"); strings.Contains(page, "signed in as") {
			t.Errorf("still signed in:\n%s", page)
		}
	})
}

func TestTroubleIsSaidPlainly(t *testing.T) {
	w := start(t, t.TempDir())
	b := newBrowser(t)
	_, page := b.signIn(w, "permits", "staff-1001")
	w.api.down.Store(true)
	if resp, page := b.open(w.url + "/permits?lang=fr"); resp.StatusCode != http.StatusOK || !strings.Contains(page, texts["fr"]["apiDown"]) {
		t.Errorf("list: %s\n%s", resp.Status, page)
	}
	form := fields(page)
	form.Set("bill", "x")
	form.Set("checkout", "c1")
	for _, path := range []string{"/permits/order", "/permits/pay"} {
		if resp, page := b.send(w.url+path, form); resp.StatusCode != http.StatusBadGateway || !strings.Contains(page, texts["fr"]["apiDown"]) {
			t.Errorf("%s: %s\n%s", path, resp.Status, page)
		}
	}
	alone, err := New(Options{
		Now: time.Now, Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler), URL: "http://localhost:1", Issuer: "http://127.0.0.1:1", API: "http://127.0.0.1:1",
		Departments: []Department{{Code: "water", WebhookSecret: secrets["water"]}},
	})
	if err != nil {
		t.Fatal(err)
	}
	rec := httptest.NewRecorder()
	alone.Handler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/water/login", nil))
	if rec.Code != http.StatusBadGateway || !strings.Contains(rec.Body.String(), texts["en"]["signInDown"]) {
		t.Errorf("provider down: %d\n%s", rec.Code, rec.Body)
	}
}

func TestLanguage(t *testing.T) {
	w := start(t, t.TempDir())
	b := newBrowser(t)
	if _, page := b.open(w.url + "/water"); !strings.Contains(page, `<html lang="en">`) {
		t.Errorf("without a wish:\n%s", page)
	}
	req, _ := http.NewRequest(http.MethodGet, w.url+"/water", nil)
	req.Header.Set("Accept-Language", "fr-CA,fr;q=0.9,en;q=0.5")
	if _, page := b.read(b.Do(req)); !strings.Contains(page, `<html lang="fr">`) || !strings.Contains(page, "Eau et eaux usées") {
		t.Errorf("a French browser:\n%s", page)
	}
	b.open(w.url + "/water?lang=fr")
	resp, page := b.open(w.url + "/permits/login")
	if got := resp.Request.URL.Query().Get("ui_locales"); got != "fr-CA" {
		t.Errorf("the provider is asked for %q\n%s", got, page)
	}
}

func TestTextsAreComplete(t *testing.T) {
	for key := range texts["en"] {
		if texts["fr"][key] == "" {
			t.Errorf("no French for %s", key)
		}
	}
	if len(texts["fr"]) != len(texts["en"]) || len(texts["en"]) < 30 {
		t.Errorf("%d English texts, %d French", len(texts["en"]), len(texts["fr"]))
	}
}

// hook sends a webhook signed as the specification says.
func (w *world) hook(t *testing.T, department, id string, at time.Time, body string, change func(http.Header)) int {
	t.Helper()
	status, err := w.tryHook(department, id, at, body, change)
	if err != nil {
		t.Fatal(err)
	}
	return status
}

func (w *world) tryHook(department, id string, at time.Time, body string, change func(http.Header)) (int, error) {
	wh, err := standardwebhooks.NewWebhook(secrets[department])
	if err != nil {
		return 0, err
	}
	signature, err := wh.Sign(id, at, []byte(body))
	if err != nil {
		return 0, err
	}
	req, err := http.NewRequest(http.MethodPost, w.url+"/hooks/"+department, bytes.NewReader([]byte(body)))
	if err != nil {
		return 0, err
	}
	req.Header.Set("webhook-id", id)
	req.Header.Set("webhook-timestamp", strconv.FormatInt(at.Unix(), 10))
	req.Header.Set("webhook-signature", signature)
	if change != nil {
		change(req.Header)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	resp.Body.Close()
	return resp.StatusCode, nil
}

const paid = `{"type":"payment.succeeded","data":{"bill":"b1"}}`

func (w *world) eventList(t *testing.T, query string) []event {
	t.Helper()
	resp, err := http.Get(w.url + "/_control/events" + query)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var list struct{ Data []event }
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
		t.Fatal(err)
	}
	return list.Data
}

func TestWebhooks(t *testing.T) {
	w := start(t, t.TempDir())
	now := *w.now.Load()
	tests := []struct {
		name   string
		at     time.Time
		body   string
		change func(http.Header)
		want   int
	}{
		{"good", now, paid, nil, 204},
		{"good again", now, paid, nil, 204},
		{"four minutes old", now.Add(-4 * time.Minute), paid, nil, 204},
		{"two signatures, the second is ours", now, paid, func(h http.Header) { h.Set("webhook-signature", "v1,AAAA "+h.Get("webhook-signature")) }, 204},
		{"stale", now.Add(-6 * time.Minute), paid, nil, 401},
		{"from the future", now.Add(6 * time.Minute), paid, nil, 401},
		{"forged", now, paid, func(h http.Header) { h.Set("webhook-signature", "v1,AAAA") }, 401},
		{"other id", now, paid, func(h http.Header) { h.Set("webhook-id", "e2") }, 401},
		{"no signature", now, paid, func(h http.Header) { h.Del("webhook-signature") }, 401},
		{"timestamp that is none", now, paid, func(h http.Header) { h.Set("webhook-timestamp", "now") }, 401},
		{"not JSON", now, "x", nil, 400},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := w.hook(t, "parking", "e1", tt.at, tt.body, tt.change); got != tt.want {
				t.Errorf("status %d, want %d", got, tt.want)
			}
		})
	}
	t.Run("another department's secret", func(t *testing.T) {
		err := w.verify(Department{Code: "water"}, []byte(paid), signedFor(t, "parking", now))
		if err == nil {
			t.Error("accepted")
		}
	})
	if got := w.eventList(t, ""); len(got) != 1 || got[0].ID != "e1" || got[0].Type != "payment.succeeded" || got[0].Deliveries != 4 {
		t.Errorf("events %+v", got)
	}
	if got := w.eventList(t, "?department=water"); len(got) != 0 {
		t.Errorf("water's events %+v", got)
	}
	_, page := newBrowser(t).open(w.url + "/parking")
	_, home := newBrowser(t).open(w.url + "/")
	if !strings.Contains(page, "payment.succeeded") || !strings.Contains(home, "payment.succeeded") {
		t.Errorf("the pages do not show the event:\n%s\n%s", page, home)
	}
}

func signedFor(t *testing.T, department string, at time.Time) http.Header {
	t.Helper()
	wh, err := standardwebhooks.NewWebhook(secrets[department])
	if err != nil {
		t.Fatal(err)
	}
	signature, err := wh.Sign("e1", at, []byte(paid))
	if err != nil {
		t.Fatal(err)
	}
	h := http.Header{}
	h.Set("webhook-id", "e1")
	h.Set("webhook-timestamp", strconv.FormatInt(at.Unix(), 10))
	h.Set("webhook-signature", signature)
	return h
}

func TestWebhookFaults(t *testing.T) {
	tests := []struct {
		kind   string
		status int // 0: no answer
		stored bool
	}{
		{"error", 500, false}, {"refuse", 410, false}, {"drop", 0, false}, {"store-and-fail", 500, true},
	}
	for _, tt := range tests {
		t.Run(tt.kind, func(t *testing.T) {
			w := start(t, t.TempDir())
			now := *w.now.Load()
			if _, err := w.faults.Plant(control.Fault{Kind: tt.kind, Target: "water"}); err != nil {
				t.Fatal(err)
			}
			if got := w.hook(t, "parking", "e0", now, paid, nil); got != 204 {
				t.Errorf("parking: %d", got)
			}
			status, err := w.tryHook("water", "e1", now, paid, nil)
			if status != tt.status || (err != nil) != (tt.status == 0) {
				t.Errorf("water: %d, %v; want %d", status, err, tt.status)
			}
			if got := len(w.eventList(t, "?department=water")) == 1; got != tt.stored {
				t.Errorf("stored: %v, want %v", got, tt.stored)
			}
			if got := w.hook(t, "water", "e1", now, paid, nil); got != 204 {
				t.Errorf("second delivery: %d", got)
			}
			if got := w.eventList(t, "?department=water"); len(got) != 1 {
				t.Errorf("events %+v", got)
			}
		})
	}
}

func TestEventsSurviveAKill(t *testing.T) {
	dir := t.TempDir()
	w := start(t, dir)
	now := *w.now.Load()
	for i := range maxPayloads + 1 {
		if err := w.receive(event{ID: fmt.Sprint("e", i), Department: "water", Payload: []byte(paid)}); err != nil {
			t.Fatal(err)
		}
	}
	again := start(t, dir)
	if got := again.hook(t, "water", "e0", now, paid, nil); got != 204 {
		t.Fatalf("the oldest event again: %d", got)
	}
	if n := len(again.events); n != maxPayloads+1 {
		t.Errorf("%d events, want %d", n, maxPayloads+1)
	}
	if first := again.events[0]; first.Deliveries != 2 || first.Payload != nil || again.events[1].Payload == nil {
		t.Errorf("first %+v", first)
	}
}

func TestNewRefuses(t *testing.T) {
	good := Options{Now: time.Now, Log: slog.New(slog.DiscardHandler), URL: "http://a", Issuer: "http://b", API: "http://c"}
	for name, change := range map[string]func(*Options){
		"relative address":   func(o *Options) { o.API = "/x" },
		"slash at the end":   func(o *Options) { o.Issuer += "/" },
		"unknown department": func(o *Options) { o.Departments = []Department{{Code: "parks", WebhookSecret: secrets["water"]}} },
		"no webhook secret":  func(o *Options) { o.Departments = []Department{{Code: "water"}} },
		"bad webhook secret": func(o *Options) { o.Departments = []Department{{Code: "water", WebhookSecret: "whsec_%%%"}} },
	} {
		o := good
		o.Dir = t.TempDir()
		change(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
