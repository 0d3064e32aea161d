package kubelet

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestConnect: who may ask the node gets a connection to an address of the mesh, both ways until one
// end closes it, or hears why not.
func TestConnect(t *testing.T) {
	r := newRig(t, webPod)
	pod := r.await("web", "started", isStarted)
	ask := func(method, to string) (net.Conn, *http.Response) {
		t.Helper()
		c, err := (&net.Dialer{}).DialContext(t.Context(), "unix", filepath.Join(r.dir, "node.sock"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(patience))
		fmt.Fprintf(c, "%s %[2]s HTTP/1.1\r\nHost: %[2]s\r\n\r\n", method, to)
		reply, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
		if err != nil {
			t.Fatal(err)
		}
		return c, reply
	}
	t.Run("to a pod", func(t *testing.T) {
		c, reply := ask("CONNECT", net.JoinHostPort(pod.Status.PodIP, "8080"))
		if reply.StatusCode != http.StatusOK {
			t.Fatalf("answer %s", reply.Status)
		}
		fmt.Fprint(c, "GET /set?ready=yes HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
		text, err := io.ReadAll(c)
		if err != nil || !strings.HasPrefix(string(text), "HTTP/1.1 200 OK") {
			t.Errorf("through the tunnel: %q, %v", text, err)
		}
		r.await("web", "ready", isReady)
	})
	for _, c := range []struct {
		name, to, want string
		status         int
	}{
		{"where nobody listens", net.JoinHostPort(pod.Status.PodIP, "1"), "connection refused", http.StatusBadGateway},
		{"to a name", "web:80", `"web:80" is no address`, http.StatusBadRequest},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, reply := ask("CONNECT", c.to)
			text, _ := io.ReadAll(reply.Body)
			if reply.StatusCode != c.status || !strings.Contains(string(text), c.want) {
				t.Errorf("answer %s: %s", reply.Status, text)
			}
		})
	}
	t.Run("what is open ends with the node", func(t *testing.T) {
		c, reply := ask("CONNECT", net.JoinHostPort(pod.Status.PodIP, "8080"))
		if reply.StatusCode != http.StatusOK {
			t.Fatalf("answer %s", reply.Status)
		}
		r.stop()
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read %v, want the end", err)
		}
	})
}
