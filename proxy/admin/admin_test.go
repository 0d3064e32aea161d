package admin

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	adminpb "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lateen-mesh/lateen/logging"
	"github.com/lateen-mesh/lateen/proxy/stats"
)

func address(ip string, port uint32) *corepb.Address {
	return &corepb.Address{Address: &corepb.Address_SocketAddress{SocketAddress: &corepb.SocketAddress{Address: ip, PortSpecifier: &corepb.SocketAddress_PortValue{PortValue: port}}}}
}

func breakers(p corepb.RoutingPriority) *clusterpb.CircuitBreakers_Thresholds {
	n := wrapperspb.UInt32(1024)
	return &clusterpb.CircuitBreakers_Thresholds{Priority: p, MaxConnections: n, MaxPendingRequests: n, MaxRequests: n, MaxRetries: wrapperspb.UInt32(3)}
}

// exampleClusters are those of a run of Envoy 1.40 whose pages were recorded.
func exampleClusters() *adminpb.Clusters {
	return &adminpb.Clusters{ClusterStatuses: []*adminpb.ClusterStatus{{
		Name: "outbound|80||a.b.c", ObservabilityName: "outbound|80||a.b.c",
		CircuitBreakers: &clusterpb.CircuitBreakers{Thresholds: []*clusterpb.CircuitBreakers_Thresholds{breakers(0), breakers(1)}},
		HostStatuses: []*adminpb.HostStatus{{
			Address: address("::1", 29901), Hostname: "localhost", Weight: 1, Locality: &corepb.Locality{Region: "r1", Zone: "z"},
			Stats:        []*adminpb.SimpleMetric{{Name: "cx_total", Value: 2}, {Name: "cx_active", Value: 1, Type: adminpb.SimpleMetric_GAUGE}},
			HealthStatus: &adminpb.HostHealthStatus{EdsHealthStatus: corepb.HealthStatus_HEALTHY},
		}},
	}, {Name: "c2", ObservabilityName: "c2", AddedViaApi: true, EdsServiceName: "svc", HostStatuses: []*adminpb.HostStatus{{
		Address:      &corepb.Address{Address: &corepb.Address_Pipe{Pipe: &corepb.Pipe{Path: "/run/x"}}},
		HealthStatus: &adminpb.HostHealthStatus{FailedOutlierCheck: true, EdsHealthStatus: corepb.HealthStatus_UNHEALTHY},
	}}}}}
}

const clustersPage = `outbound|80||a.b.c::observability_name::outbound|80||a.b.c
outbound|80||a.b.c::default_priority::max_connections::1024
outbound|80||a.b.c::default_priority::max_pending_requests::1024
outbound|80||a.b.c::default_priority::max_requests::1024
outbound|80||a.b.c::default_priority::max_retries::3
outbound|80||a.b.c::high_priority::max_connections::1024
outbound|80||a.b.c::high_priority::max_pending_requests::1024
outbound|80||a.b.c::high_priority::max_requests::1024
outbound|80||a.b.c::high_priority::max_retries::3
outbound|80||a.b.c::added_via_api::false
outbound|80||a.b.c::[::1]:29901::cx_active::1
outbound|80||a.b.c::[::1]:29901::cx_connect_fail::0
outbound|80||a.b.c::[::1]:29901::cx_total::2
outbound|80||a.b.c::[::1]:29901::rq_active::0
outbound|80||a.b.c::[::1]:29901::rq_error::0
outbound|80||a.b.c::[::1]:29901::rq_pending_active::0
outbound|80||a.b.c::[::1]:29901::rq_success::0
outbound|80||a.b.c::[::1]:29901::rq_timeout::0
outbound|80||a.b.c::[::1]:29901::rq_total::0
outbound|80||a.b.c::[::1]:29901::hostname::localhost
outbound|80||a.b.c::[::1]:29901::health_flags::healthy
outbound|80||a.b.c::[::1]:29901::weight::1
outbound|80||a.b.c::[::1]:29901::region::r1
outbound|80||a.b.c::[::1]:29901::zone::z
outbound|80||a.b.c::[::1]:29901::sub_zone::
outbound|80||a.b.c::[::1]:29901::canary::false
outbound|80||a.b.c::[::1]:29901::priority::0
outbound|80||a.b.c::[::1]:29901::success_rate::-1
outbound|80||a.b.c::[::1]:29901::local_origin_success_rate::-1
`

func server(t *testing.T) *httptest.Server {
	t.Helper()
	a, err := anypb.New(&listenerpb.Listener{Name: "l", Address: address("127.0.0.1", 80)})
	if err != nil {
		t.Fatal(err)
	}
	unknown := &anypb.Any{TypeUrl: "type.googleapis.com/no.such.Type", Value: []byte{8, 1}}
	s := httptest.NewServer(New(View{
		Clusters: exampleClusters, Stats: stats.NewStore(), Log: logging.Discard(),
		Listeners: func() *adminpb.Listeners {
			return &adminpb.Listeners{ListenerStatuses: []*adminpb.ListenerStatus{
				{Name: "l1", LocalAddress: address("127.0.0.1", 80), AdditionalLocalAddresses: []*corepb.Address{address("::1", 80)}},
			}}
		},
		Dump: func(bool) []proto.Message {
			return []proto.Message{&adminpb.ListenersConfigDump{VersionInfo: "7", StaticListeners: []*adminpb.ListenersConfigDump_StaticListener{{Listener: a}, {Listener: unknown}}}}
		},
	}))
	t.Cleanup(s.Close)
	return s
}

func fetch(t *testing.T, s *httptest.Server, path string) (*http.Response, string) {
	t.Helper()
	resp, err := s.Client().Get(s.URL + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

func TestPages(t *testing.T) {
	s := server(t)
	t.Run("EN-001 clusters, line for line", func(t *testing.T) {
		resp, body := fetch(t, s, "/clusters")
		if !strings.HasPrefix(body, clustersPage) {
			t.Errorf("got\n%s", body)
		}
		for _, line := range []string{"c2::added_via_api::true\n", "c2::eds_service_name::svc\n", "c2::/run/x::health_flags::/failed_outlier_check/failed_eds_health\n"} {
			if !strings.Contains(body, line) {
				t.Errorf("missing %q", line)
			}
		}
		for name, want := range map[string]string{"content-type": "text/plain; charset=UTF-8", "cache-control": "no-cache, max-age=0", "x-content-type-options": "nosniff", "server": "envoy"} {
			if got := resp.Header.Get(name); got != want {
				t.Errorf("%s: %s", name, got)
			}
		}
	})
	t.Run("EN-001 clusters by name", func(t *testing.T) {
		if _, body := fetch(t, s, "/clusters?filter=^c2$"); strings.Contains(body, "outbound") || !strings.HasPrefix(body, "c2::") {
			t.Error(body)
		}
	})
	t.Run("EN-001 listeners", func(t *testing.T) {
		if _, body := fetch(t, s, "/listeners"); body != "l1::127.0.0.1:80\nl1::[::1]:80\n" {
			t.Error(body)
		}
	})
	t.Run("EN-001 a dump with a type that is not linked", func(t *testing.T) {
		resp, body := fetch(t, s, "/config_dump?mask=version_info,static_listeners.listener.name")
		want := `{
 "configs": [
  {
   "@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump",
   "version_info": "7",
   "static_listeners": [
    {
     "listener": {
      "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
      "name": "l"
     }
    },
    {
     "listener": {}
    }
   ]
  }
 ]
}
`
		if body != want || resp.Header.Get("content-type") != "application/json" {
			t.Errorf("%s\n%s", resp.Header.Get("content-type"), body)
		}
		if _, body := fetch(t, s, "/config_dump"); !strings.Contains(body, `"@type": "type.googleapis.com/no.such.Type"`) {
			t.Error(body)
		}
	})
}
