package reconcile

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"guichet/internal/money"
)

// inboxFiles lists what is in a folder of the inbox.
func (c *town) inboxFiles(t *testing.T, folder string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(c.inbox, folder))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	return names
}

func (c *town) take(t *testing.T) takenStatements {
	t.Helper()
	did, err := c.night.takeStatements(t.Context(), c.Today())
	if err != nil {
		t.Fatal(err)
	}
	return did.(takenStatements)
}

func TestStatementFiles(t *testing.T) {
	t.Parallel()
	t.Run("are kept as they came and set aside", func(t *testing.T) {
		t.Parallel()
		c := newTown(t)
		data := c.statement(t, bankEntry{1_000, "A"}, bankEntry{-200, "B"})
		if did := c.take(t); did != (takenStatements{Files: 1, Statements: 1, Lines: 2}) {
			t.Errorf("taken %+v", did)
		}
		var kept []byte
		if err := c.DB.QueryRow(t.Context(), `select bytes from reconcile.statement_file`).Scan(&kept); err != nil || !bytes.Equal(kept, data) {
			t.Errorf("kept %d bytes, %v; want %d", len(kept), err, len(data))
		}
		if waiting, done := c.inboxFiles(t, "."), c.inboxFiles(t, "done"); len(waiting) != 0 || len(done) != 1 {
			t.Errorf("waiting %v, done %v", waiting, done)
		}
	})
	t.Run("that come twice are taken once", func(t *testing.T) {
		t.Parallel()
		c := newTown(t)
		data := c.statement(t, bankEntry{1_000, "A"})
		c.deliver(t, "again.xml", data)
		c.take(t)
		c.deliver(t, "camt_00001.xml", data) // also what a kill before the move leaves behind
		c.deliver(t, "other_bytes.xml", append(data, '\n'))
		if did := c.take(t); did.Statements != 0 || did.Duplicates != 1 {
			t.Errorf("taken %+v", did)
		}
		var lines int
		if err := c.DB.QueryRow(t.Context(), `select count(*) from reconcile.bank_line`).Scan(&lines); err != nil || lines != 1 {
			t.Errorf("%d lines, %v; want 1", lines, err)
		}
		if waiting := c.inboxFiles(t, "."); len(waiting) != 0 {
			t.Errorf("waiting %v", waiting)
		}
	})
	t.Run("that are still being written are left alone", func(t *testing.T) {
		t.Parallel()
		c := newTown(t)
		c.deliver(t, "statement.xml.tmp", []byte("<Doc"))
		c.deliver(t, ".hidden.xml", []byte("<Doc"))
		if did := c.take(t); did.Files != 0 || len(c.inboxFiles(t, ".")) != 2 {
			t.Errorf("taken %+v", did)
		}
	})
	for name, tt := range map[string]struct {
		spoil func(data []byte) []byte
		want  string
	}{
		"that do not add up":              {func(b []byte) []byte { return bytes.Replace(b, []byte("1000010.00"), []byte("1000010.01"), 1) }, "but closing is 1000010.01"},
		"that are cut":                    {func(b []byte) []byte { return b[:len(b)-30] }, "unexpected EOF"},
		"that are about another account":  {func(b []byte) []byte { return bytes.Replace(b, []byte(testAccount), []byte("99999999999"), 1) }, "which is not the city's"},
		"that are no statements whatever": {func([]byte) []byte { return []byte("date;amount\n") }, "text outside the root"},
	} {
		t.Run(name+" are refused with the reason", func(t *testing.T) {
			t.Parallel()
			c := newTown(t)
			c.deliver(t, "bad.xml", tt.spoil(c.camt(1, 100_000_000, bankEntry{1_000, "A"})))
			if did := c.take(t); did.Refused != 1 || did.Statements != 0 {
				t.Errorf("taken %+v", did)
			}
			e, notes := c.onlyException(t)
			if e.Kind != StatementRefused || !strings.Contains(notes[0].Text, tt.want) {
				t.Errorf("exception %+v, %+v; want %q", e, notes, tt.want)
			}
			if refused := c.inboxFiles(t, "refused"); len(refused) != 1 || !strings.HasSuffix(refused[0], "bad.xml") {
				t.Errorf("refused %v", refused)
			}
		})
	}
	t.Run("that contradict a statement we have are refused", func(t *testing.T) {
		t.Parallel()
		c := newTown(t)
		c.deliver(t, "1.xml", c.camt(1, 100_000_000, bankEntry{1_000, "A"}))
		c.deliver(t, "2.xml", c.camt(1, 100_000_000, bankEntry{1_000, "B"}))
		if did := c.take(t); did.Statements != 1 || did.Refused != 1 {
			t.Errorf("taken %+v", did)
		}
		if _, notes := c.onlyException(t); !strings.Contains(notes[0].Text, "received before with other content") {
			t.Errorf("history %+v", notes)
		}
	})
	t.Run("with a gap between them are reported until it is filled", func(t *testing.T) {
		t.Parallel()
		c := newTown(t)
		c.deliver(t, "1.xml", c.camt(1, 100_000_000, bankEntry{1_000, "A"}))
		c.nextDay(t)
		missing := c.camt(2, 100_001_000, bankEntry{500, "B"})
		c.nextDay(t)
		c.deliver(t, "3.xml", c.camt(3, 100_001_500, bankEntry{1, "C"}))
		c.take(t)
		if e, _ := c.onlyException(t); e.Kind != StatementGap || e.Amount != 500 {
			t.Errorf("exception %+v", e)
		}
		c.deliver(t, "2.xml", missing)
		c.take(t)
		if kinds := c.openKinds(t); kinds != "" {
			t.Errorf("open exceptions: %s", kinds)
		}
	})
}

func TestALineNobodyExplainsIsAnException(t *testing.T) {
	t.Parallel()
	c := newTown(t)
	c.statement(t, bankEntry{125_000, "BILLPAYMENTS"})
	r := c.run(t)
	e, _ := c.onlyException(t)
	if e.Kind != LineUnmatched || e.Amount != 125_000 || r.Unmatched != (Total{1, 125_000}) || r.Difference != 0 {
		t.Errorf("exception %+v, report %+v", e, r)
	}
	if err := c.night.AddNote(t.Context(), e.ID, "asked the bank"); err != nil {
		t.Fatal(err)
	}
	if err := c.night.Assign(t.Context(), e.ID, "treasury"); err != nil {
		t.Fatal(err)
	}
	if err := c.night.Resolve(t.Context(), e.ID, "tax payments, booked in SAP by hand"); err != nil {
		t.Fatal(err)
	}
	e, notes, err := ExceptionByID(t.Context(), c.DB, e.ID)
	if err != nil || e.Owner != "treasury" || e.Resolution == "" || e.ClosedAt.IsZero() || len(notes) != 4 {
		t.Errorf("exception %+v with %d notes, %v", e, len(notes), err)
	}
	c.nextDay(t)
	c.run(t) // what a person has settled does not come back
	if kinds := c.openKinds(t); kinds != "" {
		t.Errorf("open exceptions: %s", kinds)
	}
	c.balances(t, map[string]money.Amount{"assets:bank:main": 0})
}
