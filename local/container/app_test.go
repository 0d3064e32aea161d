package container

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// app is this binary as the program of a container: it does what it is told and prints how that
// went.
func app(args []string) int {
	tell := func(err error) int {
		fmt.Println(err)
		return 0
	}
	number := 0
	if len(args) > 1 {
		number, _ = strconv.Atoi(args[1])
	}
	switch args[0] {
	case "listen":
		_, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", number))
		return tell(err)
	case "mark":
		socket, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			return tell(err)
		}
		return tell(unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_MARK, number))
	case "remount":
		return tell(unix.Mount("tmpfs", "/mnt", "tmpfs", 0, ""))
	case "window":
		size, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
		if err != nil {
			return tell(err)
		}
		fmt.Println(size.Col, size.Row)
	case "eat":
		held := bytes.Repeat([]byte{1}, number)
		fmt.Println(len(held))
		runtime.KeepAlive(held)
	}
	return 0
}

// appConfig is a container that runs app.
func appConfig(args ...string) Config {
	return Config{
		Argv:   append([]string{"/app"}, args...),
		Env:    []string{partVariable + "=app"},
		Mounts: []Mount{{Target: "/app", Source: testBinary()}},
	}
}

// dying runs f on a thread that ends with it, which the first of a process never does.
func dying(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f()
		return
	}
	done := make(chan struct{})
	go dying(func() { defer close(done); f() })
	<-done
	runtime.UnlockOSThread()
}

// newNetwork is a network namespace with nothing in it, whose loopback is up.
func newNetwork(t *testing.T) *os.File {
	t.Helper()
	var file *os.File
	var err error
	done := make(chan struct{})
	go dying(func() {
		defer close(done)
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return
		}
		if file, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return
		}
		socket, e := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err = e; err != nil {
			return
		}
		defer func() { _ = syscall.Close(socket) }()
		lo, _ := unix.NewIfreq("lo")
		lo.SetUint16(unix.IFF_UP)
		err = unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, lo)
	})
	<-done
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	return file
}

// yield gives other processes a moment, where nothing tells when they are done.
func yield() { time.Sleep(5 * time.Millisecond) }
