package control

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// serving is the certificate of the webhooks, which is its own authority: the API is told to
// trust it and nobody else.
type serving struct {
	certificate tls.Certificate
	bundle      []byte // PEM, without the key
}

const (
	servingFile     = "webhook.pem" // in the directory of the state, mode 0600: it has the key
	servingLife     = 10 * 365 * 24 * time.Hour
	servingLeft     = 30 * 24 * time.Hour // less than this is too little for a start
	certificateType = "CERTIFICATE"
	keyType         = "EC PRIVATE KEY"
)

// newServing takes the certificate of the last run out of the state, if it is still good for
// these names, else makes one and keeps it there. Without a directory it lives in memory.
func newServing(state string, names []string) (*serving, error) {
	if state == "" {
		text, err := makeServing(names)
		if err != nil {
			return nil, err
		}
		return readServing(text, names)
	}
	path := filepath.Join(state, servingFile)
	text, err := os.ReadFile(path)
	if err == nil {
		if kept, err := readServing(text, names); err == nil {
			return kept, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if text, err = makeServing(names); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(state, 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return nil, err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return nil, err
	}
	return readServing(text, names)
}

// readServing reads certificate and key, in PEM one after the other.
func readServing(text []byte, names []string) (*serving, error) {
	pair, err := tls.X509KeyPair(text, text)
	if err != nil {
		return nil, err
	}
	leaf := pair.Leaf
	if time.Until(leaf.NotAfter) < servingLeft || slices.ContainsFunc(names, func(n string) bool { return leaf.VerifyHostname(n) != nil }) {
		return nil, errors.New("the certificate ends soon or is for other names")
	}
	return &serving{pair, pem.EncodeToMemory(&pem.Block{Type: certificateType, Bytes: leaf.Raw})}, nil
}

func makeServing(names []string) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial, DNSNames: names,
		// The serial number keeps the subjects of several control planes apart.
		Subject:   pkix.Name{Organization: []string{"Lateen"}, CommonName: names[0], SerialNumber: fmt.Sprintf("%x", serial)},
		NotBefore: now.Add(-time.Minute), NotAfter: now.Add(servingLife), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	for _, b := range []*pem.Block{{Type: certificateType, Bytes: raw}, {Type: keyType, Bytes: secret}} {
		if err := pem.Encode(&text, b); err != nil {
			return nil, err
		}
	}
	return text.Bytes(), nil
}

// servingNames are those by which the API calls a control plane.
func servingNames(namespace, revision string) []string {
	service := "istiod"
	if revision != "" && revision != defaultRevision {
		service += "-" + revision
	}
	return []string{service + "." + namespace + ".svc", service + "." + namespace, "localhost"}
}
