// Package streaminfo holds the facts of one connection or stream, gathered while
// it runs; access logs, stats, spans and header formatters read them.
package streaminfo

import (
	"crypto/x509"
	"maps"
	"net/netip"
	"time"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/peer"
)

// Info is the record of one HTTP stream or, where there is no HTTP, of one
// connection. It belongs to the goroutine that runs the stream until the stream
// is over; Reset makes it ready for the next one.
type Info struct {
	Start time.Time // when the first byte of the request was read, or the connection accepted
	End   time.Time // when the stream was over; zero before

	// Points in time after Start, 0 when not reached.
	RequestReceived     time.Duration // last byte of the request read
	UpstreamRequestSent time.Duration // first byte sent upstream
	UpstreamRequestEnd  time.Duration // last byte sent upstream
	UpstreamResponse    time.Duration // first byte of the response read from upstream
	UpstreamResponseEnd time.Duration // last byte of the response read from upstream
	ResponseSent        time.Duration // first byte of the response sent downstream

	Protocol                string // "HTTP/1.1", "" without HTTP
	UpstreamProtocol        string
	Code                    int // response status, 0 before or without HTTP
	Flags                   Flags
	CodeDetails             string // RESPONSE_CODE_DETAILS
	TerminationDetails      string // CONNECTION_TERMINATION_DETAILS
	UpstreamFailureReason   string // UPSTREAM_TRANSPORT_FAILURE_REASON
	DownstreamFailureReason string // DOWNSTREAM_TRANSPORT_FAILURE_REASON

	// HealthCheck says that a filter took the request for a health check: it is no traffic.
	HealthCheck bool

	// LogType is ACCESS_LOG_TYPE of a record that is not of an end, "" for one that is.
	LogType string

	BytesReceived uint64 // body bytes from downstream (TCP: all bytes)
	BytesSent     uint64 // body bytes to downstream

	RouteName   string
	VirtualHost string
	// VirtualCluster is by which the request is counted, "" for none and for that of others.
	VirtualCluster string
	Cluster        string // name of the chosen cluster
	// ClusterStatName is its alt_stat_name, "" when that is the name.
	ClusterStatName string
	Upstream        *endpoint.Endpoint
	UpstreamLocal   netip.AddrPort
	Attempts        int
	Attempted       []*endpoint.Endpoint // that attempts were connected to, nil when there was but one

	ConnectionID           uint64
	DownstreamLocal        netip.AddrPort // address the client connected to (restored when captured)
	DownstreamDirectLocal  netip.AddrPort
	LocalRestored          bool           // DownstreamLocal is not the socket's own: the connection was captured
	DownstreamRemote       netip.AddrPort // client, after x-forwarded-for rules
	DownstreamDirectRemote netip.AddrPort // peer of the socket
	DownstreamTold         netip.AddrPort // whom the PROXY protocol names as the client; invalid without
	ServerName             string         // SNI
	FilterChain            string

	// Handshake is when, after the connection was accepted, its TLS handshake was done; 0 without TLS.
	Handshake               time.Duration
	TLSVersion, TLSCipher   string
	PeerURISANs             []string
	LocalURISANs            []string
	PeerDNSSANs             []string
	PeerSubject, PeerIssuer string
	Peer                    *x509.Certificate // the client's, nil when it showed none

	// DownstreamPeer and UpstreamPeer are the workloads at the other ends, as far as their
	// proxies have told, nil otherwise; that of a TCP connection may be known later.
	DownstreamPeer, UpstreamPeer peer.Known
	// UpstreamTLS is the handshake of the connection upstream, nil without TLS.
	UpstreamTLS *TLS

	// UpstreamALPN is what connections upstream offer in place of what is configured, joined
	// by commas; "" for that.
	UpstreamALPN string

	// TraceID and SpanID are of the stream's span, in hexadecimal digits; nil without one.
	TraceID, SpanID []byte

	// Metadata is dynamic metadata by filter name, nil until set.
	Metadata map[string]map[string]any
	// FilterState is per-stream state by key, nil until set; that of the connection is seen
	// by its streams. SetState changes it, nobody else.
	FilterState map[string]any
	inherited   bool // FilterState is the connection's, and is not changed for a stream
}

// SetState sets FilterState[key].
func (i *Info) SetState(key string, v any) {
	if i.FilterState == nil || i.inherited {
		own := make(map[string]any, len(i.FilterState)+1)
		maps.Copy(own, i.FilterState)
		i.FilterState, i.inherited = own, false
	}
	i.FilterState[key] = v
}

// SetMetadata gives a namespace of the dynamic metadata more values, which take the place of
// those with their keys. values is kept and never changed; nor is what a namespace had before.
func (i *Info) SetMetadata(namespace string, values map[string]any) {
	if i.Metadata == nil {
		i.Metadata = make(map[string]map[string]any, 1)
	}
	before := i.Metadata[namespace]
	for key := range before {
		if _, replaced := values[key]; !replaced {
			before = maps.Clone(before)
			maps.Copy(before, values)
			i.Metadata[namespace] = before
			return
		}
	}
	i.Metadata[namespace] = values
}

// Source is the peer of the connection: whom the PROXY protocol names, else the socket's.
func (i *Info) Source() netip.AddrPort {
	if i.DownstreamTold.IsValid() {
		return i.DownstreamTold
	}
	return i.DownstreamDirectRemote
}

// ObservedCluster is the cluster's name in stats and in UPSTREAM_CLUSTER.
func (i *Info) ObservedCluster() string {
	if i.ClusterStatName != "" {
		return i.ClusterStatName
	}
	return i.Cluster
}

// OriginalDst is where a captured connection wanted to go, invalid for one that was not
// captured: a proxy that connected there would connect to itself.
func (i *Info) OriginalDst() netip.AddrPort {
	if !i.LocalRestored {
		return netip.AddrPort{}
	}
	return i.DownstreamLocal
}

// Reset clears everything that belongs to a stream, keeping the facts of the connection.
func (i *Info) Reset() {
	state := i.FilterState
	*i = i.Connection()
	i.FilterState, i.inherited = state, state != nil
}

// Connection are the facts that the connection has had since its transport socket was set up,
// without filter state. They do not change, so that it may be called from any goroutine.
func (i *Info) Connection() Info {
	return Info{
		ConnectionID: i.ConnectionID, DownstreamLocal: i.DownstreamLocal, LocalRestored: i.LocalRestored, DownstreamDirectLocal: i.DownstreamDirectLocal,
		DownstreamRemote: i.Source(), DownstreamDirectRemote: i.DownstreamDirectRemote, DownstreamTold: i.DownstreamTold, ServerName: i.ServerName,
		FilterChain: i.FilterChain, Handshake: i.Handshake, TLSVersion: i.TLSVersion, TLSCipher: i.TLSCipher,
		PeerURISANs: i.PeerURISANs, LocalURISANs: i.LocalURISANs, PeerSubject: i.PeerSubject,
		PeerDNSSANs: i.PeerDNSSANs, PeerIssuer: i.PeerIssuer, Peer: i.Peer,
	}
}
