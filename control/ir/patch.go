package ir

// A Patch is one change of an EnvoyFilter to what a proxy gets: where it applies and
// what it does there. Names of targets, operations, contexts and classes are those of
// the EnvoyFilter.
type Patch struct {
	Target    PatchTarget
	Context   PatchContext
	Listener  *ListenerSelector // nil: every listener
	Routes    *RoutesSelector   // nil: every route table
	Cluster   *ClusterSelector  // nil: every cluster
	Waypoint  bool              // it is for waypoints alone
	Operation PatchOperation    // what is done
	Class     PatchClass        // where an added HTTP filter stands
	Value     string            // Envoy's object as JSON, keys in order; "" where nothing is needed
	Origin    Origin            // Field is that of the patch: "configPatches[0]"
}

// A PatchTarget is the kind of object that is changed.
type PatchTarget string

// The targets.
const (
	PatchListener       PatchTarget = "LISTENER"
	PatchListenerFilter PatchTarget = "LISTENER_FILTER"
	PatchFilterChain    PatchTarget = "FILTER_CHAIN"
	PatchNetworkFilter  PatchTarget = "NETWORK_FILTER"
	PatchHTTPFilter     PatchTarget = "HTTP_FILTER"
	PatchRoutes         PatchTarget = "ROUTE_CONFIGURATION"
	PatchVirtualHost    PatchTarget = "VIRTUAL_HOST"
	PatchRoute          PatchTarget = "HTTP_ROUTE"
	PatchCluster        PatchTarget = "CLUSTER"
	PatchExtension      PatchTarget = "EXTENSION_CONFIG"
	PatchBootstrap      PatchTarget = "BOOTSTRAP"
)

// A PatchContext is the side of the mesh that is changed.
type PatchContext string

// The contexts.
const (
	PatchAnywhere PatchContext = "ANY"
	PatchInbound  PatchContext = "SIDECAR_INBOUND"
	PatchOutbound PatchContext = "SIDECAR_OUTBOUND"
	PatchGateway  PatchContext = "GATEWAY"
	PatchWaypoint PatchContext = "WAYPOINT"
)

// A PatchOperation is what a patch does with its Value.
type PatchOperation string

// The operations.
const (
	PatchMerge        PatchOperation = "MERGE"                  // lists grow
	PatchMergeReplace PatchOperation = "MERGE_AND_REPLACE_LIST" // lists are replaced
	PatchAdd          PatchOperation = "ADD"
	PatchRemove       PatchOperation = "REMOVE"
	PatchBefore       PatchOperation = "INSERT_BEFORE"
	PatchAfter        PatchOperation = "INSERT_AFTER"
	PatchFirst        PatchOperation = "INSERT_FIRST"
	PatchReplace      PatchOperation = "REPLACE"
)

// A PatchClass says beside which of the mesh's filters an added HTTP filter stands.
type PatchClass string

// The classes.
const (
	PatchUnclassed PatchClass = "UNSPECIFIED" // before the router
	PatchAuthn     PatchClass = "AUTHN"       // after authentication
	PatchAuthz     PatchClass = "AUTHZ"       // after authorization
	PatchStats     PatchClass = "STATS"       // before metrics
)

// A ListenerSelector selects listeners and what is in them; empty fields select all.
type ListenerSelector struct {
	Port   uint32
	Name   string
	Filter string // listener filter
	Chain  *ChainSelector
}

// A ChainSelector selects filter chains by what they match.
type ChainSelector struct {
	Name                 string
	ServerName           string
	TransportProtocol    string
	ApplicationProtocols []string // all of them
	DestinationPort      uint32
	Filter               *FilterSelector
}

// A FilterSelector selects a network filter and, in it, an HTTP filter.
type FilterSelector struct {
	Name       string
	HTTP       bool // HTTPFilter is selected
	HTTPFilter string
}

// A RoutesSelector selects route tables; empty fields select all.
type RoutesSelector struct {
	Port        uint32
	PortName    string // of a gateway's HTTPS server
	Gateway     string // "namespace/name", of a gateway's HTTPS server
	Name        string
	VirtualHost *VirtualHostSelector
}

// A VirtualHostSelector selects virtual hosts.
type VirtualHostSelector struct {
	Name   string
	Domain string
	Route  *RouteSelector
}

// A RouteSelector selects routes. Action is ROUTE, REDIRECT, DIRECT_RESPONSE or ANY.
type RouteSelector struct{ Name, Action string }

// A ClusterSelector selects clusters: by Name alone where it is given.
type ClusterSelector struct {
	Name    string
	Service string // host name
	Subset  string
	Port    uint32
}
