package config

import (
	"maps"
	"slices"
	"strconv"

	security "istio.io/api/security/v1beta1"
)

func validatePeerAuthentication(p place, o *Config) {
	a := o.Spec.(*security.PeerAuthentication)
	p.matchLabels(a.Selector)
	p.notBlank("portLevelMtls")
	if len(a.PortLevelMtls) > 0 && len(a.GetSelector().GetMatchLabels()) == 0 {
		p.field("portLevelMtls").add(Error, "name the workloads by selector.matchLabels", "needs a selector: ports are those of workloads")
	}
	for _, number := range slices.Sorted(maps.Keys(a.PortLevelMtls)) {
		p.field("portLevelMtls").key(strconv.FormatUint(uint64(number), 10)).wrong(port(int64(number)))
	}
}
