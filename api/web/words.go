package web

import (
	"fmt"
	"html/template"
	"io/fs"
	"regexp"
	"slices"
	"sort"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/nicksnyder/go-i18n/v2/i18n"
	"golang.org/x/text/language"
)

// Languages the service speaks; the first is what a reader gets who asks for neither.
var Languages = []string{"en", "fr"}

var tags = map[string]language.Tag{"en": language.English, "fr": language.French}

// A Message is a sentence to be written later, in the reader's language.
type Message struct {
	Key  string
	Args []any // name, value, name, value…
}

// Say makes a Message.
func Say(key string, args ...any) Message { return Message{key, args} }

// words are all messages of one language. Each language has a bundle of its own,
// so that nothing can fall back from one to the other in silence.
type words struct {
	localizer *i18n.Localizer
	bundle    *i18n.Bundle
	args      map[string][]string // key → sorted placeholder names
}

var (
	placeholder = regexp.MustCompile(`\{\{\s*\.(\w+)\s*\}\}`)
	action      = regexp.MustCompile(`\{\{[^}]*\}\}`)
)

func newWords(lang string) *words {
	b := i18n.NewBundle(tags[lang])
	return &words{i18n.NewLocalizer(b, lang), b, map[string][]string{}}
}

// loadWords reads locale/en.toml and locale/fr.toml of a room, checks one against
// the other and adds them under the room's name.
func (s *Site) loadWords(room string, files fs.FS) error {
	for _, lang := range Languages {
		file := "locale/" + lang + ".toml"
		text, err := fs.ReadFile(files, file)
		if err != nil {
			return err
		}
		messages, err := i18n.ParseMessageBytes(text, toml.Unmarshal)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		w := s.words[lang]
		for _, m := range messages {
			m.ID = room + "." + m.ID
			args, err := placeholders(lang, m)
			if err != nil {
				return fmt.Errorf("%s: %s: %w", file, m.ID, err)
			}
			w.args[m.ID] = args
		}
		if err := w.bundle.AddMessages(tags[lang], messages...); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return s.compareWords(room)
}

// compareWords reports keys or placeholders that one language has and the other not.
func (s *Site) compareWords(room string) error {
	en, fr := s.words["en"].args, s.words["fr"].args
	var faults []string
	for key, args := range en {
		if !strings.HasPrefix(key, room+".") {
			continue
		}
		other, ok := fr[key]
		switch {
		case !ok:
			faults = append(faults, key+" has no French")
		case !slices.Equal(args, other):
			faults = append(faults, fmt.Sprintf("%s takes %v in English and %v in French", key, args, other))
		}
	}
	for key := range fr {
		if _, ok := en[key]; !ok && strings.HasPrefix(key, room+".") {
			faults = append(faults, key+" has no English")
		}
	}
	if len(faults) > 0 {
		sort.Strings(faults)
		return fmt.Errorf("words of %s: %s", room, strings.Join(faults, "; "))
	}
	return nil
}

// placeholders lists what a message takes. A message with plural forms takes Count,
// and has every form its language needs (CLDR: French has "many").
func placeholders(lang string, m *i18n.Message) ([]string, error) {
	forms := map[string]string{"one": m.One, "many": m.Many, "other": m.Other}
	plural := m.One != "" || m.Many != ""
	need := []string{"other"}
	if plural {
		need = map[string][]string{"en": {"one", "other"}, "fr": {"one", "many", "other"}}[lang]
	}
	if m.Zero+m.Two+m.Few != "" || (lang == "en" && m.Many != "") {
		return nil, fmt.Errorf("plural forms are %v", need)
	}
	set := map[string]bool{}
	for _, form := range need {
		text := forms[form]
		if strings.TrimSpace(text) == "" {
			return nil, fmt.Errorf("form %q is empty", form)
		}
		for _, a := range action.FindAllString(text, -1) {
			if !placeholder.MatchString(a) {
				return nil, fmt.Errorf("%s: only {{.Name}} is understood", a)
			}
		}
		for _, p := range placeholder.FindAllStringSubmatch(text, -1) {
			set[p[1]] = true
		}
	}
	if plural {
		set["Count"] = true
	}
	names := make([]string, 0, len(set))
	for name := range set {
		names = append(names, name)
	}
	sort.Strings(names)
	return names, nil
}

// say writes a message. Arguments must be exactly those the message takes.
func (s *Site) say(lang, key string, args []any) (string, error) {
	return s.sayWith(lang, key, args, func(v any) any { return v })
}

// sayHTML writes a message that holds markup; its arguments are escaped.
func (s *Site) sayHTML(lang, key string, args []any) (template.HTML, error) {
	if !strings.HasSuffix(key, "_html") {
		return "", fmt.Errorf("message %s: only keys ending in _html hold markup", key)
	}
	text, err := s.sayWith(lang, key, args, func(v any) any {
		if safe, ok := v.(template.HTML); ok {
			return string(safe)
		}
		return template.HTMLEscapeString(fmt.Sprint(v))
	})
	return template.HTML(text), err
}

func (s *Site) sayWith(lang, key string, args []any, escape func(any) any) (string, error) {
	w, ok := s.words[lang]
	if !ok {
		return "", fmt.Errorf("message %s: no language %q", key, lang)
	}
	want, ok := w.args[key]
	if !ok {
		return "", fmt.Errorf("message %s does not exist", key)
	}
	if len(args)%2 != 0 {
		return "", fmt.Errorf("message %s: arguments come in pairs of name and value", key)
	}
	data := map[string]any{}
	var count any
	for i := 0; i < len(args); i += 2 {
		name, ok := args[i].(string)
		if !ok || !slices.Contains(want, name) {
			return "", fmt.Errorf("message %s takes %v, not %v", key, want, args[i])
		}
		if name == "Count" {
			count = args[i+1]
		}
		value, err := s.argument(lang, args[i+1])
		if err != nil {
			return "", fmt.Errorf("message %s, %s: %w", key, name, err)
		}
		data[name] = escape(value)
	}
	if len(data) != len(want) {
		return "", fmt.Errorf("message %s takes %v, got %d of them", key, want, len(data))
	}
	text, err := w.localizer.Localize(&i18n.LocalizeConfig{MessageID: key, TemplateData: data, PluralCount: count})
	if err != nil {
		return "", fmt.Errorf("message %s: %w", key, err)
	}
	return text, nil
}

func (s *Site) argument(lang string, v any) (any, error) {
	if m, ok := v.(Message); ok {
		return s.say(lang, m.Key, m.Args)
	}
	return inWords(lang, v)
}

// Write writes a message, or returns what is wrong with it: for documents that
// must be whole.
func (s *Site) Write(lang string, m Message) (string, error) { return s.say(lang, m.Key, m.Args) }

// City returns the city's name in a language.
func (s *Site) City(lang string) string { return s.city[lang] }

// T writes a message outside a page (an e-mail, a document). What is missing is
// logged and the key itself returned; a caller that may not go on so uses Write.
func (s *Site) T(lang, key string, args ...any) string {
	text, err := s.say(lang, key, args)
	if err != nil {
		s.log.Error("write message", "error", err)
		return key
	}
	return text
}
