package callout

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"os"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/lateen-mesh/lateen/proxy/format"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// A Service is a compiled config.core.v3.GrpcService: where calls of gRPC go.
type Service struct {
	cluster, authority string
	timeout            time.Duration
	metadata           []metadatum
	maxAnswer          int
	quiet              bool // skip_envoy_headers
}

// A metadatum is one header of initial_metadata.
type metadatum struct {
	name  []byte
	value *format.Format
}

// NewService compiles a GrpcService; timeout holds where it has none. An error names the
// field.
func NewService(pb *corev3.GrpcService, timeout time.Duration) (*Service, error) {
	if err := xds.Only(pb, "envoy_grpc", "google_grpc", "timeout", "initial_metadata"); err != nil {
		return nil, err
	}
	if pb.GetGoogleGrpc() != nil {
		return nil, errors.New("google_grpc: not supported")
	}
	e := pb.GetEnvoyGrpc()
	// retry_policy of envoy_grpc is for streams of control planes.
	if err := xds.Only(e, "cluster_name", "authority", "retry_policy", "max_receive_message_length", "skip_envoy_headers"); err != nil {
		return nil, fmt.Errorf("envoy_grpc.%w", err)
	}
	if e.GetClusterName() == "" {
		return nil, errors.New("envoy_grpc.cluster_name: must not be empty")
	}
	s := &Service{cluster: e.GetClusterName(), authority: e.GetAuthority(), timeout: timeout, maxAnswer: DefaultMaxAnswer, quiet: e.GetSkipEnvoyHeaders()}
	if t := pb.GetTimeout(); t != nil {
		s.timeout = t.AsDuration()
	}
	if n := e.GetMaxReceiveMessageLength().GetValue(); n > 0 {
		s.maxAnswer = int(min(n, DefaultMaxAnswer)) + prefix
	}
	var err error
	s.metadata, err = metadata(pb.GetInitialMetadata())
	return s, err
}

func metadata(list []*corev3.HeaderValue) (out []metadatum, err error) {
	for i, h := range list {
		text := h.GetValue()
		if text == "" {
			text = string(h.GetRawValue())
		}
		f, err := format.ParseHeader(text)
		if err != nil {
			return nil, fmt.Errorf("initial_metadata[%d].value: %w", i, err)
		}
		out = append(out, metadatum{[]byte(h.GetKey()), f})
	}
	return out, nil
}

// Cluster is the name of the cluster that is called.
func (s *Service) Cluster() string { return s.cluster }

// A Call is one call of gRPC.
type Call struct {
	Service *Service
	Method  string // "/envoy.service.auth.v3.Authorization/Check"
	// Record is what initial_metadata with command operators is made of.
	Record format.Record
	// Headers are further metadata.
	Headers http.Headers
}

// prefix is the length of what stands before a message of gRPC.
const prefix = 5

// Unary makes a call with one message, and fills out with the one that comes back. Errors
// have a code of gRPC (status.Code), but ErrLeft.
func (c *Client) Unary(w Waiter, k *Call, in, out proto.Message) error {
	body, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, prefix), in)
	if err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	binary.BigEndian.PutUint32(body[1:], uint32(len(body)-prefix))
	s := k.Service
	r := &Request{Cluster: s.cluster, Method: "POST", Authority: s.authority, Path: k.Method, Body: body,
		Timeout: s.timeout, MaxAnswer: s.maxAnswer, Plain: s.quiet}
	r.Headers = k.headers()
	answer, err := c.Do(w, r)
	if err != nil {
		return codeOf(err)
	}
	return answer.message(out)
}

func (k *Call) headers() (h http.Headers) {
	h.Add([]byte("te"), []byte("trailers"))
	if t := k.Service.timeout; t > 0 {
		h.Add([]byte("grpc-timeout"), fmt.Appendf(nil, "%dm", max(1, t.Milliseconds())))
	}
	h.Add([]byte("content-type"), []byte("application/grpc"))
	h.Fields = append(h.Fields, k.Headers.Fields...)
	for _, m := range k.Service.metadata {
		h.Add(m.name, m.value.Append(nil, k.Record))
	}
	return h
}

// codeOf gives an error of Do its code.
func codeOf(err error) error {
	switch {
	case errors.Is(err, ErrLeft):
		return err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, "the time for the call is up")
	case errors.Is(err, ErrTooLarge):
		return status.Error(codes.ResourceExhausted, err.Error())
	}
	return status.Error(codes.Unavailable, err.Error())
}

// message takes the one message out of an answer.
func (r *Response) message(out proto.Message) error {
	if r.Status != 200 {
		return status.Errorf(codes.Code(http.GRPCStatus(r.Status)), "HTTP status %d", r.Status)
	}
	end := &r.Trailers
	if !end.Has("grpc-status") {
		end = &r.Headers
	}
	code, ok := http.ParseGRPCStatus(end.Get("grpc-status"))
	if !ok {
		return status.Error(codes.Unknown, "an answer without grpc-status")
	}
	if code != 0 {
		text, err := url.PathUnescape(string(end.Get("grpc-message")))
		if err != nil {
			text = string(end.Get("grpc-message"))
		}
		return status.Error(codes.Code(code), text)
	}
	b := r.Body
	switch {
	case len(b) < prefix || int64(binary.BigEndian.Uint32(b[1:])) != int64(len(b)-prefix):
		return status.Error(codes.Internal, "the answer is not one message")
	case b[0] != 0:
		return status.Error(codes.Internal, "the answer is compressed")
	}
	if err := proto.Unmarshal(b[prefix:], out); err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	return nil
}
