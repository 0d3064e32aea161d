package jwt

import (
	"math"
	"strings"
)

// MaxToken bounds a token, in bytes.
const MaxToken = 64 << 10

// A Token is a parsed JSON Web Token (RFC 7519) of which nothing has been verified yet. It is
// not changed after Parse.
type Token struct {
	// Header and Payload are the JSON objects: values are nil, bool, float64, string, []any
	// and map[string]any.
	Header, Payload map[string]any
	// PayloadText is the payload as the token has it, base64url.
	PayloadText string

	Algorithm, KeyID string // alg and kid of the header; "" without kid
	Issuer, Subject  string // "" without
	Audiences        []string
	// NotBefore and Expires are seconds since 1970, 0 where the token does not say.
	NotBefore, Expires uint64

	signed    string // what the signature is of
	signature []byte
}

// algorithms are those that are known; "none" is none of them.
var algorithms = map[string]bool{
	"ES256": true, "ES384": true, "ES512": true, "HS256": true, "HS384": true, "HS512": true, "RS256": true, "RS384": true,
	"RS512": true, "PS256": true, "PS384": true, "PS512": true, "EdDSA": true,
}

// Parse reads a token in compact form (RFC 7515, section 7.1). Dots that nothing stands
// between count as one, as in Envoy.
func Parse(text string) (*Token, Status) {
	if len(text) > MaxToken {
		return nil, BadForm
	}
	var sections [3]string
	n := 0
	for part := range strings.SplitSeq(text, ".") {
		if part == "" {
			continue
		}
		if n == len(sections) {
			return nil, BadForm
		}
		sections[n] = part
		n++
	}
	if n != len(sections) {
		return nil, BadForm
	}
	t := &Token{PayloadText: sections[1], signed: sections[0] + "." + sections[1]}
	if status := t.readHeader(sections[0]); status != OK {
		return nil, status
	}
	if status := t.readPayload(sections[1]); status != OK {
		return nil, status
	}
	var ok bool
	if t.signature, ok = decode(sections[2]); !ok {
		return nil, BadSignatureBase64
	}
	return t, OK
}

func (t *Token) readHeader(text string) Status {
	raw, ok := decode(text)
	if !ok {
		return BadHeaderBase64
	}
	var err error
	if t.Header, err = parseObject(string(raw)); err != nil {
		return BadHeaderJSON
	}
	if t.Algorithm, ok = t.Header["alg"].(string); !ok {
		return BadAlgorithm
	}
	if !algorithms[t.Algorithm] {
		return UnsupportedAlgorithm
	}
	return member(t.Header, "kid", &t.KeyID, BadKeyID)
}

func (t *Token) readPayload(text string) Status {
	raw, ok := decode(text)
	if !ok {
		return BadPayloadBase64
	}
	var err error
	if t.Payload, err = parseObject(string(raw)); err != nil {
		return BadPayloadJSON
	}
	var issued uint64
	var id string
	for _, status := range []Status{
		member(t.Payload, "iss", &t.Issuer, BadIssuer),
		member(t.Payload, "sub", &t.Subject, BadSubject),
		seconds(t.Payload, "iat", &issued, BadIssuedAt, IssuedAtRange),
		seconds(t.Payload, "nbf", &t.NotBefore, BadNotBefore, NotBeforeRange),
		seconds(t.Payload, "exp", &t.Expires, BadExpiration, ExpirationRange),
		member(t.Payload, "jti", &id, BadID),
		t.readAudiences(),
	} {
		if status != OK {
			return status
		}
	}
	return OK
}

// member reads a string that need not be there.
func member(from map[string]any, name string, to *string, wrong Status) Status {
	v, there := from[name]
	if !there {
		return OK
	}
	var ok bool
	if *to, ok = v.(string); !ok {
		return wrong
	}
	return OK
}

// seconds reads a time that need not be there.
func seconds(from map[string]any, name string, to *uint64, wrong, beyond Status) Status {
	v, there := from[name]
	if !there {
		return OK
	}
	n, ok := v.(float64)
	if !ok {
		return wrong
	}
	if n < 0 || n >= math.MaxUint64 {
		return beyond
	}
	*to = uint64(n)
	return OK
}

func (t *Token) readAudiences() Status {
	switch aud := t.Payload["aud"].(type) {
	case string:
		t.Audiences = []string{aud}
		return OK
	case []any:
		for _, one := range aud {
			text, ok := one.(string)
			if !ok {
				return BadAudience
			}
			t.Audiences = append(t.Audiences, text)
		}
		return OK
	}
	if _, there := t.Payload["aud"]; there {
		return BadAudience
	}
	return OK
}

// CheckTime compares nbf and exp with now, give or take skew, all in seconds since 1970.
func (t *Token) CheckTime(now, skew uint64) Status {
	switch {
	case now+skew < t.NotBefore:
		return NotYetValid
	case t.Expires != 0 && now > t.Expires+skew:
		return Expired
	}
	return OK
}
