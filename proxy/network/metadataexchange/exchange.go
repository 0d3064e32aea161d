package metadataexchange

import (
	"encoding/binary"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/lateen-mesh/lateen/proxy/peer"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

const (
	magic    = 0x3D230467
	headLen  = 8        // magic and length, big endian
	maxFrame = 64 << 10 // of what follows the head

	idKey       = "x-envoy-peer-metadata-id"
	metadataKey = "x-envoy-peer-metadata"
)

// frame is what a proxy sends of its node.
func frame(node *corev3.Node) []byte {
	told := &structpb.Struct{Fields: map[string]*structpb.Value{metadataKey: structpb.NewStructValue(peer.Metadata(node.GetMetadata()))}}
	if node.GetId() != "" {
		told.Fields[idKey] = structpb.NewStringValue(node.GetId())
	}
	a, err := anypb.New(told)
	if err != nil { // strings that are no UTF-8, which the bootstrap's decoder refuses
		a = &anypb.Any{}
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(a)
	if err != nil {
		b = nil
	}
	head := binary.BigEndian.AppendUint32(nil, magic)
	return append(binary.BigEndian.AppendUint32(head, uint32(len(b))), b...)
}

// parse reads a frame without its head.
func parse(b []byte) (*peer.Workload, error) {
	var a anypb.Any
	if err := proto.Unmarshal(b, &a); err != nil {
		return nil, fmt.Errorf("peer metadata: %w", err)
	}
	var told structpb.Struct
	if err := a.UnmarshalTo(&told); err != nil {
		return nil, fmt.Errorf("peer metadata: %w", err)
	}
	return peer.FromMetadata(told.GetFields()[metadataKey].GetStructValue()), nil
}

// An exchange is a connection that begins with a frame in each direction. Ours goes before
// the first bytes of this side, or as the answer to the peer's.
type exchange struct {
	transport.Conn
	own  []byte
	mu   sync.Mutex // of sending
	sent bool

	// Of the goroutine that reads.
	read bool
	rest []byte // read, and not part of a frame

	known atomic.Pointer[peer.Workload]
}

func newExchange(c transport.Conn, own []byte) *exchange { return &exchange{Conn: c, own: own} }

// Workload is who the peer says it is, nil before it has.
func (x *exchange) Workload() *peer.Workload { return x.known.Load() }

// TCP is nil while frames may be on their way.
func (x *exchange) TCP() *net.TCPConn { return nil }

// tell sends our frame if it was not sent.
func (x *exchange) tell() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.sent {
		return nil
	}
	x.sent = true
	_, err := x.Conn.Write(x.own)
	return err
}

// Write sends our frame first.
func (x *exchange) Write(p []byte) (int, error) {
	if err := x.tell(); err != nil {
		return 0, err
	}
	return x.Conn.Write(p)
}

// WriteBuffers sends our frame first.
func (x *exchange) WriteBuffers(bufs *net.Buffers) (int64, error) {
	if err := x.tell(); err != nil {
		return 0, err
	}
	return x.Conn.WriteBuffers(bufs)
}

// WaitReadable waits for a byte of the application's.
func (x *exchange) WaitReadable() error {
	if err := x.listen(); err != nil {
		return err
	}
	if len(x.rest) > 0 {
		return nil
	}
	return x.Conn.WaitReadable()
}

// Ended is as the connection's, while nothing is left of what was read.
func (x *exchange) Ended() bool { return len(x.rest) == 0 && x.Conn.Ended() }

// Read reads what follows the peer's frame.
func (x *exchange) Read(p []byte) (int, error) {
	if err := x.listen(); err != nil {
		return 0, err
	}
	if len(x.rest) > 0 {
		n := copy(p, x.rest)
		if x.rest = x.rest[n:]; len(x.rest) == 0 {
			x.rest = nil
		}
		return n, nil
	}
	return x.Conn.Read(p)
}

// listen reads the peer's frame, once. A peer that sends none, or one that cannot be read,
// is not known; its bytes are as they are. An end comes with the next read again.
func (x *exchange) listen() error {
	if x.read {
		return nil
	}
	var head [headLen]byte
	n := 0
	for n < headLen {
		k, err := x.Conn.Read(head[n:])
		n += k
		if n > 0 && !begins(head[:n]) || err != nil && n > 0 {
			x.read, x.rest = true, append([]byte(nil), head[:n]...)
			return nil
		}
		if err != nil {
			return err
		}
	}
	x.read = true
	size := binary.BigEndian.Uint32(head[4:])
	if size > maxFrame {
		return fmt.Errorf("peer metadata: larger than %d bytes", maxFrame)
	}
	body := make([]byte, size)
	for at := 0; at < len(body); {
		k, err := x.Conn.Read(body[at:])
		if at += k; err != nil && at < len(body) {
			return err
		}
	}
	if w, err := parse(body); err == nil {
		x.known.Store(w)
	}
	return x.tell()
}

// begins reports that bytes may be the first ones of a frame.
func begins(b []byte) bool {
	want := binary.BigEndian.AppendUint32(nil, magic)
	n := min(len(b), len(want))
	return string(b[:n]) == string(want[:n])
}
