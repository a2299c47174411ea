package control

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// A Journal is the memory of a simulator: one JSON line for each thing that
// happened, in order. State is what applying the lines again gives. Appending is
// not safe for concurrent use; its owner holds a lock anyway.
//
// A line that write(2) took survives kill -9. Lines are not flushed to the disk:
// nobody tests a simulator by cutting the power.
type Journal[E any] struct {
	f    *os.File
	size int64
}

// OpenJournal applies every event of the file and opens it for appending. Half a
// line at the end is what a kill left: it is cut off, for its event was never
// acted upon. A broken line anywhere else is an error.
func OpenJournal[E any](path string, apply func(E)) (*Journal[E], error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	j := &Journal[E]{f: f}
	if err := j.replay(apply); err != nil {
		f.Close()
		return nil, fmt.Errorf("journal %s: %w", filepath.Base(path), err)
	}
	return j, nil
}

func (j *Journal[E]) replay(apply func(E)) error {
	r := bufio.NewReader(j.f)
	for n := 1; ; n++ {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		var e E
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		apply(e)
		j.size += int64(len(line))
	}
	return j.rewind()
}

// rewind cuts the file back to the last whole line.
func (j *Journal[E]) rewind() error {
	if err := j.f.Truncate(j.size); err != nil {
		return err
	}
	_, err := j.f.Seek(j.size, io.SeekStart)
	return err
}

// Append writes one event. When it fails the event did not happen: what was
// written of it is taken back.
func (j *Journal[E]) Append(e E) error {
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("append to journal: %w", err)
	}
	line = append(line, '\n')
	if _, err := j.f.Write(line); err != nil {
		return fmt.Errorf("append to journal: %w", errors.Join(err, j.rewind()))
	}
	j.size += int64(len(line))
	return nil
}

// Close closes the file.
func (j *Journal[E]) Close() error { return j.f.Close() }

// WriteFile puts a whole file at path or nothing: it writes a hidden temporary
// file beside it and renames. A reader that lists the directory sees the file
// only when it is complete.
func WriteFile(path string, data []byte, perm os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(perm)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
