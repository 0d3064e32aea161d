package listener

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/xds"
	"github.com/lateen-mesh/lateen/wellknown"
)

// A discovered filter is a network filter whose configuration comes by itself
// (config_discovery). A connection keeps the one that it began with.
type discovered struct {
	set     *Set
	env     network.Env
	accepts []string // type_urls
	last    bool     // it ends its chain
	ready   chan struct{}
	once    sync.Once
	cancel  func()
	initial *version // default_config, nil for none

	reloads *stats.Counter // configurations that were taken
	fails   *stats.Counter // and that were refused or did not come
	missing *stats.Counter // connections that ended because there was none

	mu      sync.Mutex
	current *version
	users   map[*network.Conn]*version
	closed  bool
}

// A version is a filter by one configuration. It is closed when it has been replaced and
// serves no connection.
type version struct {
	network.Built
	users int
	keep  bool // in force, or the default
}

// discover makes the filter of a config_discovery.
func (s *Set) discover(c *Config, f *listenerpb.Filter, env network.Env, last bool) (*discovered, error) {
	src := f.GetConfigDiscovery()
	d := &discovered{set: s, env: env, accepts: src.GetTypeUrls(), last: last, ready: make(chan struct{}), users: map[*network.Conn]*version{}}
	if len(d.accepts) == 0 {
		return nil, errors.New("config_discovery.type_urls: one is needed")
	}
	if s.opts.Source == nil {
		return nil, errors.New("config_discovery: not supported")
	}
	client, err := s.opts.Source(wellknown.ExtensionType)(src.GetConfigSource())
	if err != nil {
		return nil, fmt.Errorf("config_discovery.config_source: %w", err)
	}
	if src.GetDefaultConfig() != nil {
		if d.initial, err = d.compile(src.GetDefaultConfig()); err != nil {
			return nil, fmt.Errorf("config_discovery.default_config: %w", err)
		}
		d.initial.keep = true
	}
	counted := s.opts.Stats.Scope("extension_config_discovery.network_filter." + f.GetName() + ".")
	d.reloads, d.fails = counted.Counter("config_reload"), counted.Counter("config_fail")
	counted.Counter("config_conflict")
	d.missing = s.opts.Stats.Scope(c.statPrefix).Counter("network_extension_config_missing")
	if src.GetApplyDefaultConfigWithoutWarming() && d.initial != nil {
		d.put(d.initial)
	}
	t := xds.Type[*version]{URL: wellknown.ExtensionType, Decode: d.decode, FetchTimeout: xds.FetchTimeout(src.GetConfigSource())}
	d.cancel = xds.Subscribe(client, t, f.GetName(), func(v *version, present bool) {
		if present {
			d.reloads.Inc()
		} else {
			d.fails.Inc()
			v = d.initial
		}
		d.put(v)
	})
	return d, nil
}

func (d *discovered) decode(_ string, body *anypb.Any) (*version, error) {
	var c corepb.TypedExtensionConfig
	if err := proto.Unmarshal(body.GetValue(), &c); err != nil {
		return nil, err
	}
	v, err := d.compile(c.GetTypedConfig())
	if err != nil {
		d.fails.Inc()
	}
	return v, err
}

// compile builds the filter. Its errors are worded as Envoy's.
func (d *discovered) compile(cfg *anypb.Any) (*version, error) {
	cfg, url, err := xds.Typed(cfg)
	if err != nil {
		return nil, err
	}
	if err := xds.Expect(d.accepts, url); err != nil {
		return nil, err
	}
	url = xds.TypeName(url)
	for _, x := range d.set.opts.Network {
		if !serves(x, url, "") {
			continue
		}
		b, err := x.New(cfg, d.env)
		if err != nil {
			return nil, err
		}
		if d.last != (b.Terminal != nil) {
			if b.Close != nil {
				b.Close()
			}
			return nil, fmt.Errorf("%s: a filter that ends the chain is its last one, and no other is", url)
		}
		return &version{Built: b}, nil
	}
	return nil, fmt.Errorf("%s: no such filter", url)
}

// put takes a version, or nil for none, into use when it is ready itself.
func (d *discovered) put(v *version) {
	if v != nil && v.Warm != nil {
		select {
		case <-v.Warm:
		default:
			go func() {
				select {
				case <-v.Warm:
					d.replace(v)
				case <-d.set.ctx.Done():
				}
			}()
			return
		}
	}
	d.replace(v)
}

func (d *discovered) replace(v *version) {
	d.mu.Lock()
	old := d.current
	d.current = v
	if v != nil {
		v.keep = true
	}
	done := old != nil && old != v && old != d.initial && d.unkeep(old)
	if d.closed && v != nil {
		v.keep = false
	}
	d.mu.Unlock()
	if done {
		old.end()
	}
	if old != nil && old != v {
		d.env.Changed()
	}
	d.once.Do(func() { close(d.ready) })
}

// unkeep says that a version is replaced; true: nobody uses it. d.mu is held.
func (d *discovered) unkeep(v *version) bool {
	v.keep = false
	return v.users == 0
}

func (v *version) end() {
	if v.Close != nil {
		v.Close()
	}
}

// take is the version that a connection uses from now on, nil for none.
func (d *discovered) take(c *network.Conn) *version {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.current != nil {
		d.current.users++
		d.users[c] = d.current
	}
	return d.current
}

// give says that the connection has ended.
func (d *discovered) give(c *network.Conn) {
	d.mu.Lock()
	v := d.users[c]
	delete(d.users, c)
	done := false
	if v != nil {
		v.users--
		done = v.users == 0 && !v.keep
	}
	d.mu.Unlock()
	if done {
		v.end()
	}
}

// OnConnect runs the filter; without a configuration the connection ends.
func (d *discovered) OnConnect(c *network.Conn) bool {
	v := d.take(c)
	if v == nil {
		d.missing.Inc()
		return false
	}
	if v.Filter.OnConnect(c) {
		return true
	}
	d.give(c)
	return false
}

// now is the version in force, nil for none.
func (d *discovered) now() *version {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.current
}

// Review asks the version in force; without one nothing is said about connections that are
// there.
func (d *discovered) Review(i *streaminfo.Info) (details string, ok bool) {
	if v := d.now(); v != nil {
		if r, is := v.Filter.(network.Reviewer); is {
			return r.Review(i)
		}
	}
	return "", true
}

// OnClose tells the filter.
func (d *discovered) OnClose(c *network.Conn) {
	d.mu.Lock()
	v := d.users[c]
	d.mu.Unlock()
	if v == nil {
		return
	}
	if closer, ok := v.Filter.(network.Closer); ok {
		closer.OnClose(c)
	}
	d.give(c)
}

// Serve is that of a terminal filter.
func (d *discovered) Serve(ctx context.Context, c *network.Conn) {
	v := d.take(c)
	if v == nil {
		d.missing.Inc()
		return
	}
	defer d.give(c)
	v.Terminal.Serve(ctx, c)
}

// close gives up the subscription, and what is not in use.
func (d *discovered) close() {
	d.cancel()
	d.mu.Lock()
	d.closed = true
	var done []*version
	for _, v := range []*version{d.current, d.initial} {
		if v != nil && !slices.Contains(done, v) && d.unkeep(v) {
			done = append(done, v)
		}
	}
	d.mu.Unlock()
	for _, v := range done {
		v.end()
	}
}

// built is the filter as its chain has it.
func (d *discovered) built() network.Built {
	b := network.Built{Warm: d.ready, Close: d.close}
	if d.last {
		b.Terminal = d
	} else {
		b.Filter = d
	}
	return b
}
