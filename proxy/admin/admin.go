// Package admin serves the admin pages that operators and istioctl know from Envoy:
// the same paths, parameters, methods, status codes and texts.
//
// The pages only read, through the functions of a View that the proxy hands in, and
// change what a POST asks for through its actions. The address is the bootstrap's;
// who may reach it may stop the proxy, so that is loopback unless somebody chose
// otherwise.
package admin

import (
	"context"
	"errors"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/pprof"
	"sort"
	"time"

	adminpb "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	"google.golang.org/protobuf/proto"

	"github.com/lateen-mesh/lateen/logging"
	"github.com/lateen-mesh/lateen/pages"
	"github.com/lateen-mesh/lateen/proxy/stats"
)

// A View is what the pages see of the proxy and may ask of it. Every function may be
// called from any goroutine.
type View struct {
	State      func() adminpb.ServerInfo_State
	ServerInfo func() *adminpb.ServerInfo
	// Dump returns the parts of /config_dump in their order.
	Dump      func(includeEDS bool) []proto.Message
	Clusters  func() *adminpb.Clusters
	Outliers  func() map[string][2]float64 // mean success rates of clusters with outlier detection, by name, and of local origin; nil: none
	Listeners func() *adminpb.Listeners
	Certs     func() *adminpb.Certificates
	// Unready names what the proxy still waits for, by kind of thing ("listener eds").
	Unready func() *adminpb.UnreadyTargetsDumps
	// Runtime returns the layers' names and, for each key, its value in each layer.
	Runtime func() (layers []string, entries map[string][]string)
	// Modify overrides runtime values, an empty one ends an override. It fails where no
	// layer may be written.
	Modify func(values map[string]string) error

	Drain            func(graceful, inboundOnly, skipExit bool)
	Quit             func()
	FailHealthchecks func(fail bool)
	ReopenLogs       func() error

	Stats *stats.Store
	Log   *logging.Log
}

// A Server is the admin listener.
type Server struct {
	view  View
	log   *slog.Logger
	pages []page
	http  *http.Server
	level levels
}

// page is one path with its line in /help.
type page struct {
	path, help string
	params     []string // "name: text"
	post       bool
	serve      func(s *Server, w http.ResponseWriter, r *http.Request)
}

// New returns a server that does not listen yet.
func New(v View) *Server {
	s := &Server{view: v, log: v.Log.Scope("admin"), pages: table()}
	s.http = pages.New(s, s.log)
	s.http.WriteTimeout = 5 * time.Minute // the configuration of a large mesh
	return s
}

// Serve answers on ln until Close.
func (s *Server) Serve(ln net.Listener) error {
	if err := s.http.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Close stops the server; requests that run get a moment to end.
func (s *Server) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		_ = s.http.Close() // the grace is over
	}
}

// ServeHTTP finds the page.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("content-type", "text/plain; charset=UTF-8")
	h.Set("cache-control", "no-cache, max-age=0")
	h.Set("x-content-type-options", "nosniff")
	h.Set("server", "envoy")
	for i := range s.pages {
		p := &s.pages[i]
		if p.path != r.URL.Path {
			continue
		}
		if p.post && r.Method != http.MethodPost {
			fail(w, http.StatusMethodNotAllowed, "Method "+r.Method+" not allowed, POST required.")
			return
		}
		p.serve(s, w, r)
		return
	}
	w.WriteHeader(http.StatusNotFound)
	write(w, "invalid path. ")
	s.writeHelp(w)
}

func fail(w http.ResponseWriter, status int, text string) {
	w.Header().Set("content-type", "text/plain; charset=UTF-8")
	w.WriteHeader(status)
	write(w, text)
}

// write sends text; a client that left is no matter of ours.
func write(w io.Writer, text string) { _, _ = io.WriteString(w, text) }

func ok(w http.ResponseWriter) { write(w, "OK\n") }

func (s *Server) writeHelp(w io.Writer) {
	write(w, "admin commands are:\n")
	for _, p := range s.pages {
		method := ""
		if p.post {
			method = " (POST)"
		}
		write(w, "  "+p.path+method+": "+p.help+"\n")
		for _, x := range p.params {
			write(w, "      "+x+"\n")
		}
	}
}

func help(s *Server, w http.ResponseWriter, _ *http.Request) { s.writeHelp(w) }

func home(s *Server, w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("content-type", "text/html; charset=UTF-8")
	write(w, "<!DOCTYPE html>\n<html lang='en'>\n<head>\n  <title>Envoy Admin</title>\n</head>\n<body>\n<table>\n")
	for _, p := range s.pages {
		if p.path == "/" {
			continue
		}
		what := fmt.Sprintf(`<a href="%s">%s</a>`, p.path, p.path[1:])
		if p.post {
			what = fmt.Sprintf(`<form action="%s" method="post"><button>%s</button></form>`, p.path, p.path[1:])
		}
		write(w, "<tr><td>"+what+"</td><td>"+html.EscapeString(p.help)+"</td></tr>\n")
	}
	write(w, "</table>\n</body>\n</html>\n")
}

func ready(s *Server, w http.ResponseWriter, _ *http.Request) {
	state := s.view.State()
	if state != adminpb.ServerInfo_LIVE {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	write(w, state.String()+"\n")
}

func drainListeners(s *Server, w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	s.view.Drain(q.Has("graceful"), q.Has("inboundonly"), q.Has("skip_exit"))
	ok(w)
}

func quit(s *Server, w http.ResponseWriter, _ *http.Request) {
	ok(w)
	s.view.Quit()
}

func failHealthchecks(s *Server, w http.ResponseWriter, _ *http.Request) {
	s.view.FailHealthchecks(true)
	ok(w)
}

func passHealthchecks(s *Server, w http.ResponseWriter, _ *http.Request) {
	s.view.FailHealthchecks(false)
	ok(w)
}

func resetCounters(s *Server, w http.ResponseWriter, _ *http.Request) {
	s.view.Stats.ResetCounters()
	ok(w)
}

func reopenLogs(s *Server, w http.ResponseWriter, _ *http.Request) {
	if err := s.view.ReopenLogs(); err != nil {
		fail(w, http.StatusInternalServerError, err.Error()+"\n")
		return
	}
	ok(w)
}

func hotRestartVersion(_ *Server, w http.ResponseWriter, _ *http.Request) { write(w, "disabled\n") }

func runtimePage(s *Server, w http.ResponseWriter, _ *http.Request) {
	layers, entries := s.view.Runtime()
	out := map[string]any{"layers": append([]string{}, layers...), "entries": map[string]any{}}
	for key, values := range entries {
		final := ""
		for _, v := range values {
			if v != "" {
				final = v
			}
		}
		out["entries"].(map[string]any)[key] = map[string]any{"layer_values": values, "final_value": final}
	}
	writeJSON(w, out)
}

const modifyUsage = `usage: /runtime_modify?key1=value1&key2=value2&keyN=valueN
       or send the parameters as form values
use an empty value to remove a previously added override`

func modifyRuntime(s *Server, w http.ResponseWriter, r *http.Request) {
	values := map[string]string{}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		fail(w, http.StatusBadRequest, err.Error()+"\n")
		return
	}
	for key, v := range r.Form {
		values[key] = v[0]
	}
	if len(values) == 0 {
		fail(w, http.StatusBadRequest, modifyUsage)
		return
	}
	if err := s.view.Modify(values); err != nil {
		fail(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	ok(w)
}

// maxForm is how large a form may be.
const maxForm = 64 << 10

func contention(_ *Server, w http.ResponseWriter, _ *http.Request) {
	write(w, "Mutex contention tracing is not enabled. To enable, run Envoy with flag --enable-mutex-tracing.")
}

// heapDump is the heap in the form of Go's profiles.
func heapDump(_ *Server, w http.ResponseWriter, _ *http.Request) {
	_ = pprof.WriteHeapProfile(w) // who leaves misses it
}

func recentLookups(s *Server, w http.ResponseWriter, _ *http.Request) {
	s.send(s.view.Stats.WriteLookups(w))
}

func trackLookups(on bool) func(*Server, http.ResponseWriter, *http.Request) {
	return func(s *Server, w http.ResponseWriter, _ *http.Request) {
		s.view.Stats.TrackLookups(on)
		ok(w)
	}
}

func clearLookups(s *Server, w http.ResponseWriter, _ *http.Request) {
	s.view.Stats.ClearLookups()
	ok(w)
}

// sortedKeys is for pages that list maps.
func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
