package web

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"strings"
	"text/template/parse"
	"time"

	"guichet/internal/id"
	"guichet/internal/money"
)

// Options say whose city it is and who reads.
type Options struct {
	BaseURL string // "https://pay.example.ca": cookies are Secure when it is https
	Dev     bool   // says on every page that no real money moves
	Log     *slog.Logger

	City      map[string]string            // name of the city by language; empty: Ottawa's
	Viewer    func(*http.Request) Viewer   // nil: nobody is ever signed in
	RequestID func(context.Context) string // nil: error pages show none
	FormHosts []string                     // origins a posted form may lead to, the card processor's above all
}

// A Viewer is the person reading, as far as the frame of a page shows it.
type Viewer struct {
	Name    string // "" when signed out
	Nav     []Link // main navigation; empty: the resident layout's own
	SignIn  string // address of the sign-in page, when signed out
	SignOut string // address that a sign-out form posts to
	Alarm   string // key of what everybody at the desk must know now; "" for nothing

	Acting   *Acting         // for whom the reader acts; nil: for themselves
	Contexts func() []Acting // for whom they could; asked only when it is shown; nil: nobody
}

// Acting is somebody whom the reader may act for.
type Acting struct {
	ID, Name string
	Type     string // business, person, estate, property
}

// A Link is a place in the navigation. Label is a key.
type Link struct{ Href, Label string }

// Site renders pages. Register everything before serving; afterwards it may be
// used by any number of goroutines.
type Site struct {
	log       *slog.Logger
	secure    bool
	dev       bool
	city      map[string]string
	viewer    func(*http.Request) Viewer
	requestID func(context.Context) string
	csp       string
	assets    assets
	words     map[string]*words
	base      map[string]*template.Template            // language → layouts and components
	pages     map[string]map[string]*template.Template // page → language → template
}

// New returns a Site with the layouts, components and error pages. It panics when
// its own embedded files are broken, which only a programmer can cause.
func New(o Options) *Site {
	s := &Site{
		log: o.Log, dev: o.Dev, city: o.City, viewer: o.Viewer, requestID: o.RequestID,
		secure: strings.HasPrefix(o.BaseURL, "https:"),
		words:  map[string]*words{}, base: map[string]*template.Template{}, pages: map[string]map[string]*template.Template{},
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.city == nil {
		s.city = map[string]string{"en": "City of Ottawa", "fr": "Ville d’Ottawa"}
	}
	if s.viewer == nil {
		s.viewer = func(*http.Request) Viewer { return Viewer{} }
	}
	if s.requestID == nil {
		s.requestID = func(context.Context) string { return "" }
	}
	s.csp = policy(o.FormHosts)
	var err error
	if s.assets, err = loadAssets(); err != nil {
		panic(fmt.Sprintf("web: assets: %v", err))
	}
	for _, lang := range Languages {
		s.words[lang] = newWords(lang)
	}
	if err := s.loadWords("web", own); err != nil {
		panic(fmt.Sprintf("web: %v", err))
	}
	for _, lang := range Languages {
		s.base[lang] = template.Must(template.New("").Option("missingkey=error").Funcs(s.funcs(lang)).ParseFS(own, "templates/*.part.html"))
	}
	if err := s.loadPages("web", own); err != nil {
		panic(fmt.Sprintf("web: %v", err))
	}
	return s
}

// Register adds the pages and words of a room. It panics on a template that does not
// parse and on words that English and French do not share: they are embedded files,
// so only a programmer can cause it, and the program must not start with them.
func (s *Site) Register(room string, files fs.FS) {
	if err := s.loadWords(room, files); err != nil {
		panic(fmt.Sprintf("web: register %s: %v", room, err))
	}
	if err := s.loadPages(room, files); err != nil {
		panic(fmt.Sprintf("web: register %s: %v", room, err))
	}
}

func (s *Site) loadPages(room string, files fs.FS) error {
	all, err := fs.Glob(files, "templates/*.html")
	if err != nil {
		return err
	}
	var parts, pages []string
	for _, file := range all {
		if strings.HasSuffix(file, ".part.html") {
			parts = append(parts, file)
		} else {
			pages = append(pages, file)
		}
	}
	for _, file := range pages {
		name := room + "/" + strings.TrimSuffix(path.Base(file), ".html")
		s.pages[name] = map[string]*template.Template{}
		for _, lang := range Languages {
			t, err := s.base[lang].Clone()
			if err != nil {
				return err
			}
			if room != "web" {
				for _, part := range parts {
					if err := parseFile(t, files, part); err != nil {
						return err
					}
				}
			}
			if err := parseFile(t, files, file); err != nil {
				return err
			}
			if err := s.checkWords(t, room); err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			if t.Lookup("title") == nil || t.Lookup("main") == nil {
				return fmt.Errorf(`%s: define "title" and "main"`, file)
			}
			s.pages[name][lang] = t
		}
	}
	return nil
}

func parseFile(t *template.Template, files fs.FS, name string) error {
	text, err := fs.ReadFile(files, name)
	if err != nil {
		return err
	}
	_, err = t.New(path.Base(name)).Parse(string(text))
	return err
}

// checkWords finds words that a template names and nobody wrote, also on branches
// that no test renders.
func (s *Site) checkWords(t *template.Template, room string) error {
	for _, t := range t.Templates() {
		if t.Tree == nil {
			continue
		}
		var missing string
		walk(t.Tree.Root, func(fn, key string) {
			if (fn == "t" || fn == "h") && s.words["en"].args[key] == nil {
				missing = key
			}
		})
		if missing != "" {
			return fmt.Errorf("%s: message %s does not exist", t.Name(), missing)
		}
	}
	return nil
}

// walk calls found for every function called with a string literal first.
func walk(n parse.Node, found func(fn, key string)) {
	pipe := func(p *parse.PipeNode) {
		if p != nil {
			walk(p, found)
		}
	}
	list := func(l *parse.ListNode) {
		if l != nil {
			walk(l, found)
		}
	}
	switch n := n.(type) {
	case *parse.ListNode:
		for _, c := range n.Nodes {
			walk(c, found)
		}
	case *parse.ActionNode:
		pipe(n.Pipe)
	case *parse.TemplateNode:
		pipe(n.Pipe)
	case *parse.IfNode:
		pipe(n.Pipe)
		list(n.List)
		list(n.ElseList)
	case *parse.RangeNode:
		pipe(n.Pipe)
		list(n.List)
		list(n.ElseList)
	case *parse.WithNode:
		pipe(n.Pipe)
		list(n.List)
		list(n.ElseList)
	case *parse.PipeNode:
		for _, c := range n.Cmds {
			walk(c, found)
		}
	case *parse.CommandNode:
		if len(n.Args) > 1 {
			fn, isFn := n.Args[0].(*parse.IdentifierNode)
			key, isText := n.Args[1].(*parse.StringNode)
			if isFn && isText {
				found(fn.Ident, key.Text)
			}
		}
		for _, a := range n.Args {
			walk(a, found)
		}
	}
}

// deskPath is where the desk begins: what fails there looks like the desk.
const deskPath = "/desk"

// frame is the dot of a layout; the page's own data is inside.
type frame struct {
	Data                            any
	Layout, Path, Switch, RequestID string
	Viewer                          Viewer
	City                            string
	Dev                             bool
}

// Page answers with a page, in the reader's language. If it cannot be rendered
// whole, the answer is the error page, and the cause goes to the log.
func (s *Site) Page(w http.ResponseWriter, r *http.Request, status int, name string, data any) {
	text, err := s.render(r, name, data)
	if err != nil {
		s.log.ErrorContext(r.Context(), "render page", "page", name, "error", err)
		s.Fail(w, r, http.StatusInternalServerError, "")
		return
	}
	s.write(w, r, status, text)
}

// Render returns a page as text, for tests and for documents that are kept.
func (s *Site) Render(lang, name string, data any) (string, error) {
	r := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/", RawQuery: "lang=" + lang}}
	text, err := s.render(r, name, data)
	return string(text), err
}

func (s *Site) render(r *http.Request, name string, data any) ([]byte, error) {
	lang := Lang(r)
	page, ok := s.pages[name]
	if !ok {
		return nil, fmt.Errorf("no page %s", name)
	}
	t := page[lang]
	var b bytes.Buffer
	layout := "resident"
	if strings.HasPrefix(name, "desk") || name == "web/error" && here(r.URL.Path, deskPath) {
		layout = "desk"
	}
	if chosen := t.Lookup("layout"); chosen != nil {
		if err := chosen.Execute(&b, nil); err != nil {
			return nil, err
		}
		layout = strings.TrimSpace(b.String())
		b.Reset()
	}
	err := t.ExecuteTemplate(&b, "layout-"+layout, frame{
		Data: data, Layout: layout, Path: r.URL.Path, Switch: switchHref(r, lang), RequestID: s.requestID(r.Context()),
		Viewer: s.viewer(r), City: s.city[lang], Dev: s.dev,
	})
	return b.Bytes(), err
}

func (s *Site) write(w http.ResponseWriter, r *http.Request, status int, text []byte) {
	s.remember(w, r)
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Language", Lang(r)+"-CA")
	defaults := map[string]string{
		"Cache-Control":           "no-store", // every page may show who is signed in
		"Content-Security-Policy": s.csp,
		// Nothing goes elsewhere. Not no-referrer: with it a browser sends "Origin: null"
		// with our own forms, and one without Sec-Fetch-Site would be taken for a stranger.
		"Referrer-Policy":        "same-origin",
		"X-Content-Type-Options": "nosniff",
		"X-Frame-Options":        "DENY",
	}
	for name, value := range defaults {
		if h.Get(name) == "" {
			h.Set(name, value)
		}
	}
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		w.Write(text) // a reader who has gone away is nobody's error
	}
}

// policy is the Content-Security-Policy: our own style sheet and pictures, no
// script (AllowScript adds it where it is needed). Browsers apply form-action also to where a form's answer redirects, so
// the processor's page is listed.
func policy(formHosts []string) string {
	return "default-src 'none'; style-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'; form-action " +
		strings.Join(append([]string{"'self'"}, formHosts...), " ")
}

// AllowForms lets the forms of the page about to be written lead to more origins:
// a sign-in that ends at another site's redirect address. Call it before Page.
func (s *Site) AllowForms(w http.ResponseWriter, origins ...string) {
	w.Header().Set("Content-Security-Policy", s.policyOf(w)+" "+strings.Join(origins, " "))
}

// AllowScript lets the page about to be written run our own script file and ask our own
// server. Only pages with a passkey need it, never one beside a payment. Call it before Page.
func (s *Site) AllowScript(w http.ResponseWriter) {
	w.Header().Set("Content-Security-Policy", "script-src 'self'; connect-src 'self'; "+s.policyOf(w))
}

func (s *Site) policyOf(w http.ResponseWriter) string {
	if chosen := w.Header().Get("Content-Security-Policy"); chosen != "" {
		return chosen
	}
	return s.csp
}

// Pages lists the pages of a room, for its test.
func (s *Site) Pages(room string) []string {
	var names []string
	for name := range s.pages {
		if strings.HasPrefix(name, room+"/") {
			names = append(names, name)
		}
	}
	return names
}

func (s *Site) funcs(lang string) template.FuncMap {
	return template.FuncMap{
		"t":         func(key string, args ...any) (string, error) { return s.say(lang, key, args) },
		"h":         func(key string, args ...any) (template.HTML, error) { return s.sayHTML(lang, key, args) },
		"msg":       func(m Message) (string, error) { return s.say(lang, m.Key, m.Args) },
		"inother":   func(m Message) (string, error) { return s.say(otherLang(lang), m.Key, m.Args) },
		"money":     func(a money.Amount) string { return a.Format(lang) },
		"sum":       money.Sum,
		"date":      func(v any) (string, error) { return Date(lang, v) },
		"day":       func(v any) (string, error) { return Day(lang, v) },
		"datetime":  func(t time.Time) (string, error) { return DateTime(lang, t) },
		"isodate":   func(v any) (string, error) { d, err := dateOf(v); return d.String(), err },
		"number":    func(n any) (any, error) { return inWords(lang, n) },
		"code":      id.Group,
		"lang":      func() string { return lang },
		"otherlang": func() string { return otherLang(lang) },
		"asset":     s.assets.href,
		"script":    s.assets.script,
		"field":     field,
		"choice":    choice,
		"steps":     steps,
		"crumbs":    crumbs,
		"pages":     pagesOf,
		"dict":      dict,
		"here":      here,
		"list":      func(v ...any) []any { return v },
	}
}

// dict makes the data of a part from names and values.
func dict(pairs ...any) (map[string]any, error) {
	if len(pairs)%2 != 0 {
		return nil, errors.New("dict: names and values come in pairs")
	}
	m := map[string]any{}
	for i := 0; i < len(pairs); i += 2 {
		name, ok := pairs[i].(string)
		if !ok {
			return nil, fmt.Errorf("dict: name %v is a %T", pairs[i], pairs[i])
		}
		m[name] = pairs[i+1]
	}
	return m, nil
}
