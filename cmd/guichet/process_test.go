package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// These tests start the program as people do: a built binary in a process of its
// own, which can be interrupted and killed.

// built is the directory of the binary, so that TestMain can remove it.
var built string

func TestMain(m *testing.M) {
	code := m.Run()
	if built != "" {
		os.RemoveAll(built)
	}
	os.Exit(code)
}

// binary builds the program once.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "guichet-binary-")
	if err != nil {
		return "", err
	}
	built = dir
	if err := os.Chmod(dir, 0o755); err != nil { // an ordinary user runs it too
		return "", err
	}
	path := filepath.Join(dir, "guichet")
	out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

// patience is how long any one thing in a child process may take.
const patience = 60 * time.Second

// A child is the program in a process of its own.
type child struct {
	t     *testing.T
	cmd   *exec.Cmd
	out   *output
	errs  *output
	ended chan struct{} // closed when the process is gone
}

// A how says how a child is started.
type how struct {
	env  []string                        // on top of PATH and HOME
	as   *syscall.Credential             // nil: as ourselves
	line func(p *child, n int, _ string) // called with each line of standard output, from 1
}

// start runs the program. It is killed when the test ends, if it still runs.
func (h how) start(t *testing.T, args ...string) *child {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	p := &child{t: t, cmd: exec.Command(path, args...), out: newOutput(), errs: newOutput(), ended: make(chan struct{})}
	if h.line != nil {
		p.out.line = func(n int, text string) { h.line(p, n, text) }
	}
	p.cmd.Dir = "/" // nothing may depend on the checkout
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "TMPDIR=" + os.TempDir()}, h.env...)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.errs
	// A group of its own: a Ctrl-C at the tests is not one at the program.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: h.as}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		p.cmd.Wait() //nolint:errcheck // its status is asked for by code
	}()
	t.Cleanup(p.kill)
	return p
}

// code waits for the end and returns the exit status, -1 after a signal.
func (p *child) code() int {
	p.t.Helper()
	select {
	case <-p.ended:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(2 * patience):
		p.t.Fatalf("guichet %s does not end; it printed:\n%s%s", strings.Join(p.cmd.Args[1:], " "), p.out, p.errs)
		return 0
	}
}

// kill is SIGKILL: the program gets no word in.
func (p *child) kill() {
	p.cmd.Process.Kill() //nolint:errcheck // it has ended by itself
	<-p.ended
}

// interrupt is Ctrl-C.
func (p *child) interrupt() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		p.t.Fatalf("interrupt: %v; it printed:\n%s%s", err, p.out, p.errs)
	}
}

// says waits until standard output holds the words.
func (p *child) says(words string) {
	p.t.Helper()
	deadline := time.After(patience)
	for {
		more := p.out.more()
		if strings.Contains(p.out.String(), words) {
			return
		}
		select {
		case <-more:
		case <-p.ended:
			if !strings.Contains(p.out.String(), words) {
				p.t.Fatalf("guichet %s ended (%s) without saying %q:\n%s%s", strings.Join(p.cmd.Args[1:], " "), p.cmd.ProcessState, words, p.out, p.errs)
			}
			return
		case <-deadline:
			p.t.Fatalf("guichet %s does not say %q:\n%s%s", strings.Join(p.cmd.Args[1:], " "), words, p.out, p.errs)
		}
	}
}

// An output keeps what a process prints and wakes who waits for more.
type output struct {
	mu      sync.Mutex
	text    bytes.Buffer
	begun   int // offset of the line that is not whole yet
	lines   int
	line    func(n int, text string)
	changed chan struct{}
}

func newOutput() *output { return &output{changed: make(chan struct{})} }

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(b)
	for {
		rest := o.text.Bytes()[o.begun:]
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			break
		}
		o.begun += end + 1
		o.lines++
		if o.line != nil {
			o.line(o.lines, string(rest[:end]))
		}
	}
	close(o.changed)
	o.changed = make(chan struct{})
	return len(b), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func (o *output) more() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.changed
}

// stateOf makes a directory for a program's state that every user can enter: a
// server that root starts runs as another user, and t.TempDir is closed to it. It
// is removed once no process works in it any more.
func stateOf(t *testing.T, owner *syscall.Credential) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "guichet-state-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if owner != nil {
		if err := os.Chown(dir, int(owner.Uid), int(owner.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		gone(t, dir)
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// gone waits until no process names the directory in its command line: the
// database of a killed parent ends by itself, and nothing is left behind.
func gone(t *testing.T, dir string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		left := processes(dir)
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("left behind: %q", left)
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// eventually waits for a condition.
func eventually(t *testing.T, happened func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !happened(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain")
		}
	}
}

// processes are the command lines that name the directory. Where there is no
// /proc it finds none.
func processes(dir string) (found []string) {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err == nil && bytes.Contains(text, []byte(dir)) {
			found = append(found, strings.ReplaceAll(string(text), "\x00", " "))
		}
	}
	return found
}

// nobody is an ordinary user, when the tests run as root.
func nobody(t *testing.T) *syscall.Credential {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("the tests run as an ordinary user already")
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), NoSetGroups: false}
}

// exists reports whether there is a file of that name.
func exists(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Stat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

// oneLine fails the test unless the program failed and said why in one line that
// holds each of the words.
func (p *child) oneLine(words ...string) {
	p.t.Helper()
	code := p.code()
	text := p.errs.String()
	if code != 1 || strings.Count(text, "\n") != 1 || p.out.String() != "" {
		p.t.Errorf("exit status %d, standard output %q; want 1, and one line of error:\n%s", code, p.out, text)
	}
	for _, word := range words {
		if !strings.Contains(text, word) {
			p.t.Errorf("the error does not say %q: %s", word, text)
		}
	}
}
