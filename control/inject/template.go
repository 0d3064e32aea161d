package inject

import (
	"bytes"
	"fmt"
	"strings"
	"text/template"

	meshconfig "istio.io/api/mesh/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lateen-mesh/lateen/wellknown"
)

// view is what templates see as the dot. Its fields are named as in Istio, whose templates
// users bring.
type view struct {
	TypeMeta                 metav1.TypeMeta   // of the workload
	DeploymentMeta           metav1.ObjectMeta // of the workload
	ObjectMeta               metav1.ObjectMeta // of the pod
	Spec                     corev1.PodSpec    // of the pod
	ProxyConfig              *meshconfig.ProxyConfig
	MeshConfig               *meshconfig.MeshConfig
	Values                   map[string]any
	Revision                 string
	ProxyImage               string
	ProxyUID, ProxyGID       int64
	InboundTrafficPolicyMode string
	CompliancePolicy         string
	NativeSidecars           bool
	EstimatedConcurrency     int
}

// proxyUser is who the proxy is in its container: traffic of this user is its own and is
// not redirected.
const proxyUser = 1337

// maxRendered bounds what one template may make of a pod, in bytes.
const maxRendered = 1 << 20

func (p *injection) view(pod *corev1.Pod) view {
	v := view{
		TypeMeta: p.OwnerType, DeploymentMeta: p.Owner, ObjectMeta: pod.ObjectMeta, Spec: pod.Spec,
		ProxyConfig: p.proxy, MeshConfig: p.Mesh, Values: p.values, Revision: p.Revision,
		ProxyUID: proxyUser, ProxyGID: proxyUser, InboundTrafficPolicyMode: "passthrough", NativeSidecars: p.NativeSidecars,
		EstimatedConcurrency: int(p.proxy.GetConcurrency().GetValue()),
	}
	if p.Mesh.GetInboundTrafficPolicy().GetMode() == meshconfig.MeshConfig_InboundTrafficPolicy_LOCALHOST {
		v.InboundTrafficPolicyMode = "localhost"
	}
	kind := p.proxy.GetImage().GetImageType()
	if said, ok := pod.Annotations[annotationImageType]; ok {
		kind = said
	}
	v.ProxyImage = proxyImage(p.values, p.values.text("global", "proxy", "image"), kind)
	return v
}

// proxyImage is the full name of an image: hub/name:tag-variant, where the name is not full
// itself. Without a tag it is that of this version.
func proxyImage(values map[string]any, name, kind string) string {
	if strings.Contains(name, "/") {
		return name
	}
	t := tree(values)
	tag, hub := t.text("global", "tag"), t.text("global", "hub")
	if tag == "" {
		tag = wellknown.Version()
	}
	if kind == "" {
		kind = t.text("global", "variant")
	}
	if kind != "" && kind != "default" && !strings.HasSuffix(tag, "-"+kind) {
		tag += "-" + kind
	}
	if hub != "" {
		hub += "/"
	}
	return hub + name + ":" + tag
}

func parseTemplate(name, text string) (*template.Template, error) {
	t, err := template.New(name).Funcs(functions()).Parse(text)
	if err != nil {
		return nil, templateError(err)
	}
	return t, nil
}

// render executes a template within its bound.
func render(t *template.Template, v view) ([]byte, error) {
	out := &limited{name: t.Name(), left: maxRendered}
	if err := t.Execute(out, v); err != nil {
		return nil, templateError(err)
	}
	return out.Bytes(), nil
}

// templateError has the name of the template after one word, as other errors here.
func templateError(err error) error {
	return fmt.Errorf("template %s", strings.TrimPrefix(err.Error(), "template: "))
}

// limited is a buffer that takes so many bytes and no more.
type limited struct {
	bytes.Buffer
	name string
	left int
}

// Write fails where there is no room.
func (l *limited) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, fmt.Errorf("%s: it renders too much", l.name)
	}
	return l.Buffer.Write(p)
}
