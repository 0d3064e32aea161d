//go:build race

package transport

import (
	"errors"
	"syscall"
)

// bareRead and bareWrite are those of package syscall, which tell the race detector that who
// reads comes after who has written.
func bareRead(fd uintptr, p []byte) (int, syscall.Errno) { return annotated(syscall.Read, fd, p) }

func bareWrite(fd uintptr, p []byte) (int, syscall.Errno) { return annotated(syscall.Write, fd, p) }

// vectored says that bareWritev can be called: package syscall has none that is annotated.
const vectored = false

func bareWritev(uintptr, []syscall.Iovec) (int, syscall.Errno) { return 0, syscall.ENOSYS }

func annotated(call func(int, []byte) (int, error), fd uintptr, p []byte) (int, syscall.Errno) {
	for {
		n, err := call(int(fd), p)
		errno, _ := errors.AsType[syscall.Errno](err)
		if errno != syscall.EINTR {
			return max(n, 0), errno
		}
	}
}
