package stage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// dropped are rights that programs of a container do not get, even as its root.
var dropped = [...]uintptr{
	unix.CAP_SYS_ADMIN, unix.CAP_SYS_PTRACE, unix.CAP_SYS_MODULE, unix.CAP_SYS_TIME, unix.CAP_SYS_BOOT,
}

// netRights let a program mark its packets, and so pass its own sidecar by. Either is enough.
var netRights = [...]uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW}

// dropRights changes the thread to the container's user, without what it may not have. The
// calls are raw: they change this thread only, which is the one that executes the program.
func dropRights(c *Config) error {
	_ = unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	drop := dropped[:]
	if !c.NetAdmin {
		drop = append(drop, netRights[:]...)
	}
	for _, right := range drop {
		// A user of a namespace below has no rights to lose, and may not change their bounds.
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, right, 0, 0, 0); err != nil && !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("drop capability %d: %w", right, err)
		}
	}
	if c.SetIDs {
		if err := setIDs(c); err != nil {
			return err
		}
	}
	// Another user forgets the death signal.
	return unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0)
}

func setIDs(c *Config) error {
	if c.NetAdmin && c.UID != 0 {
		if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("keep capabilities: %w", err)
		}
	}
	groups := make([]uint32, 0, len(c.Groups)+1)
	for _, group := range append([]int{c.GID}, c.Groups...) {
		groups = append(groups, uint32(group))
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0])), 0); errno != 0 { //nolint:gosec // the call wants an array
		return fmt.Errorf("set groups %v: %w", groups, errno)
	}
	gid, uid := uintptr(c.GID), uintptr(c.UID)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, gid, gid, gid); errno != 0 {
		return fmt.Errorf("run as group %d: %w", c.GID, errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); errno != 0 {
		return fmt.Errorf("run as user %d: %w", c.UID, errno)
	}
	if c.NetAdmin && c.UID != 0 {
		return keepNetRights()
	}
	return nil
}

// keepNetRights lets a program that does not run as root inherit them.
func keepNetRights() error {
	var bits uint32
	for _, right := range netRights {
		bits |= 1 << right
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	sets := [2]unix.CapUserData{{Effective: bits, Permitted: bits, Inheritable: bits}}
	if err := unix.Capset(&header, &sets[0]); err != nil {
		return fmt.Errorf("keep capabilities: %w", err)
	}
	for _, right := range netRights {
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, right, 0, 0); err != nil {
			return fmt.Errorf("keep capability %d: %w", right, err)
		}
	}
	return nil
}

var errNotFound = errors.New("executable file not found in $PATH")

// lookUp finds a program as the user that will run it. Its errors read as container runtimes
// word them.
func lookUp(name, path string) (string, error) {
	if strings.Contains(name, "/") {
		if err := executable(name); err != nil {
			return "", refused(name, err)
		}
		return name, nil
	}
	denied := error(errNotFound)
	for _, dir := range filepath.SplitList(path) {
		full := filepath.Join(dir, name)
		err := executable(full)
		if err == nil {
			return full, nil
		}
		if errors.Is(err, os.ErrPermission) {
			denied = unix.EACCES
		}
	}
	return "", refused(name, denied)
}

func executable(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case info.IsDir():
		return unix.EISDIR
	}
	return unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS)
}

func refused(name string, err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("exec: %q: %w", name, notThere{err})
	}
	return fmt.Errorf("exec: %q: %w", name, err)
}

// notThere is a program that was named by its path and is not found.
type notThere struct{ error }

func (notThere) Is(target error) bool { return target == errNotFound }
