// Package seal encrypts what the database must hold and its readers must not
// read: signing keys, personal data, mail that waits.
//
//	key file (32 bytes, outside the database) ─▶ Key ─Seal─▶ version · nonce · ciphertext · tag
//
// AES-256-GCM with a random nonce: one key is good for 2^32 messages (NIST SP
// 800-38D, section 8.3). The additional data binds a box to its row, so that a box moved to another
// row does not open.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
)

// Size is the length of a key in bytes.
const Size = 32

// version is the first byte of every box.
const version = 1

// ErrBroken says that a box was not made by this key for this additional data.
var ErrBroken = errors.New("sealed data does not open")

// A Key seals and opens. It may be used by many goroutines at once, and prints as
// [secret].
type Key struct{ gcm cipher.AEAD }

// New returns a key made of exactly 32 bytes.
func New(raw []byte) (*Key, error) {
	if len(raw) != Size {
		return nil, fmt.Errorf("sealing key of %d bytes, want %d", len(raw), Size)
	}
	block, err := aes.NewCipher(raw)
	if err != nil {
		return nil, fmt.Errorf("sealing key: %w", err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("sealing key: %w", err)
	}
	return &Key{gcm: gcm}, nil
}

// Load reads a key file: 64 hexadecimal digits, as Create writes them or
// `openssl rand -hex 32` does. A file that others may read is refused.
func Load(path string) (*Key, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("key file %s may be read by others: chmod 600 %s", path, path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	raw, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(raw) != Size { // the error would quote the content
		return nil, fmt.Errorf("key file %s: want %d hexadecimal digits, make one with `openssl rand -hex %d`", path, 2*Size, Size)
	}
	return New(raw)
}

// Create writes a new random key file. A file that is there already is left alone
// and is an error: overwriting a key loses everything sealed with it.
func Create(path string) error {
	var raw [Size]byte
	rand.Read(raw[:]) // never fails: crypto/rand crashes the program instead
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("key file: %w", err)
	}
	_, err = f.WriteString(hex.EncodeToString(raw[:]) + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("key file: %w", errors.Join(err, os.Remove(path)))
	}
	return nil
}

// Seal encrypts plain and binds it to aad.
func (k *Key) Seal(plain, aad []byte) []byte {
	box := make([]byte, 1+k.gcm.NonceSize(), 1+k.gcm.NonceSize()+len(plain)+k.gcm.Overhead())
	box[0] = version
	nonce := box[1:]
	rand.Read(nonce)
	return k.gcm.Seal(box, nonce, plain, aad)
}

// Open returns what Seal was given with the same aad, or ErrBroken, wrapped.
func (k *Key) Open(box, aad []byte) ([]byte, error) {
	n := 1 + k.gcm.NonceSize()
	if len(box) < n+k.gcm.Overhead() || box[0] != version {
		return nil, fmt.Errorf("box of %d bytes: %w", len(box), ErrBroken)
	}
	plain, err := k.gcm.Open(nil, box[1:n], box[n:], aad)
	if err != nil {
		return nil, fmt.Errorf("box of %d bytes: %w", len(box), ErrBroken)
	}
	return plain, nil
}

// String keeps the key out of messages.
func (k *Key) String() string { return "[secret]" }

// GoString keeps the key out of %#v.
func (k *Key) GoString() string { return "[secret]" }

// LogValue keeps the key out of logs.
func (k *Key) LogValue() slog.Value { return slog.StringValue("[secret]") }
