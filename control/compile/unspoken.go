package compile

import (
	"fmt"

	"github.com/lateen-mesh/lateen/control/mesh"
)

// Unspoken are the VirtualServices of a proxy without HTTP/2 that lead to ports which are
// spoken to in it: there the rules have no effect, or not the one that is meant.
//
// Kinds read: as Routes.
func Unspoken(s *mesh.Snapshot, p *mesh.Proxy) []LeftOut {
	if !p.HTTP1 {
		return nil
	}
	scope := s.Scope(p)
	rules, effect := scope.VirtualServices(), "sidecars pass on the bytes of its connections and the rule has no effect"
	if p.Type == mesh.Router {
		rules, effect = nil, "gateways send HTTP/1.1 to it"
		for _, g := range scope.Gateways() {
			rules = append(rules, scope.VirtualServicesFor(g.FullName())...)
		}
	}
	var list []LeftOut
	for _, v := range rules {
		for i, r := range v.Spec.GetHttp() {
			for j, w := range r.GetRoute() {
				service := scope.Service(w.GetDestination().GetHost())
				if service == nil {
					continue
				}
				number := w.GetDestination().GetPort().GetNumber()
				if number == 0 && len(service.Ports) == 1 {
					number = service.Ports[0].Number
				}
				if port := service.Port(number); port != nil && port.Protocol.IsHTTP2() {
					list = append(list, LeftOut{Object: v.Config, Field: fmt.Sprintf("http[%d].route[%d].destination", i, j),
						Reason: fmt.Sprintf("port %d of %s speaks %s, which this release's own proxy does not: %s", number, service.Host, port.Protocol, effect)})
				}
			}
		}
	}
	return list
}
