package outside

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// proxyID is the uid and gid of sidecars where ids are to be had.
	proxyID = 1337
	// maxPerPod bounds the connections of one pod to a Door.
	maxPerPod = 128
	maxQueued = 16 // requests that a connection is ahead of its answers
)

// A Namespace is a network namespace, by the inode of its file.
type Namespace uint64

// An Inside answers what proxies in pods ask. It is called from many goroutines.
type Inside interface {
	// Knows reports whether a pod lives in the namespace.
	Knows(Namespace) bool
	// Dial connects outside; the file is the caller's.
	Dial(ctx context.Context, network string, to netip.AddrPort) (*os.File, error)
	// Published is the listening socket of this machine behind a port of a pod, with its address
	// there; the file is the caller's.
	Published(ctx context.Context, pod Namespace, port uint16) (*os.File, netip.AddrPort, error)
	// Ranges are what pods reach by themselves.
	Ranges() []netip.Prefix
}

// A Door is the socket at a path on which proxies in pods ask.
type Door struct {
	listener *net.UnixListener
	inside   Inside
	ctx      context.Context
	cancel   context.CancelFunc
	serving  sync.WaitGroup

	mu      sync.Mutex
	callers map[Namespace]int
}

// OpenDoor listens at a path, in place of a socket that is there from before.
func OpenDoor(path string, inside Inside) (*Door, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("socket for proxies: %w", err)
	}
	l, err := listenPrivately(path)
	if err != nil {
		return nil, fmt.Errorf("socket for proxies: %w", err)
	}
	d := &Door{listener: l, inside: inside, callers: map[Namespace]int{}}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.serving.Go(d.accept)
	return d, nil
}

// listenPrivately gives the socket its mode before anybody can connect: nobody can
// before listen.
func listenPrivately(path string) (*net.UnixListener, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, err
	}
	mode := os.FileMode(0o600)
	if os.Chown(path, -1, proxyID) == nil { // not as an ordinary user, whose proxies have his own ids
		mode = 0o660
	}
	if err := os.Chmod(path, mode); err != nil {
		return nil, err
	}
	if err := unix.Listen(fd, 128); err != nil {
		return nil, err
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	u := l.(*net.UnixListener)
	u.SetUnlinkOnClose(true)
	return u, nil
}

// Close ends all requests and removes the socket.
func (d *Door) Close() error {
	d.cancel()
	err := d.listener.Close()
	d.serving.Wait()
	return err
}

func (d *Door) accept() {
	for {
		c, err := d.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors: others end
			if !pause(d.ctx) {
				return
			}
			continue
		}
		pod, err := caller(c)
		if err != nil || !d.inside.Knows(pod) || !d.enter(pod) {
			_ = c.Close()
			continue
		}
		d.serving.Go(func() {
			d.serve(c, pod)
			d.leave(pod)
		})
	}
}

// pause waits a moment; false when the context ends before.
func pause(ctx context.Context) bool {
	t := time.NewTimer(10 * time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (d *Door) enter(pod Namespace) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.callers[pod] >= maxPerPod {
		return false
	}
	d.callers[pod]++
	return true
}

func (d *Door) leave(pod Namespace) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.callers[pod]--; d.callers[pod] == 0 {
		delete(d.callers, pod)
	}
}

// caller is the namespace of who connected: an accepted socket is in that of the other
// end. An error when its user may not ask.
func caller(c *net.UnixConn) (Namespace, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var pod Namespace
	var failed error
	err = raw.Control(func(fd uintptr) {
		var who *unix.Ucred
		if who, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); failed != nil {
			return
		}
		if int(who.Uid) != os.Geteuid() && who.Uid != proxyID {
			failed = unix.EPERM
			return
		}
		pod, failed = namespaceOf(int(fd))
	})
	return pod, errors.Join(err, failed)
}

// namespaceOf is where a socket lives.
func namespaceOf(socket int) (Namespace, error) {
	ns, err := unix.IoctlRetInt(socket, unix.SIOCGSKNS)
	if err != nil {
		return 0, err
	}
	defer unix.Close(ns)
	return namespace(ns)
}

// NamespaceOf is the namespace of its file.
func NamespaceOf(ns *os.File) (Namespace, error) {
	raw, err := ns.SyscallConn()
	if err != nil {
		return 0, err
	}
	var n Namespace
	var failed error
	err = raw.Control(func(fd uintptr) { n, failed = namespace(int(fd)) })
	return n, errors.Join(err, failed)
}

func namespace(fd int) (Namespace, error) {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	return Namespace(st.Ino), err
}

// serve answers one connection, in the order of its requests.
func (d *Door) serve(c *net.UnixConn, pod Namespace) {
	ctx, cancel := context.WithCancel(d.ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	defer c.Close()
	requests := make(chan request, maxQueued)
	d.serving.Go(func() {
		defer cancel() // the asker is gone
		defer close(requests)
		buf := make([]byte, maxRequest+1)
		for {
			packet, file, err := receive(c, buf)
			if file != nil {
				_ = file.Close()
			}
			if err != nil {
				return
			}
			r, err := parseRequest(packet)
			if err != nil {
				r = request{}
			}
			select {
			case requests <- r:
			case <-ctx.Done():
				return
			}
		}
	})
	for r := range requests {
		words, file, err := d.answer(ctx, pod, r)
		if ctx.Err() == nil {
			err = respond(c, words, file, err)
		}
		if file != nil {
			_ = file.Close()
		}
		if err != nil {
			return
		}
	}
}

// respond sends one answer.
func respond(c *net.UnixConn, words string, file *os.File, err error) error {
	if err != nil {
		return send(c, failure(err), nil)
	}
	packet := []byte(strings.TrimSuffix("ok "+words, " "))
	if file == nil {
		return send(c, packet, nil)
	}
	return send(c, packet, file)
}

func (d *Door) answer(ctx context.Context, pod Namespace, r request) (words string, file *os.File, err error) {
	switch {
	case r.verb == "inside":
		for _, p := range d.inside.Ranges() {
			words += " " + p.String()
		}
		return strings.TrimPrefix(words, " "), nil, nil
	case r.verb == "dial" && d.near(r.to.Addr()):
		return "", nil, &Error{crossed, "this address is dialled from the pod"}
	case r.verb == "dial":
		file, err = d.inside.Dial(ctx, r.network, r.to)
		return "", file, err
	case r.verb == "listen" && r.network == "tcp":
		file, at, err := d.inside.Published(ctx, pod, r.port)
		return at.String(), file, err
	}
	return "", nil, errRequest
}

// near reports that a pod reaches an address by itself.
func (d *Door) near(a netip.Addr) bool {
	for _, p := range d.inside.Ranges() {
		if p.Contains(a) {
			return true
		}
	}
	return a.IsLoopback() || a.IsUnspecified() || a.IsMulticast() || a.Is6() && a.IsLinkLocalUnicast()
}

// Unpublished is the error of a port that a pod does not publish.
func Unpublished(port uint16) error {
	return &Error{syscall.Errno(missing), fmt.Sprintf("the pod publishes no port %d", port)}
}
