package listener

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/stats"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestUpdateKeepsConnections(t *testing.T) {
	f := newFixture(t, nil)
	addr := f.apply(nil, address0("l", `"filter_chains": [`+chainNamed("c", "one", "")+`]`))
	old := f.dial(addr)
	if got := old.line(); got != "one" {
		t.Fatal(got)
	}
	t.Run("WI-030 a changed filter serves new connections, the old one goes on", func(t *testing.T) {
		if again := f.apply(nil, address0("l", `"filter_chains": [`+chainNamed("c", "two", "")+`]`)); again != addr {
			t.Fatalf("the socket moved from %s to %s", addr, again)
		}
		if got := f.dial(addr).line(); got != "two" {
			t.Error(got)
		}
		if got := old.say("still here\n").line(); got != "still here" {
			t.Error(got)
		}
		f.stat("listener_manager.listener_in_place_updated", "1")
	})
	t.Run("a listener of another name takes the address over", func(t *testing.T) {
		port := strings.TrimPrefix(addr, "127.0.0.1:")
		fixed := func(name, greeting string) string {
			return strings.Replace(address0(name, `"filter_chains": [`+chainNamed("c", greeting, "")+`]`), `"port_value": 0`, `"port_value": `+port, 1)
		}
		f.apply([]string{"l"}, fixed("m", "three"))
		if got := f.dial(addr).line(); got != "three" {
			t.Error(got)
		}
		f.apply([]string{"m"}, fixed("n", "four"))
		if got := f.dial(addr).line(); got != "four" {
			t.Error(got)
		}
	})
	_ = old.Close()
	t.Run("the old configuration is given up with its last connection", func(t *testing.T) {
		for range 500 {
			f.mu.Lock()
			n := len(f.closed)
			first := ""
			if n > 0 {
				first = f.closed[0]
			}
			f.mu.Unlock()
			if first == "one" {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
		t.Error("still held")
	})
}

func TestStale(t *testing.T) {
	f := newFixture(t, nil)
	ask := func(second string) string {
		t.Helper()
		config := func(one, two string) string {
			return address0("l", `"filter_chains": [`+chainNamed("one", one, "")+`,`+chainNamed("two", two, `{"destination_port": 1}`)+`]`)
		}
		c := f.dial(f.apply(nil, config("stale?", "x")))
		c.line()
		f.apply(nil, config(second, "y"))
		return c.say("?").line()
	}
	if got := ask("stale?"); got != "false" {
		t.Errorf("another chain of the listener changed: %s", got)
	}
	if got := ask("stale now"); got != "true" {
		t.Errorf("the chain changed: %s", got)
	}
}

func TestDrain(t *testing.T) {
	t.Run("connections of a removed listener are told", func(t *testing.T) {
		f := newFixture(t, nil)
		addr := f.apply(nil, address0("l", `"filter_chains": [`+chainNamed("c", "hi drain", "")+`]`))
		c := f.dial(addr)
		c.line()
		f.apply([]string{"l"})
		if got := c.line(); got != "<end>" {
			t.Error(got)
		}
		if _, err := net.Dial("tcp", addr); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Error(err)
		}
		f.stat("listener_manager.listener_removed", "1")
		f.stat("listener_manager.total_listeners_draining", "0")
	})
	t.Run("and cut after the drain time", func(t *testing.T) {
		f := newFixture(t, func(o *Options) { o.DrainTime = 20 * time.Millisecond })
		c := f.dial(f.apply(nil, address0("l", `"filter_chains": [`+chainNamed("c", "hi", "")+`]`)))
		c.line()
		f.apply([]string{"l"})
		if got := c.line(); got != "<end>" {
			t.Error(got)
		}
	})
	t.Run("a chain that goes drains, its sister stays", func(t *testing.T) {
		f := newFixture(t, nil)
		port := func(n string) string {
			return `{"source_prefix_ranges": [{"address_prefix": "127.0.0.` + n + `", "prefix_len": 32}]}`
		}
		one, two := chainNamed("one", "one drain", port("1")), chainNamed("two", "two drain", "")
		addr := f.apply(nil, address0("l", `"filter_chains": [`+one+`,`+two+`]`))
		c := f.dial(addr)
		if got := c.line(); got != "one" {
			t.Fatal(got)
		}
		f.apply(nil, address0("l", `"filter_chains": [`+two+`]`))
		if got := c.line(); got != "<end>" {
			t.Error(got)
		}
		d := f.dial(addr)
		if got := d.line() + d.say("x\n").line(); got != "twox" {
			t.Error(got)
		}
	})
	t.Run("a drain that does not stop tells the old and serves the new", func(t *testing.T) {
		f := newFixture(t, nil)
		addr := f.apply(nil, address0("l", `"filter_chains": [`+chainNamed("c", "hi drain", "")+`]`))
		c := f.dial(addr)
		c.line()
		f.Drain(false, false)
		if got := c.line(); got != "<end>" {
			t.Error(got)
		}
		d := f.dial(addr)
		if got := d.line() + d.say("x\n").line(); got != "hix" {
			t.Error(got)
		}
		f.Drain(false, true)
		if got := d.line(); got != "<end>" {
			t.Error(got)
		}
	})
	t.Run("EN-001 drain of all stops accepting", func(t *testing.T) {
		f := newFixture(t, nil)
		addr := f.apply(nil, address0("l", `"filter_chains": [`+chainNamed("c", "hi drain", "")+`]`))
		c := f.dial(addr)
		c.line()
		f.Drain(false, true)
		if got := c.line(); got != "<end>" {
			t.Error(got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := f.WaitIdle(ctx); err != nil {
			t.Error(err)
		}
		if _, err := net.Dial("tcp", addr); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Error(err)
		}
	})
}

// A client that has connected and says nothing does not hold up a drain; one that
// speaks in time is served.
func TestDrainOfArrivals(t *testing.T) {
	for _, removed := range []bool{false, true} {
		f := newFixture(t, nil)
		addr := f.apply(nil, address0("l", inspectors+`"filter_chains": [`+chainNamed("c", "hi drain", "")+`]`))
		silent, late := f.dial(addr), f.dial(addr)
		f.stat("listener.127.0.0.1_0.downstream_pre_cx_active", "2")
		if removed {
			f.apply([]string{"l"})
		} else {
			f.Drain(false, true)
		}
		if got := late.say("x\n").line(); got != "hi" {
			t.Errorf("who speaks in time is served: %s", got)
		}
		if got := silent.line(); got != "<end>" {
			t.Error(got)
		}
		if err := f.WaitIdle(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// A socket that is about to be closed gives up the connections that wait in it.
func TestPending(t *testing.T) {
	s, err := bind(address{ip: netip.MustParseAddrPort("127.0.0.1:0")}, bindOptions{backlog: 10})
	if err != nil {
		t.Fatal(err)
	}
	if got := s.pending(); len(got) > 0 {
		t.Errorf("a socket that does not listen yet has %d", len(got))
	}
	if err := s.listen(); err != nil {
		t.Fatal(err)
	}
	defer s.close()
	f := newFixture(t, nil)
	clients := []client{f.dial(s.addr.String()), f.dial(s.addr.String())}
	conns := s.pending()
	if len(conns) != len(clients) {
		t.Fatalf("%d connections", len(conns))
	}
	for i, c := range conns {
		_, _ = io.WriteString(c, "hello\n")
		if got := clients[i].line(); got != "hello" {
			t.Error(got)
		}
		_ = c.Close()
	}
	if got := s.pending(); len(got) > 0 {
		t.Errorf("%d more", len(got))
	}
}

func TestBindErrors(t *testing.T) {
	f := newFixture(t, nil)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	at := func(ip, port string) string {
		return `{"name": "l", "address": {"socket_address": {"address": "` + ip + `", "port_value": ` + port + `}}, "filter_chains": [` + chainNamed("c", "x", "") + `]}`
	}
	for _, c := range []struct{ name, text, want string }{
		{"port in use", at("127.0.0.1", port), "cannot bind '127.0.0.1:" + port + "': Address already in use"},
		{"not our address", at("192.0.2.1", "0"), "cannot bind '192.0.2.1:0': Cannot assign requested address"},
		{"not an address", at("localhost", "0"), "malformed IP address: localhost"},
		{"unknown filter", address0("l", `"filter_chains": [{"filters": [{"name": "envoy.filters.network.mongo_proxy", "typed_config": {"@type": "type.googleapis.com/google.protobuf.Int32Value", "value": 1}}]}]`),
			"filter_chains[0]: filters[0] envoy.filters.network.mongo_proxy: Didn't find a registered implementation for 'envoy.filters.network.mongo_proxy' with type URL: 'google.protobuf.Int32Value'"},
		{"unknown listener filter", address0("l", `"listener_filters": [{"name": "x"}], "filter_chains": [`+chainNamed("c", "x", "")+`]`),
			"listener_filters[0]: Didn't find a registered implementation for 'x' with type URL: ''"},
		{"a field that is not there", address0("l", `"stats_matcher": {}, "filter_chains": [`+chainNamed("c", "x", "")+`]`), "stats_matcher: not supported"},
		{"filter_chain_matcher", address0("l", `"filter_chain_matcher": {}, "filter_chains": [`+chainNamed("c", "x", "")+`]`), "filter_chain_matcher: not supported"},
		{"no chains", address0("l", `"traffic_direction": "INBOUND"`), "error adding listener '127.0.0.1:0': no filter chains specified"},
		{"two chains with one match", address0("l", `"filter_chains": [`+chainNamed("a", "x", "")+`,`+chainNamed("b", "x", "")+`]`),
			"error adding listener '127.0.0.1:0': filter chain 'b' has the same matching rules defined as 'a'"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := f.decode(c.text); err == nil || err.Error() != c.want {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
	t.Run("two listeners on one address", func(t *testing.T) {
		free := strings.TrimPrefix(f.apply(nil, address0("first", `"filter_chains": [`+chainNamed("c", "x", "")+`]`)), "127.0.0.1:")
		a, err1 := f.decode(strings.Replace(at("127.0.0.1", free), `"l"`, `"a"`, 1))
		b, err2 := f.decode(strings.Replace(at("127.0.0.1", free), `"l"`, `"b"`, 1))
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		err := f.Apply([]*Config{a, b}, nil)
		want := "error adding listener: 'b' has duplicate address '127.0.0.1:" + free + "' as existing listener 'a'"
		if err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
		c, err := f.decode(strings.Replace(strings.Replace(at("127.0.0.1", free), `"l"`, `"b"`, 1), `"value": "x"`, `"value": "second"`, 1))
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Apply([]*Config{c}, nil); err == nil {
			t.Error("a changed one is accepted while the other has the address")
		}
		f.apply([]string{"a", "first"})
		if got := f.dial("127.0.0.1:" + free).line(); got != "second" {
			t.Errorf("when the first is gone: %q", got)
		}
	})
}

const inspectors = `"listener_filters": [
 {"name": "tls", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"}},
 {"name": "http", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector"}}], `

func TestInspection(t *testing.T) {
	f := newFixture(t, nil)
	addr := f.apply(nil, address0("l", inspectors+`"filter_chains": [`+
		chainNamed("sni", "saw sni", `{"server_names": ["a.test"]}`)+`,`+
		chainNamed("alpn", "saw alpn", `{"transport_protocol": "tls", "application_protocols": ["istio"]}`)+`,`+
		chainNamed("http", "saw http", `{"application_protocols": ["http/1.1"]}`)+`]`))
	sendHello := func(cfg *tls.Config) client {
		c := f.dial(addr)
		b := recordHello(t, cfg)
		c.say(string(b[:3])) // the inspector has to come back for the rest
		return c.say(string(b[3:]))
	}
	t.Run("server name", func(t *testing.T) {
		c := sendHello(&tls.Config{ServerName: "A.test"})
		if got := c.line(); got != "saw sni" {
			t.Error(got)
		}
		_ = c.Close()
		if got := f.lastLine(); !strings.HasPrefix(got, "-  sni=a.test chain=sni ") {
			t.Error(got)
		}
	})
	t.Run("protocol of TLS", func(t *testing.T) {
		c := sendHello(&tls.Config{InsecureSkipVerify: true, NextProtos: []string{"istio"}})
		if got := c.line(); got != "saw alpn" {
			t.Error(got)
		}
		_ = c.Close()
		f.lastLine()
	})
	t.Run("plain HTTP; the bytes are still there", func(t *testing.T) {
		c := f.dial(addr).say("GET / HTTP/1.1\r\n")
		if got := c.line() + c.line(); got != "saw httpGET / HTTP/1.1\r" {
			t.Error(got)
		}
		_ = c.Close()
		f.lastLine()
	})
	t.Run("WI-019 no chain for the server name: reset, NR, filter_chain_not_found", func(t *testing.T) {
		if got := sendHello(&tls.Config{ServerName: "other.test"}).line(); got != "<reset>" {
			t.Error(got)
		}
		if got, want := f.lastLine(), "NR filter_chain_not_found sni=other.test chain= local="+addr; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		f.stat("listener.127.0.0.1_0.no_filter_chain_match", "1")
	})
	t.Run("the client leaves first", func(t *testing.T) {
		c := f.dial(addr).say("\x16\x03")
		_ = c.Close()
		if got := f.lastLine(); !strings.HasPrefix(got, "-  sni= chain= ") {
			t.Error(got)
		}
		f.stat("listener.127.0.0.1_0.downstream_listener_filter_remote_close", "1")
	})
}

func TestListenerFiltersTimeout(t *testing.T) {
	f := newFixture(t, nil)
	rest := `"listener_filters_timeout": "0.020s", ` + inspectors + `"filter_chains": [` + chainNamed("c", "hello", "") + `]`
	t.Run("closes", func(t *testing.T) {
		addr := f.apply(nil, address0("strict", rest))
		if got := f.dial(addr).line(); got != "<end>" {
			t.Error(got)
		}
		f.stat("listener.127.0.0.1_0.downstream_pre_cx_timeout", "1")
	})
	t.Run("or goes on", func(t *testing.T) {
		addr := f.apply(nil, address0("lenient", `"continue_on_listener_filters_timeout": true, `+rest))
		if got := f.dial(addr).line(); got != "hello" {
			t.Error(got)
		}
	})
	t.Run("a disabled filter does not wait", func(t *testing.T) {
		off := `, "filter_disabled": {"or_match": {"rules": [{"destination_port_range": {"start": 1, "end": 2}}, {"destination_port_range": {"start": 1024, "end": 65536}}]}}}`
		addr := f.apply(nil, address0("off", strings.ReplaceAll(strings.Replace(rest, `0.020s`, `0s`, 1), `Inspector"}}`, `Inspector"}`+off)))
		if got := f.dial(addr).line(); got != "hello" {
			t.Error(got)
		}
	})
}

func TestHandOff(t *testing.T) {
	f := newFixture(t, nil)
	proxied := `"use_original_dst": true, "listener_filters": [{"name": "envoy.filters.listener.proxy_protocol"}], `
	addr := f.apply(nil, address0("outbound", proxied+`"filter_chains": [`+chainNamed("c", "captured", "")+`]`),
		`{"name": "10.0.0.1_80", "bind_to_port": false, "address": {"socket_address": {"address": "10.0.0.1", "port_value": 80}}, "filter_chains": [`+chainNamed("exact", "exact", "")+`]}`,
		`{"name": "0.0.0.0_80", "bind_to_port": false, "address": {"socket_address": {"address": "0.0.0.0", "port_value": 80}}, "filter_chains": [`+chainNamed("any", "any", "")+`]}`)
	for to, want := range map[string]string{
		"TCP4 192.0.2.1 10.0.0.1 4000 80":   "exact",
		"TCP4 192.0.2.1 10.0.0.2 4000 80":   "any",
		"TCP4 192.0.2.1 10.0.0.2 4000 81":   "captured",
		"UNKNOWN":                           "captured",
		"TCP6 2001:db8::1 2001:db8::2 1 80": "captured",
	} {
		t.Run("EN-002 "+to, func(t *testing.T) {
			if got := f.dial(addr).say("PROXY " + to + "\r\n").line(); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
	t.Run("a broken header closes", func(t *testing.T) {
		if got := f.dial(addr).say("PROXY TCP4 x\r\n").line(); got != "<reset>" {
			t.Error(got)
		}
	})
}

func TestWarming(t *testing.T) {
	f := newFixture(t, nil)
	addr := f.apply(nil, address0("l", `"filter_chains": [`+chainNamed("c", "old", "")+`]`))
	f.warm = make(chan struct{})
	f.apply(nil, address0("l", `"filter_chains": [`+chainNamed("c", "new", "")+`]`))
	f.stat("listener_manager.total_listeners_warming", "1")
	if got := f.dial(addr).line(); got != "old" {
		t.Errorf("before it is warm: %s", got)
	}
	settled := f.Settled()
	select {
	case <-settled:
		t.Error("it is settled before it is warm")
	default:
	}
	close(f.warm)
	<-settled
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := f.WaitWarm(ctx); err != nil {
		t.Fatal(err)
	}
	if got := f.dial(addr).line(); got != "new" {
		t.Errorf("when it is warm: %s", got)
	}
}

func TestLimits(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.ConnectionLimit = func(string) int64 { return 1 } })
	addr := f.apply(nil, address0("l", `"filter_chains": [`+chainNamed("c", "hi", "")+`]`))
	c := f.dial(addr)
	c.line()
	if got := f.dial(addr).line(); got != "<end>" {
		t.Error(got)
	}
	f.stat("listener.127.0.0.1_0.downstream_cx_overflow", "1")
	_ = c.Close()
	f.stat("listener.127.0.0.1_0.downstream_cx_active", "0")
	t.Run("OB-020 listener stats", func(t *testing.T) {
		p := "listener.127.0.0.1_0."
		f.stat(p+"downstream_cx_total", "1")
		f.stat(p+"downstream_cx_destroy", "1")
		f.stat("listener_manager.listener_added", "1")
		f.stat("listener_manager.total_listeners_active", "1")
	})
}

// TestStatsGo: the stats of a listener go with it, and so do those of one that was
// refused; those of others stay.
func TestStatsGo(t *testing.T) {
	f := newFixture(t, nil)
	named := func(name, rest string) string {
		return address0(name, `"stat_prefix": "`+name+`", `+rest)
	}
	chains := `"filter_chains": [` + chainNamed("c", "hi", "") + `]`
	addr := f.apply(nil, named("l", chains), named("l.2", chains))
	c := f.dial(addr)
	c.line()
	_ = c.Close()
	f.apply(nil, named("l", chains+`, "metadata": {}`))
	f.stat("listener.l.downstream_cx_total", "1")
	if _, err := f.decode(named("bad", `"filter_chains": []`)); err == nil {
		t.Fatal("accepted")
	}
	f.apply([]string{"l"})
	names := func() (found []string) {
		var b strings.Builder
		_ = f.store.WriteText(&b, stats.Query{}) // a Builder does not fail
		for _, name := range []string{"listener.l.d", "listener.l.2.d", "listener.bad.d"} {
			if strings.Contains(b.String(), name) {
				found = append(found, name)
			}
		}
		return found
	}
	for range 500 {
		if slices.Equal(names(), []string{"listener.l.2.d"}) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Errorf("left: %q", names())
}

func TestFaultEndsOneConnection(t *testing.T) {
	f := newFixture(t, func(o *Options) {
		o.Network = []network.Factory{{Name: "faulty", TypeURLs: []string{"google.protobuf.StringValue"}, New: func(*anypb.Any, network.Env) (network.Built, error) {
			return network.Built{Terminal: faulty{}}, nil
		}}}
	})
	addr := f.apply(nil, address0("l", `"filter_chains": [`+chainNamed("c", "", "")+`]`))
	for range 2 {
		if got := f.dial(addr).line(); got != "<end>" {
			t.Error(got)
		}
	}
}

type faulty struct{}

func (faulty) Serve(context.Context, *network.Conn) { panic("fault") }
