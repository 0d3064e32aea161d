package ir

import "time"

// A RouteConfiguration is the route table behind one RDS name.
type RouteConfiguration struct {
	Name         string
	VirtualHosts []VirtualHost
	// IgnoreHostPort matches the Host header without its port.
	IgnoreHostPort bool
	// MaxDirectResponseBody is the largest fixed body in bytes, 0 for the proxy's default.
	MaxDirectResponseBody uint32
}

// A VirtualHost is the routes of a group of host names.
type VirtualHost struct {
	Name         string
	Domains      []string // exact, *.suffix, prefix.*, *
	Routes       []Route  // first match wins
	RequireTLS   bool     // plain requests are redirected to https
	AttemptCount bool     // x-envoy-attempt-count goes to the upstream
}

// An Origin is the object and field a rule came from; it goes on the wire as metadata.
type Origin struct {
	// Path is the original's name of the object:
	// /apis/networking.istio.io/v1/namespaces/default/virtual-service/reviews.
	Path      string
	Kind      string
	Namespace string
	Name      string
	Field     string // "http[1]"; empty: the whole object
}

// A Route is one rule: a Match and one of Forward, Redirect and Direct.
type Route struct {
	Name       string
	StatPrefix string
	Match      RouteMatch
	Forward    *Forward
	Redirect   *Redirect
	Direct     *DirectResponse
	Operation  string // decorator: the operation's name in spans
	Headers    HeaderEdits
	Fault      *FaultInjection
	CORS       *CORSPolicy
	Origin     *Origin
}

// RouteMatch are conditions that all must hold.
type RouteMatch struct {
	Path    PathMatch
	Headers []HeaderMatch
	Query   []QueryMatch
	Claims  []MetadataMatch // of the token that a filter has checked
}

// A PathKind is how a path is compared.
type PathKind uint8

// The kinds of a path match.
const (
	PathPrefix PathKind = iota
	PathExact
	PathRegex     // whole path
	PathSeparated // prefix of whole parts: /a matches /a and /a/b, not /ab; it does not end in /
)

// A PathMatch compares the path without its query string.
type PathMatch struct {
	Kind       PathKind
	Value      string
	IgnoreCase bool
	// StateCase writes case sensitivity also where it is the default, as the
	// original does for rules with conditions.
	StateCase bool
}

// A StringKind is how a string is compared.
type StringKind uint8

// The kinds of a string match.
const (
	Exact StringKind = iota
	Prefix
	Regex
	Present // any value
	Suffix
)

// A StringMatch compares one value.
type StringMatch struct {
	Kind       StringKind
	Value      string
	IgnoreCase bool // not of expressions
}

// A HeaderMatch compares a request header or pseudo header.
type HeaderMatch struct {
	Name string
	StringMatch
	Invert bool
}

// A QueryMatch compares a query parameter in its encoded form.
type QueryMatch struct {
	Name string
	StringMatch
}

// Forward sends the request to a cluster, or to one of several by weight.
type Forward struct {
	Clusters []WeightedCluster
	// Split keeps the weighted form also where one cluster is left.
	Split         bool
	Timeout       time.Duration // 0: none
	Inbound       bool          // a sidecar's route to its own workload
	Retry         *Retry
	PrefixRewrite string
	RegexRewrite  *RegexRewrite
	HostRewrite   string
	ForwardedHost bool // a host that is rewritten goes to the upstream in x-forwarded-host
	Mirrors       []Mirror
	HashPolicies  []HashPolicy
}

// A WeightedCluster is one destination of several.
type WeightedCluster struct {
	Name    string
	Weight  uint32
	Headers HeaderEdits
	// HostRewrite replaces Host for requests that go here.
	HostRewrite string
}

// Retry is when and how often a request is sent again.
type Retry struct {
	Attempts        uint32 // after the first
	On              string // comma list of conditions
	StatusCodes     []uint32
	PerTryTimeout   time.Duration // 0: none
	BaseInterval    time.Duration // 0: the proxy's default
	OtherHosts      bool          // hosts tried before are avoided
	OtherLocalities bool
}

// A RegexRewrite replaces what the pattern matches of the path.
type RegexRewrite struct{ Pattern, Substitution string }

// A Mirror gets a copy of requests.
type Mirror struct {
	Cluster  string
	Fraction Fraction
}

// A Fraction is Numerator of 100 or, where Million is set, of a million.
type Fraction struct {
	Numerator uint32
	Million   bool
}

// A HashPolicy is one input of consistent hashing; one of the fields is set.
type HashPolicy struct {
	Header     string
	Cookie     string
	CookieTTL  *time.Duration // set: the proxy makes the cookie
	CookiePath string
	Attributes []CookieAttribute // of a cookie that the proxy makes
	SourceIP   bool
	Query      string
}

// A CookieAttribute is a further one of Set-Cookie, such as SameSite.
type CookieAttribute struct{ Name, Value string }

// HeaderEdits change headers on the way: first removed, then set or added.
type HeaderEdits struct {
	RequestAdd     []HeaderValue
	RequestRemove  []string
	ResponseAdd    []HeaderValue
	ResponseRemove []string
}

// A HeaderValue is set or, with Append, added beside present ones.
type HeaderValue struct {
	Name, Value string
	Append      bool
}

// A Redirect answers with a Location; empty fields keep the request's part.
type Redirect struct {
	Scheme string
	Host   string
	Port   uint32
	// Path replaces the path; PathSet states it also where it is empty.
	Path          string
	PathSet       bool
	PrefixRewrite string
	Code          uint32 // 0 for 301
}

// A DirectResponse is a fixed answer.
type DirectResponse struct {
	Status uint32
	Body   []byte
	// Binary bodies are carried as bytes rather than as a string.
	Binary  bool
	HasBody bool
}

// FaultInjection delays and then aborts a share of requests.
type FaultInjection struct {
	Delay *FaultDelay
	Abort *FaultAbort
}

// FaultDelay holds requests back.
type FaultDelay struct {
	Fixed    time.Duration
	Fraction Fraction
}

// FaultAbort answers in place of the upstream, by HTTP status or by gRPC status.
type FaultAbort struct {
	HTTPStatus uint32
	GRPCStatus *uint32
	Fraction   Fraction
}

// CORSPolicy is the cross-origin policy of a rule.
type CORSPolicy struct {
	Origins          []StringMatch
	Methods          string
	Headers          string
	Expose           string
	MaxAge           string // seconds
	Credentials      *bool
	ForwardUnmatched bool // preflights of unknown origins go to the upstream
}
