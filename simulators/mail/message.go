package mail

import (
	"bytes"
	"errors"
	"io"
	"strings"

	"github.com/emersion/go-message"
	"github.com/emersion/go-message/mail"
)

// content is a message taken apart for reading.
type content struct {
	From, To, Date, MessageID, Subject string // header fields, decoded
	Text, HTML                         string
	Attachments                        []attachment
	Trouble                            string // why it could not be taken apart completely
}

type attachment struct {
	Name, Type string
	Body       []byte
}

// maxParts bounds the parts read of one message.
const maxParts = 100

// parse takes a message apart as far as it goes. It never fails: mail that cannot
// be read is still there as raw bytes, and says what is wrong with it.
func parse(raw []byte) content {
	var c content
	r, err := mail.CreateReader(bytes.NewReader(raw))
	if r == nil {
		return content{Trouble: err.Error()}
	}
	c.note(err)
	c.From, c.To, c.Date = text(&r.Header.Header, "From"), text(&r.Header.Header, "To"), r.Header.Get("Date")
	c.MessageID, c.Subject = r.Header.Get("Message-Id"), text(&r.Header.Header, "Subject")
	for range maxParts {
		part, err := r.NextPart()
		if errors.Is(err, io.EOF) {
			return c
		}
		c.note(err)
		if part == nil {
			return c
		}
		body, err := io.ReadAll(part.Body)
		c.note(err)
		c.add(part.Header, body)
		if err != nil {
			return c // the reader stands in the middle of a broken part
		}
	}
	c.Trouble = "more parts than are read"
	return c
}

// add puts a part where a mail program would: the first plain text and the first
// HTML are the message, everything else is attached.
func (c *content) add(h mail.PartHeader, body []byte) {
	var kind, name string
	switch h := h.(type) {
	case *mail.InlineHeader:
		kind, _, _ = h.ContentType() // an unreadable type is an attachment without one
	case *mail.AttachmentHeader:
		kind, _, _ = h.ContentType()
		name, _ = h.Filename()
		c.Attachments = append(c.Attachments, attachment{name, kind, body})
		return
	}
	switch {
	case kind == "text/plain" && c.Text == "":
		c.Text = lines(body)
	case kind == "text/html" && c.HTML == "":
		c.HTML = lines(body)
	default:
		c.Attachments = append(c.Attachments, attachment{Type: kind, Body: body})
	}
}

func (c *content) note(err error) {
	if err != nil && c.Trouble == "" {
		c.Trouble = err.Error()
	}
}

// text decodes a header field (RFC 2047), or gives it as it stands.
func text(h *message.Header, key string) string {
	s, err := h.Text(key)
	if err != nil {
		return h.Get(key)
	}
	return s
}

// lines brings text to valid UTF-8 with plain line ends.
func lines(b []byte) string {
	return strings.ToValidUTF8(strings.ReplaceAll(string(b), "\r\n", "\n"), "\ufffd")
}
