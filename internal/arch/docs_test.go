package arch_test

import (
	"fmt"
	"go/ast"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
)

var (
	namedTest = regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z]\w*`)
	mdLink    = regexp.MustCompile(`\]\(([^)#\s]+)[^)]*\)`)
)

// documents finds what the documents promise and the repository does not hold:
// tests that are named and files that are linked to. Pictures are placed by hand.
func documents(fsys fs.FS, files []file) (faults []string, looked int, err error) {
	tests := map[string]bool{}
	for _, f := range files {
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && f.test && fn.Recv == nil {
				tests[fn.Name.Name] = true
			}
		}
	}
	var names []string
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/decisions/*.md"} {
		found, err := fs.Glob(fsys, pattern)
		if err != nil {
			return nil, 0, err
		}
		names = append(names, found...)
	}
	for _, name := range names {
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, 0, err
		}
		for _, test := range namedTest.FindAllString(string(text), -1) {
			looked++
			if !tests[test] {
				faults = append(faults, fmt.Sprintf("%s names %s, which is no test", name, test))
			}
		}
		for _, link := range mdLink.FindAllStringSubmatch(string(text), -1) {
			to := path.Join(path.Dir(name), link[1])
			if strings.Contains(link[1], ":") || path.Ext(to) == ".png" {
				continue
			}
			looked++
			if _, err := fs.Stat(fsys, to); err != nil {
				faults = append(faults, fmt.Sprintf("%s links to %s, which is not there", name, link[1]))
			}
		}
	}
	return faults, looked, nil
}

func TestDocumentsNameWhatExists(t *testing.T) {
	fsys := os.DirFS(root)
	faults, looked, err := documents(fsys, sources(t, fsys))
	if err != nil {
		t.Fatal(err)
	}
	report(t, faults, looked, 30)

	broken := fstest.MapFS{
		"README.md":        {Data: []byte("`TestGone` and `TestThere` hold it; see [here](docs/gone.md), [there](docs/there.md#a), [out](https://a.example)")},
		"docs/there.md":    {Data: []byte("![picture](img/x.png)")},
		"ledger/a_test.go": {Data: []byte("package ledger\nfunc TestThere() {}\n")},
	}
	faults, looked, err = documents(broken, sources(t, broken))
	if got := strings.Join(faults, "; "); err != nil || looked != 4 || len(faults) != 2 || !strings.Contains(got, "TestGone") || !strings.Contains(got, "docs/gone.md") {
		t.Errorf("the guard says %q of %d things, %v; want TestGone and docs/gone.md of 4", got, looked, err)
	}
}
