package config

import (
	"reflect"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	extensions "istio.io/api/extensions/v1alpha1"
	networking "istio.io/api/networking/v1alpha3"
	networkingbeta "istio.io/api/networking/v1beta1"
	security "istio.io/api/security/v1beta1"
	telemetry "istio.io/api/telemetry/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

const (
	istioNetworking = "networking.istio.io"
	istioSecurity   = "security.istio.io"
	istioTelemetry  = "telemetry.istio.io"
	istioExtensions = "extensions.istio.io"
	discovery       = "discovery.k8s.io"
	kubeNetworking  = "networking.k8s.io"
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
	served, stable := []string{"v1", "v1beta1", "v1alpha3"}, []string{"v1", "v1beta1"}
	core := []string{"v1"}
	return []kindSchema{
		{kind: VirtualService, group: istioNetworking, versions: served, message: (*networking.VirtualService)(nil), validate: validateVirtualService},
		{kind: DestinationRule, group: istioNetworking, versions: served, message: (*networking.DestinationRule)(nil), validate: validateDestinationRule},
		{kind: Gateway, group: istioNetworking, versions: served, message: (*networking.Gateway)(nil), validate: validateGateway},
		{kind: ServiceEntry, group: istioNetworking, versions: served, message: (*networking.ServiceEntry)(nil), validate: validateServiceEntry},
		{kind: WorkloadEntry, group: istioNetworking, versions: served, message: (*networking.WorkloadEntry)(nil), validate: validateWorkloadEntry},
		{kind: Sidecar, group: istioNetworking, versions: served, message: (*networking.Sidecar)(nil), validate: validateSidecar},
		{kind: EnvoyFilter, group: istioNetworking, versions: []string{"v1alpha3"}, message: (*networking.EnvoyFilter)(nil), validate: validateEnvoyFilter},
		{kind: WorkloadGroup, group: istioNetworking, versions: served, message: (*networking.WorkloadGroup)(nil), validate: validateWorkloadGroup},
		{kind: ProxyConfig, group: istioNetworking, versions: []string{"v1beta1"}, message: (*networkingbeta.ProxyConfig)(nil), validate: validateProxyConfigObject},

		{kind: PeerAuthentication, group: istioSecurity, versions: stable, message: (*security.PeerAuthentication)(nil), validate: validatePeerAuthentication},
		{kind: RequestAuthentication, group: istioSecurity, versions: stable, message: (*security.RequestAuthentication)(nil), validate: validateRequestAuthentication},
		{kind: AuthorizationPolicy, group: istioSecurity, versions: stable, message: (*security.AuthorizationPolicy)(nil), validate: validateAuthorizationPolicy},
		{kind: Telemetry, group: istioTelemetry, versions: []string{"v1", "v1alpha1"}, message: (*telemetry.Telemetry)(nil), validate: validateTelemetry},
		{kind: WasmPlugin, group: istioExtensions, versions: []string{"v1alpha1"}, message: (*extensions.WasmPlugin)(nil), validate: validateWasmPlugin},
		{kind: TrafficExtension, group: istioExtensions, versions: []string{"v1alpha1"}, message: (*extensions.TrafficExtension)(nil), validate: validateTrafficExtension},

		{kind: Namespace, versions: core, cluster: true, object: reflect.TypeFor[corev1.Namespace](), validate: validateNamespace},
		{kind: Node, versions: core, cluster: true, object: reflect.TypeFor[corev1.Node](), validate: validateNode},
		{kind: Service, versions: core, object: reflect.TypeFor[corev1.Service](), validate: validateService},
		{kind: EndpointSlice, group: discovery, versions: core, object: reflect.TypeFor[discoveryv1.EndpointSlice](), validate: validateEndpointSlice},
		{kind: Pod, versions: core, object: reflect.TypeFor[corev1.Pod](), validate: validatePod},
		{kind: Secret, versions: core, object: reflect.TypeFor[corev1.Secret](), validate: validateSecret},
		{kind: ConfigMap, versions: core, object: reflect.TypeFor[corev1.ConfigMap](), validate: validateConfigMap},
		{kind: Ingress, group: kubeNetworking, versions: core, object: reflect.TypeFor[networkingv1.Ingress](), validate: validateKubernetesIngress},
		{kind: IngressClass, group: kubeNetworking, versions: core, cluster: true, object: reflect.TypeFor[networkingv1.IngressClass](), validate: validateIngressClass},
	}
}

// withoutEffect are the kinds that are read and judged while nothing in the mesh follows
// them yet, and what happens instead; users are told with each object.
func withoutEffect() map[Kind]string {
	return map[Kind]string{
		Telemetry: "proxies report what the mesh's defaults say",
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
		istioNetworking:             nil,
		istioSecurity:               nil,
		istioTelemetry:              nil,
		istioExtensions:             nil,
		"install.istio.io":          {"IstioOperator"},
		"gateway.networking.k8s.io": {"GatewayClass", "Gateway", "HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute", "UDPRoute", "ReferenceGrant", "BackendTLSPolicy"},
		"": {"ServiceAccount", "Endpoints", "PersistentVolume", "PersistentVolumeClaim", "ReplicationController",
			"ResourceQuota", "LimitRange", "Event", "PodTemplate"},
		"apps":                         {"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ControllerRevision"},
		"batch":                        {"Job", "CronJob"},
		"autoscaling":                  {"HorizontalPodAutoscaler"},
		"policy":                       {"PodDisruptionBudget"},
		kubeNetworking:                 {"NetworkPolicy"},
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
		if hint != "" || strings.HasSuffix(group, ".istio.io") {
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
