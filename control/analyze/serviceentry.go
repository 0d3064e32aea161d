package analyze

import (
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
)

// protocolAddresses finds TCP ports of hosts without an address: nothing in a connection
// tells such a host from others.
func protocolAddresses(p *pass) {
	meta := p.meshConfig.GetDefaultConfig().GetProxyMetadata()
	captured := meta["ISTIO_META_DNS_CAPTURE"] == "true" && meta["ISTIO_META_DNS_AUTO_ALLOCATE"] == "true"
	if captured || meta["PILOT_ENABLE_IP_AUTOALLOCATE"] == "true" {
		return // every host gets an address
	}
	for _, o := range of[*networking.ServiceEntry](p.Mesh, serviceEntry) {
		if len(o.spec.Addresses) > 0 || len(o.status.Addresses) > 0 {
			continue
		}
		for i, port := range o.spec.Ports {
			if port.Protocol == "" || strings.EqualFold(port.Protocol, "TCP") {
				p.report(o.object, indexed("spec.ports", i), ServiceEntryAddressesRequired)
			}
		}
	}
}

// conflictingProtocols finds entries that disagree on what is spoken at a host's port.
func conflictingProtocols(p *pass) {
	all := of[*networking.ServiceEntry](p.Mesh, serviceEntry)
	for _, o := range all {
		for _, host := range o.spec.Hosts {
			for i, port := range o.spec.Ports {
				names, protocols := []string{o.fullName()}, []string{strings.ToUpper(port.Protocol)}
				for _, other := range all {
					if other.object == o.object || !slices.Contains(other.spec.Hosts, host) || !p.seenTogether(o, other) {
						continue
					}
					for _, also := range other.spec.Ports {
						if speaks := strings.ToUpper(also.Protocol); also.Number == port.Number && speaks != protocols[0] {
							names, protocols = append(names, other.fullName()), append(protocols, speaks)
						}
					}
				}
				if len(names) > 1 {
					p.report(o.object, indexed("spec.ports", i), ConflictingServiceEntryProtocol,
						strings.Join(unique(names), ", "), host, int(port.Number), strings.Join(unique(protocols), ", "))
				}
			}
		}
	}
}

// seenTogether reports whether some namespace sees both entries.
func (p *pass) seenTogether(a, b item[*networking.ServiceEntry]) bool {
	byDefault := p.meshConfig.GetDefaultServiceExportTo()
	one, two := exports(a.spec.ExportTo, byDefault, a.Namespace), exports(b.spec.ExportTo, byDefault, b.Namespace)
	if one["*"] {
		return len(two) > 0
	}
	for ns := range one {
		if two["*"] || two[ns] {
			return true
		}
	}
	return false
}

// exports are the namespaces that see an object; "*" is all, none is nobody.
func exports(to, byDefault []string, own string) map[string]bool {
	if len(to) == 0 {
		to = byDefault
	}
	if len(to) == 0 {
		to = []string{"*"}
	}
	all := map[string]bool{}
	for _, ns := range to {
		switch ns {
		case ".":
			all[own] = true
		case "~":
		default:
			all[ns] = true
		}
	}
	return all
}
