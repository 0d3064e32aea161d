package inject

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// templatePaths say where the kinds that have pods keep the form of one.
func templatePaths() map[string][]string {
	template := []string{"spec", "template"}
	return map[string][]string{
		"Pod": {}, "Deployment": template, "DaemonSet": template, "StatefulSet": template, "ReplicaSet": template,
		"ReplicationController": template, "DeploymentConfig": template, "Job": template,
		"CronJob": {"spec", "jobTemplate", "spec", "template"},
	}
}

// Documents injects the pods of YAML or JSON documents, and of the items of Lists, and
// returns the documents as YAML, each closed by a line "---". What has no pods is passed on
// as it is written, in its place. Tell, if not nil, hears in words which pods were left
// alone. The error names the document.
func (s *Settings) Documents(text []byte, base Request, tell func(string)) ([]byte, error) {
	var out bytes.Buffer
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for n := 1; ; n++ {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return out.Bytes(), nil
		}
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", n, err)
		}
		if len(bytes.TrimSpace(document)) == 0 {
			continue
		}
		changed, err := s.document(document, base, tell)
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", n, err)
		}
		out.Write(bytes.TrimRight(changed, "\n"))
		out.WriteString("\n---\n")
	}
}

// document is one, injected, or as it was where it has no pods.
func (s *Settings) document(text []byte, base Request, tell func(string)) ([]byte, error) {
	var object map[string]any
	if err := yaml.Unmarshal(text, &object); err != nil {
		return nil, err
	}
	has, err := s.object(object, base, tell)
	if err != nil || !has {
		return text, err
	}
	return yaml.Marshal(object)
}

// object injects the pods of an object, in place, and says whether it has any.
func (s *Settings) object(object map[string]any, base Request, tell func(string)) (has bool, err error) {
	kind, _ := object["kind"].(string)
	if items, ok := object["items"].([]any); ok && kind == "List" {
		for i, item := range items {
			below, _ := item.(map[string]any)
			has, err := s.object(below, base, tell)
			if err != nil {
				return has, fmt.Errorf("items[%d]: %w", i, err)
			}
		}
		return true, nil
	}
	path, known := templatePaths()[kind]
	if !known {
		return false, nil
	}
	in := object
	for _, key := range path {
		below, ok := in[key].(map[string]any)
		if !ok {
			return false, nil
		}
		in = below
	}
	return true, s.template(object, in, base, tell)
}

// template injects the pod that in is, or is the form of, for the workload object.
func (s *Settings) template(object, in map[string]any, base Request, tell func(string)) error {
	pod, workload := &corev1.Pod{}, metav1.PartialObjectMetadata{}
	if err := convert(in, pod); err != nil {
		return err
	}
	if err := convert(map[string]any{"apiVersion": object["apiVersion"], "kind": object["kind"], "metadata": object["metadata"]}, &workload); err != nil {
		return err
	}
	base.Pod, base.Namespace = pod, workload.Namespace
	if workload.Kind != "Pod" {
		base.OwnerType, base.Owner = workload.TypeMeta, workload.ObjectMeta
	}
	name := workload.Kind + " " + workload.Name
	result, err := s.Inject(base)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if tell != nil {
		for _, line := range slices.Concat(result.Warnings, []string{result.Reason}) {
			if line != "" {
				tell(name + ": " + line)
			}
		}
	}
	if !result.Injected {
		return nil
	}
	var changed map[string]any
	if err := convert(result.Pod, &changed); err != nil {
		return err
	}
	for _, key := range []string{"metadata", "spec"} {
		in[key] = changed[key]
	}
	return nil
}

// convert turns one form of an object into another.
func convert(from, into any) error {
	text, err := json.Marshal(from)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}
