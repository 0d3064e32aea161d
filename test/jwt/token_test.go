package jwt

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	crand "crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256" // hashes that crypto.Hash finds
	_ "crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash"
	"maps"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// A keychain has private keys by name and their public halves as JSON Web Keys.
type keychain struct {
	private map[string]any
	public  map[string]map[string]any
}

var keyNames = []string{"rsa1", "rsa2", "ec256", "ec384", "ec521", "oct", "ed"}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func newKeychain(t *testing.T) *keychain {
	t.Helper()
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	k := &keychain{private: map[string]any{}, public: map[string]map[string]any{}}
	for name, bits := range map[string]int{"rsa1": 1024, "rsa2": 2048} {
		key, err := rsa.GenerateKey(crand.Reader, bits)
		must(err)
		k.private[name] = key
		k.public[name] = map[string]any{"kty": "RSA", "n": b64(key.N.Bytes()), "e": b64(big.NewInt(int64(key.E)).Bytes())}
	}
	k.public["rsa1"]["alg"] = "RS256"
	for name, curve := range map[string]elliptic.Curve{"ec256": elliptic.P256(), "ec384": elliptic.P384(), "ec521": elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, crand.Reader)
		must(err)
		k.private[name] = key
		k.public[name] = map[string]any{"kty": "EC", "crv": curve.Params().Name, "x": b64(key.X.Bytes()), "y": b64(key.Y.Bytes())}
	}
	secret := []byte("a secret that nobody knows of but the test")
	k.private["oct"], k.public["oct"] = secret, map[string]any{"kty": "oct", "k": b64(secret)}
	public, private, err := ed25519.GenerateKey(crand.Reader)
	must(err)
	k.private["ed"], k.public["ed"] = private, map[string]any{"kty": "OKP", "crv": "Ed25519", "x": b64(public)}
	return k
}

// set is a document of some keys, with their names as IDs.
func (k *keychain) set(names ...string) string {
	var list []any
	for _, name := range names {
		one := map[string]any{"kid": name}
		maps.Copy(one, k.public[name])
		list = append(list, one)
	}
	return document(list)
}

// loose is a document of all keys that say nothing of ID and algorithm, and of what is no key.
func (k *keychain) loose() string {
	list := []any{"no key", map[string]any{"kty": "what"}}
	for _, name := range keyNames {
		one := map[string]any{}
		for f, v := range k.public[name] {
			if f != "alg" {
				one[f] = v
			}
		}
		list = append(list, one)
	}
	return document(list)
}

func document(list []any) string {
	text, _ := json.Marshal(map[string]any{"keys": list})
	return string(text)
}

// A maker makes tokens at random, most of them nearly good.
type maker struct {
	*rand.Rand
	keys *keychain
}

func (m *maker) chance(percent int) bool { return m.IntN(100) < percent }

func pick[T any](m *maker, list ...T) T { return list[m.IntN(len(list))] }

var algorithms = map[string][]string{
	"rsa1": {"RS256"}, "rsa2": {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}, "ec256": {"ES256"}, "ec384": {"ES384"}, "ec521": {"ES512"},
	"oct": {"HS256", "HS384", "HS512"}, "ed": {"EdDSA"},
}

// owner is whose tokens a key signs.
var owner = map[string]string{"rsa1": "iss-rs", "rsa2": "iss-rs", "ec256": "iss-es", "ec384": "iss-es", "ec521": "iss-es", "oct": "iss-hs", "ed": "iss-ed"}

// token makes one that a key signs, for its owner where iss is "".
func (m *maker) token(name, iss string) string {
	algorithm := pick(m, algorithms[name]...)
	header := map[string]any{"alg": algorithm, "typ": "JWT"}
	switch {
	case m.chance(60):
		header["kid"] = name
	case m.chance(20):
		header["kid"] = pick[any](m, "unknown", "", 1, nil, keyNames[m.IntN(len(keyNames))])
	}
	if m.chance(6) {
		header["alg"] = pick[any](m, "none", "None", "HS256", "RS256", "ES256", "PS256", "EdDSA", "ES256K", "", 7, nil, "RS", "hs256")
	}
	if m.chance(1) {
		delete(header, "alg")
	}
	head := m.json(header)
	text := b64([]byte(head)) + "." + b64([]byte(m.json(m.claims(name, iss))))
	if m.chance(2) {
		text = m.spoiled(text)
	}
	key := m.keys.private[name]
	if m.chance(2) { // the public key as if it were a secret
		key, algorithm = []byte(b64(m.keys.private["rsa2"].(*rsa.PrivateKey).N.Bytes())), "HS256"
	}
	signature := m.sign(key, algorithm, text)
	if m.chance(4) && len(signature) > 2 {
		switch m.IntN(5) {
		case 0:
			signature[m.IntN(len(signature))] ^= 1
		case 1:
			signature = signature[:m.IntN(len(signature))]
		case 2:
			signature = append(signature, 0)
		case 3:
			signature = nil
		case 4:
			half := len(signature) / 2
			signature = append(append(append([]byte{0}, signature[:half]...), 0), signature[half:]...)
		}
	}
	text += "." + b64(signature)
	switch {
	case m.chance(3):
		text = m.spoiled(text)
	case m.chance(1):
		text = m.recoded(text)
	}
	return text
}

// claims are those of an issuer, more or less.
func (m *maker) claims(name, iss string) map[string]any {
	c := map[string]any{"iss": iss, "sub": pick(m, "admin", "admin", "user", "adm x", "spaced  out words")}
	if iss == "" {
		c["iss"] = owner[name]
	}
	if iss == "" && m.chance(40) || m.chance(5) {
		c["iss"] = pick[any](m, "iss-rs", "iss-es", "iss-hs", "iss-loose", "iss-loose", "iss-loose", "iss-bad", "iss-fetched", "iss-ahead", "iss-lost", "nobody", "")
	}
	now := time.Now().Unix()
	if m.chance(70) {
		c["exp"] = now + pick[int64](m, 3600, 3600, 3600, 600, 600, 6000, 36000, -30, -500, -5000)
	}
	if m.chance(20) {
		c["nbf"] = now + pick[int64](m, -3600, -10, 30, 500, 5000)
	}
	if m.chance(10) {
		c["iat"] = now
	}
	if m.chance(60) {
		c["aud"] = pick[any](m, "aud1", "aud1", "aud1", []any{"aud1", "aud2"}, "aud2", "aud3", "https://aud1", "http://aud2/", "aud2//", "aud9", "nobody", []any{"x", "aud1"}, []any{}, []any{"no", "body"})
	}
	if m.chance(25) {
		c["scope"] = pick[any](m, "one two", "one", "", " ", "  a  b ", []any{"x"}, 1)
	}
	if m.chance(30) {
		c["num"] = pick[any](m, 1, 0, -1, 1.5, 1e15, 1e20, 123456789012, 1e-7, 18446744073709549568.0, true, false, nil, "text", 0.1, 1e300, 16777217)
	}
	if m.chance(20) {
		c["list"] = pick[any](m, []any{}, []any{1, "two", nil, 2.5, 1e21, 1e15, 123456789012345678}, map[string]any{"k": "v<>&\"\\\u00e9\n"}, map[string]any{}, []any{[]any{[]any{}}}, "plain")
	}
	if m.chance(10) {
		c["n"] = pick[any](m, map[string]any{"m": "nested"}, map[string]any{"m": map[string]any{}}, "flat", nil)
	}
	if m.chance(10) {
		c["a.b"] = pick[any](m, map[string]any{"c": "dotted"}, map[string]any{"c": 7}, 1)
	}
	if m.chance(10) {
		c[pick(m, "iss", "sub", "iat", "nbf", "exp", "jti", "aud")] = pick[any](m, 1, "1", nil, true, -1, 1e30, []any{1}, map[string]any{}, 1.5, 0, "")
	}
	return c
}

// json writes an object, now and then in a form that not everybody reads.
func (m *maker) json(v map[string]any) string {
	text, _ := json.Marshal(v)
	s := string(text)
	if !m.chance(8) {
		return s
	}
	inner := strings.TrimSuffix(s, "}")
	switch m.IntN(24) {
	case 0:
		return inner + ",}"
	case 1:
		return strings.ReplaceAll(s, `"`, `'`)
	case 2:
		return inner + `,"sub":"again"}`
	case 3:
		return inner + `,bare:1}`
	case 4:
		return inner + `,"x":` + strings.Repeat("[", 98) + strings.Repeat("]", 98) + "}"
	case 5:
		return inner + `,"x":` + strings.Repeat("[", 99) + strings.Repeat("]", 99) + "}"
	case 6:
		return inner + `,"x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + "}"
	case 7:
		return inner + ",\"x\":\"\xff\"}"
	case 8:
		return inner + ",\"x\":\"\xc0\x80 \xed\xa0\x80\"}"
	case 9:
		return inner + `,"x":` + pick(m, "01", "1.", ".5", "1e", "1e5", "-", "+1", "1e999", "1e-999", "NaN", "-0", "--1", "0x1", "1_0", "1.5.5") + "}"
	case 10:
		return inner + `,"x":"` + pick(m, `\u0041`, `\ud83d\ude00`, `\ud83d`, `\ude00`, `\U0041`, `\q`, `\'`, `\u00`, "a\tb", "a\nb", `\u0000`, `\udbff\udfff`) + `"}`
	case 11:
		return s + pick(m, " ", "\n", "x", "{}", "\x00")
	case 12:
		return "null"
	case 13:
		return pick(m, "[]", "1", `"x"`, "", "{", "{}", "{,}", "true", " {}")
	case 14:
		return pick(m, " ", "\t", "\n", "\r", "\v", "\ufeff") + s
	case 15:
		return inner + `,"x":[1,2,]}`
	case 16:
		return inner + `,"x":[1 2]}`
	case 17:
		return inner + `,"x":` + pick(m, "tru", "TRUE", "nul", "nulll", "truex", "false") + "}"
	case 18:
		return inner + `,null:1}`
	case 19:
		return inner + `,1a:1}`
	case 20:
		return inner + pick(m, ",$a_1:1}", ",_a1:1}", ",a-b:1}", ",a b:1}", ",A:1}")
	case 21:
		return inner + `,"":1}`
	case 22:
		return inner + `,"x" : {"y" :1 , } }`
	default:
		return inner + `,"x":[,]}`
	}
}

// spoiled changes a text a little.
func (m *maker) spoiled(text string) string {
	i := m.IntN(len(text))
	switch m.IntN(8) {
	case 0:
		return text[:i] + pick(m, "!", "=", "+", "/", ".", " ", "\t", "%", "\"", "é") + text[i:]
	case 1:
		return text[:i] + text[i+1:]
	case 2:
		return text + pick(m, ".", "=", "==", ".x", " x", ",x", "..")
	case 3:
		return pick(m, ".", "..", " ", "x") + text
	case 4:
		return strings.ReplaceAll(text, ".", pick(m, "..", "", ". ", "=.", "==."))
	case 5:
		return text[:i]
	case 6:
		return pick(m, "", "x", "a.b", "a.b.c", "...", ".", "a.b.c.d")
	default:
		return text[:i] + string("ABCabc019-_"[m.IntN(11)]) + text[min(i+1, len(text)):]
	}
}

// recoded pads the sections, or sets bits that mean nothing.
func (m *maker) recoded(text string) string {
	parts := strings.Split(text, ".")
	for i, p := range parts {
		if over := len(p) % 4; over > 1 && m.chance(50) {
			parts[i] = p + strings.Repeat(pick(m, "=", "="), 4-over)
		}
	}
	return strings.Join(parts, ".")
}

func (m *maker) sign(key any, algorithm, text string) []byte {
	h := crypto.SHA256
	switch {
	case strings.HasSuffix(algorithm, "384"):
		h = crypto.SHA384
	case strings.HasSuffix(algorithm, "512"):
		h = crypto.SHA512
	}
	sum := h.New()
	sum.Write([]byte(text))
	digest := sum.Sum(nil)
	switch key := key.(type) {
	case *rsa.PrivateKey:
		if strings.HasPrefix(algorithm, "PS") {
			salt := pick(m, rsa.PSSSaltLengthEqualsHash, rsa.PSSSaltLengthEqualsHash, rsa.PSSSaltLengthEqualsHash, 10)
			s, err := rsa.SignPSS(crand.Reader, key, h, digest, &rsa.PSSOptions{SaltLength: salt})
			return good(s, err)
		}
		s, err := rsa.SignPKCS1v15(nil, key, h, digest)
		return good(s, err)
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(crand.Reader, key, digest)
		size := (key.Params().BitSize + 7) / 8
		return good(append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...), err)
	case ed25519.PrivateKey:
		return ed25519.Sign(key, []byte(text))
	case []byte:
		mac := hmac.New(func() hash.Hash { return h.New() }, key)
		mac.Write([]byte(text))
		return mac.Sum(nil)
	}
	panic(fmt.Sprintf("no way to sign with %T", key))
}

func good(s []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return s
}
