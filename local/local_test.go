package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func itoa(n int) string { return strconv.Itoa(n) }

// occupy takes a port of all addresses until the test ends.
func occupy(t *testing.T, port int) int {
	t.Helper()
	l, err := net.Listen("tcp4", "0.0.0.0:"+itoa(port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().(*net.TCPAddr).Port
}

// pair finds a port such that it and the one 8000 above are free.
func pair(t *testing.T) int {
	t.Helper()
	for port := 20000; port < 30000; port++ {
		if open(port) == nil && open(port+publishOffset) == nil {
			return port
		}
	}
	t.Fatal("no free ports")
	return 0
}

func TestPublishing(t *testing.T) {
	configure := func(port int) Options {
		dir := t.TempDir()
		text := "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: web, namespace: default}\nspec:\n  selector: {istio: ingressgateway}\n" +
			"  servers:\n  - port: {number: " + itoa(port) + ", name: http, protocol: HTTP}\n    hosts: ['*']\n"
		if err := os.WriteFile(filepath.Join(dir, "g.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return Options{Paths: []string{dir}}
	}
	decide := func(t *testing.T, o Options) (map[int]int, error) {
		s := &supervisor{o: o, state: &state{sockets: "/s"}, gateway: gatewayBootstrap("/s/xds.sock")}
		node, err := s.node()
		if err != nil {
			t.Fatal(err)
		}
		r := &reservation{}
		t.Cleanup(r.close)
		ports, _, err := r.publishing(o, nil, node)
		return ports, err
	}
	t.Run("a free port is itself, and port 80 is always there", func(t *testing.T) {
		port := pair(t)
		ports, err := decide(t, configure(port))
		if err != nil || ports[port] != port || ports[80] == 0 {
			t.Errorf("ports %v, %v", ports, err)
		}
	})
	t.Run("a port in use is published 8000 above", func(t *testing.T) {
		port := pair(t)
		occupy(t, port)
		ports, err := decide(t, configure(port))
		if err != nil || ports[port] != port+8000 {
			t.Errorf("ports %v, %v", ports, err)
		}
	})
	t.Run("both in use: the error names them and what to do", func(t *testing.T) {
		port := pair(t)
		occupy(t, port)
		occupy(t, port+8000)
		_, err := decide(t, configure(port))
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), itoa(port)+" is in use") || !strings.Contains(err.Error(), itoa(port+8000)+" is in use") ||
			e.Hint != "publish it elsewhere: --publish "+itoa(port)+"=PORT" {
			t.Errorf("error %v", err)
		}
	})
	t.Run("what is asked for counts, and is an error when taken", func(t *testing.T) {
		port := pair(t)
		o := configure(port)
		o.Publish = map[int]int{port: port + 8000}
		if ports, err := decide(t, o); err != nil || ports[port] != port+8000 {
			t.Errorf("ports %v, %v", ports, err)
		}
		occupy(t, port+8000)
		if _, err := decide(t, o); err == nil || !strings.Contains(err.Error(), "port "+itoa(port)+", published as "+itoa(port+8000)) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("a port that another mesh has chosen and not opened yet", func(t *testing.T) {
		port := pair(t)
		if ports, err := decide(t, configure(port)); err != nil || ports[port] != port {
			t.Fatalf("ports %v, %v", ports, err)
		}
		if ports, err := decide(t, configure(port)); err != nil || ports[port] != port+8000 {
			t.Errorf("ports %v, %v", ports, err)
		}
	})
	t.Run("a path that does not exist", func(t *testing.T) {
		if _, err := decide(t, Options{Paths: []string{"no-such"}}); err == nil || !strings.Contains(err.Error(), "no-such") {
			t.Errorf("error %v", err)
		}
	})
}

func TestState(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 40))
	s, err := openState(dir)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(s.socket("control.sock")); n > maxSocketPath {
		t.Errorf("socket path of %d bytes", n)
	}
	if pid, err := running(dir); err != nil || pid != os.Getpid() {
		t.Errorf("running: %d %v, want this process", pid, err)
	}
	var e *Error
	if _, err := openState(dir); !errors.As(err, &e) || !strings.Contains(e.Hint, "lateen down --state "+dir) {
		t.Errorf("a second mesh in one directory: %v", err)
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory %v %v, want 0700", info.Mode(), err)
	}
	s.close()
	if pid, err := running(dir); err != nil || pid != 0 {
		t.Errorf("running after close: %d %v", pid, err)
	}
	if _, err := os.Stat(s.sockets); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("socket directory is still there: %v", err)
	}
	if _, err := ReadStatus(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "no mesh runs in") {
		t.Errorf("status: %v", err)
	}
	if err := Down(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "no mesh runs in") {
		t.Errorf("down: %v", err)
	}
}

// A recorder keeps what the parts of a supervised process went through.
type recorder struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.Write(p)
}

func (r *recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.String()
}

func supervised(t *testing.T, script string) (*process, *recorder, func()) {
	t.Helper()
	log, err := openLog(filepath.Join(t.TempDir(), "p.log"))
	if err != nil {
		t.Fatal(err)
	}
	out := &recorder{}
	p := &process{name: "p", argv: []string{"/bin/sh", "-c", script}, out: out, log: log, changed: func() {}, input: []byte("from stdin\n")}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { p.run(ctx); close(done) }()
	return p, out, func() { cancel(); <-done; log.close() }
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); {
		if time.Now().After(deadline) {
			t.Fatal("never: " + what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestProcess(t *testing.T) {
	t.Run("one that ends is started again, and each start reads its input", func(t *testing.T) {
		p, out, stop := supervised(t, "cat; exit 3")
		eventually(t, "second start", func() bool { return strings.Count(out.String(), "from stdin\n") >= 2 })
		st := p.status()
		stop()
		if st.Restarts < 1 || st.Exit != "exit status 3" {
			t.Errorf("part %+v", st)
		}
		if text, err := os.ReadFile(p.log.path); err != nil || !strings.HasPrefix(string(text), "from stdin\nfrom stdin\n") {
			t.Errorf("log %q %v", text, err)
		}
	})
	t.Run("it is ended with the supervisor", func(t *testing.T) {
		p, out, stop := supervised(t, "echo up; exec sleep 100")
		eventually(t, "start", func() bool { return strings.Contains(out.String(), "up\n") })
		pid := p.status().PID
		stop()
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("process %d: %v, want none", pid, err)
		}
		if st := p.status(); st.State != "ended" {
			t.Errorf("part %+v", st)
		}
	})
}

func TestLines(t *testing.T) {
	dir := t.TempDir()
	log, err := openLog(filepath.Join(dir, "l"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.close()
	var out bytes.Buffer
	l := &lines{prefixed: prefixedWriter{&prefixes{out: &out}, "p | "}, log: log}
	for _, part := range []string{"one\ntw", "o\n", strings.Repeat("x", maxLine+10), "\nlast"} {
		if n, err := l.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatalf("wrote %d, %v", n, err)
		}
	}
	l.flush()
	want := "p | one\np | two\np | " + strings.Repeat("x", maxLine) + "\np | xxxxxxxxxx\np | last\n"
	if out.String() != want {
		t.Errorf("got %d bytes %.60q…, want %d", out.Len(), out.String(), len(want))
	}
}

func TestLogIsBounded(t *testing.T) {
	log, err := openLog(filepath.Join(t.TempDir(), "l"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.close()
	line := []byte(strings.Repeat("x", 1<<20) + "\n")
	for range 40 {
		log.write(line)
	}
	for _, path := range []string{log.path, log.path + ".1"} {
		if info, err := os.Stat(path); err != nil || info.Size() > maxLog {
			t.Errorf("%s: %v %v", path, info, err)
		}
	}
}

func TestReport(t *testing.T) {
	for _, c := range []struct {
		name string
		send func(reporter)
		want report
	}{
		{"ready", func(r reporter) { r.ready(Ready{Took: time.Second}) }, report{Ready: &Ready{Took: time.Second}}},
		{"failed", func(r reporter) { r.failed(&Error{errors.New("no"), "try"}) }, report{Error: "no", Hint: "try"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			read, write, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer read.Close()
			c.send(reporter{write})
			raw, err := io.ReadAll(read)
			if err != nil {
				t.Fatal(err)
			}
			var got report
			if err := json.Unmarshal(raw, &got); err != nil || got.Error != c.want.Error || got.Hint != c.want.Hint || (got.Ready == nil) != (c.want.Ready == nil) {
				t.Errorf("got %s %v", raw, err)
			}
		})
	}
}
