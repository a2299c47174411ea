package sap

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// trigger is behind the name of the file that says: complete.
const trigger = ".json"

// Bounds of one poll; the rest is for the next.
const (
	maxFiles = 1000
	maxSize  = 256 << 20
)

// Run polls every second until ctx ends.
func (s *Simulator) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if err := s.Poll(); err != nil {
			s.o.Log.Error("poll", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Poll reads every complete file of inbound and writes the answers that are due.
// It may be called at any time and continues after a kill.
func (s *Simulator) Poll() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, f := range s.files {
		if f.Archived == "" {
			if err := s.archive(i); err != nil {
				return fmt.Errorf("archive %s: %w", f.Name, err)
			}
		}
	}
	names, err := s.complete()
	if err != nil {
		return fmt.Errorf("list inbound: %w", err)
	}
	for _, name := range names {
		if err := s.take(name); err != nil {
			return fmt.Errorf("take %s: %w", name, err)
		}
	}
	return s.writeDue()
}

// complete lists the files of inbound whose trigger is there, by name.
func (s *Simulator) complete() ([]string, error) {
	entries, err := fs.ReadDir(s.root.FS(), inbound)
	if err != nil {
		return nil, err
	}
	there := map[string]bool{}
	for _, e := range entries {
		there[e.Name()] = e.Type().IsRegular()
	}
	var names []string
	for _, e := range entries { // sorted by name
		n := e.Name()
		hidden := strings.HasPrefix(n, ".") || strings.HasSuffix(n, ".tmp") || strings.HasSuffix(n, trigger)
		if there[n] && there[n+trigger] && !hidden {
			names = append(names, n)
		}
	}
	return names[:min(len(names), maxFiles)], nil
}

// take reads one file, decides about every document in it, and moves it away. The
// decision is one line of the journal: it is made once or not at all.
func (s *Simulator) take(name string) error {
	info, err := s.root.Stat(path.Join(inbound, name))
	if err != nil {
		return err
	}
	now := s.o.Now()
	f := &file{Name: name, Size: int(info.Size()), At: now}
	var e event
	if info.Size() > maxSize {
		f.Trouble = "the file is too large"
	} else {
		data, err := s.root.ReadFile(path.Join(inbound, name))
		if err != nil {
			return err
		}
		f.SHA256 = sum(data)
		var idocs []*idoc
		idocs, f.Trouble = s.split(data)
		if f.Trouble == "" {
			e = s.decide(name, idocs, now)
		}
	}
	e.File = f
	if f.Trouble != "" {
		s.o.Log.Warn("file cannot be read", "file", name, "trouble", f.Trouble)
	}
	if err := s.record(e); err != nil {
		return err
	}
	s.alarm(e.Documents...)
	return s.archive(len(s.files) - 1)
}

func sum(data []byte) string {
	h := sha256.Sum256(data)
	return hex.EncodeToString(h[:])
}

// archive moves a file that was read, and its trigger, out of inbound. After a
// kill it finds what was moved already: the journal knows the content.
func (s *Simulator) archive(i int) error {
	f := s.files[i]
	waiting, err := s.same(path.Join(inbound, f.Name), f)
	if err != nil {
		return err
	}
	as := f.Name
	for n := 2; s.exists(path.Join(archive, as)); n++ {
		if !waiting {
			if moved, err := s.same(path.Join(archive, as), f); moved || err != nil {
				break
			}
		}
		as = fmt.Sprintf("%s.%d", f.Name, n) // the name has come before
	}
	if waiting {
		if err := s.root.Rename(path.Join(inbound, f.Name), path.Join(archive, as)); err != nil {
			return err
		}
	}
	if !s.exists(path.Join(inbound, f.Name)) { // else the trigger belongs to a newer file
		err := s.root.Rename(path.Join(inbound, f.Name+trigger), path.Join(archive, as+trigger))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return s.record(event{Archived: &archived{File: i, As: as}})
}

// same reports whether the file of that name is there and is f.
func (s *Simulator) same(name string, f *file) (bool, error) {
	info, err := s.root.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil || info.Size() != int64(f.Size) || info.Size() > maxSize {
		return err == nil && info.Size() == int64(f.Size), err
	}
	data, err := s.root.ReadFile(name)
	return err == nil && sum(data) == f.SHA256, err
}

func (s *Simulator) exists(name string) bool {
	_, err := s.root.Lstat(name)
	return err == nil
}

// decide checks every IDoc of a file and plans the answers.
func (s *Simulator) decide(name string, idocs []*idoc, now time.Time) event {
	var e event
	var plan planner
	for i, d := range idocs {
		doc := &document{
			IDoc: idocNumber(len(s.documents) + i + 1), DocNum: d.docNum(), File: name, Index: i, At: now,
			Sender: partner{d.control["SNDPOR"], d.control["SNDPRN"]},
		}
		for _, x := range slices.Concat(s.documents, e.Documents) {
			if x.DocNum == doc.DocNum {
				doc.SeenBefore = true
			}
		}
		s.judge(doc, d, e.Documents)
		if _, hit := s.faults.Strike("reject", doc.DocNum); hit && doc.Status == statusPosted {
			s.refuse(doc, statusRefused, msg("ZG 961"))
		}
		e.Documents = append(e.Documents, doc)
		s.plan(&plan, doc, now)
	}
	e.Answers = plan.answers(len(s.answers))
	return e
}

// judge checks the IDoc and gives the document its status. others are the ones
// decided in the same step.
func (s *Simulator) judge(doc *document, d *idoc, others []*document) {
	switch {
	case len(d.formal) > 0:
		s.refuse(doc, statusFormal, d.formal...)
		return
	case len(d.syntax) > 0:
		s.refuse(doc, statusSyntax, d.syntax...)
		return
	}
	c := checker{d: d, open: s.isOpen, index: map[string]int{}}
	c.run()
	doc.Header, doc.Lines = c.header, c.lines
	if len(c.problems) > 0 {
		s.refuse(doc, statusRefused, c.problems...)
		return
	}
	doc.Status = statusPosted
	doc.Posting = s.nextPosting(c.header.PostingDate[:4], others)
	for _, x := range slices.Concat(s.documents, others) {
		if x.DocNum == doc.DocNum && x.Posting != nil && x.IDoc != doc.IDoc {
			doc.DoublePosting = true
		}
	}
	doc.Messages = []message{s.postedMessage(doc.Posting)}
}

// alarm is loud about money that is in the books twice.
func (s *Simulator) alarm(docs ...*document) {
	for _, d := range docs {
		if d.DoublePosting {
			s.o.Log.Error("DOUBLE POSTING", "docnum", d.DocNum, "idoc", d.IDoc, "file", d.File)
		}
	}
}

// refuse takes back whatever was decided. RW 609 comes first when FI refused.
func (s *Simulator) refuse(doc *document, status string, why ...message) {
	doc.Status, doc.Posting, doc.DoublePosting = status, nil, false
	doc.Messages = why[:min(len(why), maxProblems)]
	if status == statusRefused {
		doc.Messages = append([]message{msg("RW 609", "BKPFF", "$", s.o.System)}, why...)
	}
}

func (s *Simulator) postedMessage(p *posting) message {
	m := msg("RW 605", "BKPFF", p.Document+p.Company+p.Year, s.o.System)
	m.Type = "S"
	return m
}

var (
	errNotFound = errors.New("no such document")
	errPosted   = errors.New("the document is posted")
	errClosed   = errors.New("the document is closed")
)

// reprocess lets a refused document try again, as people at SAP do after they
// opened a period or corrected master data.
func (s *Simulator) reprocess(idoc string) (*document, error) {
	return s.change(idoc, func(doc *document) error {
		name := ""
		for _, f := range s.files {
			if f.Name == doc.File && f.At.Equal(doc.At) {
				name = f.Archived
			}
		}
		data, err := s.root.ReadFile(path.Join(archive, name))
		if err != nil {
			return fmt.Errorf("read the archived file: %w", err)
		}
		idocs, trouble := s.split(data)
		if trouble != "" || doc.Index >= len(idocs) {
			return fmt.Errorf("the archived file has changed: %s", trouble)
		}
		s.judge(doc, idocs[doc.Index], nil)
		return nil
	})
}

// closeDocument ends a refused document without posting.
func (s *Simulator) closeDocument(idoc string) (*document, error) {
	return s.change(idoc, func(doc *document) error {
		doc.Status, doc.Messages = statusClosed, []message{msg("ZG 962")}
		return nil
	})
}

// change lets a person at SAP decide about a refused document anew, and answers.
func (s *Simulator) change(idoc string, how func(*document) error) (*document, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, ok := s.byIDoc[idoc]
	switch {
	case !ok:
		return nil, errNotFound
	case old.Status == statusPosted:
		return nil, errPosted
	case old.Status == statusClosed:
		return nil, errClosed
	}
	doc := *old
	if err := how(&doc); err != nil {
		return nil, err
	}
	now := s.o.Now()
	var plan planner
	plan.add(now, now, doc.Sender, reportOf(&doc))
	if err := s.record(event{Documents: []*document{&doc}, Answers: plan.answers(len(s.answers))}); err != nil {
		return nil, err
	}
	s.alarm(&doc)
	return &doc, s.writeDue()
}

// setPeriods opens exactly these periods; nil opens them by the clock again.
func (s *Simulator) setPeriods(open []string) error {
	for _, p := range open {
		if _, err := time.Parse("2006-01", p); err != nil {
			return fmt.Errorf("period %q: want YYYY-MM", p)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.record(event{Periods: &periods{open}})
}

// openPeriods lists what is open now.
func (s *Simulator) openPeriods() []string {
	if s.periods != nil {
		return s.periods
	}
	return defaultPeriods(s.o.Now())
}
