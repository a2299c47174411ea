package departments

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
)

// jsonLines is one JSON value in each line.
const jsonLines = "application/x-ndjson"

// readable refuses bodies that are not plain JSON, by what their headers say.
func (a *API) readable(ctx huma.Context, next func(huma.Context)) {
	if ctx.Operation().RequestBody == nil {
		next(ctx)
		return
	}
	media, params, err := mime.ParseMediaType(ctx.Header("Content-Type"))
	charset, coding := params["charset"], ctx.Header("Content-Encoding")
	if err != nil || ctx.Operation().RequestBody.Content[media] == nil || (charset != "" && !strings.EqualFold(charset, "utf-8")) ||
		(coding != "" && !strings.EqualFold(coding, "identity")) {
		a.refuse(ctx, http.StatusUnsupportedMediaType, "the body must be of a type that the reference names, such as application/json, in UTF-8 and not compressed")
		return
	}
	r, _ := humachi.Unwrap(ctx)
	r.Header.Set("Content-Type", media) // the library compares it letter by letter
	next(ctx)
}

// readJSON reads a body. Its errors never quote what could not be read.
func readJSON(data []byte, v any) error {
	if !utf8.Valid(data) {
		return errors.New("the body is not UTF-8")
	}
	err := json.Unmarshal(data, v)
	var (
		kind   *json.UnmarshalTypeError
		syntax *json.SyntaxError
	)
	switch {
	case err == nil && repeats(data):
		return errors.New("an object has a member twice")
	case err == nil:
		return nil
	case errors.As(err, &kind) && kind.Field != "": // the name is ours; all but the form of numbers is checked before
		return fmt.Errorf("%s: an integer is written without fraction and exponent", kind.Field)
	case errors.As(err, &kind):
		return errors.New("a number is out of range")
	case errors.As(err, &syntax):
		return fmt.Errorf("the body is not JSON: see byte %d", syntax.Offset)
	}
	return errors.New("the body is not JSON")
}

// readLines reads JSON Lines as the list of their values. Empty lines do not count.
func readLines(data []byte, v any) error {
	list := make([]byte, 0, len(data)+2)
	list = append(list, '[')
	for line := range bytes.Lines(data) {
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		if !json.Valid(line) { // two halves of a value would be one in a list
			return errors.New("a line is not JSON")
		}
		if len(list) > 1 {
			list = append(list, ',')
		}
		list = append(list, line...)
	}
	return readJSON(append(list, ']'), v)
}

// repeats reports whether an object of a JSON text has a member twice. Programs
// disagree about which of the two counts (RFC 8259, section 4), and here it may be an amount.
func repeats(data []byte) bool {
	type level struct {
		names map[string]bool // nil: a list
		named bool            // the next token is the value of a name
	}
	levels := []level{{}}
	tokens := json.NewDecoder(bytes.NewReader(data))
	for {
		token, err := tokens.Token()
		if err != nil {
			return false // the end
		}
		top := &levels[len(levels)-1]
		if name, ok := token.(string); ok && top.names != nil && !top.named {
			if top.names[name] {
				return true
			}
			top.names[name], top.named = true, true
			continue
		}
		top.named = false
		switch token {
		case json.Delim('{'):
			levels = append(levels, level{names: map[string]bool{}})
		case json.Delim('['):
			levels = append(levels, level{})
		case json.Delim('}'), json.Delim(']'):
			levels = levels[:len(levels)-1]
		}
	}
}

func writeJSON(w io.Writer, v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, _ = w.Write(b.Bytes()) // a caller who has gone away is nobody's error
	return nil
}
