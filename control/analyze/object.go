package analyze

import (
	"encoding/json"
	"reflect"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lateen-mesh/lateen/control/config"
)

// A kind is "group/Kind": there are two kinds Gateway.
type kind string

const (
	virtualService        kind = "networking.istio.io/VirtualService"
	destinationRule       kind = "networking.istio.io/DestinationRule"
	gateway               kind = "networking.istio.io/Gateway"
	serviceEntry          kind = "networking.istio.io/ServiceEntry"
	workloadEntry         kind = "networking.istio.io/WorkloadEntry"
	sidecar               kind = "networking.istio.io/Sidecar"
	envoyFilter           kind = "networking.istio.io/EnvoyFilter"
	proxyConfig           kind = "networking.istio.io/ProxyConfig"
	authorizationPolicy   kind = "security.istio.io/AuthorizationPolicy"
	requestAuthentication kind = "security.istio.io/RequestAuthentication"
	telemetryPolicy       kind = "telemetry.istio.io/Telemetry"
	wasmPlugin            kind = "extensions.istio.io/WasmPlugin"

	namespace     kind = "/Namespace"
	node          kind = "/Node"
	pod           kind = "/Pod"
	service       kind = "/Service"
	endpointSlice kind = "discovery.k8s.io/EndpointSlice"
	secret        kind = "/Secret"
	configMap     kind = "/ConfigMap"
	deployment    kind = "apps/Deployment"
	statefulSet   kind = "apps/StatefulSet"
	daemonSet     kind = "apps/DaemonSet"

	mutatingWebhook   kind = "admissionregistration.k8s.io/MutatingWebhookConfiguration"
	validatingWebhook kind = "admissionregistration.k8s.io/ValidatingWebhookConfiguration"
	customResource    kind = "apiextensions.k8s.io/CustomResourceDefinition"
	kubernetesGateway kind = "gateway.networking.k8s.io/Gateway"
	httpRoute         kind = "gateway.networking.k8s.io/HTTPRoute"
	grpcRoute         kind = "gateway.networking.k8s.io/GRPCRoute"
)

// A form says how objects of a kind are read.
type form struct {
	spec    proto.Message // of an Istio kind, an example of the spec
	object  reflect.Type  // of other kinds, the whole object
	cluster bool          // in no namespace
	core    bool          // of Kubernetes itself: a file of the mesh's configuration does not tell of all of them
	stored  bool          // the mesh reads it
}

// forms are all kinds that analyzers look at: those that the mesh reads, and those on which
// its workloads and its own installation depend.
func forms() map[kind]form {
	all := map[kind]form{
		deployment:  {object: reflect.TypeFor[appsv1.Deployment](), core: true},
		statefulSet: {object: reflect.TypeFor[appsv1.StatefulSet](), core: true},
		daemonSet:   {object: reflect.TypeFor[appsv1.DaemonSet](), core: true},

		mutatingWebhook:   {object: reflect.TypeFor[admissionv1.MutatingWebhookConfiguration](), cluster: true},
		validatingWebhook: {object: reflect.TypeFor[admissionv1.ValidatingWebhookConfiguration](), cluster: true},
		customResource:    {object: reflect.TypeFor[metav1.PartialObjectMetadata](), cluster: true},
		kubernetesGateway: {object: reflect.TypeFor[listenerSet]()},
		httpRoute:         {object: reflect.TypeFor[metav1.PartialObjectMetadata]()},
		grpcRoute:         {object: reflect.TypeFor[metav1.PartialObjectMetadata]()},
	}
	for _, r := range config.Resources() {
		all[kind(r.Group+"/"+string(r.Kind))] = form{spec: r.Spec, object: r.Object, cluster: r.Cluster, core: !r.Custom, stored: true}
	}
	return all
}

// A listenerSet is what analyzers read of a Gateway of the Gateway API.
type listenerSet struct {
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Listeners []struct {
			Hostname string `json:"hostname"`
		} `json:"listeners"`
	} `json:"spec"`
}

// An object is one as analyzers see it: also one that the mesh refuses, as far as it can
// be read.
type object struct {
	config.Key
	kind        kind
	labels      map[string]string
	annotations map[string]string
	source      config.Source
	line        func(field string) int // of a field; nil where it was not read from a text
	spec        any                    // an Istio kind's spec, else the whole; nil where it cannot be read
	stored      *config.Config         // as it goes into the mesh, nil for kinds that it does not read
	status      status
	problems    []config.Problem // what the mesh's own validation says
}

// A status is what conditions are read from.
type status struct {
	Conditions []metav1.Condition `json:"conditions"`
	Parents    []struct {
		Conditions []metav1.Condition `json:"conditions"`
	} `json:"parents"`
	Addresses []json.RawMessage `json:"addresses"`
}

func kindOf(apiVersion, name string) kind {
	group, _, found := strings.Cut(apiVersion, "/")
	if !found {
		group = ""
	}
	return kind(group + "/" + name)
}

// read makes an object of a JSON text. It is nil for kinds that no analyzer looks at.
func (m *Mesh) read(text []byte) *object {
	var head struct {
		metav1.TypeMeta
		Metadata metav1.ObjectMeta
		Spec     json.RawMessage
		Status   json.RawMessage
	}
	if json.Unmarshal(text, &head) != nil {
		return nil
	}
	o := &object{kind: kindOf(head.APIVersion, head.Kind), labels: head.Metadata.Labels, annotations: head.Metadata.Annotations,
		Key: config.Key{Kind: config.Kind(head.Kind), Namespace: head.Metadata.Namespace, Name: head.Metadata.Name}}
	f, known := m.forms[o.kind]
	switch {
	case !known:
		return nil
	case f.cluster:
		o.Namespace = ""
	case o.Namespace == "":
		o.Namespace = m.options.Namespace
	}
	head.Metadata.Namespace = o.Namespace
	if json.Unmarshal(head.Status, &o.status) != nil {
		o.status = status{}
	}
	if f.spec != nil {
		o.readSpec(f.spec, head.Spec)
	} else {
		o.readObject(f, text)
	}
	if o.spec != nil && f.stored {
		o.stored = &config.Config{Key: o.Key, APIVersion: head.APIVersion, Labels: o.labels, Annotations: o.annotations,
			CreationTime: head.Metadata.CreationTimestamp.Time, Spec: o.spec}
	}
	return o
}

// readSpec takes what the schema has and leaves the rest to validation.
func (o *object) readSpec(example proto.Message, text []byte) {
	spec := example.ProtoReflect().New().Interface()
	if len(text) == 0 || (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, spec) == nil {
		o.spec = spec
	}
}

func (o *object) readObject(f form, text []byte) {
	whole := reflect.New(f.object).Interface()
	if json.Unmarshal(text, whole) != nil {
		return
	}
	meta := whole.(metav1.Object)
	meta.SetNamespace(o.Namespace)
	if f.stored {
		config.FromObject(o.Key.Kind, meta) // fills in what an API server would
	}
	o.spec = whole
}

// at is where a field of the object is written: "spec.http[0].match".
func (o *object) at(field string) config.Source {
	if o.line == nil || field == "" {
		return o.source
	}
	return config.Source{File: o.source.File, Line: o.line(field)}
}
