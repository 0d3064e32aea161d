// Package socket opens Unix sockets that only the user of this program may use: its file
// has mode 0600, and who connects is asked for by the kernel, as a file's mode can be changed
// by whoever owns the directory. Shared ones are for all users who can enter the directory.
package socket

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Listen opens the socket and makes its directory. A socket that an earlier program left is
// replaced.
func Listen(path string) (net.Listener, error) {
	l, err := listen(path, 0o600)
	if err != nil {
		return nil, err
	}
	return private{l}, nil
}

// Shared is Listen for a socket that programs of all users connect to, as those of a pod that
// has the directory as a volume.
func Shared(path string) (net.Listener, error) {
	l, err := listen(path, 0o666)
	if err != nil {
		return nil, err
	}
	return l, nil
}

func listen(path string, mode fs.FileMode) (*net.UnixListener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // others may read beside it
		return nil, err
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSocket == 0 {
		return nil, fmt.Errorf("%s is there and is no socket", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, mode); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// private accepts this user and root.
type private struct{ *net.UnixListener }

func (l private) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if uid, err := peer(c); err == nil && (uid == os.Getuid() || uid == 0) {
			return c, nil
		}
		_ = c.Close()
	}
}

// peer is the user at the other end.
func peer(c *net.UnixConn) (uid int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var who *unix.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) { who, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return 0, err
	}
	if failed != nil {
		return 0, failed
	}
	return int(who.Uid), nil
}
