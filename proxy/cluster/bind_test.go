package cluster

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/lateen-mesh/lateen/proxy/transport"
)

// TestControl: the resolver's sockets bear the proxy's mark, and nothing that is for TCP.
func TestControl(t *testing.T) {
	var b corev3.BindConfig
	text := `{"source_address": {"address": "127.0.0.6", "port_value": 0}, "socket_options": [
		{"level": 1, "name": 36, "int_value": 1337, "state": "STATE_PREBIND"}, {"level": 6, "name": 1, "int_value": 1, "state": "STATE_PREBIND"}]}`
	if err := protojson.Unmarshal([]byte(text), &b); err != nil {
		t.Fatal(err)
	}
	d := net.Dialer{Control: ControlOf(&b)}
	c, err := d.Dial("udp", "127.0.0.1:53")
	if errors.Is(err, unix.EPERM) {
		t.Skip("marks are for who may administer the network")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	mark, failed := 0, error(nil)
	if err := raw.Control(func(fd uintptr) { mark, failed = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK) }); err != nil || failed != nil || mark != 1337 {
		t.Errorf("mark %d, %v, %v", mark, err, failed)
	}
	if ControlOf(nil) != nil {
		t.Error("nothing is to be set without a bind config")
	}
}

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
			cfg, err := decode(newCluster(t, text), shared)
			if err != nil {
				t.Fatal(err)
			}
			if cfg.dialer.Source != c.source || !slices.Equal(cfg.dialer.Options, c.options) {
				t.Errorf("source %v, options %v", cfg.dialer.Source, cfg.dialer.Options)
			}
		})
	}
}
