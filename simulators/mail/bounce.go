package mail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/emersion/go-smtp"

	"guichet/internal/id"
)

// States of a bounce.
const (
	pending = "pending"
	sent    = "sent"
	failed  = "failed" // tried maxTries times
)

// maxTries bounds how often the catcher tries to report one bounce.
const maxTries = 20

// bounce is a delivery status report, waiting or done. The journal holds each of
// its states; the last one counts.
type bounce struct {
	ID         string    `json:"id"`
	Message    string    `json:"message"` // id of the message reported
	Recipient  string    `json:"recipient"`
	ReturnPath string    `json:"return_path"`
	Due        time.Time `json:"due"`
	State      string    `json:"state"`
	Tries      int       `json:"tries"`
	Trouble    string    `json:"trouble,omitempty"`
	Report     []byte    `json:"report,omitempty"`
}

func (c *Catcher) apply(b bounce) {
	if i := slices.IndexFunc(c.bounces, func(x bounce) bool { return x.ID == b.ID }); i >= 0 {
		c.bounces[i] = b
		return
	}
	c.bounces = append(c.bounces, b)
}

// record appends the bounce to the journal and makes it so. The caller holds the lock.
func (c *Catcher) record(b bounce) error {
	if err := c.journal.Append(b); err != nil {
		return err
	}
	c.apply(b)
	return nil
}

// report writes the delivery status report of RFC 3464 in the multipart of RFC
// 6522: words for a person, fields for a program, and the header that came.
func (c *Catcher) report(f file, recipient string, due time.Time) bounce {
	b := bounce{ID: id.New(), Message: f.ID, Recipient: recipient, ReturnPath: f.From, Due: due, State: pending}
	header, _, _ := bytes.Cut(f.Raw, []byte("\r\n\r\n"))
	boundary := "report-" + b.ID
	var m bytes.Buffer
	p := func(format string, args ...any) { fmt.Fprintf(&m, format+"\r\n", args...) }
	p("From: Mail Delivery System <mailer-daemon@%s>", c.o.Hostname)
	p("To: <%s>", f.From)
	p("Subject: Undelivered mail returned to sender")
	p("Date: %s", due.Format(time.RFC1123Z))
	p("Message-ID: <%s@%s>", b.ID, c.o.Hostname)
	p("Auto-Submitted: auto-replied")
	p("MIME-Version: 1.0")
	p("Content-Type: multipart/report; report-type=delivery-status; boundary=%q", boundary)
	p("")
	p("--%s\r\nContent-Type: text/plain; charset=utf-8\r\n", boundary)
	p("The message could not be delivered to %s: the mailbox does not exist.\r\n", recipient)
	p("--%s\r\nContent-Type: message/delivery-status\r\n", boundary)
	p("Reporting-MTA: dns; %s", c.o.Hostname)
	p("Arrival-Date: %s\r\n", f.ReceivedAt.Format(time.RFC1123Z))
	p("Final-Recipient: rfc822; %s", recipient)
	p("Action: failed")
	p("Status: 5.1.1")
	p("Diagnostic-Code: smtp; 550 5.1.1 no such mailbox here\r\n")
	p("--%s\r\nContent-Type: text/rfc822-headers\r\n", boundary)
	m.Write(header)
	p("\r\n\r\n--%s--", boundary)
	b.Report = m.Bytes()
	return b
}

// Run sends reports when they are due, until ctx ends.
func (c *Catcher) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if _, err := c.SendBounces(ctx); err != nil && ctx.Err() == nil {
			c.o.Log.Warn("send delivery status reports", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// SendBounces sends the reports that are due now and says how many it sent. One
// that cannot be sent is tried again the next time.
func (c *Catcher) SendBounces(ctx context.Context) (int, error) {
	if c.o.BounceSMTP == "" && c.o.BounceURL == "" {
		return 0, nil
	}
	c.mu.Lock()
	var due []bounce
	for _, b := range c.bounces {
		if b.State == pending && !b.Due.After(c.o.Now()) {
			due = append(due, b)
		}
	}
	c.mu.Unlock()

	done := 0
	var errs []error
	for _, b := range due {
		err := c.send(ctx, b)
		b.Tries++
		b.Trouble = ""
		switch {
		case err == nil:
			b.State, b.Report = sent, nil
			done++
		case ctx.Err() != nil:
			return done, ctx.Err() // not the fault of the other side
		default:
			b.Trouble = err.Error()
			if b.Tries >= maxTries {
				b.State, b.Report = failed, nil
			}
			errs = append(errs, fmt.Errorf("report bounce of %s: %w", b.Recipient, err))
		}
		c.mu.Lock()
		err = c.record(b)
		c.mu.Unlock()
		if err != nil {
			return done, err
		}
	}
	return done, errors.Join(errs...)
}

const sendTimeout = 30 * time.Second

func (c *Catcher) send(ctx context.Context, b bounce) error {
	if c.o.BounceSMTP != "" {
		return c.sendSMTP(ctx, b)
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.o.BounceURL, bytes.NewReader(b.Report))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "message/rfc822")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20)) // so that the connection is used again
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("POST %s: %s", c.o.BounceURL, resp.Status)
	}
	return nil
}

func (c *Catcher) sendSMTP(ctx context.Context, b bounce) error {
	conn, err := (&net.Dialer{Timeout: sendTimeout}).DialContext(ctx, "tcp", c.o.BounceSMTP)
	if err != nil {
		return err
	}
	client := smtp.NewClient(conn)
	defer client.Close()
	client.CommandTimeout, client.SubmissionTimeout = sendTimeout, sendTimeout
	if err := client.Hello(c.o.Hostname); err != nil {
		return err
	}
	// The return path of a report is empty: nobody reports on a report.
	if err := client.SendMail("", []string{b.ReturnPath}, bytes.NewReader(b.Report)); err != nil {
		return err
	}
	return client.Quit()
}
