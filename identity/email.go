package identity

import (
	"errors"
	"strings"
)

// ErrBadEmail says that text is no e-mail address we can write to.
var ErrBadEmail = errors.New("not an e-mail address")

// ParseEmail returns the address in text, trimmed, with the domain in lower case.
// It takes the plain form of RFC 5321 (dot-string at domain, ASCII): no quoted local
// parts, no address literals, nothing that could start another mail header.
func ParseEmail(text string) (string, error) {
	text = strings.Trim(text, " \t\r\n\u00a0")
	local, domain, ok := strings.Cut(text, "@")
	if !ok || len(text) > 254 || len(local) > 64 || !dotted(local, localByte) || !dotted(domain, domainByte) || !strings.Contains(domain, ".") {
		return "", ErrBadEmail
	}
	for label := range strings.SplitSeq(domain, ".") {
		if len(label) > 63 || strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") {
			return "", ErrBadEmail
		}
	}
	return local + "@" + strings.ToLower(domain), nil
}

// sameEmail is the form in which two spellings of an address are one: no mail
// provider in use tells upper case from lower, so Ann@ and ann@ must not be two people.
func sameEmail(email string) string { return strings.ToLower(email) }

// dotted reports whether s is one or more non-empty parts of allowed bytes with dots between.
func dotted(s string, allowed func(byte) bool) bool {
	for part := range strings.SplitSeq(s, ".") {
		if part == "" {
			return false
		}
		for i := range len(part) {
			if !allowed(part[i]) {
				return false
			}
		}
	}
	return true
}

func localByte(c byte) bool {
	return domainByte(c) || strings.IndexByte("!#$%&'*+/=?^_`{|}~", c) >= 0
}

func domainByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-'
}
