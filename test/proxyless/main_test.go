// Package proxyless has gRPC programs, clients and servers, talk to each other by the
// configuration that the control plane gives them over xDS, with no proxy in between. The
// programs are of grpc-go, as anybody writes them; control plane, sockets and calls are real.
package proxyless

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/xds"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lateen-mesh/lateen/control"
	"github.com/lateen-mesh/lateen/logging"
	"github.com/lateen-mesh/lateen/test/build"
	"github.com/lateen-mesh/lateen/test/ports"
	"github.com/lateen-mesh/lateen/wellknown"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		build.Remove()
		os.Exit(code)
	}))
}

// patience bounds what a test waits for something to come about.
const patience = 30 * time.Second

// A plane is a control plane on a folder of the test's.
type plane struct {
	t       *testing.T
	dir     string
	socket  string
	address string // the same over TCP
	server  *control.Server
}

// start runs a control plane on files: name → text. When the test ends no program may have
// refused anything.
func start(t *testing.T, files map[string]string) *plane {
	t.Helper()
	return startWith(t, files, func(*control.Options) {})
}

// startWith is start of a control plane with other options.
func startWith(t *testing.T, files map[string]string, change func(*control.Options)) *plane {
	t.Helper()
	sockets, err := os.MkdirTemp("", "proxyless")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sockets) })
	p := &plane{t: t, dir: t.TempDir(), socket: filepath.Join(sockets, "xds"), address: fmt.Sprintf("127.0.0.1:%d", ports.One())}
	for name, text := range files {
		p.write(name, text)
	}
	o := control.Options{Paths: []string{p.dir}, GRPC: "unix:" + p.socket + "," + p.address, Log: logging.Discard(),
		Debounce: control.Debounce{After: 5 * time.Millisecond, Max: time.Second}}
	change(&o)
	if p.server, err = control.New(o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.server.Run(ctx) }()
	t.Cleanup(func() {
		p.noneRefused()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("control plane: %v", err)
		}
	})
	return p
}

// write puts a file in the place of the one of its name, at once.
func (p *plane) write(name, text string) {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.WriteFile(path+".part", []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Rename(path+".part", path); err != nil {
		p.t.Fatal(err)
	}
}

func (p *plane) noneRefused() {
	for _, proxy := range p.server.Status().Proxies {
		for _, r := range proxy.Refused {
			p.t.Errorf("%s refused %s %s: %s", proxy.Node, r.Type, r.Resource, r.Error)
		}
	}
}

// program is the bootstrap of a gRPC program in the mesh, as an agent writes it.
func (p *plane) program(name string) []byte {
	p.t.Helper()
	text, err := json.Marshal(map[string]any{
		"xds_servers": []any{map[string]any{
			"server_uri": "unix://" + p.socket, "channel_creds": []any{map[string]any{"type": "insecure"}}, "server_features": []any{"xds_v3"},
		}},
		"node": map[string]any{
			"id":       "sidecar~127.0.0.1~" + name + ".default~default.svc.cluster.local",
			"metadata": map[string]any{"GENERATOR": "grpc", "NAMESPACE": "default", "LABELS": map[string]any{"app": name}},
			"locality": map[string]any{"region": "north", "zone": "one"},
		},
		"server_listener_resource_name_template": wellknown.GRPCInboundListener + "%s",
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return text
}

// dial opens a channel to a name of the mesh, without port: 7070.
func (p *plane) dial(host string, options ...grpc.DialOption) *channel {
	p.t.Helper()
	return p.dialFrom(p.program("client"), host, options...)
}

// dialFrom is dial by a program with a bootstrap of its own.
func (p *plane) dialFrom(bootstrap []byte, host string, options ...grpc.DialOption) *channel {
	p.t.Helper()
	xdsResolver, err := xds.NewXDSResolverWithConfigForTesting(bootstrap)
	if err != nil {
		p.t.Fatal(err)
	}
	options = append(options, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithResolvers(xdsResolver))
	if !strings.Contains(host, ":") {
		host += ":7070"
	}
	conn, err := grpc.NewClient("xds:///"+host, options...)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { conn.Close() })
	return &channel{ClientConn: conn, t: p.t}
}

// A channel is what calls are made on.
type channel struct {
	*grpc.ClientConn
	t *testing.T
}

// call says a word to Echo and returns the name of the server that answered.
func (c *channel) call(ctx context.Context, word string) (string, error) {
	return c.method(ctx, "Say", word)
}

func (c *channel) method(ctx context.Context, method, word string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var answer wrapperspb.StringValue
	err := c.Invoke(ctx, "/mesh.Echo/"+method, wrapperspb.String(word), &answer)
	return answer.GetValue(), err
}

// answers are the servers that answer some calls, each once; a call that fails ends the test.
func (c *channel) answers(ctx context.Context) []string {
	c.t.Helper()
	var all []string
	for range 40 {
		name, err := c.call(ctx, "hello")
		if err != nil {
			c.t.Fatal(err)
		}
		all = append(all, name)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// until waits for the answers to be those of the given servers and no other.
func (c *channel) until(ctx context.Context, names ...string) {
	c.t.Helper()
	eventually(c.t, fmt.Sprintf("answers of %v", names), func() bool { return slices.Equal(c.answers(ctx), names) })
}

// untilCode waits for calls to end with a code.
func (c *channel) untilCode(ctx context.Context, want codes.Code) {
	c.t.Helper()
	eventually(c.t, fmt.Sprintf("calls that end with %v", want), func() bool {
		_, err := c.call(ctx, "hello")
		return status.Code(err) == want
	})
}

// eventually asks until the answer is yes.
func eventually(t *testing.T, what string, yes func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !yes(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// A backend is a server of mesh.Echo.
type backend struct {
	name   string
	port   int
	refuse atomic.Int32 // as many calls are answered UNAVAILABLE
	calls  atomic.Int32
	gate   chan struct{} // the word "wait" is answered when it is closed
	stop   func()
}

// server is what grpc and xds have in common.
type server interface {
	grpc.ServiceRegistrar
	Serve(net.Listener) error
	GracefulStop()
	Stop()
}

// serve runs a backend of plain gRPC on a port of its own.
func serve(t *testing.T, name string) *backend {
	return serveWith(t, name, grpc.NewServer(), ports.One())
}

// serveWith runs a backend. It is there when serveWith returns.
func serveWith(t *testing.T, name string, s server, port int) *backend {
	t.Helper()
	b := &backend{name: name, port: port, gate: make(chan struct{})}
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: "mesh.Echo", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Say", Handler: b.say}, {MethodName: "Shout", Handler: b.say}},
	}, b)
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Serve(l); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}()
	b.stop = sync.OnceFunc(func() { s.GracefulStop(); <-done })
	t.Cleanup(func() { s.Stop(); <-done })
	return b
}

func (b *backend) say(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	b.calls.Add(1)
	var word wrapperspb.StringValue
	if err := decode(&word); err != nil {
		return nil, err
	}
	if b.refuse.Add(-1) >= 0 {
		return nil, status.Error(codes.Unavailable, "not now")
	}
	if word.Value == "wait" {
		select {
		case <-b.gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return wrapperspb.String(b.name), nil
}

// echo is a ServiceEntry of the backends, each with its name as its version.
func echo(backends ...*backend) string {
	var b strings.Builder
	b.WriteString(`apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: echo, namespace: default}
spec:
  hosts: [echo.default.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 7070, name: grpc, protocol: GRPC}]
  endpoints:`)
	if len(backends) == 0 {
		b.WriteString(" []")
	}
	for _, e := range backends {
		fmt.Fprintf(&b, "\n  - {address: 127.0.0.1, ports: {grpc: %d}, labels: {version: %s}}", e.port, e.name)
	}
	return b.String() + "\n"
}

// subsets is a DestinationRule with a subset for each version.
func subsets(versions ...string) string {
	text := `apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: echo, namespace: default}
spec:
  host: echo.default.svc.cluster.local
  subsets:
`
	for _, v := range versions {
		text += fmt.Sprintf("  - {name: %s, labels: {version: %s}}\n", v, v)
	}
	return text
}

// route is a VirtualService of the host with rules.
func route(rules string) string {
	return `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: echo, namespace: default}
spec:
  hosts: [echo.default.svc.cluster.local]
  http:
` + rules
}

const host = "echo.default.svc.cluster.local"

// load makes calls on a channel all the time, several at once, until the returned function is
// called, which lets some more be made. A call that fails fails the test.
func (c *channel) load(word string) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var workers sync.WaitGroup
	var calls atomic.Int64
	for range 4 {
		workers.Go(func() {
			for ctx.Err() == nil {
				if _, err := c.call(context.Background(), word); err != nil {
					c.t.Errorf("a call failed: %v", err)
					return
				}
				calls.Add(1)
			}
		})
	}
	end = sync.OnceFunc(func() {
		for before := calls.Load(); calls.Load() < before+100 && !c.t.Failed(); {
			time.Sleep(time.Millisecond)
		}
		cancel()
		workers.Wait()
	})
	c.t.Cleanup(end)
	return end
}
