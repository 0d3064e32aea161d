package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	churnRate = 30              // changes a second
	lookEvery = 2 * time.Second // at the heap
)

// churn changes endpoints all the time, of one service after the other, and looks whether the
// server's memory stays as it is. The first tenth of the time is not looked at.
func churn(ctx context.Context, s *settings, m *mesh, srv *server, fleet *fleet, f *figures) error {
	progress("%d endpoint changes a second for %s", churnRate, s.churn)
	began, cpu, bytes := time.Now(), srv.cpu(), fleet.bytes()
	tick := time.NewTicker(time.Second / churnRate)
	defer tick.Stop()
	var live, resident []float64
	next, n := began.Add(s.churn/10), 0
	for ; time.Since(began) < s.churn; n++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := m.service(n%m.apart(), fmt.Sprintf("10.253.%d.%d", n/250%250, n%250+1)); err != nil {
			return err
		}
		if time.Now().After(next) {
			next = time.Now().Add(lookEvery)
			heap, err := srv.liveHeap(ctx)
			if err != nil {
				return err
			}
			live, resident = append(live, heap), append(resident, srv.rss())
		}
	}
	quarter := max(len(live)/4, 1)
	if len(live) == 0 {
		return fmt.Errorf("-churn %s is too short to look at memory", s.churn)
	}
	f.add("churn: changes written", float64(n))
	f.add("churn: CPU for each second, s", (srv.cpu()-cpu)/time.Since(began).Seconds())
	f.add("churn: bytes for each proxy and change", float64(fleet.bytes()-bytes)/float64(len(fleet.proxies)*n))
	f.add("churn: live heap in the first quarter, MiB", quantile(live[:quarter], 0.5))
	f.add("churn: live heap in the last quarter, MiB", quantile(live[len(live)-quarter:], 0.5))
	f.add("churn: RSS in the first quarter, MiB", quantile(resident[:quarter], 0.5))
	f.add("churn: RSS in the last quarter, MiB", quantile(resident[len(resident)-quarter:], 0.5))
	return nil
}

// liveHeap is what the last collection has left, in MiB: the size at which the next begins is
// told, and by how much more than what was left that is.
func (s *server) liveHeap(ctx context.Context) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.pages+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	values := map[string]float64{"go_memstats_next_gc_bytes": 0, "go_gc_gogc_percent": 0}
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		name, text, _ := strings.Cut(lines.Text(), " ")
		if _, wanted := values[name]; wanted {
			if values[name], err = strconv.ParseFloat(text, 64); err != nil {
				return 0, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	for name, v := range values {
		if v == 0 {
			return 0, fmt.Errorf("the server does not tell %s", name)
		}
	}
	return values["go_memstats_next_gc_bytes"] / (1 + values["go_gc_gogc_percent"]/100) / (1 << 20), nil
}
