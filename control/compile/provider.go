package compile

import (
	"iter"
	"strings"

	meshconfig "istio.io/api/mesh/v1alpha1"

	"github.com/lateen-mesh/lateen/control/mesh"
)

// namedProviders are the extension providers of these names, in the order of the names.
func namedProviders(m *meshconfig.MeshConfig, names []string) iter.Seq[*meshconfig.MeshConfig_ExtensionProvider] {
	return func(yield func(*meshconfig.MeshConfig_ExtensionProvider) bool) {
		for _, name := range names {
			for _, p := range m.GetExtensionProviders() {
				if p.GetName() == name && !yield(p) {
					return
				}
			}
		}
	}
}

// providerCluster is the cluster of a provider's service, "host" or "namespace/host", and
// the host, where the proxy sees it.
func providerCluster(scope *mesh.Scope, service string, port uint32) (cluster, host string, ok bool) {
	namespace, host, named := strings.Cut(service, "/")
	if !named {
		namespace, host = "", service
	}
	s := scope.Service(host)
	if s == nil || s.Port(port) == nil || namespace != "" && s.Namespace != namespace {
		return "", "", false
	}
	return clusterName(host, "", port), host, true
}
