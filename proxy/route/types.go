// Package route compiles RouteConfigurations and chooses the route of a request:
// virtual host by authority, then the first route that matches.
//
// A Table is immutable; a listener holds the one in force in an atomic pointer and
// a stream keeps the one it began with.
package route

import (
	"regexp"
	"time"

	"github.com/lateen-mesh/lateen/proxy/format"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/match"
	"github.com/lateen-mesh/lateen/proxy/runtime"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/upstream"
)

// A VirtualHost is a group of routes for some domains.
type VirtualHost struct {
	Name                          string
	Routes                        []*Route
	Edits                         Edits // request_headers_to_add …, of the virtual host
	IncludeAttemptCount           bool  // x-envoy-attempt-count to the upstream
	IncludeAttemptCountInResponse bool
	IncludeTimeoutRetry           bool           // x-envoy-is-timeout-retry
	PerFilter                     map[string]any // typed_per_filter_config, compiled, by filter name
	Metadata                      map[string]map[string]any

	clusters []VirtualCluster             // the last one of other requests, nil for none
	tls      tlsRequirement               // Select itself decides for the redirect
	tree     *match.Tree[Facts, []*Route] // in place of Routes, nil for none
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
	Tally     *upstream.Tally           // stats of the route alone, nil for none
	Metadata  map[string]map[string]any // filter_metadata; provenance is under "istio" and "lateen"

	matcher  matcher
	template *match.TemplateRewrite // path_rewrite_policy, nil for none
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
	PathRewrite          *format.Format // path_rewrite, in place of the whole path
	HostRewrite          string         // host_rewrite_literal
	AutoHostRewrite      bool
	HostRewriteHeader    []byte
	HostRewritePath      *RegexRewrite  // host_rewrite_path_regex
	HostRewriteFormat    *format.Format // host_rewrite
	AppendXForwardedHost bool

	// HashWeights chooses among Clusters by the hash of HashPolicy, RandomHeader by the
	// number in a header of the request.
	HashWeights  bool
	RandomHeader string
	weights      *runtime.Values // that Clusters may have instead of their own, nil: none
	// Subset is metadata_match: the metadata that endpoints must have, as in Target.Subset.
	Subset map[string]any

	// Timeout is the whole request's, 0 for none.
	Timeout             time.Duration
	IdleTimeout         time.Duration // route's stream idle timeout; negative: not set
	MaxGRPCTimeout      time.Duration
	MaxGRPCTimeoutSet   bool
	GRPCTimeoutOffset   time.Duration
	Duration            StreamDuration
	Redirects           *InternalRedirect // nil: answers that redirect are the client's
	Retry               *RetryPolicy      // nil: none
	Mirrors             []Mirror
	HashPolicy          []HashPolicy
	ClusterNotFoundCode int // 503 by default
	Upgrades            map[string]bool
	Connect             *Connect // nil: CONNECT goes on to the upstream as it is
	Priority            int      // 0 default, 1 high
	MaxRequestBytes     int64    // per_request_buffer_limit, -1 not set
}

// A Connect is connect_config: a CONNECT ends here, and what it carries goes to the endpoint
// as a connection of its own.
type Connect struct {
	AllowPost bool // POST is treated likewise
	// Proxied says that the connection begins with a header of the PROXY protocol, of
	// version 2 if ProxiedV2.
	Proxied, ProxiedV2 bool
}

// A StreamDuration is max_stream_duration.
type StreamDuration struct {
	Max        time.Duration // 0 for none
	MaxSet     bool          // else that of the connection manager holds
	GRPCMax    time.Duration // of what grpc-timeout asks for, 0 for as much as it wants
	GRPCMaxSet bool          // else grpc-timeout asks in vain
	GRPCOffset time.Duration // by which the deadline comes earlier
}

// An InternalRedirect is internal_redirect_policy: the proxy follows the redirects of an
// upstream itself.
type InternalRedirect struct {
	Max         int
	Codes       map[int]bool
	CrossScheme bool     // from http to https and back
	SafeScheme  bool     // safe_cross_scheme: not from http to https
	NotBefore   bool     // previous_routes: to no route that the request had already
	Routes      []string // allow_listed_routes, nil for all
	Copy        []string // response_headers_to_copy
}

// A WeightedCluster is one destination of several.
type WeightedCluster struct {
	Name        string // "" when Header names it
	Header      string
	Weight      uint32
	Subset      map[string]any // with what the action itself wants
	Edits       Edits
	PerFilter   map[string]any
	HostRewrite string

	key string // of the runtime, for another weight
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
	Share          runtime.Share // of the requests that are copied
	NoShadowSuffix bool
	TraceSampled   bool      // the copy's span is
	ClusterHeader  string    // names the cluster where Cluster is ""
	HostRewrite    string    // "": none
	Mutations      Mutations // of the copy's headers
}

// A HashPolicy says what of a request is hashed for ring hash and maglev.
type HashPolicy struct {
	Header, Cookie, Query string
	HeaderRewrite         *RegexRewrite // of the header's values
	FilterState           string
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
	OwnBackOff              bool          // else the runtime may have another base
	PreviousHosts           bool
	HostAttempts            int
	// PreviousPriorities is update_frequency of envoy.retry_priorities.previous_priorities:
	// after each so many attempts the priorities that they went to are left out. 0: off.
	PreviousPriorities int
	RetriableHeaders   []HeaderMatcher
	RequestHeaders     []HeaderMatcher // one of which a request must match to be sent again
	PerTryIdle         time.Duration   // of an attempt that has begun to be answered, too
	Resets             []ResetHeader   // in which a rate limited answer says when to come again
	ResetMax           time.Duration   // the longest that such an answer is heeded
	OmitCanary         bool
	OmitMetadata       map[string]any // of endpoints that are no use for another attempt
}

// A ResetHeader says when a rate limit is over: after seconds, or at a Unix time.
type ResetHeader struct {
	Name string
	Unix bool
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
	PathRewrite   *format.Format
	StripQuery    bool
	// KeepPort leaves the port of the request's authority in place also when the
	// scheme changes, as a virtual host's require_tls does.
	KeepPort bool
}

// Direct answers with a fixed status and body, or one made by Format, in which Body is
// LOCAL_REPLY_BODY.
type Direct struct {
	Status int
	Body   []byte
	Format *format.Format // nil: none
	Type   string         // content type of what Format makes
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
	Request *http.Request
	Random  uint64 // for runtime fractions; the same number serves weighted clusters
	TLS     bool   // downstream connection is TLS; require_tls goes by it when x-forwarded-proto is missing
	// PeerPresented and PeerValidated: the client showed a certificate, and it was verified.
	PeerPresented, PeerValidated bool
	// Metadata is the stream's dynamic metadata (streaminfo.Info.Metadata), nil for none.
	Metadata map[string]map[string]any
	// Info is the stream's record, nil for none: addresses, server name, filter state.
	Info *streaminfo.Info
}
