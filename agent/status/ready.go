package status

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// readyStats are the statistics of the proxy that say whether it serves.
const readyStats = `^(server\.state|listener_manager\.workers_started|cluster_manager\.cds\.update_(success|rejected)|listener_manager\.lds\.update_(success|rejected))$`

// statusAddress is the probe that an injector adds where the proxy's readiness stands for the
// application's too.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	if err := s.Ready(ctx); err != nil {
		s.log.Debug("not ready", "reason", err)
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	}
}

// Ready reports what the proxy still waits for.
func (s *Server) Ready(ctx context.Context) error {
	if s.o.Leaving != nil && s.o.Leaving() {
		return errors.New("the pod is about to end")
	}
	stats, err := s.stats(ctx)
	if err != nil {
		return fmt.Errorf("proxy: %w", err)
	}
	sum := func(a, b string) int { return stats[a] + stats[b] }
	if !s.began.Load() {
		cds := sum("cluster_manager.cds.update_success", "cluster_manager.cds.update_rejected")
		lds := sum("listener_manager.lds.update_success", "listener_manager.lds.update_rejected")
		if cds == 0 || lds == 0 {
			return fmt.Errorf("config not received from XDS server (is Istiod running?): cds updates: %d, lds updates: %d", cds, lds)
		}
		s.began.Store(true)
	}
	if state, ok := stats["server.state"]; !ok || state != 0 {
		return fmt.Errorf("server is not live, current state is: %d", state)
	}
	if stats["listener_manager.workers_started"] != 1 {
		return errors.New("workers have not yet started")
	}
	return nil
}

// stats asks the proxy for those that readiness depends on.
func (s *Server) stats(ctx context.Context) (map[string]int, error) {
	answer, err := s.ask(ctx, "/stats?usedonly&filter="+strings.ReplaceAll(readyStats, `\`, "%5C"))
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	stats := map[string]int{}
	lines := bufio.NewScanner(io.LimitReader(answer.Body, maxAnswer))
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		if n, err := strconv.Atoi(value); err == nil {
			stats[name] = n
		}
	}
	return stats, lines.Err()
}

// ask gets a page of the admin API.
func (s *Server) ask(ctx context.Context, path string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.o.Admin+path, nil)
	if err != nil {
		return nil, err
	}
	answer, err := s.client.Do(r)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		_ = answer.Body.Close()
		return nil, fmt.Errorf("GET %s: %s", path, answer.Status)
	}
	return answer, nil
}
