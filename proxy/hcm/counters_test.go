package hcm_test

import (
	"bufio"
	"testing"
	"time"
)

// TestConnectionCounters: who ended connections, amid what, and how much went over them.
func TestConnectionCounters(t *testing.T) {
	b := newBackend(t)
	g := toBackend(t, b, "", "")
	want := func(scope string, counts map[string]uint64) {
		t.Helper()
		for name, n := range counts {
			got := uint64(0)
			for range 300 {
				if got = g.store.Scope(scope).Counter(name).Value(); got == n {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			if got != n {
				t.Errorf("%s%s is %d, want %d", scope, name, got, n)
			}
		}
	}
	c := g.dial(t)
	send(t, c, getX)
	response(t, bufio.NewReader(c))
	_ = c.Close()
	want("http.test.", map[string]uint64{"downstream_cx_destroy_remote": 1, "downstream_cx_destroy_active_rq": 0})
	if rx, tx := g.store.Scope("cluster.b.").Counter("upstream_cx_rx_bytes_total").Value(), g.store.Scope("cluster.b.").Counter("upstream_cx_tx_bytes_total").Value(); rx < 50 || tx < 50 {
		t.Errorf("%d bytes from the backend, %d to it", rx, tx)
	}
	c = g.dial(t)
	send(t, c, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
	for len(b.seen()) < 2 {
		time.Sleep(time.Millisecond)
	}
	_ = c.Close()
	want("http.test.", map[string]uint64{"downstream_cx_destroy_remote": 2, "downstream_cx_destroy_active_rq": 1, "downstream_cx_destroy_remote_active_rq": 1})
	want("cluster.b.", map[string]uint64{"upstream_cx_destroy_local_with_active_rq": 1, "upstream_cx_destroy_remote_with_active_rq": 0})
	g = toBackend(t, b, `"stream_idle_timeout": "0.2s"`, "")
	c = g.dial(t)
	send(t, c, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
	response(t, bufio.NewReader(c))
	want("http.test.", map[string]uint64{"downstream_rq_idle_timeout": 1})
}
