package oidc_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// The table of attacks names each of the eighty once, and only tests there are. What it
// calls not yet may not have a test of its name: then the table has fallen behind.
func TestAttackTableIsHonest(t *testing.T) {
	const root = "../.."
	table, err := os.ReadFile(filepath.Join(root, "docs", "attacks.md"))
	must(t, err)
	var sources strings.Builder
	for _, pattern := range []string{"api/*/*_test.go", "identity/*_test.go", "identity/*/*_test.go"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		must(t, err)
		for _, f := range files {
			text, err := os.ReadFile(f)
			must(t, err)
			sources.Write(text)
		}
	}
	all := sources.String()
	row := regexp.MustCompile(`(?m)^\| (\d+) \| [^|]+ \| ([^|]+) \|`)
	name := regexp.MustCompile("`(Test\\w+)(?:/(\\d+))?`")
	numbers := row.FindAllStringSubmatch(string(table), -1)
	if len(numbers) != 80 {
		t.Fatalf("%d rows, want 80", len(numbers))
	}
	for i, r := range numbers {
		if r[1] != strconv.Itoa(i+1) {
			t.Errorf("row %d is about attack %s", i+1, r[1])
		}
		tests := name.FindAllStringSubmatch(r[2], -1)
		if missing := strings.HasPrefix(r[2], "not yet"); missing == strings.Contains(all, "func TestAttack"+r[1]) && missing {
			t.Errorf("attack %s has a test, and the table says not yet", r[1])
		} else if !missing && len(tests) == 0 {
			t.Errorf("attack %s names no test", r[1])
		}
		for _, n := range tests {
			if !strings.Contains(all, "func "+n[1]+"(t *testing.T)") {
				t.Errorf("attack %s: there is no %s", r[1], n[1])
			}
			if n[2] != "" && !strings.Contains(all, `t.Run("`+n[2]+" ") {
				t.Errorf("attack %s: there is no subtest %s of %s", r[1], n[2], n[1])
			}
		}
	}
}
