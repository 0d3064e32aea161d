package container

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// groupPrefix begins the names of all memory groups of ours.
const groupPrefix = "lateen-"

// memory makes groups that bound the memory of containers: cgroups of version 1 below the
// runtime's own, of version 2 beside it, since a group with processes may have none below.
type memory struct {
	parent  string // directory
	prefix  string // of the mesh's groups
	unified bool   // version 2
	count   atomic.Int64
}

// A group is a container's. The methods of nil do nothing: no limit.
type group struct {
	dir     string
	unified bool
}

// openMemory finds where groups can be made, or why they cannot.
func openMemory(state string) (*memory, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("memory groups want root")
	}
	if err := Sweep(state); err != nil {
		return nil, err
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	h := findHierarchy(string(mounts), string(groups))
	if h.mount == "" {
		return nil, errors.New("there are no memory groups on this machine")
	}
	m := &memory{parent: h.own(), prefix: prefix(state), unified: h.unified}
	if m.unified {
		if m.parent, err = controlled(h); err != nil {
			return nil, err
		}
	}
	if err := unix.Access(m.parent, unix.W_OK); err != nil {
		return nil, fmt.Errorf("memory groups in %s: %w", m.parent, err)
	}
	return m, nil
}

// prefix begins the names of a mesh's groups.
func prefix(state string) string {
	sum := fnv.New64a()
	_, _ = sum.Write([]byte(filepath.Clean(state)))
	return fmt.Sprintf("%s%016x-", groupPrefix, sum.Sum64())
}

// A hierarchy is the memory controller's tree of groups.
type hierarchy struct {
	mount, root string // where it is seen, and which of its groups is there
	group       string // this process's
	unified     bool
}

// findHierarchy reads /proc/self/mountinfo and /proc/self/cgroup. Version 1 counts where it has
// the controller.
func findHierarchy(mounts, groups string) (found hierarchy) {
	for line := range strings.Lines(mounts) {
		before, after, ok := strings.Cut(line, " - ")
		at, kind := strings.Fields(before), strings.Fields(after)
		if !ok || len(at) < 5 || len(kind) < 3 || !filepath.IsAbs(at[4]) {
			continue
		}
		one := kind[0] == "cgroup" && contains(kind[2], "memory")
		if one || kind[0] == "cgroup2" && found.mount == "" {
			found = hierarchy{mount: at[4], root: at[3], unified: !one}
		}
		if one {
			break
		}
	}
	for line := range strings.Lines(groups) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) == 3 && (found.unified && fields[1] == "" || !found.unified && contains(fields[1], "memory")) {
			found.group = fields[2]
		}
	}
	return found
}

func contains(list, name string) bool {
	for one := range strings.SplitSeq(list, ",") {
		if one == name {
			return true
		}
	}
	return false
}

// own is the directory of this process's group.
func (h hierarchy) own() string {
	below, ok := strings.CutPrefix(h.group, strings.TrimSuffix(h.root, "/"))
	if !ok || !strings.HasPrefix(below, "/") {
		below = "/"
	}
	return filepath.Join(h.mount, filepath.Clean(below))
}

// controlled is the nearest directory of version 2 whose groups below have the controller.
func controlled(h hierarchy) (string, error) {
	for dir := h.own(); strings.HasPrefix(dir+"/", h.mount+"/"); dir = filepath.Dir(dir) {
		if text, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control")); err == nil && contains(strings.Join(strings.Fields(string(text)), ","), "memory") {
			return dir, nil
		}
	}
	return "", errors.New("the memory controller is not enabled for groups of this session")
}

// group makes the group of a container with a limit. Where there are none it says so once.
func (r *engine) group(l Limits) (*group, error) {
	if l.MemoryBytes <= 0 {
		return nil, nil
	}
	if r.memory == nil {
		r.sayOnce.Do(func() { r.log.Warn("memory limits of containers are not enforced", "reason", r.noMemory) })
		return nil, nil
	}
	return r.memory.make(l.MemoryBytes)
}

func (m *memory) make(limit int64) (*group, error) {
	g := &group{dir: filepath.Join(m.parent, m.prefix+strconv.FormatInt(m.count.Add(1), 10)), unified: m.unified}
	if err := os.Mkdir(g.dir, 0o755); err != nil { //nolint:gosec // the system's groups are readable
		return nil, fmt.Errorf("memory limit: %w", err)
	}
	files := []string{"memory.limit_in_bytes"}
	if m.unified {
		files = []string{"memory.max"}
	}
	for _, name := range files {
		if err := os.WriteFile(filepath.Join(g.dir, name), []byte(strconv.FormatInt(limit, 10)), 0); err != nil {
			return nil, errors.Join(fmt.Errorf("memory limit of %d bytes: %w", limit, err), g.remove())
		}
	}
	g.forbidSwap(limit)
	return g, nil
}

// forbidSwap makes the limit one of all memory, where the kernel counts swap.
func (g *group) forbidSwap(limit int64) {
	name, value := "memory.memsw.limit_in_bytes", limit
	if g.unified {
		name, value = "memory.swap.max", 0
	}
	_ = os.WriteFile(filepath.Join(g.dir, name), []byte(strconv.FormatInt(value, 10)), 0)
}

// add puts a process into the group, and all that it starts.
func (g *group) add(pid int) error {
	if g == nil {
		return nil
	}
	if err := os.WriteFile(filepath.Join(g.dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
		return fmt.Errorf("memory limit: %w", err)
	}
	return nil
}

// kills is how many processes of the group the kernel has killed for their memory.
func (g *group) kills() uint64 {
	name := "memory.oom_control"
	if g.unified {
		name = "memory.events"
	}
	return count(filepath.Join(g.dir, name), "oom_kill")
}

// machineKills is the same for the whole machine.
func machineKills() uint64 { return count("/proc/vmstat", "oom_kill") }

// count reads a file of lines with a name and a number. A file without the name counts 0.
func count(path, name string) uint64 {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			n, _ := strconv.ParseUint(strings.TrimSpace(value), 10, 64)
			return n
		}
	}
	return 0
}

// Waiting for the kernel to let go of a group whose processes are gone.
const (
	removeTries = 20
	removeWait  = 5 * time.Millisecond
)

func (g *group) remove() (err error) {
	if g == nil {
		return nil
	}
	for range removeTries {
		if err = unix.Rmdir(g.dir); err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		time.Sleep(removeWait)
	}
	return &fs.PathError{Op: "remove", Path: g.dir, Err: err}
}

// Sweep removes the memory groups that a killed runtime of a state directory left behind. Those
// with processes stay. New does it, and so should whoever ends a mesh.
func Sweep(state string) error {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	h := findHierarchy(string(mounts), "")
	if h.mount == "" || os.Geteuid() != 0 {
		return nil
	}
	ours := prefix(state)
	return filepath.WalkDir(h.mount, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil // groups come and go
		}
		if strings.HasPrefix(d.Name(), ours) {
			_ = unix.Rmdir(path)
			return fs.SkipDir
		}
		return nil
	})
}
