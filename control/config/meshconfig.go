package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	meshconfig "istio.io/api/mesh/v1alpha1"
	networking "istio.io/api/networking/v1alpha3"
	corev1 "k8s.io/api/core/v1"
)

// Where the mesh's own settings are kept in a Kubernetes cluster.
const (
	// MeshConfigMap is the name of the ConfigMap, in the root namespace.
	MeshConfigMap = "istio"
	// MeshConfigKey is the key in it that holds the MeshConfig as YAML.
	MeshConfigKey = "mesh"
	// InjectorConfigMap begins the names of the ConfigMaps, in the root namespace, that hold
	// templates and values of injection: of revision r it is this, "-" and r.
	InjectorConfigMap = "istio-sidecar-injector"
	// DefaultRootNamespace is where mesh-wide objects live unless MeshConfig says else.
	DefaultRootNamespace = "istio-system"
)

// DefaultMeshConfig returns a fresh MeshConfig with Istio's defaults.
func DefaultMeshConfig() *meshconfig.MeshConfig {
	everywhere := []string{"*"}
	return &meshconfig.MeshConfig{
		ProxyListenPort:                15001,
		ProxyInboundListenPort:         15006,
		ConnectTimeout:                 durationpb.New(10 * time.Second),
		ProtocolDetectionTimeout:       durationpb.New(0),
		IngressClass:                   "istio",
		IngressService:                 "istio-ingressgateway",
		IngressSelector:                "ingressgateway",
		IngressControllerMode:          meshconfig.MeshConfig_STRICT,
		EnableTracing:                  true,
		AccessLogEncoding:              meshconfig.MeshConfig_TEXT,
		DefaultConfig:                  DefaultProxyConfig(),
		OutboundTrafficPolicy:          &meshconfig.MeshConfig_OutboundTrafficPolicy{Mode: meshconfig.MeshConfig_OutboundTrafficPolicy_ALLOW_ANY},
		InboundTrafficPolicy:           &meshconfig.MeshConfig_InboundTrafficPolicy{Mode: meshconfig.MeshConfig_InboundTrafficPolicy_PASSTHROUGH},
		EnableAutoMtls:                 wrapperspb.Bool(true),
		TrustDomain:                    "cluster.local",
		RootNamespace:                  DefaultRootNamespace,
		DefaultServiceExportTo:         everywhere,
		DefaultVirtualServiceExportTo:  everywhere,
		DefaultDestinationRuleExportTo: everywhere,
		LocalityLbSetting:              &networking.LocalityLoadBalancerSetting{Enabled: wrapperspb.Bool(true)},
		DnsRefreshRate:                 durationpb.New(60 * time.Second),
		H2UpgradePolicy:                meshconfig.MeshConfig_DO_NOT_UPGRADE,
		EnablePrometheusMerge:          wrapperspb.Bool(true),
		DefaultProviders:               &meshconfig.MeshConfig_DefaultProviders{},
		ExtensionProviders: []*meshconfig.MeshConfig_ExtensionProvider{
			{Name: "prometheus", Provider: &meshconfig.MeshConfig_ExtensionProvider_Prometheus{
				Prometheus: &meshconfig.MeshConfig_ExtensionProvider_PrometheusMetricsProvider{}}},
			{Name: "stackdriver", Provider: &meshconfig.MeshConfig_ExtensionProvider_Stackdriver{
				Stackdriver: &meshconfig.MeshConfig_ExtensionProvider_StackdriverProvider{}}},
			{Name: "envoy", Provider: &meshconfig.MeshConfig_ExtensionProvider_EnvoyFileAccessLog{
				EnvoyFileAccessLog: &meshconfig.MeshConfig_ExtensionProvider_EnvoyFileAccessLogProvider{Path: "/dev/stdout"}}},
		},
	}
}

// DefaultProxyConfig returns a fresh ProxyConfig with Istio's defaults, as in
// MeshConfig.defaultConfig.
func DefaultProxyConfig() *meshconfig.ProxyConfig {
	return &meshconfig.ProxyConfig{
		ConfigPath:               "./etc/istio/proxy",
		BinaryPath:               "/usr/local/bin/envoy",
		ClusterName:              &meshconfig.ProxyConfig_ServiceCluster{ServiceCluster: "istio-proxy"},
		DrainDuration:            durationpb.New(45 * time.Second),
		TerminationDrainDuration: durationpb.New(5 * time.Second),
		ProxyAdminPort:           15000,
		ControlPlaneAuthPolicy:   meshconfig.AuthenticationPolicy_MUTUAL_TLS,
		DiscoveryAddress:         "istiod.istio-system.svc:15012",
		StatNameLength:           189,
		StatusPort:               15020,
	}
}

// DecodeMeshConfig reads the YAML of a MeshConfig over the defaults. Fields that
// the schema does not have are warnings: users keep names of older versions in
// their files. With errors the result is the default MeshConfig.
func DecodeMeshConfig(name string, text []byte) (*meshconfig.MeshConfig, []Problem) {
	mc := DefaultMeshConfig()
	builtin := mc.ExtensionProviders
	problems := decodeMessage(name, text, mc)
	if !HasErrors(problems) {
		r := &report{}
		validateProviders(place{r: r}, mc.ExtensionProviders) // as they are written
		mc.ExtensionProviders = mergeProviders(builtin, mc.ExtensionProviders)
		validateMeshConfig(place{r: r}, mc)
		for _, p := range r.problems {
			p.Source = Source{File: name, Line: lineIn(text, p.Field)}
			problems = append(problems, p)
		}
	}
	if HasErrors(problems) {
		return DefaultMeshConfig(), problems
	}
	return mc, problems
}

// MeshConfigOf returns the MeshConfig in the set's ConfigMap "istio" of a
// namespace, nil when there is no such ConfigMap or it has no key "mesh". Its
// problems name the ConfigMap.
func MeshConfigOf(s *Set, namespace string) (*meshconfig.MeshConfig, []Problem) {
	o, text := MeshConfigIn(s, namespace)
	if o == nil {
		return nil, nil
	}
	mc, problems := DecodeMeshConfig("", []byte(text))
	return mc, InMeshConfigMap(o, problems)
}

// MeshConfigIn returns the ConfigMap "istio" of a namespace and the YAML under its key
// "mesh"; nil when there is no such ConfigMap or it has no such key.
func MeshConfigIn(s *Set, namespace string) (o *Config, text string) {
	o = s.Get(ConfigMap, namespace, MeshConfigMap)
	if o == nil {
		return nil, ""
	}
	cm, ok := o.Spec.(*corev1.ConfigMap)
	if !ok {
		return nil, ""
	}
	if text, ok = cm.Data[MeshConfigKey]; !ok {
		return nil, ""
	}
	return o, text
}

// InMeshConfigMap says of problems at lines of a MeshConfig that it is the text in a
// ConfigMap: the place is that of the object, the line within the text goes before the
// field. Problems without a line are of something else and stay as they are.
func InMeshConfigMap(o *Config, problems []Problem) []Problem {
	for i := range problems {
		p := &problems[i]
		if p.Source.Line == 0 {
			continue
		}
		field := fmt.Sprintf("data.%s: line %d: %s", MeshConfigKey, p.Source.Line, p.Field)
		p.Source, p.Object, p.Field = o.Source, o.Key, strings.TrimSuffix(field, ": ")
	}
	return problems
}

// mergeProviders keeps the built-in extension providers beside the user's; of
// one name the user's counts.
func mergeProviders(builtin, users []*meshconfig.MeshConfig_ExtensionProvider) []*meshconfig.MeshConfig_ExtensionProvider {
	merged := slices.Clone(builtin)
	for _, u := range users {
		same := func(p *meshconfig.MeshConfig_ExtensionProvider) bool { return p.GetName() == u.GetName() }
		if i := slices.IndexFunc(merged, same); i >= 0 {
			merged[i] = u
		} else {
			merged = append(merged, u)
		}
	}
	return merged
}

// overlay sets in dst every field that the JSON object written names, to its value
// in src, also where that is the zero value. Messages are overlaid field by
// field, lists and maps replaced whole.
func overlay(dst, src protoreflect.Message, written any) {
	object, ok := written.(map[string]any)
	if !ok {
		return
	}
	for name, value := range object {
		fd := src.Descriptor().Fields().ByJSONName(name)
		switch {
		case fd == nil:
		case !src.Has(fd):
			dst.Clear(fd)
		case messageField(fd) && dst.Has(fd):
			overlay(dst.Mutable(fd).Message(), src.Get(fd).Message(), value)
		default:
			dst.Set(fd, src.Get(fd))
		}
	}
}

// messageField reports whether a field holds one message with fields of its own
// (not a Duration, wrapper or other value in disguise).
func messageField(fd protoreflect.FieldDescriptor) bool {
	return fd.Message() != nil && !fd.IsList() && !fd.IsMap() && singular(fd).form == record
}

// lineIn finds the line of a field in the text of a single message.
func lineIn(text []byte, field string) int {
	for _, c := range split(text) {
		if docs, err := c.parse(); err == nil && len(docs) > 0 {
			return lineOf(docs[0], field)
		}
	}
	return 1
}
