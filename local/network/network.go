// Package network is the mesh's network on one machine.
package network

import (
	"context"
	"net"
	"net/netip"
	"os"
)

// A Mesh is the network namespace that joins the pods. Safe for concurrent use.
type Mesh interface {
	// AddPod makes a pod's network namespace with its link. The address is free again after Close.
	AddPod(ctx context.Context) (Pod, error)
	// SetServices replaces what Service addresses mean, and what names resolve to.
	SetServices([]Service) error
	// DialContext connects from within the mesh (probes, port-forward).
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
	Close() error
}

// A Pod is one pod's network namespace.
type Pod interface {
	Address() netip.Addr
	NetNS() *os.File // for container.Runtime; owned by the Pod
	// DialContext connects from within the pod (probes of localhost, port-forward).
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
	// Redirect sets the rules that send traffic to a sidecar.
	Redirect(annotations map[string]string) error
	Close() error
}

// A Service is an address with what stands behind it.
type Service struct {
	Namespace, Name string
	Addresses       []netip.Addr // cluster addresses; none: headless
	ExternalName    string
	Ports           []Port
	Hosts           map[string][]netip.Addr // names below the Service's own: HOSTNAME.service…
}

// A Port of a Service and its backends.
type Port struct {
	Name     string // for SRV
	Protocol string // TCP, UDP
	Port     uint16
	Backends []netip.AddrPort
}
