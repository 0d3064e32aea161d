package install

import (
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// configure applies the Kubernetes settings of a component to its objects: those that values
// have, and those under k8s over them. The result is what the API will read: whole numbers are int64.
func configure(objects []*unstructured.Unstructured, p piece) error {
	settings := settingsOf(p.view)
	settings = lay(settings, mapping(p.component, "k8s"))
	for _, o := range objects {
		switch o.GetKind() {
		case "Deployment":
			if err := configureDeployment(o.Object, settings, p.view.Autoscaled); err != nil {
				return err
			}
		case "Service":
			service := mapping(settings, "service")
			spec := nested(o.Object, "spec")
			for k, v := range service {
				if _, isGateway := p.view.Settings["type"]; k != "ports" || !isGateway { // a gateway's are rendered already
					spec[k] = laid(spec[k], v)
				}
			}
			annotate(o.Object, mapping(settings, "serviceAnnotations"))
		case "HorizontalPodAutoscaler":
			o.Object["spec"] = laid(o.Object["spec"], settings["hpaSpec"])
		case "PodDisruptionBudget":
			spec := nested(o.Object, "spec")
			if mapping(settings, "podDisruptionBudget")["maxUnavailable"] != nil {
				delete(spec, "minAvailable") // the API takes one of the two
			}
			o.Object["spec"] = laid(spec, settings["podDisruptionBudget"])
		case "ServiceAccount":
			annotate(o.Object, mapping(p.view.Settings, "serviceAccountAnnotations"))
			annotate(o.Object, mapping(p.view.Settings, "serviceAccount", "annotations"))
		}
		if err := normalize(o); err != nil {
			return fmt.Errorf("%s %s: %w", o.GetKind(), o.GetName(), err)
		}
	}
	return nil
}

// settingsOf are the settings under k8s that values say in their own words.
func settingsOf(v view) map[string]any {
	s := map[string]any{}
	for _, k := range []string{"affinity", "nodeSelector", "tolerations", "topologySpreadConstraints", "resources", "replicaCount", "podAnnotations", "serviceAnnotations", "volumes", "volumeMounts", "imagePullPolicy"} {
		if value := v.Settings[k]; !empty(value) {
			s[k] = copied(value)
		}
	}
	for _, k := range []string{"imagePullPolicy", "imagePullSecrets", "priorityClassName"} {
		if value := at(v.Values, "global", k); s[k] == nil && !empty(value) {
			s[k] = copied(value)
		}
	}
	var env []any
	vars := mapping(v.Settings, "env")
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		env = append(env, map[string]any{"name": name, "value": fmt.Sprint(vars[name])})
	}
	s["env"] = env
	service := map[string]any{}
	for _, k := range []string{"loadBalancerIP", "loadBalancerSourceRanges", "loadBalancerClass", "externalTrafficPolicy", "externalIPs", "ipFamilies", "ipFamilyPolicy"} {
		if value := v.Settings[k]; !empty(value) {
			service[k] = copied(value)
		}
	}
	s["service"] = service
	return s
}

func empty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case string:
		return v == ""
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return false
}

// configureDeployment applies settings to a Deployment and its one container.
func configureDeployment(deployment, s map[string]any, autoscaled bool) error {
	spec := nested(deployment, "spec")
	pod := nested(spec, "template", "spec")
	containers, _ := pod["containers"].([]any)
	if len(containers) == 0 {
		return fmt.Errorf("deployment without containers")
	}
	container, _ := containers[0].(map[string]any)
	if n := s["replicaCount"]; n != nil && !autoscaled {
		spec["replicas"] = n
	}
	if !empty(s["strategy"]) {
		spec["strategy"] = laid(spec["strategy"], s["strategy"])
	}
	annotate(nested(spec, "template"), mapping(s, "podAnnotations"))
	for _, k := range []string{"affinity", "nodeSelector", "priorityClassName", "securityContext", "tolerations", "topologySpreadConstraints"} {
		if !empty(s[k]) {
			pod[k] = laid(pod[k], s[k])
		}
	}
	if secrets, ok := s["imagePullSecrets"].([]any); ok && len(secrets) > 0 {
		var named []any
		for _, secret := range secrets {
			if name, ok := secret.(string); ok {
				secret = map[string]any{"name": name}
			}
			named = append(named, secret)
		}
		pod["imagePullSecrets"] = named
	}
	for _, k := range []string{"imagePullPolicy", "readinessProbe", "resources"} {
		if !empty(s[k]) {
			container[k] = laid(container[k], s[k])
		}
	}
	container["env"] = byName(container["env"], s["env"])
	pod["volumes"] = byName(pod["volumes"], s["volumes"])
	container["volumeMounts"] = byName(container["volumeMounts"], s["volumeMounts"])
	for _, owner := range []map[string]any{pod, container} {
		for _, k := range []string{"volumes", "volumeMounts", "env"} {
			if v, there := owner[k]; there && empty(v) {
				delete(owner, k)
			}
		}
	}
	return nil
}

// laid lays one value over another: mappings field by field, all else is replaced.
func laid(lower, upper any) any {
	if upper == nil {
		return lower
	}
	m, ok := upper.(map[string]any)
	if !ok {
		return copied(upper)
	}
	l, _ := lower.(map[string]any)
	return lay(l, m)
}

// byName adds the elements of a list to another; one of the same name takes the place.
func byName(lower, upper any) []any {
	list, _ := lower.([]any)
	more, _ := upper.([]any)
	for _, element := range more {
		m, _ := element.(map[string]any)
		i := slices.IndexFunc(list, func(e any) bool {
			l, _ := e.(map[string]any)
			return l["name"] == m["name"]
		})
		if i >= 0 {
			list[i] = copied(element)
		} else {
			list = append(list, copied(element))
		}
	}
	return list
}

func annotate(o, annotations map[string]any) {
	if len(annotations) == 0 {
		return
	}
	all := nested(o, "metadata", "annotations")
	for k, v := range annotations {
		all[k] = fmt.Sprint(v)
	}
}

// normalize gives an object the types that a decoder of the API gives it.
func normalize(o *unstructured.Unstructured) error {
	text, err := asJSON(o.Object)
	if err != nil {
		return err
	}
	return o.UnmarshalJSON([]byte(text))
}
