package sap

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

func key(t *testing.T) (ssh.Signer, []byte) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	return signer, pem.EncodeToMemory(block)
}

// server is an SFTP server over a directory that takes one client key. It can cut
// the next connections after a number of bytes from the client.
type server struct {
	dir      string
	settings SFTPSettings
	cutAfter atomic.Int64 // 0 never cuts
	used     atomic.Int64 // bytes of the last connection
}

func serve(t *testing.T) *server {
	t.Helper()
	host, _ := key(t)
	client, private := key(t)
	config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
		if !bytes.Equal(k.Marshal(), client.PublicKey().Marshal()) {
			return nil, errors.New("unknown key")
		}
		return nil, nil
	}}
	config.AddHostKey(host)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	s := &server{dir: t.TempDir(), settings: SFTPSettings{
		Address: listener.Addr().String(), User: "guichet", PrivateKey: private,
		HostKey: string(ssh.MarshalAuthorizedKey(host.PublicKey())), Timeout: 10 * time.Second,
	}}
	s.settings.Dir = s.dir
	for _, folder := range []string{"in", "archive", "answers"} {
		if err := os.Mkdir(filepath.Join(s.dir, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go s.session(&cutConn{Conn: conn, left: s.cutAfter.Load(), server: s}, config)
		}
	}()
	return s
}

func (s *server) session(conn net.Conn, config *ssh.ServerConfig) {
	defer conn.Close()
	_, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for offered := range channels {
		channel, requests, err := offered.Accept()
		if err != nil {
			return
		}
		go func() {
			for r := range requests {
				r.Reply(r.Type == "subsystem", nil)
			}
		}()
		files, err := sftp.NewServer(channel)
		if err != nil {
			return
		}
		files.Serve()
		channel.Close()
	}
}

type cutConn struct {
	net.Conn
	left   int64
	read   int64
	server *server
}

func (c *cutConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.read += int64(n)
	c.server.used.Store(c.read)
	if c.left > 0 && c.read >= c.left {
		c.Conn.Close()
		return 0, io.ErrClosedPipe
	}
	return n, err
}

func (s *server) place(t *testing.T) *SFTP {
	t.Helper()
	p, err := NewSFTP(s.settings)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// places runs a test against both implementations of Place: dir is where their
// files are.
func places(t *testing.T, test func(t *testing.T, p Place, dir string)) {
	t.Run("local", func(t *testing.T) {
		dir := t.TempDir()
		test(t, Local{Dir: dir}, dir)
	})
	t.Run("sftp", func(t *testing.T) {
		s := serve(t)
		test(t, s.place(t), s.dir)
	})
}

func put(t *testing.T, dir, name string, data []byte) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestPlace(t *testing.T) {
	places(t, func(t *testing.T, p Place, dir string) {
		ctx := t.Context()
		data := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
		if err := p.Put(ctx, "in", "a.idoc", data); err != nil {
			t.Fatal(err)
		}
		if err := p.Put(ctx, "in", "a.idoc", data); err != nil {
			t.Errorf("putting the same again: %v", err)
		}
		if err := p.Put(ctx, "in", "a.idoc", data[1:]); !errors.Is(err, ErrOtherContent) {
			t.Errorf("putting other content under the name: %v, want ErrOtherContent", err)
		}
		if got, err := p.Read(ctx, "in", "a.idoc"); err != nil || !bytes.Equal(got, data) {
			t.Errorf("read %d bytes, %v; want %d", len(got), err, len(data))
		}
		put(t, dir, "in/b.idoc.tmp", data[:1000])
		if err := p.Put(ctx, "in", "b.idoc", data); err != nil {
			t.Errorf("going on after a cut: %v", err)
		}
		put(t, dir, "in/c.idoc.tmp", []byte("something else"))
		if err := p.Put(ctx, "in", "c.idoc", data); err != nil {
			t.Errorf("starting over after other leftovers: %v", err)
		}
		if names, err := p.List(ctx, "in"); err != nil || !slices.Equal(names, []string{"a.idoc", "b.idoc", "c.idoc"}) {
			t.Errorf("listing %v, %v", names, err)
		}
		for _, name := range []string{"a.idoc", "b.idoc", "c.idoc"} {
			if got, err := os.ReadFile(filepath.Join(dir, "in", name)); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s holds %d bytes, %v; want %d", name, len(got), err, len(data))
			}
		}
		if names, err := p.List(ctx, "nowhere"); err != nil || len(names) != 0 {
			t.Errorf("listing a folder that is not there: %v, %v", names, err)
		}
		if _, err := p.Read(ctx, "in", "none"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("reading a file that is not there: %v", err)
		}
		put(t, dir, "../secret", []byte("x"))
		if _, err := p.Read(ctx, "in", "../../secret"); err == nil {
			t.Error("a name with .. leaves the place")
		}
	})
}

func TestLookTellsWhatTheFoldersProve(t *testing.T) {
	f := write(t, Numbered{"0000000000260316", sample()})
	for name, tt := range map[string]struct {
		files     []string
		noArchive bool
		want      Evidence
	}{
		"data and manifest wait":              {files: []string{"in/D", "in/M"}, want: Arrived},
		"SAP has archived it":                 {files: []string{"archive/D", "archive/M"}, want: Arrived},
		"SAP has archived the data alone":     {files: []string{"archive/D"}, want: Arrived},
		"the manifest is missing":             {files: []string{"in/D"}, want: Missing},
		"cut before the rename":               {files: []string{"in/D.tmp"}, want: Missing},
		"nothing, and SAP shows what it took": {want: Missing},
		"nothing, and SAP does not show":      {noArchive: true, want: Unclear},
		"a manifest without data":             {files: []string{"in/M"}, want: Unclear},
	} {
		t.Run(name, func(t *testing.T) {
			places(t, func(t *testing.T, p Place, dir string) {
				put(t, dir, "in/OTHER.idoc", nil)
				for _, file := range tt.files {
					folder, kind, _ := strings.Cut(file, "/")
					put(t, dir, folder+"/"+map[string]string{"D": f.Name, "M": f.ManifestName(), "D.tmp": f.Name + ".tmp"}[kind],
						map[string][]byte{"D": f.Data, "M": f.Manifest, "D.tmp": f.Data[:100]}[kind])
				}
				h := Handover{Place: p, Inbox: "in", Archive: "archive", Answers: "answers"}
				if tt.noArchive {
					h.Archive = ""
				}
				got, err := h.Look(t.Context(), f)
				if err != nil || got.Evidence != tt.want {
					t.Errorf("%+v, %v; want %s", got, err, tt.want)
				}
			})
		})
	}
	t.Run("other bytes under the name are no evidence", func(t *testing.T) {
		places(t, func(t *testing.T, p Place, dir string) {
			put(t, dir, "in/"+f.Name, []byte("x"))
			put(t, dir, "in/"+f.ManifestName(), f.Manifest)
			h := Handover{Place: p, Inbox: "in"}
			if got, err := h.Look(t.Context(), f); !errors.Is(err, ErrOtherContent) {
				t.Errorf("%+v, %v; want ErrOtherContent", got, err)
			}
		})
	})
}

// A cut at any byte of the conversation leaves nothing half visible, and sending
// again ends with exactly the file and its manifest.
func TestSFTPCutAnywhereLeavesNothingHalfVisible(t *testing.T) {
	s := serve(t)
	h := Handover{Place: s.place(t), Inbox: "in", Archive: "archive"}
	d := sample()
	for range 400 { // some 800 kB: many packets
		d.Lines = append(d.Lines, Line{Account: "1", Amount: 1}, Line{Account: "2", Amount: -1})
	}
	f := write(t, Numbered{"0000000000260316", d})
	if err := h.Send(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	// Only the first connection is cut here: it carries the data.
	const steps = 40
	total := int64(len(f.Data)) * 11 / 10
	cuts := 0
	for i := int64(1); i <= steps; i++ {
		for _, name := range []string{f.Name, f.ManifestName(), f.Name + ".tmp"} {
			os.Remove(filepath.Join(s.dir, "in", name)) // may not be there
		}
		s.cutAfter.Store(total * i / steps)
		err := h.Send(t.Context(), f)
		s.cutAfter.Store(0)
		data, readErr := os.ReadFile(filepath.Join(s.dir, "in", f.Name))
		if readErr == nil && !bytes.Equal(data, f.Data) {
			t.Fatalf("cut %d: %d bytes of %d are visible", i, len(data), len(f.Data))
		}
		if err != nil {
			cuts++
			found, lookErr := h.Look(t.Context(), f)
			if lookErr != nil || found.Evidence == Unclear {
				t.Fatalf("cut %d: %v, then %+v, %v", i, err, found, lookErr)
			}
		}
		if err := h.Send(t.Context(), f); err != nil {
			t.Fatalf("cut %d, sending again: %v", i, err)
		}
		names, err := h.Place.List(t.Context(), "in")
		if err != nil || !slices.Equal(names, []string{f.Name, f.ManifestName()}) {
			t.Fatalf("cut %d: %v, %v", i, names, err)
		}
	}
	if cuts < steps/2 {
		t.Errorf("only %d of %d cuts hit", cuts, steps)
	}
}

func TestSFTPRefuses(t *testing.T) {
	s := serve(t)
	other, otherPEM := key(t)
	t.Run("a host with another key", func(t *testing.T) {
		c := s.settings
		c.HostKey = string(ssh.MarshalAuthorizedKey(other.PublicKey()))
		p, err := NewSFTP(c)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Put(t.Context(), "in", "x", nil); err == nil || !strings.Contains(err.Error(), "host key mismatch") {
			t.Errorf("%v, want a host key mismatch", err)
		}
	})
	t.Run("a key the server does not know", func(t *testing.T) {
		c := s.settings
		c.PrivateKey = otherPEM
		p, err := NewSFTP(c)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Put(t.Context(), "in", "x", nil); err == nil || errors.Is(err, ErrUnknown) {
			t.Errorf("%v, want a definite error", err)
		}
	})
	t.Run("settings without a pinned key", func(t *testing.T) {
		c := s.settings
		c.HostKey = ""
		if _, err := NewSFTP(c); err == nil {
			t.Error("accepted")
		}
	})
	t.Run("a call whose time is over", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.place(t).Put(ctx, "in", "x", nil); !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want context.Canceled", err)
		}
	})
}
