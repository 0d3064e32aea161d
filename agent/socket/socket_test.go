package socket

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestListen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "etc", "XDS")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v, want mode 0600", info, err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "hello")
			_ = c.Close()
		}
	}()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if text, _ := io.ReadAll(c); string(text) != "hello" {
		t.Errorf("got %q", text)
	}
	t.Run("another user", func(t *testing.T) {
		if os.Getuid() != 0 {
			t.Skip("only root can be another user")
		}
		open(t, path)
		if out := stranger(t, path); !strings.Contains(out, "nothing came") {
			t.Error(out)
		}
	})
	_ = l.Close()
	if again, err := Listen(path); err != nil {
		t.Error(err)
	} else {
		_ = again.Close()
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); err == nil {
		t.Error("a file that is no socket was removed")
	}
}

func TestShared(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can be another user")
	}
	path := filepath.Join(t.TempDir(), "XDS")
	l, err := Shared(path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			_, _ = io.WriteString(c, "hello")
			_ = c.Close()
		}
	}()
	for p := filepath.Dir(path); p != os.TempDir() && p != "/"; p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if out := stranger(t, path); strings.Contains(out, "nothing came") {
		t.Error("another user is not served")
	}
	_ = l.Close()
	<-done
}

// stranger is what a program of another user prints that reads from a socket.
func stranger(t *testing.T, path string) string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run", "^TestStranger$")
	cmd.Env = append(os.Environ(), "STRANGER="+path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s %v", out, err)
	}
	return string(out)
}

// open makes a path usable by everybody, as the owner of a directory could.
func open(t *testing.T, path string) {
	t.Helper()
	for p := path; p != os.TempDir() && p != "/"; p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o777); err != nil {
			t.Fatal(err)
		}
	}
}

// TestStranger is the other user's program.
func TestStranger(t *testing.T) {
	path := os.Getenv("STRANGER")
	if path == "" {
		t.Skip("other tests run this as another user")
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if text, _ := io.ReadAll(c); len(text) == 0 {
		t.Log("nothing came")
		os.Stdout.WriteString("nothing came\n")
	}
}
