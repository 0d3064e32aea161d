package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretpb "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	_ "istio.io/api/envoy/config/filter/http/alpn/v2alpha1"

	"github.com/lateen-mesh/lateen/wellknown"
)

// management is an ADS server in the state-of-the-world form: it answers a
// subscription with everything it has of the type, and again after each set.
type management struct {
	discoverypb.UnimplementedAggregatedDiscoveryServiceServer
	addr string

	mu        sync.Mutex
	resources map[string][]*anypb.Any // by type; a type that is absent is not answered
	version   int
	changed   chan struct{}
	answers   chan answer
}

// answer is what a proxy said to a response.
type answer struct{ typeURL, nack string }

func newManagement(t *testing.T) *management {
	t.Helper()
	m := &management{resources: map[string][]*anypb.Any{}, changed: make(chan struct{}), answers: make(chan answer, 1000)}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.addr = ln.Addr().String()
	srv := grpc.NewServer()
	discoverypb.RegisterAggregatedDiscoveryServiceServer(srv, m)
	secretpb.RegisterSecretDiscoveryServiceServer(srv, secretServer{m: m})
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(ln) })
	t.Cleanup(func() { srv.Stop(); wg.Wait() })
	return m
}

func (m *management) set(t *testing.T, typeURL string, list ...proto.Message) {
	t.Helper()
	var out []*anypb.Any
	for _, r := range list {
		a, err := anypb.New(r)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, a)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.resources[typeURL] = out
	m.version++
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *management) StreamAggregatedResources(stream discoverypb.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	return m.serve(stream)
}

// secretServer offers the same as an SDS server, as the agent's socket does.
type secretServer struct {
	secretpb.UnimplementedSecretDiscoveryServiceServer
	m *management
}

func (s secretServer) StreamSecrets(stream secretpb.SecretDiscoveryService_StreamSecretsServer) error {
	return s.m.serve(stream)
}

func (m *management) serve(stream interface {
	grpc.ServerStream
	Recv() (*discoverypb.DiscoveryRequest, error)
}) error {
	requests := make(chan *discoverypb.DiscoveryRequest)
	go func() {
		defer close(requests)
		for {
			r, err := stream.Recv()
			if err != nil {
				return
			}
			select {
			case requests <- r:
			case <-stream.Context().Done():
				return
			}
		}
	}()
	asked, sent := map[string]string{}, map[string]int{} // by type: the names asked for, the version sent
	for {
		m.mu.Lock()
		changed := m.changed
		m.mu.Unlock()
		for kind := range asked {
			if err := m.send(stream, kind, sent); err != nil {
				return err
			}
		}
		select {
		case r, ok := <-requests:
			if !ok {
				return nil
			}
			if r.GetResponseNonce() != "" {
				m.answers <- answer{r.GetTypeUrl(), r.GetErrorDetail().GetMessage()}
			}
			if names := fmt.Sprint(r.GetResourceNames()); asked[r.GetTypeUrl()] != names {
				asked[r.GetTypeUrl()] = names
				delete(sent, r.GetTypeUrl())
			}
		case <-changed:
		}
	}
}

func (m *management) send(stream grpc.ServerStream, url string, sent map[string]int) error {
	m.mu.Lock()
	list, known := m.resources[url]
	version := m.version
	m.mu.Unlock()
	if !known || sent[url] == version {
		return nil
	}
	sent[url] = version
	return stream.SendMsg(&discoverypb.DiscoveryResponse{TypeUrl: url, VersionInfo: fmt.Sprint(version), Nonce: fmt.Sprint(version), Resources: list})
}

// next waits for the proxy's word on a type.
func (m *management) next(t *testing.T, typeURL string) string {
	t.Helper()
	for {
		select {
		case a := <-m.answers:
			if a.typeURL == typeURL {
				return a.nack
			}
		case <-time.After(10 * time.Second):
			t.Fatal("no answer for " + typeURL)
		}
	}
}

func (m *management) bootstrap(extra string) string {
	h2 := `typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}}, `
	return `
node: {id: n, cluster: c}
dynamic_resources:
  ads_config: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: xds}}]}
  cds_config: {ads: {}, initial_fetch_timeout: 0s, resource_api_version: V3}
  lds_config: {ads: {}, initial_fetch_timeout: 0s, resource_api_version: V3}
static_resources:
  clusters: [` + strings.Replace(staticCluster("xds", m.addr), "{", "{"+h2, 1) + `, ` + strings.Replace(staticCluster("sds-grpc", m.addr), "{", "{"+h2, 1) + `]` + extra
}

func message[T proto.Message](t *testing.T, m T, text string) T {
	t.Helper()
	var v any
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if err := protojson.Unmarshal(b, m); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return m
}

func lds(t *testing.T, text string) proto.Message { return message(t, &listenerpb.Listener{}, text) }
func cds(t *testing.T, text string) proto.Message { return message(t, &clusterpb.Cluster{}, text) }

func TestManagementServer(t *testing.T) {
	m := newManagement(t)
	one, two := backend(t), backend(t)
	r := launch(t, m.bootstrap(""))
	t.Run("not ready before the first clusters and listeners", func(t *testing.T) {
		r.eventually("/ready", "PRE_INITIALIZING\n")
		m.set(t, wellknown.ClusterType, cds(t, staticCluster("one", one)), cds(t, staticCluster("two", two)))
		r.eventually("/ready", "INITIALIZING\n")
		m.set(t, wellknown.ListenerType, lds(t, tcpListener("l", "one")))
		r.eventually("/ready", "LIVE\n")
	})
	if nack := m.next(t, wellknown.ListenerType); nack != "" {
		t.Fatal(nack)
	}
	addr := r.listener("l")
	c := dial(t, addr)
	echoes(t, c, "hello")
	t.Run("WI-030 another cluster for the listener: its connections stay, new ones go there", func(t *testing.T) {
		m.set(t, wellknown.ListenerType, lds(t, tcpListener("l", "two")))
		if nack := m.next(t, wellknown.ListenerType); nack != "" {
			t.Fatal(nack)
		}
		r.eventually("/stats?filter=in_place", "listener_manager.listener_in_place_updated: 1\n")
		echoes(t, dial(t, addr), "new")
		echoes(t, c, "old")
		r.eventually("/stats?filter=cluster.two.upstream_cx_total", "cluster.two.upstream_cx_total: 1\n")
	})
	t.Run("OB-020 a refused listener is named, the others serve", func(t *testing.T) {
		taken, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = taken.Close() })
		_, port, _ := net.SplitHostPort(taken.Addr().String())
		m.set(t, wellknown.ListenerType, lds(t, tcpListener("l", "two")), lds(t, strings.Replace(tcpListener("bad", "one"), "port_value: 0", "port_value: "+port, 1)), lds(t, tcpListener("good", "one")))
		want := "cannot bind '127.0.0.1:" + port + "': Address already in use"
		if nack := m.next(t, wellknown.ListenerType); !strings.Contains(nack, "bad: "+want) || strings.Contains(nack, "good") {
			t.Error(nack)
		}
		echoes(t, dial(t, r.listener("good")), "hello")
		r.eventually("/stats?filter=lds.update", "listener_manager.lds.update_rejected: 1\n")
		r.eventually("/config_dump?resource=dynamic_listeners", want)
		t.Run("its port is free later: it serves, and the refusal is taken back", func(t *testing.T) {
			_ = taken.Close()
			if nack := m.next(t, wellknown.ListenerType); nack != "" {
				t.Error(nack)
			}
			echoes(t, dial(t, "127.0.0.1:"+port), "hello")
			if dump := r.get("/config_dump?resource=dynamic_listeners"); strings.Contains(dump, want) {
				t.Error(dump)
			}
		})
	})
	t.Run("a removed listener stops accepting", func(t *testing.T) {
		good := r.listener("good")
		m.set(t, wellknown.ListenerType, lds(t, tcpListener("l", "two")))
		r.eventually("/stats?filter=listener_removed", "listener_manager.listener_removed: 2\n")
		if _, err := net.Dial("tcp", good); err == nil {
			t.Error("still accepts")
		}
		echoes(t, c, "old")
	})
	t.Run("OB-024 the link to the control plane", func(t *testing.T) {
		r.eventually("/stats?filter=control_plane", "control_plane.connected_state: 1\n")
	})
	t.Run("EN-001 dumps of dynamic resources", func(t *testing.T) {
		r.eventually("/config_dump?resource=dynamic_active_clusters", `"name": "one"`)
		r.eventually("/config_dump?resource=dynamic_listeners", `"name": "l"`)
		r.eventually("/clusters", "one::added_via_api::true\n")
	})
}

func httpListener(name, rds string) string {
	return fmt.Sprintf(`{name: %s, address: {socket_address: {address: 127.0.0.1, port_value: 0}}, filter_chains: [{filters: [{name: http, typed_config:
      {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: h,
       rds: {route_config_name: %s, config_source: {ads: {}, resource_api_version: V3}},
       http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}]}]}`, name, rds)
}

func TestRoutesWarmTheListener(t *testing.T) {
	m := newManagement(t)
	m.set(t, wellknown.ClusterType, cds(t, staticCluster("one", backend(t))))
	m.set(t, wellknown.ListenerType, lds(t, httpListener("h", "routes")))
	r := launch(t, m.bootstrap(""))
	if nack := m.next(t, wellknown.ListenerType); nack != "" {
		t.Fatal(nack)
	}
	r.eventually("/init_dump", `"h"`)
	if state := r.get("/ready"); state != "INITIALIZING\n" {
		t.Errorf("ready without routes: %s", state)
	}
	m.set(t, wellknown.RouteType, message(t, &routepb.RouteConfiguration{},
		`{name: routes, virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {prefix: /}, direct_response: {status: 200, body: {inline_string: hi}}}]}]}`))
	r.eventually("/ready", "LIVE\n")
	resp, err := r.http.Get("http://" + r.listener("h") + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Error(resp.Status)
	}
	r.eventually("/config_dump?resource=dynamic_route_configs", `"name": "routes"`)
	r.eventually("/stats?filter=^http.h.downstream_rq_total", "http.h.downstream_rq_total: 1\n")
}

// TestMissingSecretHoldsUpNobodyElse: each listener warms by itself.
func TestMissingSecretHoldsUpNobodyElse(t *testing.T) {
	m := newManagement(t)
	secure := strings.Replace(tcpListener("secure", "one"), "filter_chains: [{", `filter_chains: [{transport_socket: {name: tls, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext,
      common_tls_context: {tls_certificate_sds_secret_configs: [{name: missing, sds_config: {ads: {}, resource_api_version: V3}}]}}}, `, 1)
	m.set(t, wellknown.ClusterType, cds(t, staticCluster("one", backend(t))))
	m.set(t, wellknown.ListenerType, lds(t, secure), lds(t, tcpListener("plain", "one")))
	r := launch(t, m.bootstrap(""))
	r.eventually("/stats?filter=listener_create_success", "listener_manager.listener_create_success: 1\n") // it is listed before it accepts
	echoes(t, dial(t, r.listener("plain")), "hello")
	r.eventually("/init_dump", `"secure"`)
	r.eventually("/ready", "LIVE\n")
	if !strings.Contains(r.log.String(), "listeners wait for routes or secrets and do not accept yet: secure") {
		t.Error(r.log)
	}
}

var goldenTypes = map[string]struct {
	url   string
	fresh func() proto.Message
}{
	"cds": {wellknown.ClusterType, func() proto.Message { return &clusterpb.Cluster{} }},
	"eds": {wellknown.EndpointType, func() proto.Message { return &endpointpb.ClusterLoadAssignment{} }},
	"lds": {wellknown.ListenerType, func() proto.Message { return &listenerpb.Listener{} }},
	"rds": {wellknown.RouteType, func() proto.Message { return &routepb.RouteConfiguration{} }},
}

// TestGoldenSidecar holds what the original sent to a sidecar; the ports are moved out
// of the way of a real one.
func TestGoldenSidecar(t *testing.T) {
	m := newManagement(t)
	goldenSidecar(t, m)
	r := launch(t, m.bootstrap(""))
	for _, kind := range []string{wellknown.ClusterType, wellknown.ListenerType} {
		if nack := m.next(t, kind); nack != "" {
			t.Errorf("%s refused: %s", kind, nack)
		}
	}
	r.eventually("/ready", "LIVE\n")
	r.eventually("/clusters", "outbound|9080|v1|reviews.default.svc.cluster.local::added_via_api::true")
}

// secrets are a workload's certificate and the mesh's root, here the same.
func secrets(t *testing.T) []proto.Message {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id := &url.URL{Scheme: "spiffe", Host: "cluster.local", Path: "/ns/default/sa/default"}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{id}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	inline := func(kind string, b []byte) *corepb.DataSource {
		return &corepb.DataSource{Specifier: &corepb.DataSource_InlineBytes{InlineBytes: pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b})}}
	}
	return []proto.Message{
		&tlspb.Secret{Name: "default", Type: &tlspb.Secret_TlsCertificate{TlsCertificate: &tlspb.TlsCertificate{
			CertificateChain: inline("CERTIFICATE", der), PrivateKey: inline("PRIVATE KEY", pkcs8),
		}}},
		&tlspb.Secret{Name: "ROOTCA", Type: &tlspb.Secret_ValidationContext{ValidationContext: &tlspb.CertificateValidationContext{TrustedCa: inline("CERTIFICATE", der)}}},
	}
}

func golden(t *testing.T, path string, fresh func() proto.Message) []proto.Message {
	t.Helper()
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("shared acceptance material not present: " + path)
	}
	if err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{"15001": "25001", "15006": "25006"} {
		b = []byte(strings.ReplaceAll(string(b), `"portValue": `+from, `"portValue": `+to))
	}
	var raw []json.RawMessage
	if err := json.Unmarshal(b, &raw); err != nil {
		t.Fatal(err)
	}
	var list []proto.Message
	for _, x := range raw {
		r := fresh()
		if err := protojson.Unmarshal(x, r); err != nil {
			t.Fatal(err)
		}
		list = append(list, r)
	}
	return list
}
