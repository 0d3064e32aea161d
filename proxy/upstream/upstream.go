// Package upstream keeps the connections to endpoints.
//
// A Pool holds the HTTP connections to one endpoint. Acquire returns one exchange: on an
// idle connection of HTTP/1.1, the last used first, on one of HTTP/2 that has room, or,
// after a wait in line, on the first that becomes free or is dialled for those who wait.
// A dial that fails fails all of them. The connection finds its own way back when the
// exchange is complete. Limits are the circuit breakers of a cluster and priority, shared
// by the pools of its endpoints: a connection keeps its place until it is closed, and an
// exchange has one from when it has a connection; Stats are the cluster's counters. No
// lock is held while anything blocks.
//
// Version says what the connections speak. With ALPN each speaks what its handshake
// settled, and those dialled later are expected to do the same.
//
// An idle connection that the peer has closed is found when it is taken (a peek at
// the socket: servers that close right after an answer are common) and by a sweep
// every second; a request is not written to it. One that ends between the look and the
// write is told by its acknowledgements (Prober.Untaken): if the peer has received no
// byte, the Reset is Unused, and the router sends the request on another connection.
package upstream

import (
	"context"
	"net/netip"
	"time"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/http1"
	"github.com/lateen-mesh/lateen/proxy/http2"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

// A Version is what the connections of a pool speak.
type Version uint8

// The versions.
const (
	HTTP1 Version = iota
	HTTP2
	ALPN // what the TLS handshake settles, HTTP/1.1 if nothing
)

// Options are the settings of a Pool.
type Options struct {
	// Dial connects to the endpoint, TLS included; it obeys ctx. Its error text
	// becomes the transport failure reason.
	Dial func(ctx context.Context) (transport.Conn, error)
	// ConnectTimeout bounds Dial, 0 is 5 s as in Envoy.
	ConnectTimeout time.Duration
	// IdleTimeout closes connections that are not used for so long, 0 is never.
	IdleTimeout time.Duration
	// MaxConnectionDuration closes connections of that age when they are idle, 0 is never.
	MaxConnectionDuration time.Duration
	// MaxRequestsPerConn closes a connection after so many requests, 0 is no limit.
	MaxRequestsPerConn uint32
	// MaxConnections bounds the connections of this endpoint alone (per_host_thresholds), 0 is
	// no limit.
	MaxConnections uint32
	Version        Version // what is spoken
	// HTTP2 are the settings of HTTP/2 connections.
	HTTP2 http2.ClientOptions
	// HTTP1 are the options of HTTP/1 connections.
	HTTP1  http1.Options
	Limits *Limits // required
	Stats  *Stats  // required
}

// A Wish is what decides, besides the endpoint, which connections may carry a request.
type Wish struct {
	Priority  int           // 0 default, 1 high: whose circuit breakers count
	Client    http.Protocol // what the client speaks (use_downstream_protocol_config)
	Authority []byte        // of the request (auto_sni)
	// ALPN is what to offer in place of what is configured, joined by commas; "" for that.
	ALPN string
	// State is the filter state of the stream: ALPNKey, NameKey and transport.ProxiedKey of it
	// count.
	State map[string]any
	// From and To are the addresses of the connection downstream, which count where the peer
	// is told of them and State does not; invalid for the proxy's own purposes.
	From, To netip.AddrPort
}

// Proxied is what the PROXY protocol tells about the request's connection, nil when it is made
// for the proxy's own purposes.
func (w *Wish) Proxied() *transport.Proxied {
	if told, ok := w.State[transport.ProxiedKey].(*transport.Proxied); ok {
		return told
	}
	if !w.From.IsValid() {
		return nil
	}
	return &transport.Proxied{From: w.From, To: w.To}
}

// Filter state by which filters say how the connection of a stream is to be made.
const (
	ALPNKey = "envoy.network.application_protocols" // []string, offered in place of the configured ones
	NameKey = "envoy.network.upstream_server_name"  // string, the server name of TLS
)
