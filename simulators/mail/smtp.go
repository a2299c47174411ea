package mail

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/emersion/go-smtp"
)

const maxBytes = 25 << 20 // what common providers take

// server answers ESMTP with 8BITMIME, SMTPUTF8, SIZE and DSN; no TLS and no
// sign-in, for it listens on loopback only.
func (c *Catcher) server() *smtp.Server {
	s := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &session{c: c}, nil }))
	s.Domain = c.o.Hostname
	s.MaxMessageBytes = maxBytes
	s.MaxRecipients = 100
	s.ReadTimeout, s.WriteTimeout = 5*time.Minute, time.Minute // RFC 5321, section 4.5.3.2
	s.EnableSMTPUTF8 = true
	s.EnableDSN = true
	s.ErrorLog = errorLog{c}
	return s
}

// errorLog keeps the library's own messages in the structured log.
type errorLog struct{ c *Catcher }

func (l errorLog) Printf(format string, v ...any) {
	l.c.o.Log.Warn("smtp: " + fmt.Sprintf(format, v...))
}
func (l errorLog) Println(v ...any) { l.c.o.Log.Warn("smtp: " + fmt.Sprint(v...)) }

// ServeSMTP answers on l until Close, and then returns nil.
func (c *Catcher) ServeSMTP(l net.Listener) error {
	if err := c.smtp.Serve(l); err != nil && !errors.Is(err, smtp.ErrServerClosed) {
		return fmt.Errorf("serve SMTP: %w", err)
	}
	return nil
}

// session is one mail transaction after another on one connection.
type session struct {
	c    *Catcher
	from string
	to   []string
}

func (s *session) Reset()        { s.from, s.to = "", nil }
func (s *session) Logout() error { return nil }

func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	s.from = from
	return nil
}

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	if _, hit := s.c.faults.Strike("refuse", to); hit {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such mailbox here"}
	}
	if _, hit := s.c.faults.Strike("temporary", to); hit {
		return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "mail system trouble, try again later"}
	}
	s.to = append(s.to, to)
	return nil
}

func (s *session) Data(r io.Reader) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return err // too long, or the line is cut
	}
	for _, to := range s.to {
		s.c.faults.Hold(s.c.ctx, to)
	}
	if err := s.c.keep(s.from, s.to, raw); err != nil {
		s.c.o.Log.Error("keep message", "error", err)
		return &smtp.SMTPError{Code: 452, EnhancedCode: smtp.EnhancedCode{4, 3, 1}, Message: "cannot store the message"}
	}
	return nil
}
