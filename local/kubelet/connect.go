package kubelet

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

const (
	maxTunnels  = 64              // at once
	connectTime = 5 * time.Second // of the connection that is asked for
)

// tunnels are the connections from outside to addresses of the mesh: CONNECT ADDRESS:PORT. The
// API reaches webhooks so that are behind Services.
type tunnels struct {
	k     *Kubelet
	slots chan struct{}

	mu     sync.Mutex
	open   map[net.Conn]bool // nil once closed
	joined sync.WaitGroup
}

func newTunnels(k *Kubelet) *tunnels {
	return &tunnels{k: k, slots: make(chan struct{}, maxTunnels), open: map[net.Conn]bool{}}
}

// ServeHTTP answers one CONNECT.
func (t *tunnels) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	to, err := netip.ParseAddrPort(r.Host)
	if err != nil {
		http.Error(w, fmt.Sprintf("%q is no address with a port", r.Host), http.StatusBadRequest)
		return
	}
	select {
	case t.slots <- struct{}{}:
		defer func() { <-t.slots }()
	default:
		http.Error(w, "too many connections into the mesh", http.StatusServiceUnavailable)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), connectTime)
	defer cancel()
	far, err := t.k.o.Mesh.DialContext(ctx, "tcp", to.String())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer far.Close()
	near, early, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer near.Close()
	if !t.begin(near, far) {
		return
	}
	defer t.end(near, far)
	_ = near.SetDeadline(time.Time{})
	if _, err := io.WriteString(near, "HTTP/1.1 200 OK\r\n\r\n"); err == nil {
		join(near, far, early)
	}
}

// begin remembers connections, so that close ends them; false when it did.
func (t *tunnels) begin(all ...net.Conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open == nil {
		return false
	}
	for _, c := range all {
		t.open[c] = true
	}
	t.joined.Add(1)
	return true
}

func (t *tunnels) end(all ...net.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range all {
		delete(t.open, c)
	}
	t.joined.Done()
}

func (t *tunnels) close() {
	t.mu.Lock()
	for c := range t.open {
		_ = c.Close()
	}
	t.open = nil
	t.mu.Unlock()
	t.joined.Wait()
}

// join carries bytes both ways until one end has ended both. What was read of the near end
// already comes first.
func join(near, far net.Conn, early io.Reader) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(far, early)
		_ = far.Close()
	}()
	_, _ = io.Copy(near, far)
	_ = near.Close()
	<-done
}
