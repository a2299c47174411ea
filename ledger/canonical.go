package ledger

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strconv"
	"time"

	"guichet/internal/clock"
)

// The canonical form of an entry is a row of netstrings ("4:open,"): one text for
// one content, whatever the fields hold, and short enough to describe that anyone
// can write a second implementation. Free text goes in by its hash, so that the
// form can be shown with a proof.
type canonical []byte

func (c *canonical) put(fields ...string) {
	for _, f := range fields {
		c.length(len(f))
		*c = append(append(*c, f...), ',')
	}
}

func (c *canonical) length(n int) { *c = append(strconv.AppendInt(*c, int64(n), 10), ':') }

func (c *canonical) bytes(b []byte) {
	c.length(len(b))
	*c = append(append(*c, b...), ',')
}

func (c *canonical) number(n int64) {
	var digits [20]byte
	c.bytes(strconv.AppendInt(digits[:0], n, 10))
}

// date writes nothing for no date.
func (c *canonical) date(d clock.Date) {
	var text [len(time.DateOnly)]byte
	if d == (clock.Date{}) {
		c.put("")
		return
	}
	c.bytes(d.Time().AppendFormat(text[:0], time.DateOnly))
}

func (c *canonical) moment(t time.Time) {
	var text [len(time.RFC3339Nano)]byte
	c.bytes(t.UTC().AppendFormat(text[:0], time.RFC3339Nano))
}

func (c *canonical) hex(b []byte) {
	c.length(2 * len(b))
	*c = append(hex.AppendEncode(*c, b), ',')
}

func (c *canonical) hash(b []byte) {
	h := sha256.Sum256(b)
	c.hex(h[:])
}

func (c *canonical) lines(lines []Line) {
	c.number(int64(len(lines)))
	for i := range lines {
		l := &lines[i]
		c.put(l.Account)
		c.number(int64(l.Amount))
		f := l.Dimensions.fields()
		c.put(f[:]...)
	}
}

func (c *canonical) metadata(m map[string]string) {
	var in canonical
	if len(m) > 0 {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			in.put(k, m[k])
		}
	}
	c.hash(in)
}

// usual is room for the canonical form of most entries.
const usual = 1024

// body is what makes two requests under one key the same: the content, not who sent
// it, over which channel and when. An effective date left to us is left out:
// a replay after midnight is still the same request.
func (e *Entry) body() []byte {
	var room [usual]byte
	c := canonical(room[:0])
	c.put("guichet/body/1", e.Kind)
	c.date(e.EffectiveOn)
	c.put(e.Currency, e.SourceType, e.SourceID, e.Description, e.Reverses)
	c.metadata(e.Metadata)
	c.lines(e.Lines)
	if e.linked() {
		c.links(e)
	}
	h := sha256.Sum256(c)
	return h[:]
}

// linked entries have more to say, and a form of their own: holds and what becomes of
// them, corrections, late postings.
func (e *Entry) linked() bool {
	return e.Held || e.Hold != "" || e.Corrects != "" || e.AskedOn != (clock.Date{})
}

func (c *canonical) links(e *Entry) {
	layer := "booked"
	if e.Held {
		layer = "held"
	}
	c.put(layer, e.Hold, e.Corrects)
	c.date(e.AskedOn)
}

const (
	entryForm  = "guichet/entry/1"
	linkedForm = "guichet/entry/2"
)

// canonical is what the log seals: every column of the entry.
func (e *Entry) canonical(body []byte) []byte {
	c := make(canonical, 0, usual)
	c.entry(e, body)
	return c
}

func (c *canonical) entry(e *Entry, body []byte) {
	form := entryForm
	if e.linked() {
		form = linkedForm
	}
	c.put(form, e.ID, e.Key, e.Kind)
	c.date(e.EffectiveOn)
	c.moment(e.RecordedAt)
	c.put(e.Currency, e.SourceType, e.SourceID, e.Actor, e.Channel)
	c.hash([]byte(e.Description))
	c.put(e.Reverses)
	c.hex(body)
	c.metadata(e.Metadata)
	c.lines(e.Lines)
	if e.linked() {
		c.links(e)
	}
}

// logHash is tlog.RecordHash of the canonical form.
func (e *Entry) logHash(body []byte) []byte {
	var room [usual]byte
	c := canonical(append(room[:0], 0)) // RFC 6962, section 2.1: a leaf's hash is that of a zero byte and the leaf
	c.entry(e, body)
	h := sha256.Sum256(c)
	return h[:]
}
