package web

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

// A Form is what a person typed and what is wrong with it. The zero value is an
// empty form. It is filled by the handler and shown by the field component.
type Form struct {
	Values url.Values
	Errors []FieldError
}

// A FieldError is shown in the summary above the form and beside its field. Field
// is empty when the error concerns the form as a whole.
type FieldError struct {
	Field   string
	Message Message
}

// maxForm bounds a posted form; no page of ours needs more.
const maxForm = 64 << 10

var errNoText = errors.New("a value is no text")

// ReadForm reads the posted form, of at most 64 KiB. Values from the address are not part of it.
func ReadForm(w http.ResponseWriter, r *http.Request) (*Form, error) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	err := r.ParseForm()
	if err == nil && !allText(r.PostForm) {
		err = errNoText
	}
	if err != nil {
		return nil, fmt.Errorf("read form: %w", err)
	}
	return &Form{Values: r.PostForm}, nil
}

// Text is the middleware of pages that look things up by what stands in the address:
// broken UTF-8 and NUL, which no link of ours has and no database takes, get 400.
func (s *Site) Text(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isText(r.URL.Path) || !allText(r.URL.Query()) {
			s.Fail(w, r, http.StatusBadRequest, "")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func allText(values url.Values) bool {
	for name, list := range values {
		if !isText(name) || slices.ContainsFunc(list, func(v string) bool { return !isText(v) }) {
			return false
		}
	}
	return true
}

func isText(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

// Value returns what was typed into a field, without the space around it.
func (f *Form) Value(name string) string {
	if f == nil {
		return ""
	}
	return strings.TrimSpace(f.Values.Get(name))
}

// Fail notes an error of a field; only the first of each field is kept.
func (f *Form) Fail(field, key string, args ...any) {
	if f.Error(field) == nil {
		f.Errors = append(f.Errors, FieldError{field, Say(key, args...)})
	}
}

// Error returns the error of a field, or nil.
func (f *Form) Error(field string) *Message {
	if f == nil {
		return nil
	}
	for i := range f.Errors {
		if f.Errors[i].Field == field {
			return &f.Errors[i].Message
		}
	}
	return nil
}

// OK reports that nothing is wrong.
func (f *Form) OK() bool { return f == nil || len(f.Errors) == 0 }

// Field is the data of the field component, made by the template function field.
type Field struct {
	Name, Label, Value, Hint string
	Type                     string // text, email, tel, search, password, number, textarea
	Autocomplete, InputMode  string
	Size                     string // "", "short", "medium": the width tells how much is expected
	MaxLength, Prefix        string
	Optional, Code           bool
	Error                    *Message
}

// field makes a Field from a form and options: field .Form "notice" "label" (t "…") "hint" (t "…").
func field(form *Form, name string, options ...any) (Field, error) {
	f := Field{Name: name, Value: form.Value(name), Type: "text", Error: form.Error(name)}
	if len(options)%2 != 0 {
		return f, fmt.Errorf("field %s: options come in pairs", name)
	}
	for i := 0; i < len(options); i += 2 {
		switch v := options[i+1].(type) {
		case bool:
			switch options[i] {
			case "optional":
				f.Optional = v
			case "code":
				f.Code = v
			default:
				return f, fmt.Errorf("field %s: no option %v", name, options[i])
			}
		case string:
			to, ok := map[any]*string{
				"label": &f.Label, "hint": &f.Hint, "type": &f.Type, "value": &f.Value, "autocomplete": &f.Autocomplete,
				"inputmode": &f.InputMode, "size": &f.Size, "maxlength": &f.MaxLength, "prefix": &f.Prefix,
			}[options[i]]
			if !ok {
				return f, fmt.Errorf("field %s: no option %v", name, options[i])
			}
			if options[i] == "value" && form != nil && form.Values != nil {
				continue // what the person typed wins over what is stored
			}
			*to = v
		default:
			return f, fmt.Errorf("field %s: option %v is a %T", name, options[i], v)
		}
	}
	if f.Label == "" {
		return f, fmt.Errorf("field %s: no label", name)
	}
	return f, nil
}

// Choice is the data of the choice component: one radio button or check box.
type Choice struct {
	Name, Value, Label, Hint string
	Type                     string // radio, checkbox
	Checked                  bool
}

func choice(kind, name, value, label, hint string, checked bool) Choice {
	return Choice{name, value, label, hint, kind, checked}
}
