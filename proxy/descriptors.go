package proxy

import "golang.org/x/sys/unix"

// Descriptors that are not for connections: listeners, logs, the control plane, the
// admin pages, names, and the pipes of long transfers.
const (
	fewSpared  = 32
	mostSpared = 1024
)

// connectionLimitOf is how many downstream connections a process may have that may open
// so many descriptors. The limit of the bootstrap holds where there are descriptors for
// it; 0 is none. Without one each may need an upstream connection, which must not be what
// there is no descriptor left for.
func connectionLimitOf(descriptors uint64, configured int64) int64 {
	spared := min(max(descriptors/16, fewSpared), mostSpared)
	if descriptors <= spared+2 {
		return 1
	}
	most := int64(min(descriptors-spared, 1<<32-2))
	if 0 < configured && configured <= most {
		return configured
	}
	return most / 2
}

// descriptors is RLIMIT_NOFILE, the hard limit of which the Go runtime makes the soft one.
func descriptors() uint64 {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 1024 // POSIX programs may count on that many
	}
	return l.Cur
}
