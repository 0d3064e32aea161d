package listener

import (
	"net/netip"
	"testing"

	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/encoding/protojson"
)

func matchOf(t *testing.T, text string) chainMatch {
	t.Helper()
	var m listenerpb.FilterChainMatch
	if err := protojson.Unmarshal([]byte(text), &m); err != nil {
		t.Fatal(err)
	}
	c, err := compileChainMatch(&m)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// chains by name with their matches, in an order that should not matter.
var matchTable = map[string]string{
	"exact":       `{"server_names": ["a.test"], "transport_protocol": "tls"}`,
	"wild":        `{"server_names": ["*.a.test"]}`,
	"longer wild": `{"server_names": ["*.b.a.test", "*.c.a.test"]}`,
	"plain":       `{"transport_protocol": "raw_buffer"}`,
	"plain http":  `{"transport_protocol": "raw_buffer", "application_protocols": ["http/1.1", "h2c"]}`,
	"tls":         `{"transport_protocol": "tls"}`,
	"tls istio":   `{"transport_protocol": "tls", "application_protocols": ["istio"]}`,
	"tls h2":      `{"transport_protocol": "tls", "application_protocols": ["h2"]}`,
	"port":        `{"destination_port": 9000}`,
	"port net":    `{"destination_port": 9000, "prefix_ranges": [{"address_prefix": "10.1.0.0", "prefix_len": 16}]}`,
	"port host":   `{"destination_port": 9000, "prefix_ranges": [{"address_prefix": "10.1.2.3", "prefix_len": 32}], "application_protocols": ["h2"]}`,
	"local":       `{"destination_port": 7000, "source_type": "SAME_IP_OR_LOOPBACK"}`,
	"external":    `{"destination_port": 7000, "source_type": "EXTERNAL"}`,
	"source":      `{"destination_port": 7001, "source_prefix_ranges": [{"address_prefix": "192.0.2.0", "prefix_len": 24}]}`,
	"source port": `{"destination_port": 7001, "source_prefix_ranges": [{"address_prefix": "192.0.2.0", "prefix_len": 24}], "source_ports": [4444]}`,
	"v6":          `{"prefix_ranges": [{"address_prefix": "2001:db8::", "prefix_len": 32}]}`,
}

func TestChainMatch(t *testing.T) {
	var chains []*chain
	for name, text := range matchTable {
		chains = append(chains, &chain{name: name, match: matchOf(t, text)})
	}
	fallback := &chain{name: "default"}
	for _, c := range []struct {
		name          string
		local, remote string
		a             accepted
		want          string
	}{
		{"exact server name", "10.0.0.1:443", "192.0.2.9:1", accepted{transport: "tls", serverName: "a.test"}, "exact"},
		{"wildcard", "10.0.0.1:443", "192.0.2.9:1", accepted{transport: "tls", serverName: "x.a.test"}, "wild"},
		{"the longest wildcard", "10.0.0.1:443", "192.0.2.9:1", accepted{transport: "tls", serverName: "x.c.a.test"}, "longer wild"},
		{"a wildcard does not match its own suffix", "10.0.0.1:443", "192.0.2.9:1", accepted{transport: "tls", serverName: "b.a.test"}, "wild"},
		{"no server name, TLS", "10.0.0.1:443", "192.0.2.9:1", accepted{transport: "tls"}, "tls"},
		{"the client's first protocol that a chain names", "10.0.0.1:443", "192.0.2.9:1",
			accepted{transport: "tls", protocols: []string{"other", "h2", "istio"}}, "tls h2"},
		{"a protocol that no chain names", "10.0.0.1:443", "192.0.2.9:1", accepted{transport: "tls", protocols: []string{"other"}}, "tls"},
		{"a server name is decided before the transport protocol", "10.0.0.1:443", "192.0.2.9:1",
			accepted{transport: "raw_buffer", serverName: "a.test"}, "default"},
		{"plain", "10.0.0.1:80", "192.0.2.9:1", accepted{transport: "raw_buffer"}, "plain"},
		{"plain HTTP", "10.0.0.1:80", "192.0.2.9:1", accepted{transport: "raw_buffer", protocols: []string{"http/1.1"}}, "plain http"},
		{"the port comes first", "10.0.0.1:9000", "192.0.2.9:1", accepted{transport: "tls", serverName: "a.test"}, "port"},
		{"the longer prefix", "10.1.9.9:9000", "192.0.2.9:1", accepted{transport: "raw_buffer"}, "port net"},
		{"no way back from a lost criterion", "10.1.2.3:9000", "192.0.2.9:1", accepted{transport: "raw_buffer"}, "default"},
		{"from this machine", "10.0.0.1:7000", "127.0.0.1:1", accepted{transport: "raw_buffer"}, "local"},
		{"from the same address", "10.0.0.1:7000", "10.0.0.1:1", accepted{transport: "raw_buffer"}, "local"},
		{"from elsewhere", "10.0.0.1:7000", "192.0.2.9:1", accepted{transport: "raw_buffer"}, "external"},
		{"source prefix", "10.0.0.1:7001", "192.0.2.9:1", accepted{transport: "raw_buffer"}, "source"},
		{"source port", "10.0.0.1:7001", "192.0.2.9:4444", accepted{transport: "raw_buffer"}, "source port"},
		{"source that no chain names", "10.0.0.1:7001", "198.51.100.1:1", accepted{transport: "raw_buffer"}, "default"},
		{"IPv6 prefix", "[2001:db8::1]:80", "[2001:db8::2]:1", accepted{transport: "raw_buffer"}, "v6"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.a.local, c.a.remote = netip.MustParseAddrPort(c.local), netip.MustParseAddrPort(c.remote)
			c.a.direct = c.a.remote
			if got := choose(chains, fallback, &c.a, nil); got.name != c.want {
				t.Errorf("got %q, want %q", got.name, c.want)
			}
		})
	}
	t.Run("nothing matches and there is no default", func(t *testing.T) {
		a := accepted{local: netip.MustParseAddrPort("10.0.0.1:7001"), remote: netip.MustParseAddrPort("198.51.100.1:1")}
		if got := choose(chains, nil, &a, nil); got != nil {
			t.Errorf("got %q", got.name)
		}
	})
}

func TestChainMatchRefusals(t *testing.T) {
	for text, want := range map[string]string{
		`{"server_names": ["*"]}`:                            `server_names: partial wildcards are not supported in "*"`,
		`{"server_names": ["a*.test"]}`:                      `server_names: partial wildcards are not supported in "a*.test"`,
		`{"prefix_ranges": [{"address_prefix": "nowhere"}]}`: `prefix_ranges[0]: malformed IP address: nowhere`,
		`{"address_suffix": "x"}`:                            `contains unimplemented fields`,
	} {
		var m listenerpb.FilterChainMatch
		if err := protojson.Unmarshal([]byte(text), &m); err != nil {
			t.Fatal(err)
		}
		if _, err := compileChainMatch(&m); err == nil || err.Error() != want {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestEmptyServerName: an empty name among the names of a chain stands for any.
func TestEmptyServerName(t *testing.T) {
	named, any := &chain{match: matchOf(t, `{"server_names": ["a.test"]}`)}, &chain{match: matchOf(t, `{"server_names": [""]}`)}
	for sni, want := range map[string]*chain{"a.test": named, "b.test": any, "": any} {
		a := accepted{serverName: sni, local: netip.MustParseAddrPort("1.2.3.4:5"), remote: netip.MustParseAddrPort("1.2.3.4:6")}
		if got := choose([]*chain{any, named}, nil, &a, nil); got != want {
			t.Errorf("%q: another chain", sni)
		}
	}
}

func TestChooseAllocatesNothing(t *testing.T) {
	chains := []*chain{{match: matchOf(t, `{"server_names": ["a.test"]}`)}, {match: matchOf(t, `{}`)}}
	a := accepted{serverName: "a.test", local: netip.MustParseAddrPort("1.2.3.4:5"), remote: netip.MustParseAddrPort("1.2.3.4:6")}
	if n := testing.AllocsPerRun(100, func() { choose(chains, nil, &a, nil) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
