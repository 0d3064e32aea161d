package cluster

import (
	"net/netip"
	"slices"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/lateen-mesh/lateen/proxy/transport"
)

// TestInheritedBind: what the bootstrap's cluster manager says of sockets is for clusters
// that do not say it themselves.
func TestInheritedBind(t *testing.T) {
	const mark, own = `{"level": 1, "name": 36, "int_value": 1337, "state": "STATE_PREBIND"}`, `{"level": 6, "name": 1, "int_value": 1, "state": "STATE_PREBIND"}`
	marked, other := transport.SocketOption{Level: 1, Name: 36, Value: 1337}, transport.SocketOption{Level: 6, Name: 1, Value: 1}
	six := netip.MustParseAddrPort("127.0.0.6:0")
	for _, c := range []struct {
		name, shared, cluster string
		source                netip.AddrPort
		options               []transport.SocketOption
	}{
		{"nothing", ``, ``, netip.AddrPort{}, nil},
		{"the cluster manager's", `"socket_options": [` + mark + `]`, ``, netip.AddrPort{}, []transport.SocketOption{marked}},
		{"a source of its own, marked all the same", `"socket_options": [` + mark + `]`, `"source_address": {"address": "127.0.0.6", "port_value": 0}`,
			six, []transport.SocketOption{marked}},
		{"options of its own", `"socket_options": [` + mark + `]`, `"socket_options": [` + own + `]`, netip.AddrPort{}, []transport.SocketOption{other}},
		{"freebind of both", `"freebind": true`, `"source_address": {"address": "127.0.0.6", "port_value": 0}`, six, []transport.SocketOption{transport.FreeBind}},
		{"freebind refused", `"freebind": true`, `"freebind": false`, netip.AddrPort{}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var shared *corev3.BindConfig
			if c.shared != "" {
				shared = &corev3.BindConfig{}
				if err := protojson.Unmarshal([]byte("{"+c.shared+"}"), shared); err != nil {
					t.Fatal(err)
				}
			}
			text := `{"name": "a"}`
			if c.cluster != "" {
				text = `{"name": "a", "upstream_bind_config": {` + c.cluster + `}}`
			}
			cfg, err := decode(newCluster(t, text), shared, true)
			if err != nil {
				t.Fatal(err)
			}
			if cfg.dialer.Source != c.source || !slices.Equal(cfg.dialer.Options, c.options) {
				t.Errorf("source %v, options %v", cfg.dialer.Source, cfg.dialer.Options)
			}
		})
	}
}
