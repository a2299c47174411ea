package sap

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"guichet/simulators/control"
)

// serve starts the SFTP server and returns its address.
func (w *world) serve(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- w.ServeSFTP(l) }()
	t.Cleanup(func() {
		w.Close()
		if err := <-done; err != nil {
			t.Errorf("ServeSFTP after Close: %v", err)
		}
	})
	return l.Addr().String()
}

func (w *world) config() *ssh.ClientConfig {
	return &ssh.ClientConfig{
		User: "guichet", Auth: []ssh.AuthMethod{ssh.PublicKeys(w.client)}, HostKeyCallback: ssh.FixedHostKey(w.HostKey()),
	}
}

func dial(t *testing.T, addr string, config *ssh.ClientConfig) *sftp.Client {
	t.Helper()
	conn, err := ssh.Dial("tcp", addr, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	c, err := sftp.NewClient(conn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func put(c *sftp.Client, name, data string) error {
	f, err := c.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = f.Write([]byte(data))
	return errors.Join(err, f.Close())
}

func read(c *sftp.Client, name string) (string, error) {
	f, err := c.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	return string(b), err
}

func TestHandOverBySFTP(t *testing.T) {
	w := start(t, t.TempDir())
	c := dial(t, w.serve(t), w.config())
	text := inspection("0000000000000017").text()
	for _, step := range []error{
		put(c, "inbound/x.idoc.tmp", text), c.Rename("inbound/x.idoc.tmp", "inbound/x.idoc"),
		put(c, "/inbound/x.idoc.json.tmp", "{}"), c.Rename("/inbound/x.idoc.json.tmp", "/inbound/x.idoc.json"),
	} {
		if step != nil {
			t.Fatal(step)
		}
	}
	w.poll(t)
	if got, err := read(c, "archive/x.idoc"); err != nil || got != text {
		t.Errorf("archived: %d of %d bytes, %v", len(got), len(text), err)
	}
	list, err := c.ReadDir("outbound")
	if err != nil || len(list) != 1 {
		t.Fatalf("outbound %v, %v", list, err)
	}
	name := "outbound/" + list[0].Name()
	if got, err := read(c, name); err != nil || !strings.Contains(got, "<STATUS>53</STATUS>") {
		t.Errorf("answer %v:\n%s", err, got)
	}
	if err := c.Remove(name); err != nil {
		t.Errorf("remove the answer: %v", err)
	}
	if info, err := c.Stat("inbound"); err != nil || !info.IsDir() {
		t.Errorf("stat inbound: %v, %v", info, err)
	}
	if _, err := c.Stat("inbound/x.idoc"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("stat a file that was taken: %v", err)
	}
	// A cut upload goes on where it stopped.
	if err := put(c, "inbound/y.idoc.tmp", text[:1000]); err != nil {
		t.Fatal(err)
	}
	f, err := c.OpenFile("inbound/y.idoc.tmp", os.O_WRONLY|os.O_CREATE)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte(text[1000:]), 1000); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if got, err := read(c, "inbound/y.idoc.tmp"); err != nil || got != text {
		t.Errorf("continued: %d of %d bytes, %v", len(got), len(text), err)
	}
}

func TestSFTPRefuses(t *testing.T) {
	w := start(t, t.TempDir())
	addr := w.serve(t)
	_, stranger, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ssh.NewSignerFromKey(stranger)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*ssh.ClientConfig){
		"another key":  func(c *ssh.ClientConfig) { c.Auth = []ssh.AuthMethod{ssh.PublicKeys(other)} },
		"another user": func(c *ssh.ClientConfig) { c.User = "root" },
		"a password":   func(c *ssh.ClientConfig) { c.Auth = []ssh.AuthMethod{ssh.Password("guichet")} },
		"another host": func(c *ssh.ClientConfig) { c.HostKeyCallback = ssh.FixedHostKey(other.PublicKey()) },
	} {
		config := w.config()
		change(config)
		if conn, err := ssh.Dial("tcp", addr, config); err == nil {
			conn.Close()
			t.Errorf("%s: let in", name)
		}
	}

	c := dial(t, addr, w.config())
	if err := os.WriteFile(w.path(inbound, "taken"), []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.path(archive, "old"), []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := put(c, "inbound/new", "new"); err != nil {
		t.Fatal(err)
	}
	tries := map[string]error{
		"write into the archive":       put(c, "archive/old", "x"),
		"write an answer":              put(c, "outbound/x.xml", "x"),
		"write beside the folders":     put(c, "x", "x"),
		"write above":                  put(c, "inbound/../../journal.jsonl", "x"),
		"write into a folder's folder": put(c, "inbound/a/b", "x"),
		"remove from the archive":      c.Remove("archive/old"),
		"rename over a file":           c.Rename("inbound/new", "inbound/taken"),
		"rename into the archive":      c.Rename("inbound/new", "archive/new"),
		"make a folder":                c.Mkdir("inbound/a"),
		"make a link":                  c.Symlink("/etc/passwd", "inbound/link"),
	}
	_, tries["read the state"] = read(c, "../journal.jsonl")
	for name, err := range tries {
		if err == nil {
			t.Errorf("%s: done", name)
		}
	}
	if got, err := os.ReadFile(w.path(inbound, "taken")); err != nil || string(got) != "old" {
		t.Errorf("file that was in the way: %q, %v", got, err)
	}
	var names []string
	list, err := c.ReadDir("../../..")
	for _, e := range list {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	if err != nil || !slices.Equal(names, []string{"archive", "inbound", "outbound"}) {
		t.Errorf("root shows %v, %v", names, err)
	}
	conn, err := ssh.Dial("tcp", addr, w.config())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	session, err := conn.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Run("id"); err == nil {
		t.Error("ran a command")
	}
	if _, err := conn.Dial("tcp", addr); err == nil {
		t.Error("forwarded a port")
	}
}

func TestSFTPFaults(t *testing.T) {
	text := inspection("0000000000000017").text()
	begin := func(t *testing.T, kind string) (*world, string) {
		w := start(t, t.TempDir())
		w.plant(t, control.Fault{Kind: kind, Target: "x.idoc"})
		return w, w.serve(t)
	}
	send := func(c *sftp.Client) error {
		if err := put(c, "inbound/x.idoc.tmp", text); err != nil {
			return err
		}
		return c.Rename("inbound/x.idoc.tmp", "inbound/x.idoc")
	}
	tests := []struct {
		kind string
		left []string // of inbound after the fault
		gone bool     // the connection is
	}{
		{cutFault, []string{"x.idoc.tmp"}, true},
		{fullFault, []string{}, false},
		{renameFault, []string{"x.idoc.tmp"}, false},
		{lostFault, []string{"x.idoc"}, true},
	}
	for _, tt := range tests {
		t.Run(tt.kind, func(t *testing.T) {
			w, addr := begin(t, tt.kind)
			c := dial(t, addr, w.config())
			if err := send(c); err == nil {
				t.Fatal("sent in spite of the fault")
			}
			if got := w.list(t, inbound); !slices.Equal(got, tt.left) {
				t.Errorf("inbound %v, want %v", got, tt.left)
			}
			if _, err := c.Stat("inbound"); (err != nil) != tt.gone {
				t.Errorf("connection afterwards: %v", err)
			}
			if tt.kind == lostFault {
				return
			}
			if err := send(dial(t, addr, w.config())); err != nil {
				t.Errorf("second try: %v", err)
			}
		})
	}
}

func TestHostKeyIsKept(t *testing.T) {
	dir := t.TempDir()
	first, second := start(t, dir), start(t, dir)
	if string(first.HostKey().Marshal()) != string(second.HostKey().Marshal()) {
		t.Error("the second process has another host key")
	}
	if info, err := os.Stat(dir + "/host_key"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("host_key: %v, %v", info.Mode(), err)
	}
}

func TestWithoutAClientKeyNobodyGetsIn(t *testing.T) {
	w := start(t, t.TempDir())
	w.o.ClientKey = nil
	if conn, err := ssh.Dial("tcp", w.serve(t), w.config()); err == nil {
		conn.Close()
		t.Error("let in")
	}
}
