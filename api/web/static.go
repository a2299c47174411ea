package web

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"embed"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"html/template"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
	"time"
)

//go:embed assets templates locale
var own embed.FS

// asset is a file served under a name that changes with its content, so that it
// may be kept for ever.
type asset struct {
	name, kind string
	content    []byte
	integrity  string // as a script element names it
}

type assets struct {
	byName map[string]string // guichet.css → /static/guichet.1a2b3c4d5e6f.css
	byPath map[string]asset
}

func loadAssets() (assets, error) {
	a := assets{map[string]string{}, map[string]asset{}}
	entries, err := fs.ReadDir(own, "assets")
	if err != nil {
		return a, err
	}
	for _, e := range entries {
		content, err := own.ReadFile("assets/" + e.Name())
		if err != nil {
			return a, err
		}
		sum := sha256.Sum256(content)
		ext := path.Ext(e.Name())
		at := "/static/" + strings.TrimSuffix(e.Name(), ext) + "." + hex.EncodeToString(sum[:6]) + ext
		a.byName[e.Name()] = at
		whole := sha512.Sum384(content)
		a.byPath[at] = asset{e.Name(), mime.TypeByExtension(ext), content, "sha384-" + base64.StdEncoding.EncodeToString(whole[:])}
	}
	return a, nil
}

func (a assets) href(name string) (string, error) {
	at, ok := a.byName[name]
	if !ok {
		return "", fmt.Errorf("no asset %s", name)
	}
	return at, nil
}

// script writes the element that loads a script of ours. The page must be allowed it:
// see Site.AllowScript.
func (a assets) script(name string) (template.HTML, error) {
	at, err := a.href(name)
	if err != nil {
		return "", err
	}
	return template.HTML(fmt.Sprintf(`<script src="%s" integrity="%s" defer></script>`, at, a.byPath[at].integrity)), nil
}

// Static serves the style sheet, pictures and the script; mount it at /static/.
func (s *Site) Static() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		file, ok := s.assets.byPath[r.URL.Path]
		if !ok {
			s.NotFound(w, r)
			return
		}
		h := w.Header()
		h.Set("Content-Type", file.kind)
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		http.ServeContent(w, r, file.name, time.Time{}, bytes.NewReader(file.content))
	})
}
