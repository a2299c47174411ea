package mail

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/emersion/go-smtp"
)

// A Receiver is the small SMTP server that the city's mail server hands delivery
// status reports to. It takes mail for our return paths and nothing else.
type Receiver struct {
	outbox *Outbox
	mark   Marker
	log    *slog.Logger
	server *smtp.Server
}

// NewReceiver returns a receiver of reports about what outbox sent.
func NewReceiver(outbox *Outbox, mark Marker, log *slog.Logger) *Receiver {
	v := &Receiver{outbox: outbox, mark: mark, log: log}
	s := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &session{receiver: v}, nil }))
	s.Domain = "guichet"
	s.MaxMessageBytes = maxReport
	s.MaxRecipients = 1 // every return path is another message
	s.ReadTimeout, s.WriteTimeout = time.Minute, time.Minute
	s.ErrorLog = quietLog{}
	v.server = s
	return v
}

// Serve takes reports on l until Close, and then returns nil.
func (v *Receiver) Serve(l net.Listener) error {
	if err := v.server.Serve(l); err != nil && !errors.Is(err, smtp.ErrServerClosed) {
		return fmt.Errorf("receive mail reports: %w", err)
	}
	return nil
}

// Shutdown stops listening and waits for reports being received.
func (v *Receiver) Shutdown(ctx context.Context) error {
	if err := v.server.Shutdown(ctx); err != nil && !errors.Is(err, smtp.ErrServerClosed) {
		return fmt.Errorf("stop receiving mail reports: %w", err)
	}
	return nil
}

// quietLog drops the library's messages: they quote what the other side sent.
type quietLog struct{}

func (quietLog) Printf(string, ...any) {}
func (quietLog) Println(...any)        {}

type session struct {
	receiver *Receiver
	to       string
}

func (s *session) Reset()        { s.to = "" }
func (s *session) Logout() error { return nil }

func (s *session) Mail(string, *smtp.MailOptions) error { return nil }

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	if _, ok := tokenOf(to); !ok {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "only reports to a return path are taken here"}
	}
	s.to = to
	return nil
}

// Data takes everything that can never be used, so that the other side does not
// try for days; only our own trouble asks it to come again.
func (s *session) Data(r io.Reader) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	v := s.receiver
	err := v.outbox.Bounce(ctx, v.mark, s.to, r)
	_, _ = io.Copy(io.Discard, r) // the rest must be read before the answer
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrUnknownToken), errors.Is(err, ErrNoReport):
		v.log.Info("mail report ignored", "error", err)
		return nil
	}
	v.log.Error("mail report not taken", "error", err)
	return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "try again later"}
}
