package dump

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/wellknown"
)

// A RouteFilter chooses route configurations by their name; "" chooses all.
type RouteFilter struct{ Name string }

// Routes are the route configurations in force: those of ports first, by port, then the
// others as the dump has them, those within listeners last. With brief a configuration
// is one row, else there is a row for each route.
func (d *Dump) Routes(f RouteFilter, brief bool) (*List, error) {
	if d.routes == nil {
		return nil, errLacks("routes")
	}
	var bodies []*anypb.Any
	for _, r := range d.routes.GetDynamicRouteConfigs() {
		bodies = append(bodies, r.GetRouteConfig())
	}
	for _, r := range d.routes.GetStaticRouteConfigs() {
		bodies = append(bodies, r.GetRouteConfig())
	}
	all, err := unpack[*routepb.RouteConfiguration]("routes", bodies)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(r *routepb.RouteConfiguration) bool { return f.Name != "" && f.Name != r.GetName() })
	slices.SortStableFunc(all, func(a, b *routepb.RouteConfiguration) int { return cmp.Compare(portName(a), portName(b)) })
	l := &List{kind: "route", padding: 5, header: []string{"NAME", "VHOST NAME", "DOMAINS", "MATCH", "VIRTUAL SERVICE"}}
	if brief {
		l.header = []string{"NAME", "VIRTUAL HOSTS"}
	}
	for _, r := range all {
		l.messages = append(l.messages, r)
		if brief {
			l.rows = append(l.rows, []string{r.GetName(), strconv.Itoa(len(r.GetVirtualHosts()))})
			continue
		}
		for _, host := range r.GetVirtualHosts() {
			l.addHost(r.GetName(), host)
		}
	}
	return l, nil
}

// portName is the number that a configuration is named after; others come behind all ports.
func portName(r *routepb.RouteConfiguration) int {
	if port, err := strconv.ParseUint(r.GetName(), 10, 16); err == nil {
		return int(port)
	}
	return 1 << 16
}

// addHost adds a row for each route, but for those of what the mesh does not know.
func (l *List) addHost(name string, host *routepb.VirtualHost) {
	domains := domainsOf(host.GetDomains())
	for _, r := range host.GetRoutes() {
		if r.GetRoute().GetCluster() == wellknown.PassthroughCluster {
			continue
		}
		l.rows = append(l.rows, []string{name, host.GetName(), domains, pathMatch(r.GetMatch()), configuredBy(r.GetMetadata())})
	}
	if len(host.GetRoutes()) == 0 {
		l.rows = append(l.rows, []string{name, host.GetName(), domains, "/*", "404"})
	}
}

// mostDomains are shown of each virtual host.
const mostDomains = 2

// domainsOf leaves out what says the same again: with a port or a dot at the end, or longer
// names of services.
func domainsOf(domains []string) string {
	if len(domains) == 1 {
		return domains[0]
	}
	var names []string
	for _, d := range domains {
		if !hasPort(d) {
			names = append(names, d)
		}
	}
	names = slices.DeleteFunc(slices.Clone(names), func(d string) bool {
		return slices.ContainsFunc([]string{".", ".svc.cluster.local.", ".svc.cluster.local", ".svc"}, func(suffix string) bool {
			short, long := strings.CutSuffix(d, suffix)
			return long && slices.Contains(names, short)
		})
	})
	if len(names) > mostDomains {
		return fmt.Sprintf("%s + %d more...", strings.Join(names[:mostDomains], ", "), len(names)-mostDomains)
	}
	return strings.Join(names, ", ")
}

// hasPort tells a port from the colons of an IPv6 address.
func hasPort(domain string) bool {
	colon := strings.LastIndexByte(domain, ':')
	return colon > strings.LastIndexByte(domain, ']') && (strings.Count(domain, ":") == 1 || strings.HasPrefix(domain, "["))
}

// pathMatch is the path that a route is for.
func pathMatch(m *routepb.RouteMatch) string {
	switch p := m.GetPathSpecifier().(type) {
	case *routepb.RouteMatch_Prefix:
		return p.Prefix + "*"
	case *routepb.RouteMatch_PathSeparatedPrefix:
		return "PathPrefix:" + p.PathSeparatedPrefix
	case *routepb.RouteMatch_Path:
		return p.Path
	case *routepb.RouteMatch_SafeRegex:
		return "regex " + p.SafeRegex.GetRegex()
	case *routepb.RouteMatch_ConnectMatcher_:
		return "CONNECT"
	}
	return ""
}
