package transport

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"

	"github.com/lateen-mesh/lateen/proxy/match"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// spiffeValidator is the custom validator that trusts roots by trust domain.
const spiffeValidator = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig"

// validation is a compiled CertificateValidationContext. It is immutable.
type validation struct {
	roots        *x509.CertPool            // nil: chains are not checked
	domains      map[string]*x509.CertPool // SPIFFE: roots by trust domain
	sans         []sanMatcher              // one must match, if any
	spki, hashes [][sha256.Size]byte       // one of them must match, if any
	untrusted    bool                      // ACCEPT_UNTRUSTED
	expired      bool                      // allow_expired_certificate
}

func compileValidation(v *tlsv3.CertificateValidationContext) (*validation, error) {
	if err := refuseValidation(v); err != nil {
		return nil, err
	}
	out := &validation{
		untrusted: v.GetTrustChainVerification() == tlsv3.CertificateValidationContext_ACCEPT_UNTRUSTED,
		expired:   v.GetAllowExpiredCertificate(),
	}
	if err := out.compileRoots(v); err != nil {
		return nil, err
	}
	for i, m := range v.GetMatchTypedSubjectAltNames() {
		s, err := compileSAN(m.GetSanType(), m.GetMatcher())
		if err != nil {
			return nil, fmt.Errorf("match_typed_subject_alt_names[%d]: %w", i, err)
		}
		out.sans = append(out.sans, s)
	}
	for i, m := range v.GetMatchSubjectAltNames() { // the original still sends it
		s, err := compileSAN(tlsv3.SubjectAltNameMatcher_SAN_TYPE_UNSPECIFIED, m)
		if err != nil {
			return nil, fmt.Errorf("match_subject_alt_names[%d]: %w", i, err)
		}
		out.sans = append(out.sans, s)
	}
	return out, out.compilePins(v)
}

// refuseValidation names what is asked for and not there: a check left out would be a hole.
func refuseValidation(v *tlsv3.CertificateValidationContext) error {
	if v.GetRequireSignedCertificateTimestamp().GetValue() {
		return errors.New("require_signed_certificate_timestamp: not supported")
	}
	return xds.Only(v, "trusted_ca", "system_root_certs", "verify_certificate_spki", "verify_certificate_hash", "match_typed_subject_alt_names",
		"match_subject_alt_names", "require_signed_certificate_timestamp", "allow_expired_certificate", "trust_chain_verification",
		"custom_validator_config")
}

func (v *validation) compileRoots(c *tlsv3.CertificateValidationContext) error {
	if custom := c.GetCustomValidatorConfig(); custom != nil {
		if custom.GetTypedConfig().GetTypeUrl() != spiffeValidator {
			return fmt.Errorf("custom_validator_config: %s is not supported", custom.GetTypedConfig().GetTypeUrl())
		}
		return v.compileSPIFFE(custom.GetTypedConfig().GetValue())
	}
	pem, from, err := read(c.GetTrustedCa())
	switch {
	case err != nil:
		return fmt.Errorf("trusted_ca: %w", err)
	case c.GetTrustedCa() != nil:
		if v.roots, err = pool(pem, from); err != nil {
			return fmt.Errorf("trusted_ca: %w", err)
		}
	case c.GetSystemRootCerts() != nil:
		if v.roots, err = x509.SystemCertPool(); err != nil {
			return fmt.Errorf("system_root_certs: %w", err)
		}
	}
	return nil
}

func (v *validation) compilePins(c *tlsv3.CertificateValidationContext) error {
	for i, s := range c.GetVerifyCertificateSpki() {
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil || len(b) != sha256.Size {
			return fmt.Errorf("verify_certificate_spki[%d]: invalid base64-encoded SHA-256 %q", i, s)
		}
		v.spki = append(v.spki, [sha256.Size]byte(b))
	}
	for i, s := range c.GetVerifyCertificateHash() {
		b, err := hex.DecodeString(strings.ReplaceAll(s, ":", ""))
		if err != nil || len(b) != sha256.Size {
			return fmt.Errorf("verify_certificate_hash[%d]: invalid hex-encoded SHA-256 %q", i, s)
		}
		v.hashes = append(v.hashes, [sha256.Size]byte(b))
	}
	return nil
}

func pool(pem []byte, from string) (*x509.CertPool, error) {
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("failed to load trusted CA certificates from %s", from)
	}
	return p, nil
}

// with adds what a secret says to the default context (combined_validation_context):
// roots of the secret replace, lists join.
func (v *validation) with(s *validation) *validation {
	if v == nil {
		return s
	}
	if s == nil {
		return v
	}
	out := *v
	if s.roots != nil || s.domains != nil {
		out.roots, out.domains = s.roots, s.domains
	}
	out.sans = append(slices.Clip(out.sans), s.sans...)
	out.spki = append(slices.Clip(out.spki), s.spki...)
	out.hashes = append(slices.Clip(out.hashes), s.hashes...)
	out.untrusted, out.expired = v.untrusted || s.untrusted, v.expired || s.expired
	return &out
}

// checks reports whether the context asks anything of a certificate.
func (v *validation) checks() bool {
	return v != nil && (v.roots != nil || v.domains != nil || len(v.sans)+len(v.spki)+len(v.hashes) > 0)
}

// verify checks a peer's chain, leaf first. host, if not "", must be a DNS name or
// address of the leaf too.
func (v *validation) verify(chain []*x509.Certificate, usage x509.ExtKeyUsage, host string) error {
	if len(chain) == 0 {
		return &verifyError{"verify cert failed", errors.New("no certificate")}
	}
	leaf := chain[0]
	if err := v.verifyChain(chain, usage); err != nil && !v.untrusted {
		return err
	}
	if host != "" && leaf.VerifyHostname(host) != nil {
		return &verifyError{hostDetail(leaf, host), fmt.Errorf("certificate is not for %q", host)}
	}
	if len(v.sans) > 0 && !matchSAN(v.sans, leaf) {
		return &verifyError{sanDetail(leaf), errors.New("no subject alternative name matches")}
	}
	if len(v.spki)+len(v.hashes) > 0 && !v.pinned(leaf) {
		return &verifyError{"verify cert failed: cert hash and spki", errors.New("neither hash nor key is pinned")}
	}
	return nil
}

const sanFailure = "verify cert failed: SAN matcher"

// sanDetail is Envoy's text with the names that the certificate has, in its order.
func sanDetail(leaf *x509.Certificate) string {
	return sanFailure + ", certificate SANs are [" + strings.Join(names(leaf), ", ") + "]"
}

// hostDetail is Envoy's text where the name came with the request.
func hostDetail(leaf *x509.Certificate, host string) string {
	return "verify cert failed: verify SAN list, expected SANs: [" + host + "], certificate SANs: [" + strings.Join(names(leaf), ", ") + "]"
}

// names reads the subject alternative names in the order of the extension, which
// x509.Certificate does not keep.
func names(leaf *x509.Certificate) (list []string) {
	for _, ext := range leaf.Extensions {
		if !ext.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 17}) {
			continue
		}
		var all asn1.RawValue
		if _, err := asn1.Unmarshal(ext.Value, &all); err != nil {
			return nil
		}
		for rest := all.Bytes; len(rest) > 0; {
			var one asn1.RawValue
			var err error
			if rest, err = asn1.Unmarshal(rest, &one); err != nil {
				return list
			}
			switch one.Tag {
			case 1, 2, 6: // mail address, DNS name, URI
				list = append(list, string(one.Bytes))
			case 7:
				list = append(list, net.IP(one.Bytes).String())
			}
		}
	}
	return list
}

func (v *validation) verifyChain(chain []*x509.Certificate, usage x509.ExtKeyUsage) error {
	roots := v.roots
	if v.domains != nil {
		roots = v.domains[trustDomain(chain[0])]
		if roots == nil {
			return &verifyError{"verify cert failed: no trust bundle", fmt.Errorf("trust domain %q is not known", trustDomain(chain[0]))}
		}
	}
	if roots == nil {
		return nil
	}
	o := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{usage}}
	for _, c := range chain[1:] {
		o.Intermediates.AddCert(c)
	}
	if now := time.Now(); v.expired && now.After(chain[0].NotAfter) {
		o.CurrentTime = chain[0].NotAfter
	}
	if _, err := chain[0].Verify(o); err != nil {
		return &verifyError{"verify cert failed: X509_verify_cert: certificate verification error at depth " + chainDetail(chain, err), err}
	}
	return nil
}

// chainDetail is the depth and X509_verify_cert_error_string's text.
func chainDetail(chain []*x509.Certificate, err error) string {
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
		if time.Now().Before(invalid.Cert.NotBefore) {
			return "0: certificate is not yet valid"
		}
		return "0: certificate has expired"
	}
	switch last, depth := climb(chain); {
	case !bytes.Equal(last.RawIssuer, last.RawSubject):
		return strconv.Itoa(depth) + ": unable to get local issuer certificate"
	case depth == 0:
		return "0: self signed certificate"
	default:
		return strconv.Itoa(depth) + ": self signed certificate in certificate chain"
	}
}

// climb follows issuers from the leaf as far as the peer has sent them.
func climb(chain []*x509.Certificate) (last *x509.Certificate, depth int) {
	for last = chain[0]; depth < len(chain)-1; depth++ {
		i := slices.IndexFunc(chain[1:], func(c *x509.Certificate) bool { return bytes.Equal(c.RawSubject, last.RawIssuer) })
		if i < 0 || chain[i+1] == last {
			break
		}
		last = chain[i+1]
	}
	return last, depth
}

func (v *validation) pinned(leaf *x509.Certificate) bool {
	key, whole := sha256.Sum256(leaf.RawSubjectPublicKeyInfo), sha256.Sum256(leaf.Raw)
	for _, x := range v.spki {
		if bytes.Equal(x[:], key[:]) {
			return true
		}
	}
	for _, x := range v.hashes {
		if bytes.Equal(x[:], whole[:]) {
			return true
		}
	}
	return false
}

// A sanMatcher matches subject alternative names of one type, or of any.
type sanMatcher struct {
	kind  tlsv3.SubjectAltNameMatcher_SanType
	text  match.String
	exact string // of DNS: wildcard certificates match it too
}

func compileSAN(kind tlsv3.SubjectAltNameMatcher_SanType, m *matcherv3.StringMatcher) (sanMatcher, error) {
	if kind == tlsv3.SubjectAltNameMatcher_OTHER_NAME {
		return sanMatcher{}, errors.New("san_type: OTHER_NAME is not supported")
	}
	text, err := match.NewString(m)
	return sanMatcher{kind: kind, text: text, exact: m.GetExact()}, err
}

func matchSAN(matchers []sanMatcher, leaf *x509.Certificate) bool {
	for _, m := range matchers {
		if m.matches(leaf) {
			return true
		}
	}
	return false
}

func (m *sanMatcher) matches(leaf *x509.Certificate) bool {
	every := m.kind == tlsv3.SubjectAltNameMatcher_SAN_TYPE_UNSPECIFIED
	if every || m.kind == tlsv3.SubjectAltNameMatcher_DNS {
		for _, n := range leaf.DNSNames {
			if m.text.Match([]byte(n)) || m.exact != "" && wildcardMatch(n, m.exact) {
				return true
			}
		}
	}
	if every || m.kind == tlsv3.SubjectAltNameMatcher_URI {
		for _, u := range leaf.URIs {
			if m.text.Match([]byte(u.String())) {
				return true
			}
		}
	}
	if every || m.kind == tlsv3.SubjectAltNameMatcher_IP_ADDRESS {
		for _, ip := range leaf.IPAddresses {
			if m.text.Match([]byte(ip.String())) {
				return true
			}
		}
	}
	if every || m.kind == tlsv3.SubjectAltNameMatcher_EMAIL {
		for _, a := range leaf.EmailAddresses {
			if m.text.Match([]byte(a)) {
				return true
			}
		}
	}
	return false
}

// wildcardMatch reports whether a certificate's "*.example.com" covers name.
func wildcardMatch(pattern, name string) bool {
	suffix, ok := strings.CutPrefix(pattern, "*")
	if !ok || !strings.HasPrefix(suffix, ".") {
		return false
	}
	label, ok := strings.CutSuffix(strings.ToLower(name), strings.ToLower(suffix))
	return ok && label != "" && !strings.Contains(label, ".")
}

func trustDomain(leaf *x509.Certificate) string {
	for _, u := range leaf.URIs {
		if u.Scheme == "spiffe" {
			return u.Host
		}
	}
	return ""
}

func (v *validation) compileSPIFFE(config []byte) error {
	var c tlsv3.SPIFFECertValidatorConfig
	if err := proto.Unmarshal(config, &c); err != nil {
		return fmt.Errorf("custom_validator_config: %w", err)
	}
	if c.GetTrustBundles() != nil {
		return errors.New("custom_validator_config.trust_bundles: not supported")
	}
	v.domains = map[string]*x509.CertPool{}
	for i, d := range c.GetTrustDomains() {
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
