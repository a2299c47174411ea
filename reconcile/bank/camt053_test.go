package bank

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"guichet/internal/money"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; got:\n%s", name, got)
	}
}

func open(t testing.TB, name string) *os.File {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestCAMT053ReadsBothVersions(t *testing.T) {
	for _, name := range []string{"testdata/statement.camt.053.001.08.xml", "testdata/statement.camt.053.001.02.xml"} {
		got, err := ReadCAMT053(open(t, name))
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.MarshalIndent(got, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, strings.TrimSuffix(name, ".xml")+".json", append(text, '\n'))
	}
}

func TestCAMT053(t *testing.T) {
	read := func(t *testing.T, name string) Statement {
		t.Helper()
		got, err := ReadCAMT053(open(t, name))
		if err != nil || len(got) != 1 {
			t.Fatalf("%s: %d statements, %v", name, len(got), err)
		}
		return got[0]
	}
	new, old := read(t, "testdata/statement.camt.053.001.08.xml"), read(t, "testdata/statement.camt.053.001.02.xml")

	t.Run("the day of the formats' sample comes out to the cent", func(t *testing.T) {
		var in, out money.Amount
		for _, l := range new.Lines {
			if l.Amount > 0 {
				in += l.Amount
			} else {
				out -= l.Amount
			}
		}
		if new.Opening != 100_000_000 || in != 207_821 || out != 8_750 || new.Closing != 100_199_071 {
			t.Errorf("opening %s, in %s, out %s, closing %s", new.Opening, in, out, new.Closing)
		}
	})
	t.Run("a reversal is not turned round twice", func(t *testing.T) {
		if l := new.Lines[5]; !l.Reversal || l.Amount != -7500 {
			t.Errorf("the returned cheque is %s, reversal %v; want -75.00, true", l.Amount, l.Reversal)
		}
		if l := old.Lines[1]; !l.Reversal || l.Amount != 10000 {
			t.Errorf("the reversed debit is %s, reversal %v; want 100.00, true", l.Amount, l.Reversal)
		}
	})
	t.Run("a pending entry moves no balance", func(t *testing.T) {
		if len(old.Lines) != 2 || old.NotBooked != 1 || old.Closing != -929 {
			t.Errorf("%d lines, %d not booked, closing %s; want 2, 1, -9.29", len(old.Lines), old.NotBooked, old.Closing)
		}
	})
	t.Run("an entry without dates was booked on the day of the statement", func(t *testing.T) {
		if l := old.Lines[0]; l.BookedOn != old.ClosingOn || l.ValueOn != old.ClosingOn {
			t.Errorf("booked %s, value %s; want %s", l.BookedOn, l.ValueOn, old.ClosingOn)
		}
	})
	t.Run("a batch may list fewer transactions than it counts", func(t *testing.T) {
		if l := old.Lines[0]; l.BatchCount != 250 || len(l.Details) != 1 {
			t.Errorf("counts %d, lists %d; want 250, 1", l.BatchCount, len(l.Details))
		}
		if l := new.Lines[1]; l.BatchCount != 3 || len(l.Details) != 3 || l.Details[1].CreditorReference != "9876543210987" {
			t.Errorf("batch of bill payments: %+v", l)
		}
	})
	t.Run("the bank's word for no reference is none", func(t *testing.T) {
		if got := fmt.Sprint(old.Lines[0].References()); got != "[T-1]" {
			t.Errorf("references %s, want [T-1]", got)
		}
	})
	t.Run("names of payers are not read", func(t *testing.T) {
		if text, _ := json.Marshal(old); bytes.Contains(text, []byte("Private")) {
			t.Error("the payer's name is in the statement")
		}
	})
	t.Run("the same statement in another file has the same identity", func(t *testing.T) {
		again := read(t, "testdata/statement.camt.053.001.08.xml")
		if again.Identity() != new.Identity() || new.Identity() == old.Identity() {
			t.Errorf("identities %v, %v, %v", new.Identity(), again.Identity(), old.Identity())
		}
	})
	t.Run("a broken read is no reason to refuse the file", func(t *testing.T) {
		_, err := ReadCAMT053(io.MultiReader(strings.NewReader("<Document xmlns=\""+version02+"\">"), iotest.ErrReader(io.ErrClosedPipe)))
		if bad := (*Error)(nil); !errors.Is(err, io.ErrClosedPipe) || errors.As(err, &bad) {
			t.Errorf("a broken pipe is reported as %v", err)
		}
	})
}

// The corpus: one fault per file, each refused whole, with the line, the element
// and the reason that testdata/bad/reasons.txt names.
func TestCAMT053RefusesEveryBadFile(t *testing.T) {
	if _, err := ReadCAMT053(open(t, "testdata/minimal.xml")); err != nil {
		t.Fatalf("the file that the bad ones are made of: %v", err)
	}
	names, err := filepath.Glob("testdata/bad/*.xml")
	if err != nil || len(names) < 40 {
		t.Fatalf("%d bad files, %v", len(names), err)
	}
	var reasons bytes.Buffer
	for _, name := range names {
		got, err := ReadCAMT053(open(t, name))
		if bad := (*Error)(nil); !errors.As(err, &bad) || bad.Line < 1 || got != nil {
			t.Errorf("%s: %d statements, %v; want an *Error with a line", name, len(got), err)
		}
		fmt.Fprintf(&reasons, "%s: %v\n", strings.TrimSuffix(filepath.Base(name), ".xml"), err)
	}
	golden(t, "testdata/bad/reasons.txt", reasons.Bytes())
}

func TestParseAmount(t *testing.T) {
	for in, want := range map[string]money.Amount{
		"0": 0, "0.01": 1, "12.5": 1250, "12.50000": 1250, "007": 700, "999999999999999.99": 99999999999999999,
	} {
		if got, err := parseAmount(in); err != nil || got != want {
			t.Errorf("parseAmount(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", ".", "1.", ".5", "1.001", "1.000001", "+1", "-1", "1 0", "1,0", "1e3", "0x1", "1000000000000000", "١"} {
		if got, err := parseAmount(in); err == nil {
			t.Errorf("parseAmount(%q) = %d, want an error", in, got)
		}
	}
}

// Whatever the bytes, reading does not panic, and what is accepted adds up.
func FuzzCAMT053(f *testing.F) {
	for _, pattern := range []string{"testdata/*.xml", "testdata/bad/*.xml"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, name := range names {
			b, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		statements, err := ReadCAMT053(bytes.NewReader(b))
		if err != nil {
			if bad := (*Error)(nil); !errors.As(err, &bad) {
				t.Fatalf("not an *Error: %v", err)
			}
			return
		}
		for _, s := range statements {
			sum := s.Opening
			for _, l := range s.Lines {
				sum += l.Amount
			}
			if sum != s.Closing || s.Account == "" || s.ID == "" || s.Currency != money.CAD {
				t.Fatalf("accepted: %+v", s)
			}
		}
	})
}
