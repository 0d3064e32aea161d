package config

import (
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Encode writes an object as one JSON document that DecodeYAML reads back. It
// has everything, the data of Secrets as well: the caller guards the text.
func Encode(o *Config) ([]byte, error) {
	switch spec := o.Spec.(type) {
	case proto.Message:
		return encodeIstio(o, spec)
	case runtime.Object:
		text, err := json.Marshal(spec)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", o.Key, err)
		}
		return withType(text, o)
	}
	return nil, fmt.Errorf("%s: cannot encode a %T", o.Key, o.Spec)
}

func encodeIstio(o *Config, spec proto.Message) ([]byte, error) {
	body, err := protojson.Marshal(spec)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.Key, err)
	}
	meta := metav1.ObjectMeta{Name: o.Name, Namespace: o.Namespace, Labels: o.Labels, Annotations: o.Annotations,
		CreationTimestamp: metav1.NewTime(o.CreationTime)}
	text, err := json.Marshal(struct {
		Metadata metav1.ObjectMeta `json:"metadata"`
		Spec     json.RawMessage   `json:"spec"`
	}{meta, body})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.Key, err)
	}
	return withType(text, o)
}

// withType sets apiVersion and kind, which objects built in Go often lack.
func withType(text []byte, o *Config) ([]byte, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil {
		return nil, fmt.Errorf("%s: %w", o.Key, err)
	}
	version := o.APIVersion
	for _, k := range kinds() {
		if version == "" && k.kind == o.Kind {
			version = k.apiVersions()[0]
		}
	}
	for name, value := range map[string]string{"apiVersion": version, "kind": string(o.Kind)} {
		quoted, err := json.Marshal(value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", o.Key, err)
		}
		fields[name] = quoted
	}
	return json.Marshal(fields)
}
