package config

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	meshconfig "istio.io/api/mesh/v1alpha1"
	networking "istio.io/api/networking/v1alpha3"
)

// Where the mesh's own settings are kept in a Kubernetes cluster.
const (
	// MeshConfigMap is the name of the ConfigMap, in the root namespace.
	MeshConfigMap = "istio"
	// MeshConfigKey is the key in it that holds the MeshConfig as YAML.
	MeshConfigKey = "mesh"
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
// the schema no longer has are warnings, as users keep them in their files. With
// errors the MeshConfig is the default one.
func DecodeMeshConfig(name string, text []byte) (*meshconfig.MeshConfig, []Problem) {
	mc := DefaultMeshConfig()
	problems := decodeMessage(name, text, mc)
	if HasErrors(problems) {
		return DefaultMeshConfig(), problems
	}
	return mc, problems
}

// MeshConfigOf returns the MeshConfig that the set's ConfigMap "istio" in
// namespace holds, else nil.
func MeshConfigOf(s *Set, namespace string) (*meshconfig.MeshConfig, []Problem) {
	return nil, nil
}
