// Package mail catches the mail of a development or demo deployment: an SMTP
// server that delivers nothing, and an inbox that shows everything.
//
//	guichet ──SMTP──▶ Catcher ──▶ Dir/messages ──▶ page /, JSON /_control/messages
//	        ◀──SMTP or HTTP── delivery status reports (RFC 3464)
//
// What it accepted survives kill -9. It takes any sender and any recipient
// unless a fault says otherwise:
//
//	refuse     the recipient is answered 550 5.1.1 (no such mailbox)
//	temporary  the recipient is answered 451 4.3.0 (try again)
//	slow       the message is answered only after the delay
//	bounce     the message is accepted; after the delay a delivery status report
//	           goes to its return path
//
// The target of a fault is the recipient's address. What it catches is shown as
// text or saved as a file; HTML opens in a sandbox without the rights of the page.
package mail

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-smtp"

	"guichet/internal/id"
	"guichet/simulators/control"
)

// Options of a Catcher.
type Options struct {
	Now func() time.Time
	Dir string // its own directory, made when missing
	Log *slog.Logger

	Hostname string // the name it gives itself; default mail.localhost
	// Where delivery status reports go: the SMTP server that receives mail for
	// every return path, or a URL that takes them as message/rfc822. When both are
	// empty a bounce stays pending.
	BounceSMTP string
	BounceURL  string
	Links      []control.Link // other pages, for the head of every page
}

//go:embed templates
var templates embed.FS

// maxMessages bounds the inbox; the oldest go first.
const maxMessages = 2000

// A Catcher is the mail catcher. It may be used by many goroutines at once.
type Catcher struct {
	o      Options
	site   *control.Site
	faults *control.Faults
	smtp   *smtp.Server
	ctx    context.Context // ends with Close: held answers are let go
	stop   context.CancelFunc

	mu       sync.Mutex
	messages []stored // oldest first
	last     int      // number of the newest message ever
	bounces  []bounce // oldest first
	journal  *control.Journal[bounce]
}

// stored is what memory keeps of a message; its bytes stay on the disk.
type stored struct {
	Number     int       `json:"number"`
	ID         string    `json:"id"`
	ReceivedAt time.Time `json:"received_at"`
	From       string    `json:"from"` // envelope
	To         []string  `json:"to"`   // envelope
	Bounced    []string  `json:"bounced,omitempty"`
	Subject    string    `json:"subject"`
	Size       int       `json:"size"`
}

// file is a stored message as it lies on the disk.
type file struct {
	stored
	Raw []byte `json:"raw"`
}

// New opens the inbox in o.Dir.
func New(o Options) (*Catcher, error) {
	if o.Hostname == "" {
		o.Hostname = "mail.localhost"
	}
	if err := os.MkdirAll(filepath.Join(o.Dir, "messages"), 0o700); err != nil {
		return nil, fmt.Errorf("open mail catcher: %w", err)
	}
	faults, err := control.OpenFaults(o.Dir, o.Log,
		control.Kind{Name: "refuse", Does: "answers the recipient 550: no such mailbox"},
		control.Kind{Name: "temporary", Does: "answers the recipient 451: try again"},
		control.Kind{Name: "slow", Does: "answers the message only after the delay"},
		control.Kind{Name: "bounce", Does: "accepts the message and sends a delivery status report after the delay"},
	)
	if err != nil {
		return nil, fmt.Errorf("open mail catcher: %w", err)
	}
	c := &Catcher{o: o, faults: faults, site: control.NewSite("Mail catcher", o.Links, templates, o.Log)}
	if err := c.load(); err != nil {
		return nil, fmt.Errorf("open mail catcher: %w", err)
	}
	c.journal, err = control.OpenJournal(filepath.Join(o.Dir, "bounces.jsonl"), c.apply)
	if err != nil {
		return nil, fmt.Errorf("open mail catcher: %w", err)
	}
	c.ctx, c.stop = context.WithCancel(context.Background())
	c.smtp = c.server()
	return c, nil
}

// load reads the envelopes of the messages on the disk.
func (c *Catcher) load() error {
	entries, err := os.ReadDir(filepath.Join(c.o.Dir, "messages"))
	if err != nil {
		return err
	}
	for _, e := range entries { // sorted by name, which is the number
		if strings.HasPrefix(e.Name(), ".") {
			continue // half written when the process was killed: it was never accepted
		}
		f, err := c.read(e.Name())
		if err != nil {
			return err
		}
		c.messages = append(c.messages, f.stored)
		c.last = f.Number
	}
	return nil
}

func (c *Catcher) path(name string) string { return filepath.Join(c.o.Dir, "messages", name) }

func (s stored) fileName() string { return fmt.Sprintf("%010d.json", s.Number) }

func (c *Catcher) read(name string) (file, error) {
	var f file
	b, err := os.ReadFile(c.path(name))
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	if err != nil {
		return file{}, fmt.Errorf("read message %s: %w", name, err)
	}
	return f, nil
}

// keep stores an accepted message: after it returns, the message is safe.
func (c *Catcher) keep(from string, to []string, raw []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := file{Raw: raw, stored: stored{
		Number: c.last + 1, ID: id.New(), ReceivedAt: c.o.Now(), From: from, To: to,
		Subject: parse(raw).Subject, Size: len(raw),
	}}
	var reports []bounce
	for _, rcpt := range to {
		if x, hit := c.faults.Strike("bounce", rcpt); hit && from != "" {
			// RFC 5321, section 4.5.5: nothing is reported to an empty return path,
			// so two mail systems never report to each other for ever.
			f.Bounced = append(f.Bounced, rcpt)
			reports = append(reports, c.report(f, rcpt, f.ReceivedAt.Add(time.Duration(x.Delay))))
		}
	}
	b, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("keep message: %w", err)
	}
	if err := control.WriteFile(c.path(f.fileName()), b, 0o600); err != nil {
		return fmt.Errorf("keep message: %w", err)
	}
	for _, r := range reports {
		if err := c.record(r); err != nil {
			return fmt.Errorf("keep message: %w", err)
		}
	}
	c.last = f.Number
	c.messages = append(c.messages, f.stored)
	for len(c.messages) > maxMessages {
		if err := os.Remove(c.path(c.messages[0].fileName())); err != nil {
			c.o.Log.Error("remove the oldest message", "error", err)
		}
		c.messages = c.messages[1:]
	}
	return nil
}

// list returns up to limit messages to the address (any when empty) received at
// or after since, newest first.
func (c *Catcher) list(to string, since time.Time, limit int) []stored {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := []stored{}
	for _, m := range slices.Backward(c.messages) {
		if len(out) == limit || m.ReceivedAt.Before(since) {
			break
		}
		if to == "" || slices.ContainsFunc(m.To, func(a string) bool { return strings.EqualFold(a, to) }) {
			out = append(out, m)
		}
	}
	return out
}

// errNotFound reports a message that is not in the inbox (any more).
var errNotFound = errors.New("message not found")

func (c *Catcher) find(id string) (file, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.messages, func(m stored) bool { return m.ID == id })
	if i < 0 {
		return file{}, errNotFound
	}
	return c.read(c.messages[i].fileName())
}

// clear empties the inbox.
func (c *Catcher) clear() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.messages) > 0 {
		if err := os.Remove(c.path(c.messages[0].fileName())); err != nil {
			return fmt.Errorf("empty the inbox: %w", err)
		}
		c.messages = c.messages[1:]
	}
	return nil
}

// Close ends the SMTP server and lets go of every held answer.
func (c *Catcher) Close() error {
	c.stop()
	return errors.Join(c.smtp.Close(), c.journal.Close())
}
