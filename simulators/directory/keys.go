package directory

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"guichet/simulators/control"
)

// keys are the private signing keys, one for each algorithm.
type keys struct{ set jose.JSONWebKeySet }

var algorithms = []jose.SignatureAlgorithm{jose.ES256, jose.RS256}

// openKeys reads keys.json of dir, or makes it: relying parties remember keys, so
// they outlive the process.
func openKeys(dir string) (keys, error) {
	path := filepath.Join(dir, "keys.json")
	var k keys
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeKeys(path)
	}
	if err == nil {
		err = json.Unmarshal(b, &k.set)
	}
	if err != nil {
		return keys{}, fmt.Errorf("read keys: %w", err)
	}
	for _, alg := range algorithms {
		if _, ok := k.of(alg); !ok {
			return keys{}, fmt.Errorf("read keys: no key for %s", alg)
		}
	}
	return k, nil
}

func makeKeys(path string) (keys, error) {
	var k keys
	for _, alg := range algorithms {
		key, err := newKey(alg)
		if err != nil {
			return keys{}, err
		}
		k.set.Keys = append(k.set.Keys, key)
	}
	b, err := json.Marshal(k.set)
	if err != nil {
		return keys{}, fmt.Errorf("write keys: %w", err)
	}
	if err := control.WriteFile(path, b, 0o600); err != nil {
		return keys{}, fmt.Errorf("write keys: %w", err)
	}
	return k, nil
}

// newKey makes a key whose id is its thumbprint (RFC 7638).
func newKey(alg jose.SignatureAlgorithm) (jose.JSONWebKey, error) {
	var private any
	var err error
	if alg == jose.RS256 {
		private, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		return jose.JSONWebKey{}, fmt.Errorf("make %s key: %w", alg, err)
	}
	key := jose.JSONWebKey{Key: private, Algorithm: string(alg), Use: "sig"}
	sum, err := key.Thumbprint(crypto.SHA256)
	if err != nil {
		return jose.JSONWebKey{}, fmt.Errorf("make %s key: %w", alg, err)
	}
	key.KeyID = base64.RawURLEncoding.EncodeToString(sum)
	return key, nil
}

func (k keys) of(alg jose.SignatureAlgorithm) (jose.JSONWebKey, bool) {
	for _, key := range k.set.Keys {
		if key.Algorithm == string(alg) {
			return key, true
		}
	}
	return jose.JSONWebKey{}, false
}

// public is the key set without its private parts.
func (k keys) public() jose.JSONWebKeySet {
	var out jose.JSONWebKeySet
	for _, key := range k.set.Keys {
		out.Keys = append(out.Keys, key.Public())
	}
	return out
}

// sign writes a compact JWT of the given type.
func sign(key jose.JSONWebKey, typ string, claims any) (string, error) {
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.SignatureAlgorithm(key.Algorithm), Key: key},
		(&jose.SignerOptions{}).WithType(jose.ContentType(typ)))
	if err != nil {
		return "", fmt.Errorf("sign %s: %w", typ, err)
	}
	s, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		return "", fmt.Errorf("sign %s: %w", typ, err)
	}
	return s, nil
}

// verify checks type and signature of one of our own tokens and reads its claims.
// The caller checks times and audience.
func (k keys) verify(token, typ string, claims any) error {
	t, err := jwt.ParseSigned(token, algorithms)
	if err != nil {
		return err
	}
	if len(t.Headers) != 1 || t.Headers[0].ExtraHeaders[jose.HeaderType] != typ {
		return fmt.Errorf("token is not a %s", typ)
	}
	set := k.public()
	found := set.Key(t.Headers[0].KeyID)
	if len(found) != 1 {
		return fmt.Errorf("unknown key %q", t.Headers[0].KeyID)
	}
	return t.Claims(found[0], claims)
}
