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
// table in force is that of the configuration with those that have come. It is put in force
// when the first answer has come, so that what was in force before serves until then.
type village struct {
	routes   *routes
	compiler route.CompileEnv
	deps     Deps

	mu      sync.Mutex
	base    *route.Table // nil: it has all of its own
	hosts   map[string]*settler
	begun   bool // the first answer has come
	space   *xds.Space
	stays   int                      // how often virtual hosts were given up: what was asked for before that does not count
	waiting map[string]chan struct{} // by the name that was asked for
}

// A settler is a virtual host that has come, compiled for one base.
type settler struct {
	base *route.Table
	host *route.Host
	body *anypb.Any
}

// take has virtual hosts come to a route configuration.
func (v *village) take(t *route.Table) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.base = t
	if v.space == nil {
		client, err := v.server(t.Source)
		if err != nil { // that was seen when it was decoded
			return
		}
		stay := v.stays
		hosts := xds.Type[*settler]{URL: wellknown.VirtualHostType, Decode: v.decode,
			FetchTimeout: xds.FetchTimeout(t.Source.GetVhds().GetConfigSource())}
		v.space, err = xds.SubscribeSpace(client, hosts, t.Name, func(ch xds.SpaceChange[*settler]) error { return v.update(stay, ch) })
		if err != nil {
			return
		}
	}
	_ = v.merge() // each host has been compiled before; names that are there twice keep what is in force
}

// leave gives virtual hosts up: the configuration has all of its own, or has gone. What is in
// force stays.
func (v *village) leave() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.space == nil {
		return
	}
	v.space.Close()
	v.space, v.base, v.begun = nil, nil, false
	v.stays++
	clear(v.hosts)
	for name := range v.waiting {
		v.release(name)
	}
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

// decode compiles a virtual host.
func (v *village) decode(_ string, body *anypb.Any) (*settler, error) {
	v.mu.Lock()
	base := v.base
	v.mu.Unlock()
	if base == nil { // given up meanwhile
		return &settler{body: body}, nil
	}
	return v.compile(base, body)
}

func (v *village) compile(base *route.Table, body *anypb.Any) (*settler, error) {
	var h routev3.VirtualHost
	if err := proto.Unmarshal(body.GetValue(), &h); err != nil {
		return nil, err
	}
	host, err := route.CompileHost(base, &h, v.compiler)
	return &settler{base, host, body}, err
}

// update takes virtual hosts in and lets requests go on that have waited for them.
func (v *village) update(stay int, ch xds.SpaceChange[*settler]) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if stay != v.stays {
		return nil
	}
	for _, r := range ch.Updated {
		v.hosts[r.Name] = r.Value
	}
	for _, name := range ch.Removed {
		delete(v.hosts, name)
	}
	var err error
	if len(ch.Updated)+len(ch.Removed) > 0 || ch.Begun != v.begun {
		v.begun = v.begun || ch.Begun
		err = v.merge()
	}
	for _, name := range ch.Answered {
		v.release(name)
	}
	return err
}

// merge puts what there is in force. v.mu is held.
func (v *village) merge() error {
	if !v.begun || v.base == nil {
		return nil
	}
	list := make([]*route.Host, 0, len(v.hosts))
	for _, name := range slices.Sorted(maps.Keys(v.hosts)) {
		s := v.hosts[name]
		if s.base != v.base {
			var err error
			if s, err = v.compile(v.base, s.body); err != nil {
				return err
			}
			v.hosts[name] = s
		}
		list = append(list, s.host)
	}
	t, err := v.base.With(list)
	if err != nil {
		return err
	}
	v.routes.put(t)
	v.routes.warmed()
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
	if v.space == nil || !v.begun {
		return nil
	}
	if i := strings.LastIndexByte(host, ':'); i > 0 && !strings.HasSuffix(host, "]") && v.base.Source.GetIgnorePortInHostMatching() {
		host = host[:i]
	}
	name := v.base.Name + "/" + host
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
	m.village = &village{routes: &m.routes, compiler: compiler, deps: d, hosts: map[string]*settler{}, waiting: map[string]chan struct{}{}}
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
