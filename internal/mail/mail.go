// Package mail sends the city's mail to residents: an outbox written in the business
// transaction, a job that hands each message to the SMTP server, and what comes back.
//
//	room ──Enqueue(tx)──▶ ops.mail (text sealed) + job ──SMTP──▶ the world
//	Marker ◀── ops.mail_bounce ◀── Receiver ◀──report────┘
//
// A recipient is opaque here ("resident:<id>"); its address is asked for when the
// message leaves and never stored. The text is erased once it has left or been given up. A message
// is sent at least once, always with the same Message-ID, so that a repeat is recognized.
package mail

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"

	"guichet/internal/id"
	"guichet/internal/jobs"
	"guichet/internal/seal"
)

// ErrGone says that a recipient has no address, and never will again: the message
// is given up. Resolvers wrap it.
var ErrGone = errors.New("recipient has no address")

// An Address is where a message goes.
type Address struct{ Email, Name string }

// A Resolver knows who the opaque recipients are. It returns ErrGone, wrapped, for
// one that has no address.
type Resolver interface {
	Address(ctx context.Context, to string) (Address, error)
}

// A Marker keeps the address of a recipient as one that takes no mail, for the
// person's page and the desk to show. The status is that of RFC 3463. Marking again changes
// nothing. Where a Marker is asked for, nil marks nothing: ops.mail_bounce still has the row.
type Marker interface {
	Bounced(ctx context.Context, tx pgx.Tx, to, status string) error
}

// A Message is one mail to one recipient.
type Message struct {
	Key         string // the deed that causes it: the same key is sent once
	To          string // opaque: "resident:<id>", "contact:<id>"
	Lang        string // "en" or "fr"
	Template    string
	Data        map[string]string
	Attachments []Attachment
}

// An Attachment is a file that goes with a message.
type Attachment struct {
	Name      string `json:"name"`
	MediaType string `json:"media_type"`
	Bytes     []byte `json:"bytes"`
}

// maxContent bounds a message with its attachments: 10 MiB before encoding passes
// every common mail server.
const maxContent = 10 << 20

// An Outbox takes messages. It may be used by many goroutines at once.
type Outbox struct {
	db        *pgxpool.Pool
	queue     *jobs.Queue
	templates *Templates
	key       *seal.Key
	now       func() time.Time
}

// New returns an outbox. What AddWorkers adds sends from it.
func New(db *pgxpool.Pool, queue *jobs.Queue, templates *Templates, key *seal.Key, now func() time.Time) *Outbox {
	return &Outbox{db: db, queue: queue, templates: templates, key: key, now: now}
}

// content is what is sealed in a row: the message as it will be read.
type content struct {
	Subject     string       `json:"subject"`
	Text        string       `json:"text"`
	Attachments []Attachment `json:"attachments,omitempty"`
}

// Enqueue writes m and its job in the caller's transaction. It is worded at once, with
// the words of the program that caused it. A key that is there already changes nothing.
func (o *Outbox) Enqueue(ctx context.Context, tx pgx.Tx, m Message) error {
	subject, text, err := o.templates.word(m.Template, m.Lang, m.Data)
	if err != nil {
		return fmt.Errorf("mail %s: %w", m.Key, err)
	}
	plain, err := json.Marshal(content{Subject: subject, Text: text, Attachments: m.Attachments})
	if err != nil {
		return fmt.Errorf("mail %s: %w", m.Key, err)
	}
	if len(plain) > maxContent/3*4 { // JSON holds the attachments in base64
		return fmt.Errorf("mail %s: %d bytes are too much for a mail", m.Key, len(plain))
	}
	rowID := id.New()
	tag, err := tx.Exec(ctx, `
insert into ops.mail (id, key, recipient, lang, template, data, return_token, created_at)
values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict (key) do nothing`,
		rowID, m.Key, m.To, m.Lang, m.Template, o.key.Seal(plain, aad(rowID)), newToken(), o.now())
	if err != nil {
		return fmt.Errorf("mail %s: %w", m.Key, err)
	}
	if tag.RowsAffected() == 0 {
		return nil
	}
	return o.queue.Insert(ctx, tx, sendArgs{MailID: rowID}, nil)
}

// aad binds a sealed message to its row.
func aad(rowID string) []byte { return []byte("mail:" + rowID) }

// newToken makes the part of the return path that tells whose report it is: 130
// random bits in lower case, because mail servers may fold it.
func newToken() string { return strings.ToLower(rand.Text()) }

// sendArgs is the job that sends one message.
type sendArgs struct {
	MailID string `json:"mail_id"`
}

// Kind names the job. It is stored with queued jobs: never change it.
func (sendArgs) Kind() string { return "mail.send" }

// InsertOpts tries for more than two days: mail servers are down for a day at times.
func (sendArgs) InsertOpts() river.InsertOpts { return river.InsertOpts{MaxAttempts: 16} }
