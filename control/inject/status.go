package inject

import (
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// status is annotation sidecar.istio.io/status: the names of what injection put in.
type status struct {
	InitContainers   []string `json:"initContainers"`
	Containers       []string `json:"containers"`
	Volumes          []string `json:"volumes"`
	ImagePullSecrets []string `json:"imagePullSecrets"`
	Revision         string   `json:"revision"`

	given bool // the pod was injected before
}

func parseStatus(pod *corev1.Pod) (status, error) {
	text, ok := pod.Annotations[annotationStatus]
	if !ok {
		return status{}, nil
	}
	s := status{given: true}
	if text == "" {
		return s, nil
	}
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return s, fmt.Errorf("annotation %s: %w", annotationStatus, err)
	}
	return s, nil
}

// writeStatus says in the pod what the templates have.
func (p *injection) writeStatus() error {
	spec := &p.rendered.Spec
	text, err := json.Marshal(status{
		InitContainers:   namesOf(spec.InitContainers, func(c corev1.Container) string { return c.Name }),
		Containers:       namesOf(spec.Containers, func(c corev1.Container) string { return c.Name }),
		Volumes:          namesOf(spec.Volumes, func(v corev1.Volume) string { return v.Name }),
		ImagePullSecrets: namesOf(spec.ImagePullSecrets, func(r corev1.LocalObjectReference) string { return r.Name }),
		Revision:         p.Revision,
	})
	if err != nil {
		return err
	}
	p.pod.Annotations[annotationStatus] = string(text)
	return nil
}

func namesOf[T any](all []T, name func(T) string) (names []string) {
	for _, one := range all {
		names = append(names, name(one))
	}
	return names
}
