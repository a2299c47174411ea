package ledger

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/mod/sumdb/tlog"

	"guichet/internal/clock"
	"guichet/internal/money"
)

// fill records a few months of business with every kind of text in it.
func (h house) fill(t testing.TB, n int) {
	t.Helper()
	h.do(t, func(ctx context.Context, tx pgx.Tx) error { // a parent that holds money itself
		return h.OpenAccount(ctx, tx, Account{Path: "assets:receivable", NameEN: `Old; "receivable", all`, NameFR: "Créances"})
	})
	paths := []string{clearing, receivable, fines, "assets:receivable"}
	texts := []string{"", "plain", "two\nlines\r\n\u2028and more", `"quoted" \ back`, "; comment", "= 5 @ 3 {x} | y", "(code) * ! #tag ^link", "é 🅿️ 漢字", "\x01\x7f"}
	random := rand.New(rand.NewPCG(1, 2))
	for from := 0; from < n; from += 500 {
		var batch []Entry
		for i := from; i < min(n, from+500); i++ {
			e := move(key(i), money.Amount(1+random.IntN(100_000_00)), paths[random.IntN(2)], paths[2+random.IntN(2)])
			text := texts[i%len(texts)]
			e.EffectiveOn = today.AddDays(-random.IntN(120))
			e.Description, e.SourceID, e.Key = text, text, e.Key+text
			e.Metadata = map[string]string{text: text}
			e.Lines[0].Dimensions = Dimensions{Department: text, Channel: "web", Tender: "card"}
			e.Lines = append(e.Lines, Line{paths[i%4], 7, Dimensions{WBS: text}}, Line{paths[(i+1)%4], -7, Dimensions{}})
			batch = append(batch, e)
		}
		h.do(t, func(ctx context.Context, tx pgx.Tx) error { _, err := h.AppendAll(ctx, tx, batch); return err })
		if from%1000 == 0 {
			h.drain(t) // the rest stays unposted
		}
	}
}

func export(t testing.TB, h house, name string, write func(context.Context, Beginner, io.Writer) error) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := write(t.Context(), h.db, f); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func outside(t testing.TB, name string, args ...string) (string, error) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("%s is not installed (Debian: apt-get install hledger beancount): %v", name, err)
	}
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), "LANG=C.UTF-8")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// maxExport is what a process may take that exports any number of entries.
const maxExport = 128 << 20

// exportInAProcess writes the format that a path's name ends with, and sees that memory
// does not grow with the books: the process streams, or it fails.
func exportInAProcess(t testing.TB, h house, path string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+h.db.Config().ConnString(), exportVariable+"="+path)
	started := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("export: %v\n%s", err, out)
	}
	took := time.Since(started)
	var peak int64
	if _, err := fmt.Sscanf(string(out), "%d", &peak); err != nil {
		t.Fatalf("the export says %q: %v", out, err)
	}
	file, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %d MB in %s, %d MB of memory at most", filepath.Base(path), file.Size()>>20, took.Round(time.Millisecond), peak>>20)
	if peak > maxExport {
		t.Errorf("the export took %d MB of memory, at most %d expected", peak>>20, maxExport>>20)
	}
}

// exportHere is the other side of exportInAProcess. It prints how many bytes the
// runtime ever asked the system for, which is never less than what was in use at once.
func exportHere(address, path string) error {
	ctx := context.Background()
	db, err := pgxpool.New(ctx, address)
	if err != nil {
		return err
	}
	defer db.Close()
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	switch filepath.Ext(path) {
	case ".beancount":
		err = ExportBeancount(ctx, db, f)
	case ".jsonl":
		err = ExportJSONL(ctx, db, f)
	default:
		err = ExportHledger(ctx, db, f)
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	fmt.Println(m.Sys)
	return errors.Join(err, f.Close())
}

// spoil changes one cent in the last entry of a file.
func spoil(t testing.TB, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	i := bytes.LastIndex(text, []byte("  0.07 CAD"))
	j := bytes.LastIndex(text, []byte("  -0.07 CAD"))
	if i < 0 || j < 0 {
		t.Fatalf("%s has no line of seven cents", path)
	}
	text[i+5], text[j+6] = '8', '8'
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestExportIsAcceptedOutside(t *testing.T) {
	t.Parallel()
	h := open(t)
	n := 50_000
	if os.Getenv("GUICHET_LONG") != "" {
		n = 1_000_000
	}
	h.fill(t, n)
	for _, tt := range []struct {
		name  string
		check []string
	}{
		{"books.journal", []string{"hledger", "-f", "", "check", "--strict", "ordereddates"}},
		{"books.beancount", []string{"bean-check", ""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), tt.name)
			exportInAProcess(t, h, path)
			args := strings.Split(strings.Join(tt.check, "\x00"), "\x00")
			for i := range args {
				if args[i] == "" {
					args[i] = path
				}
			}
			if out, err := outside(t, args[0], args[1:]...); err != nil {
				t.Errorf("%v: %v\n%.2000s", args, err, out)
			}
			spoil(t, path)
			out, err := outside(t, args[0], args[1:]...)
			if err == nil {
				t.Errorf("%v: accepted with one cent off", args)
			}
			if !strings.Contains(strings.ToLower(out), "balance") {
				t.Errorf("%v: complains of something else: %.2000s", args, out)
			}
		})
	}
	t.Run("books.jsonl", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "books.jsonl")
		exportInAProcess(t, h, path)
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		_, v := signer(t)
		sum, found, err := VerifyExport(f, Known{Log: v})
		if err != nil || sum.Entries+sum.Waiting != int64(n) || kinds(found) != "signature" { // nobody signs here
			t.Errorf("got %+v, %v, %v; want %d entries and no signature", sum, found, err, n)
		}
	})
}

// Both programs must arrive at our balances by themselves.
func TestExportGivesTheSameBalances(t *testing.T) {
	t.Parallel()
	h := open(t)
	h.fill(t, 300)
	out, err := outside(t, "hledger", "-f", export(t, h, "books.journal", ExportHledger), "balance", "--flat", "--no-total", "-O", "csv")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	trial, err := h.TrialBalance(t.Context(), h.db, clock.Date{Year: 2100, Month: 1, Day: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range trial {
		if want := fmt.Sprintf("%q,%q\n", l.Account.Path, l.Balance.String()+" CAD"); !strings.Contains(out, want) {
			t.Errorf("want %s in\n%s", want, out)
		}
	}
}

// What hledger has no quotes for comes back out of it: commas in values, semicolons in
// descriptions, percent signs.
func TestExportToHledgerLosesNoText(t *testing.T) {
	t.Parallel()
	h := open(t)
	const text = `50% of "all", or more; (see a, b) %2C`
	h.do(t, func(ctx context.Context, tx pgx.Tx) error {
		return h.OpenAccount(ctx, tx, Account{Path: "assets:odd", NameEN: text, NameFR: "Frais, etc."})
	})
	e := move("odd, key", 5, "assets:odd", clearing)
	e.Description, e.SourceID, e.Lines[0].Dimensions.WBS = text, text, text
	h.mustPost(t, e)
	path := export(t, h, "books.journal", ExportHledger)
	for _, tt := range []struct {
		want string
		args []string
	}{
		{"odd, key", []string{"tags", "^key$", "--values"}},
		{"payment/" + text, []string{"tags", "^source$", "--values"}},
		{text, []string{"tags", "^wbs$", "--values"}},
		{text, []string{"tags", "^name-en$", "--values", "assets:odd"}},
		{"Frais, etc.", []string{"tags", "^name-fr$", "--values", "assets:odd"}},
		{text, []string{"descriptions"}},
	} {
		out, err := outside(t, "hledger", append([]string{"-f", path}, tt.args...)...)
		if err != nil {
			t.Fatalf("%v: %v\n%s", tt.args, err, out)
		}
		var got []string
		for line := range strings.Lines(out) {
			text, err := url.PathUnescape(strings.TrimSpace(line))
			if err != nil {
				t.Errorf("%v: %q: %v", tt.args, line, err)
			}
			got = append(got, text)
		}
		if !slices.Contains(got, tt.want) {
			t.Errorf("%v: got %q, want %q in it", tt.args, got, tt.want)
		}
	}
}

// Whoever has the export alone can compute the root of the log.
func TestExportJSONLGivesTheRoot(t *testing.T) {
	t.Parallel()
	h := open(t)
	h.fill(t, 700)
	f, err := os.Open(export(t, h, "books.jsonl", exportWithPapers))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var (
		tr       tree
		accounts int
		waiting  int
		last     jsonHead
	)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var kind struct{ Type string }
		var j jsonEntry
		if err := json.Unmarshal(lines.Bytes(), &kind); err != nil {
			t.Fatalf("%s: %v", lines.Bytes(), err)
		}
		switch kind.Type {
		case "account":
			accounts++
		case "entry":
			if err := json.Unmarshal(lines.Bytes(), &j); err != nil {
				t.Fatal(err)
			}
			if j.Position == nil {
				waiting++
				continue
			}
			date, err := clock.ParseDate(j.EffectiveOn)
			if err != nil {
				t.Fatal(err)
			}
			e := Entry{
				ID: j.ID, Key: j.Key, Kind: j.Kind, EffectiveOn: date, RecordedAt: j.RecordedAt, Currency: j.Currency, SourceType: j.SourceType,
				SourceID: j.SourceID, Actor: j.Actor, Channel: j.Channel, Description: j.Description, Metadata: j.Metadata, Reverses: j.Reverses,
			}
			for _, l := range j.Lines {
				e.Lines = append(e.Lines, Line(l))
			}
			if *j.Position != tr.size {
				t.Fatalf("position %d, want %d", *j.Position, tr.size)
			}
			tr.add(tlog.RecordHash(e.canonical(j.Body)))
		case "head":
			if err := json.Unmarshal(lines.Bytes(), &last); err != nil {
				t.Fatal(err)
			}
		}
	}
	if accounts != 5 || waiting != 200 || tr.size != 500 || last.Size != 500 || last.Root != tr.root() {
		t.Errorf("%d accounts, %d entries waiting, %d posted with root %s; the head says %d and %s", accounts, waiting, tr.size, tr.root(), last.Size, last.Root)
	}
}
