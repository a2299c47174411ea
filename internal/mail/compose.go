package mail

import (
	"bytes"
	"errors"
	"fmt"
	"html"
	"io"
	netmail "net/mail"
	"regexp"
	"strings"
	"time"

	"github.com/emersion/go-message"
	gomail "github.com/emersion/go-message/mail"
)

// errBadAddress says that an address is not one that mail can go to.
var errBadAddress = errors.New("not a mail address")

// checkAddress refuses what is not one plain address (RFC 5321, section 4.5.3.1.3:
// at most 254 characters) and anything that could end a header or an SMTP command.
func checkAddress(email string) error {
	a, err := netmail.ParseAddress("<" + email + ">")
	if err != nil || a.Address != email || len(email) > 254 || email != oneLine(email) || strings.ContainsAny(email, " <>\"") {
		return errBadAddress // without quoting it: it is personal data
	}
	return nil
}

// An envelope is what compose needs beside the words.
type envelope struct {
	messageID string
	from, to  Address
	lang      string
	at        time.Time
}

// compose writes the message of RFC 5322: the text, the same text as HTML, and
// the attachments. Every value is encoded or checked; none can add a header.
func compose(e envelope, c content) ([]byte, error) {
	if err := checkAddress(e.to.Email); err != nil {
		return nil, err
	}
	var h gomail.Header
	h.SetDate(e.at)
	h.SetMessageID(e.messageID)
	h.SetAddressList("From", []*gomail.Address{{Name: oneLine(e.from.Name), Address: e.from.Email}})
	h.SetAddressList("To", []*gomail.Address{{Name: shorten(oneLine(e.to.Name)), Address: e.to.Email}})
	h.SetSubject(oneLine(c.Subject))
	h.Set("Content-Language", e.lang)
	h.Set("Auto-Submitted", "auto-generated") // RFC 3834: no holiday notices, please

	var b bytes.Buffer
	w, err := gomail.CreateWriter(&b, h)
	if err != nil {
		return nil, fmt.Errorf("write message: %w", err)
	}
	if err := alternatives(w, e.lang, c); err != nil {
		return nil, err
	}
	for _, a := range c.Attachments {
		var ah gomail.AttachmentHeader
		ah.SetContentType(a.MediaType, nil)
		ah.SetFilename(oneLine(a.Name))
		ah.Set("Content-Transfer-Encoding", "base64")
		part, err := w.CreateAttachment(ah)
		if err := finish(part, err, a.Bytes); err != nil {
			return nil, fmt.Errorf("write attachment: %w", err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("write message: %w", err)
	}
	return b.Bytes(), nil
}

// alternatives writes the text and its HTML form, least preferred first (RFC
// 2046, section 5.1.4).
func alternatives(w *gomail.Writer, lang string, c content) error {
	inline, err := w.CreateInline()
	if err != nil {
		return fmt.Errorf("write message: %w", err)
	}
	for _, p := range []struct{ mediaType, text string }{
		{"text/plain", strings.ReplaceAll(c.Text, "\n", "\r\n")},
		{"text/html", strings.ReplaceAll(htmlOf(lang, c), "\n", "\r\n")},
	} {
		var h gomail.InlineHeader
		h.Header = message.Header{}
		h.SetContentType(p.mediaType, map[string]string{"charset": "utf-8"})
		h.Set("Content-Transfer-Encoding", "quoted-printable")
		part, err := inline.CreatePart(h)
		if err := finish(part, err, []byte(p.text)); err != nil {
			return fmt.Errorf("write %s: %w", p.mediaType, err)
		}
	}
	if err := inline.Close(); err != nil {
		return fmt.Errorf("write message: %w", err)
	}
	return nil
}

func finish(part io.WriteCloser, err error, body []byte) error {
	if err != nil {
		return err
	}
	_, err = part.Write(body)
	return errors.Join(err, part.Close())
}

// shorten cuts a display name that nobody reads to its end.
func shorten(name string) string {
	if r := []rune(name); len(r) > 100 {
		return string(r[:100])
	}
	return name
}

var link = regexp.MustCompile(`https?://[^\s<>"]+[^\s<>".,;:!?)\]]`)

// htmlOf gives the text as HTML: paragraphs, line breaks and links, readable
// without styles, pictures or anything loaded from elsewhere.
func htmlOf(lang string, c content) string {
	var b strings.Builder
	fmt.Fprintf(&b, "<!doctype html>\n<html lang=\"%s\">\n<head><meta charset=\"utf-8\"><title>%s</title></head>\n", lang, html.EscapeString(c.Subject))
	b.WriteString("<body style=\"font:1rem/1.5 system-ui,sans-serif;max-width:38em;margin:0 auto;padding:1em;color:#1a1a1a;background:#fff\">\n")
	for paragraph := range strings.SplitSeq(strings.TrimSpace(c.Text), "\n\n") {
		lines := strings.Split(strings.TrimSpace(paragraph), "\n")
		for i, line := range lines {
			lines[i] = linked(line)
		}
		fmt.Fprintf(&b, "<p>%s</p>\n", strings.Join(lines, "<br>\n"))
	}
	b.WriteString("</body>\n</html>\n")
	return b.String()
}

func linked(line string) string {
	var b strings.Builder
	end := 0
	for _, m := range link.FindAllStringIndex(line, -1) {
		u := html.EscapeString(line[m[0]:m[1]])
		b.WriteString(html.EscapeString(line[end:m[0]]) + "<a href=\"" + u + "\">" + u + "</a>")
		end = m[1]
	}
	return b.String() + html.EscapeString(line[end:])
}
