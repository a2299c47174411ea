package sap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
)

// A Local place is a directory of this machine or a mounted share. Folders are
// made when something is put into them.
type Local struct{ Dir string }

// Put implements Place.
func (l Local) Put(_ context.Context, folder, name string, data []byte) error {
	root, err := l.open()
	if err != nil {
		return err
	}
	defer root.Close()
	final, temp := path.Join(folder, name), path.Join(folder, name)+temporary
	switch there, err := readRoot(root, final); {
	case err == nil && bytes.Equal(there, data):
		return nil
	case err == nil:
		return ErrOtherContent
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := root.MkdirAll(folder, 0o750); err != nil {
		return err
	}
	if err := writeSynced(root, temp, data); err != nil {
		return err
	}
	if err := root.Rename(temp, final); err != nil {
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	if err := syncDir(root, folder); err != nil {
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	return nil
}

// List implements Place.
func (l Local) List(_ context.Context, folder string) ([]string, error) {
	root, err := l.open()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	entries, err := fs.ReadDir(root.FS(), folder)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// Read implements Place.
func (l Local) Read(_ context.Context, folder, name string) ([]byte, error) {
	root, err := l.open()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return readRoot(root, path.Join(folder, name))
}

// open confines every name to the directory, whatever it contains.
func (l Local) open() (*os.Root, error) {
	if err := os.MkdirAll(l.Dir, 0o750); err != nil {
		return nil, err
	}
	return os.OpenRoot(l.Dir)
}

func readRoot(root *os.Root, name string) ([]byte, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readBounded(f)
}

func readBounded(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > MaxFile {
		return nil, fmt.Errorf("longer than %d bytes", MaxFile)
	}
	return b, nil
}

func writeSynced(root *os.Root, name string, data []byte) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

// syncDir makes the rename itself survive a power cut.
func syncDir(root *os.Root, folder string) error {
	d, err := root.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
