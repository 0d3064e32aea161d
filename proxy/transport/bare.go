//go:build !race

package transport

import (
	"syscall"
	"unsafe"
)

// bareRead and bareWrite are one system call each on a socket that does not block; p is not empty.
func bareRead(fd uintptr, p []byte) (int, syscall.Errno) { return bare(syscall.SYS_READ, fd, p) }

func bareWrite(fd uintptr, p []byte) (int, syscall.Errno) { return bare(syscall.SYS_WRITE, fd, p) }

// vectored says that bareWritev can be called.
const vectored = true

func bareWritev(fd uintptr, v []syscall.Iovec) (int, syscall.Errno) {
	return bare(syscall.SYS_WRITEV, fd, v)
}

func bare[T any](number, fd uintptr, p []T) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall(number, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p))) //nolint:gosec // memory of the caller
		if errno == 0 {
			return int(n), 0
		}
		if errno != syscall.EINTR {
			return 0, errno
		}
	}
}
