package analyze

import networking "istio.io/api/networking/v1alpha3"

// deprecations finds fields that later versions do without.
func deprecations(p *pass) {
	for _, o := range of[*networking.VirtualService](p.Mesh, virtualService) {
		for i, r := range o.spec.Http {
			//nolint:staticcheck // that it is deprecated is what is looked for
			if r.Fault.GetDelay().GetPercent() > 0 {
				p.report(o.object, indexed("spec.http", i)+".fault.delay.percent", Deprecated,
					"HTTPRoute.fault.delay.percent is deprecated; use HTTPRoute.fault.delay.percentage")
			}
		}
	}
	for _, o := range of[*networking.Sidecar](p.Mesh, sidecar) {
		if o.spec.OutboundTrafficPolicy.GetEgressProxy() != nil {
			p.report(o.object, "spec.outboundTrafficPolicy.egressProxy", Deprecated, "OutboundTrafficPolicy.EgressProxy is deprecated")
		}
	}
}
