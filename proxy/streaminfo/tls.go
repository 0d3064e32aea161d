package streaminfo

import "crypto/x509"

// TLS are the facts of one handshake. All streams of the connection share them; they do not
// change.
type TLS struct {
	Version string // "TLSv1.3"
	Cipher  string // OpenSSL's name of the suite
	Group   string // of the key exchange, "" for none
	// Peer and Local are the two ends, nil where an end has shown no certificate.
	Peer, Local *Certificate
}

// A Certificate is who an end of a connection is, in the form in which logs print it.
type Certificate struct {
	X509            *x509.Certificate
	Subject, Issuer string
	URIs, DNS       []string
}

// Names are the URI names of the two ends, "" for none; t may be nil.
func (t *TLS) Names() (peer, local string) {
	if t == nil {
		return "", ""
	}
	return t.Peer.uri(), t.Local.uri()
}

func (c *Certificate) uri() string {
	if c == nil || len(c.URIs) == 0 {
		return ""
	}
	return c.URIs[0]
}
