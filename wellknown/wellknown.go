// Package wellknown holds the names that both halves of the mesh must spell
// alike: xDS type URLs, names of clusters, ports, keys of node metadata.
package wellknown

// xDS resource types.
const (
	ListenerType = "type.googleapis.com/envoy.config.listener.v3.Listener"
	RouteType    = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	ClusterType  = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	EndpointType = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	SecretType   = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"

	ExtensionType   = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
	RuntimeType     = "type.googleapis.com/envoy.service.runtime.v3.Runtime"
	VirtualHostType = "type.googleapis.com/envoy.config.route.v3.VirtualHost"
)

// Names of clusters that the mesh makes by itself.
const (
	PassthroughCluster        = "PassthroughCluster"
	BlackHoleCluster          = "BlackHoleCluster"
	InboundPassthroughCluster = "InboundPassthroughCluster" //nolint:gosec // no password, though it reads like one
)

// Node metadata by which a gateway without Kubernetes says how its machine differs from
// a pod. Package control says what they mean.
const (
	PublishKey       = "LATEEN_PUBLISH"
	PublishOffsetKey = "LATEEN_PUBLISH_OFFSET"
	ResolversKey     = "LATEEN_RESOLVERS"
)

// MarkKey is the node metadata of a sidecar whose own connections are known by the mark of
// their packets (SO_MARK), in decimal: the redirection of its pod lets them through. The
// bootstrap sets it for all clusters but those that configure their sockets themselves.
const MarkKey = "LATEEN_MARK"

// UnsentHeader is on a server's sidecar's answer that its application has refused the
// connection: the application has seen nothing of the request. The client's sidecar takes that
// for the failed connection that it is, so that routes that repeat those try another endpoint:
// applications may exit before everybody knows that their pod is about to end.
const UnsentHeader = "x-lateen-unsent"

// DrainType is asked for by an agent, on its ADS stream and without names, when its proxy
// is about to end. The control plane takes the proxy's endpoints away from all others without
// waiting for further changes, and answers with an empty response of this type once they
// have acknowledged that, or after a bound; then the proxy drains. A control plane that
// knows the type says so: its identifier contains [DrainIdentifier].
const (
	DrainType       = "type.googleapis.com/lateen.v1.Drain"
	DrainIdentifier = `"Lateen"`
)

// HostsFeature is the client feature of a node whose proxy is sent virtual hosts as resources of
// their own, all of a route configuration ahead of any request (VHDS), where its stream is of
// the incremental form.
const HostsFeature = "lateen.virtual_hosts"

// HealthType is the type of requests by which an agent tells, on its ADS stream, how the
// workload beside its proxy is: well, or in the request's error_detail what is wrong. They
// are not answered.
const HealthType = "type.googleapis.com/istio.v1.HealthInformation"

// SocketDirectory is where the local engine gives each proxy container the sockets of the
// mesh: xds.sock, the control plane's discovery service, and outside.sock, the machine's own
// sockets by descriptor. On Kubernetes it does not exist.
const SocketDirectory = "/var/run/lateen"

// Ports of a proxy and its agent.
const (
	ProxyAdminPort   = 15000
	OutboundPort     = 15001
	InboundPort      = 15006
	AgentPort        = 15020 // health, probes of the application, merged metrics
	DNSPort          = 15053
	ProxyStatusPort  = 15021
	ProxyMetricsPort = 15090
)

// GRPCGenerator is the value of the node metadata GENERATOR by which a gRPC program that
// speaks xDS itself is known. It asks for GRPCInboundListener and an address to learn how it
// is to serve there.
const (
	GRPCGenerator       = "grpc"
	GRPCInboundListener = "xds.istio.io/grpc/lds/inbound/"
)
