package control

import (
	"fmt"
	"strconv"
	"strings"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/wellknown"
)

// publishing is where on its machine a gateway without Kubernetes publishes the ports of
// Gateways. Names of listeners and routes keep the port of the Gateway; only the socket
// differs, so it works with any Envoy.
type publishing struct {
	ports  map[uint32]uint32 // PublishKey: "80=8080,443=8443"
	offset uint32            // PublishOffsetKey, of ports below 1024 that are not among ports
}

// publishingOf reads a proxy's map; what cannot be read counts as not given.
func publishingOf(p *mesh.Proxy) publishing {
	out := publishing{ports: map[uint32]uint32{}}
	if list, ok := p.Metadata[wellknown.PublishKey].(string); ok {
		for item := range strings.SplitSeq(list, ",") {
			from, to, ok := strings.Cut(item, "=")
			f, err1 := strconv.ParseUint(from, 10, 16)
			t, err2 := strconv.ParseUint(to, 10, 16)
			if ok && err1 == nil && err2 == nil && t > 0 {
				out.ports[uint32(f)] = uint32(t)
			}
		}
	}
	if v, ok := p.Metadata[wellknown.PublishOffsetKey]; ok {
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
