// Package route compiles RouteConfigurations and chooses the route of a request:
// virtual host by authority, then the first route that matches.
//
// A Table is immutable; a listener holds the one in force in an atomic pointer and
// a stream keeps the one it began with.
package route

import (
	"regexp"
	"time"

	"github.com/lateen-mesh/lateen/proxy/http"
)

// A VirtualHost is a group of routes for some domains.
type VirtualHost struct {
	Name                          string
	Routes                        []*Route
	Edits                         Edits // request_headers_to_add …, of the virtual host
	IncludeAttemptCount           bool  // x-envoy-attempt-count to the upstream
	IncludeAttemptCountInResponse bool
	PerFilter                     map[string]any // typed_per_filter_config, compiled, by filter name
	Metadata                      map[string]map[string]any

	tls tlsRequirement // Select itself decides for the redirect
}

// A Route is one rule: how it matches (unexported) and what it does. Exactly one
// of Forward, Redirect, Direct is set.
type Route struct {
	Name      string // ROUTE_NAME
	Decorator string // x-envoy-decorator-operation, "" also when the decorator is not propagated
	Forward   *Forward
	Redirect  *Redirect
	Direct    *Direct
	Edits     Edits
	PerFilter map[string]any
	Metadata  map[string]map[string]any // filter_metadata; provenance is under "istio" and "lateen"

	matcher matcher
}

// Edits are header operations in the order in which Envoy applies them: remove,
// then add or set.
type Edits struct {
	RequestRemove, ResponseRemove [][]byte // lower case
	RequestAdd, ResponseAdd       []HeaderEdit
}

// A HeaderEdit adds or sets one header.
type HeaderEdit struct {
	Name      []byte // lower case; never a pseudo header or host, which Envoy refuses too
	Value     HeaderValue
	Append    AppendAction
	KeepEmpty bool

	inline bool // Envoy keeps one field of this name and appends by a comma
}

// An AppendAction says what happens when the header is there already.
type AppendAction uint8

// The append actions of HeaderValueOption.
const (
	AppendIfExistsOrAdd AppendAction = iota
	AddIfAbsent
	OverwriteIfExistsOrAdd
	OverwriteIfExists
)

// Forward sends the request to a cluster.
type Forward struct {
	Cluster       string // "" when Clusters or ClusterHeader decides
	Clusters      []WeightedCluster
	TotalWeight   uint32
	ClusterHeader []byte

	PrefixRewrite        string
	RegexRewrite         *RegexRewrite
	HostRewrite          string // host_rewrite_literal
	AutoHostRewrite      bool
	HostRewriteHeader    []byte
	AppendXForwardedHost bool

	// Timeout is the whole request's, 0 for none.
	Timeout             time.Duration
	IdleTimeout         time.Duration // route's stream idle timeout; negative: not set
	MaxGRPCTimeout      time.Duration
	MaxGRPCTimeoutSet   bool
	Retry               *RetryPolicy // nil: none
	Mirrors             []Mirror
	HashPolicy          []HashPolicy
	ClusterNotFoundCode int // 503 by default
	Upgrades            map[string]bool
	Priority            int   // 0 default, 1 high
	MaxRequestBytes     int64 // per_request_buffer_limit, -1 not set
}

// A WeightedCluster is one destination of several.
type WeightedCluster struct {
	Name        string
	Weight      uint32
	Edits       Edits
	PerFilter   map[string]any
	HostRewrite string
}

// A RegexRewrite replaces all matches of Pattern in the path by Substitution
// (already in Go's expansion syntax).
type RegexRewrite struct {
	Pattern      *regexp.Regexp
	Substitution string
}

// A Mirror copies requests to another cluster and drops the answer.
type Mirror struct {
	Cluster        string
	Numerator      uint32 // of a million
	NoShadowSuffix bool
	TraceSampled   bool // the copy's span is
}

// A HashPolicy says what of a request is hashed for ring hash and maglev.
type HashPolicy struct {
	Header, Cookie, Query string
	CookieTTL             time.Duration
	CookiePath            string
	CookieAttributes      string // of a cookie that is made, "; NAME=VALUE" each
	CookieTTLSet          bool   // a missing cookie is made; without it a missing cookie is no hash
	SourceIP              bool
	Terminal              bool
}

// A RetryPolicy is Envoy's, compiled.
type RetryPolicy struct {
	On                      RetryOn
	StatusCodes             []int
	Retries                 int // num_retries, beyond the first attempt
	PerTry                  time.Duration
	BackOffBase, BackOffMax time.Duration // defaults 25 ms, 10 × base
	PreviousHosts           bool
	HostAttempts            int
	// PreviousPriorities is update_frequency of envoy.retry_priorities.previous_priorities:
	// after each so many attempts the priorities that they went to are left out. 0: off.
	PreviousPriorities int
	RetriableHeaders   []HeaderMatcher
}

// RetryOn is the set of conditions of retry_on and retry_grpc_on.
type RetryOn uint32

// The retry conditions.
const (
	On5xx RetryOn = 1 << iota
	OnGatewayError
	OnReset
	OnResetBeforeRequest
	OnConnectFailure
	OnEnvoyRateLimited
	OnRetriable4xx
	OnRefusedStream
	OnRetriableStatusCodes
	OnRetriableHeaders
	OnGRPCCancelled
	OnGRPCDeadlineExceeded
	OnGRPCInternal
	OnGRPCResourceExhausted
	OnGRPCUnavailable
)

// A Redirect answers with a location.
type Redirect struct {
	Status        int
	HTTPS         bool
	Scheme        string
	Host          string
	Port          uint32
	Path          string // path_redirect, "" none
	PrefixRewrite string
	RegexRewrite  *RegexRewrite
	StripQuery    bool
	// KeepPort leaves the port of the request's authority in place also when the
	// scheme changes, as a virtual host's require_tls does.
	KeepPort bool
}

// Direct answers with a fixed status and body.
type Direct struct {
	Status int
	Body   []byte
}

// A Decision is the outcome of Select. VirtualHost nil: no virtual host has the
// authority; Route nil: none of its routes matched.
type Decision struct {
	Table       *Table
	VirtualHost *VirtualHost
	Route       *Route
}

// Facts are what a decision depends on beside the request itself.
type Facts struct {
	Request  *http.Request
	Random   uint64 // for runtime fractions; the same number serves weighted clusters
	TLS      bool   // downstream connection is TLS; require_tls goes by it when x-forwarded-proto is missing
	SourceIP func() string
	// PeerPresented and PeerValidated: the client showed a certificate, and it was verified.
	PeerPresented, PeerValidated bool
	// Metadata is the stream's dynamic metadata (streaminfo.Info.Metadata), nil for none.
	Metadata map[string]map[string]any
}
