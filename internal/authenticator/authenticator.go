// Package authenticator is a passkey in software, for tests: it answers the options
// that a page hands to the browser as a device would, and can answer wrongly.
//
//	options ──Create──▶ Passkey, response
//	options ──Answer──▶ response
//
// It knows WebAuthn Level 2 as far as ES256 and no attestation go, and no business.
package authenticator

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
)

// A Passkey is one credential. Its fields may be changed to make wrong answers.
type Passkey struct {
	ID, Handle []byte
	RPID       string
	Origin     string // of the page that asks
	Count      uint32 // signatures made
	Unverified bool   // the device did not check who holds it
	Synced     bool   // backed up, and said to be
	key        *ecdsa.PrivateKey
}

// The flags of authenticator data (WebAuthn Level 2, section 6.1).
const (
	userPresent    = 0x01
	userVerified   = 0x04
	backupEligible = 0x08
	backedUp       = 0x10
	attested       = 0x40
)

type options struct {
	Challenge string `json:"challenge"`
	RPID      string `json:"rpId"`
	RP        struct {
		ID string `json:"id"`
	} `json:"rp"`
	User struct {
		ID string `json:"id"`
	} `json:"user"`
}

// Create makes a passkey from the options of navigator.credentials.create, and the
// answer as a page posts it.
func Create(raw []byte, origin string) (*Passkey, []byte, error) {
	var o options
	if err := json.Unmarshal(raw, &o); err != nil {
		return nil, nil, fmt.Errorf("read options: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	handle, err := base64.RawURLEncoding.DecodeString(o.User.ID)
	if err != nil {
		return nil, nil, fmt.Errorf("read user handle: %w", err)
	}
	p := &Passkey{ID: make([]byte, 32), Handle: handle, RPID: o.RP.ID, Origin: origin, key: key}
	rand.Read(p.ID)
	public, err := key.PublicKey.Bytes() // 4, x, y
	if err != nil {
		return nil, nil, err
	}
	cose := append([]byte{0xa5, 0x01, 0x02, 0x03, 0x26, 0x20, 0x01, 0x21, 0x58, 0x20}, public[1:33]...)
	cose = append(append(cose, 0x22, 0x58, 0x20), public[33:]...)
	data := p.data(attested)
	data = append(data, make([]byte, 16)...) // no AAGUID
	data = binary.BigEndian.AppendUint16(data, uint16(len(p.ID)))
	data = append(append(data, p.ID...), cose...)
	object := append([]byte{0xa3, 0x63}, "fmt"...)
	object = append(append(object, 0x64), "none"...)
	object = append(append(object, 0x67), "attStmt"...)
	object = append(append(object, 0xa0, 0x68), "authData"...)
	object = binary.BigEndian.AppendUint16(append(object, 0x59), uint16(len(data)))
	object = append(object, data...)
	return p, p.response(map[string]any{
		"clientDataJSON": encode(p.client("webauthn.create", o.Challenge)), "attestationObject": encode(object), "transports": []string{"internal"},
	}), nil
}

// Answer signs the options of navigator.credentials.get and returns the answer as a page
// posts it.
func (p *Passkey) Answer(raw []byte) ([]byte, error) {
	var o options
	if err := json.Unmarshal(raw, &o); err != nil {
		return nil, fmt.Errorf("read options: %w", err)
	}
	p.Count++
	data, client := p.data(0), p.client("webauthn.get", o.Challenge)
	hash := sha256.Sum256(client)
	digest := sha256.Sum256(append(append([]byte{}, data...), hash[:]...))
	signature, err := ecdsa.SignASN1(rand.Reader, p.key, digest[:])
	if err != nil {
		return nil, err
	}
	return p.response(map[string]any{
		"clientDataJSON": encode(client), "authenticatorData": encode(data), "signature": encode(signature), "userHandle": encode(p.Handle),
	}), nil
}

// data is the authenticator data up to what only a new credential adds.
func (p *Passkey) data(flags byte) []byte {
	flags |= userPresent
	if !p.Unverified {
		flags |= userVerified
	}
	if p.Synced {
		flags |= backupEligible | backedUp
	}
	rp := sha256.Sum256([]byte(p.RPID))
	return binary.BigEndian.AppendUint32(append(rp[:], flags), p.Count)
}

func (p *Passkey) client(kind, challenge string) []byte {
	text, err := json.Marshal(map[string]any{"type": kind, "challenge": challenge, "origin": p.Origin, "crossOrigin": false})
	if err != nil {
		panic(err) // strings and a bool
	}
	return text
}

func (p *Passkey) response(inner map[string]any) []byte {
	text, err := json.Marshal(map[string]any{
		"id": encode(p.ID), "rawId": encode(p.ID), "type": "public-key", "response": inner, "clientExtensionResults": map[string]any{},
	})
	if err != nil {
		panic(err) // strings
	}
	return text
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
