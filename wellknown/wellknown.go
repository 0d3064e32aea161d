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

// Ports of a proxy.
const (
	ProxyAdminPort   = 15000
	ProxyStatusPort  = 15021
	ProxyMetricsPort = 15090
)
