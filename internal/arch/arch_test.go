package arch_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

const module = "guichet/"

// root is the repository, seen from this package's directory, where tests run.
const root = "../.."

// A room may import the rooms listed, what lies beneath them, and itself with
// what lies beneath it. The longest name that fits a package is its room.
var arrows = map[string][]string{
	"cmd": {""}, // anything
	"api": {"department", "identity", "ledger", "payments", "reconcile", "internal"},

	"reconcile":      {"payments", "ledger", "department", "internal"},
	"reconcile/bank": {"internal"},
	"reconcile/sap":  {"internal"},

	"payments":              {"ledger", "department", "internal"},
	"payments/bill":         {"payments/fee", "ledger", "department", "internal"},
	"payments/fee":          {"ledger", "department", "internal"},
	"payments/stripe":       {"payments", "internal"},
	"payments/paymentstest": {"payments", "ledger", "department", "internal"},

	"identity":            {"department", "internal"},
	"identity/delegation": {"identity", "department", "internal"},
	"identity/provider":   {"identity", "identity/delegation", "department", "internal"},
	"identity/staff":      {"identity", "department", "internal"},

	"ledger":     {"internal"},
	"department": {"internal"},
	"internal":   {"migrations"},
	"migrations": {},

	// Stand-ins for what is outside are reached over the wire only, and know of us
	// what everybody knows: how money, dates and ids are written.
	"simulators": {"internal/money", "internal/id", "internal/clock"},
}

// Tests may also start stand-ins and use helpers made for tests.
var testArrows = []string{"simulators", "internal", "migrations", "payments/paymentstest"}

// wallClock lists who may ask the machine for the time: the clock itself, and
// commands that measure it.
var wallClock = []string{"internal/clock", "cmd/bench", "cmd/guichet"}

// domain lists the rooms that may call others over HTTP and never serve it.
var domain = []string{"department", "identity", "ledger", "payments", "reconcile"}

// A file is one parsed source file.
type file struct {
	path string // from the root
	room string // longest name in arrows that fits
	test bool
	ast  *ast.File
	fset *token.FileSet
}

func (f file) dir() string { return path.Dir(f.path) }

// sources parses every Go file of the repository.
func sources(t *testing.T, fsys fs.FS) []file {
	t.Helper()
	var list []file
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if base := d.Name(); name != "." && (base == "testdata" || base == "bin" || base == "tools" || strings.HasPrefix(base, ".")) {
				return fs.SkipDir
			}
			return nil
		}
		if path.Ext(name) != ".go" {
			return nil
		}
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		f := file{path: name, room: roomOf(path.Dir(name)), test: strings.HasSuffix(name, "_test.go"), fset: token.NewFileSet()}
		f.ast, err = parser.ParseFile(f.fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
		list = append(list, f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func roomOf(dir string) string {
	best := ""
	for room := range arrows {
		if within(dir, room) && len(room) > len(best) {
			best = room
		}
	}
	return best
}

// within reports whether a package lies in a room or beneath it.
func within(dir, room string) bool {
	return room == "" || dir == room || strings.HasPrefix(dir, room+"/")
}

func withinAny(dir string, rooms []string) bool {
	return slices.ContainsFunc(rooms, func(room string) bool { return within(dir, room) })
}

// A guard looks at one file and returns what is wrong in it and how many things
// it looked at.
type guard func(f file) (faults []string, looked int)

func imports(f file) (faults []string, looked int) {
	if f.room == "" {
		return []string{f.path + ": this folder is in no room; add it to the arrows"}, 1
	}
	allowed := append([]string{f.room}, arrows[f.room]...)
	if f.test {
		allowed = append(allowed, testArrows...)
	}
	for _, spec := range f.ast.Imports {
		imp, err := strconv.Unquote(spec.Path.Value)
		to, ours := strings.CutPrefix(imp, module)
		if err != nil || !ours {
			continue
		}
		looked++
		if !withinAny(to, allowed) {
			faults = append(faults, fmt.Sprintf("%s imports %s; %s may import only: %s", f.path, imp, f.room, strings.Join(arrows[f.room], ", ")))
		}
	}
	return faults, looked
}

// uses finds what a file takes from a package of the standard library.
func uses(f file, pkg string, names ...string) (faults []string, looked int) {
	local := ""
	for _, spec := range f.ast.Imports {
		if spec.Path.Value == strconv.Quote(pkg) {
			local = path.Base(pkg)
			if spec.Name != nil {
				local = spec.Name.Name
			}
		}
	}
	if local == "" {
		return nil, 0
	}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); ok && x.Name == local {
			looked++
			if slices.Contains(names, sel.Sel.Name) {
				faults = append(faults, fmt.Sprintf("%s uses %s.%s", f.fset.Position(sel.Pos()), pkg, sel.Sel.Name))
			}
		}
		return true
	})
	return faults, looked
}

func clock(f file) ([]string, int) {
	if f.test || withinAny(f.dir(), wallClock) {
		return nil, 0
	}
	return uses(f, "time", "Now", "Since", "Until")
}

func serving(f file) ([]string, int) {
	if f.test || !withinAny(f.dir(), domain) {
		return nil, 0
	}
	return uses(f, "net/http", "ResponseWriter", "Handler", "HandlerFunc", "Handle", "HandleFunc", "ServeMux", "NewServeMux", "Server", "ListenAndServe", "Serve")
}

// databaseClock finds SQL that asks the database for the time: the business clock
// may run ahead of it, and two clocks make two truths.
var databaseClock = regexp.MustCompile(`(?i)\b(now|clock_timestamp|statement_timestamp|transaction_timestamp|timeofday)\s*\(\s*\)|\b(current_timestamp|current_date|current_time|localtimestamp|localtime)\b`)

func sqlTime(f file) (faults []string, looked int) {
	if f.test || within(f.dir(), "internal/arch") {
		return nil, 0
	}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		lit, ok := n.(*ast.BasicLit)
		if !ok || lit.Kind != token.STRING {
			return true
		}
		looked++
		if found := databaseClock.FindString(lit.Value); found != "" {
			faults = append(faults, fmt.Sprintf("%s: SQL asks the database for the time: %s", f.fset.Position(lit.Pos()), found))
		}
		return true
	})
	return faults, looked
}

func migrationTime(fsys fs.FS) (faults []string, looked int, err error) {
	names, err := fs.Glob(fsys, "migrations/*.sql")
	for _, name := range names {
		text, readErr := fs.ReadFile(fsys, name)
		if readErr != nil {
			return nil, 0, readErr
		}
		looked++
		for i, line := range strings.Split(string(text), "\n") {
			code, _, _ := strings.Cut(line, "--")
			if found := databaseClock.FindString(code); found != "" {
				faults = append(faults, fmt.Sprintf("%s:%d: SQL asks the database for the time: %s", name, i+1, found))
			}
		}
	}
	return faults, looked, err
}

// comments wants one package comment per package, in the form go doc reads.
func comments(files []file) (faults []string, looked int) {
	said := make(map[string]int)
	for _, f := range files {
		if f.test {
			continue
		}
		want := "Package " + f.ast.Name.Name + " "
		if f.ast.Name.Name == "main" {
			want = "Command " + path.Base(f.dir()) + " "
		}
		n := 0
		if doc := f.ast.Doc; doc != nil {
			if n = 1; !strings.HasPrefix(strings.ReplaceAll(doc.Text(), "\n", " "), want) {
				faults = append(faults, fmt.Sprintf("%s: the package comment starts with %q, want %q", f.path, strings.SplitN(doc.Text(), "\n", 2)[0], want))
			}
		}
		said[f.dir()] += n
	}
	for dir, n := range said {
		if n != 1 {
			faults = append(faults, fmt.Sprintf("%s has %d package comments, want 1", dir, n))
		}
	}
	return faults, len(said)
}

// check runs a guard over all files.
func check(files []file, g guard) (faults []string, looked int) {
	for _, f := range files {
		bad, n := g(f)
		faults, looked = append(faults, bad...), looked+n
	}
	return faults, looked
}

// report fails on every fault, and when the guard looked at less than it must.
func report(t *testing.T, faults []string, looked, least int) {
	t.Helper()
	for _, fault := range faults {
		t.Error(fault)
	}
	if looked < least {
		t.Errorf("looked at %d things, expected at least %d: the guard is blind", looked, least)
	}
}

func TestHouseRules(t *testing.T) {
	fsys := os.DirFS(root)
	files := sources(t, fsys)
	t.Run("who may import whom", func(t *testing.T) {
		faults, looked := check(files, imports)
		report(t, faults, looked, 100)
	})
	t.Run("the clock is passed in", func(t *testing.T) {
		faults, looked := check(files, clock)
		report(t, faults, looked, 100)
	})
	t.Run("domain rooms serve no HTTP", func(t *testing.T) {
		faults, looked := check(files, serving)
		report(t, faults, looked, 5)
	})
	t.Run("SQL does not tell the time", func(t *testing.T) {
		faults, looked := check(files, sqlTime)
		report(t, faults, looked, 1000)
		faults, looked, err := migrationTime(fsys)
		if err != nil {
			t.Fatal(err)
		}
		report(t, faults, looked, 5)
	})
	t.Run("every package says what it is for", func(t *testing.T) {
		faults, looked := comments(files)
		report(t, faults, looked, 20)
	})
	t.Run("every room exists", func(t *testing.T) {
		for room := range arrows {
			if !slices.ContainsFunc(files, func(f file) bool { return f.room == room }) {
				t.Errorf("no package is in room %s: take it off the list", room)
			}
		}
	})
}

// TestGuardsCanFail breaks every rule once.
func TestGuardsCanFail(t *testing.T) {
	src := func(doc, name, imports, body string) *fstest.MapFile {
		return &fstest.MapFile{Data: []byte(doc + "package " + name + "\n" + imports + "\n" + body)}
	}
	doc := func(name string) string { return "// Package " + name + " is there.\n" }
	tests := []struct {
		name  string
		path  string
		file  *fstest.MapFile
		guard guard
		want  string // "" for what is allowed
	}{
		{"the ledger imports payments", "ledger/a.go", src(doc("ledger"), "ledger", `import "guichet/payments"`, ""), imports, "ledger may import only"},
		{"identity imports the money side", "identity/a.go", src(doc("identity"), "identity", `import "guichet/payments/bill"`, ""), imports, "identity may import only"},
		{"a fee imports bills", "payments/fee/a.go", src(doc("fee"), "fee", `import "guichet/payments/bill"`, ""), imports, "payments/fee may import only"},
		{"internal imports a room", "internal/x/a.go", src(doc("x"), "x", `import "guichet/ledger"`, ""), imports, "internal may import only"},
		{"a simulator imports the adapter", "simulators/sap/a.go", src(doc("sap"), "sap", `import "guichet/reconcile/sap"`, ""), imports, "simulators may import only"},
		{"a simulator opens the database", "simulators/sap/a.go", src(doc("sap"), "sap", `import "guichet/internal/postgres"`, ""), imports, "simulators may import only"},
		{"a room imports a simulator", "payments/a.go", src(doc("payments"), "payments", `import "guichet/simulators/stripe"`, ""), imports, "payments may import only"},
		{"a name that only begins like a room", "ledger/a.go", src(doc("ledger"), "ledger", `import "guichet/internalities"`, ""), imports, "ledger may import only"},
		{"a folder in no room", "util/a.go", src(doc("util"), "util", "", ""), imports, "in no room"},
		{"a test starts a simulator", "payments/a_test.go", src("", "payments", `import "guichet/simulators/stripe"`, ""), imports, ""},
		{"the api imports a room", "api/desk/a.go", src(doc("desk"), "desk", `import "guichet/reconcile"`, ""), imports, ""},

		{"product code asks for the time", "ledger/a.go", src(doc("ledger"), "ledger", `import "time"`, "var x = time.Now()"), clock, "time.Now"},
		{"under another name", "ledger/a.go", src(doc("ledger"), "ledger", `import t "time"`, "var x = t.Since(t.Time{})"), clock, "time.Since"},
		{"the function is passed on", "ledger/a.go", src(doc("ledger"), "ledger", `import "time"`, "var f = time.Now"), clock, "time.Now"},
		{"the clock asks", "internal/clock/a.go", src(doc("clock"), "clock", `import "time"`, "var x = time.Now()"), clock, ""},

		{"a room serves", "payments/a.go", src(doc("payments"), "payments", `import "net/http"`, "func f(w http.ResponseWriter) {}"), serving, "http.ResponseWriter"},
		{"a room calls", "payments/a.go", src(doc("payments"), "payments", `import "net/http"`, "var c http.Client"), serving, ""},

		{"SQL asks for the time", "ledger/a.go", src(doc("ledger"), "ledger", "", "const q = `select NOW ( )`"), sqlTime, "NOW"},
		{"SQL asks for the date", "ledger/a.go", src(doc("ledger"), "ledger", "", `const q = "where d < current_date"`), sqlTime, "current_date"},
		{"a word that ends in now", "ledger/a.go", src(doc("ledger"), "ledger", "", `const q = "unknown()"`), sqlTime, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			faults, _ := check(sources(t, fstest.MapFS{tt.path: tt.file}), tt.guard)
			got := strings.Join(faults, "; ")
			if (tt.want == "") != (got == "") || !strings.Contains(got, tt.want) {
				t.Errorf("faults %q, want %q", got, tt.want)
			}
		})
	}
	for name, fsys := range map[string]fstest.MapFS{
		"no comment":    {"ledger/a.go": src("", "ledger", "", "")},
		"two comments":  {"ledger/a.go": src(doc("ledger"), "ledger", "", ""), "ledger/b.go": src(doc("ledger"), "ledger", "", "")},
		"another form":  {"ledger/a.go": src("// This package.\n", "ledger", "", "")},
		"wrong command": {"cmd/x/main.go": src("// Package main is there.\n", "main", "", "")},
	} {
		if faults, _ := comments(sources(t, fsys)); len(faults) == 0 {
			t.Errorf("%s: the guard is content", name)
		}
	}
	faults, looked, err := migrationTime(fstest.MapFS{"migrations/0001_x.sql": {Data: []byte("-- now() in a comment\nselect 1;\nat timestamptz default now()\n")}})
	if err != nil || looked != 1 || len(faults) != 1 || !strings.Contains(faults[0], "0001_x.sql:3") {
		t.Errorf("migration: %v, %d files, %v; want line 3", faults, looked, err)
	}
}
