package control

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/lateen-mesh/lateen/control/ads"
	"github.com/lateen-mesh/lateen/control/compile"
	"github.com/lateen-mesh/lateen/control/envoy"
	"github.com/lateen-mesh/lateen/wellknown"
)

// Virtual hosts of a route table are resources of their own for proxies that take them so
// (mesh.Proxy.HostsApart): what a VirtualService says changes a few of the thousands that a
// table may have. A resource is named "<table>/<virtual host>".

// A madeTable is a route table: the configuration and the virtual hosts that go apart from it.
type madeTable struct {
	table ads.Resource
	hosts []ads.Resource
	apart bool
}

// madeTables are tables of which one half, configuration or virtual hosts, was asked for and
// the other was not yet: both are made at once.
type madeTables struct {
	mu   sync.Mutex
	left map[string]*madeTable // by type URL of the half and name
}

// routeTables are the configurations.
func routeTables(v *view, names []string) ([]ads.Resource, error) {
	var list []ads.Resource
	err := v.eachTable(wellknown.RouteType, names, func(t *madeTable) { list = append(list, t.table) })
	return list, err
}

// virtualHosts are those of tables, or single ones, that go apart.
func virtualHosts(v *view, names []string) ([]ads.Resource, error) {
	if !v.proxy.HostsApart {
		return nil, nil
	}
	var list []ads.Resource
	err := v.eachTable(wellknown.VirtualHostType, tablesAbove(names), func(t *madeTable) { list = append(list, t.hosts...) })
	return below(list, names), err
}

// eachTable visits the tables of the names that exist, of which the half of a type is wanted.
func (v *view) eachTable(half string, names []string, visit func(*madeTable)) error {
	other := map[string]string{wellknown.RouteType: wellknown.VirtualHostType, wellknown.VirtualHostType: wellknown.RouteType}[half]
	v.tables.mu.Lock()
	defer v.tables.mu.Unlock()
	var missing []string
	for _, n := range names {
		if t := v.tables.left[half+n]; t != nil {
			delete(v.tables.left, half+n)
			visit(t)
		} else {
			missing = append(missing, n)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	made, err := v.makeTables(missing)
	for _, t := range made {
		if t.apart {
			if v.tables.left == nil {
				v.tables.left = map[string]*madeTable{}
			}
			v.tables.left[other+t.table.Name] = t
		}
		visit(t)
	}
	return err
}

func (v *view) makeTables(names []string) ([]*madeTable, error) {
	var list []*madeTable
	patches := v.patches()
	for _, r := range compile.Routes(v.snapshot, v.scope(), v.proxy, names...) {
		rc, made := patches.Routes(envoy.RouteConfiguration(*r)), &madeTable{}
		if v.proxy.HostsApart && canPart(rc) {
			var err error
			if made.hosts, err = hostsOf(rc); err != nil {
				return nil, err
			}
			rc, made.apart = withoutHosts(rc), true
		}
		var err error
		if made.table, err = ads.NewResource(r.Name, rc); err != nil {
			return nil, err
		}
		list = append(list, made)
		v.tell(patches, wellknown.RouteType, r.Name)
	}
	return list, nil
}

// canPart reports whether the virtual hosts of a table go apart. Not those of a single service
// ("host:port"), which are one or two; nor of a table that cannot be told from what is below it.
func canPart(rc *routepb.RouteConfiguration) bool {
	return !strings.ContainsAny(rc.Name, ":/") && rc.Vhds == nil
}

// hostsOf are the virtual hosts of a table as resources. Two of one name, as patches may make
// them, have two resources, so that the proxy says what it thinks of that.
func hostsOf(rc *routepb.RouteConfiguration) ([]ads.Resource, error) {
	list, times := make([]ads.Resource, 0, len(rc.VirtualHosts)), map[string]int{}
	for _, vh := range rc.VirtualHosts {
		name := rc.Name + "/" + vh.Name
		if times[vh.Name]++; times[vh.Name] > 1 {
			name = fmt.Sprintf("%s#%d", name, times[vh.Name])
		}
		if err := add(&list, name, vh); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// withoutHosts is a table whose virtual hosts come apart from it, with all other fields.
func withoutHosts(rc *routepb.RouteConfiguration) *routepb.RouteConfiguration {
	rc.VirtualHosts = nil
	rc.Vhds = &routepb.Vhds{ConfigSource: &corepb.ConfigSource{
		ConfigSourceSpecifier: &corepb.ConfigSource_Ads{Ads: &corepb.AggregatedConfigSource{}},
		InitialFetchTimeout:   durationpb.New(0), ResourceApiVersion: corepb.ApiVersion_V3,
	}}
	return rc
}

// tableAbove is the name of the table of a virtual host; that of a table is its own.
func tableAbove(name string) string {
	table, _, _ := strings.Cut(name, "/")
	return table
}

// tablesAbove are the tables of virtual hosts, each once.
func tablesAbove(names []string) []string {
	var list []string
	seen := map[string]bool{}
	for _, n := range names {
		if table := tableAbove(n); !seen[table] {
			seen[table] = true
			list = append(list, table)
		}
	}
	return list
}

// below are the resources that names ask for: one by one, or by that of their table.
func below(list []ads.Resource, names []string) []ads.Resource {
	wanted := among(names)
	return slices.DeleteFunc(list, func(r ads.Resource) bool { return !wanted(r.Name) && !wanted(tableAbove(r.Name)) })
}
