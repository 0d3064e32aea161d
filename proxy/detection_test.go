package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A peer is a TCP server whose connections a test serves itself.
type peer struct {
	addr  string
	conns chan net.Conn
	r     *running // that connects to it
}

func newPeer(t *testing.T) *peer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{addr: ln.Addr().String(), conns: make(chan net.Conn, 10)}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_ = c.SetDeadline(time.Now().Add(20 * time.Second))
			t.Cleanup(func() { _ = c.Close() })
			p.conns <- c
		}
	})
	t.Cleanup(func() { _ = ln.Close(); wg.Wait() })
	return p
}

// detecting is a sidecar's listener on a port without a protocol: HTTP goes to the
// application, everything else to a TCP server. The mesh sets no time limit.
func detecting(t *testing.T, app, server string) *running {
	t.Helper()
	return start(t, fmt.Sprintf(`
node: {id: n, cluster: c}
static_resources:
  clusters: [%s, %s]
  listeners:
  - name: l
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    listener_filters_timeout: 0s
    continue_on_listener_filters_timeout: true
    listener_filters:
    - {name: tls, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}
    - {name: http, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector}}
    filter_chains:
    - filter_chain_match: {transport_protocol: raw_buffer, application_protocols: [http/1.1, h2c]}
      filters:
      - name: h
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: h
          http_filters: [{name: r, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
          route_config: {virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: app}}]}]}
    default_filter_chain:
      filters: [{name: tcp, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: p, cluster: server}}]
`, staticCluster("app", app), staticCluster("server", server)))
}

// TestDetection: who speaks first decides the protocol of a connection. A client that says
// nothing for a moment gets a connection to the server, in case the server has something to
// say.
func TestDetection(t *testing.T) {
	app := answering(t)
	for _, c := range []struct {
		name string
		run  func(t *testing.T, client *keeper, p *peer)
	}{
		{"WI-021 the server speaks first", func(t *testing.T, client *keeper, p *peer) {
			server := <-p.conns
			say(t, server, "220 hello\r\n")
			hear(t, client.r, "220 hello\r\n")
			say(t, client.c, "EHLO me\r\n")
			hear(t, server, "EHLO me\r\n")
			_ = server.Close()
			client.ended()
		}},
		{"the client speaks first, HTTP", func(_ *testing.T, client *keeper, p *peer) {
			client.ask()
			if len(p.conns) > 0 {
				t.Error("the server was connected to for nothing")
			}
		}},
		{"HTTP after a while: the connection to the server is given up", func(t *testing.T, client *keeper, p *peer) {
			server := <-p.conns
			client.ask()
			if _, err := server.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Errorf("the server's connection should have ended: %v", err)
			}
			client.ask()
		}},
		{"something else after a while: the connection to the server is used", func(t *testing.T, client *keeper, p *peer) {
			server := <-p.conns
			p.r.eventually("/stats", "cluster.server.upstream_cx_active: 1\n") // it is there for the proxy too
			say(t, client.c, "\x00\x01hi")
			hear(t, server, "\x00\x01hi")
			say(t, server, "there")
			hear(t, client.r, "there")
			if len(p.conns) > 0 {
				t.Error("the server was connected to twice")
			}
		}},
		{"the client leaves without a word", func(t *testing.T, client *keeper, p *peer) {
			server := <-p.conns
			_ = client.c.Close()
			if _, err := server.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Errorf("the server's connection should have ended: %v", err)
			}
		}},
		{"the server leaves without a word: the client may still speak", func(_ *testing.T, client *keeper, p *peer) {
			_ = (<-p.conns).Close()
			client.ask()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPeer(t)
			p.r = detecting(t, app, p.addr)
			c.run(t, newKeeper(t, p.r.listener("l")), p)
		})
	}
	t.Run("there is no server: the client may still speak", func(t *testing.T) {
		t.Parallel()
		r := detecting(t, app, nobody(t))
		client := newKeeper(t, r.listener("l"))
		r.eventually("/stats", "cluster.server.upstream_cx_connect_fail: 1\n")
		client.ask()
	})
}

// nobody is an address that is taken, where nobody listens.
func nobody(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", at.(*unix.SockaddrInet4).Port)
}

func say(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

func hear(t *testing.T, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Fatalf("%q, %v, want %q", got[:n], err, want)
	}
}
