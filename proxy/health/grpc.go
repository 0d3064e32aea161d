package health

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/core/v3"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// grpcCheck calls grpc.health.v1.Health/Check.
type grpcCheck struct {
	message   []byte // framed
	authority []byte
	add       []header
}

func compileGRPC(pb *corev3.HealthCheck_GrpcHealthCheck) (prober, error) {
	if err := xds.Only(pb, "service_name", "authority", "initial_metadata"); err != nil {
		return nil, err
	}
	body, err := proto.Marshal(&healthpb.HealthCheckRequest{Service: pb.GetServiceName()})
	if err != nil {
		return nil, fmt.Errorf("service_name: %w", err)
	}
	k := &grpcCheck{message: make([]byte, 5, 5+len(body)), authority: []byte(pb.GetAuthority())}
	binary.BigEndian.PutUint32(k.message[1:], uint32(len(body)))
	k.message = append(k.message, body...)
	k.add, err = headers("initial_metadata", pb.GetInitialMetadata())
	return k, err
}

func (*grpcCheck) kind() kind { return datav3.HealthCheckerType_GRPC }

func (k *grpcCheck) probe(s *session) probe {
	return &grpcProbe{check: k, s: s, line: line{s: s, h2: true}}
}

type grpcProbe struct {
	check *grpcCheck
	s     *session
	line  line
}

func (p *grpcProbe) close() { p.line.close() }

func (p *grpcProbe) try(ctx context.Context) outcome {
	return p.line.exchange(ctx, func() *http.Request { return p.request(ctx) }, p.check.message, maxMessage,
		func(answer *http.Response, body []byte) outcome { return outcome{passed: serving(answer, body)} })
}

// maxMessage bounds an answer: it holds one small message.
const maxMessage = 4 << 10

func (p *grpcProbe) request(ctx context.Context) *http.Request {
	r := &http.Request{
		Method: []byte("POST"), Scheme: scheme(p.line.secure()), Authority: p.s.authority(p.check.authority), Path: []byte("/grpc.health.v1.Health/Check"),
		Protocol: http.HTTP2, ContentLength: -1, Body: http.NoBody,
	}
	r.Headers.Add([]byte("te"), []byte("trailers"))
	if end, ok := ctx.Deadline(); ok {
		r.Headers.Add([]byte("grpc-timeout"), fmt.Appendf(nil, "%dm", max(1, time.Until(end).Milliseconds())))
	}
	r.Headers.Add([]byte("content-type"), []byte("application/grpc"))
	r.Headers.Add([]byte("user-agent"), []byte("Envoy/HC"))
	p.s.edit(r, p.check.add, nil)
	return r
}

// serving reports that an answer says so, with a gRPC status of 0.
func serving(r *http.Response, body []byte) bool {
	if r.Status != 200 {
		return false
	}
	status := r.Headers.Get("grpc-status")
	if t := r.Body.Trailers(); status == nil && t != nil {
		status = t.Get("grpc-status")
	}
	if string(status) != "0" {
		return false
	}
	m, err := message(body)
	if err != nil {
		return false
	}
	var answer healthpb.HealthCheckResponse
	return proto.Unmarshal(m, &answer) == nil && answer.GetStatus() == healthpb.HealthCheckResponse_SERVING
}

// message is the only message of a body, which is not compressed.
func message(body []byte) ([]byte, error) {
	if len(body) < 5 {
		return nil, io.ErrUnexpectedEOF
	}
	if body[0] != 0 || int64(binary.BigEndian.Uint32(body[1:])) != int64(len(body)-5) {
		return nil, errors.New("not one plain message")
	}
	return body[5:], nil
}
