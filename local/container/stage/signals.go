package stage

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// lastSignal is the highest number of a signal on Linux.
const lastSignal = 64

// sigaction is the kernel's, which differs from the C library's.
type sigaction struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

// ignored is the handler that drops a signal.
const ignored = 1

// usualSignals gives the signals that somebody ignored before us, as nohup does, their
// usual meaning again: a program keeps what is ignored, and forgets handlers only. The
// calls are raw because Go lets nobody touch those that C libraries keep for themselves.
func usualSignals() {
	for number := uintptr(1); number <= lastSignal; number++ {
		var now sigaction
		if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, number, 0, uintptr(unsafe.Pointer(&now)), unsafe.Sizeof(now.mask), 0, 0); errno != 0 || now.handler != ignored { //nolint:gosec // the call wants a struct
			continue
		}
		usual := sigaction{}
		_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, number, uintptr(unsafe.Pointer(&usual)), 0, unsafe.Sizeof(usual.mask), 0, 0) //nolint:gosec // as above
	}
}
