package admin

import (
	"strings"

	"guichet/api/web"
	"guichet/identity/provider"
)

// Explain says in plain words what a refused request means and what to do about it. Our
// own description of the fault is the most exact; a description that has no words of its
// own is explained by its OAuth code.
func Explain(site *web.Site, lang string, r provider.Refusal) (means, do string) {
	for _, key := range []string{"admin.refusal." + slug(r.Description), "admin.refusal_code." + slug(r.Code), "admin.refusal_code.unknown"} {
		means, err := site.Write(lang, web.Say(key+".means"))
		if err != nil {
			continue
		}
		do, err := site.Write(lang, web.Say(key+".do"))
		if err == nil {
			return means, do
		}
	}
	return r.Code, r.Description
}

// slug turns text into a part of a key: its words in lower case.
func slug(text string) string {
	return strings.Join(strings.FieldsFunc(strings.ToLower(text), func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9')
	}), "_")
}
