package oidc_test

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Libraries of other languages, as departments use them, in a process of their own.

// outside runs a client program: it prints the authorize address, is told where the
// browser came back to, and prints what it learnt.
func outside(t *testing.T, b *browser, cmd *exec.Cmd) (learnt struct {
	Sub    string
	Info   map[string]any
	Logout string
},
) {
	t.Helper()
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // it has ended when all went well
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	if !lines.Scan() {
		t.Fatalf("the client printed no address: %v, %v", lines.Err(), cmd.Wait())
	}
	a := b.signIn(lines.Text(), "demo.resident@example.com")
	_, err = io.WriteString(in, a.location+"\n")
	must(t, err)
	if !lines.Scan() {
		t.Fatalf("the client did not accept %s: %v, %v", a.location, lines.Err(), cmd.Wait())
	}
	must(t, json.Unmarshal(lines.Bytes(), &learnt))
	must(t, cmd.Wait())
	return learnt
}

// missing skips where a tool is not installed, but never under CI.
func missing(t *testing.T, why string, err error) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("%s: %v", why, err)
	}
	t.Skipf("%s: %v", why, err)
}

func TestAuthlibSignsIn(t *testing.T) {
	python := "/usr/bin/python3" // Debian's own: the one that python3-authlib belongs to
	if out, err := exec.Command(python, "-c", "import authlib, requests").CombinedOutput(); err != nil {
		missing(t, "install python3-authlib and python3-requests", errors.New(string(out)+err.Error()))
	}
	w := newWorld(t)
	a := w.parking()
	got := outside(t, w.browser(), exec.Command(python, "testdata/authlib_client.py", w.url, a.id, a.secret, a.redirect))
	if got.Sub == "" || got.Info["sub"] != got.Sub || got.Info["email"] != "demo.resident@example.com" {
		t.Errorf("Authlib learnt %+v", got)
	}
}

func TestOpenIDClientSignsInAndOut(t *testing.T) {
	dir := openIDClient(t)
	w := newWorld(t)
	a := w.parking()
	b := w.browser()
	got := outside(t, b, exec.Command("node", filepath.Join(dir, "client.mjs"), w.url, a.id, a.secret, a.redirect, "https://parking-portal.example/bye"))
	if got.Sub == "" || got.Info["sub"] != got.Sub || got.Info["name"] != "Demo Resident" {
		t.Errorf("openid-client learnt %+v", got)
	}
	if out := b.get(got.Logout); out.location != "https://parking-portal.example/bye?state=bye" || b.get("/").body != "hello " {
		t.Errorf("its logout: %d %s", out.status, out.location)
	}
}

// openIDClient returns a folder with the client program and npm's openid-client as
// the lock file names it, fetched once per machine.
func openIDClient(t *testing.T) string {
	t.Helper()
	const src = "testdata/openid-client"
	lock, err := os.ReadFile(filepath.Join(src, "package-lock.json"))
	must(t, err)
	sum := sha256.Sum256(lock)
	cache, err := os.UserCacheDir()
	must(t, err)
	modules := filepath.Join(cache, "guichet-test", "openid-client-"+hex.EncodeToString(sum[:6]))
	if _, err := os.Stat(modules); err != nil {
		must(t, os.MkdirAll(filepath.Dir(modules), 0o755))
		half, err := os.MkdirTemp(filepath.Dir(modules), "half-")
		must(t, err)
		defer os.RemoveAll(half)
		must(t, os.CopyFS(half, os.DirFS(src)))
		npm := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
		npm.Dir = half
		if out, err := npm.CombinedOutput(); err != nil {
			missing(t, "npm ci of openid-client (needs node 20, npm and its registry)", errors.New(err.Error()+": "+string(out)))
		}
		if err := os.Rename(half, modules); err != nil && !errors.Is(err, os.ErrExist) {
			t.Fatal(err)
		}
	}
	if _, err := exec.LookPath("node"); err != nil {
		missing(t, "install node 20", err)
	}
	dir := t.TempDir()
	must(t, os.CopyFS(dir, os.DirFS(src)))
	must(t, os.Symlink(filepath.Join(modules, "node_modules"), filepath.Join(dir, "node_modules")))
	return dir
}
