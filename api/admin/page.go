package admin

import (
	"fmt"
	"net/http"
	"time"

	"guichet/api/web"
)

// Administration pages are alike: sections of facts, tables and forms. They are data, and
// one template writes them all.
type page struct {
	Title    web.Message
	Crumbs   []crumb
	Lead     web.Message // Key "": none
	Done     web.Message // what has just happened; Key "": nothing
	Secrets  []fact      // shown this once
	Form     *web.Form   // what was typed and what is wrong with it
	Tabs     []crumb     // the other pages of the same object
	Filter   *form       // of the list below
	Sections []section
	Next     string // address of the next page of a list
}

type crumb struct {
	Href  string
	Label web.Message
	Here  bool
}

type section struct {
	ID    string
	Title web.Message
	Text  web.Message // Key "": none
	Facts []fact
	Table *table
	Forms []form
}

type fact struct {
	Name  web.Message
	Cells []cell
}

// A cell is a value as people read it.
type cell struct {
	Text web.Message
	Href string
	Code bool   // an identifier
	Tone string // a tag: good, info, warn, bad, or plain
	Tag  bool
	Do   *button
}

// A button posts one value to the page itself.
type button struct {
	Action string
	Fields []hidden
	Label  web.Message
	About  web.Message // which of the buttons it is, for those who hear them one by one
	Danger bool
}

type hidden struct{ Name, Value string }

type table struct {
	Caption web.Message
	Columns []web.Message
	Rows    [][]cell
	Empty   web.Message
}

// A form of a page. Names of fields are unique on the page: they are ids.
type form struct {
	Action string
	Upload bool
	Title  web.Message // Key "": none
	Text   web.Message // Key "": none
	Hidden []hidden
	Inputs []input
	Submit web.Message
	Danger bool
	Quiet  bool
	Errors *web.Form // set by show
}

// An input of a form. Kinds: text, textarea, date, select, checks, file.
type input struct {
	Kind     string
	Name     string
	Label    web.Message
	Hint     web.Message // Key "": none
	Value    string
	Options  []option
	Optional bool
	Length   string
}

type option struct {
	Value   string
	Label   web.Message
	Checked bool
}

// say makes a message of this room.
func say(key string, args ...any) web.Message { return web.Say("admin."+key, args...) }

// raw is text that is nobody's words: a name, an address, an identifier.
func raw(text string) web.Message { return say("as_is", "Text", text) }

func text(s string) cell { return cell{Text: raw(s)} }
func code(s string) cell { return cell{Text: raw(s), Code: true} }
func link(href, s string) cell {
	return cell{Text: raw(s), Href: href}
}
func word(key string, args ...any) cell { return cell{Text: say(key, args...)} }
func tag(tone, key string) cell         { return cell{Text: say(key), Tag: true, Tone: tone} }

// when writes a moment; nil and the zero time are a dash.
func (h *Handler) when(r *http.Request, at *time.Time) cell {
	if at == nil || at.IsZero() {
		return word("none")
	}
	s, err := web.DateTime(web.Lang(r), *at)
	if err != nil {
		s = at.Format(time.RFC3339)
	}
	return text(s)
}

// one is a fact of one value.
func one(name string, c ...cell) fact { return fact{say(name), c} }

// show answers with a page. Errors of a form stand above the page and beside their fields.
func (h *Handler) show(w http.ResponseWriter, r *http.Request, status int, p page) {
	for i := range p.Sections {
		for k := range p.Sections[i].Forms {
			p.Sections[i].Forms[k].Errors = p.Form
		}
		if p.Sections[i].ID == "" {
			p.Sections[i].ID = fmt.Sprintf("part-%d", i+1)
		}
	}
	h.Site.Page(w, r, status, "admin/page", p)
}
