package analyze

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/lateen-mesh/lateen/control/registry"
)

// portNames finds ports of services whose name does not say what is spoken there. To an
// external name a port that only TCP is known of is worse: the proxy would take all traffic
// to it.
func portNames(p *pass) {
	for _, o := range of[*corev1.Service](p.Mesh, service) {
		if systemNamespace(o.Namespace) || o.Namespace == p.root() {
			continue
		}
		external := o.spec.Spec.Type == corev1.ServiceTypeExternalName
		for i, port := range o.spec.Spec.Ports {
			app := ""
			if port.AppProtocol != nil {
				app = *port.AppProtocol
			}
			at := indexed("spec.ports", i)
			switch speaks := registry.ProtocolOf(string(port.Protocol), port.Name, app); {
			case app == "hbone": // between proxies of the mesh
			case external && (speaks == registry.Unsupported || speaks == registry.TCP):
				p.report(o.object, at, ExternalNameServiceTypeInvalidPortName)
			case !external && speaks == registry.Unsupported:
				p.report(o.object, at, PortNameIsNotUnderNamingConvention, port.Name, int(port.Port), port.TargetPort.String())
			}
		}
	}
}
