package xmlread

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

var small = Limits{Bytes: 1000, Depth: 4, Text: 20}

func walk(doc string) (string, error) {
	r := New(strings.NewReader(doc), small)
	var b strings.Builder
	for {
		t, err := r.Next()
		if errors.Is(err, io.EOF) {
			return b.String(), nil
		}
		if err != nil {
			return b.String(), err
		}
		if t.End && t.Leaf {
			b.WriteString(t.Path + "=" + t.Text + t.Attribute("c") + ";")
		}
	}
}

func TestReaderHandsOutLeavesWithTheirPath(t *testing.T) {
	for doc, want := range map[string]string{
		`<a><b c="x">1</b><b> 2 </b><d/></a>`:                               "a/b=1x;a/b=2;a/d=;",
		"\ufeff<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<a>&amp;é</a>\n": "a=&é;",
		`<p:a xmlns:p="u"><p:b><![CDATA[<]]></p:b></p:a>`:                   "a/b=<;",
		`<a><!-- note --><b>1<!-- 2 -->3</b></a>`:                           "a/b=13;",
	} {
		if got, err := walk(doc); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", doc, got, err, want)
		}
	}
}

func TestReaderRefuses(t *testing.T) {
	for name, tt := range map[string]struct{ doc, want string }{
		"a document type":          {`<!DOCTYPE a><a/>`, "line 1: a document type or entity"},
		"an expanding entity":      {`<!DOCTYPE a [<!ENTITY x "yy">]><a>&x;</a>`, "document type"},
		"an unknown entity":        {`<a>&x;</a>`, "invalid character entity"},
		"a style sheet":            {`<?xml-stylesheet href="x"?><a/>`, "processing instruction"},
		"a second root":            {`<a/><b/>`, "second root"},
		"text after the root":      {`<a/>x`, "text outside"},
		"text before the root":     {`x<a/>`, "text outside"},
		"text beside elements":     {`<a>x<b/></a>`, "line 1, a: text beside"},
		"text after an element":    {"<a><b/>\nx</a>", "line 2, a: text beside"},
		"a foreign namespace":      {`<a xmlns="u"><b xmlns="v"/></a>`, `line 1, a/b: namespace "v"`},
		"an undeclared prefix":     {`<a><p:b/></a>`, `namespace "p"`},
		"an attribute twice":       {`<a><b c="1" c="2"/></a>`, "a/b: attribute"},
		"nesting beyond the limit": {`<a><a><a><a><a/></a></a></a></a>`, "nested deeper than 4"},
		"a text too long":          {`<a>` + strings.Repeat("x", 21) + `</a>`, "longer than 20 bytes"},
		"a document too long":      {`<a>` + strings.Repeat("<b/>", 300) + `</a>`, "longer than 1000 bytes"},
		"another encoding":         {`<?xml version="1.0" encoding="ISO-8859-1"?><a/>`, "only UTF-8"},
		"a cut document":           {`<a><b>1</b>`, "unexpected EOF"},
		"crossed elements":         {`<a><b></a></b>`, "element <b> closed by </a>"},
		"nothing":                  {` `, "no root element"},
		"bytes that are no UTF-8":  {"<a>\xff</a>", "invalid UTF-8"},
	} {
		_, err := walk(tt.doc)
		if bad := (*Error)(nil); !errors.As(err, &bad) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want an *Error with %q", name, err, tt.want)
		}
	}
}

func TestReaderTellsAFailedReadFromABadDocument(t *testing.T) {
	r := New(io.MultiReader(strings.NewReader("<a>"), iotest.ErrReader(io.ErrClosedPipe)), small)
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	_, err := r.Next()
	if bad := (*Error)(nil); !errors.Is(err, io.ErrClosedPipe) || errors.As(err, &bad) {
		t.Errorf("a broken pipe is reported as %v", err)
	}
}

func TestSkipPassesOverForeignElements(t *testing.T) {
	r := New(strings.NewReader(`<a xmlns="u"><b><c xmlns="v">x<d/></c></b><e>1</e></a>`), small)
	for range 2 {
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Skip(); err != nil {
		t.Fatal(err)
	}
	if tok, err := r.Next(); err != nil || tok.Path != "a/e" {
		t.Errorf("after Skip: %+v, %v; want the start of a/e", tok, err)
	}
}
