// Package network is the mesh's network on one machine, without a bridge and without
// anything on the machine's own network: the network namespace of the process that calls
// New becomes the mesh, pods are namespaces joined to it by routed links.
//
//	pod 10.244.0.7/32 ── eth0 ═ link ═ 10.244.0.1 ── mesh ── 10.244.0.1 ═ link ═ eth0 ── pod
//	                                                   │
//	          Service addresses 10.96.0.0/16: nftables maps, to a backend at random
//	          DNS 10.96.0.10:53: names of Services and pods; all others are looked up outside
//	          whatever leaves the mesh: a relay, whose sockets are opened outside (package outside)
//
// Links are routed rather than bridged so that Service addresses work whatever the
// machine's br_netfilter says. Namespaces are held by descriptor only: the kernel removes
// links, routes and rules with the last process.
//
// # Addresses
//
// 10.244.0.1 is the mesh's end of every link, 10.244.0.2 this machine
// (host.lateen.internal), 10.96.0.1:443 the Kubernetes API outside. 198.19.0.0/16 stands
// for what names outside resolve to in 127.0.0.0/8, since a pod's loopback is its own.
// Pods have an IPv6 address of fd00:10:244::/64 too, with the IPv4 address in its last
// bits, and reach each other by it; Services have IPv4 addresses only.
//
// # Way out
//
// TCP is redirected to a relay, UDP handed to it as it is (TPROXY); the relay asks for a
// socket outside. It accepts before it dials, so a destination that refuses is a reset for
// the pod. Proxies do better by dialling outside themselves: Options.Door. There is no way
// out for ICMP and other protocols. Programs in the mesh itself (hostNetwork) have the way
// out for TCP and the names.
package network

import (
	"context"
	"net"
	"net/netip"
	"os"
)

// A Mesh is the network namespace that joins the pods. Safe for concurrent use.
type Mesh interface {
	// AddPod makes a pod's network namespace with its link. The address is free again after
	// Close, and given out again as late as possible.
	AddPod(ctx context.Context) (Pod, error)
	// SetServices replaces what Service addresses mean, and what names resolve to. Established
	// connections stay with their backend. An address of the Service range without a backend
	// refuses connections.
	SetServices([]Service) error
	// Publish opens a TCP port of this machine (the wanted one, or 8000 more) for a port of a pod,
	// until the pod is closed, and returns where it is. A proxy in the pod may ask for the listening
	// socket (package outside); until one does, connections are relayed.
	Publish(ctx context.Context, hostPort uint16, pod Pod, containerPort uint16) (netip.AddrPort, error)
	// DialContext connects from within the mesh (probes, port-forward). The address is an IP address,
	// the network tcp or udp.
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
	// Close closes the pods and removes the rules; settings, addresses and routes stay, and harm no
	// mesh that follows in the namespace.
	Close() error
}

// A Pod is one pod's network namespace. Safe for concurrent use.
type Pod interface {
	Address() netip.Addr
	// Address6 is the pod's IPv6 address, zero on a machine without IPv6.
	Address6() netip.Addr
	NetNS() *os.File // for container.Runtime; owned by the Pod
	// DialContext connects from within the pod (probes of localhost, port-forward). The host of the
	// address is an IP address or localhost.
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
	// Redirect sets the rules that send traffic to a sidecar: what the annotations
	// traffic.sidecar.istio.io/… and sidecar.istio.io/interceptionMode say, see agent/redirect.
	Redirect(annotations map[string]string) error
	// PublishAsked lets a proxy in the pod publish further ports by asking for them, except those
	// that proxies keep for themselves (15000 to 15099).
	PublishAsked()
	Close() error
}

// A Service is an address with what stands behind it.
type Service struct {
	Namespace, Name string
	Addresses       []netip.Addr // cluster addresses; none: headless
	ExternalName    string
	Ports           []Port
	Hosts           map[string][]netip.Addr // names below the Service's own: HOSTNAME.service…
	// Endpoints are the addresses that the name of a headless Service has. Nil: those of the backends.
	Endpoints []netip.Addr
	// ClientIP is sessionAffinity: ClientIP. A client stays with its backend as long as the
	// backends are the same.
	ClientIP bool
}

// A Port of a Service and its backends.
type Port struct {
	Name     string // for SRV
	Protocol string // TCP, UDP; "" is TCP
	Port     uint16
	Backends []netip.AddrPort
}

// ResolvConf is the text of /etc/resolv.conf in a pod of a namespace.
func ResolvConf(namespace string) string {
	return "search " + namespace + ".svc.cluster.local svc.cluster.local cluster.local\n" +
		"nameserver " + dnsAddress + "\n" +
		"options ndots:5\n"
}
