package container

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// script is a container that runs a shell script.
func script(text string) Config {
	return Config{Argv: []string{"/bin/sh", "-c", text}, Env: []string{"PATH=/usr/bin:/bin"}, Hostname: "sleep-0"}
}

// outputOf runs a container to its end.
func outputOf(t *testing.T, r Runtime, netns *os.File, c Config) (string, Exit) {
	t.Helper()
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	run, err := r.Start(t.Context(), netns, c)
	if err != nil {
		t.Fatal(err)
	}
	exit := run.Wait()
	return strings.TrimSpace(out.String()), exit
}

// start runs a container until the test ends, and waits for its first line.
func start(t *testing.T, r Runtime, netns *os.File, c Config) Container {
	t.Helper()
	read, write := io.Pipe()
	c.Stdout, c.Stderr = write, write
	run, err := r.Start(t.Context(), netns, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := run.Kill(); err != nil {
			t.Error(err)
		}
		run.Wait()
	})
	if _, err := read.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, read) }()
	t.Cleanup(func() { _ = write.Close() })
	return run
}

func TestWhatAProgramFinds(t *testing.T) {
	if outside(t) {
		return
	}
	r := newRuntime(t)
	dir := script("pwd")
	dir.Dir = "/app/of/its/own"
	home := "/root"
	if _, err := os.ReadDir(home); err != nil {
		home = "/" // it is another user's
	}
	bare := Config{Argv: []string{"env"}, Hostname: "web-0"}
	signal.Ignore(syscall.SIGHUP) // as nohup does
	defer signal.Reset(syscall.SIGHUP)
	for _, c := range []struct {
		name string
		Config
		want string
	}{
		{"it is pid 1", script("echo $$"), "1"},
		{"it sees its own processes only", script("echo /proc/[0-9]*"), "/proc/1"},
		{"the host name is the pod's", script("hostname"), "sleep-0"},
		{"standard input is empty", script("cat"), ""},
		{"no other descriptor is open", script("ls /proc/$$/fd"), "0\n1\n2"},
		{"the working directory is made", dir, "/app/of/its/own"},
		{"environment and what is added to it", bare, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nHOSTNAME=web-0\nHOME=" + home},
		{"files get the usual rights", script("umask"), "0022"},
		{"signals are as usual", script("grep -E 'Sig(Blk|Ign)' /proc/self/status"), "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000"},
		{"shared memory is its own", script("ls /dev/shm; echo x > /dev/shm/x && cat /dev/shm/x"), "x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, exit := outputOf(t, r, nil, c.Config); got != c.want || exit.Code != 0 {
				t.Errorf("%q, exit %+v, want %q", got, exit, c.want)
			}
		})
	}
}

func TestHowProgramsEnd(t *testing.T) {
	if outside(t) {
		return
	}
	r := newRuntime(t)
	for _, c := range []struct {
		name   string
		script string
		want   Exit
	}{
		{"success", "exit 0", Exit{}},
		{"exit code", "exit 3", Exit{Code: 3}},
		// Pid 1 is spared by its own signals, so the shell's child ends of one.
		{"signal of a child, as a shell says it", "sh -c 'kill -9 $$'; exit $?", Exit{Code: 137}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, exit := outputOf(t, r, nil, script(c.script))
			if time.Since(exit.At) > time.Minute {
				t.Errorf("ended at %v", exit.At)
			}
			if exit.At = (time.Time{}); exit != c.want {
				t.Errorf("%+v, want %+v", exit, c.want)
			}
		})
	}
}

func TestSignals(t *testing.T) {
	if outside(t) {
		return
	}
	r := newRuntime(t)
	t.Run("a program that waits for SIGTERM gets it", func(t *testing.T) {
		run := start(t, r, nil, script("trap 'exit 5' TERM; echo; while :; do sleep 0.01; done"))
		if err := run.Signal(int(syscall.SIGTERM)); err != nil {
			t.Fatal(err)
		}
		if exit := run.Wait(); exit.Code != 5 {
			t.Errorf("%+v, want exit code 5", exit)
		}
	})
	t.Run("pid 1 without a word about SIGTERM is spared, and killed", func(t *testing.T) {
		run := start(t, r, nil, script("echo; exec sleep 1000"))
		if err := run.Signal(int(syscall.SIGTERM)); err != nil {
			t.Fatal(err)
		}
		if err := run.Kill(); err != nil {
			t.Fatal(err)
		}
		if exit := run.Wait(); exit.Signal != int(syscall.SIGKILL) || exit.Code != 137 || exit.OOMKilled {
			t.Errorf("%+v, want killed", exit)
		}
		if err := run.Kill(); err != nil {
			t.Errorf("kill once more: %v", err)
		}
		if err := run.Signal(int(syscall.SIGTERM)); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("signal to an ended container: %v", err)
		}
	})
	t.Run("what a program leaves behind ends with it", func(t *testing.T) {
		before := processes(t)
		_, exit := outputOf(t, r, nil, script("for i in 1 2 3; do setsid sleep 1000 & done; exit 0"))
		if exit.Code != 0 {
			t.Errorf("%+v", exit)
		}
		if after := processes(t); len(after) != len(before) {
			t.Errorf("processes %v, were %v", after, before)
		}
	})
	t.Run("an ended context gives up the start", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := r.Start(ctx, nil, script("echo")); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	})
}

// processes are those of the inner half.
func processes(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestInput(t *testing.T) {
	if outside(t) {
		return
	}
	r := newRuntime(t)
	t.Run("a reader is copied to its end", func(t *testing.T) {
		c := script("cat; echo end")
		c.Stdin = strings.NewReader("line\n")
		if got, _ := outputOf(t, r, nil, c); got != "line\nend" {
			t.Errorf("%q", got)
		}
	})
	t.Run("a reader with nothing to say keeps nobody", func(t *testing.T) {
		read, write := io.Pipe()
		defer write.Close()
		c := script("echo done")
		c.Stdin = read
		if got, _ := outputOf(t, r, nil, c); got != "done" {
			t.Errorf("%q", got)
		}
	})
}

func TestStartsThatAreRefused(t *testing.T) {
	if outside(t) {
		return
	}
	r := newRuntime(t)
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/no/such/shell\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	with := func(m Mount) Config { return Config{Argv: []string{"true"}, Mounts: []Mount{m}} }
	for _, c := range []struct {
		name     string
		config   Config
		want     string
		notFound bool
	}{
		{"program without a path", Config{Argv: []string{"nothing"}}, `exec: "nothing": executable file not found in $PATH`, true},
		{"program with a path", Config{Argv: []string{"/no/thing"}}, `exec: "/no/thing": stat /no/thing: no such file or directory`, true},
		{"program that is a directory", Config{Argv: []string{"/usr"}}, `exec: "/usr": is a directory`, false},
		{"program that may not run", Config{Argv: []string{"/plain"}, Mounts: []Mount{{Target: "/plain", Source: plain}}}, `exec: "/plain": permission denied`, false},
		{"script whose interpreter is not there", Config{Argv: []string{"/script"}, Mounts: []Mount{{Target: "/script", Source: script}}}, `exec: "/script": no such file or directory`, true},
		{"no program", Config{}, "read the configuration: no program", false},
		{"source of a mount", with(Mount{Target: "/data", Source: "/no/thing"}), `mount "/data": open "/no/thing": no such file or directory`, false},
		{"target that is no path", with(Mount{Target: "data"}), `mount "data": not a path below /`, false},
		{"target that is the root", with(Mount{Target: "/.."}), `mount "/..": not a path below /`, false},
		{"directory on a file", with(Mount{Target: "/etc/passwd"}), `mount "/etc/passwd": open /.host/etc/passwd: not a directory`, false},
		{"file on a directory", with(Mount{Target: "/usr", Source: plain}), `mount "/usr": open /usr: is a directory`, false},
		{"file of /etc with a path", Config{Argv: []string{"true"}, Files: map[string]string{"../x": ""}}, `read the configuration: "../x" is no name of a file in /etc`, false},
		{"image", Config{Argv: []string{"true"}, Root: "/no/image"}, `image "/no/image": no such file or directory`, false},
		{"working directory below a file", Config{Argv: []string{"true"}, Dir: "/etc/passwd/x"}, `working directory "/etc/passwd/x": open /.host/etc/passwd: not a directory`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := r.Start(t.Context(), nil, c.config)
			if err == nil || err.Error() != c.want {
				t.Errorf("error %q, want %q", err, c.want)
			}
			if errors.Is(err, ErrNotFound) != c.notFound {
				t.Errorf("ErrNotFound: %v, want %v", !c.notFound, c.notFound)
			}
		})
	}
	if left := processes(t); len(left) != 1 {
		t.Errorf("processes %v are left, want the test alone", left)
	}
}
