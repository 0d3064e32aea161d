// Package outside asks for sockets of the machine around a pod: those that are
// connected there (--dial-socket), and those that listen there for a port that the pod
// publishes (--publish-socket). They come as descriptors (SCM_RIGHTS) and are then like
// any other socket, but for the network that they live in: a refused connection is
// refused, and a client's address is the client's.
//
// Whoever answers listens on a Unix socket of type SOCK_SEQPACKET at a path. A request
// is one packet of text, its answer another one; a connection has one request at a time:
//
//	dial tcp 93.184.216.34:443    ok + descriptor, or err ERRNO TEXT (err 111 connection refused)
//	listen tcp 8080               ok + descriptor; err 2 … when the pod does not publish the port
//	inside                        ok 10.96.0.0/16 …: what the pod reaches by itself
//
// Addresses of these ranges, those of the pod's own loopback and whatever is answered by
// errno 18 (EXDEV) or 97 (EAFNOSUPPORT) are ErrInside: the asker dials them itself.
//
// A Door keeps a few connections for the next request and has at most maxAsking at
// once; others wait for their turn, until their context ends. Giving up closes the
// connection, which ends the dial on the other side.
package outside

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Errors that are not failures.
var (
	// ErrInside says that an address is reached from the pod itself.
	ErrInside = errors.New("the address is inside")
	// ErrUnpublished says that nothing listens outside for a port.
	ErrUnpublished = errors.New("the port is not published")
)

const (
	// maxAsking bounds the connections of a Door: the other side takes 128 of a pod.
	maxAsking = 96
	maxIdle   = 8
	maxAnswer = 4 << 10 // bytes of an answer
)

// A Door is the way to who answers at a path. It is safe for concurrent use; nothing is
// connected before the first request.
type Door struct {
	path   string
	turns  chan struct{} // one for each connection
	ranges atomic.Pointer[[]netip.Prefix]

	mu     sync.Mutex
	idle   []*net.UnixConn
	closed bool
}

// New returns a Door to path.
func New(path string) *Door { return &Door{path: path, turns: make(chan struct{}, maxAsking)} }

// Close ends connections that wait for a request. Requests under way end by their context.
func (d *Door) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	for _, c := range d.idle {
		_ = c.Close()
	}
	d.idle = nil
}

// Dial connects outside, by TCP. The error is ErrInside, the context's, a *net.OpError
// with the errno of the connection, as a dial of our own would have it, or ErrNoAnswer.
func (d *Door) Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	inside, err := d.inside(ctx, to.Addr())
	if err != nil {
		return nil, err
	}
	if inside {
		return nil, ErrInside
	}
	_, file, err := d.ask(ctx, "dial tcp "+to.String())
	if err != nil {
		return nil, dialError(to, err)
	}
	defer file.Close()
	c, err := net.FileConn(file)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoAnswer, err)
	}
	return c, nil
}

// dialError words an answer as net would.
func dialError(to netip.AddrPort, err error) error {
	var errno syscall.Errno
	switch {
	case !errors.As(err, &errno) || errors.Is(err, ErrNoAnswer):
		return err
	case errno == unix.EXDEV, errno == unix.EAFNOSUPPORT:
		return ErrInside
	}
	return &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(to), Err: os.NewSyscallError("connect", errno)}
}

// Listen returns the listening socket of the machine for a port of the pod. The error is
// ErrUnpublished, the context's, ErrNoAnswer or what the other side says.
func (d *Door) Listen(ctx context.Context, port uint16) (net.Listener, error) {
	_, file, err := d.ask(ctx, "listen tcp "+strconv.Itoa(int(port)))
	if errors.Is(err, unix.ENOENT) && !errors.Is(err, ErrNoAnswer) {
		return nil, ErrUnpublished
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return net.FileListener(file)
}

// inside reports that an address is the pod's own affair. The ranges are asked for
// once; they hold as long as the mesh does.
func (d *Door) inside(ctx context.Context, a netip.Addr) (bool, error) {
	if a.IsLoopback() || a.IsUnspecified() || a.IsMulticast() || a.IsLinkLocalUnicast() {
		return true, nil
	}
	ranges := d.ranges.Load()
	if ranges == nil {
		words, file, err := d.ask(ctx, "inside")
		if file != nil {
			_ = file.Close()
		}
		if err != nil {
			return false, err
		}
		list := []netip.Prefix{}
		for word := range strings.FieldsSeq(words) {
			p, err := netip.ParsePrefix(word)
			if err != nil {
				return false, fmt.Errorf("%w: ranges: %w", ErrNoAnswer, err)
			}
			list = append(list, p.Masked())
		}
		ranges = &list
		d.ranges.Store(ranges)
	}
	for _, p := range *ranges {
		if p.Contains(a) {
			return true, nil
		}
	}
	return false, nil
}
