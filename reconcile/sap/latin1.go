package sap

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// latin1 turns text into ISO-8859-1 (SAP code page 1100), one byte a character,
// so that no column moves. What the code page lacks is written with letters that
// it has; control characters, which would break the record, become blanks.
func latin1(s string) []byte {
	out := make([]byte, 0, len(s))
	for _, r := range norm.NFC.String(s) {
		out = append(out, latin1Rune(r)...)
	}
	return out
}

// outside are characters of French and of word processors that ISO-8859-1 lacks.
var outside = map[rune]string{
	'œ': "oe", 'Œ': "OE", 'Ÿ': "Y", '€': "EUR", '‘': "'", '’': "'", '“': `"`, '”': `"`,
	'–': "-", '—': "-", '‑': "-", '−': "-", '…': "...", '•': "*", '™': "(TM)",
	'ł': "l", 'Ł': "L", 'đ': "d", 'Đ': "D", 'ı': "i",
}

func latin1Rune(r rune) []byte {
	switch {
	case r < 0x20 || (r >= 0x7f && r <= 0xa0): // controls, and the no-break space
		return []byte{' '}
	case r <= 0xff:
		return []byte{byte(r)}
	}
	if s, ok := outside[r]; ok {
		return []byte(s)
	}
	// Ő is O with two strokes above it: keep the letter, drop the mark.
	var out []byte
	for _, part := range norm.NFD.String(string(r)) {
		if !unicode.Is(unicode.Mn, part) && part < 0x7f {
			out = append(out, byte(part))
		}
	}
	switch {
	case len(out) > 0:
		return out
	case unicode.IsSpace(r):
		return []byte{' '}
	case unicode.In(r, unicode.Mn, unicode.Cf):
		return nil
	}
	return []byte{'?'}
}

// cut shortens free text to n characters of the code page.
func cut(s string, n int) string {
	b := latin1(strings.TrimSpace(s))
	var out strings.Builder
	for _, c := range b[:min(n, len(b))] {
		out.WriteRune(rune(c)) // every byte of ISO-8859-1 is the rune of that number
	}
	return strings.TrimSpace(out.String())
}
