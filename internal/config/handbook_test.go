package config_test

import (
	"flag"
	"os"
	"reflect"
	"strings"
	"testing"

	"guichet/internal/config"
)

var update = flag.Bool("update", false, "rewrite the table in docs/operations.md")

// The operator's handbook lists exactly the variables there are, with the words of
// `guichet config`: its table is made from the same tags.
func TestHandbookListsEveryVariable(t *testing.T) {
	const handbook, begin, end = "../../docs/operations.md", "<!-- configuration: begin -->\n", "<!-- configuration: end -->\n"
	text, err := os.ReadFile(handbook)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	table, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no table between %q and %q", handbook, begin, end)
	}
	want := variables(t)
	if *update {
		if err := os.WriteFile(handbook, []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if table == want {
		return
	}
	have, need := strings.Split(table, "\n"), strings.Split(want, "\n")
	for _, l := range missing(need, have) {
		t.Errorf("the handbook lacks:     %s", l)
	}
	for _, l := range missing(have, need) {
		t.Errorf("the handbook has still: %s", l)
	}
	t.Errorf("the table differs from the configuration: go test ./internal/config -run Handbook -update")
}

// variables is the table: every field in order, what it is when left out, what it means.
func variables(t *testing.T) string {
	_, err := config.Read(func(string) string { return "" })
	if err == nil {
		t.Fatal("nothing is required: the table would say so wrongly")
	}
	var b strings.Builder
	b.WriteString("| Variable | When left out | Meaning |\n|---|---|---|\n")
	fields := reflect.TypeFor[config.Config]()
	for i := range fields.NumField() {
		tag := fields.Field(i).Tag
		name, otherwise := tag.Get("env"), tag.Get("envDefault")
		switch {
		case strings.Contains(err.Error()+"\n", "  "+name+": is missing\n"):
			otherwise = "refused"
		case otherwise != "":
			otherwise = "`" + otherwise + "`"
		}
		b.WriteString("| `" + name + "` | " + otherwise + " | " + plain.Replace(tag.Get("help")) + " |\n")
	}
	return b.String()
}

// plain keeps words from becoming HTML or a column.
var plain = strings.NewReplacer("<", "&lt;", "|", `\|`)

// missing lists the lines of a that are not in b.
func missing(a, b []string) []string {
	in := map[string]bool{}
	for _, l := range b {
		in[l] = true
	}
	var out []string
	for _, l := range a {
		if !in[l] {
			out = append(out, l)
		}
	}
	return out
}
