package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	networking "istio.io/api/networking/v1alpha3"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	yamljson "sigs.k8s.io/yaml"
)

// DefaultNamespace is where namespaced objects that name none live.
const DefaultNamespace = "default"

// DecodeYAML reads all objects of a YAML or JSON text; name is how messages call
// the text (a file's path). Objects that have an error are not returned; each
// problem says which one it is about.
func DecodeYAML(name string, text []byte) (objects []*Config, problems []Problem) {
	return DecodeIn(DefaultNamespace, name, text)
}

// DecodeIn is DecodeYAML with another default namespace.
func DecodeIn(namespace, name string, text []byte) (objects []*Config, problems []Problem) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var n yaml.Node
		err := dec.Decode(&n)
		if errors.Is(err, io.EOF) {
			return objects, problems
		}
		if err != nil {
			return objects, append(problems, Problem{Source: Source{File: name, Line: 1}, Message: err.Error()})
		}
		o, err := decodeDocument(namespace, &n)
		if err != nil {
			problems = append(problems, Problem{Source: Source{File: name, Line: n.Line}, Message: err.Error()})
			continue
		}
		o.Source = Source{File: name, Line: n.Line}
		objects = append(objects, o)
	}
}

func decodeDocument(namespace string, n *yaml.Node) (*Config, error) {
	var doc map[string]any
	if err := n.Decode(&doc); err != nil {
		return nil, err
	}
	text, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	var head struct {
		metav1.TypeMeta
		Metadata metav1.ObjectMeta
		Spec     json.RawMessage
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return nil, err
	}
	if head.Metadata.Namespace == "" && Kind(head.Kind) != Namespace {
		head.Metadata.Namespace = namespace
	}
	o := &Config{
		Key:        Key{Kind(head.Kind), head.Metadata.Namespace, head.Metadata.Name},
		APIVersion: head.APIVersion, Labels: head.Metadata.Labels, Annotations: head.Metadata.Annotations,
		CreationTime: head.Metadata.CreationTimestamp.Time,
	}
	istio := map[Kind]proto.Message{VirtualService: &networking.VirtualService{}, DestinationRule: &networking.DestinationRule{},
		Gateway: &networking.Gateway{}, ServiceEntry: &networking.ServiceEntry{}, WorkloadEntry: &networking.WorkloadEntry{}, Sidecar: &networking.Sidecar{}}
	core := map[Kind]any{Namespace: &corev1.Namespace{}, Service: &corev1.Service{}, EndpointSlice: &discoveryv1.EndpointSlice{},
		Secret: &corev1.Secret{}, ConfigMap: &corev1.ConfigMap{}}
	if m := istio[o.Kind]; m != nil {
		o.Spec = m
		return o, protojson.Unmarshal(head.Spec, m)
	}
	if m := core[o.Kind]; m != nil {
		o.Spec = m
		return o, json.Unmarshal(text, m)
	}
	return nil, errors.New("unknown kind " + head.Kind)
}

func decodeMessage(name string, text []byte, m proto.Message) []Problem {
	j, err := yamljson.YAMLToJSON(text)
	if err == nil {
		fresh := m.ProtoReflect().New().Interface()
		if err = protojson.Unmarshal(j, fresh); err == nil {
			proto.Merge(m, fresh)
			return nil
		}
	}
	return []Problem{{Source: Source{File: name, Line: 1}, Message: err.Error()}}
}
