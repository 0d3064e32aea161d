package jwt

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
)

// Bounds of a set of keys.
const (
	MaxKeySet  = 1 << 20 // bytes of the document
	maxKeys    = 256
	maxRSABits = 16 << 10
	minRSABits = 1024 // below that crypto/rsa verifies nothing
)

// Keys is a set of keys that signatures are verified with. It is not changed after ParseKeys.
type Keys struct {
	list []key
}

// Len is the number of keys.
func (k *Keys) Len() int { return len(k.list) }

// A key is one of a set; id and algorithm may be "" for any.
type key struct {
	id, algorithm string
	material
}

// material verifies signatures.
type material interface{ verify(*Token) Status }

// ParseKeys reads a JSON Web Key Set (RFC 7517), or an object of RSA certificates in PEM by
// key ID. Keys that cannot be read are left out, as in Envoy; without a single good one the
// whole is refused, with the reason of the first.
func ParseKeys(document []byte) (*Keys, error) {
	if len(document) > MaxKeySet {
		return nil, fmt.Errorf("larger than %d bytes", MaxKeySet)
	}
	all, err := parseObject(string(document))
	if err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	list, there := all["keys"]
	if !there {
		return parseCertificates(all)
	}
	entries, ok := list.([]any)
	if !ok {
		return nil, errors.New("keys: not an array")
	}
	return gather(len(entries), func(i int) (key, error) {
		fields, ok := entries[i].(map[string]any)
		if !ok {
			return key{}, errors.New("not an object")
		}
		return newKey(fields)
	})
}

// gather makes a set of the keys that can be read.
func gather(n int, one func(int) (key, error)) (*Keys, error) {
	if n > maxKeys {
		return nil, fmt.Errorf("more than %d keys", maxKeys)
	}
	out := &Keys{}
	var first error
	for i := range n {
		k, err := one(i)
		if err == nil {
			out.list = append(out.list, k)
		} else if first == nil {
			first = fmt.Errorf("keys[%d]: %w", i, err)
		}
	}
	if len(out.list) == 0 {
		return nil, errors.Join(errors.New("no valid key"), first)
	}
	return out, nil
}

const (
	certificateBegins = "-----BEGIN CERTIFICATE-----\n"
	certificateEnds   = "\n-----END CERTIFICATE-----\n"
)

func parseCertificates(all map[string]any) (*Keys, error) {
	var names []string
	for name, v := range all {
		text, _ := v.(string)
		if name == "" || !strings.HasPrefix(text, certificateBegins) || !strings.HasSuffix(text, certificateEnds) {
			return nil, errors.New("keys: missing")
		}
		names = append(names, name)
	}
	if len(names) == 0 {
		return nil, errors.New("keys: missing")
	}
	slices.Sort(names)
	return gather(len(names), func(i int) (key, error) {
		block, _ := pem.Decode([]byte(all[names[i]].(string)))
		if block == nil {
			return key{}, errors.New("not PEM")
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return key{}, err
		}
		public, ok := c.PublicKey.(*rsa.PublicKey)
		if !ok {
			return key{}, errors.New("not an RSA key")
		}
		return key{names[i], "", rsaKey{public}}, checkRSA(public)
	})
}

// newKey reads one JSON Web Key.
func newKey(f map[string]any) (k key, err error) {
	k.id, _ = f["kid"].(string)
	k.algorithm, _ = f["alg"].(string)
	kind, err := field(f, "kty")
	if err != nil {
		return k, err
	}
	switch kind {
	case "RSA":
		k.material, err = newRSA(f, k.algorithm)
	case "EC":
		k.material, err = newEC(f, k.algorithm)
	case "oct":
		k.material, err = newSecret(f, k.algorithm)
	case "OKP":
		k.material, err = newEdwards(f, k.algorithm)
	default:
		err = errors.New("kty: not supported")
	}
	return k, err
}

// field reads a string that must be there.
func field(f map[string]any, name string) (string, error) {
	v, there := f[name]
	if !there {
		return "", fmt.Errorf("%s: missing", name)
	}
	text, ok := v.(string)
	if !ok {
		return "", fmt.Errorf("%s: not a string", name)
	}
	return text, nil
}

// octets reads bytes in base64url.
func octets(f map[string]any, name string) ([]byte, error) {
	text, err := field(f, name)
	if err != nil {
		return nil, err
	}
	b, ok := decode(text)
	if !ok {
		return nil, fmt.Errorf("%s: not base64url", name)
	}
	return b, nil
}

// RSA keys: RFC 7518, section 6.3.
func newRSA(f map[string]any, algorithm string) (material, error) {
	if algorithm != "" && !strings.HasPrefix(algorithm, "RS") && !strings.HasPrefix(algorithm, "PS") {
		return nil, errors.New("alg: not one of RSA")
	}
	n, err := octets(f, "n")
	if err != nil {
		return nil, err
	}
	e, err := octets(f, "e")
	if err != nil {
		return nil, err
	}
	exponent := new(big.Int).SetBytes(e)
	if !exponent.IsInt64() || exponent.Int64() != 3 && exponent.Int64() != 65537 {
		return nil, errors.New("e: must be 3 or 65537")
	}
	public := &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(exponent.Int64())}
	return rsaKey{public}, checkRSA(public)
}

func checkRSA(k *rsa.PublicKey) error {
	if bits := k.N.BitLen(); bits < minRSABits || bits > maxRSABits {
		return fmt.Errorf("n: has %d bits, must have %d to %d", bits, minRSABits, maxRSABits)
	}
	if k.N.Bit(0) == 0 {
		return errors.New("n: must be odd")
	}
	return nil
}

// curves by alg and by crv: RFC 7518, sections 3.4 and 6.2.
var curves = []struct {
	algorithm, name string
	curve           elliptic.Curve
}{
	{"ES256", "P-256", elliptic.P256()},
	{"ES384", "P-384", elliptic.P384()},
	{"ES512", "P-521", elliptic.P521()},
}

// newEC finds the curve by alg, by crv, or by both where they agree; without either it is P-256.
func newEC(f map[string]any, algorithm string) (material, error) {
	if algorithm != "" && !strings.HasPrefix(algorithm, "ES") {
		return nil, errors.New("alg: not one of EC")
	}
	name := ""
	if _, there := f["crv"]; there {
		var err error
		if name, err = field(f, "crv"); err != nil {
			return nil, err
		}
	}
	if algorithm == "" && name == "" {
		name = "P-256"
	}
	for _, c := range curves {
		if (algorithm == "" || algorithm == c.algorithm) && (name == "" || name == c.name) {
			return newPoint(f, c.curve)
		}
	}
	return nil, errors.New("alg and crv: not supported, or of different curves")
}

func newPoint(f map[string]any, curve elliptic.Curve) (material, error) {
	size := (curve.Params().BitSize + 7) / 8
	point := make([]byte, 1+2*size)
	point[0] = 4 // uncompressed: SEC 1, section 2.3.3
	for i, name := range []string{"x", "y"} {
		b, err := octets(f, name)
		if err != nil {
			return nil, err
		}
		n := new(big.Int).SetBytes(b)
		if n.BitLen() > 8*size {
			return nil, fmt.Errorf("%s: too large", name)
		}
		n.FillBytes(point[1+i*size : 1+(i+1)*size])
	}
	public, err := ecdsa.ParseUncompressedPublicKey(curve, point)
	if err != nil {
		return nil, errors.New("x and y: not on the curve")
	}
	return ecKey{public}, nil
}

// newSecret reads a symmetric key: RFC 7518, section 6.4.
func newSecret(f map[string]any, algorithm string) (material, error) {
	switch algorithm {
	case "", "HS256", "HS384", "HS512":
	default:
		return nil, errors.New("alg: not one of oct")
	}
	k, err := octets(f, "k")
	if err != nil {
		return nil, err
	}
	if len(k) == 0 {
		return nil, errors.New("k: empty")
	}
	return secretKey(k), nil
}

// newEdwards reads an Ed25519 key: RFC 8037, section 2.
func newEdwards(f map[string]any, algorithm string) (material, error) {
	if algorithm != "" && algorithm != "EdDSA" {
		return nil, errors.New("alg: not one of OKP")
	}
	name, err := field(f, "crv")
	if err != nil {
		return nil, err
	}
	if name != "Ed25519" {
		return nil, errors.New("crv: not supported")
	}
	x, err := octets(f, "x")
	if err != nil {
		return nil, err
	}
	if len(x) != ed25519.PublicKeySize {
		return nil, errors.New("x: wrong length")
	}
	return edwardsKey(x), nil
}
