package transport

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
)

// A selection chooses a server's certificate by the client's server name, what keys it
// can check and whether it asks for a staple. It is immutable.
type selection struct {
	all    []shown
	byName map[string][]int // exact names and ".suffix" of wildcards
	policy tlsv3.DownstreamTlsContext_OcspStaplePolicy
	full   bool // full_scan_certs_on_sni_mismatch
	stats  *tlsStats
}

// newSelection reads the names of the certificates: those of the subject alternative
// names, else the common name.
func (s *server) newSelection(certs []tls.Certificate) (*selection, error) {
	sel := &selection{byName: map[string][]int{}, policy: s.staples, full: s.fullScan, stats: s.stats}
	for i := range certs {
		one, err := newShown(&certs[i], s.params.signatures)
		if err != nil {
			return nil, err
		}
		if s.staples == tlsv3.DownstreamTlsContext_MUST_STAPLE && len(one.staple.der) == 0 {
			return nil, errors.New("required OCSP response is missing from TLS context")
		}
		sel.all = append(sel.all, one)
		names := certs[i].Leaf.DNSNames
		if len(names) == 0 && certs[i].Leaf.Subject.CommonName != "" {
			names = []string{certs[i].Leaf.Subject.CommonName}
		}
		for _, n := range names {
			n = strings.ToLower(n)
			n = strings.TrimPrefix(n, "*")
			if !slices.Contains(sel.byName[n], i) {
				sel.byName[n] = append(sel.byName[n], i)
			}
		}
	}
	return sel, nil
}

func newShown(c *tls.Certificate, signatures []tls.SignatureScheme) (shown, error) {
	whole := *c
	if whole.Leaf == nil {
		leaf, err := x509.ParseCertificate(whole.Certificate[0])
		if err != nil {
			return shown{}, err
		}
		whole.Leaf, c.Leaf = leaf, leaf
	}
	st, err := compileStaple(whole.OCSPStaple, whole.Leaf)
	if err != nil {
		return shown{}, err
	}
	whole.SupportedSignatureAlgorithms = signatures
	bare := whole
	bare.OCSPStaple = nil
	_, ec := whole.Leaf.PublicKey.(*ecdsa.PublicKey)
	return shown{whole: &whole, bare: &bare, staple: st, ecdsa: ec}, nil
}

var errStaple = errors.New("no certificate has a usable OCSP response")

// choose is GetCertificate.
func (sel *selection) choose(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
	asks := slices.Contains(h.Extensions, extensionStatusRequest)
	if asks {
		sel.stats.asked()
	}
	first := 0
	if list := sel.named(h.ServerName); len(list) > 0 {
		if i, ok := sel.fitting(h, list, asks); ok {
			return sel.show(i, asks), nil
		}
	} else if sel.full {
		every := make([]int, len(sel.all))
		for i := range every {
			every[i] = i
		}
		if i, ok := sel.fitting(h, every, asks); ok {
			return sel.show(i, asks), nil
		}
	}
	if sel.all[first].staple.action(sel.policy, asks, time.Now()) == refusedStaple {
		sel.stats.stapleFailed()
		return nil, errStaple
	}
	return sel.show(first, asks), nil
}

// extensionStatusRequest is how a client asks for a staple.
const extensionStatusRequest = 5

// named lists the certificates for a name: those of the very name, else those of its
// wildcard.
func (sel *selection) named(name string) []int {
	if name == "" || len(sel.all) == 1 {
		return nil
	}
	name = strings.ToLower(name)
	if list := sel.byName[name]; len(list) > 0 {
		return list
	}
	if _, rest, ok := strings.Cut(name, "."); ok {
		return sel.byName["."+rest]
	}
	return nil
}

// fitting is the first certificate whose kind of key is the best that the client can
// check, and whose staple may be used.
func (sel *selection) fitting(h *tls.ClientHelloInfo, list []int, asks bool) (int, bool) {
	anyName := *h
	anyName.ServerName = ""
	spare, found := 0, false
	for _, i := range list {
		one := &sel.all[i]
		if one.staple.action(sel.policy, asks, time.Now()) == refusedStaple || anyName.SupportsCertificate(one.whole) != nil {
			continue
		}
		if one.ecdsa {
			return i, true
		}
		if !found {
			spare, found = i, true
		}
	}
	return spare, found
}

func (sel *selection) show(i int, asks bool) *tls.Certificate {
	one := &sel.all[i]
	switch one.staple.action(sel.policy, asks, time.Now()) {
	case stapled:
		sel.stats.stapled()
		return one.whole
	default:
		if asks {
			sel.stats.unstapled()
		}
		return one.bare
	}
}

// signatures are the algorithms by the names of a configuration.
var signatureNames = map[string]tls.SignatureScheme{
	"rsa_pkcs1_sha256": tls.PKCS1WithSHA256, "rsa_pkcs1_sha384": tls.PKCS1WithSHA384, "rsa_pkcs1_sha512": tls.PKCS1WithSHA512,
	"ecdsa_secp256r1_sha256": tls.ECDSAWithP256AndSHA256, "ecdsa_secp384r1_sha384": tls.ECDSAWithP384AndSHA384,
	"ecdsa_secp521r1_sha512": tls.ECDSAWithP521AndSHA512, "rsa_pss_rsae_sha256": tls.PSSWithSHA256, "rsa_pss_rsae_sha384": tls.PSSWithSHA384,
	"rsa_pss_rsae_sha512": tls.PSSWithSHA512, "ed25519": tls.Ed25519, "rsa_pkcs1_sha1": tls.PKCS1WithSHA1, "ecdsa_sha1": tls.ECDSAWithSHA1,
}

func compileSignatures(names []string) ([]tls.SignatureScheme, error) {
	var list []tls.SignatureScheme
	for _, entry := range names {
		for name := range strings.SplitSeq(entry, ":") {
			s, ok := signatureNames[name]
			if !ok {
				return nil, fmt.Errorf("failed to initialize TLS signature algorithms %s", name)
			}
			list = append(list, s)
		}
	}
	return list, nil
}
