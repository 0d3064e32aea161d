package config

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
)

func validateGateway(p place, o *Config) {
	gw := o.Spec.(*networking.Gateway)
	if !isDNSLabel(o.Name) {
		place{p.r, "metadata.name"}.errorf("%q is not a gateway name: it must not have dots", shorten(o.Name))
	}
	if len(gw.Servers) == 0 {
		p.field("servers").errorf("at least one server is required")
	}
	names := map[string]bool{}
	for i, s := range gw.Servers {
		at := p.at("servers", i)
		validateServer(at, s)
		if s.Port == nil {
			continue
		}
		if names[s.Port.Name] {
			at.field("port.name").errorf("duplicate port name %q", shorten(s.Port.Name))
		}
		names[s.Port.Name] = true
		if s.GetTls().GetHttpsRedirect() && classify(s.Port.Protocol) != httpProtocol {
			at.field("tls.httpsRedirect").warnf("has an effect on HTTP servers only")
		}
	}
}

func validateServer(p place, s *networking.Server) {
	if len(s.Hosts) == 0 {
		p.field("hosts").errorf("at least one host is required")
	}
	for i, h := range s.Hosts {
		validateGatewayHost(p.at("hosts", i), h)
	}
	if s.Port == nil {
		p.field("port").errorf("required")
	} else {
		validateServerPort(p.field("port"), s.Port, s.Bind)
		validateServerTLSUse(p.field("tls"), s)
	}
	validateServerBind(p, s)
	validateServerTLS(p.field("tls"), s.Tls)
}

func validateServerPort(p place, sp *networking.Port, bind string) {
	if classify(sp.Protocol) == unknownProtocol || classify(sp.Protocol) == udpProtocol {
		p.field("protocol").add(Error, didYouMean(sp.Protocol, protocolNames),
			"%q is not a protocol of gateways: HTTP, HTTPS, HTTP2, GRPC, GRPC-WEB, TLS, TCP, MONGO, REDIS, MYSQL", shorten(sp.Protocol))
	}
	if sp.Number > 0 || !strings.HasPrefix(bind, unixScheme) {
		p.field("number").wrong(port(int64(sp.Number)))
	}
	if sp.TargetPort > 0 { //nolint:staticcheck // deprecated, still in users' files
		p.field("targetPort").warnf("has no effect on gateways")
	}
	if sp.Name == "" {
		p.field("name").errorf("required")
	}
}

func validateServerBind(p place, s *networking.Server) {
	sock, unix := strings.CutPrefix(s.Bind, unixScheme)
	switch {
	case unix:
		p.field("bind").wrong(unixPath(sock))
		if s.GetPort().GetNumber() != 0 {
			p.field("port.number").errorf("must be 0 for a unix socket")
		}
	case s.Bind != "":
		p.field("bind").wrong(ipAddress(s.Bind))
	}
}

// validateServerTLSUse checks that TLS settings stand where the protocol has TLS.
func validateServerTLSUse(p place, s *networking.Server) {
	class := classify(s.Port.Protocol)
	switch {
	case class == tlsProtocol && s.Tls == nil:
		p.errorf("required for protocol %s", s.Port.Protocol)
	case class == tlsProtocol || s.Tls == nil:
	case class == httpProtocol:
		// Only httpsRedirect has a place here; mode is its zero value then.
		passthrough := s.Tls.Mode == networking.ServerTLSSettings_PASSTHROUGH || s.Tls.Mode == networking.ServerTLSSettings_AUTO_PASSTHROUGH
		if !passthrough || s.Tls.CaCertificates != "" || s.Tls.PrivateKey != "" || s.Tls.ServerCertificate != "" {
			p.add(Error, "use protocol HTTPS", "cannot be set for protocol %s, except for httpsRedirect", s.Port.Protocol)
		}
	default:
		p.add(Error, "use protocol TLS", "cannot be set for protocol %s", s.Port.Protocol)
	}
}

// validateGatewayHost checks "[namespace/]host".
func validateGatewayHost(p place, h string) {
	ns, name, split := strings.Cut(h, "/")
	if !split {
		validateListenerHost(p, h, true)
		return
	}
	if ns != "*" && ns != "." && !isDNSLabel(ns) {
		p.errorf("%q is not a namespace, \".\" or \"*\"", shorten(ns))
	}
	validateListenerHost(p, name, true)
}

// validateListenerHost checks the host part of Gateway and Sidecar hosts. Only
// gateways may name an IP address.
func validateListenerHost(p place, h string, addresses bool) {
	if h != "*" && !strings.Contains(h, ".") {
		p.errorf("short names (non FQDN) are not allowed: %q", shorten(h))
		return
	}
	if err := wildcardDomain(h); err != nil && !(addresses && isIP(h)) {
		p.wrong(err)
		return
	}
	p.wrong(partialWildcard(h))
}

// validateServerTLS checks the server side of TLS, of gateways and of sidecars' ingress.
func validateServerTLS(p place, t *networking.ServerTLSSettings) {
	if t == nil {
		return
	}
	validateCipherSuites(p, t)
	validateCredentialChoice(p, t)
	for i, pin := range t.VerifyCertificateSpki {
		if sum, err := base64.StdEncoding.DecodeString(pin); err != nil || len(sum) != sha256.Size {
			p.at("verifyCertificateSpki", i).errorf("must be a SHA-256 in base64, got %q", shorten(pin))
		}
	}
	for i, pin := range t.VerifyCertificateHash {
		if sum, err := hex.DecodeString(strings.ReplaceAll(pin, ":", "")); err != nil || len(sum) != sha256.Size {
			p.at("verifyCertificateHash", i).errorf("must be a SHA-256 in hexadecimal digits, got %q", shorten(pin))
		}
	}
	switch t.Mode {
	case networking.ServerTLSSettings_ISTIO_MUTUAL:
		p.excluded("ISTIO_MUTUAL uses the mesh's certificates", map[string]bool{
			"serverCertificate": t.ServerCertificate != "", "privateKey": t.PrivateKey != "", "caCertificates": t.CaCertificates != "",
			"credentialName": t.CredentialName != "", "credentialNames": len(t.CredentialNames) > 0, "tlsCertificates": len(t.TlsCertificates) > 0})
		return
	case networking.ServerTLSSettings_PASSTHROUGH, networking.ServerTLSSettings_AUTO_PASSTHROUGH:
		if t.CaCrl != "" || t.ServerCertificate != "" || t.PrivateKey != "" || t.CaCertificates != "" ||
			t.CredentialName != "" || len(t.CredentialNames) > 0 || len(t.TlsCertificates) > 0 {
			p.field("mode").warnf("%s does not use certificates: they are ignored", t.Mode)
		}
	case networking.ServerTLSSettings_SIMPLE, networking.ServerTLSSettings_MUTUAL, networking.ServerTLSSettings_OPTIONAL_MUTUAL:
		validateServerCertificates(p, t)
	}
}

func validateServerCertificates(p place, t *networking.ServerTLSSettings) {
	if t.CredentialName != "" || len(t.CredentialNames) > 0 {
		return // everything comes from the secret
	}
	const hint = "name a Secret in credentialName"
	require := func(at place, field, value string) {
		if value == "" {
			at.field(field).add(Error, hint, "required for mode %s", t.Mode)
		}
	}
	if len(t.TlsCertificates) > 0 {
		for i, c := range t.TlsCertificates {
			require(p.at("tlsCertificates", i), "serverCertificate", c.ServerCertificate)
			require(p.at("tlsCertificates", i), "privateKey", c.PrivateKey)
		}
	} else {
		require(p, "serverCertificate", t.ServerCertificate)
		require(p, "privateKey", t.PrivateKey)
	}
	if t.Mode != networking.ServerTLSSettings_SIMPLE && t.CaCertCredentialName == "" {
		require(p, "caCertificates", t.CaCertificates)
	}
	if t.CaCrl != "" && t.Mode == networking.ServerTLSSettings_SIMPLE {
		p.field("caCrl").errorf("has no use in mode SIMPLE")
	}
}

func validateCredentialChoice(p place, t *networking.ServerTLSSettings) {
	sources := 0
	for _, set := range []bool{t.CredentialName != "", len(t.CredentialNames) > 0, len(t.TlsCertificates) > 0} {
		if set {
			sources++
		}
	}
	if sources > 1 {
		p.errorf("only one of credentialName, credentialNames and tlsCertificates can be set")
	}
	if len(t.CredentialNames) > 2 {
		p.field("credentialNames").errorf("at most two, got %d", len(t.CredentialNames))
	}
	if len(t.TlsCertificates) > 2 {
		p.field("tlsCertificates").errorf("at most two, got %d", len(t.TlsCertificates))
	}
}

// excluded reports the fields that are set though reason forbids them.
func (p place) excluded(reason string, set map[string]bool) {
	for _, f := range sortedKeys(set) {
		if set[f] {
			p.field(f).errorf("cannot be set: %s", reason)
		}
	}
}

func validateCipherSuites(p place, t *networking.ServerTLSSettings) {
	if len(t.CipherSuites) == 0 && (t.MinProtocolVersion == networking.ServerTLSSettings_TLSV1_0 || t.MinProtocolVersion == networking.ServerTLSSettings_TLSV1_1) {
		p.field("minProtocolVersion").warnf("%s needs cipherSuites: the default ones are for TLSV1_2 and later", t.MinProtocolVersion)
	}
	seen := map[string]bool{}
	for i, c := range t.CipherSuites {
		at := p.at("cipherSuites", i)
		switch {
		case !IsCipherSuite(c):
			at.warnf("unknown cipher suite %q is ignored", shorten(c))
		case seen[c]:
			at.warnf("duplicate cipher suite %q is ignored", shorten(c))
		}
		seen[c] = true
	}
}

// IsCipherSuite reports whether a name is one of the cipher suites, by OpenSSL's names,
// that the mesh hands on to proxies. Of others a proxy may refuse the listener.
func IsCipherSuite(name string) bool {
	switch name {
	case "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384",
		"ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305",
		"ECDHE-PSK-CHACHA20-POLY1305", "ECDHE-ECDSA-AES128-SHA", "ECDHE-RSA-AES128-SHA", "ECDHE-PSK-AES128-CBC-SHA",
		"ECDHE-ECDSA-AES256-SHA", "ECDHE-RSA-AES256-SHA", "ECDHE-PSK-AES256-CBC-SHA",
		"AES128-GCM-SHA256", "AES256-GCM-SHA384", "AES128-SHA", "AES256-SHA",
		"PSK-AES128-CBC-SHA", "PSK-AES256-CBC-SHA", "DES-CBC3-SHA":
		return true
	}
	return false
}
