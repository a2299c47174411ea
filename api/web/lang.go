package web

import (
	"context"
	"net/http"
	"net/url"

	"golang.org/x/text/language"
)

type langKey struct{}

// WithLang puts the language a signed-in person has chosen into the context. It
// counts less than ?lang= and the cookie, which are newer wishes.
func WithLang(ctx context.Context, lang string) context.Context {
	return context.WithValue(ctx, langKey{}, lang)
}

var acceptable = language.NewMatcher([]language.Tag{language.English, language.French})

// Lang returns the language to answer in, "en" or "fr": the address's ?lang=, else the
// cookie, else the person's own choice, else Accept-Language, else English.
func Lang(r *http.Request) string {
	if lang := asked(r); lang != "" {
		return lang
	}
	if c, err := r.Cookie("lang"); err == nil && spoken(c.Value) {
		return c.Value
	}
	if lang, _ := r.Context().Value(langKey{}).(string); spoken(lang) {
		return lang
	}
	wishes, _, err := language.ParseAcceptLanguage(r.Header.Get("Accept-Language"))
	if err != nil { // not a language list: as if none was sent
		return Languages[0]
	}
	_, i, _ := acceptable.Match(wishes...)
	return Languages[i]
}

func asked(r *http.Request) string {
	if lang := r.URL.Query().Get("lang"); spoken(lang) {
		return lang
	}
	return ""
}

func spoken(lang string) bool { return lang == "en" || lang == "fr" }

func otherLang(lang string) string {
	if lang == "fr" {
		return "en"
	}
	return "fr"
}

// switchHref is the address of the page being shown, in the other language. It is
// relative and only a query, so a crafted path ("//elsewhere") cannot lead away.
func switchHref(r *http.Request, lang string) string {
	q := url.Values{}
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		q = r.URL.Query()
	}
	q.Set("lang", otherLang(lang))
	return "?" + q.Encode()
}

// remember keeps the language asked for in a cookie: the whole effect of ?lang=.
func (s *Site) remember(w http.ResponseWriter, r *http.Request) {
	lang := asked(r)
	if lang == "" {
		return
	}
	http.SetCookie(w, &http.Cookie{
		Name: "lang", Value: lang, Path: "/", MaxAge: 365 * 24 * 3600,
		HttpOnly: true, Secure: s.secure, SameSite: http.SameSiteLaxMode,
	})
}
