package ledger

import (
	"golang.org/x/mod/sumdb/tlog"
)

// leafHash is the hash of a canonical form in the log.
func leafHash(canonical []byte) []byte {
	h := tlog.RecordHash(canonical)
	return h[:]
}
