package format

import (
	"crypto/fips140"
	"crypto/sha1" //nolint:gosec // see fingerprint1
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"hash"
	"net/url"
	"strings"
	"time"

	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

// ofPeer is an operator on the client's certificate, absent without one.
func ofPeer(write func(dst []byte, c *x509.Certificate) []byte) operator {
	return optional(func(dst []byte, r Record) []byte {
		if r.Info.Peer == nil {
			return dst
		}
		return write(dst, r.Info.Peer)
	})
}

// addresses are the IP addresses that the certificate is for.
func addresses(dst []byte, c *x509.Certificate) []byte {
	for i, ip := range c.IPAddresses {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, ip.String()...)
	}
	return dst
}

// serial is the number in lower-case hex, as many digits as its bytes have.
func serial(dst []byte, c *x509.Certificate) []byte {
	return hex.AppendEncode(dst, c.SerialNumber.Bytes())
}

// encodedPEM is the certificate as a PEM block, percent-encoded.
func encodedPEM(dst []byte, c *x509.Certificate) []byte {
	text := url.QueryEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})))
	return append(dst, strings.ReplaceAll(text, "+", "%20")...)
}

func fingerprint(dst []byte, h hash.Hash, c *x509.Certificate) []byte {
	h.Write(c.Raw) // never fails
	return hex.AppendEncode(dst, h.Sum(nil))
}

// fingerprint1 is a name of a certificate that others have given it, by SHA-1. It is none that
// anything trusts, so FIPS 140-3 has no say in it.
func fingerprint1(dst []byte, c *x509.Certificate) []byte {
	fips140.WithoutEnforcement(func() { dst = fingerprint(dst, sha1.New(), c) }) //nolint:gosec // what the operator means
	return dst
}

// validity is a moment of the client's certificate; zero is none.
func validity(of func(*x509.Certificate) time.Time) func(Record) time.Time {
	return func(r Record) time.Time {
		if r.Info.Peer == nil {
			return time.Time{}
		}
		return of(r.Info.Peer)
	}
}

// ofServer is an operator on the upstream's certificate, absent without one; ofShown on ours.
func ofServer(write func(dst []byte, c *streaminfo.Certificate) []byte) operator {
	return ofUpstreamCert(func(t *streaminfo.TLS) *streaminfo.Certificate { return t.Peer }, write)
}

func ofShown(write func(dst []byte, c *streaminfo.Certificate) []byte) operator {
	return ofUpstreamCert(func(t *streaminfo.TLS) *streaminfo.Certificate { return t.Local }, write)
}

func ofUpstreamCert(of func(*streaminfo.TLS) *streaminfo.Certificate, write func(dst []byte, c *streaminfo.Certificate) []byte) operator {
	return optional(func(dst []byte, r Record) []byte {
		if r.Info.UpstreamTLS == nil || of(r.Info.UpstreamTLS) == nil {
			return dst
		}
		return write(dst, of(r.Info.UpstreamTLS))
	})
}

// ofUpstreamTLS is an operator on the handshake upstream, absent without one.
func ofUpstreamTLS(get func(*streaminfo.TLS) string) operator {
	return text(func(i *streaminfo.Info) string {
		if i.UpstreamTLS == nil {
			return ""
		}
		return get(i.UpstreamTLS)
	})
}

// serverValidity is a moment of the upstream's certificate; zero is none.
func serverValidity(of func(*x509.Certificate) time.Time) func(Record) time.Time {
	return func(r Record) time.Time {
		if r.Info.UpstreamTLS == nil || r.Info.UpstreamTLS.Peer == nil {
			return time.Time{}
		}
		return of(r.Info.UpstreamTLS.Peer.X509)
	}
}
