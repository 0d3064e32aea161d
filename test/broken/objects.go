// Package broken has broken objects of every kind that a control plane reads. Its tests
// have hundreds of them among good ones, for gateways and sidecars, our proxy and a stock
// Envoy: nothing that is good may notice, not after everything was restarted either, and
// whoever looks is told what is wrong with each.
package broken

import (
	_ "embed" // the lists
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/tools/txtar"
)

// An Object is a file that holds a broken object.
type Object struct {
	File string
	Text string
}

//go:embed testdata/objects.txt
var lines string

//go:embed testdata/texts.txtar
var texts []byte

// Objects are n broken objects: one of each class, then another of each, and so on.
func Objects(n int) []Object {
	all := classes()
	list := make([]Object, 0, n)
	for i := range n {
		c, number := all[i%len(all)], strconv.Itoa(1+i/len(all))
		list = append(list, Object{File: strings.ReplaceAll(c.File, "${n}", number), Text: strings.ReplaceAll(c.Text, "${n}", number)})
	}
	return list
}

// groups are the API groups and versions of kinds that are not of networking.istio.io/v1.
func groups(kind string) string {
	switch kind {
	case "EnvoyFilter":
		return "networking.istio.io/v1alpha3"
	case "ProxyConfig":
		return "networking.istio.io/v1beta1"
	case "AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication":
		return "security.istio.io/v1"
	case "Telemetry":
		return "telemetry.istio.io/v1"
	case "WasmPlugin":
		return "extensions.istio.io/v1alpha1"
	case "Service":
		return "v1"
	}
	return "networking.istio.io/v1"
}

// missing is what an object gets that does not say it.
func missing(kind string) []string {
	switch kind {
	case "VirtualService":
		return []string{`hosts: ["NAME.test"]`, `gateways: [default/good, mesh]`}
	case "DestinationRule":
		return []string{`host: "s${n}.good.test"`}
	case "Gateway":
		return []string{`selector: {istio: ingressgateway}`}
	case "ServiceEntry":
		return []string{`hosts: ["NAME.test"]`, `ports: [{number: 80, name: http, protocol: HTTP}]`}
	}
	return nil
}

// phrases are what stands for longer text.
var phrases = strings.NewReplacer(
	"DEST", "route: [{destination: {host: s1.good.test}}]",
	"HERE", "applyTo: HTTP_FILTER, match: {listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager, subFilter: {name: envoy.filters.http.router}}}}}",
	"LONG", strings.Repeat("x", 2<<20),
	"PROGRAM", strings.Repeat("[a-fh-mo-su-zA-FH-MO-SU-Z]{900}", 6),
)

// classes are the templates of all classes.
func classes() []Object {
	var list []Object
	for line := range strings.Lines(lines) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		class, rest, _ := strings.Cut(line, " ")
		kind, spec, _ := strings.Cut(rest, " ")
		list = append(list, object(class, kind, spec))
	}
	for _, f := range txtar.Parse(texts).Files {
		list = append(list, Object{File: strings.Replace(f.Name, ".yaml", "-${n}.yaml", 1), Text: string(f.Data)})
	}
	return list
}

// object is newer than every good one: of two that want the same it is the one that is wrong.
func object(class, kind, spec string) Object {
	name, namespace := class+"-${n}", "default"
	if kind == "EnvoyFilter" {
		namespace, spec = "istio-system", "configPatches: ["+spec+"]"
	}
	for _, m := range missing(kind) {
		field, _, _ := strings.Cut(m, ":")
		if !strings.HasPrefix(spec, field+":") && !strings.Contains(spec, ", "+field+": ") {
			spec = m + ", " + spec
		}
	}
	spec = phrases.Replace(strings.ReplaceAll(spec, "NAME", name))
	return Object{File: name + ".yaml", Text: fmt.Sprintf(`apiVersion: %s
kind: %s
metadata: {name: %s, namespace: %s, creationTimestamp: "2026-05-01T00:00:00Z"}
spec: {%s}
`, groups(kind), kind, name, namespace, spec)}
}
