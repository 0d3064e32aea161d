package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/local/container"
)

// maxSocketPath is what a Unix socket's address holds on every system.
const maxSocketPath = 100

// A state is the directory of one mesh.
type state struct {
	dir     string
	sockets string // where the Unix sockets are: dir, or a short path when that is too long
	lock    *os.File
	ports   *reservation
}

// openState makes the directory and takes it for this process.
func openState(dir string) (*state, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(dir, "logs"), 0o700); err != nil {
		return nil, &Error{fmt.Errorf("state directory: %w", err), "name another one: --state DIR"}
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, &Error{fmt.Errorf("state directory: %w", err), "name another one: --state DIR"}
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		pid := holder(lock)
		_ = lock.Close()
		return nil, &Error{fmt.Errorf("a mesh runs in %s already (process %d)", dir, pid),
			fmt.Sprintf("end it with: lateen down --state %s, or run another one beside it: --state DIR", dir)}
	}
	s := &state{dir: dir, lock: lock}
	if err := s.claim(); err != nil {
		_ = lock.Close()
		return nil, err
	}
	return s, nil
}

func (s *state) claim() error {
	if err := s.lock.Truncate(0); err != nil {
		return err
	}
	if _, err := s.lock.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0); err != nil {
		return err
	}
	sweep(s.dir)
	s.sockets = s.dir
	if len(filepath.Join(s.dir, controlSocket)) > maxSocketPath {
		short, err := os.MkdirTemp("", socketsPrefix)
		if err != nil {
			return err
		}
		s.sockets = short
	}
	if err := s.openSockets(); err != nil {
		return err
	}
	s.ports = &reservation{}
	return os.WriteFile(s.path(socketsName), []byte(s.sockets), 0o600)
}

// openSockets makes the directories of sockets. As root the control plane and the proxies are
// users of their own in pods: the one writes both, the others read that of the mesh.
func (s *state) openSockets() error {
	for name, mode := range map[string]os.FileMode{meshSockets: 0o770, controlSockets: 0o700} {
		dir := s.socket(name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		if os.Geteuid() != 0 {
			continue
		}
		err := os.Chown(dir, proxyUser, proxyUser)
		if errors.Is(err, syscall.EINVAL) {
			continue // root of a user namespace without other users, which has one for all as well
		}
		if err != nil {
			return err
		}
		if err := os.Chmod(dir, mode); err != nil {
			return err
		}
	}
	return nil
}

// close gives the directory back. Objects, logs and the last good configuration stay.
func (s *state) close() {
	s.ports.close()
	sweep(s.dir)
	_ = s.lock.Close() // and with it the lock
}

// sweep removes what only a running mesh needs, also that of one which was killed. Its
// caller has the lock.
func sweep(dir string) {
	if text, err := os.ReadFile(filepath.Join(dir, socketsName)); err == nil {
		if sockets := strings.TrimSpace(string(text)); sockets != dir && strings.HasPrefix(filepath.Base(sockets), socketsPrefix) {
			_ = os.RemoveAll(sockets) //nolint:gosec // a supervisor has written it down
		}
	}
	for _, name := range []string{recordName, socketsName, "kubeconfig", "api.sock", "node.sock", meshSockets, controlSockets} {
		_ = os.RemoveAll(filepath.Join(dir, name))
	}
	_ = container.Sweep(filepath.Join(dir, "node")) // groups of the kernel, which no process holds any more
}

const (
	socketsName   = "sockets" // says where the sockets are
	socketsPrefix = "lateen-"

	// meshSockets has those that proxies in pods use, controlSockets that of the control plane's
	// pages: directories, since pods mount them.
	meshSockets    = "mesh"
	controlSockets = "control"
	xdsSocket      = meshSockets + "/xds.sock"
	controlSocket  = controlSockets + "/control.sock"

	// proxyUser is the uid and gid of proxies and control plane in pods, as in the original's images.
	proxyUser = 1337
)

func (s *state) path(name string) string { return filepath.Join(s.dir, name) }

func (s *state) socket(name string) string { return filepath.Join(s.sockets, name) }

// write replaces a file of the directory, readable by the owner only.
func (s *state) write(name string, text []byte) error {
	part := s.path(name + ".part")
	if err := os.WriteFile(part, text, 0o600); err != nil {
		return err
	}
	return os.Rename(part, s.path(name))
}

func holder(lock *os.File) int {
	text := make([]byte, 16)
	n, _ := lock.ReadAt(text, 0)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text[:n])))
	return pid
}

// running finds the supervisor of a state directory; 0 when there is none.
func running(dir string) (pid int, err error) {
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer lock.Close()
	if syscall.Flock(int(lock.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) == nil {
		return 0, nil // nobody holds it
	}
	return holder(lock), nil
}

func notRunning(dir string) error {
	return &Error{fmt.Errorf("no mesh runs in %s", dir), "start one with: lateen up PATH, or name its directory: --state DIR"}
}

// A record is what a supervisor lets `status` see.
type record struct {
	Parts     []Part           `json:"parts"`
	Objects   int              `json:"objects,omitempty"` // applied from files
	Files     int              `json:"files,omitempty"`
	Problems  []config.Problem `json:"problems,omitempty"`
	Published map[int]int      `json:"published,omitempty"` // port of a pod → port of this machine
	NoPods    string           `json:"noPods,omitempty"`    // why there are none
}

func (s *state) save(r record) {
	if text, err := json.MarshalIndent(r, "", "  "); err == nil {
		_ = s.write(recordName, text)
	}
}

const recordName = "parts.json"
