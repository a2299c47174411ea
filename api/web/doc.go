// Package web is the design system: layouts, components, style sheet,
// translations and error pages that every page of the service is made of. It
// knows no residents, bills or payments; a room brings its own templates and words.
//
//	room ──Register──▶ templates/*.html + locale/{en,fr}.toml
//	handler ──Page──▶ buffer ──▶ browser      (resident, desk or bare layout)
//	handler ──Fail──▶ a plain sentence in both languages and the request id
//
// A page is written whole or not at all: it is rendered into a buffer, and a
// missing value, word or argument is an error, never an empty spot. English and
// French have the same keys and the same placeholders, or the program does not start.
// Pages work without JavaScript and load nothing from elsewhere. The one script, for
// passkeys, is on the few pages that ask for one.
//
// # Writing a page
//
// A room is registered once, before serving: Register("resident", files). The file
// templates/home.html is the page "resident/home"; templates/list.part.html is
// shared by the room's pages. A page defines "title" and "main", may define
// "head", and may choose its layout with {{define "layout"}}bare{{end}}; otherwise rooms
// whose name begins with "desk" get the desk layout, all others the resident's.
// Inside, the dot is the data given to Page.
//
//	{{define "title"}}{{t "resident.home.title"}}{{end}}
//	{{define "main"}}<h1>{{template "title" .}}</h1> … {{money .Total}}{{end}}
//
// Functions: t and h (words; h for keys ending in _html, whose arguments are escaped),
// msg (a Message), money, sum, date, day, datetime, isodate, number, code, lang, otherlang, asset, script,
// field and choice (forms), steps, crumbs, pages, dict, list. Components are templates:
// errors, errormark, field, choice, steps, crumbs, pagination, icon-good and the like.
// Words take their arguments as name and value: {{t "resident.home.save" "Amount" .Save}}.
// An argument named Count chooses the plural form. A word must not be called one, other, many,
// description or id: go-i18n reserves these. Amounts, dates and times are
// written in the reader's language.
//
// A form is posted to the address of its own page, so that the language switch,
// which is a link to the same address, always has a page to show.
package web
