package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"

	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// DecodeClient compiles the transport_socket of a cluster; nil is plain.
func DecodeClient(ts *corev3.TransportSocket, env Env) (ClientSocket, error) {
	switch url := ts.GetTypedConfig().GetTypeUrl(); {
	case ts == nil, isRaw(ts):
		return Plain{}, nil
	case url == "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext":
		var c tlsv3.UpstreamTlsContext
		if err := proto.Unmarshal(ts.GetTypedConfig().GetValue(), &c); err != nil {
			return nil, fmt.Errorf("transport_socket: %w", err)
		}
		return DecodeUpstreamTLS(&c, env)
	case url == proxyProtocolURL:
		s, err := decodeProxySender(ts.GetTypedConfig().GetValue(), env)
		if err != nil {
			return nil, fmt.Errorf("transport_socket: %w", err)
		}
		return s, nil
	default:
		return nil, fmt.Errorf("transport_socket: %s (%s) is not supported", ts.GetName(), url)
	}
}

// DecodeUpstreamTLS compiles the client's side of TLS. Without a validation context
// the server is not verified, as by Envoy.
func DecodeUpstreamTLS(c *tlsv3.UpstreamTlsContext, env Env) (ClientSocket, error) {
	// How RSA keys may be used is crypto/tls's to check.
	if err := xds.Only(c, "common_tls_context", "sni", "max_session_keys", "enforce_rsa_key_usage",
		"auto_host_sni", "auto_sni_san_validation", "allow_renegotiation"); err != nil {
		return nil, err
	}
	if n := len(c.GetCommonTlsContext().GetTlsCertificates()) + len(c.GetCommonTlsContext().GetTlsCertificateSdsSecretConfigs()); n > 1 {
		return nil, errors.New("common_tls_context: multiple TLS certificates are not supported in client contexts")
	}
	m, err := compileMaterial(c.GetCommonTlsContext(), env.Secrets, tls.VersionTLS12)
	if err != nil {
		return nil, err
	}
	if len(m.params.signatures) > 0 && len(c.GetCommonTlsContext().GetTlsParams().GetSignatureAlgorithms()) > 0 {
		m.close()
		return nil, errors.New("common_tls_context.tls_params.signature_algorithms: not supported for upstreams")
	}
	m.watch()
	m.alpn = slices.DeleteFunc(slices.Clone(m.alpn), func(p string) bool { return slices.Contains(env.Unspoken, p) })
	sessions := 1 // Envoy's default
	if n := c.GetMaxSessionKeys(); n != nil {
		sessions = int(n.GetValue())
	}
	return &client{
		material: m, sni: c.GetSni(), sessions: sessions, stats: newTLSStats(env.Stats),
		hostSNI: c.GetAutoHostSni(), verifySNI: c.GetAutoSniSanValidation(), renegotiates: c.GetAllowRenegotiation(),
	}, nil
}

// client is the client's side of TLS.
type client struct {
	*material
	sni      string
	sessions int
	// auto_host_sni, auto_sni_san_validation, allow_renegotiation
	hostSNI, verifySNI, renegotiates bool

	stats *tlsStats
	built atomic.Pointer[clientConfig]
}

// clientConfig is a tls.Config and the secrets that it was made of. The peer is
// verified by the connection that was made with it, for its own host name.
type clientConfig struct {
	version version
	config  *tls.Config
	trust   *validation
	own     *streaminfo.Certificate // nil for none
}

func (c *client) Ready() <-chan struct{} { return c.ready }

func (c *client) Close() { c.close() }

func (c *client) Secure() bool { return true }

func (c *client) Connect(ctx context.Context, raw net.Conn, t Target) (Conn, error) {
	b, err := c.config()
	if err != nil {
		closeOnce(raw)
		return nil, &Error{Err: err, Reason: "TLS_error:Secret is not supplied by SDS"}
	}
	if c.hostSNI && t.SNI == "" {
		t.SNI = t.Host
	}
	t.VerifySNI = t.VerifySNI || c.verifySNI
	r := newRecords(raw, nil)
	conn, err := establish(ctx, tls.Client(r, c.target(b, t)), r, c.stats)
	if err != nil {
		return nil, err
	}
	conn.facts = handshakeOf(&conn.state, b.own)
	return conn, nil
}

func (c *client) config() (*clientConfig, error) {
	v, err := c.present()
	if err != nil {
		return nil, err
	}
	if b := c.built.Load(); b != nil && b.version == v {
		return b, nil
	}
	b := &clientConfig{version: v, config: c.build(&v), trust: c.validation(&v)}
	if certs := c.chain(&v); len(certs) > 0 {
		b.own = Describe(certs[0].Leaf)
	}
	c.built.Store(b)
	return b, nil
}

func (c *client) build(v *version) *tls.Config {
	cfg := &tls.Config{
		ServerName: c.sni, MinVersion: c.params.min, MaxVersion: c.params.max, CipherSuites: c.params.ciphers,
		CurvePreferences: c.params.curves, NextProtos: c.alpn, DynamicRecordSizingDisabled: true,
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection does it, by the validation context
	}
	if certs := c.chain(v); len(certs) > 0 {
		// Sent whatever issuers the server names: the choice is the configuration's.
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certs[0], nil }
	}
	if c.renegotiates {
		cfg.Renegotiation = tls.RenegotiateFreelyAsClient
	}
	if c.sessions > 0 {
		cfg.ClientSessionCache = tls.NewLRUClientSessionCache(c.sessions)
	}
	return cfg
}

// target is the configuration for one connection. With auto_sni_san_validation the name takes
// the place of the configured subject alternative names.
func (c *client) target(b *clientConfig, t Target) *tls.Config {
	cfg := b.config.Clone()
	if t.SNI != "" {
		cfg.ServerName = t.SNI
	}
	if t.ALPN != nil {
		cfg.NextProtos = t.ALPN
	} else if len(cfg.NextProtos) == 0 {
		cfg.NextProtos = t.Fallback
	}
	host, name := "", cfg.ServerName
	instead := c.verifySNI && name != ""
	if t.VerifySNI && !instead {
		host = name
	}
	if b.trust == nil && !instead {
		return cfg
	}
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		return c.judge(&b.version, b.trust, func(trust *validation) error {
			if instead {
				trust = trust.only(name)
			}
			return trust.verify(cs.PeerCertificates, x509.ExtKeyUsageServerAuth, host)
		})
	}
	return cfg
}
