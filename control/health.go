package control

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
)

// describe has the server of proxies say that it serves, and what: grpc.health.v1 and
// reflection. It accepts nothing before there is something to serve.
func describe(s *grpc.Server) {
	grpc_health_v1.RegisterHealthServer(s, health.NewServer())
	reflection.Register(s)
}
