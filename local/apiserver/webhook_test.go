package main_test

import (
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestWebhooksBehindServices: the API asks the node for the way to a webhook's Service, waits a
// while for one that starts, and says which address refused where none comes.
func TestWebhooksBehindServices(t *testing.T) {
	s := start(t, os.Geteuid())
	web := httptest.NewTLSServer(http.HandlerFunc(review)) // its certificate is of example.com
	defer web.Close()
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw})
	s.must(`{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hook"}, "spec": {"clusterIP": "10.96.0.77", "ports": [{"port": 443}]}}`, "apply", "-f", "-")
	configure := func(path string) string {
		return fmt.Sprintf(`{
			"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration", "metadata": {"name": "test"},
			"webhooks": [{
				"name": "test.example.test", "sideEffects": "None", "admissionReviewVersions": ["v1"],
				"clientConfig": {"service": {"namespace": "default", "name": "hook"%s}, "caBundle": "%s"},
				"rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE"]}],
				"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}}
			}]}`, path, base64.StdEncoding.EncodeToString(authority))
	}
	s.must(configure(""), "apply", "-f", "-")
	eventually(t, "the webhook is not there", func() bool {
		out, err := s.kubectl("", "create", "configmap", "early")
		s.kubectl("", "delete", "configmap", "early", "--ignore-not-found")
		return err != nil && containsAll(out, "failed calling webhook", "the node does not answer")
	})
	way := openWay(t, s, web.Listener.Addr().String())
	eventually(t, "the webhook is called", func() bool {
		out, err := s.kubectl("", "create", "configmap", "late")
		// The certificate of the test is for another name: the connection was made, and judged.
		return err != nil && containsAll(out, "certificate is valid for", "hook.default.svc")
	})
	if got := way.asked(); got != "10.96.0.77:443" {
		t.Errorf("the node was asked for %q, want the Service's address", got)
	}
	s.must(configure(`, "port": 8443`), "apply", "-f", "-")
	eventually(t, "a port that the Service has not is named", func() bool {
		out, err := s.kubectl("", "create", "configmap", "odd")
		return err != nil && containsAll(out, "service default/hook has no port 8443")
	})
}

// A way is a node that joins every CONNECT to one address.
type way struct {
	mu   sync.Mutex
	last string
}

func (w *way) asked() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

func openWay(t *testing.T, s *server, to string) *way {
	t.Helper()
	w := &way{}
	l, err := net.Listen("unix", s.path("node.sock"))
	if err != nil {
		t.Fatal(err)
	}
	var joined sync.WaitGroup
	web := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			http.Error(rw, "not asked for here", http.StatusNotFound)
			return
		}
		w.mu.Lock()
		w.last = r.Host
		w.mu.Unlock()
		far, err := net.Dial("tcp", to)
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadGateway)
			return
		}
		near, early, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			return
		}
		io.WriteString(near, "HTTP/1.1 200 OK\r\n\r\n")
		joined.Go(func() { io.Copy(far, early); far.Close() })
		joined.Go(func() { io.Copy(near, far); near.Close() })
	})}
	joined.Go(func() { web.Serve(l) })
	t.Cleanup(func() {
		web.Close()
		s.stop() // and with it what was joined
		joined.Wait()
	})
	return w
}

func containsAll(text string, words ...string) bool {
	return !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(text, word) })
}
