package transport

import (
	"context"
	"crypto/tls"
	"net"
)

// A ServerSocket turns accepted sockets into streams: as they are, or by a TLS
// handshake. It is shared by all connections of a filter chain.
type ServerSocket interface {
	// Accept does the server's side of the handshake, bounded by ctx, and owns raw
	// from then on: on an error raw is closed. ahead are bytes of the stream that
	// listener filters have already taken from raw; nil if they only peeked.
	Accept(ctx context.Context, raw net.Conn, ahead []byte) (Conn, error)
	// Ready is closed when all certificates and roots are there.
	Ready() <-chan struct{}
	// Close gives up the secrets' subscriptions. Connections live on.
	Close()
}

// An Owner is a ServerSocket that shows a certificate; URIs are its URI subject
// alternative names.
type Owner interface{ URIs() []string }

// A ClientSocket turns dialled sockets into streams. It is shared by all
// connections of a cluster, or of a transport socket match.
type ClientSocket interface {
	// Connect does the client's side of the handshake, bounded by ctx, and owns raw
	// from then on: on an error raw is closed. The error is an *Error.
	Connect(ctx context.Context, raw net.Conn, t Target) (Conn, error)
	// Ready and Close are as in ServerSocket.
	Ready() <-chan struct{}
	Close()
	// Secure reports TLS; the scheme of HTTP requests through it is then "https".
	Secure() bool
}

// A Teller is a ClientSocket whose connections tell the peer for whom they are made
// (Target.Proxied): they may carry what is of the same two addresses, and nothing else.
type Teller interface{ Tells() }

// A Target is what one connection asks of the peer beyond its socket's configuration.
type Target struct {
	// SNI, if not "", replaces the configured server name (auto_sni). VerifySNI also
	// asks for a certificate of that name (auto_san_validation).
	SNI       string
	VerifySNI bool
	// ALPN replaces the configured protocols when not nil; Fallback is offered where none
	// are configured.
	ALPN, Fallback []string
	// Proxied is for whom the connection is made, nil for the proxy's own purposes. A
	// socket that sends the PROXY protocol tells the peer.
	Proxied *Proxied
	// Host is the name of the endpoint, "" when it has none (auto_host_sni).
	Host string
}

// An Error is a connection that failed before its first byte. Reason is what Envoy
// puts into UPSTREAM_TRANSPORT_FAILURE_REASON and into the body of the local reply,
// with blanks: "delayed connect error: Connection refused"; "" when it has none.
type Error struct {
	Reason  string
	Timeout bool // connect_timeout ran out
	Err     error
	// TLS is how far the handshake got, nil where there was none.
	TLS *tls.ConnectionState
}

// Error is the reason where there is one, else the cause's text.
func (e *Error) Error() string {
	if e.Reason != "" {
		return e.Reason
	}
	return e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
