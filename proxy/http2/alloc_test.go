//go:build !race

package http2_test

import (
	"runtime"
	"testing"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/http2"
)

// The budget of one exchange, head to release, for both ends together. What is left are
// strings that x/net's hpack decoder makes of values which differ from message to message.
const (
	allocsPerExchange = 6
	bytesPerExchange  = 400
)

// TestAllocations: a typical exchange keeps within its budget.
func TestAllocations(t *testing.T) {
	down, up := sockets(t)
	requests := make(chan *http.Request, 1)
	requests <- new(http.Request)
	a := http.Response{Status: 200}
	a.Headers.Add([]byte("content-type"), []byte("text/plain"))
	a.Headers.Add([]byte("content-length"), []byte("12"))
	a.Headers.Add([]byte("server"), []byte("envoy"))
	serving(t, up, http2.ServerOptions{}, func(s *http2.ServerStream) {
		r := <-requests // as the connection manager keeps its memory
		_ = s.ReadRequest(r)
		_ = s.WriteHead(&a, false)
		_ = s.WriteBody(answerBody, true)
		_ = s.Flush()
		requests <- r
	})
	c, own := calling(t, down, http2.ClientOptions{})
	r := typical()
	var got http.Response
	once := func() {
		if err := exchange(c, r, &got); err != nil {
			t.Fatal(err)
		}
		<-own.finished
	}
	for range 2000 {
		once()
	}
	var before, after runtime.MemStats
	const n = 5000
	runtime.ReadMemStats(&before)
	for range n {
		once()
	}
	runtime.ReadMemStats(&after)
	allocs, bytes := float64(after.Mallocs-before.Mallocs)/n, float64(after.TotalAlloc-before.TotalAlloc)/n
	t.Logf("%.1f allocations, %.0f bytes", allocs, bytes)
	if allocs > allocsPerExchange || bytes > bytesPerExchange {
		t.Errorf("%.1f allocations of %.0f bytes, the budget is %d of %d", allocs, bytes, allocsPerExchange, bytesPerExchange)
	}
}
