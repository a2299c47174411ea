package browser

import (
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

// recorder is a testing.TB that only notes whether it was failed.
type recorder struct {
	testing.TB
	failures []string
}

func (r *recorder) Helper() {}
func (r *recorder) Errorf(format string, args ...any) {
	r.failures = append(r.failures, format+" "+args[1].(string))
}

const good = `<!doctype html><html lang="en"><title>Good</title><main><h1>Good</h1><form action="/next"><label>Name <input name="n"></label><button>Go</button></form></main></html>`

func TestPages(t *testing.T) {
	pages := map[string]string{
		"/good": good,
		"/next": strings.Replace(good, "Good", "Next", 2),
		"/bad":  `<!doctype html><html><title>Bad</title><main><h1>Bad</h1><img src="data:,"><p style="color:#ccc;background:#fff">pale</p></main></html>`,
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		if r.URL.Path == "/good" {
			w.Header().Set("Content-Security-Policy", "default-src 'none'; form-action 'self'") // axe must work under it
		}
		_, _ = w.Write([]byte(pages[r.URL.Path]))
	}))
	t.Cleanup(srv.Close)
	t.Setenv("GUICHET_ARTEFACTS", t.TempDir())

	page := Open(t, New(t), srv.URL+"/good", Desktop)
	Axe(t, page)
	NoSideways(t, page)
	if info, err := os.Stat(Shot(t, page, "good")); err != nil || info.Size() == 0 {
		t.Errorf("picture: %v", err)
	}
	Fill(t, page, "input", "Léa")
	Click(t, page, "button")
	if got := Text(t, page, "h1"); got != "Next" {
		t.Errorf("after the click: %q, want Next", got)
	}

	Go(t, page, srv.URL+"/bad")
	r := &recorder{TB: t}
	Axe(r, page)
	found := strings.Join(r.failures, "\n")
	for _, rule := range []string{"html-has-lang", "image-alt", "color-contrast"} {
		if !strings.Contains(found, rule) {
			t.Errorf("axe did not report %s in:\n%s", rule, found)
		}
	}
}
