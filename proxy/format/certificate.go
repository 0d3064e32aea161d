package format

import (
	"crypto/x509"
	"encoding/hex"
	"hash"
	"time"
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

func fingerprint(dst []byte, h hash.Hash, c *x509.Certificate) []byte {
	h.Write(c.Raw) // never fails
	return hex.AppendEncode(dst, h.Sum(nil))
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
