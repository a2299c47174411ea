// Package sap stands in for SAP's side of the IDoc file interface. It reads
// ACC_DOCUMENT files on SAP's terms, posts or refuses each document, and answers
// with ALEAUD01 files. It shares no code with what writes the files.
//
//	guichet ──local directory or SFTP──▶ inbound/ ──Poll──▶ checks ──▶ posted documents
//	                                     archive/ ◀──────────┤
//	guichet ◀────────────────────────── outbound/ ◀──────────┘ ALEAUD_….xml
//
// # Files
//
// A file is complete when a file of its name with ".json" behind it (the
// manifest) lies beside it: the manifest serves as the trigger, its content is
// not read. Names that begin with a point or end in .tmp are never touched.
// Whatever was read moves to archive/ with its trigger.
//
// A kill between reading and archiving does not post again: the file is known by
// name and content until it is archived. A second delivery is another matter. The
// file port does not look for repeated numbers, so a DOCNUM that comes again, in
// whatever file, is posted again, and double_posting says so in page and JSON.
//
// # What is checked, and the status given
//
//	56  record lengths 524 and 1063, character set, EDI_DC40
//	60  segment names and order, SEGNUM, PSGNUM, HLEVEL, DOCNUM of the data records
//	51  everything about the document: field formats, accounts, cost objects, tax,
//	    period, amounts, sum zero
//	53  posted; the answer names the FI document
//
// A refused document is answered with RW 609 and then each detail. RW 605, 609,
// 022 and F5 727 are SAP's numbers; those from 901 up are this simulator's own.
//
// # Master data
//
//	company code  1000, fiscal year = calendar year
//	G/L account   0000101000  bank                   balance sheet
//	              0000219000  suspense               balance sheet
//	              0000210500  HST payable            tax items only
//	              0000430100  fines revenue          needs one cost object
//	              0000430200  permits revenue        needs one cost object
//	              0000430300  water revenue          needs one cost object
//	              0000550100  processor fees         needs one cost object
//	cost centre   0000004100  parking
//	              0000004200  permits
//	              0000004300  water
//	              0000004900  central
//	tax code      A1  13 % output (HST)
//	              A0  no tax
//	document type SA, DZ, AB
//
// There are no customers, orders, WBS elements or funds. The current and the
// previous month are open, unless PUT /_control/periods says otherwise.
//
// # Faults
//
// The target of these is a DOCNUM:
//
//	reject        refuses the document; with every=2, every second one
//	late          answers after the delay
//	twice         answers 51, and after the delay (at least a second) 53
//	out-of-order  the 53 comes first, and after the delay an older 51
//	never         does not answer
//	unknown       answers for a DOCNUM that nobody sent, too
//
// The target of these is a file name in inbound/:
//
//	sftp-cut      ends the connection in the middle of the file
//	sftp-full     refuses to write: no space left
//	sftp-rename   refuses to rename
//	sftp-lost     renames, and ends the connection before it says so
//
// People at SAP can post a refused document later (reprocess) or end it without
// posting (close, status 68).
package sap

import (
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"guichet/simulators/control"
)

// Options of a Simulator.
type Options struct {
	Now func() time.Time
	Dir string // its own directory, made when missing
	Log *slog.Logger

	Files string // where inbound, outbound and archive lie; default Dir/files

	// SFTP: one user with one key. Without a key nobody gets in.
	User      string // default guichet
	ClientKey ssh.PublicKey

	Client  string         // MANDT, default 100
	System  string         // own logical system, default PRDCLNT100
	Partner string         // logical system of the sender, default GUICHET
	Links   []control.Link // other pages, for the head of every page
}

//go:embed templates
var templates embed.FS

// A Simulator is SAP. It may be used by many goroutines at once.
type Simulator struct {
	o       Options
	site    *control.Site
	faults  *control.Faults
	hostKey ssh.Signer
	root    *os.Root // of Files
	sftp    sftpServer

	mu      sync.Mutex
	journal *control.Journal[event]
	state
}

// Folders of the interface.
const (
	inbound  = "inbound"
	outbound = "outbound"
	archive  = "archive"
)

// New opens the state kept in o.Dir.
func New(o Options) (*Simulator, error) {
	defaults := []struct {
		to   *string
		text string
	}{
		{&o.Files, filepath.Join(o.Dir, "files")},
		{&o.User, "guichet"},
		{&o.Client, "100"},
		{&o.System, "PRDCLNT100"},
		{&o.Partner, "GUICHET"},
	}
	for _, d := range defaults {
		if *d.to == "" {
			*d.to = d.text
		}
	}
	s := &Simulator{o: o, site: control.NewSite("SAP", o.Links, templates, o.Log)}
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("open SAP: %w", err)
	}
	return s, nil
}

func (s *Simulator) open() error {
	for _, dir := range []string{s.o.Dir, filepath.Join(s.o.Files, inbound), filepath.Join(s.o.Files, outbound), filepath.Join(s.o.Files, archive)} {
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return err
		}
	}
	var err error
	if s.hostKey, err = openHostKey(s.o.Dir); err != nil {
		return err
	}
	if s.root, err = os.OpenRoot(s.o.Files); err != nil {
		return err
	}
	s.faults, err = control.OpenFaults(s.o.Dir, s.o.Log,
		control.Kind{Name: "reject", Does: "refuses the document; with every 2, every second one"},
		control.Kind{Name: "late", Does: "answers after the delay"},
		control.Kind{Name: "twice", Does: "answers 51, and after the delay 53"},
		control.Kind{Name: "out-of-order", Does: "answers 53, and after the delay an older 51"},
		control.Kind{Name: "never", Does: "does not answer"},
		control.Kind{Name: "unknown", Does: "answers for a document that nobody sent, too"},
		control.Kind{Name: cutFault, Does: "ends the connection in the middle of the file"},
		control.Kind{Name: fullFault, Does: "refuses to write: no space left"},
		control.Kind{Name: renameFault, Does: "refuses to rename"},
		control.Kind{Name: lostFault, Does: "renames, and ends the connection before it says so"},
	)
	if err != nil {
		return err
	}
	s.journal, err = control.OpenJournal(filepath.Join(s.o.Dir, "journal.jsonl"), s.apply)
	return err
}

// HostKey is what a client pins.
func (s *Simulator) HostKey() ssh.PublicKey { return s.hostKey.PublicKey() }

// Close ends the SFTP server and closes the files.
func (s *Simulator) Close() error {
	s.sftp.close()
	return errors.Join(s.journal.Close(), s.root.Close())
}
