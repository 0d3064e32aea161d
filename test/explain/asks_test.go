package explain

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"regexp/syntax"
	"slices"
	"strings"

	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherpb "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/lateen-mesh/lateen/proxy"
	"github.com/lateen-mesh/lateen/proxy/http"
)

// An ask is one request to both, the live proxy and the model.
type ask struct {
	proxy.Question
	listener string // whose socket it comes to
}

// way names the connections that such requests share.
func (x *ask) way() string {
	return fmt.Sprint(x.listener, x.To, x.TLS, x.ServerName, x.Protocols)
}

func (x *ask) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s to %s, TLS %v %q %v: %s %s", x.listener, x.To, x.TLS, x.ServerName, x.Protocols, x.Method, x.Target)
	for _, f := range x.Fields {
		fmt.Fprintf(&b, " | %s: %s", f.Name, f.Value)
	}
	return b.String()
}

// asks makes requests out of what the configuration of a proxy asks for.
type asks struct {
	*rand.Rand
	live    *live
	bound   []*listenerpb.Listener // with sockets
	rest    []*listenerpb.Listener
	hosts   []string
	matches []*routepb.RouteMatch
	ways    map[string]bool // bounds the connections
}

func newAsks(seed uint64, l *live, r *proxy.Resources) *asks {
	a := &asks{Rand: rand.New(rand.NewPCG(seed, 7)), live: l, ways: map[string]bool{}}
	tables := slices.Clone(r.Routes)
	for _, x := range r.Listeners {
		if _, ok := l.sockets[x.GetName()]; ok {
			a.bound = append(a.bound, x)
		} else {
			a.rest = append(a.rest, x)
		}
		for _, c := range x.GetFilterChains() {
			for _, f := range c.GetFilters() {
				if m := (&hcmpb.HttpConnectionManager{}); f.GetTypedConfig().MessageIs(m) && f.GetTypedConfig().UnmarshalTo(m) == nil && m.GetRouteConfig() != nil {
					tables = append(tables, m.GetRouteConfig())
				}
			}
		}
	}
	for _, rc := range tables {
		for _, vh := range rc.GetVirtualHosts() {
			for _, d := range vh.GetDomains() {
				if !strings.HasPrefix(d, "[") { // IPv6 literals are as good as any
					a.hosts = append(a.hosts, d)
				}
			}
			for _, x := range vh.GetRoutes() {
				a.matches = append(a.matches, x.GetMatch())
			}
		}
	}
	return a
}

func one[T any](a *asks, list []T) (none T) {
	if len(list) == 0 {
		return none
	}
	return list[a.IntN(len(list))]
}

// maxWays bounds the connections to one proxy.
const maxWays = 200

// next is another request.
func (a *asks) next() *ask {
	l := one(a, a.bound)
	x := &ask{listener: l.GetName()}
	x.Socket, x.From = a.live.sockets[x.listener], netip.MustParseAddrPort("10.88.0.9:40000")
	x.To = x.Socket
	to := l
	if a.live.told[x.listener] {
		to = a.destination(x, l)
	} else {
		x.From = netip.MustParseAddrPort("127.0.0.1:40000")
	}
	a.request(x)
	a.secure(x, to)
	if !x.TLS {
		x.HTTP = "http/1.1"
	}
	if !a.ways[x.way()] {
		if len(a.ways) >= maxWays {
			return a.next()
		}
		a.ways[x.way()] = true
	}
	return x
}

// destination chooses where the client wanted to go, and finds whose filter chains decide.
func (a *asks) destination(x *ask, l *listenerpb.Listener) *listenerpb.Listener {
	address, port := "10.88.1.1", uint32(0)
	to := l
	if ports := chainPorts(l); len(ports) > 0 && a.IntN(4) > 0 {
		port = one(a, ports)
	}
	if other := one(a, a.rest); other != nil && l.GetUseOriginalDst().GetValue() && a.IntN(8) > 0 {
		s := other.GetAddress().GetSocketAddress()
		port, to = s.GetPortValue(), other
		if ip, err := netip.ParseAddr(s.GetAddress()); err == nil && ip.Is4() && !ip.IsUnspecified() && a.IntN(8) > 0 {
			address = s.GetAddress()
		}
	}
	if port == 0 {
		port = one(a, []uint32{80, 443, 8080, 9080, 7777, l.GetAddress().GetSocketAddress().GetPortValue(), 15001, 15006})
	}
	x.To = netip.AddrPortFrom(netip.MustParseAddr(address), uint16(port))
	return to
}

func chainPorts(l *listenerpb.Listener) (list []uint32) {
	for _, c := range l.GetFilterChains() {
		if p := c.GetFilterChainMatch().GetDestinationPort().GetValue(); p != 0 && p != 15001 && p != 15006 {
			list = append(list, p) // but for the ports of the proxy itself
		}
	}
	return list
}

// secure begins with TLS where a chain asks for it, mostly.
func (a *asks) secure(x *ask, l *listenerpb.Listener) {
	var names, protocols []string
	secure := 0
	for _, c := range l.GetFilterChains() {
		m := c.GetFilterChainMatch()
		if c.GetTransportSocket() == nil && m.GetTransportProtocol() != "tls" && len(m.GetServerNames()) == 0 {
			continue
		}
		secure++
		for _, n := range m.GetServerNames() {
			names = append(names, a.fill(n))
		}
		protocols = append(protocols, m.GetApplicationProtocols()...)
	}
	if a.IntN(len(l.GetFilterChains())+1) >= secure {
		return
	}
	x.TLS, x.ServerName, x.Protocols = true, strings.ToLower(one(a, append(names, "other.test"))), []string{"http/1.1"}
	if p := one(a, append(protocols, "")); p != "" && p != "h2" && p != "http/1.1" {
		x.Protocols = []string{p, "http/1.1"}
	}
}

// fill makes a name of one with a wildcard.
func (a *asks) fill(name string) string {
	if name == "*" {
		return "any.test"
	}
	return strings.ReplaceAll(name, "*", one(a, []string{"x", "a.b", "WWW"}))
}

// request fills in the request.
func (a *asks) request(x *ask) {
	host := a.fill(one(a, append(slices.Clip(a.hosts), "unknown.test")))
	switch a.IntN(12) {
	case 0:
		host = strings.ToUpper(host)
	case 1:
		host += ":8123"
	case 2:
		host, _, _ = strings.Cut(host, ":")
	case 3:
		host = "not-" + host
	}
	x.Method, x.Target = one(a, []string{"GET", "GET", "GET", "HEAD", "POST", "DELETE", "OPTIONS"}), "/"
	fields := []http.Field{field("host", host)}
	query := ""
	for range 1 + a.IntN(2) { // of two rules at once now and then
		m := one(a, a.matches)
		if m == nil {
			break
		}
		x.Target = a.path(m)
		for _, h := range m.GetHeaders() {
			if a.IntN(5) == 0 {
				continue
			}
			value := a.value(h.GetStringMatch(), h.GetPresentMatch())
			switch name := h.GetName(); {
			case name == ":method" && value != "":
				x.Method = value
			case name == ":authority" && value != "":
				fields[0] = field("host", value)
			case !strings.HasPrefix(name, ":"):
				fields = append(fields, field(name, value))
			}
		}
		for _, q := range m.GetQueryParameters() {
			if a.IntN(5) > 0 {
				query += "&" + q.GetName() + "=" + a.value(q.GetStringMatch(), q.GetPresentMatch())
			}
		}
	}
	x.Target = a.bend(x.Target)
	if query != "" {
		x.Target += "?" + query[1:]
	}
	if x.Method == "POST" {
		fields = append(fields, field("content-length", "0"))
	}
	if a.IntN(10) == 0 {
		fields = append(fields, field("origin", "https://a.test"), field("access-control-request-method", "GET"))
	}
	if !slices.Contains([]string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"}, x.Method) {
		x.Method = "GET"
	}
	x.Fields = fields
}

func field(name, value string) http.Field {
	return http.Field{Name: []byte(name), Value: []byte(value)}
}

// path is one that a match asks for.
func (a *asks) path(m *routepb.RouteMatch) string {
	path := "/"
	switch p := m.GetPathSpecifier().(type) {
	case *routepb.RouteMatch_Prefix:
		path = p.Prefix + one(a, []string{"", "", "x", "/y/z"})
	case *routepb.RouteMatch_Path:
		path = p.Path
	case *routepb.RouteMatch_PathSeparatedPrefix:
		path = p.PathSeparatedPrefix + one(a, []string{"", "/", "/y", "y"})
	case *routepb.RouteMatch_SafeRegex:
		path = a.sample(p.SafeRegex.GetRegex())
	}
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	return path
}

// bend makes another path of one, now and then.
func (a *asks) bend(path string) string {
	switch a.IntN(12) {
	case 0:
		return path + "/more"
	case 1:
		return "/." + path
	case 2:
		return "/up/.." + path
	case 3:
		return strings.ToUpper(path)
	case 4:
		if len(path) < 2 {
			return path
		}
		return strings.TrimSuffix(path, path[len(path)-1:]) + "~"
	case 5:
		return strings.ReplaceAll(path, "a", "%61")
	case 6:
		return path + "?a=b"
	}
	return path
}

// value is one that a matcher asks for.
func (a *asks) value(m *matcherpb.StringMatcher, present bool) string {
	switch p := m.GetMatchPattern().(type) {
	case *matcherpb.StringMatcher_Exact:
		return p.Exact
	case *matcherpb.StringMatcher_Prefix:
		return p.Prefix + one(a, []string{"", "x"})
	case *matcherpb.StringMatcher_Suffix:
		return one(a, []string{"", "x"}) + p.Suffix
	case *matcherpb.StringMatcher_Contains:
		return "x" + p.Contains
	case *matcherpb.StringMatcher_SafeRegex:
		return a.sample(p.SafeRegex.GetRegex())
	}
	if present {
		return "yes"
	}
	return "x"
}

// sample is a text that a regular expression matches, of letters that go anywhere.
func (a *asks) sample(expression string) string {
	re, err := syntax.Parse(expression, syntax.Perl)
	if err != nil {
		return "x"
	}
	var b strings.Builder
	a.write(&b, re.Simplify())
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r >= 0x7f || strings.ContainsRune(`%#?"<>\^`+"`{|}", r) {
			return 'x'
		}
		return r
	}, b.String())
}

func (a *asks) write(b *strings.Builder, re *syntax.Regexp) {
	switch re.Op {
	case syntax.OpLiteral:
		b.WriteString(string(re.Rune))
	case syntax.OpCharClass:
		i := 2 * a.IntN(max(len(re.Rune)/2, 1))
		if i+1 < len(re.Rune) {
			b.WriteRune(re.Rune[i] + rune(a.IntN(int(min(re.Rune[i+1]-re.Rune[i], 25))+1)))
		}
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		b.WriteByte('x')
	case syntax.OpCapture, syntax.OpPlus:
		a.write(b, re.Sub[0])
	case syntax.OpStar, syntax.OpQuest:
		if a.IntN(2) == 0 {
			a.write(b, re.Sub[0])
		}
	case syntax.OpRepeat:
		for range max(re.Min, 1) {
			a.write(b, re.Sub[0])
		}
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			a.write(b, sub)
		}
	case syntax.OpAlternate:
		a.write(b, one(a, re.Sub))
	default: // the empty ones
	}
}
