package explain

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	adminpb "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy"
	"github.com/lateen-mesh/lateen/wellknown"
)

// bookinfo is the sample with some of its routing files.
func bookinfo(t *testing.T, networking ...string) *Mesh {
	t.Helper()
	var files []File
	for _, name := range append([]string{"platform/kube/bookinfo", "networking/destination-rule-all"}, networking...) {
		text, err := os.ReadFile("../samples/bookinfo/" + name + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, File{Name: name[strings.LastIndexByte(name, '/')+1:] + ".yaml", Text: text})
	}
	m, _ := FromFiles(files, "default", nil)
	return m
}

// text explains a request of a pod.
func text(t *testing.T, m *Mesh, from string, r Request) string {
	t.Helper()
	w, err := m.Find(from, "default")
	if err != nil {
		t.Fatal(err)
	}
	if r.Method == "" {
		r.Method = "GET"
	}
	x, err := m.Explain(context.Background(), w, r)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := x.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestWayOfARequest(t *testing.T) {
	for _, c := range []struct {
		name, from string
		files      []string
		request    Request
		want       []string // lines in their order
	}{
		{
			"a header decides", "productpage-v1", []string{"networking/virtual-service-reviews-jason-v2-v3"},
			Request{URL: "http://reviews:9080/reviews/0", Headers: []string{"end-user: jason"}},
			[]string{
				"outbound of productpage-v1.default", "(reviews.default.svc.cluster.local)", "listener        0.0.0.0_9080", "by exact domain reviews",
				`route [0]       yes, path prefix "/", header end-user exact "jason"`, "by VirtualService default/reviews http[0] (virtual-service-reviews-jason-v2-v3.yaml:9)",
				"cluster         outbound|9080|v2|reviews.default.svc.cluster.local", "by DestinationRule default/reviews (destination-rule-all.yaml:",
				"healthy, priority 0, reviews-v2.default", "inbound of reviews-v2.default", "It reaches the program in reviews-v2.default.",
			},
		},
		{
			"a route that does not match says why", "productpage-v1", []string{"networking/virtual-service-reviews-jason-v2-v3"},
			Request{URL: "http://reviews:9080/reviews/0", Headers: []string{"end-user: john"}},
			[]string{`route [0]       no, header end-user exact "jason", but it is "john"`, "route [1]       yes", "outbound|9080|v3|reviews"},
		},
		{
			"weights have shares", "productpage-v1", []string{"networking/virtual-service-reviews-90-10"},
			Request{URL: "http://reviews:9080/"},
			[]string{"outbound|9080|v1|reviews.default.svc.cluster.local, 90% of the requests", "outbound|9080|v2|reviews.default.svc.cluster.local, 10% of the requests"},
		},
		{
			"a fault is foretold and not waited for", "reviews-v2", []string{"networking/virtual-service-ratings-test-delay"},
			Request{URL: "http://ratings:9080/ratings/0", Headers: []string{"end-user: jason"}},
			[]string{"note            fault: all requests are delayed by 7s", "outbound|9080|v1|ratings"},
		},
		{
			"an abort is the answer", "reviews-v2", []string{"networking/virtual-service-ratings-test-abort"},
			Request{URL: "http://ratings:9080/", Headers: []string{"end-user: jason"}},
			[]string{"fault: all requests are aborted with 500", "answer          500 fault_filter_abort", "reviews-v2.default answers 500 Internal Server Error (fault_filter_abort)."},
		},
		{
			"a gateway that Gateway objects ask for is assumed", "istio-ingressgateway.istio-system", []string{"networking/bookinfo-gateway"},
			Request{URL: "http://bookinfo.test/productpage"},
			[]string{"gateway of istio-ingressgateway.istio-system", "(port 80 of istio-ingressgateway.istio-system.svc.cluster.local)", `yes, path exact "/productpage"`, "It reaches the program in productpage-v1.default."},
		},
		{
			"a gateway without a route answers 404", "istio-ingressgateway.istio-system", []string{"networking/bookinfo-gateway"},
			Request{URL: "http://bookinfo.test/elsewhere"},
			[]string{`route [4]       no, path prefix "/api/v1/products", but it is "/elsewhere"`, "answer          404 route_not_found", "istio-ingressgateway.istio-system answers 404 Not Found (route_not_found)."},
		},
		{
			"what no service has goes out as it is", "reviews-v1", nil,
			Request{URL: "https://example.com/"},
			[]string{"198.51.100.1:443 (a name that the mesh does not know the address of: any that DNS gives)", "virtualOutbound-catchall-tcp: yes", "cluster         PassthroughCluster", "It is sent to PassthroughCluster."},
		},
		{
			"an address that is asked for", "reviews-v1", nil,
			Request{URL: "tcp://example.com:5432", Address: "192.0.2.7"},
			[]string{"192.0.2.7:5432 (as asked)", "PassthroughCluster"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := text(t, bookinfo(t, c.files...), c.from, c.request)
			rest := got
			for _, want := range c.want {
				_, after, found := strings.Cut(rest, want)
				if !found {
					t.Fatalf("no %q in its place in\n%s", want, got)
				}
				rest = after
			}
		})
	}
}

// What a proxy says that it has is explained as what it would be given.
func TestDumpOfAProxy(t *testing.T) {
	m := bookinfo(t, "networking/virtual-service-all-v1")
	w, err := m.Find("deploy/productpage-v1", "default")
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.side(context.Background(), w)
	if err != nil {
		t.Fatal(err)
	}
	defer s.model.Close()
	request := Request{URL: "http://details:9080/details/0"}
	want := text(t, m, "productpage-v1", request)
	dump := dumpOf(t, m.node(w), s.resources)
	m.Ask = func(_ context.Context, namespace, pod string) ([]byte, error) {
		if pod != "productpage-v1" {
			return nil, errors.New("away")
		}
		return dump, nil
	}
	if got := text(t, m, "productpage-v1", request); !strings.Contains(got, "what details-v1.default makes of it is not known: away") || !strings.Contains(got, "It is sent to outbound|9080|v1|details") {
		t.Errorf("the second proxy is away, and it is said:\n%s", got)
	}
	full := m.Ask
	m.Ask = func(ctx context.Context, namespace, pod string) ([]byte, error) {
		if text, err := full(ctx, namespace, pod); err == nil {
			return text, nil
		}
		to, err := m.Find(pod, namespace)
		if err != nil {
			return nil, err
		}
		made := &Mesh{snapshot: m.snapshot}
		s, err := made.side(ctx, to)
		if err != nil {
			return nil, err
		}
		defer s.model.Close()
		return dumpOf(t, m.node(to), s.resources), nil
	}
	if got := text(t, m, "productpage-v1", request); got != want {
		t.Errorf("by the dump:\n%s\nby the objects:\n%s", got, want)
	}
}

// dumpOf is /config_dump?include_eds of a proxy with these resources.
func dumpOf(t *testing.T, node *corepb.Node, r proxy.Resources) []byte {
	t.Helper()
	wrap := func(m proto.Message) *anypb.Any {
		a, err := anypb.New(m)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	boot := &adminpb.BootstrapConfigDump{}
	if err := protojson.Unmarshal([]byte(`{"bootstrap": {}}`), boot); err != nil {
		t.Fatal(err)
	}
	boot.Bootstrap.Node = node
	clusters, endpoints, listeners, routes := &adminpb.ClustersConfigDump{}, &adminpb.EndpointsConfigDump{}, &adminpb.ListenersConfigDump{}, &adminpb.RoutesConfigDump{}
	for _, x := range r.Clusters {
		clusters.DynamicActiveClusters = append(clusters.DynamicActiveClusters, &adminpb.ClustersConfigDump_DynamicCluster{Cluster: wrap(x)})
	}
	for _, x := range r.Endpoints {
		endpoints.DynamicEndpointConfigs = append(endpoints.DynamicEndpointConfigs, &adminpb.EndpointsConfigDump_DynamicEndpointConfig{EndpointConfig: wrap(x)})
	}
	for _, x := range r.Listeners {
		listeners.DynamicListeners = append(listeners.DynamicListeners, &adminpb.ListenersConfigDump_DynamicListener{Name: x.GetName(), ActiveState: &adminpb.ListenersConfigDump_DynamicListenerState{Listener: wrap(x)}})
	}
	for _, x := range r.Routes {
		routes.DynamicRouteConfigs = append(routes.DynamicRouteConfigs, &adminpb.RoutesConfigDump_DynamicRouteConfig{RouteConfig: wrap(x)})
	}
	text, err := protojson.Marshal(&adminpb.ConfigDump{Configs: []*anypb.Any{wrap(boot), wrap(clusters), wrap(endpoints), wrap(listeners), wrap(routes)}})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestWhatCannotBeExplained(t *testing.T) {
	m := bookinfo(t, "networking/bookinfo-gateway")
	_, err := m.Find("nobody", "default")
	missing, ok := errors.AsType[*NotFound](err)
	if !ok || len(missing.Have) != 7 || missing.Have[0] != "details-v1.default" {
		t.Errorf("of an unknown pod: %v, %+v", err, missing)
	}
	gateway, err := m.Find("istio-ingressgateway", "default")
	if err != nil {
		t.Fatal(err)
	}
	pod, err := m.Find("reviews-v1.default", "elsewhere")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		from *Workload
		r    Request
		want string
		hint string
	}{
		{"a port that a gateway does not have", gateway, Request{URL: "http://x:99/"}, "gateway istio-ingressgateway.istio-system has no listener for port 99", "it listens on 8080"},
		{"no URL", pod, Request{URL: "http://"}, `"http://" is no URL`, "for example http://reviews:9080/reviews/0"},
		{"a scheme that is none", pod, Request{URL: "ftp://a/"}, `"ftp://a/": scheme "ftp" is not http, https or tcp`, "for example http://reviews:9080/reviews/0"},
		{"a port out of range", pod, Request{URL: "http://a:70000/"}, `"http://a:70000/": port 70000`, "a port is a number from 1 to 65535"},
		{"a header without a value", pod, Request{URL: "http://a/", Headers: []string{"x"}}, `header "x"`, `headers are "Name: value"`},
		{"an address that is none", pod, Request{URL: "http://a/", Address: "b"}, `address "b": ParseAddr("b"): unable to parse IP`, "for example 192.0.2.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := m.Explain(context.Background(), c.from, c.r)
			bad, ok := errors.AsType[*BadRequest](err)
			if !ok || bad.Error() != c.want || bad.Hint != c.hint {
				t.Errorf("error %v, want %s (%s)", err, c.want, c.hint)
			}
		})
	}
}

func TestCheckerNamesWhatAProxyRefuses(t *testing.T) {
	node := &corepb.Node{Id: "sidecar~10.0.0.1~a.b~b.svc.cluster.local", Cluster: "a"}
	good := &clusterpb.Cluster{Name: "good", ClusterDiscoveryType: &clusterpb.Cluster_Type{Type: clusterpb.Cluster_STATIC}}
	r := proxy.Resources{
		Clusters: []*clusterpb.Cluster{good, {Name: "bad", ClusterDiscoveryType: &clusterpb.Cluster_Type{Type: clusterpb.Cluster_EDS}}},
		Routes: []*routepb.RouteConfiguration{{Name: "80", VirtualHosts: []*routepb.VirtualHost{
			{Name: "one", Domains: []string{"a.test"}}, {Name: "two", Domains: []string{"a.test"}},
		}}},
	}
	list := Checker{}.Check(context.Background(), node, r)
	if len(list) != 2 || list[0].TypeURL != wellknown.ClusterType || list[0].Name != "bad" || list[1].TypeURL != wellknown.RouteType || list[1].Name != "80" {
		t.Fatalf("problems: %+v", list)
	}
	if !strings.Contains(list[1].Err.Error(), `domain "a.test" is of virtual host "one" already`) {
		t.Errorf("of the routes: %v", list[1].Err)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if list := (Checker{}).Check(ended, node, r); list != nil {
		t.Errorf("after the end: %v", list)
	}
}
