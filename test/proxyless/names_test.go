package proxyless

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/xds"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/file"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/logging"
	"github.com/lateen-mesh/lateen/test/material"
	"github.com/lateen-mesh/lateen/wellknown"
)

// TestNames asks as gRPC does, in the state-of-the-world form: a program gets what it names
// and nothing else.
func TestNames(t *testing.T) {
	b := serve(t, "v1")
	p := start(t, map[string]string{"echo.yaml": echo(b), "rule.yaml": subsets("v1")})
	for _, test := range []struct {
		name, url  string
		asks, gets []string
	}{
		{"a listener for each name that is called", wellknown.ListenerType, []string{host + ":7070", "echo:7070", host + ":1", "none:7070", host}, []string{host + ":7070", "echo:7070"}},
		{"a listener for each socket that serves", wellknown.ListenerType, []string{wellknown.GRPCInboundListener + "[::]:50051"}, []string{wellknown.GRPCInboundListener + "[::]:50051"}},
		{"a listener of a sidecar", wellknown.ListenerType, []string{"virtualOutbound"}, nil},
		{"routes", wellknown.RouteType, []string{"outbound|7070||" + host, "7070", "outbound|7070|v1|" + host, "outbound|1||" + host}, []string{"outbound|7070||" + host}},
		{"clusters and those of subsets", wellknown.ClusterType, []string{"outbound|7070||" + host, "outbound|7070|v1|" + host, "outbound|7070|v2|" + host, "PassthroughCluster"},
			[]string{"outbound|7070||" + host, "outbound|7070|v1|" + host}},
		{"endpoints", wellknown.EndpointType, []string{"outbound|7070|v1|" + host, "outbound|7070|v2|" + host}, []string{"outbound|7070|v1|" + host}},
		{"a type that is not for it", wellknown.SecretType, []string{"default"}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := p.ask(test.url, test.asks); got != len(test.gets) {
				t.Errorf("%d resources for %q, want those of %q", got, test.asks, test.gets)
			}
		})
	}
}

// ask subscribes to names and returns how many resources the answer has.
func (p *plane) ask(url string, names []string) int {
	p.t.Helper()
	conn, err := grpc.NewClient("unix:"+p.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		p.t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	stream, err := discoverypb.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(ctx)
	if err != nil {
		p.t.Fatal(err)
	}
	metadata, err := structpb.NewStruct(map[string]any{"GENERATOR": "grpc"})
	if err != nil {
		p.t.Fatal(err)
	}
	node := &corepb.Node{Id: "sidecar~127.0.0.1~asker.default~default.svc.cluster.local", Metadata: metadata}
	if err := stream.Send(&discoverypb.DiscoveryRequest{Node: node, TypeUrl: url, ResourceNames: names}); err != nil {
		p.t.Fatal(err)
	}
	answer, err := stream.Recv()
	if err != nil {
		p.t.Fatal(err)
	}
	return len(answer.GetResources())
}

// headless is a Service without an address of its own, and its pods.
const headless = `apiVersion: v1
kind: Service
metadata: {name: echo, namespace: default}
spec: {clusterIP: None, selector: {app: echo}, ports: [{name: grpc, port: 7070, targetPort: %[1]d}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: echo-1, namespace: default, labels: {kubernetes.io/service-name: echo}}
addressType: IPv4
ports: [{name: grpc, port: %[1]d}]
endpoints: [{addresses: [127.0.0.1], conditions: {ready: true}}]
`

func TestKubernetes(t *testing.T) {
	b := serve(t, "pod")
	p := start(t, map[string]string{"echo.yaml": fmt.Sprintf(headless, b.port)})
	t.Run("a headless Service", func(t *testing.T) { p.dial("echo").until(context.Background(), "pod") })
	t.Run("a host that only a VirtualService has", func(t *testing.T) {
		p.write("route.yaml", `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: alias, namespace: default}
spec:
  hosts: [alias.example]
  http: [{route: [{destination: {host: echo.default.svc.cluster.local}}]}]
`)
		c := p.dial("alias.example", grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
		c.until(context.Background(), "pod")
	})
}

// TestNothingRefused has a program call every host of every configuration at hand. What
// answers is no matter: it must take all that it is told.
func TestNothingRefused(t *testing.T) {
	folders, err := filepath.Glob(filepath.Join(material.Path(t, "golden"), "*", "input"))
	if err != nil || len(folders) == 0 {
		t.Fatalf("no configuration: %v", err)
	}
	for _, folder := range append(folders, filepath.Join("..", "..", "samples", "bookinfo")) {
		name := filepath.Base(filepath.Dir(folder))
		t.Run(name, func(t *testing.T) {
			p := start(t, nil)
			hosts := p.copy(folder)
			resolver, err := xds.NewXDSResolverWithConfigForTesting(p.program("client"))
			if err != nil {
				t.Fatal(err)
			}
			offline := grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return nil, net.ErrClosed })
			for _, host := range hosts {
				conn, err := grpc.NewClient("xds:///"+host, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithResolvers(resolver), offline)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { conn.Close() })
				conn.Connect()
				t.Cleanup(func() { p.configured(conn, host) })
			}
		})
	}
}

// configured makes a call, which ends, well or not, when the channel knows where to.
func (p *plane) configured(conn *grpc.ClientConn, host string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := conn.Invoke(ctx, "/mesh.Echo/Say", &emptypb.Empty{}, &emptypb.Empty{})
	if err == nil || ctx.Err() != nil {
		p.t.Errorf("%s: not configured: %v", host, err)
	}
}

// copy puts the files of a folder into the plane's and returns "host:port" of all services
// that may be called by name.
func (p *plane) copy(folder string) []string {
	p.t.Helper()
	if err := os.CopyFS(filepath.Join(p.dir, "all"), os.DirFS(folder)); err != nil {
		p.t.Fatal(err)
	}
	store := config.NewStore()
	if err := file.New(store, file.Options{Paths: []string{p.dir}, Log: logging.Discard().Scope("config")}).Load(); err != nil {
		p.t.Fatal(err)
	}
	snapshot := mesh.Build(store.Current(), mesh.Options{})
	self := &mesh.Proxy{Type: mesh.SidecarProxy, Namespace: "default", Domain: "default.svc.cluster.local"}
	hosts := map[string]bool{}
	for _, s := range snapshot.Scope(self).Services() {
		for _, port := range s.Ports {
			hosts[fmt.Sprintf("%s:%d", s.Host, port.Number)] = true
		}
	}
	return slices.Sorted(maps.Keys(hosts))
}
