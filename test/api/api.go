// Package api runs a Kubernetes API for tests of what talks to one: lateen-apiserver with
// its controllers, and no node, so that pods are made and stay Pending.
package api

import (
	"bytes"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/lateen-mesh/lateen/test/build"
	"github.com/lateen-mesh/lateen/test/ports"
)

// patience bounds the start; a machine that does much else is slow.
const patience = 2 * time.Minute

// An API says how the one of a test is reached. Both ways may do everything.
type API struct {
	Kubeconfig string
	Socket     string // of HTTP, without credentials
}

// Start runs an API until the test ends, and returns when it answers. Short runs skip the
// test.
func Start(t testing.TB) API {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: a Kubernetes API takes its time to build and to start")
	}
	dir, err := os.MkdirTemp("", "api") // short: the path of a socket has 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	program, err := build.APIServer(dir)
	if err != nil {
		t.Fatal(err)
	}
	a := API{filepath.Join(dir, "kubeconfig"), filepath.Join(dir, "api.sock")}
	cmd := exec.Command(program, "--state", filepath.Join(dir, "state"), "--kubeconfig", a.Kubeconfig, "--socket", a.Socket,
		"--listen", net.JoinHostPort("127.0.0.1", strconv.Itoa(ports.One())))
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("lateen-apiserver says:\n%s", &said)
		}
	})
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		err := answers(a.Kubeconfig)
		if err == nil {
			return a
		}
		if time.Now().After(deadline) {
			t.Fatalf("the API does not answer: %v", err)
		}
	}
}

// answers asks the API whether it is ready.
func answers(kubeconfig string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	transport, err := rest.TransportFor(config)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	reply, err := client.Get(config.Host + "/readyz")
	if err != nil {
		return err
	}
	defer reply.Body.Close()
	if reply.StatusCode != http.StatusOK {
		return errors.New(reply.Status)
	}
	return nil
}
