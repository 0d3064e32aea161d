// Package spiffe has the identities of workloads, as certificates of the mesh carry them
// (https://spiffe.io, and page "Security" of Istio):
//
//	spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT
package spiffe

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

// Scheme begins every identity.
const Scheme = "spiffe://"

// maxID bounds an identity in bytes (SPIFFE ID, section 2.3).
const maxID = 2048

// An ID says who a workload is.
type ID struct{ TrustDomain, Namespace, ServiceAccount string }

// part is what a trust domain, a namespace and an account are made of: nothing that would
// end a part of the URI, or need an escape in it.
var part = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$`)

// String is the URI.
func (id ID) String() string {
	return Scheme + id.TrustDomain + "/ns/" + id.Namespace + "/sa/" + id.ServiceAccount
}

// URL is the URI as a certificate has it.
func (id ID) URL() *url.URL {
	return &url.URL{Scheme: strings.TrimSuffix(Scheme, "://"), Host: id.TrustDomain, Path: "/ns/" + id.Namespace + "/sa/" + id.ServiceAccount}
}

// Validate says which part of the identity cannot be one.
func (id ID) Validate() error {
	for _, p := range []struct{ name, value string }{{"trust domain", id.TrustDomain}, {"namespace", id.Namespace}, {"service account", id.ServiceAccount}} {
		if !part.MatchString(p.value) {
			return fmt.Errorf("%q is no %s", p.value, p.name)
		}
	}
	return nil
}

// Parse reads a URI. What is not exactly as String writes it is an error.
func Parse(uri string) (ID, error) {
	rest, ok := strings.CutPrefix(uri, Scheme)
	parts := strings.Split(rest, "/")
	if !ok || len(uri) > maxID || len(parts) != 5 || parts[1] != "ns" || parts[3] != "sa" {
		return ID{}, fmt.Errorf("%.100q is not %sTRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT", uri, Scheme)
	}
	id := ID{parts[0], parts[2], parts[4]}
	if err := id.Validate(); err != nil {
		return ID{}, fmt.Errorf("%.100q: %w", uri, err)
	}
	return id, nil
}
