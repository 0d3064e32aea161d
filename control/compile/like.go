package compile

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/control/registry"
)

// A Likeness is the key of proxies that get the same configuration from one snapshot.
type Likeness [sha256.Size]byte

// Addresses that stand for those of any proxy (RFC 5737, RFC 3849).
const (
	anyIPv4 = "192.0.2.1"
	anyIPv6 = "2001:db8::1"
)

// Like returns a proxy that stands for p and for all that the functions of this package make
// the same for: what tells p from them, name, id and addresses, is not in it. The scope of
// any of them goes with it.
func Like(s *mesh.Snapshot, p *mesh.Proxy) (*mesh.Proxy, Likeness) {
	instances := s.Instances(p)
	like := *p
	like.Locality = s.LocalityOf(p)
	if !tellsPeers(p) && !s.PatchesRead("NAME", "INSTANCE_IPS") {
		like.ID, like.Name = "", ""
		like.Metadata = maps.Clone(p.Metadata)
		delete(like.Metadata, "NAME")
		delete(like.Metadata, "INSTANCE_IPS")
	}
	if !namesOwnAddress(s.Sidecar(p), instances) {
		like.Addresses = families(p.Addresses)
	}
	text, err := json.Marshal(struct {
		Proxy     *mesh.Proxy
		Instances []likeInstance
	}{&like, likeInstances(instances)})
	if err != nil { // metadata is decoded JSON: it can be encoded again
		text = []byte(p.ID)
	}
	return &like, sha256.Sum256(text)
}

// ClusterHost is the host of the service of an outbound cluster, "" for any other name.
func ClusterHost(cluster string) string {
	separator := "|"
	if isSNICluster(cluster) {
		separator = "_."
	}
	for range 3 {
		_, rest, ok := strings.Cut(cluster, separator)
		if !ok {
			return ""
		}
		cluster = rest
	}
	return cluster
}

// tellsPeers reports that the proxy's configuration says which workload it serves.
func tellsPeers(p *mesh.Proxy) bool { return !p.Has(extPeerMetadata) && p.Has(extHeaders) }

// namesOwnAddress reports that the proxy's address stands in its configuration: a Sidecar
// forwards to it, or it is left out of the listeners for a headless service.
func namesOwnAddress(sidecar *networking.Sidecar, instances []registry.Instance) bool {
	for _, l := range sidecar.GetIngress() {
		if host, _, err := net.SplitHostPort(l.GetDefaultEndpoint()); err == nil && (host == "0.0.0.0" || host == "::") {
			return true
		}
	}
	return slices.ContainsFunc(instances, func(i registry.Instance) bool { return i.Service.Headless })
}

// families has one address for each of the addresses, of the same family.
func families(addresses []string) []string {
	all := make([]string, len(addresses))
	for i, a := range addresses {
		all[i] = anyIPv4
		if strings.Contains(a, ":") {
			all[i] = anyIPv6
		}
	}
	return all
}

// A likeInstance is what configuration says of a port on which a workload serves.
type likeInstance struct {
	Service, Port string
	Labels        map[string]string
}

func likeInstances(instances []registry.Instance) []likeInstance {
	var all []likeInstance
	for _, i := range instances {
		all = append(all, likeInstance{i.Service.Namespace + "/" + i.Service.Name + "/" + i.Service.Host, fmt.Sprint(i.Port, i.Endpoint.Port), i.Endpoint.Labels})
	}
	return all
}
