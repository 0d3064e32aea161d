package control

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	meshconfig "istio.io/api/mesh/v1alpha1"

	"github.com/lateen-mesh/lateen/control/ads"
	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/wellknown"
)

// trustKind stands for the roots that the mesh trusts among the kinds that differ.
const trustKind = "roots"

// trustedName is that of the one resource that holds them.
const trustedName = "trust"

// maxTrusted bounds the roots of meshConfig.caCertificates.
const maxTrusted = 100

// giveTrust has a new Snapshot have the roots that are trusted: those of the authority, and of
// meshConfig.caCertificates. While there is no authority yet there are none: agents would take a
// part of them for the whole.
func (s *Server) giveTrust(prev, next *mesh.Snapshot) {
	t := mesh.Trust{}
	if s.authority != nil {
		roots, signer := s.authority.Trust()
		if roots == nil {
			return
		}
		t.Roots, t.Signer = []string{string(roots)}, signer
	}
	for _, c := range next.MeshConfig.GetCaCertificates() {
		if text, err := rootsOf(c, next.Keys); err == nil && text != "" && len(t.Roots) < maxTrusted {
			t.Roots = append(t.Roots, text)
		}
	}
	t.Since = next.Generation
	if prev != nil && prev.Trust.Same(t) {
		t.Since = prev.Trust.Since
	}
	next.Trust = t
}

// trusted is the resource for agents.
func trusted(v *view, _ []string) ([]ads.Resource, error) {
	t := v.snapshot.Trust
	if len(t.Roots) == 0 {
		return nil, nil
	}
	m := &meshconfig.ProxyConfig{CaCertificatesPem: t.Roots}
	if t.Signer != "" {
		m.ProxyMetadata = map[string]string{wellknown.SignerKey: t.Signer}
	}
	var list []ads.Resource
	return list, add(&list, trustedName, m)
}

// bundleSources are the SPIFFE bundle endpoints of a mesh configuration. A bundle is a JSON Web
// Key Set, and is fetched and kept as one.
func bundleSources(mc *meshconfig.MeshConfig) map[mesh.KeySource]time.Duration {
	all := map[mesh.KeySource]time.Duration{}
	for _, c := range mc.GetCaCertificates() {
		if url := c.GetSpiffeBundleUrl(); strings.HasPrefix(url, "https://") {
			all[mesh.KeySource{URL: url}] = 0
		}
	}
	return all
}

// rootsOf are the roots of one of meshConfig.caCertificates, "" where they were not fetched yet.
func rootsOf(c *meshconfig.MeshConfig_CertificateData, fetched mesh.Keys) (string, error) {
	url := c.GetSpiffeBundleUrl()
	switch {
	case url == "":
		return checkRoots([]byte(c.GetPem()))
	case !strings.HasPrefix(url, "https://"):
		return "", fmt.Errorf("%q is no address of https", url)
	case fetched[mesh.KeySource{URL: url}] == "":
		return "", nil
	}
	return rootsOfBundle(fetched[mesh.KeySource{URL: url}])
}

// checkRoots reads certificates of authorities in PEM, and writes them without anything else.
func checkRoots(text []byte) (string, error) {
	var out strings.Builder
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return "", fmt.Errorf("has a PEM block %q: only certificates belong there", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return "", err
		}
		if !c.IsCA {
			return "", fmt.Errorf("the certificate of %q is none of an authority", c.Subject)
		}
		_ = pem.Encode(&out, &pem.Block{Type: block.Type, Bytes: block.Bytes})
	}
	if out.Len() == 0 {
		return "", errors.New("holds no PEM block CERTIFICATE")
	}
	return out.String(), nil
}

// rootsOfBundle reads the authorities for X.509 certificates of a SPIFFE bundle (SPIFFE Trust
// Domain and Bundle, section 4; X509-SVID, section 6).
func rootsOfBundle(text string) (string, error) {
	var bundle struct {
		Keys []struct {
			Use string   `json:"use"`
			X5C []string `json:"x5c"`
		} `json:"keys"`
	}
	if err := json.Unmarshal([]byte(text), &bundle); err != nil {
		return "", fmt.Errorf("is not a SPIFFE bundle: %w", err)
	}
	var all []byte
	for i, k := range bundle.Keys {
		if k.Use != "x509-svid" {
			continue
		}
		if len(k.X5C) != 1 {
			return "", fmt.Errorf("keys[%d].x5c has %d certificates, not one", i, len(k.X5C))
		}
		raw, err := base64.StdEncoding.DecodeString(k.X5C[0])
		if err != nil {
			return "", fmt.Errorf("keys[%d].x5c: %w", i, err)
		}
		all = append(all, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})...)
	}
	return checkRoots(all)
}

// trustProblems are roots of the mesh configuration that nobody trusts.
func (s *Server) trustProblems(snap *mesh.Snapshot) []Problem {
	var list []Problem
	for i, c := range snap.MeshConfig.GetCaCertificates() {
		text, err := rootsOf(c, snap.Keys)
		if err == nil && text == "" {
			err = s.tokens.fetcher.Failures()[mesh.KeySource{URL: c.GetSpiffeBundleUrl()}]
		}
		if err == nil {
			continue
		}
		field := "pem"
		if c.GetSpiffeBundleUrl() != "" {
			field = "spiffeBundleUrl"
		}
		list = append(list, Problem{Object: meshConfigKind, Field: fmt.Sprintf("caCertificates[%d].%s", i, field), Severity: config.Error.String(),
			Message: fmt.Sprintf("it is not trusted: %v", err)})
	}
	return list
}
