package inject

import (
	"cmp"
	"maps"

	"google.golang.org/protobuf/proto"
	meshconfig "istio.io/api/mesh/v1alpha1"
	networking "istio.io/api/networking/v1beta1"

	"github.com/lateen-mesh/lateen/control/config"
)

// withObjects is base with what the ProxyConfig objects for a pod say over it: those of the
// root namespace are for all pods, those of the pod's namespace go before them, and one that
// selects the pod before both. Of several of a kind the oldest counts. It applies when a pod
// is made: a proxy that runs keeps what it was started with.
func withObjects(base *meshconfig.ProxyConfig, r Request) *meshconfig.ProxyConfig {
	if r.Objects == nil {
		return base
	}
	out := proto.CloneOf(base)
	for _, c := range proxyConfigs(r) {
		if c.Concurrency != nil {
			out.Concurrency = proto.CloneOf(c.Concurrency)
		}
		if kind := c.GetImage().GetImageType(); kind != "" {
			out.Image = &networking.ProxyImage{ImageType: kind}
		}
		if len(c.EnvironmentVariables) > 0 {
			env := maps.Clone(out.ProxyMetadata)
			if env == nil {
				env = map[string]string{}
			}
			maps.Copy(env, c.EnvironmentVariables)
			out.ProxyMetadata = env
		}
	}
	return out
}

// proxyConfigs are the objects for a pod, the one that counts most last.
func proxyConfigs(r Request) []*networking.ProxyConfig {
	root := cmp.Or(r.Mesh.GetRootNamespace(), config.DefaultRootNamespace)
	var mesh, namespace, selecting *networking.ProxyConfig
	oldest := func(have **networking.ProxyConfig, c *networking.ProxyConfig) {
		if *have == nil {
			*have = c
		}
	}
	for _, o := range r.Objects.List(config.ProxyConfig) { // oldest first
		c, ok := o.Spec.(*networking.ProxyConfig)
		selector := c.GetSelector().GetMatchLabels()
		switch {
		case !ok:
		case o.Namespace == root && len(selector) == 0:
			oldest(&mesh, c)
		case o.Namespace != r.Namespace || !selects(selector, r.Pod.Labels):
		case len(selector) == 0:
			oldest(&namespace, c)
		default:
			oldest(&selecting, c)
		}
	}
	var out []*networking.ProxyConfig
	for _, c := range []*networking.ProxyConfig{mesh, namespace, selecting} {
		if c != nil {
			out = append(out, c)
		}
	}
	return out
}

func selects(selector, labels map[string]string) bool {
	for k, v := range selector {
		if have, ok := labels[k]; !ok || have != v {
			return false
		}
	}
	return true
}
