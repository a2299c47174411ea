// Package keyed makes hashes that only this deployment can make: of values that
// are few enough to try all (a plate, a postal code), and of row ids to turn them
// into link secrets.
//
// Each purpose has a random key of its own, stored sealed in ops.secret and not
// derived from the master key, so that what was hashed outlives its rotation.
package keyed

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"

	"guichet/internal/seal"
)

// A Hasher makes the keyed hashes of one purpose. It may be used by many
// goroutines at once, and prints as [secret].
type Hasher struct{ key []byte }

// Load returns the hasher of a purpose. Its key is made at the first use; two
// instances that start at the same moment agree on one.
func Load(ctx context.Context, db *pgxpool.Pool, key *seal.Key, purpose string) (*Hasher, error) {
	fresh := make([]byte, sha256.Size)
	rand.Read(fresh) // never fails: crypto/rand crashes the program instead
	_, err := db.Exec(ctx, `insert into ops.secret (purpose, sealed) values ($1, $2) on conflict (purpose) do nothing`,
		purpose, key.Seal(fresh, []byte(purpose)))
	if err != nil {
		return nil, fmt.Errorf("make key of %s: %w", purpose, err)
	}
	var box []byte
	if err := db.QueryRow(ctx, `select sealed from ops.secret where purpose = $1`, purpose).Scan(&box); err != nil {
		return nil, fmt.Errorf("read key of %s: %w", purpose, err)
	}
	plain, err := key.Open(box, []byte(purpose))
	if err != nil {
		return nil, fmt.Errorf("open key of %s: %w", purpose, err)
	}
	return &Hasher{key: plain}, nil
}

// Sum returns HMAC-SHA-256 of data.
func (h *Hasher) Sum(data string) []byte {
	m := hmac.New(sha256.New, h.key)
	m.Write([]byte(data))
	return m.Sum(nil)
}

// String keeps the key out of messages.
func (*Hasher) String() string { return "[secret]" }

// GoString keeps the key out of %#v.
func (*Hasher) GoString() string { return "[secret]" }
