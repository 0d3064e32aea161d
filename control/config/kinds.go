package config

import (
	"reflect"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	networking "istio.io/api/networking/v1alpha3"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

const (
	istioNetworking = "networking.istio.io"
	discovery       = "discovery.k8s.io"
)

// A kindSchema says how one kind is read.
type kindSchema struct {
	kind     Kind
	group    string
	versions []string
	cluster  bool          // not in a namespace
	message  proto.Message // Istio: an example of the spec
	object   reflect.Type  // Kubernetes: the whole object
	validate func(place, *Config)
}

// kinds are the kinds that are read. All versions of an Istio kind have one schema.
func kinds() []kindSchema {
	served := []string{"v1", "v1beta1", "v1alpha3"}
	core := []string{"v1"}
	return []kindSchema{
		{kind: VirtualService, group: istioNetworking, versions: served, message: (*networking.VirtualService)(nil), validate: validateVirtualService},
		{kind: DestinationRule, group: istioNetworking, versions: served, message: (*networking.DestinationRule)(nil), validate: validateDestinationRule},
		{kind: Gateway, group: istioNetworking, versions: served, message: (*networking.Gateway)(nil), validate: validateGateway},
		{kind: ServiceEntry, group: istioNetworking, versions: served, message: (*networking.ServiceEntry)(nil), validate: validateServiceEntry},
		{kind: WorkloadEntry, group: istioNetworking, versions: served, message: (*networking.WorkloadEntry)(nil), validate: validateWorkloadEntry},
		{kind: Sidecar, group: istioNetworking, versions: served, message: (*networking.Sidecar)(nil), validate: validateSidecar},

		{kind: Namespace, versions: core, cluster: true, object: reflect.TypeFor[corev1.Namespace](), validate: validateNamespace},
		{kind: Node, versions: core, cluster: true, object: reflect.TypeFor[corev1.Node](), validate: validateNode},
		{kind: Service, versions: core, object: reflect.TypeFor[corev1.Service](), validate: validateService},
		{kind: EndpointSlice, group: discovery, versions: core, object: reflect.TypeFor[discoveryv1.EndpointSlice](), validate: validateEndpointSlice},
		{kind: Pod, versions: core, object: reflect.TypeFor[corev1.Pod](), validate: validatePod},
		{kind: Secret, versions: core, object: reflect.TypeFor[corev1.Secret](), validate: validateSecret},
		{kind: ConfigMap, versions: core, object: reflect.TypeFor[corev1.ConfigMap](), validate: validateConfigMap},
	}
}

// Kinds are all kinds that the mesh reads, Istio's first.
func Kinds() []Kind {
	var all []Kind
	for _, k := range kinds() {
		all = append(all, k.kind)
	}
	return all
}

// apiVersions are the values of apiVersion under which the kind is served.
func (k kindSchema) apiVersions() []string {
	all := make([]string, len(k.versions))
	for i, v := range k.versions {
		all[i] = v
		if k.group != "" {
			all[i] = k.group + "/" + v
		}
	}
	return all
}

func (k kindSchema) shape() shape {
	if k.message != nil {
		return shape{form: record, fields: objectFields{messageShape(k.message.ProtoReflect().Descriptor())}}
	}
	return typeShape(k.object)
}

// otherKinds are kinds that users keep in the same files and that this version
// does not read, by group. They are named so that a slip of the pen is told
// from a kind that exists.
func otherKinds() map[string][]string {
	return map[string][]string{
		istioNetworking:             {"EnvoyFilter", "WorkloadGroup", "ProxyConfig"},
		"security.istio.io":         {"PeerAuthentication", "RequestAuthentication", "AuthorizationPolicy"},
		"telemetry.istio.io":        {"Telemetry"},
		"extensions.istio.io":       {"WasmPlugin", "TrafficExtension"},
		"install.istio.io":          {"IstioOperator"},
		"gateway.networking.k8s.io": {"GatewayClass", "Gateway", "HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute", "UDPRoute", "ReferenceGrant", "BackendTLSPolicy"},
		"": {"ServiceAccount", "Endpoints", "PersistentVolume", "PersistentVolumeClaim", "ReplicationController",
			"ResourceQuota", "LimitRange", "Event", "PodTemplate"},
		"apps":                         {"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ControllerRevision"},
		"batch":                        {"Job", "CronJob"},
		"autoscaling":                  {"HorizontalPodAutoscaler"},
		"policy":                       {"PodDisruptionBudget"},
		"networking.k8s.io":            {"Ingress", "IngressClass", "NetworkPolicy"},
		"rbac.authorization.k8s.io":    {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"},
		"apiextensions.k8s.io":         {"CustomResourceDefinition"},
		"admissionregistration.k8s.io": {"ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"},
		discovery:                      nil,
	}
}

// A verdict says what to do with a document of some apiVersion and kind.
type verdict struct {
	schema  *kindSchema // read it
	ignored bool        // a kind that exists and is not read
	field   string      // else: what is wrong with this field, and how to mend it
	message string
	hint    string
}

// judge decides what a document is.
func judge(apiVersion, kind string) verdict {
	group, version, found := strings.Cut(apiVersion, "/")
	if !found {
		group, version = "", apiVersion
	}
	all := kinds()
	for i, k := range all {
		if string(k.kind) != kind || k.group != group {
			continue
		}
		if !slices.Contains(k.versions, version) {
			return verdict{field: "apiVersion", message: "unknown version " + quoted(apiVersion) + " of " + kind,
				hint: "served are " + strings.Join(k.apiVersions(), ", ")}
		}
		return verdict{schema: &all[i]}
	}
	others := otherKinds()
	if slices.Contains(others[group], kind) {
		return verdict{ignored: true}
	}
	return misspelt(apiVersion, group, kind, all, others)
}

// misspelt looks for the kind or group that was meant. What resembles nothing
// known belongs to somebody else and is left alone.
func misspelt(apiVersion, group, kind string, all []kindSchema, others map[string][]string) verdict {
	groups, inGroup := make([]string, 0, len(others)), slices.Clone(others[group])
	for g := range others {
		groups = append(groups, g)
	}
	slices.Sort(groups)
	var elsewhere []string
	for _, k := range all {
		if k.group == group {
			inGroup = append(inGroup, string(k.kind))
		} else if string(k.kind) == kind {
			elsewhere = append(elsewhere, k.apiVersions()[0])
		}
	}
	for g, names := range others {
		if g != group && slices.Contains(names, kind) {
			elsewhere = append(elsewhere, g)
		}
	}
	_, knownGroup := others[group]
	if knownGroup {
		hint := didYouMean(kind, inGroup)
		if hint == "" && len(elsewhere) > 0 {
			hint = kind + " has apiVersion " + quoted(slices.Min(elsewhere))
		}
		if hint != "" || group == istioNetworking {
			return verdict{field: "kind", message: "unknown kind " + quoted(kind) + " in " + quoted(apiVersion), hint: hint}
		}
		return verdict{ignored: true}
	}
	if near := didYouMean(group, groups); near != "" && len(elsewhere) > 0 {
		return verdict{field: "apiVersion", message: "unknown apiVersion " + quoted(apiVersion),
			hint: "did you mean " + quoted(slices.Min(elsewhere)) + "?"}
	}
	return verdict{ignored: true}
}
