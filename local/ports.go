package local

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"syscall"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/lateen-mesh/lateen/control"
)

// publishOffset is added to a port that cannot be opened.
const publishOffset = 8000

// publishing decides where this machine has the ports of Gateways: those that
// the configuration names now, and what to add to other ports below 1024.
func (r *reservation) publishing(o Options, stdin []byte, node *corepb.Node) (ports map[int]int, offset int, err error) {
	ports = map[int]int{}
	taken := map[int]int{}
	for port, host := range o.Publish {
		if err := r.gateway(host); err != nil {
			return nil, 0, &Error{fmt.Errorf("port %d, published as %d: %w", port, host, err), fmt.Sprintf("publish it elsewhere: --publish %d=PORT", port)}
		}
		ports[port], taken[host] = host, port
	}
	wanted, err := control.GatewayPorts(o.Paths, bytes.NewReader(stdin), node)
	if err != nil {
		return nil, 0, &Error{err, "lateen up takes files and directories of YAML"}
	}
	for _, p := range wanted {
		port := int(p)
		if _, given := ports[port]; given {
			continue
		}
		host, err := r.hostPort(port, taken)
		if err != nil {
			return nil, 0, err
		}
		ports[port], taken[host] = host, port
	}
	if errors.Is(open(1), syscall.EACCES) {
		offset = publishOffset
	}
	return ports, offset, nil
}

// hostPort is the port itself where that is allowed and free, else port + 8000.
func (r *reservation) hostPort(port int, taken map[int]int) (int, error) {
	var reasons []string
	for _, host := range []int{port, port + publishOffset} {
		if other, used := taken[host]; used {
			reasons = append(reasons, fmt.Sprintf("%d is where port %d is published", host, other))
			continue
		}
		err := r.gateway(host)
		if err == nil {
			return host, nil
		}
		reasons = append(reasons, err.Error())
	}
	return 0, &Error{fmt.Errorf("port %d of the gateway: %s", port, strings.Join(reasons, "; ")), fmt.Sprintf("publish it elsewhere: --publish %d=PORT", port)}
}

// open tries whether a gateway could listen on a port.
func open(port int) error {
	if port > 65535 {
		return fmt.Errorf("%d is not a port", port)
	}
	l, err := net.Listen("tcp4", net.JoinHostPort("0.0.0.0", strconv.Itoa(port)))
	switch {
	case err == nil:
		return l.Close()
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%d is in use by another program", port)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%d: %w: ports below 1024 need root or net.ipv4.ip_unprivileged_port_start", port, syscall.EACCES)
	}
	return err
}

// publishList is the metadata value: "80=8080,443=8443".
func publishList(ports map[int]int) string {
	var list []string
	for _, p := range slices.SortedFunc(maps.Keys(ports), cmp.Compare[int]) {
		list = append(list, fmt.Sprintf("%d=%d", p, ports[p]))
	}
	return strings.Join(list, ",")
}
