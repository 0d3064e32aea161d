package productpage

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// counters count answers of other services, by service and status.
type counters struct {
	mu  sync.Mutex
	all map[result]int
}

type result struct {
	service string
	status  int
}

func (c *counters) count(service string, status int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil {
		c.all = map[result]int{}
	}
	c.all[result{service, status}]++
}

// serve writes them in Prometheus's text format.
func (c *counters) serve(w http.ResponseWriter, _ *http.Request) {
	c.mu.Lock()
	all := maps.Clone(c.all)
	c.mu.Unlock()
	lines := []string{}
	for r, n := range all {
		lines = append(lines, fmt.Sprintf("request_result_total{destination_app=%q,response_code=\"%d\"} %d\n", r.service, r.status, n))
	}
	slices.Sort(lines)
	var b bytes.Buffer
	b.WriteString("# HELP request_result_total Answers of the services that the page asks.\n# TYPE request_result_total counter\n")
	b.WriteString(strings.Join(lines, ""))
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = w.Write(b.Bytes())
}
