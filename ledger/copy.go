package ledger

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// copyRows are rows in the binary form of COPY, which PostgreSQL reads faster than any
// statement and which is written here without a value on the heap. The form is that of the
// manual, "COPY: Binary Format"; the fields are those of each type's send function.
type copyRows []byte

// epoch is the day from which PostgreSQL counts days and microseconds.
var epoch = time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC)

// oidInt8 is the type of the elements of a bigint[].
const oidInt8 = 20

// spare holds the room of copies that are over.
var spare = sync.Pool{New: func() any { return new(copyRows) }}

func newCopy() *copyRows {
	c := spare.Get().(*copyRows)
	*c = append((*c)[:0], "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00"...) // no flags, no extension
	return c
}

// row begins a row.
func (c *copyRows) row(fields int) { *c = binary.BigEndian.AppendUint16(*c, uint16(fields)) }

func (c *copyRows) length(n int) { *c = binary.BigEndian.AppendUint32(*c, uint32(n)) }

func (c *copyRows) text(s string) {
	c.length(len(s))
	*c = append(*c, s...)
}

func (c *copyRows) bytes(b []byte) {
	c.length(len(b))
	*c = append(*c, b...)
}

func (c *copyRows) int4(n int32) {
	c.length(4)
	*c = binary.BigEndian.AppendUint32(*c, uint32(n))
}

func (c *copyRows) int8(n int64) {
	c.length(8)
	*c = binary.BigEndian.AppendUint64(*c, uint64(n))
}

// date takes midnight UTC of the day.
func (c *copyRows) date(day time.Time) { c.int4(int32((day.Unix() - epoch.Unix()) / 86400)) }

func (c *copyRows) moment(t time.Time) { c.int8(t.UnixMicro() - epoch.UnixMicro()) }

// jsonb takes JSON.
func (c *copyRows) jsonb(b []byte) {
	c.length(1 + len(b))
	*c = append(append(*c, 1), b...) // version 1
}

// int8s takes at least one number.
func (c *copyRows) int8s(v []int64) {
	c.length(20 + 12*len(v))
	for _, head := range [...]int{1, 0, oidInt8, len(v), 1} { // dimensions, no null in it, type; length, first index
		c.length(head)
	}
	for _, n := range v {
		c.int8(n)
	}
}

// send copies the rows and ends the use of c. On a connection without a transaction it is
// one by itself.
func (c *copyRows) send(ctx context.Context, conn *pgx.Conn, table, columns string) error {
	*c = binary.BigEndian.AppendUint16(*c, 0xffff)
	if _, err := conn.PgConn().CopyFrom(ctx, bytes.NewReader(*c), `copy ledger.`+table+` (`+columns+`) from stdin binary`); err != nil {
		return fmt.Errorf("copy into %s: %w", table, err) // pgx may still be reading: c is not used again
	}
	spare.Put(c)
	return nil
}
