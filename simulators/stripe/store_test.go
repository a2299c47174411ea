package stripe

import (
	"bufio"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 3, 2, 17, 0, 0, 0, time.UTC)

func options(dir string) Options {
	return Options{Now: func() time.Time { return noon }, Dir: dir, Log: slog.New(slog.DiscardHandler), APIKey: "sk_test_x", PublicURL: "http://pay.example"}
}

// TestMain serves instead of testing when a test asks it to be killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("GUICHET_STRIPE_VICTIM"); dir != "" {
		s, err := New(options(dir))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(httptest.NewServer(s.Handler()).URL)
		select {}
	}
	os.Exit(m.Run())
}

func TestAnsweredRequestsSurviveAKill(t *testing.T) {
	dir := t.TempDir()
	victim := exec.Command(os.Args[0])
	victim.Env = append(os.Environ(), "GUICHET_STRIPE_VICTIM="+dir)
	victim.Stderr = os.Stderr
	out, err := victim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { victim.Process.Kill(); victim.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	base := strings.TrimSpace(line)

	if _, err := New(options(dir)); err == nil || !strings.Contains(err.Error(), "another simulator") {
		t.Fatalf("a second simulator on the same directory: %v", err)
	}
	s := create(t, base, "checkout/1")
	form := url.Values{"method": {"card"}, "email": {"a@x.ca"}, "name": {"A"}, "number": {"4242424242424242"}, "expiry": {"04/29"}, "cvc": {"123"}}
	r, err := http.PostForm(base+"/c/pay/"+s, form)
	if err != nil && !strings.Contains(err.Error(), "x.example") { // it leads there
		t.Fatal(err)
	}
	if err == nil {
		r.Body.Close()
	}
	if err := victim.Process.Kill(); err != nil { // SIGKILL
		t.Fatal(err)
	}
	victim.Wait() // says that it was killed
	half, err := os.OpenFile(filepath.Join(dir, "journal.jsonl"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(half, `[{"k":"charge","v":{"id":"ch_torn"`) // the line the kill cut short
	half.Close()

	sim, err := New(options(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sim.Close() })
	server := httptest.NewServer(sim.Handler())
	t.Cleanup(server.Close)
	if again := create(t, server.URL, "checkout/1"); again != s {
		t.Errorf("the same key made %s, want %s", again, s)
	}
	err = sim.update(eventRequest{}, func(tx *tx) error {
		got, ok := get[session](tx, s)
		if !ok || got.PaymentStatus != "paid" {
			t.Errorf("session = %+v %t", got, ok)
		}
		if n := len(all[balanceTransaction](tx)); n != 1 {
			t.Errorf("%d balance transactions, want 1", n)
		}
		if _, torn := tx.row("ch_torn"); torn {
			t.Error("half a line was read")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// create makes a session and returns its id.
func create(t *testing.T, base, key string) string {
	t.Helper()
	form := url.Values{
		"mode": {"payment"}, "success_url": {"https://x.example/"}, "line_items[0][quantity]": {"1"}, "line_items[0][price_data][currency]": {"cad"},
		"line_items[0][price_data][unit_amount]": {"1000"}, "line_items[0][price_data][product_data][name]": {"Fine"},
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/v1/checkout/sessions", strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth("sk_test_x", "")
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Idempotency-Key", key)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var s struct{ ID string }
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil || resp.StatusCode != 200 {
		t.Fatalf("create answered %d: %v", resp.StatusCode, err)
	}
	return s.ID
}

func TestCompactionLosesNothing(t *testing.T) {
	dir := t.TempDir()
	s, err := openStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	put := func(n int) error {
		c := &customer{ID: fmt.Sprintf("cus_%d", n%10), Name: text(fmt.Sprint(n))}
		return s.commit([]row{c, &task{ID: fmt.Sprintf("task:%d", n), At: int64(n + 1)}}, []string{fmt.Sprintf("task:%d", n-3)})
	}
	for n := range 100 {
		if err := put(n); err != nil {
			t.Fatal(err)
		}
	}
	s.lines = compactMin
	before := s.lines
	if err := s.compact(); err != nil {
		t.Fatal(err)
	}
	if s.lines != len(s.rows) || s.lines >= before {
		t.Errorf("%d lines after compaction, want %d", s.lines, len(s.rows))
	}
	for n := 100; n < 105; n++ { // the new journal is the one in use
		if err := put(n); err != nil {
			t.Fatal(err)
		}
	}
	check := func(s *store) {
		t.Helper()
		if got := len(s.rows); got != 13 {
			t.Errorf("%d rows, want 10 customers and 3 tasks", got)
		}
		if got := string(s.rows["cus_4"].(*customer).Name); got != "104" {
			t.Errorf("cus_4 is %s, want 104", got)
		}
		if got := s.byKind["customer"][3]; got != "cus_3" || s.place["cus_3"] != 3 {
			t.Errorf("order is lost: %v", s.byKind["customer"])
		}
		if r := s.popDue(&s.tasks, time.UnixMilli(1000)); r == nil || r.rowID() != "task:102" {
			t.Errorf("first due = %v, want task:102", r)
		}
	}
	check(s)
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	if s, err = openStore(dir); err != nil {
		t.Fatal(err)
	}
	check(s)
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
}

func TestABrokenJournalIsRefused(t *testing.T) {
	for name, content := range map[string]string{"no JSON": "nonsense\n", "an unknown kind": `[{"k":"gift","v":{}}]` + "\n", "another shape": `[{"k":"charge","v":[]}]` + "\n"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "journal.jsonl"), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := New(options(dir)); err == nil {
				t.Error("it was opened")
			}
		})
	}
}

func TestARefusedChangeLeavesNothing(t *testing.T) {
	s, err := New(options(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	lines := s.store.lines
	err = s.update(eventRequest{}, func(t *tx) error {
		t.put(&customer{ID: "cus_1"})
		if err := t.emit("customer.created", &customer{ID: "cus_1"}, nil); err != nil {
			return err
		}
		return badState("", "no")
	})
	if err == nil || len(s.store.rows) != 0 || s.store.lines != lines {
		t.Errorf("%v: %d rows, %d lines", err, len(s.store.rows), s.store.lines-lines)
	}
}

func TestOldEventsGo(t *testing.T) {
	s, err := New(options(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	emit := func(n int) {
		t.Helper()
		err := s.update(eventRequest{}, func(t *tx) error {
			for range n {
				t.put(&event{ID: newID("event")})
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	emit(maxEvents)
	first := s.store.byKind["event"][0]
	if len(s.store.rows) != maxEvents {
		t.Fatalf("%d events", len(s.store.rows))
	}
	s.pending[first] = 1 // still to be delivered
	emit(3)
	if _, kept := s.store.rows[first]; !kept || len(s.store.rows) != maxEvents+1 {
		t.Errorf("%d events, the undelivered one kept: %t", len(s.store.rows), kept)
	}
}

func FuzzParams(f *testing.F) {
	for _, s := range []string{"a=1", "a[b][0]=x&a[b][1]=y", "a[]=x&a[]=y", "a[=1", "a]=1", "[a]=1", "a[b=1", "a[b]c=1", "a=1&a[b]=2", "=", "a[b][c][d][e][f][g][h][i]=1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, err := url.ParseQuery(s)
		if err != nil {
			return
		}
		p, err := parseParams(v)
		if err != nil {
			return
		}
		p.text("a", 10)
		p.number("b")
		p.items("c")
		p.metadata("d")
		p.created("e")
		p.flag("f")
		if err := p.done(); err == nil && len(v) > 6 {
			t.Errorf("%q: more members than were asked for, and none refused", s)
		}
	})
}

func FuzzExpiry(f *testing.F) {
	for _, s := range []string{"04/29", "4/2029", "0429", "13/29", "00/29", "/", "12/9999999999", "1/26"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, y, ok := readExpiry(s, noon)
		if ok && (m < 1 || m > 12 || y < 2026 || y > 2076) {
			t.Errorf("%q is read as %d/%d", s, m, y)
		}
	})
}
