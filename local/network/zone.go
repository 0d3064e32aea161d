package network

import (
	"net/netip"
	"slices"
	"strings"
)

const (
	clusterDomain = "cluster.local"
	serviceDomain = "svc." + clusterDomain
	podDomain     = "pod." + clusterDomain
)

// A record set is what one name of the cluster has.
type records struct {
	addresses []netip.Addr
	cname     string // of ExternalName
	services  []srv
}

// An srv is a port of a Service at a name.
type srv struct {
	port   uint16
	target string
}

// A zone is the names of the cluster at one time, in lower case without the final dot.
// It is not changed.
type zone struct {
	names    map[string]records
	pointers map[netip.Addr]string
	plan     plan
}

func newZone(p plan, all []Service) *zone {
	z := &zone{names: map[string]records{MachineName: {addresses: []netip.Addr{p.machine}}}, pointers: map[netip.Addr]string{}, plan: p}
	z.names[clusterDomain], z.names[serviceDomain], z.names[podDomain] = records{}, records{}, records{}
	for _, s := range all {
		z.add(s)
	}
	return z
}

func (z *zone) add(s Service) {
	namespace := strings.ToLower(s.Namespace) + "." + serviceDomain
	name := strings.ToLower(s.Name) + "." + namespace
	if _, known := z.names[namespace]; !known {
		z.names[namespace] = records{}
	}
	if s.ExternalName != "" {
		z.names[name] = records{cname: strings.ToLower(strings.TrimSuffix(s.ExternalName, "."))}
		return
	}
	if len(s.Addresses) == 0 {
		z.addHeadless(s, name)
		return
	}
	r := records{addresses: s.Addresses}
	for _, a := range s.Addresses {
		z.pointers[a] = name
	}
	for _, p := range s.Ports {
		z.addPort(name, p, srv{p.Port, name})
		r.services = append(r.services, srv{p.Port, name})
	}
	z.names[name] = r
	z.addHosts(s, name)
}

// addHeadless gives the name the addresses of the endpoints, and each endpoint a name.
func (z *zone) addHeadless(s Service, name string) {
	hosts := z.addHosts(s, name)
	r := records{addresses: s.Endpoints}
	at := func(a netip.Addr) string {
		if hosts[a] == "" {
			hosts[a] = dashed(a) + "." + name
		}
		z.names[hosts[a]] = records{addresses: []netip.Addr{a}}
		z.pointers[a] = hosts[a]
		return hosts[a]
	}
	for _, p := range s.Ports {
		for _, b := range p.Backends {
			if s.Endpoints == nil && !slices.Contains(r.addresses, b.Addr()) {
				r.addresses = append(r.addresses, b.Addr())
			}
			record := srv{b.Port(), at(b.Addr())}
			z.addPort(name, p, record)
			r.services = append(r.services, record)
		}
	}
	for _, a := range r.addresses {
		at(a)
	}
	z.names[name] = r
}

// addHosts adds the names below a Service's, and returns them by address.
func (z *zone) addHosts(s Service, name string) map[netip.Addr]string {
	by := map[netip.Addr]string{}
	for host, addresses := range s.Hosts {
		host = strings.ToLower(host) + "." + name
		z.names[host] = records{addresses: addresses}
		for _, a := range addresses {
			by[a] = host
		}
	}
	return by
}

// addPort adds a record to _PORT._PROTOCOL.SERVICE….
func (z *zone) addPort(service string, p Port, record srv) {
	if p.Name == "" {
		return
	}
	protocol := "tcp"
	if strings.EqualFold(p.Protocol, "udp") {
		protocol = "udp"
	}
	below := "_" + protocol + "." + service
	name := "_" + strings.ToLower(p.Name) + "." + below
	r := z.names[name]
	r.services = append(r.services, record)
	z.names[name] = r
	if _, known := z.names[below]; !known {
		z.names[below] = records{}
	}
}

// find returns what a name has, and whether there is such a name.
func (z *zone) find(name string) (records, bool) {
	if r, known := z.names[name]; known {
		return r, true
	}
	if a, ok := podName(name); ok {
		return records{addresses: []netip.Addr{a}}, true
	}
	return records{}, false
}

// covers reports that a name is the cluster's to know.
func (z *zone) covers(name string) bool {
	return name == clusterDomain || strings.HasSuffix(name, "."+clusterDomain) || name == MachineName
}

// podName reads A-B-C-D.NAMESPACE.pod.cluster.local, which needs no pod to be there.
func podName(name string) (netip.Addr, bool) {
	rest, ok := strings.CutSuffix(name, "."+podDomain)
	if !ok {
		return netip.Addr{}, false
	}
	host, namespace, ok := strings.Cut(rest, ".")
	if !ok || strings.Contains(namespace, ".") {
		return netip.Addr{}, false
	}
	if a, err := netip.ParseAddr(strings.ReplaceAll(host, "-", ".")); err == nil {
		return a, true
	}
	a, err := netip.ParseAddr(strings.ReplaceAll(host, "-", ":"))
	return a, err == nil && a.Zone() == ""
}

func dashed(a netip.Addr) string {
	return strings.NewReplacer(".", "-", ":", "-").Replace(a.String())
}

// pointer reads a name of in-addr.arpa or ip6.arpa.
func pointer(name string) (netip.Addr, bool) {
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		labels := strings.Split(rest, ".")
		slices.Reverse(labels)
		a, err := netip.ParseAddr(strings.Join(labels, "."))
		return a, err == nil && a.Is4()
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa")
	labels := strings.Split(rest, ".")
	if !ok || len(labels) != 32 {
		return netip.Addr{}, false
	}
	slices.Reverse(labels)
	var text strings.Builder
	for i, l := range labels {
		if len(l) != 1 {
			return netip.Addr{}, false
		}
		if i > 0 && i%4 == 0 {
			text.WriteByte(':')
		}
		text.WriteString(l)
	}
	a, err := netip.ParseAddr(text.String())
	return a, err == nil
}
