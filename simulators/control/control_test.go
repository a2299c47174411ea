package control

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// pages are those of a simulator that shows its faults and one hostile text.
var pages = fstest.MapFS{
	"templates/home.html":   {Data: []byte(`{{define "title"}}Home{{end}}{{define "main"}}<p>{{.Text}}</p>{{template "faults" .Faults}}{{end}}`)},
	"templates/broken.html": {Data: []byte(`{{define "title"}}Broken{{end}}{{define "main"}}{{.None}}{{end}}`)},
}

var quiet = slog.New(slog.DiscardHandler)

func openFaults(t *testing.T, dir string) *Faults {
	t.Helper()
	f, err := OpenFaults(dir, quiet, Kind{"slow", "waits"}, Kind{"refuse", "says no"})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFaultStrikes(t *testing.T) {
	tests := []struct {
		name    string
		plant   Fault
		targets []string
		want    []bool
	}{
		{"once when nothing is said", Fault{Kind: "refuse"}, []string{"a", "b"}, []bool{true, false}},
		{"as often as told", Fault{Kind: "refuse", Times: 2}, []string{"a", "b", "c"}, []bool{true, true, false}},
		{"until cleared", Fault{Kind: "refuse", Times: -1}, []string{"a", "b", "c"}, []bool{true, true, true}},
		{"only its target, in any case", Fault{Kind: "refuse", Target: "A@x", Times: -1}, []string{"b@x", "a@X"}, []bool{false, true}},
		{"every second time", Fault{Kind: "refuse", Times: -1, Every: 2}, []string{"a", "b", "c", "d"}, []bool{false, true, false, true}},
		{"nothing of another kind", Fault{Kind: "slow", Times: -1}, []string{"a"}, []bool{false}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if _, err := openFaults(t, dir).Plant(tt.plant); err != nil {
				t.Fatal(err)
			}
			var got []bool
			for _, target := range tt.targets {
				// Opened anew each time: a killed simulator must not forget.
				_, hit := openFaults(t, dir).Strike("refuse", target)
				got = append(got, hit)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("strikes on %v = %v, want %v", tt.targets, got, tt.want)
			}
		})
	}
}

func TestPlantRefuses(t *testing.T) {
	f := openFaults(t, t.TempDir())
	for _, x := range []Fault{{Kind: "other"}, {Kind: "slow", Times: -2}, {Kind: "slow", Every: -1}, {Kind: "slow", Delay: -1}} {
		if _, err := f.Plant(x); err == nil {
			t.Errorf("Plant(%+v) = nil error", x)
		}
	}
	if got := f.Planted(); len(got) != 0 {
		t.Errorf("planted after refusals: %v", got)
	}
}

func TestHoldEndsWithTheRequest(t *testing.T) {
	f := openFaults(t, t.TempDir())
	if _, err := f.Plant(Fault{Kind: "slow", Delay: Duration(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f.Hold(ctx, "") // would wait an hour
}

func TestControlAPI(t *testing.T) {
	f := openFaults(t, t.TempDir())
	site := NewSite("Test", []Link{{"Other", "http://localhost:1/"}}, pages, quiet)
	mux := http.NewServeMux()
	f.Routes(mux)
	srv := httptest.NewServer(site.Handler(mux))
	defer srv.Close()

	tests := []struct {
		name, method, path, kind, body string
		header                         map[string]string
		want                           int
	}{
		{"plant", "POST", "/_control/faults", "application/json", `{"kind":"slow","delay":"2s","times":3}`, nil, 201},
		{"unknown kind", "POST", "/_control/faults", "application/json", `{"kind":"nope"}`, nil, 422},
		{"misspelled member", "POST", "/_control/faults", "application/json", `{"kind":"slow","dealy":"2s"}`, nil, 422},
		{"two values", "POST", "/_control/faults", "application/json", `{"kind":"slow"}{"kind":"slow"}`, nil, 422},
		{"form", "POST", "/_control/faults", "application/x-www-form-urlencoded", "kind=refuse&target=a%40b&times=&every=2&delay=", nil, 303},
		{"form with a word for a number", "POST", "/_control/faults", "application/x-www-form-urlencoded", "kind=refuse&times=many", nil, 422},
		{"from another site", "POST", "/_control/faults", "application/json", `{"kind":"slow"}`, map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
		{"list", "GET", "/_control/faults", "", "", nil, 200},
		{"style", "GET", "/_control/style.css", "", "", nil, 200},
		{"clear", "DELETE", "/_control/faults", "", "", nil, 204},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), tt.method, srv.URL+tt.path, strings.NewReader(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", tt.kind)
			for k, v := range tt.header {
				req.Header.Set(k, v)
			}
			resp, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != tt.want {
				t.Errorf("status %d, want %d: %s", resp.StatusCode, tt.want, body)
			}
			if tt.name == "list" {
				for _, want := range []string{`"kind":"slow","times":3,"every":1,"delay":"2s"`, `"kind":"refuse","target":"a@b","times":1,"every":2`} {
					if !strings.Contains(string(body), want) {
						t.Errorf("list lacks %s: %s", want, body)
					}
				}
			}
		})
	}
	if got := f.Planted(); len(got) != 0 {
		t.Errorf("planted after DELETE: %v", got)
	}
}

func TestPages(t *testing.T) {
	f := openFaults(t, t.TempDir())
	if _, err := f.Plant(Fault{Kind: "slow", Target: "x", Delay: Duration(2 * time.Second)}); err != nil {
		t.Fatal(err)
	}
	site := NewSite("Test", []Link{{"Other", "http://localhost:1/"}}, pages, quiet)
	data := struct {
		Text   string
		Faults *Faults
	}{"<script>", f}

	w := httptest.NewRecorder()
	site.Page(w, http.StatusOK, "home", data)
	for _, want := range []string{"&lt;script&gt;", "<title>Home · Test</title>", `href="http://localhost:1/"`, ">2s</td>"} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("page lacks %s:\n%s", want, w.Body)
		}
	}
	w = httptest.NewRecorder()
	site.Page(w, http.StatusOK, "broken", data)
	if w.Code != http.StatusInternalServerError || strings.Contains(w.Body.String(), "<html") {
		t.Errorf("a template that fails gives %d: %s", w.Code, w.Body)
	}
}

type event struct{ N int }

func TestJournalAfterAKill(t *testing.T) {
	tests := []struct {
		name, file string
		want       []int
		wantErr    bool
	}{
		{"nothing yet", "", nil, false},
		{"whole lines", "{\"N\":1}\n{\"N\":2}\n", []int{1, 2}, false},
		{"half a line at the end is cut off", "{\"N\":1}\n{\"N\":", []int{1}, false},
		{"a whole value without its line end is half a line too", "{\"N\":1}\n{\"N\":2}", []int{1}, false},
		{"a broken line in the middle is refused", "{\"N\":1}\nxx\n{\"N\":3}\n", nil, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "journal.jsonl")
			if err := os.WriteFile(path, []byte(tt.file), 0o600); err != nil {
				t.Fatal(err)
			}
			read := func() (got []int, j *Journal[event], err error) {
				j, err = OpenJournal(path, func(e event) { got = append(got, e.N) })
				return got, j, err
			}
			got, j, err := read()
			if tt.wantErr {
				if err == nil {
					t.Fatal("opened a broken journal")
				}
				return
			}
			if err != nil || !slices.Equal(got, tt.want) {
				t.Fatalf("read %v, %v; want %v", got, err, tt.want)
			}
			if err := j.Append(event{9}); err != nil {
				t.Fatal(err)
			}
			j.Close()
			if got, _, err := read(); err != nil || !slices.Equal(got, append(tt.want, 9)) {
				t.Errorf("after appending 9: %v, %v", got, err)
			}
		})
	}
}

func TestAppendThatFailsLeavesNoTrace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.jsonl")
	j, err := OpenJournal(path, func(event) {})
	if err != nil {
		t.Fatal(err)
	}
	j.Close()
	if err := j.Append(event{1}); err == nil {
		t.Fatal("appended to a closed file")
	}
	if b, err := os.ReadFile(path); err != nil || len(b) != 0 {
		t.Errorf("journal holds %q, %v", b, err)
	}
}

func TestWriteFileIsNeverHalf(t *testing.T) {
	dir := t.TempDir()
	if err := WriteFile(filepath.Join(dir, "a"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	// A directory in the way: the rename fails and nothing is left behind.
	if err := os.MkdirAll(filepath.Join(dir, "b", "c"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(filepath.Join(dir, "b"), []byte("x"), 0o600); err == nil {
		t.Fatal("renamed over a directory")
	}
	var names []string
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if !slices.Equal(names, []string{"a", "b"}) {
		t.Errorf("directory holds %v", names)
	}
}
