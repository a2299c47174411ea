package sap

import (
	"embed"
	"encoding/csv"
	"fmt"
	"path"
	"strconv"
	"strings"
)

// The layout tables say where each field stands: name, offset, length and
// dictionary type. They were copied for this package; the writer has its own.
//
//go:embed layout/*.csv
var layoutFiles embed.FS

// field is one column of a record or of a segment's SDATA.
type field struct {
	name           string
	offset, length int
	kind           string // CHAR, NUMC, DATS, TIMS, DEC-as-text
}

// layouts by record or segment name.
var layouts = mustReadLayouts()

// Lengths of whole records.
const (
	controlLength = 524
	dataLength    = 1063
)

func mustReadLayouts() map[string][]field {
	out := map[string][]field{}
	entries, err := layoutFiles.ReadDir("layout")
	if err != nil {
		panic(err) // embedded
	}
	for _, e := range entries {
		fields, err := readLayout(path.Join("layout", e.Name()))
		if err != nil {
			panic(fmt.Sprintf("%s: %v", e.Name(), err)) // embedded
		}
		out[strings.TrimSuffix(e.Name(), ".csv")] = fields
	}
	return out
}

func readLayout(name string) ([]field, error) {
	f, err := layoutFiles.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		return nil, err
	}
	var out []field
	end := 0
	for _, r := range rows[1:] {
		x := field{name: r[0], kind: r[3]}
		if x.offset, err = strconv.Atoi(r[1]); err != nil {
			return nil, err
		}
		if x.length, err = strconv.Atoi(r[2]); err != nil {
			return nil, err
		}
		if x.offset != end {
			return nil, fmt.Errorf("%s begins at %d, the field before ends at %d", x.name, x.offset, end)
		}
		end += x.length
		out = append(out, x)
	}
	return out, nil
}

// cut gives the values of a layout's fields in text, without the blanks behind each value. rest is
// what stands behind the last field.
func cut(layout, text string) (values map[string]string, rest string) {
	values = map[string]string{}
	end := 0
	for _, f := range layouts[layout] {
		values[f.name] = strings.TrimRight(text[f.offset:f.offset+f.length], " ")
		end = f.offset + f.length
	}
	return values, text[end:]
}
