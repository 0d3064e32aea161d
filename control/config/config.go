// Package config holds the mesh's configuration objects: what kinds exist, how
// one is decoded from YAML, defaulted and validated, and the Store that keeps
// the objects in force.
//
// A Config is decoded once, at the edge, and never changed afterwards. A Set is
// all objects at one generation; the Store moves from one Set to the next by
// transactions (Apply), so that a group of changes is seen whole or not at all.
package config

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/api/equality"
)

// A Kind names a kind of object, as in the `kind:` line of YAML.
type Kind string

// The kinds that the mesh reads.
const (
	VirtualService  Kind = "VirtualService"
	DestinationRule Kind = "DestinationRule"
	Gateway         Kind = "Gateway"
	ServiceEntry    Kind = "ServiceEntry"
	WorkloadEntry   Kind = "WorkloadEntry"
	Sidecar         Kind = "Sidecar"
	EnvoyFilter     Kind = "EnvoyFilter"
	WorkloadGroup   Kind = "WorkloadGroup"
	ProxyConfig     Kind = "ProxyConfig"

	PeerAuthentication    Kind = "PeerAuthentication"
	RequestAuthentication Kind = "RequestAuthentication"
	AuthorizationPolicy   Kind = "AuthorizationPolicy"
	Telemetry             Kind = "Telemetry"
	WasmPlugin            Kind = "WasmPlugin"
	TrafficExtension      Kind = "TrafficExtension"

	Namespace     Kind = "Namespace"
	Node          Kind = "Node"
	Service       Kind = "Service"
	EndpointSlice Kind = "EndpointSlice"
	Pod           Kind = "Pod"
	Secret        Kind = "Secret"
	ConfigMap     Kind = "ConfigMap"
	Ingress       Kind = "Ingress"
	IngressClass  Kind = "IngressClass"
)

// A Key identifies an object. Namespace is empty for cluster-scoped kinds.
type Key struct {
	Kind      Kind
	Namespace string
	Name      string
}

// String is the form used in messages: "VirtualService default/reviews".
func (k Key) String() string {
	if k.Namespace == "" {
		return fmt.Sprintf("%s %s", k.Kind, k.Name)
	}
	return fmt.Sprintf("%s %s/%s", k.Kind, k.Namespace, k.Name)
}

// A Source is where an object was written. The zero value means "not from a file".
type Source struct {
	File string
	Line int // 1-based line on which the document's object begins
}

// String is "file:line".
func (s Source) String() string {
	if s.File == "" || s.Line == 0 {
		return s.File
	}
	return fmt.Sprintf("%s:%d", s.File, s.Line)
}

// A Config is one object. It is immutable once it is in a Set.
type Config struct {
	Key
	APIVersion  string
	Labels      map[string]string
	Annotations map[string]string
	// CreationTime decides conflicts between objects: the older wins. Objects
	// from files without a creationTimestamp have the zero time and are ordered
	// by name, then namespace.
	CreationTime time.Time
	// Spec is the decoded body: for Istio kinds the proto message of istio.io/api, of the
	// package that kinds.go names (networking/v1alpha3 *VirtualService, *EnvoyFilter, …,
	// networking/v1beta1 *ProxyConfig, security/v1beta1 *PeerAuthentication, …), for
	// Kubernetes kinds the k8s.io/api type (*corev1.Service, *discoveryv1.EndpointSlice, …).
	Spec   any
	Source Source
	// Guard is set for what stands in for a policy that is broken: see Guarded.
	Guard bool
}

// Equal reports whether two objects of one key say the same, from the same place.
func (c *Config) Equal(o *Config) bool {
	if c.Source != o.Source || c.Guard != o.Guard || c.APIVersion != o.APIVersion || !c.CreationTime.Equal(o.CreationTime) ||
		!equality.Semantic.DeepEqual(c.Labels, o.Labels) || !equality.Semantic.DeepEqual(c.Annotations, o.Annotations) {
		return false
	}
	mine, isProto := c.Spec.(proto.Message)
	other, both := o.Spec.(proto.Message)
	if isProto && both {
		return proto.Equal(mine, other)
	}
	return equality.Semantic.DeepEqual(c.Spec, o.Spec)
}
