// Package cluster puts an installation into a Kubernetes API, follows it until it runs, finds
// what is installed, and takes it away.
//
//	install.Installation ─► Apply ─► Wait          Installed ─► Delete
//
// Objects are applied by the server with one field manager, which takes fields over from
// others: what an installation says counts. What is installed is known by the labels of the
// objects alone (install.Selector), so that any client finds it, and an installation by
// another program of ours is found too.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/lateen-mesh/lateen/install"
)

// FieldManager is how the API calls the owner of what is applied.
const FieldManager = "istioctl"

// A Cluster is one Kubernetes API. Its methods may be called from several goroutines.
type Cluster struct {
	config *rest.Config
	typed  kubernetes.Interface
	any    dynamic.Interface
}

// Connect prepares to talk to an API; nothing is sent yet.
func Connect(config *rest.Config) (*Cluster, error) {
	config = rest.CopyConfig(config)
	config.QPS, config.WarningHandler = -1, rest.NoWarnings{}
	typed, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	untyped, err := dynamic.NewForConfig(config)
	return &Cluster{config, typed, untyped}, err
}

// API is a client for what is not about installations.
func (c *Cluster) API() kubernetes.Interface { return c.typed }

// A resource is where the API has the objects of a kind.
type resource struct {
	kind string
	schema.GroupVersionResource
	global bool // of no namespace
}

// resources are all kinds that installations have, in the order of taking them away.
var resources = []resource{
	{"MutatingWebhookConfiguration", schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "mutatingwebhookconfigurations"}, true},
	{"ValidatingWebhookConfiguration", schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingwebhookconfigurations"}, true},
	{"PodDisruptionBudget", schema.GroupVersionResource{Group: "policy", Version: "v1", Resource: "poddisruptionbudgets"}, false},
	{"HorizontalPodAutoscaler", schema.GroupVersionResource{Group: "autoscaling", Version: "v2", Resource: "horizontalpodautoscalers"}, false},
	{"Deployment", schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}, false},
	{"Service", schema.GroupVersionResource{Version: "v1", Resource: "services"}, false},
	{"ConfigMap", schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}, false},
	{"RoleBinding", schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "rolebindings"}, false},
	{"Role", schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "roles"}, false},
	{"ClusterRoleBinding", schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterrolebindings"}, true},
	{"ClusterRole", schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles"}, true},
	{"ServiceAccount", schema.GroupVersionResource{Version: "v1", Resource: "serviceaccounts"}, false},
	{"Namespace", schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}, true},
	{"CustomResourceDefinition", schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}, true},
}

// of is the client for the objects of a kind in a namespace.
func (c *Cluster) of(r resource, namespace string) dynamic.ResourceInterface {
	if r.global {
		return c.any.Resource(r.GroupVersionResource)
	}
	return c.any.Resource(r.GroupVersionResource).Namespace(namespace)
}

func resourceOf(kind string) (resource, error) {
	i := slices.IndexFunc(resources, func(r resource) bool { return r.kind == kind })
	if i < 0 {
		return resource{}, fmt.Errorf("kind %s is none of an installation", kind)
	}
	return resources[i], nil
}

// Apply creates the objects or makes them what they say, in their order. Their namespaces are
// made where they are missing.
func (c *Cluster) Apply(ctx context.Context, objects []*unstructured.Unstructured) error {
	for _, o := range objects {
		r, err := resourceOf(o.GetKind())
		if err != nil {
			return err
		}
		err = c.apply(ctx, r, o)
		if apierrors.IsNotFound(err) && !r.global {
			if err = c.makeNamespace(ctx, o.GetNamespace()); err == nil {
				err = c.apply(ctx, r, o)
			}
		}
		if err != nil {
			return fmt.Errorf("%s %s: %w", o.GetKind(), o.GetName(), err)
		}
	}
	return nil
}

func (c *Cluster) apply(ctx context.Context, r resource, o *unstructured.Unstructured) error {
	_, err := c.of(r, o.GetNamespace()).Apply(ctx, o.GetName(), o, metav1.ApplyOptions{FieldManager: FieldManager, Force: true})
	return err
}

func (c *Cluster) makeNamespace(ctx context.Context, name string) error {
	o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": name}}}
	r, err := resourceOf("Namespace")
	if err != nil {
		return err
	}
	return c.apply(ctx, r, o)
}

// Installed are the objects of installations of a revision, of all with "", in the order of
// taking them away. Namespaces and definitions are not among them: they hold what is the user's.
func (c *Cluster) Installed(ctx context.Context, revision string) ([]*unstructured.Unstructured, error) {
	var all []*unstructured.Unstructured
	for _, r := range resources {
		if r.kind == "Namespace" || r.kind == "CustomResourceDefinition" {
			continue
		}
		list, err := c.of(r, "").List(ctx, metav1.ListOptions{LabelSelector: install.Selector(revision)})
		if apierrors.IsNotFound(err) { // an API without the kind has nothing of it
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list of %s: %w", r.Resource, err)
		}
		for i := range list.Items {
			o := &list.Items[i]
			o.SetKind(r.kind)
			all = append(all, o)
		}
	}
	return all, nil
}

// Delete takes objects away; what has gone already is no error.
func (c *Cluster) Delete(ctx context.Context, objects []*unstructured.Unstructured) error {
	policy := metav1.DeletePropagationBackground
	for _, o := range objects {
		r, err := resourceOf(o.GetKind())
		if err != nil {
			return err
		}
		err = c.of(r, o.GetNamespace()).Delete(ctx, o.GetName(), metav1.DeleteOptions{PropagationPolicy: &policy})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("%s %s: %w", o.GetKind(), o.GetName(), err)
		}
	}
	return nil
}

// Lacks reports whether the API has not the object.
func (c *Cluster) Lacks(ctx context.Context, o *unstructured.Unstructured) (bool, error) {
	r, err := resourceOf(o.GetKind())
	if err != nil {
		return false, err
	}
	_, err = c.of(r, o.GetNamespace()).Get(ctx, o.GetName(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	return false, err
}

// Surplus are those of the objects that an installation does not have.
func Surplus(objects, wanted []*unstructured.Unstructured) []*unstructured.Unstructured {
	return slices.DeleteFunc(slices.Clone(objects), func(o *unstructured.Unstructured) bool {
		return slices.ContainsFunc(wanted, func(w *unstructured.Unstructured) bool {
			return w.GetKind() == o.GetKind() && w.GetName() == o.GetName() && w.GetNamespace() == o.GetNamespace()
		})
	})
}

// engineMap tells, where the API is that of one machine, what its engine has there.
const engineMap = "lateen-engine"

// Local is what the engine of one machine says about itself, nil in a cluster.
func (c *Cluster) Local(ctx context.Context) (*install.Local, error) {
	m, err := c.typed.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, engineMap, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	l := &install.Local{Sockets: m.Data["sockets"], Control: m.Data["control"]}
	for key, port := range map[string]*int{"httpPort": &l.HTTPPort, "httpsPort": &l.HTTPSPort} {
		if m.Data[key] == "" {
			continue
		}
		if *port, err = strconv.Atoi(m.Data[key]); err != nil {
			return nil, fmt.Errorf("ConfigMap %s/%s: %s: %w", metav1.NamespaceSystem, engineMap, key, err)
		}
	}
	if l.Sockets == "" || l.Control == "" {
		return nil, fmt.Errorf("ConfigMap %s/%s: needs sockets and control", metav1.NamespaceSystem, engineMap)
	}
	return l, nil
}

// ErrAway means that no API answered.
var ErrAway = errors.New("the Kubernetes API does not answer")

// Reach asks the API for its version, within a few seconds. The error is ErrAway where nobody
// answers, and says why; a refusal is the API's own.
func (c *Cluster) Reach(ctx context.Context) (version string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	body, err := c.typed.Discovery().RESTClient().Get().AbsPath("/version").Do(ctx).Raw()
	var status apierrors.APIStatus
	if errors.As(err, &status) && status.Status().Code != http.StatusServiceUnavailable {
		return "", err
	}
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrAway, err)
	}
	return gitVersion(body)
}
