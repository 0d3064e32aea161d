package ir

import "time"

// A Discovery says where a cluster's endpoints come from.
type Discovery uint8

// The kinds of discovery, with Envoy's names.
const (
	Static              Discovery = iota // STATIC: the cluster's own Assignment
	EDS                                  // EDS: an Assignment of the cluster's name, over ADS
	StrictDNS                            // STRICT_DNS: all addresses of the host names in Assignment
	LogicalDNS                           // LOGICAL_DNS: one address at a time of the one host name
	OriginalDestination                  // ORIGINAL_DST: the address that the client meant
	DynamicForwardProxy                  // the host that the request names, resolved when it comes
)

// A Cluster is a group of endpoints that is called by name, and how it is called.
type Cluster struct {
	Name           string
	StatName       string // name in statistics, with the trailing ";" that ends it for tag extraction
	Discovery      Discovery
	Assignment     *Assignment // for Static, StrictDNS and LogicalDNS
	DNS            *DNS        // for StrictDNS, LogicalDNS and DynamicForwardProxy
	ConnectTimeout time.Duration
	// CleanupInterval is how long an unused original destination is kept; 0 for
	// the proxy's default.
	CleanupInterval time.Duration
	LoadBalancer    LoadBalancer
	// Limits is nil for the clusters that take no traffic.
	Limits    *Limits
	Outlier   *OutlierDetection
	Keepalive *Keepalive
	// SourceAddress is what connections are bound to, "" for the system's choice.
	SourceAddress string
	// SourceMark is the mark of their packets (SO_MARK), where there is a SourceAddress; 0 for
	// none.
	SourceMark uint32
	TLS        *UpstreamTLS
	// PeerTLS is for the endpoints of TLSMode "istio"; others are called in plain text. Without
	// TLS only.
	PeerTLS *UpstreamTLS
	// ProxyProtocol is 1 or 2 where connections begin with a PROXY header.
	ProxyProtocol int
	HTTP          *UpstreamHTTP
	Metadata      ClusterMetadata
	// PeerMetadata adds the network filter that exchanges workload metadata.
	PeerMetadata bool
}

// DNS is how host names are resolved.
type DNS struct {
	RefreshRate time.Duration // after a failure, and where TTLs are not respected
	Jitter      time.Duration
	RespectTTL  bool
	IPv6        bool // addresses of both families; else IPv4 only
	// CaresQueries is the limit of queries per UDP socket of the c-ares resolver; 0
	// leaves the resolver to the proxy.
	CaresQueries uint32
	CacheName    string // for DynamicForwardProxy
}

// Limits are the circuit breakers of a cluster, at the default priority.
type Limits struct {
	MaxConnections     uint32
	MaxPendingRequests uint32
	MaxRequests        uint32
	MaxRetries         uint32
	RetryBudget        *RetryBudget // replaces MaxRetries
}

// RetryBudget allows retries as a share of the active requests.
type RetryBudget struct {
	Percent        float64
	MinConcurrency uint32
}

// OutlierDetection is when endpoints are ejected. Nil leaves the proxy's default;
// zero of a consecutive count turns that count off.
type OutlierDetection struct {
	Consecutive5xx           *uint32
	ConsecutiveGatewayErrors *uint32
	Interval                 time.Duration // 0 for the proxy's default
	BaseEjectionTime         time.Duration // 0 for the proxy's default
	MaxEjectionPercent       uint32        // 0 for the proxy's default
	// SplitLocalErrors counts connection failures apart from bad answers.
	SplitLocalErrors       bool
	ConsecutiveLocalErrors uint32
}

// Keepalive is TCP keep-alive; nil fields are the system's defaults.
type Keepalive struct {
	Probes   *uint32
	Time     *uint32 // seconds
	Interval *uint32 // seconds
}

// A Balancer is how an endpoint is chosen.
type Balancer uint8

// The balancers, with Envoy's names.
const (
	DefaultBalancer Balancer = iota // none is named
	RoundRobin
	LeastRequest
	Random
	RingHash
	Maglev
	ClusterProvided // the discovery decides
)

// LoadBalancer is how an endpoint is chosen.
type LoadBalancer struct {
	Balancer Balancer
	// PanicThreshold is the percentage of healthy endpoints below which health is
	// not looked at any more; nil for the proxy's default.
	PanicThreshold *float64
	// LocalityWeighted spreads by the weights of localities.
	LocalityWeighted bool
	ZoneAware        *ZoneAware
	MinRingSize      uint64 // RingHash
	TableSize        uint64 // Maglev; 0 for the proxy's default
	SlowStart        *SlowStart
	// Common says that the block of general settings is written even when it is
	// empty, as the original does for inbound clusters.
	Common bool
}

// ZoneAware prefers endpoints of the proxy's own zone.
type ZoneAware struct{ MinClusterSize uint64 }

// SlowStart lets the share of a new endpoint grow.
type SlowStart struct {
	Window           time.Duration
	Aggression       float64 // 0 for the proxy's default
	MinWeightPercent *float64
}

// An HTTPVersion is what an upstream is spoken to in.
type HTTPVersion uint8

// The versions.
const (
	HTTP1            HTTPVersion = iota
	HTTP2                        // prior knowledge, or ALPN with TLS
	DownstreamChoice             // what the client spoke
)

// UpstreamHTTP is how HTTP is spoken to a cluster. Without it the proxy's
// defaults hold, which are HTTP/1.1.
type UpstreamHTTP struct {
	Version               HTTPVersion
	IdleTimeout           *time.Duration
	MaxConnectionDuration *time.Duration
	MaxRequestsPerConn    uint32
	MaxConcurrentStreams  uint32 // HTTP2
	KeepaliveInterval     time.Duration
	KeepaliveTimeout      time.Duration
	// AutoSNI takes SNI from the request's host; AutoSANValidation checks the
	// server's certificate against it.
	AutoSNI           bool
	AutoSANValidation bool
	// PreserveCase passes on the names of HTTP/1 headers as they came, not in lower case.
	PreserveCase bool
	// ErrorCodes are the status codes that outlier detection counts in place of 5xx.
	ErrorCodes []uint32
}

// A ServiceRef names a service that stands behind a cluster.
type ServiceRef struct{ Host, Name, Namespace string }

// ClusterMetadata is where a cluster comes from, read by telemetry and by people.
type ClusterMetadata struct {
	Services []ServiceRef
	External bool
	Subset   string
	Config   string // path of the DestinationRule that shaped it
	// ALPNOverride is "false" where the connection's ALPN is the application's own.
	ALPNOverride string
}
