package listener

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/cespare/xxhash/v2"

	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/transport"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// A Config is one compiled Listener resource. It belongs to the Set that decoded it
// and is handed back to it by Apply.
type Config struct {
	name       string
	addresses  []address
	options    bindOptions
	extra      map[address]bindOptions // of additional addresses with socket options of their own
	bindPort   bool
	handOff    bool // use_original_dst
	direction  string
	statPrefix string
	filters    []boundFilter
	timeout    time.Duration // of the listener filters, 0: none
	goOn       bool          // continue_on_listener_filters_timeout
	unlimited  bool          // ignore_global_conn_limit
	chains     []*chain
	fallback   *chain
	loggers    []Logger
	stats      *counters
	disown     func() // gives up the stats, nil before there are any
	proto      *listenerpb.Listener
	added      time.Time

	bound []*socket // sockets that Decode opened, until Apply takes them
	usage usage
}

// A chain is a compiled filter chain.
type chain struct {
	name      string
	key       string // what makes it the same chain in the next configuration
	sum       uint64 // of the configuration's bytes
	match     chainMatch
	socket    transport.ServerSocket
	handshake time.Duration // transport_socket_connect_timeout, 0: there is none to wait for
	filters   []network.Filter
	terminal  network.Terminal
	built     []network.Built
	discovers bool // some filters come by themselves
	group     atomic.Pointer[group]
}

// usage counts the connections of a Config, so that what it holds (subscriptions,
// secrets, log files) is given up after the last of them.
type usage struct {
	mu      sync.Mutex
	users   int
	retired bool
	closed  bool
}

// acquire fails when the configuration is closed already.
func (c *Config) acquire() bool {
	c.usage.mu.Lock()
	defer c.usage.mu.Unlock()
	if c.usage.closed {
		return false
	}
	c.usage.users++
	return true
}

func (c *Config) release() { c.account(func(u *usage) { u.users-- }) }

// retire closes the configuration as soon as no connection uses it.
func (c *Config) retire() { c.account(func(u *usage) { u.retired = true }) }

func (c *Config) account(change func(*usage)) {
	c.usage.mu.Lock()
	change(&c.usage)
	last := c.usage.retired && c.usage.users == 0 && !c.usage.closed
	c.usage.closed = c.usage.closed || last
	c.usage.mu.Unlock()
	if last {
		c.close()
	}
}

func (c *Config) close() {
	for _, s := range c.bound {
		s.close()
	}
	for _, ch := range c.all() {
		ch.close()
	}
	for _, l := range c.loggers {
		l.Close()
	}
	if c.disown != nil {
		c.disown()
	}
}

func (ch *chain) close() {
	if ch.socket != nil {
		ch.socket.Close()
	}
	for _, b := range ch.built {
		if b.Close != nil {
			b.Close()
		}
	}
}

// all are the chains with the default one.
func (c *Config) all() []*chain {
	if c.fallback == nil {
		return c.chains
	}
	return append(slices.Clip(c.chains), c.fallback)
}

// ready returns the channels that must be closed before the configuration may serve.
func (c *Config) ready() []<-chan struct{} {
	var list []<-chan struct{}
	for _, ch := range c.all() {
		if r := ch.socket.Ready(); r != nil {
			list = append(list, r)
		}
		for _, b := range ch.built {
			if b.Warm != nil {
				list = append(list, b.Warm)
			}
		}
	}
	return list
}

// The fields of a Listener that are understood, or without effect here by nature:
// connection balancing and accepts per wake-up are about Envoy's threads, buffer limits
// about its buffers (ours are bounded by construction).
var listenerFields = []protoreflect.Name{
	"name", "address", "additional_addresses", "stat_prefix", "filter_chains", "use_original_dst", "default_filter_chain",
	"per_connection_buffer_limit_bytes", "metadata", "deprecated_v1", "drain_type", "listener_filters", "listener_filters_timeout",
	"continue_on_listener_filters_timeout", "transparent", "freebind", "socket_options", "tcp_fast_open_queue_length",
	"traffic_direction", "connection_balance_config", "enable_reuse_port", "access_log", "tcp_backlog_size",
	"max_connections_to_accept_per_socket_event", "bind_to_port", "ignore_global_conn_limit", "bypass_overload_manager",
	"reuse_port", "enable_mptcp", "tcp_keepalive",
}

// compile builds a Config without opening sockets.
func (s *Set) compile(l *listenerpb.Listener) (_ *Config, err error) {
	if err := xds.Only(l, listenerFields...); err != nil {
		return nil, err
	}
	c := &Config{
		name: l.GetName(), options: compileBindOptions(l), proto: l, added: time.Now(),
		bindPort: (l.GetBindToPort() == nil || l.GetBindToPort().GetValue()) && (l.GetDeprecatedV1().GetBindToPort() == nil || l.GetDeprecatedV1().GetBindToPort().GetValue()),
		handOff:  l.GetUseOriginalDst().GetValue(), direction: direction(l.GetTrafficDirection()),
		timeout: 15 * time.Second, goOn: l.GetContinueOnListenerFiltersTimeout(), unlimited: l.GetIgnoreGlobalConnLimit(),
	}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if t := l.GetListenerFiltersTimeout(); t != nil {
		c.timeout = t.AsDuration()
	}
	if err := c.compileAddresses(l); err != nil {
		return nil, err
	}
	c.statPrefix = "listener." + statPrefix(l.GetStatPrefix(), c.addresses[0]) + "."
	c.disown = s.opts.Stats.Scope(c.statPrefix).Claim()
	c.stats = newCounters(s.opts.Stats.Scope(c.statPrefix))
	if err := s.compileListenerFilters(c, l); err != nil {
		return nil, err
	}
	if err := s.compileChains(c, l); err != nil {
		return nil, err
	}
	c.loggers, err = s.opts.AccessLog(l.GetAccessLog())
	if err != nil {
		return nil, fmt.Errorf("access_log: %w", err)
	}
	return c, nil
}

// optionsOf are the options of the socket of an address.
func (c *Config) optionsOf(a address) bindOptions {
	if o, ok := c.extra[a]; ok {
		return o
	}
	return c.options
}

func direction(d corepb.TrafficDirection) string {
	if d == corepb.TrafficDirection_UNSPECIFIED {
		return ""
	}
	return d.String()
}

func (c *Config) compileAddresses(l *listenerpb.Listener) error {
	a, err := compileAddress(l.GetAddress())
	if err != nil {
		return err
	}
	c.addresses = []address{a}
	for i, more := range l.GetAdditionalAddresses() {
		if err := xds.Only(more, "address", "socket_options"); err != nil {
			return fmt.Errorf("additional_addresses[%d].%w", i, err)
		}
		a, err := compileAddress(more.GetAddress())
		if err != nil {
			return fmt.Errorf("additional_addresses[%d]: %w", i, err)
		}
		if o := more.GetSocketOptions(); o != nil { // they take the place of the listener's
			if c.extra == nil {
				c.extra = map[address]bindOptions{}
			}
			c.extra[a] = c.options.with(o.GetSocketOptions())
		}
		c.addresses = append(c.addresses, a)
	}
	return nil
}

// compileListenerFilters builds the listener filters, those that other fields imply
// included: use_original_dst means the original_dst filter, use_proxy_proto of the first
// chain the proxy_protocol filter, and a match on what only the TLS inspector can know
// brings that in, as in Envoy.
func (s *Set) compileListenerFilters(c *Config, l *listenerpb.Listener) error {
	list := l.GetListenerFilters()
	has := func(name string) bool {
		for _, f := range list {
			if strings.HasSuffix(f.GetName(), name) || strings.HasSuffix(strings.ToLower(f.GetTypedConfig().GetTypeUrl()), "."+strings.ReplaceAll(name, "_", "")) {
				return true
			}
		}
		return false
	}
	if c.handOff && !has("original_dst") {
		list = append([]*listenerpb.ListenerFilter{{Name: "envoy.filters.listener.original_dst"}}, list...)
	}
	if needsTLSInspector(l) && !has("tls_inspector") {
		s.opts.Log.Warn("filter chain match rules require the TLS inspector, which is not configured: it is added", "listener", c.name)
		list = append(slices.Clip(list), &listenerpb.ListenerFilter{Name: "envoy.filters.listener.tls_inspector"})
	}
	if chains := l.GetFilterChains(); len(chains) > 0 && chains[0].GetUseProxyProto().GetValue() {
		list = append(slices.Clip(list), &listenerpb.ListenerFilter{Name: filterName})
	}
	for i, f := range list {
		b, err := compileListenerFilter(f, s.opts.Stats)
		if err != nil {
			return fmt.Errorf("listener_filters[%d]: %w", i, err)
		}
		c.filters = append(c.filters, b)
	}
	return nil
}

func needsTLSInspector(l *listenerpb.Listener) bool {
	for _, ch := range l.GetFilterChains() {
		m := ch.GetFilterChainMatch()
		if m.GetTransportProtocol() == "tls" || m.GetTransportProtocol() == "" && (len(m.GetServerNames()) > 0 || len(m.GetApplicationProtocols()) > 0) {
			return true
		}
	}
	return false
}

func (s *Set) compileChains(c *Config, l *listenerpb.Listener) error {
	if len(l.GetFilterChains()) == 0 && l.GetDefaultFilterChain() == nil {
		return fmt.Errorf("error adding listener '%s': no filter chains specified", c.addresses[0])
	}
	seen := map[string]string{}
	for i, p := range l.GetFilterChains() {
		ch, err := s.compileChain(c, p)
		if err != nil {
			return fmt.Errorf("filter_chains[%d]: %w", i, err)
		}
		c.chains = append(c.chains, ch)
		match := matchKey(p)
		if other, dup := seen[match]; dup {
			return fmt.Errorf("error adding listener '%s': filter chain '%s' has the same matching rules defined as '%s'", c.addresses[0], ch.name, other)
		}
		seen[match] = ch.name
	}
	if p := l.GetDefaultFilterChain(); p != nil {
		ch, err := s.compileChain(c, p)
		if err != nil {
			return fmt.Errorf("default_filter_chain: %w", err)
		}
		ch.key = "default " + ch.key
		c.fallback = ch
	}
	return nil
}

func matchKey(p *listenerpb.FilterChain) string {
	m := proto.Clone(p.GetFilterChainMatch()).(*listenerpb.FilterChainMatch)
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return err.Error() // invalid UTF-8, which the wire form cannot hold
	}
	return string(b)
}

func (s *Set) compileChain(c *Config, p *listenerpb.FilterChain) (*chain, error) {
	if err := xds.Only(p, "filter_chain_match", "filters", "use_proxy_proto", "metadata", "transport_socket", "transport_socket_connect_timeout", "name"); err != nil {
		return nil, err
	}
	match, err := compileChainMatch(p.GetFilterChainMatch())
	if errors.Is(err, errUnimplemented) {
		return nil, fmt.Errorf("error adding listener '%s': filter chain '%s' %w", c.addresses[0], p.GetName(), err)
	}
	if err != nil {
		return nil, fmt.Errorf("filter_chain_match: %w", err)
	}
	text, err := proto.MarshalOptions{Deterministic: true}.Marshal(p)
	if err != nil {
		return nil, err
	}
	ch := &chain{name: p.GetName(), sum: xxhash.Sum64(text), key: p.GetName() + "\x00" + matchKey(p), match: match, handshake: duration(p.GetTransportSocketConnectTimeout())}
	if ch.socket, err = s.opts.Transport(p.GetTransportSocket(), s.opts.Stats.Scope(c.statPrefix)); err != nil {
		return nil, fmt.Errorf("transport_socket: %w", err)
	}
	if _, plain := ch.socket.(transport.Plain); !plain && ch.handshake == 0 {
		ch.handshake = maxHandshake
	}
	env := network.Env{Direction: c.direction, Listener: c.name, StatPrefix: c.statPrefix, Changed: ch.changed}
	for i, f := range p.GetFilters() {
		if err := s.addFilter(c, ch, f, env, i == len(p.GetFilters())-1); err != nil {
			ch.close()
			return nil, fmt.Errorf("filters[%d] %s: %w", i, f.GetName(), err)
		}
	}
	if ch.terminal == nil && len(p.GetFilters()) > 0 {
		ch.close()
		last := p.GetFilters()[len(p.GetFilters())-1].GetName()
		return nil, fmt.Errorf("Error: non-terminal filter named %s is the last filter in a network filter chain.", last) //nolint:revive,staticcheck // Envoy's words
	}
	return ch, nil
}

// maxHandshake ends handshakes that stand still where no timeout is configured: Envoy's
// idle timeout of HTTP connections does there.
const maxHandshake = time.Hour

func duration(d *durationpb.Duration) time.Duration {
	if d == nil {
		return 0
	}
	return d.AsDuration()
}

func (s *Set) addFilter(c *Config, ch *chain, f *listenerpb.Filter, env network.Env, last bool) error {
	if ch.terminal != nil {
		return errors.New("a filter after the terminal filter")
	}
	if f.GetConfigDiscovery() != nil {
		d, err := s.discover(c, f, env, last)
		if err == nil {
			ch.add(d.built())
			ch.discovers = true
		}
		return err
	}
	config, url, err := xds.Typed(f.GetTypedConfig())
	if err != nil {
		return err
	}
	url = xds.TypeName(url)
	for _, x := range s.opts.Network {
		if !serves(x, url, f.GetName()) {
			continue
		}
		b, err := x.New(config, env)
		if err != nil {
			return err
		}
		ch.add(b)
		return nil
	}
	return fmt.Errorf("Didn't find a registered implementation for '%s' with type URL: '%s'", f.GetName(), url) //nolint:staticcheck // Envoy's words
}

// add appends a filter.
func (ch *chain) add(b network.Built) {
	ch.built = append(ch.built, b)
	if b.Filter != nil {
		ch.filters = append(ch.filters, b.Filter)
	}
	ch.terminal = b.Terminal
}

// serves: a filter is found by the type of its configuration, by name only where it
// has none.
func serves(f network.Factory, url, name string) bool {
	if url == "" {
		return f.Name == name
	}
	for _, u := range f.TypeURLs {
		if xds.TypeName(u) == url {
			return true
		}
	}
	return false
}
