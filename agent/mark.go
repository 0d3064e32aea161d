package agent

import (
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/lateen-mesh/lateen/agent/redirect"
)

// proxyMark is what the pod's redirection knows the proxy by where it has neither its user nor its
// group: on a machine of one user all containers run as that user. 0: it has one of them, it
// is a gateway, before which nothing is redirected, or it may not mark its packets.
func (f *proxyFlags) proxyMark() int {
	if f.kind != "sidecar" || os.Geteuid() == redirect.ProxyID || os.Getegid() == redirect.ProxyID {
		return 0
	}
	if groups, err := os.Getgroups(); err == nil && slices.Contains(groups, redirect.ProxyID) {
		return 0
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, redirect.ProxyID) != nil {
		return 0
	}
	return redirect.ProxyID
}

// control marks the agent's own sockets, as the proxy's are.
func (a *agent) control(network, _ string, c syscall.RawConn) error {
	if a.pod.input.Mark == 0 || network == "unix" {
		return nil
	}
	var failed error
	if err := c.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, a.pod.input.Mark)
	}); err != nil {
		return err
	}
	return failed
}
