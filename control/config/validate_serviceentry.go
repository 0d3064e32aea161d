package config

import (
	"strings"

	networking "istio.io/api/networking/v1alpha3"
)

func validateServiceEntry(p place, o *Config) {
	se := o.Spec.(*networking.ServiceEntry)
	if se.WorkloadSelector != nil {
		p.field("workloadSelector").selector(se.WorkloadSelector.Labels, "labels")
		if len(se.Endpoints) > 0 {
			p.field("endpoints").errorf("cannot be set together with workloadSelector")
		}
	}
	validateEntryHosts(p, se)
	for i, a := range se.Addresses {
		at := p.at("addresses", i)
		at.wrong(ipOrSubnet(a))
		if strings.Contains(a, "/") && se.Resolution != networking.ServiceEntry_NONE && se.Resolution != networking.ServiceEntry_STATIC {
			at.errorf("CIDR blocks are allowed for resolution NONE and STATIC only")
		}
	}
	ports := validateEntryPorts(p, se)
	switch se.Resolution {
	case networking.ServiceEntry_NONE:
		if len(se.Endpoints) > 0 {
			p.field("endpoints").add(Error, "set resolution: STATIC or DNS", "cannot be set for resolution NONE")
		}
	case networking.ServiceEntry_STATIC:
		for i, e := range se.Endpoints {
			validateEndpoint(p.at("endpoints", i), e, ports, false)
		}
	case networking.ServiceEntry_DNS, networking.ServiceEntry_DNS_ROUND_ROBIN:
		validateDNSEntry(p, se, ports)
	case networking.ServiceEntry_DYNAMIC_DNS:
		validateDynamicEntry(p, se)
	}
	if se.WorkloadSelector != nil && se.Resolution != networking.ServiceEntry_STATIC {
		p.field("workloadSelector").warnf("has no use for resolution %s", se.Resolution)
	}
	validateHostsTellApart(p, se)
	p.exportTo(o.Namespace, se.ExportTo, true)
}

func validateEntryHosts(p place, se *networking.ServiceEntry) {
	if len(se.Hosts) == 0 {
		p.field("hosts").errorf("at least one host is required")
	}
	for i, h := range se.Hosts {
		at := p.at("hosts", i)
		if h == "*" {
			at.errorf(`"*" alone is not allowed`)
			continue
		}
		at.wrong(wildcardDomain(h))
		if err := partialWildcard(h); err != nil {
			at.warnf("%v", err)
		}
	}
}

// validateEntryPorts returns the names of the ports.
func validateEntryPorts(p place, se *networking.ServiceEntry) map[string]bool {
	names, numbers := map[string]bool{}, map[uint32]bool{}
	for i, sp := range se.Ports {
		at := p.at("ports", i)
		if sp.Name == "" {
			at.field("name").errorf("required")
		} else {
			at.field("name").wrong(portName(sp.Name))
		}
		at.field("number").wrong(port(int64(sp.Number)))
		at.field("protocol").protocol(sp.Protocol)
		if names[sp.Name] {
			at.field("name").errorf("duplicate port name %q", shorten(sp.Name))
		}
		if numbers[sp.Number] {
			at.field("number").errorf("duplicate port %d", sp.Number)
		}
		names[sp.Name], numbers[sp.Number] = true, true
		if sp.TargetPort != 0 {
			at.field("targetPort").wrong(port(int64(sp.TargetPort)))
			if se.Resolution == networking.ServiceEntry_NONE {
				at.field("targetPort").warnf("has no effect for resolution NONE")
			}
		}
		if len(se.Addresses) == 0 && se.Resolution == networking.ServiceEntry_NONE && (sp.Protocol == "" || strings.EqualFold(sp.Protocol, "TCP")) {
			at.warnf("without addresses every TCP connection to port %d is taken for this service", sp.Number)
		}
	}
	return names
}

func validateDNSEntry(p place, se *networking.ServiceEntry, ports map[string]bool) {
	if len(se.Endpoints) == 0 {
		for i, h := range se.Hosts {
			if fqdn(h) != nil && wildcardDomain(h) == nil {
				p.at("hosts", i).add(Error, "give endpoints, or use resolution: DYNAMIC_DNS",
					"%q cannot be resolved: resolution %s needs a full name, or endpoints", shorten(h), se.Resolution)
			}
		}
	}
	if se.Resolution == networking.ServiceEntry_DNS_ROUND_ROBIN && len(se.Endpoints) > 1 {
		p.field("endpoints").errorf("at most one for resolution DNS_ROUND_ROBIN, got %d", len(se.Endpoints))
	}
	for i, e := range se.Endpoints {
		at := p.at("endpoints", i)
		if strings.HasPrefix(e.Address, unixScheme) {
			at.field("address").errorf("unix sockets are for resolution STATIC")
			continue
		}
		validateEndpoint(at, e, ports, true)
	}
	if len(se.Addresses) == 0 || len(se.Hosts) < 2 {
		return
	}
	for i, sp := range se.Ports {
		if c := classify(sp.Protocol); c == tcpProtocol || c == tlsProtocol {
			p.at("ports", i).warnf("several hosts share the addresses: connections to port %d cannot be told apart", sp.Number)
			return
		}
	}
}

// validateDynamicEntry: the name is taken from each request, so nothing but names
// can be given.
func validateDynamicEntry(p place, se *networking.ServiceEntry) {
	if len(se.Endpoints) > 0 {
		p.field("endpoints").errorf("cannot be set for resolution DYNAMIC_DNS")
	}
	if se.WorkloadSelector != nil {
		p.field("workloadSelector").errorf("cannot be set for resolution DYNAMIC_DNS")
	}
	for i, h := range se.Hosts {
		if !strings.HasPrefix(h, "*.") {
			p.at("hosts", i).errorf("resolution DYNAMIC_DNS is for wildcard hosts such as *.example.com, got %q", shorten(h))
		}
	}
	for i, sp := range se.Ports {
		if c := classify(sp.Protocol); c != httpProtocol && c != tlsProtocol {
			p.at("ports", i).field("protocol").errorf("must be an HTTP or TLS protocol for resolution DYNAMIC_DNS: others do not carry the name")
		}
	}
}

// validateHostsTellApart: HTTP carries the host and TLS the SNI; of plain TCP
// nobody knows which host is meant.
func validateHostsTellApart(p place, se *networking.ServiceEntry) {
	if se.Resolution == networking.ServiceEntry_NONE || len(se.Hosts) < 2 {
		return
	}
	for i, sp := range se.Ports {
		if c := classify(sp.Protocol); c != httpProtocol && c != tlsProtocol {
			p.at("ports", i).field("protocol").errorf("with several hosts the protocol must be an HTTP or TLS one, to tell the hosts apart")
			return
		}
	}
}

func validateWorkloadEntry(p place, o *Config) {
	validateEndpoint(p, o.Spec.(*networking.WorkloadEntry), nil, true)
}

// validateEndpoint checks a WorkloadEntry or an endpoint of a ServiceEntry. ports
// are the port names of the service, nil when it is not known.
func validateEndpoint(p place, we *networking.WorkloadEntry, ports map[string]bool, names bool) {
	sock, unix := strings.CutPrefix(we.Address, unixScheme)
	at := p.field("address")
	switch {
	case we.Address == "" && we.Network == "":
		at.errorf("required")
		return
	case we.Address == "":
		at.warnf("is unset: the endpoint is reached by the gateway of network %q", shorten(we.Network))
	case unix:
		at.wrong(unixPath(sock))
		if len(we.Ports) > 0 {
			p.field("ports").errorf("cannot be set for a unix socket")
		}
		if ports != nil && len(ports) != 1 {
			at.errorf("a unix socket serves one port: the service has %d", len(ports))
		}
	case isIP(we.Address):
	case !names:
		at.add(Error, "set resolution: DNS", "%q is not an IP address, as resolution STATIC needs", shorten(we.Address))
	case fqdn(we.Address) != nil:
		at.errorf("%q is neither an IP address nor a full host name", shorten(we.Address))
	}
	for _, name := range sortedKeys(we.Ports) {
		at := p.field("ports").key(name)
		if ports != nil && !ports[name] {
			at.add(Error, didYouMean(name, sortedKeys(ports)), "the service has no port named %q", shorten(name))
		}
		at.wrong(portName(name))
		at.wrong(port(int64(we.Ports[name])))
	}
	p.field("labels").labels(we.Labels)
}
