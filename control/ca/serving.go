package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"sync"
	"time"
)

// serving is the control plane's own certificate.
type serving struct {
	authority *Authority
	names     []string

	mu      sync.Mutex
	of      *Material
	current *tls.Certificate
	renewal time.Time
}

// certificate is the one to show now.
func (s *serving) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.authority.o.Now()
	if s.current != nil && s.of == s.authority.material.Load() && now.Before(s.renewal) {
		return s.current, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	raw, m, err := s.authority.sign(key.Public(), &x509.Certificate{DNSNames: s.names, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, 0)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(raw)
	if err != nil {
		return nil, err
	}
	c := &tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key, Leaf: leaf}
	for _, between := range m.Chain {
		c.Certificate = append(c.Certificate, between.Raw)
	}
	s.of, s.current, s.renewal = m, c, now.Add(leaf.NotAfter.Sub(now)/2)
	return c, nil
}
