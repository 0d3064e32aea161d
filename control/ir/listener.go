package ir

import "time"

// A Direction says which side of the workload a listener serves.
type Direction uint8

// The directions of a listener.
const (
	Outbound Direction = iota // sidecar to mesh, and every listener of a gateway
	Inbound                   // mesh to the workload behind the sidecar
)

// A Listener is one socket with what it does to the connections it accepts.
type Listener struct {
	Name      string
	Address   string // IP address, or a path or @abstract name of a Unix socket
	Port      uint32 // 0 for a Unix socket
	Direction Direction
	// Unbound listeners have no socket of their own: connections come to them from
	// the listener with UseOriginalDst.
	Unbound        bool
	UseOriginalDst bool
	// Transparent sockets take connections to addresses that are not the machine's.
	Transparent bool
	// Inspectors run before a chain is chosen, in order.
	Inspectors []Inspector
	// InspectionTimeout bounds the inspectors, nil for the proxy's default (15 s), 0
	// for no bound. Where ContinueOnTimeout is set the connection goes on without
	// what an inspector would have found.
	InspectionTimeout *time.Duration
	ContinueOnTimeout bool
	Chains            []FilterChain
	DefaultChain      *FilterChain // connections that no chain matches; nil: refused
	AccessLogs        []AccessLog  // connections that end before a chain is chosen
	// AcceptsPerEvent bounds how many connections are taken at one wake-up, 0 for no bound.
	AcceptsPerEvent uint32
}

// An InspectorKind names a listener filter that looks at the first bytes.
type InspectorKind uint8

// The inspectors.
const (
	OriginalDst    InspectorKind = iota // where the connection went before it was redirected
	TLSInspector                        // SNI and ALPN
	HTTPInspector                       // whether it is plain HTTP/1 or HTTP/2
	OriginalSource                      // the upstream is called with the client's address
)

// An Inspector is one listener filter.
type Inspector struct {
	Kind InspectorKind
	// SkipPorts are original destination ports whose connections are not inspected.
	SkipPorts []uint32
	// OnlyPorts are those whose connections are inspected, where there are any.
	OnlyPorts []uint32
	Mark      uint32 // of OriginalSource: of the packets with the client's address
}

// A FilterChain says what becomes of the connections that its Match accepts:
// HTTP or TCP, one of the two is set.
type FilterChain struct {
	Name  string
	Match ChainMatch
	TLS   *DownstreamTLS // nil: bytes are taken as they come
	// HandshakeTimeout bounds TLS handshake and transport set-up; 0 for none.
	HandshakeTimeout time.Duration
	// PeerExchange puts the network filter first that trades workload metadata with
	// the peer over ALPN istio-peer-exchange.
	PeerExchange bool
	// Access decides on the connections of a chain without HTTP.
	Access []AccessFilter
	// Metrics counts the TCP connections of the chain for the mesh's dashboards.
	Metrics bool
	// Lookup resolves the server name of the client's TLS for the cluster that the bytes
	// go to; nil where the cluster has addresses of its own.
	Lookup *SNILookup
	HTTP   *HTTPConnectionManager
	TCP    *TCPProxy
	Origin *Origin
}

// An SNILookup resolves server names for a DynamicForwardProxy cluster with the same cache.
type SNILookup struct {
	DNS  DNS
	Port uint32 // to which the host is connected
}

// A ChainMatch chooses the chain of a connection; empty fields match all.
type ChainMatch struct {
	DestinationPort      uint32
	ServerNames          []string // SNI, with leading wildcard
	TransportProtocol    string   // "tls", "raw_buffer"
	ApplicationProtocols []string
	DestinationCIDRs     []string // "10.0.0.0/8"
	// All is a match that is present but empty, as the default chain of a sidecar has it.
	All bool
}

// A SecretRef names a secret that the proxy asks for over SDS.
type SecretRef struct {
	Name string // "kubernetes://cred", "file-cert:…", "default", "ROOTCA"
	// FromAgent secrets come from the SDS server beside the proxy (cluster
	// sds-grpc), others over ADS.
	FromAgent bool
	// WaitForever makes the listener wait for the secret without bound.
	WaitForever bool
}

// DownstreamTLS is how a chain takes TLS from its clients.
type DownstreamTLS struct {
	Origin       *Origin // the server of a Gateway that asks for it, nil if none does
	Certificates []SecretRef
	// CertificateFiles are read by the proxy itself, where it has no agent to do it.
	CertificateFiles []CertificateFiles
	// CA or CAFile is what client certificates are checked against; neither: none is.
	CA     *SecretRef
	CAFile string
	// Require refuses clients without a certificate.
	Require         bool
	AcceptUntrusted bool     // check nothing of the certificate that a client shows
	SANs            []string // exact subject alternative names that clients must have
	SANPrefixes     []string
	SPKIs           []string // base64 SHA-256 pins
	CertHashes      []string // hex SHA-256 pins
	CRL             string   // file name
	ALPN            []string
	MinVersion      string // "TLSv1_2", empty for the proxy's default
	MaxVersion      string
	CipherSuites    []string
	Curves          []string
}

// A TCPProxy sends a connection's bytes to a cluster, or to one of several by weight.
type TCPProxy struct {
	StatPrefix string
	Clusters   []WeightedCluster // one: its weight is not used
	AccessLogs []AccessLog
}

// HTTPConnectionManager is the HTTP side of a chain. Routes come by name (RDS) or inline.
type HTTPConnectionManager struct {
	StatPrefix string
	RouteName  string
	Routes     *RouteConfiguration
	Filters    []HTTPFilter   // in order, the router last
	Headers    HeaderEdits    // of the filter HeaderMutation
	Lookups    []DNS          // of the filter ForwardProxy: the caches of the clusters it resolves for
	Extensions []Extension    // of the filters Extended…: users' own, in order
	Ask        []AccessFilter // of the filter Ask
	JWT        *JWTRules      // of the filter CheckTokens
	Decide     []AccessFilter // of the filter Decide
	AccessLogs []AccessLog
	// ServerName is the `server` header of answers; empty for the proxy's default.
	ServerName string
	// UseRemoteAddress takes the client's address from the connection rather than
	// from x-forwarded-for: the edge of the mesh.
	UseRemoteAddress bool
	// KeepRequestID takes x-request-id from clients as it is, though they may be outside.
	KeepRequestID bool
	// TrustedHops is how many proxies in front are believed in x-forwarded-for.
	TrustedHops uint32
	ForwardCert ForwardClientCert
	CertDetails CertDetails // what this hop says in it
	// KeepServer leaves the upstream's `server` header as it is.
	KeepServer bool
	// NoRequestID gives requests without x-request-id none.
	NoRequestID bool
	// Quiet leaves out the x-envoy-* headers that the router would add.
	Quiet bool
	// PreserveCase passes on the names of HTTP/1 headers as they came, not in lower case.
	PreserveCase bool
	// ForwardedPort tells the port that was called in x-forwarded-port.
	ForwardedPort bool
	// MetadataInMesh tells who calls to services of the mesh only.
	MetadataInMesh bool
	Paths          PathNormalization
	HTTP10         bool // HTTP/1.0 requests are served
	// ExplicitHTTP1 states HTTP/1 options although all are defaults, as gateways do.
	ExplicitHTTP1 bool
	Tracing       *Tracing
}

// ForwardClientCert says what becomes of x-forwarded-client-cert.
type ForwardClientCert uint8

// What becomes of x-forwarded-client-cert.
const (
	SanitizeCert       ForwardClientCert = iota // removed
	SanitizeAndSetCert                          // replaced by this hop's
	AppendForwardCert                           // this hop's is appended
	ForwardOnlyCert
	AlwaysForwardOnlyCert
)

// CertDetails are parts of the client's certificate, besides its hash.
type CertDetails struct{ Subject, URI, DNS, Certificate, Chain bool }

// PathNormalization is what is done to request paths before they are matched.
type PathNormalization struct {
	Normalize    bool // RFC 3986: dot segments, percent-encoded letters
	MergeSlashes bool
	Unescape     bool // %2F and %5C become slashes
}

// An HTTPFilter names one HTTP filter with the settings the mesh gives it.
type HTTPFilter uint8

// The HTTP filters of a chain, in the order in which they stand.
const (
	PeerMetadataUpstream   HTTPFilter = iota // workload metadata towards upstreams
	PeerMetadataDownstream                   // workload metadata from clients
	HeaderMutation                           // in place of these: fixed headers
	Refuse                                   // in place of filters that the proxy lacks and may not go without
	Ask                                      // services decide
	ExtendedAuthN                            // users' extensions
	CheckTokens
	ExtendedAuthZ
	Decide // rules decide
	Extended
	GRPCWeb
	GRPCStats
	ALPN
	Fault
	CORS
	Metrics       // requests by who asked whom
	MetricsNoHost // the same where the Host header says nothing of the destination
	ForwardProxy  // resolves the host of requests to DynamicForwardProxy clusters
	Router
)
