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
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"

	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// Env is what sockets use of the proxy around them.
type Env struct {
	Secrets *Secrets
	// Stats is the scope of the listener or cluster; TLS counts below "ssl.".
	Stats *stats.Scope
	// Unspoken are ALPN protocols of the configuration that are not offered, because
	// no codec speaks them.
	Unspoken []string
}

// Plain is the raw_buffer socket of both sides.
type Plain struct{}

var closed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// Accept makes a Conn of the socket as it is.
func (Plain) Accept(_ context.Context, c net.Conn, ahead []byte) (Conn, error) {
	return NewConnAhead(c, ahead), nil
}

// Connect makes a Conn of the socket as it is.
func (Plain) Connect(_ context.Context, c net.Conn, _ Target) (Conn, error) { return NewConn(c), nil }

// Ready is closed.
func (Plain) Ready() <-chan struct{} { return closed }

// Close does nothing.
func (Plain) Close() {}

// Secure is false.
func (Plain) Secure() bool { return false }

// DecodeServer compiles the transport_socket of a filter chain; nil is plain.
func DecodeServer(ts *corev3.TransportSocket, env Env) (ServerSocket, error) {
	switch url := ts.GetTypedConfig().GetTypeUrl(); {
	case ts == nil, isRaw(ts):
		return Plain{}, nil
	case url == "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext":
		var c tlsv3.DownstreamTlsContext
		if err := proto.Unmarshal(ts.GetTypedConfig().GetValue(), &c); err != nil {
			return nil, fmt.Errorf("transport_socket: %w", err)
		}
		return DecodeDownstreamTLS(&c, env)
	default:
		return nil, fmt.Errorf("transport_socket: %s (%s) is not supported", ts.GetName(), url)
	}
}

func isRaw(ts *corev3.TransportSocket) bool {
	url := ts.GetTypedConfig().GetTypeUrl()
	return url == "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer" ||
		url == "" && ts.GetName() == "envoy.transport_sockets.raw_buffer"
}

// DecodeDownstreamTLS compiles the server's side of TLS. Which ciphers come first is
// crypto/tls's own choice; sessions are kept by tickets alone.
func DecodeDownstreamTLS(c *tlsv3.DownstreamTlsContext, env Env) (_ ServerSocket, err error) {
	if err := xds.Only(c, "common_tls_context", "require_client_certificate", "require_sni", "session_ticket_keys",
		"session_ticket_keys_sds_secret_config", "disable_stateless_session_resumption", "disable_stateful_session_resumption", "session_timeout",
		"ocsp_staple_policy", "full_scan_certs_on_sni_mismatch", "prefer_client_ciphers"); err != nil {
		return nil, err
	}
	m, err := compileMaterial(c.GetCommonTlsContext(), env.Secrets, tls.VersionTLS13)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			m.close()
		}
	}()
	if len(m.certificates)+len(m.sds) == 0 {
		return nil, errors.New("common_tls_context: no TLS certificates found for server context")
	}
	m.alpn = slices.DeleteFunc(slices.Clone(m.alpn), func(p string) bool { return slices.Contains(env.Unspoken, p) })
	out := &server{
		material: m, require: c.GetRequireClientCertificate().GetValue(), requireSNI: c.GetRequireSni().GetValue(),
		noTickets: c.GetDisableStatelessSessionResumption(), life: sessionLife, stats: newTLSStats(env.Stats),
		staples: c.GetOcspStaplePolicy(), fullScan: c.GetFullScanCertsOnSniMismatch().GetValue(),
	}
	if t := c.GetSessionTimeout(); t != nil {
		out.life = t.AsDuration().Truncate(time.Second)
	}
	if err = out.compileTickets(c); err != nil {
		return nil, err
	}
	m.watch()
	var config []tls.Certificate
	for _, cert := range m.certificates {
		config = append(config, *cert)
	}
	if _, err = out.newSelection(config); err != nil {
		return nil, fmt.Errorf("common_tls_context.tls_certificates: %w", err)
	}
	return out, nil
}

func (s *server) compileTickets(c *tlsv3.DownstreamTlsContext) (err error) {
	switch k := c.GetSessionTicketKeysType().(type) {
	case *tlsv3.DownstreamTlsContext_SessionTicketKeys:
		if s.keys, err = compileTicketKeys(k.SessionTicketKeys); err != nil {
			return fmt.Errorf("session_ticket_keys.%w", err)
		}
	case *tlsv3.DownstreamTlsContext_SessionTicketKeysSdsSecretConfig:
		if s.tickets, err = s.secrets.acquire(k.SessionTicketKeysSdsSecretConfig); err != nil {
			return fmt.Errorf("session_ticket_keys_sds_secret_config: %w", err)
		}
	}
	return nil
}

// server is the server's side of TLS.
type server struct {
	*material
	require, requireSNI, noTickets bool
	life                           time.Duration // of sessions
	keys                           []ticketKey   // of the configuration itself
	staples                        tlsv3.DownstreamTlsContext_OcspStaplePolicy
	fullScan                       bool
	stats                          *tlsStats
	built                          atomic.Pointer[serverConfig]
}

// serverConfig is a tls.Config and the secrets that it was made of.
type serverConfig struct {
	version version
	config  *tls.Config
	uris    []string // of the first certificate
}

func (s *server) Ready() <-chan struct{} { return s.ready }

func (s *server) Close() { s.close() }

func (s *server) Accept(ctx context.Context, raw net.Conn, ahead []byte) (Conn, error) {
	b, err := s.config()
	if err != nil {
		closeOnce(raw)
		return nil, &Error{Err: err}
	}
	r := newRecords(raw, ahead)
	conn, err := establish(ctx, tls.Server(r, b.config), r, s.stats)
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// URIs are those of the first certificate: all certificates of a socket are of one owner.
func (s *server) URIs() []string {
	if b := s.built.Load(); b != nil {
		return b.uris
	}
	return nil
}

// config returns the tls.Config for the present secrets: the same one as long as they
// stay, so that its session tickets do.
func (s *server) config() (*serverConfig, error) {
	v, err := s.present()
	if err != nil {
		return nil, err
	}
	if b := s.built.Load(); b != nil && b.version == v {
		return b, nil
	}
	certs := s.chain(&v)
	sel, err := s.newSelection(certs)
	if err != nil {
		return nil, err
	}
	b := &serverConfig{version: v, config: s.build(&v, sel)}
	for _, u := range certs[0].Leaf.URIs {
		b.uris = append(b.uris, u.String())
	}
	s.built.Store(b)
	s.stats.expires(&v, certs)
	return b, nil
}

func (s *server) build(v *version, sel *selection) *tls.Config {
	c := &tls.Config{
		GetCertificate: sel.choose, MinVersion: s.params.min, MaxVersion: s.params.max, CipherSuites: s.params.ciphers,
		CurvePreferences: s.params.curves, NextProtos: s.alpn, SessionTicketsDisabled: s.noTickets,
		DynamicRecordSizingDisabled: true, // small records cost more than they hasten
	}
	s.tellClients(c, v)
	s.keepSessions(c, v)
	// A client whose protocols we do not have is served without ALPN, as by Envoy;
	// crypto/tls would refuse it.
	without := c.Clone()
	without.NextProtos = nil
	c.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		if s.requireSNI && h.ServerName == "" {
			return nil, errors.New("client sent no SNI")
		}
		if len(s.alpn) > 0 && !slices.ContainsFunc(h.SupportedProtos, func(p string) bool { return slices.Contains(s.alpn, p) }) {
			return without, nil
		}
		return nil, nil
	}
	return c
}

// tellClients says what is asked of their certificates: none where nobody wants to know,
// and one for certain where more than its issuer is checked. Where any will do it may also be
// none, as with Envoy.
func (s *server) tellClients(c *tls.Config, v *version) {
	trust := s.validation(v)
	switch {
	case trust.checks() && (s.require || trust.insists()):
		c.ClientAuth = tls.RequireAnyClientCert
	case trust.checks(), trust != nil && trust.untrusted:
		c.ClientAuth = tls.RequestClientCert
	}
	if trust != nil && !trust.hideRoots {
		c.ClientCAs = trust.roots
	}
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) == 0 || trust == nil {
			return nil // absence is crypto/tls's to refuse
		}
		return s.judge(v, trust, func(trust *validation) error {
			return trust.verify(cs.PeerCertificates, x509.ExtKeyUsageClientAuth, "")
		})
	}
}

// keepSessions says with which keys sessions are resumed, and for how long.
func (s *server) keepSessions(c *tls.Config, v *version) {
	keys := s.keys
	if v.tickets != nil {
		keys = v.tickets.tickets
	}
	if len(keys) > 0 {
		c.SetSessionTicketKeys(keys)
	}
	limitSessions(c, s.life)
}
