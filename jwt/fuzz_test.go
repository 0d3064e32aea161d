package jwt_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lateen-mesh/lateen/jwt"
)

// FuzzParse: no text does harm, and an object that encoding/json reads as one without doubt is
// read alike.
func FuzzParse(f *testing.F) {
	for _, payload := range []string{`{}`, `{"iss":"a","exp":1.5e3,"aud":["b"]}`, `{'a':[1,],b:null}`, `{"a":"\ud83d\ude00"}`, `null`, `{"a":1,"a":2}`} {
		f.Add(`{"alg":"HS256","kid":"k"}`, payload, "AA")
	}
	keys, err := jwt.ParseKeys([]byte(`{"keys":[{"kty":"oct","k":"AA"}]}`))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, header, payload, signature string) {
		for _, text := range []string{b64(header) + "." + b64(payload) + "." + signature, header + "." + payload + "." + signature, payload} {
			token, status := jwt.Parse(text)
			if status != jwt.OK {
				continue
			}
			token.CheckTime(1000, 60)
			keys.Verify(token)
		}
		var want map[string]any
		token, status := jwt.Parse(b64(`{"alg":"HS256"}`) + "." + b64(payload) + ".AA")
		if status == jwt.OK && json.Unmarshal([]byte(payload), &want) == nil && json.Valid([]byte(payload)) && len(want) > 0 {
			if diff := cmp.Diff(canonical(t, want), canonical(t, token.Payload)); diff != "" {
				t.Errorf("(-encoding/json +ours):\n%s", diff)
			}
		}
	})
}

// canonical is a value as JSON, in which bytes that are not UTF-8 are alike.
func canonical(t *testing.T, v any) string {
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var again any
	if err := json.Unmarshal(out, &again); err != nil {
		t.Fatal(err)
	}
	out, _ = json.Marshal(again)
	return string(out)
}

// FuzzParseKeys: no document does harm.
func FuzzParseKeys(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kty":"RSA","n":"AQ","e":"AQAB"},{"kty":"EC","crv":"P-521","x":"AQ","y":"AQ"},{"kty":"OKP","crv":"Ed25519","x":"AQ"},{"kty":"oct","k":"AA"}]}`))
	f.Add([]byte(`{"a":"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"}`))
	token, _ := jwt.Parse(b64(`{"alg":"ES256"}`) + "." + b64(`{}`) + ".AAAA")
	f.Fuzz(func(_ *testing.T, document []byte) {
		if keys, err := jwt.ParseKeys(document); err == nil {
			keys.Verify(token)
		}
	})
}
