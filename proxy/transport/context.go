package transport

import (
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/lateen-mesh/lateen/proxy/xds"
)

// material is the compiled CommonTlsContext of a socket: parameters, and where its
// certificates and roots come from.
type material struct {
	secrets      *Secrets
	params       params
	alpn         []string
	certificates []*tls.Certificate // of the configuration itself
	sds          []*secret          // certificates by SDS
	base         *validation        // of the configuration itself, nil: none
	trust        *secret            // validation context by SDS, nil: none
	tickets      *secret            // session ticket keys by SDS, nil: none

	closing sync.Once
	ready   chan struct{}
	done    chan struct{}
}

// params are TlsParameters in crypto/tls's terms.
type params struct {
	min, max uint16
	ciphers  []uint16
	curves   []tls.CurveID
	// signatures are the algorithms with which we sign, nil: those of the key.
	signatures []tls.SignatureScheme
}

// compileMaterial compiles c; maxVersion is the default of this side.
func compileMaterial(c *tlsv3.CommonTlsContext, secrets *Secrets, maxVersion uint16) (*material, error) {
	if err := xds.Only(c, "tls_params", "tls_certificates", "tls_certificate_sds_secret_configs", "validation_context",
		"validation_context_sds_secret_config", "combined_validation_context", "alpn_protocols"); err != nil {
		return nil, fmt.Errorf("common_tls_context.%w", err)
	}
	m := &material{secrets: secrets, alpn: c.GetAlpnProtocols(), ready: make(chan struct{}), done: make(chan struct{})}
	err := m.compile(c, maxVersion)
	if err != nil {
		m.close()
		return nil, fmt.Errorf("common_tls_context.%w", err)
	}
	return m, nil
}

func (m *material) compile(c *tlsv3.CommonTlsContext, maxVersion uint16) (err error) {
	if m.params, err = compileParams(c.GetTlsParams(), maxVersion); err != nil {
		return fmt.Errorf("tls_params.%w", err)
	}
	for i, pb := range c.GetTlsCertificates() {
		cert, err := compileCertificate(pb)
		if err != nil {
			return fmt.Errorf("tls_certificates[%d]: %w", i, err)
		}
		m.certificates = append(m.certificates, cert)
	}
	if n := len(c.GetTlsCertificateSdsSecretConfigs()); n > maxSDS {
		return fmt.Errorf("tls_certificate_sds_secret_configs: at most %d are supported, got %d", maxSDS, n)
	}
	for i, cfg := range c.GetTlsCertificateSdsSecretConfigs() {
		s, err := m.secrets.acquire(cfg)
		if err != nil {
			return fmt.Errorf("tls_certificate_sds_secret_configs[%d]: %w", i, err)
		}
		m.sds = append(m.sds, s)
	}
	return m.compileTrust(c)
}

func (m *material) compileTrust(c *tlsv3.CommonTlsContext) (err error) {
	var sds *tlsv3.SdsSecretConfig
	switch t := c.GetValidationContextType().(type) {
	case nil:
		return nil
	case *tlsv3.CommonTlsContext_ValidationContext:
		if m.base, err = compileValidation(t.ValidationContext); err != nil {
			return fmt.Errorf("validation_context.%w", err)
		}
		return nil
	case *tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig:
		sds = t.ValidationContextSdsSecretConfig
	case *tlsv3.CommonTlsContext_CombinedValidationContext:
		if m.base, err = compileValidation(t.CombinedValidationContext.GetDefaultValidationContext()); err != nil {
			return fmt.Errorf("combined_validation_context.default_validation_context.%w", err)
		}
		sds = t.CombinedValidationContext.GetValidationContextSdsSecretConfig()
	default:
		return errors.New("validation_context_type: certificate providers are not supported")
	}
	if m.trust, err = m.secrets.acquire(sds); err != nil {
		return fmt.Errorf("validation_context_sds_secret_config: %w", err)
	}
	return nil
}

// watch closes ready when every secret has come. Where all are there already it takes
// no goroutine.
func (m *material) watch() {
	all := append([]*secret(nil), m.sds...)
	for _, s := range []*secret{m.trust, m.tickets} {
		if s != nil {
			all = append(all, s)
		}
	}
	for len(all) > 0 {
		select {
		case <-all[0].ready:
			all = all[1:]
			continue
		default:
		}
		break
	}
	if len(all) == 0 {
		close(m.ready)
		return
	}
	go func() {
		for _, s := range all {
			select {
			case <-s.ready:
			case <-m.done:
				return
			}
		}
		close(m.ready)
	}()
}

func (m *material) close() {
	m.closing.Do(func() {
		close(m.done)
		for _, s := range m.sds {
			m.secrets.release(s)
		}
		for _, s := range []*secret{m.trust, m.tickets} {
			if s != nil {
				m.secrets.release(s)
			}
		}
	})
}

// errSecret refuses a connection whose certificate or roots have not come.
var errSecret = errors.New("secret is not supplied by SDS")

// maxSDS is how many certificates of one socket may come by SDS (RSA and ECDSA, or a
// few of a gateway server).
const maxSDS = 8

// A version is the state of all secrets at one moment; versions are compared to know
// whether a tls.Config is still right.
type version struct {
	certificates [maxSDS]*secretValue
	names        [maxSDS]string // of the secrets
	trust        *secretValue
	tickets      *secretValue
}

// present returns the present secrets, or errSecret.
func (m *material) present() (version, error) {
	var v version
	for i, s := range m.sds {
		v.names[i] = s.key.name
		if v.certificates[i] = s.value.Load(); v.certificates[i] == nil {
			return v, fmt.Errorf("%w: %s", errSecret, s.key.name)
		}
	}
	if m.trust != nil {
		if v.trust = m.trust.value.Load(); v.trust == nil {
			return v, fmt.Errorf("%w: %s", errSecret, m.trust.key.name)
		}
	}
	if m.tickets != nil {
		if v.tickets = m.tickets.value.Load(); v.tickets == nil {
			return v, fmt.Errorf("%w: %s", errSecret, m.tickets.key.name)
		}
	}
	return v, nil
}

// chain lists the certificates of v, those of the configuration first.
func (m *material) chain(v *version) []tls.Certificate {
	var list []tls.Certificate
	for _, c := range m.certificates {
		list = append(list, *c)
	}
	for _, s := range v.certificates {
		if s != nil && s.certificate != nil {
			list = append(list, *s.certificate)
		}
	}
	return list
}

func (m *material) validation(v *version) *validation {
	if v.trust == nil {
		return m.base
	}
	return m.base.with(v.trust.validation)
}

// judge verifies a peer of a handshake that began with v, by what was trusted then. Where that
// refuses it, what is trusted by now counts: while the handshake lasted a root may have come, and
// the peer's certificate of it.
func (m *material) judge(v *version, trust *validation, verify func(*validation) error) error {
	err := verify(trust)
	if err == nil {
		return nil
	}
	now, gone := m.present()
	if gone != nil || now.trust == v.trust {
		return err
	}
	return verify(m.validation(&now))
}

func compileParams(p *tlsv3.TlsParameters, maxVersion uint16) (params, error) {
	out := params{min: tls.VersionTLS12, max: maxVersion, curves: []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256}}
	if err := xds.Only(p, "tls_minimum_protocol_version", "tls_maximum_protocol_version", "cipher_suites", "ecdh_curves", "signature_algorithms",
		"compliance_policies"); err != nil {
		return out, err
	}
	if err := knownVersions(p); err != nil {
		return out, err
	}
	if v := p.GetTlsMinimumProtocolVersion(); v != tlsv3.TlsParameters_TLS_AUTO {
		out.min = tls.VersionTLS10 + uint16(v-tlsv3.TlsParameters_TLSv1_0)
	}
	if v := p.GetTlsMaximumProtocolVersion(); v != tlsv3.TlsParameters_TLS_AUTO {
		out.max = tls.VersionTLS10 + uint16(v-tlsv3.TlsParameters_TLSv1_0)
	}
	var err error
	if out.ciphers, err = compileCiphers(p.GetCipherSuites()); err != nil {
		return out, fmt.Errorf("cipher_suites: %w", err)
	}
	if out.signatures, err = compileSignatures(p.GetSignatureAlgorithms()); err != nil {
		return out, fmt.Errorf("signature_algorithms: %w", err)
	}
	if len(p.GetEcdhCurves()) > 0 {
		out.curves = nil
	}
	for _, name := range p.GetEcdhCurves() {
		id, ok := curves[name]
		if !ok {
			return out, fmt.Errorf("ecdh_curves: failed to initialize ECDH curve %s", name)
		}
		out.curves = append(out.curves, id)
	}
	return out, out.comply(p.GetCompliancePolicies())
}

// comply narrows the parameters to what policies allow.
func (p *params) comply(policies []tlsv3.TlsParameters_CompliancePolicy) error {
	for i, x := range policies {
		if x != tlsv3.TlsParameters_FIPS_202205 {
			return fmt.Errorf("compliance_policies[%d]: %s is not supported", i, x)
		}
		p.min, p.max = tls.VersionTLS12, tls.VersionTLS13
		p.curves = []tls.CurveID{tls.CurveP256, tls.CurveP384}
		p.ciphers = []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384}
		p.signatures = []tls.SignatureScheme{tls.PKCS1WithSHA256, tls.PKCS1WithSHA384, tls.PKCS1WithSHA512, tls.ECDSAWithP256AndSHA256,
			tls.ECDSAWithP384AndSHA384, tls.PSSWithSHA256, tls.PSSWithSHA384, tls.PSSWithSHA512}
	}
	return nil
}

var curves = map[string]tls.CurveID{
	"X25519": tls.X25519, "P-256": tls.CurveP256, "P-384": tls.CurveP384, "P-521": tls.CurveP521, "X25519MLKEM768": tls.X25519MLKEM768,
}

// ciphers are the suites by OpenSSL's names. crypto/tls orders them itself.
var ciphers = map[string]uint16{
	"ECDHE-ECDSA-AES128-GCM-SHA256": tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	"ECDHE-RSA-AES128-GCM-SHA256":   tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	"ECDHE-ECDSA-AES256-GCM-SHA384": tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	"ECDHE-RSA-AES256-GCM-SHA384":   tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	"ECDHE-ECDSA-CHACHA20-POLY1305": tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	"ECDHE-RSA-CHACHA20-POLY1305":   tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	"ECDHE-ECDSA-AES128-SHA":        tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA,
	"ECDHE-RSA-AES128-SHA":          tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA,
	"ECDHE-ECDSA-AES256-SHA":        tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA,
	"ECDHE-RSA-AES256-SHA":          tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA,
	"AES128-GCM-SHA256":             tls.TLS_RSA_WITH_AES_128_GCM_SHA256,
	"AES256-GCM-SHA384":             tls.TLS_RSA_WITH_AES_256_GCM_SHA384,
	"AES128-SHA":                    tls.TLS_RSA_WITH_AES_128_CBC_SHA,
	"AES256-SHA":                    tls.TLS_RSA_WITH_AES_256_CBC_SHA,
}

// CipherName is the name of a cipher suite in logs: OpenSSL's, which for TLS 1.3 is the
// standard's.
func CipherName(id uint16) string {
	for name, have := range ciphers {
		if have == id {
			return name
		}
	}
	return tls.CipherSuiteName(id)
}

// defaultCiphers are Envoy's.
var defaultCiphers = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
}

// knownVersions refuses numbers that the schema does not name.
func knownVersions(p *tlsv3.TlsParameters) error {
	if v := p.GetTlsMinimumProtocolVersion(); v < 0 || v > tlsv3.TlsParameters_TLSv1_3 {
		return fmt.Errorf("tls_minimum_protocol_version: unknown value %d", v)
	}
	if v := p.GetTlsMaximumProtocolVersion(); v < 0 || v > tlsv3.TlsParameters_TLSv1_3 {
		return fmt.Errorf("tls_maximum_protocol_version: unknown value %d", v)
	}
	return nil
}

// compileCiphers reads OpenSSL names, also in groups of equal preference "[A|B]".
func compileCiphers(names []string) ([]uint16, error) {
	if len(names) == 0 {
		return defaultCiphers, nil
	}
	var list []uint16
	for _, entry := range names {
		for group := range strings.SplitSeq(entry, ":") {
			for name := range strings.SplitSeq(strings.Trim(group, "[]"), "|") {
				id, ok := ciphers[name]
				if !ok {
					return nil, fmt.Errorf("failed to initialize cipher suites %s", name)
				}
				list = append(list, id)
			}
		}
	}
	return list, nil
}
