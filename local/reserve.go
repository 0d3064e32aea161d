package local

import (
	"errors"
	"fmt"
	"net"
	"strconv"
)

// A reservation keeps two meshes that start at the same time from choosing the
// same port: between the choice and the gateway's own listening the port is free
// to see. Each port is an abstract unix socket: known in this network namespace
// only, as ports are, and gone with the process.
type reservation struct {
	held []net.Listener
}

var errReserved = errors.New("chosen by another mesh")

// take reserves a port for the life of this process.
func (r *reservation) take(port int) error {
	l, err := net.Listen("unix", "@lateen/port/"+strconv.Itoa(port))
	if err != nil {
		return fmt.Errorf("%d: %w", port, errReserved)
	}
	r.held = append(r.held, l)
	return nil
}

// loopback finds a free port of 127.0.0.1: the wanted one, else any.
func (r *reservation) loopback(wanted int) (int, error) {
	for try := range 20 {
		if try > 0 {
			wanted = 0
		}
		l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(wanted)))
		if err != nil {
			continue
		}
		port := l.Addr().(*net.TCPAddr).Port
		_ = l.Close()
		if r.take(port) == nil {
			return port, nil
		}
	}
	return 0, errors.New("no free port on 127.0.0.1")
}

// gateway reserves a port on which a gateway can listen.
func (r *reservation) gateway(port int) error {
	if err := open(port); err != nil {
		return err
	}
	return r.take(port)
}

// close gives the ports back.
func (r *reservation) close() {
	for _, l := range r.held {
		_ = l.Close()
	}
}
