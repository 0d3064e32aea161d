package proxy

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// TestIdleConnections: what a connection costs that has had its request and waits for
// the next one. A storm of them leaves no more than that behind.
func TestIdleConnections(t *testing.T) {
	t.Parallel()                       // it waits for the collector of another process
	const connections, limit = 1000, 8 // KB for each
	r, cmd := process(t, build(t), `
static_resources: {listeners: [{name: l, address: {socket_address: {address: 127.0.0.1, port_value: 0}}, filter_chains: [{filters: [{name: hcm, typed_config: {
  "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: p,
  route_config: {virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {prefix: /}, direct_response: {status: 204}}]}]},
  http_filters: [{name: r, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}]}]}]}
`)
	r.eventually("/ready", "LIVE\n")
	addr := r.listener("l")
	ask := func(c net.Conn) {
		answer := make([]byte, 4<<10)
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(answer); err != nil || !strings.HasPrefix(string(answer[:n]), "HTTP/1.1 204 ") {
			t.Fatal(string(answer[:n]), err)
		}
	}
	first := dial(t, addr)
	ask(first)
	before := shareKB(t, cmd.Process.Pid)
	all := make([]net.Conn, connections)
	for i := range all {
		all[i] = dial(t, addr)
		ask(all[i])
	}
	each := 0
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(250 * time.Millisecond) {
		if each = (shareKB(t, cmd.Process.Pid) - before) / connections; each < limit {
			break
		}
	}
	if each >= limit {
		t.Errorf("%d KB for each idle connection, bound %d", each, limit)
	}
	ask(all[0]) // it is still good
}
