package relay

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/goleak"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/lateen-mesh/lateen/proxy/xds/xdstest"
	"github.com/lateen-mesh/lateen/test/fixture"
	"github.com/lateen-mesh/lateen/wellknown"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// text is a log that may be read while it is written.
type text struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (t *text) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.Write(p)
}

func (t *text) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}

// files is where a relay has its files, from one start to the next.
type files struct{ dir string }

func (p files) journal() string { return filepath.Join(p.dir, "accepted") }
func (p files) socket() string  { return filepath.Join(p.dir, "XDS") }

func newFiles(t *testing.T) files {
	t.Helper()
	dir, err := os.MkdirTemp("", "relay") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return files{dir}
}

// start runs a relay until stop is called.
func start(t *testing.T, f files, dial func(context.Context) (net.Conn, error), change func(*Options)) (r *Relay, log *text, stop func()) {
	t.Helper()
	log = &text{}
	o := Options{Node: &corepb.Node{Id: "sidecar~10.0.0.1~web-1.default~default.svc.cluster.local"}, Socket: f.socket(), Journal: f.journal(),
		Dial: dial, Address: "istiod", Logger: slog.New(slog.NewTextHandler(log, nil))}
	if change != nil {
		change(&o)
	}
	r, err := Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Run(ctx)
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	t.Cleanup(stop)
	return r, log, stop
}

// aproxy is a proxy's end of the stream.
type aproxy struct {
	t      *testing.T
	stream discoverypb.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	in     chan *discoverypb.DeltaDiscoveryResponse
}

func connect(t *testing.T, f files) *aproxy {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+f.socket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := discoverypb.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	p := &aproxy{t: t, stream: stream, in: make(chan *discoverypb.DeltaDiscoveryResponse, 100)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(p.in)
		for {
			m, err := stream.Recv()
			if err != nil {
				return
			}
			p.in <- m
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		_ = conn.Close()
	})
	return p
}

func (p *aproxy) send(m *discoverypb.DeltaDiscoveryRequest) {
	p.t.Helper()
	if err := p.stream.Send(m); err != nil {
		p.t.Fatal(err)
	}
}

// subscribe asks for names of a type; none is all.
func (p *aproxy) subscribe(url string, names ...string) {
	p.t.Helper()
	p.send(&discoverypb.DeltaDiscoveryRequest{TypeUrl: url, ResourceNamesSubscribe: names, Node: &corepb.Node{Id: "the proxy's own"}})
}

// next is the next response of a type: "+a +b -c". Others are accepted on the way.
func (p *aproxy) next(url string) (*discoverypb.DeltaDiscoveryResponse, string) {
	p.t.Helper()
	select {
	case m, ok := <-p.in:
		if !ok {
			p.t.Fatal("the stream has ended")
		}
		if m.GetTypeUrl() != url {
			p.send(&discoverypb.DeltaDiscoveryRequest{TypeUrl: m.GetTypeUrl(), ResponseNonce: m.GetNonce()})
			return p.next(url)
		}
		var words []string
		for _, r := range m.GetResources() {
			words = append(words, "+"+r.GetName())
		}
		for _, n := range m.GetRemovedResources() {
			words = append(words, "-"+n)
		}
		return m, strings.Join(words, " ")
	case <-time.After(20 * time.Second):
		p.t.Fatal("no response of " + url)
	}
	return nil, ""
}

// takes expects a response and accepts it, or refuses it with a reason.
func (p *aproxy) takes(url, want, refusal string) {
	p.t.Helper()
	m, got := p.next(url)
	if got != want {
		p.t.Errorf("response %q, want %q", got, want)
	}
	answer := &discoverypb.DeltaDiscoveryRequest{TypeUrl: url, ResponseNonce: m.GetNonce()}
	if refusal != "" {
		answer.ErrorDetail = &statuspb.Status{Code: 3, Message: refusal}
	}
	p.send(answer)
}

func cluster(name string, more ...string) *clusterpb.Cluster {
	return &clusterpb.Cluster{Name: name, AltStatName: strings.Join(more, "")}
}

func nobody(context.Context) (net.Conn, error) { return nil, fmt.Errorf("connection refused") }

func acked(nonce string) func(xdstest.Request) bool {
	return func(r xdstest.Request) bool { return r.Nonce == nonce && r.Error == nil }
}

func TestControlPlaneGoesAndComesBack(t *testing.T) {
	control := xdstest.New(t)
	control.Set("a", cluster("a"))
	f := newFiles(t)
	r, _, _ := start(t, f, control.Dial, nil)
	p := connect(t, f)
	p.subscribe(wellknown.ClusterType)
	p.takes(wellknown.ClusterType, "+a", "")
	p.subscribe(wellknown.EndpointType, "a", "b")
	control.Await(t, wellknown.ClusterType, 0, acked("1"))
	t.Run("the first message says who the proxy is", func(t *testing.T) {
		if got := control.Requests(wellknown.ClusterType)[0].Node; got != "the proxy's own" {
			t.Errorf("node %q", got)
		}
	})
	t.Run("EN-057 a refusal goes on, with its reason", func(t *testing.T) {
		control.Set("b", cluster("b"))
		p.takes(wellknown.ClusterType, "+b", "port is taken")
		refused := control.Await(t, wellknown.ClusterType, 0, func(r xdstest.Request) bool { return r.Error != nil })
		if refused.Error.GetMessage() != "port is taken" {
			t.Errorf("refusal %v", refused.Error)
		}
		control.Remove(wellknown.ClusterType, "b")
		p.takes(wellknown.ClusterType, "-b", "")
	})
	if !r.Status().Connected {
		t.Error("the status says that nobody is connected")
	}
	seen := len(control.Requests(wellknown.ClusterType))
	address := control.Addr()
	control.Stop()
	fixture.Eventually(t, "the status", func() error {
		if r.Status().Connected {
			return fmt.Errorf("still connected")
		}
		return nil
	})
	control.Set("c", cluster("c"))
	control.Start(t, address)
	t.Run("the proxy's stream stays; only what changed is sent", func(t *testing.T) {
		p.takes(wellknown.ClusterType, "+c", "")
		again := control.Await(t, wellknown.ClusterType, seen, func(r xdstest.Request) bool { return r.Node != "" })
		if len(again.Initial) != 1 || again.Initial["a"] == "" || again.Node == "" {
			t.Errorf("subscribed again with %v of node %q, want the version of a", again.Initial, again.Node)
		}
		named := control.Await(t, wellknown.EndpointType, 1, func(r xdstest.Request) bool { return len(r.Subscribe) > 0 })
		if fmt.Sprint(named.Subscribe) != "[a b]" {
			t.Errorf("names %v, want those that the proxy asked for before", named.Subscribe)
		}
	})
	t.Run("an answer to what the earlier link sent is for nobody", func(t *testing.T) {
		control.Set("d", cluster("d"))
		late, _ := p.next(wellknown.ClusterType)
		control.Stop()
		n := len(control.Requests(wellknown.ClusterType))
		control.Start(t, address)
		opening := control.Await(t, wellknown.ClusterType, n, func(r xdstest.Request) bool { return r.Node != "" })
		if _, held := opening.Initial["d"]; held {
			t.Error("a version that the proxy has not accepted counts as held")
		}
		p.send(&discoverypb.DeltaDiscoveryRequest{TypeUrl: wellknown.ClusterType, ResponseNonce: late.GetNonce()})
		p.takes(wellknown.ClusterType, "+d", "") // as it was not accepted
		for _, r := range control.Requests(wellknown.ClusterType)[n:] {
			if r.Nonce == late.GetNonce() && r.Nonce != "" && r.Nonce != "1" {
				t.Errorf("answer %v", r)
			}
		}
	})
}

func TestAnotherProxyBeginsAnew(t *testing.T) {
	control := xdstest.New(t)
	control.Set("a", cluster("a"))
	f := newFiles(t)
	start(t, f, control.Dial, nil)
	p := connect(t, f)
	p.subscribe(wellknown.ClusterType)
	p.takes(wellknown.ClusterType, "+a", "")
	again := connect(t, f) // the first one was killed, say
	again.subscribe(wellknown.ClusterType)
	again.takes(wellknown.ClusterType, "+a", "")
	if _, open := <-p.in; open {
		t.Error("the first proxy still gets configuration")
	}
}

func TestStartWithoutControlPlane(t *testing.T) {
	control := xdstest.New(t)
	control.Set("a", cluster("a"))
	control.Set("b", cluster("b"))
	control.Set("l", &listenerpb.Listener{Name: "l"})
	control.Set("key", &tlspb.Secret{Name: "key"})
	f := newFiles(t)
	r, _, stop := start(t, f, control.Dial, nil)
	p := connect(t, f)
	p.subscribe(wellknown.ClusterType)
	m, _ := p.next(wellknown.ClusterType)
	p.send(&discoverypb.DeltaDiscoveryRequest{TypeUrl: wellknown.ClusterType, ResponseNonce: m.GetNonce()})
	control.Remove(wellknown.ClusterType, "b")
	p.takes(wellknown.ClusterType, "-b", "")
	p.subscribe(wellknown.ListenerType)
	p.takes(wellknown.ListenerType, "+l", "")
	p.subscribe(wellknown.SecretType, "key")
	p.takes(wellknown.SecretType, "+key", "")
	control.Set("bad", cluster("bad"))
	p.takes(wellknown.ClusterType, "+bad", "no")
	control.Await(t, wellknown.ClusterType, 0, func(r xdstest.Request) bool { return r.Error != nil })
	if r.Status().Refused != 1 {
		t.Errorf("status %+v, want one refusal", r.Status())
	}
	stop()
	if info, err := os.Stat(f.journal()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("journal %v %v, want mode 0600", info, err)
	}

	t.Run("what was accepted is given again", func(t *testing.T) {
		r, log, stop := start(t, f, nobody, nil)
		defer stop()
		p := connect(t, f)
		p.subscribe(wellknown.ClusterType)
		p.takes(wellknown.ClusterType, "+a", "")
		p.subscribe(wellknown.SecretType, "key") // no private key is on disk: no answer
		p.subscribe(wellknown.ListenerType)
		p.takes(wellknown.ListenerType, "+l", "")
		if !r.Status().Stored || !strings.Contains(log.String(), "the control plane is away: the proxy is given what it accepted last") {
			t.Errorf("status %+v, log %s", r.Status(), log)
		}
	})
	t.Run("the control plane comes: versions are handed over, what is gone is removed", func(t *testing.T) {
		control.Remove(wellknown.ClusterType, "a", "bad")
		seen := len(control.Requests(wellknown.ClusterType))
		var away sync.Mutex
		away.Lock()
		come := false
		dial := func(ctx context.Context) (net.Conn, error) {
			away.Lock()
			defer away.Unlock()
			if !come {
				return nobody(ctx)
			}
			return control.Dial(ctx)
		}
		away.Unlock()
		_, _, stop := start(t, f, dial, nil)
		defer stop()
		p := connect(t, f)
		p.subscribe(wellknown.ClusterType)
		p.takes(wellknown.ClusterType, "+a", "")
		away.Lock()
		come = true
		away.Unlock()
		first := control.Await(t, wellknown.ClusterType, seen, func(xdstest.Request) bool { return true })
		if len(first.Initial) != 1 || first.Initial["a"] == "" {
			t.Errorf("versions %v, want that of a", first.Initial)
		}
		p.takes(wellknown.ClusterType, "-a", "")
	})
	t.Run("another pod begins with nothing", func(t *testing.T) {
		_, log, stop := start(t, f, nobody, func(o *Options) { o.Node = &corepb.Node{Id: "another"} })
		defer stop()
		p := connect(t, f)
		p.subscribe(wellknown.ClusterType)
		fixture.Eventually(t, "a line about waiting", func() error {
			if !strings.Contains(log.String(), `msg="waiting for the control plane" at=istiod since=`) {
				return fmt.Errorf("log %s", log)
			}
			return nil
		})
		select {
		case m := <-p.in:
			t.Errorf("response %v", m)
		default:
		}
	})
}

// TestVirtualHosts: the name of a route table stands for its virtual hosts, also where the
// journal answers.
func TestVirtualHosts(t *testing.T) {
	host := func(name string) *routepb.VirtualHost { return &routepb.VirtualHost{Name: name} }
	control := xdstest.New(t)
	for _, name := range []string{"80/_a", "80/_b", "90/_c"} {
		control.Set(name, host(name))
	}
	f := newFiles(t)
	_, _, stop := start(t, f, control.Dial, nil)
	p := connect(t, f)
	p.subscribe(wellknown.VirtualHostType, "80", "90")
	p.takes(wellknown.VirtualHostType, "+80/_a +80/_b +90/_c", "")
	p.send(&discoverypb.DeltaDiscoveryRequest{TypeUrl: wellknown.VirtualHostType, ResourceNamesUnsubscribe: []string{"90"}})
	n := len(control.Requests(wellknown.VirtualHostType))
	control.Remove(wellknown.VirtualHostType, "80/_b")
	p.takes(wellknown.VirtualHostType, "-80/_b", "")
	control.Await(t, wellknown.VirtualHostType, n, func(r xdstest.Request) bool { return r.Nonce != "" })
	t.Run("on a new link it has what it took", func(t *testing.T) {
		seen, address := len(control.Requests(wellknown.VirtualHostType)), control.Addr()
		control.Stop()
		control.Start(t, address)
		again := control.Await(t, wellknown.VirtualHostType, seen, func(r xdstest.Request) bool { return r.Node != "" })
		if len(again.Initial) != 1 || again.Initial["80/_a"] == "" {
			t.Errorf("subscribed again with %v, want the version of 80/_a", again.Initial)
		}
	})
	stop()
	start(t, f, nobody, nil)
	p = connect(t, f)
	p.subscribe(wellknown.VirtualHostType, "80")
	p.takes(wellknown.VirtualHostType, "+80/_a", "")
}

func TestWholeStates(t *testing.T) {
	control := xdstest.New(t)
	control.Set("a", cluster("a"))
	f := newFiles(t)
	start(t, f, control.Dial, nil)
	conn, err := grpc.NewClient("unix:"+f.socket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stream, err := discoverypb.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&discoverypb.DiscoveryRequest{TypeUrl: wellknown.ClusterType}); err != nil {
		t.Fatal(err)
	}
	m, err := stream.Recv()
	if err != nil || len(m.GetResources()) != 1 {
		t.Fatal(m, err)
	}
	if err := stream.Send(&discoverypb.DiscoveryRequest{TypeUrl: wellknown.ClusterType, ResponseNonce: m.GetNonce(), VersionInfo: m.GetVersionInfo()}); err != nil {
		t.Fatal(err)
	}
	control.Await(t, wellknown.ClusterType, 0, func(r xdstest.Request) bool { return !r.Delta && r.Version == m.GetVersionInfo() })
}
