// Package seal keeps small secrets unreadable at rest: AES-256-GCM under one
// master key, and keyed hashes for what must be found again but not read.
//
//	master key (a file or a key service, never the database)
//	   ├─ HKDF "seal"    ─▶ Seal, Open
//	   └─ HKDF "mac/…"   ─▶ MAC, one key per label
//
// A Key may be used by many goroutines at once. It prints as [secret].
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
)

// Size is how many bytes a master key has.
const Size = 32

// ErrOpen reports a box that was not sealed by this key with this context, or was
// changed since.
var ErrOpen = errors.New("sealed value does not open")

// A Key seals and opens.
type Key struct {
	master []byte
	aead   cipher.AEAD
}

// New returns the key made of Size bytes.
func New(master []byte) (*Key, error) {
	if len(master) != Size {
		return nil, fmt.Errorf("master key has %d bytes, want %d", len(master), Size)
	}
	k := &Key{master: append([]byte(nil), master...)}
	block, err := aes.NewCipher(k.derive("seal"))
	if err != nil {
		return nil, fmt.Errorf("master key: %w", err)
	}
	if k.aead, err = cipher.NewGCM(block); err != nil {
		return nil, fmt.Errorf("master key: %w", err)
	}
	return k, nil
}

// Generate returns a new random master key, for a file.
func Generate() []byte {
	b := make([]byte, Size)
	rand.Read(b) // never fails: crypto/rand crashes the program instead
	return b
}

func (k *Key) derive(label string) []byte {
	key, err := hkdf.Key(sha256.New, k.master, nil, "guichet "+label, Size)
	if err != nil {
		panic(err) // only for lengths that SHA-256 cannot give
	}
	return key
}

// Seal encrypts plain. context, such as the id of the row it is stored in, must be
// given again to open it: a box copied to another row does not open there.
func (k *Key) Seal(plain, context []byte) []byte {
	nonce := make([]byte, k.aead.NonceSize())
	rand.Read(nonce)
	return k.aead.Seal(nonce, nonce, plain, context)
}

// Open decrypts what Seal made with the same context, or returns ErrOpen.
func (k *Key) Open(box, context []byte) ([]byte, error) {
	if len(box) < k.aead.NonceSize() {
		return nil, ErrOpen
	}
	plain, err := k.aead.Open(nil, box[:k.aead.NonceSize()], box[k.aead.NonceSize():], context)
	if err != nil {
		return nil, ErrOpen
	}
	return plain, nil
}

// MAC returns HMAC-SHA-256 of data under a key that only this label uses.
func (k *Key) MAC(label string, data []byte) []byte {
	m := hmac.New(sha256.New, k.derive("mac/"+label))
	m.Write(data)
	return m.Sum(nil)
}

// String keeps the key out of logs.
func (*Key) String() string { return "[secret]" }

// GoString keeps the key out of logs.
func (*Key) GoString() string { return "[secret]" }
