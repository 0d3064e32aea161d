package dump

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Compare writes how what a control plane sends differs from what a proxy has: for each of
// clusters, listeners and routes that they match, or the difference in unified form.
func Compare(w io.Writer, control, proxy *Dump) error {
	for _, kind := range []struct {
		name string
		of   func(*Dump) (map[string]proto.Message, error)
		when string
	}{
		{"Clusters", dynamicClusters, ""},
		{"Listeners", dynamicListeners, ""},
		{"Routes", dynamicRoutes, proxy.routesLoaded()},
	} {
		sent, err := kind.of(control)
		if err != nil {
			return fmt.Errorf("control plane: %w", err)
		}
		has, err := kind.of(proxy)
		if err != nil {
			return fmt.Errorf("proxy: %w", err)
		}
		difference, err := differ(sent, has)
		if err != nil {
			return err
		}
		if difference == "" {
			fmt.Fprintf(w, "%s Match%s\n", kind.name, kind.when)
			continue
		}
		fmt.Fprintf(w, "%s Don't Match%s\n--- Istiod %s\n+++ Envoy %s\n%s", kind.name, kind.when, kind.name, kind.name, difference)
	}
	return nil
}

func dynamicClusters(d *Dump) (map[string]proto.Message, error) {
	var bodies []*anypb.Any
	for _, c := range slices.Concat(d.clusters.GetDynamicActiveClusters(), d.clusters.GetDynamicWarmingClusters()) {
		bodies = append(bodies, c.GetCluster())
	}
	return byName[*clusterpb.Cluster]("clusters", bodies)
}

func dynamicListeners(d *Dump) (map[string]proto.Message, error) {
	var bodies []*anypb.Any
	for _, l := range d.listeners.GetDynamicListeners() {
		if l.GetWarmingState() != nil {
			bodies = append(bodies, l.GetWarmingState().GetListener())
			continue
		}
		bodies = append(bodies, l.GetActiveState().GetListener())
	}
	return byName[*listenerpb.Listener]("listeners", bodies)
}

func dynamicRoutes(d *Dump) (map[string]proto.Message, error) {
	var bodies []*anypb.Any
	for _, r := range d.routes.GetDynamicRouteConfigs() {
		bodies = append(bodies, r.GetRouteConfig())
	}
	return byName[*routepb.RouteConfiguration]("routes", bodies)
}

func byName[M interface {
	proto.Message
	GetName() string
}](kind string, bodies []*anypb.Any) (map[string]proto.Message, error) {
	list, err := unpack[M](kind, bodies)
	all := map[string]proto.Message{}
	for _, m := range list {
		all[m.GetName()] = m
	}
	return all, err
}

// routesLoaded is when a proxy got its routes, "" where it has none.
func (d *Dump) routesLoaded() string {
	var last time.Time
	for _, r := range d.routes.GetDynamicRouteConfigs() {
		if t := r.GetLastUpdated(); t.IsValid() && t.AsTime().After(last) {
			last = t.AsTime()
		}
	}
	if last.IsZero() {
		return ""
	}
	return " (RDS last loaded at " + last.Local().Format(time.RFC1123) + ")"
}

// differ is the difference of resources by name.
func differ(sent, has map[string]proto.Message) (string, error) {
	names := map[string]bool{}
	for _, list := range []map[string]proto.Message{sent, has} {
		for name := range list {
			names[name] = true
		}
	}
	var out strings.Builder
	for _, name := range slices.Sorted(maps.Keys(names)) {
		a, err := lines(sent[name])
		if err != nil {
			return "", err
		}
		b, err := lines(has[name])
		if err != nil {
			return "", err
		}
		if !slices.Equal(a, b) {
			hunk(&out, name, a, b)
		}
	}
	return out.String(), nil
}

// lines is a resource in JSON; none of none.
func lines(m proto.Message) ([]string, error) {
	if m == nil {
		return nil, nil
	}
	text, err := compact(m)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, text, "", "  "); err != nil {
		return nil, err
	}
	return strings.Split(b.String(), "\n"), nil
}

// around is how many equal lines are shown before and after a difference.
const around = 3

// hunk writes what differs between two texts, from the first such line to the last.
func hunk(w io.Writer, name string, a, b []string) {
	start, end := 0, 0
	for start < min(len(a), len(b)) && a[start] == b[start] {
		start++
	}
	for end < min(len(a), len(b))-start && a[len(a)-1-end] == b[len(b)-1-end] {
		end++
	}
	from, last := max(start-around, 0), min(around, end)
	fmt.Fprintf(w, "@@ -%s +%s @@ %s\n", span(from, len(a)-end+last), span(from, len(b)-end+last), printable(name))
	for _, part := range []struct {
		sign  string
		lines []string
	}{
		{" ", a[from:start]}, {"-", a[start : len(a)-end]}, {"+", b[start : len(b)-end]}, {" ", a[len(a)-end : len(a)-end+last]},
	} {
		for _, line := range part.lines {
			fmt.Fprintln(w, part.sign+line)
		}
	}
}

// span is the place of lines as a unified difference has it.
func span(from, to int) string {
	if to > from {
		from++ // of none it is the line before
		return fmt.Sprintf("%d,%d", from, to-from+1)
	}
	return fmt.Sprintf("%d,0", from)
}
