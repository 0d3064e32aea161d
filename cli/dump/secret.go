package dump

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	adminpb "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Secrets are the certificates that a proxy has, and whether they are valid at a time.
// Keys are in no dump.
func (d *Dump) Secrets(now time.Time) (*List, error) {
	if d.secrets == nil {
		return nil, errLacks("secrets")
	}
	l := &List{kind: "secret", padding: 5, single: true, messages: []proto.Message{d.secrets},
		header: []string{"RESOURCE NAME", "TYPE", "STATUS", "VALID CERT", "SERIAL NUMBER", "NOT AFTER", "NOT BEFORE", "TRUST DOMAIN"}}
	for _, s := range d.secrets.GetStaticSecrets() {
		if err := l.addSecret(s.GetName(), "ACTIVE", s.GetSecret(), now); err != nil {
			return nil, err
		}
	}
	for _, state := range []struct {
		name string
		list []*adminpb.SecretsConfigDump_DynamicSecret
	}{{"ACTIVE", d.secrets.GetDynamicActiveSecrets()}, {"WARMING", d.secrets.GetDynamicWarmingSecrets()}} {
		for _, s := range state.list {
			if err := l.addSecret(s.GetName(), state.name, s.GetSecret(), now); err != nil {
				return nil, err
			}
		}
	}
	l.dropColumn(7)
	return l, nil
}

// dropColumn removes the last column where no row has anything in it.
func (l *List) dropColumn(last int) {
	if slices.ContainsFunc(l.rows, func(row []string) bool { return row[last] != "" }) {
		return
	}
	l.header = l.header[:last]
	for i, row := range l.rows {
		l.rows[i] = row[:last]
	}
}

// addSecret adds a row for a chain, and one for each certificate that is trusted.
func (l *List) addSecret(name, status string, body *anypb.Any, now time.Time) error {
	list, err := unpack[*tlspb.Secret]("secret "+name, []*anypb.Any{body})
	if err != nil {
		return err
	}
	row := func(kind string, c *x509.Certificate, domain string) {
		cells := []string{name, kind, status, "false", "", "", "", domain}
		if c != nil {
			valid := !now.Before(c.NotBefore) && now.Before(c.NotAfter)
			cells[3], cells[4] = strconv.FormatBool(valid), hex.EncodeToString(c.SerialNumber.Bytes())
			cells[5], cells[6] = c.NotAfter.UTC().Format(time.RFC3339), c.NotBefore.UTC().Format(time.RFC3339)
		}
		l.rows = append(l.rows, cells)
	}
	for _, s := range list {
		switch {
		case s.GetTlsCertificate() != nil:
			certs, err := certificates(s.GetTlsCertificate().GetCertificateChain())
			if err != nil {
				return fmt.Errorf("secret %s: %w", name, err)
			}
			row("Cert Chain", first(certs), "")
			return nil
		case s.GetValidationContext() != nil:
			roots, err := trusted(s.GetValidationContext())
			if err != nil {
				return fmt.Errorf("secret %s: %w", name, err)
			}
			for _, r := range roots {
				row("CA", r.certificate, r.domain)
			}
			return nil
		}
	}
	row("", nil, "")
	return nil
}

func first(list []*x509.Certificate) *x509.Certificate {
	if len(list) == 0 {
		return nil
	}
	return list[0]
}

// A root is a certificate that is trusted, in a trust domain where it is said.
type root struct {
	certificate *x509.Certificate
	domain      string
}

func trusted(v *tlspb.CertificateValidationContext) ([]root, error) {
	bundles := []*tlspb.SPIFFECertValidatorConfig_TrustDomain{{TrustBundle: v.GetTrustedCa()}}
	spiffe := &tlspb.SPIFFECertValidatorConfig{}
	if body := v.GetCustomValidatorConfig().GetTypedConfig(); body.MessageIs(spiffe) {
		if err := body.UnmarshalTo(spiffe); err != nil {
			return nil, err
		}
		bundles = spiffe.GetTrustDomains()
	}
	var all []root
	for _, b := range bundles {
		certs, err := certificates(b.GetTrustBundle())
		if err != nil {
			return nil, err
		}
		for _, c := range certs {
			all = append(all, root{c, b.GetName()})
		}
	}
	return all, nil
}

// certificates are those that stand in a dump; of files there are only the names.
func certificates(s *corepb.DataSource) ([]*x509.Certificate, error) {
	text := s.GetInlineBytes()
	if inline := s.GetInlineString(); inline != "" {
		text = []byte(inline)
	}
	var all []*x509.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return all, nil
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
}

// Roots are the certificates that the workload trusts, each once, in one order: equal for
// two proxies that trust the same.
func (d *Dump) Roots() (string, error) {
	if d.secrets == nil {
		return "", errLacks("secrets")
	}
	var all []string
	for _, s := range d.secrets.GetDynamicActiveSecrets() {
		if s.GetName() != "ROOTCA" {
			continue
		}
		list, err := unpack[*tlspb.Secret]("secret ROOTCA", []*anypb.Any{s.GetSecret()})
		if err != nil {
			return "", err
		}
		for _, secret := range list {
			roots, err := trusted(secret.GetValidationContext())
			if err != nil {
				return "", err
			}
			for _, r := range roots {
				all = append(all, string(r.certificate.Raw))
			}
		}
	}
	if len(all) == 0 {
		return "", errLacks("secret ROOTCA")
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), ""), nil
}
