package departments

import (
	"reflect"
	"strings"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"guichet/internal/clock"
)

// readEntry reads and checks the body of a single entry. An upload is thousands of
// small bodies, and the library's way (decode, check, decode again) costs more than the
// rest of the request: what is plainly good is read in one pass, and everything
// else is left to the library's way, which knows what to say about it.
func (a *API) readEntry(body []byte) (*NewEntry, *Problem) {
	if e, ok := quickEntry(body); ok {
		return e, nil
	}
	if len(body) == 0 {
		return nil, coded("bad-request", "request body is required")
	}
	var parsed any
	if err := readJSON(body, &parsed); err != nil {
		return nil, coded("bad-request", "validation failed").with(field("body", err.Error()))
	}
	checked := new(huma.ValidateResult)
	path := huma.NewPathBuffer(nil, 0)
	path.Push("body")
	huma.Validate(a.huma.OpenAPI().Components.Schemas, a.entrySchema, path, huma.ModeWriteToServer, parsed, checked)
	if len(checked.Errors) > 0 {
		return nil, coded("invalid", "validation failed").with(checked.Errors...)
	}
	e := new(NewEntry)
	if err := readJSON(body, e); err != nil {
		return nil, coded("invalid", "validation failed").with(field("body", err.Error()))
	}
	return e, nil
}

// describeEntry puts the body into the document, as it would be for a typed one.
func (a *API) describeEntry(op *huma.Operation) {
	a.entrySchema = a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[NewEntry](), true, "NewEntry")
	op.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/json": {Schema: a.entrySchema}}}
	op.SkipValidateBody = true
}

// quickEntry reads an entry that fulfils the document word for word, without escapes.
// It may give up on any other, and accepts nothing that the document refuses (a fuzz
// test holds it to that).
func quickEntry(body []byte) (*NewEntry, bool) {
	q, e := quick{text: body}, new(NewEntry)
	ok := q.object(func(name string) bool {
		switch name {
		case "reference":
			return q.text64(&e.Reference)
		case "description":
			return q.words(&e.Description)
		case "effective_on":
			return q.date(&e.EffectiveOn)
		case "or_next_open":
			return q.flag(&e.OrNextOpen)
		case "lines":
			return q.list(func() bool {
				if len(e.Lines) == maxEntryLines {
					return false
				}
				e.Lines = append(e.Lines, EntryLine{})
				return q.line(&e.Lines[len(e.Lines)-1])
			})
		}
		return false
	}, "reference", "description", "lines")
	return e, ok && len(e.Lines) >= 2 && q.end()
}

const maxEntryLines = 1000

// A quick reads JSON from the left. Its methods report false when they give up.
type quick struct {
	text []byte
	at   int
}

func (q *quick) space() {
	for q.at < len(q.text) && (q.text[q.at] == ' ' || q.text[q.at] == '\n' || q.text[q.at] == '\r' || q.text[q.at] == '\t') {
		q.at++
	}
}

func (q *quick) end() bool { q.space(); return q.at == len(q.text) }

// take passes over one character, if it comes next.
func (q *quick) take(c byte) bool {
	q.space()
	if q.at == len(q.text) || q.text[q.at] != c {
		return false
	}
	q.at++
	return true
}

// object reads members, each at most once and all that are required.
func (q *quick) object(member func(name string) bool, required ...string) bool {
	if !q.take('{') {
		return false
	}
	var seen [8]string // more than any object of an entry has
	n := 0
	if !q.take('}') {
		for {
			name, ok := q.string()
			if !ok || n == len(seen) || !q.take(':') {
				return false
			}
			for _, s := range seen[:n] {
				if s == name {
					return false
				}
			}
			seen[n] = name
			n++
			if !member(name) {
				return false
			}
			if q.take(',') {
				continue
			}
			if !q.take('}') {
				return false
			}
			break
		}
	}
	for _, r := range required {
		found := false
		for _, s := range seen[:n] {
			found = found || s == r
		}
		if !found {
			return false
		}
	}
	return true
}

func (q *quick) list(item func() bool) bool {
	if !q.take('[') || q.take(']') { // none of ours is empty
		return false
	}
	for item() {
		if q.take(',') {
			continue
		}
		return q.take(']')
	}
	return false
}

// string reads a text without escapes.
func (q *quick) string() (string, bool) {
	if !q.take('"') {
		return "", false
	}
	for i := q.at; i < len(q.text); i++ {
		switch c := q.text[i]; {
		case c == '"':
			s := string(q.text[q.at:i])
			q.at = i + 1
			return s, true
		case c < ' ' || c == '\\' || c == 0x7f:
			return "", false
		}
	}
	return "", false
}

func (q *quick) line(l *EntryLine) bool {
	return q.object(func(name string) bool {
		switch name {
		case "account":
			return q.account(&l.Account)
		case "amount_cents":
			return q.cents(&l.AmountCents)
		case "dimensions":
			return q.dimensions(&l.Dimensions)
		}
		return false
	}, "account", "amount_cents")
}

func (q *quick) dimensions(d *Dimensions) bool {
	return q.object(func(name string) bool {
		switch name {
		case "department":
			return q.code(&d.Department)
		case "fund":
			return q.code(&d.Fund)
		case "cost_centre":
			return q.code(&d.CostCentre)
		case "order":
			return q.code(&d.Order)
		case "wbs":
			return q.code(&d.WBS)
		case "channel":
			return q.code(&d.Channel)
		case "tender":
			return q.code(&d.Tender)
		}
		return false
	})
}

// code reads up to 40 visible ASCII characters.
func (q *quick) code(into *string) (ok bool) {
	*into, ok = q.string()
	return ok && len(*into) <= 40 && within(*into, '!')
}

// within reports whether a text is of ASCII characters from one on.
func within(s string, first byte) bool {
	for i := range len(s) {
		if s[i] < first || s[i] > '~' {
			return false
		}
	}
	return true
}

func (q *quick) text64(into *string) (ok bool) {
	*into, ok = q.string()
	return ok && *into != "" && len(*into) <= 64 && within(*into, ' ') && (*into)[0] != ' ' && (*into)[len(*into)-1] != ' '
}

func (q *quick) words(into *string) (ok bool) {
	*into, ok = q.string()
	if !ok || *into == "" || len(*into) > 200 || !utf8.ValidString(*into) {
		return false
	}
	return !strings.ContainsFunc(*into, func(r rune) bool { return r >= 0x7f && r <= 0x9f })
}

func (q *quick) date(into *string) (ok bool) {
	*into, ok = q.string()
	if !ok {
		return false
	}
	_, err := clock.ParseDate(*into)
	return err == nil
}

func (q *quick) flag(into *bool) bool {
	q.space()
	for _, word := range []string{"true", "false"} {
		if strings.HasPrefix(string(q.text[q.at:min(q.at+len(word), len(q.text))]), word) {
			q.at += len(word)
			*into = word == "true"
			return true
		}
	}
	return false
}

// cents reads an integer of up to 14 digits.
func (q *quick) cents(into *int64) bool {
	negative := q.take('-')
	if !negative {
		q.space()
	}
	from := q.at
	for q.at < len(q.text) && q.text[q.at] >= '0' && q.text[q.at] <= '9' {
		*into = *into*10 + int64(q.text[q.at]-'0')
		if q.at++; q.at-from > 14 {
			return false
		}
	}
	if q.at == from || q.text[from] == '0' {
		return false
	}
	if negative {
		*into = -*into
	}
	return true
}

// account reads the path of an account.
func (q *quick) account(into *string) (ok bool) {
	*into, ok = q.string()
	root, rest, deeper := strings.Cut(*into, ":")
	if !ok || !deeper || len(*into) > 200 {
		return false
	}
	switch root {
	case "assets", "liabilities", "equity", "revenue", "expenses":
	default:
		return false
	}
	begins := true
	for i := range len(rest) {
		switch c := rest[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
			begins = false
		case c == '-' && !begins:
		case c == ':' && !begins:
			begins = true
		default:
			return false
		}
	}
	return !begins
}
