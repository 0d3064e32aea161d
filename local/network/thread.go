package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// onThread runs a function on a thread of its own and returns its error. The thread
// ends with it unless the function says that it is as it was.
func onThread(f func() (clean bool, err error)) error {
	done := make(chan error, 1)
	go lock(f, done)
	return <-done
}

// lock runs f on a thread that can end: the process's first one cannot, and would keep
// the namespace that f leaves it in.
func lock(f func() (clean bool, err error), done chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		defer runtime.UnlockOSThread()
		other := make(chan error, 1)
		go lock(f, other)
		done <- <-other
		return
	}
	clean, err := f()
	if clean {
		runtime.UnlockOSThread()
	}
	done <- err
}

// newNamespace makes a network namespace and runs setup in it.
func newNamespace(setup func() error) (ns *os.File, err error) {
	err = onThread(func() (bool, error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return false, fmt.Errorf("network namespace: %w", err)
		}
		if ns, err = openNamespace(); err != nil {
			return false, err
		}
		return false, setup()
	})
	if err != nil && ns != nil {
		_ = ns.Close()
		ns = nil
	}
	return ns, err
}

// openNamespace is the network namespace of the calling thread.
func openNamespace() (*os.File, error) { return os.Open("/proc/thread-self/ns/net") }

// within runs a function on a thread that is in a network namespace, and brings the
// thread back home.
func within(home, ns *os.File, f func() error) error {
	return onThread(func() (bool, error) {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return false, fmt.Errorf("network namespace: %w", err)
		}
		err := f()
		return unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil, err
	})
}

// dialWithin connects from within a namespace.
func dialWithin(ctx context.Context, home, ns *os.File, network, address string) (c net.Conn, err error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if host == "localhost" {
		address = net.JoinHostPort("127.0.0.1", port)
	} else if _, err := netip.ParseAddr(host); err != nil {
		return nil, fmt.Errorf("address %s: no IP address", address) // names would be looked up on other threads
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	failed := within(home, ns, func() error {
		c, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	if failed != nil && c != nil {
		_ = c.Close()
	}
	return c, failed
}

// A setting is a sysctl of a network namespace, relative to /proc/sys/net.
type setting struct{ name, value string }

// set writes settings of the calling thread's namespace. What the kernel does not have is
// left out.
func set(all ...setting) error {
	for _, s := range all {
		err := os.WriteFile("/proc/sys/net/"+s.name, []byte(s.value), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("sysctl net/%s=%s: %w", s.name, s.value, err)
		}
	}
	return nil
}
