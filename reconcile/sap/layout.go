package sap

import (
	"embed"
	"encoding/csv"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// layoutFiles are the fields of every record, one file per segment: name, offset
// from 0, length, type, and how sure the source is. They are data so that a
// partner's own listing can replace them.
//
//go:embed layout/*.csv
var layoutFiles embed.FS

// Record lengths of the flat IDoc file since release 4.0: a data record is 63
// characters of header and 1000 of segment data.
const (
	controlLength = 524
	headLength    = 63
	segmentLength = 1000
)

// A layout is where the fields of one record are.
type layout struct {
	name   string
	length int
	fields map[string]layoutField
}

type layoutField struct {
	offset, length int
	numeric        bool // NUMC: filled with zeros on the left
}

// loadLayouts reads the layouts of a folder, one CSV file each.
func loadLayouts(files fs.FS) (map[string]layout, error) {
	lengths := map[string]int{"EDI_DC40": controlLength, "EDI_DD40": headLength + segmentLength}
	names, err := fs.Glob(files, "layout/*.csv")
	if err != nil {
		return nil, fmt.Errorf("list layouts: %w", err)
	}
	layouts := map[string]layout{}
	for _, name := range names {
		l := layout{name: strings.TrimSuffix(strings.TrimPrefix(name, "layout/"), ".csv"), length: segmentLength}
		if n, ok := lengths[l.name]; ok {
			l.length = n
		}
		f, err := files.Open(name)
		if err != nil {
			return nil, fmt.Errorf("layout %s: %w", l.name, err)
		}
		rows, err := csv.NewReader(f).ReadAll()
		f.Close() // read only: nothing to lose
		if err != nil {
			return nil, fmt.Errorf("layout %s: %w", l.name, err)
		}
		if l.fields, err = layoutFields(rows, l.length); err != nil {
			return nil, fmt.Errorf("layout %s: %w", l.name, err)
		}
		layouts[l.name] = l
	}
	return layouts, nil
}

// layoutFields checks that fields lie inside the record and do not overlap.
func layoutFields(rows [][]string, length int) (map[string]layoutField, error) {
	fields := map[string]layoutField{}
	end := 0
	for i, row := range rows {
		if i == 0 {
			continue // the heading
		}
		offset, err1 := strconv.Atoi(row[1])
		size, err2 := strconv.Atoi(row[2])
		if err1 != nil || err2 != nil || size < 1 || offset < end || offset+size > length {
			return nil, fmt.Errorf("row %d: field %s at %s, length %s, does not follow %d or fit into %d", i+1, row[0], row[1], row[2], end, length)
		}
		if _, twice := fields[row[0]]; twice {
			return nil, fmt.Errorf("row %d: field %s twice", i+1, row[0])
		}
		fields[row[0]] = layoutField{offset: offset, length: size, numeric: row[3] == "NUMC"}
		end = offset + size
	}
	return fields, nil
}

// record returns a blank-padded record with the given fields. A value that does
// not fit is an error: cutting a key would post to another account.
func (l layout) record(values map[string]string) ([]byte, error) {
	rec := []byte(strings.Repeat(" ", l.length))
	for name, value := range values {
		f, known := l.fields[name]
		if !known {
			return nil, fmt.Errorf("segment %s has no field %s", l.name, name)
		}
		if value == "" {
			continue
		}
		if f.numeric {
			value = padNumber(value, f.length)
		}
		text := latin1(value)
		if len(text) > f.length {
			return nil, fmt.Errorf("field %s-%s: %q is longer than %d", l.name, name, value, f.length)
		}
		copy(rec[f.offset:], text)
	}
	return rec, nil
}
