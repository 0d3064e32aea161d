package config

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"
)

// Validate says what is wrong with the objects of a text, as `istioctl validate` does: of
// Istio's kinds all that its webhook and its schemas refuse, and of Services what hinders
// the mesh. It is stricter than DecodeYAML, which takes what an API server would have
// taken: a key may not be written twice, ports of Services say their protocol, and
// EnvoyFilters are warned of. What is of no kind, or of one that is not read, is passed
// over, and an object may be there twice. Problems name objects with the namespace as it
// is written; namespace is that of those that name none.
func Validate(namespace, name string, text []byte) []Problem {
	d := decoder{name: name, namespace: namespace, seen: map[Key]int{}, strict: true}
	d.read(text)
	return d.problems
}

// Review judges by the rules of Validate one object that an API server is about to store,
// as JSON. Problems have no place.
func Review(text []byte) []Problem {
	n, err := jsonTree(text)
	if err != nil {
		return []Problem{{Message: err.Error()}}
	}
	d := decoder{namespace: DefaultNamespace, seen: map[Key]int{}, strict: true}
	d.document(n, 0)
	for i := range d.problems {
		d.problems[i].Source = Source{}
	}
	return d.problems
}

// writtenNamespace takes the default namespace out of problems.
func writtenNamespace(problems []Problem, h heading) {
	for i := range problems {
		problems[i].Object.Namespace = h.namespace
	}
}

// advice is what is said of good objects to those who ask.
func advice(o *Config) []Problem {
	r := &report{}
	switch {
	case o.Kind == EnvoyFilter:
		place{r: r}.warnf("patches what proxies get, which may change with any version: prefer other kinds, and take care at upgrades")
	case o.Kind == Service && o.Namespace != DefaultRootNamespace:
		portNames(place{r, "spec"}, o.Spec.(*corev1.Service))
	}
	return r.problems
}

// portNames judges whether the ports of a Service tell what is spoken on them.
func portNames(p place, s *corev1.Service) {
	for i, sp := range s.Spec.Ports {
		at := p.at("ports", i)
		first, _, _ := strings.Cut(sp.Name, "-")
		switch {
		case sp.Protocol == corev1.ProtocolUDP:
		case sp.AppProtocol != nil:
			if *sp.AppProtocol != "" && !speaks(*sp.AppProtocol) {
				at.field("appProtocol").add(Error, didYouMean(*sp.AppProtocol, protocolNames), "%q is not a protocol that the mesh knows", shorten(*sp.AppProtocol))
			}
		case sp.Name == "":
			at.field("name").add(Error, "name it by its protocol: http, grpc-web, tcp-db", "required: an unnamed port does not say what is spoken on it")
		case !speaks(first):
			at.field("name").add(Error, "write tcp-"+shorten(sp.Name)+", or set appProtocol", "%q does not begin with a protocol, as Istio's naming convention has it", shorten(sp.Name))
		}
	}
}

// speaks reports whether a name is one of a protocol.
func speaks(name string) bool {
	others := []string{"http_proxy", "hbone", "double-hbone", "kubernetes.io/h2c", "kubernetes.io/ws", "kubernetes.io/wss"}
	return classify(name) != unknownProtocol || slices.Contains(others, strings.ToLower(name))
}

// judgeUnread recommends the labels by which telemetry names the pods of a Deployment.
// Of other kinds that are not read nothing is said.
func judgeUnread(file string, n *yaml.Node, h heading) []Problem {
	if h.kind != "Deployment" || h.namespace == DefaultRootNamespace {
		return nil
	}
	const field = "spec.template.metadata.labels"
	labels := n
	for name := range strings.SplitSeq(field, ".") {
		if labels = child(labels, name); labels == nil {
			labels = &yaml.Node{Kind: yaml.MappingNode}
		}
	}
	has := func(name string) bool { return child(labels, name) != nil }
	if (has("service.istio.io/canonical-name") || has("app.kubernetes.io/name") || has("app")) &&
		(has("service.istio.io/canonical-revision") || has("app.kubernetes.io/version") || has("version")) {
		return nil
	}
	return []Problem{{Source: Source{file, lineOf(n, field)}, Object: h.key(nil, ""), Field: field, Severity: Warning, Aside: true,
		Hint: "set app and version", Message: "may not provide Istio metrics and telemetry labels"}}
}
