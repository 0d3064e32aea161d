package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lateen-mesh/lateen/spiffe"
)

// External is an authority outside of the mesh that signs certificates of workloads in place of
// this one, which is then for the control plane's own certificate only. It knows nobody: who
// calls is found out here, and its answer is judged here.
type External struct {
	// Sign answers a CSR in PEM with the certificate and those between it and a root.
	Sign func(ctx context.Context, request []byte, life time.Duration) ([]byte, error)
	// Roots are the authority's, in PEM; without one the last certificate of an answer is it.
	Roots func() []byte
}

// issue is what Issue answers, or what an authority outside does.
func (a *Authority) issue(ctx context.Context, r *Request, account Account, life time.Duration) ([]string, error) {
	if a.o.External == nil {
		return a.Issue(r, account, life)
	}
	id := a.ID(account)
	if err := id.Validate(); err != nil {
		return nil, err
	}
	if err := r.isOf(id); err != nil {
		return nil, err
	}
	if life <= 0 {
		life = a.o.DefaultLife
	}
	text, err := a.o.External.Sign(ctx, r.text, min(max(life, minLife), a.o.MaxLife))
	if err != nil {
		return nil, fmt.Errorf("the external authority: %w", err)
	}
	answer, err := a.judge(r, id, text)
	if err != nil {
		return nil, fmt.Errorf("the external authority's answer: %w", err)
	}
	return answer, nil
}

// isOf is whether a CSR asks for an identity and nothing else: an authority outside may go by
// what it asks.
func (r *Request) isOf(id spiffe.ID) error {
	if len(r.uris) != 1 || r.uris[0] != id.String() || r.more {
		return fmt.Errorf("the CSR asks for %.200q, not for %s alone", r.uris, id)
	}
	return nil
}

// judge makes of an external authority's answer one of the certificate service.
func (a *Authority) judge(r *Request, id spiffe.ID, text []byte) ([]string, error) {
	chain, err := certificates(Files{"it": text}, "it")
	if err != nil {
		return nil, err
	}
	if len(chain) == 0 || len(chain) > maxChain {
		return nil, fmt.Errorf("it has %d certificates: 1 to %d are possible", len(chain), maxChain)
	}
	leaf, last := chain[0], chain[len(chain)-1]
	trusted, err := certificates(Files{"roots": a.o.External.Roots()}, "roots")
	if err != nil {
		return nil, err
	}
	if len(trusted) == 0 && bytes.Equal(last.RawIssuer, last.RawSubject) && last.CheckSignatureFrom(last) == nil {
		trusted = chain[len(chain)-1:]
	}
	public, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	switch {
	case len(trusted) == 0:
		return nil, errors.New("no root is known of it: meshConfig.caCertificates should have it")
	case !ok || !public.Equal(r.key):
		return nil, errors.New("it is for another key")
	case leaf.IsCA || len(leaf.URIs) != 1 || leaf.URIs[0].String() != id.String():
		return nil, fmt.Errorf("it is for %v, not for %s", leaf.URIs, id)
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	var bundle []byte
	for _, c := range trusted {
		roots.AddCert(c)
		bundle = append(bundle, encode(c.Raw)...)
	}
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: a.o.Now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return nil, err
	}
	var answer []string
	for _, c := range chain {
		if !slices.ContainsFunc(trusted, c.Equal) {
			answer = append(answer, string(encode(c.Raw)))
		}
	}
	return append(answer, string(bundle)), nil
}
