package cluster

import (
	"fmt"
	"log/slog"
	"net"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lateen-mesh/lateen/proxy/transport"
	"github.com/lateen-mesh/lateen/test/ports"
)

func TestInTurn(t *testing.T) {
	for _, c := range []struct {
		first      string
		more, want []string
	}{
		{"10.0.0.1:80", nil, []string{"10.0.0.1:80"}},
		{"10.0.0.1:80", []string{"10.0.0.2:80", "[::1]:80", "[::2]:80"}, []string{"10.0.0.1:80", "[::1]:80", "10.0.0.2:80", "[::2]:80"}},
		{"[::1]:80", []string{"[::2]:80", "10.0.0.1:80"}, []string{"[::1]:80", "10.0.0.1:80", "[::2]:80"}},
		{"[::1]:80", []string{"[::2]:80", "[::3]:80"}, []string{"[::1]:80", "[::2]:80", "[::3]:80"}},
	} {
		if diff := cmp.Diff(c.want, inTurn(c.first, c.more)); diff != "" {
			t.Errorf("%s and %v (-want +got):\n%s", c.first, c.more, diff)
		}
	}
}

// An endpoint of several addresses is reached by any that answers.
func TestSeveralAddresses(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	open := l.Addr().(*net.TCPAddr).Port
	for _, c := range []struct {
		name          string
		first, second int
		ok            bool
	}{
		{"the first answers", open, ports.One(), true},
		{"the first refuses", ports.One(), open, true},
		{"both refuse", ports.One(), ports.One(), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			cs := New(Options{Logger: slog.New(slog.DiscardHandler)})
			defer cs.Close()
			if err := cs.AddStatic(newCluster(t, fmt.Sprintf(`{"name": "a", "load_assignment": {"cluster_name": "a", "endpoints": [{"lb_endpoints": [{"endpoint": {
				"address": {"socket_address": {"address": "127.0.0.1", "port_value": %d}},
				"additional_addresses": [{"address": {"socket_address": {"address": "127.0.0.1", "port_value": %d}}}]}}]}]}}`, c.first, c.second))); err != nil {
				t.Fatal(err)
			}
			a := cs.Get("a")
			conn, err := a.Dial(t.Context(), a.Endpoints()[0], transport.Target{})
			if (err == nil) != c.ok {
				t.Fatalf("error %v", err)
			}
			if conn != nil {
				_ = conn.Close()
			}
		})
	}
}
