// Package inject puts the proxy into pods.
//
//	Settings (templates, policy, values) ┐
//	MeshConfig + proxy.istio.io/config   ├─► Inject ─► Pod ─► Patch, for the API
//	Pod, its namespace, its owner        ┘
//
// It is one pure function, called by the webhook that istiod serves ([Settings.Review]) and
// by istioctl kube-inject ([Settings.Documents]): no Kubernetes client, no state. What a
// Settings does comes from the two keys of ConfigMap istio-sidecar-injector. Key "config"
// names the templates and the policy; key "values" is a tree that templates read. Users may
// bring both: [Parse] reads Istio's form, and templates have the functions and the fields
// that Istio's have.
//
// A pod is changed in this order:
//
//  1. Required decides whether it is one for the mesh.
//  2. Its annotations are checked; one that cannot be followed is an error that names it.
//  3. Each template of the pod (annotation inject.istio.io/templates, else the default ones)
//     is rendered and merged over the pod as a strategic merge patch.
//  4. What the pod itself says about a container of the template, by giving one of the
//     same name, is merged over that. Image "auto" says nothing.
//  5. Probes of the application are sent to the agent, which asks the application;
//     scrapers are sent to the agent, which merges metrics; containers get their order.
//  6. Annotation sidecar.istio.io/status says what was put in.
//
// Injecting a pod again renders it anew and gives the same pod.
package inject

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	meshconfig "istio.io/api/mesh/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lateen-mesh/lateen/control/config"
)

// Names by which people and tools know what injection writes and reads.
const (
	ConfigMapName = "istio-sidecar-injector" // in the root namespace
	ConfigKey     = "config"                 // of the ConfigMap: templates and policy
	ValuesKey     = "values"                 // of the ConfigMap: what templates read

	ProxyContainer      = "istio-proxy"
	initContainer       = "istio-init"
	validationContainer = "istio-validation"

	labelRevision        = "istio.io/rev"
	labelNetwork         = "topology.istio.io/network"
	labelInject          = "sidecar.istio.io/inject" // an annotation as well
	labelNamespace       = "istio-injection"
	annotationStatus     = "sidecar.istio.io/status"
	annotationTemplates  = "inject.istio.io/templates"
	annotationOverrides  = "proxy.istio.io/overrides"
	annotationConfig     = "proxy.istio.io/config"
	annotationDiscovery  = "sidecar.istio.io/discoveryAddress" // of before there was proxy.istio.io/config
	annotationNative     = "sidecar.istio.io/nativeSidecar"
	annotationImageType  = "sidecar.istio.io/proxyImageType"
	annotationRewrite    = "sidecar.istio.io/rewriteAppHTTPProbers"
	annotationStatusPort = "status.sidecar.istio.io/port"
)

// A Request is one pod and what is known around it. It is not changed.
type Request struct {
	Pod       *corev1.Pod
	Namespace string // of the pod; "" is that of the pod's metadata, else default

	// NamespaceLabels are those of the pod's namespace, nil where they are not known.
	NamespaceLabels map[string]string

	// Owner and OwnerType are the workload that the pod is of. Where OwnerType is empty
	// they are found from the pod's owner reference.
	Owner     metav1.ObjectMeta
	OwnerType metav1.TypeMeta

	Mesh     *meshconfig.MeshConfig // nil is the default
	Objects  *config.Set            // of the mesh, for its ProxyConfigs; nil for none
	Revision string                 // of this control plane; "" is default

	// NativeSidecars makes the proxy an init container that restarts, as Kubernetes 1.33
	// and later run a sidecar: it starts before and ends after the application. A pod's
	// annotation sidecar.istio.io/nativeSidecar has the last word.
	NativeSidecars bool

	// Env are environment variables of the proxy, over those of the templates.
	Env map[string]string
}

// A Result is what became of a pod.
type Result struct {
	Pod      *corev1.Pod // the request's own where it is not Injected
	Injected bool
	Reason   string   // why it is not Injected, in words
	Warnings []string // what the author of the pod should know
}

// Inject puts the proxy into a pod, or says why not. An error means that the pod asks for
// something that cannot be done; it names the annotation or the template.
func (s *Settings) Inject(r Request) (Result, error) {
	r = r.withDefaults()
	if ok, reason, warnings := s.Required(r); !ok {
		return Result{Pod: r.Pod, Reason: reason, Warnings: warnings}, nil
	}
	if err := checkAnnotations(r.Pod); err != nil {
		return Result{}, err
	}
	p, err := s.start(r)
	if err != nil {
		return Result{}, err
	}
	if err := p.merge(); err != nil {
		return Result{}, err
	}
	if err := p.finish(); err != nil {
		return Result{}, err
	}
	return Result{Pod: p.pod, Injected: true, Warnings: p.warnings}, nil
}

func (r Request) withDefaults() Request {
	r.Pod = r.Pod.DeepCopy()
	if r.Mesh == nil {
		r.Mesh = config.DefaultMeshConfig()
	}
	r.Namespace = cmp.Or(r.Namespace, r.Pod.Namespace, metav1.NamespaceDefault)
	r.Revision = cmp.Or(r.Revision, "default")
	if r.OwnerType == (metav1.TypeMeta{}) {
		r.OwnerType, r.Owner = ownerOf(r.Pod)
	}
	r.Owner.Namespace = cmp.Or(r.Owner.Namespace, r.Namespace)
	switch r.Pod.Annotations[annotationNative] {
	case "true":
		r.NativeSidecars = true
	case "false":
		r.NativeSidecars = false
	}
	return r
}

// An injection is one pod on its way.
type injection struct {
	*Settings
	Request
	proxy    *meshconfig.ProxyConfig
	before   status      // what an earlier injection put in, by name
	old      containers  // and its containers
	rendered *corev1.Pod // the templates alone
	pod      *corev1.Pod
	warnings []string
}

// start finds what the pod brings along.
func (s *Settings) start(r Request) (*injection, error) {
	p := &injection{Settings: s, Request: r, rendered: &corev1.Pod{}, pod: r.Pod.DeepCopy()}
	var err error
	if p.before, err = parseStatus(r.Pod); err != nil {
		return nil, err
	}
	if p.proxy, err = proxyConfigOf(r); err != nil {
		return nil, err
	}
	return p, nil
}

// proxyConfigOf is the mesh's ProxyConfig with the ProxyConfig objects of the pod over it,
// and that of its annotation over all.
func proxyConfigOf(r Request) (*meshconfig.ProxyConfig, error) {
	pod, base := r.Pod, r.Mesh.GetDefaultConfig()
	if base == nil {
		base = config.DefaultProxyConfig()
	}
	base = withObjects(base, r)
	proxy, problems := config.OverlayProxyConfig(base, []byte(pod.Annotations[annotationConfig]))
	for _, problem := range problems {
		if problem.Severity == config.Error {
			return nil, fmt.Errorf("annotation %s: %s", annotationConfig, sentence(problem))
		}
	}
	if address := pod.Annotations[annotationDiscovery]; address != "" {
		proxy.DiscoveryAddress = address
	}
	return proxy, nil
}

func sentence(p config.Problem) string {
	if p.Field == "" {
		return p.Message
	}
	return p.Field + ": " + p.Message
}

// finish does to the merged pod what no template can.
func (p *injection) finish() error {
	p.applyEnv()
	if err := p.rewriteProbes(); err != nil {
		return err
	}
	if err := p.mergeMetrics(); err != nil {
		return err
	}
	p.order()
	if p.pod.Annotations == nil {
		p.pod.Annotations = map[string]string{}
	}
	maps.Copy(p.pod.Annotations, p.annotations)
	return p.writeStatus()
}

// applyEnv gives the proxy the environment of the request.
func (p *injection) applyEnv() {
	proxy := findContainer(p.pod, ProxyContainer)
	if proxy == nil {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(p.Env)) {
		setEnv(proxy, name, p.Env[name])
	}
	if network := p.Env["ISTIO_META_NETWORK"]; network != "" {
		if p.pod.Labels == nil {
			p.pod.Labels = map[string]string{}
		}
		p.pod.Labels[labelNetwork] = network
	}
}

func setEnv(c *corev1.Container, name, value string) {
	i := slices.IndexFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == name })
	if i < 0 {
		c.Env = append(c.Env, corev1.EnvVar{Name: name, Value: value})
		return
	}
	c.Env[i] = corev1.EnvVar{Name: name, Value: value}
}

// order puts containers where they work. Rules and proxy come before the init containers of
// the application when the proxy runs through them, else the rules come last: what an init
// container sends before they are there needs no proxy. A proxy beside the application is
// the last container, so that kubectl exec means the application's, unless it must be up
// before.
func (p *injection) order() {
	inits, all := &p.pod.Spec.InitContainers, &p.pod.Spec.Containers
	native := slices.ContainsFunc(*inits, named(ProxyContainer))
	if native {
		toFront(*inits, ProxyContainer)
		toFront(*inits, initContainer)
	} else {
		toBack(*inits, initContainer)
	}
	toFront(*inits, validationContainer)
	if p.holds() {
		toFront(*all, ProxyContainer)
	} else {
		toBack(*all, ProxyContainer)
	}
}

// holds is whether the application waits for its proxy.
func (p *injection) holds() bool {
	if hold := p.proxy.GetHoldApplicationUntilProxyStarts(); hold != nil {
		return hold.GetValue()
	}
	return p.values.boolean("global", "proxy", "holdApplicationUntilProxyStarts")
}

func named(name string) func(corev1.Container) bool {
	return func(c corev1.Container) bool { return c.Name == name }
}

func toFront(all []corev1.Container, name string) {
	if i := slices.IndexFunc(all, named(name)); i > 0 {
		c := all[i]
		copy(all[1:i+1], all[:i])
		all[0] = c
	}
}

func toBack(all []corev1.Container, name string) {
	if i := slices.IndexFunc(all, named(name)); i >= 0 {
		c := all[i]
		copy(all[i:], all[i+1:])
		all[len(all)-1] = c
	}
}

// findContainer is a container or init container by name, nil if there is none.
func findContainer(pod *corev1.Pod, name string) *corev1.Container {
	for _, all := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		if i := slices.IndexFunc(all, named(name)); i >= 0 {
			return &all[i]
		}
	}
	return nil
}
