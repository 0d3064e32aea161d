package proxy

import "golang.org/x/sys/unix"

// Descriptors that are not for connections: listeners, logs, the control plane, the
// admin pages, names, and the pipes of long transfers.
const (
	fewSpared  = 32
	mostSpared = 1024
)

// connectionLimitOf is how many downstream connections a process may have that may open
// so many descriptors: each may need an upstream connection, which must not be what
// there is no descriptor left for. The limit of the bootstrap holds where it is lower;
// 0 is none.
func connectionLimitOf(descriptors uint64, configured int64) int64 {
	spared := min(max(descriptors/16, fewSpared), mostSpared)
	most := int64(1)
	if descriptors > spared+2 {
		most = int64(min((descriptors-spared)/2, 1<<31-1))
	}
	if configured > 0 {
		return min(configured, most)
	}
	return most
}

// descriptors is RLIMIT_NOFILE, the hard limit of which the Go runtime makes the soft one.
func descriptors() uint64 {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 1024 // POSIX programs may count on that many
	}
	return l.Cur
}
