package listener

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// peeker looks at the first bytes of a socket without taking them, as Envoy does:
// the socket stays whole for splice, and closing it with unread bytes resets it.
type peeker struct {
	raw syscall.RawConn
}

// maxPeek is the size of the buffers: the largest hello plus room to see that a
// hello is larger.
const maxPeek = maxHello + 1<<10

var peekBuffers = sync.Pool{New: func() any { return new([maxPeek]byte) }}

func newPeeker(c net.Conn) (*peeker, error) {
	s, ok := c.(syscall.Conn)
	if !ok {
		return nil, errors.New("socket without a descriptor")
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &peeker{raw: raw}, nil
}

// errTooLong ends a look that wanted more bytes than maxPeek.
var errTooLong = errors.New("too many bytes before a decision")

// until shows look the bytes from the beginning, each time more of them, until it is
// satisfied. io.EOF: the peer ended its direction first. The socket's read deadline
// counts.
func (p *peeker) until(look func(b []byte) (enough bool)) error {
	b := peekBuffers.Get().(*[maxPeek]byte)
	defer peekBuffers.Put(b)
	have := 0
	for {
		n, err := p.peek(b[:], have)
		if err != nil {
			return err
		}
		if look(b[:n]) {
			return nil
		}
		if n == len(b) {
			return errTooLong
		}
		have = n
	}
}

// spoken waits for the first byte, or the end.
func (p *peeker) spoken() error {
	var b [1]byte
	_, err := p.peek(b[:], 0)
	return err
}

// peek waits until more than have bytes can be seen.
func (p *peeker) peek(b []byte, have int) (n int, err error) {
	waitErr := p.raw.Read(func(fd uintptr) bool {
		n, _, err = unix.Recvfrom(int(fd), b, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			return false
		case err != nil:
			return true
		case n == 0:
			err = io.EOF
		case n == have: // woken for something else than bytes: the end, perhaps
			if !ended(fd) {
				return false
			}
			err = io.EOF
		}
		return true
	})
	if waitErr != nil {
		return 0, waitErr
	}
	return n, err
}

// ended reports that the peer has closed its direction.
func ended(fd uintptr) bool {
	f := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(f, 0)
	return err == nil && n == 1 && f[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
}
