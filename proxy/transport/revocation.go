package transport

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// revocations are the lists of revoked certificates that a validation context has.
type revocations struct {
	lists    []*x509.RevocationList
	leafOnly bool // only_verify_leaf_cert_crl
}

// compileRevocations reads all lists of a PEM text.
func compileRevocations(text []byte, from string) ([]*x509.RevocationList, error) {
	var lists []*x509.RevocationList
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return lists, nil
		}
		if block.Type != "X509 CRL" {
			continue
		}
		l, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("failed to load CRL from %s: %w", from, err)
		}
		lists = append(lists, l)
	}
}

// A chainError is a certificate at a depth that does not hold, in OpenSSL's words.
type chainError struct {
	depth int
	text  string
}

func (e *chainError) Error() string { return e.text }

// check looks every certificate of the chain up in the list of its issuer; the last one is
// its own issuer, or a trusted one whose issuer is not known.
func (r *revocations) check(chain []*x509.Certificate, now time.Time) error {
	if r == nil || len(r.lists) == 0 {
		return nil
	}
	for depth, c := range chain {
		if depth > 0 && r.leafOnly {
			return nil
		}
		issuer := c
		if depth+1 < len(chain) {
			issuer = chain[depth+1]
		}
		if err := r.one(c, issuer, now); err != "" {
			return &chainError{depth, err}
		}
	}
	return nil
}

// one is what is wrong with c, "" for nothing.
func (r *revocations) one(c, issuer *x509.Certificate, now time.Time) string {
	list := r.of(c)
	switch {
	case list == nil:
		return "unable to get certificate CRL"
	case issuer.KeyUsage != 0 && issuer.KeyUsage&x509.KeyUsageCRLSign == 0:
		return "key usage does not include CRL signing"
	case list.CheckSignatureFrom(issuer) != nil:
		return "CRL signature failure"
	case now.Before(list.ThisUpdate):
		return "CRL is not yet valid"
	case !list.NextUpdate.IsZero() && now.After(list.NextUpdate):
		return "CRL has expired"
	}
	for i := range list.RevokedCertificateEntries {
		if list.RevokedCertificateEntries[i].SerialNumber.Cmp(c.SerialNumber) == 0 {
			return "certificate revoked"
		}
	}
	return ""
}

// of is the newest list of c's issuer.
func (r *revocations) of(c *x509.Certificate) (newest *x509.RevocationList) {
	for _, l := range r.lists {
		if bytes.Equal(l.RawIssuer, c.RawIssuer) && (newest == nil || l.ThisUpdate.After(newest.ThisUpdate)) {
			newest = l
		}
	}
	return newest
}

// acceptable reports whether one of the verified chains is short enough and free of
// revoked certificates; the error is that of the first.
func (v *validation) acceptable(chains [][]*x509.Certificate) error {
	var first error
	for _, chain := range chains {
		var err error
		if v.depth != nil && len(chain)-1 > *v.depth {
			err = &chainError{*v.depth + 1, "certificate chain too long"}
		}
		err = errors.Join(err, v.revoked.check(chain, time.Now()))
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	return first
}
