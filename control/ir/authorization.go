package ir

import (
	"net/netip"
	"time"
)

// An AccessFilter is one step of authorization: rules that the proxy decides by, or a question
// to a service. One of the two is set.
type AccessFilter struct {
	RBAC *RBAC
	Ask  *ExternalAuthorization
}

// An RBAC filter decides by rules (Envoy: filters.http.rbac, filters.network.rbac).
type RBAC struct {
	Rules  *AccessRules // enforced; nil: none
	Shadow *AccessRules // decided by and told, not enforced; nil: none
	// ShadowPrefix begins the names under which Shadow is told, in statistics and metadata.
	ShadowPrefix string
}

// An AccessAction is what becomes of what the policies match.
type AccessAction uint8

// The actions of AccessRules.
const (
	Allow AccessAction = iota // what no policy matches is refused
	Deny                      // what a policy matches is refused
	Audit                     // nothing is refused
)

// AccessRules are policies with one action.
type AccessRules struct {
	Action   AccessAction
	Policies []AccessPolicy // of different names
}

// An AccessPolicy matches where one of the Permissions and one of the Principals hold.
type AccessPolicy struct {
	Name        string
	Permissions []Condition // of what is asked for
	Principals  []Condition // of who asks
}

// A ConditionKind says what a Condition is of.
type ConditionKind uint8

// The kinds of a Condition. Those up to MetadataCondition stand on either side of a policy.
const (
	AnyCondition      ConditionKind = iota // holds
	AllOf                                  // Of
	OneOf                                  // Of
	NotCondition                           // Of, which is one
	HeaderCondition                        // Name, Text
	MetadataCondition                      // Metadata

	PathCondition     // a permission: Text, of the path without its query
	TemplateCondition // a permission: Text.Value, in the words of Envoy's URI templates
	PortCondition     // a permission: Port, of the destination
	AddressCondition  // a permission: Block, of the destination
	SNICondition      // a permission: Text

	PeerCondition        // a principal: Text, of the URI in the certificate of the connection's peer
	PeerBlockCondition   // a principal: Block, of the connection's peer
	ClientBlockCondition // a principal: Block, of the client as proxies in front tell it
)

// A Condition of an AccessPolicy.
type Condition struct {
	Kind     ConditionKind
	Of       []Condition
	Name     string
	Text     StringMatch
	Port     uint32
	Block    netip.Prefix
	Metadata *MetadataMatch
}

// A MetadataMatch compares what a filter has told of a request or connection.
type MetadataMatch struct {
	Filter string
	Path   []string
	Values []MetadataValue // one of them
	// InListsToo has a list match that has one of the values.
	InListsToo bool
	Invert     bool
}

// A MetadataValue is a text, or a list that has it.
type MetadataValue struct {
	StringMatch
	InList bool
}

// An ExternalAuthorization asks a service about what an RBAC filter's shadow rules have
// matched (Envoy: filters.http.ext_authz, filters.network.ext_authz).
type ExternalAuthorization struct {
	Cluster, Host string
	HTTP          *AuthorizationCall // nil: gRPC
	FailOpen      bool               // what cannot be asked about is let pass
	ClearRoutes   bool               // the route is chosen again after an answer
	StatusOnError uint32             // 0: the proxy's default
	Timeout       time.Duration
	Body          *AuthorizationBody // nil: the body is not sent
	// Where is the metadata that has the name of a matched policy, PolicyPrefix the beginning
	// of names that are asked about.
	Where, PolicyPrefix string
}

// An AuthorizationCall is how a service is asked over HTTP. Lists are patterns of headers.
type AuthorizationCall struct {
	PathPrefix     string
	Send           []StringMatch // of the request, besides those that are always sent
	Add            []HeaderValue
	ToUpstream     []StringMatch // of an answer that allows
	ToClient       []StringMatch // of one that denies
	ToClientOnPass []StringMatch // of one that allows
}

// An AuthorizationBody is how much of a request's body is sent.
type AuthorizationBody struct {
	MaxBytes uint32
	Partial  bool // a larger one is sent in part; else it is refused
	Bytes    bool // as bytes, not as text
}
