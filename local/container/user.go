package container

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lateen-mesh/lateen/local/container/stage"
)

// An idMap is which users there are in this user namespace.
type idMap []idRange

type idRange struct{ first, outside, size uint64 }

// parseIDs reads /proc/PID/uid_map. Lines that it does not know are left out.
func parseIDs(text string) idMap {
	var m idMap
	for line := range strings.Lines(text) {
		var numbers []uint64
		for field := range strings.FieldsSeq(line) {
			if n, err := strconv.ParseUint(field, 10, 32); err == nil {
				numbers = append(numbers, n)
			}
		}
		if len(numbers) == 3 {
			m = append(m, idRange{numbers[0], numbers[1], numbers[2]})
		}
	}
	return m
}

// nested reports whether this is not the machine's own user namespace.
func (m idMap) nested() bool {
	return !slices.Equal(m, idMap{{0, 0, 1<<32 - 1}})
}

// many reports whether a process can become another user.
func (m idMap) many() bool {
	return len(m) > 0 && (len(m) > 1 || m[0].size > 1)
}

// rights of a stage whose user is not root in its user namespace: execution would take them.
var rights = [...]uintptr{
	unix.CAP_SYS_ADMIN, unix.CAP_SYS_CHROOT, unix.CAP_SETPCAP, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_CHOWN,
}

// ownUser reports whether a container is to see another user where there is only one: an
// ordinary user's. It gets a user namespace for that, unless its program may mark packets: rights
// over the pod's network are those of the namespace above.
func (r *engine) ownUser(c Config) bool {
	return !r.ids.many() && !c.NetAdmin && (c.UID != 0 || c.GID != 0)
}

// unpacking is the environment of a program that is run. tar, with which kubectl copies into a
// container, gives files the owners that an archive names when it is root; where there is only one
// user nobody else can own any, and tar would fail. A TAR_OPTIONS of the container's comes first.
func (r *engine) unpacking(argv, env []string) []string {
	if r.ids.many() || filepath.Base(argv[0]) != "tar" {
		return env
	}
	return append(slices.Clip(env), "TAR_OPTIONS=--no-same-owner")
}

// mapUser gives the one user of a process's user namespace its name there. It is done while the
// stage waits, and not by the command, which would look for the process in the /proc of the
// container that it joins.
func mapUser(pid int, c stage.Config) error {
	dir := fmt.Sprintf("/proc/%d/", pid)
	for _, entry := range [...]struct{ file, text string }{
		{"setgroups", "deny"},
		{"uid_map", fmt.Sprintf("%d %d 1", c.UID, os.Getuid())},
		{"gid_map", fmt.Sprintf("%d %d 1", c.GID, os.Getgid())},
	} {
		if err := os.WriteFile(dir+entry.file, []byte(entry.text), 0); err != nil {
			return fmt.Errorf("run as user %d: %w", c.UID, err)
		}
	}
	return nil
}
