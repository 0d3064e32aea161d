package mesh

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/lateen-mesh/lateen/control/registry"
	"github.com/lateen-mesh/lateen/wellknown"
)

// ParseProxy reads the node of a proxy's first request: the id
// "type~ip~name.namespace~domain" and the metadata that the agent put there.
// Metadata that is missing or of another type counts as not given; an id of another
// form is an error.
func ParseProxy(node *corev3.Node) (*Proxy, error) {
	parts := strings.Split(node.GetId(), "~")
	if len(parts) != 4 {
		return nil, fmt.Errorf("node id %q: want type~ip~name.namespace~domain", node.GetId())
	}
	kind := ProxyType(parts[0])
	if kind != SidecarProxy && kind != Router {
		return nil, fmt.Errorf("node id %q: unknown proxy type %q", node.GetId(), parts[0])
	}
	name, namespace, _ := strings.Cut(parts[2], ".")
	p := &Proxy{
		ID:         node.GetId(),
		Type:       kind,
		Addresses:  []string{parts[1]},
		Name:       name,
		Namespace:  namespace,
		Domain:     parts[3],
		Extensions: map[string]bool{},
		Metadata:   node.GetMetadata().AsMap(),
	}
	p.readMetadata()
	if l := node.GetLocality(); l != nil {
		p.Locality = registry.Locality{Region: l.Region, Zone: l.Zone, SubZone: l.SubZone}
	}
	for _, e := range node.GetExtensions() {
		p.Extensions[e.Name] = true
	}
	return p, nil
}

func (p *Proxy) readMetadata() {
	if ns := p.text("NAMESPACE"); ns != "" {
		p.Namespace = ns
	}
	p.ServiceAccount = p.text("SERVICE_ACCOUNT")
	p.WorkloadName = p.text("WORKLOAD_NAME")
	p.ClusterID = p.text("CLUSTER_ID")
	p.Network = p.text("NETWORK")
	p.IstioVersion = p.text("ISTIO_VERSION")
	p.InterceptionMode = p.text("INTERCEPTION_MODE")
	p.DNSCapture = p.text("DNS_CAPTURE") == "true"
	if mark, err := strconv.ParseUint(p.text(wellknown.MarkKey), 10, 32); err == nil {
		p.Mark = uint32(mark)
	}
	p.Labels = map[string]string{}
	if labels, ok := p.Metadata["LABELS"].(map[string]any); ok {
		for k, v := range labels {
			if s, ok := v.(string); ok {
				p.Labels[k] = s
			}
		}
	}
	if l := p.Labels["istio-locality"]; l != "" {
		p.Locality = registry.ParseLocality(strings.ReplaceAll(l, ".", "/"))
	}
	for a := range strings.SplitSeq(p.text("INSTANCE_IPS"), ",") {
		if a = strings.TrimSpace(a); a != "" && !slices.Contains(p.Addresses, a) {
			p.Addresses = append(p.Addresses, a)
		}
	}
}

// text is a metadata value as a string: agents write numbers and booleans of
// their environment as strings, other clients as JSON values.
func (p *Proxy) text(key string) string {
	switch v := p.Metadata[key].(type) {
	case nil:
		return ""
	case string:
		return v
	case bool, float64:
		return fmt.Sprint(v)
	}
	return ""
}

// Text is a metadata value of the node as a string, and whether there is one that is a
// string, a boolean or a number.
func (p *Proxy) Text(key string) (string, bool) {
	switch p.Metadata[key].(type) {
	case string, bool, float64:
		return p.text(key), true
	}
	return "", false
}

// HasAgent reports whether an agent serves secrets of files and of the workload's
// identity beside the proxy (the cluster sds-grpc of its bootstrap). The agent
// shows itself by the names that it expects of the control plane; a proxy started
// by hand has none and reads files itself.
func (p *Proxy) HasAgent() bool {
	_, ok := p.Metadata["PILOT_SAN"]
	return ok
}
