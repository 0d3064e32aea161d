package cluster

import (
	"errors"
	"log/slog"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/aggregate/v3" // named in JSON
	"github.com/google/go-cmp/cmp"

	"github.com/lateen-mesh/lateen/proxy/dns"
	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/lb"
	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/transport"
	"github.com/lateen-mesh/lateen/proxy/upstream"
	"github.com/lateen-mesh/lateen/proxy/xds/xdstest"
)

const aggregateOf = `{"name": "all", "lb_policy": "CLUSTER_PROVIDED", "cluster_type": {"name": "envoy.clusters.aggregate", "typed_config": {
	"@type": "type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig", "clusters": ["a", "b"]}}}`

func TestAggregateCluster(t *testing.T) {
	store := stats.NewStore()
	cs := New(Options{Stats: store, Logger: slog.New(slog.DiscardHandler)})
	defer cs.Close()
	addr := echoServer(t, "b")
	for _, json := range []string{aggregateOf, `{"name": "b", "load_assignment": ` + to(addr) + `}`} {
		if err := cs.AddStatic(newCluster(t, json)); err != nil {
			t.Fatal(err)
		}
	}
	all := cs.Get("all")
	ep := all.Pick(&lb.Context{})
	if ep == nil || ep.Address != addr {
		t.Fatalf("picked %v, want the endpoint of b: a is not there", ep)
	}
	conn, err := all.Dial(t.Context(), ep, transport.Target{})
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	if got := cs.Get("b").Stats().CxTotal.Value(); got != 1 {
		t.Errorf("the connection counts %d times for b", got)
	}
	t.Run("a cluster that comes is taken in", func(t *testing.T) {
		if err := cs.AddStatic(newCluster(t, `{"name": "a", "load_assignment": `+to("127.0.0.1:1")+`}`)); err != nil {
			t.Fatal(err)
		}
		if ep := all.Pick(&lb.Context{}); ep.Address != "127.0.0.1:1" {
			t.Errorf("picked %s, want the endpoint of a", ep.Address)
		}
	})
	t.Run("a cluster that is down is passed over", func(t *testing.T) {
		a := cs.Get("a")
		a.Endpoints()[0].Unhealthy.Store(endpoint.FailedActiveHealth)
		a.mu.Lock()
		a.rebuild()
		a.mu.Unlock()
		if ep := all.Pick(&lb.Context{}); ep.Address != addr {
			t.Errorf("picked %s, want the endpoint of b", ep.Address)
		}
	})
	t.Run("nothing is allocated", func(t *testing.T) {
		x := &lb.Context{}
		if n := testing.AllocsPerRun(100, func() { all.Pick(x) }); n > 0 {
			t.Errorf("%v allocations", n)
		}
	})
}

func forwardTo(t *testing.T, z *zone, config string) *Clusters {
	t.Helper()
	cs := New(Options{Logger: slog.New(slog.DiscardHandler), Resolver: dns.New(dns.Options{Servers: []string{z.addr}, NoSearch: true, Tries: 1})})
	t.Cleanup(cs.Close)
	if err := cs.AddStatic(newCluster(t, `{"name": "a", "lb_policy": "CLUSTER_PROVIDED", "connect_timeout": "1s", "dns_lookup_family": "V4_ONLY", "cluster_type": {"name": "envoy.clusters.dynamic_forward_proxy", "typed_config": {
		"@type": "type.googleapis.com/envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig", `+config+`}}}`)); err != nil {
		t.Fatal(err)
	}
	return cs
}

// answering lets the zone answer every question.
func (z *zone) answering(t *testing.T) {
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-z.asked:
			case <-stop:
				return
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-done })
}

func TestForwardCluster(t *testing.T) {
	z := newZone(t, "127.0.0.1")
	z.answering(t)
	cs := forwardTo(t, z, `"dns_cache_config": {"name": "c", "dns_lookup_family": "V4_ONLY", "max_hosts": 2}`)
	c, never := cs.Get("a"), make(chan struct{})
	pick := func(host string) *endpoint.Endpoint { return c.Pick(&lb.Context{Host: []byte(host)}) }
	if pick("www.test") != nil {
		t.Error("a name is reached that nobody has asked for")
	}
	if err := cs.Reach("a", "www.test:8080", never); err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]string{"www.test:8080": "127.0.0.1:8080", "WWW.test": "127.0.0.1:80", "www.test:bad": "127.0.0.1:80"} {
		if ep := pick(host); ep == nil || ep.Address != want {
			t.Errorf("%s goes to %v, want %s", host, ep, want)
		}
	}
	if first := pick("www.test"); first != pick("www.test") {
		t.Error("the same host is another endpoint each time")
	}
	z.mu.Lock()
	z.reply = "NXDOMAIN"
	z.mu.Unlock()
	if err := cs.Reach("a", "gone.test", never); !errors.Is(err, dns.ErrNotFound) {
		t.Errorf("error %v for a name that does not exist", err)
	}
	if err := cs.Reach("a", "third.test", never); !errors.Is(err, dns.ErrFull) {
		t.Errorf("error %v, want that there are too many", err)
	}
	if err := cs.Reach("a", "", never); !errors.Is(err, ErrNoHost) {
		t.Errorf("error %v without a host", err)
	}
	if err := cs.Reach("b", "www.test", never); !errors.Is(err, ErrNoSuchTarget) {
		t.Errorf("error %v for a cluster that is not there", err)
	}
}

func TestSubClusters(t *testing.T) {
	z := newZone(t, "127.0.0.1")
	z.answering(t)
	cs := forwardTo(t, z, `"sub_clusters_config": {"max_sub_clusters": 1}`)
	c, never := cs.Get("a"), make(chan struct{})
	for range 2 {
		if err := cs.Reach("a", "www.test:81", never); err != nil {
			t.Fatal(err)
		}
	}
	if ep := c.Pick(&lb.Context{Host: []byte("www.test:81")}); ep == nil || ep.Address != "127.0.0.1:81" {
		t.Errorf("picked %v", ep)
	}
	if cs.Get("DFPCluster:www.test:81") == nil {
		t.Error("the sub cluster has another name than Envoy's")
	}
	if err := cs.Reach("a", "www.test:82", never); !errors.Is(err, ErrSubClusters) {
		t.Errorf("error %v, want that there are too many", err)
	}
}

func TestEndpointStaleAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cs := statics(t, `{"name": "a", "load_assignment": `+to("127.0.0.1:1")+`}`)
		defer cs.Close()
		c := cs.Get("a")
		a := assignmentOf(t, "a", "127.0.0.1:2")
		a.Policy = parse(t, &endpointv3.ClusterLoadAssignment_Policy{}, `{"endpoint_stale_after": "10s"}`)
		fresh, err := decodeAssignment(a, true)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // each assignment gives it time anew
			c.assign(fresh)
			c.expire(fresh)
			time.Sleep(9 * time.Second)
			synctest.Wait()
			if got := addresses(c); len(got) != 1 {
				t.Fatalf("endpoints are %v before their time is over", got)
			}
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := addresses(c); len(got) != 0 {
			t.Errorf("an assignment that is too old is still used: %v", got)
		}
	})
}

func TestDrops(t *testing.T) {
	for numerator, want := range map[int][2]bool{0: {false, false}, 100: {true, true}} {
		cs := statics(t, `{"name": "a", "load_assignment": {"cluster_name": "a", "policy": {"drop_overloads": [{"category": "x", "drop_percentage": {"numerator": `+strconv.Itoa(numerator)+`}}]}}}`)
		if drop, all := cs.Get("a").Drops(); drop != want[0] || all != want[1] {
			t.Errorf("%d %%: %v %v, want %v", numerator, drop, all, want)
		}
	}
}

func TestMaxConnectionPools(t *testing.T) {
	cs := statics(t, `{"name": "a", "circuit_breakers": {"thresholds": [{"max_connection_pools": 1}]}, "load_assignment": `+to("127.0.0.1:1", "127.0.0.1:2")+`}`)
	c := cs.Get("a")
	eps := c.Endpoints()
	first := c.HTTP(eps[0], upstream.Wish{})
	if first == nil || c.HTTP(eps[0], upstream.Wish{}) != first {
		t.Fatal("the first pool is not there, or another each time")
	}
	// Nobody uses it: it gives way.
	if c.HTTP(eps[1], upstream.Wish{}) == nil || c.Limits(0).Pools.Used() != 1 {
		t.Errorf("%d pools are counted, want 1", c.Limits(0).Pools.Used())
	}
}

func TestRetryBudget(t *testing.T) {
	cs := statics(t, `{"name": "a", "circuit_breakers": {"thresholds": [{"retry_budget": {"budget_percent": {"value": 50}, "min_retry_concurrency": 1}}]}, "load_assignment": `+to("127.0.0.1:1")+`}`)
	l := cs.Get("a").Limits(0)
	if !l.Retries.Take() || l.Retries.Take() {
		t.Error("without requests not just one retry is allowed")
	}
	for range 6 {
		l.Requests.Take()
	}
	if got := l.Retries.Max(); got != 3 {
		t.Errorf("%d retries for 6 requests at 50 %%, want 3", got)
	}
}

// Where the endpoint says nothing of its transport socket its locality does.
func TestSocketOfLocality(t *testing.T) {
	cs := statics(t, `{"name": "a", "transport_socket_matches": [{"name": "tls", "match": {"secure": "yes"}, "transport_socket": {"name": "tls", "typed_config": {
		"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"}}}], "load_assignment": {"cluster_name": "a", "endpoints": [
		{"metadata": {"filter_metadata": {"envoy.transport_socket_match": {"secure": "yes"}}}, "lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 1}}}}]},
		{"locality": {"zone": "z"}, "lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 2}}}}]}]}}`)
	c := cs.Get("a")
	var got []bool
	for _, ep := range c.Endpoints() {
		got = append(got, c.Secure(ep))
	}
	if diff := cmp.Diff([]bool{true, false}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Zones follow the proxies' own cluster, whenever that changes.
func TestLocalCluster(t *testing.T) {
	cs := New(Options{Logger: slog.New(slog.DiscardHandler), Local: "me", Locality: endpoint.Locality{Zone: "z1"}})
	defer cs.Close()
	two := func(name, more string) string {
		return `{"name": "` + name + `", ` + more + `"load_assignment": {"cluster_name": "a", "endpoints": [
		{"locality": {"zone": "z1"}, "lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 1}}}}]},
		{"locality": {"zone": "z2"}, "lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 2}}}}]}]}}`
	}
	zones := func() (n int) {
		seen := map[string]bool{}
		for range 40 {
			seen[cs.Get("a").Pick(&lb.Context{}).Locality.Zone] = true
		}
		return len(seen)
	}
	if err := cs.AddStatic(newCluster(t, two("a", `"common_lb_config": {"zone_aware_lb_config": {"min_cluster_size": 1}}, `))); err != nil {
		t.Fatal(err)
	}
	if n := zones(); n != 2 {
		t.Errorf("traffic goes to %d zones before the proxies are known, want 2", n)
	}
	if err := cs.AddStatic(newCluster(t, two("me", ""))); err != nil {
		t.Fatal(err)
	}
	if n := zones(); n != 1 {
		t.Errorf("traffic goes to %d zones, want the proxy's own", n)
	}
}

// A change of one cluster leaves the others, and their connections, as they are.
func TestChangesLeaveOthersAlone(t *testing.T) {
	for name, delta := range map[string]bool{"delta": true, "state of the world": false} {
		t.Run(name, func(t *testing.T) {
			cs, srv := dynamic(t, delta, func(srv *xdstest.Server) {
				srv.Set("a", newCluster(t, `{"name": "a", "load_assignment": `+to("127.0.0.1:1")+`}`))
				srv.Set("b", newCluster(t, `{"name": "b", "load_assignment": `+to("127.0.0.1:2")+`}`))
			})
			<-cs.Initialized()
			a, b := cs.Get("a"), cs.Get("b")
			srv.Set("b", newCluster(t, `{"name": "b", "connect_timeout": "7s", "load_assignment": `+to("127.0.0.1:2")+`}`))
			<-b.ctx.Done() // another one has taken its place
			if cs.Get("a") != a {
				t.Error("a cluster that did not change is another one")
			}
		})
	}
}
