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
		cmd := exec.Command("/proc/self/exe", "-test.run", "^TestStranger$")
		cmd.Env = append(os.Environ(), "STRANGER="+path)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "nothing came") {
			t.Errorf("%s %v", out, err)
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
		t.Skip("TestListen runs this as another user")
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
