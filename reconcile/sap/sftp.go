package sap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

// SFTPSettings say how to reach the receiver. There is no way to accept an
// unknown host key and no password.
type SFTPSettings struct {
	Address    string        // host:port
	User       string        //
	PrivateKey []byte        // PEM or OpenSSH form
	HostKey    string        // "ssh-ed25519 AAAA…", as in known_hosts after the name
	Dir        string        // on the receiver; folders are below it and exist already
	Timeout    time.Duration // of one operation; zero is 30 s
}

// SFTP is a Place on a server. Every operation has a connection of its own: they
// are few, and none inherits the trouble of the one before.
type SFTP struct {
	settings SFTPSettings
	config   ssh.ClientConfig
}

// NewSFTP checks the settings. It does not connect.
func NewSFTP(s SFTPSettings) (*SFTP, error) {
	hostKey, _, _, _, err := ssh.ParseAuthorizedKey([]byte(s.HostKey))
	if err != nil {
		return nil, fmt.Errorf("SFTP host key: %w", err)
	}
	signer, err := ssh.ParsePrivateKey(s.PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("SFTP private key: %w", err)
	}
	if s.Address == "" || s.User == "" {
		return nil, errors.New("SFTP address or user is missing")
	}
	if s.Timeout == 0 {
		s.Timeout = 30 * time.Second
	}
	// Ask for the pinned key's kind: a server with several would show another one.
	algorithms := []string{hostKey.Type()}
	if hostKey.Type() == ssh.KeyAlgoRSA {
		algorithms = []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	return &SFTP{settings: s, config: ssh.ClientConfig{
		User:              s.User,
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback:   ssh.FixedHostKey(hostKey),
		HostKeyAlgorithms: algorithms,
	}}, nil
}

// with runs f on a fresh connection that ends with the context or the timeout.
func (s *SFTP) with(ctx context.Context, f func(*sftp.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.settings.Timeout)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", s.settings.Address)
	if err != nil {
		return fmt.Errorf("connect to SFTP server: %w", err)
	}
	// Neither ssh nor sftp knows contexts: closing the connection ends them.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	sshConn, channels, requests, err := ssh.NewClientConn(conn, s.settings.Address, &s.config)
	if err != nil {
		return fmt.Errorf("sign in to SFTP server: %w", err)
	}
	client := ssh.NewClient(sshConn, channels, requests)
	defer client.Close()
	files, err := sftp.NewClient(client)
	if err != nil {
		return fmt.Errorf("open SFTP: %w", err)
	}
	defer files.Close()
	if err := f(files); err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	return nil
}

// Put implements Place. What an earlier attempt left under the temporary name is
// continued when it is the beginning of the same file.
func (s *SFTP) Put(ctx context.Context, folder, name string, data []byte) error {
	final := s.path(folder, name)
	temp := final + temporary
	return s.with(ctx, func(c *sftp.Client) error {
		switch there, err := readRemote(c, final); {
		case err == nil && bytes.Equal(there, data):
			return nil
		case err == nil:
			return ErrOtherContent
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
		start, err := readRemote(c, temp)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if !bytes.HasPrefix(data, start) {
			start = nil
		}
		if err := writeRemote(c, temp, data, len(start)); err != nil {
			return err
		}
		// What the peer holds is compared whole before it becomes visible: sizes
		// alone would pass a file with a hole.
		written, err := readRemote(c, temp)
		if err != nil {
			return err
		}
		if !bytes.Equal(written, data) {
			return fmt.Errorf("%s came back with %d of %d bytes or changed", temp, len(written), len(data))
		}
		if err := c.Rename(temp, final); err != nil {
			if refused := (*sftp.StatusError)(nil); errors.As(err, &refused) {
				return err // the server has answered: no
			}
			return fmt.Errorf("%w: %w", ErrUnknown, err)
		}
		return nil
	})
}

// List implements Place.
func (s *SFTP) List(ctx context.Context, folder string) ([]string, error) {
	var names []string
	err := s.with(ctx, func(c *sftp.Client) error {
		entries, err := c.ReadDir(s.path(folder, ""))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, e := range entries {
			if e.Mode().IsRegular() {
				names = append(names, e.Name())
			}
		}
		slices.Sort(names)
		return nil
	})
	return names, err
}

// Read implements Place.
func (s *SFTP) Read(ctx context.Context, folder, name string) ([]byte, error) {
	if strings.ContainsAny(name, `/\`) || name == ".." {
		return nil, fmt.Errorf("file name %q leaves its folder", name)
	}
	var b []byte
	err := s.with(ctx, func(c *sftp.Client) (err error) {
		b, err = readRemote(c, s.path(folder, name))
		return err
	})
	return b, err
}

func (s *SFTP) path(folder, name string) string { return path.Join(s.settings.Dir, folder, name) }

func readRemote(c *sftp.Client, name string) ([]byte, error) {
	f, err := c.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readBounded(f)
}

// writeRemote writes data from an offset on and asks the server to flush, where it
// can.
func writeRemote(c *sftp.Client, name string, data []byte, from int) error {
	flags := os.O_WRONLY | os.O_CREATE
	if from == 0 {
		flags |= os.O_TRUNC
	}
	f, err := c.OpenFile(name, flags)
	if err != nil {
		return err
	}
	if _, err = f.Seek(int64(from), io.SeekStart); err == nil {
		_, err = f.Write(data[from:])
	}
	if _, ok := c.HasExtension("fsync@openssh.com"); ok && err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
