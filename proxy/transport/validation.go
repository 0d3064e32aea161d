package transport

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/lateen-mesh/lateen/proxy/xds"
)

// validation is a compiled CertificateValidationContext. It is immutable.
type validation struct {
	roots        *x509.CertPool            // nil: chains are not checked
	domains      map[string]*x509.CertPool // SPIFFE: roots by trust domain
	known        *verified                 // chains that led to these roots
	sans         []sanMatcher              // one must match, if any
	spki, hashes [][sha256.Size]byte       // one of them must match, if any
	untrusted    bool                      // ACCEPT_UNTRUSTED
	expired      bool                      // allow_expired_certificate
	revoked      *revocations              // nil: none are known
	depth        *int                      // max_verify_depth, nil: no bound
	hideRoots    bool                      // suppress_client_ca_list
}

func compileValidation(v *tlsv3.CertificateValidationContext) (*validation, error) {
	if err := refuseValidation(v); err != nil {
		return nil, err
	}
	out := &validation{
		untrusted: v.GetTrustChainVerification() == tlsv3.CertificateValidationContext_ACCEPT_UNTRUSTED,
		expired:   v.GetAllowExpiredCertificate(),
		hideRoots: v.GetSuppressClientCaList(),
		known:     newVerified(),
	}
	if err := out.compileRoots(v); err != nil {
		return nil, err
	}
	if n := v.GetMaxVerifyDepth(); n != nil {
		depth := int(n.GetValue())
		out.depth = &depth
	}
	if err := out.compileNames(v); err != nil {
		return nil, err
	}
	return out, out.compilePins(v)
}

func (v *validation) compileNames(c *tlsv3.CertificateValidationContext) error {
	for i, m := range c.GetMatchTypedSubjectAltNames() {
		s, err := compileSAN(m.GetSanType(), m.GetMatcher(), m.GetOid())
		if err != nil {
			return fmt.Errorf("match_typed_subject_alt_names[%d]: %w", i, err)
		}
		v.sans = append(v.sans, s)
	}
	if len(v.sans) > 0 { // the deprecated field does not count then
		return nil
	}
	for i, m := range c.GetMatchSubjectAltNames() {
		s, err := compileSAN(tlsv3.SubjectAltNameMatcher_SAN_TYPE_UNSPECIFIED, m, "")
		if err != nil {
			return fmt.Errorf("match_subject_alt_names[%d]: %w", i, err)
		}
		v.sans = append(v.sans, s)
	}
	return nil
}

// refuseValidation names what is asked for and not there: a check left out would be a hole.
func refuseValidation(v *tlsv3.CertificateValidationContext) error {
	if v.GetRequireSignedCertificateTimestamp().GetValue() {
		return errors.New("require_signed_certificate_timestamp: not supported")
	}
	return xds.Only(v, "trusted_ca", "system_root_certs", "verify_certificate_spki", "verify_certificate_hash", "match_typed_subject_alt_names",
		"match_subject_alt_names", "require_signed_certificate_timestamp", "allow_expired_certificate", "trust_chain_verification",
		"custom_validator_config", "crl", "only_verify_leaf_cert_crl", "max_verify_depth", "watched_directory", "suppress_client_ca_list")
}

func (v *validation) compileRoots(c *tlsv3.CertificateValidationContext) error {
	if custom := c.GetCustomValidatorConfig(); custom != nil {
		if custom.GetTypedConfig().GetTypeUrl() != spiffeValidator {
			return fmt.Errorf("custom_validator_config: %s is not supported", custom.GetTypedConfig().GetTypeUrl())
		}
		return v.compileSPIFFE(custom.GetTypedConfig().GetValue())
	}
	text, from, err := read(c.GetTrustedCa())
	switch {
	case err != nil:
		return fmt.Errorf("trusted_ca: %w", err)
	case c.GetTrustedCa() != nil:
		if v.roots, err = pool(text, from); err != nil {
			return fmt.Errorf("trusted_ca: %w", err)
		}
	case c.GetSystemRootCerts() != nil:
		if v.roots, err = x509.SystemCertPool(); err != nil {
			return fmt.Errorf("system_root_certs: %w", err)
		}
	}
	return v.compileLists(c, text, from)
}

// compileLists reads the revocation lists: the configured ones, and those beside the roots.
func (v *validation) compileLists(c *tlsv3.CertificateValidationContext, beside []byte, from string) error {
	lists, err := compileRevocations(beside, from)
	if err != nil {
		return fmt.Errorf("trusted_ca: %w", err)
	}
	if c.GetCrl() != nil {
		text, from, err := read(c.GetCrl())
		if err != nil {
			return fmt.Errorf("crl: %w", err)
		}
		more, err := compileRevocations(text, from)
		if err == nil && len(more) == 0 {
			err = fmt.Errorf("failed to load CRL from %s", from)
		}
		if err != nil {
			return fmt.Errorf("crl: %w", err)
		}
		lists = append(lists, more...)
	}
	if len(lists) > 0 {
		v.revoked = &revocations{lists: lists, leafOnly: c.GetOnlyVerifyLeafCertCrl()}
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
		out.roots, out.domains, out.known = s.roots, s.domains, s.known
	}
	out.sans = append(slices.Clip(out.sans), s.sans...)
	out.spki = append(slices.Clip(out.spki), s.spki...)
	out.hashes = append(slices.Clip(out.hashes), s.hashes...)
	out.untrusted, out.expired, out.hideRoots = v.untrusted || s.untrusted, v.expired || s.expired, v.hideRoots || s.hideRoots
	if s.revoked != nil {
		out.revoked = s.revoked
	}
	if s.depth != nil {
		out.depth = s.depth
	}
	return &out
}

// checks reports whether the context asks anything of a certificate.
func (v *validation) checks() bool {
	return v != nil && (v.roots != nil || v.domains != nil || len(v.sans)+len(v.spki)+len(v.hashes) > 0)
}

// insists reports whether a peer without a certificate cannot pass.
func (v *validation) insists() bool {
	return v.domains != nil || len(v.sans)+len(v.spki)+len(v.hashes) > 0
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
		return &verifyError{pinFailure, errors.New("neither hash nor key is pinned")}
	}
	return nil
}

const pinFailure = "verify cert failed: cert hash and spki"

const sanFailure = "verify cert failed: SAN matcher"

const hostFailure = "verify cert failed: verify SAN list"

// sanDetail is Envoy's text with the names that the certificate has, in its order.
func sanDetail(leaf *x509.Certificate) string {
	return sanFailure + ", certificate SANs are [" + strings.Join(names(leaf), ", ") + "]"
}

// hostDetail is Envoy's text where the name came with the request.
func hostDetail(leaf *x509.Certificate, host string) string {
	return hostFailure + ", expected SANs: [" + host + "], certificate SANs: [" + strings.Join(names(leaf), ", ") + "]"
}

func (v *validation) verifyChain(chain []*x509.Certificate, usage x509.ExtKeyUsage) error {
	roots := v.roots
	if v.domains != nil {
		if !isWorkload(chain[0]) {
			return &verifyError{"verify cert failed: SPIFFE validator", errors.New("the certificate is not one of a workload")}
		}
		roots = v.domains[trustDomain(chain[0])]
		if roots == nil {
			return &verifyError{"verify cert failed: no trust bundle", fmt.Errorf("trust domain %q is not known", trustDomain(chain[0]))}
		}
	}
	if roots == nil {
		return nil
	}
	known := v.remembers()
	if known != nil && known.has(idOf(chain, usage), time.Now()) {
		return nil
	}
	o := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{usage}}
	for _, c := range chain[1:] {
		o.Intermediates.AddCert(c)
	}
	if now := time.Now(); v.expired && now.After(chain[0].NotAfter) {
		o.CurrentTime = chain[0].NotAfter
	}
	chains, err := chain[0].Verify(o)
	if err == nil {
		err = v.acceptable(chains)
	}
	if err != nil {
		return &verifyError{"verify cert failed: X509_verify_cert: certificate verification error at depth " + chainDetail(chain, err), err}
	}
	if known != nil {
		known.keep(idOf(chain, usage), chains)
	}
	return nil
}

// remembers has the chains that need no second look; nil where more than the roots and the time
// decides.
func (v *validation) remembers() *verified {
	if v.revoked != nil || v.depth != nil || v.expired {
		return nil
	}
	return v.known
}

// chainDetail is the depth and X509_verify_cert_error_string's text.
func chainDetail(chain []*x509.Certificate, err error) string {
	if ours, ok := errors.AsType[*chainError](err); ok {
		return strconv.Itoa(ours.depth) + ": " + ours.text
	}
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
