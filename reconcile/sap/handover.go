package sap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A Place is where files change hands: a local directory or one over SFTP. Names
// are relative to it; folders are its direct children.
type Place interface {
	// Put makes the whole of data visible under name at once: temporary name,
	// flush, read back, rename. Putting what is already there is a no-op, other
	// content under the name is ErrOtherContent: nothing is ever overwritten. After
	// ErrUnknown the file may or may not be visible; after any other error it is not.
	Put(ctx context.Context, folder, name string, data []byte) error
	// List returns the names in a folder in order. A folder that does not exist is empty.
	List(ctx context.Context, folder string) ([]string, error)
	// Read returns a file of at most MaxFile bytes, or an error that is fs.ErrNotExist.
	Read(ctx context.Context, folder, name string) ([]byte, error)
}

// MaxFile bounds a file that is read from a Place.
const MaxFile = 256 << 20

// temporary marks a file that is being written: the receiver leaves it alone.
const temporary = ".tmp"

var (
	// ErrUnknown: the file may have arrived. Look for evidence before sending again.
	ErrUnknown = errors.New("it is not known whether the file arrived")
	// ErrOtherContent: the name is taken by other bytes. A person has to look.
	ErrOtherContent = errors.New("another file of this name is there")
)

// A Handover is the agreement on one Place: the folder SAP takes files from, the
// folder it moves them to, and the folder of its answers.
//
// The data file is put first and the manifest second: SAP takes nothing without a
// manifest, so a cut between the two leaves nothing half taken.
type Handover struct {
	Place   Place
	Inbox   string
	Archive string // empty: SAP does not show what it took
	Answers string
}

// Evidence is what the receiver's folders say about a file.
type Evidence string

const (
	Arrived Evidence = "arrived" // data and manifest are there, or SAP has archived the data
	Missing Evidence = "missing" // SAP cannot have taken it: sending the same bytes is safe
	Unclear Evidence = "unclear" // no trace either way: a person decides
)

// A Finding is evidence with the names it rests on, to be kept.
type Finding struct {
	Evidence Evidence
	Inbox    []string
	Archive  []string
}

// Send hands the file over. It may be called again with the same file: what has
// arrived stays, what was cut is continued. After ErrUnknown call Look.
func (h *Handover) Send(ctx context.Context, f File) error {
	if err := h.Place.Put(ctx, h.Inbox, f.Name, f.Data); err != nil {
		return fmt.Errorf("hand over %s: %w", f.Name, err)
	}
	if err := h.Place.Put(ctx, h.Inbox, f.ManifestName(), f.Manifest); err != nil {
		return fmt.Errorf("hand over %s: %w", f.ManifestName(), err)
	}
	return nil
}

// Look finds out whether a file that may have been sent has arrived. It changes
// nothing.
func (h *Handover) Look(ctx context.Context, f File) (Finding, error) {
	// The inbox first: a file that SAP moves meanwhile is then seen in the archive.
	inbox, err := h.namesOf(ctx, h.Inbox, f)
	if err != nil {
		return Finding{}, err
	}
	found := Finding{Evidence: Unclear, Inbox: inbox}
	if h.Archive != "" {
		if found.Archive, err = h.namesOf(ctx, h.Archive, f); err != nil {
			return Finding{}, err
		}
	}
	has := func(names []string, name string) bool { return slices.Contains(names, name) }
	switch {
	case has(found.Archive, f.Name):
		found.Evidence, err = Arrived, h.same(ctx, h.Archive, f)
	case has(inbox, f.Name) && has(inbox, f.ManifestName()):
		found.Evidence, err = Arrived, h.same(ctx, h.Inbox, f)
	case has(inbox, f.ManifestName()), has(found.Archive, f.ManifestName()):
		// The manifest goes last and yet the data is gone: SAP is taking it, or
		// somebody has tidied up.
	case has(inbox, f.Name):
		found.Evidence, err = Missing, h.same(ctx, h.Inbox, f) // without its manifest
	case has(inbox, f.Name+temporary):
		found.Evidence = Missing // never renamed
	case h.Archive != "":
		found.Evidence = Missing // neither waiting nor taken
	}
	return found, err
}

// namesOf lists what a folder has of the file: data, manifest, temporary ones.
func (h *Handover) namesOf(ctx context.Context, folder string, f File) ([]string, error) {
	all, err := h.Place.List(ctx, folder)
	if err != nil {
		return nil, fmt.Errorf("look for %s in %s: %w", f.Name, folder, err)
	}
	return slices.DeleteFunc(all, func(name string) bool { return !strings.HasPrefix(name, f.Name) }), nil
}

func (h *Handover) same(ctx context.Context, folder string, f File) error {
	got, err := h.Place.Read(ctx, folder, f.Name)
	if err != nil {
		return fmt.Errorf("look at %s in %s: %w", f.Name, folder, err)
	}
	if !bytes.Equal(got, f.Data) {
		return fmt.Errorf("look at %s in %s: %w", f.Name, folder, ErrOtherContent)
	}
	return nil
}

// AnswerNames lists the answer files that are complete, in order of their names.
func (h *Handover) AnswerNames(ctx context.Context) ([]string, error) {
	names, err := h.Place.List(ctx, h.Answers)
	if err != nil {
		return nil, fmt.Errorf("list answers: %w", err)
	}
	return slices.DeleteFunc(names, func(name string) bool {
		return strings.HasSuffix(name, temporary) || strings.HasPrefix(name, ".")
	}), nil
}

// Answer returns the bytes of one answer file. They stay where they are: the
// folder belongs to SAP.
func (h *Handover) Answer(ctx context.Context, name string) ([]byte, error) {
	b, err := h.Place.Read(ctx, h.Answers, name)
	if err != nil {
		return nil, fmt.Errorf("read answer %s: %w", name, err)
	}
	return b, nil
}

// isFileName reports whether a name is safe on either side and is no temporary or
// hidden one.
func isFileName(name string) bool {
	return isKey(name, 1, 100) && !strings.ContainsAny(name, "/") && name[0] != '.' && !strings.HasSuffix(name, temporary)
}
