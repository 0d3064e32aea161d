// Package status serves the agent's pages on port 15020: whether the pod may get traffic,
// the application's probes, metrics of agent, proxy and application on one page, and how
// to end the proxy.
//
//	/healthz/ready                           200: proxy and, if it is said how, application are ready
//	/app-health/CONTAINER/{livez,readyz,startupz}
//	/app-lifecycle/CONTAINER/{prestopz,poststartz}
//	/stats/prometheus                        all metrics of the pod
//	/debug/ndsz                              the table of names
//	/quitquitquit, /drain                    POST; end the proxy, take its listeners away
//
// The last three are for programs of the pod only. Probes are asked of the application from
// 127.0.0.6, which the redirection lets pass; a probe of the kubelet would otherwise be
// taken for a request and, with mutual TLS, refused.
package status

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/lateen-mesh/lateen/pages"
)

// Options say what the pages are about.
type Options struct {
	Admin string // HOST:PORT of the proxy's admin API
	// Address is the pod's own: where its application is asked.
	Address string
	// Probes is the value of ISTIO_KUBE_APP_PROBERS: the probes by path, as JSON.
	Probes string
	// Scrape is the value of ISTIO_PROMETHEUS_ANNOTATIONS: where the application's metrics
	// are, as JSON.
	Scrape string
	// Metrics writes the agent's own. May be nil.
	Metrics func(io.Writer)
	// Names is the table of names. May be nil.
	Names func() any
	// Leaving reports whether the pod is about to end: then it is not ready. May be nil.
	Leaving func() bool
	// Quit and Drain are what POSTs ask for. They must not block for long.
	Quit, Drain func()
	// Logger is slog's default if nil.
	Logger *slog.Logger
}

// A Server is the pages. Its methods may be called by any goroutine.
type Server struct {
	o      Options
	log    *slog.Logger
	mux    *http.ServeMux
	client *http.Client // of the proxy's admin API
	app    *http.Client // of the application's metrics
	probes map[string]*probe
	scrape []target    // pages of the application's metrics
	began  atomic.Bool // the proxy had its first configuration
	failed [3]atomic.Uint64
}

// Bounds of what is asked.
const (
	askTimeout = 2 * time.Second
	maxAnswer  = 64 << 10
)

// New reads probes and scrape hints.
func New(o Options) (*Server, error) {
	s := &Server{o: o, log: cmp.Or(o.Logger, slog.Default()), mux: http.NewServeMux()}
	var err error
	if s.probes, err = parseProbes(o.Probes, o.Address); err != nil {
		return nil, fmt.Errorf("ISTIO_KUBE_APP_PROBERS: %w", err)
	}
	if s.scrape, err = parseScrape(o.Scrape); err != nil {
		return nil, fmt.Errorf("ISTIO_PROMETHEUS_ANNOTATIONS: %w", err)
	}
	s.client = &http.Client{Transport: &http.Transport{MaxIdleConns: 1, IdleConnTimeout: time.Minute, DisableCompression: true}}
	s.app = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	s.mux.HandleFunc("GET /healthz/ready", s.ready)
	s.mux.HandleFunc("GET /app-health/", s.probe)
	s.mux.HandleFunc("GET /app-lifecycle/", s.probe)
	s.mux.HandleFunc("GET /stats/prometheus", s.metrics)
	s.mux.HandleFunc("GET /metrics", s.metrics)
	s.mux.HandleFunc("GET /debug/ndsz", pages.Inside(s.log, s.names))
	s.mux.HandleFunc("POST /quitquitquit", pages.Inside(s.log, order(o.Quit)))
	s.mux.HandleFunc("POST /drain", pages.Inside(s.log, order(o.Drain)))
	return s, nil
}

// Serve answers on l until ctx ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	server := pages.New(s.mux, s.log)
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	defer s.client.CloseIdleConnections()
	if err := server.Serve(l); ctx.Err() == nil {
		return err
	}
	return nil
}

func order(f func()) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "OK")
		if flusher, ok := w.(http.Flusher); ok {
			flusher.Flush() // the pages may end with what is ordered
		}
		if f != nil {
			f()
		}
	}
}

func (s *Server) names(w http.ResponseWriter, _ *http.Request) {
	var table any
	if s.o.Names != nil {
		table = s.o.Names()
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(table)
}
