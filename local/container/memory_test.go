package container

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMemoryLimits(t *testing.T) {
	if outside(t) {
		return
	}
	var log bytes.Buffer
	state := t.TempDir()
	r, err := New(Options{Init: os.Getenv(initVariable), State: state, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	groups := r.(*engine).memory
	eat := func(bytes int, limit int64) Config {
		c := appConfig("eat", fmt.Sprint(bytes))
		c.Limits.MemoryBytes = limit
		return c
	}
	if groups == nil {
		for range 2 {
			if got, exit := outputOf(t, r, nil, eat(80<<20, 40<<20)); exit.Code != 0 {
				t.Errorf("%q, %+v", got, exit)
			}
		}
		if lines := strings.Count(log.String(), "memory limits of containers are not enforced"); lines != 1 {
			t.Errorf("said %d times that limits are not enforced:\n%s", lines, log.String())
		}
		return
	}
	t.Run("enough", func(t *testing.T) {
		if got, exit := outputOf(t, r, nil, eat(10<<20, 80<<20)); got != fmt.Sprint(10<<20) || exit.Code != 0 || exit.OOMKilled {
			t.Errorf("%q, %+v", got, exit)
		}
	})
	t.Run("too little", func(t *testing.T) {
		if got, exit := outputOf(t, r, nil, eat(160<<20, 40<<20)); exit.Code != 137 || !exit.OOMKilled {
			t.Errorf("%q, %+v, want killed for its memory", got, exit)
		}
	})
	t.Run("killed by us within its limit", func(t *testing.T) {
		c := idle()
		c.Limits.MemoryBytes = 40 << 20
		run := start(t, r, nil, c)
		if err := run.Kill(); err != nil {
			t.Fatal(err)
		}
		if exit := run.Wait(); exit.OOMKilled {
			t.Errorf("%+v", exit)
		}
	})
	t.Run("an exec counts", func(t *testing.T) {
		c := idle()
		c.Limits.MemoryBytes = 40 << 20
		c.Mounts = []Mount{{Target: "/app", Source: testBinary()}}
		c.Env = append(c.Env, partVariable+"=app")
		idle := start(t, r, nil, c)
		if out, _, exit := run(t, idle, Exec{Argv: []string{"/app", "eat", fmt.Sprint(160 << 20)}}); exit.Code != 137 {
			t.Errorf("%q, %+v, want killed for its memory", out, exit)
		}
	})
	if left, _ := filepath.Glob(filepath.Join(groups.parent, groups.prefix+"*")); len(left) != 0 {
		t.Errorf("groups %v are left", left)
	}
	t.Run("what a killed runtime leaves is swept", func(t *testing.T) { sweeps(t, r.(*engine), state) })
}

// sweeps leaves an empty group and one with a container behind.
func sweeps(t *testing.T, r *engine, state string) {
	c := idle()
	c.Limits.MemoryBytes = 40 << 20
	run := start(t, r, nil, c)
	stale, err := r.memory.make(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	other := memory{parent: r.memory.parent, prefix: prefix(state + "/other"), unified: r.memory.unified}
	theirs, err := other.make(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	if err := Sweep(state); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(stale.dir); err == nil {
		t.Error("an empty group of this mesh stays")
	}
	if _, err := os.Stat(theirs.dir); err != nil {
		t.Errorf("a group of another mesh is gone: %v", err)
	}
	if err := theirs.remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(run.(*running).group.dir); err != nil {
		t.Errorf("the group of a running container is gone: %v", err)
	}
}

func TestWhereMemoryGroupsAre(t *testing.T) {
	const one = `30 25 0:26 / /sys/fs/cgroup ro,nosuid shared:8 - tmpfs tmpfs ro
31 30 0:27 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw
35 30 0:31 / /sys/fs/cgroup/memory rw shared:14 - cgroup cgroup rw,memory
36 30 0:32 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
`
	for _, c := range []struct {
		name, mounts, groups, own string
		unified                   bool
	}{
		{"version 1", one, "4:memory:/a/b\n0::/x\n", "/sys/fs/cgroup/memory/a/b", false},
		{"version 1 as a container sees it", strings.ReplaceAll(one, " / /sys/fs/cgroup/memory", " /docker/1 /sys/fs/cgroup/memory"), "4:memory:/docker/1/x\n", "/sys/fs/cgroup/memory/x", false},
		{"version 1, a group outside of what is seen", strings.ReplaceAll(one, " / /sys/fs/cgroup/memory", " /docker/1 /sys/fs/cgroup/memory"), "4:memory:/elsewhere\n", "/sys/fs/cgroup/memory", false},
		{"version 2", "29 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n", "0::/user.slice/session-1.scope\n", "/sys/fs/cgroup/user.slice/session-1.scope", true},
		{"version 1, a group whose name begins as what is seen", strings.ReplaceAll(one, " / /sys/fs/cgroup/memory", " /docker/1 /sys/fs/cgroup/memory"), "4:memory:/docker/12\n", "/sys/fs/cgroup/memory", false},
		{"none", "29 23 0:26 / /proc rw - proc proc rw\n", "", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := findHierarchy(c.mounts, c.groups)
			if h.mount == "" && c.own == "" {
				return
			}
			if h.own() != c.own || h.unified != c.unified {
				t.Errorf("%+v: %s, want %s", h, h.own(), c.own)
			}
		})
	}
}

func FuzzWhatTheKernelTells(f *testing.F) {
	f.Add("31 30 0:27 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw\n", "0::/x\n")
	f.Add("35 30 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n", "4:memory:/a\n")
	f.Add(" - ", "::")
	f.Fuzz(func(t *testing.T, mounts, groups string) {
		if h := findHierarchy(mounts, groups); h.mount != "" && !strings.HasPrefix(h.own(), filepath.Clean(h.mount)) {
			t.Errorf("group %q is outside of %q", h.own(), h.mount)
		}
		for _, r := range parseIDs(mounts) {
			for _, n := range []uint64{r.first, r.outside, r.size} {
				if !strings.Contains(mounts, fmt.Sprint(n)) {
					t.Errorf("%d is not in %q", n, mounts)
				}
			}
		}
	})
}

func TestUsersOfANamespace(t *testing.T) {
	for _, c := range []struct {
		name, text   string
		nested, many bool
	}{
		{"the machine's own", "         0          0 4294967295\n", false, true},
		{"an ordinary user's", "         0       1000          1\n", true, false},
		{"a container's", "         0     100000      65536\n", true, true},
		{"unreadable", "x\n", true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if m := parseIDs(c.text); m.nested() != c.nested || m.many() != c.many {
				t.Errorf("%+v: nested %v, many %v", m, m.nested(), m.many())
			}
		})
	}
}
