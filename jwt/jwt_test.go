package jwt_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lateen-mesh/lateen/jwt"
)

func b64(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

// TestParse: SX-017.
func TestParse(t *testing.T) {
	const alg = `{"alg":"RS256"}`
	for _, c := range []struct {
		name, text string
		want       jwt.Status
	}{
		{"good", b64(alg) + "." + b64(`{}`) + ".AA", jwt.OK},
		{"dots without anything between them", "." + b64(alg) + ".." + b64(`{}`) + ".AA.", jwt.OK},
		{"two sections", "a.b", jwt.BadForm},
		{"four sections", "a.b.c.d", jwt.BadForm},
		{"nothing", "", jwt.BadForm},
		{"too long", strings.Repeat("a", jwt.MaxToken+1), jwt.BadForm},
		{"header of other letters", "+." + b64(`{}`) + ".AA", jwt.BadHeaderBase64},
		{"header that is no JSON", b64("x") + "." + b64(`{}`) + ".AA", jwt.BadHeaderJSON},
		{"no alg", b64(`{}`) + "." + b64(`{}`) + ".AA", jwt.BadAlgorithm},
		{"alg none", b64(`{"alg":"none"}`) + "." + b64(`{}`) + ".", jwt.BadForm},
		{"alg none, signed", b64(`{"alg":"none"}`) + "." + b64(`{}`) + ".AA", jwt.UnsupportedAlgorithm},
		{"kid of a number", b64(`{"alg":"RS256","kid":1}`) + "." + b64(`{}`) + ".AA", jwt.BadKeyID},
		{"payload of other letters", b64(alg) + ".+.AA", jwt.BadPayloadBase64},
		{"payload that is a list", b64(alg) + "." + b64(`[]`) + ".AA", jwt.BadPayloadJSON},
		{"iss", b64(alg) + "." + b64(`{"iss":1}`) + ".AA", jwt.BadIssuer},
		{"sub", b64(alg) + "." + b64(`{"sub":null}`) + ".AA", jwt.BadSubject},
		{"iat", b64(alg) + "." + b64(`{"iat":"1"}`) + ".AA", jwt.BadIssuedAt},
		{"iat before 1970", b64(alg) + "." + b64(`{"iat":-1}`) + ".AA", jwt.IssuedAtRange},
		{"nbf", b64(alg) + "." + b64(`{"nbf":true}`) + ".AA", jwt.BadNotBefore},
		{"nbf beyond", b64(alg) + "." + b64(`{"nbf":1e30}`) + ".AA", jwt.NotBeforeRange},
		{"exp", b64(alg) + "." + b64(`{"exp":[]}`) + ".AA", jwt.BadExpiration},
		{"exp beyond", b64(alg) + "." + b64(`{"exp":18446744073709551616}`) + ".AA", jwt.ExpirationRange},
		{"jti", b64(alg) + "." + b64(`{"jti":1}`) + ".AA", jwt.BadID},
		{"aud", b64(alg) + "." + b64(`{"aud":["a",1]}`) + ".AA", jwt.BadAudience},
		{"signature", b64(alg) + "." + b64(`{}`) + ".A", jwt.BadSignatureBase64},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, got := jwt.Parse(c.text); got != c.want {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

// TestLiberal: what is read although RFC 8259 and RFC 4648 do not allow it, because Envoy does.
func TestLiberal(t *testing.T) {
	for payload, want := range map[string]map[string]any{
		b64(`{'a':"b",}`):                       {"a": "b"},
		b64(`{bare:[1,],x:{}}`):                 {"bare": []any{1.0}, "x": map[string]any{}},
		b64(`null`):                             {},
		b64("{\"a\":\"\t\"}"):                   {"a": "\t"},
		b64(`{"a":"\U0041\'"}`):                 {"a": "A'"},
		b64(`{"a":"\ud83d\ude00"}`):             {"a": "😀"},
		b64(`{"a":1e-999}`):                     {"a": 0.0},
		"e30=":                                  {},
		"e3\t0":                                 {},
		b64(`{"a":1}`) + strings.Repeat("=", 2): {"a": 1.0},
	} {
		token, status := jwt.Parse(b64(`{"alg":"HS256"}`) + "." + payload + ".AA")
		if status != jwt.OK {
			t.Errorf("%s: %v", payload, status)
			continue
		}
		if diff := cmp.Diff(want, token.Payload); diff != "" {
			t.Errorf("%s (-want +got):\n%s", payload, diff)
		}
	}
	for _, payload := range []string{`{"a":1,"a":2}`, `{"a":01}`, `{"a":1e999}`, `{"a":"\ud83d"}`, `{,}`, `{null:1}`, `{"a":1}x`, "{\"a\":\"\xff\"}",
		`{"a":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`} {
		if _, status := jwt.Parse(b64(`{"alg":"HS256"}`) + "." + b64(payload) + ".AA"); status != jwt.BadPayloadJSON {
			t.Errorf("%s: %v", payload, status)
		}
	}
}

// TestVerify holds examples of the RFCs: SX-018.
func TestVerify(t *testing.T) {
	const (
		rsaKey = `{"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"}`
		rs256  = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
		ecKey  = `{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}`
		es256  = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
		octKey = `{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}`
		hs256  = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
		edKey  = `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`
	)
	for _, c := range []struct {
		name, keys, token string
		want              jwt.Status
	}{
		{"RFC 7515, A.2", rsaKey, rs256, jwt.OK},
		{"RFC 7515, A.3", ecKey, es256, jwt.OK},
		{"RFC 7515, A.1", octKey, hs256, jwt.OK},
		{"any of several", edKey[:0] + octKey + "," + ecKey + "," + rsaKey, rs256, jwt.OK},
		{"changed", rsaKey, rs256[:len(rs256)-8] + "AAAAAAAA", jwt.VerificationFails},
		{"another kind of key", ecKey, rs256, jwt.VerificationFails},
		{"the wrong length ends it", edKey + "," + rsaKey, rs256, jwt.SignatureLength},
		{"another alg", strings.Replace(rsaKey, "{", `{"alg":"RS512",`, 1), rs256, jwt.NoKeyMatches},
		{"a kid of the key alone", strings.Replace(rsaKey, "{", `{"kid":"x",`, 1), rs256, jwt.OK},
	} {
		t.Run(c.name, func(t *testing.T) {
			keys, err := jwt.ParseKeys([]byte(`{"keys":[` + c.keys + `]}`))
			if err != nil {
				t.Fatal(err)
			}
			token, status := jwt.Parse(c.token)
			if status != jwt.OK {
				t.Fatal(status)
			}
			if got := keys.Verify(token); got != c.want {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

// TestPublicKeyIsNoSecret: a token that is signed with the bytes of a public key, which
// everybody knows, does not pass for one that is signed with its private half.
func TestPublicKeyIsNoSecret(t *testing.T) {
	const key = `{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}`
	keys, err := jwt.ParseKeys([]byte(`{"keys":[` + key + `]}`))
	if err != nil {
		t.Fatal(err)
	}
	text := b64(`{"alg":"HS256"}`) + "." + b64(`{}`)
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(text))
	token, _ := jwt.Parse(text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil)))
	if got := keys.Verify(token); got != jwt.VerificationFails {
		t.Error(got)
	}
}

func TestBadKeys(t *testing.T) {
	for document, want := range map[string]string{
		`x`:                        "not JSON: offset 0",
		`{}`:                       "keys: missing",
		`{"keys":{}}`:              "keys: not an array",
		`{"keys":[]}`:              "no valid key",
		`{"keys":[1]}`:             "keys[0]: not an object",
		`{"keys":[{}]}`:            "keys[0]: kty: missing",
		`{"keys":[{"kty":1}]}`:     "keys[0]: kty: not a string",
		`{"keys":[{"kty":"x"}]}`:   "keys[0]: kty: not supported",
		`{"keys":[{"kty":"RSA"}]}`: "keys[0]: n: missing",
		`{"keys":[{"kty":"RSA","n":"AQ","e":"AQAB"}]}`:                          "n: has 1 bits, must have 1024 to 16384",
		`{"keys":[{"kty":"RSA","n":"AQ","e":"AQ"}]}`:                            "e: must be 3 or 65537",
		`{"keys":[{"kty":"RSA","n":"AQ","e":"AQAB","alg":"ES256"}]}`:            "alg: not one of RSA",
		`{"keys":[{"kty":"EC","crv":"P-256","x":"AQ","y":"AQ"}]}`:               "x and y: not on the curve",
		`{"keys":[{"kty":"EC","crv":"P-256","alg":"ES384","x":"AQ","y":"AQ"}]}`: "alg and crv: not supported, or of different curves",
		`{"keys":[{"kty":"oct","k":""}]}`:                                       "k: empty",
		`{"keys":[{"kty":"oct","k":"*"}]}`:                                      "k: not base64url",
		`{"keys":[{"kty":"OKP","crv":"X25519"}]}`:                               "crv: not supported",
		`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AQ"}]}`:                     "x: wrong length",
		`{"a":"-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n"}`:  "keys[0]: ",
		`{"keys":[` + strings.Repeat("1,", 300) + `]}`:                          "more than 256 keys",
		strings.Repeat(" ", jwt.MaxKeySet+1):                                    "larger than",
	} {
		if _, err := jwt.ParseKeys([]byte(document)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: %v, want %q in it", document, err, want)
		}
	}
}

// TestAudiences: PO-006.
func TestAudiences(t *testing.T) {
	accepted := jwt.NewAudiences([]string{"a", "https://b/", "http://c"})
	for aud, want := range map[string]bool{"a": true, "a/": true, "https://a": true, "b": true, "http://b": true, "c": true, "d": false, "": false, "b//": false} {
		if accepted.Allow([]string{"x", aud}) != want {
			t.Errorf("%q: %v", aud, !want)
		}
	}
	if accepted.Allow(nil) || !jwt.NewAudiences(nil).Allow(nil) {
		t.Error("a token without audiences")
	}
}

func TestTime(t *testing.T) {
	for _, c := range []struct {
		payload   string
		now, skew uint64
		want      jwt.Status
	}{
		{`{}`, 1000, 0, jwt.OK},
		{`{"exp":1000}`, 1000, 0, jwt.OK},
		{`{"exp":1000}`, 1001, 0, jwt.Expired},
		{`{"exp":1000}`, 1060, 60, jwt.OK},
		{`{"exp":0}`, 1060, 60, jwt.OK},
		{`{"nbf":1000}`, 940, 60, jwt.OK},
		{`{"nbf":1000}`, 939, 60, jwt.NotYetValid},
	} {
		token, _ := jwt.Parse(b64(`{"alg":"HS256"}`) + "." + b64(c.payload) + ".AA")
		if got := token.CheckTime(c.now, c.skew); got != c.want {
			t.Errorf("%s at %d: %v, want %v", c.payload, c.now, got, c.want)
		}
	}
}
