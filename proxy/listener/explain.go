package listener

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

// Facts are what is known of a connection before its first request.
type Facts struct {
	// Socket is the address that accepts it: 0.0.0.0:15001 for what leaves a pod.
	Socket netip.AddrPort
	// To is where the client wanted to go, From is the client.
	To, From netip.AddrPort
	// TLS says that it begins with a client hello, with this server name and these protocols.
	TLS        bool
	ServerName string
	Protocols  []string
	// Peer is the URI name of the certificate that the client shows, "" where it shows none.
	Peer string
	// HTTP is "http/1.0", "http/1.1" or "h2c" where it begins with a request, "" where it does not.
	HTTP string
}

// A Recorder gathers why a listener and a filter chain were chosen. The running proxy has
// none. Not safe for concurrent use.
type Recorder struct {
	// HandedOff says that To, not Socket, found the listener.
	HandedOff bool
	// Steps are the filter chains, those that fell out in the order in which they did, the
	// chosen one last.
	Steps []Step
}

// A Step is a filter chain that was considered.
type Step struct {
	Chain   string
	Matched bool
	Reason  string // the criterion that another chain meets better, or this one not at all
}

// A Choice is where a connection has come to.
type Choice struct {
	Listener, Chain string
	// Secured says that the chain begins with a TLS handshake.
	Secured bool
	info    streaminfo.Info
	chain   *chain
}

// Choose finds listener and filter chain of a connection, as a running Set would that holds
// configs; nil when no listener accepts it. Chain is "" when no chain takes it. Detection of
// protocols is that of the listener's filters.
func Choose(configs []*Config, f Facts, r *Recorder) *Choice {
	first := find(configs, f.Socket, true)
	if first == nil {
		return nil
	}
	a := &accepted{local: f.Socket, remote: f.From, direct: f.From}
	c := first
	c.detect(a, &f)
	if c.handOff && a.restored {
		if next := find(configs, a.local, false); next != nil && next != c {
			c, r.HandedOff = next, true
			c.detect(a, &f)
		}
	}
	if a.transport == "" {
		a.transport = "raw_buffer"
	}
	out := &Choice{Listener: c.name, chain: choose(c.chains, c.fallback, a, r)}
	out.info.DownstreamLocal, out.info.DownstreamRemote, out.info.ServerName = a.local, a.remote, a.serverName
	out.info.DownstreamDirectLocal, out.info.DownstreamDirectRemote, out.info.LocalRestored = f.Socket, a.direct, a.restored
	if out.chain != nil {
		out.Chain, out.info.FilterChain = out.chain.name, out.chain.name
		_, plain := out.chain.socket.(transport.Plain)
		out.Secured = !plain
	}
	if out.Secured && f.TLS {
		out.info.TLSVersion = "TLSv1.3"
		if f.Peer != "" {
			out.info.PeerURISANs = []string{f.Peer}
		}
	}
	return out
}

// detect does what the listener filters would do that find out about a client.
func (c *Config) detect(a *accepted, f *Facts) {
	for _, x := range c.filters {
		if x.disabled != nil && x.disabled(a) {
			continue
		}
		switch x.listenerFilter.(type) {
		case originalDst, *proxyProtocol:
			if f.To.IsValid() && f.To != a.local {
				a.local, a.restored = f.To, true
			}
		case *tlsInspector:
			if f.TLS {
				a.transport, a.serverName, a.protocols = "tls", f.ServerName, f.Protocols
			}
		case *httpInspector:
			if (a.transport == "" || a.transport == "raw_buffer") && f.HTTP != "" && !f.TLS {
				a.protocols = []string{f.HTTP}
			}
		}
	}
}

// find is the listener with an address; bound: only those that have sockets of their own.
func find(configs []*Config, at netip.AddrPort, bound bool) *Config {
	index := map[netip.AddrPort]*Config{}
	for _, c := range configs {
		for _, a := range c.addresses {
			if a.path == "" && (c.bindPort || !bound) && (index[a.ip] == nil || c.bindPort) {
				index[a.ip] = c
			}
		}
	}
	return lookup(index, at, func(c *Config) bool { return c.options.v4compat })
}

// Name is that of the resource.
func (c *Config) Name() string { return c.name }

// Serve lets the filters of the chain serve a connection to its end, without a handshake.
func (c *Choice) Serve(ctx context.Context, from transport.Conn) {
	if c.chain == nil || c.chain.terminal == nil {
		return
	}
	cn := &conn{Conn: network.Conn{Conn: from, Info: &c.info, Draining: make(chan struct{})}}
	c.chain.run(ctx, cn)
	_, _ = cn.Read(make([]byte, 1)) // filters that wait for the first bytes decide, though nobody upstream was there to take them
}

// Ended says why a filter has ended the connection that was served, "" if none has.
func (c *Choice) Ended() string { return c.info.TerminationDetails }

// criterion notes the chains that a criterion is about to leave out.
func (r *Recorder) criterion(by *criterion, left []*chain, a *accepted) {
	best := 0
	for _, c := range left {
		best = max(best, by.score(&c.match, a))
	}
	for _, c := range left {
		switch n := by.score(&c.match, a); {
		case n == excluded:
			r.Steps = append(r.Steps, Step{Chain: c.name, Reason: by.name + " " + by.wants(&c.match) + ", but it is " + by.has(a)})
		case n < best:
			r.Steps = append(r.Steps, Step{Chain: c.name, Reason: "another filter chain is more specific for the " + by.name + " " + by.has(a)})
		}
	}
}

// chosen notes the chain that was taken, nil for none.
func (r *Recorder) chosen(c *chain, reason string) {
	if r == nil || c == nil {
		return
	}
	if reason == "" {
		var met []string
		for _, by := range criteria {
			if text := by.wants(&c.match); text != "" {
				met = append(met, by.name+" "+text)
			}
		}
		if reason = strings.Join(met, ", "); reason == "" {
			reason = "it asks for nothing"
		}
	}
	r.Steps = append(r.Steps, Step{Chain: c.name, Matched: true, Reason: reason})
}

// named is a value as text, "" for the zero value.
func named[T comparable](v T) string {
	var none T
	if v == none {
		return ""
	}
	return fmt.Sprint(v)
}

func listed[T any](list []T) string { return strings.Trim(fmt.Sprint(list), "[]") }
