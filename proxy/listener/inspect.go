package listener

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"

	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	httpinspectorpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	originaldstpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	tlsinspectorpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// accepted is a socket on its way through the listener filters, with what they find.
type accepted struct {
	raw      net.Conn
	peek     *peeker
	local    netip.AddrPort // where the client wanted to go
	remote   netip.AddrPort // the client, after PROXY protocol
	told     netip.AddrPort // the client by the PROXY protocol, invalid where it names none
	direct   netip.AddrPort // the peer of the socket
	restored bool           // local is not the socket's own address

	transport  string   // "tls", "raw_buffer", "" not detected
	serverName string   // SNI
	protocols  []string // ALPN, or what the HTTP inspector found

	metadata map[string]map[string]any // what filters found, nil: nothing
	state    map[string]any            // filter state
}

// A listenerFilter looks at an accepted socket. An error closes it.
type listenerFilter interface{ inspect(*accepted) error }

// A detector is a listener filter that finds out a protocol by the client's first bytes;
// where there are none it has nothing to say.
type detector interface{ detects() }

func (*tlsInspector) detects()  {}
func (*httpInspector) detects() {}

// listenerFilters is the ordered table of what exists.
var listenerFilters = []struct {
	name, typeURL string
	build         func(cfg *anypb.Any, store *stats.Store) (listenerFilter, error)
}{
	{"envoy.filters.listener.original_dst", "envoy.extensions.filters.listener.original_dst.v3.OriginalDst", buildOriginalDst},
	{"envoy.filters.listener.proxy_protocol", "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol", buildProxyProtocol},
	{"envoy.filters.listener.tls_inspector", "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector", buildTLSInspector},
	{"envoy.filters.listener.http_inspector", "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector", buildHTTPInspector},
}

// boundFilter is a listener filter with its filter_disabled predicate.
type boundFilter struct {
	listenerFilter
	disabled func(*accepted) bool // nil: never
}

func compileListenerFilter(f *listenerpb.ListenerFilter, store *stats.Store) (boundFilter, error) {
	var b boundFilter
	if f.GetConfigDiscovery() != nil {
		return b, fmt.Errorf("config_discovery: not supported")
	}
	disabled, err := compilePredicate(f.GetFilterDisabled())
	if err != nil {
		return b, fmt.Errorf("filter_disabled: %w", err)
	}
	url := xds.TypeName(f.GetTypedConfig().GetTypeUrl())
	for _, x := range listenerFilters {
		if x.typeURL == url || url == "" && x.name == f.GetName() {
			inner, err := x.build(f.GetTypedConfig(), store)
			return boundFilter{inner, disabled}, err
		}
	}
	return b, fmt.Errorf("Didn't find a registered implementation for '%s' with type URL: '%s'", f.GetName(), url) //nolint:staticcheck // Envoy's words
}

// compilePredicate compiles a ListenerFilterChainMatchPredicate.
func compilePredicate(p *listenerpb.ListenerFilterChainMatchPredicate) (func(*accepted) bool, error) {
	switch r := p.GetRule().(type) {
	case nil:
		return nil, nil
	case *listenerpb.ListenerFilterChainMatchPredicate_AnyMatch:
		return func(*accepted) bool { return true }, nil
	case *listenerpb.ListenerFilterChainMatchPredicate_DestinationPortRange:
		start, end := r.DestinationPortRange.GetStart(), r.DestinationPortRange.GetEnd()
		return func(a *accepted) bool { port := int32(a.local.Port()); return port >= start && port < end }, nil
	case *listenerpb.ListenerFilterChainMatchPredicate_NotMatch:
		inner, err := compilePredicate(r.NotMatch)
		if err != nil || inner == nil {
			return nil, err
		}
		return func(a *accepted) bool { return !inner(a) }, nil
	case *listenerpb.ListenerFilterChainMatchPredicate_OrMatch:
		return compilePredicates(r.OrMatch.GetRules(), true)
	case *listenerpb.ListenerFilterChainMatchPredicate_AndMatch:
		return compilePredicates(r.AndMatch.GetRules(), false)
	default:
		return nil, fmt.Errorf("%T: not supported", r)
	}
}

func compilePredicates(rules []*listenerpb.ListenerFilterChainMatchPredicate, or bool) (func(*accepted) bool, error) {
	list := make([]func(*accepted) bool, 0, len(rules))
	for _, r := range rules {
		f, err := compilePredicate(r)
		if err != nil {
			return nil, err
		}
		if f != nil {
			list = append(list, f)
		}
	}
	return func(a *accepted) bool {
		for _, f := range list {
			if f(a) == or {
				return or
			}
		}
		return !or
	}, nil
}

// tlsInspector finds server name and protocols of TLS clients.
type tlsInspector struct {
	most   int  // bytes of a hello
	strict bool // what is no hello closes the connection

	found, notFound, sni, noSNI, alpn, noALPN, tooLarge *stats.Counter
}

func buildTLSInspector(cfg *anypb.Any, store *stats.Store) (listenerFilter, error) {
	var c tlsinspectorpb.TlsInspector
	if err := cfg.UnmarshalTo(&c); cfg != nil && err != nil {
		return nil, err
	}
	if err := xds.Only(&c, "initial_read_buffer_size", "max_client_hello_size", "close_connection_on_client_hello_parsing_errors"); err != nil {
		return nil, err
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	s := store.Scope("tls_inspector.")
	most := maxHello
	if n := c.GetMaxClientHelloSize(); n != nil {
		most = int(n.GetValue())
	}
	return &tlsInspector{
		most: most, strict: c.GetCloseConnectionOnClientHelloParsingErrors(),
		found: s.Counter("tls_found"), notFound: s.Counter("tls_not_found"), sni: s.Counter("sni_found"), noSNI: s.Counter("sni_not_found"),
		alpn: s.Counter("alpn_found"), noALPN: s.Counter("alpn_not_found"), tooLarge: s.Counter("client_hello_too_large"),
	}, nil
}

func (t *tlsInspector) inspect(a *accepted) error {
	var h hello
	var s sight
	err := a.peek.until(func(b []byte) bool {
		h, s = parseHello(b)
		return s != more || len(b) > t.most
	})
	if err == nil && s == more {
		err = errTooLong
	}
	if errors.Is(err, errTooLong) {
		t.tooLarge.Inc()
		return err
	}
	if err != nil {
		return err
	}
	if s != present {
		t.notFound.Inc()
		if t.strict {
			return errNoHello
		}
		return nil
	}
	t.found.Inc()
	a.transport, a.serverName, a.protocols = "tls", h.serverName, h.protocols
	either(h.serverName != "", t.sni, t.noSNI).Inc()
	either(len(h.protocols) > 0, t.alpn, t.noALPN).Inc()
	return nil
}

// errNoHello closes a connection that does not begin with a client hello.
var errNoHello = errors.New("not a TLS client hello")

func either(yes bool, a, b *stats.Counter) *stats.Counter {
	if yes {
		return a
	}
	return b
}

// httpInspector tells HTTP from other plain protocols.
type httpInspector struct{ found10, found11, found2, notFound *stats.Counter }

func buildHTTPInspector(cfg *anypb.Any, store *stats.Store) (listenerFilter, error) {
	var c httpinspectorpb.HttpInspector
	if err := cfg.UnmarshalTo(&c); cfg != nil && err != nil {
		return nil, err
	}
	s := store.Scope("http_inspector.")
	return &httpInspector{s.Counter("http10_found"), s.Counter("http11_found"), s.Counter("http2_found"), s.Counter("http_not_found")}, nil
}

func (h *httpInspector) inspect(a *accepted) error {
	if a.transport != "" && a.transport != "raw_buffer" {
		return nil
	}
	protocol := ""
	err := a.peek.until(func(b []byte) bool {
		var s sight
		protocol, s = parseRequestLine(b)
		return s != more
	})
	if err != nil && !errors.Is(err, errTooLong) {
		return err
	}
	switch protocol {
	case "":
		h.notFound.Inc()
		return nil
	case "http/1.0":
		h.found10.Inc()
	case "http/1.1":
		h.found11.Inc()
	default:
		h.found2.Inc()
	}
	a.protocols = []string{protocol}
	return nil
}

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// parseRequestLine tells the application protocol by the first line of a stream:
// "http/1.0", "http/1.1", "h2c".
func parseRequestLine(b []byte) (string, sight) {
	if n := min(len(b), len(preface)); string(b[:n]) == preface[:n] {
		if n == len(preface) {
			return "h2c", present
		}
		return "", more
	}
	line, _, whole := bytes.Cut(b, []byte("\n"))
	method, rest, _ := bytes.Cut(line, []byte(" "))
	for _, c := range method {
		if !tokenByte(c) {
			return "", absent
		}
	}
	if len(method) == 0 && len(line) > 0 || len(method) > 64 {
		return "", absent
	}
	for _, c := range rest {
		if c < ' ' && c != '\r' || c == 0x7f {
			return "", absent
		}
	}
	if !whole {
		return "", more
	}
	_, version, ok := bytes.Cut(bytes.TrimSuffix(rest, []byte("\r")), []byte(" "))
	switch {
	case ok && string(version) == "HTTP/1.1":
		return "http/1.1", present
	case ok && string(version) == "HTTP/1.0":
		return "http/1.0", present
	}
	return "", absent
}

func tokenByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || bytes.IndexByte([]byte("!#$%&'*+-.^_`|~"), c) >= 0
}

// originalDst restores the address that a client connected to before the kernel
// redirected it.
type originalDst struct{}

func buildOriginalDst(cfg *anypb.Any, _ *stats.Store) (listenerFilter, error) {
	var c originaldstpb.OriginalDst
	if err := cfg.UnmarshalTo(&c); cfg != nil && err != nil {
		return nil, err
	}
	return originalDst{}, nil
}

// soOriginalDst is SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST of the kernel's netfilter
// headers.
const soOriginalDst = 80

func (originalDst) inspect(a *accepted) error {
	var to netip.AddrPort
	transparent := false
	err := a.peek.raw.Control(func(fd uintptr) {
		to = redirectedFrom(int(fd), a.local.Addr().Is4())
		transparent = isTransparent(int(fd))
	})
	switch {
	case err != nil:
		return err
	case to.IsValid() && to != a.local:
		a.local, a.restored = to, true
	case transparent: // as TPROXY brings it: the socket's own address is the destination
		a.restored = true
	}
	return nil
}

// isTransparent reports that a socket may have an address of another machine.
func isTransparent(fd int) bool {
	for _, o := range [...]struct{ level, name int }{{unix.SOL_IP, unix.IP_TRANSPARENT}, {unix.SOL_IPV6, unix.IPV6_TRANSPARENT}} {
		if on, err := unix.GetsockoptInt(fd, o.level, o.name); err == nil && on != 0 {
			return true
		}
	}
	return false
}

// redirectedFrom is the destination before redirection; invalid when the connection
// was not redirected (the option then fails) or the kernel has no connection tracking.
func redirectedFrom(fd int, v4 bool) netip.AddrPort {
	if v4 {
		// The option yields a sockaddr_in; IPv6Mreq is 20 bytes that getsockopt may fill.
		m, err := unix.GetsockoptIPv6Mreq(fd, unix.IPPROTO_IP, soOriginalDst)
		if err != nil {
			return netip.AddrPort{}
		}
		b := m.Multiaddr
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), uint16(b[2])<<8|uint16(b[3]))
	}
	m, err := unix.GetsockoptIPv6MTUInfo(fd, unix.IPPROTO_IPV6, soOriginalDst)
	if err != nil {
		return netip.AddrPort{}
	}
	port := m.Addr.Port // in network order, read as a host number
	return netip.AddrPortFrom(netip.AddrFrom16(m.Addr.Addr), port<<8|port>>8)
}
