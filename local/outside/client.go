package outside

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// Pair makes the two ends of a socketpair: theirs for the process inside (ExtraFiles),
// ours for Serve.
func Pair() (theirs *os.File, ours *net.UnixConn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	theirs = os.NewFile(uintptr(fds[1]), "inside")
	if ours, err = end(os.NewFile(uintptr(fds[0]), "outside")); err != nil {
		_ = theirs.Close()
		return nil, nil, err
	}
	return theirs, ours, nil
}

// end makes a connection of a descriptor and closes the descriptor.
func end(f *os.File) (*net.UnixConn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		_ = c.Close()
		return nil, fmt.Errorf("%s is no Unix socket", f.Name())
	}
	return u, nil
}

// A Client asks the outside. Safe for concurrent use; a slow answer holds up no other.
type Client struct {
	conn *net.UnixConn
	done chan struct{} // the reader has ended

	mu      sync.Mutex
	last    uint64
	waiting map[uint64]chan reply
	over    error // why nothing is answered any more
}

// NewClient takes the inner end of a socketpair, and owns it.
func NewClient(theirs *os.File) (*Client, error) {
	conn, err := end(theirs)
	if err != nil {
		return nil, err
	}
	c := &Client{conn: conn, done: make(chan struct{}), waiting: map[uint64]chan reply{}}
	go c.read()
	return c, nil
}

// Close ends all that is under way.
func (c *Client) Close() error {
	err := c.conn.Close()
	<-c.done
	return err
}

// Done is closed when the outside is gone.
func (c *Client) Done() <-chan struct{} { return c.done }

// Dial connects outside, network tcp or udp. The error is that of the connection
// there: errors.Is(err, syscall.ECONNREFUSED).
func (c *Client) Dial(ctx context.Context, network string, to netip.AddrPort) (*os.File, error) {
	r, err := c.ask(ctx, request{verb: "dial", network: network, to: to})
	if err != nil {
		return nil, fmt.Errorf("dial %s %s outside: %w", network, to, err)
	}
	return r.file, nil
}

// Listen opens a TCP port of this machine for all its addresses: the wanted one, or 8000
// more. The address says which it is.
func (c *Client) Listen(ctx context.Context, port uint16) (*os.File, netip.AddrPort, error) {
	r, err := c.ask(ctx, request{verb: "listen", network: "tcp", port: port})
	if err != nil {
		return nil, netip.AddrPort{}, fmt.Errorf("port %d of this machine: %w", port, err)
	}
	at, err := netip.ParseAddrPort(string(r.text))
	if err != nil {
		_ = r.file.Close()
		return nil, netip.AddrPort{}, fmt.Errorf("port %d of this machine: %w", port, err)
	}
	return r.file, at, nil
}

// Query looks a name up outside: message and answer are DNS messages, the network is how
// the question came (tcp, udp).
func (c *Client) Query(ctx context.Context, network string, message []byte) ([]byte, error) {
	r, err := c.ask(ctx, request{verb: "query", network: network, message: message})
	return r.text, err
}

func (c *Client) ask(ctx context.Context, asked request) (reply, error) {
	answer := make(chan reply, 1)
	c.mu.Lock()
	if c.over != nil {
		c.mu.Unlock()
		return reply{}, c.over
	}
	c.last++
	number := c.last
	c.waiting[number] = answer
	c.mu.Unlock()
	prefix := strconv.FormatUint(number, 10) + " "
	if _, err := c.conn.Write([]byte(prefix + asked.String())); err != nil {
		c.forget(number)
		return reply{}, err
	}
	select {
	case r := <-answer:
		return r, r.check(asked)
	case <-ctx.Done():
	}
	if c.forget(number) {
		_, _ = c.conn.Write([]byte(prefix + "cancel"))
	} else if r := <-answer; r.file != nil { // it came this moment
		_ = r.file.Close()
	}
	return reply{}, ctx.Err()
}

// check finds answers that lack their descriptor, or have one too many.
func (r reply) check(asked request) error {
	wants := asked.verb != "query"
	switch {
	case r.failure != nil:
		return r.failure
	case wants && r.file == nil:
		return fmt.Errorf("answer without a descriptor")
	case !wants && r.file != nil:
		_ = r.file.Close()
	}
	return nil
}

// forget reports whether a request still waited.
func (c *Client) forget(number uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, waited := c.waiting[number]
	delete(c.waiting, number)
	return waited
}

func (c *Client) read() {
	defer close(c.done)
	buf := make([]byte, maxPacket)
	for {
		packet, file, err := receive(c.conn, buf)
		if err != nil {
			c.end(fmt.Errorf("the outside half is gone: %w", err))
			return
		}
		number, rest, _ := bytes.Cut(packet, []byte(" "))
		n, err := strconv.ParseUint(string(number), 10, 64)
		c.mu.Lock()
		answer, waits := c.waiting[n]
		delete(c.waiting, n)
		c.mu.Unlock()
		if err == nil && waits {
			answer <- parseReply(bytes.Clone(rest), file)
		} else if file != nil { // given up
			_ = file.Close()
		}
	}
}

func (c *Client) end(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = why
	for _, answer := range c.waiting {
		answer <- reply{failure: why}
	}
	clear(c.waiting)
}
