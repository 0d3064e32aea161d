package hcm

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/route"
	"github.com/lateen-mesh/lateen/proxy/xds"
	"github.com/lateen-mesh/lateen/wellknown"
)

// demandTime bounds the wait for a virtual host.
const demandTime = 15 * time.Second

// A village is a route configuration to which virtual hosts come by themselves (VHDS): the
// table in force is that of the configuration with those that have come.
type village struct {
	routes   *routes
	compiler route.CompileEnv
	deps     Deps

	mu      sync.Mutex
	base    *routev3.RouteConfiguration // nil: it has none of its own
	hosts   map[string]*routev3.VirtualHost
	space   *xds.Space
	waiting map[string]chan struct{} // by the name that was asked for
}

// take puts a route configuration in force, with the virtual hosts that have come to it;
// nil is one that has all of its own.
func (v *village) take(rc *routev3.RouteConfiguration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.base = rc
	if rc == nil {
		return
	}
	if v.space == nil {
		client, err := v.server(rc)
		if err != nil { // that was seen when it was decoded
			return
		}
		t := xds.Type[*routev3.VirtualHost]{URL: wellknown.VirtualHostType, Decode: v.decode}
		if v.space, err = xds.SubscribeSpace(client, t, rc.GetName(), v.update); err != nil {
			return
		}
	}
	_ = v.merge() // each host has been compiled before; names that are there twice keep what is in force
}

// server is who sends the virtual hosts.
func (v *village) server(rc *routev3.RouteConfiguration) (*xds.Client, error) {
	client, err := v.deps.client(wellknown.VirtualHostType, rc.GetVhds().GetConfigSource())
	if err != nil {
		return nil, fmt.Errorf("vhds.config_source: %w", err)
	}
	if !client.Delta() {
		return nil, errors.New("vhds: only 'DELTA_GRPC' is supported as an api_type.") //nolint:revive,staticcheck // Envoy's words
	}
	return client, nil
}

// decode checks a virtual host by itself.
func (v *village) decode(_ string, body *anypb.Any) (*routev3.VirtualHost, error) {
	var h routev3.VirtualHost
	if err := proto.Unmarshal(body.GetValue(), &h); err != nil {
		return nil, err
	}
	_, err := route.Compile(&routev3.RouteConfiguration{Name: "vhds", VirtualHosts: []*routev3.VirtualHost{&h}}, v.compiler)
	return &h, err
}

// update takes virtual hosts in and lets requests go on that have waited for them.
func (v *village) update(ch xds.SpaceChange[*routev3.VirtualHost]) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, r := range ch.Updated {
		v.hosts[r.Name] = r.Value
	}
	for _, name := range ch.Removed {
		delete(v.hosts, name)
	}
	err := v.merge()
	for _, name := range ch.Answered {
		v.release(name)
	}
	return err
}

// merge compiles what there is. v.mu is held.
func (v *village) merge() error {
	if v.base == nil {
		return nil
	}
	all := proto.Clone(v.base).(*routev3.RouteConfiguration)
	for _, name := range slices.Sorted(maps.Keys(v.hosts)) {
		all.VirtualHosts = append(all.VirtualHosts, v.hosts[name])
	}
	t, err := route.Compile(all, v.compiler)
	if err != nil {
		return err
	}
	v.routes.table.Store(t)
	return nil
}

// release ends the waits for a name. v.mu is held.
func (v *village) release(name string) {
	if c := v.waiting[name]; c != nil {
		delete(v.waiting, name)
		close(c)
	}
}

// demand asks for the virtual host of a host and returns what is closed by the answer; nil
// when there is nobody to ask.
func (v *village) demand(host string) <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.space == nil || v.base == nil {
		return nil
	}
	if i := strings.LastIndexByte(host, ':'); i > 0 && !strings.HasSuffix(host, "]") && v.base.GetIgnorePortInHostMatching() {
		host = host[:i]
	}
	name := v.base.GetName() + "/" + host
	if v.hosts[name] != nil { // it is there, and has no route for the request
		return nil
	}
	c := v.waiting[name]
	if c == nil {
		c = make(chan struct{})
		v.waiting[name] = c
		v.space.Demand(name, func() {
			v.mu.Lock()
			defer v.mu.Unlock()
			v.release(name)
		})
	}
	return c
}

func (v *village) close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.space != nil {
		v.space.Close()
	}
}

// Demand asks for the routes of the request's host and waits for the answer.
func (st *stream) Demand() {
	v := st.c.m.village
	if v == nil {
		return
	}
	answered := v.demand(strings.ToLower(string(st.Request.Authority)))
	if answered == nil {
		return
	}
	limit := time.NewTimer(demandTime)
	defer limit.Stop()
	select {
	case <-answered:
	case <-st.Done():
	case <-limit.C:
	}
	st.table = st.c.m.routes.table.Load()
	st.ClearRoute()
}

// withHosts makes routes to which virtual hosts come by themselves: what decodes them first
// finds out whether they want that.
func (m *manager) withHosts(t xds.Type[*route.Table], compiler route.CompileEnv, d Deps) xds.Type[*route.Table] {
	m.village = &village{routes: &m.routes, compiler: compiler, deps: d, hosts: map[string]*routev3.VirtualHost{}, waiting: map[string]chan struct{}{}}
	m.routes.village = m.village
	decode := t.Decode
	t.Decode = func(name string, body *anypb.Any) (*route.Table, error) {
		table, err := decode(name, body)
		if err == nil && table.Source != nil {
			_, err = m.village.server(table.Source)
		}
		return table, err
	}
	return t
}

var _ http.Demander = (*stream)(nil)
