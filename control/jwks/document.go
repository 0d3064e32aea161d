package jwks

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
)

// keysOf reads a discovery document (OpenID Connect Discovery 1.0, section 4): where the keys
// of the issuer are.
func keysOf(text []byte) (string, error) {
	var document struct {
		URL string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(text, &document); err != nil {
		return "", fmt.Errorf("is not a discovery document: %w", err)
	}
	u, err := url.Parse(document.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", errors.New("has no jwks_uri of http or https")
	}
	return document.URL, nil
}

// keySet reads a JSON Web Key Set (RFC 7517, section 5) with at least one key, and writes it
// without spaces. What is in the keys is for proxies to judge.
func keySet(text []byte) (string, error) {
	var set struct {
		Keys []map[string]json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return "", fmt.Errorf("is not a JSON Web Key Set: %w", err)
	}
	if len(set.Keys) == 0 {
		return "", errors.New("is not a JSON Web Key Set: it has no keys")
	}
	var out bytes.Buffer
	if err := json.Compact(&out, text); err != nil {
		return "", err
	}
	return out.String(), nil
}
