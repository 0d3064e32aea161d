package local

import (
	"context"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/lateen-mesh/lateen/control"
)

// maxPages bounds the pages that are shown when a mesh is ready.
const maxPages = 5

// pages are ways into the mesh by its gateways, one for each VirtualService: an address for a browser,
// or a command where the name of the host does not lead here.
func (s *supervisor) pages(ctx context.Context, st Status) []string {
	if s.engine == nil || st.Control == nil {
		return nil
	}
	client, err := dynamic.NewForConfig(apiConfig(s.state.socket("api.sock")))
	if err != nil {
		return nil
	}
	kind := schema.GroupVersionResource{Group: "networking.istio.io", Version: "v1", Resource: "virtualservices"}
	list, err := client.Resource(kind).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil // what it is about is shown elsewhere
	}
	var all []string
	for _, v := range list.Items {
		if page := st.page(v); page != "" && len(all) < maxPages && !slices.Contains(all, page) {
			all = append(all, page)
		}
	}
	return all
}

// page is a way to a VirtualService, "" where no gateway that listens leads to it.
func (s Status) page(v unstructured.Unstructured) string {
	gateways, _, _ := unstructured.NestedStringSlice(v.Object, "spec", "gateways")
	hosts, _, _ := unstructured.NestedStringSlice(v.Object, "spec", "hosts")
	routes, _, _ := unstructured.NestedSlice(v.Object, "spec", "http")
	if len(hosts) == 0 || len(routes) == 0 {
		return ""
	}
	for _, name := range gateways {
		if !strings.Contains(name, "/") {
			name = v.GetNamespace() + "/" + name
		}
		if port := s.portOf(name); port != 0 {
			return address(hosts[0], port, firstPath(routes[0]))
		}
	}
	return ""
}

// portOf is the port of this machine on which a Gateway serves plain HTTP, 0 where there is none.
func (s Status) portOf(gateway string) int {
	for _, p := range s.Control.Proxies {
		for _, l := range p.Listeners {
			if l.Protocol == "HTTP" && slices.Contains(l.Objects, gateway) && !Refused(p, l.Port) {
				if port := s.hostPort(l); port != 0 {
					return port
				}
			}
		}
	}
	return 0
}

// hostPort is the port of this machine behind one of a gateway, 0 where its pod does not publish it.
func (s Status) hostPort(l control.ListenerPort) int {
	if s.Kubeconfig != "" && s.NoPods == "" {
		return s.Published[int(l.Port)]
	}
	return int(l.HostPort)
}

// firstPath is a path that a route takes.
func firstPath(route any) string {
	r, _ := route.(map[string]any)
	matches, _, _ := unstructured.NestedSlice(r, "match")
	if len(matches) == 0 {
		return "/"
	}
	first, _ := matches[0].(map[string]any)
	for _, how := range []string{"exact", "prefix"} {
		if path, ok, _ := unstructured.NestedString(first, "uri", how); ok {
			return path
		}
	}
	return "/"
}

func address(host string, port int, path string) string {
	at := "http://localhost"
	if port != 80 {
		at += fmt.Sprintf(":%d", port)
	}
	if host == "*" {
		return at + path
	}
	host = strings.Replace(host, "*", "any", 1) // *.example.com
	return fmt.Sprintf("curl -H 'Host: %s' %s%s", host, at, path)
}
