package ads

import (
	"fmt"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	encproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// A Resource is one named xDS resource. It is shared between streams and must
// not be changed.
type Resource struct {
	Name    string
	Version string // of the content; equal content has equal versions
	Body    *anypb.Any

	// The resource as a response holds it, with tag and length, in either form of the
	// protocol. Both are parts of one buffer, and so is the body: it is there once however
	// many proxies are sent it.
	delta, world mem.Buffer
	sum          uint64 // of name and version
	stamp        stamp
}

// NewResource packs a message. The error is that of encoding it.
func NewResource(name string, m proto.Message) (Resource, error) {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return Resource{}, fmt.Errorf("%s %s: %w", m.ProtoReflect().Descriptor().Name(), name, err)
	}
	return Encoded(name, "type.googleapis.com/"+string(m.ProtoReflect().Descriptor().FullName()), raw), nil
}

// Fields of the messages that a resource is wrapped in. That of the resources of a
// DiscoveryResponse and that of the body in a Resource are the same, so that a resource
// in the state of the world is the end of one in the delta form.
const (
	responseResources = 2 // of DiscoveryResponse and DeltaDiscoveryResponse
	resourceVersion   = 1
	resourceBody      = 2
	resourceName      = 3
	anyType           = 1
	anyValue          = 2
)

// Encoded is the resource of a message that is encoded already; equal messages must be
// equal bytes.
func Encoded(name, typeURL string, raw []byte) Resource {
	version := fmt.Sprintf("%016x", xxhash.Sum64(raw))
	body := fieldSize(anyType, len(typeURL)) + fieldSize(anyValue, len(raw))
	whole := fieldSize(resourceVersion, len(version)) + fieldSize(resourceName, len(name)) + fieldSize(resourceBody, body)
	b := make([]byte, 0, fieldSize(responseResources, whole))
	b = openField(b, responseResources, whole)
	b = append(openField(b, resourceVersion, len(version)), version...)
	b = append(openField(b, resourceName, len(name)), name...)
	start := len(b)
	b = openField(b, resourceBody, body)
	b = append(openField(b, anyType, len(typeURL)), typeURL...)
	b = append(openField(b, anyValue, len(raw)), raw...)
	return Resource{
		Name: name, Version: version, Body: &anypb.Any{TypeUrl: typeURL, Value: b[len(b)-len(raw) : len(b) : len(b)]},
		delta: mem.SliceBuffer(b), world: mem.SliceBuffer(b[start:]), sum: xxhash.Sum64String(name + "\x00" + version), stamp: stampOf(version),
	}
}

// fieldSize is what a field of length-delimited bytes takes.
func fieldSize(number protowire.Number, size int) int {
	return protowire.SizeTag(number) + protowire.SizeBytes(size)
}

func openField(b []byte, number protowire.Number, size int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, number, protowire.BytesType), uint64(size))
}

// versionOf is the version of a whole response: of its content in any order, so that it is
// the same on every stream and after a restart.
func versionOf(d delivery) string {
	sum := uint64(len(d.resources))
	for _, r := range d.resources {
		sum += r.sum
	}
	return fmt.Sprintf("%016x", sum)
}

// A frame is a response that is encoded already.
type frame mem.BufferSlice

// newFrame puts resources behind the other fields of a response.
func newFrame(head proto.Message, d delivery, form func(*Resource) mem.Buffer) (frame, error) {
	raw, err := proto.Marshal(head)
	if err != nil {
		return nil, err
	}
	f := make(frame, 0, len(d.resources)+1)
	f = append(f, mem.SliceBuffer(raw))
	for _, r := range d.resources {
		f = append(f, form(r))
	}
	return f, nil
}

// ServerOption lets a gRPC server send what a Server serves. Responses go out without being
// encoded or copied for each proxy: one that does not read holds up no memory but the buffers
// of its own connection.
func ServerOption() grpc.ServerOption {
	return grpc.ForceServerCodecV2(codec{encoding.GetCodecV2(encproto.Name)})
}

// A codec knows frames and leaves all other messages to that of protobuf.
type codec struct{ encoding.CodecV2 }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if f, ok := v.(frame); ok {
		return mem.BufferSlice(f), nil
	}
	return c.CodecV2.Marshal(v)
}
