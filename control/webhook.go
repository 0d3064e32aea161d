package control

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	meshconfig "istio.io/api/mesh/v1alpha1"
	corev1 "k8s.io/api/core/v1"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/inject"
	"github.com/lateen-mesh/lateen/pages"
)

// The webhook answers the API, over HTTPS, what is to be put into a pod that is being made,
// and whether an object may be stored (validating.go).
//
//	ConfigMap istio-sidecar-injector ─► settings ┐
//	MeshConfig, Namespaces ──────────────────────┴─► /inject ─► AdmissionReview

// An injector is what /inject answers from.
type injector struct {
	log      *slog.Logger
	revision string
	name     string // of the ConfigMap
	root     string // and its namespace
	native   string // what the environment says of native sidecars: true, false, or auto

	settings atomic.Pointer[inject.Settings]
	mesh     atomic.Pointer[meshconfig.MeshConfig]
	beside   atomic.Bool // the proxy is a container beside the application's
	objects  atomic.Pointer[config.Set]
	gate     chan struct{} // has a place for each review that is being answered
	pods     *prometheus.CounterVec

	mu       sync.Mutex
	from     *config.Config // the ConfigMap that was read last
	problems []config.Problem
}

func newInjector(o Options, registry prometheus.Registerer) *injector {
	i := &injector{
		log: o.Log.Scope("injector"), revision: cmp.Or(o.Revision, defaultRevision), name: inject.ConfigMapName, root: o.RootNamespace,
		native: os.Getenv("ENABLE_NATIVE_SIDECARS"), gate: make(chan struct{}, maxReviews),
		pods: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sidecar_injection_requests_total", Help: "Pods that the API asked about, by what became of them.",
		}, []string{"result"}),
	}
	if i.revision != defaultRevision {
		i.name += "-" + i.revision
	}
	i.settings.Store(inject.Default())
	registry.MustRegister(i.pods)
	return i
}

// maxReviews are answered at once, others wait: one takes a few milliseconds, and up to
// inject.MaxReview bytes.
const maxReviews = 32

// defaultRevision is that of a control plane that names none.
const defaultRevision = "default"

// update takes what a new generation says. A broken ConfigMap leaves its last good state in
// force; without one our own templates are.
func (i *injector) update(set *config.Set, mesh *meshconfig.MeshConfig) {
	i.mesh.Store(mesh)
	i.beside.Store(i.native == "false" || i.native != "true" && slices.ContainsFunc(set.List(config.Node), older))
	i.objects.Store(set)
	i.mu.Lock()
	defer i.mu.Unlock()
	o := set.Get(config.ConfigMap, i.root, i.name)
	if o == i.from {
		return
	}
	i.from, i.problems = o, nil
	if o == nil {
		i.settings.Store(inject.Default())
		return
	}
	cm, ok := o.Spec.(*corev1.ConfigMap)
	if !ok {
		return
	}
	settings, err := inject.Parse([]byte(cm.Data[inject.ConfigKey]), []byte(cm.Data[inject.ValuesKey]))
	if err != nil {
		i.problems = []config.Problem{{Source: o.Source, Object: o.Key, Field: "data", Message: err.Error() + "; the last good state is in force"}}
		return
	}
	i.settings.Store(settings)
}

// older is whether a node is of before version 1.33, from which on sidecars are native in
// every cluster. A node that does not say is not.
func older(node *config.Config) bool {
	o, ok := node.Spec.(*corev1.Node)
	if !ok {
		return false
	}
	var major, minor int
	n, _ := fmt.Sscanf(o.Status.NodeInfo.KubeletVersion, "v%d.%d", &major, &minor)
	return n == 2 && (major < 1 || major == 1 && minor < 33)
}

// Problems are what was wrong with the ConfigMap at the last update.
func (i *injector) Problems() []config.Problem {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.problems
}

// labels are those of a namespace.
func (i *injector) labels(namespace string) map[string]string {
	if set := i.objects.Load(); set != nil {
		if o := set.Get(config.Namespace, "", namespace); o != nil {
			return o.Labels
		}
	}
	return nil
}

// ServeHTTP answers one AdmissionReview. The path may say /inject/KEY/VALUE/…: cluster and
// net are the cluster and the network of the pods that are asked about.
func (i *injector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	env, err := pathEnv(r.URL.Path)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	body, done := posted(w, r, i.gate)
	if done == nil {
		return
	}
	defer done()
	base := inject.Request{Mesh: i.mesh.Load(), Objects: i.objects.Load(), Revision: i.revision, NativeSidecars: !i.beside.Load(), Env: env}
	answer, verdict, err := i.settings.Load().Review(body, base, i.labels)
	if err != nil {
		i.pods.WithLabelValues("malformed").Inc()
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	i.tell(verdict)
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(answer)
}

// posted reads what the API asks, once there is a place at the gate, which done gives up.
// Without done there is nothing to answer any more.
func posted(w http.ResponseWriter, r *http.Request, gate chan struct{}) (body []byte, done func()) {
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); r.Method != http.MethodPost || kind != "application/json" {
		http.Error(w, "an AdmissionReview is sent with POST, as application/json", http.StatusUnsupportedMediaType)
		return nil, nil
	}
	select {
	case gate <- struct{}{}:
	case <-r.Context().Done():
		return nil, nil
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, inject.MaxReview))
	if err != nil {
		<-gate
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return nil, nil
	}
	return body, func() { <-gate }
}

// tell counts and logs what became of a pod.
func (i *injector) tell(v inject.Verdict) {
	attrs := []any{"namespace", v.Namespace, "pod", v.Pod}
	switch {
	case v.Err != nil:
		i.pods.WithLabelValues("refused").Inc()
		i.log.Warn("pod refused", append(attrs, "error", v.Err)...)
	case v.Result.Injected:
		i.pods.WithLabelValues("injected").Inc()
		i.log.Info("sidecar injected", attrs...)
	default:
		i.pods.WithLabelValues("left alone").Inc()
		i.log.Info("no sidecar", append(attrs, "why", v.Result.Reason)...)
	}
}

// pathEnv reads what the path of a request says of its pods.
func pathEnv(path string) (map[string]string, error) {
	rest, ok := strings.CutPrefix(path, "/inject")
	if !ok || rest != "" && rest[0] != '/' {
		return nil, errors.New("not found")
	}
	parts := strings.FieldsFunc(rest, func(r rune) bool { return r == '/' })
	names := map[string]string{"cluster": "ISTIO_META_CLUSTER_ID", "net": "ISTIO_META_NETWORK"}
	env := map[string]string{}
	for len(parts) > 1 {
		name, known := names[parts[0]]
		if !known {
			return nil, fmt.Errorf("/inject: %q is neither cluster nor net", parts[0])
		}
		env[name], parts = strings.ReplaceAll(parts[1], "--slash--", "/"), parts[2:]
	}
	if len(parts) > 0 {
		return nil, fmt.Errorf("/inject: %q has no value", parts[0])
	}
	return env, nil
}

// hooks is the server of webhooks.
func (s *Server) hooks() *http.Server {
	mux := http.NewServeMux()
	mux.Handle("/inject", s.injector)
	mux.Handle("/inject/", s.injector)
	mux.Handle("/validate", s.validator)
	mux.Handle("/validate/", s.validator)
	mux.HandleFunc("/ready", s.ready)
	server := pages.New(mux, s.o.Log.Scope("http"))
	server.ReadTimeout, server.WriteTimeout = 10*time.Second, 10*time.Second // the API waits no longer
	server.ErrorLog = slog.NewLogLogger(s.o.Log.Scope("http").Handler(), slog.LevelWarn)
	server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{s.serving.certificate}, MinVersion: tls.VersionTLS12}
	return server
}

// knownTime bounds the wait until the API knows our certificate; it may not let us tell it.
const knownTime = 2 * time.Second

// serveHooks answers once the first snapshot is there, and the API can believe who answers; requests
// wait until then.
func (s *Server) serveHooks(ctx context.Context) error {
	select {
	case <-s.built:
	case <-ctx.Done():
		return nil
	}
	if s.webhooks != nil {
		limit := time.NewTimer(knownTime)
		defer limit.Stop()
		select {
		case <-s.webhooks.Ready():
		case <-limit.C:
		case <-ctx.Done():
			return nil
		}
	}
	server := s.hooks()
	ended := make(chan error, len(s.hookSockets))
	for _, l := range s.hookSockets {
		go func() { ended <- server.ServeTLS(l, "", "") }()
	}
	if s.webhooks != nil {
		s.webhooks.Answering()
	}
	var failure error
	left := len(s.hookSockets)
	select {
	case failure = <-ended:
		left--
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	_ = server.Shutdown(stop)
	_ = server.Close()
	for range left {
		<-ended
	}
	if errors.Is(failure, http.ErrServerClosed) {
		return nil
	}
	return failure
}

// callable is whether the API can call our webhooks, as far as that is up to us.
func (s *Server) callable() bool {
	if s.webhooks == nil {
		return true
	}
	select {
	case <-s.webhooks.Ready():
		return true
	default:
		return false
	}
}
