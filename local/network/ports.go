package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/lateen-mesh/lateen/local/outside"
)

// Ports from ownPorts up to ownPortsEnd are a proxy's own: health, metrics and the like.
const (
	ownPorts    = 15000
	ownPortsEnd = 15100
)

// ports are those that pods publish on this machine.
type ports struct {
	mesh *mesh
	mu   sync.Mutex
	of   map[*pod]map[uint16]*published
}

// A published port has a listening socket outside. The mesh accepts from it until a proxy
// of the pod takes it. From then on it is the proxy's alone: where the proxy ends it,
// the port refuses connections, and a proxy that asks again gets a new socket.
type published struct {
	wanted uint16   // on this machine
	file   *os.File // nil: taken
	at     netip.AddrPort
	accept net.Listener // nil: taken
}

func newPorts(m *mesh) *ports { return &ports{mesh: m, of: map[*pod]map[uint16]*published{}} }

// Publish opens a port of this machine.
func (m *mesh) Publish(ctx context.Context, hostPort uint16, to Pod, containerPort uint16) (netip.AddrPort, error) {
	p, ok := to.(*pod)
	if !ok || p.mesh != m {
		return netip.AddrPort{}, fmt.Errorf("port %d: the pod is not of this mesh", hostPort)
	}
	if m.o.Outside == nil {
		return netip.AddrPort{}, fmt.Errorf("port %d: %w", hostPort, errNoOutside)
	}
	m.ports.mu.Lock()
	_, twice := m.ports.of[p][containerPort]
	m.ports.mu.Unlock()
	if twice {
		return netip.AddrPort{}, fmt.Errorf("pod %s: port %d is published already", p.address, containerPort)
	}
	file, at, err := m.o.Outside.Listen(ctx, hostPort)
	if err != nil {
		return netip.AddrPort{}, err
	}
	l, err := net.FileListener(file)
	if err != nil {
		_ = file.Close()
		return netip.AddrPort{}, fmt.Errorf("port %d: %w", hostPort, err)
	}
	if err := m.ports.add(p, containerPort, &published{wanted: hostPort, file: file, at: at, accept: l}); err != nil {
		_ = l.Close()
		_ = file.Close()
		return netip.AddrPort{}, fmt.Errorf("port %d: %w", hostPort, err)
	}
	to4 := netip.AddrPortFrom(p.address, containerPort).String()
	m.serving.Go(func() {
		m.relayAll(l, func(ctx context.Context, _ *net.TCPConn) (*net.TCPConn, error) {
			c, err := (&net.Dialer{Timeout: leaveTime}).DialContext(ctx, "tcp", to4)
			if err != nil {
				return nil, err
			}
			return c.(*net.TCPConn), nil
		})
	})
	return at, nil
}

// add remembers a port of a pod that is still there.
func (p *ports) add(of *pod, port uint16, what *published) error {
	p.mesh.mu.Lock()
	defer p.mesh.mu.Unlock()
	if p.mesh.pods[of.key] != of {
		return fmt.Errorf("pod %s is gone", of.address)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.of[of] == nil {
		p.of[of] = map[uint16]*published{}
	}
	if p.of[of][port] != nil {
		return fmt.Errorf("pod %s: port %s is published already", of.address, strconv.Itoa(int(port)))
	}
	p.of[of][port] = what
	return nil
}

// handOut gives a proxy the listening socket; from then on it alone accepts.
func (p *ports) handOut(ctx context.Context, of *pod, port uint16) (*os.File, netip.AddrPort, error) {
	p.mu.Lock()
	what := p.of[of][port]
	if what == nil && of.publishAsked.Load() && (port < ownPorts || port >= ownPortsEnd) {
		p.mu.Unlock()
		if _, err := p.mesh.Publish(ctx, port, of, port); err != nil {
			return nil, netip.AddrPort{}, err
		}
		p.mu.Lock()
		what = p.of[of][port]
	}
	if what == nil {
		p.mu.Unlock()
		return nil, netip.AddrPort{}, outside.Unpublished(port)
	}
	file, at := what.file, what.at
	if file != nil {
		_ = what.accept.Close()
		what.file, what.accept = nil, nil
	}
	p.mu.Unlock()
	if file != nil {
		return file, at, nil
	}
	file, now, err := p.mesh.o.Outside.Listen(ctx, what.wanted)
	if err == nil && now != at { // the first socket is still open, and this one is where nobody looks for it
		_ = file.Close()
		return nil, netip.AddrPort{}, fmt.Errorf("%s: %w", at, unix.EADDRINUSE)
	}
	return file, now, err
}

// closeOf ends what a pod publishes.
func (p *ports) closeOf(of *pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, what := range p.of[of] {
		if what.file != nil {
			_ = what.accept.Close()
			_ = what.file.Close()
		}
	}
	delete(p.of, of)
}
