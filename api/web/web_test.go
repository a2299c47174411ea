package web

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"guichet/internal/clock"
	"guichet/internal/money"
)

const (
	goodEN = "[home]\ntitle = \"Bills of {{.Name}}\"\nraw_html = \"<b>{{.Name}}</b>\"\n[home.left]\none = \"one bill\"\nother = \"{{.Count}} bills\"\n"
	goodFR = "[home]\ntitle = \"Factures de {{.Name}}\"\nraw_html = \"<b>{{.Name}}</b>\"\n[home.left]\none = \"une facture\"\nmany = \"{{.Count}} de factures\"\nother = \"{{.Count}} factures\"\n"
	page   = `{{define "title"}}{{t "demo.home.title" "Name" .Name}}{{end}}{{define "main"}}<h1>{{template "title" .}}</h1>{{t "demo.home.left" "Count" .N}} {{money .Amount}}{{end}}`
)

func room(en, fr, html string) fstest.MapFS {
	return fstest.MapFS{
		"locale/en.toml":      {Data: []byte(en)},
		"locale/fr.toml":      {Data: []byte(fr)},
		"templates/home.html": {Data: []byte(html)},
	}
}

type homeData struct {
	Name   string
	N      int
	Amount money.Amount
}

func TestRegister(t *testing.T) {
	tests := []struct {
		name         string
		en, fr, html string
		want         string // in the panic; empty: registers
	}{
		{"good", goodEN, goodFR, page, ""},
		{"a key French lacks is refused", goodEN + "[more]\nx = \"x\"\n", goodFR, page, "demo.more.x has no French"},
		{"a key English lacks is refused", goodEN, goodFR + "[more]\nx = \"x\"\n", page, "demo.more.x has no English"},
		{"other placeholders are refused", goodEN, strings.ReplaceAll(goodFR, ".Name", ".Nom"), page, "takes [Name] in English and [Nom] in French"},
		{"French without many is refused", goodEN, strings.Replace(goodFR, "many = ", "# ", 1), page, `form "many" is empty`},
		{"an empty word is refused", strings.Replace(goodEN, "Bills of {{.Name}}", "", 1), goodFR, page, "is empty"},
		{"logic in a word is refused", strings.Replace(goodEN, "{{.Name}}\"", "{{if .Name}}x{{end}}\"", 1), goodFR, page, "only {{.Name}} is understood"},
		{"a word nobody wrote is refused, even on a branch never taken", goodEN, goodFR, page + `{{define "never"}}{{if .X}}{{t "demo.nothing"}}{{end}}{{end}}`, "demo.nothing does not exist"},
		{"a page without a title is refused", goodEN, goodFR, `{{define "main"}}{{end}}`, `define "title"`},
		{"a broken template is refused", goodEN, goodFR, `{{define "main"}`, "home.html"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			defer func() {
				got, _ := recover().(string)
				if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
					t.Errorf("panic %q, want %q", got, tt.want)
				}
			}()
			New(Options{}).Register("demo", room(tt.en, tt.fr, tt.html))
		})
	}
}

func TestWords(t *testing.T) {
	s := New(Options{})
	s.Register("demo", room(goodEN, goodFR, page))
	tests := []struct {
		name, lang, key string
		args            []any
		want            string // empty: an error
	}{
		{"plain", "en", "demo.home.title", []any{"Name", "Léa"}, "Bills of Léa"},
		{"French", "fr", "demo.home.title", []any{"Name", "Léa"}, "Factures de Léa"},
		{"English one", "en", "demo.home.left", []any{"Count", 1}, "one bill"},
		{"English zero is other", "en", "demo.home.left", []any{"Count", 0}, "0 bills"},
		{"French zero is one", "fr", "demo.home.left", []any{"Count", 0}, "une facture"},
		{"French many", "fr", "demo.home.left", []any{"Count", 1_000_000}, "1\u00a0000\u00a0000 de factures"},
		{"an amount as argument", "fr", "demo.home.title", []any{"Name", money.Amount(123450)}, "Factures de 1\u00a0234,50\u00a0$"},
		{"a message as argument", "fr", "demo.home.title", []any{"Name", Say("demo.home.left", "Count", 2)}, "Factures de 2 factures"},
		{"a missing argument is an error", "en", "demo.home.title", nil, ""},
		{"an unknown argument is an error", "en", "demo.home.title", []any{"Name", "x", "Nom", "y"}, ""},
		{"half a pair is an error", "en", "demo.home.title", []any{"Name"}, ""},
		{"an unknown key is an error", "en", "demo.home.nothing", nil, ""},
		{"an unknown language is an error", "de", "demo.home.title", []any{"Name", "x"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := s.say(tt.lang, tt.key, tt.args)
			if got != tt.want || (err == nil) != (tt.want != "") {
				t.Errorf("say(%s, %s, %v) = %q, %v; want %q", tt.lang, tt.key, tt.args, got, err, tt.want)
			}
		})
	}
	if got, err := s.sayHTML("en", "demo.home.raw_html", []any{"Name", "<i>"}); err != nil || got != "<b>&lt;i&gt;</b>" {
		t.Errorf("sayHTML = %q, %v: arguments are escaped", got, err)
	}
	if _, err := s.sayHTML("en", "demo.home.title", []any{"Name", "x"}); err == nil {
		t.Error("sayHTML took a key that is not marked as markup")
	}
	if got := s.T("en", "demo.home.nothing"); got != "demo.home.nothing" {
		t.Errorf("T of an unknown key = %q", got)
	}
}

func TestFormats(t *testing.T) {
	d := clock.Date{Year: 2026, Month: time.December, Day: 9}
	first := clock.Date{Year: 2026, Month: time.August, Day: 1}
	late := time.Date(2026, 12, 10, 4, 5, 0, 0, time.UTC) // still the 9th in Toronto
	tests := []struct{ name, got, want string }{
		{"English date", must(Date("en", d)), "December 9, 2026"},
		{"French date", must(Date("fr", d)), "9 décembre 2026"},
		{"French first of the month", must(Date("fr", first)), "1er août 2026"},
		{"the date of a moment is the city's", must(Date("en", late)), "December 9, 2026"},
		{"English day", must(Day("en", d)), "December 9"},
		{"French day", must(Day("fr", first)), "1er août"},
		{"English moment", must(DateTime("en", late)), "December 9, 2026 at 11:05\u00a0p.m."},
		{"French moment", must(DateTime("fr", late)), "9 décembre 2026 à 23\u00a0h\u00a005"},
		{"French full hour", must(DateTime("fr", late.Add(-5*time.Minute))), "9 décembre 2026 à 23\u00a0h"},
		{"noon", must(DateTime("en", time.Date(2026, 7, 1, 16, 0, 0, 0, time.UTC))), "July 1, 2026 at 12:00\u00a0p.m."},
		{"midnight", must(DateTime("en", time.Date(2026, 7, 1, 4, 0, 0, 0, time.UTC))), "July 1, 2026 at 12:00\u00a0a.m."},
		{"English number", Number("en", -1234567), "-1,234,567"},
		{"French number", Number("fr", 12345), "12\u00a0345"},
	}
	for _, tt := range tests {
		if tt.got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, tt.got, tt.want)
		}
	}
	for _, empty := range []any{time.Time{}, clock.Date{}, (*time.Time)(nil), "2026-01-01"} {
		if got, err := Date("en", empty); err == nil {
			t.Errorf("Date(%v) = %q, want an error: a page must not show year 1", empty, got)
		}
	}
}

func must(s string, err error) string {
	if err != nil {
		return err.Error()
	}
	return s
}

func TestLang(t *testing.T) {
	tests := []struct{ name, query, cookie, own, accept, want string }{
		{"nothing said", "", "", "", "", "en"},
		{"the browser's", "", "", "", "fr-CA,fr;q=0.9,en;q=0.8", "fr"},
		{"the browser's weights", "", "", "", "fr;q=0.3,en;q=0.8", "en"},
		{"a language we lack", "", "", "", "de,es;q=0.5", "en"},
		{"not a list", "", "", "", ";;;=", "en"},
		{"own choice over the browser's", "", "", "fr", "en", "fr"},
		{"cookie over own choice", "", "en", "fr", "fr", "en"},
		{"a forged cookie counts for nothing", "", "xx", "fr", "en", "fr"},
		{"address over all", "?lang=fr", "en", "en", "en", "fr"},
		{"an unknown language in the address counts for nothing", "?lang=de", "fr", "", "", "fr"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/"+tt.query, nil)
			if tt.cookie != "" {
				r.AddCookie(&http.Cookie{Name: "lang", Value: tt.cookie})
			}
			r.Header.Set("Accept-Language", tt.accept)
			r = r.WithContext(WithLang(r.Context(), tt.own))
			if got := Lang(r); got != tt.want {
				t.Errorf("Lang = %q, want %q", got, tt.want)
			}
		})
	}
}

// FuzzLang feeds what a browser sends: the answer is a language of ours, and the
// language switch stays on this site.
func FuzzLang(f *testing.F) {
	f.Add("/pay", "lang=fr&lang=de", "fr", "fr-CA,fr;q=0.9")
	f.Add("//elsewhere.example/x", "lang=%00&a=//b", "\xff", ";;;")
	f.Fuzz(func(t *testing.T, path, query, cookie, accept string) {
		r := &http.Request{Method: "GET", URL: &url.URL{Path: path, RawQuery: query}, Header: http.Header{"Accept-Language": {accept}, "Cookie": {"lang=" + cookie}}}
		lang := Lang(r)
		if !spoken(lang) {
			t.Errorf("language %q", lang)
		}
		base := &url.URL{Scheme: "https", Host: "pay.example.ca", Path: "/here"}
		to, err := base.Parse(switchHref(r, lang))
		if err != nil || to.Host != base.Host || to.Path != base.Path || asked(&http.Request{URL: to}) != otherLang(lang) {
			t.Errorf("the switch leads to %v (%v)", to, err)
		}
	})
}

func TestPage(t *testing.T) {
	s := New(Options{BaseURL: "https://pay.example.ca", FormHosts: []string{"https://checkout.example"}})
	s.Register("demo", room(goodEN, goodFR, page))
	get := func(method, target string, data any) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		s.Page(w, httptest.NewRequest(method, target, nil), 200, "demo/home", data)
		return w
	}
	good := homeData{"Léa <b>", 2, 5500}

	w := get("GET", "/?lang=fr&a=1", good)
	body := w.Body.String()
	for _, want := range []string{`<html lang="fr-CA">`, "Factures de Léa &lt;b&gt;", "2 factures 55,00\u00a0$", `href="?a=1&amp;lang=en"`} {
		if !strings.Contains(body, want) {
			t.Errorf("page lacks %q", want)
		}
	}
	if c := w.Result().Cookies(); len(c) != 1 || c[0].Name != "lang" || c[0].Value != "fr" || !c[0].Secure {
		t.Errorf("cookies %v, want lang=fr, secure", c)
	}
	if got := w.Header().Get("Content-Security-Policy"); !strings.Contains(got, "default-src 'none'") || !strings.HasSuffix(got, "form-action 'self' https://checkout.example") {
		t.Errorf("policy %q", got)
	}
	if c := get("GET", "/?lang=de", good).Result().Cookies(); len(c) != 0 {
		t.Errorf("an unknown language set the cookie %v", c)
	}
	if w := get("HEAD", "/", good); w.Body.Len() != 0 {
		t.Errorf("HEAD got a body")
	}
	// A path like //elsewhere.example must not become the host of the switch.
	r := httptest.NewRequest("GET", "/", nil)
	r.URL.Path = "//elsewhere.example/"
	w = httptest.NewRecorder()
	s.Page(w, r, 200, "demo/home", good)
	if strings.Contains(w.Body.String(), "elsewhere.example") {
		t.Error("a crafted path reached a link of the page")
	}
	for name, data := range map[string]any{"a missing field": struct{ Name string }{"x"}, "a missing key": map[string]any{"Name": "x"}} {
		w := get("GET", "/", data)
		if w.Code != 500 || strings.Contains(w.Body.String(), "<no value>") || strings.Contains(w.Body.String(), "Bills of") {
			t.Errorf("%s: %d, want the error page and nothing of the broken one", name, w.Code)
		}
	}
	w = httptest.NewRecorder()
	s.Page(w, httptest.NewRequest("GET", "/", nil), 200, "demo/nothing", nil)
	if w.Code != 500 {
		t.Errorf("an unknown page: %d", w.Code)
	}
}

func TestFail(t *testing.T) {
	s := New(Options{RequestID: func(context.Context) string { return "req-1" }})
	for _, status := range []int{400, 403, 404, 405, 413, 429, 500, 503, 418, 502} {
		for _, lang := range Languages {
			w := httptest.NewRecorder()
			w.Header().Set("Refresh", "3")
			s.Fail(w, httptest.NewRequest("POST", "/x?lang="+lang, nil), status, "")
			body := w.Body.String()
			if w.Code != status || !strings.Contains(body, "req-1") || !strings.Contains(body, `lang="`+otherLang(lang)+`-CA">`) {
				t.Errorf("%d %s: got %d, want the request id and both languages", status, lang, w.Code)
			}
			if w.Header().Get("Refresh") != "" {
				t.Errorf("%d: an error page reloads itself", status)
			}
			if wait := w.Header().Get("Retry-After"); (wait != "") != (status == 429 || status == 503) {
				t.Errorf("%d: Retry-After %q", status, wait)
			}
		}
	}
	w := httptest.NewRecorder()
	w.Header().Set("Retry-After", "600")
	s.Fail(w, httptest.NewRequest("GET", "/", nil), 429, "web.error.crossorigin")
	if body := w.Body.String(); !strings.Contains(body, "10 minutes") || !strings.Contains(body, "another website") || !strings.Contains(body, "un autre site Web") {
		t.Error("want the sentence given, in both languages, and the wait")
	}
	w = httptest.NewRecorder()
	s.Fail(w, httptest.NewRequest("GET", "/", nil), 404, "web.no.such.key")
	if w.Code != 404 || !strings.Contains(w.Body.String(), "our side") {
		t.Errorf("an unknown key: %d, want the last resort", w.Code)
	}
}

func TestStatic(t *testing.T) {
	s := New(Options{})
	href, err := s.assets.href("guichet.css")
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	s.Static().ServeHTTP(w, httptest.NewRequest("GET", href, nil))
	if w.Code != 200 || !strings.Contains(w.Header().Get("Content-Type"), "text/css") || !strings.Contains(w.Header().Get("Cache-Control"), "immutable") {
		t.Errorf("style sheet: %d %v", w.Code, w.Header())
	}
	for _, at := range []string{"/static/guichet.css", "/static/", "/static/guichet.000000000000.css", "/static/../web.go"} {
		w := httptest.NewRecorder()
		s.Static().ServeHTTP(w, httptest.NewRequest("GET", at, nil))
		if w.Code != 404 {
			t.Errorf("%s: %d, want 404", at, w.Code)
		}
	}
}

func TestPagination(t *testing.T) {
	p, err := pagesOf(Pagination{Page: 5, Total: 12, Query: map[string][]string{"q": {"a b"}}})
	if err != nil {
		t.Fatal(err)
	}
	var got []int
	for _, l := range p.Links {
		got = append(got, l.Number)
	}
	want := []int{1, 0, 4, 5, 6, 0, 12}
	if len(got) != len(want) || p.Previous != "?page=4&q=a+b" || p.Next != "?page=6&q=a+b" {
		t.Errorf("links %v (want %v), previous %q, next %q", got, want, p.Previous, p.Next)
	}
	if _, err := pagesOf(Pagination{}); err == nil {
		t.Error("page 0 was accepted")
	}
}

func TestWhatIsNoTextIsRefused(t *testing.T) {
	s := New(Options{BaseURL: "https://guichet.example"})
	h := s.Text(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := ReadForm(w, r); err != nil {
			w.WriteHeader(http.StatusUnprocessableEntity)
		}
	}))
	for _, tt := range []struct {
		target, form string
		want         int
	}{
		{"/verify/%C3%A9?code=%F0%9F%92%A9", "name=L%C3%A9a+%0A", http.StatusOK},
		{"/verify/%00", "", http.StatusBadRequest},
		{"/verify/%ED%A0%80", "", http.StatusBadRequest},
		{"/verify?code=a&code=%00", "", http.StatusBadRequest},
		{"/verify?%FF=a", "", http.StatusBadRequest},
		{"/pay", "key=a&key=%00", http.StatusUnprocessableEntity},
		{"/pay", "key=%FF", http.StatusUnprocessableEntity},
	} {
		r := httptest.NewRequest("POST", tt.target, strings.NewReader(tt.form))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != tt.want {
			t.Errorf("%s with %q: %d, want %d", tt.target, tt.form, w.Code, tt.want)
		}
	}
}
