package control_test

import (
	"path/filepath"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
)

func TestDescription(t *testing.T) {
	p := start(t, map[string]string{"gateway.yaml": gateway}, nil)
	conn, err := grpc.NewClient("unix:"+filepath.Join(p.sockets, "grpc"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Run("EN-056 gRPC health", func(t *testing.T) {
		reply, err := grpc_health_v1.NewHealthClient(conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{}, grpc.WaitForReady(true))
		if err != nil || reply.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Errorf("%v, %v", reply, err)
		}
	})
	t.Run("EN-054 EN-056 reflection names the discovery service", func(t *testing.T) {
		stream, err := grpc_reflection_v1.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{}}); err != nil {
			t.Fatal(err)
		}
		reply, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(reply.GetListServicesResponse().GetService(), func(s *grpc_reflection_v1.ServiceResponse) bool {
			return s.GetName() == "envoy.service.discovery.v3.AggregatedDiscoveryService"
		}) {
			t.Errorf("%v", reply)
		}
	})
}
