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
		*c = strconv.AppendInt(*c, int64(len(f)), 10)
		*c = append(*c, ':')
		*c = append(*c, f...)
		*c = append(*c, ',')
	}
}

func (c *canonical) lines(lines []Line) {
	c.put(strconv.Itoa(len(lines)))
	for _, l := range lines {
		c.put(l.Account, strconv.FormatInt(int64(l.Amount), 10))
		f := l.Dimensions.fields()
		c.put(f[:]...)
	}
}

func (c *canonical) metadata(m map[string]string) {
	var in canonical
	for _, k := range slices.Sorted(maps.Keys(m)) {
		in.put(k, m[k])
	}
	c.put(hash(in))
}

func hash(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// body is what makes two requests under one key the same: the content, not who sent
// it, over which channel and when. An effective date left to us is left out:
// a replay after midnight is still the same request.
func (e *Entry) body() []byte {
	var c canonical
	effective := ""
	if e.EffectiveOn != (clock.Date{}) {
		effective = e.EffectiveOn.String()
	}
	c.put("guichet/body/1", e.Kind, effective, e.Currency, e.SourceType, e.SourceID, e.Description, e.Reverses)
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
	layer, asked := "booked", ""
	if e.Held {
		layer = "held"
	}
	if e.AskedOn != (clock.Date{}) {
		asked = e.AskedOn.String()
	}
	c.put(layer, e.Hold, e.Corrects, asked)
}

const (
	entryForm  = "guichet/entry/1"
	linkedForm = "guichet/entry/2"
)

// canonical is what the log seals: every column of the entry.
func (e *Entry) canonical(body []byte) []byte {
	c := make(canonical, 0, 512)
	form := entryForm
	if e.linked() {
		form = linkedForm
	}
	c.put(form, e.ID, e.Key, e.Kind, e.EffectiveOn.String(), e.RecordedAt.UTC().Format(time.RFC3339Nano), e.Currency,
		e.SourceType, e.SourceID, e.Actor, e.Channel, hash([]byte(e.Description)), e.Reverses, hex.EncodeToString(body))
	c.metadata(e.Metadata)
	c.lines(e.Lines)
	if e.linked() {
		c.links(e)
	}
	return c
}
