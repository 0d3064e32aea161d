package control

import (
	"fmt"
	"strconv"
	"strings"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/lateen-mesh/lateen/control/mesh"
)

// Node metadata by which a gateway without Kubernetes says where on its machine the
// ports of Gateways are published. Names of listeners and routes keep the port
// of the Gateway; only the socket differs, so it works with any Envoy.
const (
	// publishKey maps ports: "80=8080,443=8443".
	publishKey = "LATEEN_PUBLISH"
	// publishOffsetKey is added to ports below 1024 that the map does not name, for
	// a gateway that may not open them.
	publishOffsetKey = "LATEEN_PUBLISH_OFFSET"
)

// publishing is a gateway's map of ports.
type publishing struct {
	ports  map[uint32]uint32
	offset uint32
}

// publishingOf reads a proxy's map; what cannot be read counts as not given.
func publishingOf(p *mesh.Proxy) publishing {
	out := publishing{ports: map[uint32]uint32{}}
	if list, ok := p.Metadata[publishKey].(string); ok {
		for item := range strings.SplitSeq(list, ",") {
			from, to, ok := strings.Cut(item, "=")
			f, err1 := strconv.ParseUint(from, 10, 16)
			t, err2 := strconv.ParseUint(to, 10, 16)
			if ok && err1 == nil && err2 == nil && t > 0 {
				out.ports[uint32(f)] = uint32(t)
			}
		}
	}
	if v, ok := p.Metadata[publishOffsetKey]; ok {
		if n, err := strconv.ParseUint(fmt.Sprint(v), 10, 16); err == nil && n < 64000 {
			out.offset = uint32(n)
		}
	}
	return out
}

// hostPort is the port on the gateway's machine.
func (p publishing) hostPort(port uint32) uint32 {
	if to, ok := p.ports[port]; ok {
		return to
	}
	if port > 0 && port < 1024 {
		return port + p.offset
	}
	return port
}

// apply moves a listener's sockets.
func (p publishing) apply(l *listenerpb.Listener) {
	p.move(l.GetAddress())
	for _, a := range l.GetAdditionalAddresses() {
		p.move(a.GetAddress())
	}
}

func (p publishing) move(a *corepb.Address) {
	if s := a.GetSocketAddress(); s != nil {
		s.PortSpecifier = &corepb.SocketAddress_PortValue{PortValue: p.hostPort(s.GetPortValue())}
	}
}
