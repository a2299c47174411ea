package postgres

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// takeLock makes this process the only one that works on dir. The kernel frees
// the lock when the process ends, so a killed one leaves nothing behind.
func takeLock(dir string) (*os.File, error) {
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("database directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		pid, _ := os.ReadFile(path) // only to name it in the message
		f.Close()
		return nil, fmt.Errorf("database directory %s is in use by process %s: stop it or choose another directory", dir, bytes.TrimSpace(pid))
	}
	if err := f.Truncate(0); err != nil {
		f.Close()
		return nil, fmt.Errorf("database directory: %w", err)
	}
	if _, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		f.Close()
		return nil, fmt.Errorf("database directory: %w", err)
	}
	return f, nil
}

func (s *Server) unlock() {
	if s.lock != nil {
		s.lock.Close() // closing frees the lock
		s.lock = nil
	}
}

// endLeftover makes the data directory free: a server whose parent was killed is
// stopped (we hold the lock, so nobody uses it), and a postmaster.pid without a server is
// removed, because after a restart of the machine its number may belong to any process and
// PostgreSQL would refuse to start.
func endLeftover(data string) error {
	path := filepath.Join(data, "postmaster.pid")
	pid, err := readPid(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := end(pid, data); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove stale %s: %w", path, err)
	}
	return nil
}

// end stops the postmaster of data, first in order, then at once.
func end(pid int, data string) error {
	const every = 20 * time.Millisecond
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT} {
		for range stopWithin / every {
			if !isPostmaster(pid, data) {
				return nil
			}
			if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("stop leftover PostgreSQL, process %d: %w", pid, err)
			}
			time.Sleep(every)
		}
	}
	return fmt.Errorf("process %d, a leftover PostgreSQL on %s, does not stop: end it by hand", pid, data)
}

func readPid(path string) (int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil || pid <= 1 {
		return 0, nil // torn by a crash: stale in any case
	}
	return pid, nil
}

// isPostmaster reports whether the process is a PostgreSQL started on data.
func isPostmaster(pid int, data string) bool {
	if pid == 0 {
		return false
	}
	out, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err == nil {
		return bytes.Contains(out, []byte("postgres")) && bytes.Contains(out, []byte(data+"\x00"))
	}
	out, err = exec.Command("ps", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && bytes.Contains(out, []byte("postgres")) && bytes.Contains(out, []byte(data+" "))
}

// Sweep removes the directories that match the pattern and whose process is gone, with
// the server it may have left running. Those in use, and those of other users, are left alone.
func Sweep(pattern string) error {
	dirs, err := filepath.Glob(pattern)
	if err != nil {
		return fmt.Errorf("sweep %s: %w", pattern, err)
	}
	for _, dir := range dirs {
		// Another user's is not ours to touch: it might be a trap for root.
		if info, err := os.Lstat(dir); err != nil || !info.IsDir() || !mine(info) {
			continue
		}
		// No number in the lock yet: it is being started at this moment.
		if pid, err := os.ReadFile(filepath.Join(dir, "lock")); err != nil || len(pid) == 0 {
			continue
		}
		f, err := takeLock(dir)
		if err != nil {
			continue // in use
		}
		clusters, err := filepath.Glob(filepath.Join(dir, "postgres-*", "postmaster.pid"))
		for _, pidfile := range clusters {
			err = errors.Join(err, endLeftover(filepath.Dir(pidfile)))
		}
		err = errors.Join(err, os.RemoveAll(dir))
		f.Close()
		if err != nil {
			return fmt.Errorf("sweep %s: %w", dir, err)
		}
	}
	return nil
}

func mine(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}
