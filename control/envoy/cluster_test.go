package envoy

import (
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/lateen-mesh/lateen/control/ir"
)

// Whatever is decided, what is spelled passes the rules of Envoy's own API, and
// equal values give equal bytes.
func TestClusterValidates(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawCluster(t)
		out := Cluster(c)
		if err := out.Validate(); err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		one, err := proto.MarshalOptions{Deterministic: true}.Marshal(out)
		if err != nil {
			t.Fatal(err)
		}
		two, err := proto.MarshalOptions{Deterministic: true}.Marshal(Cluster(c))
		if err != nil || string(one) != string(two) {
			t.Fatalf("equal values give other bytes (%v)", err)
		}
	})
}

func drawCluster(t *rapid.T) ir.Cluster {
	count := rapid.Uint32Range(0, 100)
	some := rapid.Bool()
	c := ir.Cluster{
		Name: "outbound|80||a.test", StatName: "outbound|80||a.test;",
		Discovery:      ir.Discovery(rapid.IntRange(0, int(ir.DynamicForwardProxy)).Draw(t, "discovery")),
		ConnectTimeout: time.Second,
		PeerMetadata:   some.Draw(t, "peer"),
		ProxyProtocol:  rapid.IntRange(0, 2).Draw(t, "proxy protocol"),
		DNS:            &ir.DNS{RefreshRate: time.Second, Jitter: time.Millisecond, CaresQueries: count.Draw(t, "cares"), CacheName: "x"},
		LoadBalancer: ir.LoadBalancer{
			Balancer:         ir.Balancer(rapid.IntRange(0, int(ir.ClusterProvided)).Draw(t, "balancer")),
			MinRingSize:      rapid.Uint64Range(1, 1024).Draw(t, "ring"),
			TableSize:        rapid.SampledFrom([]uint64{0, 251, 65537}).Draw(t, "table"),
			LocalityWeighted: some.Draw(t, "weighted"),
			Common:           some.Draw(t, "common"),
		},
		Metadata: ir.ClusterMetadata{External: some.Draw(t, "external"), Subset: "v1", Services: []ir.ServiceRef{{Host: "a", Name: "b", Namespace: "c"}}},
	}
	if some.Draw(t, "slow start") {
		c.LoadBalancer.SlowStart = &ir.SlowStart{Window: time.Second, Aggression: 1.5}
	}
	if some.Draw(t, "limits") {
		c.Limits = &ir.Limits{MaxConnections: count.Draw(t, "connections"), RetryBudget: &ir.RetryBudget{Percent: 20, MinConcurrency: 3}}
	}
	if some.Draw(t, "outlier") {
		n := count.Draw(t, "errors")
		c.Outlier = &ir.OutlierDetection{Consecutive5xx: &n, ConsecutiveGatewayErrors: &n, SplitLocalErrors: some.Draw(t, "split"),
			MaxEjectionPercent: count.Draw(t, "percent")}
	}
	if some.Draw(t, "tls") {
		c.TLS = &ir.UpstreamTLS{SNI: "a.test", MinVersion: "TLSv1_2", MaxVersion: "TLSv1_3", SANs: []string{"a.test"}}
		switch rapid.IntRange(0, 2).Draw(t, "authorities") {
		case 1:
			c.TLS.CA = &ir.SecretRef{Name: "kubernetes://a-cacert"}
			c.TLS.Certificate = &ir.SecretRef{Name: "default", FromAgent: true, WaitForever: true}
		case 2:
			c.TLS.CAFile, c.TLS.CertificateFiles = "/ca.pem", &ir.CertificateFiles{Certificate: "/c.pem", Key: "/k.pem"}
		}
	}
	if some.Draw(t, "http") {
		c.HTTP = &ir.UpstreamHTTP{Version: ir.HTTPVersion(rapid.IntRange(0, int(ir.DownstreamChoice)).Draw(t, "version")),
			AutoSNI: some.Draw(t, "sni"), MaxRequestsPerConn: count.Draw(t, "requests"), MaxConcurrentStreams: rapid.Uint32Range(0, 9).Draw(t, "streams"),
			KeepaliveInterval: time.Second, KeepaliveTimeout: time.Second,
			ErrorCodes: rapid.SliceOfN(rapid.Uint32Range(100, 599), 0, 3).Draw(t, "codes")}
	}
	return c
}

func TestAssignment(t *testing.T) {
	out := Assignment(ir.Assignment{Cluster: "c", Localities: []ir.LocalityEndpoints{
		{Locality: &ir.Locality{Region: "r"}, Weight: 2, Endpoints: []ir.Endpoint{
			{Address: "10.0.0.1", Port: 80, Weight: 1, TLSMode: "istio", Workload: "w"},
			{Address: "/run/app.sock", Weight: 1, Draining: true},
			{Address: "10.0.0.3", Port: 80},
		}},
		{Priority: 1},
	}})
	if err := out.Validate(); err != nil {
		t.Fatal(err)
	}
	first := out.Endpoints[0].LbEndpoints
	if got := first[0].GetEndpoint().GetAddress().GetSocketAddress(); got.GetAddress() != "10.0.0.1" || got.GetPortValue() != 80 {
		t.Errorf("address %v", got)
	}
	if got := first[1].GetEndpoint().GetAddress().GetPipe().GetPath(); got != "/run/app.sock" || first[1].HealthStatus.String() != "DRAINING" {
		t.Errorf("socket %q, %v", got, first[1].HealthStatus)
	}
	if got := first[2]; got.HealthStatus.String() != "UNKNOWN" || got.LoadBalancingWeight != nil || got.Metadata != nil {
		t.Errorf("got %v", got)
	}
	if got := first[0].Metadata.FilterMetadata["envoy.transport_socket_match"].Fields["tlsMode"].GetStringValue(); got != "istio" {
		t.Errorf("tlsMode %q", got)
	}
	if out.Endpoints[1].Priority != 1 || out.Endpoints[1].LoadBalancingWeight != nil {
		t.Errorf("second locality %v", out.Endpoints[1])
	}
}

func TestClusterSpelling(t *testing.T) {
	zero, idle := 0.0, time.Minute
	for _, tc := range []struct {
		name  string
		c     ir.Cluster
		check func(*clusterv3.Cluster) bool
	}{
		{"nothing said, nothing written", ir.Cluster{Name: "a"}, func(c *clusterv3.Cluster) bool {
			return c.CircuitBreakers == nil && c.OutlierDetection == nil && c.CommonLbConfig == nil && c.Metadata == nil && c.TransportSocket == nil && c.UpstreamBindConfig == nil
		}},
		{"panic mode off is written, not left out", ir.Cluster{Name: "a", LoadBalancer: ir.LoadBalancer{PanicThreshold: &zero}}, func(c *clusterv3.Cluster) bool {
			return c.CommonLbConfig.GetHealthyPanicThreshold() != nil
		}},
		{"EDS goes over ADS and is waited for", ir.Cluster{Name: "a", Discovery: ir.EDS}, func(c *clusterv3.Cluster) bool {
			return c.EdsClusterConfig.GetServiceName() == "a" && c.EdsClusterConfig.GetEdsConfig().GetAds() != nil && c.EdsClusterConfig.EdsConfig.InitialFetchTimeout.AsDuration() == 0
		}},
		{"a PROXY header goes before TLS", ir.Cluster{Name: "a", ProxyProtocol: 2, TLS: &ir.UpstreamTLS{}}, func(c *clusterv3.Cluster) bool {
			return c.TransportSocket.GetName() == "envoy.transport_sockets.upstream_proxy_protocol"
		}},
		{"idle timeout", ir.Cluster{Name: "a", HTTP: &ir.UpstreamHTTP{IdleTimeout: &idle}}, func(c *clusterv3.Cluster) bool {
			return c.TypedExtensionProtocolOptions[httpOptionsName] != nil
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if c := Cluster(tc.c); !tc.check(c) {
				t.Errorf("got %v", c)
			}
		})
	}
}
