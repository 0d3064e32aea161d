package test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/lateen-mesh/lateen/samples/testca"
	"github.com/lateen-mesh/lateen/test/fixture"
)

// interopCases are gRPC's own tests, but for those that are about credentials of a cloud,
// or about the library itself (balancing, backend metrics).
var interopCases = map[string]func(context.Context, *grpc.ClientConn){
	"empty_unary":             with(func(c context.Context, s testpb.TestServiceClient) { interop.DoEmptyUnaryCall(c, s) }),
	"large_unary":             with(func(c context.Context, s testpb.TestServiceClient) { interop.DoLargeUnaryCall(c, s) }),
	"client_streaming":        with(func(c context.Context, s testpb.TestServiceClient) { interop.DoClientStreaming(c, s) }),
	"server_streaming":        with(func(c context.Context, s testpb.TestServiceClient) { interop.DoServerStreaming(c, s) }),
	"ping_pong":               with(func(c context.Context, s testpb.TestServiceClient) { interop.DoPingPong(c, s) }),
	"empty_stream":            with(func(c context.Context, s testpb.TestServiceClient) { interop.DoEmptyStream(c, s) }),
	"timeout_on_sleeping":     with(func(c context.Context, s testpb.TestServiceClient) { interop.DoTimeoutOnSleepingServer(c, s) }),
	"cancel_after_begin":      with(func(c context.Context, s testpb.TestServiceClient) { interop.DoCancelAfterBegin(c, s) }),
	"cancel_after_first":      with(func(c context.Context, s testpb.TestServiceClient) { interop.DoCancelAfterFirstResponse(c, s) }),
	"custom_metadata":         with(func(c context.Context, s testpb.TestServiceClient) { interop.DoCustomMetadata(c, s) }),
	"status_code_and_message": with(func(c context.Context, s testpb.TestServiceClient) { interop.DoStatusCodeAndMessage(c, s) }),
	"special_status_message":  with(func(c context.Context, s testpb.TestServiceClient) { interop.DoSpecialStatusMessage(c, s) }),
	"unimplemented_method":    interop.DoUnimplementedMethod,
	"unimplemented_service": func(c context.Context, conn *grpc.ClientConn) {
		interop.DoUnimplementedService(c, testpb.NewUnimplementedServiceClient(conn))
	},
}

func with(f func(context.Context, testpb.TestServiceClient)) func(context.Context, *grpc.ClientConn) {
	return func(ctx context.Context, conn *grpc.ClientConn) { f(ctx, testpb.NewTestServiceClient(conn)) }
}

// interopEnv makes the test binary gRPC's client for one of its tests: "CASE ADDR [ROOTS]".
// The client ends its process when a test fails.
const interopEnv = "LATEEN_INTEROP"

func TestInteropClient(t *testing.T) {
	asked := strings.Fields(os.Getenv(interopEnv))
	if len(asked) < 2 {
		t.Skip("this is the client of TestInterop, which starts it with " + interopEnv)
	}
	secure := insecure.NewCredentials()
	if len(asked) > 2 {
		pem, err := os.ReadFile(asked[2])
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(pem)
		secure = credentials.NewTLS(&tls.Config{RootCAs: roots, ServerName: "interop.test", MinVersion: tls.VersionTLS12})
	}
	conn, err := grpc.NewClient("passthrough:///"+asked[1], grpc.WithTransportCredentials(secure), grpc.WithAuthority("interop.test"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	interopCases[asked[0]](ctx, conn)
}

// TestInterop: grpc-go's client and server understand each other through the proxy, on
// plain text and over TLS on both sides.
func TestInterop(t *testing.T) {
	ca, err := testca.New()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Certificate("server.test")
	if err != nil {
		t.Fatal(err)
	}
	plain := interopServer(t, insecure.NewCredentials())
	secure := interopServer(t, credentials.NewServerTLSFromCert(&cert))
	c := &fixture.Case{Name: "interop", Bootstrap: fmt.Sprintf(interopBootstrap, plain, secure)}
	m := fixture.NewMesh(t, c, programs(t), []fixture.Peer{ours(t)})
	roots := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(roots, m.CA.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	for name := range interopCases {
		t.Run("plain "+name, func(t *testing.T) { interopClient(t, name, m.Gateways[0].Addr(80)) })
		t.Run("TLS "+name, func(t *testing.T) { interopClient(t, name, m.Gateways[0].Addr(2), roots) })
	}
}

func interopClient(t *testing.T, asked ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestInteropClient$")
	cmd.Env = append(os.Environ(), interopEnv+"="+strings.Join(asked, " "))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// interopServer serves gRPC's tests and returns its port.
func interopServer(t *testing.T, secure credentials.TransportCredentials) int {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.Creds(secure))
	testpb.RegisterTestServiceServer(s, interop.NewTestServer())
	go func() { _ = s.Serve(l) }() // it ends by Stop
	t.Cleanup(s.Stop)
	return l.Addr().(*net.TCPAddr).Port
}

const interopBootstrap = `
static_resources:
  listeners:
  - name: plain
    address: {socket_address: {address: 127.0.0.1, port_value: ${listen}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: plain
          http_filters: &filters
          - name: envoy.filters.http.grpc_stats
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig, emit_filter_state: true}
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
          route_config: {name: plain, virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: plain, timeout: 0s}}]}]}
  - name: secure
    address: {socket_address: {address: 127.0.0.1, port_value: ${listen2}}}
    filter_chains:
    - transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [h2]
            tls_certificates: [{certificate_chain: {filename: "${cert interop.test}"}, private_key: {filename: "${key interop.test}"}}]
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: secure
          http_filters: *filters
          route_config: {name: secure, virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: secure, timeout: 0s}}]}]}
  clusters:
  - name: plain
    type: STATIC
    connect_timeout: 5s
    typed_extension_protocol_options: &h2
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment:
      cluster_name: plain
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}]}]
  - name: secure
    type: STATIC
    connect_timeout: 5s
    typed_extension_protocol_options: *h2
    transport_socket:
      name: tls
      typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, sni: server.test}
    load_assignment:
      cluster_name: secure
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}]}]
`
