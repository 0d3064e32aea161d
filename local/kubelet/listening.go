package kubelet

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/lateen-mesh/lateen/local/container"
)

const (
	// listenTime bounds how long the start of a container waits for its program to listen.
	listenTime = time.Second
	// maxSockets bounds what is read of a pod's sockets, in bytes.
	maxSockets = 4 << 20
)

// awaitListening returns once the program listens on the TCP ports that its container declares,
// has ended, or has had its time. A container without a readiness probe is ready as soon as it
// runs: its Service would send requests to it before it listens, and where it takes the place
// of another pod there is nobody else to send them to.
func (r *run) awaitListening(c container.Container) {
	ports := awaitedPorts(r.spec)
	if len(ports) == 0 {
		return
	}
	late := time.NewTimer(listenTime)
	defer late.Stop()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for !listens(c.PID(), ports) {
		select {
		case <-again.C:
		case <-late.C:
			return
		case <-c.Done():
			return
		}
	}
}

// awaitedPorts are those of a container that says nothing else of its readiness.
func awaitedPorts(c *corev1.Container) []uint16 {
	if c.ReadinessProbe != nil || c.StartupProbe != nil {
		return nil
	}
	var ports []uint16
	for _, p := range c.Ports {
		if p.Protocol == corev1.ProtocolTCP || p.Protocol == "" {
			ports = append(ports, uint16(p.ContainerPort))
		}
	}
	return ports
}

// listens reports whether each port has a listener in the network of a process. Nobody is
// connected to: in a pod with a sidecar that would be answered by the sidecar.
func listens(pid int, ports []uint16) bool {
	open := append(listeners(pid, "tcp"), listeners(pid, "tcp6")...)
	return !slices.ContainsFunc(ports, func(p uint16) bool { return !slices.Contains(open, p) })
}

// listeners reads ports of listening sockets from proc_pid_net(5): the second column is
// ADDRESS:PORT, the fourth the state, both hexadecimal.
func listeners(pid int, table string) []uint16 {
	const listen = "0A"
	file, err := os.Open(fmt.Sprintf("/proc/%d/net/%s", pid, table))
	if err != nil {
		return nil // the process has ended, or there is no IPv6
	}
	defer file.Close()
	var ports []uint16
	for lines := bufio.NewScanner(io.LimitReader(file, maxSockets)); lines.Scan(); {
		columns := strings.Fields(lines.Text())
		if len(columns) < 4 || columns[3] != listen {
			continue
		}
		if n, err := strconv.ParseUint(columns[1][strings.LastIndexByte(columns[1], ':')+1:], 16, 16); err == nil {
			ports = append(ports, uint16(n))
		}
	}
	return ports
}
