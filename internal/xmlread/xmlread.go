// Package xmlread walks XML that somebody else wrote: bank statements, answers of
// SAP. It hands out elements one by one and refuses what such a file never needs
// and an attacker does.
//
//	bytes ──▶ encoding/xml ──▶ limits, one root, one namespace ──▶ tokens with path and line
//
// A document type, an entity beyond the five of XML, a processing instruction, a
// second root, text between elements, a foreign namespace, a file that is too
// long or nested too deep: each is an *Error that names element and line. What
// the elements mean is the caller's business.
package xmlread

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Limits bound what a document may cost before its meaning is known.
type Limits struct {
	Bytes int64 // of the whole document
	Depth int   // of open elements
	Text  int   // bytes of text in one element
}

// An Error says why a document is refused, and where.
type Error struct {
	Line   int
	Path   string // names of the open elements, joined by /
	Reason string
}

func (e *Error) Error() string {
	if e.Path == "" {
		return fmt.Sprintf("line %d: %s", e.Line, e.Reason)
	}
	return fmt.Sprintf("line %d, %s: %s", e.Line, e.Path, e.Reason)
}

// A Token is the start or the end of an element.
type Token struct {
	End  bool
	Path string // with the element itself last
	Line int    // where the element started
	Attr []xml.Attr
	Text string // at the end of an element without children, without outer space
	Leaf bool   // at the end: no child element
}

// Attribute returns the value of the unqualified attribute name, or "".
func (t Token) Attribute(name string) string {
	for _, a := range t.Attr {
		if a.Name.Space == "" && a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// Refuse returns an *Error about this element.
func (t Token) Refuse(format string, args ...any) error {
	return &Error{Line: t.Line, Path: t.Path, Reason: fmt.Sprintf(format, args...)}
}

// A Reader reads one document. It is not safe for concurrent use.
type Reader struct {
	in     *counter
	dec    *xml.Decoder
	limits Limits
	space  string
	open   []element
	paths  map[[2]string]string // parent path and name → path: each is built once
	done   bool                 // the root has ended
}

type element struct {
	path  string
	attr  []xml.Attr
	line  int
	text  []byte
	child bool
}

// New returns a Reader of r. A byte order mark is skipped; UTF-8 is the only
// encoding.
func New(r io.Reader, limits Limits) *Reader {
	in := &counter{r: r, left: limits.Bytes}
	dec := xml.NewDecoder(in)
	dec.CharsetReader = func(string, io.Reader) (io.Reader, error) {
		return nil, errors.New("only UTF-8 is accepted")
	}
	return &Reader{in: in, dec: dec, limits: limits, paths: map[[2]string]string{}}
}

// Next returns the next start or end. It returns io.EOF after a complete
// document, an *Error for a document to refuse, and any other error when reading
// itself went wrong.
func (r *Reader) Next() (Token, error) {
	for {
		tok, err := r.dec.Token()
		if err != nil {
			return Token{}, r.failure(err)
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			return r.start(tok)
		case xml.EndElement:
			return r.end(), nil
		case xml.CharData:
			if err := r.text(tok); err != nil {
				return Token{}, err
			}
		case xml.Directive:
			return Token{}, r.refuse("a document type or entity declaration is not accepted")
		case xml.ProcInst:
			if tok.Target != "xml" {
				return Token{}, r.refuse("processing instruction %.20q is not accepted", tok.Target)
			}
		}
	}
}

// Space is the namespace of the root element: every other element has it too.
func (r *Reader) Space() string { return r.space }

// Skip reads to the end of the element whose start Next returned last. Elements
// inside may be of any namespace; the limits hold.
func (r *Reader) Skip() error {
	for depth := 1; depth > 0; {
		tok, err := r.dec.Token()
		if err != nil {
			return r.failure(err)
		}
		switch tok.(type) {
		case xml.StartElement:
			depth++
			if len(r.open)+depth-1 > r.limits.Depth { // the skipped element is in both
				return r.refuse("nested deeper than %d elements", r.limits.Depth)
			}
		case xml.EndElement:
			depth--
		case xml.Directive, xml.ProcInst:
			return r.refuse("a declaration or processing instruction inside an element is not accepted")
		}
	}
	r.end()
	return nil
}

func (r *Reader) start(s xml.StartElement) (Token, error) {
	var parent string
	switch {
	case r.done:
		return Token{}, r.refuse("a second root element %.40q", s.Name.Local)
	case len(r.open) == 0:
		r.space = s.Name.Space
	default:
		up := &r.open[len(r.open)-1]
		if up.child = true; len(bytes.TrimSpace(up.text)) > 0 {
			return Token{}, r.refuse("text beside elements")
		}
		parent = up.path
	}
	if len(r.open) >= r.limits.Depth {
		return Token{}, r.refuse("nested deeper than %d elements", r.limits.Depth)
	}
	path := r.path(parent, s.Name.Local)
	line, _ := r.dec.InputPos()
	r.open = append(r.open, element{path: path, attr: s.Attr, line: line})
	if s.Name.Space != r.space {
		return Token{}, r.refuse("namespace %.80q, but the document is %.80q", s.Name.Space, r.space)
	}
	for i, a := range s.Attr {
		for _, b := range s.Attr[:i] {
			if a.Name == b.Name {
				return Token{}, r.refuse("attribute %.40q twice", a.Name.Local)
			}
		}
	}
	return Token{Path: path, Line: line, Attr: s.Attr}, nil
}

func (r *Reader) end() Token {
	e := r.open[len(r.open)-1]
	r.open = r.open[:len(r.open)-1]
	r.done = len(r.open) == 0
	t := Token{End: true, Path: e.path, Line: e.line, Attr: e.attr, Leaf: !e.child}
	if t.Leaf {
		t.Text = string(bytes.TrimSpace(e.text))
	}
	return t
}

func (r *Reader) text(s xml.CharData) error {
	if len(r.open) == 0 {
		// encoding/xml hands the byte order mark out as text before the root.
		if !r.done {
			s = bytes.TrimPrefix(s, []byte("\ufeff"))
		}
		if len(bytes.TrimSpace(s)) > 0 {
			return r.refuse("text outside the root element")
		}
		return nil
	}
	e := &r.open[len(r.open)-1]
	if e.child {
		if len(bytes.TrimSpace(s)) > 0 {
			return r.refuse("text beside elements")
		}
		return nil
	}
	if len(e.text)+len(s) > r.limits.Text {
		return r.refuse("text longer than %d bytes", r.limits.Text)
	}
	e.text = append(e.text, s...)
	return nil
}

func (r *Reader) path(parent, name string) string {
	key := [2]string{parent, name}
	p, ok := r.paths[key]
	if !ok {
		if p = name; parent != "" {
			p = parent + "/" + name
		}
		r.paths[key] = p
	}
	return p
}

// failure sorts an error of the decoder: the end, reading, or the document.
func (r *Reader) failure(err error) error {
	switch {
	case r.in.over:
		return r.refuse("longer than %d bytes", r.limits.Bytes)
	case r.in.err != nil:
		return fmt.Errorf("read XML: %w", r.in.err)
	case errors.Is(err, io.EOF) && r.done:
		return io.EOF
	case errors.Is(err, io.EOF):
		return r.refuse("no root element")
	}
	if syntax := (*xml.SyntaxError)(nil); errors.As(err, &syntax) {
		return r.refuse("%s", syntax.Msg)
	}
	return r.refuse("%s", strings.TrimPrefix(err.Error(), "xml: "))
}

func (r *Reader) refuse(format string, args ...any) error {
	line, _ := r.dec.InputPos()
	e := &Error{Line: line, Reason: fmt.Sprintf(format, args...)}
	if len(r.open) > 0 {
		e.Path = r.open[len(r.open)-1].path
	}
	return e
}

// counter ends a stream that is too long and remembers why reading stopped.
type counter struct {
	r    io.Reader
	left int64
	over bool
	err  error
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if c.left -= int64(n); c.left < 0 {
		c.over = true
		return 0, io.ErrUnexpectedEOF
	}
	if err != nil && !errors.Is(err, io.EOF) {
		c.err = err
	}
	return n, err
}
