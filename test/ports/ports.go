// Package ports gives tests port numbers that stay theirs. A port that the kernel chose and
// that was closed again may be anybody's a moment later: another test's, or the near end
// of a connection. These come from below the range of which the kernel chooses, and each is
// claimed until the process ends by an abstract unix socket of that number's name, which all
// tests of a network namespace see, whatever package and process they run in.
package ports

import (
	"fmt"
	"math/rand/v2"
	"net"

	"golang.org/x/sys/unix"
)

// first and last bound the claimed ports: above those that programs listen on by habit,
// below net.ipv4.ip_local_port_range.
const first, last = 20000, 32000

// Claim returns n TCP ports that nobody listens on, at any address of this machine, and
// that no other call returns while this process lives. It panics if there are none.
func Claim(n int) []int {
	ports := make([]int, 0, n)
	for range 10 * (last - first) {
		if p := first + rand.IntN(last-first); claim(p) {
			ports = append(ports, p)
		}
		if len(ports) == n {
			return ports
		}
	}
	panic(fmt.Sprintf("no %d free ports between %d and %d", n, first, last))
}

// One claims a single port.
func One() int { return Claim(1)[0] }

// claim holds the name of a port, and sees that the port can be had. The descriptor is the
// claim: it stays open until the process ends.
func claim(p int) bool {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("@lateen-test-port-%d", p)}); err != nil {
		_ = unix.Close(fd)
		return false
	}
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", p))
	if err != nil {
		return false // somebody else's; no need to look again
	}
	return l.Close() == nil
}
