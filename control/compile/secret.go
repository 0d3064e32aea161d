package compile

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
)

// SDS names of secrets that the control plane gives out.
const (
	kubernetesScheme = "kubernetes://"
	gatewayScheme    = "kubernetes-gateway://"
	configMapScheme  = "configmap://"
)

// ErrNotFound is the reason of Secret where there is no object of the name.
var ErrNotFound = errors.New("not found")

// maxPEM bounds each part of a secret; Kubernetes allows no larger object.
const maxPEM = 1 << 20

// Secret returns the secret that the proxy asks for by name:
// "kubernetes://[namespace/]name" or "kubernetes-gateway://namespace/name" for a
// certificate with its key, either with the suffix "-cacert" for authorities, and
// "configmap://[namespace/]name" for authorities only. A proxy gets secrets of its
// own namespace only. The error names the object and what is wrong with it, and
// never shows what is in it.
//
// Kinds read: Secret, ConfigMap.
func Secret(s *mesh.Snapshot, p *mesh.Proxy, name string) (*ir.Secret, error) {
	namespace, object, err := secretObject(name, p.Namespace)
	if err != nil {
		return nil, err
	}
	if namespace != p.Namespace {
		return nil, fmt.Errorf("secret %s: proxy %s of namespace %s may use secrets of its own namespace only", name, p.Name, p.Namespace)
	}
	if strings.HasPrefix(name, configMapScheme) {
		return configMapCA(s, namespace, object, name)
	}
	if base, ok := strings.CutSuffix(object, caSuffix); ok {
		return secretCA(s, namespace, object, base, name)
	}
	return certificate(s, namespace, object, name)
}

// secretObject splits an SDS name into the namespace and name of its object.
func secretObject(name, own string) (namespace, object string, err error) {
	for _, scheme := range []string{kubernetesScheme, gatewayScheme, configMapScheme} {
		rest, ok := strings.CutPrefix(name, scheme)
		if !ok {
			continue
		}
		namespace, object, found := strings.Cut(rest, "/")
		if !found {
			if scheme == gatewayScheme {
				return "", "", fmt.Errorf("secret %s: want %snamespace/name", name, scheme)
			}
			namespace, object = own, rest
		}
		if namespace == "" || object == "" || strings.Contains(object, "/") {
			return "", "", fmt.Errorf("secret %s: want %snamespace/name", name, scheme)
		}
		return namespace, object, nil
	}
	return "", "", fmt.Errorf("secret %s: not a name that the control plane serves (%sname)", name, kubernetesScheme)
}

// certificate reads a certificate and key in either layout: kubernetes.io/tls
// (tls.crt, tls.key) or generic (cert, key).
func certificate(s *mesh.Snapshot, namespace, object, name string) (*ir.Secret, error) {
	c := s.Config.Get(config.Secret, namespace, object)
	if c == nil {
		return nil, fmt.Errorf("%s: %w", config.Key{Kind: config.Secret, Namespace: namespace, Name: object}, ErrNotFound)
	}
	fields := secretFields(c)
	for _, layout := range [][2]string{{"cert", "key"}, {"tls.crt", "tls.key"}} {
		cert, key := fields(layout[0]), fields(layout[1])
		if len(cert) == 0 && len(key) == 0 {
			continue
		}
		if err := checkPair(cert, key, layout); err != nil {
			return nil, fmt.Errorf("%s: %w", c.Key, err)
		}
		return &ir.Secret{Name: name, Certificate: cert, Key: key, OCSPStaple: fields("tls.ocsp-staple")}, nil
	}
	return nil, fmt.Errorf("%s: has neither tls.crt and tls.key nor cert and key", c.Key)
}

// secretFields reads one entry of a Secret; entries written as text win, as when
// an API server stores them.
func secretFields(c *config.Config) func(string) []byte {
	secret := c.Spec.(*corev1.Secret)
	return func(field string) []byte {
		if text, ok := secret.StringData[field]; ok {
			return []byte(text)
		}
		return secret.Data[field]
	}
}

// checkPair finds out here what would otherwise be a refusal of the whole
// listener by the proxy.
func checkPair(cert, key []byte, fields [2]string) error {
	switch {
	case len(cert) == 0:
		return fmt.Errorf("%s is missing", fields[0])
	case len(key) == 0:
		return fmt.Errorf("%s is missing", fields[1])
	case len(cert) > maxPEM || len(key) > maxPEM:
		return fmt.Errorf("%s or %s is larger than %d bytes", fields[0], fields[1], maxPEM)
	}
	if block, _ := pem.Decode(cert); block == nil {
		return fmt.Errorf("%s is not PEM", fields[0])
	}
	if block, _ := pem.Decode(key); block == nil {
		return fmt.Errorf("%s is not PEM", fields[1])
	}
	if _, err := tls.X509KeyPair(cert, key); err != nil {
		// The text of the error speaks of types and positions, never of content.
		return fmt.Errorf("%s and %s do not make a key pair: %w", fields[0], fields[1], err)
	}
	return nil
}

// secretCA looks for authorities in the Secret of exactly the asked name, then in
// the one that also holds the certificate.
func secretCA(s *mesh.Snapshot, namespace, object, base, name string) (*ir.Secret, error) {
	c := s.Config.Get(config.Secret, namespace, object)
	if c == nil {
		c = s.Config.Get(config.Secret, namespace, base)
	}
	if c == nil {
		return nil, fmt.Errorf("%s: %w, nor is %s", config.Key{Kind: config.Secret, Namespace: namespace, Name: object}, ErrNotFound, base)
	}
	fields := secretFields(c)
	for _, layout := range [][2]string{{"cacert", "crl"}, {"ca.crt", "ca.crl"}} {
		if ca := fields(layout[0]); len(ca) > 0 {
			return authorities(c, name, layout, ca, fields(layout[1]))
		}
	}
	return nil, fmt.Errorf("%s: has neither ca.crt nor cacert", c.Key)
}

func configMapCA(s *mesh.Snapshot, namespace, object, name string) (*ir.Secret, error) {
	object = strings.TrimSuffix(object, caSuffix)
	c := s.Config.Get(config.ConfigMap, namespace, object)
	if c == nil {
		return nil, fmt.Errorf("%s: %w", config.Key{Kind: config.ConfigMap, Namespace: namespace, Name: object}, ErrNotFound)
	}
	data := c.Spec.(*corev1.ConfigMap).Data
	ca := []byte(data["ca.crt"])
	if len(ca) == 0 {
		return nil, fmt.Errorf("%s: ca.crt is missing", c.Key)
	}
	return authorities(c, name, [2]string{"ca.crt", "ca.crl"}, ca, []byte(data["ca.crl"]))
}

// authorities are certificates to check others against, and what they have revoked.
func authorities(c *config.Config, name string, fields [2]string, ca, crl []byte) (*ir.Secret, error) {
	if err := checkAuthorities(ca); err != nil {
		return nil, fmt.Errorf("%s: %s: %w", c.Key, fields[0], err)
	}
	if err := checkRevoked(crl); err != nil {
		return nil, fmt.Errorf("%s: %s: %w", c.Key, fields[1], err)
	}
	return &ir.Secret{Name: name, CA: ca, CRL: crl}, nil
}

func checkAuthorities(ca []byte) error {
	if len(ca) > maxPEM {
		return fmt.Errorf("larger than %d bytes", maxPEM)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(bytes.TrimSpace(ca)) {
		return errors.New("holds no certificate in PEM form")
	}
	return nil
}

// checkRevoked checks lists of revoked certificates. One that cannot be read, or that an
// authority sent with the wrong tool, must not pass for one that revokes nothing.
func checkRevoked(crl []byte) error {
	if len(crl) > maxPEM {
		return fmt.Errorf("larger than %d bytes", maxPEM)
	}
	found := false
	for block, rest := pem.Decode(crl); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "X509 CRL" {
			continue
		}
		if _, err := x509.ParseRevocationList(block.Bytes); err != nil {
			return err // speaks of structure, never of content
		}
		found = true
	}
	if len(crl) > 0 && !found {
		return errors.New("holds no X509 CRL in PEM form")
	}
	return nil
}

// SecretExpired tells what a reader should know of a secret that is given out all
// the same: its leaf certificate is not valid at the given time. It is nil where
// there is nothing to tell.
func SecretExpired(s *ir.Secret, now time.Time) error {
	block, _ := pem.Decode(s.Certificate)
	if block == nil {
		return nil
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	switch {
	case err != nil:
		return nil
	case now.After(leaf.NotAfter):
		return fmt.Errorf("secret %s: certificate expired on %s", s.Name, leaf.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("secret %s: certificate is not valid before %s", s.Name, leaf.NotBefore.UTC().Format(time.RFC3339))
	}
	return nil
}
