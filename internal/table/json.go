package table

import (
	"bytes"
	"encoding/json"
	"io"
	"time"

	"guichet/internal/clock"
	"guichet/internal/money"
)

// json writes one object: what the table is, the question, a row a line, and their
// number at the end, without which it is not whole.
func (t Table) json(w io.Writer) error {
	var head bytes.Buffer
	head.WriteString(`{"table":`)
	if err := put(&head, t.Name); err != nil {
		return err
	}
	head.WriteString(`,"at":`)
	if err := put(&head, t.At.In(clock.Toronto).Format(time.RFC3339)); err != nil {
		return err
	}
	asked := make([]member, len(t.Asked))
	for i, f := range t.Asked {
		asked[i] = member{f.Key, f.Value}
	}
	head.WriteString(`,"asked":`)
	if err := object(&head, asked); err != nil {
		return err
	}
	head.WriteString(`,"rows":[`)
	if _, err := w.Write(head.Bytes()); err != nil {
		return err
	}
	var (
		line   bytes.Buffer
		rows   int
		fields = make([]member, len(t.Columns))
	)
	err := t.each(func(row []any) error {
		line.Reset()
		if rows++; rows > 1 {
			line.WriteByte(',')
		}
		line.WriteByte('\n')
		for i, v := range row {
			fields[i] = member{t.Columns[i].field(), plain(v)}
		}
		if err := object(&line, fields); err != nil {
			return err
		}
		_, err := w.Write(line.Bytes())
		return err
	})
	if err != nil {
		return err
	}
	var end bytes.Buffer
	end.WriteString("\n],\"count\":")
	if err := put(&end, rows); err != nil {
		return err
	}
	end.WriteString("}\n")
	_, err = w.Write(end.Bytes())
	return err
}

type member struct {
	name  string
	value any
}

// object writes members in the order given, which a map would not keep.
func object(b *bytes.Buffer, members []member) error {
	b.WriteByte('{')
	for i, m := range members {
		if i > 0 {
			b.WriteByte(',')
		}
		if err := put(b, m.name); err != nil {
			return err
		}
		b.WriteByte(':')
		if err := put(b, m.value); err != nil {
			return err
		}
	}
	b.WriteByte('}')
	return nil
}

func put(b *bytes.Buffer, v any) error {
	text, err := json.Marshal(v)
	b.Write(text)
	return err
}

func plain(v any) any {
	switch v := v.(type) {
	case money.Amount:
		return int64(v)
	case clock.Date:
		return v.String()
	case time.Time:
		return v.Format(time.RFC3339)
	}
	return v
}
