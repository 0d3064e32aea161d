package transport

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"

	"github.com/lateen-mesh/lateen/proxy/xds"
)

// spiffeValidator is the custom validator that trusts roots by trust domain.
const spiffeValidator = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig"

func trustDomain(leaf *x509.Certificate) string {
	for _, u := range leaf.URIs {
		if u.Scheme == "spiffe" {
			return u.Host
		}
	}
	return ""
}

// isWorkload reports whether a leaf may stand for a workload: exactly one URI, no
// authority, no key that signs certificates or revocation lists.
func isWorkload(leaf *x509.Certificate) bool {
	return len(leaf.URIs) == 1 && !leaf.IsCA && leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) == 0
}

func (v *validation) compileSPIFFE(config []byte) error {
	var c tlsv3.SPIFFECertValidatorConfig
	if err := proto.Unmarshal(config, &c); err != nil {
		return fmt.Errorf("custom_validator_config: %w", err)
	}
	v.domains = map[string]*x509.CertPool{}
	if c.GetTrustBundles() != nil {
		text, from, err := read(c.GetTrustBundles())
		if err == nil {
			err = v.compileBundles(text)
		}
		if err != nil {
			return fmt.Errorf("custom_validator_config.trust_bundles: %s: %w", from, err)
		}
		return nil
	}
	if len(c.GetTrustDomains()) == 0 {
		return errors.New("custom_validator_config: no trust domains are configured")
	}
	for i, d := range c.GetTrustDomains() {
		if err := xds.Only(d, "name", "trust_bundle"); err != nil {
			return fmt.Errorf("custom_validator_config.trust_domains[%d].%w", i, err)
		}
		if _, twice := v.domains[d.GetName()]; twice {
			return fmt.Errorf("Multiple trust bundles are given for one trust domain for %s", d.GetName()) //nolint:staticcheck // Envoy's words
		}
		pem, from, err := read(d.GetTrustBundle())
		if err == nil {
			v.domains[d.GetName()], err = pool(pem, from)
		}
		if err != nil {
			return fmt.Errorf("custom_validator_config.trust_domains[%d].trust_bundle: %w", i, err)
		}
	}
	return nil
}

// bundleMap is a SPIFFE trust bundle map: the keys of each trust domain as JWKs.
type bundleMap struct {
	Domains map[string]struct {
		Keys []struct {
			Use   string   `json:"use"`
			Chain []string `json:"x5c"`
		} `json:"keys"`
	} `json:"trust_domains"`
}

func (v *validation) compileBundles(text []byte) error {
	var m bundleMap
	if err := json.Unmarshal(text, &m); err != nil {
		return fmt.Errorf("invalid JSON: %w", err)
	}
	if len(m.Domains) == 0 {
		return errors.New("no trust domains found")
	}
	for name, d := range m.Domains {
		roots := x509.NewCertPool()
		for i, k := range d.Keys {
			if k.Use != "x509-svid" {
				continue
			}
			for _, text := range k.Chain {
				der, err := base64.StdEncoding.DecodeString(text)
				if err != nil {
					return fmt.Errorf("trust domain %s: keys[%d].x5c: %w", name, i, err)
				}
				cert, err := x509.ParseCertificate(der)
				if err != nil {
					return fmt.Errorf("trust domain %s: keys[%d].x5c: %w", name, i, err)
				}
				roots.AddCert(cert)
			}
		}
		v.domains[name] = roots
	}
	return nil
}
