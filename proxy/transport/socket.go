package transport

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A socket is one end of a connection as the kernel has it. Where there is a descriptor,
// Read and Write are bare system calls: the socket never blocks, so that the scheduler has
// nothing to prepare for. What it would prepare, another thread to take over the processor
// after some 20 µs, costs a busy proxy a tenth of its CPU.
type socket struct {
	net.Conn
	bare    syscall.RawConn // nil: there is no descriptor
	tcp     bool
	in, out call
	vec     *vector // nil before the first WriteBuffers
	ledger  ledger

	peek  func(fd uintptr) bool
	fault error            // what a peek took from the socket: the kernel tells it once only
	end   bool             // the last peek found the end of the stream
	look  func(fd uintptr) // of stale, nil before its first call
	waits bool             // what look found
}

// A call is a read or a write that is under way. mu is held for all of it: who has written
// may still be returning when the answer to its bytes has made another goroutine write.
type call struct {
	mu    sync.Mutex
	p     []byte
	n     int
	errno syscall.Errno
	try   func(fd uintptr) bool // bound once: no allocation for each call
}

func (s *socket) init(c net.Conn) {
	s.Conn = c
	d, ok := c.(syscall.Conn)
	if !ok {
		return
	}
	bare, err := d.SyscallConn()
	if err != nil {
		return
	}
	_, s.tcp = c.(*net.TCPConn)
	s.bare, s.peek = bare, s.peekable
	s.in.try, s.out.try = s.in.read, s.out.write
}

// read is the body of RawConn.Read: false waits for the poller and tries again.
func (c *call) read(fd uintptr) bool {
	c.n, c.errno = bareRead(fd, c.p)
	return c.errno != syscall.EAGAIN
}

// write is the body of RawConn.Write.
func (c *call) write(fd uintptr) bool {
	for c.n < len(c.p) {
		n, errno := bareWrite(fd, c.p[c.n:])
		if errno != 0 {
			c.errno = errno
			return errno != syscall.EAGAIN
		}
		c.n += n
	}
	c.errno = 0
	return true
}

func (s *socket) Read(p []byte) (int, error) {
	n, err := s.read(p)
	if err != nil {
		s.ledger.read(err)
	}
	return n, err
}

func (s *socket) read(p []byte) (int, error) {
	if s.bare == nil || len(p) == 0 {
		return s.Conn.Read(p)
	}
	c := &s.in
	c.mu.Lock()
	defer c.mu.Unlock()
	c.p = p
	err := s.bare.Read(c.try)
	c.p = nil
	switch {
	case err != nil:
		return 0, err
	case c.errno != 0:
		return 0, s.failure("read", c.errno)
	case c.n == 0:
		return 0, io.EOF
	}
	return c.n, nil
}

func (s *socket) Write(p []byte) (int, error) {
	s.ledger.written.Add(int64(len(p)))
	n, err := s.write(p)
	s.ledger.wrote(int64(len(p)), int64(n), err)
	return n, err
}

func (s *socket) write(p []byte) (int, error) {
	if s.bare == nil || len(p) == 0 {
		return s.Conn.Write(p)
	}
	c := &s.out
	c.mu.Lock()
	defer c.mu.Unlock()
	c.p, c.n = p, 0
	err := s.bare.Write(c.try)
	c.p = nil
	if err == nil && c.errno != 0 {
		err = s.failure("write", c.errno)
	}
	return c.n, err
}

// failure is what net says of a system call that failed.
func (s *socket) failure(op string, errno syscall.Errno) error {
	return &net.OpError{Op: op, Net: s.LocalAddr().Network(), Source: s.Conn.LocalAddr(), Addr: s.Conn.RemoteAddr(), Err: os.NewSyscallError(op, errno)}
}

// WriteBuffers writes the slices in one system call, if the kernel takes them at once.
func (s *socket) WriteBuffers(bufs *net.Buffers) (int64, error) {
	total := int64(0)
	for _, b := range *bufs {
		total += int64(len(b))
	}
	s.ledger.written.Add(total)
	n, err := s.writeBuffers(bufs)
	s.ledger.wrote(total, n, err)
	return n, err
}

func (s *socket) writeBuffers(bufs *net.Buffers) (int64, error) {
	if s.bare == nil || !vectored {
		return bufs.WriteTo(s.Conn)
	}
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	if s.vec == nil {
		s.vec = &vector{}
		s.vec.try = s.vec.write
	}
	v := s.vec
	v.bufs, v.n = *bufs, 0
	err := s.bare.Write(v.try)
	*bufs, v.bufs = v.bufs, nil
	clear(v.iov[:])
	if err == nil && v.errno != 0 {
		err = s.failure("writev", v.errno)
	}
	return v.n, err
}

// A vector is a write of several slices that is under way.
type vector struct {
	bufs  net.Buffers
	iov   [4]syscall.Iovec
	n     int64
	errno syscall.Errno
	try   func(fd uintptr) bool
}

// write is the body of RawConn.Write.
func (v *vector) write(fd uintptr) bool {
	for v.skip(); len(v.bufs) > 0; v.skip() {
		count := min(len(v.bufs), len(v.iov))
		for i, b := range v.bufs[:count] {
			v.iov[i].Base = unsafe.SliceData(b) //nolint:gosec // memory of the caller, who waits
			v.iov[i].SetLen(len(b))
		}
		n, errno := bareWritev(fd, v.iov[:count])
		if errno != 0 {
			v.errno = errno
			return errno != syscall.EAGAIN
		}
		v.n += int64(n)
		v.advance(n)
	}
	v.errno = 0
	return true
}

// skip drops slices of which nothing is left.
func (v *vector) skip() {
	for len(v.bufs) > 0 && len(v.bufs[0]) == 0 {
		v.bufs = v.bufs[1:]
	}
}

func (v *vector) advance(n int) {
	for n > 0 {
		m := min(n, len(v.bufs[0]))
		v.bufs[0] = v.bufs[0][m:]
		n -= m
		v.skip()
	}
}

// peekable is the body of RawConn.Read: false waits for the poller and tries again.
func (s *socket) peekable(fd uintptr) bool {
	var b [1]byte
	for {
		n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		s.end = err == nil && n == 0
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return false
		case err != nil:
			s.fault = os.NewSyscallError("recvfrom", err)
		}
		return true
	}
}

// readable returns when a byte or the end of the stream can be read. A passed read
// deadline is an error, and so is a reset: a later read would not see it any more.
func (s *socket) readable() error {
	if s.fault != nil {
		return s.fault
	}
	if err := s.bare.Read(s.peek); err != nil {
		return err
	}
	return s.fault
}
