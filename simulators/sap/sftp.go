package sap

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"guichet/simulators/control"
)

// Faults of the SFTP server.
const (
	cutFault    = "sftp-cut"
	fullFault   = "sftp-full"
	renameFault = "sftp-rename"
	lostFault   = "sftp-lost"
)

// openHostKey reads the host key of dir, or makes it: clients pin it.
func openHostKey(dir string) (ssh.Signer, error) {
	name := filepath.Join(dir, "host_key")
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("make host key: %w", err)
		}
		block, err := ssh.MarshalPrivateKey(key, "")
		if err != nil {
			return nil, fmt.Errorf("make host key: %w", err)
		}
		b = pem.EncodeToMemory(block)
		if err := control.WriteFile(name, b, 0o600); err != nil {
			return nil, fmt.Errorf("make host key: %w", err)
		}
	} else if err != nil {
		return nil, fmt.Errorf("read host key: %w", err)
	}
	signer, err := ssh.ParsePrivateKey(b)
	if err != nil {
		return nil, fmt.Errorf("read host key: %w", err)
	}
	return signer, nil
}

// maxConnections bounds the SFTP connections; more wait.
const maxConnections = 32

// handshakeTime is what a client may take to sign in.
const handshakeTime = 20 * time.Second

// sftpServer knows what is open, to close it.
type sftpServer struct {
	mu     sync.Mutex
	closed bool
	open   map[io.Closer]bool
	wg     sync.WaitGroup
}

// add keeps c to be closed; it reports false when the server is closed already.
func (s *sftpServer) add(c io.Closer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if s.open == nil {
		s.open = map[io.Closer]bool{}
	}
	s.open[c] = true
	s.wg.Add(1)
	return true
}

func (s *sftpServer) done(c io.Closer) {
	s.mu.Lock()
	delete(s.open, c)
	s.mu.Unlock()
	c.Close() // twice does no harm
	s.wg.Done()
}

func (s *sftpServer) close() {
	s.mu.Lock()
	s.closed = true
	for c := range s.open {
		c.Close() // a connection that is gone already says so
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// ServeSFTP answers on l until Close, and then returns nil. One key gets in; it
// sees inbound, outbound and archive and nothing else.
func (s *Simulator) ServeSFTP(l net.Listener) error {
	config := &ssh.ServerConfig{
		MaxAuthTries: 3,
		PublicKeyCallback: func(c ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if s.o.ClientKey == nil || c.User() != s.o.User || !bytes.Equal(key.Marshal(), s.o.ClientKey.Marshal()) {
				return nil, errors.New("unknown user or key")
			}
			return nil, nil
		},
	}
	config.AddHostKey(s.hostKey)
	if !s.sftp.add(l) {
		return l.Close()
	}
	defer s.sftp.done(l)
	slots := make(chan struct{}, maxConnections)
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("serve SFTP: %w", err)
		}
		if !s.sftp.add(conn) {
			return conn.Close()
		}
		go func() {
			defer s.sftp.done(conn)
			slots <- struct{}{}
			defer func() { <-slots }()
			if err := s.serveConn(conn, config); err != nil {
				s.o.Log.Info("SFTP connection ended", "error", err)
			}
		}()
	}
}

func (s *Simulator) serveConn(conn net.Conn, config *ssh.ServerConfig) error {
	late := time.AfterFunc(handshakeTime, func() { conn.Close() })
	_, channels, requests, err := ssh.NewServerConn(conn, config)
	late.Stop()
	if err != nil {
		return err
	}
	go ssh.DiscardRequests(requests)
	var sessions sync.WaitGroup
	defer sessions.Wait()
	defer conn.Close() // which ends them
	for c := range channels {
		if c.ChannelType() != "session" {
			c.Reject(ssh.UnknownChannelType, "only sessions")
			continue
		}
		channel, requests, err := c.Accept()
		if err != nil {
			return err
		}
		sessions.Go(func() {
			if err := s.serveSession(conn, channel, requests); err != nil {
				s.o.Log.Info("SFTP session ended", "error", err)
			}
		})
	}
	return nil
}

// serveSession serves the subsystem sftp and nothing else.
func (s *Simulator) serveSession(conn net.Conn, channel ssh.Channel, requests <-chan *ssh.Request) error {
	defer channel.Close()
	for r := range requests {
		var subsystem struct{ Name string }
		ok := r.Type == "subsystem" && ssh.Unmarshal(r.Payload, &subsystem) == nil && subsystem.Name == "sftp"
		if err := r.Reply(ok, nil); err != nil {
			return err
		}
		if !ok {
			continue
		}
		h := &share{root: s.root, faults: s.faults, cut: func() { conn.Close() }}
		server := sftp.NewRequestServer(channel, sftp.Handlers{FileGet: h, FilePut: h, FileCmd: h, FileList: h})
		if err := server.Serve(); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		return server.Close()
	}
	return nil
}

// share shows the three folders over SFTP: inbound is written, outbound is read
// and emptied, archive is read. os.Root keeps every name inside.
type share struct {
	root   *os.Root
	faults *control.Faults
	cut    func() // ends the connection
}

// allowed says what may be done in which folder.
var allowed = map[string]map[string]bool{
	inbound:  {"Get": true, "Put": true, "Rename": true, "Remove": true},
	outbound: {"Get": true, "Remove": true},
	archive:  {"Get": true},
}

// name turns a path of the client into one below the root, when the method is
// allowed on it.
func (h *share) name(method, p string) (string, error) {
	folder, file, deep := strings.Cut(strings.TrimPrefix(path.Clean("/"+p), "/"), "/")
	if !deep || strings.Contains(file, "/") || !allowed[folder][method] {
		return "", sftp.ErrSSHFxPermissionDenied
	}
	return path.Join(folder, file), nil
}

// Fileread opens a file for reading.
func (h *share) Fileread(r *sftp.Request) (io.ReaderAt, error) {
	name, err := h.name("Get", r.Filepath)
	if err != nil {
		return nil, err
	}
	f, err := h.root.Open(name)
	if err != nil {
		return nil, code(err)
	}
	return f, nil
}

// code hides what the server's file system says beyond "not there".
func code(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return sftp.ErrSSHFxNoSuchFile
	}
	return sftp.ErrSSHFxFailure
}

// Filewrite opens a file of inbound for writing.
func (h *share) Filewrite(r *sftp.Request) (io.WriterAt, error) {
	name, err := h.name("Put", r.Filepath)
	if err != nil {
		return nil, err
	}
	target := strings.TrimSuffix(path.Base(name), ".tmp")
	if _, hit := h.faults.Strike(fullFault, target); hit {
		return nil, sftp.ErrSSHFxFailure
	}
	flags := os.O_WRONLY
	for _, f := range []struct {
		set  bool
		flag int
	}{{r.Pflags().Creat, os.O_CREATE}, {r.Pflags().Trunc, os.O_TRUNC}, {r.Pflags().Excl, os.O_EXCL}} {
		if f.set {
			flags |= f.flag
		}
	}
	f, err := h.root.OpenFile(name, flags, 0o640)
	if err != nil {
		return nil, code(err)
	}
	if _, hit := h.faults.Strike(cutFault, target); hit {
		return &cutFile{f, h.cut}, nil
	}
	return f, nil
}

// cutFile takes half of the first write and ends the connection.
type cutFile struct {
	*os.File
	cut func()
}

func (c *cutFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := c.File.WriteAt(p[:len(p)/2], off)
	c.cut()
	return n, errors.Join(err, io.ErrUnexpectedEOF)
}

// Filecmd renames and removes. A rename never replaces a file, as version 3 of
// the protocol says.
func (h *share) Filecmd(r *sftp.Request) error {
	switch r.Method {
	case "Rename":
		return h.rename(r)
	case "Remove":
		name, err := h.name("Remove", r.Filepath)
		if err != nil {
			return err
		}
		return code(h.root.Remove(name))
	case "Setstat":
		return nil // times and modes of a client mean nothing here
	}
	return sftp.ErrSSHFxOpUnsupported
}

func (h *share) rename(r *sftp.Request) error {
	from, err1 := h.name("Rename", r.Filepath)
	to, err2 := h.name("Rename", r.Target)
	if err := errors.Join(err1, err2); err != nil {
		return sftp.ErrSSHFxPermissionDenied
	}
	if _, hit := h.faults.Strike(renameFault, path.Base(to)); hit {
		return sftp.ErrSSHFxFailure
	}
	// Link and remove instead of rename: link refuses a name that is taken.
	if err := h.root.Link(from, to); err != nil {
		return code(err)
	}
	if err := h.root.Remove(from); err != nil {
		return code(err)
	}
	if _, hit := h.faults.Strike(lostFault, path.Base(to)); hit {
		h.cut()
	}
	return nil
}

// Filelist lists a folder, or describes a file or folder.
func (h *share) Filelist(r *sftp.Request) (sftp.ListerAt, error) {
	name := strings.TrimPrefix(path.Clean("/"+r.Filepath), "/")
	if name == "" {
		name = "."
	} else if folder, _, _ := strings.Cut(name, "/"); allowed[folder] == nil {
		return nil, sftp.ErrSSHFxNoSuchFile
	}
	switch r.Method {
	case "Stat":
		info, err := h.root.Stat(name)
		if err != nil {
			return nil, code(err)
		}
		return listing{info}, nil
	case "List":
		entries, err := fs.ReadDir(h.root.FS(), name)
		if err != nil {
			return nil, code(err)
		}
		var out listing
		for _, e := range entries {
			info, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) || name == "." && allowed[e.Name()] == nil {
				continue // moved meanwhile, or none of the client's business
			}
			if err != nil {
				return nil, code(err)
			}
			out = append(out, info)
		}
		return out, nil
	}
	return nil, sftp.ErrSSHFxOpUnsupported
}

// listing is a list as the protocol pages through it.
type listing []fs.FileInfo

// ListAt copies the list from an offset on.
func (l listing) ListAt(to []fs.FileInfo, offset int64) (int, error) {
	if offset >= int64(len(l)) {
		return 0, io.EOF
	}
	n := copy(to, l[offset:])
	if n < len(to) {
		return n, io.EOF
	}
	return n, nil
}
