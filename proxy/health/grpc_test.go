package health

import (
	"context"
	"net"
	"testing"

	"google.golang.org/grpc"
	grpchealth "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

// TestGRPC asks a server of the reference implementation for services in every state.
func TestGRPC(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, states := grpc.NewServer(), grpchealth.NewServer()
	states.SetServingStatus("well", healthpb.HealthCheckResponse_SERVING)
	states.SetServingStatus("down", healthpb.HealthCheckResponse_NOT_SERVING)
	healthpb.RegisterHealthServer(server, states)
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	t.Cleanup(func() { server.Stop(); <-done })
	for _, c := range []struct{ service, want string }{
		{"well", "healthy"}, {"", "healthy"}, {"down", "failed"}, {"unknown", "failed"},
	} {
		t.Run("service "+c.service, func(t *testing.T) {
			s := newSite(plan(t, checkOf(`"grpcHealthCheck": {"serviceName": "`+c.service+`", "authority": "a.test", "initialMetadata": [{"header": {"key": "x", "value": "y"}}]}`)), nil)
			defer s.c.Close()
			s.c.env.Connect = dial
			ep := &endpoint.Endpoint{Address: l.Addr().String()}
			s.c.Set([]Host{{Endpoint: ep}})
			<-s.c.Ready()
			if got := flags(ep); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

// dial connects to an address as a cluster does.
func dial(ctx context.Context, _ *endpoint.Endpoint, address string, _ Way) (transport.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return transport.NewConn(c), nil
}
