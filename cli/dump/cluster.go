package dump

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// A ClusterFilter chooses clusters; what is empty chooses all.
type ClusterFilter struct {
	FQDN, Subset, Direction string
	Port                    int
}

// Clusters are the clusters in force, by service, port, subset and direction.
func (d *Dump) Clusters(f ClusterFilter) (*List, error) {
	if d.clusters == nil {
		return nil, errLacks("clusters")
	}
	var bodies []*anypb.Any
	for _, c := range d.clusters.GetStaticClusters() {
		bodies = append(bodies, c.GetCluster())
	}
	for _, c := range d.clusters.GetDynamicActiveClusters() {
		bodies = append(bodies, c.GetCluster())
	}
	all, err := unpack[*clusterpb.Cluster]("clusters", bodies)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(c *clusterpb.Cluster) bool { return !f.picks(c.GetName()) })
	slices.SortStableFunc(all, func(a, b *clusterpb.Cluster) int { return serviceOf(a.GetName()).compare(serviceOf(b.GetName())) })
	l := &List{kind: "cluster", padding: 5, header: []string{"SERVICE FQDN", "PORT", "SUBSET", "DIRECTION", "TYPE", "DESTINATION RULE"}}
	for _, c := range all {
		s := serviceOf(c.GetName())
		l.names = append(l.names, c.GetName())
		l.messages = append(l.messages, proto.Message(c))
		row := []string{s.host, "-", "-", "-", clusterType(c), configuredBy(c.GetMetadata())}
		if s.direction != "" {
			row[1], row[2], row[3] = strconv.Itoa(s.port), cmp.Or(s.subset, "-"), s.direction
		}
		l.rows = append(l.rows, row)
	}
	return l, nil
}

func (f ClusterFilter) picks(name string) bool {
	s := serviceOf(name)
	return (f.FQDN == "" || f.FQDN == s.host) && (f.Port == 0 || f.Port == s.port) &&
		(f.Subset == "" || f.Subset == s.subset) && (f.Direction == "" || strings.EqualFold(f.Direction, s.direction))
}

func clusterType(c *clusterpb.Cluster) string {
	if t := c.GetClusterType(); t != nil {
		return t.GetName()
	}
	return c.GetType().String()
}

// A service is what the name of a cluster says, "DIRECTION|PORT|SUBSET|HOST"; of other
// names there is the host only, which is the name.
type service struct {
	direction, subset, host string
	port                    int
}

func serviceOf(name string) service {
	parts := strings.Split(name, "|")
	if len(parts) != 4 || parts[0] == "" {
		return service{host: name}
	}
	port, err := strconv.Atoi(parts[1])
	if err != nil {
		return service{host: name}
	}
	return service{direction: parts[0], port: port, subset: parts[2], host: parts[3]}
}

func (s service) compare(o service) int {
	return cmp.Or(cmp.Compare(s.host, o.host), cmp.Compare(s.port, o.port), cmp.Compare(s.subset, o.subset), cmp.Compare(s.direction, o.direction))
}

// configuredBy is the object of users that a resource was made from, NAME.NAMESPACE; the
// control plane puts its path, /apis/GROUP/VERSION/namespaces/NAMESPACE/KIND/NAME, into
// the metadata.
func configuredBy(m *corepb.Metadata) string {
	path := m.GetFilterMetadata()["istio"].GetFields()["config"].GetStringValue()
	parts := strings.Split(path, "/")
	if len(parts) != 8 || parts[4] != "namespaces" {
		return path
	}
	return parts[7] + "." + parts[5]
}
