package mail

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"guichet/internal/clock"
)

// How the connection to the SMTP server is protected.
const (
	StartTLS = "starttls" // submission, RFC 6409; refused when the server does not offer it
	TLS      = "tls"      // from the first byte, RFC 8314
	Plain    = "none"     // only for a catcher on loopback
)

// SMTP says through which server messages leave and who sends them.
type SMTP struct {
	Addr           string // host:port
	Security       string // StartTLS, TLS or Plain
	User, Password string // empty: no sign-in
	From           Address
	ReturnPath     string // bounces@city.example: reports come to bounces+<token>@city.example
}

// AddWorkers adds the job that sends what is in the outbox.
func (o *Outbox) AddWorkers(w *river.Workers, s SMTP, r Resolver, m Marker) error {
	if err := checkAddress(s.From.Email); err != nil {
		return fmt.Errorf("sender of mail %q: %w", s.From.Email, err)
	}
	if err := checkAddress(s.ReturnPath); err != nil {
		return fmt.Errorf("return path of mail %q: %w", s.ReturnPath, err)
	}
	river.AddWorker(w, &sender{o: o, smtp: s, resolver: r, marker: m})
	return nil
}

type sender struct {
	river.WorkerDefaults[sendArgs]
	o        *Outbox
	smtp     SMTP
	resolver Resolver
	marker   Marker
}

// Timeout leaves room for a slow server: RFC 5321, section 4.5.3.2.6 asks for
// ten minutes after the final dot.
func (s *sender) Timeout(*river.Job[sendArgs]) time.Duration { return 14 * time.Minute }

// Work sends one message. It holds no transaction while the mail server is at work.
// A crash between the server's yes and our commit sends the message again, with the same Message-ID.
func (s *sender) Work(ctx context.Context, job *river.Job[sendArgs]) error {
	m, err := s.load(ctx, job.Args.MailID)
	if err != nil || m.data == nil {
		return err // no data: done by an earlier try
	}
	err = s.deliver(ctx, m)
	switch outcome := new(refusal); {
	case err == nil:
		return s.o.finish(ctx, m, "sent", "")
	case errors.Is(err, ErrGone), errors.Is(err, errBadAddress):
		return s.o.finish(ctx, m, "failed", "no address")
	case errors.As(err, &outcome) && outcome.permanent:
		return s.o.refused(ctx, m, s.marker, outcome)
	}
	return errors.Join(fmt.Errorf("send mail %s: %w", m.id, err), s.o.note(ctx, m, err))
}

// A row is one message of the outbox.
type row struct {
	id, recipient, lang, token string
	data                       []byte
}

func (s *sender) load(ctx context.Context, mailID string) (row, error) {
	m := row{id: mailID}
	err := s.o.db.QueryRow(ctx, "select recipient, lang, return_token, data from ops.mail where id = $1", mailID).
		Scan(&m.recipient, &m.lang, &m.token, &m.data)
	if err != nil {
		return row{}, fmt.Errorf("read mail %s: %w", mailID, err)
	}
	return m, nil
}

func (s *sender) deliver(ctx context.Context, m row) error {
	to, err := s.resolver.Address(ctx, m.recipient)
	if err != nil {
		return err
	}
	plain, err := s.o.key.Open(m.data, aad(m.id))
	if err != nil {
		return err
	}
	var c content
	if err := json.Unmarshal(plain, &c); err != nil {
		return fmt.Errorf("content: %w", err)
	}
	_, domain, _ := strings.Cut(s.smtp.From.Email, "@")
	raw, err := compose(envelope{messageID: m.id + "@" + domain, from: s.smtp.From, to: to, lang: m.lang, at: s.o.now().In(clock.Toronto)}, c)
	if err != nil {
		return err
	}
	return s.smtp.send(ctx, returnPath(s.smtp.ReturnPath, m.token), to.Email, raw)
}

// returnPath puts the token into the address (variable envelope return path).
func returnPath(base, token string) string {
	local, domain, _ := strings.Cut(base, "@")
	return local + "+" + token + "@" + domain
}

// A refusal is an answer of the mail server, without its words: they quote
// addresses.
type refusal struct {
	step      string
	code      int
	status    string // RFC 3463, "5.1.1"; made up from the code where the server sends none
	permanent bool   // about this message or its recipient, and final
}

func (r *refusal) Error() string { return fmt.Sprintf("%s: %d %s", r.step, r.code, r.status) }

// refuse turns an error of a step into a refusal. Only what is said about the
// recipient and the message is final: a refused sign-in or sender is ours to mend, and mail waits for that.
func refuse(step string, err error) error {
	answer := new(smtp.SMTPError)
	if !errors.As(err, &answer) {
		return fmt.Errorf("%s: %w", step, trouble(err))
	}
	r := &refusal{step: step, code: answer.Code, status: fmt.Sprintf("%d.0.0", answer.Code/100)}
	if e := answer.EnhancedCode; e[0] == 4 || e[0] == 5 {
		r.status = fmt.Sprintf("%d.%d.%d", e[0], e[1], e[2])
	}
	r.permanent = answer.Code/100 == 5 && (step == "RCPT" || step == "DATA")
	return r
}

// trouble says what went wrong on the line and keeps what the server said out of it.
func trouble(err error) error {
	var netErr net.Error
	if errors.As(err, &netErr) {
		return netErr // addresses of machines, not of people
	}
	return errors.New("connection lost")
}

// send hands one message to the server and returns after its final yes.
func (s SMTP) send(ctx context.Context, from, to string, raw []byte) error {
	c, err := s.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	// The library knows no contexts: closing the connection ends whatever it waits for.
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if s.User != "" {
		if err := c.Auth(sasl.NewPlainClient("", s.User, s.Password)); err != nil {
			return refuse("AUTH", err)
		}
	}
	var opts smtp.MailOptions
	if ok, _ := c.Extension("SMTPUTF8"); ok && !ascii(to) {
		opts.UTF8 = true
	}
	if err := c.Mail(from, &opts); err != nil {
		return refuse("MAIL", err)
	}
	if err := c.Rcpt(to, nil); err != nil {
		return refuse("RCPT", err)
	}
	w, err := c.Data()
	if err != nil {
		return refuse("DATA", err)
	}
	if _, err := bytes.NewReader(raw).WriteTo(w); err != nil {
		return refuse("DATA", err)
	}
	if err := w.Close(); err != nil {
		return refuse("DATA", err)
	}
	_ = c.Quit() // the message is theirs already
	return nil
}

func ascii(s string) bool { return strings.IndexFunc(s, func(r rune) bool { return r > 127 }) < 0 }

func (s SMTP) dial(ctx context.Context) (*smtp.Client, error) {
	host, _, err := net.SplitHostPort(s.Addr)
	if err != nil {
		return nil, fmt.Errorf("SMTP server %s: %w", s.Addr, err)
	}
	conn, err := (&net.Dialer{Timeout: 30 * time.Second}).DialContext(ctx, "tcp", s.Addr)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	cfg := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	var c *smtp.Client
	switch s.Security {
	case Plain:
		c = smtp.NewClient(conn)
	case TLS:
		c = smtp.NewClient(tls.Client(conn, cfg))
	default:
		if c, err = smtp.NewClientStartTLS(conn, cfg); err != nil {
			conn.Close()
			return nil, fmt.Errorf("STARTTLS: %w", trouble(err))
		}
	}
	if err := c.Hello(clientName(s.From.Email)); err != nil {
		c.Close()
		return nil, refuse("EHLO", err)
	}
	return c, nil
}

// clientName is what we call ourselves: the domain of the sender.
func clientName(from string) string {
	_, domain, _ := strings.Cut(from, "@")
	return domain
}

// finish writes the last state of a message and erases its content.
func (o *Outbox) finish(ctx context.Context, m row, state, lastError string) error {
	return pgx.BeginFunc(ctx, o.db, func(tx pgx.Tx) error { return o.finishTx(ctx, tx, m, state, lastError) })
}

func (o *Outbox) finishTx(ctx context.Context, tx pgx.Tx, m row, state, lastError string) error {
	var sentAt *time.Time
	if state == "sent" {
		now := o.now()
		sentAt = &now
	}
	_, err := tx.Exec(ctx, `
update ops.mail set state = $2, last_error = $3, sent_at = $4, data = null, attempts = attempts + 1
where id = $1 and state = 'queued'`, m.id, state, lastError, sentAt)
	if err != nil {
		return fmt.Errorf("finish mail %s: %w", m.id, err)
	}
	return nil
}

// refused gives a message up for good and records why, as a report would have.
func (o *Outbox) refused(ctx context.Context, m row, mark Marker, answer *refusal) error {
	return pgx.BeginFunc(ctx, o.db, func(tx pgx.Tx) error {
		if err := o.finishTx(ctx, tx, m, "failed", answer.Error()); err != nil {
			return err
		}
		return o.bounced(ctx, tx, mark, m.id, m.recipient, Delivery{Action: "failed", Status: answer.status})
	})
}

// note keeps the reason of a failed try beside the message.
func (o *Outbox) note(ctx context.Context, m row, cause error) error {
	// The job's context may be what failed.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	_, err := o.db.Exec(ctx, "update ops.mail set attempts = attempts + 1, last_error = $2 where id = $1 and state = 'queued'", m.id, shorten(cause.Error()))
	if err != nil {
		return fmt.Errorf("note on mail %s: %w", m.id, err)
	}
	return nil
}
