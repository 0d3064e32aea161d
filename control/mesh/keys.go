package mesh

import (
	"strings"
	"time"

	security "istio.io/api/security/v1beta1"
)

// RemoteKeys says who fetches the keys that tokens are checked with, from where rules of a
// RequestAuthentication say (PILOT_JWT_ENABLE_REMOTE_JWKS).
type RemoteKeys uint8

// Who fetches keys.
const (
	KeysByControlPlane RemoteKeys = iota
	KeysByKnownProxies            // proxies that have a cluster for the place, else the control plane
	KeysByProxies                 // proxies alone
)

// A KeySource is where the keys of an issuer are.
type KeySource struct {
	URL       string // of a JSON Web Key Set, or of a document with its jwks_uri (OpenID Connect Discovery)
	Discovery bool   // the second
}

// KeySourceOf is where the keys of a rule are to be fetched; the URL is "" where they are in
// the rule.
func KeySourceOf(r *security.JWTRule) KeySource {
	switch {
	case r.GetJwks() != "":
		return KeySource{}
	case r.GetJwksUri() != "":
		return KeySource{URL: r.GetJwksUri()}
	}
	return KeySource{URL: strings.TrimSuffix(r.GetIssuer(), "/") + "/.well-known/openid-configuration", Discovery: true}
}

// Keys are the key sets that were fetched, by source; a value that is not changed.
type Keys map[KeySource]string

// KeySources are all places that the control plane is to fetch keys from, with the longest
// that a rule lets a fetch take (0: by default).
func (s *Snapshot) KeySources() map[KeySource]time.Duration {
	all := map[KeySource]time.Duration{}
	for _, a := range s.AllRequestAuthentications() {
		for _, r := range a.Spec.GetJwtRules() {
			k := KeySourceOf(r)
			if k.URL != "" && (k.Discovery || s.RemoteKeys != KeysByProxies) {
				all[k] = max(all[k], r.GetTimeout().AsDuration())
			}
		}
	}
	return all
}
