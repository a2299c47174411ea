package reconcile

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"guichet/internal/money"
	"guichet/reconcile/sap"
)

// settledTown has one payout in the books and its documents in a batch that is not
// sent yet.
func settledTown(t *testing.T) (*town, Batch) {
	t.Helper()
	c := newTown(t)
	c.succeed(t, c.Issue(t, c.Bill("parking", "parking-accessible", 0)))
	_, entry := c.processor.payOut()
	c.statement(t, entry)
	for _, s := range steps[:slices.IndexFunc(steps, func(s step) bool { return s.name == "deliver" })] {
		if _, err := s.run(c.night, t.Context(), c.Today()); err != nil {
			t.Fatal(err)
		}
	}
	return c, c.batch(t)
}

func (c *town) batch(t *testing.T) Batch {
	t.Helper()
	list, err := Batches(t.Context(), c.DB, 10)
	if err != nil || len(list) != 1 {
		t.Fatalf("%d batches, %v; want 1", len(list), err)
	}
	return list[0]
}

func (c *town) deliverAll(t *testing.T, n *Nightly) DeliveryResult {
	t.Helper()
	did, err := n.Deliver(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return did
}

// faulty is a place that fails as told after, or instead of, doing what it is asked.
type faulty struct {
	sap.Place
	before, after func(name string) error
	puts          []string
}

func (f *faulty) Put(ctx context.Context, folder, name string, data []byte) error {
	f.puts = append(f.puts, name)
	if f.before != nil {
		if err := f.before(name); err != nil {
			return err
		}
	}
	err := f.Place.Put(ctx, folder, name, data)
	if err == nil && f.after != nil {
		err = f.after(name)
	}
	return err
}

func fails(err error) func(string) error { return func(string) error { return err } }

func TestAFileThatWasRefusedGoesOutLater(t *testing.T) {
	t.Parallel()
	c, b := settledTown(t)
	place := &faulty{Place: sap.Local{Dir: c.sap}, before: fails(errors.New("disk full"))}
	n := c.nightly(t, place)
	if did := c.deliverAll(t, n); did.Waiting != 1 || c.batch(t).State != Ready {
		t.Errorf("%+v, batch %s", did, c.batch(t).State)
	}
	if e, notes := c.onlyException(t); e.Kind != DeliveryTrouble || !strings.Contains(notes[0].Text, "disk full") {
		t.Errorf("exception %+v, %+v", e, notes)
	}
	place.before = nil
	if did := c.deliverAll(t, n); did.Delivered != 1 || c.openKinds(t) != "" {
		t.Errorf("%+v, exceptions %s", did, c.openKinds(t))
	}
	c.sentOnce(t, b)
}

// sentOnce checks that SAP has exactly the batch's file and manifest.
func (c *town) sentOnce(t *testing.T, b Batch) {
	t.Helper()
	file, err := BatchFile(t.Context(), c.DB, b.ID)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, folder := range []string{"in", "archive"} {
		entries, err := os.ReadDir(filepath.Join(c.sap, folder))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		for _, e := range entries {
			names = append(names, e.Name())
		}
	}
	if !slices.Equal(names, []string{file.Name, file.ManifestName()}) {
		t.Errorf("SAP has %v", names)
	}
	for _, d := range c.documents(t) {
		if d.State == DocumentCreated {
			t.Errorf("document %s is %s after delivery", d.DocNum, d.State)
		}
	}
}

func TestALostAnswerIsLookedUpAndNotSentAgain(t *testing.T) {
	t.Parallel()
	c, b := settledTown(t)
	place := &faulty{Place: sap.Local{Dir: c.sap}}
	place.after = func(name string) error {
		if strings.HasSuffix(name, ".json") {
			return sap.ErrUnknown // it is there, but nobody told us
		}
		return nil
	}
	n := c.nightly(t, place)
	c.deliverAll(t, n)
	if c.batch(t).State != Unknown || c.openKinds(t) != string(DeliveryTrouble) {
		t.Fatalf("batch %s, exceptions %s", c.batch(t).State, c.openKinds(t))
	}
	sent := len(place.puts)
	c.deliverAll(t, n)
	if c.batch(t).State != Delivered || len(place.puts) != sent || c.openKinds(t) != "" {
		t.Errorf("batch %s, puts %v, exceptions %s", c.batch(t).State, place.puts, c.openKinds(t))
	}
	c.sentOnce(t, b)
}

func TestACrashWhileSendingWaitsForEvidence(t *testing.T) {
	t.Parallel()
	crash := func(t *testing.T, c *town, b Batch) {
		t.Helper()
		if claimed, err := c.night.claim(t.Context(), b.ID); err != nil || claimed.State != Sending {
			t.Fatalf("claim: %s, %v", claimed.State, err)
		}
	}
	t.Run("nothing at SAP, which shows what it takes: the same bytes go out", func(t *testing.T) {
		t.Parallel()
		c, b := settledTown(t)
		crash(t, c, b)
		c.deliverAll(t, c.night)
		if c.batch(t).State != Delivered {
			t.Errorf("batch %s", c.batch(t).State)
		}
		c.sentOnce(t, b)
	})
	t.Run("SAP has archived it: nothing goes out", func(t *testing.T) {
		t.Parallel()
		c, b := settledTown(t)
		crash(t, c, b)
		file, err := BatchFile(t.Context(), c.DB, b.ID)
		if err != nil {
			t.Fatal(err)
		}
		for name, data := range map[string][]byte{file.Name: file.Data, file.ManifestName(): file.Manifest} {
			if err := (sap.Local{Dir: c.sap}).Put(t.Context(), "archive", name, data); err != nil {
				t.Fatal(err)
			}
		}
		c.deliverAll(t, c.night)
		if c.batch(t).State != Delivered {
			t.Errorf("batch %s", c.batch(t).State)
		}
		c.sentOnce(t, b)
	})
	t.Run("no trace and no archive: only a person's word lets it go out again", func(t *testing.T) {
		t.Parallel()
		c, b := settledTown(t)
		crash(t, c, b)
		place := &faulty{Place: sap.Local{Dir: c.sap}}
		n := c.nightly(t, place)
		n.handover.Archive = ""
		for range 3 {
			c.deliverAll(t, n)
		}
		if c.batch(t).State != Unknown || len(place.puts) != 0 {
			t.Fatalf("batch %s, puts %v", c.batch(t).State, place.puts)
		}
		if e, notes := c.onlyException(t); e.Kind != DeliveryTrouble || len(notes) != 1 {
			t.Errorf("exception %+v with %d notes, want 1: the same trouble is no news", e, len(notes))
		}
		if err := n.Attest(t.Context(), b.ID, false, ""); err == nil {
			t.Error("attested without a reason")
		}
		if err := n.Attest(t.Context(), b.ID, false, "SAP's operator found no such file"); err != nil {
			t.Fatal(err)
		}
		c.deliverAll(t, n)
		if c.batch(t).State != Delivered || c.openKinds(t) != "" {
			t.Errorf("batch %s, exceptions %s", c.batch(t).State, c.openKinds(t))
		}
		c.sentOnce(t, b)
	})
	t.Run("SAP's answer is evidence", func(t *testing.T) {
		t.Parallel()
		c, b := settledTown(t)
		crash(t, c, b)
		docs := c.documents(t)
		c.answer(t, docs[0].DocNum, "53", "posted", "BKPFF010000001210002026")
		c.readAnswers(t)
		if c.batch(t).State != Delivered {
			t.Errorf("batch %s", c.batch(t).State)
		}
		if docs = c.documents(t); docs[0].State != Posted || docs[1].State != Sent {
			t.Errorf("documents %s and %s", docs[0].State, docs[1].State)
		}
	})
	t.Run("another file of the name is a person's", func(t *testing.T) {
		t.Parallel()
		c, b := settledTown(t)
		if err := (sap.Local{Dir: c.sap}).Put(t.Context(), "in", b.FileName, []byte("something else")); err != nil {
			t.Fatal(err)
		}
		c.deliverAll(t, c.night)
		if e, _ := c.onlyException(t); e.Kind != DeliveryTrouble || c.batch(t).State != Ready {
			t.Errorf("exception %+v, batch %s", e, c.batch(t).State)
		}
	})
}

func TestARejectedDocumentIsAnExceptionAndIsNotSentTwice(t *testing.T) {
	t.Parallel()
	c, b := settledTown(t)
	place := &faulty{Place: sap.Local{Dir: c.sap}}
	n := c.nightly(t, place)
	c.deliverAll(t, n)
	sent := slices.Clone(place.puts)
	docs := c.documents(t)
	parking := docs[slices.IndexFunc(docs, func(d Document) bool { return d.Department == "parking" })]

	c.answer(t, parking.DocNum, "51", "G/L account 430100 is not defined", "")
	if did := c.readAnswers(t); did.Rejected != 1 {
		t.Errorf("answers %+v", did)
	}
	e, notes := c.onlyException(t)
	if e.Kind != Rejected || e.ObjectID != parking.ID || e.Amount != 45_000 || !strings.Contains(notes[0].Text, "G/L account 430100 is not defined") {
		t.Errorf("exception %+v, %+v", e, notes)
	}
	if did := c.readAnswers(t); did != (AnswersResult{}) {
		t.Errorf("the same file again: %+v", did)
	}
	c.deliverAll(t, n)
	c.run(t)
	c.nextDay(t)
	c.statement(t)
	c.run(t)
	if !slices.Equal(place.puts, sent) || len(c.documents(t)) != len(docs) {
		t.Errorf("after the rejection: puts %v, %d documents", place.puts, len(c.documents(t)))
	}
	c.sentOnce(t, b)
	c.verify(t)

	t.Run("it keeps its number while SAP may still post it", func(t *testing.T) {
		if err := n.Replace(t.Context(), parking.ID, ""); !errors.Is(err, ErrStillPossible) {
			t.Errorf("%v, want ErrStillPossible", err)
		}
	})
	t.Run("posted tomorrow, the exception is over and stays over", func(t *testing.T) {
		c.answer(t, parking.DocNum, "53", "posted", "BKPFF010000001210002026")
		c.answer(t, parking.DocNum, "51", "late and wrong", "")
		c.readAnswers(t)
		docs := c.documents(t)
		i := slices.IndexFunc(docs, func(d Document) bool { return d.ID == parking.ID })
		if docs[i].State != Posted || docs[i].AnswerStatus != "53" || c.openKinds(t) != "" {
			t.Errorf("document %+v, exceptions %s", docs[i], c.openKinds(t))
		}
		history, err := AnswersOf(t.Context(), c.DB, parking.ID)
		if err != nil || len(history) != 3 {
			t.Errorf("%d answers in the history, %v; want 3", len(history), err)
		}
	})
}

func TestAClosedDocumentIsReplacedUnderANewNumber(t *testing.T) {
	t.Parallel()
	c, _ := settledTown(t)
	c.deliverAll(t, c.night)
	old := c.documents(t)
	i := slices.IndexFunc(old, func(d Document) bool { return d.Department == "parking" })
	c.answer(t, old[i].DocNum, "51", "G/L account 430100 is not defined", "")
	c.answer(t, old[i].DocNum, "68", "no further processing", "")
	c.readAnswers(t)
	if _, err := c.night.LoadMapping(t.Context(), strings.NewReader(
		"account,valid_from,gl_account,object_kind,object_number,tax_code\nrevenue:parking:*,2020-01-01,430999,cost-centre,4100,A0\n")); err != nil {
		t.Fatal(err)
	}
	if err := c.night.Replace(t.Context(), old[i].ID, ""); err != nil {
		t.Fatal(err)
	}
	c.verify(t)
	c.run(t)
	docs := c.documents(t)
	if len(docs) != len(old)+1 {
		t.Fatalf("%d documents, want %d", len(docs), len(old)+1)
	}
	fresh := docs[len(docs)-1]
	if fresh.DocNum <= old[len(old)-1].DocNum || fresh.Reference == old[i].Reference || fresh.Debits != 45_000 || fresh.State != Sent {
		t.Errorf("the replacing document %+v", fresh)
	}
	items, err := ItemsOf(t.Context(), c.DB, fresh.ID)
	if err != nil || items[1].GLAccount != "430999" {
		t.Errorf("items %+v, %v", items, err)
	}
	if kinds := c.openKinds(t); kinds != "" {
		t.Errorf("open exceptions: %s", kinds)
	}
	c.verify(t)
	t.Run("SAP posting the old one all the same is told", func(t *testing.T) {
		c.answer(t, old[i].DocNum, "53", "posted", "BKPFF010000001210002026")
		c.readAnswers(t)
		if e, _ := c.onlyException(t); e.Kind != Rejected {
			t.Errorf("exception %+v", e)
		}
	})
}

func TestForeignAndBrokenAnswersAreKept(t *testing.T) {
	t.Parallel()
	c, _ := settledTown(t)
	c.deliverAll(t, c.night)
	c.answer(t, "9999999999999999", "53", "posted", "")
	if err := os.WriteFile(filepath.Join(c.sap, "answers", "broken.xml"), []byte("<ALEAUD01><IDOC>"), 0o644); err != nil {
		t.Fatal(err)
	}
	did := c.readAnswers(t)
	if did.Files != 2 || did.Refused != 1 || did.Answers != 1 {
		t.Errorf("answers %+v", did)
	}
	if kinds := c.openKinds(t); kinds != string(AnswerForeign)+" "+string(AnswerRefused) {
		t.Errorf("open exceptions: %s", kinds)
	}
}

func TestAnUnmappedAccountIsNamedAndDoesNotHoldUpTheRest(t *testing.T) {
	t.Parallel()
	c := newTown(t)
	// Fines have no row before 2099.
	if _, err := c.owner(t).Exec(t.Context(), `
		alter table reconcile.sap_mapping disable trigger user;
		update reconcile.sap_mapping set valid_from = '2099-01-01' where account = 'revenue:parking:*'`); err != nil {
		t.Fatal(err)
	}
	c.succeed(t, c.threeBills(t)...)
	_, entry := c.processor.payOut()
	c.statement(t, entry)
	r := c.run(t)
	e, notes := c.onlyException(t)
	if e.Kind != Unmapped || !strings.HasPrefix(e.ObjectID, "revenue:parking:fines, tax none") || !strings.Contains(notes[0].Text, "no row of the mapping to SAP fits") {
		t.Errorf("exception %+v, %+v", e, notes)
	}
	if r.Documents.Count != 3 || r.Waiting != 1 {
		t.Errorf("report %+v", r)
	}
	c.verify(t)
	c.nextDay(t)
	const row = "account,valid_from,gl_account,object_kind,object_number,tax_code\nrevenue:parking:fines,2020-01-01,430100,cost-centre,4100,A0\n"
	change, err := c.night.TryMapping(t.Context(), strings.NewReader(row))
	if err != nil || change.Added != 1 || len(change.Unmapped) != 0 {
		t.Errorf("trying the row: %+v, %v", change, err)
	}
	if change, err = c.night.TryMapping(t.Context(), strings.NewReader("account,valid_from,gl_account\nassets:x,2020-01-01,1\n")); err != nil || len(change.Unmapped) != 1 {
		t.Errorf("trying another row: %+v, %v", change, err)
	}
	if change, err = c.night.LoadMapping(t.Context(), strings.NewReader(row)); err != nil || change.Added != 1 {
		t.Errorf("loading the row: %+v, %v", change, err)
	}
	if change, err = c.night.LoadMapping(t.Context(), strings.NewReader(row)); err != nil || change.Same != 1 || change.Added+change.Changed != 0 {
		t.Errorf("loading it again: %+v, %v", change, err)
	}
	c.statement(t)
	c.run(t)
	docs := c.documents(t)
	if last := docs[len(docs)-1]; len(docs) != 4 || last.Department != "parking" || last.PostingOn != c.Today().AddDays(-1) {
		t.Errorf("documents %+v", docs)
	}
	if kinds := c.openKinds(t); kinds != "" {
		t.Errorf("open exceptions: %s", kinds)
	}
	c.verify(t)
}

func TestBytesAreFrozen(t *testing.T) {
	t.Parallel()
	c, b := settledTown(t)
	before, err := BatchFile(t.Context(), c.DB, b.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.night.LoadMapping(t.Context(), strings.NewReader("account,valid_from,gl_account\nassets:bank:main,2020-01-01,999999\n")); err != nil {
		t.Fatal(err)
	}
	c.nextDay(t)
	c.deliverAll(t, c.night)
	got, err := os.ReadFile(filepath.Join(c.sap, "in", before.Name))
	if err != nil || string(got) != string(before.Data) {
		t.Errorf("sent %d bytes, %v; want the %d of the day before", len(got), err, len(before.Data))
	}
	if b := c.batch(t); b.Debits != 45_000+money.Amount(1_335) {
		t.Errorf("batch %+v", b)
	}
}
