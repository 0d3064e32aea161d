package ir

import "fmt"

// A Secret is key material that a proxy gets by name: a certificate with its key,
// or authorities to check others against. Printing one shows no material.
type Secret struct {
	Name        string
	Certificate []byte // PEM chain, leaf first
	Key         []byte // PEM
	OCSPStaple  []byte // DER
	CA          []byte // PEM
	CRL         []byte // PEM
}

// String names the secret and says nothing of what is in it.
func (s Secret) String() string { return fmt.Sprintf("secret %s (redacted)", s.Name) }

// GoString is String, so that %#v shows no material either.
func (s Secret) GoString() string { return s.String() }
