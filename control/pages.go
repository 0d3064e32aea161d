package control

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/lateen-mesh/lateen/pages"
	"github.com/lateen-mesh/lateen/wellknown"
)

// A page is one path of the HTTP API. Local pages show the configuration and are
// for callers on this machine only.
type page struct {
	path, about string
	local       bool
	serve       http.HandlerFunc
}

// pageTable is all of them, in the order of /debug/list.
func (s *Server) pageTable(registry *prometheus.Registry) []page {
	return []page{
		{"/ready", "200 once the first configuration is built and the API can call the webhooks", false, s.ready},
		{"/healthz/ready", "the same", false, s.ready},
		{"/version", "version of this control plane", false, version},
		{"/metrics", "Prometheus series", false, promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP},
		{"/debug/status", "files, problems, proxies: what lateen status shows", true, jsonPage(func(*http.Request) (any, error) { return s.Status(), nil })},
		{"/debug/syncz", "versions sent to and acknowledged by each proxy", true, jsonPage(s.syncz)},
		{"/debug/wait", "?generation=N|object=KIND/NAMESPACE/NAME&proxyID=NAME.NAMESPACE&timeout=30s: answers when proxies have it", true, patient(jsonPage(s.wait))},
		{"/debug/adsz", "connected proxies and what they subscribe to", true, jsonPage(s.adsz)},
		{"/debug/connections", "the same, without subscriptions", true, jsonPage(s.connections)},
		{"/debug/configz", "objects in force", true, jsonPage(s.configz)},
		{"/debug/registryz", "services", true, jsonPage(s.registryz)},
		{"/debug/clusterz", "clusters that objects are read from", true, jsonPage(s.clusterz)},
		{"/debug/endpointz", "endpoints of each service and port", true, jsonPage(s.endpointz)},
		{"/debug/mesh", "MeshConfig in force", true, jsonPage(s.meshz)},
		{"/debug/config_dump", "?proxyID=NAME.NAMESPACE: what a proxy gets, as Envoy's config_dump", true, jsonPage(s.configDump)},
		{"/debug/ndsz", "?proxyID=NAME.NAMESPACE: the names that a proxy's agent answers", true, jsonPage(s.ndsz)},
		{"/debug/inject", "templates of injection in force", true, jsonPage(func(*http.Request) (any, error) { return s.injector.settings.Load().Templates(), nil })},
		{"/debug/jointoken", "?namespace=NAME&serviceAccount=NAME&ttl=15m with POST, by a unix socket: a token for a machine's first certificate", true, jsonPage(s.joinToken)},
		{"/debug/ca", "?timeout=1s: roots, and which proxies have proved that they trust them; ?after=PHASE with POST takes the next step of a rotation", true, jsonPage(s.rotationPage)},
		{"/debug/logging", "log levels; ?level=default:info,ads:debug with POST sets them", true, s.levels},
	}
}

func (s *Server) pages(registry *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	table := s.pageTable(registry)
	for _, p := range table {
		serve := p.serve
		if p.local && s.o.NoDebug {
			continue
		}
		if p.local {
			serve = pages.Inside(s.o.Log.Scope("http"), serve)
		}
		mux.HandleFunc(p.path, serve)
	}
	mux.HandleFunc("/debug/list", pages.Inside(s.o.Log.Scope("http"), jsonPage(func(*http.Request) (any, error) {
		list := map[string]string{}
		for _, p := range table {
			list[p.path] = p.about
		}
		return list, nil
	})))
	return mux
}

// patient lets a page take as long as it was asked to.
func patient(serve http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})
		serve(w, r)
	}
}

// A pageError is an error with an HTTP status.
type pageError struct {
	status int
	text   string
}

func (e pageError) Error() string { return e.text }

func jsonPage(content func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := content(r)
		if err != nil {
			status := http.StatusInternalServerError
			if e, ok := err.(pageError); ok { //nolint:errorlint // made by the page itself
				status = e.status
			}
			http.Error(w, err.Error(), status)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		_ = e.Encode(v)
	}
}

func (s *Server) ready(w http.ResponseWriter, _ *http.Request) {
	if s.snapshot.Load() == nil {
		http.Error(w, "configuration not read yet", http.StatusServiceUnavailable)
		return
	}
	if !s.callable() {
		http.Error(w, "the API cannot call the webhook yet: its configuration lacks our certificate", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

func version(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, wellknown.Build()) }

func (s *Server) levels(w http.ResponseWriter, r *http.Request) {
	if level := r.FormValue("level"); level != "" {
		if r.Method != http.MethodPost {
			http.Error(w, "levels are set with POST", http.StatusMethodNotAllowed)
			return
		}
		if err := s.o.Log.SetLevels(level); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	fmt.Fprintln(w, s.o.Log.Levels())
}
