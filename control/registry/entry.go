package registry

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/lateen-mesh/lateen/control/config"
)

// Labels of a workload that the registry reads.
const (
	tlsModeLabel  = "security.istio.io/tlsMode"
	networkLabel  = "topology.istio.io/network"
	localityLabel = "istio-locality"
)

var resolutions = map[networking.ServiceEntry_Resolution]Resolution{
	networking.ServiceEntry_NONE:            Passthrough,
	networking.ServiceEntry_STATIC:          ClientSideLB,
	networking.ServiceEntry_DNS:             DNSLB,
	networking.ServiceEntry_DNS_ROUND_ROBIN: DNSRoundRobin,
	networking.ServiceEntry_DYNAMIC_DNS:     DynamicDNS,
}

// entries adds one service for each host of each ServiceEntry.
func (b *builder) entries() {
	for _, c := range b.set.List(config.ServiceEntry) {
		b.piece(c, nil, func(p *piece) {
			se := c.Spec.(*networking.ServiceEntry)
			for _, host := range se.Hosts {
				s := b.entryService(c, se, strings.ToLower(host))
				p.add(s, b.entryEndpoints(c, se, s))
			}
		})
	}
}

func (b *builder) entryService(c *config.Config, se *networking.ServiceEntry, host string) *Service {
	s := &Service{
		Host:         host,
		Name:         host,
		Namespace:    c.Namespace,
		Ports:        entryPorts(se),
		Addresses:    se.Addresses,
		Resolution:   resolutions[se.Resolution],
		MeshExternal: se.Location == networking.ServiceEntry_MESH_EXTERNAL,
		FromEntry:    true,
		ExportTo:     se.ExportTo,
		Labels:       c.Labels,
		Selector:     se.GetWorkloadSelector().GetLabels(),
		CreationTime: c.CreationTime,
		SANs:         se.SubjectAltNames,
		Origin:       c,
	}
	if len(s.ExportTo) == 0 {
		s.ExportTo = b.opts.ServiceExportTo
	}
	return s
}

func entryPorts(se *networking.ServiceEntry) []Port {
	ports := make([]Port, 0, len(se.Ports))
	for _, p := range se.Ports {
		protocol := ParseProtocol(p.Protocol)
		if p.Protocol == "" {
			protocol = protocolOfName(p.Name)
		}
		ports = append(ports, Port{Name: p.Name, Number: p.Number, TargetPort: cmp.Or(p.TargetPort, p.Number), Protocol: protocol})
	}
	return ports
}

// entryEndpoints are the endpoints that the entry lists or selects; an entry that
// resolves by DNS and does neither means its host itself.
func (b *builder) entryEndpoints(c *config.Config, se *networking.ServiceEntry, s *Service) []*Endpoint {
	if s.Resolution == Passthrough && len(se.Endpoints) == 0 && len(s.Selector) == 0 {
		return nil
	}
	if len(s.Selector) > 0 {
		return append(b.selected(s), b.selectedPods(s)...)
	}
	if len(se.Endpoints) == 0 {
		if s.Resolution != DNSLB && s.Resolution != DNSRoundRobin {
			return nil
		}
		return b.workload(s, &networking.WorkloadEntry{Address: s.Host}, c.Namespace, c.Name)
	}
	var list []*Endpoint
	for i, we := range se.Endpoints {
		list = append(list, b.workload(s, we, c.Namespace, fmt.Sprintf("%s-%d", c.Name, i))...)
	}
	return list
}

// selected are the WorkloadEntries of the service's namespace that its selector
// matches.
func (b *builder) selected(s *Service) []*Endpoint {
	var list []*Endpoint
	for _, c := range b.labelled(s) {
		if we := c.Spec.(*networking.WorkloadEntry); selects(s.Selector, c.Labels, we.Labels) {
			list = append(list, b.workload(s, we, c.Namespace, c.Name)...)
		}
	}
	return list
}

// A labelKey is one label of the WorkloadEntries of a namespace.
type labelKey struct{ namespace, name, value string }

// labelled are the WorkloadEntries that have one label of the service's selector, the
// one that the fewest have, so that many services do not go through all of them.
func (b *builder) labelled(s *Service) []*config.Config {
	if b.byLabel == nil {
		b.byLabel = map[labelKey][]*config.Config{}
		for _, c := range b.set.List(config.WorkloadEntry) {
			labels := maps.Clone(c.Spec.(*networking.WorkloadEntry).Labels)
			if labels == nil {
				labels = map[string]string{}
			}
			for name, value := range c.Labels {
				if _, own := labels[name]; !own {
					labels[name] = value
				}
			}
			for name, value := range labels {
				k := labelKey{c.Namespace, name, value}
				b.byLabel[k] = append(b.byLabel[k], c)
			}
		}
	}
	var fewest []*config.Config
	first := true
	for name, value := range s.Selector {
		if list := b.byLabel[labelKey{s.Namespace, name, value}]; first || len(list) < len(fewest) {
			fewest, first = list, false
		}
	}
	return fewest
}

// selects reports whether every label of the selector is on the workload, in its
// spec or in its metadata.
func selects(selector, metadata, spec map[string]string) bool {
	for k, v := range selector {
		have, ok := spec[k]
		if !ok {
			have, ok = metadata[k]
		}
		if !ok || have != v {
			return false
		}
	}
	return true
}

// workload is one endpoint for each port of the service that the workload has. One
// without address, behind the gateway of its network, is none as long as gateways of
// other networks are not known.
func (b *builder) workload(s *Service, we *networking.WorkloadEntry, namespace, name string) []*Endpoint {
	if we.Address == "" {
		return nil
	}
	unix := strings.HasPrefix(we.Address, "unix://")
	list := make([]*Endpoint, 0, len(s.Ports))
	for _, p := range s.Ports {
		e := &Endpoint{
			Address:      we.Address,
			Port:         cmp.Or(we.Ports[p.Name], p.TargetPort, p.Number),
			PortName:     p.Name,
			Labels:       we.Labels,
			Weight:       max(we.Weight, 1),
			Locality:     ParseLocality(cmp.Or(we.Locality, strings.ReplaceAll(we.Labels[localityLabel], ".", "/"))),
			Network:      cmp.Or(we.Network, we.Labels[networkLabel], b.network(we.Address)),
			Cluster:      b.opts.ClusterID,
			Namespace:    namespace,
			WorkloadName: name,
			TLSMode:      tlsMode(we),
			Unhealthy:    b.gone[we.Address],
			Ending:       b.gone[we.Address],
		}
		if unix {
			e.Port = 0
		}
		if we.ServiceAccount != "" {
			e.ServiceAccount = b.identity(namespace, we.ServiceAccount)
		}
		list = append(list, e)
	}
	return list
}

// tlsMode is the label's value; a workload with a service account has a proxy
// unless it says otherwise.
func tlsMode(we *networking.WorkloadEntry) string {
	if mode, ok := we.Labels[tlsModeLabel]; ok {
		return mode
	}
	if we.ServiceAccount != "" {
		return "istio"
	}
	return "disabled"
}

// ParseLocality reads "region/zone/subzone"; parts may be missing.
func ParseLocality(s string) Locality {
	parts := slices.Concat(strings.SplitN(s, "/", 3), []string{"", ""})
	return Locality{Region: parts[0], Zone: parts[1], SubZone: parts[2]}
}

// String is "region/zone/subzone" without trailing empty parts.
func (l Locality) String() string {
	return strings.TrimRight(l.Region+"/"+l.Zone+"/"+l.SubZone, "/")
}
