package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/lateen-mesh/lateen/agent/redirect"
	"github.com/lateen-mesh/lateen/local/outside"
)

var errClosed = errors.New("the mesh is closed")

// A pod is a namespace with a link to the mesh.
type pod struct {
	mesh    *mesh
	address netip.Addr
	ns      *os.File
	key     outside.Namespace
	link    netlink.Link // the mesh's end

	publishAsked atomic.Bool
	once         sync.Once
	failure      error
}

// AddPod makes a pod.
func (m *mesh) AddPod(ctx context.Context) (Pod, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	address, err := m.pool.take()
	if err != nil {
		return nil, err
	}
	p := &pod{mesh: m, address: address}
	if err := m.join(p); err != nil {
		_ = p.Close()
		return nil, fmt.Errorf("pod %s: %w", address, err)
	}
	return p, nil
}

// join makes the namespace, its link and what the mesh knows of it.
func (m *mesh) join(p *pod) error {
	var links *netlink.Handle // of the pod
	ns, err := newNamespace(func() (err error) {
		if err := podSettings(); err != nil {
			return err
		}
		links, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return err
	}
	p.ns = ns
	defer links.Close()
	if p.key, err = outside.NamespaceOf(ns); err != nil {
		return err
	}
	if err := m.connect(p); err != nil {
		return err
	}
	if err := m.equip(p, links); err != nil {
		return err
	}
	if err := m.activate(p.link); err != nil {
		return err
	}
	if err := m.rules.addPod(p.address); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return errClosed
	}
	m.pods[p.key] = p
	return nil
}

// podSettings are those of a namespace that no link is in yet.
func podSettings() error {
	if err := set(
		setting{"ipv4/ip_unprivileged_port_start", "0"},
		setting{"ipv4/conf/all/rp_filter", "0"}, setting{"ipv4/conf/default/rp_filter", "0"},
		setting{"ipv6/conf/all/disable_ipv6", "0"}, setting{"ipv6/conf/default/disable_ipv6", "0"},
		setting{"ipv6/conf/default/accept_dad", "0"}, setting{"ipv6/conf/default/accept_ra", "0"},
	); err != nil {
		return err
	}
	if set(setting{"ipv4/ping_group_range", "0 2147483647"}) == nil {
		return nil
	}
	return set(setting{"ipv4/ping_group_range", "0 0"}) // one group is mapped
}

// connect makes the link and the mesh's side of it.
func (m *mesh) connect(p *pod) error {
	m.mu.Lock()
	m.serial++
	name := "pod" + strconv.Itoa(m.serial)
	m.mu.Unlock()
	veth := netlink.NewVeth(netlink.LinkAttrs{Name: name})
	veth.PeerName, veth.PeerNamespace = "eth0", netlink.NsFd(int(p.ns.Fd()))
	if err := m.links.LinkAdd(veth); err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	p.link = veth
	link, err := m.links.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	p.link = link
	if err := m.links.LinkSetUp(link); err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	all := []netip.Addr{m.plan.mesh}
	far := []netip.Addr{p.address}
	if m.six {
		all, far = append(all, m.plan.mesh6), append(far, m.plan.six(p.address))
	}
	for i := range all {
		if err := m.links.AddrAdd(link, address(all[i])); err != nil {
			return fmt.Errorf("link %s: address %s: %w", name, all[i], err)
		}
		if err := m.links.RouteReplace(direct(link, far[i])); err != nil {
			return fmt.Errorf("link %s: route %s: %w", name, far[i], err)
		}
	}
	return nil
}

// activate lets the mesh's end send from now on. It was set up while the other end was
// not, and the kernel would begin when its link watch comes to it; what is sent before
// that is lost, and TCP asks again after a second. Another length of the queue, which
// such a link does not use, makes it begin at once.
func (m *mesh) activate(link netlink.Link) error {
	if err := m.links.LinkSetTxQLen(link, link.Attrs().TxQLen+1); err != nil {
		return fmt.Errorf("link %s: %w", link.Attrs().Name, err)
	}
	return nil
}

// direct is the route to an address at the other end of a link.
func direct(link netlink.Link, to netip.Addr) *netlink.Route {
	r := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipnet(netip.PrefixFrom(to, to.BitLen()))}
	if to.Is4() {
		r.Scope = netlink.SCOPE_LINK
	}
	return r
}

// equip makes the pod's side.
func (m *mesh) equip(p *pod, links *netlink.Handle) error {
	lo, err := links.LinkByName("lo")
	if err != nil {
		return err
	}
	eth0, err := links.LinkByName("eth0")
	if err != nil {
		return err
	}
	if err := errors.Join(links.LinkSetUp(lo), links.LinkSetUp(eth0)); err != nil {
		return err
	}
	if err := m.route(links, eth0, p.address, m.plan.mesh, netip.MustParsePrefix("0.0.0.0/0")); err != nil || !m.six {
		return err
	}
	// Without a way out by IPv6, a route to everywhere would only let programs try it first.
	to := m.plan.pods6
	if m.o.IPv6 {
		to = netip.MustParsePrefix("::/0")
	}
	return m.route(links, eth0, m.plan.six(p.address), m.plan.mesh6, to)
}

// route gives a pod its address and the way to a range.
func (m *mesh) route(links *netlink.Handle, eth0 netlink.Link, own, gateway netip.Addr, to netip.Prefix) error {
	if err := links.AddrAdd(eth0, address(own)); err != nil {
		return fmt.Errorf("address %s: %w", own, err)
	}
	if err := links.RouteReplace(direct(eth0, gateway)); err != nil {
		return fmt.Errorf("route %s: %w", gateway, err)
	}
	via := &netlink.Route{LinkIndex: eth0.Attrs().Index, Dst: ipnet(to), Gw: gateway.AsSlice(), Flags: int(netlink.FLAG_ONLINK)}
	if to.Addr().Is4() {
		via.Family = nl.FAMILY_V4
	}
	if err := links.RouteReplace(via); err != nil {
		return fmt.Errorf("route %s: %w", to, err)
	}
	return nil
}

// Address is the pod's.
func (p *pod) Address() netip.Addr { return p.address }

// Address6 is the pod's by IPv6.
func (p *pod) Address6() netip.Addr {
	if !p.mesh.six {
		return netip.Addr{}
	}
	return p.mesh.plan.six(p.address)
}

// NetNS is the pod's namespace.
func (p *pod) NetNS() *os.File { return p.ns }

// DialContext connects from within the pod.
func (p *pod) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := dialWithin(ctx, p.mesh.home, p.ns, network, address)
	if err != nil {
		return nil, fmt.Errorf("pod %s: %w", p.address, err)
	}
	return c, nil
}

// Redirect sets the pod's rules.
func (p *pod) Redirect(annotations map[string]string) error {
	rules := redirect.Sidecar()
	rules.Mark, rules.IPv6, rules.DNS.All = redirect.ProxyID, p.mesh.six, p.mesh.o.CaptureDNS
	rules, err := rules.Annotated(annotations)
	if err != nil {
		return err
	}
	if err := redirect.Install(p.ns, rules); err != nil {
		return fmt.Errorf("pod %s: redirection: %w", p.address, err)
	}
	return nil
}

// PublishAsked is kept with the pod.
func (p *pod) PublishAsked() { p.publishAsked.Store(true) }

// Close removes the pod's link; the namespace goes with its last process.
func (p *pod) Close() error {
	p.once.Do(func() {
		m := p.mesh
		m.mu.Lock()
		delete(m.pods, p.key)
		m.mu.Unlock()
		m.ports.closeOf(p)
		var all []error
		if p.link != nil {
			if err := m.links.LinkDel(p.link); err != nil && !errors.Is(err, unix.ENODEV) {
				all = append(all, err)
			}
			all = append(all, m.rules.removePod(p.address))
		}
		if p.ns != nil {
			all = append(all, p.ns.Close())
		}
		m.pool.free(p.address)
		if err := errors.Join(all...); err != nil {
			p.failure = fmt.Errorf("pod %s: %w", p.address, err)
		}
	})
	return p.failure
}
