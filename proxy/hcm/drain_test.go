package hcm_test

import (
	"bufio"
	"io"
	"strings"
	"sync"
	"testing"
)

// Clients that talk all the time while their listener begins to drain get an answer to
// each request; the last one says that the connection ends.
func TestDrainUnderLoad(t *testing.T) {
	const clients, before = 16, 50
	b := newBackend(t)
	g := start(t, setup{clusters: map[string]string{"b": b.addr}, routes: `{"match": {"prefix": "/"}, "route": {"cluster": "b"}}`})
	var warm, all sync.WaitGroup
	warm.Add(clients)
	for range clients {
		c := g.dial(t)
		all.Go(func() {
			talking := sync.OnceFunc(warm.Done)
			defer talking()
			r := bufio.NewReader(c)
			for n := 0; ; n++ {
				if n == before {
					talking()
				}
				if _, err := io.WriteString(c, "GET /fast HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
					t.Errorf("request %d: %v", n, err)
					return
				}
				head, err := readHead(r)
				if err != nil || !strings.HasPrefix(head, "HTTP/1.1 200 ") {
					t.Errorf("request %d is lost: %q, %v", n, head, err)
					return
				}
				readBody(r, head)
				if strings.Contains(head, "connection: close") {
					return
				}
			}
		})
	}
	warm.Wait()
	close(g.draining)
	all.Wait()
}
