package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/lateen-mesh/lateen/local/outside"
)

// Options are the settings of a mesh's network.
type Options struct {
	// Outside opens sockets of this machine; owned by the caller. Nil: nothing leaves the mesh.
	Outside *outside.Client
	// API is where the Kubernetes API listens outside; pods have it at 10.96.0.1:443. Zero: nowhere.
	API netip.AddrPort
	// Door is the path of the socket on which proxies in pods ask for sockets of this machine,
	// to be mounted into their containers. "": none.
	Door string
	// IPv6 says that this machine reaches others by IPv6: pods get a route to them.
	IPv6 bool
	// CaptureDNS makes sidecars answer DNS where the annotations of a pod do not say.
	CaptureDNS bool
	// NoUDP keeps datagrams from leaving the mesh, which needs a kernel with TPROXY. Where it is
	// found to have none, they do not leave in any case.
	NoUDP bool
	// Log takes what goes wrong where no caller is. Nil: nowhere.
	Log *slog.Logger
}

// A mesh is the network namespace of this process.
type mesh struct {
	o       Options
	log     *slog.Logger
	plan    plan
	home    *os.File // the mesh's namespace
	links   *netlink.Handle
	pool    *pool
	aliases *aliases
	rules   *rules
	names   *names
	ports   *ports
	door    *outside.Door
	six     bool // the kernel has IPv6

	ctx     context.Context
	cancel  context.CancelFunc
	serving sync.WaitGroup

	mu     sync.Mutex
	closed bool
	serial int
	pods   map[outside.Namespace]*pod
}

// New makes the network namespace of the calling process a mesh: it sets addresses, rules
// and settings there. The process needs CAP_NET_ADMIN over it, as root in a namespace
// of its own or as a user in a user namespace of his. One mesh per namespace.
func New(ctx context.Context, o Options) (Mesh, error) {
	m := &mesh{o: o, log: o.Log, plan: addressPlan(), pods: map[outside.Namespace]*pod{}}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	m.ctx, m.cancel = context.WithCancel(context.WithoutCancel(ctx))
	m.pool, m.aliases = newPool(m.plan), newAliases(m.plan)
	m.ports = newPorts(m)
	if err := m.open(); err != nil {
		_ = m.Close()
		return nil, fmt.Errorf("mesh network: %w", err)
	}
	return m, nil
}

func (m *mesh) open() error {
	var err error
	if m.home, err = openNamespace(); err != nil {
		return err
	}
	if m.links, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return err
	}
	if err := m.configure(); err != nil {
		return err
	}
	if m.rules, err = newRules(m.plan, m.o.API.IsValid(), !m.o.NoUDP); err != nil {
		return err
	}
	if m.names, err = serveNames(m); err != nil {
		return err
	}
	if err := m.relay(); err != nil {
		return err
	}
	if m.o.Door != "" {
		m.door, err = outside.OpenDoor(m.o.Door, inside{m})
	}
	return err
}

// configure makes the namespace one that forwards, and has what the mesh itself answers on.
func (m *mesh) configure() error {
	_, err := os.Stat("/proc/sys/net/ipv6/conf/all/forwarding")
	m.six = err == nil
	if err := set(
		setting{"ipv4/ip_forward", "1"}, setting{"ipv4/conf/all/rp_filter", "0"}, setting{"ipv4/conf/default/rp_filter", "0"},
		setting{"ipv4/ip_unprivileged_port_start", "0"},
		setting{"ipv6/conf/all/disable_ipv6", "0"}, setting{"ipv6/conf/default/disable_ipv6", "0"}, setting{"ipv6/conf/all/forwarding", "1"},
		setting{"ipv6/conf/default/accept_dad", "0"}, setting{"ipv6/conf/default/accept_ra", "0"},
	); err != nil {
		return err
	}
	lo, err := m.links.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := m.links.LinkSetUp(lo); err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	for _, a := range []netip.Addr{m.plan.mesh, m.plan.dns} {
		if err := m.links.AddrReplace(lo, address(a)); err != nil {
			return fmt.Errorf("address %s: %w", a, err)
		}
	}
	return m.routes(lo.Attrs().Index)
}

// routes are the mesh's own, all to lo: rules say where packets go instead.
func (m *mesh) routes(lo int) error {
	everywhere := netip.MustParsePrefix("0.0.0.0/0")
	routes := []*netlink.Route{
		// UDP that leaves the mesh comes to a socket here, see datagrams.
		{LinkIndex: lo, Dst: ipnet(everywhere), Type: unix.RTN_LOCAL, Table: leaveTable, Scope: netlink.SCOPE_HOST},
		// What the mesh itself sends to Services and outside.
		{LinkIndex: lo, Dst: ipnet(everywhere), Src: m.plan.mesh.AsSlice(), Scope: netlink.SCOPE_LINK, Table: ownTable},
		{LinkIndex: lo, Dst: ipnet(host(m.plan.machine)), Src: m.plan.mesh.AsSlice(), Scope: netlink.SCOPE_LINK, Table: ownTable},
		{Dst: ipnet(m.plan.pods), Type: unix.RTN_UNREACHABLE, Table: ownTable},
	}
	marked, own := netlink.NewRule(), netlink.NewRule()
	marked.Mark, marked.Table, marked.Priority, marked.Family = leaveMark, leaveTable, leaveTable, unix.AF_INET
	own.IifName, own.Table, own.Priority, own.Family = "lo", ownTable, afterMain, unix.AF_INET
	rules := []*netlink.Rule{marked, own}
	if m.six {
		routes = append(routes, &netlink.Route{LinkIndex: lo, Dst: ipnet(netip.MustParsePrefix("::/0")), Type: unix.RTN_LOCAL, Table: leaveTable})
		marked6 := *marked
		marked6.Family = unix.AF_INET6
		rules = append(rules, &marked6)
	}
	for _, r := range routes {
		if err := m.links.RouteReplace(r); err != nil {
			return fmt.Errorf("route %s: %w", r.Dst, err)
		}
	}
	for _, r := range rules {
		if err := m.links.RuleAdd(r); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("rule for table %d: %w", r.Table, err)
		}
	}
	return nil
}

func ipnet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// address is a whole address, without a network around it.
func address(a netip.Addr) *netlink.Addr {
	flags := 0
	if a.Is6() {
		flags = unix.IFA_F_NODAD
	}
	return &netlink.Addr{IPNet: ipnet(netip.PrefixFrom(a, a.BitLen())), Flags: flags}
}

// DialContext dials from the mesh, where this process is.
func (m *mesh) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if host, _, err := net.SplitHostPort(address); err == nil {
		if _, err := netip.ParseAddr(host); err != nil {
			return nil, fmt.Errorf("address %s: no IP address", address)
		}
	}
	return (&net.Dialer{}).DialContext(ctx, network, address)
}

// SetServices replaces rules and names.
func (m *mesh) SetServices(all []Service) error {
	m.names.set(all)
	return m.rules.setServices(all)
}

// Close ends what New started, so that another mesh may follow in the namespace.
func (m *mesh) Close() error {
	m.mu.Lock()
	m.closed = true
	pods := slices.Collect(maps.Values(m.pods))
	m.mu.Unlock()
	var all []error
	for _, p := range pods {
		all = append(all, p.Close())
	}
	m.cancel()
	if m.door != nil {
		all = append(all, m.door.Close())
	}
	m.serving.Wait()
	if m.rules != nil {
		all = append(all, m.rules.remove())
	}
	if m.links != nil {
		m.links.Close()
	}
	if m.home != nil {
		all = append(all, m.home.Close())
	}
	return errors.Join(all...)
}

// inside is what a Door asks of the mesh.
type inside struct{ *mesh }

// Knows reports whether the namespace is a pod's.
func (m inside) Knows(ns outside.Namespace) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pods[ns] != nil
}

// Ranges are those of pods and Services.
func (m inside) Ranges() []netip.Prefix { return m.plan.inside() }

// Dial connects to what an address of a pod's view means outside.
func (m inside) Dial(ctx context.Context, network string, to netip.AddrPort) (*os.File, error) {
	return m.leave(ctx, network, to)
}

// Published hands a port's socket out.
func (m inside) Published(ctx context.Context, ns outside.Namespace, port uint16) (*os.File, netip.AddrPort, error) {
	m.mu.Lock()
	p := m.pods[ns]
	m.mu.Unlock()
	if p == nil {
		return nil, netip.AddrPort{}, outside.Unpublished(port)
	}
	return m.ports.handOut(ctx, p, port)
}
