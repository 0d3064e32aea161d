package local

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// A reservation keeps two meshes that start at the same time from choosing the
// same port: between the choice and the gateway's own listening the port is free
// to see. Each port is a locked file in a directory that all meshes of a user share.
type reservation struct {
	dir  string
	held []*os.File
}

var errReserved = errors.New("chosen by another mesh")

func newReservation() (*reservation, error) {
	// Not TMPDIR, which may differ between meshes.
	dir := filepath.Join("/tmp", "lateen-ports-"+strconv.Itoa(os.Getuid()))
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return nil, err
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); !ok || !info.IsDir() || int(owner.Uid) != os.Getuid() {
		return nil, fmt.Errorf("%s belongs to somebody else", dir)
	}
	return &reservation{dir: dir}, nil
}

// take reserves a port for the life of this process.
func (r *reservation) take(port int) error {
	f, err := os.OpenFile(filepath.Join(r.dir, strconv.Itoa(port)), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		_ = f.Close()
		return fmt.Errorf("%d: %w", port, errReserved)
	}
	r.held = append(r.held, f)
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

// close gives the ports back. The files stay: removing one that another mesh is
// about to lock would let a third one lock its successor.
func (r *reservation) close() {
	for _, f := range r.held {
		_ = f.Close()
	}
}
