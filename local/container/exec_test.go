package container

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// idle is a container that does nothing.
func idle() Config { return script("echo; while :; do sleep 1000; done") }

// run executes a program in a container to its end.
func run(t *testing.T, c Container, e Exec) (string, string, Exit) {
	t.Helper()
	var out, errs bytes.Buffer
	e.Stdout, e.Stderr = &out, &errs
	p, err := c.Exec(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	exit := p.Wait()
	return strings.TrimSpace(out.String()), strings.TrimSpace(errs.String()), exit
}

func sh(text string) Exec { return Exec{Argv: []string{"sh", "-c", text}} }

func TestExec(t *testing.T) {
	if outside(t) {
		return
	}
	r := newRuntime(t)
	config := idle()
	config.Env = append(config.Env, "NAME=value")
	config.Dir = "/app"
	config.Files = map[string]string{"hosts": "own hosts\n"}
	config.Mounts = []Mount{{Target: "/cache"}, {Target: "/app/bin", Source: testBinary()}}
	c := start(t, r, newNetwork(t), config)
	for _, x := range []struct {
		name      string
		exec      Exec
		out, errs string
		code      int
	}{
		{name: "output", exec: sh("echo out; echo err >&2"), out: "out", errs: "err"},
		{name: "exit code", exec: sh("exit 42"), code: 42},
		{name: "signal", exec: sh("kill -9 $$"), code: 137},
		{name: "the container's environment", exec: sh("echo $NAME $HOSTNAME $PATH"), out: "value sleep-0 /usr/bin:/bin"},
		{name: "the container's working directory", exec: sh("pwd"), out: "/app"},
		{name: "the container's files", exec: sh("cat /etc/hosts; echo x > /cache/x; cat /cache/x; hostname"), out: "own hosts\nx\nsleep-0"},
		{name: "the container's processes", exec: sh("tr '\\0' ' ' < /proc/1/cmdline"), out: "/bin/sh -c echo; while :; do sleep 1000; done"},
		{name: "the pod's links", exec: sh("ls /sys/class/net; cat /sys/class/net/lo/flags"), out: "lo\n0x9"},
		{name: "input to its end", exec: Exec{Argv: []string{"cat"}, Stdin: strings.NewReader("text")}, out: "text"},
		{name: "no input", exec: Exec{Argv: []string{"cat"}}},
		{name: "input without a reader there", exec: Exec{Argv: []string{"true"}, Stdin: strings.NewReader(strings.Repeat("x", 1<<20))}},
		{name: "no rights that applications lack", exec: sh("mount -t tmpfs x /mnt 2>/dev/null || echo refused"), out: "refused"},
		{name: "what another has left running does not hold it up", exec: sh("sleep 1000 & echo started"), out: "started"},
	} {
		t.Run(x.name, func(t *testing.T) {
			out, errs, exit := run(t, c, x.exec)
			if out != x.out || errs != x.errs || exit.Code != x.code {
				t.Errorf("output %q, %q, exit %+v, want %q, %q, %d", out, errs, exit, x.out, x.errs, x.code)
			}
		})
	}
	t.Run("much at once", func(t *testing.T) {
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				if out, _, exit := run(t, c, sh("echo one")); out != "one" || exit.Code != 0 {
					t.Errorf("%q, %+v", out, exit)
				}
			})
		}
		all.Wait()
	})
}

// An archive names the owners that its files have outside. kubectl cp unpacks it as root.
func TestExecUnpacksFilesOfOthers(t *testing.T) {
	if outside(t) {
		return
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: "note", Mode: 0o644, Size: 4, Uid: 4711, Gid: 4711}), write(w, "text"), w.Close()); err != nil {
		t.Fatal(err)
	}
	c := start(t, newRuntime(t), nil, idle())
	if out, errs, exit := run(t, c, Exec{Argv: []string{"tar", "-xmf", "-", "-C", "/tmp"}, Stdin: &archive}); exit.Code != 0 {
		t.Fatalf("exit %+v: %s%s", exit, out, errs)
	}
	if out, errs, _ := run(t, c, sh("cat /tmp/note")); out != "text" {
		t.Errorf("%q, %q", out, errs)
	}
}

func write(w io.Writer, text string) error {
	_, err := io.WriteString(w, text)
	return err
}

func TestExecAsTheContainersUser(t *testing.T) {
	if outside(t) {
		return
	}
	r := newRuntime(t)
	config := idle()
	config.UID, config.GID = 1000, 2000
	c := start(t, r, nil, config)
	if out, errs, _ := run(t, c, sh("id -u; id -g; grep CapEff /proc/self/status; kill -0 1 && echo same; echo x > /tmp/y; ls -ln /tmp/y | cut -d' ' -f3,4")); out != "1000\n2000\nCapEff:\t0000000000000000\nsame\n1000 2000" {
		t.Errorf("%q, %q", out, errs)
	}
	proxy := idle()
	proxy.NetAdmin = true
	proxy.Mounts = []Mount{{Target: "/app", Source: testBinary()}}
	proxy.Env = append(proxy.Env, partVariable+"=app")
	p := start(t, r, newNetwork(t), proxy)
	if out, _, _ := run(t, p, Exec{Argv: []string{"/app", "mark", "7"}}); out != "<nil>" {
		t.Errorf("mark by a proxy's exec: %q", out)
	}
}

func TestExecsThatAreRefused(t *testing.T) {
	if outside(t) {
		return
	}
	r := newRuntime(t)
	c := start(t, r, nil, idle())
	for _, x := range []struct {
		name     string
		argv     []string
		want     string
		notFound bool
	}{
		{"program without a path", []string{"nothing"}, `exec: "nothing": executable file not found in $PATH`, true},
		{"program with a path", []string{"/no/thing"}, `exec: "/no/thing": stat /no/thing: no such file or directory`, true},
		{"no program", nil, "exec: no program", false},
	} {
		t.Run(x.name, func(t *testing.T) {
			_, err := c.Exec(t.Context(), Exec{Argv: x.argv})
			if err == nil || err.Error() != x.want || errors.Is(err, ErrNotFound) != x.notFound {
				t.Errorf("error %v, want %s", err, x.want)
			}
		})
	}
	t.Run("ended container", func(t *testing.T) {
		if err := c.Kill(); err != nil {
			t.Fatal(err)
		}
		c.Wait()
		if _, err := c.Exec(t.Context(), sh("true")); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("error %v", err)
		}
	})
}

func TestExecIsEnded(t *testing.T) {
	if outside(t) {
		return
	}
	r := newRuntime(t)
	c := start(t, r, nil, idle())
	long := Exec{Argv: []string{"sleep", "1000"}}
	t.Run("by a kill", func(t *testing.T) {
		p, err := c.Exec(t.Context(), long)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
		if exit := p.Wait(); exit.Signal != int(syscall.SIGKILL) {
			t.Errorf("%+v", exit)
		}
	})
	t.Run("by its context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		p, err := c.Exec(ctx, long)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		if exit := p.Wait(); exit.Signal != int(syscall.SIGKILL) {
			t.Errorf("%+v", exit)
		}
	})
	t.Run("by the container's end", func(t *testing.T) {
		p, err := c.Exec(t.Context(), long)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Kill(); err != nil {
			t.Fatal(err)
		}
		if exit := p.Wait(); exit.Signal != int(syscall.SIGKILL) {
			t.Errorf("%+v", exit)
		}
		c.Wait()
	})
	if left := processes(t); len(left) != 1 {
		t.Errorf("processes %v are left, want the test alone", left)
	}
}

// A typist is the other end of a program's terminal.
type typist struct {
	keys   io.Writer
	screen *bufio.Reader
	off    func() error // ends the screen
}

// terminals gives an Exec or a container a terminal that the test types at.
func terminals(t *testing.T) (stdin io.Reader, stdout io.Writer, _ *typist) {
	t.Helper()
	stdin, keys := io.Pipe()
	screen, write := io.Pipe()
	t.Cleanup(func() { _ = keys.Close(); _ = screen.Close() })
	return stdin, write, &typist{keys: keys, screen: bufio.NewReader(screen), off: write.Close}
}

func (y *typist) enter(t *testing.T, line string) {
	t.Helper()
	if _, err := io.WriteString(y.keys, line); err != nil {
		t.Fatal(err)
	}
}

// see reads lines until one is what is wanted.
func (y *typist) see(t *testing.T, want string) {
	t.Helper()
	var seen []string
	for {
		line, err := y.screen.ReadString('\n')
		seen = append(seen, line)
		if strings.TrimRight(line, "\r\n") == want {
			return
		}
		if err != nil {
			t.Fatalf("the screen showed %q, want %q", seen, want)
		}
	}
}

func TestTerminals(t *testing.T) {
	if outside(t) {
		return
	}
	r := newRuntime(t)
	const shell = "stty -echo; echo ready; while read line; do eval \"$line\"; done; echo end of input; exit 4"
	check := func(t *testing.T, y *typist, resize func(uint16, uint16) error, wait func() Exit) {
		go func() { wait(); _ = y.off() }()
		y.see(t, "ready")
		y.enter(t, "test -t 0 && test -t 1 && test -t 2 && echo a terminal\n")
		y.see(t, "a terminal")
		y.enter(t, "echo controlling > /dev/tty\n")
		y.see(t, "controlling")
		y.enter(t, "echo $TERM\n")
		y.see(t, "xterm")
		if err := resize(132, 43); err != nil {
			t.Fatal(err)
		}
		y.enter(t, "stty size\n")
		y.see(t, "43 132")
		y.enter(t, "trap 'on=no' INT; on=yes; echo set; while test $on = yes; do sleep 0.01; done; echo interrupted\n")
		y.see(t, "set")
		y.enter(t, "\x03")
		y.see(t, "interrupted")
		y.enter(t, "\x04")
		y.see(t, "end of input")
		if exit := wait(); exit.Code != 4 {
			t.Errorf("%+v, want exit code 4", exit)
		}
	}
	config := script(shell)
	for _, uid := range []int{0, 1000} {
		t.Run(map[int]string{0: "of a container", 1000: "of a container with a user"}[uid], func(t *testing.T) {
			stdin, stdout, y := terminals(t)
			config := config
			config.TTY, config.Stdin, config.Stdout, config.UID, config.GID = true, stdin, stdout, uid, uid
			c, err := r.Start(t.Context(), nil, config)
			if err != nil {
				t.Fatal(err)
			}
			check(t, y, c.Resize, c.Wait)
		})
		t.Run(map[int]string{0: "of an exec", 1000: "of an exec with a user"}[uid], func(t *testing.T) {
			idle := idle()
			idle.UID, idle.GID = uid, uid
			c := start(t, r, nil, idle)
			stdin, stdout, y := terminals(t)
			p, err := c.Exec(t.Context(), Exec{Argv: config.Argv, TTY: true, Stdin: stdin, Stdout: stdout})
			if err != nil {
				t.Fatal(err)
			}
			check(t, y, p.Resize, p.Wait)
		})
	}
	t.Run("the end of input is one", func(t *testing.T) {
		var out bytes.Buffer
		c := start(t, r, nil, idle())
		p, err := c.Exec(t.Context(), Exec{Argv: []string{"sh", "-c", "stty -echo; cat; echo done"}, TTY: true, Stdin: strings.NewReader("text\n"), Stdout: &out})
		if err != nil {
			t.Fatal(err)
		}
		if exit := p.Wait(); exit.Code != 0 || !strings.HasSuffix(out.String(), "text\r\ndone\r\n") {
			t.Errorf("%q, %+v", out.String(), exit)
		}
	})
	t.Run("without one there is nothing to resize", func(t *testing.T) {
		c := start(t, r, nil, idle())
		if err := c.Resize(1, 1); err == nil {
			t.Error("resized")
		}
	})
}

// TestSlowReadersGetAll takes what a program has written long after its end.
func TestSlowReadersGetAll(t *testing.T) {
	if outside(t) {
		return
	}
	r := newRuntime(t)
	c := start(t, r, nil, idle())
	screen, stdout := io.Pipe()
	const size = 100_000
	p, err := c.Exec(t.Context(), Exec{Argv: []string{"sh", "-c", "head -c 100000 /dev/zero"}, Stdout: stdout})
	if err != nil {
		t.Fatal(err)
	}
	first := make([]byte, size-40_000) // the rest fits into the pipe, so the program ends
	if _, err := io.ReadFull(screen, first); err != nil {
		t.Fatal(err)
	}
	for len(processes(t)) > 3 { // the test and the container's two
		yield()
	}
	go func() { p.Wait(); _ = stdout.Close() }()
	yield()
	if rest, err := io.ReadAll(screen); err != nil || len(rest) != size-len(first) {
		t.Errorf("%d bytes more, %v, want %d", len(rest), err, size-len(first))
	}
}

// TestReadersThatLeave stop a program that writes on.
func TestReadersThatLeave(t *testing.T) {
	if outside(t) {
		return
	}
	r := newRuntime(t)
	c := start(t, r, nil, idle())
	screen, stdout := io.Pipe()
	p, err := c.Exec(t.Context(), Exec{Argv: []string{"yes"}, Stdout: stdout})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := screen.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	_ = screen.Close()
	if exit := p.Wait(); exit.Signal != int(syscall.SIGPIPE) {
		t.Errorf("%+v, want SIGPIPE", exit)
	}
}
