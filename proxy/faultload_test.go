package proxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/lateen-mesh/lateen/wellknown"
)

// TestHandshakesCutOff ends a client's connection after every byte of its hello, and says
// other things instead: nothing is left behind, and the next client is served.
func TestHandshakesCutOff(t *testing.T) {
	cert := certificate(t, "a.test")
	chain, key := certificateFiles(t, cert)
	a := newApplication(t)
	secure := fmt.Sprintf(`filter_chains: [{transport_socket: {name: tls, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext,
     common_tls_context: {tls_certificates: [{certificate_chain: {filename: %q}, private_key: {filename: %q}}]}}}, filters`, chain, key)
	r := start(t, `
static_resources:
  clusters: [`+staticCluster("app", a.addr)+`]
  listeners: [`+strings.Replace(tcpListener("l", "app"), "filter_chains: [{filters", secure, 1)+`]
`)
	addr := r.listener("l")
	serve := func() {
		c, err := tls.Dial("tcp", addr, &tls.Config{ServerName: "a.test", RootCAs: pool(t, cert), NextProtos: []string{"http/1.1"}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = io.WriteString(c, request("tls"))
		if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != 200 {
			t.Fatalf("%v, %v", resp, err)
		}
	}
	serve()
	rest := func() usage { return calm(t, a, r) }
	before := rest()
	hello := helloOf(t)
	for _, e := range endings {
		for i := range hello {
			c := dial(t, addr)
			_, _ = c.Write(hello[:i])
			e.end(c)
		}
	}
	for _, odd := range []string{"GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01\xff\xff", "\x16\x03\x01\x00\x01\x00", "\x15\x03\x01\x00\x02\x02\x00", strings.Repeat("\x00", 100), "\x16\x03\x01\x00\x04\x01\xff\xff\xff"} {
		c := dial(t, addr)
		_, _ = io.WriteString(c, odd)
		_ = c.CloseWrite()
		_, _ = io.Copy(io.Discard, c)
		_ = c.Close()
	}
	serve()
	if now := rest(); now.goroutines > before.goroutines || now.descriptors > before.descriptors {
		t.Errorf("holds %+v, held %+v before", now, before)
	}
}

// calm waits until the listener and the application have no connection, and says what is held.
func calm(t *testing.T, a *application, r *running) usage {
	t.Helper()
	r.eventually("/stats?filter=downstream_cx_active", "downstream_cx_active: 0\n")
	a.hangUp()
	r.eventually("/stats?filter=^cluster.app.upstream_cx_active", "upstream_cx_active: 0\n")
	return settled(t, r)
}

// helloOf is the first message of a TLS client.
func helloOf(t *testing.T) []byte {
	t.Helper()
	ours, theirs := net.Pipe()
	defer ours.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = tls.Client(theirs, &tls.Config{ServerName: "a.test", MinVersion: tls.VersionTLS12}).Handshake()
	}()
	b := make([]byte, 4096)
	n, err := ours.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	_ = ours.Close()
	<-done
	return bytes.Clone(b[:n])
}

// TestRefusalsUnderLoad has the control plane send resources that are refused, again and
// again, while requests flow: none is lost, each refusal is told, and the last good state
// is in force.
func TestRefusalsUnderLoad(t *testing.T) {
	m := newManagement(t)
	a := newApplication(t)
	listener := func(extra string) string {
		return `
name: l
address: {socket_address: {address: 127.0.0.1, port_value: 0}}
filter_chains: [{filters: [{name: http, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: in, ` + extra + `
  route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: app}}]}]},
  http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}]}]`
	}
	m.set(t, wellknown.ClusterType, cds(t, staticCluster("app", a.addr)))
	m.set(t, wellknown.ListenerType, lds(t, listener("")))
	r := start(t, m.bootstrap(""))
	addr := r.listener("l")
	if nack := m.next(t, wellknown.ListenerType); nack != "" {
		t.Fatal(nack)
	}
	var stop atomic.Bool
	var answered, lost atomic.Int64
	var load sync.WaitGroup
	for range 4 {
		load.Go(func() {
			var c net.Conn
			var in *bufio.Reader
			for !stop.Load() {
				if c == nil {
					var err error
					if c, err = net.Dial("tcp", addr); err != nil {
						lost.Add(1)
						return
					}
					in = bufio.NewReader(c)
				}
				_, _ = io.WriteString(c, request("load"))
				resp, err := http.ReadResponse(in, nil)
				if err == nil {
					_, err = io.Copy(io.Discard, resp.Body)
				}
				if err != nil || resp.StatusCode != 200 {
					lost.Add(1)
				}
				if answered.Add(1)%50 == 0 || err != nil {
					_ = c.Close()
					c = nil
				}
			}
			if c != nil {
				_ = c.Close()
			}
		})
	}
	refused := 0
	for i := range 40 {
		if i%2 == 0 {
			m.set(t, wellknown.ListenerType, lds(t, listener(`codec_type: HTTP3,`)))
		} else {
			m.set(t, wellknown.ListenerType, lds(t, listener(``)))
		}
		if m.next(t, wellknown.ListenerType) != "" {
			refused++
		}
	}
	stop.Store(true)
	load.Wait()
	if refused != 20 || lost.Load() > 0 || answered.Load() == 0 {
		t.Errorf("%d refused of 20; %d requests lost, %d answered", refused, lost.Load(), answered.Load())
	}
}

// certificateFiles are a certificate and its key as files.
func certificateFiles(t *testing.T, cert tls.Certificate) (chain, key string) {
	t.Helper()
	dir := t.TempDir()
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	chain, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{chain: {Type: "CERTIFICATE", Bytes: cert.Certificate[0]}, key: {Type: "PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return chain, key
}
