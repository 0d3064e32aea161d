package transport

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
)

// A staple is an OCSP response that is shown with a certificate.
type staple struct {
	der     []byte // nil: none
	expires time.Time
	must    bool // the certificate asks for one (RFC 7633)
}

// The parts of an OCSP response (RFC 6960) that are looked at.
type (
	ocspResponse struct {
		Status asn1.Enumerated
		Bytes  ocspBytes `asn1:"explicit,tag:0,optional"`
	}
	ocspBytes struct {
		Kind     asn1.ObjectIdentifier
		Response []byte
	}
	ocspBasic struct {
		Data      ocspData
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
		Certs     []asn1.RawValue `asn1:"explicit,tag:0,optional"`
	}
	ocspData struct {
		Version   int `asn1:"optional,default:0,explicit,tag:0"`
		Responder asn1.RawValue
		At        time.Time `asn1:"generalized"`
		Responses []ocspSingle
		Extra     []pkix.Extension `asn1:"explicit,tag:1,optional"`
	}
	ocspSingle struct {
		ID         ocspID
		Status     asn1.RawValue
		ThisUpdate time.Time        `asn1:"generalized"`
		NextUpdate time.Time        `asn1:"generalized,explicit,tag:0,optional"`
		Extra      []pkix.Extension `asn1:"explicit,tag:1,optional"`
	}
	ocspID struct {
		Hash              pkix.AlgorithmIdentifier
		IssuerName, Issue []byte
		Serial            *big.Int
	}
)

// compileStaple reads the response for a certificate.
func compileStaple(der []byte, leaf *x509.Certificate) (staple, error) {
	s := staple{der: der, must: mustStaple(leaf)}
	if len(der) == 0 {
		if s.must {
			return s, errors.New("OCSP response is required for must-staple certificate")
		}
		return s, nil
	}
	var r ocspResponse
	if rest, err := asn1.Unmarshal(der, &r); err != nil || len(rest) > 0 {
		return s, fmt.Errorf("failed to parse OCSP response: %w", errors.Join(err, trailing(rest)))
	}
	if r.Status != 0 {
		return s, errors.New("OCSP response was unsuccessful")
	}
	var basic ocspBasic
	if _, err := asn1.Unmarshal(r.Bytes.Response, &basic); err != nil {
		return s, fmt.Errorf("failed to parse OCSP response: %w", err)
	}
	if n := len(basic.Data.Responses); n != 1 {
		return s, errors.New("OCSP response must be for one certificate only")
	}
	one := &basic.Data.Responses[0]
	if one.ID.Serial == nil || one.ID.Serial.Cmp(leaf.SerialNumber) != 0 {
		return s, errors.New("OCSP response does not match its TLS certificate")
	}
	s.expires = one.NextUpdate
	return s, nil
}

func trailing(rest []byte) error {
	if len(rest) > 0 {
		return errors.New("bytes after its end")
	}
	return nil
}

// mustStaple reports the TLS feature extension with status_request.
func mustStaple(leaf *x509.Certificate) bool {
	for _, x := range leaf.Extensions {
		if !x.Id.Equal(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}) {
			continue
		}
		var features []int
		if _, err := asn1.Unmarshal(x.Value, &features); err != nil {
			return false
		}
		if slices.Contains(features, 5) {
			return true
		}
	}
	return false
}

// A stapling is what is done with a certificate's staple for one client.
type stapling uint8

const (
	noStaple stapling = iota // served without
	stapled
	refusedStaple // the certificate may not be used
)

// action decides by the policy, whether the client asks, and the time.
func (s *staple) action(policy tlsv3.DownstreamTlsContext_OcspStaplePolicy, asks bool, now time.Time) stapling {
	valid := len(s.der) > 0 && (s.expires.IsZero() || now.Before(s.expires))
	if s.must {
		policy = tlsv3.DownstreamTlsContext_MUST_STAPLE
	}
	switch {
	case !asks && (policy != tlsv3.DownstreamTlsContext_MUST_STAPLE || valid):
		return noStaple
	case valid:
		return stapled
	case policy == tlsv3.DownstreamTlsContext_MUST_STAPLE,
		policy == tlsv3.DownstreamTlsContext_STRICT_STAPLING && len(s.der) > 0:
		return refusedStaple
	}
	return noStaple
}

// A shown is one certificate of a server with what its choice goes by.
type shown struct {
	whole  *tls.Certificate // with its staple
	bare   *tls.Certificate // without
	staple staple
	ecdsa  bool
}
