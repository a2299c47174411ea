package admin

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"

	"guichet/api/web"
	"guichet/identity/provider"
)

// sentences are the sentences in which the provider and its endpoints refuse: every
// string of their sources that is one.
func sentences(t *testing.T) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	for _, dir := range []string{"../../identity/provider", "../oidc"} {
		paths, err := filepath.Glob(dir + "/*.go")
		if err != nil || len(paths) < 5 {
			t.Fatalf("%d files in %s, %v", len(paths), dir, err)
		}
		for _, path := range paths {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					if text, err := strconv.Unquote(lit.Value); err == nil {
						all[slug(text)] = true
					}
				}
				return true
			})
		}
	}
	return all
}

// Words for a refusal that the provider no longer speaks of would explain nothing.
func TestEveryExplanationIsOfARefusalThatExists(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("locale/en.toml")
	if err != nil {
		t.Fatal(err)
	}
	var words struct {
		Refusal     map[string]struct{ Means, Do string }
		RefusalCode map[string]struct{ Means, Do string } `toml:"refusal_code"`
	}
	if err := toml.Unmarshal(text, &words); err != nil {
		t.Fatal(err)
	}
	known := sentences(t)
	for key := range words.Refusal {
		if !known[key] {
			t.Errorf("refusal.%s explains no sentence of the provider", key)
		}
	}
	if len(words.Refusal) < 10 || len(words.RefusalCode) < 10 {
		t.Errorf("only %d and %d explanations", len(words.Refusal), len(words.RefusalCode))
	}
}

func TestRefusalsAreExplainedInBothLanguages(t *testing.T) {
	t.Parallel()
	site := web.New(web.Options{Dev: true})
	Register(site)
	for _, r := range []provider.Refusal{
		{Code: "invalid_request", Description: "code_challenge is missing: PKCE is required"},
		{Code: "invalid_grant", Description: "words that nobody wrote for"},
		{Code: provider.BadRedirect},
		{Code: "never_heard_of"},
	} {
		en, doEN := Explain(site, "en", r)
		fr, doFR := Explain(site, "fr", r)
		if en == "" || doEN == "" || en == r.Code || en == fr || doEN == doFR {
			t.Errorf("%+v: %q, %q; %q, %q", r, en, doEN, fr, doFR)
		}
	}
	if exact, _ := Explain(site, "en", provider.Refusal{Code: "invalid_request", Description: "code_challenge is missing: PKCE is required"}); !strings.Contains(exact, "PKCE") {
		t.Errorf("the exact words are not used: %q", exact)
	}
}
