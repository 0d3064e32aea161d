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
const readyStats = `^(server\.state|listener_manager\.(workers_started|total_listeners_active)|cluster_manager\.cds\.update_(success|rejected)|listener_manager\.lds\.update_(success|rejected))$`

// ownListeners are those of the bootstrap: health and metrics.
const ownListeners = 2

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
	if !s.began.Load() {
		if err := configured(stats); err != nil {
			return err
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

// configured reports that the proxy has not got its configuration yet. One bad listener must
// not keep a pod from serving by the others, so a response that was refused counts if any of its
// listeners is there; the original waits for one that was accepted as a whole.
func configured(stats map[string]int) error {
	updates := func(kind string) string {
		return fmt.Sprintf("%d successful, %d rejected", stats[kind+".update_success"], stats[kind+".update_rejected"])
	}
	const cds, lds = "cluster_manager.cds", "listener_manager.lds"
	seen := fmt.Sprintf("cds updates: %s; lds updates: %s", updates(cds), updates(lds))
	clusters, listeners := stats[cds+".update_success"]+stats[cds+".update_rejected"], stats[lds+".update_success"]+stats[lds+".update_rejected"]
	switch {
	case clusters == 0 || listeners == 0:
		return fmt.Errorf("config not received from XDS server (is Istiod running?): %s", seen)
	case stats[lds+".update_success"] == 0 && stats["listener_manager.total_listeners_active"] <= ownListeners:
		return fmt.Errorf("config received from XDS server, but was rejected: %s", seen)
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
