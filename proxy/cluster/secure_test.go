package cluster

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/lb"
	"github.com/lateen-mesh/lateen/proxy/transport"
	"github.com/lateen-mesh/lateen/proxy/upstream"
	"github.com/lateen-mesh/lateen/proxy/xds"
	"github.com/lateen-mesh/lateen/proxy/xds/xdstest"
	"github.com/lateen-mesh/lateen/wellknown"
)

// selfSigned returns a certificate that is its own root.
func selfSigned(t testing.TB, names ...string) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// origin is a TLS server that answers each request with 200 and notes the server names.
type origin struct {
	addr  string
	mu    sync.Mutex
	names []string
}

func newOrigin(t testing.TB, cert tls.Certificate) *origin {
	t.Helper()
	o := &origin{}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.names = append(o.names, h.ServerName)
		return &cert, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	o.addr = l.Addr().String()
	var open sync.WaitGroup
	open.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() { answer(c) })
		}
	})
	t.Cleanup(func() { l.Close(); open.Wait() })
	return o
}

// answer answers requests without bodies until the client leaves.
func answer(c net.Conn) {
	defer c.Close()
	var last [4]byte
	for b := make([]byte, 1); ; {
		if _, err := c.Read(b); err != nil {
			return
		}
		copy(last[:], last[1:])
		if last[3] = b[0]; string(last[:]) == "\r\n\r\n" {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
		}
	}
}

func get(t testing.TB, c *Cluster, host string) (int, error) {
	t.Helper()
	ep := c.Pick(&lb.Context{})
	pool := c.HTTP(ep, upstream.Wish{Authority: []byte(host)})
	x, err := pool.Acquire(nil, time.Time{})
	if err != nil {
		return 0, err
	}
	defer x.Release()
	req := &http.Request{Method: []byte("GET"), Authority: []byte(host), Path: []byte("/"), Protocol: http.HTTP11, Body: http.NoBody}
	if err := x.WriteHead(req, true); err != nil {
		return 0, err
	}
	var resp http.Response
	if err := x.ReadHead(&resp); err != nil {
		return 0, err
	}
	for {
		if _, err := resp.Body.Next(); err != nil {
			return resp.Status, nil
		}
	}
}

const upstreamTLS = `"name": "envoy.transport_sockets.tls", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"`

func TestAutoSNI(t *testing.T) {
	cert, root := selfSigned(t, "one.test", "two.test")
	o := newOrigin(t, cert)
	trusted := &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: root}}
	pb := newCluster(t, `{"name": "a", "load_assignment": `+to(o.addr)+`, "typed_extension_protocol_options":
		{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
		"explicit_http_config": {"http_protocol_options": {}}, "upstream_http_protocol_options": {"auto_sni": true, "auto_san_validation": true}}}}`)
	pb.TransportSocket = tlsSocket(t, &tlsv3.UpstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{
		ValidationContextType: &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{TrustedCa: trusted}}}})
	cs := New(Options{Logger: slog.New(slog.DiscardHandler)})
	t.Cleanup(cs.Close)
	if err := cs.AddStatic(pb); err != nil {
		t.Fatal(err)
	}
	c := cs.Get("a")
	t.Run("DR-047 the server name is the host of the request", func(t *testing.T) {
		for _, host := range []string{"one.test", "two.test:443", "one.test"} {
			if status, err := get(t, c, host); err != nil || status != 200 {
				t.Fatalf("%s: %d, %v", host, status, err)
			}
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		if len(o.names) != 2 || o.names[0] != "one.test" || o.names[1] != "two.test" {
			t.Errorf("asked for %q; the third request had a connection", o.names)
		}
	})
	t.Run("a certificate for another name is refused", func(t *testing.T) {
		if status, err := get(t, c, "three.test"); err == nil {
			t.Errorf("status %d", status)
		}
	})
}

func tlsSocket(t testing.TB, c *tlsv3.UpstreamTlsContext) *corev3.TransportSocket {
	t.Helper()
	body, err := anypb.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return &corev3.TransportSocket{Name: "envoy.transport_sockets.tls", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: body}}
}

// A cluster whose roots come by SDS is live when they have come, and verifies by the
// ones of the moment.
func TestSecretsWarm(t *testing.T) {
	cert, root := selfSigned(t, "a")
	_, other := selfSigned(t, "a")
	o := newOrigin(t, cert)
	srv := xdstest.New(t)
	client := xds.New(xds.Options{Dial: srv.Dial, Delta: true, Logger: slog.New(slog.DiscardHandler)})
	source := func(*corev3.ConfigSource) (*xds.Client, error) { return client, nil }
	cs := New(Options{Source: source, Secrets: transport.NewSecrets(source), Logger: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); client.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done; cs.Close() })
	srv.Set("a", newCluster(t, `{"name": "a", "load_assignment": `+to(o.addr)+`, "transport_socket": {`+upstreamTLS+`,
		"common_tls_context": {"validation_context_sds_secret_config": {"name": "ROOTCA", "sds_config": {"ads": {}, "initial_fetch_timeout": "0s"}}}}}}`))
	cs.Start(client, 0)
	srv.Settle(t, wellknown.ClusterType)
	if cs.Get("a") != nil {
		t.Fatal("live without its root")
	}
	secret := func(pem []byte) *tlsv3.Secret {
		return &tlsv3.Secret{Name: "ROOTCA", Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
			TrustedCa: &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: pem}}}}}
	}
	srv.Set("ROOTCA", secret(root))
	<-cs.Initialized()
	c := cs.Get("a")
	if status, err := get(t, c, "a"); err != nil || status != 200 {
		t.Fatalf("%d, %v", status, err)
	}
	srv.Set("ROOTCA", secret(other))
	srv.Settle(t, wellknown.SecretType)
	if status, err := get(t, c, "a"); err != nil || status != 200 {
		t.Errorf("the open connection must live on: %d, %v", status, err)
	}
	cs.Drain()
	if status, err := get(t, c, "a"); err == nil {
		t.Errorf("status %d by a root that is not trusted any more", status)
	}
}
