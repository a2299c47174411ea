package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A told step is a line that `guichet demo --json` prints.
type told struct {
	Step    int     `json:"step"`
	Title   string  `json:"title"`
	OK      bool    `json:"ok"`
	Seconds float64 `json:"seconds"`
	Facts   []fact  `json:"facts"`
	Error   string  `json:"error"`
}

const steps = 11

// demo runs the whole demo and fails the test unless every step went well.
func (h how) demo(t *testing.T, dir string) []told {
	t.Helper()
	p := h.start(t, "demo", "--json", "--dir", dir)
	code := p.code()
	var all []told
	for line := range strings.Lines(p.out.String()) {
		var s told
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			t.Fatalf("not a line of JSON: %q: %v", line, err)
		}
		if s.Step != len(all)+1 || !s.OK || s.Error != "" || s.Title == "" || len(s.Facts) == 0 {
			t.Errorf("step %d: %s", len(all)+1, line)
		}
		all = append(all, s)
	}
	if code != 0 || len(all) != steps || p.errs.String() != "" {
		t.Fatalf("exit status %d after %d of %d steps: %s\n%s", code, len(all), steps, p.errs, tail(filepath.Join(dir, "guichet.log")))
	}
	gone(t, dir)
	return all
}

// tail is the end of a log, for the report of a failure.
func tail(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.SplitAfter(string(text), "\n")
	return strings.Join(lines[max(0, len(lines)-30):], "")
}

// files are the paths among the facts of a step whose names begin with prefix; each
// must exist.
func (s told) files(t *testing.T, prefix string) (found []string) {
	t.Helper()
	for _, f := range s.Facts {
		if filepath.IsAbs(f.Value) && strings.HasPrefix(filepath.Base(f.Value), prefix) {
			if info, err := os.Stat(f.Value); err != nil || info.Size() == 0 {
				t.Errorf("step %d: %s: %v", s.Step, f.Value, err)
			}
			found = append(found, f.Value)
		}
	}
	return found
}

func TestDemoTellsTheMainJob(t *testing.T) {
	t.Parallel()
	dir := stateOf(t, nil)
	all := how{}.demo(t, dir)
	checkReceipts(t, all[5])
	checkDocuments(t, all[7])
	if files := append(all[8].files(t, "desk-sap"), all[10].files(t, "tree-head")...); len(files) != 2 {
		t.Errorf("the finance page and the signed head of the log: %q", files)
	}

	// Again, over what the first run left: the same story with other ids.
	again := how{}.demo(t, dir)
	if slices.Equal(all[0].Facts, again[0].Facts) {
		t.Error("the second run made the same ids as the first")
	}
	checkReceipts(t, again[5])
}

// checkReceipts reads the PDF receipts as a person does.
func checkReceipts(t *testing.T, s told) {
	t.Helper()
	pdfs := slices.DeleteFunc(s.files(t, "receipt-"), func(f string) bool { return filepath.Ext(f) != ".pdf" })
	if len(pdfs) != 4 {
		t.Fatalf("step %d kept %q, want the receipts of two payers in two languages", s.Step, pdfs)
	}
	pdftotext, err := exec.LookPath("pdftotext")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("no pdftotext: install poppler-utils")
		}
		t.Log("no pdftotext: the receipts were not read (Debian: apt-get install poppler-utils)")
		return
	}
	want := map[string][]string{
		"receipt-resident-en.pdf": {"Receipt", "Total paid", "$651.73", "Building permits (demo)", "Parking and by-law fines (demo)", "Water and wastewater (demo)", "HST", "00000 0000 RT0001", "Visa", "4242"},
		"receipt-resident-fr.pdf": {"Reçu", "651,73 $", "Permis de construire (démo)", "Stationnement et contraventions (démo)", "Eau et eaux usées (démo)", "TVH", "Stationnement en sens inverse"},
		"receipt-guest-en.pdf":    {"Receipt", "$75.00", "Parked facing the wrong way"},
		"receipt-guest-fr.pdf":    {"Reçu", "75,00 $", "Stationnement en sens inverse"},
	}
	for _, path := range pdfs {
		out, err := exec.Command(pdftotext, "-layout", path, "-").Output()
		if err != nil {
			t.Errorf("pdftotext %s: %v", path, err)
			continue
		}
		text := strings.NewReplacer("\u00a0", " ", "\u202f", " ").Replace(string(out))
		for _, words := range want[filepath.Base(path)] {
			if !strings.Contains(text, words) {
				t.Errorf("%s does not say %q:\n%s", filepath.Base(path), words, text)
			}
		}
	}
}

// checkDocuments looks at the SAP batch as SAP's file port does: a control record
// of 524 characters, data records of 1063.
func checkDocuments(t *testing.T, s told) {
	t.Helper()
	batches := slices.DeleteFunc(s.files(t, ""), func(f string) bool { return !strings.Contains(f, "idoc") && !strings.Contains(f, "IDOC") })
	if len(batches) == 0 {
		t.Fatalf("step %d kept no SAP batch: %+v", s.Step, s.Facts)
	}
	for _, path := range batches {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		control, data := 0, 0
		for i, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
			line = strings.TrimSuffix(line, "\r")
			switch n := len([]rune(line)); {
			case strings.HasPrefix(line, "EDI_DC40") && n == 524:
				control++
			case strings.HasPrefix(line, "E1BP") && n == 1063, strings.HasPrefix(line, "E2BP") && n == 1063:
				data++
			default:
				t.Errorf("%s, record %d: %d characters, begins %.20q", filepath.Base(path), i+1, n, line)
			}
		}
		// A document for each department, and one for the fees.
		if control < 4 || data < 3*control {
			t.Errorf("%s: %d control and %d data records", filepath.Base(path), control, data)
		}
	}
}

func TestDemoAfterAKill(t *testing.T) {
	t.Parallel()
	moments := []int{1, 4, 8}
	long := os.Getenv("GUICHET_LONG") != ""
	if long {
		moments = nil
		for step := range steps {
			moments = append(moments, step)
		}
	}
	dir := stateOf(t, nil)
	for _, moment := range moments {
		t.Run(fmt.Sprintf("after step %d", moment), func(t *testing.T) {
			var p *child
			if moment == 0 {
				p = how{}.start(t, "demo", "--json", "--dir", dir)
				eventually(t, func() bool { return exists(t, filepath.Join(dir, "postgres", "lock")) })
				p.kill()
			} else {
				p = how{line: killAfter(moment)}.start(t, "demo", "--json", "--dir", dir)
			}
			if code := p.code(); code != -1 {
				t.Fatalf("not killed: exit status %d\n%s%s", code, p.out, p.errs)
			}
			// The next start comes at once, while the database of the killed one may still
			// be ending. In the short form all but the last are killed in their turn.
			if long || moment == moments[len(moments)-1] {
				how{}.demo(t, dir)
			}
		})
	}
}

func TestDemoWithAGivenDatabase(t *testing.T) {
	t.Parallel()
	given := givenDatabase(t)
	dir := stateOf(t, nil)
	p := how{env: given.env, line: killAfter(1)}.start(t, "demo", "--json", "--dir", dir)
	if code := p.code(); code != -1 {
		t.Fatalf("not killed: exit status %d\n%s%s", code, p.out, p.errs)
	}
	given.demo(t, dir)
}

// killAfter kills the demo once it has printed so many steps.
func killAfter(steps int) func(*child, int, string) {
	return func(p *child, n int, _ string) {
		if n == steps {
			p.cmd.Process.Kill() //nolint:errcheck // the test sees how it ended
		}
	}
}

func TestDemoAsAnOrdinaryUser(t *testing.T) {
	t.Parallel()
	who := nobody(t)
	dir := stateOf(t, who)
	how{as: who, env: []string{"HOME=" + dir}}.demo(t, filepath.Join(dir, "demo"))
}

func TestDemoFailsLoudly(t *testing.T) {
	t.Parallel()
	// Without an accounting program the books are proved by nobody else.
	p := how{env: []string{"PATH=/nowhere"}}.start(t, "demo", "--json", "--dir", stateOf(t, nil))
	code := p.code()
	lines := strings.Split(strings.TrimSpace(p.out.String()), "\n")
	var last told
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil {
		t.Fatal(err)
	}
	if code != 1 || last.OK || last.Step != steps || !strings.Contains(last.Error, "hledger") || strings.Count(p.errs.String(), "\n") != 1 {
		t.Errorf("exit status %d, last step %+v, errors %q", code, last, p.errs)
	}
}
