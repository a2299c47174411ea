package mail

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	netmail "net/mail"
	"net/textproto"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"
)

// ErrNoReport says that a message is not a delivery status report.
var ErrNoReport = errors.New("not a delivery status report")

// ErrUnknownToken says that no message of ours left with that return path.
var ErrUnknownToken = errors.New("no mail with this return path")

// maxReport bounds a report; servers return the whole message at times.
const maxReport = 16 << 20

// A Delivery is what a report says about one recipient. Addresses are left out:
// the return path tells whose it is.
type Delivery struct {
	Action string // failed, delayed, delivered, relayed, expanded (RFC 3464, section 2.3.3)
	Status string // "5.1.1" (RFC 3463)
}

var statusForm = regexp.MustCompile(`^[245]\.\d{1,3}\.\d{1,3}$`)

// ParseReport reads a delivery status report: the multipart/report of RFC 6522
// with the message/delivery-status of RFC 3464. What is no such report is ErrNoReport.
func ParseReport(r io.Reader) ([]Delivery, error) {
	m, err := netmail.ReadMessage(io.LimitReader(r, maxReport))
	if err != nil {
		return nil, fmt.Errorf("read header: %w", errors.Join(ErrNoReport, err))
	}
	mediaType, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || mediaType != "multipart/report" || !strings.EqualFold(params["report-type"], "delivery-status") {
		return nil, fmt.Errorf("media type %q: %w", mediaType, ErrNoReport)
	}
	parts := multipart.NewReader(m.Body, params["boundary"])
	const maxParts = 10
	for range maxParts {
		part, err := parts.NextPart()
		if err != nil {
			return nil, fmt.Errorf("read parts: %w", errors.Join(ErrNoReport, err))
		}
		kind, _, _ := mime.ParseMediaType(part.Header.Get("Content-Type"))
		// The second is the form for internationalized addresses, RFC 6533.
		if kind == "message/delivery-status" || kind == "message/global-delivery-status" {
			return deliveries(part)
		}
	}
	return nil, fmt.Errorf("no status in %d parts: %w", maxParts, ErrNoReport)
}

// deliveries reads one block of fields about the message, and one for each
// recipient.
func deliveries(r io.Reader) ([]Delivery, error) {
	fields := textproto.NewReader(bufio.NewReader(io.LimitReader(r, 1<<20)))
	var list []Delivery
	const maxBlocks = 100
	for range maxBlocks {
		block, err := fields.ReadMIMEHeader()
		if d := deliveryOf(block); statusForm.MatchString(d.Status) && d.Action != "" {
			list = append(list, d)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read status: %w", errors.Join(ErrNoReport, err))
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("no recipient with action and status: %w", ErrNoReport)
	}
	return list, nil
}

// deliveryOf reads a block. A comment may stand behind the status.
func deliveryOf(block textproto.MIMEHeader) Delivery {
	status, _, _ := strings.Cut(strings.TrimSpace(block.Get("Status")), " ")
	return Delivery{Action: strings.ToLower(strings.TrimSpace(block.Get("Action"))), Status: status}
}

// Bounce takes a report that came to the return path of one of our messages,
// records it and marks the address when it will never take mail. The same report
// again changes nothing. It returns ErrUnknownToken or ErrNoReport, wrapped.
func (o *Outbox) Bounce(ctx context.Context, mark Marker, to string, report io.Reader) error {
	token, ok := tokenOf(to)
	if !ok {
		return ErrUnknownToken
	}
	var mailID, recipient string
	err := o.db.QueryRow(ctx, "select id, recipient from ops.mail where return_token = $1", token).Scan(&mailID, &recipient)
	if errors.Is(err, pgx.ErrNoRows) {
		return ErrUnknownToken
	}
	if err != nil {
		return fmt.Errorf("find mail of a report: %w", err)
	}
	list, err := ParseReport(report)
	if err != nil {
		return fmt.Errorf("report on mail %s: %w", mailID, err)
	}
	return pgx.BeginFunc(ctx, o.db, func(tx pgx.Tx) error {
		for _, d := range list {
			if err := o.bounced(ctx, tx, mark, mailID, recipient, d); err != nil {
				return err
			}
		}
		return nil
	})
}

// tokenOf returns the token of bounces+<token>@domain.
func tokenOf(to string) (string, bool) {
	local, _, _ := strings.Cut(strings.Trim(to, "<>"), "@")
	_, token, ok := strings.Cut(local, "+")
	return strings.ToLower(token), ok && token != ""
}

// bounced records one delivery that went wrong.
func (o *Outbox) bounced(ctx context.Context, tx pgx.Tx, mark Marker, mailID, recipient string, d Delivery) error {
	if d.Action != "failed" && d.Action != "delayed" {
		return nil // good news
	}
	tag, err := tx.Exec(ctx, `
insert into ops.mail_bounce (mail_id, action, status, at) values ($1, $2, $3, $4)
on conflict do nothing`, mailID, d.Action, d.Status, o.now())
	if err != nil {
		return fmt.Errorf("record bounce of mail %s: %w", mailID, err)
	}
	if tag.RowsAffected() == 0 || d.Action != "failed" || !dead(d.Status) || mark == nil {
		return nil
	}
	if err := mark.Bounced(ctx, tx, recipient, d.Status); err != nil {
		return fmt.Errorf("mark recipient of mail %s: %w", mailID, err)
	}
	return nil
}

// dead reports whether a status means that the address takes no mail, now or
// later: bad mailbox, domain or syntax, mailbox disabled, no route. A full mailbox or a
// refusal of the content (5.2.2, 5.7.x) says nothing about the address.
func dead(status string) bool {
	return strings.HasPrefix(status, "5.1.") || status == "5.2.1" || status == "5.4.4" || status == "5.0.0"
}
