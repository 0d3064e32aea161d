package hcm

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/xds"
	"github.com/lateen-mesh/lateen/wellknown"
)

// A discovered filter is one whose configuration comes by itself (config_discovery). A
// stream keeps the configuration that it began with. It takes two slots of the chain: its
// own, and the next one, which is that of the filter that it stands for.
type discovered struct {
	name    string
	table   []http.Factory
	shared  http.Env
	accepts []string // type_urls
	current pointer[instance]
	initial *instance // default_config, nil for none
	ready   chan struct{}
	once    sync.Once
	cancel  func()
	changed func()
	reloads *stats.Counter // configurations that were taken
	fails   *stats.Counter // and that were refused or did not come

	mu    sync.Mutex
	still bool          // filters do no work beside streams: this proxy serves nobody, or this is the end
	stop  chan struct{} // ends the work of the current filter, nil: it does none
}

// An instance is a filter by one version of its configuration.
type instance struct {
	filter http.Filter
	ender  http.Ender // nil: none
}

// discover makes the filter of a config_discovery.
func (m *manager) discover(f *hcmv3.HttpFilter, d Deps, shared http.Env) (x *discovered, terminal bool, err error) {
	src := f.GetConfigDiscovery()
	shared.Name = f.GetName()
	x = &discovered{name: f.GetName(), table: d.Filters, shared: shared, accepts: src.GetTypeUrls(), ready: make(chan struct{}), still: d.Known != nil, changed: m.policy.changed}
	if len(x.accepts) == 0 {
		return nil, false, errors.New("config_discovery.type_urls: one is needed")
	}
	for i, url := range x.accepts {
		factory := named(d.Filters, url)
		if factory == nil {
			return nil, false, fmt.Errorf("config_discovery.type_urls[%d]: %s: no such filter", i, url)
		}
		terminal = terminal || factory.Terminal
	}
	if src.GetDefaultConfig() != nil {
		if x.initial, err = x.compile(src.GetDefaultConfig()); err != nil {
			return nil, false, fmt.Errorf("config_discovery.default_config: %w", err)
		}
	}
	counted := d.Stats.Scope("extension_config_discovery.http_filter." + f.GetName() + ".")
	x.reloads, x.fails = counted.Counter("config_reload"), counted.Counter("config_fail")
	counted.Counter("config_conflict")
	client, err := d.client(wellknown.ExtensionType, src.GetConfigSource())
	if err != nil {
		return nil, false, fmt.Errorf("config_discovery.config_source: %w", err)
	}
	if src.GetApplyDefaultConfigWithoutWarming() && x.initial != nil {
		x.set(x.initial)
	}
	t := xds.Type[*instance]{URL: wellknown.ExtensionType, Decode: x.decode, FetchTimeout: xds.FetchTimeout(src.GetConfigSource())}
	cancel := xds.Subscribe(client, t, f.GetName(), func(i *instance, present bool) {
		if present {
			x.reloads.Inc()
		} else {
			x.fails.Inc()
			i = x.initial
		}
		x.set(i)
	})
	x.cancel = func() { cancel(); x.work(nil, true) }
	return x, terminal, nil
}

// set takes a configuration, or nil for none, into use. A filter that needs a while to be
// ready is used at once: there is none better.
func (x *discovered) set(i *instance) {
	x.current.Store(i)
	x.changed()
	x.work(i, false)
	x.once.Do(func() { close(x.ready) })
}

// work ends what the filter before has done beside its streams and begins what i does, nil
// for none; final says that nothing is begun any more.
func (x *discovered) work(i *instance, final bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.still = x.still || final
	if x.stop != nil {
		close(x.stop)
		x.stop = nil
	}
	if i == nil || x.still {
		return
	}
	if r, ok := i.filter.(http.Runner); ok {
		x.stop = make(chan struct{})
		r.Run(x.stop)
	}
}

func (x *discovered) decode(_ string, body *anypb.Any) (*instance, error) {
	var c corev3.TypedExtensionConfig
	if err := proto.Unmarshal(body.GetValue(), &c); err != nil {
		return nil, err
	}
	i, err := x.compile(c.GetTypedConfig())
	if err != nil {
		x.fails.Inc()
	}
	return i, err
}

// compile builds the filter. Its errors are worded as Envoy's.
func (x *discovered) compile(cfg *anypb.Any) (*instance, error) {
	cfg, url, err := xds.Typed(cfg)
	if err != nil {
		return nil, err
	}
	if err := xds.Expect(x.accepts, url); err != nil {
		return nil, err
	}
	factory := named(x.table, url)
	if factory == nil {
		return nil, fmt.Errorf("%s: no such filter", url)
	}
	f, err := factory.New(cfg, x.shared)
	if err != nil {
		return nil, err
	}
	i := &instance{filter: f}
	i.ender, _ = f.(http.Ender)
	return i, nil
}

// named finds the factory of a type.
func named(table []http.Factory, url string) *http.Factory {
	for i := range table {
		if slices.ContainsFunc(table[i].TypeURLs, func(u string) bool { return xds.TypeName(u) == xds.TypeName(url) }) {
			return &table[i]
		}
	}
	return nil
}

// of is the filter that a stream uses.
func (x *discovered) of(s *http.Stream, slot http.Slot) *instance {
	i, _ := s.State(slot).(*instance)
	if i == nil {
		if i = x.current.Load(); i != nil {
			s.SetState(slot, i)
		}
	}
	return i
}

// OnRequest runs the filter; without a configuration there is no answer but an error.
func (x *discovered) OnRequest(s *http.Stream, slot http.Slot) http.Verdict {
	i := x.of(s, slot)
	if i == nil {
		s.Reply(http.Reply{Status: 500, Details: "filter_config_not_found", Flag: streaminfo.NoFilterConfigFound, GRPCStatus: -1})
		return http.Replied
	}
	return i.filter.OnRequest(s, slot+1)
}

// OnResponse runs the filter.
func (x *discovered) OnResponse(s *http.Stream, slot http.Slot) http.Verdict {
	if i := x.of(s, slot); i != nil {
		return i.filter.OnResponse(s, slot+1)
	}
	return http.Continue
}

// Review asks the filter in force; without one nothing is said about streams that are there.
func (x *discovered) Review(f http.Facts, override any) (denial http.Reply, ok bool) {
	if i := x.current.Load(); i != nil {
		if r, reviews := i.filter.(http.Reviewer); reviews {
			return r.Review(f, override)
		}
	}
	return http.Reply{}, true
}

// OnEnd tells the filter.
func (x *discovered) OnEnd(s *http.Stream, slot http.Slot) {
	if i, _ := s.State(slot).(*instance); i != nil && i.ender != nil {
		i.ender.OnEnd(s, slot+1)
	}
}

// A place keeps the slot of a discovered filter.
type place struct{}

// OnRequest does nothing.
func (place) OnRequest(*http.Stream, http.Slot) http.Verdict { return http.Continue }

// OnResponse does nothing.
func (place) OnResponse(*http.Stream, http.Slot) http.Verdict { return http.Continue }

// client is the one that serves resources of a type.
func (d Deps) client(url string, src *corev3.ConfigSource) (*xds.Client, error) {
	switch {
	case d.Source != nil:
		return d.Source(url)(src)
	case d.XDS == nil || src.GetAds() == nil && src.GetSelf() == nil:
		return nil, errors.New("only ads is supported")
	}
	return d.XDS, nil
}

// warm is closed when routes and filters have come and are ready; nil: they are. Unless the
// proxy serves nobody, filters begin what they do beside the streams.
func (m *manager) warm(serves bool) <-chan struct{} {
	waits := []<-chan struct{}{}
	for _, r := range m.runners {
		if !serves {
			break
		}
		if w := r.Run(m.closed); w != nil {
			waits = append(waits, w)
		}
	}
	if m.routes.warm != nil {
		waits = append(waits, m.routes.warm)
	}
	for _, x := range m.discovered {
		waits = append(waits, x.ready)
	}
	if len(waits) < 2 {
		return append(waits, nil)[0]
	}
	all := make(chan struct{})
	go func() {
		for _, w := range waits {
			select {
			case <-w:
			case <-m.closed:
				return
			}
		}
		close(all)
	}()
	return all
}
