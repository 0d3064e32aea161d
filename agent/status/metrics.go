package status

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// A scrape says where the application has its metrics: of several targets the first is
// said twice.
type scrape struct {
	Scrape, Path, Port string
	Targets            []target
}

// A target is one page of metrics of the application.
type target struct{ Port, Path string }

// textFormat is the format of metrics that all three sources write.
const textFormat = "text/plain; version=0.0.4; charset=utf-8"

const (
	scrapeTimeout = 10 * time.Second
	maxMetrics    = 128 << 20 // of one source, in bytes
)

// sources of metrics, in their order on the page.
const (
	fromAgent = iota
	fromProxy
	fromApplication
)

// maxTargets bounds the pages of one application.
const maxTargets = 32

func parseScrape(text string) ([]target, error) {
	var s scrape
	if text == "" {
		return nil, nil
	}
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return nil, err
	}
	if s.Scrape != "true" {
		return nil, nil
	}
	if len(s.Targets) > maxTargets {
		return nil, fmt.Errorf("%d targets: there may be %d", len(s.Targets), maxTargets)
	}
	if len(s.Targets) == 0 {
		s.Targets = []target{{Port: s.Port, Path: s.Path}}
	}
	for i := range s.Targets {
		t := &s.Targets[i]
		t.Path, t.Port = cmp.Or(t.Path, "/metrics"), cmp.Or(t.Port, "80")
		if n, err := strconv.ParseUint(t.Port, 10, 16); err != nil || n == 0 {
			return nil, fmt.Errorf("port %q is not a number from 1 to 65535", t.Port)
		}
		if !strings.HasPrefix(t.Path, "/") {
			t.Path = "/" + t.Path
		}
	}
	return s.Targets, nil
}

// metrics is the page of all metrics of the pod. A source that does not answer is left
// out and counted.
func (s *Server) metrics(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), scrapeTimeout)
	defer cancel()
	w.Header().Set("Content-Type", textFormat)
	s.writeOwn(w)
	if answer, err := s.ask(ctx, "/stats/prometheus"); err != nil {
		s.miss(fromProxy, "proxy", err)
	} else {
		s.copy(w, answer.Body, fromProxy, "proxy")
	}
	for _, t := range s.scrape {
		body, err := s.askApplication(ctx, t, r)
		if err != nil {
			s.miss(fromApplication, "application", err)
			continue
		}
		s.copy(w, body, fromApplication, "application")
	}
}

func (s *Server) writeOwn(w io.Writer) {
	fmt.Fprint(w, "# HELP istio_agent_scrape_failures_total The total number of failed scrapes.\n# TYPE istio_agent_scrape_failures_total counter\n")
	for i, name := range [...]string{"agent", "envoy", "application"} {
		if n := s.failed[i].Load(); n > 0 {
			fmt.Fprintf(w, "istio_agent_scrape_failures_total{type=%q} %d\n", name, n)
		}
	}
	if s.o.Metrics != nil {
		s.o.Metrics(w)
	}
}

func (s *Server) miss(source int, name string, err error) {
	s.failed[source].Add(1)
	s.log.Warn("metrics are left out", "of", name, "error", err)
}

// copy takes a source's metrics over, line by line, without the mark of an end that
// OpenMetrics has.
func (s *Server) copy(w io.Writer, body io.ReadCloser, source int, name string) {
	defer body.Close()
	in := bufio.NewReader(io.LimitReader(body, maxMetrics))
	for {
		line, err := in.ReadSlice('\n')
		if !bytes.Equal(bytes.TrimRight(line, "\r\n"), []byte("# EOF")) {
			if _, failed := w.Write(line); failed != nil {
				return
			}
		}
		switch {
		case err == nil || errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			if len(line) > 0 && line[len(line)-1] != '\n' {
				_, _ = w.Write([]byte{'\n'})
			}
			return
		default:
			s.miss(source, name, err)
			return
		}
	}
}

func (s *Server) askApplication(ctx context.Context, t target, from *http.Request) (io.ReadCloser, error) {
	at := "http://" + net.JoinHostPort("localhost", t.Port) + t.Path
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "text/plain;version=0.0.4;q=1,*/*;q=0.1")
	for _, name := range []string{"User-Agent", "X-Prometheus-Scrape-Timeout-Seconds"} {
		if v := from.Header.Get(name); v != "" {
			r.Header.Set(name, v)
		}
	}
	answer, err := s.app.Do(r)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		_ = answer.Body.Close()
		return nil, fmt.Errorf("GET %s: %s", at, answer.Status)
	}
	return answer.Body, nil
}
