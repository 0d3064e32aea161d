// Package kubetest is a small Kubernetes API for tests: discovery, list and watch over a
// unix socket, and nothing that judges objects or gives them defaults. It can be stopped,
// started again with what it has, told to forget the past, to refuse a kind and to stop
// defining one.
package kubetest

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"

	"github.com/lateen-mesh/lateen/control/config"
)

// An API is one server. Its methods may be called from any goroutine.
type API struct {
	Socket string // path of the unix socket
	t      testing.TB

	mu      sync.Mutex
	version int
	objects map[string]map[string]map[string]any // by "group/version/resource", then "namespace/name"
	past    []event
	oldest  int           // version that is still known; watches from before have expired
	news    chan struct{} // closed and replaced at each change
	refused map[string]bool
	served  map[string]bool // custom resources by "resource"
	tokens  map[string]Token
	// forbidden are users that may do nothing.
	forbidden map[string]bool
	server    *httptest.Server
}

// A Token is what the API says of a token that it knows: the user, and whom it is for.
type Token struct{ User, Audience string }

// Know has the API know a token.
func (a *API) Know(token string, as Token) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tokens[token] = as
}

type event struct {
	version    int
	path, what string
	object     map[string]any
}

// CustomKinds are the custom kinds that can be defined, by the name of their resource.
func CustomKinds() map[string]string {
	return map[string]string{"virtualservices": "VirtualService", "destinationrules": "DestinationRule", "gateways": "Gateway",
		"serviceentries": "ServiceEntry", "workloadentries": "WorkloadEntry", "sidecars": "Sidecar",
		"envoyfilters": "EnvoyFilter", "workloadgroups": "WorkloadGroup", "proxyconfigs": "ProxyConfig",
		"peerauthentications": "PeerAuthentication", "requestauthentications": "RequestAuthentication",
		"authorizationpolicies": "AuthorizationPolicy", "telemetries": "Telemetry",
		"wasmplugins": "WasmPlugin", "trafficextensions": "TrafficExtension"}
}

// custom is what is read of a kind, and whether it is a custom one.
func custom(kind string) (config.Resource, bool) {
	for _, r := range config.Resources() {
		if r.Custom && string(r.Kind) == kind {
			return r, true
		}
	}
	return config.Resource{}, false
}

// definitionOf is the name of the definition of a resource.
func definitionOf(resource string) string {
	r, _ := custom(CustomKinds()[resource])
	return resource + "." + r.Group
}

const definitionsPath = "apiextensions.k8s.io/v1/customresourcedefinitions"

// New returns a server that does not listen yet and has every custom kind defined. It ends
// with the test.
func New(t testing.TB) *API {
	dir, err := os.MkdirTemp("", "api") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	a := &API{t: t, Socket: filepath.Join(dir, "s"), version: 100, objects: map[string]map[string]map[string]any{},
		news: make(chan struct{}), refused: map[string]bool{}, served: map[string]bool{}, tokens: map[string]Token{}, forbidden: map[string]bool{}}
	for resource := range CustomKinds() {
		a.Define(resource)
	}
	t.Cleanup(a.Stop)
	return a
}

// Start listens, with the objects that there are.
func (a *API) Start() *API {
	l, err := net.Listen("unix", a.Socket)
	if err != nil {
		a.t.Fatal(err)
	}
	a.server = httptest.NewUnstartedServer(a)
	a.server.Listener.Close()
	a.server.Listener = l
	a.server.Start()
	return a
}

// Stop breaks all connections and serves no more.
func (a *API) Stop() {
	if a.server == nil {
		return
	}
	a.server.Listener.Close()
	a.server.CloseClientConnections()
	a.mu.Lock()
	server := a.server
	a.server = nil
	a.change()
	a.mu.Unlock()
	server.Close()
}

// Define adds a custom kind by the name of its resource.
func (a *API) Define(resource string) {
	a.set(definitionsPath, map[string]any{"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": map[string]any{"name": definitionOf(resource)}})
	a.mu.Lock()
	a.served[resource] = true
	a.mu.Unlock()
}

// Undefine takes a custom kind and its objects away.
func (a *API) Undefine(resource string) {
	a.mu.Lock()
	delete(a.served, resource)
	a.mu.Unlock()
	path := PathOf(CustomKinds()[resource])
	for _, o := range a.all(path) {
		a.remove(path, o)
	}
	a.remove(definitionsPath, "/"+definitionOf(resource))
}

// Serve has a custom kind that is defined be served or not.
func (a *API) Serve(resource string, served bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if served {
		a.served[resource] = true
	} else {
		delete(a.served, resource)
	}
}

func (a *API) all(path string) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var names []string
	for name := range a.objects[path] {
		names = append(names, name)
	}
	return names
}

func (a *API) change() {
	close(a.news)
	a.news = make(chan struct{})
}

// set stores an object.
func (a *API) set(path string, object map[string]any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version++
	meta := object["metadata"].(map[string]any)
	name := fmt.Sprint(orEmpty(meta["namespace"]), "/", meta["name"])
	what := "ADDED"
	meta["uid"] = fmt.Sprint("uid-", a.version)
	if old := a.objects[path][name]; old != nil {
		what, meta["uid"] = "MODIFIED", old["metadata"].(map[string]any)["uid"]
	}
	meta["resourceVersion"] = strconv.Itoa(a.version)
	if a.objects[path] == nil {
		a.objects[path] = map[string]map[string]any{}
	}
	a.objects[path][name] = object
	a.past = append(a.past, event{version: a.version, path: path, what: what, object: object})
	a.change()
}

func (a *API) remove(path, name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	object := a.objects[path][name]
	if object == nil {
		a.t.Fatalf("no %s in %s", name, path)
	}
	a.version++
	delete(a.objects[path], name)
	a.past = append(a.past, event{version: a.version, path: path, what: "DELETED", object: object})
	a.change()
}

// Forget has watches that go on from before now expire.
func (a *API) Forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.past, a.oldest = nil, a.version
}

func orEmpty(v any) any {
	if v == nil {
		return ""
	}
	return v
}

// PathOf is "group/version/resource" of a kind, "" of one that is not known here. Custom
// kinds are kept in the version that is preferred.
func PathOf(kind string) string {
	for resource, k := range CustomKinds() {
		if r, ok := custom(k); ok && k == kind {
			return r.Group + "/" + r.Versions[0] + "/" + resource
		}
	}
	switch kind {
	case "EndpointSlice":
		return "discovery.k8s.io/v1/endpointslices"
	case "Namespace", "Node", "Service", "Pod", "Secret", "ConfigMap":
		return "v1/" + strings.ToLower(kind) + "s"
	case "Ingress", "IngressClass":
		return "networking.k8s.io/v1/" + strings.ToLower(kind) + "es"
	case webhooksKind:
		return "admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
	case validatorsKind:
		return "admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
	}
	return ""
}

const (
	webhooksKind   = "MutatingWebhookConfiguration"
	validatorsKind = "ValidatingWebhookConfiguration"
)

// Refuse has requests for a kind be forbidden, or allows them again.
func (a *API) Refuse(kind string, refused bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refused[PathOf(kind)] = refused
}

// Apply stores every object of a text whose kind is known here.
func (a *API) Apply(text string) {
	a.t.Helper()
	documents, problems := config.Documents("test.yaml", []byte(text))
	if config.HasErrors(problems) {
		a.t.Fatal(problems)
	}
	for _, d := range documents {
		a.Store(d)
	}
}

// Store stores one object, in the namespace default if it names none.
func (a *API) Store(d config.Document) {
	a.t.Helper()
	var object map[string]any
	if err := json.Unmarshal(d.JSON, &object); err != nil {
		a.t.Fatal(err)
	}
	path := PathOf(string(d.Object.Kind))
	if path == "" {
		return
	}
	meta := object["metadata"].(map[string]any)
	if ofCluster := []config.Kind{config.Namespace, config.Node, config.IngressClass, webhooksKind, validatorsKind}; meta["namespace"] == nil && !slices.Contains(ofCluster, d.Object.Kind) {
		meta["namespace"] = "default"
	}
	if r, ok := custom(string(d.Object.Kind)); ok { // all versions have one form
		object["apiVersion"] = r.Group + "/" + r.Versions[0]
	}
	a.set(path, object)
}

// Delete takes an object away, by "namespace/name".
func (a *API) Delete(kind, name string) {
	a.t.Helper()
	a.remove(PathOf(kind), name)
}

// splitPath splits the path of an object, or of its status, into those of its resource and
// its name, "namespace/name".
func splitPath(path string) (resource, name string) {
	path = strings.TrimSuffix(path, "/status")
	resource, name = path[:strings.LastIndex(path, "/")], path[strings.LastIndex(path, "/"):]
	if version, rest, ok := strings.Cut(resource, "/namespaces/"); ok {
		namespace, kind, _ := strings.Cut(rest, "/")
		return version + "/" + kind, namespace + name
	}
	return resource, name
}

// patch changes an object as RFC 6902 says or, where that is announced, RFC 7386.
func (a *API) patch(w http.ResponseWriter, r *http.Request, path string) {
	path, name := splitPath(path)
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	a.mu.Lock()
	object := a.objects[path][name]
	a.mu.Unlock()
	text, err := json.Marshal(object)
	if err != nil || object == nil {
		status(w, http.StatusNotFound, "NotFound", "no such object")
		return
	}
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/merge-patch+json") {
		text, err = jsonpatch.MergePatch(text, body)
	} else if patch, malformed := jsonpatch.DecodePatch(body); malformed != nil {
		err = malformed
	} else {
		text, err = patch.Apply(text)
	}
	if err != nil {
		status(w, http.StatusUnprocessableEntity, "Conflict", err.Error())
		return
	}
	var patched map[string]any
	if err := json.Unmarshal(text, &patched); err != nil {
		status(w, http.StatusInternalServerError, "InternalError", err.Error())
		return
	}
	a.set(path, patched)
	answer(w, patched)
}

// review says whose a token is.
func (a *API) review(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Spec struct {
			Token     string   `json:"token"`
			Audiences []string `json:"audiences"`
		} `json:"spec"`
	}
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
		status(w, http.StatusBadRequest, "BadRequest", err.Error())
		return
	}
	a.mu.Lock()
	token, ok := a.tokens[asked.Spec.Token]
	a.mu.Unlock()
	said := map[string]any{"authenticated": false}
	if ok && slices.Contains(asked.Spec.Audiences, token.Audience) {
		said = map[string]any{"authenticated": true, "user": map[string]any{"username": token.User}, "audiences": []string{token.Audience}}
	}
	answer(w, map[string]any{"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "status": said})
}

// put creates an object that is not there, or replaces one that is.
func (a *API) put(w http.ResponseWriter, r *http.Request, path string) {
	var object map[string]any
	if err := json.NewDecoder(r.Body).Decode(&object); err != nil {
		status(w, http.StatusBadRequest, "BadRequest", err.Error())
		return
	}
	meta := object["metadata"].(map[string]any)
	if r.Method == http.MethodPost {
		path += "/" + fmt.Sprint(meta["name"])
	}
	path, name := splitPath(path)
	a.mu.Lock()
	there := a.objects[path][name] != nil
	a.mu.Unlock()
	switch {
	case there && r.Method == http.MethodPost:
		status(w, http.StatusConflict, "AlreadyExists", "it is there")
	case !there && r.Method == http.MethodPut:
		status(w, http.StatusNotFound, "NotFound", "no such object")
	default:
		a.set(path, object)
		answer(w, object)
	}
}

// one answers one object of a namespace.
func (a *API) one(w http.ResponseWriter, path string) {
	path, name := splitPath(path)
	a.mu.Lock()
	defer a.mu.Unlock()
	if o := a.objects[path][name]; o != nil {
		answer(w, o)
	} else {
		status(w, http.StatusNotFound, "NotFound", "no such object")
	}
}

// Get is an object as JSON, by its name in the cluster or by "namespace/name".
func (a *API) Get(kind, name string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !strings.Contains(name, "/") {
		name = "/" + name
	}
	text, err := json.Marshal(a.objects[PathOf(kind)][name])
	if err != nil {
		a.t.Fatal(err)
	}
	return string(text)
}

// ServeHTTP answers discovery, list and watch, what is written, and whose a token is.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/apis/"), "/api/")
	switch parts := strings.Split(path, "/"); {
	case strings.HasPrefix(r.URL.Path, "/apis/") && len(parts) == 1:
		a.group(w, path)
	case strings.HasPrefix(r.URL.Path, "/apis/") && len(parts) == 2:
		a.resources(w, path)
	case a.isRefused(path):
		status(w, http.StatusForbidden, "Forbidden", "not for you")
	case r.Method == http.MethodPatch:
		a.patch(w, r, path)
	case path == "authentication.k8s.io/v1/tokenreviews":
		a.review(w, r)
	case path == "authorization.k8s.io/v1/subjectaccessreviews":
		a.access(w, r)
	case r.Method == http.MethodPost, r.Method == http.MethodPut:
		a.put(w, r, path)
	case r.Method == http.MethodGet && strings.HasPrefix(path, "v1/namespaces/") && strings.Count(path, "/") == 4:
		a.one(w, path)
	case r.URL.Query().Get("sendInitialEvents") != "":
		status(w, http.StatusUnprocessableEntity, "Invalid", "sendInitialEvents is not known here")
	case r.URL.Query().Get("watch") != "":
		a.watch(w, r, path)
	default:
		a.list(w, path)
	}
}

func (a *API) isRefused(path string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.refused[path]
}

func (a *API) group(w http.ResponseWriter, name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	versions := map[string]bool{}
	for resource := range a.served {
		if r, ok := custom(CustomKinds()[resource]); ok && r.Group == name {
			for _, v := range r.Versions {
				versions[v] = true
			}
		}
	}
	if len(versions) == 0 {
		status(w, http.StatusNotFound, "NotFound", "no such group")
		return
	}
	list := []any{}
	for _, v := range slices.Sorted(maps.Keys(versions)) {
		list = append(list, map[string]any{"groupVersion": name + "/" + v, "version": v})
	}
	answer(w, map[string]any{"kind": "APIGroup", "apiVersion": "v1", "name": name, "versions": list})
}

func (a *API) resources(w http.ResponseWriter, version string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := []any{}
	for resource := range a.served {
		kind := CustomKinds()[resource]
		r, _ := custom(kind)
		if v, ok := strings.CutPrefix(version, r.Group+"/"); ok && slices.Contains(r.Versions, v) {
			list = append(list, map[string]any{"name": resource, "kind": kind, "namespaced": true},
				map[string]any{"name": resource + "/status", "kind": kind, "namespaced": true})
		}
	}
	answer(w, map[string]any{"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": list})
}

func (a *API) list(w http.ResponseWriter, path string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	kind, version := "", path[:strings.LastIndex(path, "/")]
	for _, k := range append(config.Kinds(), webhooksKind, validatorsKind) {
		if PathOf(string(k)) == path {
			kind = string(k)
		}
	}
	if path == definitionsPath {
		kind, version = "PartialObjectMetadata", "meta.k8s.io/v1"
	}
	items := []any{}
	for _, o := range a.objects[path] {
		items = append(items, o)
	}
	resource := path[strings.LastIndex(path, "/")+1:]
	if kind == "" || CustomKinds()[resource] != "" && !a.served[resource] {
		status(w, http.StatusNotFound, "NotFound", "no such resource")
		return
	}
	answer(w, map[string]any{"kind": kind + "List", "apiVersion": version, "metadata": map[string]any{"resourceVersion": strconv.Itoa(a.version)}, "items": items})
}

func (a *API) watch(w http.ResponseWriter, r *http.Request, path string) {
	from, err := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	if err != nil {
		status(w, http.StatusBadRequest, "BadRequest", "from when?")
		return
	}
	a.mu.Lock()
	expired := from < a.oldest
	a.mu.Unlock()
	if expired {
		status(w, http.StatusGone, "Expired", "too old")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.(http.Flusher).Flush()
	for {
		a.mu.Lock()
		news, stopped, expired := a.news, a.server == nil, from < a.oldest
		due := slices.DeleteFunc(slices.Clone(a.past), func(e event) bool { return e.version <= from || e.path != path })
		from = a.version
		a.mu.Unlock()
		if stopped {
			return
		}
		if expired {
			_ = json.NewEncoder(w).Encode(map[string]any{"type": "ERROR", "object": failure(http.StatusGone, "Expired", "too old")})
			return
		}
		for _, e := range due {
			if json.NewEncoder(w).Encode(map[string]any{"type": e.what, "object": e.object}) != nil {
				return
			}
		}
		w.(http.Flusher).Flush()
		select {
		case <-news:
		case <-r.Context().Done():
			return
		}
	}
}

func status(w http.ResponseWriter, code int, reason, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(failure(code, reason, message))
}

func failure(code int, reason, message string) map[string]any {
	return map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message, "code": code}
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}
