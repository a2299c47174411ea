// Package control is the frame that the simulators share: the look of their
// pages, the answers of their control APIs, the faults a person can plant, and
// the files that survive kill -9.
//
//	person ──page──▶ simulator ──Strike──▶ Faults     faults.json
//	test ───JSON──▶     │
//	                    └──Append──▶ Journal          journal.jsonl
//
// Every simulator answers the same way: a page at /, JSON under /_control/,
// errors as {"error": "a sentence"}. It knows no simulator and nothing of the
// product.
package control

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"path"
	"strings"
	"time"

	"guichet/internal/clock"
	"guichet/internal/money"
)

//go:embed templates/layout.html
var layout string

//go:embed templates/style.css
var style []byte

// A Link names another page of the same house, for the head of every page.
type Link struct{ Name, URL string }

// A Site renders the pages of one simulator in the common layout.
type Site struct {
	name  string
	links []Link
	pages map[string]*template.Template
	log   *slog.Logger
}

// NewSite reads templates/*.html of files. Each defines "title" and "main"; the
// page is called by its file name without the ending. It panics on a template
// that does not parse: the files are part of the program.
func NewSite(name string, links []Link, files fs.FS, log *slog.Logger) *Site {
	s := &Site{name: name, links: links, pages: map[string]*template.Template{}, log: log}
	names, err := fs.Glob(files, "templates/*.html")
	if err != nil || len(names) == 0 {
		panic(fmt.Sprintf("%s: no templates: %v", name, err))
	}
	base := template.Must(template.New("layout").Funcs(template.FuncMap{
		"datetime": func(t time.Time) string { return t.In(clock.Toronto).Format("2006-01-02 15:04:05 MST") },
		"money":    func(cents int64, lang string) string { return money.Amount(cents).Format(lang) },
	}).Parse(layout))
	for _, n := range names {
		t := template.Must(base.Clone())
		s.pages[strings.TrimSuffix(path.Base(n), ".html")] = template.Must(t.ParseFS(files, n))
	}
	return s
}

// Page answers with an English page.
func (s *Site) Page(w http.ResponseWriter, status int, page string, data any) {
	s.PageIn(w, status, "en", page, data)
}

// PageIn answers with a page in the language lang. The page is whole before its
// first byte is sent: a template that fails becomes a plain 500.
func (s *Site) PageIn(w http.ResponseWriter, status int, lang, page string, data any) {
	var b bytes.Buffer
	err := s.pages[page].ExecuteTemplate(&b, "layout", struct {
		Name, Lang string
		Links      []Link
		Data       any
	}{s.name, lang, s.links, data})
	if err != nil {
		s.log.Error("render page", "page", page, "error", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	w.Write(b.Bytes()) // the reader is gone when this fails
}

// Handler wraps the routes of a simulator: it adds the style sheet and the
// headers of every answer, and refuses what another site's page sends.
func (s *Site) Handler(mux *http.ServeMux) http.Handler {
	mux.HandleFunc("GET /_control/style.css", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/css; charset=utf-8")
		w.Write(style)
	})
	// There is no form-action: a form of the directory or of a department ends on
	// another origin, and browsers hold that directive against redirects too.
	const policy = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'"
	return http.NewCrossOriginProtection().Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		mux.ServeHTTP(w, r)
	}))
}

// JSON answers with v.
func JSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // our own types only
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(b, '\n'))
}

// Fail answers {"error": message}.
func Fail(w http.ResponseWriter, status int, format string, args ...any) {
	JSON(w, status, map[string]string{"error": fmt.Sprintf(format, args...)})
}

// MaxBody bounds what a control API reads.
const MaxBody = 1 << 20

// Decode reads one JSON value from the request and refuses unknown members: a
// misspelled fault that does nothing would make a test pass for no reason.
func Decode(w http.ResponseWriter, r *http.Request, v any) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, MaxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("read JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("read JSON: more than one value")
	}
	return nil
}

// IsForm reports whether the request comes from a form of a control page, which
// is answered with a redirect instead of JSON.
func IsForm(r *http.Request) bool {
	return strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded")
}
