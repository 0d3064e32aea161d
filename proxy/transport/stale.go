package transport

import (
	"syscall"
	"unsafe"
)

// Stale reports without blocking that an idle connection is not to be used again: its
// peer has ended it, or has sent bytes that nothing asked for. It takes no byte, and
// allocates only on its first call.
func (r *raw) Stale() bool { return len(r.ahead) > 0 || r.err != nil || r.socket.stale() }

// Stale is that of the socket beneath: between exchanges nothing but the end of the
// stream is expected of a TLS peer either.
func (s *secure) Stale() bool {
	return len(s.ahead) > 0 || s.err != nil || !s.records.empty() || s.records.stale()
}

// stale peeks at the socket once. What waits there, an error too, makes it stale; a
// socket without a descriptor cannot be looked at and is taken as good.
func (s *socket) stale() bool {
	if s.bare == nil {
		return false
	}
	if s.look == nil {
		s.look = func(fd uintptr) { s.waits = waiting(fd) } // bound once, as peek is
	}
	return s.bare.Control(s.look) != nil || s.waits || s.fault != nil
}

// waiting reports bytes, the end or an error in a socket. It is the bare system call:
// unix.Recvfrom allocates the peer's address, and this runs for every request.
func waiting(fd uintptr) bool {
	var b [1]byte
	for {
		_, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), //nolint:gosec // memory of this function
			syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
		if errno != syscall.EINTR {
			return errno != syscall.EAGAIN
		}
	}
}
