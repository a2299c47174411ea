package mail

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"text/template"
	"unicode"
)

// langs are the languages every message is written in.
var langs = []string{"en", "fr"}

// Templates are the words of messages, by name and language.
type Templates struct {
	byFile map[string]*template.Template // "receipt.fr"
}

// NewTemplates reads every file <name>.<lang>.txt anywhere in the rooms' file
// systems: "Subject: …", an empty line, the text. Each name must exist once and in both languages.
// A template sees Message.Data; a value that is missing there is an error.
func NewTemplates(rooms ...fs.FS) (*Templates, error) {
	t := &Templates{byFile: make(map[string]*template.Template)}
	for _, room := range rooms {
		err := fs.WalkDir(room, ".", func(file string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || path.Ext(file) != ".txt" {
				return err
			}
			return t.add(room, file)
		})
		if err != nil {
			return nil, fmt.Errorf("mail templates: %w", err)
		}
	}
	for file := range t.byFile {
		name := strings.TrimSuffix(file, path.Ext(file))
		for _, lang := range langs {
			if t.byFile[name+"."+lang] == nil {
				return nil, fmt.Errorf("mail templates: %s is missing in %q", name, lang)
			}
		}
	}
	return t, nil
}

func (t *Templates) add(room fs.FS, file string) error {
	name := strings.TrimSuffix(path.Base(file), ".txt")
	if t.byFile[name] != nil {
		return fmt.Errorf("%s exists twice", name)
	}
	text, err := fs.ReadFile(room, file)
	if err != nil {
		return err
	}
	head, _, ok := strings.Cut(string(text), "\n\n")
	if !ok || !strings.HasPrefix(head, "Subject: ") || strings.Contains(head, "\n") {
		return fmt.Errorf("%s: want \"Subject: …\", an empty line and the text", file)
	}
	t.byFile[name], err = template.New(name).Option("missingkey=error").Parse(string(text))
	return err
}

var errNoTemplate = errors.New("no such mail template")

// word fills in a template.
func (t *Templates) word(name, lang string, data map[string]string) (subject, text string, err error) {
	tmpl := t.byFile[name+"."+lang]
	if tmpl == nil {
		return "", "", fmt.Errorf("%s in %q: %w", name, lang, errNoTemplate)
	}
	clean := make(map[string]string, len(data))
	for k, v := range data {
		clean[k] = oneLine(v)
	}
	var b strings.Builder
	if err := tmpl.Execute(&b, clean); err != nil {
		return "", "", err
	}
	head, text, _ := strings.Cut(b.String(), "\n\n")
	return strings.TrimPrefix(head, "Subject: "), text, nil
}

// oneLine makes control characters and line separators spaces: a value can neither
// end the subject nor start a paragraph of its own.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, s)
	return strings.TrimSpace(s)
}
